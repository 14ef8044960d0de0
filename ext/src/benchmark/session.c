/*
 * session.c - searches of a benchmark.
 *
 * Plans are generic, so that a statement is planned once and its time is that of the search. What
 * the executor reports of the last search (ruv_last_search) tells the work, and that it was an
 * index of ruvector which answered.
 */
#include "benchmark/benchmark.h"

#include "learning/learning_internal.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

void
ruv_benchmark_set(const char *name, const char *value)
{
    (void)set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
                            false);
}

int
ruv_benchmark_begin(void)
{
    int level = NewGUCNestLevel();

    if (SPI_connect() != SPI_OK_CONNECT)
        elog(ERROR, "SPI_connect failed");
    ruv_benchmark_set("enable_seqscan", "off");
    ruv_benchmark_set("plan_cache_mode", "force_generic_plan");
    /* Searches of a benchmark are nobody's interest: nothing is to be learned from them. */
    ruv_benchmark_set("ruvector.trajectory_sample_rate", "0");
    return level;
}

void
ruv_benchmark_end(int level)
{
    SPI_finish();
    AtEOXact_GUC(false, level);
}

SPIPlanPtr
ruv_benchmark_prepare(const RuvBenchmarkTable *table, int k)
{
    char *statement =
        psprintf("SELECT t.%s %s $1 FROM %s t ORDER BY t.%s %s $1 LIMIT %d", table->column,
                 table->distance, table->table, table->column, table->distance, k);
    Oid types[1] = {table->vector_type};
    SPIPlanPtr plan = SPI_prepare(statement, 1, types);

    if (plan == NULL)
        elog(ERROR, "cannot prepare \"%s\": %s", statement, SPI_result_code_string(SPI_result));
    return plan;
}

void
ruv_benchmark_search(const RuvBenchmarkTable *table, SPIPlanPtr plan, Datum query,
                     RuvBenchmarkSearch *out)
{
    const RuvLastSearch *before = ruv_last_search();
    uint64 former = before == NULL ? 0 : before->query_id[1];
    const RuvLastSearch *last;
    instr_time started;
    instr_time ended;

    CHECK_FOR_INTERRUPTS();
    INSTR_TIME_SET_CURRENT(started);
    if (SPI_execute_plan(plan, &query, NULL, true, 0) != SPI_OK_SELECT)
        elog(ERROR, "a search of a benchmark failed");
    INSTR_TIME_SET_CURRENT(ended);
    INSTR_TIME_SUBTRACT(ended, started);
    last = ruv_last_search();
    if (last == NULL || (before != NULL && last->query_id[1] == former))
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("searches of \"%s\" do not use an index of ruvector",
                               get_rel_name(table->table_oid)),
                        errhint("EXPLAIN SELECT ... ORDER BY ... LIMIT shows what they use. A "
                                "table that is too small, or a partial index, are common "
                                "reasons.")));
    out->latency_us = INSTR_TIME_GET_DOUBLE(ended) * 1e6;
    out->distances = (double)last->stats.distances;
    out->adaptive = last->choice.mode == RV_SEARCH_ADAPTIVE;
}
