/*
 * kernels_scalar.c - the kernels in plain C, one float at a time: the reference that the other
 * levels are tested against, and the level of machines that have no other.
 */
#include "kernels.h"
#include "half.h"

#include <math.h>

#define RV_LEVEL RV_SIMD_SCALAR
#define RV_LEVEL_NAME "scalar"
#define RV_LEVEL_TABLE rv_kernels_scalar
#define VEC_WIDTH 1

typedef float vec;

RV_INLINE vec
vec_zero(void)
{
    return 0.0f;
}

RV_INLINE vec
vec_set1(float x)
{
    return x;
}

RV_INLINE vec
vec_load(const float *p)
{
    return *p;
}

RV_INLINE vec
vec_load_half(const uint16_t *p)
{
    return half_to_float(*p);
}

RV_INLINE vec
vec_load_int8(const int8_t *p)
{
    return (float)*p;
}

/* A vector of one element has no tail; the body never gets here. */
#define vec_load_part(p, n) ((void)(n), vec_load(p))
#define vec_load_half_part(p, n) ((void)(n), vec_load_half(p))
#define vec_load_int8_part(p, n) ((void)(n), vec_load_int8(p))

RV_INLINE void
vec_store(float *p, vec v)
{
    *p = v;
}

RV_INLINE void
vec_store_half(uint16_t *p, vec v)
{
    *p = half_from_float(v);
}

RV_INLINE void
vec_store_wide(int16_t *p, vec v)
{
    long whole = lrintf(v);

    *p = (int16_t)(whole > INT16_MAX ? INT16_MAX : whole < INT16_MIN ? INT16_MIN : whole);
}

RV_INLINE vec
vec_mul(vec x, vec y)
{
    return x * y;
}

RV_INLINE vec
vec_add(vec x, vec y)
{
    return x + y;
}

RV_INLINE vec
vec_sub(vec x, vec y)
{
    return x - y;
}

RV_INLINE vec
vec_abs(vec x)
{
    return x < 0.0f ? -x : x;
}

RV_INLINE vec
vec_fma(vec x, vec y, vec z)
{
    return x * y + z;
}

RV_INLINE vec
vec_fnma(vec x, vec y, vec z)
{
    return z - x * y;
}

RV_INLINE float
vec_sum(vec v)
{
    return v;
}

#include "kernels_body.h"
