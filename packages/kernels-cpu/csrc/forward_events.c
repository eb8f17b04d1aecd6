#include "blocks.h"
#include "finish.h"

enum { PIECES = 2 }; /* words of bits whose rows of 64 channels are added at a time */

#ifdef RK_ONCE
int64_t rk_forward_events_items(const rk_forward *a) {
    return divide_up(positions_of(&a->shape), a->tile);
}

int64_t rk_forward_events_scratch(const rk_forward *a) {
    return a->tile * (RK_BLOCK * 4 + pieces_of(&a->shape) * 8);
}
#endif

INLINE void multiply(const rk_shape *s, const uint64_t *bits, int64_t rows, const float *panel, float *sums,
                     int units) {
    int64_t pieces = pieces_of(s), words = group_words(s), channels = group_channels(s);
    for (int64_t first = 0; first < pieces; first += PIECES) {
        int64_t base[PIECES], count = smaller(PIECES, pieces - first);
        for (int64_t k = 0; k < count; k++)
            base[k] = (first + k) / words * channels + (first + k) % words * 64;
        add_events(bits + first, pieces, 1, rows, count, panel, base, sums, first == 0, units);
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
                int64_t at = piece % words * 64;
                gather(s, a->bits, piece / words, group * channels + at, smaller(64, channels - at), from, rows,
                       bits + piece, pieces);
            }
            for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                const float *panel = a->weight + group * group_laid(s) + taps_of(s) * channels * first;
#define CALL(units) multiply(s, bits, rows, panel, sums, units)
                RK_WIDTHS(CALL, width);
#undef CALL
                finish(a, group * outputs + first, smaller(RK_BLOCK, outputs - first), from, rows, sums, width);
            }
        }
    }
}
