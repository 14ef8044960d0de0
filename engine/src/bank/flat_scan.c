/*
 * flat_scan.c - the exact nearest regions of a small flat bank, mostly by their codes.
 *
 * A code says where a centroid is to within its error, so it bounds the distance from both sides.
 * Regions whose lower bound is above the k-th least upper bound cannot be among the k nearest; the
 * others, a few more than k as a rule, are compared by their float32 centroids. The bounds hold for
 * the distances as the float kernels compute them: they are wider by what rounding can do there.
 *
 * The bounds: for L2 by the triangle inequality, the Euclidean distance between what the two codes
 * say, more or less both errors. For COSINE, whose raw form is 1 - <q, x> of unit vectors:
 * |<q, x> - <q', x'>| <= |q - q'| |x| + |q'| |x - x'|. Under L1 the errors add up to more than the
 * distances differ by, and codes save no time: all are compared.
 */
#include "flat_query.h"

#include <float.h>
#include <math.h>

#define CODED_K_MAX 16 /* for more the bounds exclude little, and all are compared */

typedef struct bounds {
    float lower[RV_BANK_EXACT_LIMIT];
    float least_upper[CODED_K_MAX]; /* ascending; infinite beyond what was seen */
} bounds;

/* How far the distance may be from the one to the code: a + b x the code's error + c x distance. */
typedef struct tolerance {
    float a, b, c;
} tolerance;

static tolerance
tolerance_of(const flat_query *query)
{
    uint32_t dim = query->header->dim;
    float rounding = (float)(dim + 16) * FLT_EPSILON;
    float off = sqrtf((float)dim) / 2 / RV_WIDE_LENGTH; /* the query's own code */

    if (query->space == RV_METRIC_COSINE)
        return (tolerance){off + rounding, 1 + off + rounding, 0};
    return (tolerance){(float)query->length * (off + FLT_EPSILON), 1 + rounding, rounding};
}

static inline void
note_upper(bounds *b, uint32_t k, float upper)
{
    uint32_t at = k - 1;

    if (!(upper < b->least_upper[at]))
        return;
    for (; at > 0 && upper < b->least_upper[at - 1]; at--)
        b->least_upper[at] = b->least_upper[at - 1];
    b->least_upper[at] = upper;
}

static void
bound_all(const flat_query *query, uint32_t k, bounds *b)
{
    const float *errors = flat_errors(query->header, &query->layout);
    size_t stride = query->layout.code_stride;
    int32_t products[RV_BANK_EXACT_LIMIT];
    tolerance t = tolerance_of(query);

    query->dots(query->wide, flat_code(query->header, &query->layout, 0), stride,
                query->header->regions, (uint32_t)stride, products);
    for (uint32_t i = 0; i < k; i++)
        b->least_upper[i] = INFINITY;
    for (uint32_t i = 0; i < query->header->regions; i++) {
        float distance = flat_distance_of(query, i, products[i]);
        float margin;

        if (query->space == RV_METRIC_L2)
            distance = sqrtf(fmaxf(distance, 0));
        margin = t.a + t.b * errors[i] + t.c * distance;
        b->lower[i] = distance - margin;
        note_upper(b, k, distance + margin);
    }
}

uint32_t
rv_flat_scan(const flat_query *query, bank_ranking *ranking)
{
    uint32_t regions = query->header->regions;
    uint32_t left[RV_BANK_EXACT_LIMIT];
    uint32_t count = 0;
    bounds b;

    if (query->space == RV_METRIC_L1 || ranking->k > CODED_K_MAX || ranking->k >= regions) {
        for (uint32_t i = 0; i < regions; i++)
            left[count++] = i;
        rv_flat_rank(query, left, count, ranking);
        return count;
    }
    bound_all(query, ranking->k, &b);
    for (uint32_t i = 0; i < regions; i++)
        /* Neither is above the other where one of them is no number. */
        if (!(b.lower[i] > b.least_upper[ranking->k - 1]))
            left[count++] = i;
    rv_flat_rank(query, left, count, ranking);
    return regions + count;
}
