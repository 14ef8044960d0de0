/*
 * store.c - the learning engine's tables, through SPI.
 *
 * The tables are ordinary ones in the extension's schema: dumped, replicated, transactional. They
 * belong to the extension's owner, and so do the statements here: a store is opened as that user,
 * with a search_path that nobody else can put anything into, and every relation is named with its
 * schema ("@." in the statement's text stands for it). What the caller may do is checked by the SQL
 * functions before they open a store.
 *
 * Rows name their index by oid, and also by table and name: an index that is dropped and made again
 * under its name, or restored from a dump, adopts the searches recorded for it, so it learns again
 * without new traffic.
 */
#include "learning/worker.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pause.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Schema and owner of the extension; false when it is not there. */
static bool
find_extension(Oid *schema, Oid *owner)
{
    Oid extension = get_extension_oid("ruvector", true);
    Relation relation;
    SysScanDesc scan;
    ScanKeyData key;
    HeapTuple tuple;

    if (!OidIsValid(extension))
        return false;
    relation = table_open(ExtensionRelationId, AccessShareLock);
    ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
                ObjectIdGetDatum(extension));
    scan = systable_beginscan(relation, ExtensionOidIndexId, true, NULL, 1, &key);
    tuple = systable_getnext(scan);
    if (HeapTupleIsValid(tuple)) {
        *schema = ((Form_pg_extension)GETSTRUCT(tuple))->extnamespace;
        *owner = ((Form_pg_extension)GETSTRUCT(tuple))->extowner;
    }
    systable_endscan(scan);
    table_close(relation, AccessShareLock);
    return HeapTupleIsValid(tuple);
}

bool
ruv_store_open(RuvStore *store)
{
    Oid schema;
    Oid owner;

    /* The youngest table: where it is missing, ALTER EXTENSION ... UPDATE has not been run. */
    if (!find_extension(&schema, &owner) ||
        !OidIsValid(get_relname_relid("ruvector_link_rounds", schema)))
        return false;
    strlcpy(store->schema, quote_identifier(get_namespace_name(schema)), sizeof(store->schema));
    store->vector_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("ruvector"),
                                         ObjectIdGetDatum(schema));
    GetUserIdAndSecContext(&store->former_user, &store->former_security);
    SetUserIdAndSecContext(owner, store->former_security | SECURITY_LOCAL_USERID_CHANGE);
    store->settings_level = NewGUCNestLevel();
    (void)set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
                            GUC_ACTION_SAVE, true, 0, false);
    if (SPI_connect() != SPI_OK_CONNECT)
        elog(ERROR, "SPI_connect failed");
    return true;
}

void
ruv_store_open_or_fail(RuvStore *store)
{
    if (!ruv_store_open(store))
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("the extension in this database is older than its library"),
                        errhint("Run ALTER EXTENSION ruvector UPDATE.")));
}

void
ruv_store_close(RuvStore *store)
{
    SPI_finish();
    AtEOXact_GUC(false, store->settings_level);
    SetUserIdAndSecContext(store->former_user, store->former_security);
}

static char *
with_schema(const RuvStore *store, const char *text)
{
    StringInfoData out;

    initStringInfo(&out);
    for (; *text; text++) {
        if (text[0] == '@' && text[1] == '.')
            appendStringInfoString(&out, store->schema);
        else
            appendStringInfoChar(&out, *text);
    }
    return out.data;
}

uint64
ruv_store_run(RuvStore *store, const char *text, int count, Oid *types, Datum *values,
              const char *nulls)
{
    int result =
        SPI_execute_with_args(with_schema(store, text), count, types, values, nulls, false, 0);

    if (result < 0)
        elog(ERROR, "a statement on the learning tables failed: %s",
             SPI_result_code_string(result));
    return SPI_processed;
}

SPIPlanPtr
ruv_store_prepare(RuvStore *store, const char *text, int count, Oid *types)
{
    SPIPlanPtr plan = SPI_prepare(with_schema(store, text), count, types);

    if (plan == NULL)
        elog(ERROR, "a statement on the learning tables cannot be prepared: %s",
             SPI_result_code_string(SPI_result));
    return plan;
}

Datum
ruv_store_value(uint64 row, int column, bool *null)
{
    bool is_null;
    Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &is_null);

    if (null != NULL)
        *null = is_null;
    else if (is_null)
        elog(ERROR, "unexpected null in a learning table, column %d", column);
    return value;
}

/* ---- configuration ------------------------------------------------------------------------- */

Datum
ruv_store_indexes(RuvStore *store)
{
    ruv_store_run(store,
                  "SELECT coalesce(array_agg(i.indexrelid), '{}') FROM pg_index i "
                  "JOIN pg_class c ON c.oid = i.indexrelid "
                  "JOIN pg_am a ON a.oid = c.relam AND a.amname IN " RUV_INDEX_METHODS,
                  0, NULL, NULL, NULL);
    return ruv_store_value(0, 1, NULL);
}

void
ruv_store_list_indexes(RuvStore *store, Datum indexes, ruv_store_index_fn each)
{
    Oid types[1] = {OIDARRAYOID};
    Datum values[1] = {indexes};
    uint64 rows;

    rows = ruv_store_run(
        store,
        "SELECT l.table_id::oid, i.indexrelid, c.relname, l.trajectory_window, l.learning_rate, "
        "l.min_samples, l.keep_queries FROM @.ruvector_learning l "
        "JOIN pg_index i ON l.enabled AND i.indrelid = l.table_id::oid AND i.indisvalid AND "
        "i.indisready JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am a ON a.oid = c.relam AND a.amname IN " RUV_INDEX_METHODS
        " WHERE i.indexrelid = ANY ($1) ORDER BY i.indexrelid",
        1, types, values, NULL);
    for (uint64 row = 0; row < rows; row++) {
        RuvIndexState configured = {0};

        configured.table_oid = DatumGetObjectId(ruv_store_value(row, 1, NULL));
        configured.index_oid = DatumGetObjectId(ruv_store_value(row, 2, NULL));
        namestrcpy(&configured.index_name, NameStr(*DatumGetName(ruv_store_value(row, 3, NULL))));
        configured.window = DatumGetInt32(ruv_store_value(row, 4, NULL));
        configured.learning_rate = DatumGetFloat8(ruv_store_value(row, 5, NULL));
        configured.min_samples = DatumGetInt32(ruv_store_value(row, 6, NULL));
        configured.keep_queries = DatumGetBool(ruv_store_value(row, 7, NULL));
        each(&configured);
    }
}

/* Rows of dropped tables count too: a worker that left because of them would leave them behind. */
uint64
ruv_store_count_tables(RuvStore *store)
{
    return ruv_store_run(store, "SELECT FROM @.ruvector_learning WHERE enabled", 0, NULL, NULL,
                         NULL);
}

double
ruv_store_learning_rate(RuvStore *store, Oid table_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};

    if (ruv_store_run(store,
                      "SELECT learning_rate FROM @.ruvector_learning "
                      "WHERE table_id = $1::oid::regclass",
                      1, types, values, NULL) == 0)
        elog(ERROR, "learning is not enabled for relation %u", table_oid);
    return DatumGetFloat8(ruv_store_value(0, 1, NULL));
}

static const char *const index_tables[] = {
    "ruvector_trajectory_log", "ruvector_patterns",       "ruvector_index_state",
    "ruvector_memory",         "ruvector_recall_checks",  "ruvector_feedback",
    "ruvector_search_plans",   "ruvector_policy_shadows", "ruvector_link_rounds"};

/* Rounds of learned links tell what is in the graph, so they stay as long as the index does. */
#define RUV_FORGOTTEN_TABLES ((int)lengthof(index_tables) - 1)

/* The name of this database among all: a dump restored elsewhere is told by it. */
Datum
ruv_store_home(void)
{
    return CStringGetTextDatum(psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId));
}

/* Tables whose rows came with a dump are at home once none of the rows waits for an index. */
static void
settle_restored(RuvStore *store)
{
    Oid types[1] = {TEXTOID};
    Datum values[1] = {ruv_store_home()};
    StringInfoData text;

    initStringInfo(&text);
    appendStringInfoString(
        &text, "UPDATE @.ruvector_learning l SET home = $1 WHERE l.home IS DISTINCT FROM $1 "
               "AND EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
               "JOIN pg_am a ON a.oid = c.relam AND a.amname IN " RUV_INDEX_METHODS
               " WHERE i.indrelid = l.table_id::oid)");
    for (int i = 0; i < (int)lengthof(index_tables); i++)
        appendStringInfo(&text,
                         " AND NOT EXISTS (SELECT FROM @.%s r WHERE r.table_id = l.table_id "
                         "AND NOT EXISTS (SELECT FROM pg_index j WHERE j.indexrelid = r.index_oid "
                         "AND j.indrelid = r.table_id::oid))",
                         index_tables[i]);
    ruv_store_run(store, text.data, 1, types, values, NULL);
}

void
ruv_store_tidy(RuvStore *store, Datum indexes)
{
    Oid types[2] = {TEXTOID, OIDARRAYOID};
    Datum values[2] = {ruv_store_home(), indexes};

    ruv_store_run(store,
                  "DELETE FROM @.ruvector_learning l "
                  "WHERE NOT EXISTS (SELECT FROM pg_class t WHERE t.oid = l.table_id::oid)",
                  0, NULL, NULL, NULL);
    ruv_store_run(store,
                  "DELETE FROM @.ruvector_policy_choices c WHERE table_id IS NOT NULL "
                  "AND NOT EXISTS (SELECT FROM pg_class t WHERE t.oid = c.table_id::oid)",
                  0, NULL, NULL, NULL);
    for (int i = 0; i < (int)lengthof(index_tables); i++) {
        const char *table = index_tables[i];

        /* Renamed indexes, then indexes made anew under the name of one that is gone. */
        ruv_store_run(store,
                      psprintf("UPDATE @.%s r SET index_name = c.relname FROM pg_class c "
                               "JOIN pg_index i ON i.indexrelid = c.oid WHERE c.oid = r.index_oid "
                               "AND i.indrelid = r.table_id::oid AND c.relname <> r.index_name",
                               table),
                      0, NULL, NULL, NULL);
        ruv_store_run(store,
                      psprintf("UPDATE @.%s r SET index_oid = c.oid FROM pg_class c "
                               "JOIN pg_index i ON i.indexrelid = c.oid "
                               "JOIN pg_am a ON a.oid = c.relam AND a.amname IN " RUV_INDEX_METHODS
                               " "
                               "WHERE i.indrelid = r.table_id::oid AND c.relname = r.index_name "
                               "AND c.oid <> r.index_oid AND NOT EXISTS (SELECT FROM pg_index j "
                               "WHERE j.indexrelid = r.index_oid AND j.indrelid = r.table_id::oid) "
                               "AND NOT EXISTS (SELECT FROM @.%s s WHERE s.index_oid = c.oid)",
                               table, table),
                      0, NULL, NULL, NULL);
        RUV_PAUSE("ruvector-tidy-adopted");
        ruv_store_run(store,
                      psprintf("DELETE FROM @.%s r WHERE NOT EXISTS (SELECT FROM pg_index i "
                               "WHERE i.indexrelid = r.index_oid AND i.indrelid = r.table_id::oid) "
                               "AND r.index_oid <> ALL ($2) "
                               "AND NOT EXISTS (SELECT FROM @.ruvector_learning l "
                               "WHERE l.table_id = r.table_id AND l.home IS DISTINCT FROM $1)",
                               table),
                      2, types, values, NULL);
        if (i < RUV_FORGOTTEN_TABLES)
            ruv_store_run(store,
                          psprintf("DELETE FROM @.%s r WHERE NOT EXISTS (SELECT FROM "
                                   "@.ruvector_learning l WHERE l.table_id = r.table_id)",
                                   table),
                          0, NULL, NULL, NULL);
    }
    settle_restored(store);
}

void
ruv_store_forget_table(RuvStore *store, Oid table_oid, bool configuration)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};

    for (int i = 0; i < RUV_FORGOTTEN_TABLES; i++)
        ruv_store_run(
            store, psprintf("DELETE FROM @.%s WHERE table_id = $1::oid::regclass", index_tables[i]),
            1, types, values, NULL);
    if (configuration)
        ruv_store_run(store, "DELETE FROM @.ruvector_learning WHERE table_id = $1::oid::regclass",
                      1, types, values, NULL);
}

/* ---- the state of an index ----------------------------------------------------------------- */

void
ruv_store_load_state(RuvStore *store, RuvIndexState *state)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(state->index_oid)};
    bool null;
    Datum value;

    if (ruv_store_run(store,
                      "SELECT trajectories, judged, learning_seconds, last_learned, consolidated "
                      "FROM @.ruvector_index_state WHERE index_oid = $1",
                      1, types, values, NULL) == 0)
        return;
    state->trajectories = (uint64)DatumGetInt64(ruv_store_value(0, 1, NULL));
    state->judged = (uint64)DatumGetInt64(ruv_store_value(0, 2, NULL));
    state->learning_seconds = DatumGetFloat8(ruv_store_value(0, 3, NULL));
    value = ruv_store_value(0, 4, &null);
    state->last_learned = null ? 0 : DatumGetTimestampTz(value);
    value = ruv_store_value(0, 5, &null);
    state->consolidated = null ? 0 : DatumGetTimestampTz(value);
}

void
ruv_store_save_state(RuvStore *store, const RuvIndexState *state)
{
    Oid types[8] = {OIDOID,  OIDOID,    NAMEOID,        INT8OID,
                    INT8OID, FLOAT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
    Datum values[8] = {
        ObjectIdGetDatum(state->index_oid),       ObjectIdGetDatum(state->table_oid),
        NameGetDatum(&state->index_name),         Int64GetDatum((int64)state->trajectories),
        Int64GetDatum((int64)state->judged),      Float8GetDatum(state->learning_seconds),
        TimestampTzGetDatum(state->last_learned), TimestampTzGetDatum(state->consolidated)};
    char nulls[9] = "        ";

    if (state->last_learned == 0)
        nulls[6] = 'n';
    if (state->consolidated == 0)
        nulls[7] = 'n';
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_index_state (index_oid, table_id, index_name, "
                  "trajectories, judged, learning_seconds, last_learned, consolidated) "
                  "VALUES ($1, $2::regclass, $3, $4, $5, $6, $7, $8) "
                  "ON CONFLICT (index_oid) DO UPDATE SET trajectories = excluded.trajectories, "
                  "judged = excluded.judged, learning_seconds = excluded.learning_seconds, "
                  "last_learned = excluded.last_learned, consolidated = excluded.consolidated",
                  8, types, values, nulls);
}
