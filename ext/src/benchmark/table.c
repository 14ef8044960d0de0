/*
 * table.c - the table that is measured.
 */
#include "benchmark/benchmark.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "index_api.h"
#include "learning/learning_internal.h"
#include "ruivfflat/ruivfflat_api.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

static const char *
quoted_operator(Relation index)
{
    Oid type = index->rd_opcintype[0];
    Oid operator= get_opfamily_member(index->rd_opfamily[0], type, type, 1);
    Oid schema;
    HeapTuple tuple;

    if (!OidIsValid(operator))
        elog(ERROR, "index \"%s\" has no distance operator", RelationGetRelationName(index));
    tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
    if (!HeapTupleIsValid(tuple))
        elog(ERROR, "cache lookup failed for operator %u", operator);
    schema = ((Form_pg_operator)GETSTRUCT(tuple))->oprnamespace;
    ReleaseSysCache(tuple);
    return psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(schema)),
                    get_opname(operator));
}

/* Fills out if the index can be measured. */
static bool
take_index(Relation index, RuvBenchmarkTable *out)
{
    AttrNumber column = index->rd_index->indkey.values[0];

    if (!ruv_is_index(index) || !index->rd_index->indisvalid || column == InvalidAttrNumber)
        return false;
    out->index_oid = RelationGetRelid(index);
    out->lists = ruivf_is_index(index);
    out->built_lists = ruv_index_most_effort(index);
    out->vector_type = get_atttype(out->table_oid, column);
    out->column = quote_identifier(get_attname(out->table_oid, column, false));
    out->distance = quoted_operator(index);
    return true;
}

void
ruv_benchmark_table(Oid table_oid, RuvBenchmarkTable *out)
{
    Relation table;
    List *indexes;
    ListCell *cell;
    bool found = false;

    ruv_require_reader(table_oid);
    table = relation_open(table_oid, AccessShareLock);
    memset(out, 0, sizeof(*out));
    out->table_oid = table_oid;
    out->table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table)),
                                            RelationGetRelationName(table));
    indexes = RelationGetIndexList(table);
    foreach (cell, indexes) {
        Relation index = relation_open(lfirst_oid(cell), AccessShareLock);

        found = found || take_index(index, out);
        relation_close(index, AccessShareLock);
    }
    if (!found)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("\"%s\" has no index of ruvector on a column",
                               RelationGetRelationName(table)),
                        errhint("Create one with USING ruhnsw or USING ruivfflat.")));
    relation_close(table, AccessShareLock);
}

const char *
ruv_benchmark_id_column(Oid table_oid)
{
    Relation table = relation_open(table_oid, AccessShareLock);
    Oid key = RelationGetPrimaryKeyIndex(table);
    AttrNumber column = InvalidAttrNumber;
    Oid type = InvalidOid;

    if (OidIsValid(key)) {
        Relation index = relation_open(key, AccessShareLock);

        if (index->rd_index->indnkeyatts == 1)
            column = index->rd_index->indkey.values[0];
        relation_close(index, AccessShareLock);
    }
    if (column != InvalidAttrNumber)
        type = get_atttype(table_oid, column);
    if (type != INT2OID && type != INT4OID && type != INT8OID)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("\"%s\" has no primary key of one integer column",
                               RelationGetRelationName(table)),
                        errdetail("The ground truth names rows by it.")));
    relation_close(table, AccessShareLock);
    return quote_identifier(get_attname(table_oid, column, false));
}

static void
check_count(const char *name, int value, int most)
{
    if (value < 1 || value > most)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("%s is %d; it must be between 1 and %d", name, value, most)));
}

void
ruv_benchmark_check_counts(int queries, int k)
{
    check_count("num_queries", queries, RUV_BENCHMARK_MOST_QUERIES);
    check_count("k", k, RUV_BENCHMARK_MOST_K);
}
