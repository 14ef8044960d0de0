/*
 * cast.c - between ruvector and arrays of numbers, and to ruvector(n).
 *
 * An array becomes a vector when it has one dimension, no NULL and only finite numbers within the
 * range of a float; the message names the element. numeric goes through text both ways: in, so that
 * it is rounded once and reported like any text; out, because the server's own real-to-numeric cast
 * keeps six digits only and would not come back as the same vector.
 */
#include "vector.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(ruv_vector_typmod_cast);
PG_FUNCTION_INFO_V1(ruv_vector_from_array);
PG_FUNCTION_INFO_V1(ruv_vector_to_float4);
PG_FUNCTION_INFO_V1(ruv_vector_to_float8);
PG_FUNCTION_INFO_V1(ruv_vector_to_int4);
PG_FUNCTION_INFO_V1(ruv_vector_to_numeric);

/* A vector is never cut or padded: another length than the column's is an error. */
Datum
ruv_vector_typmod_cast(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);

    ruv_check_typmod(PG_GETARG_INT32(1), vector->dim);
    PG_RETURN_RUVECTOR_P(vector);
}

static float
element_from_numeric(Datum value, int position)
{
    char *text = DatumGetCString(DirectFunctionCall1(numeric_out, value));
    char *end;
    float element = ruv_parse_element(text, &end, position, text);

    Assert(*end == '\0');
    pfree(text);
    return element;
}

static float
element_from_datum(Datum value, Oid type, int position)
{
    switch (type) {
        case INT4OID:
            return (float)DatumGetInt32(value);
        case FLOAT4OID:
            ruv_check_element(DatumGetFloat4(value), position);
            return DatumGetFloat4(value);
        case FLOAT8OID:
            return ruv_element_from_double(DatumGetFloat8(value), position);
        case NUMERICOID:
            return element_from_numeric(value, position);
        default:
            elog(ERROR, "no conversion from type %u to an element of ruvector", type);
    }
}

/* From integer[], real[], double precision[] and numeric[], to ruvector or ruvector(n). */
Datum
ruv_vector_from_array(PG_FUNCTION_ARGS)
{
    ArrayType *array = PG_GETARG_ARRAYTYPE_P(0);
    Oid type = ARR_ELEMTYPE(array);
    int16 length;
    bool by_value;
    char align;
    Datum *elements;
    bool *nulls;
    int count;
    RuVector *vector;
    int i;

    if (ARR_NDIM(array) > 1)
        ereport(ERROR,
                (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
                 errmsg("cannot convert an array of %d dimensions to ruvector", ARR_NDIM(array)),
                 errhint("Use a one-dimensional array.")));
    /* Before the array is taken apart, so that a huge one is refused cheaply. */
    ruv_check_dim(ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)));

    get_typlenbyvalalign(type, &length, &by_value, &align);
    deconstruct_array(array, type, length, by_value, align, &elements, &nulls, &count);
    ruv_check_typmod(PG_GETARG_INT32(1), count);

    vector = ruv_vector_alloc(count);
    for (i = 0; i < count; i++) {
        if (nulls[i])
            ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                            errmsg("NULL not allowed in ruvector"),
                            errdetail("Element %d of the array is NULL.", i + 1)));
        vector->x[i] = element_from_datum(elements[i], type, i + 1);
    }

    pfree(elements);
    pfree(nulls);
    PG_RETURN_RUVECTOR_P(vector);
}

Datum
ruv_vector_to_float4(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    Datum *elements = palloc(sizeof(Datum) * vector->dim);
    int i;

    for (i = 0; i < vector->dim; i++)
        elements[i] = Float4GetDatum(vector->x[i]);
    PG_RETURN_ARRAYTYPE_P(
        construct_array(elements, vector->dim, FLOAT4OID, sizeof(float4), true, TYPALIGN_INT));
}

Datum
ruv_vector_to_float8(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    Datum *elements = palloc(sizeof(Datum) * vector->dim);
    int i;

    for (i = 0; i < vector->dim; i++)
        elements[i] = Float8GetDatum((float8)vector->x[i]);
    PG_RETURN_ARRAYTYPE_P(construct_array(elements, vector->dim, FLOAT8OID, sizeof(float8),
                                          FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Rounds to the nearest integer, ties to even, as the server's real-to-integer cast does. */
Datum
ruv_vector_to_int4(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    Datum *elements = palloc(sizeof(Datum) * vector->dim);
    int i;

    for (i = 0; i < vector->dim; i++) {
        float rounded = rintf(vector->x[i]);

        if (!FLOAT4_FITS_IN_INT32(rounded))
            ereport(ERROR,
                    (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("integer out of range"),
                     errdetail("Element %d of the ruvector is %g.", i + 1, vector->x[i])));
        elements[i] = Int32GetDatum((int32)rounded);
    }
    PG_RETURN_ARRAYTYPE_P(
        construct_array(elements, vector->dim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

Datum
ruv_vector_to_numeric(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    Datum *elements = palloc(sizeof(Datum) * vector->dim);
    char text[FLOAT_SHORTEST_DECIMAL_LEN];
    int i;

    for (i = 0; i < vector->dim; i++) {
        float_to_shortest_decimal_buf(vector->x[i], text);
        elements[i] = DirectFunctionCall3(numeric_in, CStringGetDatum(text),
                                          ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
    }
    PG_RETURN_ARRAYTYPE_P(
        construct_array(elements, vector->dim, NUMERICOID, -1, false, TYPALIGN_INT));
}
