/*
 * codes.c - compact codes of rows in lists, and lower bounds of distances from them.
 *
 * Let c be the decoded code of x, and r the stored bound of the length of x - c. Then
 *   L2      |q - x| >= |q - c| - r            L1   the same in its own norm
 *   IP      q.x <= q.c + |q| r                COSINE likewise, with |q| = 1
 * so a code gives a lower bound of the raw distance, and rows in the order of their lower bounds
 * are compared exactly only until no lower bound is below what was found.
 *
 * Sums in float32 are rounded. A kernel adds dim / 4 terms one after the other at most, so the
 * relative error of a sum of positive terms is below (dim / 4 + 8) epsilon; the bounds are lowered
 * by twice that, once for the code's distance and once for the exact one that it is compared with.
 */
#include "ruvector/codes.h"
#include "ruvector/ivf.h"

#include <float.h>
#include <math.h>
#include <string.h>

size_t
rv_ivf_code_size(rv_ivf_storage storage, uint32_t dim)
{
    size_t element = storage == RV_IVF_FLOAT32   ? sizeof(float)
                     : storage == RV_IVF_FLOAT16 ? sizeof(uint16_t)
                                                 : sizeof(int8_t);

    return dim * element;
}

static float
decoded(rv_ivf_storage storage, const void *code, float scale, uint32_t at)
{
    float value;

    if (storage == RV_IVF_INT8)
        return scale * (float)((const int8_t *)code)[at];
    rv_half_decode((const uint16_t *)code + at, &value, 1);
    return value;
}

void
rv_ivf_encode(rv_ivf_storage storage, rv_metric metric, const float *vector, uint32_t dim,
              void *code, float *scale, float *error)
{
    double sum = 0.0;

    *scale = 1.0f;
    *error = 0.0f;
    if (storage == RV_IVF_FLOAT32) {
        memcpy(code, vector, dim * sizeof(*vector));
        return;
    }
    if (storage == RV_IVF_INT8)
        *scale = rv_int8_encode(vector, code, dim);
    else
        rv_kernels_active()->to_half(vector, code, dim);
    for (uint32_t i = 0; i < dim; i++) {
        double difference = (double)vector[i] - (double)decoded(storage, code, *scale, i);

        sum += metric == RV_METRIC_L1 ? fabs(difference) : difference * difference;
    }
    *error = (float)((metric == RV_METRIC_L1 ? sum : sqrt(sum)) * (1.0 + 4.0 * FLT_EPSILON));
    if (!isfinite(*error)) {
        memset(code, 0, rv_ivf_code_size(storage, dim));
        *error = INFINITY;
    }
}

float
rv_ivf_code_error(rv_metric metric, const float *vector, const int8_t *code, float scale,
                  uint32_t dim)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < dim; i++) {
        double difference = (double)vector[i] - (double)(scale * (float)code[i]);

        sum += metric == RV_METRIC_L1 ? fabs(difference) : difference * difference;
    }
    return (float)((metric == RV_METRIC_L1 ? sum : sqrt(sum)) * (1.0 + 4.0 * FLT_EPSILON));
}

/* The vector that comes back differs from the one that was given by the last digit, and by its own
 * rounding: relative to the scale and to the element. */
#define LAST_DIGIT (1.0 / 8388608.0)

void
rv_ivf_encode_fixed(rv_metric metric, const float *vector, uint32_t dim, int8_t *code, int8_t *rest,
                    float *scale, float *error)
{
    double size = 0.0, digits;

    *scale = rv_fixed_encode(vector, code, rest, 3, dim);
    for (uint32_t i = 0; i < dim; i++)
        size += metric == RV_METRIC_L1 ? fabs((double)vector[i])
                                       : (double)vector[i] * (double)vector[i];
    size = metric == RV_METRIC_L1 ? size : sqrt(size);
    digits = (double)*scale * (metric == RV_METRIC_L1 ? (double)dim : sqrt((double)dim));
    *error = rv_ivf_code_error(metric, vector, code, *scale, dim) +
             (float)((size + digits) * LAST_DIGIT);
}

void
rv_ivf_scorer_init(rv_ivf_scorer *scorer, rv_metric metric, rv_ivf_storage storage,
                   const float *query, uint32_t dim, float max_norm)
{
    scorer->metric = metric;
    scorer->storage = storage;
    scorer->dim = dim;
    scorer->query = query;
    scorer->query_norm = rv_norm(query, dim);
    scorer->max_norm = max_norm;
    scorer->rounding = 2.0f * ((float)dim / 4.0f + 8.0f) * FLT_EPSILON;
}

static void
score_float32(const rv_ivf_scorer *scorer, const float *codes, uint32_t count, float *out)
{
    const rv_kernels *kernels = rv_kernels_active();
    const float *query = scorer->query;
    uint32_t dim = scorer->dim;

    switch (scorer->metric) {
        case RV_METRIC_L1:
            for (uint32_t i = 0; i < count; i++, codes += dim)
                out[i] = kernels->l1(query, codes, dim);
            return;
        case RV_METRIC_IP:
            for (uint32_t i = 0; i < count; i++, codes += dim)
                out[i] = -kernels->inner_product(query, codes, dim);
            return;
        case RV_METRIC_COSINE:
            for (uint32_t i = 0; i < count; i++, codes += dim)
                out[i] = rv_raw_distance_unit(RV_METRIC_COSINE, query, codes, dim);
            return;
        default:
            for (uint32_t i = 0; i < count; i++, codes += dim)
                out[i] = kernels->l2_squared(query, codes, dim);
    }
}

/* The kernel's value of each code. */
static void
score_codes(const rv_ivf_scorer *scorer, const char *codes, const float *scales, uint32_t count,
            float *out)
{
    const rv_kernels *kernels = rv_kernels_active();
    size_t size = rv_ivf_code_size(scorer->storage, scorer->dim);
    bool half = scorer->storage == RV_IVF_FLOAT16;
    float (*half_kernel)(const float *, const uint16_t *, uint32_t) = kernels->l2_squared_half;
    float (*int8_kernel)(const float *, const int8_t *, float, uint32_t) = kernels->l2_squared_int8;

    if (scorer->metric == RV_METRIC_L1) {
        half_kernel = kernels->l1_half;
        int8_kernel = kernels->l1_int8;
    } else if (scorer->metric != RV_METRIC_L2) {
        half_kernel = kernels->inner_product_half;
        int8_kernel = kernels->inner_product_int8;
    }
    for (uint32_t i = 0; i < count; i++, codes += size)
        out[i] = half ? half_kernel(scorer->query, (const uint16_t *)codes, scorer->dim)
                      : int8_kernel(scorer->query, (const int8_t *)codes, scales[i], scorer->dim);
}

static float
lower_bound(const rv_ivf_scorer *scorer, float value, float error)
{
    float distance;

    switch (scorer->metric) {
        case RV_METRIC_L1:
            distance = value * (1.0f - scorer->rounding) - error * (1.0f + scorer->rounding);
            return distance > 0.0f ? distance : 0.0f;
        case RV_METRIC_L2:
            distance = sqrtf(value) * (1.0f - scorer->rounding) - error * (1.0f + scorer->rounding);
            return distance > 0.0f ? distance * distance * (1.0f - scorer->rounding) : 0.0f;
        default:
            /* The terms of an inner product have both signs: the error is relative to the norms. */
            value +=
                scorer->query_norm * (error + scorer->rounding * (2.0f * scorer->max_norm + error));
            if (scorer->metric == RV_METRIC_IP)
                return -value;
            return value < 1.0f ? 1.0f - value : 0.0f;
    }
}

void
rv_ivf_score(const rv_ivf_scorer *scorer, const void *codes, const float *scales,
             const float *errors, uint32_t count, float *out)
{
    if (scorer->storage == RV_IVF_FLOAT32) {
        score_float32(scorer, codes, count, out);
        return;
    }
    score_codes(scorer, codes, scales, count, out);
    for (uint32_t i = 0; i < count; i++)
        out[i] = lower_bound(scorer, out[i], errors[i]);
}

float
rv_ivf_exact(const rv_ivf_scorer *scorer, const float *vector)
{
    float out;

    score_float32(scorer, vector, 1, &out);
    return out;
}

void
rv_ivf_list_distances(const rv_ivf_scorer *scorer, const void *centres, size_t stride,
                      uint32_t count, float *out)
{
    float scale = scorer->metric == RV_METRIC_IP ? scorer->max_norm : 1.0f;

    for (uint32_t i = 0; i < count; i++) {
        const void *centre = (const char *)centres + i * stride;

        out[i] = scale * rv_ivf_exact(scorer, centre);
    }
}
