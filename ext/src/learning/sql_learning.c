/*
 * sql_learning.c - SQL functions per table: enable, disable, clear, extract.
 *
 * They check what the caller may do, write the tables as the extension's owner (store.c) and tell
 * the registry, which acts when the transaction commits.
 */
#include "learning/worker.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#define RUV_MIN_WINDOW 10
#define RUV_MAX_WINDOW 100000
#define RUV_DEFAULT_WINDOW 1000
#define RUV_LEAST_MIN_SAMPLES 10
#define RUV_MIN_LEARNING_RATE 0.0001

PG_FUNCTION_INFO_V1(ruv_enable_learning);
PG_FUNCTION_INFO_V1(ruv_disable_learning);
PG_FUNCTION_INFO_V1(ruv_clear_learning);
PG_FUNCTION_INFO_V1(ruv_extract_patterns);
PG_FUNCTION_INFO_V1(ruv_learning_changed);

typedef struct LearningOptions {
    int window;
    double learning_rate;
    int min_samples;
    char *id_column; /* NULL: the primary key */
    bool keeps_said; /* whether keep_queries was given; otherwise it stays as it is */
    bool keep_queries;
} LearningOptions;

/* ---- checks -------------------------------------------------------------------------------- */

static Oid
table_argument(FunctionCallInfo fcinfo)
{
    if (PG_ARGISNULL(0))
        ereport(ERROR,
                (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the table must not be null")));
    return PG_GETARG_OID(0);
}

static void
check_kind(Relation table)
{
    const char *name = RelationGetRelationName(table);

    if (table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("\"%s\" is a partitioned table, which has no index to search", name),
                        errhint("Enable learning for each of its partitions.")));
    if (table->rd_rel->relkind != RELKIND_RELATION && table->rd_rel->relkind != RELKIND_MATVIEW)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("\"%s\" is neither a table nor a materialized view", name)));
    if (table->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("\"%s\" is a temporary table, which the learning worker cannot read",
                               name)));
    if (IsCatalogRelation(table))
        ereport(ERROR,
                (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is a system catalog", name)));
}

/* Opens the table for its owner (or a superuser) only. */
static Relation
open_own_table(Oid table_oid)
{
    Relation table = relation_open(table_oid, AccessShareLock);

    if (!ruv_owns_relation(table_oid))
        aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(table->rd_rel->relkind),
                       RelationGetRelationName(table));
    return table;
}

Oid
ruv_own_table(Oid table_oid)
{
    relation_close(open_own_table(table_oid), NoLock);
    return table_oid;
}

void
ruv_require_primary(void)
{
    if (RecoveryInProgress())
        ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
                        errmsg("a standby cannot change what is learned"),
                        errhint("Call the function on the primary; what it learns arrives here "
                                "with replication.")));
}

List *
ruv_own_indexes(Relation table)
{
    List *found = NIL;
    List *all = RelationGetIndexList(table);
    ListCell *cell;

    foreach (cell, all) {
        Relation index = relation_open(lfirst_oid(cell), AccessShareLock);

        if (ruv_is_index(index))
            found = lappend_oid(found, lfirst_oid(cell));
        relation_close(index, AccessShareLock);
    }
    return found;
}

/* ---- options ------------------------------------------------------------------------------- */

static void
check_int(const char *name, int value, int least, int most)
{
    if (value < least || value > most)
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                 errmsg("%s is %d; it must be between %d and %d", name, value, least, most)));
}

static void
check_options(const LearningOptions *options)
{
    check_int("trajectory_window", options->window, RUV_MIN_WINDOW, RUV_MAX_WINDOW);
    if (!(options->learning_rate >= RUV_MIN_LEARNING_RATE && options->learning_rate <= 1.0))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("learning_rate is %g; it must be between %g and 1",
                               options->learning_rate, RUV_MIN_LEARNING_RATE)));
    check_int("min_samples", options->min_samples, RUV_LEAST_MIN_SAMPLES, RUV_MAX_WINDOW);
    if (options->min_samples > options->window)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("min_samples (%d) is larger than trajectory_window (%d)",
                               options->min_samples, options->window),
                        errdetail("No more searches than the window are kept, so nothing would "
                                  "ever be learned."),
                        errhint("Raise trajectory_window or lower min_samples.")));
}

/* Feedback names rows by this column. */
static void
check_id_column(Relation table, const char *name)
{
    AttrNumber number = get_attnum(RelationGetRelid(table), name);
    Oid type;

    if (number == InvalidAttrNumber || number < 0)
        ereport(ERROR,
                (errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("column \"%s\" of \"%s\" does not exist",
                                                           name, RelationGetRelationName(table))));
    type = get_atttype(RelationGetRelid(table), number);
    if (type != INT2OID && type != INT4OID && type != INT8OID)
        ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                        errmsg("id_column \"%s\" is of type %s; it must be an integer type", name,
                               format_type_be(type))));
}

static LearningOptions
read_options(FunctionCallInfo fcinfo, Relation table)
{
    LearningOptions options;

    options.window = PG_ARGISNULL(1) ? RUV_DEFAULT_WINDOW : PG_GETARG_INT32(1);
    options.learning_rate = PG_ARGISNULL(2) ? ruv_learning_rate : PG_GETARG_FLOAT8(2);
    options.min_samples = PG_ARGISNULL(3) ? ruv_min_samples : PG_GETARG_INT32(3);
    options.id_column = PG_ARGISNULL(4) ? NULL : NameStr(*PG_GETARG_NAME(4));
    options.keeps_said = PG_NARGS() > 5 && !PG_ARGISNULL(5);
    options.keep_queries = options.keeps_said && PG_GETARG_BOOL(5);
    check_options(&options);
    if (options.id_column != NULL)
        check_id_column(table, options.id_column);
    return options;
}

/* Searches beyond the window, in case it has become smaller. */
static void
trim_trajectories(RuvStore *store, Oid table_oid, int window)
{
    Oid types[2] = {OIDOID, INT4OID};
    Datum values[2] = {ObjectIdGetDatum(table_oid), Int32GetDatum(window)};

    ruv_store_run(store,
                  "DELETE FROM @.ruvector_trajectory_log WHERE query_id IN (SELECT query_id "
                  "FROM (SELECT query_id, row_number() OVER (PARTITION BY index_oid "
                  "ORDER BY judged_at DESC, searched_at DESC) AS place "
                  "FROM @.ruvector_trajectory_log WHERE table_id = $1::regclass) r "
                  "WHERE place > $2)",
                  2, types, values, NULL);
}

/* Whether queries of the table were kept until now and shall not be any more. */
static bool
ends_keeping(Oid table_oid, const LearningOptions *options)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    RuvStore store;
    bool kept;

    if (!options->keeps_said || options->keep_queries)
        return false;
    ruv_store_open_or_fail(&store);
    kept = ruv_store_run(&store,
                         "SELECT FROM @.ruvector_learning "
                         "WHERE table_id = $1::regclass AND keep_queries",
                         1, types, values, NULL) > 0;
    ruv_store_close(&store);
    return kept;
}

static void
save_options(RuvStore *store, Oid table_oid, const LearningOptions *options)
{
    Oid types[8] = {OIDOID, INT4OID, FLOAT8OID, INT4OID, NAMEOID, NAMEOID, BOOLOID, TEXTOID};
    Datum values[8] = {
        ObjectIdGetDatum(table_oid),
        Int32GetDatum(options->window),
        Float8GetDatum(options->learning_rate),
        Int32GetDatum(options->min_samples),
        (Datum)0,
        DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(store->former_user, false))),
        BoolGetDatum(options->keep_queries),
        ruv_store_home()};
    char nulls[9] = "        ";

    if (!options->keeps_said)
        nulls[6] = 'n';
    if (options->id_column != NULL)
        values[4] = DirectFunctionCall1(namein, CStringGetDatum(options->id_column));
    else
        nulls[4] = 'n';
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_learning AS l (table_id, trajectory_window, "
                  "learning_rate, min_samples, id_column, enabled_by, keep_queries, home) "
                  "VALUES ($1::regclass, $2, $3, $4, $5, $6, coalesce($7, true), $8) "
                  "ON CONFLICT (table_id) DO UPDATE SET "
                  "trajectory_window = excluded.trajectory_window, "
                  "learning_rate = excluded.learning_rate, min_samples = excluded.min_samples, "
                  "id_column = excluded.id_column, enabled = true, "
                  "keep_queries = coalesce($7, l.keep_queries)",
                  8, types, values, nulls);
    trim_trajectories(store, table_oid, options->window);
}

static void
store_options(Oid table_oid, const LearningOptions *options)
{
    RuvStore store;

    ruv_store_open_or_fail(&store);
    save_options(&store, table_oid, options);
    ruv_store_close(&store);
}

/* ---- the functions ------------------------------------------------------------------------- */

/* Deletes what was learned for a table; the configuration too, if asked. A round of the worker that
 * is under way ends first, so that it stores nothing afterwards. */
static void
forget_table(Relation table, bool configuration)
{
    Oid table_oid = RelationGetRelid(table);
    RuvStore store;
    ListCell *cell;

    foreach (cell, ruv_own_indexes(table))
        ruv_bank_lock(lfirst_oid(cell));
    ruv_store_open_or_fail(&store);
    ruv_store_forget_table(&store, table_oid, configuration);
    ruv_store_close(&store);
    ruv_registry_disable_at_commit(table_oid);
}

Datum
ruv_enable_learning(PG_FUNCTION_ARGS)
{
    Oid table_oid = table_argument(fcinfo);
    LearningOptions options;
    Relation table;
    List *indexes;

    ruv_require_preload();
    ruv_require_primary();
    table = open_own_table(table_oid);
    check_kind(table);
    options = read_options(fcinfo, table);
    indexes = ruv_own_indexes(table);
    if (indexes == NIL)
        ereport(NOTICE,
                (errmsg("\"%s\" has no index of ruvector yet; learning begins when it has one",
                        RelationGetRelationName(table))));
    /* What was learned from kept queries goes when they may not be kept any more. */
    if (ends_keeping(table_oid, &options))
        forget_table(table, false);
    store_options(table_oid, &options);
    ruv_registry_enable_at_commit(table_oid, indexes);
    relation_close(table, NoLock);
    PG_RETURN_VOID();
}

/* What was learned stays for the day on which learning is enabled again. */
static void
pause_table(Oid table_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    RuvStore store;

    ruv_store_open_or_fail(&store);
    ruv_store_run(&store,
                  "UPDATE @.ruvector_learning SET enabled = false WHERE table_id = $1::regclass", 1,
                  types, values, NULL);
    ruv_store_close(&store);
    ruv_registry_disable_at_commit(table_oid);
}

Datum
ruv_disable_learning(PG_FUNCTION_ARGS)
{
    Oid table_oid = table_argument(fcinfo);
    bool forget = PG_NARGS() > 1 && !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
    Relation table;

    ruv_require_preload();
    ruv_require_primary();
    table = open_own_table(table_oid);
    if (forget)
        forget_table(table, true);
    else
        pause_table(table_oid);
    ruv_worker_request();
    relation_close(table, NoLock);
    PG_RETURN_VOID();
}

void
ruv_require_enabled(Oid table_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    RuvStore store;
    uint64 rows;

    ruv_store_open_or_fail(&store);
    rows = ruv_store_run(
        &store, "SELECT FROM @.ruvector_learning WHERE enabled AND table_id = $1::oid::regclass", 1,
        types, values, NULL);
    ruv_store_close(&store);
    if (rows == 0)
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("learning is not enabled for \"%s\"", get_rel_name(table_oid)),
                 errhint("SELECT ruvector_enable_learning('%s');", get_rel_name(table_oid))));
}

Datum
ruv_clear_learning(PG_FUNCTION_ARGS)
{
    Oid table_oid = table_argument(fcinfo);
    Relation table;

    ruv_require_preload();
    ruv_require_primary();
    table = open_own_table(table_oid);
    ruv_require_enabled(table_oid);
    forget_table(table, false);
    ruv_registry_enable_at_commit(table_oid, ruv_own_indexes(table));
    relation_close(table, NoLock);
    PG_RETURN_VOID();
}

/* The trigger of ruvector_learning. */
Datum
ruv_learning_changed(PG_FUNCTION_ARGS)
{
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("ruvector_learning_changed() is a trigger function")));
    if (ruv_shared != NULL)
        ruv_worker_request();
    return PointerGetDatum(NULL);
}

static int64
count_patterns(Oid table_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    RuvStore store;
    int64 patterns;

    ruv_store_open_or_fail(&store);
    ruv_store_run(&store,
                  "SELECT count(*) FROM @.ruvector_patterns WHERE table_id = $1::oid::regclass", 1,
                  types, values, NULL);
    patterns = DatumGetInt64(ruv_store_value(0, 1, NULL));
    ruv_store_close(&store);
    return patterns;
}

Datum
ruv_extract_patterns(PG_FUNCTION_ARGS)
{
    Oid table_oid = table_argument(fcinfo);
    Relation table;
    int64 patterns;

    ruv_require_preload();
    ruv_require_primary();
    table = open_own_table(table_oid);
    ruv_require_enabled(table_oid);
    relation_close(table, NoLock);
    ruv_worker_extract(table_oid);
    patterns = count_patterns(table_oid);
    if (patterns == 0)
        ereport(NOTICE, (errmsg("no patterns yet: too few searches were recorded"),
                         errdetail("An index needs min_samples judged searches of one LIMIT; "
                                   "ruvector_learning_stats() shows how many there are.")));
    PG_RETURN_INT64(patterns);
}
