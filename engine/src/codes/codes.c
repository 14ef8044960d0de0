/*
 * codes.c - half precision and int8 codes of stored vectors.
 *
 * Half precision keeps 11 bits of each element and is converted by the active kernels. int8 keeps
 * one scale per vector: half the size again, at an error of at most scale / 2 per element.
 */
#include "ruvector/codes.h"
#include "ruvector/distance.h"
#include "../base/internal.h"

#include <math.h>
#include <string.h>

#define HALF_MAX 65504.0f

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

float
rv_int8_encode(const float *in, int8_t *out, uint32_t dim)
{
    float max = 0.0f, scale;

    for (uint32_t i = 0; i < dim; i++) {
        float magnitude = fabsf(in[i]);
        max = magnitude > max ? magnitude : max;
    }
    /* 0 also when the largest element is so small that a 127th of it vanishes. */
    scale = max / 127.0f;
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

float
rv_fixed_encode(const float *in, int8_t *high, int16_t *low, uint32_t dim)
{
    float scale = rv_int8_encode(in, high, dim);

    for (uint32_t i = 0; i < dim; i++) {
        double rest = scale > 0.0f ? (double)in[i] / (double)scale - (double)high[i] : 0.0;
        double units = nearbyint(rest * 65536.0);

        low[i] = (int16_t)fmin(fmax(units, -32768.0), 32767.0);
    }
    return scale;
}

void
rv_fixed_decode(const int8_t *high, const int16_t *low, float scale, float *out, uint32_t dim)
{
    /* 24 bits fit a float's mantissa: only the product is rounded. */
    float unit = scale / 65536.0f;

    for (uint32_t i = 0; i < dim; i++)
        out[i] = unit * (float)((int32_t)high[i] * 65536 + (int32_t)low[i]);
}
