/*
 * build.h - the state of an index build, between build.c (loading) and build_write.c (writing).
 */
#ifndef RUHNSW_BUILD_H
#define RUHNSW_BUILD_H

#include "ruhnsw/ruhnsw.h"

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

typedef struct RuhnswBuild {
    Relation heap;
    Relation index;
    RuhnswMetaData meta;
    rv_prng rng;
    float *vector; /* the present row's, as compared */
    MemoryContext row_context;
    int64 rows; /* indexed so far */

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

    RuhnswWriter writer; /* after that: inserts into pages */
} RuhnswBuild;

/* Writes the graph in memory, and where to enter it, to the pages of the empty index. */
extern void ruhnsw_write_graph(RuhnswBuild *build);

#endif
