/* What differs between instruction sets. Every kernel file is compiled once for each of them, with RK_ISA its name.
 *
 * Vectors are the compiler's own, so the generic path is SSE2 on x86-64 and NEON on ARM.
 */
#ifndef RHEOBASE_KERNELS_ISA_H
#define RHEOBASE_KERNELS_ISA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define RK_JOIN2(a, b) a##_##b
#define RK_JOIN(a, b) RK_JOIN2(a, b)
#define RK_FOR_ISA(name) RK_JOIN(name, RK_ISA)
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

enum { UNIT_VECTORS = RK_UNIT / LANES, BLOCK_VECTORS = RK_BLOCK / LANES };

/* They may lie at any address that is fine for one value. */
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words32 __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* sum + value in the lanes whose bit is set; the others stay. */
INLINE vector add_where(vector sum, uint32_t bits, vector value) {
#if defined(__AVX512F__)
    return (vector)_mm512_mask_add_ps((__m512)sum, (__mmask16)bits, (__m512)sum, (__m512)value);
#else
    words32 lane;
    for (int k = 0; k < LANES; k++)
        lane[k] = (uint32_t)1 << k;
    words32 chosen = (words32)((lane & bits) != 0);
    return sum + (vector)(chosen & (words32)value);
#endif
}

#endif
