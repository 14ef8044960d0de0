/*
 * sql_stats.c - ruvector_learning_stats(): one row per index of ruvector of a table.
 *
 * Figures of what was learned come from the tables; what is under way comes from shared memory.
 * Queries and results of others do not show in it, so SELECT on the table is enough to ask.
 */
#include "learning/worker.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_learning_stats);

/* Columns of the result, in order. */
typedef enum StatsColumn {
    STATS_INDEX,
    STATS_STATE,
    STATS_TRAJECTORIES,
    STATS_PENDING,
    STATS_JUDGED,
    STATS_SAMPLES,
    STATS_SUCCESS_RATE,
    STATS_MEAN_RECALL,
    STATS_RECALL_LOW,
    STATS_RECALL_HIGH,
    STATS_MEAN_DISTANCES,
    STATS_MEAN_LATENCY,
    STATS_PATTERNS,
    STATS_CONFIDENCE,
    STATS_TARGET_RECALL,
    STATS_SLACK,
    STATS_OPTIMAL_EF,
    STATS_EXPECTED_RECALL,
    STATS_LAST_LEARNED,
    STATS_LEARNING_SECONDS,
    STATS_BANK_BYTES,
    STATS_RING_WRITTEN,
    STATS_RING_DROPPED,
    STATS_RING_LOST,
    STATS_RING_TORN,
    STATS_SHARED_BYTES,
    STATS_WORKER_PID,
    STATS_WORKER_STATE,
    STATS_FAILURES,
    STATS_LAST_ERROR,
    STATS_COLUMNS
} StatsColumn;

typedef struct StatsRow {
    Datum values[STATS_COLUMNS];
    bool nulls[STATS_COLUMNS];
} StatsRow;

/* What shared memory says of one index and its database. */
typedef struct LiveFigures {
    bool registered;
    uint64 trajectories;
    uint64 waiting;
    uint64 undistilled;
    uint64 failures;
    double learning_seconds;
    Size bank_bytes;
    char last_error[RUV_ERROR_TEXT];
    bool has_database;
    uint64 backlog;
    rv_ring_counters ring;
    pid_t worker_pid;
    int worker_state;
} LiveFigures;

static const char *
worker_state_name(int state)
{
    switch ((RuvWorkerState)state) {
        case RUV_WORKER_NONE:
            return "none";
        case RUV_WORKER_STARTING:
            return "starting";
        case RUV_WORKER_IDLE:
            return "idle";
        case RUV_WORKER_LEARNING:
            return "learning";
        case RUV_WORKER_STANDBY:
            return "standby";
    }
    return "unknown";
}

static void
read_live_figures(Oid index_oid, LiveFigures *live)
{
    RuvIndexSlot *slot;
    int number;

    memset(live, 0, sizeof(*live));
    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    slot = ruv_registry_find(MyDatabaseId, index_oid);
    if (slot != NULL) {
        live->registered = true;
        live->trajectories = pg_atomic_read_u64(&slot->trajectories);
        live->waiting = pg_atomic_read_u64(&slot->waiting);
        live->undistilled = pg_atomic_read_u64(&slot->undistilled);
        live->failures = pg_atomic_read_u64(&slot->failures);
        live->learning_seconds = pg_atomic_read_u64(&slot->learning_us) / 1e6;
        live->bank_bytes = slot->bank_size + slot->memory_size;
        strlcpy(live->last_error, slot->last_error, RUV_ERROR_TEXT);
    }
    number = ruv_database_find(MyDatabaseId);
    if (number >= 0) {
        RuvDatabaseSlot *database = &ruv_shared->databases[number];

        live->has_database = database->ring_ready;
        live->worker_pid = database->worker_pid;
        live->worker_state = database->worker_state;
        if (live->last_error[0] == '\0')
            strlcpy(live->last_error, database->last_error, RUV_ERROR_TEXT);
    }
    LWLockRelease(ruv_shared->lock);
    if (live->has_database) {
        live->backlog = rv_ring_backlog(ruv_shared_ring(number));
        live->ring = rv_ring_read_counters(ruv_shared_ring(number));
    }
}

/* ---- rows ---------------------------------------------------------------------------------- */

static void
set_value(StatsRow *row, StatsColumn column, Datum value)
{
    row->values[column] = value;
    row->nulls[column] = false;
}

/* Copies a column of the present SPI row; pass-by-reference types do not occur. */
static void
copy_value(StatsRow *row, StatsColumn column, uint64 source_row, int source)
{
    row->values[column] = ruv_store_value(source_row, source, &row->nulls[column]);
}

static const char *
learning_state(bool enabled, const LiveFigures *live, bool has_patterns, bool rebuilt)
{
    bool busy = live->backlog + live->waiting > 0;

    if (!enabled)
        return "off";
    if (!live->registered || live->worker_pid == 0)
        return "starting";
    if (live->last_error[0] != '\0')
        return "failing";
    if (!has_patterns || rebuilt)
        return busy ? "learning" : rebuilt ? "rebuilt" : "waiting";
    return busy || live->undistilled > 0 ? "learning" : "learned";
}

static uint64
current_epoch(Oid index_oid)
{
    Relation index = relation_open(index_oid, AccessShareLock);
    RuvIndexIdentity identity;

    ruv_index_identity(index, &identity);
    relation_close(index, AccessShareLock);
    return identity.epoch;
}

static void
set_recall_interval(StatsRow *row, uint64 source_row, int recall_column, int count_column)
{
    bool null;
    double recall = DatumGetFloat8(ruv_store_value(source_row, recall_column, &null));
    double count = (double)DatumGetInt64(ruv_store_value(source_row, count_column, NULL));
    rv_interval interval;

    if (null)
        return;
    /* A search is one trial: the neighbours of one search stand or fall together. */
    interval = rv_wilson_interval(recall * count, count, 0.95);
    set_value(row, STATS_RECALL_LOW, Float8GetDatum(interval.low));
    set_value(row, STATS_RECALL_HIGH, Float8GetDatum(interval.high));
}

static void
set_live_columns(StatsRow *row, const LiveFigures *live)
{
    set_value(row, STATS_PENDING, Int64GetDatum((int64)(live->backlog + live->waiting)));
    set_value(row, STATS_BANK_BYTES, Int64GetDatum((int64)live->bank_bytes));
    set_value(row, STATS_RING_WRITTEN, Int64GetDatum((int64)live->ring.written));
    set_value(row, STATS_RING_DROPPED, Int64GetDatum((int64)live->ring.dropped));
    set_value(row, STATS_RING_LOST, Int64GetDatum((int64)live->ring.lost));
    set_value(row, STATS_RING_TORN, Int64GetDatum((int64)live->ring.torn));
    set_value(row, STATS_SHARED_BYTES, Int64GetDatum((int64)ruv_shared_bytes()));
    set_value(row, STATS_FAILURES, Int64GetDatum((int64)live->failures));
    set_value(row, STATS_WORKER_STATE, CStringGetTextDatum(worker_state_name(live->worker_state)));
    if (live->worker_pid != 0)
        set_value(row, STATS_WORKER_PID, Int32GetDatum(live->worker_pid));
    if (live->last_error[0] != '\0')
        set_value(row, STATS_LAST_ERROR, CStringGetTextDatum(live->last_error));
    /* Younger than the row of the table while the worker runs. */
    if (live->registered && live->worker_pid != 0) {
        set_value(row, STATS_TRAJECTORIES, Int64GetDatum((int64)live->trajectories));
        set_value(row, STATS_LEARNING_SECONDS, Float8GetDatum(live->learning_seconds));
    }
}

#define STATS_QUERY                                                                                \
    "SELECT i.indexrelid, l.table_id IS NOT NULL, coalesce(s.trajectories, 0), "                   \
    "coalesce(s.judged, 0), t.samples, t.success_rate, t.mean_recall, t.recalls, "                 \
    "t.mean_distances, t.mean_latency, p.patterns, p.confidence, p.target_recall, p.slack, "       \
    "p.optimal_ef_search, p.expected_recall, p.index_epoch, s.last_learned, "                      \
    "coalesce(s.learning_seconds, 0) "                                                             \
    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "                                     \
    "JOIN pg_am a ON a.oid = c.relam AND a.amname IN " RUV_INDEX_METHODS " "                       \
    "LEFT JOIN @.ruvector_learning l ON l.table_id::oid = i.indrelid "                             \
    "LEFT JOIN @.ruvector_index_state s ON s.index_oid = i.indexrelid "                            \
    "LEFT JOIN LATERAL (SELECT count(*) AS samples, "                                              \
    "avg(r.success::int)::float8 AS success_rate, avg(r.recall)::float8 AS mean_recall, "          \
    "count(r.recall) AS recalls, avg(r.distances)::float8 AS mean_distances, "                     \
    "avg(r.latency_us)::float8 AS mean_latency FROM @.ruvector_trajectory_log r "                    \
    "WHERE r.index_oid = i.indexrelid) t ON true "                                                 \
    "LEFT JOIN LATERAL (SELECT count(*) AS patterns, "                                             \
    "max(q.confidence::float8) FILTER (WHERE q.scope = 'index') AS confidence, "                   \
    "max(q.target_recall::float8) FILTER (WHERE q.scope = 'index') AS target_recall, "             \
    "max(q.slack::float8) FILTER (WHERE q.scope = 'index') AS slack, "                             \
    "max(q.optimal_ef_search) FILTER (WHERE q.scope = 'index') AS optimal_ef_search, "             \
    "max(q.expected_recall::float8) FILTER (WHERE q.scope = 'index') AS expected_recall, "         \
    "max(q.index_epoch) FILTER (WHERE q.scope = 'index') AS index_epoch "                          \
    "FROM @.ruvector_patterns q WHERE q.index_oid = i.indexrelid) p ON true "                      \
    "WHERE i.indrelid = $1 AND i.indisvalid ORDER BY i.indexrelid"

static void
fill_row(StatsRow *row, uint64 source)
{
    Oid index_oid = DatumGetObjectId(ruv_store_value(source, 1, NULL));
    bool enabled = DatumGetBool(ruv_store_value(source, 2, NULL));
    bool no_epoch;
    uint64 epoch = (uint64)DatumGetInt64(ruv_store_value(source, 17, &no_epoch));
    LiveFigures live;

    memset(row->nulls, true, sizeof(row->nulls));
    read_live_figures(index_oid, &live);
    set_value(row, STATS_INDEX, ObjectIdGetDatum(index_oid));
    set_value(row, STATS_STATE,
              CStringGetTextDatum(learning_state(enabled, &live, !no_epoch,
                                                 !no_epoch && epoch != current_epoch(index_oid))));
    copy_value(row, STATS_TRAJECTORIES, source, 3);
    copy_value(row, STATS_JUDGED, source, 4);
    copy_value(row, STATS_SAMPLES, source, 5);
    copy_value(row, STATS_SUCCESS_RATE, source, 6);
    copy_value(row, STATS_MEAN_RECALL, source, 7);
    set_recall_interval(row, source, 7, 8);
    copy_value(row, STATS_MEAN_DISTANCES, source, 9);
    copy_value(row, STATS_MEAN_LATENCY, source, 10);
    copy_value(row, STATS_PATTERNS, source, 11);
    copy_value(row, STATS_CONFIDENCE, source, 12);
    copy_value(row, STATS_TARGET_RECALL, source, 13);
    copy_value(row, STATS_SLACK, source, 14);
    copy_value(row, STATS_OPTIMAL_EF, source, 15);
    copy_value(row, STATS_EXPECTED_RECALL, source, 16);
    copy_value(row, STATS_LAST_LEARNED, source, 18);
    copy_value(row, STATS_LEARNING_SECONDS, source, 19);
    set_live_columns(row, &live);
}

Datum
ruv_learning_stats(PG_FUNCTION_ARGS)
{
    Oid table_oid = PG_GETARG_OID(0);
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    AclResult allowed;
    RuvStore store;
    uint64 count;

    Assert(descriptor->natts == STATS_COLUMNS);
    ruv_require_preload();
    allowed = pg_class_aclcheck(table_oid, GetUserId(), ACL_SELECT);
    if (allowed != ACLCHECK_OK)
        aclcheck_error(allowed, OBJECT_TABLE, get_rel_name(table_oid));
    if (!ruv_store_open(&store))
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("the extension in this database is older than its library"),
                        errhint("Run ALTER EXTENSION ruvector UPDATE.")));
    count = ruv_store_run(&store, STATS_QUERY, 1, types, values, NULL);
    for (uint64 i = 0; i < count; i++) {
        StatsRow row;

        fill_row(&row, i);
        tuplestore_putvalues(rows, descriptor, row.values, row.nulls);
    }
    ruv_store_close(&store);
    return (Datum)0;
}
