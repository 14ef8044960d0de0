/*
 * codes.h - compact codes for stored vectors: half precision and int8.
 */
#ifndef RUVECTOR_CODES_H
#define RUVECTOR_CODES_H

#include "ruvector/base.h"

/* count floats to IEEE half and back with the active kernels. Returns RV_ERR_RANGE, naming the
 * first element, when a finite value overflows half precision (|x| > 65504). */
rv_status rv_half_encode(const float *in, uint16_t *out, size_t count, rv_error *err);
void rv_half_decode(const uint16_t *in, float *out, size_t count);

/* Symmetric int8: scale = max|x| / 127, code = round(x / scale), value = scale * code. A zero
 * vector has scale 0. The elements must be finite. Returns the scale. */
float rv_int8_encode(const float *in, int8_t *out, uint32_t dim);
void rv_int8_decode(const int8_t *in, float scale, float *out, uint32_t dim);

#endif
