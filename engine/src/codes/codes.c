/*
 * codes.c - half precision, int8 and fixed point codes of stored vectors.
 *
 * Half precision keeps 11 bits of each element and is converted by the active kernels. int8 keeps
 * one scale per vector: half the size again, at an error of at most scale / 2 per element. Fixed
 * point adds digits to the base of 256, each from -128 to 127, so that all planes are read like the
 * first one; three of them are a number that a float holds, so that decoding rounds once, in the
 * sum with the high part (and in the last of the 24 bits where they are below -128).
 */
#include "ruvector/codes.h"
#include "ruvector/distance.h"
#include "../base/internal.h"

#include <math.h>
#include <string.h>

#define HALF_MAX 65504.0f
/* More than this has a high part of 128. */
#define MOST_FIXED 127.25

rv_status
rv_half_encode(const float *in, uint16_t *out, size_t count, rv_error *err)
{
    for (size_t i = 0; i < count; i++) {
        float magnitude = fabsf(in[i]);
        if (magnitude > HALF_MAX && magnitude < INFINITY)
            return rv_fail(err, RV_ERR_RANGE,
                           "element %zu is %g, beyond half precision's limit of %g: scale the "
                           "vector down, or store it as float32",
                           i, (double)in[i], (double)HALF_MAX);
    }
    rv_kernels_active()->to_half(in, out, count);
    return RV_OK;
}

void
rv_half_decode(const uint16_t *in, float *out, size_t count)
{
    rv_kernels_active()->from_half(in, out, count);
}

double
rv_wide_encode(const float *in, int16_t *out, uint32_t dim)
{
    const rv_kernels *kernels = rv_kernels_active();
    double squares = (double)kernels->inner_product(in, in, dim);
    double factor;

    /* Where squares are sound in float32, so is the factor. */
    if (squares > 1e-30 && squares < 1e30) {
        kernels->to_wide(in, (float)(RV_WIDE_LENGTH / sqrt(squares)), out, dim);
        return sqrt(squares);
    }
    squares = 0;
    for (uint32_t i = 0; i < dim; i++)
        squares += (double)in[i] * (double)in[i];
    if (!isfinite(squares))
        return squares;
    factor = squares > 0 ? RV_WIDE_LENGTH / sqrt(squares) : 0;
    for (uint32_t i = 0; i < dim; i++)
        out[i] = (int16_t)lrint((double)in[i] * factor);
    return sqrt(squares);
}

static float
int8_scale(const float *in, uint32_t dim)
{
    float max = 0.0f;

    for (uint32_t i = 0; i < dim; i++) {
        float magnitude = fabsf(in[i]);
        max = magnitude > max ? magnitude : max;
    }
    /* 0 also when the largest element is so small that a 127th of it vanishes. */
    return max / 127.0f;
}

float
rv_int8_encode(const float *in, int8_t *out, uint32_t dim)
{
    float scale = int8_scale(in, dim);

    for (uint32_t i = 0; i < dim; i++) {
        /* A subnormal scale is coarse: the quotient may pass 127. */
        float code = scale > 0.0f ? in[i] / scale : 0.0f;
        code = code > 127.0f ? 127.0f : code > -127.0f ? code : -127.0f;
        out[i] = (int8_t)lrintf(code);
    }
    return scale;
}

void
rv_int8_decode(const int8_t *in, float scale, float *out, uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i++)
        out[i] = scale * (float)in[i];
}

/* The lowest digit of a number to the base of 256, which is divided by it. */
static int8_t
take_digit(int32_t *number)
{
    int8_t digit = (int8_t)(*number & 0xFF);

    *number = (*number - digit) / 256;
    return digit;
}

float
rv_fixed_encode(const float *in, int8_t *high, int8_t *rest, uint32_t planes, uint32_t dim)
{
    double one = planes == 2 ? 65536.0 : 16777216.0, most = MOST_FIXED * one;
    float scale = int8_scale(in, dim);
    double units = scale > 0.0f ? one / (double)scale : 0.0;

    for (uint32_t i = 0; i < dim; i++) {
        /* The quotient passes 127 a little by the rounding of the scale, much by that of a
         * subnormal one. */
        double wanted = (double)in[i] * units;
        int32_t number = (int32_t)lrint(wanted > most ? most : wanted < -most ? -most : wanted);

        for (uint32_t plane = planes; plane-- > 0;)
            rest[(size_t)plane * dim + i] = take_digit(&number);
        high[i] = (int8_t)number;
    }
    return scale;
}

void
rv_fixed_decode(const int8_t *high, const int8_t *rest, uint32_t planes, float scale, float *out,
                uint32_t dim)
{
    rv_kernels_active()->from_fixed(high, rest, planes, scale, out, dim);
}
