/* The two ways to multiply a matrix of bits with a block of up to 64 columns, for forward and weight gradient alike. */
#ifndef RHEOBASE_KERNELS_BLOCKS_H
#define RHEOBASE_KERNELS_BLOCKS_H

#include "bits.h"

/* sums[r] += the panel's rows where bits are set, for `rows` rows of bits, `step` words apart. A row has `pieces` words,
 * `apart` words apart; piece s of the panel starts at its row base[s]. The sums start from zero if `fresh`. */
INLINE void add_events(const uint64_t *bits, int64_t step, int64_t apart, int64_t rows, int64_t pieces,
                       const void *panel, const int64_t *base, float *sums, int fresh, int units, int format) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    for (int64_t r = 0; r < rows; r++) {
        vector sum[BLOCK_VECTORS];
        float *at = sums + r * width;
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            sum[v] = fresh ? (vector){0} : *(vector *)(at + v * LANES);
        for (int64_t s = 0; s < pieces; s++) {
            uint64_t left = bits[r * step + s * apart];
            const void *piece = weights_from(panel, base[s] * width, format);
            while (left) {
                const void *row = weights_from(piece, (int64_t)__builtin_ctzll(left) * width, format);
                left &= left - 1;
#pragma GCC unroll 16
                for (int v = 0; v < vectors; v++)
                    sum[v] += weights_at(row, v * LANES, format);
            }
        }
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            *(vector *)(at + v * LANES) = sum[v];
    }
}

enum { TABLES = 4, TABLE_ROWS = 257 }; /* a row more than a table has, so that no two tables share their cache sets */

/* All 256 sums of the panel's rows [0, rows), rows <= 8: entry i has those whose bit is set in i. */
INLINE void build(const void *panel, int64_t rows, float *table, int units, int format) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    for (int v = 0; v < vectors; v++)
        *(vector *)(table + v * LANES) = (vector){0};
    for (int64_t k = 0; k < rows; k++) {
        vector row[BLOCK_VECTORS];
        float *to = table + ((int64_t)width << k);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            row[v] = weights_at(panel, k * width + v * LANES, format);
        for (int64_t i = 0; i < (int64_t)1 << k; i++)
#pragma GCC unroll 16
            for (int v = 0; v < vectors; v++)
                *(vector *)(to + i * width + v * LANES) = *(vector *)(table + i * width + v * LANES) + row[v];
    }
}

/* What `add_events` does, for one piece of `channels` <= 64 rows of the panel, eight of them at a time. */
INLINE void add_table(const uint64_t *bits, int64_t step, int64_t rows, const void *panel, int64_t channels,
                      float *table, float *sums, int fresh, int units, int format) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    for (int64_t first = 0; first < channels; first += 8 * TABLES) {
        for (int64_t t = 0; t < TABLES; t++) {
            int64_t row = smaller(channels, first + 8 * t);
            build(weights_from(panel, row * width, format), smaller(8, channels - row), table + t * TABLE_ROWS * width,
                  units, format);
        }
        for (int64_t r = 0; r < rows; r++) {
            vector sum[BLOCK_VECTORS];
            uint64_t word = bits[r * step] >> first;
            float *at = sums + r * width;
#pragma GCC unroll 16
            for (int v = 0; v < vectors; v++)
                sum[v] = fresh && first == 0 ? (vector){0} : *(vector *)(at + v * LANES);
#pragma GCC unroll 8
            for (int t = 0; t < TABLES; t++) {
                const float *entry = table + (t * TABLE_ROWS + (int64_t)(word >> 8 * t & 255)) * width;
#pragma GCC unroll 16
                for (int v = 0; v < vectors; v++)
                    sum[v] += *(const vector *)(entry + v * LANES);
            }
#pragma GCC unroll 16
            for (int v = 0; v < vectors; v++)
                *(vector *)(at + v * LANES) = sum[v];
        }
    }
}

#endif
