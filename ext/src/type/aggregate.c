/*
 * aggregate.c - sum and avg over vectors.
 *
 * The state is a double precision array: the number of vectors, then the sum of each element; {0}
 * before the first one. An array travels between parallel workers without functions of its own, and
 * doubles keep the rounding of many rows, and intermediate sums beyond the range of a float, out of
 * the result. Inside an aggregate the state is updated in place, as the server's float8_accum does.
 */
#include "vector.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(ruv_vector_accum);
PG_FUNCTION_INFO_V1(ruv_vector_combine);
PG_FUNCTION_INFO_V1(ruv_vector_avg);
PG_FUNCTION_INFO_V1(ruv_vector_sum);

/* A view into a state array. */
typedef struct AggState {
    ArrayType *array;
    int dim;       /* 0 before the first vector */
    float8 *count; /* of vectors */
    float8 *sum;   /* dim of them */
} AggState;

/* The functions can be called from SQL with any array, so the state is checked. */
static AggState
view_state(ArrayType *array, const char *function)
{
    AggState state;
    int items = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

    if (ARR_NDIM(array) != 1 || ARR_HASNULL(array) || ARR_ELEMTYPE(array) != FLOAT8OID ||
        items < 1 || items - 1 > RV_MAX_DIMENSIONS)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("%s: not a state of a ruvector aggregate", function),
                        errhint("Use the aggregates sum and avg.")));
    state.array = array;
    state.dim = items - 1;
    state.count = (float8 *)ARR_DATA_PTR(array);
    state.sum = state.count + 1;
    return state;
}

/* A state of its own for the caller, zeroed. */
static AggState
new_state(int dim)
{
    AggState state;
    Size size = ARR_OVERHEAD_NONULLS(1) + sizeof(float8) * (dim + 1);
    ArrayType *array = (ArrayType *)palloc0(size);

    SET_VARSIZE(array, size);
    array->ndim = 1;
    array->dataoffset = 0;
    array->elemtype = FLOAT8OID;
    ARR_DIMS(array)[0] = dim + 1;
    ARR_LBOUND(array)[0] = 1;

    state.array = array;
    state.dim = dim;
    state.count = (float8 *)ARR_DATA_PTR(array);
    state.sum = state.count + 1;
    return state;
}

static AggState
copy_state(const AggState *from)
{
    AggState state = new_state(from->dim);

    memcpy(state.count, from->count, sizeof(float8) * (from->dim + 1));
    return state;
}

static void
check_dims(int expected, int dim)
{
    if (expected != dim)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("different vector dimensions %d and %d", expected, dim)));
}

Datum
ruv_vector_accum(PG_FUNCTION_ARGS)
{
    AggState state = view_state(PG_GETARG_ARRAYTYPE_P(0), "ruvector_accum");
    RuVector *vector = PG_GETARG_RUVECTOR_P(1);
    int i;

    if (state.dim == 0)
        state = new_state(vector->dim);
    else {
        check_dims(state.dim, vector->dim);
        if (!AggCheckCallContext(fcinfo, NULL))
            state = copy_state(&state);
    }

    *state.count += 1;
    for (i = 0; i < state.dim; i++)
        state.sum[i] += (float8)vector->x[i];
    PG_RETURN_ARRAYTYPE_P(state.array);
}

Datum
ruv_vector_combine(PG_FUNCTION_ARGS)
{
    AggState a = view_state(PG_GETARG_ARRAYTYPE_P(0), "ruvector_combine");
    AggState b = view_state(PG_GETARG_ARRAYTYPE_P(1), "ruvector_combine");
    int i;

    if (b.dim == 0)
        PG_RETURN_ARRAYTYPE_P(a.array);
    if (a.dim == 0)
        PG_RETURN_ARRAYTYPE_P(b.array);
    check_dims(a.dim, b.dim);
    if (!AggCheckCallContext(fcinfo, NULL))
        a = copy_state(&a);

    *a.count += *b.count;
    for (i = 0; i < a.dim; i++)
        a.sum[i] += b.sum[i];
    PG_RETURN_ARRAYTYPE_P(a.array);
}

/* The mean of the vectors, NULL over none. */
Datum
ruv_vector_avg(PG_FUNCTION_ARGS)
{
    AggState state = view_state(PG_GETARG_ARRAYTYPE_P(0), "ruvector_avg");
    RuVector *result;
    int i;

    if (*state.count == 0 || state.dim == 0)
        PG_RETURN_NULL();
    result = ruv_vector_alloc(state.dim);
    for (i = 0; i < state.dim; i++)
        result->x[i] = ruv_element_from_double(state.sum[i] / *state.count, i + 1);
    PG_RETURN_RUVECTOR_P(result);
}

/* The sum of the vectors, NULL over none. */
Datum
ruv_vector_sum(PG_FUNCTION_ARGS)
{
    AggState state = view_state(PG_GETARG_ARRAYTYPE_P(0), "ruvector_sum");
    RuVector *result;
    int i;

    if (*state.count == 0 || state.dim == 0)
        PG_RETURN_NULL();
    result = ruv_vector_alloc(state.dim);
    for (i = 0; i < state.dim; i++)
        result->x[i] = ruv_element_from_double(state.sum[i], i + 1);
    PG_RETURN_RUVECTOR_P(result);
}
