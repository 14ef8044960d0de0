/*
 * kernels.h - the tables of the instruction-set levels, private to this directory.
 *
 *   kernels_body.h     the kernels, once, over a small vector type
 *   kernels_<level>.c  that vector type in the level's instructions, then the body
 *   dispatch.c         which table this process uses
 *   distance.c         everything built on the tables
 *
 * A level's file is compiled with flags that other machines cannot run, so it holds nothing but its
 * kernels, and functions that it shares with others are either static inline or live elsewhere.
 */
#ifndef RUVECTOR_DISTANCE_KERNELS_H
#define RUVECTOR_DISTANCE_KERNELS_H

#include "ruvector/distance.h"

#if defined(__GNUC__)
#define RV_INLINE static inline __attribute__((always_inline))
#else
#define RV_INLINE static inline
#endif

extern const rv_kernels rv_kernels_scalar;
extern const rv_kernels rv_kernels_neon; /* emulated by SIMDe where the machine is not ARM */
#if defined(__x86_64__)
extern const rv_kernels rv_kernels_avx2;
extern const rv_kernels rv_kernels_avx512;
#endif

/*
 * Cosine similarity in double precision: for vectors whose squares leave the range where float
 * sums are sound. 0 when either vector is zero, otherwise in [-1, 1].
 */
float rv_cosine_double(const float *a, const float *b, uint32_t dim);

#endif
