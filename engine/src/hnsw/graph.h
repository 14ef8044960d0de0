/*
 * graph.h - the in-memory graph's storage, shared by storage.c, build.c and search.c.
 *
 * Nodes live in chunks of a fixed number of nodes (about a megabyte), which never move, so that
 * growth copies nothing and the allocator sees a few large requests; only the first chunk starts
 * small and grows by copying, for the sake of small graphs. A chunk is one allocation:
 *     vectors   stride floats each, rows on 64-byte lines
 *     links     of layer 0: a count and 2m node numbers; what a search reads
 *     weights   of layer 0: 2m distances and 2m marks; what only construction reads
 *     upper     pointers to the links of the upper layers, level of each node
 * The upper layers' links of a node are one block out of an arena; one node in m has any.
 *
 * A list of links is sorted by distance, then node. The mark of a link says whether the selection
 * heuristic kept it for its own sake (1) or only to fill up the list (0); with it, adding a link to
 * a full list costs a few distances instead of a new selection (build.c).
 */
#ifndef RUVECTOR_HNSW_GRAPH_H
#define RUVECTOR_HNSW_GRAPH_H

#include "ruvector/hnsw.h"

#define RV_CHUNK_BYTES ((size_t)1 << 20)
#define RV_FIRST_CHUNK_NODES 16
#define RV_LINE 64

/* A list of links, wherever it is stored. */
typedef struct rv_link_list {
    uint32_t *count;
    uint32_t *nodes;
    float *distances;
    uint8_t *kept;
    uint32_t capacity;
} rv_link_list;

typedef struct rv_chunk {
    void *memory;
    float *vectors;
    uint32_t *links;
    float *distances;
    uint8_t *kept;
    uint8_t *levels;
    uint8_t **upper;
    size_t bytes;
} rv_chunk;

typedef struct rv_arena_block {
    struct rv_arena_block *next;
    size_t used;
    size_t size;
} rv_arena_block;

struct rv_hnsw {
    const rv_allocator *allocator;
    rv_hnsw_options options;
    rv_prng rng;

    uint64_t count;
    uint64_t capacity; /* nodes there is room for */
    uint32_t stride;   /* floats from one vector to the next */
    uint32_t chunk_bits;
    rv_chunk *chunks;
    size_t chunk_count;
    size_t chunk_room; /* of the array chunks */
    rv_arena_block *arena;
    size_t upper_bytes; /* of the links of one upper layer of one node */
    size_t memory;

    rv_node entry;
    int entry_level; /* -1: empty */

    /* What inserting works with. */
    rv_hnsw_cursor *cursor;
    rv_beam *beam;
    rv_neighbour *found;      /* ef_construction of them */
    rv_neighbour *entries;    /* the same: where the next level starts */
    rv_candidate *candidates; /* ef_construction of them */
};

static inline const rv_chunk *
rv_hnsw_chunk(const rv_hnsw *graph, rv_node node)
{
    return &graph->chunks[node >> graph->chunk_bits];
}

static inline size_t
rv_hnsw_slot(const rv_hnsw *graph, rv_node node)
{
    return (size_t)(node & ((UINT64_C(1) << graph->chunk_bits) - 1));
}

static inline float *
rv_hnsw_vector_of(const rv_hnsw *graph, rv_node node)
{
    return rv_hnsw_chunk(graph, node)->vectors + rv_hnsw_slot(graph, node) * graph->stride;
}

/* The count of a node's links on layer 0, and the links behind it. */
static inline uint32_t *
rv_hnsw_base_links(const rv_hnsw *graph, rv_node node)
{
    return rv_hnsw_chunk(graph, node)->links +
           rv_hnsw_slot(graph, node) * (1 + 2 * (size_t)graph->options.m);
}

/* The same on an upper level, which the node must have. */
static inline uint32_t *
rv_hnsw_upper_links(const rv_hnsw *graph, rv_node node, int level)
{
    uint8_t *block = rv_hnsw_chunk(graph, node)->upper[rv_hnsw_slot(graph, node)];

    return (uint32_t *)(void *)(block + (size_t)(level - 1) * graph->upper_bytes);
}

static inline int
rv_hnsw_level_of(const rv_hnsw *graph, rv_node node)
{
    return rv_hnsw_chunk(graph, node)->levels[rv_hnsw_slot(graph, node)];
}

rv_link_list rv_hnsw_list(const rv_hnsw *graph, rv_node node, int level);

void rv_hnsw_storage_init(rv_hnsw *graph);
void rv_hnsw_storage_release(rv_hnsw *graph);

/*
 * Makes room for the node number graph->count at a level and gives it empty lists; it becomes part
 * of the graph when the count is raised. RV_ERR_FULL: past memory_limit or UINT32_MAX nodes.
 */
rv_status rv_hnsw_reserve(rv_hnsw *graph, int level, rv_error *err);

/* Gives up the node that was reserved last. */
void rv_hnsw_unreserve(rv_hnsw *graph);

/*
 * Adds node at a distance to the list of links of owner at a level. A full list loses the farthest
 * of those that only fill it up, or else its farthest, which may be the new one.
 */
void rv_hnsw_add_link(rv_hnsw *graph, rv_node owner, int level, rv_node node, float distance);

/* Take a link out of a list of count, or put one in before `at`, unmarked. The count stays. */
void rv_hnsw_remove_link(rv_link_list *list, uint32_t at, uint32_t count);
void rv_hnsw_insert_link(rv_link_list *list, uint32_t at, uint32_t count, uint32_t node,
                         float distance);

/* Raw distance between two nodes. */
float rv_hnsw_between(const rv_hnsw *graph, rv_node a, rv_node b);

#endif
