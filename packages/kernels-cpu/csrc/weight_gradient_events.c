#include "weight_gradient.h"

enum { RUN = 256, PIECES = 2 }; /* positions that are laid, and words of them that are added at a time */

#ifdef RK_ONCE
int64_t rk_weight_gradient_events_items(const rk_weight_gradient *a) {
    return a->chunks * parts_of(&a->shape);
}

int64_t rk_weight_gradient_events_scratch(const rk_weight_gradient *a) {
    return RUN * padded_outputs(&a->shape) * 4 + RUN * 8;
}
#endif

INLINE void multiply(const uint64_t *bits, int64_t words, int64_t columns, const float *panel, float *sums, int fresh,
                     int units) {
    for (int64_t first = 0; first < words; first += PIECES)
        add_events(bits + first * 64, 1, 64, columns, smaller(PIECES, words - first),
                   panel + first * 64 * units * RK_UNIT, sums, fresh && first == 0, units);
}

void RK_FOR_ISA(rk_weight_gradient_events)(const rk_weight_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    float *panels = scratch;
    uint64_t *bits = (uint64_t *)(panels + RUN * padded_outputs(s));
    for (int64_t item = begin; item < end; item++) {
        const part p = part_at(a, item);
        if (p.begin == p.end)
            clear(s, &p);
        for (int64_t from = p.begin; from < p.end; from += RUN) {
            int64_t rows = smaller(RUN, p.end - from);
            lay_panels(a, &p, from, rows, panels);
            for (int64_t piece = p.first; piece < p.last; piece++) {
                int64_t columns = piece_size(s, piece);
                for (int64_t w = 0; w < rows; w += 64)
                    gather_turned(s, a->bits, p.group, piece, from + w, smaller(64, rows - w), bits + w);
                for (int64_t first = 0; first < group_outputs(s); first += RK_BLOCK) {
                    int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
                    float *sums = sums_at(s, &p, piece, first, width);
#define CALL(units) multiply(bits, divide_up(rows, 64), columns, panels + first * rows, sums, from == p.begin, units)
                    RK_WIDTHS(CALL, width);
#undef CALL
                }
            }
        }
    }
}
