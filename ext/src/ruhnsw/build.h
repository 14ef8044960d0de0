/*
 * build.h - the state of an index build, between build.c (loading) and build_write.c (writing).
 */
#ifndef RUHNSW_BUILD_H
#define RUHNSW_BUILD_H

#include "ruhnsw/ruhnsw.h"

#include "access/relscan.h"

/* The rows of one node of the graph in memory. */
typedef struct RuhnswNodeRows {
    ItemPointerData tids[RUHNSW_NODE_TIDS];
    uint16 count;      /* of these */
    uint32 more;       /* number of further ones */
    uint32 first_more; /* the newest of them: its number in RuhnswBuild.more, from 1; 0 = none */
} RuhnswNodeRows;

/* A row beyond what a node tuple holds. */
typedef struct RuhnswMoreRow {
    ItemPointerData tid;
    uint32 next; /* likewise */
} RuhnswMoreRow;

typedef struct RuhnswParallel RuhnswParallel;

/* Per node, beside the graph itself: NodeRows, and while writing a reference and an order. */
#define RUHNSW_BUILD_BYTES_PER_NODE (sizeof(RuhnswNodeRows) + sizeof(uint64) + sizeof(uint32) + 1)

typedef struct RuhnswBuild {
    Relation heap;
    Relation index;
    RuhnswMetaData meta;
    rv_prng rng;
    float *vector; /* the present row's, as compared */
    MemoryContext row_context;
    int64 rows;           /* indexed so far */
    int64 rows_in_memory; /* of these, in the graph */

    /* in memory; graph is NULL once it was written */
    MemoryContext graph_context;
    rv_allocator allocator;
    rv_hnsw *graph;
    RuhnswNodeRows *nodes;
    Size node_capacity;
    RuhnswMoreRow *more;
    Size more_count;
    Size more_capacity;
    Size memory_limit;
    RuhnswParallel *parallel; /* nodes, more and the graph are in its shared memory; else NULL */

    RuhnswWriter writer; /* after that: inserts into pages */
} RuhnswBuild;

/* Writes the graph in memory, and where to enter it, to the pages of the empty index. */
extern void ruhnsw_write_graph(RuhnswBuild *build);

/* Workspace of a process that takes part in a build; heap, index and meta are set. */
extern void ruhnsw_build_prepare(RuhnswBuild *build);
/* Adds the rows of a scan (NULL: of the whole table); returns how many rows the table has. */
extern double ruhnsw_build_scan(RuhnswBuild *build, IndexInfo *info, TableScanDesc scan);
/* Inserts build->vector into the pages; the writer is open. */
extern void ruhnsw_build_insert(RuhnswBuild *build, ItemPointer tid);

/* ---- several processes (build_parallel.c) ---- */

/* Builds the graph in parallel; false, and nothing done, when no worker can be had. */
extern bool ruhnsw_parallel_load(RuhnswBuild *build, IndexInfo *info,
                                 const rv_hnsw_options *options, double *heap_tuples);
/* Adds build->vector to the shared graph, or once that is full to the temporary file. */
extern void ruhnsw_parallel_add(RuhnswBuild *build, ItemPointer tid);
extern void ruhnsw_parallel_progress(RuhnswBuild *build);
/* Inserts what is in the temporary file into the pages. */
extern void ruhnsw_parallel_spilled(RuhnswBuild *build);
/* Gives the shared memory back; the graph must not be used any more. */
extern void ruhnsw_parallel_end(RuhnswBuild *build);

#endif
