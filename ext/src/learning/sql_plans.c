/*
 * sql_plans.c - ruvector_learning_levers(): how the searches of a table go, and what each of the
 * ways to search was measured to cost.
 *
 * The plans come from the table, so that a standby and a server without a worker show them too;
 * only the guard is asked of shared memory. They tell figures, no queries.
 */
#include "learning/worker.h"

#include <math.h>

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_learning_levers);

typedef enum LeverColumn {
    LEVER_INDEX,
    LEVER_K,
    LEVER_TARGET,
    LEVER_NAME,
    LEVER_ACTIVE,
    LEVER_EFFORT,
    LEVER_RECALL,
    LEVER_WORK,
    LEVER_SHARE,
    LEVER_IN_REACH,
    LEVER_QUERIES,
    LEVER_DECIDED_AT,
    LEVER_COLUMNS
} LeverColumn;

typedef struct LeverRows {
    Tuplestorestate *rows;
    TupleDesc descriptor;
    Oid index_oid;
    const rv_plan *plan;
    Datum values[LEVER_COLUMNS];
    bool nulls[LEVER_COLUMNS];
} LeverRows;

static void
set(LeverRows *out, LeverColumn column, Datum value)
{
    out->values[column] = value;
    out->nulls[column] = false;
}

static void
begin_row(LeverRows *out, const char *name, bool active)
{
    memset(out->nulls, true, sizeof(out->nulls));
    set(out, LEVER_INDEX, ObjectIdGetDatum(out->index_oid));
    set(out, LEVER_NAME, CStringGetTextDatum(name));
    set(out, LEVER_ACTIVE, BoolGetDatum(active));
    if (out->plan == NULL)
        return;
    set(out, LEVER_K, Int32GetDatum((int32)out->plan->k));
    set(out, LEVER_QUERIES, Int32GetDatum((int32)out->plan->samples));
    set(out, LEVER_DECIDED_AT, TimestampTzGetDatum(out->plan->made_us));
}

static void
end_row(LeverRows *out)
{
    tuplestore_putvalues(out->rows, out->descriptor, out->values, out->nulls);
}

static void
add_way(LeverRows *out, int at, rv_way way)
{
    const rv_plan_level *level = &out->plan->levels[at];
    const rv_plan_step *step = &level->steps[way];
    double work = step->work;
    double common = level->steps[RV_WAY_STATIC].work;

    if (step->effort < 0)
        return;
    begin_row(out, rv_way_name(way), level->way == (uint32)way);
    set(out, LEVER_TARGET, Float8GetDatum(rv_target_grid()[at]));
    set(out, LEVER_EFFORT, Float8GetDatum(step->effort));
    set(out, LEVER_RECALL, Float8GetDatum(step->recall));
    set(out, LEVER_IN_REACH, BoolGetDatum(step->in_reach != 0));
    if (work >= 0)
        set(out, LEVER_WORK, Float8GetDatum(work));
    if (work >= 0 && common > 0)
        set(out, LEVER_SHARE, Float8GetDatum(work / common));
    end_row(out);
}

static void
add_guard(LeverRows *out)
{
    RuvIndexSlot *slot;
    RuvGuard guard = {1, RUV_GUARD_NONE};

    if (ruv_shared == NULL)
        return;
    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    slot = ruv_registry_find(MyDatabaseId, out->index_oid);
    if (slot != NULL)
        guard = ruv_guard_read(slot);
    LWLockRelease(ruv_shared->lock);
    begin_row(out, "guard", guard.factor > 1);
    set(out, LEVER_EFFORT, Float8GetDatum(guard.factor));
    end_row(out);
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
add_ways(LeverRows *out)
{
    for (int at = 0; at < RV_TARGETS; at++)
        for (int way = 0; way < RV_WAYS; way++)
            add_way(out, at, (rv_way)way);
}

/* The first plan is that of the most searches. */
static void
add_index(LeverRows *out, const rv_plan *plans, int count)
{
    for (int i = 0; i < count; i++) {
        out->plan = &plans[i];
        add_ways(out);
    }
    out->plan = count > 0 ? &plans[0] : NULL;
    if (out->plan != NULL) {
        begin_row(out, "misses", out->plan->miss_ratio != 1);
        set(out, LEVER_EFFORT, Float8GetDatum(out->plan->miss_ratio));
        end_row(out);
        begin_row(out, "regions", out->plan->use_regions != 0);
        set(out, LEVER_SHARE, Float8GetDatum(out->plan->region_work));
        end_row(out);
    }
    add_guard(out);
}

#define PLANS_QUERY                                                                                \
    "SELECT p.index_oid, p.plan FROM @.ruvector_search_plans p "                                   \
    "JOIN pg_index i ON i.indexrelid = p.index_oid WHERE i.indrelid = $1 ORDER BY p.index_oid"

Datum
ruv_learning_levers(PG_FUNCTION_ARGS)
{
    Oid table_oid = PG_GETARG_OID(0);
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    LeverRows out = {0};
    RuvStore store;
    uint64 count;

    out.rows = ruv_begin_rows(fcinfo, &out.descriptor);
    ruv_require_preload();
    ruv_require_statistics_reader(table_oid);
    ruv_store_open_or_fail(&store);
    count = ruv_store_run(&store, PLANS_QUERY, 1, types, values, NULL);
    for (uint64 i = 0; i < count; i++) {
        rv_plan plans[RUV_MAX_PLANS];
        int found = ruv_plans_from_datum(ruv_store_value(i, 2, NULL), plans);

        out.index_oid = DatumGetObjectId(ruv_store_value(i, 1, NULL));
        if (found > 0 && plans[0].index_epoch != current_epoch(out.index_oid))
            found = 0;
        add_index(&out, plans, found);
    }
    ruv_store_close(&store);
    return (Datum)0;
}
