/*
 * build.c - construction: algorithm 1 of Malkov and Yashunin.
 *
 * An insert does everything that can fail first: it reserves the node's place, searches, and
 * chooses the node's own links while nothing in the graph points to it. Only then is the node
 * counted and linked from its neighbours, which cannot fail; so a failed insert leaves the graph as
 * it was, the generator's state included.
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
    rv_metric_map map = rv_metric_map_make(graph->options.metric, 0.0f, 0.0f);
    uint32_t ef = graph->options.ef_construction;
    rv_status status;

    graph->found = rv_alloc_array(allocator, ef, sizeof *graph->found);
    graph->entries = rv_alloc_array(allocator, ef, sizeof *graph->entries);
    graph->candidates = rv_alloc_array(allocator, ef, sizeof *graph->candidates);
    if (graph->found == NULL || graph->entries == NULL || graph->candidates == NULL)
        return rv_fail_nomem(err, ef * sizeof *graph->candidates);
    status = rv_hnsw_cursor_create(allocator, graph, &graph->cursor, err);
    if (status != RV_OK)
        return status;
    return rv_beam_create(allocator, rv_hnsw_cursor_graph(graph->cursor), &map, &graph->beam, err);
}

rv_status
rv_hnsw_create(const rv_allocator *allocator, const rv_hnsw_options *options, rv_hnsw **out,
               rv_error *err)
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
    graph->entry_level = -1;
    graph->memory = sizeof *graph;
    rv_prng_seed(&graph->rng, options->seed);
    rv_hnsw_storage_init(graph);
    status = create_workspace(graph, err);
    if (status != RV_OK) {
        rv_hnsw_destroy(graph);
        return status;
    }
    *out = graph;
    return RV_OK;
}

void
rv_hnsw_destroy(rv_hnsw *graph)
{
    if (graph == NULL)
        return;
    rv_beam_destroy(graph->beam);
    rv_hnsw_cursor_destroy(graph->cursor);
    rv_free(graph->allocator, graph->candidates);
    rv_free(graph->allocator, graph->entries);
    rv_free(graph->allocator, graph->found);
    rv_hnsw_storage_release(graph);
    rv_free(graph->allocator, graph);
}

/* Chooses the links of the reserved node among what a search found. */
static void
choose_links(rv_hnsw *graph, int level, const rv_neighbour *found, uint32_t count)
{
    const rv_hnsw_options *options = &graph->options;
    rv_link_list list = rv_hnsw_list(graph, graph->count, level);
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

        list.nodes[i] = (uint32_t)candidate->node;
        list.distances[i] = candidate->distance;
        list.kept[i] = take_kept;
    }
    *list.count = chosen;
}

static bool
find_twin(const rv_hnsw *graph, const float *vector, const rv_neighbour *found, uint32_t count,
          rv_node *twin)
{
    for (uint32_t i = 0; i < count; i++) {
        const float *other = rv_hnsw_vector_of(graph, found[i].node);

        if (memcmp(vector, other, graph->options.dim * sizeof(float)) == 0) {
            *twin = found[i].node;
            return true;
        }
    }
    return false;
}

/*
 * Searches for the reserved node's neighbours level by level and chooses its links. With find, a
 * twin among the nearest on layer 0 is looked for first; *found_twin then ends the work.
 */
static rv_status
find_neighbours(rv_hnsw *graph, int level, bool find, rv_node *twin, bool *found_twin,
                rv_error *err)
{
    const float *vector = rv_hnsw_vector_of(graph, graph->count);
    uint32_t count = 1;

    *found_twin = false;
    if (graph->entry_level < 0)
        return RV_OK;
    rv_hnsw_cursor_set_query(graph->cursor, vector);
    graph->entries[0].node = graph->entry;
    graph->entries[0].distance = rv_hnsw_between(graph, graph->count, graph->entry);
    graph->entries[0].flags = 0;
    for (int at = graph->entry_level; at >= 0; at--) {
        uint32_t ef = at > level ? 1 : graph->options.ef_construction;
        rv_neighbour *found = graph->found;
        rv_status status =
            rv_beam_search_level(graph->beam, graph->entries, count, ef, at, found, &count, err);

        if (status != RV_OK)
            return status;
        if (at == 0 && find && find_twin(graph, vector, found, count, twin)) {
            *found_twin = true;
            return RV_OK;
        }
        if (at <= level)
            choose_links(graph, at, found, count);
        graph->found = graph->entries;
        graph->entries = found;
    }
    return RV_OK;
}

/* Counts the reserved node and links it from its neighbours. */
static void
publish(rv_hnsw *graph, int level)
{
    rv_node node = graph->count++;

    for (int at = 0; at <= level && at <= graph->entry_level; at++) {
        rv_link_list list = rv_hnsw_list(graph, node, at);

        for (uint32_t i = 0; i < *list.count; i++)
            rv_hnsw_add_link(graph, list.nodes[i], at, node, list.distances[i]);
    }
    if (level > graph->entry_level) {
        graph->entry = node;
        graph->entry_level = level;
    }
}

static rv_status
insert(rv_hnsw *graph, const float *vector, bool find, rv_node *node, bool *duplicate,
       rv_error *err)
{
    rv_prng before = graph->rng;
    int level = rv_hnsw_draw_level(&graph->rng, graph->options.m);
    rv_status status = rv_hnsw_reserve(graph, level, err);

    *duplicate = false;
    if (status != RV_OK) {
        graph->rng = before;
        return status;
    }
    memcpy(rv_hnsw_vector_of(graph, graph->count), vector, graph->options.dim * sizeof(float));
    status = find_neighbours(graph, level, find, node, duplicate, err);
    if (status != RV_OK || *duplicate) {
        rv_hnsw_unreserve(graph);
        graph->rng = before;
        return status;
    }
    *node = graph->count;
    publish(graph, level);
    return RV_OK;
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
