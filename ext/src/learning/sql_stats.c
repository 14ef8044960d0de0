/*
 * sql_stats.c - ruvector_learning_stats(): one row per index of ruvector of a table.
 *
 * Figures of what was learned come from the tables; what is under way comes from shared memory.
 * Columns are filled by name: a new one is a parameter of the function in the SQL script, and
 * either a column of STATS_QUERY with that name or a line in set_live_columns().
 *
 * Queries and results of others do not show in it, so SELECT on the table is enough to ask. An
 * error's text may quote a row, so it is for those who could read every row anyway.
 */
#include "learning/worker.h"

#include <math.h>

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_learning_stats);

/* What shared memory says of one index and its database. */
typedef struct LiveFigures {
    bool registered;
    uint64 trajectories;
    uint64 waiting;
    uint64 undistilled;
    uint64 failures;
    double learning_seconds;
    Size bank_bytes;
    uint32 patterns_left_out;
    uint32 queries_left_out;
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
        live->patterns_left_out = slot->patterns_left_out;
        live->queries_left_out = slot->queries_left_out;
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
set_live_columns(RuvRow *row, const LiveFigures *live, bool shows_errors)
{
    ruv_row_set_int(row, "pending", live->backlog + live->waiting);
    ruv_row_set_int(row, "bank_bytes", live->bank_bytes);
    ruv_row_set_int(row, "patterns_left_out", live->patterns_left_out);
    ruv_row_set_int(row, "queries_left_out", live->queries_left_out);
    ruv_row_set_int(row, "ring_written", live->ring.written);
    ruv_row_set_int(row, "ring_dropped", live->ring.dropped);
    ruv_row_set_int(row, "ring_lost", live->ring.lost);
    ruv_row_set_int(row, "ring_torn", live->ring.torn);
    ruv_row_set_int(row, "shared_memory_bytes", ruv_shared_bytes());
    ruv_row_set_int(row, "failures", live->failures);
    ruv_row_set_text(row, "worker_state", worker_state_name(live->worker_state));
    if (live->worker_pid != 0)
        ruv_row_set(row, "worker_pid", Int32GetDatum(live->worker_pid));
    if (live->last_error[0] != '\0' && shows_errors)
        ruv_row_set_text(row, "last_error", live->last_error);
    /* Younger than the row of the table while the worker runs. */
    if (live->registered && live->worker_pid != 0) {
        ruv_row_set_int(row, "trajectories", live->trajectories);
        ruv_row_set_float(row, "learning_seconds", live->learning_seconds);
    }
}

/* Of the stored searches: what varies, and what the other columns of a row take. Sizes are read
 * without fetching what is out of line. */
#define STORED_BYTES                                                                               \
    "coalesce(sum(250 + coalesce(pg_column_size(r.query), 0) + "                                   \
    "coalesce(pg_column_size(r.query_hash), 0) + coalesce(pg_column_size(r.nearest), 0) + "        \
    "coalesce(pg_column_size(r.effort_slack), 0) + coalesce(pg_column_size(r.effort_ef), 0) + "    \
    "coalesce(pg_column_size(r.effort_distances), 0)), 0)::int8"

/* Columns go to the result's column of the same name; others serve fill_row only. */
#define STATS_QUERY                                                                                \
    "SELECT i.indexrelid::regclass AS index, coalesce(l.enabled, false) AS enabled, "              \
    "coalesce(s.trajectories, 0) AS trajectories, coalesce(s.judged, 0) AS judged, t.samples, "    \
    "t.success_rate, t.mean_recall, t.recalls, "                                                   \
    "t.mean_distances, t.mean_latency_us, p.patterns, p.confidence, p.target_recall, p.slack, "    \
    "p.optimal_ef_search, p.expected_recall, p.index_epoch, s.last_learned, "                      \
    "coalesce(s.learning_seconds, 0) AS learning_seconds, l.trajectory_window, l.keep_queries, "   \
    "t.oldest, t.stored_bytes, b.latency_before_us, b.latency_after_us, b.distances_before, "      \
    "b.distances_after, 1 - b.distances_after / nullif(b.distances_before, 0) AS "                 \
    "distances_saved, "                                                                            \
    "s.reference_epoch, s.reference_checks AS audited, s.reference_recall AS audited_recall, "     \
    "n.links AS made_links, n.rolled_back, n.gain, n.links_epoch, "                                \
    "b.recall_before, b.recall_after "                                                             \
    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "                                     \
    "JOIN pg_am a ON a.oid = c.relam AND a.amname IN " RUV_INDEX_METHODS " "                       \
    "LEFT JOIN @.ruvector_learning l ON l.table_id::oid = i.indrelid "                             \
    "LEFT JOIN @.ruvector_index_state s ON s.index_oid = i.indexrelid "                            \
    "LEFT JOIN LATERAL (SELECT "                                                                   \
    "s.static_latency_us / nullif(s.static_searches, 0) AS latency_before_us, "                    \
    "s.adaptive_latency_us / nullif(s.adaptive_searches, 0) AS latency_after_us, "                 \
    "s.static_distances / nullif(s.static_searches, 0) AS distances_before, "                      \
    "s.adaptive_distances / nullif(s.adaptive_searches, 0) AS distances_after, "                   \
    "s.static_recall / nullif(s.static_checked, 0) AS recall_before, "                             \
    "s.adaptive_recall / nullif(s.adaptive_checked, 0) AS recall_after) b ON true "                \
    "LEFT JOIN LATERAL (SELECT count(*) AS samples, min(r.searched_at) AS oldest, " STORED_BYTES   \
    " AS stored_bytes, "                                                                           \
    "avg(r.success::int) FILTER (WHERE r.drawn)::float8 AS success_rate, "                         \
    "avg(r.recall) FILTER (WHERE r.drawn)::float8 AS mean_recall, "                                \
    "count(r.recall) FILTER (WHERE r.drawn) AS recalls, avg(r.distances)::float8 AS "              \
    "mean_distances, "                                                                             \
    "avg(r.latency_us)::float8 AS mean_latency_us FROM @.ruvector_trajectory_log r "               \
    "WHERE r.index_oid = i.indexrelid) t ON true "                                                 \
    "LEFT JOIN LATERAL (SELECT count(*) AS patterns, "                                             \
    "max(q.confidence::float8) FILTER (WHERE q.scope = 'index') AS confidence, "                   \
    "max(q.target_recall::float8) FILTER (WHERE q.scope = 'index') AS target_recall, "             \
    "max(q.slack::float8) FILTER (WHERE q.scope = 'index') AS slack, "                             \
    "max(q.optimal_ef_search) FILTER (WHERE q.scope = 'index') AS optimal_ef_search, "             \
    "max(q.expected_recall::float8) FILTER (WHERE q.scope = 'index') AS expected_recall, "         \
    "max(q.index_epoch) FILTER (WHERE q.scope = 'index') AS index_epoch "                          \
    "FROM @.ruvector_patterns q WHERE q.index_oid = i.indexrelid) p ON true "                      \
    "LEFT JOIN LATERAL (SELECT coalesce(sum(b.links) FILTER (WHERE b.state = 'kept'), 0) "         \
    "AS links, count(*) FILTER (WHERE b.state = 'rolled back') AS rolled_back, "                   \
    "1 - exp(sum(ln(b.distances_after / b.distances_before)) FILTER (WHERE b.state = 'kept' "      \
    "AND b.distances_before > 0 AND b.distances_after > 0)) AS gain, "                             \
    "b.index_epoch AS links_epoch FROM @.ruvector_link_rounds b WHERE b.index_oid = i.indexrelid " \
    "GROUP BY b.index_epoch ORDER BY max(b.round) DESC LIMIT 1) n ON true "                        \
    "WHERE i.indrelid = $1 AND i.indisvalid ORDER BY i.indexrelid"

/* Learned links of the present build; those of a former one went with it. */
static void
set_links(RuvRow *row, uint64 source, Oid index_oid)
{
    bool none;
    Datum gain = ruv_store_named(source, "gain", &none);
    bool no_epoch;
    uint64 epoch = (uint64)DatumGetInt64(ruv_store_named(source, "links_epoch", &no_epoch));
    bool current = !no_epoch && epoch == current_epoch(index_oid);

    ruv_row_set_int(row, "links",
                    current ? DatumGetInt64(ruv_store_named(source, "made_links", NULL)) : 0);
    ruv_row_set_int(row, "links_rolled_back",
                    current ? DatumGetInt64(ruv_store_named(source, "rolled_back", NULL)) : 0);
    if (current && !none)
        ruv_row_set(row, "links_gain", gain);
}

/* Of the present build likewise. */
static void
set_reference(RuvRow *row, uint64 source, Oid index_oid)
{
    bool none;
    uint64 epoch = (uint64)DatumGetInt64(ruv_store_named(source, "reference_epoch", &none));
    double checks;

    if (none || epoch != current_epoch(index_oid))
        return;
    checks = DatumGetFloat8(ruv_store_named(source, "audited", NULL));
    ruv_row_set_int(row, "reference_checks", (uint64)rint(checks));
    if (checks > 0)
        ruv_row_set_float(row, "reference_recall",
                          DatumGetFloat8(ruv_store_named(source, "audited_recall", NULL)) / checks);
}

static void
fill_row(RuvRow *row, uint64 source, bool shows_errors)
{
    Oid index_oid = DatumGetObjectId(ruv_store_named(source, "index", NULL));
    bool enabled = DatumGetBool(ruv_store_named(source, "enabled", NULL));
    bool no_epoch;
    uint64 epoch = (uint64)DatumGetInt64(ruv_store_named(source, "index_epoch", &no_epoch));
    bool rebuilt = !no_epoch && epoch != current_epoch(index_oid);
    LiveFigures live;

    read_live_figures(index_oid, &live);
    ruv_row_copy(row, source);
    set_links(row, source, index_oid);
    set_reference(row, source, index_oid);
    ruv_row_set_text(row, "state", learning_state(enabled, &live, !no_epoch, rebuilt));
    ruv_row_set_recall_interval(row, source);
    set_live_columns(row, &live, shows_errors);
}

Datum
ruv_learning_stats(PG_FUNCTION_ARGS)
{
    Oid table_oid = PG_GETARG_OID(0);
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    bool shows_errors;
    RuvStore store;
    uint64 count;

    ruv_require_preload();
    ruv_require_statistics_reader(table_oid);
    shows_errors = ruv_owns_relation(table_oid) || ruv_reads_all_statistics();
    ruv_store_open_or_fail(&store);
    count = ruv_store_run(&store, STATS_QUERY, 1, types, values, NULL);
    for (uint64 i = 0; i < count; i++) {
        RuvRow row = ruv_row_start(descriptor);

        fill_row(&row, i, shows_errors);
        tuplestore_putvalues(rows, descriptor, row.values, row.nulls);
    }
    ruv_store_close(&store);
    return (Datum)0;
}
