/*
 * store_samples.c - traced and judged searches as rows of ruvector_trajectory_log, and back.
 *
 * A stored sample is enough to calibrate from again: its query and its efforts. Where queries may
 * not be kept (privacy.c) it is stored without, and serves until the worker ends.
 */
#include "learning/store_values.h"
#include "learning/worker.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* Columns of ruvector_trajectory_log in the order of the parameters below. */
#define SAMPLE_COLUMNS 39
#define SAMPLE_INSERT                                                                              \
    "INSERT INTO @.ruvector_trajectory_log (query_id, table_id, index_oid, index_name, "           \
    "index_epoch, searched_at, user_id, mode, k, ef_search, slack, target_recall, "                \
    "expected_recall, distances, hops, pages, latency_us, score, query, query_hash, recall, "      \
    "recall_exact, needed_distances, diversity, success, confidence, score_latency, "              \
    "score_recall, score_diversity, score_feedback, recommendations, nearest, effort_slack, "      \
    "effort_ef, effort_distances, judged_at, result_ids, result_distances, drawn) VALUES ($1, "    \
    "$2::regclass, $3, $4, $5, $6, $7, $8, "                                                       \
    "$9, $10, $11, $12, nullif($13, -1), $14, $15, $16, $17, nullif($18, -1), $19, $20, "          \
    "nullif($21, -1), $22, nullif($23, -1), nullif($24, -1), $25, $26, nullif($27, -1), "          \
    "nullif($28, -1), nullif($29, -1), nullif($30, -1), $31, $32, $33, $34, $35, $36, $37, $38, "  \
    "$39) "                                                                                        \
    "ON CONFLICT (query_id) DO UPDATE SET index_oid = excluded.index_oid, "                        \
    "index_epoch = excluded.index_epoch, recall_exact = excluded.recall_exact, "                   \
    "needed_distances = excluded.needed_distances, nearest = excluded.nearest, "                   \
    "effort_slack = excluded.effort_slack, effort_ef = excluded.effort_ef, "                       \
    "effort_distances = excluded.effort_distances, judged_at = excluded.judged_at, "               \
    "query = excluded.query, query_hash = excluded.query_hash"

static void
sample_types(Oid *types, Oid vector_type)
{
    static const Oid fixed[SAMPLE_COLUMNS] = {
        UUIDOID,      OIDOID,         OIDOID,         NAMEOID,      INT8OID,      TIMESTAMPTZOID,
        OIDOID,       TEXTOID,        INT4OID,        INT4OID,      FLOAT4OID,    FLOAT4OID,
        FLOAT4OID,    INT8OID,        INT8OID,        INT8OID,      FLOAT4OID,    FLOAT4OID,
        InvalidOid,   BYTEAOID,       FLOAT4OID,      BOOLOID,      FLOAT4OID,    FLOAT4OID,
        BOOLOID,      FLOAT4OID,      FLOAT4OID,      FLOAT4OID,    FLOAT4OID,    FLOAT4OID,
        TEXTARRAYOID, INT8ARRAYOID,   FLOAT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TIMESTAMPTZOID,
        INT8ARRAYOID, FLOAT4ARRAYOID, BOOLOID};

    memcpy(types, fixed, sizeof(fixed));
    types[18] = vector_type;
}

static void
search_values(const RuvIndexState *state, const RuvSample *sample, Datum *values, char *nulls)
{
    const rv_trajectory *head = &sample->head;

    values[0] = ruv_query_id_datum(head->query_id);
    values[1] = ObjectIdGetDatum(state->table_oid);
    values[2] = ObjectIdGetDatum(state->index_oid);
    values[3] = NameGetDatum(&state->index_name);
    values[4] = Int64GetDatum((int64)state->identity.epoch);
    values[5] = TimestampTzGetDatum(head->started_us);
    values[6] = ObjectIdGetDatum(head->user_oid);
    values[7] = CStringGetTextDatum(head->mode == RV_SEARCH_ADAPTIVE ? "adaptive" : "static");
    values[8] = Int32GetDatum((int32)head->k);
    values[9] = Int32GetDatum((int32)Min(head->ef_search, PG_INT32_MAX));
    values[10] = Float4GetDatum(head->slack);
    values[11] = Float4GetDatum(head->target_recall);
    values[12] = Float4GetDatum(head->expected_recall < 0 ? -1 : head->expected_recall);
    values[13] = Int64GetDatum((int64)head->distances);
    values[14] = Int64GetDatum((int64)head->hops);
    values[15] = Int64GetDatum((int64)head->pages);
    values[16] = Float4GetDatum(head->latency_us);
    values[17] = Float4GetDatum(head->score < 0 ? -1 : head->score);
    values[18] = values[19] = (Datum)0;
    nulls[18] = nulls[19] = 'n';
    if (ruv_keeps_queries(state)) {
        values[18] = ruv_vector_datum(sample->query, (int)head->dim);
        nulls[18] = ' ';
    } else if (ruv_query_hash(state, sample, &values[19])) {
        nulls[19] = ' ';
    }
}

static void
verdict_values(const RuvIndexState *state, const RuvSample *sample, Datum *values)
{
    const rv_judgement *verdict = &sample->verdict;
    int count = (int)sample->effort_count;
    float *slack = palloc(sizeof(float) * Max(count, 1));
    uint32 *ef = palloc(sizeof(uint32) * Max(count, 1));
    uint32 *distances = palloc(sizeof(uint32) * Max(count, 1));

    for (int i = 0; i < count; i++) {
        slack[i] = sample->efforts[i].slack;
        ef[i] = sample->efforts[i].ef;
        distances[i] = sample->efforts[i].distances;
    }
    values[20] = Float4GetDatum(sample->recall);
    values[21] = BoolGetDatum(sample->exact);
    values[22] = Float4GetDatum(sample->needed_distances);
    values[23] = Float4GetDatum(sample->diversity);
    values[24] = BoolGetDatum(verdict->success);
    values[25] = Float4GetDatum((float)verdict->confidence);
    values[26] = Float4GetDatum((float)verdict->score_latency);
    values[27] = Float4GetDatum((float)verdict->score_recall);
    values[28] = Float4GetDatum((float)verdict->score_diversity);
    values[29] = Float4GetDatum((float)verdict->score_feedback);
    values[30] = ruv_recommendations_datum(verdict);
    /* The nodes nearest to a query tell where it lies. */
    values[31] =
        ruv_node_array(sample->nearest, ruv_keeps_queries(state) ? (int)sample->nearest_count : 0);
    values[32] = ruv_float_array(slack, count);
    values[33] = ruv_effort_array(ef, count);
    values[34] = ruv_effort_array(distances, count);
    values[35] = TimestampTzGetDatum(GetCurrentTimestamp());
}

/* What the search returned: feedback that comes later is placed against it. It tells where the
 * query lies. */
static void
result_values(const RuvIndexState *state, const RuvSample *sample, Datum *values, char *nulls)
{
    bool kept = sample->hits != NULL && ruv_keeps_queries(state);
    int count = kept ? (int)sample->head.result_count : 0;
    uint64 *ids = palloc(sizeof(uint64) * Max(count, 1));
    float *distances = palloc(sizeof(float) * Max(count, 1));

    for (int i = 0; i < count; i++) {
        ids[i] = sample->hits[i].id;
        distances[i] = sample->hits[i].distance;
    }
    values[36] = ruv_node_array(ids, count);
    values[37] = ruv_float_array(distances, count);
    nulls[36] = nulls[37] = kept ? ' ' : 'n';
    values[38] = BoolGetDatum(sample->drawn);
}

/* The rows of samples that the window has no room for. */
static void
delete_dismissed(RuvStore *store, RuvIndexState *state)
{
    int count = list_length(state->dismissed);
    Datum *ids = palloc(sizeof(Datum) * Max(count, 1));
    Oid types[1] = {UUIDARRAYOID};
    Datum values[1];
    ListCell *cell;

    if (count == 0)
        return;
    foreach (cell, state->dismissed)
        ids[foreach_current_index(cell)] = PointerGetDatum(lfirst(cell));
    values[0] =
        PointerGetDatum(construct_array(ids, count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
    ruv_store_run(store, "DELETE FROM @.ruvector_trajectory_log WHERE query_id = ANY ($1)", 1,
                  types, values, NULL);
    list_free_deep(state->dismissed);
    state->dismissed = NIL;
}

/* Rows of a former build that were not traced again, beyond the window, oldest first. */
static void
trim_samples(RuvStore *store, const RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT4OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid), Int32GetDatum(state->window)};

    ruv_store_run(store,
                  "DELETE FROM @.ruvector_trajectory_log WHERE query_id IN (SELECT query_id "
                  "FROM @.ruvector_trajectory_log WHERE index_oid = $1 "
                  "ORDER BY judged_at DESC, searched_at DESC OFFSET $2)",
                  2, types, values, NULL);
}

void
ruv_store_save_samples(RuvStore *store, RuvIndexState *state)
{
    Oid types[SAMPLE_COLUMNS];
    SPIPlanPtr plan = NULL;
    MemoryContext row =
        AllocSetContextCreate(CurrentMemoryContext, "ruvector sample row", ALLOCSET_DEFAULT_SIZES);
    ListCell *cell;

    sample_types(types, store->vector_type);
    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);
        Datum values[SAMPLE_COLUMNS];
        char nulls[SAMPLE_COLUMNS + 1];
        MemoryContext former;

        if (sample->stored)
            continue;
        if (plan == NULL)
            plan = ruv_store_prepare(store, SAMPLE_INSERT, SAMPLE_COLUMNS, types);
        former = MemoryContextSwitchTo(row);
        memset(nulls, ' ', sizeof(nulls));
        search_values(state, sample, values, nulls);
        verdict_values(state, sample, values);
        result_values(state, sample, values, nulls);
        if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT)
            elog(ERROR, "a trajectory could not be stored");
        MemoryContextSwitchTo(former);
        MemoryContextReset(row);
    }
    MemoryContextDelete(row);
    delete_dismissed(store, state);
    if (plan == NULL)
        return;
    trim_samples(store, state);
    if (ruv_keeps_queries(state))
        state->vectors_stored = true;
}

static void
load_efforts(RuvIndexState *state, RuvSample *sample, uint64 row, int first_column)
{
    int counts[3];
    Datum *slack = ruv_float_items(ruv_store_value(row, first_column, NULL), &counts[0]);
    Datum *ef = ruv_int_items(ruv_store_value(row, first_column + 1, NULL), &counts[1]);
    Datum *distances = ruv_int_items(ruv_store_value(row, first_column + 2, NULL), &counts[2]);
    int count = Min(counts[0], Min(counts[1], counts[2]));

    count = (int)Min((uint32)count, sample->head.k);
    sample->efforts = MemoryContextAlloc(state->context, sizeof(rv_effort) * Max(count, 1));
    sample->effort_count = (uint32)count;
    for (int i = 0; i < count; i++) {
        sample->efforts[i].slack = DatumGetFloat4(slack[i]);
        sample->efforts[i].ef = (uint32)DatumGetInt32(ef[i]); /* -1: out of reach */
        sample->efforts[i].distances = (uint32)DatumGetInt32(distances[i]);
    }
}

static float
float_or_unknown(uint64 row, int column)
{
    bool null;
    Datum value = ruv_store_value(row, column, &null);

    return null ? -1.0f : DatumGetFloat4(value);
}

/* What only the verdict needs of the search. */
static void
load_search(rv_trajectory *head, uint64 row)
{
    char *mode = TextDatumGetCString(ruv_store_value(row, 17, NULL));

    head->mode = strcmp(mode, "adaptive") == 0 ? RV_SEARCH_ADAPTIVE : RV_SEARCH_STATIC;
    head->ef_search = (uint32_t)DatumGetInt32(ruv_store_value(row, 18, NULL));
    head->slack = DatumGetFloat4(ruv_store_value(row, 19, NULL));
    head->hops = (uint32_t)DatumGetInt64(ruv_store_value(row, 20, NULL));
    head->pages = (uint32_t)DatumGetInt64(ruv_store_value(row, 21, NULL));
    head->score = float_or_unknown(row, 22);
    head->expected_recall = float_or_unknown(row, 23);
    head->user_oid = DatumGetObjectId(ruv_store_value(row, 24, NULL));
    head->result_count = head->k;
}

/* The rest of the verdict, and the feedback that is in it. */
static void
load_verdict(RuvSample *sample, uint64 row)
{
    bool null;
    Datum role = ruv_store_value(row, 36, &null);
    RuvSampleFeedback *feedback;

    sample->needed_distances = float_or_unknown(row, 25);
    sample->diversity = float_or_unknown(row, 26);
    sample->verdict.score_latency = float_or_unknown(row, 27);
    sample->verdict.score_recall = float_or_unknown(row, 28);
    sample->verdict.score_diversity = float_or_unknown(row, 29);
    sample->verdict.score_feedback = float_or_unknown(row, 30);
    sample->drawn = sample->even = DatumGetBool(ruv_store_value(row, 31, NULL));
    if (null)
        return;
    feedback = MemoryContextAllocZero(GetMemoryChunkContext(sample), sizeof(*feedback));
    feedback->relevant = DatumGetFloat4(ruv_store_value(row, 32, NULL));
    feedback->irrelevant = DatumGetFloat4(ruv_store_value(row, 33, NULL));
    feedback->missed_near = DatumGetFloat4(ruv_store_value(row, 34, NULL));
    feedback->missed_far = DatumGetFloat4(ruv_store_value(row, 35, NULL));
    feedback->role = DatumGetObjectId(role);
    feedback->judged = feedback->stored = true;
    sample->feedback = feedback;
}

static void
load_sample(RuvIndexState *state, uint64 row)
{
    rv_trajectory head = {0};
    RuVector *vector = DatumGetRuVector(ruv_store_value(row, 4, NULL));
    RuvSample *sample;
    Datum *nearest;
    int count;

    if (vector->dim != state->identity.dim)
        return;
    ruv_query_id_halves(ruv_store_value(row, 1, NULL), head.query_id);
    head.index_epoch = (uint64)DatumGetInt64(ruv_store_value(row, 2, NULL));
    head.started_us = DatumGetTimestampTz(ruv_store_value(row, 3, NULL));
    head.dim = (uint32_t)vector->dim;
    head.k = (uint32_t)DatumGetInt32(ruv_store_value(row, 5, NULL));
    head.target_recall = DatumGetFloat4(ruv_store_value(row, 6, NULL));
    head.distances = (uint32_t)DatumGetInt64(ruv_store_value(row, 7, NULL));
    head.latency_us = DatumGetFloat4(ruv_store_value(row, 8, NULL));
    head.index_oid = state->index_oid;
    load_search(&head, row);
    if (head.k < 1 || head.k > RV_TRAJECTORY_MAX_HITS)
        return;
    sample = ruv_sample_create(state, &head, vector->x, NULL);
    sample->recall = float_or_unknown(row, 9);
    sample->verdict.success = DatumGetBool(ruv_store_value(row, 10, NULL));
    sample->verdict.confidence = DatumGetFloat4(ruv_store_value(row, 11, NULL));
    sample->exact = DatumGetBool(ruv_store_value(row, 12, NULL));
    load_verdict(sample, row);
    nearest = ruv_node_items(ruv_store_value(row, 13, NULL), &count);
    sample->nearest_count = (uint32)Min(count, (int)lengthof(sample->nearest));
    for (uint32 i = 0; i < sample->nearest_count; i++)
        sample->nearest[i] = (uint64)DatumGetInt64(nearest[i]);
    load_efforts(state, sample, row, 14);
    sample->stored = true;
    if (head.index_epoch == state->identity.epoch && sample->effort_count > 0) {
        ruv_state_add_sample(state, sample);
    } else {
        sample->retrace = true;
        ruv_state_add_candidate(state, sample);
    }
    state->sampled++;
}

void
ruv_store_load_samples(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT4OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid), Int32GetDatum(state->window)};
    uint64 rows;

    rows = ruv_store_run(
        store,
        "SELECT * FROM (SELECT query_id, index_epoch, searched_at, query, k, target_recall, "
        "distances, latency_us, recall, success, confidence, recall_exact, nearest, effort_slack, "
        "effort_ef, effort_distances, mode, ef_search, slack, hops, pages, score, "
        "expected_recall, user_id, needed_distances, diversity, score_latency, score_recall, "
        "score_diversity, score_feedback, drawn, feedback_relevant, feedback_irrelevant, "
        "feedback_missed_near, feedback_missed_far, feedback_role "
        "FROM @.ruvector_trajectory_log WHERE index_oid = $1 "
        "AND query IS NOT NULL AND judged_at IS NOT NULL "
        "ORDER BY judged_at DESC LIMIT $2) t ORDER BY searched_at",
        2, types, values, NULL);
    for (uint64 row = 0; row < rows; row++)
        load_sample(state, row);
    state->vectors_stored = rows > 0;
}
