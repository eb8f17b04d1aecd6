/* Where bits lie, and how the bits that a product reads are brought together. */
#ifndef RHEOBASE_KERNELS_BITS_H
#define RHEOBASE_KERNELS_BITS_H

#include "isa.h"

INLINE int64_t positions_of(const rk_shape *s) {
    return s->batch * s->out_height * s->out_width;
}

INLINE int64_t pixels_of(const rk_shape *s) {
    return s->batch * s->height * s->width;
}

INLINE int64_t taps_of(const rk_shape *s) {
    return s->kernel_y * s->kernel_x;
}

INLINE int64_t group_channels(const rk_shape *s) {
    return s->channels / s->groups;
}

INLINE int64_t group_outputs(const rk_shape *s) {
    return s->out_channels / s->groups;
}

INLINE int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* What a position reads of one group are its columns: [ky][kx][channel of the group], without gaps. */
INLINE int64_t columns_of(const rk_shape *s) {
    return taps_of(s) * group_channels(s);
}

/* Words of a position's columns, 64 in each. */
INLINE int64_t pieces_of(const rk_shape *s) {
    return divide_up(columns_of(s), 64);
}

/* Columns of a piece. */
INLINE int64_t piece_size(const rk_shape *s, int64_t piece) {
    return smaller(64, columns_of(s) - 64 * piece);
}

INLINE int64_t padded_outputs(const rk_shape *s) {
    return divide_up(group_outputs(s), RK_UNIT) * RK_UNIT;
}

/* Values of one group's laid weights. */
INLINE int64_t group_laid(const rk_shape *s) {
    return columns_of(s) * padded_outputs(s);
}

/* Bits [first, first + count) of a row, 1 <= count <= 64. */
INLINE uint64_t take(const uint64_t *row, int64_t first, int64_t count) {
    const uint64_t *word = row + first / 64;
    int64_t shift = first % 64;
    uint64_t found = word[0] >> shift;
    if (shift && shift + count > 64)
        found |= word[1] << (64 - shift);
    return count == 64 ? found : found & (((uint64_t)1 << count) - 1);
}

/* The bits of a pixel's channels [first, first + count). */
INLINE uint64_t pixel_bits(const rk_shape *s, const uint64_t *bits, int64_t pixel, int64_t first, int64_t count) {
    if (s->row_pixels == 1)
        return take(bits + pixel * s->row_words, first, count);
    const uint64_t *row = bits + pixel / s->row_pixels * s->row_words;
    return take(row, pixel % s->row_pixels * s->channels + first, count);
}

/* Outputs along an axis that read inside of the map for a tap: first <= o < last. */
INLINE void reads_inside(int64_t offset, int64_t stride, int64_t size, int64_t outputs, int64_t *first, int64_t *last) {
    *first = offset >= 0 ? 0 : smaller(divide_up(-offset, stride), outputs);
    *last = offset >= size ? 0 : smaller((size - 1 - offset) / stride + 1, outputs);
    if (*last < *first)
        *last = *first;
}

/* Channels [first, first + channels) of the map, at most 64, that positions [begin, begin + count) read by a tap: to
 * bits `shift` on of one word for each position, `step` words apart. The other bits become zero if `fresh`, else they
 * stay. */
INLINE void gather_tap(const rk_shape *s, const uint64_t *bits, int64_t tap, int64_t first, int64_t channels,
                       int64_t begin, int64_t count, uint64_t *to, int64_t step, int64_t shift, int fresh) {
    const int64_t width = s->width, out_width = s->out_width, words = s->row_words, stride = s->stride_x;
    int64_t offset_y = tap / s->kernel_x * s->dilation_y - s->pad_y;
    int64_t offset_x = tap % s->kernel_x * s->dilation_x - s->pad_x;
    int64_t left, right, x = begin % out_width;
    int64_t line = begin / out_width, y = line % s->out_height, image = line / s->out_height;
    int whole = s->row_pixels == 1 && first % 64 == 0 && channels == 64;
    reads_inside(offset_x, stride, width, out_width, &left, &right);
    while (count > 0) {
        int64_t run = smaller(count, out_width - x), in_y = y * s->stride_y + offset_y;
        int64_t a = smaller(x + run, left > x ? left : x), b = smaller(x + run, right > x ? right : x);
        int64_t pixel = (image * s->height + in_y) * width + offset_x;
        if (in_y < 0 || in_y >= s->height || b < a)
            a = b = x;
        if (fresh) {
            for (int64_t o = x; o < a; o++)
                to[(o - x) * step] = 0;
            for (int64_t o = b; o < x + run; o++)
                to[(o - x) * step] = 0;
        }
        if (whole) {
            const uint64_t *word = bits + first / 64;
            for (int64_t o = a; o < b; o++)
                to[(o - x) * step] = word[(pixel + o * stride) * words];
        } else {
            for (int64_t o = a; o < b; o++) {
                uint64_t found = pixel_bits(s, bits, pixel + o * stride, first, channels) << shift;
                to[(o - x) * step] = fresh ? found : to[(o - x) * step] | found;
            }
        }
        to += run * step;
        count -= run;
        x = 0;
        if (++y == s->out_height) {
            y = 0;
            image++;
        }
    }
}

/* One piece of the columns of positions [begin, begin + count) of a group: a word for each position, `step` words
 * apart. Outside of the map, and beyond the columns, there are zeros. */
INLINE void gather(const rk_shape *s, const uint64_t *bits, int64_t group, int64_t piece, int64_t begin, int64_t count,
                   uint64_t *to, int64_t step) {
    int64_t channels = group_channels(s), size = piece_size(s, piece), taken = 0;
    while (taken < size) {
        int64_t column = 64 * piece + taken, channel = column % channels;
        int64_t several = smaller(size - taken, channels - channel);
        if (taken == 0)
            gather_tap(s, bits, column / channels, group * channels + channel, several, begin, count, to, step, 0, 1);
        else
            gather_tap(s, bits, column / channels, group * channels + channel, several, begin, count, to, step, taken,
                       0);
        taken += several;
    }
}

INLINE void exchange(uint64_t *words, int apart, uint64_t mask) {
    for (int k = 0; k < 64; k += 2 * apart)
        for (int j = k; j < k + apart; j++) {
            uint64_t other = ((words[j] >> apart) ^ words[j + apart]) & mask;
            words[j] ^= other << apart;
            words[j + apart] ^= other;
        }
}

/* Bit c of word r becomes bit r of word c. */
INLINE void transpose64(uint64_t words[64]) {
    exchange(words, 32, 0x00000000FFFFFFFFu);
    exchange(words, 16, 0x0000FFFF0000FFFFu);
    exchange(words, 8, 0x00FF00FF00FF00FFu);
    exchange(words, 4, 0x0F0F0F0F0F0F0F0Fu);
    exchange(words, 2, 0x3333333333333333u);
    exchange(words, 1, 0x5555555555555555u);
}

/* One piece of columns along 64 positions or fewer: word c is of column 64 * piece + c. */
INLINE void gather_turned(const rk_shape *s, const uint64_t *bits, int64_t group, int64_t piece, int64_t begin,
                          int64_t count, uint64_t words[64]) {
    gather(s, bits, group, piece, begin, count, words, 1);
    memset(words + count, 0, (64 - count) * sizeof(uint64_t));
    transpose64(words);
}

#endif
