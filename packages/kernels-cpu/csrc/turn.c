#include "bits.h"

#ifdef RK_ONCE
int64_t rk_turn_items(const rk_turn *a) {
    return a->words;
}

int64_t rk_turn_scratch(const rk_turn *a) {
    (void)a;
    return 64 * sizeof(uint64_t);
}
#endif

void RK_FOR_ISA(rk_turn)(const rk_turn *a, int64_t begin, int64_t end, void *scratch) {
    const rk_shape *s = &a->shape;
    uint64_t *words = scratch;
    for (int64_t item = begin; item < end; item++)
        for (int64_t first = 0; first < s->channels; first += 64) {
            int64_t channels = smaller(64, s->channels - first), count = smaller(64, pixels_of(s) - item * 64);
            for (int64_t k = 0; k < count; k++)
                words[k] = pixel_bits(s, a->bits, item * 64 + k, first, channels);
            memset(words + count, 0, (64 - count) * sizeof(uint64_t));
            transpose64(words);
            for (int64_t c = 0; c < channels; c++)
                a->turned[(first + c) * a->words + item] = words[c];
        }
}
