/* What both kernels of the weight gradient share: their items, and the rows of grad as panels. */
#ifndef RHEOBASE_KERNELS_WEIGHT_GRADIENT_H
#define RHEOBASE_KERNELS_WEIGHT_GRADIENT_H

#include "blocks.h"

enum { PART = 9 }; /* pieces of an item */

/* A run of positions, and some pieces of the columns of a group. */
typedef struct {
    int64_t begin, end;         /* positions */
    int64_t group, first, last; /* pieces first <= piece < last */
    float *sums;                /* of the group and chunk: laid, its other rows belong to other items */
} part;

INLINE int64_t parts_of(const rk_shape *s) {
    return s->groups * divide_up(pieces_of(s), PART);
}

INLINE part part_at(const rk_weight_gradient *a, int64_t item) {
    const rk_shape *s = &a->shape;
    int64_t chunk = item / parts_of(s), rest = item % parts_of(s), of_group = parts_of(s) / s->groups;
    int64_t positions = positions_of(s), per = divide_up(divide_up(positions, a->chunks), 256) * 256;
    part p;
    p.begin = smaller(chunk * per, positions);
    p.end = smaller(p.begin + per, positions);
    p.group = rest / of_group;
    p.first = rest % of_group * PART;
    p.last = smaller(p.first + PART, pieces_of(s));
    p.sums = a->partial + (chunk * s->groups + p.group) * group_laid(s);
    return p;
}

/* Where the sums of a piece start, for the block from output channel `first` on. */
INLINE float *sums_at(const rk_shape *s, const part *p, int64_t piece, int64_t first, int64_t width) {
    return p->sums + columns_of(s) * first + 64 * piece * width;
}

/* Positions [from, from + rows) of the group's gradient: blocks of 64 output channels, each [rows][width]; the block
 * from output channel `first` on starts at panels + first * rows. */
INLINE void lay_panels(const rk_weight_gradient *a, const part *p, int64_t from, int64_t rows, float *panels) {
    const rk_shape *s = &a->shape;
    int64_t outputs = group_outputs(s);
    for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
        int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first), count = smaller(RK_BLOCK, outputs - first);
        float *to = panels + first * rows;
        const float *grad = a->grad + from * s->out_channels + p->group * outputs + first;
        for (int64_t r = 0; r < rows; r++, to += width, grad += s->out_channels) {
            memcpy(to, grad, count * sizeof(float));
            memset(to + count, 0, (width - count) * sizeof(float));
        }
    }
}

/* Of an item without positions the sums are zero. */
INLINE void clear(const rk_shape *s, const part *p) {
    for (int64_t first = 0; first < group_outputs(s); first += RK_BLOCK)
        for (int64_t piece = p->first; piece < p->last; piece++) {
            int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first);
            memset(sums_at(s, p, piece, first, width), 0, piece_size(s, piece) * width * sizeof(float));
        }
}

#endif
