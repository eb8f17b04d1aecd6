#include "blocks.h"

enum { PIXELS = 64 };

#ifdef RK_ONCE
int64_t rk_input_gradient_items(const rk_input_gradient *a) {
    return divide_up(pixels_of(&a->shape), PIXELS);
}

int64_t rk_input_gradient_scratch(const rk_input_gradient *a) {
    return PIXELS * group_channels(&a->shape) * RK_UNIT * 4 + PIXELS * (divide_up(group_channels(&a->shape), 64) + 2) * 8 + RK_BLOCK * 4;
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

/* For each needed channel of a pixel the products of one row of the gradient and one row of weights, in 16 parts. */
INLINE void add_products(const uint64_t *needed, int64_t words, const float *grad, const float *panel, float *parts,
                         int units) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    vector row[BLOCK_VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v++)
        row[v] = *(const vector *)(grad + v * LANES);
    for (int64_t w = 0; w < words; w++)
        for (uint64_t left = needed[w]; left; left &= left - 1, parts += RK_UNIT) {
            const float *weight = panel + (64 * w + __builtin_ctzll(left)) * width;
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
    float sum[RK_UNIT];
    memcpy(sum, parts, sizeof sum);
    for (int half = RK_UNIT / 2; half; half /= 2)
        for (int k = 0; k < half; k++)
            sum[k] += sum[k + half];
    return sum[0];
}

/* The output that reads `in` by a tap, or -1. */
INLINE int64_t reader(int64_t in, int64_t offset, int64_t stride, int64_t outputs) {
    int64_t far = in - offset;
    return far < 0 || far % stride || far / stride >= outputs ? -1 : far / stride;
}

/* One tap and one block of output channels, for `rows` pixels; parts of pixel r start at where[r]. */
INLINE void add_tap(const rk_shape *s, const float *grads, int64_t count, int64_t tap, int64_t from, int64_t rows,
                    const uint64_t *needed, const int64_t *where, const float *panel, float *full, float *parts,
                    int units) {
    int64_t words = divide_up(group_channels(s), 64), ky = tap / s->kernel_x, kx = tap % s->kernel_x;
    for (int64_t r = 0; r < rows; r++) {
        if (where[r] == where[r + 1])
            continue;
        int64_t pixel = from + r, line = pixel / s->width;
        int64_t y = reader(line % s->height, ky * s->dilation_y - s->pad_y, s->stride_y, s->out_height);
        int64_t x = reader(pixel % s->width, kx * s->dilation_x - s->pad_x, s->stride_x, s->out_width);
        if (y < 0 || x < 0)
            continue;
        const float *grad = grads + ((line / s->height * s->out_height + y) * s->out_width + x) * s->out_channels;
        if (!any(grad, count))
            continue;
        if (count < units * RK_UNIT)
            grad = memcpy(full, grad, count * sizeof(float));
        add_products(needed + r * words, words, grad, panel, parts + where[r], units);
    }
}

void RK_FOR_ISA(rk_input_gradient)(const rk_input_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t channels = group_channels(s), outputs = group_outputs(s), words = divide_up(group_channels(s), 64);
    float *parts = scratch, *full = parts + PIXELS * channels * RK_UNIT;
    uint64_t *needed = (uint64_t *)(full + RK_BLOCK);
    int64_t *where = (int64_t *)(needed + PIXELS * words);
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * PIXELS, rows = smaller(PIXELS, pixels_of(s) - from);
        memset(a->input_grad + from * s->channels, 0, rows * s->channels * sizeof(float));
        for (int64_t group = 0; group < s->groups; group++) {
            where[0] = 0;
            for (int64_t r = 0; r < rows; r++) {
                where[r + 1] = where[r];
                for (int64_t w = 0; w < words; w++) {
                    uint64_t found = pixel_bits(s, a->needed, from + r, group * channels + 64 * w,
                                                smaller(64, channels - 64 * w));
                    needed[r * words + w] = found;
                    where[r + 1] += __builtin_popcountll(found) * RK_UNIT;
                }
            }
            memset(parts, 0, where[rows] * sizeof(float));
            for (int64_t first = 0; first < outputs; first += RK_BLOCK) {
                int64_t width = smaller(RK_BLOCK, padded_outputs(s) - first), count = smaller(width, outputs - first);
                const float *grads = a->grad + group * outputs + first;
                memset(full, 0, RK_BLOCK * sizeof(float));
                for (int64_t tap = 0; tap < taps_of(s); tap++) {
                    const float *panel =
                        a->weight + group * group_laid(s) + columns_of(s) * first + tap * channels * width;
#define CALL(units) add_tap(s, grads, count, tap, from, rows, needed, where, panel, full, parts, units)
                    RK_WIDTHS(CALL, width);
#undef CALL
                }
            }
            for (int64_t r = 0; r < rows; r++) {
                const float *part = parts + where[r];
                float *to = a->input_grad + (from + r) * s->channels + group * channels;
                for (int64_t w = 0; w < words; w++)
                    for (uint64_t left = needed[r * words + w]; left; left &= left - 1, part += RK_UNIT)
                        to[64 * w + __builtin_ctzll(left)] = sum_of_parts(part);
            }
        }
    }
}
