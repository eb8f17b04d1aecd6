/* The two ways to multiply a matrix of bits with a block of up to 64 columns, for forward and weight gradient alike. */
#ifndef RHEOBASE_KERNELS_BLOCKS_H
#define RHEOBASE_KERNELS_BLOCKS_H

#include "bits.h"

/* Call for the width of a block in units of 16: code for each of them has its sums in registers. */
#define RK_WIDTHS(call, width)                                                                                         \
    do {                                                                                                               \
        switch (width) {                                                                                               \
        case 16:                                                                                                       \
            call(1);                                                                                                   \
            break;                                                                                                     \
        case 32:                                                                                                       \
            call(2);                                                                                                   \
            break;                                                                                                     \
        case 48:                                                                                                       \
            call(3);                                                                                                   \
            break;                                                                                                     \
        default:                                                                                                       \
            call(4);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* sums[r] += the panel's rows where bits are set, for `rows` rows of bits, `step` words apart. A row has `pieces`
 * words, `apart` words apart, whose bits are the panel's rows one after the other. The sums start from zero if `fresh`.
 */
INLINE void add_events(const uint64_t *bits, int64_t step, int64_t apart, int64_t rows, int64_t pieces,
                       const float *panel, float *sums, int fresh, int units) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    for (int64_t r = 0; r < rows; r++) {
        vector sum[BLOCK_VECTORS];
        float *at = sums + r * width;
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            sum[v] = fresh ? (vector){0} : *(vector *)(at + v * LANES);
        for (int64_t s = 0; s < pieces; s++) {
            uint64_t left = bits[r * step + s * apart];
            const float *piece = panel + 64 * s * width;
            while (left) {
                const float *row = piece + (int64_t)__builtin_ctzll(left) * width;
                left &= left - 1;
#pragma GCC unroll 16
                for (int v = 0; v < vectors; v++)
                    sum[v] += *(const vector *)(row + v * LANES);
            }
        }
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            *(vector *)(at + v * LANES) = sum[v];
    }
}

/* A word is read six bits at a time: tables of 64 rows, of which eleven fit into the second-level cache; tables of 256
 * rows are no faster and take four times as long to build. A table has a row to spare, so that tables do not share
 * their cache sets. */
enum { TABLE_BITS = 6, TABLES = 11, TABLE_ROWS = (1 << TABLE_BITS) + 1, TABLE_SIZE = TABLES * TABLE_ROWS * RK_BLOCK };

/* The tables of `rows` <= 64 rows of a panel: entry i has the sum of those whose bits are set in i. */
INLINE void build_tables(const float *panel, int64_t rows, float *tables, int units) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    for (int64_t t = 0; t < TABLES; t++, tables += TABLE_ROWS * width) {
        for (int v = 0; v < vectors; v++)
            *(vector *)(tables + v * LANES) = (vector){0};
        for (int64_t k = 0; k < TABLE_BITS && t * TABLE_BITS + k < rows; k++) {
            const float *row = panel + (t * TABLE_BITS + k) * width;
            float *to = tables + ((int64_t)width << k);
            for (int64_t i = 0; i < (int64_t)1 << k; i++)
#pragma GCC unroll 16
                for (int v = 0; v < vectors; v++)
                    *(vector *)(to + i * width + v * LANES) =
                        *(vector *)(tables + i * width + v * LANES) + *(const vector *)(row + v * LANES);
        }
    }
}

/* What `add_events` does for rows of one word, from tables. */
INLINE void add_entries(const uint64_t *bits, int64_t rows, const float *tables, float *sums, int fresh, int units) {
    const int width = units * RK_UNIT, vectors = units * UNIT_VECTORS;
    for (int64_t r = 0; r < rows; r++) {
        vector sum[BLOCK_VECTORS];
        uint64_t word = bits[r];
        float *at = sums + r * width;
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            sum[v] = fresh ? (vector){0} : *(vector *)(at + v * LANES);
#pragma GCC unroll 11
        for (int t = 0; t < TABLES; t++) {
            int64_t entry = word >> TABLE_BITS * t & ((1 << TABLE_BITS) - 1);
            const float *row = tables + (t * TABLE_ROWS + entry) * width;
#pragma GCC unroll 16
            for (int v = 0; v < vectors; v++)
                sum[v] += *(const vector *)(row + v * LANES);
        }
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            *(vector *)(at + v * LANES) = sum[v];
    }
}

#endif
