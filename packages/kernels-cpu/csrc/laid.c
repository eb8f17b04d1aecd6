/* Weights between torch's order and the laid one. */
#include "bits.h"

/* Sixteen output channels of one group. */
typedef struct {
    int64_t base;     /* of their first value in laid weights */
    int64_t width;    /* of the block: values from one row to the next */
    int64_t channel;  /* the first of them in the layer */
    int64_t count;    /* how many there are; the others are zero */
} unit;

INLINE int64_t units_of(const rk_shape *s) {
    return padded_outputs(s) / RK_UNIT;
}

INLINE unit unit_at(const rk_shape *s, int64_t item) {
    int64_t group = item / units_of(s), first = item % units_of(s) * RK_UNIT, block = first / RK_BLOCK * RK_BLOCK;
    unit u;
    u.width = smaller(RK_BLOCK, padded_outputs(s) - block);
    u.base = group * group_laid(s) + block * columns_of(s) + first - block;
    u.channel = group * group_outputs(s) + first;
    u.count = smaller(RK_UNIT, group_outputs(s) - first);
    return u;
}

INLINE float from_bf16(uint16_t half) {
    uint32_t word = (uint32_t)half << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

#ifdef RK_ONCE
int64_t rk_laid_size(const rk_shape *s) {
    return s->groups * group_laid(s);
}

int64_t rk_lay_items(const rk_lay *a) {
    return a->shape.groups * units_of(&a->shape);
}

int64_t rk_lay_scratch(const rk_lay *a) {
    (void)a;
    return 0;
}

int64_t rk_gather_weight_items(const rk_weight_gradient *a) {
    return a->shape.groups * units_of(&a->shape);
}

int64_t rk_gather_weight_scratch(const rk_weight_gradient *a) {
    (void)a;
    return 0;
}
#endif

void RK_FOR_ISA(rk_lay)(const rk_lay *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    (void)scratch;
    for (int64_t item = begin; item < end; item++) {
        unit u = unit_at(s, item);
        int64_t at = u.base;
        for (int64_t ky = 0; ky < s->kernel_y; ky++)
            for (int64_t kx = 0; kx < s->kernel_x; kx++)
                for (int64_t channel = 0; channel < group_channels(s); channel++, at += u.width) {
                    int64_t where = u.channel * a->stride[0] + channel * a->stride[1] + ky * a->stride[2] + kx * a->stride[3];
                    for (int64_t k = 0; k < u.count; k++, where += a->stride[0])
                        a->laid[at + k] = a->format == RK_BF16 ? from_bf16(((const uint16_t *)a->weight)[where])
                                                               : ((const float *)a->weight)[where];
                    memset(a->laid + at + u.count, 0, (RK_UNIT - u.count) * sizeof(float));
                }
    }
}

void RK_FOR_ISA(rk_gather_weight)(const rk_weight_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t size = s->groups * group_laid(s);
    (void)scratch;
    for (int64_t item = begin; item < end; item++) {
        unit u = unit_at(s, item);
        const float *at = a->partial + u.base;
        for (int64_t ky = 0; ky < s->kernel_y; ky++)
            for (int64_t kx = 0; kx < s->kernel_x; kx++)
                for (int64_t channel = 0; channel < group_channels(s); channel++, at += u.width) {
                    int64_t where = u.channel * a->stride[0] + channel * a->stride[1] + ky * a->stride[2] + kx * a->stride[3];
                    float values[RK_UNIT] = {0};
                    for (int64_t chunk = 0; chunk < a->chunks; chunk++)
                        for (int64_t k = 0; k < RK_UNIT; k++)
                            values[k] += at[chunk * size + k];
                    for (int64_t k = 0; k < u.count; k++, where += a->stride[0])
                        a->weight_grad[where] = values[k];
                }
    }
}
