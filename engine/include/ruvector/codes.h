/*
 * codes.h - codes for stored vectors: half precision, int8, and fixed point in two parts.
 */
#ifndef RUVECTOR_CODES_H
#define RUVECTOR_CODES_H

#include "ruvector/base.h"

/* count floats to IEEE half and back with the active kernels. Returns RV_ERR_RANGE, naming the
 * first element, when a finite value overflows half precision (|x| > 65504). */
rv_status rv_half_encode(const float *in, uint16_t *out, size_t count, rv_error *err);
void rv_half_decode(const uint16_t *in, float *out, size_t count);

/*
 * 24-bit fixed point relative to the largest element, in two parts: scale = max|x| / 127, high =
 * round(x / scale) as in rv_int8_encode, low = what is missing in units of scale / 65536:
 * value = scale * (high + low / 65536), within 2^-24 max|x| of x, which is where the rounding of
 * distances in single precision begins. Whoever walks over the high parts reads a quarter of the
 * bytes. The elements must be finite; a zero vector has scale 0. Returns the scale.
 */
float rv_fixed_encode(const float *in, int8_t *high, int16_t *low, uint32_t dim);
void rv_fixed_decode(const int8_t *high, const int16_t *low, float scale, float *out, uint32_t dim);

/*
 * A direction in 16 bits, for the query that is compared with many int8 codes (dot_codes): out =
 * round(RV_WIDE_LENGTH * in / |in|), so that no product of it with a code can overflow, and its
 * distance from the direction is at most sqrt(dim) / 2 in those units. A zero vector stays zero.
 * Returns |in|; not finite, with nothing written, when an element is not.
 */
#define RV_WIDE_LENGTH 32767
double rv_wide_encode(const float *in, int16_t *out, uint32_t dim);

/* Symmetric int8: scale = max|x| / 127, code = round(x / scale), value = scale * code. A zero
 * vector has scale 0. The elements must be finite. Returns the scale. */
float rv_int8_encode(const float *in, int8_t *out, uint32_t dim);
void rv_int8_decode(const int8_t *in, float scale, float *out, uint32_t dim);

#endif
