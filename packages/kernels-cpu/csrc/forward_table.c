#include "blocks.h"
#include "finish.h"

#ifdef RK_ONCE
int64_t rk_forward_table_items(const rk_forward *a) {
    return divide_up(positions_of(&a->shape), a->tile);
}

int64_t rk_forward_table_scratch(const rk_forward *a) {
    return a->tile * (RK_BLOCK * 4 + 8) + TABLE_SIZE * 4;
}
#endif

INLINE void multiply(const uint64_t *bits, int64_t rows, const float *panel, int64_t columns, float *tables,
                     float *sums, int fresh, int units) {
    build_tables(panel, columns, tables, units);
    add_entries(bits, rows, tables, sums, fresh, units);
}

void RK_FOR_ISA(rk_forward_table)(const rk_forward *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t outputs = group_outputs(s);
    float *tables = scratch, *sums = tables + TABLE_SIZE;
    uint64_t *bits = (uint64_t *)(sums + a->tile * RK_BLOCK);
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * a->tile, rows = smaller(a->tile, positions_of(s) - from);
        for (int64_t group = 0; group < s->groups; group++)
            for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                const float *panel = a->weight + group * group_laid(s) + columns_of(s) * first;
                for (int64_t piece = 0; piece < pieces_of(s); piece++) {
                    gather(s, a->bits, group, piece, from, rows, bits, 1);
#define CALL(units)                                                                                                    \
    multiply(bits, rows, panel + 64 * piece * width, piece_size(s, piece), tables, sums, piece == 0, units)
                    RK_WIDTHS(CALL, width);
#undef CALL
                }
                finish(a, group * outputs + first, smaller(RK_BLOCK, outputs - first), from, rows, sums, width);
            }
    }
}
