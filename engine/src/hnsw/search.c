/*
 * search.c - reading the graph: the cursor that a beam searches through, the classical search, and
 * the accessors.
 */
#include "graph.h"

#include <assert.h>

#include "../base/internal.h"
#include "../beam/visited.h"

struct rv_hnsw_cursor {
    const rv_allocator *allocator;
    const rv_hnsw *graph;
    const float *query;
    rv_graph interface;
    const float *rows[2 * RV_HNSW_MAX_M];
    float distances[2 * RV_HNSW_MAX_M];
};

static inline void
prefetch_vector(const float *vector, uint32_t dim)
{
#if defined(__GNUC__)
    /* The first lines; the batch kernel fetches further ahead while it computes. */
    const char *line = (const char *)vector;
    size_t bytes = dim * sizeof(float);

    for (size_t at = 0; at < bytes && at < 4 * RV_LINE; at += RV_LINE)
        __builtin_prefetch(line + at);
#else
    (void)vector;
    (void)dim;
#endif
}

static rv_status
cursor_expand(void *ctx, rv_node node, int level, rv_visited *visited, rv_neighbour *out,
              uint32_t capacity, uint32_t *count)
{
    rv_hnsw_cursor *cursor = ctx;
    const rv_hnsw *graph = cursor->graph;
    const rv_hnsw_options *options = &graph->options;
    const uint32_t *links;
    uint32_t found = 0;

    if (node >= rv_hnsw_nodes(graph) || level > rv_hnsw_level_of(graph, node))
        return RV_ERR_NOTFOUND;
    links = level == 0 ? rv_hnsw_base_links(graph, node) : rv_hnsw_upper_links(graph, node, level);
    assert(links[0] <= capacity);
    (void)capacity;
    for (uint32_t i = 1; i <= links[0]; i++) {
        if (!rv_visited_insert(visited, links[i]))
            continue;
        cursor->rows[found] = rv_hnsw_vector_of(graph, links[i]);
        prefetch_vector(cursor->rows[found], options->dim);
        out[found].node = links[i];
        out[found++].flags = 0;
    }
    rv_raw_distance_batch(options->metric, options->unit, cursor->query, cursor->rows, found,
                          options->dim, cursor->distances);
    for (uint32_t i = 0; i < found; i++)
        out[i].distance = cursor->distances[i];
    *count = found;
    return RV_OK;
}

static rv_status
cursor_distance(void *ctx, rv_node node, float *distance, uint32_t *flags)
{
    const rv_hnsw_cursor *cursor = ctx;
    const rv_hnsw *graph = cursor->graph;
    const float *row;

    if (node >= rv_hnsw_nodes(graph))
        return RV_ERR_NOTFOUND;
    row = rv_hnsw_vector_of(graph, node);
    rv_raw_distance_batch(graph->options.metric, graph->options.unit, cursor->query, &row, 1,
                          graph->options.dim, distance);
    *flags = 0;
    return RV_OK;
}

rv_status
rv_hnsw_cursor_create(const rv_allocator *allocator, const rv_hnsw *graph, rv_hnsw_cursor **out,
                      rv_error *err)
{
    rv_hnsw_cursor *cursor = rv_alloc_zero(allocator, sizeof *cursor);

    *out = NULL;
    if (cursor == NULL)
        return rv_fail_nomem(err, sizeof *cursor);
    cursor->allocator = allocator;
    cursor->graph = graph;
    cursor->interface.ctx = cursor;
    cursor->interface.expand = cursor_expand;
    cursor->interface.distance = cursor_distance;
    cursor->interface.max_degree = 2 * graph->options.m;
    cursor->interface.key_limit = rv_hnsw_nodes(graph);
    *out = cursor;
    return RV_OK;
}

void
rv_hnsw_cursor_destroy(rv_hnsw_cursor *cursor)
{
    if (cursor != NULL)
        rv_free(cursor->allocator, cursor);
}

const rv_graph *
rv_hnsw_cursor_graph(rv_hnsw_cursor *cursor)
{
    return &cursor->interface;
}

void
rv_hnsw_cursor_set_query(rv_hnsw_cursor *cursor, const float *query)
{
    cursor->query = query;
}

/* Up to k results of a started beam. */
static rv_status
take_results(rv_beam *beam, uint32_t k, rv_beam_result *out, uint32_t *count, rv_error *err)
{
    while (*count < k) {
        rv_status status = rv_beam_next(beam, &out[*count], err);

        if (status == RV_ERR_NOTFOUND)
            break;
        if (status != RV_OK)
            return status;
        (*count)++;
    }
    return RV_OK;
}

rv_status
rv_hnsw_search(const rv_hnsw *graph, const rv_allocator *allocator, const float *query, uint32_t k,
               uint32_t ef, rv_beam_result *out, uint32_t *count, rv_beam_stats *stats,
               rv_error *err)
{
    rv_metric_map map = rv_metric_map_make(graph->options.metric, 0.0f, 0.0f);
    rv_stop_rule rule = {.window = ef > k ? ef : k};
    rv_hnsw_cursor *cursor;
    rv_beam *beam = NULL;
    rv_node entry;
    int entry_level = rv_hnsw_enter_at(graph, &entry);
    rv_status status;

    *count = 0;
    status = rv_hnsw_cursor_create(allocator, graph, &cursor, err);
    if (status != RV_OK)
        return status;
    rv_hnsw_cursor_set_query(cursor, query);
    status = rv_beam_create(allocator, &cursor->interface, &map, &beam, err);
    if (status == RV_OK)
        status = rv_beam_start(beam, &rule, entry, entry_level, NULL, 0, err);
    if (status == RV_OK)
        status = take_results(beam, k, out, count, err);
    if (status == RV_OK && stats != NULL)
        *stats = rv_beam_get_stats(beam);
    rv_beam_destroy(beam);
    rv_hnsw_cursor_destroy(cursor);
    return status;
}

uint64_t
rv_hnsw_count(const rv_hnsw *graph)
{
    return rv_hnsw_nodes(graph);
}

size_t
rv_hnsw_memory(const rv_hnsw *graph)
{
    if (graph->is_shared)
        return rv_hnsw_storage_bytes(graph, rv_hnsw_nodes(graph));
    return graph->memory;
}

int
rv_hnsw_entry(const rv_hnsw *graph, rv_node *entry)
{
    return rv_hnsw_enter_at(graph, entry);
}

int
rv_hnsw_level(const rv_hnsw *graph, rv_node node)
{
    assert(node < rv_hnsw_nodes(graph));
    return rv_hnsw_level_of(graph, node);
}

const float *
rv_hnsw_vector(const rv_hnsw *graph, rv_node node)
{
    assert(node < rv_hnsw_nodes(graph));
    return rv_hnsw_vector_of(graph, node);
}

const uint32_t *
rv_hnsw_links(const rv_hnsw *graph, rv_node node, int level, uint32_t *count)
{
    const uint32_t *links;

    assert(node < rv_hnsw_nodes(graph) && level <= rv_hnsw_level_of(graph, node));
    links = level == 0 ? rv_hnsw_base_links(graph, node) : rv_hnsw_upper_links(graph, node, level);
    *count = links[0];
    return links + 1;
}
