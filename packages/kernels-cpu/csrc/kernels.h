/* Products of matrices of bits on the CPU: the plain C interface.
 *
 * A kernel is a function
 *     void NAME_ISA(const rk_ARGUMENTS *arguments, int64_t begin, int64_t end, void *scratch)
 * that does the items begin <= i < end of its outer axis. Items are independent: any split among threads gives the same
 * bits. A kernel allocates nothing, starts no thread and keeps no state; `scratch` is memory of its caller, of
 * NAME_scratch(arguments) bytes, one for each thread, aligned to 64 bytes. NAME_items(arguments) says how many items
 * there are. ISA is generic, avx2 or avx512; rk_best tells which of them this processor can run.
 *
 * Maps lie channels-last: [batch][height][width][channels]. A position is an output pixel, in memory order.
 */
#ifndef RHEOBASE_KERNELS_H
#define RHEOBASE_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define RK_API __declspec(dllexport)
#else
#define RK_API __attribute__((visibility("default")))
#endif

/* The shape of a convolution; of a linear layer: batch = rows, and 1 for every other size of the map and of the kernel.
 *
 * Bits of a map lie as rows of `row_words` words, a row holds `row_pixels` pixels, one after the other without gaps,
 * and bit k of word w is value 64 w + k of the row. With 64 channels or more row_pixels is 1. Bits beyond the row's
 * values are zero.
 */
typedef struct {
    int64_t batch, height, width, channels;
    int64_t row_pixels, row_words;
    int64_t out_height, out_width, out_channels;
    int64_t kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
    int64_t groups;
} rk_shape;

/* Laid weights, in fp32: the groups one after the other; in a group blocks of 64 output channels, the last of them as
 * many as are left, rounded up to 16 (the rest is zero); in a block rows [ky][kx][channel of the group] of its output
 * channels.
 */
enum { RK_BLOCK = 64, RK_UNIT = 16 };
enum { RK_FP32 = 0, RK_BF16 = 1 };

/* Values of laid weights. */
RK_API int64_t rk_laid_size(const rk_shape *shape);

/* Weights [out_channels][channels of a group][ky][kx] of a format, with strides in values, to laid weights.
 * Items: units of 16 output channels of a group. */
typedef struct {
    rk_shape shape;
    const void *weight;
    int64_t stride[4];
    int64_t format;
    float *laid;
} rk_lay;

/* Output [positions][out_channels] of a convolution or linear layer that reads bits.
 *
 * Items: tiles of `tile` positions (see rk_forward_tile). bias may be NULL.
 * forward_events adds the rows of the weights where bits are set, one after the other from zero in the order
 * ky, kx, channel, and the bias last: all ISAs give equal bits.
 * forward_table adds, in the same order, sums of six rows: columns 64 w + 6 t to 64 w + 6 t + 5, of all columns
 * (ky, kx, channel), added one after the other. They come from tables that are built for every tile. All ISAs give
 * equal bits, and so do all tiles. */
typedef struct {
    rk_shape shape;
    const uint64_t *bits;
    const float *weight;
    const float *bias;
    float *out;
    int64_t tile;
} rk_forward;

/* Weight gradient: partial sums over `chunks` runs of positions, each in laid order, in fp32.
 *
 * Items: chunks, in each of them groups, in each of them runs of columns (ky, kx, channel). Chunk c has positions [c *
 * per, (c + 1) * per), where per is positions / chunks rounded up to 256. weight_gradient_events adds the rows of
 * `grad` one after the other in the order of positions; weight_gradient_table sums of six. All ISAs give equal bits.
 *
 * gather_weight adds the chunks in their order and writes [out_channels][channels][ky][kx] with
 * strides in values. Items: units of 16 output channels of a group. */
typedef struct {
    rk_shape shape;
    const uint64_t *bits;
    const float *grad;
    int64_t chunks;
    float *partial;
    float *weight_grad;
    int64_t stride[4];
} rk_weight_gradient;

/* Input gradient where it is needed: `needed` are bits of the input's shape, and lie as the input's bits do.
 *
 * Items: tiles of 64 input pixels. Values that are not needed are written as zero. Rows of `grad` (64 output
 * channels of a position) that are zero are passed over. A value is a sum of 16 parts (output channels of equal
 * remainder by 16), each in the order block of output channels, ky, kx, channel; the parts are added pairwise. Where
 * the ISA has fused multiply-add the products are not rounded. */
typedef struct {
    rk_shape shape;
    const uint64_t *needed;
    const float *grad;
    const float *weight;
    float *input_grad;
} rk_input_gradient;

/* Output of a layer with sparse weights, for inference.
 *
 * Row c of the weights has the entries first[c] <= e < first[c + 1]: value[e] in column[e] = (ky, kx, channel of the
 * group), ky slowest; columns ascend. Items: tiles of 64 positions. Entries are added in their order, then the bias.
 * sparse_bits reads `bits`; sparse_dense reads `input`, fp32 in the map's shape. */
typedef struct {
    rk_shape shape;
    const uint64_t *bits;
    const float *input;
    const int64_t *first;
    const int32_t *column;
    const float *value;
    const float *bias;
    float *out;
} rk_sparse;

/* Bits of a map to bits along positions: word [channel][w] holds, in bit k, whether the channel is set in pixel
 * 64 w + k. Items: groups of 64 pixels; `words` is their number. */
typedef struct {
    rk_shape shape;
    const uint64_t *bits;
    uint64_t *turned;
    int64_t words;
} rk_turn;

#define RK_KERNEL(name, arguments)                                                                                     \
    RK_API int64_t name##_items(const arguments *);                                                                    \
    RK_API int64_t name##_scratch(const arguments *);                                                                  \
    RK_API void name##_generic(const arguments *, int64_t, int64_t, void *);                                           \
    RK_API void name##_avx2(const arguments *, int64_t, int64_t, void *);                                              \
    RK_API void name##_avx512(const arguments *, int64_t, int64_t, void *);

#define RK_KERNELS(_)                                                                                                  \
    _(lay, rk_lay)                                                                                                     \
    _(forward_events, rk_forward)                                                                                      \
    _(forward_table, rk_forward)                                                                                       \
    _(weight_gradient_events, rk_weight_gradient)                                                                      \
    _(weight_gradient_table, rk_weight_gradient)                                                                       \
    _(gather_weight, rk_weight_gradient)                                                                               \
    _(input_gradient, rk_input_gradient)                                                                               \
    _(sparse_bits, rk_sparse)                                                                                          \
    _(sparse_dense, rk_sparse)                                                                                         \
    _(turn, rk_turn)

#define RK_DECLARE(name, arguments) RK_KERNEL(rk_##name, arguments)
RK_KERNELS(RK_DECLARE)

/* Tells the best ISA of this processor: 0 generic, 1 avx2, 2 avx512. */
RK_API int64_t rk_best(void);

/* Work that a team of threads shares: each of them calls rk_share with the same job. */
typedef struct {
    void (*kernel)(const void *, int64_t, int64_t, void *);
    const void *arguments;
    int64_t items, grain;
    char *scratch;
    int64_t scratch_size;
    int64_t taken, threads; /* zero when the team starts */
} rk_job;

/* Takes `grain` items of the job after the other until none is left. No more threads may call it than the job has
 * pieces of scratch of scratch_size bytes (a multiple of 64). */
RK_API void rk_share(rk_job *job);

/* Bytes of the structures above, in their order, for a caller that declares them again: rk_shape first. */
RK_API int64_t rk_size_of(int64_t which);

#endif
