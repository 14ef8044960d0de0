/*
 * store_values.c - arrays, vectors and identifiers as the learning tables hold them, and back.
 */
#include "learning/store_values.h"

#include "learning/worker.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

Datum
ruv_float_array(const float *values, int count)
{
    Datum *items = palloc(sizeof(Datum) * Max(count, 1));

    for (int i = 0; i < count; i++)
        items[i] = Float4GetDatum(values[i]);
    return PointerGetDatum(construct_array(items, count, FLOAT4OID, 4, true, TYPALIGN_INT));
}

Datum
ruv_effort_array(const uint32 *values, int count)
{
    Datum *items = palloc(sizeof(Datum) * Max(count, 1));

    for (int i = 0; i < count; i++)
        items[i] = Int32GetDatum(values[i] > PG_INT32_MAX ? -1 : (int32)values[i]);
    return PointerGetDatum(construct_array(items, count, INT4OID, 4, true, TYPALIGN_INT));
}

Datum
ruv_node_array(const uint64 *values, int count)
{
    Datum *items = palloc(sizeof(Datum) * Max(count, 1));

    for (int i = 0; i < count; i++)
        items[i] = Int64GetDatum((int64)values[i]);
    return PointerGetDatum(
        construct_array(items, count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* The elements of an array without nulls; *count is how many. */
static Datum *
array_items(Datum value, Oid type, int16 size, bool by_value, char alignment, int *count)
{
    Datum *items;

    deconstruct_array(DatumGetArrayTypeP(value), type, size, by_value, alignment, &items, NULL,
                      count);
    return items;
}

Datum *
ruv_float_items(Datum value, int *count)
{
    return array_items(value, FLOAT4OID, 4, true, TYPALIGN_INT, count);
}

Datum *
ruv_int_items(Datum value, int *count)
{
    return array_items(value, INT4OID, 4, true, TYPALIGN_INT, count);
}

Datum *
ruv_node_items(Datum value, int *count)
{
    return array_items(value, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, count);
}

Datum
ruv_vector_datum(const float *values, int dim)
{
    RuVector *vector = ruv_vector_alloc(dim);

    memcpy(vector->x, values, sizeof(float) * dim);
    return PointerGetDatum(vector);
}

Datum
ruv_query_id_datum(const uint64 *halves)
{
    pg_uuid_t *uuid = palloc(sizeof(*uuid));

    for (int i = 0; i < UUID_LEN; i++)
        uuid->data[i] = (unsigned char)(halves[i / 8] >> (56 - 8 * (i % 8)));
    return UUIDPGetDatum(uuid);
}

void
ruv_query_id_halves(Datum value, uint64 *halves)
{
    pg_uuid_t *uuid = DatumGetUUIDP(value);

    halves[0] = halves[1] = 0;
    for (int i = 0; i < UUID_LEN; i++)
        halves[i / 8] = halves[i / 8] << 8 | uuid->data[i];
}

Datum
ruv_recommendations_datum(const rv_judgement *verdict)
{
    Datum items[RV_MAX_RECOMMENDATIONS];
    int count = (int)Min(verdict->recommendation_count, RV_MAX_RECOMMENDATIONS);

    for (int i = 0; i < count; i++)
        items[i] = CStringGetTextDatum(verdict->recommendations[i]);
    return PointerGetDatum(construct_array(items, count, TEXTOID, -1, false, TYPALIGN_INT));
}
