/*
 * distance.c - the distance functions and operators, over the engine's kernels.
 *
 * The kernels sum in single precision, as the indexes do. Where a sum left the range of a float
 * (huge elements) or fell below its normal numbers (tiny ones, or a true zero), it is taken again
 * in double precision: distances of finite vectors are finite, and only equal vectors are at
 * distance zero.
 */
#include "vector.h"

#include <float.h>
#include <math.h>

PG_FUNCTION_INFO_V1(ruv_l2_distance);
PG_FUNCTION_INFO_V1(ruv_inner_product);
PG_FUNCTION_INFO_V1(ruv_negative_inner_product);
PG_FUNCTION_INFO_V1(ruv_cosine_distance);
PG_FUNCTION_INFO_V1(ruv_l1_distance);

typedef double (*distance_fn)(const float *a, const float *b, int dim);

/* False for NaN too. */
static bool
in_normal_range(float sum)
{
    float size = fabsf(sum);

    return size >= FLT_MIN && size <= FLT_MAX;
}

static double
l2(const float *a, const float *b, int dim)
{
    double sum = 0;
    float fast = rv_kernels_active()->l2_squared(a, b, dim);
    int i;

    if (likely(in_normal_range(fast)))
        return sqrt((double)fast);
    for (i = 0; i < dim; i++) {
        double difference = (double)a[i] - (double)b[i];

        sum += difference * difference;
    }
    return sqrt(sum);
}

static double
dot_double(const float *a, const float *b, int dim)
{
    double sum = 0;
    int i;

    for (i = 0; i < dim; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static double
inner_product(const float *a, const float *b, int dim)
{
    float fast = rv_kernels_active()->inner_product(a, b, dim);

    return likely(in_normal_range(fast)) ? (double)fast : dot_double(a, b, dim);
}

/* Subtracting from zero keeps a minus sign off the zero. */
static double
negative_inner_product(const float *a, const float *b, int dim)
{
    return 0.0 - inner_product(a, b, dim);
}

/* 1 - cosine similarity, 0 to 2; NaN when either vector is zero, for which no angle is defined. */
static double
cosine(const float *a, const float *b, int dim)
{
    double similarity = (double)rv_kernels_active()->cosine(a, b, dim);

    if (unlikely(!in_normal_range((float)similarity)))
        similarity =
            dot_double(a, b, dim) / (sqrt(dot_double(a, a, dim)) * sqrt(dot_double(b, b, dim)));
    if (similarity > 1)
        similarity = 1;
    else if (similarity < -1)
        similarity = -1;
    return 1 - similarity;
}

static double
l1(const float *a, const float *b, int dim)
{
    double sum = 0;
    float fast = rv_kernels_active()->l1(a, b, dim);
    int i;

    if (likely(in_normal_range(fast)))
        return (double)fast;
    for (i = 0; i < dim; i++)
        sum += fabs((double)a[i] - (double)b[i]);
    return sum;
}

static Datum
distance_of_arguments(FunctionCallInfo fcinfo, distance_fn distance)
{
    RuVector *a = PG_GETARG_RUVECTOR_P(0);
    RuVector *b = PG_GETARG_RUVECTOR_P(1);
    double result;

    ruv_check_same_dim(a, b);
    result = distance(a->x, b->x, a->dim);

    PG_FREE_IF_COPY(a, 0);
    PG_FREE_IF_COPY(b, 1);
    PG_RETURN_FLOAT8(result);
}

Datum
ruv_l2_distance(PG_FUNCTION_ARGS)
{
    return distance_of_arguments(fcinfo, l2);
}

Datum
ruv_inner_product(PG_FUNCTION_ARGS)
{
    return distance_of_arguments(fcinfo, inner_product);
}

Datum
ruv_negative_inner_product(PG_FUNCTION_ARGS)
{
    return distance_of_arguments(fcinfo, negative_inner_product);
}

Datum
ruv_cosine_distance(PG_FUNCTION_ARGS)
{
    return distance_of_arguments(fcinfo, cosine);
}

Datum
ruv_l1_distance(PG_FUNCTION_ARGS)
{
    return distance_of_arguments(fcinfo, l1);
}
