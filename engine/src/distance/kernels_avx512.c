/*
 * kernels_avx512.c - the kernels with AVX-512 (F, BW, DQ, VL): sixteen floats at a time, tails by
 * mask.
 */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>

#define RV_LEVEL RV_SIMD_AVX512
#define RV_LEVEL_NAME "avx512"
#define RV_LEVEL_TABLE rv_kernels_avx512
#define VEC_WIDTH 16

typedef __m512 vec;

/* The first n lanes, n < 16. */
RV_INLINE __mmask16
first_lanes(size_t n)
{
    return (__mmask16)((1u << n) - 1u);
}

RV_INLINE vec
vec_zero(void)
{
    return _mm512_setzero_ps();
}

RV_INLINE vec
vec_set1(float x)
{
    return _mm512_set1_ps(x);
}

RV_INLINE vec
vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

RV_INLINE vec
vec_load_part(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

RV_INLINE vec
vec_load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

RV_INLINE vec
vec_load_half_part(const uint16_t *p, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}

RV_INLINE vec
vec_load_int8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

RV_INLINE vec
vec_load_int8_part(const int8_t *p, size_t n)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), p)));
}

RV_INLINE void
vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}

RV_INLINE void
vec_store_half(uint16_t *p, vec v)
{
    _mm256_storeu_si256((__m256i *)p,
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

RV_INLINE void
vec_store_wide(int16_t *p, vec v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
}

RV_INLINE vec
vec_mul(vec x, vec y)
{
    return _mm512_mul_ps(x, y);
}

RV_INLINE vec
vec_add(vec x, vec y)
{
    return _mm512_add_ps(x, y);
}

RV_INLINE vec
vec_sub(vec x, vec y)
{
    return _mm512_sub_ps(x, y);
}

RV_INLINE vec
vec_abs(vec x)
{
    return _mm512_abs_ps(x);
}

RV_INLINE vec
vec_fma(vec x, vec y, vec z)
{
    return _mm512_fmadd_ps(x, y, z);
}

RV_INLINE vec
vec_fnma(vec x, vec y, vec z)
{
    return _mm512_fnmadd_ps(x, y, z);
}

RV_INLINE vec
vec_keep(vec v)
{
    __asm__("" : "+v"(v));
    return v;
}

RV_INLINE float
vec_sum(vec v)
{
    return _mm512_reduce_add_ps(v);
}

RV_INLINE void
vec_sum_four(float *p, vec v0, vec v1, vec v2, vec v3)
{
    p[0] = vec_sum(v0);
    p[1] = vec_sum(v1);
    p[2] = vec_sum(v2);
    p[3] = vec_sum(v3);
}

#define CODES_WIDTH 32

typedef __m512i codes;

RV_INLINE codes
codes_zero(void)
{
    return _mm512_setzero_si512();
}

RV_INLINE codes
codes_add_products(codes s, const int16_t *p, const int8_t *q)
{
    __m512i a = _mm512_loadu_si512(p);
    __m512i b = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)q));

    return _mm512_add_epi32(s, _mm512_madd_epi16(a, b));
}

RV_INLINE int32_t
codes_sum(codes s, codes t)
{
    return _mm512_reduce_add_epi32(_mm512_add_epi32(s, t));
}

typedef __m512i wides;

RV_INLINE wides
wides_load(const int16_t *p)
{
    return _mm512_loadu_si512(p);
}

RV_INLINE codes
codes_add_wides(codes s, wides p, wides q)
{
    return _mm512_add_epi32(s, _mm512_madd_epi16(p, q));
}

RV_INLINE void
codes_sum_four(int32_t *p, codes s0, codes s1, codes s2, codes s3)
{
    p[0] = _mm512_reduce_add_epi32(s0);
    p[1] = _mm512_reduce_add_epi32(s1);
    p[2] = _mm512_reduce_add_epi32(s2);
    p[3] = _mm512_reduce_add_epi32(s3);
}

#include "kernels_body.h"

#endif
