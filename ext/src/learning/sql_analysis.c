/*
 * sql_analysis.c - ruvector_analyze_patterns(): what the recent searches of each index of a table
 * look like, and how far they have moved away from what was learned.
 *
 * The figures are of the stored searches (ruvector_trajectories). Queries themselves do not show,
 * but how they are spread does, so the answer is for the table's owner and for those who read all
 * statistics.
 */
#include "learning/worker.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_analyze_patterns);

/* A query that needs more than this many times the median of the needed work is hard. */
#define HARD_FACTOR "3"
/* Drift looks at the newest quarter of the stored searches, and at no fewer than this. */
#define LEAST_RECENT "20"

static void
require_analyst(Oid table_oid)
{
    if (!ruv_reads_all_statistics() && !ruv_owns_relation(table_oid))
        aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(table_oid));
}

#define QUANTILE(q, column, name)                                                                  \
    "percentile_disc(" q ") WITHIN GROUP (ORDER BY " column ")::float8 AS " name ", "

#define ANALYSIS_QUERY                                                                             \
    "SELECT $1::regclass AS index, count(*) AS searches, min(r.searched_at) AS since, "            \
    "max(r.searched_at) AS until, "                                                                \
    "(SELECT array_agg(d.k ORDER BY d.n DESC, d.k) FROM by_k d) AS k_values, "                     \
    "(SELECT array_agg(d.n ORDER BY d.n DESC, d.k) FROM by_k d) AS k_searches, " QUANTILE(         \
        "0.5", "r.latency_us", "latency_p50_us")                                                   \
        QUANTILE("0.95", "r.latency_us", "latency_p95_us")                                         \
            QUANTILE("0.99", "r.latency_us", "latency_p99_us")                                     \
                QUANTILE("0.5", "r.distances", "distances_p50")                                    \
                    QUANTILE("0.95", "r.distances", "distances_p95")                               \
                        QUANTILE("0.99", "r.distances",                                            \
                                 "distances_p99") "avg(r.recall)::float8 AS mean_recall, "         \
                                                  "count(r.recall) AS recalls, "                   \
                                                  "avg(r.recall_exact::int) FILTER (WHERE "        \
                                                  "r.recall IS NOT NULL)::float8 AS exact_share, " \
                                                  "avg((r.needed_distances IS NULL OR "            \
                                                  "r.needed_distances > " HARD_FACTOR              \
                                                  " * (SELECT percentile_disc(0.5) WITHIN GROUP "  \
                                                  "(ORDER BY needed_distances) FROM searches))"    \
                                                  "::int)::float8 AS hard_share, "                 \
                                                  "1 - (count(DISTINCT r.query) + count(DISTINCT " \
                                                  "r.query_hash))::float8 / "                      \
                                                  "nullif(count(r.query) + count(r.query_hash), "  \
                                                  "0) AS repeated_share "                          \
                                                  "FROM searches r"

#define SEARCHES                                                                                   \
    "WITH searches AS (SELECT * FROM @.ruvector_trajectory_log WHERE index_oid = $1), "            \
    "by_k AS (SELECT k, count(*) AS n FROM searches GROUP BY k) "

static List *
list_indexes(RuvStore *store, Oid table_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    List *indexes = NIL;
    uint64 count =
        ruv_store_run(store,
                      "SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
                      "JOIN pg_am a ON a.oid = c.relam AND a.amname IN " RUV_INDEX_METHODS
                      " WHERE i.indrelid = $1 AND i.indisvalid ORDER BY 1",
                      1, types, values, NULL);

    for (uint64 i = 0; i < count; i++)
        indexes = lappend_oid(indexes, DatumGetObjectId(ruv_store_value(i, 1, NULL)));
    return indexes;
}

/* How far a query lies from the nearest region; false: there are no regions. */
static bool
outside_of_regions(const RuvIndexCache *cache, const float *query, float *outside)
{
    rv_allocator allocator;
    rv_bank_match match;
    uint32_t found = 0;
    rv_error err = {0};

    ruv_context_allocator(CurrentMemoryContext, &allocator);
    ruv_check(rv_bank_flat_lookup(cache->bank, &allocator, query, 1, &match, &found, NULL, &err),
              &err, "looking up patterns");
    if (found > 0)
        *outside = rv_bank_match_outside(&match);
    return found > 0;
}

/* The published bank of an index if its regions have this many dimensions; otherwise NULL. */
static RuvIndexCache *
published_bank(Oid index_oid, int *dim)
{
    RuvIndexCache *cache = ruv_index_cache(index_oid);
    Relation index = relation_open(index_oid, AccessShareLock);
    RuvIndexIdentity identity;

    ruv_index_identity(index, &identity);
    relation_close(index, AccessShareLock);
    *dim = identity.dim;
    if (cache == NULL || cache->slot == NULL || !ruv_fetch_bank(cache) ||
        rv_bank_flat_count(cache->bank) <= 1)
        return NULL;
    return cache;
}

static void
set_drift(RuvStore *store, RuvRow *row, Oid index_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(index_oid)};
    int dim;
    const RuvIndexCache *cache = published_bank(index_oid, &dim);
    double sum = 0;
    uint64 used = 0;
    uint64 count;

    if (cache == NULL)
        return;
    count = ruv_store_run(
        store,
        "SELECT query FROM @.ruvector_trajectory_log WHERE index_oid = $1 AND query IS NOT NULL "
        "ORDER BY searched_at DESC LIMIT (SELECT greatest(count(*) / 4, " LEAST_RECENT ") "
        "FROM @.ruvector_trajectory_log WHERE index_oid = $1)",
        1, types, values, NULL);
    for (uint64 i = 0; i < count; i++) {
        RuVector *query = DatumGetRuVector(ruv_store_value(i, 1, NULL));
        float outside;

        CHECK_FOR_INTERRUPTS();
        if (query->dim != dim || !outside_of_regions(cache, query->x, &outside))
            continue;
        sum += outside;
        used++;
    }
    if (used > 0)
        ruv_row_set_float(row, "drift", sum / used);
}

Datum
ruv_analyze_patterns(PG_FUNCTION_ARGS)
{
    Oid table_oid = PG_GETARG_OID(0);
    Oid types[1] = {OIDOID};
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    RuvStore store;
    List *indexes;
    ListCell *cell;

    ruv_require_preload();
    require_analyst(table_oid);
    ruv_store_open_or_fail(&store);
    indexes = list_indexes(&store, table_oid);
    foreach (cell, indexes) {
        Datum values[1] = {ObjectIdGetDatum(lfirst_oid(cell))};
        RuvRow row = ruv_row_start(descriptor);

        ruv_store_run(&store, SEARCHES ANALYSIS_QUERY, 1, types, values, NULL);
        ruv_row_copy(&row, 0);
        ruv_row_set_recall_interval(&row, 0);
        set_drift(&store, &row, lfirst_oid(cell));
        tuplestore_putvalues(rows, descriptor, row.values, row.nulls);
    }
    ruv_store_close(&store);
    return (Datum)0;
}
