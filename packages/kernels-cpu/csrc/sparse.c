#include "bits.h"

enum { TILE = 64, TILE_VECTORS = TILE / LANES };

#ifdef RK_ONCE
int64_t rk_sparse_bits_items(const rk_sparse *a) {
    return divide_up(positions_of(&a->shape), TILE);
}

int64_t rk_sparse_dense_items(const rk_sparse *a) {
    return divide_up(positions_of(&a->shape), TILE);
}

int64_t rk_sparse_bits_scratch(const rk_sparse *a) {
    return RK_UNIT * TILE * 4 + pieces_of(&a->shape) * 64 * 8;
}

int64_t rk_sparse_dense_scratch(const rk_sparse *a) {
    return RK_UNIT * TILE * 4 + columns_of(&a->shape) * TILE * 4;
}
#endif

/* What the tile's positions read of one group, a row of 64 positions for each column of the weights. */
INLINE void gather_values(const rk_sparse *a, int64_t group, int64_t from, int64_t rows, float *values) {
    const rk_shape *s = &a->shape;
    int64_t channels = group_channels(s);
    memset(values, 0, columns_of(s) * TILE * sizeof(float));
    for (int64_t tap = 0; tap < taps_of(s); tap++)
        for (int64_t r = 0; r < rows; r++) {
            int64_t line = (from + r) / s->out_width, image = line / s->out_height;
            int64_t y = line % s->out_height * s->stride_y + tap / s->kernel_x * s->dilation_y - s->pad_y;
            int64_t x = (from + r) % s->out_width * s->stride_x + tap % s->kernel_x * s->dilation_x - s->pad_x;
            if (y < 0 || y >= s->height || x < 0 || x >= s->width)
                continue;
            const float *pixel = a->input + ((image * s->height + y) * s->width + x) * s->channels + group * channels;
            for (int64_t c = 0; c < channels; c++)
                values[(tap * channels + c) * TILE + r] = pixel[c];
        }
}

/* One output channel of all positions of the tile. */
INLINE void multiply_row(const rk_sparse *a, int64_t channel, const uint64_t *bits, const float *values, float *sums) {
    vector sum[TILE_VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++)
        sum[v] = (vector){0};
    for (int64_t e = a->first[channel]; e < a->first[channel + 1]; e++) {
        vector value = (vector){0} + a->value[e];
        if (values) {
            const float *row = values + (int64_t)a->column[e] * TILE;
#pragma GCC unroll 16
            for (int v = 0; v < TILE_VECTORS; v++)
                sum[v] += value * *(const vector *)(row + v * LANES);
        } else {
            uint64_t row = bits[a->column[e]];
#pragma GCC unroll 16
            for (int v = 0; v < TILE_VECTORS; v++)
                sum[v] = add_where(sum[v], (uint32_t)(row >> v * LANES) & (((uint32_t)1 << LANES) - 1), value);
        }
    }
    if (a->bias)
        for (int v = 0; v < TILE_VECTORS; v++)
            sum[v] += a->bias[channel];
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++)
        *(vector *)(sums + v * LANES) = sum[v];
}

INLINE void multiply_tiles(const rk_sparse *a, int64_t begin, int64_t end, float *sums, uint64_t *bits, float *values) {
    const rk_shape *s = &a->shape;
    int64_t outputs = group_outputs(s);
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * TILE, rows = smaller(TILE, positions_of(s) - from);
        for (int64_t group = 0; group < s->groups; group++) {
            if (values)
                gather_values(a, group, from, rows, values);
            else
                for (int64_t piece = 0; piece < pieces_of(s); piece++)
                    gather_turned(s, a->bits, group, piece, from, rows, bits + 64 * piece);
            for (int64_t first = 0; first < outputs; first += RK_UNIT) {
                int64_t count = smaller(RK_UNIT, outputs - first);
                for (int64_t c = 0; c < count; c++)
                    multiply_row(a, group * outputs + first + c, bits, values, sums + c * TILE);
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t c = 0; c < count; c++)
                        a->out[(from + r) * s->out_channels + group * outputs + first + c] = sums[c * TILE + r];
            }
        }
    }
}

void RK_FOR_ISA(rk_sparse_bits)(const rk_sparse *a, int64_t begin, int64_t end, void *scratch) {
    float *sums = scratch;
    multiply_tiles(a, begin, end, sums, (uint64_t *)(sums + RK_UNIT * TILE), NULL);
}

void RK_FOR_ISA(rk_sparse_dense)(const rk_sparse *a, int64_t begin, int64_t end, void *scratch) {
    float *sums = scratch;
    multiply_tiles(a, begin, end, sums, NULL, sums + RK_UNIT * TILE);
}
