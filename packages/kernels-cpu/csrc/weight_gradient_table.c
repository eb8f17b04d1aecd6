#include "weight_gradient.h"

#ifdef RK_ONCE
int64_t rk_weight_gradient_table_items(const rk_weight_gradient *a) {
    return a->chunks;
}

int64_t rk_weight_gradient_table_scratch(const rk_weight_gradient *a) {
    const rk_shape *s = &a->shape;
    return TABLES * TABLE_ROWS * RK_BLOCK * 4 + 64 * padded_outputs(s) * 4 +
           (taps_of(s) * group_channels(s) + 64) * 8;
}
#endif

void RK_FOR_ISA(rk_weight_gradient_table)(const rk_weight_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t channels = group_channels(s), outputs = group_outputs(s), taps = taps_of(s), per = chunk_size(a);
    float *table = scratch, *panels = table + TABLES * TABLE_ROWS * RK_BLOCK;
    uint64_t *bits = (uint64_t *)(panels + 64 * padded_outputs(s));
    for (int64_t chunk = begin; chunk < end; chunk++) {
        int64_t last = smaller((chunk + 1) * per, positions_of(s));
        float *partial = a->partial + chunk * s->groups * group_laid(s);
        if (chunk * per >= last)
            memset(partial, 0, s->groups * group_laid(s) * sizeof(float));
        for (int64_t from = chunk * per; from < last; from += 64) {
            int64_t rows = smaller(64, last - from);
            for (int64_t group = 0; group < s->groups; group++) {
                lay_panels(a, group, from, rows, panels);
                for (int64_t tap = 0; tap < taps; tap++)
                    for (int64_t at = 0; at < channels; at += 64)
                        turn_bits(s, a->bits, tap, group * channels + at, smaller(64, channels - at), from, rows,
                                  bits + tap * channels + at); /* what is too many is written over, or spare */
                for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                    int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                    float *sums = partial + group * group_laid(s) + taps * channels * first;
#define CALL(units)                                                                                                    \
    add_table(bits, 1, taps * channels, panels + first * rows, rows, table, sums, from == chunk * per, units, RK_FP32)
                    RK_WIDTHS(CALL, width);
#undef CALL
                }
            }
        }
    }
}
