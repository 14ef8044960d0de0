/*
 * graph.h - the in-memory graph's storage, shared by storage.c, build.c and search.c.
 *
 * Nodes live in chunks of a fixed number of nodes (about a megabyte), which never move, so that
 * growth copies nothing and the allocator sees a few large requests; only the first chunk starts
 * small and grows by copying, for the sake of small graphs. A chunk is one allocation:
 *     vectors   stride floats each, rows on 64-byte lines
 *     links     of layer 0: a count and 2m node numbers; what a search reads
 *     weights   of layer 0: 2m distances and 2m marks; what only construction reads
 *     upper     where the links of the upper layers are, level and lock of each node
 * The upper layers' links of a node are one block out of an arena; one node in m has any.
 *
 * A shared graph has one chunk of a fixed number of nodes, and the arena behind it, in memory that
 * the caller gave; its header (rv_hnsw_shared) holds what changes and no pointer, since processes
 * may map it at different addresses. Each process has a handle (rv_hnsw) of its own.
 *
 * Locks of a shared graph:
 *     a node's lock    changes to its lists, and all reads of their distances and marks. Held for
 *                      one rv_hnsw_add_link; nothing else is locked meanwhile.
 *     entry_lock       held by an insert that will become the entry point, from before its search
 *                      until then, so that two of them do not miss each other; taken before any
 *                      node's lock.
 * Both spin, then yield the processor. Links are read without a lock: every store of a link or
 * count releases, every load acquires, and a node is complete before the first link to it is
 * stored. A reader may see a list half changed: a link twice or a dropped one, never a number that
 * is no node. Node numbers, arena space and the entry point are changed by compare and exchange.
 *
 * Inserts at the same time do not see each other. Two threads that take turns of 448 neighbouring
 * rows build a graph as good as one thread does (60,000 package descriptions, recall@10 at ef 64:
 * 0.965 and 0.965; another seed moves it by 0.001, and at ef 16 by 0.011). Taking turns row by row
 * costs 0.009, since neighbouring rows are similar: hand out rows in blocks, as a parallel scan
 * does. The processor time of two threads is that of one.
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
#define RV_VISITED_MIN_BITS 8
#define RV_SHARED_MAGIC UINT64_C(0x726876736e683031)

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
    uint8_t *locks;
    uintptr_t *upper; /* relative to rv_hnsw.upper_base; 0: none */
    size_t bytes;
} rv_chunk;

typedef struct rv_arena_block {
    struct rv_arena_block *next;
    size_t used;
    size_t size;
} rv_arena_block;

/* What changes in a graph; of a shared one, the head of its memory. */
typedef struct rv_hnsw_shared {
    uint64_t magic;
    rv_hnsw_options options;
    uint64_t capacity;   /* nodes there is room for */
    uint64_t upper_size; /* bytes of the arena */
    uint64_t count;
    uint64_t upper_used;
    uint64_t entry; /* its level + 1 in the upper half, its number in the lower; 0: empty */
    uint8_t entry_lock;
} rv_hnsw_shared;

/* A node that a search of one level has reached. */
typedef struct rv_reached {
    float distance;
    uint32_t node;
    uint32_t expanded;
} rv_reached;

/* The links chosen for a new node at one level, nearest first. */
typedef struct rv_chosen {
    uint32_t count;
    uint32_t nodes[RV_HNSW_MAX_M];
    float distances[RV_HNSW_MAX_M];
    uint8_t kept[RV_HNSW_MAX_M];
} rv_chosen;

struct rv_hnsw {
    const rv_allocator *allocator;
    rv_hnsw_options options;
    rv_prng rng;

    bool is_shared;
    rv_hnsw_shared *shared; /* of a private graph, &own */
    rv_hnsw_shared own;
    uint8_t *upper_base; /* of a private graph NULL: offsets are addresses */
    uint32_t stride;     /* floats from one vector to the next */
    uint32_t chunk_bits;
    rv_chunk *chunks;
    rv_chunk shared_chunk; /* of a shared graph the only one */
    size_t chunk_count;
    size_t chunk_room; /* of the array chunks */
    rv_arena_block *arena;
    size_t upper_bytes; /* of the links of one upper layer of one node */
    size_t memory;

    /* What inserting works with. */
    rv_reached *pool; /* the nearest of the present level, nearest first; ef_construction of them */
    uint32_t pool_count;
    uint32_t *visited; /* open addressing, at most half full */
    uint32_t visited_bits;
    uint32_t visited_count;
    rv_candidate *candidates; /* ef_construction of them */
    rv_chosen *chosen;        /* for each level */
};

/* Loads and stores that concurrent inserts may meet. */
static inline uint32_t
rv_hnsw_read(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void
rv_hnsw_write(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline uint64_t
rv_hnsw_nodes(const rv_hnsw *graph)
{
    return __atomic_load_n(&graph->shared->count, __ATOMIC_ACQUIRE);
}

/* The entry point's level, -1 when empty. */
static inline int
rv_hnsw_enter_at(const rv_hnsw *graph, rv_node *entry)
{
    uint64_t word = __atomic_load_n(&graph->shared->entry, __ATOMIC_ACQUIRE);

    *entry = (uint32_t)word;
    return (int)(word >> 32) - 1;
}

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
    uintptr_t block = rv_hnsw_chunk(graph, node)->upper[rv_hnsw_slot(graph, node)];

    block += (uintptr_t)graph->upper_base;
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

/* Bytes of a shared graph with room for so many nodes. */
size_t rv_hnsw_storage_bytes(const rv_hnsw *graph, uint64_t nodes);
/* Lays out a shared graph in memory; false when the memory does not hold a single node. */
bool rv_hnsw_storage_share(rv_hnsw *graph, void *memory, size_t bytes);
/* Sets the handle's pointers into memory that another handle has laid out. */
void rv_hnsw_storage_attach(rv_hnsw *graph, void *memory);

/*
 * Counts a new node of a level, with empty lists and no vector yet; nothing leads to it.
 * RV_ERR_FULL: past memory_limit, the shared memory, or UINT32_MAX nodes.
 */
rv_status rv_hnsw_reserve(rv_hnsw *graph, int level, rv_node *node, rv_error *err);

/* Take and give back a lock of a shared graph. */
void rv_hnsw_lock(uint8_t *lock);
void rv_hnsw_unlock(uint8_t *lock);

/*
 * The search of one level (nearest.c): enter puts the entry point alone into the pool; level goes
 * on from what is in the pool, which then holds the ef nearest, nearest first. RV_ERR_NOMEM.
 */
void rv_hnsw_nearest_enter(rv_hnsw *graph, const float *query, rv_node entry);
rv_status rv_hnsw_nearest_level(rv_hnsw *graph, const float *query, uint32_t ef, int level,
                                rv_error *err);

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
