/*
 * functions.c - facts about a vector and vectors made from one: dimensions, norm, unit length,
 * part.
 */
#include "vector.h"

#include <math.h>

PG_FUNCTION_INFO_V1(ruv_vector_dims);
PG_FUNCTION_INFO_V1(ruv_vector_norm);
PG_FUNCTION_INFO_V1(ruv_l2_normalize);
PG_FUNCTION_INFO_V1(ruv_subvector);

Datum
ruv_vector_dims(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    int dim = vector->dim;

    PG_FREE_IF_COPY(vector, 0);
    PG_RETURN_INT32(dim);
}

/* In double precision: the squares of float elements neither overflow nor vanish there. */
static double
norm(const RuVector *vector)
{
    double sum = 0;
    int i;

    for (i = 0; i < vector->dim; i++)
        sum += (double)vector->x[i] * (double)vector->x[i];
    return sqrt(sum);
}

Datum
ruv_vector_norm(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    double length = norm(vector);

    PG_FREE_IF_COPY(vector, 0);
    PG_RETURN_FLOAT8(length);
}

/* The vector of length 1 in the same direction; a zero vector stays zero. */
Datum
ruv_l2_normalize(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    RuVector *result = ruv_vector_alloc(vector->dim);
    double length = norm(vector);
    int i;

    if (length > 0) {
        for (i = 0; i < vector->dim; i++)
            result->x[i] = (float)(vector->x[i] / length);
    }
    PG_RETURN_RUVECTOR_P(result);
}

/*
 * count elements from number start on (the first is 1), cut where the vector begins and ends, as
 * substring does with text. What is left must hold at least one element.
 */
Datum
ruv_subvector(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    int64 start = PG_GETARG_INT32(1);
    int64 count = PG_GETARG_INT32(2);
    int64 first = Max(start, 1);
    int64 last = Min(start + count - 1, (int64)vector->dim);
    RuVector *result;

    if (first > last)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("a ruvector must have at least 1 dimension"),
                        errdetail("There are no elements %lld to %lld in a vector of %d.",
                                  (long long)start, (long long)(start + count - 1), vector->dim)));

    result = ruv_vector_alloc((int)(last - first + 1));
    memcpy(result->x, vector->x + first - 1, sizeof(float) * result->dim);
    PG_RETURN_RUVECTOR_P(result);
}
