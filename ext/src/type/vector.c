/*
 * vector.c - allocation of vectors and the checks that keep every stored vector valid.
 *
 * SQLSTATEs: 22000 for a value that no vector may hold or a wrong number of dimensions, 22003 for a
 * number beyond the range of a float, 54000 for too many dimensions.
 */
#include "vector.h"

#include <float.h>
#include <math.h>

RuVector *
ruv_vector_alloc(int dim)
{
    Size size = RUVECTOR_SIZE(dim);
    RuVector *vector = (RuVector *)palloc0(size);

    Assert(dim >= 1 && dim <= RV_MAX_DIMENSIONS);
    SET_VARSIZE(vector, size);
    vector->dim = (int16)dim;
    return vector;
}

void
ruv_check_dim(int64 dim)
{
    if (dim < 1)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("a ruvector must have at least 1 dimension"),
                        errhint("Store NULL where there is no vector.")));
    if (dim > RV_MAX_DIMENSIONS)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("a ruvector cannot have more than %d dimensions", RV_MAX_DIMENSIONS),
                        errdetail("The value has %lld dimensions.", (long long)dim)));
}

void
ruv_check_typmod(int32 typmod, int dim)
{
    if (typmod >= 0 && typmod != dim)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("expected %d dimensions, not %d", typmod, dim)));
}

void
ruv_check_same_dim(const RuVector *a, const RuVector *b)
{
    if (a->dim != b->dim)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("different vector dimensions %d and %d", a->dim, b->dim)));
}

static void
raise_not_finite(const char *name, int position)
{
    ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION), errmsg("%s not allowed in ruvector", name),
                    errdetail("Element %d is %s.", position, name)));
}

void
ruv_check_element(float value, int position)
{
    if (isnan(value))
        raise_not_finite("NaN", position);
    if (isinf(value))
        raise_not_finite(value > 0 ? "Infinity" : "-Infinity", position);
}

float
ruv_element_from_double(double value, int position)
{
    float element = (float)value;

    if (isnan(value))
        raise_not_finite("NaN", position);
    if (isinf(value))
        raise_not_finite(value > 0 ? "Infinity" : "-Infinity", position);
    if (isinf(element))
        ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                        errmsg("\"%.*g\" is out of range for type ruvector", DBL_DIG, value),
                        errdetail("Element %d is beyond the range of a 4-byte float.", position)));
    return element;
}
