#include "blocks.h"
#include "finish.h"

/* Words of a tile's bits of one group: [positions][ky][kx][words]. */
INLINE int64_t pieces_of(const rk_shape *s) {
    return taps_of(s) * group_words(s);
}

enum { PIECES = 2 }; /* whose rows of 64 channels stay in the first-level cache */

#ifdef RK_ONCE
int64_t rk_forward_events_items(const rk_forward *a) {
    return divide_up(positions_of(&a->shape), a->tile);
}

int64_t rk_forward_events_scratch(const rk_forward *a) {
    return a->tile * (RK_BLOCK * 4 + pieces_of(&a->shape) * 8);
}
#endif

INLINE void multiply(const rk_shape *s, const uint64_t *bits, int64_t rows, const void *panel, float *sums, int units,
                     int format) {
    int64_t pieces = pieces_of(s), words = group_words(s), channels = group_channels(s);
    for (int64_t first = 0; first < pieces; first += PIECES) {
        int64_t base[PIECES], count = smaller(PIECES, pieces - first);
        for (int64_t k = 0; k < count; k++)
            base[k] = (first + k) / words * channels + (first + k) % words * 64;
        add_events(bits + first, pieces, 1, rows, count, panel, base, sums, first == 0, units, format);
    }
}

void RK_FOR_ISA(rk_forward_events)(const rk_forward *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t words = group_words(s), pieces = pieces_of(s), channels = group_channels(s), outputs = group_outputs(s);
    float *sums = scratch;
    uint64_t *bits = (uint64_t *)(sums + a->tile * RK_BLOCK);
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * a->tile, rows = smaller(a->tile, positions_of(s) - from);
        for (int64_t group = 0; group < s->groups; group++) {
            for (int64_t piece = 0; piece < pieces; piece++) {
                int64_t tap = piece / words, at = piece % words * 64;
                gather(s, a->bits, tap / s->kernel_x, tap % s->kernel_x, group * channels + at,
                       smaller(64, channels - at), from, rows, bits + piece, pieces);
            }
            for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                int64_t where = group * group_laid(s) + taps_of(s) * channels * first;
                const void *panel = weights_from(a->weight, where, (int)a->format);
#define CALL(units)                                                                                                    \
    if (a->format == RK_BF16)                                                                                          \
        multiply(s, bits, rows, panel, sums, units, RK_BF16);                                                          \
    else                                                                                                               \
        multiply(s, bits, rows, panel, sums, units, RK_FP32)
                RK_WIDTHS(CALL, width);
#undef CALL
                finish(a, group * outputs + first, smaller(RK_BLOCK, outputs - first), from, rows, sums, width);
            }
        }
    }
}
