/*
 * hnsw.h - Hierarchical Navigable Small World graphs in memory (Malkov and Yashunin, 2018): what an
 * index build constructs before it is written to pages, and what the bank searches.
 *
 * Deterministic: equal vectors, order, options and seed give an equal graph. Only a shared graph
 * may have several writers; several readers may search one finished graph, each with its own beam.
 */
#ifndef RUVECTOR_HNSW_H
#define RUVECTOR_HNSW_H

#include "ruvector/base.h"
#include "ruvector/beam.h"
#include "ruvector/distance.h"

#define RV_HNSW_MAX_LEVEL 24
#define RV_HNSW_MAX_M 100

typedef struct rv_hnsw_options {
    rv_metric metric;
    uint32_t dim;
    uint32_t m;               /* links per node above layer 0, 2 to 100; 2m on layer 0 */
    uint32_t ef_construction; /* 4 to 1000, at least 2m is advised */
    uint64_t seed;
    bool unit;           /* the vectors have unit length (COSINE only) */
    size_t memory_limit; /* bytes; 0 = none. insert gives RV_ERR_FULL when it would pass it,
                            and the graph stays as it was */
} rv_hnsw_options;

typedef struct rv_hnsw rv_hnsw;

rv_status rv_hnsw_create(const rv_allocator *allocator, const rv_hnsw_options *options,
                         rv_hnsw **out, rv_error *err);
void rv_hnsw_destroy(rv_hnsw *graph); /* NULL is allowed */

/*
 * A graph that several processes or threads build together, in memory of the caller's that all of
 * them see, at whatever address. The first lays it out with create_shared (memory_limit does not
 * matter; RV_ERR_FULL when not even one node fits), the others attach to it when that has returned;
 * stream, different for each, 1 and up, sets their level draws apart. Each has its own handle, used
 * by one thread, and may insert at any time; all else needs that nobody inserts. An insert that
 * finds the memory full gives RV_ERR_FULL and leaves the graph as it was. Equal vectors that are
 * inserted at the same time may become two nodes. rv_hnsw_destroy frees a handle, never the memory.
 * memory: aligned to 64 bytes, and of rv_hnsw_shared_size(options, n) bytes for n nodes.
 */
size_t rv_hnsw_shared_size(const rv_hnsw_options *options, uint64_t nodes);
rv_status rv_hnsw_create_shared(const rv_allocator *allocator, const rv_hnsw_options *options,
                                void *memory, size_t bytes, rv_hnsw **out, rv_error *err);
rv_status rv_hnsw_attach(const rv_allocator *allocator, void *memory, uint64_t stream,
                         rv_hnsw **out, rv_error *err);

/* Copies the vector and links it in. *node gets its number: 0, 1, 2, ... in order of insertion. */
rv_status rv_hnsw_insert(rv_hnsw *graph, const float *vector, rv_node *node, rv_error *err);

/* As insert, but when a node with a bitwise equal vector is found among its nearest, nothing is
 * inserted, *node is that one and *duplicate true. */
rv_status rv_hnsw_insert_or_find(rv_hnsw *graph, const float *vector, rv_node *node,
                                 bool *duplicate, rv_error *err);

/*
 * Makes every node reachable from the entry point over layer 0; a graph of pruned lists may have a
 * few that are not. For after the last insert: later ones may undo it. *connected gets the number
 * of nodes that had to be linked in. On failure the graph is sound, with some of the work done.
 */
rv_status rv_hnsw_connect(rv_hnsw *graph, uint64_t *connected, rv_error *err);

uint64_t rv_hnsw_count(const rv_hnsw *graph);
size_t rv_hnsw_memory(const rv_hnsw *graph);             /* bytes allocated */
int rv_hnsw_entry(const rv_hnsw *graph, rv_node *entry); /* its level; -1 when empty */
int rv_hnsw_level(const rv_hnsw *graph, rv_node node);
const float *rv_hnsw_vector(const rv_hnsw *graph, rv_node node);
/* The links of node at level, nearest first; *count of them; valid until the next insert. */
const uint32_t *rv_hnsw_links(const rv_hnsw *graph, rv_node node, int level, uint32_t *count);

/* A cursor for searching: set_query, then use graph with a beam. The query must stay valid. */
typedef struct rv_hnsw_cursor rv_hnsw_cursor;
rv_status rv_hnsw_cursor_create(const rv_allocator *allocator, const rv_hnsw *graph,
                                rv_hnsw_cursor **out, rv_error *err);
void rv_hnsw_cursor_destroy(rv_hnsw_cursor *cursor);
const rv_graph *rv_hnsw_cursor_graph(rv_hnsw_cursor *cursor);
void rv_hnsw_cursor_set_query(rv_hnsw_cursor *cursor, const float *query);

/* The classical search in one call: up to k nearest with static ef, nearest first. *count found;
 * stats may be NULL. */
rv_status rv_hnsw_search(const rv_hnsw *graph, const rv_allocator *allocator, const float *query,
                         uint32_t k, uint32_t ef, rv_beam_result *out, uint32_t *count,
                         rv_beam_stats *stats, rv_error *err);

/* Draws a level: floor(-ln(u) / ln(m)), at most RV_HNSW_MAX_LEVEL. */
int rv_hnsw_draw_level(rv_prng *rng, uint32_t m);

/* A candidate for neighbour selection; the vector pointer must stay valid during the call. */
typedef struct rv_candidate {
    rv_node node;
    float distance; /* raw, to the node that selects */
    uint32_t tag;   /* carried along for the caller */
    const float *vector;
} rv_candidate;

/*
 * The selection heuristic (algorithm 4 of the paper, with pruned candidates kept to fill up):
 * keeps a candidate when it is nearer to the selecting node than to every one kept before. Sorts
 * candidates by distance (ties by node), moves the kept ones to the front; returns how many (at
 * most limit). *filled, if not NULL, gets how many of these came from the pruned ones.
 * Used by the in-memory build and by on-disk inserts alike.
 */
uint32_t rv_hnsw_select(rv_metric metric, bool unit, uint32_t dim, rv_candidate *candidates,
                        uint32_t count, uint32_t limit, uint32_t *filled);

#endif
