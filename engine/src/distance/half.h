/*
 * half.h - one value between float32 and IEEE 754 half precision, in integer arithmetic.
 *
 * The same bits as the hardware's conversions (F16C, NEON) in the default rounding mode: nearest,
 * ties to even; overflow to infinity; NaN made quiet, the top of its payload kept.
 */
#ifndef RUVECTOR_DISTANCE_HALF_H
#define RUVECTOR_DISTANCE_HALF_H

#include "kernels.h"

#include <string.h>

#define FLOAT_INFINITY 0x7F800000u
#define HALF_INFINITY 0x7C00u
#define HALF_QUIET_NAN 0x7E00u
#define HALF_MIN_NORMAL 0x38800000u /* 2^-14 as float32 bits */
#define HALF_OVERFLOW 0x47800000u   /* 2^16 */

/* value / 2^shift, rounded to nearest, ties to even; 1 <= shift <= 31. */
RV_INLINE uint32_t
shift_right_rounded(uint32_t value, int shift)
{
    uint32_t quotient = value >> shift;
    uint32_t rest = value & ((1u << shift) - 1);
    uint32_t middle = 1u << (shift - 1);

    if (rest > middle || (rest == middle && (quotient & 1)))
        quotient++;
    return quotient;
}

RV_INLINE uint16_t
half_from_float(float value)
{
    uint32_t bits, sign, magnitude;

    memcpy(&bits, &value, sizeof(bits));
    sign = (bits >> 16) & 0x8000u;
    magnitude = bits & 0x7FFFFFFFu;

    if (magnitude > FLOAT_INFINITY)
        return (uint16_t)(sign | HALF_QUIET_NAN | ((magnitude >> 13) & 0x3FFu));
    if (magnitude >= HALF_OVERFLOW)
        return (uint16_t)(sign | HALF_INFINITY);
    if (magnitude < HALF_MIN_NORMAL) {
        /* A half subnormal counts units of 2^-24: the float's significand, moved by the exponent.
         */
        int exponent = (int)(magnitude >> 23);
        uint32_t significand = (magnitude & 0x7FFFFFu) | 0x800000u;
        int shift = 126 - exponent;
        return (uint16_t)(shift > 24 ? sign : sign | shift_right_rounded(significand, shift));
    }
    /* Rebias the exponent from 127 to 15. A carry out of the significand moves into the exponent,
     * and from the largest finite value to infinity, as it should. */
    return (uint16_t)(sign | shift_right_rounded(magnitude - (112u << 23), 13));
}

RV_INLINE float
half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1Fu;
    uint32_t fraction = half & 0x3FFu;
    uint32_t bits;
    float value;

    if (exponent == 0) {
        /* Zero or subnormal: fraction * 2^-24 is exact in float32. */
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 0x1Fu)
        bits = sign | FLOAT_INFINITY | (fraction << 13) | (fraction ? 0x400000u : 0u);
    else
        bits = sign | ((exponent + 112u) << 23) | (fraction << 13);
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#endif
