/*
 * store_patterns.c - the pattern bank and the memory of queries as rows, and back.
 *
 * The two are stored together, since a calibration holds with the memory it was made with.
 */
#include "learning/store_values.h"
#include "learning/worker.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define PATTERN_COLUMNS 23

static void
pattern_values(const RuvIndexState *state, const rv_pattern *pattern, const float *centroid,
               Datum *values, char *nulls)
{
    values[0] = ObjectIdGetDatum(state->index_oid);
    values[1] = Int64GetDatum((int64)pattern->id);
    values[2] = ObjectIdGetDatum(state->table_oid);
    values[3] = NameGetDatum(&state->index_name);
    values[4] = Int64GetDatum((int64)pattern->index_epoch);
    values[5] = CStringGetTextDatum(pattern->scope == RV_PATTERN_INDEX ? "index" : "region");
    nulls[6] = centroid == NULL ? 'n' : ' ';
    values[6] = centroid == NULL ? (Datum)0 : ruv_vector_datum(centroid, state->identity.dim);
    values[7] = Int32GetDatum((int32)pattern->k);
    values[8] = Int32GetDatum((int32)pattern->samples);
    values[9] = Int64GetDatum((int64)pattern->usage);
    values[10] = TimestampTzGetDatum(pattern->created_us);
    values[11] = TimestampTzGetDatum(pattern->updated_us);
    values[12] = Int32GetDatum((int32)pattern->optimal_ef_search);
    values[13] = Int32GetDatum((int32)pattern->optimal_probes);
    values[14] = Float4GetDatum(pattern->target_recall);
    values[15] = Float4GetDatum(pattern->slack);
    values[16] = Float4GetDatum(pattern->expected_recall);
    values[17] = Float4GetDatum(pattern->confidence);
    values[18] = Float4GetDatum(pattern->radius);
    values[19] = Float4GetDatum(pattern->mean_distances);
    values[20] = ruv_node_array(pattern->entry_points, (int)pattern->entry_count);
    values[21] = ruv_float_array(pattern->table_slack, RV_TARGETS);
    values[22] = ruv_effort_array(pattern->table_ef, RV_TARGETS);
}

void
ruv_store_save_patterns(RuvStore *store, RuvIndexState *state)
{
    Oid types[PATTERN_COLUMNS + 1] = {
        OIDOID,     INT8OID,   OIDOID,       NAMEOID,        INT8OID,        TEXTOID,
        InvalidOid, INT4OID,   INT4OID,      INT8OID,        TIMESTAMPTZOID, TIMESTAMPTZOID,
        INT4OID,    INT4OID,   FLOAT4OID,    FLOAT4OID,      FLOAT4OID,      FLOAT4OID,
        FLOAT4OID,  FLOAT4OID, INT8ARRAYOID, FLOAT4ARRAYOID, INT4ARRAYOID,   FLOAT4ARRAYOID};
    Datum values[PATTERN_COLUMNS + 1];
    char nulls[PATTERN_COLUMNS + 2];
    SPIPlanPtr plan;

    types[6] = store->vector_type;
    values[0] = ObjectIdGetDatum(state->index_oid);
    ruv_store_run(store, "DELETE FROM @.ruvector_patterns WHERE index_oid = $1", 1, types, values,
                  NULL);
    plan = ruv_store_prepare(
        store,
        "INSERT INTO @.ruvector_patterns (index_oid, pattern_id, table_id, index_name, "
        "index_epoch, scope, centroid, k, samples, usage, created_at, updated_at, "
        "optimal_ef_search, optimal_probes, target_recall, slack, expected_recall, confidence, "
        "radius, mean_distances, entry_points, table_slack, table_ef, table_recall) "
        "VALUES ($1, $2, $3::regclass, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, "
        "$17, $18, $19, $20, $21, $22, $23, $24)",
        PATTERN_COLUMNS + 1, types);
    for (uint32 i = 0; i < rv_bank_count(state->bank); i++) {
        const float *centroid;
        const rv_pattern *pattern = rv_bank_get(state->bank, i, &centroid);

        memset(nulls, ' ', sizeof(nulls));
        pattern_values(state, pattern, centroid, values, nulls);
        values[PATTERN_COLUMNS] = ruv_float_array(pattern->table_recall, RV_TARGETS);
        if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT)
            elog(ERROR, "a pattern could not be stored");
    }
}

/* Copies what fits of a stored array into a table of the pattern. */
static void
load_tables(uint64 row, rv_pattern *pattern)
{
    int counts[4];
    Datum *entries = ruv_node_items(ruv_store_value(row, 18, NULL), &counts[0]);
    Datum *slack = ruv_float_items(ruv_store_value(row, 19, NULL), &counts[1]);
    Datum *ef = ruv_int_items(ruv_store_value(row, 20, NULL), &counts[2]);
    Datum *recall = ruv_float_items(ruv_store_value(row, 21, NULL), &counts[3]);

    pattern->entry_count = (uint32_t)Min(counts[0], RV_PATTERN_ENTRY_POINTS);
    for (uint32 i = 0; i < pattern->entry_count; i++)
        pattern->entry_points[i] = (uint64_t)DatumGetInt64(entries[i]);
    for (int i = 0; i < RV_TARGETS; i++) {
        pattern->table_slack[i] = i < counts[1] ? DatumGetFloat4(slack[i]) : -1;
        pattern->table_ef[i] = i < counts[2] ? (uint32_t)DatumGetInt32(ef[i]) : 0;
        pattern->table_recall[i] = i < counts[3] ? DatumGetFloat4(recall[i]) : -1;
    }
}

static void
load_pattern(RuvIndexState *state, uint64 row)
{
    rv_pattern pattern = {0};
    rv_error err = {0};
    uint64_t id;
    bool null;
    Datum centroid = ruv_store_value(row, 4, &null);
    RuVector *vector = null ? NULL : DatumGetRuVector(centroid);

    pattern.id = (uint64_t)DatumGetInt64(ruv_store_value(row, 1, NULL));
    pattern.index_epoch = (uint64_t)DatumGetInt64(ruv_store_value(row, 2, NULL));
    pattern.scope = strcmp(TextDatumGetCString(ruv_store_value(row, 3, NULL)), "index") == 0
                        ? RV_PATTERN_INDEX
                        : RV_PATTERN_REGION;
    pattern.k = (uint32_t)DatumGetInt32(ruv_store_value(row, 5, NULL));
    pattern.samples = (uint32_t)DatumGetInt32(ruv_store_value(row, 6, NULL));
    pattern.usage = (uint64_t)DatumGetInt64(ruv_store_value(row, 7, NULL));
    pattern.created_us = DatumGetTimestampTz(ruv_store_value(row, 8, NULL));
    pattern.updated_us = DatumGetTimestampTz(ruv_store_value(row, 9, NULL));
    pattern.optimal_ef_search = (uint32_t)DatumGetInt32(ruv_store_value(row, 10, NULL));
    pattern.optimal_probes = (uint32_t)DatumGetInt32(ruv_store_value(row, 11, NULL));
    pattern.target_recall = DatumGetFloat4(ruv_store_value(row, 12, NULL));
    pattern.slack = DatumGetFloat4(ruv_store_value(row, 13, NULL));
    pattern.expected_recall = DatumGetFloat4(ruv_store_value(row, 14, NULL));
    pattern.confidence = DatumGetFloat4(ruv_store_value(row, 15, NULL));
    pattern.radius = DatumGetFloat4(ruv_store_value(row, 16, NULL));
    pattern.mean_distances = DatumGetFloat4(ruv_store_value(row, 17, NULL));
    load_tables(row, &pattern);
    if ((vector == NULL) != (pattern.scope == RV_PATTERN_INDEX) ||
        (vector != NULL && vector->dim != state->identity.dim) ||
        rv_bank_put(state->bank, &pattern, vector ? vector->x : NULL, &id, &err) != RV_OK)
        ereport(LOG, (errmsg("pattern " UINT64_FORMAT " of index %s is not usable and was left out",
                             pattern.id, NameStr(state->index_name)),
                      errdetail("%s", err.message[0] ? err.message
                                                     : "Its centroid does not fit the index.")));
}

void
ruv_store_load_patterns(RuvStore *store, RuvIndexState *state)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(state->index_oid)};
    rv_error err = {0};
    uint64 rows;

    rows = ruv_store_run(
        store,
        "SELECT pattern_id, index_epoch, scope, centroid, k, samples, usage, created_at, "
        "updated_at, optimal_ef_search, optimal_probes, target_recall, slack, expected_recall, "
        "confidence, radius, mean_distances, entry_points, table_slack, table_ef, table_recall "
        "FROM @.ruvector_patterns WHERE index_oid = $1 ORDER BY pattern_id LIMIT 1001",
        1, types, values, NULL);
    if (rows == 0)
        return;
    ruv_check(rv_bank_create(&state->allocator, state->identity.metric,
                             (uint32_t)state->identity.dim, RUV_BANK_LIMIT, &state->bank, &err),
              &err, "loading the pattern bank");
    for (uint64 row = 0; row < rows; row++)
        load_pattern(state, row);
    state->bank_changed = rv_bank_count(state->bank) > 0;
}

void
ruv_store_follow_patterns(RuvStore *store, RuvIndexState *state)
{
    /* Read before the rows: a change in between is followed the next time. */
    uint64 revision = pg_atomic_read_u64(&state->slot->bank_revision);
    rv_error err = {0};

    if (revision == state->bank_revision)
        return;
    rv_bank_destroy(state->bank);
    state->bank = NULL;
    ruv_store_load_patterns(store, state);
    /* Nothing is left: that has to be published, too. */
    if (state->bank == NULL)
        ruv_check(rv_bank_create(&state->allocator, state->identity.metric,
                                 (uint32_t)state->identity.dim, RUV_BANK_LIMIT, &state->bank, &err),
                  &err, "loading the pattern bank");
    state->bank_changed = true;
    /* Where queries are not kept (privacy.c), no centroid may come in by this way either. */
    state->vectors_stored = true;
    state->recertified_with = 0;
    state->bank_revision = revision;
}

/* ---- the memory of queries ------------------------------------------------------------------ */

void
ruv_store_save_memory(RuvStore *store, RuvIndexState *state)
{
    Oid types[5] = {OIDOID, OIDOID, NAMEOID, INT8OID, BYTEAOID};
    Datum values[5] = {ObjectIdGetDatum(state->index_oid), ObjectIdGetDatum(state->table_oid),
                       NameGetDatum(&state->index_name),
                       Int64GetDatum((int64)state->identity.epoch)};
    bytea *flat;

    ruv_store_run(store, "DELETE FROM @.ruvector_memory WHERE index_oid = $1", 1, types, values,
                  NULL);
    if (state->flat_memory == NULL)
        return;
    flat = palloc_extended(VARHDRSZ + state->flat_memory_size, MCXT_ALLOC_HUGE);
    SET_VARSIZE(flat, VARHDRSZ + state->flat_memory_size);
    memcpy(VARDATA(flat), state->flat_memory, state->flat_memory_size);
    values[4] = PointerGetDatum(flat);
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_memory (index_oid, table_id, index_name, index_epoch, "
                  "flat) VALUES ($1, $2::regclass, $3, $4, $5)",
                  5, types, values, NULL);
    pfree(flat);
}

void
ruv_store_load_memory(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};
    bytea *flat;

    /* Also without patterns of this build: the samples' efforts were traced with it. */
    if (ruv_store_run(
            store, "SELECT flat FROM @.ruvector_memory WHERE index_oid = $1 AND index_epoch = $2",
            2, types, values, NULL) == 0)
        return;
    flat = DatumGetByteaPP(ruv_store_value(0, 1, NULL));
    if (ruv_memory_restore(state, VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat)))
        return;
    /* The calibration holds with the memory it was made with, so it goes too. */
    ereport(LOG, (errmsg("the remembered queries of index \"%s\" cannot be read; what was learned "
                         "for it is learned anew",
                         NameStr(state->index_name))));
    rv_bank_destroy(state->bank);
    state->bank = NULL;
    state->bank_changed = false;
}
