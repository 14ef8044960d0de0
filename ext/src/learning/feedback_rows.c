/*
 * feedback_rows.c - the rows that feedback names, by the table's own ids.
 *
 * They are read by a query that runs as the caller: column privileges and row-level security hold,
 * and a row that the caller cannot see is as good as none. Index expressions and predicates are
 * part of that query, as they are of the caller's searches.
 *
 * An id may name several rows (the chunks of a document): the nearest of them counts, and a
 * returned one before all others.
 */
#include "learning/feedback.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#define RUV_ROWS_AT_ONCE 256

/* ---- the id column ------------------------------------------------------------------------- */

/* The column that was given to ruvector_enable_learning, or NULL. */
static char *
configured_id_column(Oid table_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};
    MemoryContext context = CurrentMemoryContext;
    char *name = NULL;
    RuvStore store;
    bool null;
    Datum value;

    ruv_store_open_or_fail(&store);
    if (ruv_store_run(&store,
                      "SELECT id_column FROM @.ruvector_learning "
                      "WHERE table_id = $1::oid::regclass",
                      1, types, values, NULL) == 0)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("learning is not enabled for \"%s\"", get_rel_name(table_oid))));
    value = ruv_store_value(0, 1, &null);
    if (!null)
        name = MemoryContextStrdup(context, NameStr(*DatumGetName(value)));
    ruv_store_close(&store);
    return name;
}

/* The only column of the primary key; InvalidAttrNumber: there is none, or it has several. */
static AttrNumber
primary_key_column(Relation table)
{
    Oid key = RelationGetPrimaryKeyIndex(table);
    AttrNumber column = InvalidAttrNumber;
    HeapTuple tuple;
    Form_pg_index index;

    if (!OidIsValid(key))
        return InvalidAttrNumber;
    tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(key));
    if (!HeapTupleIsValid(tuple))
        return InvalidAttrNumber;
    index = (Form_pg_index)GETSTRUCT(tuple);
    if (index->indnkeyatts == 1)
        column = index->indkey.values[0];
    ReleaseSysCache(tuple);
    return column;
}

/* The quoted name of the column whose values feedback names rows by. */
static const char *
id_column(Relation table)
{
    Oid table_oid = RelationGetRelid(table);
    const char *name = configured_id_column(table_oid);
    AttrNumber column = name == NULL ? primary_key_column(table) : get_attnum(table_oid, name);
    Oid type;

    if (column == InvalidAttrNumber)
        ereport(
            ERROR,
            (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
             name != NULL ? errmsg("column \"%s\" of \"%s\", which was to name rows, is gone", name,
                                   RelationGetRelationName(table))
                          : errmsg("\"%s\" has no primary key of one column to name rows by",
                                   RelationGetRelationName(table)),
             errhint("SELECT ruvector_enable_learning('%s', id_column => '...') with an integer "
                     "column.",
                     RelationGetRelationName(table))));
    type = get_atttype(table_oid, column);
    if (type != INT2OID && type != INT4OID && type != INT8OID)
        ereport(
            ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             errmsg("rows of \"%s\" are named by column \"%s\" of type %s; feedback needs an "
                    "integer column",
                    RelationGetRelationName(table), get_attname(table_oid, column, false),
                    format_type_be(type)),
             errhint("SELECT ruvector_enable_learning('%s', id_column => '...') with an integer "
                     "column.",
                     RelationGetRelationName(table))));
    return quote_identifier(get_attname(table_oid, column, false));
}

/* ---- the query ----------------------------------------------------------------------------- */

static char *
index_column(Relation index)
{
    Datum column =
        DirectFunctionCall3(pg_get_indexdef_ext, ObjectIdGetDatum(RelationGetRelid(index)),
                            Int32GetDatum(1), BoolGetDatum(false));

    return TextDatumGetCString(column);
}

/* The predicate of a partial index as text; "true" when the index holds every row. */
static char *
index_predicate(Relation index)
{
    HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(RelationGetRelid(index)));
    bool null;
    Datum value;
    char *predicate = "true";

    if (!HeapTupleIsValid(tuple))
        elog(ERROR, "cache lookup failed for index %u", RelationGetRelid(index));
    value = SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indpred, &null);
    if (!null) {
        Datum expression =
            DirectFunctionCall2(pg_get_expr, value, ObjectIdGetDatum(index->rd_index->indrelid));

        predicate = TextDatumGetCString(expression);
    }
    ReleaseSysCache(tuple);
    return predicate;
}

static char *
rows_query(Relation table, Relation index)
{
    const char *id = id_column(table);

    return psprintf("SELECT (%s)::pg_catalog.int8, ctid, %s FROM ONLY %s "
                    "WHERE %s OPERATOR(pg_catalog.=) ANY ($1) AND (%s) IS TRUE",
                    id, index_column(index),
                    quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table)),
                                               RelationGetRelationName(table)),
                    id, index_predicate(index));
}

static Datum
id_array(const RuvJudgedRow *rows, int count)
{
    Datum *items = palloc(sizeof(Datum) * Max(count, 1));

    for (int i = 0; i < count; i++)
        items[i] = Int64GetDatum(rows[i].id);
    return PointerGetDatum(
        construct_array(items, count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* ---- what was found ------------------------------------------------------------------------ */

typedef struct RowLookup {
    const RuvJudgedSearch *search;
    RuvIndexIdentity identity;
    RuvJudgedRow *rows;
    int count;
    MemoryContext keep; /* for vectors; NULL: they are not wanted */
} RowLookup;

static RuvJudgedRow *
row_of_id(const RowLookup *lookup, int64 id)
{
    int low = 0;
    int high = lookup->count - 1;

    while (low <= high) {
        int middle = low + (high - low) / 2;

        if (lookup->rows[middle].id == id)
            return &lookup->rows[middle];
        if (lookup->rows[middle].id < id)
            low = middle + 1;
        else
            high = middle - 1;
    }
    return NULL;
}

static void
take_row(const RowLookup *lookup, RuvJudgedRow *row, ItemPointer tid, const float *vector)
{
    const RuvJudgedSearch *search = lookup->search;
    size_t bytes = sizeof(float) * lookup->identity.dim;
    uint64 position =
        ((uint64)ItemPointerGetBlockNumber(tid) << 16) | ItemPointerGetOffsetNumber(tid);
    double distance = 0;
    rv_row_place place = RV_ROW_RETURNED;

    if (search->query != NULL) {
        distance = rv_raw_distance(lookup->identity.metric, search->query, vector,
                                   (uint32)lookup->identity.dim);
        place = rv_feedback_place(search->hits, search->hit_count, position, distance);
    }
    if (row->found && (row->place < place || (row->place == place && row->distance <= distance)))
        return;
    row->found = true;
    row->place = place;
    row->distance = distance;
    if (lookup->keep != NULL)
        row->vector = memcpy(MemoryContextAlloc(lookup->keep, bytes), vector, bytes);
}

static void
take_tuple(const RowLookup *lookup, HeapTuple tuple, TupleDesc descriptor)
{
    bool null;
    Datum id = SPI_getbinval(tuple, descriptor, 1, &null);
    RuvJudgedRow *row = null ? NULL : row_of_id(lookup, DatumGetInt64(id));
    ItemPointer tid = (ItemPointer)DatumGetPointer(SPI_getbinval(tuple, descriptor, 2, &null));
    Datum value = SPI_getbinval(tuple, descriptor, 3, &null);
    const float *vector = null ? NULL : ruv_index_prepare(&lookup->identity, value);

    if (row != NULL && vector != NULL)
        take_row(lookup, row, tid, vector);
}

static void
read_rows(const RowLookup *lookup, const char *query)
{
    Oid types[1] = {INT8ARRAYOID};
    Datum values[1] = {id_array(lookup->rows, lookup->count)};
    MemoryContext batch =
        AllocSetContextCreate(CurrentMemoryContext, "ruvector judged rows", ALLOCSET_DEFAULT_SIZES);
    Portal portal =
        SPI_cursor_open_with_args(NULL, query, 1, types, values, NULL, false, CURSOR_OPT_NO_SCROLL);

    do {
        MemoryContext former;

        SPI_cursor_fetch(portal, true, RUV_ROWS_AT_ONCE);
        former = MemoryContextSwitchTo(batch);
        for (uint64 i = 0; i < SPI_processed; i++)
            take_tuple(lookup, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
        MemoryContextSwitchTo(former);
        MemoryContextReset(batch);
        SPI_freetuptable(SPI_tuptable);
    } while (SPI_processed > 0);
    SPI_cursor_close(portal);
    MemoryContextDelete(batch);
}

static void
check_dimensions(const RowLookup *lookup)
{
    if (lookup->search->query != NULL && lookup->search->dim != lookup->identity.dim)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("search %s was for %d dimensions; the index has %d by now",
                               ruv_query_id_text(lookup->search->query_id), lookup->search->dim,
                               lookup->identity.dim)));
}

void
ruv_look_up_rows(const RuvJudgedSearch *search, RuvJudgedRow *rows, int count, bool keep_vectors)
{
    RowLookup lookup = {.search = search, .rows = rows, .count = count};
    Relation table;
    Relation index;
    char *query;

    if (count == 0)
        return;
    if (keep_vectors)
        lookup.keep = CurrentMemoryContext;
    table = relation_open(search->table_oid, AccessShareLock);
    index = index_open(search->index_oid, AccessShareLock);
    ruv_index_identity(index, &lookup.identity);
    check_dimensions(&lookup);
    query = rows_query(table, index);
    if (SPI_connect() != SPI_OK_CONNECT)
        elog(ERROR, "SPI_connect failed");
    read_rows(&lookup, query);
    SPI_finish();
    index_close(index, AccessShareLock);
    relation_close(table, AccessShareLock);
}
