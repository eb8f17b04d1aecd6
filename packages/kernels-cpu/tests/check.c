/* Every kernel on small random shapes against plain loops in double: for processors that Python is not at hand for.
 * Prints what differed, and ends with the number of kernels that did. */
#include "kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 88172645463325252u;

static uint64_t draw(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static float number(void) {
    return (float)((double)(draw() >> 11) / 9007199254740992.0 * 2 - 1);
}

static void *memory(int64_t bytes) {
    char *found = aligned_alloc(64, (size_t)(bytes + 191) / 64 * 64);
    memset(found, 0xFF, (size_t)bytes + 64);
    return found;
}

static float *numbers(int64_t count) {
    float *found = memory(count * 4);
    for (int64_t k = 0; k < count; k++)
        found[k] = number();
    return found;
}

static int differ(const char *name, const rk_shape *s, const float *found, const double *expected, int64_t count) {
    for (int64_t k = 0; k < count; k++)
        if (!(fabs(found[k] - expected[k]) <= 1e-4)) {
            printf("%s: %lld -> %lld channels, value %lld is %g, expected %g\n", name, (long long)s->channels,
                   (long long)s->out_channels, (long long)k, found[k], expected[k]);
            return 1;
        }
    return 0;
}

#define RUN(name, arguments)                                                                                           \
    do {                                                                                                               \
        void *scratch = memory(name##_scratch(arguments));                                                             \
        name##_generic(arguments, 0, name##_items(arguments), scratch);                                                \
        free(scratch);                                                                                                 \
    } while (0)

static int check(rk_shape s) {
    s.out_height = (s.height + 2 * s.pad_y - s.dilation_y * (s.kernel_y - 1) - 1) / s.stride_y + 1;
    s.out_width = (s.width + 2 * s.pad_x - s.dilation_x * (s.kernel_x - 1) - 1) / s.stride_x + 1;
    s.row_pixels = 1;
    if (s.channels < 64)
        s.row_pixels = s.width;
    s.row_words = (s.row_pixels * s.channels + 63) / 64;
    int64_t pixels = s.batch * s.height * s.width, positions = s.batch * s.out_height * s.out_width;
    int64_t channels = s.channels / s.groups, outputs = s.out_channels / s.groups;
    int64_t columns = s.kernel_y * s.kernel_x * channels, words = (pixels + 63) / 64, laid_size = rk_laid_size(&s);
    int64_t rows = pixels / s.row_pixels, chunks = 2, wrong = 0;
    float *x = numbers(pixels * s.channels), *weight = numbers(s.out_channels * columns),
          *bias = numbers(s.out_channels);
    float *grad = numbers(positions * s.out_channels), *laid = memory(laid_size * 4);
    float *out = memory(positions * s.out_channels * 4), *in = memory(pixels * s.channels * 4);
    float *weight_grad = memory(s.out_channels * columns * 4), *partial = memory(chunks * laid_size * 4);
    double *forward = calloc((size_t)(positions * s.out_channels), 8),
           *thin = calloc((size_t)(positions * s.out_channels), 8);
    double *to_weight = calloc((size_t)(s.out_channels * columns), 8),
           *to_input = calloc((size_t)(pixels * s.channels), 8);
    uint64_t *bits = memory(rows * s.row_words * 8), *turned = memory(s.channels * words * 8);
    int64_t *first = memory((s.out_channels + 1) * 8);
    int32_t *column = memory(s.out_channels * columns * 4);
    float *value = memory(s.out_channels * columns * 4);

    memset(bits, 0, (size_t)(rows * s.row_words * 8));
    for (int64_t k = 0; k < pixels * s.channels; k++) {
        int64_t at = k % (s.row_pixels * s.channels);
        x[k] = draw() % 4 == 0;
        if (x[k] != 0)
            bits[k / (s.row_pixels * s.channels) * s.row_words + at / 64] |= (uint64_t)1 << at % 64;
    }
    first[0] = 0;
    for (int64_t o = 0, e = 0; o < s.out_channels; o++) {
        for (int64_t k = 0; k < columns; k++)
            if (draw() % 5 == 0) {
                column[e] = (int32_t)k;
                value[e++] = number();
            }
        first[o + 1] = e;
    }
    for (int64_t p = 0; p < positions; p++)
        for (int64_t o = 0; o < s.out_channels; o++) {
            int64_t at = p * s.out_channels + o, image = p / s.out_width / s.out_height, e = first[o];
            forward[at] = thin[at] = bias[o];
            for (int64_t k = 0; k < columns; k++) {
                int64_t c = k % channels, kx = k / channels % s.kernel_x, ky = k / channels / s.kernel_x;
                int64_t y = p / s.out_width % s.out_height * s.stride_y + ky * s.dilation_y - s.pad_y;
                int64_t x_ = p % s.out_width * s.stride_x + kx * s.dilation_x - s.pad_x;
                float thin_weight = e < first[o + 1] && column[e] == k ? value[e++] : 0;
                if (y < 0 || y >= s.height || x_ < 0 || x_ >= s.width)
                    continue;
                int64_t pixel = ((image * s.height + y) * s.width + x_) * s.channels + o / outputs * channels + c;
                int64_t w = ((o * channels + c) * s.kernel_y + ky) * s.kernel_x + kx;
                forward[at] += (double)x[pixel] * weight[w];
                thin[at] += (double)x[pixel] * thin_weight;
                to_weight[w] += (double)x[pixel] * grad[at];
                to_input[pixel] += (double)x[pixel] * weight[w] * grad[at];
            }
        }

    rk_lay lay = {s, weight, {columns, s.kernel_y * s.kernel_x, s.kernel_x, 1}, RK_FP32, laid};
    RUN(rk_lay, &lay);
    rk_forward product = {s, bits, laid, bias, out, 7};
    RUN(rk_forward_events, &product);
    wrong += differ("forward_events", &s, out, forward, positions * s.out_channels);
    RUN(rk_forward_table, &product);
    wrong += differ("forward_table", &s, out, forward, positions * s.out_channels);
    rk_weight_gradient gradient = {
        s, bits, grad, chunks, partial, weight_grad, {columns, s.kernel_y * s.kernel_x, s.kernel_x, 1}};
    RUN(rk_weight_gradient_events, &gradient);
    RUN(rk_gather_weight, &gradient);
    wrong += differ("weight_gradient_events", &s, weight_grad, to_weight, s.out_channels * columns);
    RUN(rk_weight_gradient_table, &gradient);
    RUN(rk_gather_weight, &gradient);
    wrong += differ("weight_gradient_table", &s, weight_grad, to_weight, s.out_channels * columns);
    rk_input_gradient masked = {s, bits, grad, laid, in};
    RUN(rk_input_gradient, &masked);
    wrong += differ("input_gradient", &s, in, to_input, pixels * s.channels);
    rk_sparse sparse = {s, bits, x, first, column, value, bias, out};
    RUN(rk_sparse_bits, &sparse);
    wrong += differ("sparse_bits", &s, out, thin, positions * s.out_channels);
    RUN(rk_sparse_dense, &sparse);
    wrong += differ("sparse_dense", &s, out, thin, positions * s.out_channels);
    rk_turn turn = {s, bits, turned, words};
    RUN(rk_turn, &turn);
    for (int64_t k = 0; k < pixels * s.channels; k++) {
        int64_t pixel = k / s.channels, c = k % s.channels;
        if ((turned[c * words + pixel / 64] >> pixel % 64 & 1) != (x[k] != 0)) {
            printf("turn: channel %lld of pixel %lld\n", (long long)c, (long long)pixel);
            wrong++;
            break;
        }
    }
    void *all[] = {x,       weight, bias,      grad,     laid, out,    in,    weight_grad, partial,
                   forward, thin,   to_weight, to_input, bits, turned, first, column,      value};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        free(all[k]);
    return (int)wrong;
}

int main(void) {
    static const rk_shape shapes[] = {
        {.batch = 2,
         .height = 7,
         .width = 6,
         .channels = 64,
         .out_channels = 64,
         .kernel_y = 3,
         .kernel_x = 3,
         .stride_y = 1,
         .stride_x = 1,
         .pad_y = 1,
         .pad_x = 1,
         .dilation_y = 1,
         .dilation_x = 1,
         .groups = 1},
        {.batch = 2,
         .height = 9,
         .width = 22,
         .channels = 3,
         .out_channels = 37,
         .kernel_y = 3,
         .kernel_x = 2,
         .stride_y = 2,
         .stride_x = 1,
         .pad_y = 1,
         .pad_x = 0,
         .dilation_y = 1,
         .dilation_x = 2,
         .groups = 1},
        {.batch = 1,
         .height = 6,
         .width = 5,
         .channels = 130,
         .out_channels = 98,
         .kernel_y = 3,
         .kernel_x = 3,
         .stride_y = 1,
         .stride_x = 2,
         .pad_y = 1,
         .pad_x = 2,
         .dilation_y = 1,
         .dilation_x = 1,
         .groups = 2},
        {.batch = 300,
         .height = 1,
         .width = 1,
         .channels = 90,
         .out_channels = 16,
         .kernel_y = 1,
         .kernel_x = 1,
         .stride_y = 1,
         .stride_x = 1,
         .pad_y = 0,
         .pad_x = 0,
         .dilation_y = 1,
         .dilation_x = 1,
         .groups = 1},
    };
    int wrong = 0;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
        wrong += check(shapes[k]);
    printf("%d of %d kernels differed\n", wrong, 8 * (int)(sizeof shapes / sizeof *shapes));
    return wrong;
}
