/*
 * io.c - text and binary input and output of ruvector, and its type modifier.
 *
 * Text is '[1,2,3]': decimal numbers, white space allowed around each; output is the shortest
 * decimal that reads back as the same float, whatever extra_float_digits says. Binary is int16
 * dimensions, int16 zero, then the float4 values, all in network byte order. Both are the formats
 * of pgvector's vector type.
 *
 * Text input counts the commas before it converts anything: one allocation of the right size, and
 * an input with too many elements is refused at the price of a scan.
 */
#include "vector.h"

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "libpq/pqformat.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(ruv_vector_in);
PG_FUNCTION_INFO_V1(ruv_vector_out);
PG_FUNCTION_INFO_V1(ruv_vector_recv);
PG_FUNCTION_INFO_V1(ruv_vector_send);
PG_FUNCTION_INFO_V1(ruv_vector_typmod_in);

static const char *
skip_space(const char *p)
{
    while (ruv_is_space(*p))
        p++;
    return p;
}

static void
raise_malformed(const char *whole, const char *detail)
{
    ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
                    errmsg("invalid input syntax for type ruvector: \"%s\"",
                           ruv_excerpt(whole, strlen(whole))),
                    errdetail("%s", detail),
                    errhint("Write the elements in brackets, separated by commas: [1,2,3].")));
}

/* The number of elements between the brackets; p is behind the opening one. */
static int64
count_elements(const char *p)
{
    int64 count = 1;

    for (; *p && *p != ']'; p++) {
        if (*p == ',')
            count++;
    }
    return count;
}

Datum
ruv_vector_in(PG_FUNCTION_ARGS)
{
    const char *whole = PG_GETARG_CSTRING(0);
    int32 typmod = PG_GETARG_INT32(2);
    const char *p = skip_space(whole);
    RuVector *vector;
    int64 dim;
    int i;

    if (*p != '[')
        raise_malformed(whole, "A vector begins with \"[\".");
    p = skip_space(p + 1);
    dim = (*p == ']') ? 0 : count_elements(p);
    ruv_check_dim(dim);
    vector = ruv_vector_alloc((int)dim);

    for (i = 0; i < dim; i++) {
        char *end;

        p = skip_space(p);
        vector->x[i] = ruv_parse_element(p, &end, i + 1, whole);
        p = skip_space(end);
        if (*p == '\0')
            raise_malformed(whole, psprintf("There is no \"]\" after element %d.", i + 1));
        if (*p != ',' && *p != ']')
            raise_malformed(whole, psprintf("Element %d is not followed by a comma.", i + 1));
        p++;
    }
    Assert(p[-1] == ']');
    if (*skip_space(p) != '\0')
        raise_malformed(whole, "There is something after the closing \"]\".");

    ruv_check_typmod(typmod, vector->dim);
    PG_RETURN_RUVECTOR_P(vector);
}

Datum
ruv_vector_out(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    int dim = vector->dim;
    /* Each element and a separator; the brackets and the terminator. */
    char *buffer = palloc((Size)dim * FLOAT_SHORTEST_DECIMAL_LEN + 3);
    char *p = buffer;
    int i;

    *p++ = '[';
    for (i = 0; i < dim; i++) {
        if (i > 0)
            *p++ = ',';
        p += float_to_shortest_decimal_bufn(vector->x[i], p);
    }
    *p++ = ']';
    *p = '\0';

    PG_FREE_IF_COPY(vector, 0);
    PG_RETURN_CSTRING(buffer);
}

Datum
ruv_vector_recv(PG_FUNCTION_ARGS)
{
    StringInfo message = (StringInfo)PG_GETARG_POINTER(0);
    int32 typmod = PG_GETARG_INT32(2);
    int16 dim = (int16)pq_getmsgint(message, sizeof(int16));
    int16 unused = (int16)pq_getmsgint(message, sizeof(int16));
    RuVector *vector;
    int i;

    ruv_check_dim(dim);
    ruv_check_typmod(typmod, dim);
    if (unused != 0)
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
                 errmsg("expected the second field of a binary ruvector to be 0, not %d", unused)));

    vector = ruv_vector_alloc(dim);
    for (i = 0; i < dim; i++) {
        vector->x[i] = pq_getmsgfloat4(message);
        ruv_check_element(vector->x[i], i + 1);
    }
    PG_RETURN_RUVECTOR_P(vector);
}

Datum
ruv_vector_send(PG_FUNCTION_ARGS)
{
    RuVector *vector = PG_GETARG_RUVECTOR_P(0);
    StringInfoData message;
    int i;

    pq_begintypsend(&message);
    pq_sendint16(&message, vector->dim);
    pq_sendint16(&message, 0);
    for (i = 0; i < vector->dim; i++)
        pq_sendfloat4(&message, vector->x[i]);

    PG_FREE_IF_COPY(vector, 0);
    PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

/* ruvector(n): the modifier is n itself. */
Datum
ruv_vector_typmod_in(PG_FUNCTION_ARGS)
{
    ArrayType *modifiers = PG_GETARG_ARRAYTYPE_P(0);
    int count;
    int32 *values = ArrayGetIntegerTypmods(modifiers, &count);

    if (count != 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("invalid type modifier for type ruvector"),
                        errhint("Write the number of dimensions: ruvector(384).")));
    if (values[0] < 1 || values[0] > RV_MAX_DIMENSIONS)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("dimensions for type ruvector must be between 1 and %d, not %d",
                               RV_MAX_DIMENSIONS, values[0])));
    PG_RETURN_INT32(values[0]);
}
