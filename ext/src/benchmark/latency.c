/*
 * latency.c - ruvector_benchmark_latency(): quantiles of the time and the work of searches.
 *
 * Queries are the recorded ones of the table, which its owner may see; others, and owners of a
 * table without recorded searches, measure with rows of the table.
 */
#include "benchmark/benchmark.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "learning/learning_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_benchmark_latency);

#define RUV_LEAST_RECORDED 30
#define RUV_MOST_PERCENTILES 100

/* The shares asked for, checked. */
static double *
percentiles_argument(ArrayType *array, int *count)
{
    Datum *items;
    bool *nulls;
    double *shares;

    deconstruct_array(array, FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &items, &nulls, count);
    if (*count < 1 || *count > RUV_MOST_PERCENTILES)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("percentiles has %d elements; it must have 1 to %d", *count,
                               RUV_MOST_PERCENTILES)));
    shares = palloc(sizeof(double) * *count);
    for (int i = 0; i < *count; i++) {
        if (nulls[i])
            ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                            errmsg("element %d of percentiles is null", i + 1)));
        shares[i] = DatumGetFloat8(items[i]);
        if (!(shares[i] >= 0 && shares[i] <= 1))
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("percentile %g is not between 0 and 1", shares[i]),
                            errhint("Ask for 0.95, not for 95.")));
    }
    return shares;
}

static int
run_queries(const char *statement, Oid table_oid, int wanted)
{
    Oid types[2] = {OIDOID, INT4OID};
    Datum values[2] = {ObjectIdGetDatum(table_oid), Int32GetDatum(wanted)};

    if (SPI_execute_with_args(statement, 2, types, values, NULL, true, 0) != SPI_OK_SELECT)
        elog(ERROR, "the queries of a benchmark could not be read");
    return (int)SPI_processed;
}

/* The schema of the extension: that of the function which was called. */
static const char *
extension_schema(FunctionCallInfo fcinfo)
{
    return quote_identifier(get_namespace_name(get_func_namespace(fcinfo->flinfo->fn_oid)));
}

/* The queries, as values of the column's type in the current SPI memory; how many. */
static int
read_queries(FunctionCallInfo fcinfo, const RuvBenchmarkTable *table, int wanted, Datum **queries,
             bool *recorded)
{
    char *type = format_type_be_qualified(table->vector_type);
    char *statement =
        psprintf("SELECT query::%s FROM %s.ruvector_trajectories "
                 "WHERE table_id::pg_catalog.oid OPERATOR(pg_catalog.=) $1 AND query IS NOT NULL "
                 "ORDER BY searched_at DESC LIMIT $2",
                 type, extension_schema(fcinfo));
    int count = run_queries(statement, table->table_oid, wanted);

    *recorded = count >= RUV_LEAST_RECORDED;
    if (!*recorded) {
        /* The same rows each time, and no clump of neighbours. */
        statement =
            psprintf("SELECT t.%s FROM %s t WHERE $1 IS NOT NULL AND t.%s IS NOT NULL "
                     "ORDER BY pg_catalog.hashtext(t.ctid::pg_catalog.text), t.ctid LIMIT $2",
                     table->column, table->table, table->column);
        count = run_queries(statement, table->table_oid, wanted);
    }
    *queries = palloc(sizeof(Datum) * Max(count, 1));
    for (int i = 0; i < count; i++) {
        bool null;
        Datum value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null);

        (*queries)[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
    }
    SPI_freetuptable(SPI_tuptable);
    return count;
}

static double
quantile(double *values, int count, double share)
{
    rv_error err = {0};
    double out;

    ruv_check(rv_quantile(values, NULL, (size_t)count, share, &out, &err), &err,
              "summing up a benchmark");
    return out;
}

#define LATENCY_COLUMNS 5

static void
put_quantiles(Tuplestorestate *rows, TupleDesc descriptor, const double *shares, int share_count,
              double *latencies, double *distances, int count, bool recorded)
{
    Assert(descriptor->natts == LATENCY_COLUMNS);
    for (int i = 0; i < share_count; i++) {
        Datum values[LATENCY_COLUMNS];
        bool nulls[LATENCY_COLUMNS] = {false};

        values[0] = Float8GetDatum(shares[i]);
        values[1] = Float8GetDatum(quantile(latencies, count, shares[i]));
        values[2] = Float8GetDatum(quantile(distances, count, shares[i]));
        values[3] = Int32GetDatum(count);
        values[4] = CStringGetTextDatum(recorded ? "recorded searches" : "rows");
        tuplestore_putvalues(rows, descriptor, values, nulls);
    }
}

Datum
ruv_benchmark_latency(PG_FUNCTION_ARGS)
{
    int wanted = PG_GETARG_INT32(1);
    int k = PG_GETARG_INT32(2);
    int share_count;
    double *shares = percentiles_argument(PG_GETARG_ARRAYTYPE_P(3), &share_count);
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    RuvBenchmarkTable table;
    double *latencies;
    double *distances;
    Datum *queries;
    SPIPlanPtr plan;
    bool recorded;
    int level;
    int count;

    ruv_benchmark_check_counts(wanted, k);
    ruv_benchmark_table(PG_GETARG_OID(0), &table);
    level = ruv_benchmark_begin();
    count = read_queries(fcinfo, &table, wanted, &queries, &recorded);
    if (count == 0)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("\"%s\" has no rows to search for", get_rel_name(table.table_oid))));
    latencies = palloc(sizeof(double) * count);
    distances = palloc(sizeof(double) * count);
    plan = ruv_benchmark_prepare(&table, k);
    for (int i = 0; i < count; i++) {
        RuvBenchmarkSearch search;

        ruv_benchmark_search(&table, plan, queries[i], &search);
        SPI_freetuptable(SPI_tuptable);
        latencies[i] = search.latency_us;
        distances[i] = search.distances;
    }
    put_quantiles(rows, descriptor, shares, share_count, latencies, distances, count, recorded);
    ruv_benchmark_end(level);
    return (Datum)0;
}
