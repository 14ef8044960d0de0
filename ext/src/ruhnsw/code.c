/*
 * code.c - vectors as they are stored, and distances to them.
 *
 *               code, walked on     rest, ranked by                   bytes per element
 *   float32     int8                the float32 itself                5
 *   fixed32     int8                24 more bits, in planes of int8   4
 *   fixed24     int8                16 more bits, likewise            3
 *   float16     half precision      -                                 2
 *   int8        int8                -                                 1
 *
 * int8 is relative to the largest element of the vector, which scale has. float16 has a scale where
 * the largest element is very large or very small, a power of two, which loses nothing; it is 1 for
 * all others, and only for these there are direct kernels.
 *
 * Distances of a search are those of the code; results are measured again with the rest. float32
 * ranks exactly, fixed32 within 2^-30 of the largest element and fixed24 within 2^-23 (codes.h).
 * The former is less than the rounding of a distance in single precision, unless rows differ from
 * the query by less than a millionth of their length. What float16 and int8 cost in recall shows
 * where neighbours lie close together: examples/benchmarks/RESULTS.md has figures.
 *
 * Under cosine all vectors have unit length, but their codes only nearly so: the distance is 1 -
 * q.c all the same, as if the code were the vector.
 */
#include "ruhnsw/page.h"

#include <math.h>

/* Elements between these bounds are stored as float16 without a scale. */
#define HALF_LARGEST 60000.0f
#define HALF_SMALLEST 0.015625f

static float
largest_element(const float *vector, int dim)
{
    float largest = 0.0f;

    for (int i = 0; i < dim; i++)
        largest = fmaxf(largest, fabsf(vector[i]));
    return largest;
}

/* A power of two that brings the largest element to [1, 2), or 1 when none is needed. */
static float
half_scale(const float *vector, int dim)
{
    float largest = largest_element(vector, dim);
    int exponent;

    if (largest == 0.0f || (largest >= HALF_SMALLEST && largest <= HALF_LARGEST))
        return 1.0f;
    frexpf(largest, &exponent);
    /* The scale itself must be a normal number. */
    return ldexpf(1.0f, Max(exponent - 1, -126));
}

static void
encode_half(const float *vector, int dim, RuhnswNode *node)
{
    uint16 *code = ruhnsw_code(node);
    float scaled[64];
    rv_error err;

    node->scale = half_scale(vector, dim);
    for (int start = 0; start < dim; start += lengthof(scaled)) {
        int count = Min((int)lengthof(scaled), dim - start);

        for (int i = 0; i < count; i++)
            scaled[i] = vector[start + i] / node->scale;
        ruv_check(rv_half_encode(scaled, code + start, count, &err), &err, "ruhnsw code");
    }
}

static void *
rest_of(const RuhnswGeometry *geometry, const RuhnswNode *node)
{
    return (char *)node + geometry->rest;
}

static uint32
planes_of(RuhnswStorage storage)
{
    return storage == RUHNSW_STORAGE_FIXED32 ? 3 : 2;
}

void
ruhnsw_encode(const RuhnswGeometry *geometry, const float *vector, RuhnswNode *node)
{
    memset(ruhnsw_code(node), 0, MAXALIGN(geometry->code_size));
    switch (geometry->storage) {
        case RUHNSW_STORAGE_FLOAT16:
            encode_half(vector, geometry->dim, node);
            break;
        case RUHNSW_STORAGE_FIXED32:
        case RUHNSW_STORAGE_FIXED24:
            node->scale = rv_fixed_encode(vector, ruhnsw_code(node), rest_of(geometry, node),
                                          planes_of(geometry->storage), geometry->dim);
            break;
        case RUHNSW_STORAGE_INT8:
            node->scale = rv_int8_encode(vector, ruhnsw_code(node), geometry->dim);
            break;
        default:
            node->scale = rv_int8_encode(vector, ruhnsw_code(node), geometry->dim);
            memcpy(rest_of(geometry, node), vector, sizeof(float) * geometry->dim);
    }
}

void
ruhnsw_decode(const RuhnswGeometry *geometry, const RuhnswNode *node, float *vector)
{
    switch (geometry->storage) {
        case RUHNSW_STORAGE_FLOAT16:
            rv_half_decode(ruhnsw_code(node), vector, geometry->dim);
            for (int i = 0; node->scale != 1.0f && i < geometry->dim; i++)
                vector[i] *= node->scale;
            break;
        case RUHNSW_STORAGE_FIXED32:
        case RUHNSW_STORAGE_FIXED24:
            rv_fixed_decode(ruhnsw_code(node), rest_of(geometry, node),
                            planes_of(geometry->storage), node->scale, vector, geometry->dim);
            break;
        case RUHNSW_STORAGE_INT8:
            rv_int8_decode(ruhnsw_code(node), node->scale, vector, geometry->dim);
            break;
        default:
            memcpy(vector, rest_of(geometry, node), sizeof(float) * geometry->dim);
    }
}

/* What a search compares: the code alone. */
static void
decode_code(const RuhnswGeometry *geometry, const RuhnswNode *node, float *vector)
{
    if (geometry->storage == RUHNSW_STORAGE_FLOAT16)
        ruhnsw_decode(geometry, node, vector);
    else
        rv_int8_decode(ruhnsw_code(node), node->scale, vector, geometry->dim);
}

float
ruhnsw_code_error(const RuhnswGeometry *geometry, const float *vector, const RuhnswNode *node)
{
    float *decoded = palloc(sizeof(float) * geometry->dim);
    double squared;

    decode_code(geometry, node, decoded);
    squared = rv_raw_distance(RV_METRIC_L2, vector, decoded, geometry->dim);
    pfree(decoded);
    return nextafterf(sqrtf((float)squared), INFINITY);
}

/* ---- distances ---- */

/* The distance to a float16 code with a scale: piece by piece, since none of them needs more than
 * sums over the elements. */
static float
scaled_half(rv_metric metric, const RuhnswGeometry *geometry, const float *query,
            const RuhnswNode *node)
{
    const uint16 *code = ruhnsw_code(node);
    float values[64];
    float sum = 0.0f;

    for (int start = 0; start < geometry->dim; start += lengthof(values)) {
        int count = Min((int)lengthof(values), geometry->dim - start);

        rv_half_decode(code + start, values, count);
        for (int i = 0; i < count; i++)
            values[i] *= node->scale;
        sum += rv_raw_distance(metric, query + start, values, count);
    }
    return sum;
}

static float
unit_half(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    if (node->scale != 1.0f)
        return 1.0f + scaled_half(RV_METRIC_IP, geometry, query, node);
    return 1.0f - geometry->kernels->inner_product_half(query, ruhnsw_code(node), geometry->dim);
}

static float
l2_half(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    if (node->scale != 1.0f)
        return scaled_half(RV_METRIC_L2, geometry, query, node);
    return geometry->kernels->l2_squared_half(query, ruhnsw_code(node), geometry->dim);
}

static float
ip_half(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    if (node->scale != 1.0f)
        return scaled_half(RV_METRIC_IP, geometry, query, node);
    return -geometry->kernels->inner_product_half(query, ruhnsw_code(node), geometry->dim);
}

static float
l1_half(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    if (node->scale != 1.0f)
        return scaled_half(RV_METRIC_L1, geometry, query, node);
    return geometry->kernels->l1_half(query, ruhnsw_code(node), geometry->dim);
}

static float
unit_int8(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    return 1.0f - geometry->kernels->inner_product_int8(query, ruhnsw_code(node), node->scale,
                                                        geometry->dim);
}

static float
l2_int8(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    return geometry->kernels->l2_squared_int8(query, ruhnsw_code(node), node->scale, geometry->dim);
}

static float
ip_int8(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    return -geometry->kernels->inner_product_int8(query, ruhnsw_code(node), node->scale,
                                                  geometry->dim);
}

static float
l1_int8(const RuhnswGeometry *geometry, const float *query, const RuhnswNode *node)
{
    return geometry->kernels->l1_int8(query, ruhnsw_code(node), node->scale, geometry->dim);
}

ruhnsw_measure
ruhnsw_choose_measure(RuhnswStorage storage, rv_metric metric)
{
    static const ruhnsw_measure table[5][4] = {
        {l2_int8, ip_int8, unit_int8, l1_int8}, {l2_int8, ip_int8, unit_int8, l1_int8},
        {l2_int8, ip_int8, unit_int8, l1_int8}, {l2_half, ip_half, unit_half, l1_half},
        {l2_int8, ip_int8, unit_int8, l1_int8},
    };

    return table[storage - RUHNSW_STORAGE_FLOAT32][metric - RV_METRIC_L2];
}
