#include "blocks.h"

enum { PIXELS = 64 };

#ifdef RK_ONCE
int64_t rk_input_gradient_items(const rk_input_gradient *a) {
    return divide_up(pixels_of(&a->shape), PIXELS);
}

int64_t rk_input_gradient_scratch(const rk_input_gradient *a) {
    int64_t blocks = divide_up(group_outputs(&a->shape), RK_BLOCK);
    return PIXELS * 64 * RK_UNIT * 4 + RK_BLOCK * 4 + PIXELS * (2 + blocks * taps_of(&a->shape)) * 8;
}
#endif

/* Whether a row of the gradient has a value that is not zero. */
INLINE int any(const float *row, int64_t count) {
    uint32_t found = 0;
    for (int64_t k = 0; k < count; k++) {
        uint32_t word;
        memcpy(&word, row + k, 4);
        found |= word << 1;
    }
    return found != 0;
}

/* For each needed one of 64 channels of a pixel the products of a row of the gradient and one of weights, in 16 parts.
 */
INLINE void add_products(uint64_t needed, const float *grad, const float *panel, float *parts, int units) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    vector row[BLOCK_VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v++)
        row[v] = *(const vector *)(grad + v * LANES);
    for (; needed; needed &= needed - 1, parts += RK_UNIT) {
        const float *weight = panel + (int64_t)__builtin_ctzll(needed) * width;
        vector sum[UNIT_VECTORS];
#pragma GCC unroll 4
        for (int k = 0; k < UNIT_VECTORS; k++)
            sum[k] = *(vector *)(parts + k * LANES);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            sum[v % UNIT_VECTORS] += row[v] * *(const vector *)(weight + v * LANES);
#pragma GCC unroll 4
        for (int k = 0; k < UNIT_VECTORS; k++)
            *(vector *)(parts + k * LANES) = sum[k];
    }
}

INLINE float sum_of_parts(const float *parts) {
    float eight[8], four[4];
    for (int k = 0; k < 8; k++)
        eight[k] = parts[k] + parts[k + 8];
    for (int k = 0; k < 4; k++)
        four[k] = eight[k] + eight[k + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* The output that reads `in` by a tap, or -1. */
INLINE int64_t reader(int64_t in, int64_t offset, int64_t stride, int64_t outputs) {
    int64_t far = in - offset;
    return far < 0 || far % stride || far / stride >= outputs ? -1 : far / stride;
}

/* For every tap and pixel of a tile where the gradient of the position that reads it starts: NULL if there is none, or
 * it is zero in `count` output channels from `first` on. */
INLINE void find_readers(const rk_input_gradient *a, int64_t first, int64_t count, int64_t from, int64_t rows,
                         const float **readers) {
    const rk_shape *s = &a->shape;
    for (int64_t tap = 0; tap < taps_of(s); tap++)
        for (int64_t r = 0; r < rows; r++) {
            int64_t pixel = from + r, line = pixel / s->width;
            int64_t offset_y = tap / s->kernel_x * s->dilation_y - s->pad_y;
            int64_t offset_x = tap % s->kernel_x * s->dilation_x - s->pad_x;
            int64_t y = reader(line % s->height, offset_y, s->stride_y, s->out_height);
            int64_t x = reader(pixel % s->width, offset_x, s->stride_x, s->out_width);
            int64_t at = ((line / s->height * s->out_height + y) * s->out_width + x) * s->out_channels + first;
            readers[tap * PIXELS + r] = y < 0 || x < 0 || !any(a->grad + at, count) ? NULL : a->grad + at;
        }
}

/* One word of channels and one block of `count` output channels. The parts of pixel r start at parts[where[r]], its
 * weights for a tap are `step` values behind those of the tap before. */
INLINE void add_taps(int64_t taps, int64_t rows, const uint64_t *needed, const int64_t *where, const float **readers,
                     int64_t count, const float *panel, int64_t step, float *full, float *parts, int units) {
    for (int64_t tap = 0; tap < taps; tap++, panel += step)
        for (int64_t r = 0; r < rows; r++) {
            const float *grad = readers[tap * PIXELS + r];
            if (!needed[r] || !grad)
                continue;
            if (count < units * RK_UNIT)
                grad = memcpy(full, grad, count * sizeof(float));
            add_products(needed[r], grad, panel, parts + where[r], units);
        }
}

/* Channels [channel, channel + count) of a group, at most 64, for the pixels of a tile. */
INLINE void multiply(const rk_input_gradient *a, int64_t group, int64_t channel, int64_t channels, int64_t from,
                     int64_t rows, const float **readers, uint64_t *needed, int64_t *where, float *full, float *parts) {
    const rk_shape *s = &a->shape;
    int64_t outputs = group_outputs(s), used = 0, offset = group * group_channels(s) + channel;
    for (int64_t r = 0; r < rows; r++) {
        needed[r] = pixel_bits(s, a->needed, from + r, offset, channels);
        where[r] = used;
        used += __builtin_popcountll(needed[r]) * RK_UNIT;
    }
    memset(parts, 0, used * sizeof(float));
    for (int64_t first = 0; first < outputs; first += RK_BLOCK, readers += taps_of(s) * PIXELS) {
        int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first), count = smaller(width, outputs - first);
        const float *panel = a->weight + group * group_laid(s) + columns_of(s) * first + channel * width;
        memset(full, 0, RK_BLOCK * sizeof(float));
#define CALL(units)                                                                                                    \
    add_taps(taps_of(s), rows, needed, where, readers, count, panel, group_channels(s) * width, full, parts, units)
        RK_WIDTHS(CALL, width);
#undef CALL
    }
    for (int64_t r = 0; r < rows; r++) {
        float *to = a->input_grad + (from + r) * s->channels + offset;
        for (uint64_t left = needed[r]; left; left &= left - 1, parts += RK_UNIT)
            to[__builtin_ctzll(left)] = sum_of_parts(parts);
    }
}

void RK_FOR_ISA(rk_input_gradient)(const rk_input_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t channels = group_channels(s), outputs = group_outputs(s);
    float *parts = scratch, *full = parts + PIXELS * 64 * RK_UNIT;
    uint64_t *needed = (uint64_t *)(full + RK_BLOCK);
    int64_t *where = (int64_t *)(needed + PIXELS);
    const float **readers = (const float **)(where + PIXELS);
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * PIXELS, rows = smaller(PIXELS, pixels_of(s) - from);
        memset(a->input_grad + from * s->channels, 0, rows * s->channels * sizeof(float));
        for (int64_t group = 0; group < s->groups; group++) {
            for (int64_t first = 0; first < outputs; first += RK_BLOCK)
                find_readers(a, group * outputs + first, smaller(RK_BLOCK, outputs - first), from, rows,
                             readers + first / RK_BLOCK * taps_of(s) * PIXELS);
            for (int64_t channel = 0; channel < channels; channel += 64)
                multiply(a, group, channel, smaller(64, channels - channel), from, rows, readers, needed, where, full,
                         parts);
        }
    }
}
