/*
 * build.c - construction: algorithm 1 of Malkov and Yashunin.
 *
 * An insert does everything that can fail first: it searches, chooses the node's own links in a
 * workspace, and reserves the node's place. Only then is the node filled in and linked from its
 * neighbours, which cannot fail; so a failed insert leaves the graph as it was, the generator's
 * state included. The order also serves several inserting processes: see graph.h.
 */
#include "graph.h"

#include <math.h>
#include <string.h>

#include "../base/internal.h"

int
rv_hnsw_draw_level(rv_prng *rng, uint32_t m)
{
    double u = 1.0 - rv_prng_uniform(rng); /* (0, 1] */
    double level = floor(-log(u) / log((double)m));

    return level < RV_HNSW_MAX_LEVEL ? (int)level : RV_HNSW_MAX_LEVEL;
}

static rv_status
check_options(const rv_hnsw_options *options, rv_error *err)
{
    if (options->metric < RV_METRIC_L2 || options->metric > RV_METRIC_L1)
        return rv_fail(err, RV_ERR_INVALID, "metric is %d, must be 1 to 4", (int)options->metric);
    if (options->dim < 1 || options->dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_DIMENSION, "vectors of %u dimensions, must be 1 to %d",
                       options->dim, RV_MAX_DIMENSIONS);
    if (options->m < 2 || options->m > RV_HNSW_MAX_M)
        return rv_fail(err, RV_ERR_RANGE, "m is %u, must be 2 to %d", options->m, RV_HNSW_MAX_M);
    if (options->ef_construction < 4 || options->ef_construction > 1000)
        return rv_fail(err, RV_ERR_RANGE, "ef_construction is %u, must be 4 to 1000",
                       options->ef_construction);
    return RV_OK;
}

/* What inserting works with. */
static rv_status
create_workspace(rv_hnsw *graph, rv_error *err)
{
    const rv_allocator *allocator = graph->allocator;
    uint32_t ef = graph->options.ef_construction;

    graph->pool = rv_alloc_array(allocator, ef, sizeof *graph->pool);
    graph->candidates = rv_alloc_array(allocator, ef, sizeof *graph->candidates);
    graph->chosen = rv_alloc_array(allocator, RV_HNSW_MAX_LEVEL + 1, sizeof *graph->chosen);
    graph->visited_bits = RV_VISITED_MIN_BITS;
    graph->visited =
        rv_alloc_array(allocator, (size_t)1 << graph->visited_bits, sizeof *graph->visited);
    if (graph->pool == NULL || graph->candidates == NULL || graph->chosen == NULL ||
        graph->visited == NULL)
        return rv_fail_nomem(err, (RV_HNSW_MAX_LEVEL + 1) * sizeof *graph->chosen);
    return RV_OK;
}

/* A handle without nodes. */
static rv_status
create_handle(const rv_allocator *allocator, const rv_hnsw_options *options, uint64_t stream,
              rv_hnsw **out, rv_error *err)
{
    rv_status status = check_options(options, err);
    rv_hnsw *graph;

    *out = NULL;
    if (status != RV_OK)
        return status;
    graph = rv_alloc_zero(allocator, sizeof *graph);
    if (graph == NULL)
        return rv_fail_nomem(err, sizeof *graph);
    graph->allocator = allocator;
    graph->options = *options;
    graph->shared = &graph->own;
    graph->memory = sizeof *graph;
    rv_prng_seed(&graph->rng, options->seed + stream * UINT64_C(0x9E3779B97F4A7C15));
    rv_hnsw_storage_init(graph);
    status = create_workspace(graph, err);
    if (status != RV_OK) {
        rv_hnsw_destroy(graph);
        return status;
    }
    *out = graph;
    return RV_OK;
}

rv_status
rv_hnsw_create(const rv_allocator *allocator, const rv_hnsw_options *options, rv_hnsw **out,
               rv_error *err)
{
    return create_handle(allocator, options, 0, out, err);
}

size_t
rv_hnsw_shared_size(const rv_hnsw_options *options, uint64_t nodes)
{
    rv_hnsw graph = {.options = *options};

    rv_hnsw_storage_init(&graph);
    return rv_hnsw_storage_bytes(&graph, nodes);
}

rv_status
rv_hnsw_create_shared(const rv_allocator *allocator, const rv_hnsw_options *options, void *memory,
                      size_t bytes, rv_hnsw **out, rv_error *err)
{
    rv_status status = create_handle(allocator, options, 0, out, err);

    if (status != RV_OK)
        return status;
    if ((uintptr_t)memory % RV_LINE != 0)
        status =
            rv_fail(err, RV_ERR_INVALID, "the graph's memory is not aligned to %d bytes", RV_LINE);
    else if (!rv_hnsw_storage_share(*out, memory, bytes))
        status = rv_fail(err, RV_ERR_FULL,
                         "%zu bytes of shared memory do not hold a graph of one node, which needs "
                         "%zu",
                         bytes, rv_hnsw_storage_bytes(*out, 1));
    if (status != RV_OK) {
        rv_hnsw_destroy(*out);
        *out = NULL;
    }
    return status;
}

rv_status
rv_hnsw_attach(const rv_allocator *allocator, void *memory, uint64_t stream, rv_hnsw **out,
               rv_error *err)
{
    const rv_hnsw_shared *shared = memory;
    rv_status status;

    *out = NULL;
    if ((uintptr_t)memory % RV_LINE != 0 || shared->magic != RV_SHARED_MAGIC)
        return rv_fail(err, RV_ERR_INVALID, "the memory holds no shared graph");
    status = create_handle(allocator, &shared->options, stream, out, err);
    if (status == RV_OK)
        rv_hnsw_storage_attach(*out, memory);
    return status;
}

void
rv_hnsw_destroy(rv_hnsw *graph)
{
    if (graph == NULL)
        return;
    rv_free(graph->allocator, graph->visited);
    rv_free(graph->allocator, graph->chosen);
    rv_free(graph->allocator, graph->candidates);
    rv_free(graph->allocator, graph->pool);
    rv_hnsw_storage_release(graph);
    rv_free(graph->allocator, graph);
}

/* Chooses the new node's links among what the search of a level found. */
static void
choose_links(rv_hnsw *graph, rv_chosen *list)
{
    const rv_hnsw_options *options = &graph->options;
    const rv_reached *found = graph->pool;
    uint32_t count = graph->pool_count;
    rv_candidate *candidates = graph->candidates;
    uint32_t filled, chosen, kept, next_kept = 0, next_filler;

    for (uint32_t i = 0; i < count; i++) {
        candidates[i].node = found[i].node;
        candidates[i].distance = found[i].distance;
        candidates[i].tag = 0;
        candidates[i].vector = rv_hnsw_vector_of(graph, found[i].node);
    }
    chosen = rv_hnsw_select(options->metric, options->unit, options->dim, candidates, count,
                            options->m, &filled);
    kept = next_filler = chosen - filled;
    /* Both parts are sorted: merge them. */
    for (uint32_t i = 0; i < chosen; i++) {
        bool take_kept = next_filler == chosen ||
                         (next_kept < kept &&
                          (candidates[next_kept].distance < candidates[next_filler].distance ||
                           (candidates[next_kept].distance == candidates[next_filler].distance &&
                            candidates[next_kept].node < candidates[next_filler].node)));
        const rv_candidate *candidate = &candidates[take_kept ? next_kept++ : next_filler++];

        list->nodes[i] = (uint32_t)candidate->node;
        list->distances[i] = candidate->distance;
        list->kept[i] = take_kept;
    }
    list->count = chosen;
}

static bool
find_twin(const rv_hnsw *graph, const float *vector, rv_node *twin)
{
    for (uint32_t i = 0; i < graph->pool_count; i++) {
        const float *other = rv_hnsw_vector_of(graph, graph->pool[i].node);

        if (memcmp(vector, other, graph->options.dim * sizeof(float)) == 0) {
            *twin = graph->pool[i].node;
            return true;
        }
    }
    return false;
}

/*
 * Searches for the new node's neighbours from the entry point down, and chooses its links at every
 * level up to its own. With find, a twin among the nearest on layer 0 is looked for first;
 * *found_twin then ends the work.
 */
static rv_status
find_neighbours(rv_hnsw *graph, const float *vector, int level, bool find, rv_node *twin,
                bool *found_twin, rv_error *err)
{
    rv_node entry;
    int entry_level = rv_hnsw_enter_at(graph, &entry);

    for (int at = level; at > entry_level; at--)
        graph->chosen[at].count = 0;
    if (entry_level < 0)
        return RV_OK;
    rv_hnsw_nearest_enter(graph, vector, entry);
    for (int at = entry_level; at >= 0; at--) {
        uint32_t ef = at > level ? 1 : graph->options.ef_construction;
        rv_status status = rv_hnsw_nearest_level(graph, vector, ef, at, err);

        if (status != RV_OK)
            return status;
        if (at == 0 && find && find_twin(graph, vector, twin)) {
            *found_twin = true;
            return RV_OK;
        }
        if (at <= level)
            choose_links(graph, &graph->chosen[at]);
    }
    return RV_OK;
}

/* Fills in a reserved node, to which nothing leads yet. */
static void
fill_node(rv_hnsw *graph, rv_node node, const float *vector, int level)
{
    memcpy(rv_hnsw_vector_of(graph, node), vector, graph->options.dim * sizeof(float));
    for (int at = 0; at <= level; at++) {
        rv_link_list list = rv_hnsw_list(graph, node, at);
        const rv_chosen *chosen = &graph->chosen[at];

        memcpy(list.nodes, chosen->nodes, chosen->count * sizeof *list.nodes);
        memcpy(list.distances, chosen->distances, chosen->count * sizeof *list.distances);
        memcpy(list.kept, chosen->kept, chosen->count);
        *list.count = chosen->count;
    }
}

/* Links a filled node from its neighbours, and makes it the entry point if it is the highest. */
static void
publish(rv_hnsw *graph, rv_node node, int level)
{
    uint64_t *entry = &graph->shared->entry;
    uint64_t mine = (uint64_t)(level + 1) << 32 | node;
    uint64_t word = __atomic_load_n(entry, __ATOMIC_ACQUIRE);

    for (int at = 0; at <= level; at++) {
        const rv_chosen *chosen = &graph->chosen[at];

        for (uint32_t i = 0; i < chosen->count; i++)
            rv_hnsw_add_link(graph, chosen->nodes[i], at, node, chosen->distances[i]);
    }
    while (
        (int)(word >> 32) < level + 1 &&
        !__atomic_compare_exchange_n(entry, &word, mine, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        continue;
}

static rv_status
insert_at(rv_hnsw *graph, const float *vector, int level, bool find, rv_node *node, bool *duplicate,
          rv_error *err)
{
    rv_status status = find_neighbours(graph, vector, level, find, node, duplicate, err);

    if (status != RV_OK || *duplicate)
        return status;
    status = rv_hnsw_reserve(graph, level, node, err);
    if (status != RV_OK)
        return status;
    fill_node(graph, *node, vector, level);
    publish(graph, *node, level);
    return RV_OK;
}

static rv_status
insert(rv_hnsw *graph, const float *vector, bool find, rv_node *node, bool *duplicate,
       rv_error *err)
{
    rv_prng before = graph->rng;
    int level = rv_hnsw_draw_level(&graph->rng, graph->options.m);
    bool alone = graph->is_shared && level > rv_hnsw_enter_at(graph, node);
    rv_status status;

    *duplicate = false;
    if (alone)
        rv_hnsw_lock(&graph->shared->entry_lock);
    status = insert_at(graph, vector, level, find, node, duplicate, err);
    if (alone)
        rv_hnsw_unlock(&graph->shared->entry_lock);
    if (status != RV_OK || *duplicate)
        graph->rng = before;
    return status;
}

rv_status
rv_hnsw_insert(rv_hnsw *graph, const float *vector, rv_node *node, rv_error *err)
{
    bool duplicate;

    return insert(graph, vector, false, node, &duplicate, err);
}

rv_status
rv_hnsw_insert_or_find(rv_hnsw *graph, const float *vector, rv_node *node, bool *duplicate,
                       rv_error *err)
{
    return insert(graph, vector, true, node, duplicate, err);
}
