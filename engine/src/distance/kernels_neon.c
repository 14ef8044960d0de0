/*
 * kernels_neon.c - the kernels with NEON: two registers of four floats, eight at a time, as one
 * int8 or half load of 64 bits fills.
 *
 * Written through SIMDe, which is native NEON on ARM and plain code elsewhere: so this level is
 * compiled and tested on every machine, though only ARM chooses it by itself.
 */
#include "kernels.h"

#include <simde/arm/neon.h>

#define RV_LEVEL RV_SIMD_NEON
#define RV_LEVEL_NAME "neon"
#define RV_LEVEL_TABLE rv_kernels_neon
#define VEC_WIDTH 8

typedef struct vec {
    simde_float32x4_t low, high;
} vec;

RV_INLINE vec
vec_set1(float x)
{
    return (vec){simde_vdupq_n_f32(x), simde_vdupq_n_f32(x)};
}

RV_INLINE vec
vec_zero(void)
{
    return vec_set1(0.0f);
}

RV_INLINE vec
vec_load(const float *p)
{
    return (vec){simde_vld1q_f32(p), simde_vld1q_f32(p + 4)};
}

RV_INLINE vec
vec_load_part(const float *p, size_t n)
{
    float padded[VEC_WIDTH] = {0};
    for (size_t i = 0; i < n; i++)
        padded[i] = p[i];
    return vec_load(padded);
}

RV_INLINE vec
vec_load_half(const uint16_t *p)
{
    simde_uint16x8_t halves = simde_vld1q_u16(p);
    return (vec){simde_vcvt_f32_f16(simde_vreinterpret_f16_u16(simde_vget_low_u16(halves))),
                 simde_vcvt_f32_f16(simde_vreinterpret_f16_u16(simde_vget_high_u16(halves)))};
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
    simde_int16x8_t wide = simde_vmovl_s8(simde_vld1_s8(p));
    return (vec){simde_vcvtq_f32_s32(simde_vmovl_s16(simde_vget_low_s16(wide))),
                 simde_vcvtq_f32_s32(simde_vmovl_s16(simde_vget_high_s16(wide)))};
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
    simde_vst1q_f32(p, v.low);
    simde_vst1q_f32(p + 4, v.high);
}

RV_INLINE void
vec_store_half(uint16_t *p, vec v)
{
    simde_vst1_u16(p, simde_vreinterpret_u16_f16(simde_vcvt_f16_f32(v.low)));
    simde_vst1_u16(p + 4, simde_vreinterpret_u16_f16(simde_vcvt_f16_f32(v.high)));
}

RV_INLINE void
vec_store_wide(int16_t *p, vec v)
{
    simde_vst1_s16(p, simde_vqmovn_s32(simde_vcvtq_s32_f32(simde_vrndnq_f32(v.low))));
    simde_vst1_s16(p + 4, simde_vqmovn_s32(simde_vcvtq_s32_f32(simde_vrndnq_f32(v.high))));
}

RV_INLINE vec
vec_mul(vec x, vec y)
{
    return (vec){simde_vmulq_f32(x.low, y.low), simde_vmulq_f32(x.high, y.high)};
}

RV_INLINE vec
vec_add(vec x, vec y)
{
    return (vec){simde_vaddq_f32(x.low, y.low), simde_vaddq_f32(x.high, y.high)};
}

RV_INLINE vec
vec_sub(vec x, vec y)
{
    return (vec){simde_vsubq_f32(x.low, y.low), simde_vsubq_f32(x.high, y.high)};
}

RV_INLINE vec
vec_abs(vec x)
{
    return (vec){simde_vabsq_f32(x.low), simde_vabsq_f32(x.high)};
}

RV_INLINE vec
vec_fma(vec x, vec y, vec z)
{
    return (vec){simde_vfmaq_f32(z.low, x.low, y.low), simde_vfmaq_f32(z.high, x.high, y.high)};
}

/* vfmsq is missing from SIMDe; negating is exact. */
RV_INLINE vec
vec_fnma(vec x, vec y, vec z)
{
    return vec_fma((vec){simde_vnegq_f32(x.low), simde_vnegq_f32(x.high)}, y, z);
}

RV_INLINE vec
vec_keep(vec v)
{
#if defined(__aarch64__)
    __asm__("" : "+w"(v.low), "+w"(v.high));
#endif
    return v;
}

RV_INLINE float
vec_sum(vec v)
{
    return simde_vaddvq_f32(simde_vaddq_f32(v.low, v.high));
}

RV_INLINE void
vec_sum_four(float *p, vec v0, vec v1, vec v2, vec v3)
{
    p[0] = vec_sum(v0);
    p[1] = vec_sum(v1);
    p[2] = vec_sum(v2);
    p[3] = vec_sum(v3);
}

#define CODES_WIDTH 8

typedef simde_int32x4_t codes;

RV_INLINE codes
codes_zero(void)
{
    return simde_vdupq_n_s32(0);
}

RV_INLINE codes
codes_add_products(codes s, const int16_t *p, const int8_t *q)
{
    simde_int16x8_t a = simde_vld1q_s16(p);
    simde_int16x8_t b = simde_vmovl_s8(simde_vld1_s8(q));

    s = simde_vmlal_s16(s, simde_vget_low_s16(a), simde_vget_low_s16(b));
    return simde_vmlal_s16(s, simde_vget_high_s16(a), simde_vget_high_s16(b));
}

RV_INLINE int32_t
codes_sum(codes s, codes t)
{
    return simde_vaddvq_s32(simde_vaddq_s32(s, t));
}

typedef simde_int16x8_t wides;

RV_INLINE wides
wides_load(const int16_t *p)
{
    return simde_vld1q_s16(p);
}

RV_INLINE codes
codes_add_wides(codes s, wides p, wides q)
{
    s = simde_vmlal_s16(s, simde_vget_low_s16(p), simde_vget_low_s16(q));
    return simde_vmlal_s16(s, simde_vget_high_s16(p), simde_vget_high_s16(q));
}

RV_INLINE void
codes_sum_four(int32_t *p, codes s0, codes s1, codes s2, codes s3)
{
    p[0] = simde_vaddvq_s32(s0);
    p[1] = simde_vaddvq_s32(s1);
    p[2] = simde_vaddvq_s32(s2);
    p[3] = simde_vaddvq_s32(s3);
}

#include "kernels_body.h"
