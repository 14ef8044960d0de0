/*
 * tune.c - ruvector_auto_tune() and ruvector_auto_tune_undo(): the effort of an index from a
 * measured curve.
 *
 * Queries are the recorded ones of the index; where there are too few, rows of the table. The
 * policy tuning.lua picks a point of the curve. What it picks becomes storage parameters of the
 * index: they are at hand wherever the index is open, so a search looks nothing up, and they are
 * durable, replicated and dumped like any other. ruvector_tunings remembers what they were before.
 *
 * All of it works without shared_preload_libraries, since it needs neither the worker nor shared
 * memory; only the target has nothing to act on there.
 */
#include "learning/worker.h"
#include "learning/tune.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "as_owner.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_auto_tune);
PG_FUNCTION_INFO_V1(ruv_auto_tune_undo);

#define RUV_LEAST_QUERIES 10
#define RUV_MOST_QUERIES 10000
/* Fewer recorded searches than this say less than rows do. */
#define RUV_LEAST_RECORDED 30
/* Of held-out rows: nobody has said how many rows are wanted. */
#define RUV_DEFAULT_K 10

typedef struct Tuning {
    Oid index_oid;
    Oid table_oid;
    NameData index_name;
    RuvIndexIdentity identity;
    const char *effort_name;
    rv_tuning_goal goal;
    int wanted;
    RuvTuneQueries *queries;
    RuvTuneCurve curve;
    rv_tuning_choice choice;
} Tuning;

/* ---- what is asked for --------------------------------------------------------------------- */

static rv_tuning_goal
goal_argument(text *argument)
{
    char *name = text_to_cstring(argument);

    for (int goal = 0; goal < RV_TUNING_GOALS; goal++)
        if (strcmp(name, rv_tuning_goal_name((rv_tuning_goal)goal)) == 0)
            return (rv_tuning_goal)goal;
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("optimize_for is \"%s\"; it must be \"recall\", \"latency\" or "
                           "\"balanced\"",
                           name)));
}

static void
require_writable(void)
{
    if (RecoveryInProgress())
        ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
                        errmsg("a standby cannot change the settings of an index"),
                        errhint("Call the function on the primary; the settings arrive here with "
                                "replication.")));
    PreventCommandIfReadOnly("ruvector_auto_tune");
}

/* The index, for the owner of its table; *table_oid is that. */
static Relation
open_own_index(Oid index_oid, Oid *table_oid)
{
    Relation index = relation_open(index_oid, AccessShareLock);

    if (!ruv_is_index(index))
        ereport(ERROR,
                (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                 errmsg("\"%s\" is not an index of ruvector", RelationGetRelationName(index))));
    *table_oid = index->rd_index->indrelid;
    if (!ruv_owns_relation(*table_oid))
        aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(*table_oid));
    return index;
}

/* Queries that fit into maintenance_work_mem with their results. */
static int
affordable_queries(int wanted, int dim)
{
    Size each = sizeof(float) * dim + sizeof(rv_exact_hit) * (RV_TRAJECTORY_MAX_HITS + 1);
    double most = maintenance_work_mem * 1024.0 / each;

    return (int)Max(RUV_LEAST_QUERIES, Min(wanted, most));
}

/* ---- queries ------------------------------------------------------------------------------- */

/* The k that most recorded searches of the index asked for, and how many did. */
static int
recorded_k(RuvStore *store, Oid index_oid, int64 *count)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(index_oid)};

    *count = 0;
    if (ruv_store_run(store,
                      "SELECT k, count(*) FROM @.ruvector_trajectory_log "
                      "WHERE index_oid = $1 AND query IS NOT NULL AND k <= 64 "
                      "GROUP BY k ORDER BY count(*) DESC, k LIMIT 1",
                      1, types, values, NULL) == 0)
        return RUV_DEFAULT_K;
    *count = DatumGetInt64(ruv_store_value(0, 2, NULL));
    return DatumGetInt32(ruv_store_value(0, 1, NULL));
}

static void
take_recorded(RuvStore *store, Tuning *tuning, MemoryContext context)
{
    Oid types[3] = {OIDOID, INT4OID, INT4OID};
    Datum values[3] = {ObjectIdGetDatum(tuning->index_oid), (Datum)0,
                       Int32GetDatum(tuning->wanted)};
    MemoryContext former;
    int64 count;
    int k = recorded_k(store, tuning->index_oid, &count);
    uint64 rows;

    if (count < RUV_LEAST_RECORDED)
        return;
    values[1] = Int32GetDatum(k);
    rows = ruv_store_run(store,
                         "SELECT query FROM @.ruvector_trajectory_log WHERE index_oid = $1 "
                         "AND query IS NOT NULL AND k = $2 ORDER BY searched_at DESC LIMIT $3",
                         3, types, values, NULL);
    former = MemoryContextSwitchTo(context);
    tuning->queries = ruv_tune_queries(tuning->identity.dim, k, (int)Max(rows, 1));
    MemoryContextSwitchTo(former);
    for (uint64 row = 0; row < rows; row++) {
        RuVector *query = DatumGetRuVector(ruv_store_value(row, 1, NULL));

        if (query->dim == tuning->identity.dim)
            ruv_tune_add_query(tuning->queries, query->x);
    }
    if (tuning->queries->count < RUV_LEAST_RECORDED)
        tuning->queries = NULL;
}

static void
measure(Tuning *tuning, Relation table, Relation index)
{
    RuvFormerUser former;

    ruv_become_owner(table, &former);
    if (tuning->queries == NULL) {
        tuning->queries = ruv_tune_queries(tuning->identity.dim, RUV_DEFAULT_K, tuning->wanted);
        ruv_tune_hold_out(tuning->queries, table, index, &tuning->identity);
    }
    ruv_tune_find_truth(tuning->queries, table, index, &tuning->identity);
    if (tuning->queries->count == 0)
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("index \"%s\" has too few rows to be tuned", NameStr(tuning->index_name)),
                 errhint("Fill the table first.")));
    ruv_tune_measure(tuning->queries, index, ruv_index_most_effort(index), &tuning->curve);
    ruv_resume_user(&former);
}

/* ---- settings ------------------------------------------------------------------------------ */

/* ALTER INDEX, as the caller. 0 takes a parameter away. */
static void
set_parameter(const char *index, const char *name, double value)
{
    char *statement = value > 0 ? psprintf("ALTER INDEX %s SET (%s = %g)", index, name, value)
                                : psprintf("ALTER INDEX %s RESET (%s)", index, name);

    if (SPI_execute(statement, false, 0) != SPI_OK_UTILITY)
        elog(ERROR, "%s failed", statement);
}

static void
set_parameters(Oid index_oid, const char *effort_name, double effort, double target)
{
    char *index = quote_qualified_identifier(get_namespace_name(get_rel_namespace(index_oid)),
                                             get_rel_name(index_oid));

    if (SPI_connect() != SPI_OK_CONNECT)
        elog(ERROR, "SPI_connect failed");
    set_parameter(index, effort_name, effort);
    set_parameter(index, "target_recall", target);
    SPI_finish();
}

static void
remember_former(RuvStore *store, const Tuning *tuning)
{
    const RuvOwnEffort *own = &tuning->identity.own;
    Oid types[8] = {OIDOID, OIDOID, NAMEOID, TEXTOID, TEXTOID, INT4OID, FLOAT8OID, NAMEOID};
    Datum values[8] = {
        ObjectIdGetDatum(tuning->index_oid),
        ObjectIdGetDatum(tuning->table_oid),
        NameGetDatum(&tuning->index_name),
        CStringGetTextDatum(rv_tuning_goal_name(tuning->goal)),
        CStringGetTextDatum(tuning->effort_name),
        Int32GetDatum(Max(own->ef_search, own->probes)),
        Float8GetDatum(own->target_recall),
        DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(store->former_user, false)))};

    /* Those of dropped indexes, so that nobody has to clean up. */
    ruv_store_run(store,
                  "DELETE FROM @.ruvector_tunings t WHERE NOT EXISTS (SELECT FROM pg_index i "
                  "WHERE i.indexrelid = t.index_oid AND i.indrelid = t.table_id::oid)",
                  0, NULL, NULL, NULL);
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_tunings (index_oid, table_id, index_name, optimized_for, "
                  "effort_name, former_effort, former_target_recall, tuned_by) "
                  "VALUES ($1, $2::regclass, $3, $4, $5, $6, $7, $8)",
                  8, types, values, NULL);
}

/* ---- the functions ------------------------------------------------------------------------- */

#define TUNE_COLUMNS 9

static void
put_curve(const Tuning *tuning, Tuplestorestate *rows, TupleDesc descriptor)
{
    Assert(descriptor->natts == TUNE_COLUMNS);
    for (uint32 i = 0; i < tuning->curve.count; i++) {
        const rv_tuning_point *point = &tuning->curve.points[i];
        bool chosen = i == tuning->choice.point;
        Datum values[TUNE_COLUMNS];
        bool nulls[TUNE_COLUMNS] = {false};
        int column = 0;

        values[column++] = CStringGetTextDatum(tuning->effort_name);
        values[column++] = Int32GetDatum((int32)point->effort);
        values[column++] = Float8GetDatum(point->recall);
        values[column++] = Float8GetDatum(point->distances);
        values[column++] = Float8GetDatum(point->latency_us);
        values[column++] = Int32GetDatum(tuning->queries->count);
        values[column++] =
            CStringGetTextDatum(tuning->queries->held_out ? "rows" : "recorded searches");
        values[column++] = BoolGetDatum(chosen);
        nulls[column] = !chosen;
        values[column++] = Float8GetDatum(tuning->choice.target_recall);
        Assert(column == TUNE_COLUMNS);
        tuplestore_putvalues(rows, descriptor, values, nulls);
    }
}

static void
tell_limits(const Tuning *tuning, int asked)
{
    if (tuning->wanted < asked)
        ereport(NOTICE, (errmsg("%d queries fit into maintenance_work_mem, not %d", tuning->wanted,
                                asked)));
    if (tuning->queries->held_out)
        ereport(NOTICE,
                (errmsg("index \"%s\" was tuned with rows of the table as queries",
                        NameStr(tuning->index_name)),
                 errdetail("Fewer than %d recorded searches are there. Where real queries are "
                           "unlike the rows, they need more effort than this.",
                           RUV_LEAST_RECORDED),
                 errhint("Enable learning, let real searches be recorded, and tune again.")));
    if (ruv_shared == NULL)
        ereport(NOTICE,
                (errmsg("only the static effort has an effect, target_recall has none"),
                 errdetail("ruvector is not in shared_preload_libraries, so nothing is learned and "
                           "every search takes the same effort.")));
}

Datum
ruv_auto_tune(PG_FUNCTION_ARGS)
{
    MemoryContext context = CurrentMemoryContext;
    Tuning tuning = {.index_oid = PG_GETARG_OID(0), .goal = goal_argument(PG_GETARG_TEXT_PP(1))};
    int wanted = PG_GETARG_INT32(2);
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    Relation index;
    Relation table;
    RuvStore store;

    if (wanted < RUV_LEAST_QUERIES || wanted > RUV_MOST_QUERIES)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("sample_queries is %d; it must be between %d and %d", wanted,
                               RUV_LEAST_QUERIES, RUV_MOST_QUERIES)));
    require_writable();
    index = open_own_index(tuning.index_oid, &tuning.table_oid);
    table = table_open(tuning.table_oid, AccessShareLock);
    namestrcpy(&tuning.index_name, RelationGetRelationName(index));
    tuning.effort_name = ruv_index_effort_name(index);
    ruv_index_identity(index, &tuning.identity);
    tuning.wanted = affordable_queries(wanted, tuning.identity.dim);
    ruv_store_open_or_fail(&store);
    take_recorded(&store, &tuning, context);
    ruv_store_close(&store);
    measure(&tuning, table, index);
    table_close(table, NoLock);
    relation_close(index, NoLock);
    ruv_policy_use_of(tuning.index_oid);
    (void)ruv_policy_choose(tuning.curve.points, tuning.curve.count, tuning.goal, &tuning.choice);
    set_parameters(tuning.index_oid, tuning.effort_name,
                   tuning.curve.points[tuning.choice.point].effort, tuning.choice.target_recall);
    ruv_store_open_or_fail(&store);
    remember_former(&store, &tuning);
    ruv_store_close(&store);
    put_curve(&tuning, rows, descriptor);
    tell_limits(&tuning, wanted);
    return (Datum)0;
}

Datum
ruv_auto_tune_undo(PG_FUNCTION_ARGS)
{
    Oid index_oid = PG_GETARG_OID(0);
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(index_oid)};
    char *effort_name;
    double effort;
    double target;
    Relation index;
    RuvStore store;
    Oid table_oid;

    require_writable();
    index = open_own_index(index_oid, &table_oid);
    effort_name = pstrdup(ruv_index_effort_name(index));
    relation_close(index, NoLock);
    ruv_store_open_or_fail(&store);
    if (ruv_store_run(&store,
                      "DELETE FROM @.ruvector_tunings WHERE index_oid = $1 AND tuned_at = "
                      "(SELECT max(tuned_at) FROM @.ruvector_tunings WHERE index_oid = $1) "
                      "RETURNING former_effort, former_target_recall",
                      1, types, values, NULL) == 0)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("no tuning of \"%s\" is left to undo", get_rel_name(index_oid))));
    effort = DatumGetInt32(ruv_store_value(0, 1, NULL));
    target = DatumGetFloat8(ruv_store_value(0, 2, NULL));
    ruv_store_close(&store);
    set_parameters(index_oid, effort_name, effort, target);
    PG_RETURN_VOID();
}
