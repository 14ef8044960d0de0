/*
 * kernels_avx2.c - the kernels with AVX2, FMA and F16C: eight floats at a time.
 */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>

#define RV_LEVEL RV_SIMD_AVX2
#define RV_LEVEL_NAME "avx2"
#define RV_LEVEL_TABLE rv_kernels_avx2
#define VEC_WIDTH 8

typedef __m256 vec;

RV_INLINE vec
vec_zero(void)
{
    return _mm256_setzero_ps();
}

RV_INLINE vec
vec_set1(float x)
{
    return _mm256_set1_ps(x);
}

RV_INLINE vec
vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

RV_INLINE vec
vec_load_part(const float *p, size_t n)
{
    /* A window over -1s and 0s, so placed that the first n lanes are on. */
    static const int32_t lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_maskload_ps(p, _mm256_loadu_si256((const __m256i *)(lanes + 8 - n)));
}

RV_INLINE vec
vec_load_half(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

RV_INLINE vec
vec_load_half_part(const uint16_t *p, size_t n)
{
    uint16_t padded[VEC_WIDTH] = {0};
    for (size_t i = 0; i < n; i++)
        padded[i] = p[i];
    return vec_load_half(padded);
}

RV_INLINE vec
vec_load_int8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

RV_INLINE vec
vec_load_int8_part(const int8_t *p, size_t n)
{
    int8_t padded[VEC_WIDTH] = {0};
    for (size_t i = 0; i < n; i++)
        padded[i] = p[i];
    return vec_load_int8(padded);
}

RV_INLINE void
vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}

RV_INLINE void
vec_store_half(uint16_t *p, vec v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

RV_INLINE void
vec_store_wide(int16_t *p, vec v)
{
    __m256i whole = _mm256_cvtps_epi32(v);

    _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(_mm256_castsi256_si128(whole),
                                                   _mm256_extracti128_si256(whole, 1)));
}

RV_INLINE vec
vec_mul(vec x, vec y)
{
    return _mm256_mul_ps(x, y);
}

RV_INLINE vec
vec_add(vec x, vec y)
{
    return _mm256_add_ps(x, y);
}

RV_INLINE vec
vec_sub(vec x, vec y)
{
    return _mm256_sub_ps(x, y);
}

RV_INLINE vec
vec_abs(vec x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

RV_INLINE vec
vec_fma(vec x, vec y, vec z)
{
    return _mm256_fmadd_ps(x, y, z);
}

RV_INLINE vec
vec_fnma(vec x, vec y, vec z)
{
    return _mm256_fnmadd_ps(x, y, z);
}

RV_INLINE vec
vec_keep(vec v)
{
    __asm__("" : "+x"(v));
    return v;
}

RV_INLINE float
vec_sum(vec v)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    sum = _mm_add_ss(sum, _mm_movehdup_ps(sum));
    return _mm_cvtss_f32(sum);
}

/* The lanes of the four halved sums stand across each other after the transposition. */
RV_INLINE void
vec_sum_four(float *p, vec v0, vec v1, vec v2, vec v3)
{
    __m128 s0 = _mm_add_ps(_mm256_castps256_ps128(v0), _mm256_extractf128_ps(v0, 1));
    __m128 s1 = _mm_add_ps(_mm256_castps256_ps128(v1), _mm256_extractf128_ps(v1, 1));
    __m128 s2 = _mm_add_ps(_mm256_castps256_ps128(v2), _mm256_extractf128_ps(v2, 1));
    __m128 s3 = _mm_add_ps(_mm256_castps256_ps128(v3), _mm256_extractf128_ps(v3, 1));

    _MM_TRANSPOSE4_PS(s0, s1, s2, s3);
    _mm_storeu_ps(p, _mm_add_ps(_mm_add_ps(s0, s2), _mm_add_ps(s1, s3)));
}

#define CODES_WIDTH 16

typedef __m256i codes;

RV_INLINE codes
codes_zero(void)
{
    return _mm256_setzero_si256();
}

RV_INLINE codes
codes_add_products(codes s, const int16_t *p, const int8_t *q)
{
    __m256i a = _mm256_loadu_si256((const __m256i *)p);
    __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)q));

    return _mm256_add_epi32(s, _mm256_madd_epi16(a, b));
}

RV_INLINE int32_t
codes_sum(codes s, codes t)
{
    __m256i sum = _mm256_add_epi32(s, t);
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));

    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(half);
}

typedef __m256i wides;

RV_INLINE wides
wides_load(const int16_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

RV_INLINE codes
codes_add_wides(codes s, wides p, wides q)
{
    return _mm256_add_epi32(s, _mm256_madd_epi16(p, q));
}

RV_INLINE void
codes_sum_four(int32_t *p, codes s0, codes s1, codes s2, codes s3)
{
    __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(s0, s1), _mm256_hadd_epi32(s2, s3));

    _mm_storeu_si128((__m128i *)p, _mm_add_epi32(_mm256_castsi256_si128(sums),
                                                 _mm256_extracti128_si256(sums, 1)));
}

#include "kernels_body.h"

#endif
