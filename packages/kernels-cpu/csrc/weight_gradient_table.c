#include "weight_gradient.h"

#ifdef RK_ONCE
int64_t rk_weight_gradient_table_items(const rk_weight_gradient *a) {
    return a->chunks * parts_of(&a->shape);
}

int64_t rk_weight_gradient_table_scratch(const rk_weight_gradient *a) {
    return TABLE_SIZE * 4 + 64 * padded_outputs(&a->shape) * 4 + PART * 64 * 8;
}
#endif

INLINE void multiply(const rk_shape *s, const part *p, const uint64_t *bits, const float *panel, int64_t rows,
                     float *tables, int64_t first, int fresh, int units) {
    build_tables(panel, rows, tables, units);
    for (int64_t piece = p->first; piece < p->last; piece++)
        add_entries(bits + 64 * (piece - p->first), piece_size(s, piece), tables,
                    sums_at(s, p, piece, first, units * RK_UNIT), fresh, units);
}

void RK_FOR_ISA(rk_weight_gradient_table)(const rk_weight_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    float *tables = scratch, *panels = tables + TABLE_SIZE;
    uint64_t *bits = (uint64_t *)(panels + 64 * padded_outputs(s));
    for (int64_t item = begin; item < end; item++) {
        const part p = part_at(a, item);
        if (p.begin == p.end)
            clear(s, &p);
        for (int64_t from = p.begin; from < p.end; from += 64) {
            int64_t rows = smaller(64, p.end - from);
            lay_panels(a, &p, from, rows, panels);
            for (int64_t piece = p.first; piece < p.last; piece++)
                gather_turned(s, a->bits, p.group, piece, from, rows, bits + 64 * (piece - p.first));
            for (int64_t first = 0; first < group_outputs(s); first += RK_BLOCK) {
                int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
#define CALL(units) multiply(s, &p, bits, panels + first * rows, rows, tables, first, from == p.begin, units)
                RK_WIDTHS(CALL, width);
#undef CALL
            }
        }
    }
}
