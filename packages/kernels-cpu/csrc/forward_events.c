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

INLINE void multiply(const uint64_t *bits, int64_t pieces, int64_t rows, const float *panel, float *sums, int units) {
    for (int64_t piece = 0; piece < pieces; piece += PIECES)
        add_events(bits + piece, pieces, 1, rows, smaller(PIECES, pieces - piece), panel + 64 * piece * units * RK_UNIT,
                   sums, piece == 0, units);
}

void RK_FOR_ISA(rk_forward_events)(const rk_forward *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t pieces = pieces_of(s), outputs = group_outputs(s);
    float *sums = scratch;
    uint64_t *bits = (uint64_t *)(sums + a->tile * RK_BLOCK);
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * a->tile, rows = smaller(a->tile, positions_of(s) - from);
        for (int64_t group = 0; group < s->groups; group++) {
            for (int64_t piece = 0; piece < pieces; piece++)
                gather(s, a->bits, group, piece, from, rows, bits + piece, pieces);
            for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                const float *panel = a->weight + group * group_laid(s) + columns_of(s) * first;
#define CALL(units) multiply(bits, pieces, rows, panel, sums, units)
                RK_WIDTHS(CALL, width);
#undef CALL
                finish(a, group * outputs + first, smaller(RK_BLOCK, outputs - first), from, rows, sums, width);
            }
        }
    }
}
