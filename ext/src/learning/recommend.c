/*
 * recommend.c - ruvector_recommend_params(): the facts for the engine's advice (advice.h).
 *
 * Figures of searches come from the recorded ones, which are others' as well, but only their means;
 * so whoever may see the statistics may ask.
 */
#include "learning/worker.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "ruhnsw/ruhnsw_api.h"
#include "ruivfflat/ruivfflat_api.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_recommend_params);

static double
known_float(int column)
{
    bool null;
    Datum value = ruv_store_value(0, column, &null);

    return null ? -1 : DatumGetFloat8(value);
}

/* What was measured of the searches of an index, and whether its table learns. */
static void
read_searches(RuvStore *store, Oid table_oid, Oid index_oid, rv_index_facts *facts)
{
    Oid types[2] = {OIDOID, OIDOID};
    Datum values[2] = {ObjectIdGetDatum(table_oid), ObjectIdGetDatum(index_oid)};

    ruv_store_run(store,
                  "SELECT EXISTS (SELECT FROM @.ruvector_learning WHERE table_id = "
                  "$1::oid::regclass), count(recall)::float8, avg(recall)::float8, "
                  "avg((needed_distances IS NULL)::int::float8) FILTER (WHERE recall IS NOT NULL) "
                  "FROM @.ruvector_trajectory_log WHERE index_oid = $2",
                  2, types, values, NULL);
    facts->learning = DatumGetBool(ruv_store_value(0, 1, NULL));
    facts->judged = known_float(2);
    facts->mean_recall = known_float(3);
    facts->out_of_reach = known_float(4);
}

static void
read_index(Relation index, rv_index_facts *facts)
{
    RuvIndexIdentity identity;

    ruv_index_identity(index, &identity);
    facts->dim = identity.dim;
    facts->target_recall = ruv_effective_target_recall(&identity.own);
    facts->index_bytes = (double)RelationGetNumberOfBlocks(index) * BLCKSZ;
    facts->storage = ruv_index_storage_name(index);
    if (ruivf_is_index(index)) {
        RuivfInfo info;

        ruivf_get_info(index, &info);
        facts->kind = RV_INDEX_LISTS;
        facts->lists = info.lists;
        facts->probes = ruv_effective_probes(&identity.own);
    } else {
        RuhnswInfo info;

        ruhnsw_get_info(index, &info);
        facts->kind = RV_INDEX_GRAPH;
        facts->m = info.m;
        facts->ef_construction = info.ef_construction;
    }
}

#define RECOMMEND_COLUMNS 6

static void
put_advice(Tuplestorestate *rows, TupleDesc descriptor, Oid index_oid, const rv_index_facts *facts)
{
    rv_advice advice[RV_ADVICE_MAX];
    uint32 count = rv_advise(facts, advice);

    Assert(descriptor->natts == RECOMMEND_COLUMNS);
    for (uint32 i = 0; i < count; i++) {
        Datum values[RECOMMEND_COLUMNS];
        bool nulls[RECOMMEND_COLUMNS] = {false};

        values[0] = ObjectIdGetDatum(index_oid);
        nulls[0] = !OidIsValid(index_oid);
        values[1] = CStringGetTextDatum(advice[i].parameter);
        values[2] = CStringGetTextDatum(advice[i].current);
        nulls[2] = advice[i].current[0] == '\0';
        values[3] = CStringGetTextDatum(advice[i].recommended);
        values[4] = CStringGetTextDatum(advice[i].reason);
        values[5] = CStringGetTextDatum(advice[i].evidence);
        tuplestore_putvalues(rows, descriptor, values, nulls);
    }
}

static rv_index_facts
facts_of_table(Relation table)
{
    rv_index_facts facts = {.m = -1,
                            .ef_construction = -1,
                            .lists = -1,
                            .probes = -1,
                            .index_bytes = -1,
                            .judged = -1,
                            .mean_recall = -1,
                            .out_of_reach = -1};

    facts.rows = table->rd_rel->reltuples;
    if (facts.rows < 0)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("the number of rows of \"%s\" is not known",
                               RelationGetRelationName(table)),
                        errhint("ANALYZE %s;", RelationGetRelationName(table))));
    facts.memory_bytes = (double)NBuffers * BLCKSZ;
    facts.target_recall = ruv_target_recall;
    return facts;
}

/* The dimensions of the first vector column that declares them; -1: none does. */
static double
column_dimensions(Relation table, Oid vector_type)
{
    for (int i = 0; i < RelationGetDescr(table)->natts; i++) {
        Form_pg_attribute column = TupleDescAttr(RelationGetDescr(table), i);

        if (!column->attisdropped && column->atttypid == vector_type && column->atttypmod > 0)
            return column->atttypmod;
    }
    return -1;
}

static void
recommend_new(Relation table, RuvStore *store, Tuplestorestate *rows, TupleDesc descriptor)
{
    rv_index_facts facts = facts_of_table(table);

    facts.dim = column_dimensions(table, store->vector_type);
    if (facts.dim < 0)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("\"%s\" has neither an index of ruvector nor a column of type "
                               "ruvector with its dimensions declared",
                               RelationGetRelationName(table)),
                        errhint("ALTER TABLE ... ALTER COLUMN ... TYPE ruvector(N).")));
    put_advice(rows, descriptor, InvalidOid, &facts);
}

Datum
ruv_recommend_params(PG_FUNCTION_ARGS)
{
    Oid table_oid = PG_GETARG_OID(0);
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    bool found = false;
    Relation table;
    RuvStore store;
    List *indexes;
    ListCell *cell;

    ruv_require_statistics_reader(table_oid);
    table = relation_open(table_oid, AccessShareLock);
    if (table->rd_rel->relkind != RELKIND_RELATION && table->rd_rel->relkind != RELKIND_MATVIEW)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("\"%s\" is neither a table nor a materialized view",
                               RelationGetRelationName(table))));
    indexes = RelationGetIndexList(table);
    ruv_store_open_or_fail(&store);
    foreach (cell, indexes) {
        Relation index = relation_open(lfirst_oid(cell), AccessShareLock);

        if (ruv_is_index(index)) {
            rv_index_facts facts = facts_of_table(table);

            found = true;
            read_index(index, &facts);
            read_searches(&store, table_oid, RelationGetRelid(index), &facts);
            put_advice(rows, descriptor, RelationGetRelid(index), &facts);
        }
        relation_close(index, AccessShareLock);
    }
    if (!found)
        recommend_new(table, &store, rows, descriptor);
    ruv_store_close(&store);
    relation_close(table, AccessShareLock);
    return (Datum)0;
}
