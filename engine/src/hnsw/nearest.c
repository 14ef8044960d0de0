/*
 * nearest.c - the search of one level that construction uses.
 *
 * The classical search with a static ef, over one sorted array of the ef nearest nodes reached so
 * far: each is expanded once, nearest first, until all are. That is what two heaps do, with less
 * work, since construction needs neither dead nodes nor anything to resume from. The array that a
 * level ends with is where the next one starts.
 *
 * Visited nodes are a hash table of 32-bit numbers that fits the first cache. The links of the node
 * that is likely next are fetched while the present one's distances are computed.
 *
 * What it brought, against a search with the beam of beam.h (200,000 SIFT vectors of 128
 * dimensions, m = 16, ef_construction = 64, one thread, AVX-512, a machine with other work): 31.0 s
 * before, 24.0 s now, and the graph is the same. Half of what is left is the distance kernel, which
 * waits for vectors to come from memory; a third is this file, mostly waiting for links.
 *
 * Links are read without a lock; graph.h says why that is sound.
 */
#include "graph.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "../base/internal.h"

#define EMPTY UINT32_MAX
#define MAX_BITS 31

static void
clear_visited(rv_hnsw *graph)
{
    memset(graph->visited, 0xFF, sizeof(uint32_t) << graph->visited_bits);
    graph->visited_count = 0;
}

/* True when the node is new. There is room for it. */
static inline bool
visit(rv_hnsw *graph, uint32_t node)
{
    uint32_t mask = (UINT32_C(1) << graph->visited_bits) - 1;
    uint32_t at = node * UINT32_C(0x9E3779B1) >> (32 - graph->visited_bits);

    while (graph->visited[at] != EMPTY) {
        if (graph->visited[at] == node)
            return false;
        at = (at + 1) & mask;
    }
    graph->visited[at] = node;
    graph->visited_count++;
    return true;
}

/* Makes room for some more visited nodes. */
static rv_status
reserve_visited(rv_hnsw *graph, uint32_t more, rv_error *err)
{
    uint32_t *former = graph->visited;
    size_t size = (size_t)1 << graph->visited_bits;
    uint32_t bits = graph->visited_bits;
    uint32_t *table;

    if (graph->visited_count + more <= size / 2)
        return RV_OK;
    while (bits < MAX_BITS && ((size_t)1 << bits) / 2 < graph->visited_count + more)
        bits++;
    table = rv_alloc_array(graph->allocator, (size_t)1 << bits, sizeof *table);
    if (table == NULL)
        return rv_fail_nomem(err, sizeof *table << bits);
    graph->visited = table;
    graph->visited_bits = bits;
    clear_visited(graph);
    for (size_t i = 0; i < size; i++)
        if (former[i] != EMPTY)
            visit(graph, former[i]);
    rv_free(graph->allocator, former);
    return RV_OK;
}

static inline const uint32_t *
links_of(const rv_hnsw *graph, uint32_t node, int level)
{
    return level == 0 ? rv_hnsw_base_links(graph, node) : rv_hnsw_upper_links(graph, node, level);
}

/* Puts a node into the pool if it is among the ef nearest; its place, or ef. */
static inline uint32_t
add_to_pool(rv_hnsw *graph, uint32_t node, float distance, uint32_t ef)
{
    rv_reached *pool = graph->pool;
    uint32_t low = 0, high = graph->pool_count;

    if (high == ef && distance >= pool[ef - 1].distance)
        return ef;
    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (pool[middle].distance <= distance)
            low = middle + 1;
        else
            high = middle;
    }
    if (graph->pool_count < ef)
        graph->pool_count++;
    memmove(&pool[low + 1], &pool[low], (graph->pool_count - low - 1) * sizeof *pool);
    pool[low] = (rv_reached){distance, node, 0};
    return low;
}

/* The first node of the pool from `at` that was not expanded, or the pool's end. */
static inline uint32_t
next_open(const rv_hnsw *graph, uint32_t at)
{
    while (at < graph->pool_count && graph->pool[at].expanded)
        at++;
    return at;
}

/* Expands the node at a place of the pool; the least place that got a node from it, or ef. */
static uint32_t
expand(rv_hnsw *graph, const float *query, uint32_t at, uint32_t ef, int level)
{
    const rv_hnsw_options *options = &graph->options;
    const float *rows[2 * RV_HNSW_MAX_M];
    float distances[2 * RV_HNSW_MAX_M];
    uint32_t nodes[2 * RV_HNSW_MAX_M];
    const uint32_t *links = links_of(graph, graph->pool[at].node, level);
    uint32_t count = rv_hnsw_read(links);
    uint32_t fresh = 0, least = ef, next;

    graph->pool[at].expanded = 1;
    assert(count <= 2 * options->m);
    for (uint32_t i = 1; i <= count; i++) {
        uint32_t node = rv_hnsw_read(&links[i]);

        if (!visit(graph, node))
            continue;
        rows[fresh] = rv_hnsw_vector_of(graph, node);
        __builtin_prefetch(rows[fresh]);
        nodes[fresh++] = node;
    }
    next = next_open(graph, at + 1);
    if (next < graph->pool_count) {
        const char *lines = (const char *)links_of(graph, graph->pool[next].node, level);

        __builtin_prefetch(lines);
        __builtin_prefetch(lines + RV_LINE);
        __builtin_prefetch(lines + 2 * RV_LINE);
    }
    rv_raw_distance_batch(options->metric, options->unit, query, rows, fresh, options->dim,
                          distances);
    for (uint32_t i = 0; i < fresh; i++) {
        /* Overflowing vectors give NaN, which has no place in an order. */
        float distance = isnan(distances[i]) ? INFINITY : distances[i];
        uint32_t place = add_to_pool(graph, nodes[i], distance, ef);

        if (place < least)
            least = place;
    }
    return least;
}

void
rv_hnsw_nearest_enter(rv_hnsw *graph, const float *query, rv_node entry)
{
    const rv_hnsw_options *options = &graph->options;
    const float *row = rv_hnsw_vector_of(graph, entry);
    float distance;

    rv_raw_distance_batch(options->metric, options->unit, query, &row, 1, options->dim, &distance);
    graph->pool[0] = (rv_reached){isnan(distance) ? INFINITY : distance, (uint32_t)entry, 0};
    graph->pool_count = 1;
}

rv_status
rv_hnsw_nearest_level(rv_hnsw *graph, const float *query, uint32_t ef, int level, rv_error *err)
{
    uint32_t at = 0;
    rv_status status;

    clear_visited(graph);
    status = reserve_visited(graph, graph->pool_count, err);
    if (status != RV_OK)
        return status;
    for (uint32_t i = 0; i < graph->pool_count; i++) {
        graph->pool[i].expanded = 0;
        visit(graph, graph->pool[i].node);
    }
    while (at < graph->pool_count) {
        uint32_t least;

        status = reserve_visited(graph, 2 * graph->options.m, err);
        if (status != RV_OK)
            return status;
        least = expand(graph, query, at, ef, level);
        at = next_open(graph, least <= at ? least : at + 1);
    }
    return RV_OK;
}
