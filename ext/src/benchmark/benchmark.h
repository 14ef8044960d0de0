/*
 * benchmark.h - what ruvector_benchmark_recall() and ruvector_benchmark_latency() share: searches
 * of a table as its users run them.
 *
 *   table.c     which column, operator and rows; the statements
 *   session.c   settings for the time of a benchmark, and one timed search
 *   recall.c, latency.c
 *               the two functions
 *
 * Everything goes through SPI as the caller, with the caller's rights: what they may not read they
 * cannot measure, and row-level security applies.
 */
#ifndef RUVECTOR_BENCHMARK_H
#define RUVECTOR_BENCHMARK_H

#include "ruvector.h"
#include "utils/array.h"
#include "executor/spi.h"

#define RUV_BENCHMARK_MOST_QUERIES 100000
#define RUV_BENCHMARK_MOST_K 10000

/* A table with an index of ruvector. */
typedef struct RuvBenchmarkTable {
    Oid table_oid;
    Oid index_oid;
    bool lists;           /* ruivfflat */
    int built_lists;      /* of it */
    Oid vector_type;      /* of the column */
    const char *table;    /* quoted, with its schema */
    const char *column;   /* quoted */
    const char *distance; /* OPERATOR(schema.name) */
} RuvBenchmarkTable;

/* The first index of ruvector on a plain column; errors when there is none or the caller may not
 * read the table. */
extern void ruv_benchmark_table(Oid table_oid, RuvBenchmarkTable *out);
/* The quoted name of the integer column that is the primary key; an error when there is none. */
extern const char *ruv_benchmark_id_column(Oid table_oid);
extern void ruv_benchmark_check_counts(int queries, int k);

/* ---- session.c ---- */

/* Settings until ruv_benchmark_end: the index is used, and nothing is recorded. */
extern int ruv_benchmark_begin(void);
extern void ruv_benchmark_end(int level);
/* Settings on top of these, until AtEOXact_GUC(false, level). */
extern void ruv_benchmark_set(const char *name, const char *value);

/* SELECT column <op> $1 FROM table ORDER BY column <op> $1 LIMIT k: the distances of what is found.
 */
extern SPIPlanPtr ruv_benchmark_prepare(const RuvBenchmarkTable *table, int k);

typedef struct RuvBenchmarkSearch {
    double latency_us; /* of the statement, in the server */
    double distances;
    bool adaptive;
} RuvBenchmarkSearch;

/* Runs it; the rows are in SPI_tuptable. An error when no index of ruvector was searched. */
extern void ruv_benchmark_search(const RuvBenchmarkTable *table, SPIPlanPtr plan, Datum query,
                                 RuvBenchmarkSearch *out);

#endif
