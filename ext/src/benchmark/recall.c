/*
 * recall.c - ruvector_benchmark_recall(): recall and work of searches against a ground truth that
 * the caller brings.
 *
 * The ground truth is a table with a column `query` of the searched column's type and a column
 * `neighbours bigint[]`, the primary keys of the true neighbours, nearest first. Recall is counted
 * by distance: what is no farther than the last of the first k neighbours counts as found, so equal
 * distances do not matter.
 *
 * Measured are the session as it is, static searches at rising efforts, and, where searches are
 * adaptive, declared targets.
 */
#include "benchmark/benchmark.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "learning/learning_internal.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_benchmark_recall);

/* Distances of the same operator, once as a row's column and once as the limit, differ by rounding
 * alone. */
#define RUV_DISTANCE_TOLERANCE 1e-6

typedef struct Truth {
    int count;
    Datum *queries;
    double *farthest; /* distance of the last true neighbour */
    int *neighbours;  /* how many, <= k */
} Truth;

/* ---- the ground truth ---------------------------------------------------------------------- */

static void
check_column(Oid truth_oid, const char *name, Oid type)
{
    AttrNumber number = get_attnum(truth_oid, name);

    if (number == InvalidAttrNumber || get_atttype(truth_oid, number) != type)
        ereport(
            ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             number == InvalidAttrNumber
                 ? errmsg("ground truth \"%s\" has no column \"%s\"", get_rel_name(truth_oid), name)
                 : errmsg("column \"%s\" of ground truth \"%s\" is of type %s, not %s", name,
                          get_rel_name(truth_oid), format_type_be(get_atttype(truth_oid, number)),
                          format_type_be(type)),
             errhint("A ground truth has the columns query, of the type of the searched column, "
                     "and neighbours bigint[]: primary keys, nearest first.")));
}

/* The distance of the last of the neighbours of one query. */
static void
measure_truth(const RuvBenchmarkTable *table, SPIPlanPtr plan, Truth *truth, int i, Datum ids,
              int stated)
{
    Datum values[2] = {truth->queries[i], ids};
    bool null;
    int64 found;

    CHECK_FOR_INTERRUPTS();
    if (SPI_execute_plan(plan, values, NULL, true, 0) != SPI_OK_SELECT)
        elog(ERROR, "the ground truth could not be looked up");
    truth->farthest[i] =
        DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
    found = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &null));
    SPI_freetuptable(SPI_tuptable);
    truth->neighbours[i] = (int)found;
    if (found != stated)
        ereport(ERROR,
                (errcode(ERRCODE_DATA_EXCEPTION),
                 errmsg("the ground truth does not fit \"%s\"", get_rel_name(table->table_oid)),
                 errdetail("Query %d has %d different neighbours of which the table has %lld.",
                           i + 1, stated, (long long)found),
                 errhint("Rows were deleted since, or you may not see them. Compute it anew.")));
}

static SPIPlanPtr
prepare_lookup(const RuvBenchmarkTable *table)
{
    char *statement = psprintf(
        "SELECT pg_catalog.max((t.%s %s $1)::pg_catalog.float8), pg_catalog.count(*) FROM %s t "
        "WHERE t.%s OPERATOR(pg_catalog.=) ANY ($2)",
        table->column, table->distance, table->table, ruv_benchmark_id_column(table->table_oid));
    Oid types[2] = {table->vector_type, INT8ARRAYOID};
    SPIPlanPtr plan = SPI_prepare(statement, 2, types);

    if (plan == NULL)
        elog(ERROR, "cannot prepare \"%s\": %s", statement, SPI_result_code_string(SPI_result));
    return plan;
}

static void
read_truth(const RuvBenchmarkTable *table, Oid truth_oid, int wanted, int k, Truth *truth)
{
    char *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(truth_oid)),
                                            get_rel_name(truth_oid));
    char *statement = psprintf(
        "SELECT g.query, n.ids, pg_catalog.cardinality(n.ids) FROM %s g, "
        "LATERAL (SELECT ARRAY(SELECT DISTINCT pg_catalog.unnest(g.neighbours[1:%d])) "
        "AS ids) n "
        "WHERE g.query IS NOT NULL AND pg_catalog.cardinality(n.ids) OPERATOR(pg_catalog.>) 0 "
        "LIMIT %d",
        name, k, wanted);
    SPIPlanPtr lookup = prepare_lookup(table);
    SPITupleTable *rows;

    if (SPI_execute(statement, true, 0) != SPI_OK_SELECT)
        elog(ERROR, "the ground truth could not be read");
    rows = SPI_tuptable;
    truth->count = (int)SPI_processed;
    if (truth->count == 0)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("ground truth \"%s\" has no query with neighbours",
                               get_rel_name(truth_oid))));
    truth->queries = palloc(sizeof(Datum) * truth->count);
    truth->farthest = palloc(sizeof(double) * truth->count);
    truth->neighbours = palloc(sizeof(int) * truth->count);
    for (int i = 0; i < truth->count; i++) {
        bool null;
        Datum query = SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &null);
        Datum ids = SPI_getbinval(rows->vals[i], rows->tupdesc, 2, &null);
        int stated = DatumGetInt32(SPI_getbinval(rows->vals[i], rows->tupdesc, 3, &null));

        truth->queries[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(query));
        measure_truth(table, lookup, truth, i, ids, stated);
    }
    SPI_freetuptable(rows);
}

/* ---- one setting --------------------------------------------------------------------------- */

typedef struct Measured {
    double *recalls;
    double least;
    double distances;
    double latency_us;
    bool adaptive; /* of the last search */
} Measured;

static double
recall_of(const Truth *truth, int i)
{
    double limit = truth->farthest[i];
    int reached = 0;

    limit += RUV_DISTANCE_TOLERANCE * Max(fabs(limit), 1e-3);
    for (uint64 row = 0; row < SPI_processed; row++) {
        bool null;
        Datum distance = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1, &null);

        reached += !null && DatumGetFloat8(distance) <= limit;
    }
    return (double)Min(reached, truth->neighbours[i]) / truth->neighbours[i];
}

static void
measure(const RuvBenchmarkTable *table, SPIPlanPtr plan, const Truth *truth, Measured *out)
{
    out->least = 1;
    out->distances = out->latency_us = 0;
    for (int i = 0; i < truth->count; i++) {
        RuvBenchmarkSearch search;

        ruv_benchmark_search(table, plan, truth->queries[i], &search);
        out->recalls[i] = recall_of(truth, i);
        SPI_freetuptable(SPI_tuptable);
        out->least = Min(out->least, out->recalls[i]);
        out->distances += search.distances / truth->count;
        out->latency_us += search.latency_us / truth->count;
        out->adaptive = search.adaptive;
    }
}

#define RECALL_COLUMNS 9

static void
put_setting(Tuplestorestate *rows, TupleDesc descriptor, const char *setting, const Truth *truth,
            const Measured *measured)
{
    rv_interval interval = rv_mean_interval(measured->recalls, (size_t)truth->count, 0.95);
    Datum values[RECALL_COLUMNS];
    bool nulls[RECALL_COLUMNS] = {false};
    double sum = 0;
    int column = 0;

    Assert(descriptor->natts == RECALL_COLUMNS);
    for (int i = 0; i < truth->count; i++)
        sum += measured->recalls[i];
    values[column++] = ObjectIdGetDatum(ruv_last_search()->index_oid);
    values[column++] = CStringGetTextDatum(setting);
    values[column++] = Int32GetDatum(truth->count);
    values[column++] = Float8GetDatum(sum / truth->count);
    values[column++] = Float8GetDatum(interval.low);
    values[column++] = Float8GetDatum(interval.high);
    values[column++] = Float8GetDatum(measured->least);
    values[column++] = Float8GetDatum(measured->distances);
    values[column++] = Float8GetDatum(measured->latency_us);
    Assert(column == RECALL_COLUMNS);
    tuplestore_putvalues(rows, descriptor, values, nulls);
}

typedef struct Sink {
    const RuvBenchmarkTable *table;
    SPIPlanPtr plan;
    const Truth *truth;
    Tuplestorestate *rows;
    TupleDesc descriptor;
    Measured measured;
} Sink;

static void
measure_setting(Sink *sink, bool adaptive, const char *name, const char *value)
{
    int level = NewGUCNestLevel();

    ruv_benchmark_set("ruvector.adaptive_search", adaptive ? "on" : "off");
    ruv_benchmark_set(name, value);
    measure(sink->table, sink->plan, sink->truth, &sink->measured);
    AtEOXact_GUC(false, level);
    put_setting(sink->rows, sink->descriptor, psprintf("%s = %s", name, value), sink->truth,
                &sink->measured);
}

static void
measure_static(Sink *sink, int k)
{
    static const int efforts[] = {40, 80, 160, 320, 640};

    if (sink->table->lists) {
        for (int probes = 1; probes < 2 * sink->table->built_lists && probes <= 1024; probes *= 2)
            measure_setting(sink, false, "ruvector.probes",
                            psprintf("%d", Min(probes, sink->table->built_lists)));
        return;
    }
    for (int i = 0; i < (int)lengthof(efforts); i++)
        if (efforts[i] >= k)
            measure_setting(sink, false, "ruvector.ef_search", psprintf("%d", efforts[i]));
}

static void
measure_targets(Sink *sink)
{
    static const char *const targets[] = {"0.9", "0.95", "0.98", "0.99"};

    for (int i = 0; i < (int)lengthof(targets); i++)
        measure_setting(sink, true, "ruvector.target_recall", targets[i]);
}

Datum
ruv_benchmark_recall(PG_FUNCTION_ARGS)
{
    Oid truth_oid = PG_GETARG_OID(1);
    int wanted = PG_GETARG_INT32(2);
    int k = PG_GETARG_INT32(3);
    Sink sink = {0};
    RuvBenchmarkTable table;
    Truth truth;
    int level;

    sink.rows = ruv_begin_rows(fcinfo, &sink.descriptor);
    ruv_benchmark_check_counts(wanted, k);
    ruv_benchmark_table(PG_GETARG_OID(0), &table);
    ruv_require_reader(truth_oid);
    check_column(truth_oid, "query", table.vector_type);
    check_column(truth_oid, "neighbours", INT8ARRAYOID);
    level = ruv_benchmark_begin();
    read_truth(&table, truth_oid, wanted, k, &truth);
    sink.table = &table;
    sink.truth = &truth;
    sink.plan = ruv_benchmark_prepare(&table, k);
    sink.measured.recalls = palloc(sizeof(double) * truth.count);
    measure(&table, sink.plan, &truth, &sink.measured);
    put_setting(sink.rows, sink.descriptor, "session", &truth, &sink.measured);
    if (sink.measured.adaptive)
        measure_targets(&sink);
    measure_static(&sink, k);
    ruv_benchmark_end(level);
    return (Datum)0;
}
