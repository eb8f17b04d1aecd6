#include "weight_gradient.h"

enum { WORDS = RUN / 64, PIECES = 2 };

#ifdef RK_ONCE
int64_t rk_weight_gradient_events_items(const rk_weight_gradient *a) {
    return a->chunks;
}

int64_t rk_weight_gradient_events_scratch(const rk_weight_gradient *a) {
    return RUN * padded_outputs(&a->shape) * 4 + WORDS * 64 * 8;
}
#endif

INLINE void add_run(const uint64_t *bits, int64_t words, int64_t channels, const float *panel, float *sums, int fresh,
                    int units) {
    static const int64_t base[] = {0, 64};
    for (int64_t first = 0; first < words; first += PIECES)
        add_events(bits + first * 64, 1, 64, channels, smaller(PIECES, words - first),
                   panel + first * 64 * units * RK_UNIT, base, sums, fresh && first == 0, units, RK_FP32);
}

void RK_FOR_ISA(rk_weight_gradient_events)(const rk_weight_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t channels = group_channels(s), outputs = group_outputs(s), per = chunk_size(a);
    float *panels = scratch;
    uint64_t *bits = (uint64_t *)(panels + RUN * padded_outputs(s));
    for (int64_t chunk = begin; chunk < end; chunk++) {
        int64_t last = smaller((chunk + 1) * per, positions_of(s));
        float *partial = a->partial + chunk * s->groups * group_laid(s);
        if (chunk * per >= last)
            memset(partial, 0, s->groups * group_laid(s) * sizeof(float));
        for (int64_t from = chunk * per; from < last; from += RUN) {
            int64_t rows = smaller(RUN, last - from), words = divide_up(rows, 64);
            for (int64_t group = 0; group < s->groups; group++) {
                lay_panels(a, group, from, rows, panels);
                for (int64_t at = 0; at < channels; at += 64)
                    for (int64_t tap = 0; tap < taps_of(s); tap++) {
                        int64_t count = smaller(64, channels - at);
                        for (int64_t w = 0; w < words; w++)
                            turn_bits(s, a->bits, tap, group * channels + at, count, from + 64 * w,
                                      smaller(64, rows - 64 * w), bits + 64 * w);
                        for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                            int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                            float *sums = partial + group * group_laid(s) + taps_of(s) * channels * first +
                                          (tap * channels + at) * width;
#define CALL(units) add_run(bits, words, count, panels + first * rows, sums, from == chunk * per, units)
                            RK_WIDTHS(CALL, width);
#undef CALL
                        }
                    }
            }
        }
    }
}
