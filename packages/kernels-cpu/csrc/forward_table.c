#include "blocks.h"
#include "finish.h"

#ifdef RK_ONCE
int64_t rk_forward_table_items(const rk_forward *a) {
    return divide_up(positions_of(&a->shape), a->tile);
}

int64_t rk_forward_table_scratch(const rk_forward *a) {
    return a->tile * (RK_BLOCK * 4 + 8) + TABLES * TABLE_ROWS * RK_BLOCK * 4 + 64;
}
#endif

void RK_FOR_ISA(rk_forward_table)(const rk_forward *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t words = group_words(s), pieces = taps_of(s) * words, channels = group_channels(s);
    int64_t outputs = group_outputs(s);
    float *table = scratch, *sums = table + TABLES * TABLE_ROWS * RK_BLOCK;
    uint64_t *bits = (uint64_t *)(sums + a->tile * RK_BLOCK);
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * a->tile, rows = smaller(a->tile, positions_of(s) - from);
        for (int64_t group = 0; group < s->groups; group++)
            for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                int64_t where = group * group_laid(s) + taps_of(s) * channels * first;
                const void *panel = weights_from(a->weight, where, (int)a->format);
                for (int64_t piece = 0; piece < pieces; piece++) {
                    int64_t tap = piece / words, at = piece % words * 64, count = smaller(64, channels - at);
                    const void *part = weights_from(panel, (tap * channels + at) * width, (int)a->format);
                    gather(s, a->bits, tap / s->kernel_x, tap % s->kernel_x, group * channels + at, count, from, rows,
                           bits, 1);
#define CALL(units)                                                                                                    \
    if (a->format == RK_BF16)                                                                                          \
        add_table(bits, 1, rows, part, count, table, sums, piece == 0, units, RK_BF16);                                \
    else                                                                                                               \
        add_table(bits, 1, rows, part, count, table, sums, piece == 0, units, RK_FP32)
                    RK_WIDTHS(CALL, width);
#undef CALL
                }
                finish(a, group * outputs + first, smaller(RK_BLOCK, outputs - first), from, rows, sums, width);
            }
    }
}
