/* What both kernels of the weight gradient share: runs of positions, and the rows of grad as panels. */
#ifndef RHEOBASE_KERNELS_WEIGHT_GRADIENT_H
#define RHEOBASE_KERNELS_WEIGHT_GRADIENT_H

#include "blocks.h"

enum { RUN = 256 };

INLINE int64_t chunk_size(const rk_weight_gradient *a) {
    return divide_up(divide_up(positions_of(&a->shape), a->chunks), RUN) * RUN;
}

/* Positions [from, from + rows) of one group's gradient: blocks of 64 output channels, each [rows][width]; block b
 * starts at panels + 64 b * rows. */
INLINE void lay_panels(const rk_weight_gradient *a, int64_t group, int64_t from, int64_t rows, float *panels) {
    const rk_shape *s = &a->shape;
    int64_t outputs = group_outputs(s);
    for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
        int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first), count = smaller(RK_BLOCK, outputs - first);
        float *to = panels + first * rows;
        const float *grad = a->grad + from * s->out_channels + group * outputs + first;
        for (int64_t r = 0; r < rows; r++, to += width, grad += s->out_channels) {
            memcpy(to, grad, count * sizeof(float));
            memset(to + count, 0, (width - count) * sizeof(float));
        }
    }
}

#endif
