/*
 * codes.h - codes for stored vectors: half precision, int8, and fixed point in planes of int8.
 */
#ifndef RUVECTOR_CODES_H
#define RUVECTOR_CODES_H

#include "ruvector/base.h"

/* count floats to IEEE half and back with the active kernels. Returns RV_ERR_RANGE, naming the
 * first element, when a finite value overflows half precision (|x| > 65504). */
rv_status rv_half_encode(const float *in, uint16_t *out, size_t count, rv_error *err);
void rv_half_decode(const uint16_t *in, float *out, size_t count);

/*
 * Fixed point relative to the largest element, in planes of int8: scale = max|x| / 127, and
 *   value = scale * (high + rest[0] / 256 + rest[1] / 256^2 (+ rest[2] / 256^3))
 * high is dim codes as of rv_int8_encode, so that whoever walks over them reads a quarter of the
 * bytes; rest is the planes, of dim bytes each, one after the other. planes = 2, 24 bits in all, is
 * within 2^-23 max|x| of x, where the rounding of distances in single precision begins. planes = 3,
 * 32 bits, is within 2^-30 max|x|, and an element of at least max|x| / 31 comes back as it was,
 * where the processor has fused multiply-add; without, its last bit may differ. Elements must be
 * finite; a zero vector, or one whose scale vanishes, has scale 0. Returns the scale.
 */
float rv_fixed_encode(const float *in, int8_t *high, int8_t *rest, uint32_t planes, uint32_t dim);
void rv_fixed_decode(const int8_t *high, const int8_t *rest, uint32_t planes, float scale,
                     float *out, uint32_t dim);

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
