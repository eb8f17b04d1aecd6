/* Sums of a block of output channels to where the output lies. */
#ifndef RHEOBASE_KERNELS_FINISH_H
#define RHEOBASE_KERNELS_FINISH_H

#include "bits.h"

/* Write output channels [first, first + count) of `rows` positions; a row of sums is `width` values long. */
INLINE void finish(const rk_forward *a, int64_t first, int64_t count, int64_t from, int64_t rows, const float *sums,
                   int64_t width) {
    int64_t outputs = a->shape.out_channels;
    for (int64_t r = 0; r < rows; r++) {
        float *to = a->out + (from + r) * outputs + first;
        const float *sum = sums + r * width;
        if (a->bias)
            for (int64_t c = 0; c < count; c++)
                to[c] = sum[c] + a->bias[first + c];
        else
            memcpy(to, sum, count * sizeof(float));
    }
}

#endif
