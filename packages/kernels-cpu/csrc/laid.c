/* Weights between torch's order and the laid one. */
#include "bits.h"

/* Sixteen output channels of one group. */
typedef struct {
    int64_t base;    /* of their first value in laid weights */
    int64_t width;   /* of the block: values from one row to the next */
    int64_t channel; /* the first of them in the layer */
    int64_t count;   /* how many there are; the others are zero */
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

/* Where a column's weight lies, from that of column 0. */
INLINE int64_t column_at(const rk_shape *s, const int64_t stride[4], int64_t column) {
    int64_t tap = column / group_channels(s), channel = column % group_channels(s);
    return channel * stride[1] + tap / s->kernel_x * stride[2] + tap % s->kernel_x * stride[3];
}

/* Both go through a square of 16 columns, so that a cache line is read and written at one go. */
void RK_FOR_ISA(rk_lay)(const rk_lay *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    (void)scratch;
    for (int64_t item = begin; item < end; item++) {
        unit u = unit_at(s, item);
        for (int64_t first = 0; first < columns_of(s); first += RK_UNIT) {
            float square[RK_UNIT][RK_UNIT] = {{0}};
            int64_t count = smaller(RK_UNIT, columns_of(s) - first), where[RK_UNIT];
            for (int64_t c = 0; c < count; c++)
                where[c] = u.channel * a->stride[0] + column_at(s, a->stride, first + c);
            for (int64_t k = 0; k < u.count; k++)
                for (int64_t c = 0; c < count; c++) {
                    int64_t at = where[c] + k * a->stride[0];
                    square[c][k] = a->format == RK_BF16 ? from_bf16(((const uint16_t *)a->weight)[at])
                                                        : ((const float *)a->weight)[at];
                }
            for (int64_t c = 0; c < count; c++)
                memcpy(a->laid + u.base + (first + c) * u.width, square[c], sizeof square[c]);
        }
    }
}

void RK_FOR_ISA(rk_gather_weight)(const rk_weight_gradient *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    int64_t size = s->groups * group_laid(s);
    (void)scratch;
    for (int64_t item = begin; item < end; item++) {
        unit u = unit_at(s, item);
        for (int64_t first = 0; first < columns_of(s); first += RK_UNIT) {
            float square[RK_UNIT][RK_UNIT] = {{0}};
            int64_t count = smaller(RK_UNIT, columns_of(s) - first), where[RK_UNIT];
            for (int64_t chunk = 0; chunk < a->chunks; chunk++)
                for (int64_t c = 0; c < count; c++) {
                    const float *from = a->partial + chunk * size + u.base + (first + c) * u.width;
                    for (int64_t k = 0; k < RK_UNIT; k++)
                        square[c][k] += from[k];
                }
            for (int64_t c = 0; c < count; c++)
                where[c] = u.channel * a->stride[0] + column_at(s, a->stride, first + c);
            for (int64_t k = 0; k < u.count; k++)
                for (int64_t c = 0; c < count; c++)
                    a->weight_grad[where[c] + k * a->stride[0]] = square[c][k];
        }
    }
}
