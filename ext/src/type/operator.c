/*
 * operator.c - arithmetic, concatenation and comparison of vectors.
 *
 * Comparison is element by element, then by length: a total order for btree indexes, ORDER BY,
 * DISTINCT and GROUP BY, which says nothing about nearness. Vectors of different lengths compare.
 * There is no hash class: -0 equals 0, and a sort finds duplicates well enough.
 *
 * Arithmetic refuses a result beyond the range of a float; one too small becomes zero.
 */
#include "vector.h"

#include <math.h>

PG_FUNCTION_INFO_V1(ruv_vector_add);
PG_FUNCTION_INFO_V1(ruv_vector_sub);
PG_FUNCTION_INFO_V1(ruv_vector_mul);
PG_FUNCTION_INFO_V1(ruv_vector_concat);
PG_FUNCTION_INFO_V1(ruv_vector_lt);
PG_FUNCTION_INFO_V1(ruv_vector_le);
PG_FUNCTION_INFO_V1(ruv_vector_eq);
PG_FUNCTION_INFO_V1(ruv_vector_ne);
PG_FUNCTION_INFO_V1(ruv_vector_ge);
PG_FUNCTION_INFO_V1(ruv_vector_gt);
PG_FUNCTION_INFO_V1(ruv_vector_cmp);

/* The elements are finite, so an infinite result is an overflow. */
static void
check_result(const RuVector *result, const RuVector *a, char op, const RuVector *b)
{
    int i;

    for (i = 0; i < result->dim; i++) {
        if (unlikely(isinf(result->x[i])))
            ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                            errmsg("result is out of range for type ruvector"),
                            errdetail("Element %d is %g %c %g.", i + 1, a->x[i], op, b->x[i])));
    }
}

Datum
ruv_vector_add(PG_FUNCTION_ARGS)
{
    RuVector *a = PG_GETARG_RUVECTOR_P(0);
    RuVector *b = PG_GETARG_RUVECTOR_P(1);
    RuVector *result;
    int i;

    ruv_check_same_dim(a, b);
    result = ruv_vector_alloc(a->dim);
    for (i = 0; i < a->dim; i++)
        result->x[i] = a->x[i] + b->x[i];
    check_result(result, a, '+', b);
    PG_RETURN_RUVECTOR_P(result);
}

Datum
ruv_vector_sub(PG_FUNCTION_ARGS)
{
    RuVector *a = PG_GETARG_RUVECTOR_P(0);
    RuVector *b = PG_GETARG_RUVECTOR_P(1);
    RuVector *result;
    int i;

    ruv_check_same_dim(a, b);
    result = ruv_vector_alloc(a->dim);
    for (i = 0; i < a->dim; i++)
        result->x[i] = a->x[i] - b->x[i];
    check_result(result, a, '-', b);
    PG_RETURN_RUVECTOR_P(result);
}

Datum
ruv_vector_mul(PG_FUNCTION_ARGS)
{
    RuVector *a = PG_GETARG_RUVECTOR_P(0);
    RuVector *b = PG_GETARG_RUVECTOR_P(1);
    RuVector *result;
    int i;

    ruv_check_same_dim(a, b);
    result = ruv_vector_alloc(a->dim);
    for (i = 0; i < a->dim; i++)
        result->x[i] = a->x[i] * b->x[i];
    check_result(result, a, '*', b);
    PG_RETURN_RUVECTOR_P(result);
}

Datum
ruv_vector_concat(PG_FUNCTION_ARGS)
{
    RuVector *a = PG_GETARG_RUVECTOR_P(0);
    RuVector *b = PG_GETARG_RUVECTOR_P(1);
    int dim = a->dim + b->dim;
    RuVector *result;

    ruv_check_dim(dim);
    result = ruv_vector_alloc(dim);
    memcpy(result->x, a->x, sizeof(float) * a->dim);
    memcpy(result->x + a->dim, b->x, sizeof(float) * b->dim);
    PG_RETURN_RUVECTOR_P(result);
}

static int
compare(const RuVector *a, const RuVector *b)
{
    int common = Min(a->dim, b->dim);
    int i;

    for (i = 0; i < common; i++) {
        if (a->x[i] < b->x[i])
            return -1;
        if (a->x[i] > b->x[i])
            return 1;
    }
    return (a->dim > b->dim) - (a->dim < b->dim);
}

/* Sorts and index descents call this often within one memory context, so copies are freed. */
static int
compare_arguments(FunctionCallInfo fcinfo)
{
    RuVector *a = PG_GETARG_RUVECTOR_P(0);
    RuVector *b = PG_GETARG_RUVECTOR_P(1);
    int order = compare(a, b);

    PG_FREE_IF_COPY(a, 0);
    PG_FREE_IF_COPY(b, 1);
    return order;
}

Datum
ruv_vector_lt(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(compare_arguments(fcinfo) < 0);
}

Datum
ruv_vector_le(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(compare_arguments(fcinfo) <= 0);
}

Datum
ruv_vector_eq(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(compare_arguments(fcinfo) == 0);
}

Datum
ruv_vector_ne(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(compare_arguments(fcinfo) != 0);
}

Datum
ruv_vector_ge(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(compare_arguments(fcinfo) >= 0);
}

Datum
ruv_vector_gt(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(compare_arguments(fcinfo) > 0);
}

Datum
ruv_vector_cmp(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(compare_arguments(fcinfo));
}
