/*
 * memory_lookup.c - the nearest past queries, by the common beam over the flat form's codes.
 *
 * A lookup that is to leave out an equal query passes over its node as if it had never been added:
 * its links lead straight to the queries nearest to it, which a query that is not remembered has to
 * find by itself. Leaving it out of the answer alone would promise too much.
 */
#include "memory_flat.h"

#include "../base/internal.h"

typedef float (*code_distance)(const float *query, const int8_t *code, float scale, uint32_t dim);

typedef struct lookup {
    const memory_header *header;
    const int8_t *codes;
    const float *scales;
    const uint32_t *starts;
    const uint32_t *links;
    size_t stride;
    const float *query; /* of unit length where directions are compared */
    code_distance distance;
    bool similarity; /* the kernel gives an inner product; raw = 1 - it */
    bool skip_equal;
} lookup;

static inline float
distance_to(const lookup *l, uint32_t query)
{
    float raw =
        l->distance(l->query, l->codes + query * l->stride, l->scales[query], l->header->dim);

    return l->similarity ? 1 - raw : raw;
}

/* A raw distance that the rounding of a code alone can make: each element is off by at most half a
 * scale, a third of a squared half on average. */
static float
rounding(const lookup *l, uint32_t query)
{
    float half = l->scales[query] / 2;

    if (memory_space((rv_metric)l->header->metric) == RV_METRIC_L1)
        return half * (float)l->header->dim;
    /* Between unit vectors 1 - cos is half the squared distance. */
    return half * half * (float)l->header->dim * (l->similarity ? 0.5f : 1.0f);
}

static bool
left_out(const lookup *l, uint32_t query, float distance)
{
    return l->skip_equal && distance <= rounding(l, query);
}

static rv_status
expand(void *ctx, rv_node node, int level, rv_visited *visited, rv_neighbour *out,
       uint32_t capacity, uint32_t *count)
{
    const lookup *l = ctx;
    uint32_t degree;
    const uint32_t *links = memory_links(l->links, l->starts[node], (uint32_t)level, &degree);
    uint32_t fresh = 0;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < degree && fresh < capacity; i++) {
        if (!rv_visited_add(visited, links[i]))
            continue;
#if defined(__GNUC__)
        __builtin_prefetch(l->codes + links[i] * l->stride);
#endif
        out[fresh].node = links[i];
        out[fresh++].flags = 0;
    }
    for (uint32_t i = 0; i < fresh; i++) {
        out[kept] = out[i];
        out[kept].distance = distance_to(l, (uint32_t)out[i].node);
        if (!left_out(l, (uint32_t)out[kept].node, out[kept].distance))
            kept++;
    }
    *count = kept;
    return RV_OK;
}

static rv_status
entry_distance(void *ctx, rv_node node, float *distance, uint32_t *flags)
{
    *distance = distance_to(ctx, (uint32_t)node);
    *flags = 0;
    return RV_OK;
}

static void
open_lookup(lookup *l, const void *buffer, const float *query, bool skip_equal)
{
    const rv_kernels *kernels = rv_kernels_active();
    memory_layout at;

    l->header = buffer;
    at = memory_layout_of(l->header);
    l->codes = MEMORY_SECTION(int8_t, buffer, at.codes);
    l->scales = MEMORY_SECTION(float, buffer, at.scales);
    l->starts = MEMORY_SECTION(uint32_t, buffer, at.starts);
    l->links = MEMORY_SECTION(uint32_t, buffer, at.links);
    l->stride = at.stride;
    l->query = query;
    l->similarity = false;
    l->skip_equal = skip_equal;
    switch (memory_space((rv_metric)l->header->metric)) {
        case RV_METRIC_COSINE:
            l->distance = kernels->inner_product_int8;
            l->similarity = true;
            break;
        case RV_METRIC_L1:
            l->distance = kernels->l1_int8;
            break;
        default:
            l->distance = kernels->l2_squared_int8;
            break;
    }
}

static void
add_nodes(const void *buffer, uint32_t query, rv_memory_match *out)
{
    const memory_header *header = buffer;
    memory_layout at = memory_layout_of(header);
    const rv_node *nodes =
        MEMORY_SECTION(rv_node, buffer, at.nodes) + (size_t)query * RV_MEMORY_ENTRIES;
    uint32_t size = MEMORY_SECTION(uint8_t, buffer, at.sizes)[query];

    for (uint32_t i = 0; i < size && out->count < RV_MEMORY_MAX_NODES; i++) {
        uint32_t j = 0;

        while (j < out->count && out->nodes[j] != nodes[i])
            j++;
        if (j == out->count)
            out->nodes[out->count++] = nodes[i];
    }
}

static rv_status
walk(lookup *l, const void *buffer, const rv_allocator *allocator, rv_memory_match *out,
     rv_error *err)
{
    const memory_header *header = l->header;
    rv_metric_map map = rv_metric_map_make(memory_space((rv_metric)header->metric), 0, 0);
    rv_graph graph = {.ctx = l,
                      .expand = expand,
                      .distance = entry_distance,
                      .max_degree = 2 * header->m,
                      .key_limit = header->count};
    /* The node where every lookup begins cannot be passed over, so it needs room of its own. */
    bool entry_left_out = left_out(l, header->entry, distance_to(l, header->entry));
    rv_stop_rule rule = {.window = RV_MEMORY_NEAREST + (entry_left_out ? 1 : 0)};
    uint32_t taken = 0;
    rv_beam *beam;
    rv_status status = rv_beam_create(allocator, &graph, &map, &beam, err);

    if (status != RV_OK)
        return status;
    status = rv_beam_start(beam, &rule, header->entry, (int)header->entry_level, NULL, 0, err);
    for (uint32_t i = 0; status == RV_OK && i < rule.window && taken < RV_MEMORY_NEAREST; i++) {
        rv_beam_result result;

        status = rv_beam_next(beam, &result, err);
        if (status == RV_ERR_NOTFOUND) { /* fewer past queries than that */
            status = RV_OK;
            break;
        }
        if (status != RV_OK || result.distance > header->reach)
            break;
        if (left_out(l, (uint32_t)result.node, result.distance))
            continue;
        add_nodes(buffer, (uint32_t)result.node, out);
        taken++;
    }
    out->distances = (uint32_t)rv_beam_get_stats(beam).distances;
    rv_beam_destroy(beam);
    return status;
}

rv_status
rv_memory_lookup(const void *buffer, const rv_allocator *allocator, const float *query,
                 bool skip_equal, rv_memory_match *out, rv_error *err)
{
    const memory_header *header = buffer;
    float *unit = NULL;
    rv_status status;
    lookup l;

    out->count = 0;
    out->distances = 0;
    if (header->count == 0)
        return RV_OK;
    open_lookup(&l, buffer, query, skip_equal);
    if (l.similarity) {
        unit = rv_alloc_array(allocator, header->dim, sizeof(*unit));
        if (unit == NULL)
            return rv_fail_nomem(err, header->dim * sizeof(*unit));
        rv_normalize(query, unit, header->dim);
        l.query = unit;
    }
    status = walk(&l, buffer, allocator, out, err);
    rv_free(allocator, unit);
    return status;
}
