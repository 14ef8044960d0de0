/*
 * flat_search.c - lookup straight in a flat bank, without copying or changing it.
 *
 * Small banks are scanned exactly. Larger ones are walked with the common beam over int8 codes; the
 * best of what the beam finds are then ranked by the float32 centroids, so that the codes' rounding
 * decides only who gets into the last round.
 */
#include "flat.h"

#include "ruvector/codes.h"

#include <string.h>

#define SCAN_BLOCK 64
/*
 * A window of the walk, and how many of it are ranked exactly, for k results. With 10 links per
 * node and these, the 3 nearest of 10,000 clustered centroids of 768 dimensions are found with 200
 * code distances and recall 0.98; a window of 24 takes 280 for recall 1.00, 16 links and a window
 * of 32 take 550.
 */
#define WALK_WINDOW 12
#define WALK_RANKED_EXTRA 3

const rv_pattern *
rv_bank_flat_index_pattern(const void *buffer)
{
    const flat_header *header = buffer;

    if (!header->has_index)
        return NULL;
    return (const rv_pattern *)(const void *)((const char *)buffer + sizeof(*header));
}

uint32_t
rv_bank_flat_count(const void *buffer)
{
    const flat_header *header = buffer;
    return header->regions + header->has_index;
}

static void
scan(const flat_header *header, const flat_layout *layout, const float *query,
     bank_ranking *ranking)
{
    rv_metric space = rv_bank_space((rv_metric)header->metric);
    const float *rows[SCAN_BLOCK];
    float distances[SCAN_BLOCK];

    for (uint32_t from = 0; from < header->regions; from += SCAN_BLOCK) {
        uint32_t left = header->regions - from;
        uint32_t count = left < SCAN_BLOCK ? left : SCAN_BLOCK;

        for (uint32_t i = 0; i < count; i++)
            rows[i] = flat_centroid(header, layout, from + i);
        rv_raw_distance_batch(space, false, query, rows, count, header->dim, distances);
        for (uint32_t i = 0; i < count; i++)
            rv_bank_rank(ranking, flat_pattern(header, layout, from + i), rows[i], distances[i]);
    }
}

/* ---- the walk ------------------------------------------------------------------------------- */

typedef float (*code_distance)(const float *query, const int8_t *code, float scale, uint32_t dim);

typedef struct walk {
    const flat_header *header;
    const flat_layout *layout;
    const float *query;
    const float *scales;
    code_distance distance; /* NULL for COSINE, which compares codes with a code of the query */
    const int8_t *code;
    float code_scale;
    int32_t (*dot)(const int8_t *a, const int8_t *b, uint32_t dim);
} walk;

static inline float
walk_distance_to(const walk *w, uint32_t node)
{
    const int8_t *code = flat_code(w->header, w->layout, node);
    uint32_t dim = w->header->dim;

    if (w->distance != NULL)
        return w->distance(w->query, code, w->scales[node], dim);
    return 1 - w->code_scale * w->scales[node] * (float)w->dot(w->code, code, dim);
}

static inline void
prefetch_code(const walk *w, uint32_t node)
{
#if defined(__GNUC__)
    const char *code = (const char *)flat_code(w->header, w->layout, node);
    size_t lines = w->layout->code_stride / 64;

    for (size_t i = 0; i < lines && i < 16; i++)
        __builtin_prefetch(code + i * 64);
#else
    (void)w;
    (void)node;
#endif
}

static rv_status
walk_expand(void *ctx, rv_node node, int level, rv_visited *visited, rv_neighbour *out,
            uint32_t capacity, uint32_t *count)
{
    const walk *w = ctx;
    const uint32_t *links = flat_links(w->header, w->layout, (uint32_t)node, (uint32_t)level);
    uint32_t fresh = 0;

    for (uint32_t i = 1; i <= links[0] && fresh < capacity; i++) {
        if (!rv_visited_add(visited, links[i]))
            continue;
        out[fresh].node = links[i];
        out[fresh].flags = 0;
        prefetch_code(w, links[i]);
        fresh++;
    }
    for (uint32_t i = 0; i < fresh; i++)
        out[i].distance = walk_distance_to(w, (uint32_t)out[i].node);
    *count = fresh;
    return RV_OK;
}

static rv_status
walk_distance(void *ctx, rv_node node, float *distance, uint32_t *flags)
{
    *distance = walk_distance_to(ctx, (uint32_t)node);
    *flags = 0;
    return RV_OK;
}

static void
walk_init(walk *w, const flat_header *header, const flat_layout *layout, const float *query)
{
    const rv_kernels *kernels = rv_kernels_active();

    w->header = header;
    w->layout = layout;
    w->query = query;
    w->scales = flat_scales(header, layout);
    w->dot = kernels->dot_codes;
    switch (rv_bank_space((rv_metric)header->metric)) {
        case RV_METRIC_L1:
            w->distance = kernels->l1_int8;
            break;
        case RV_METRIC_COSINE:
            w->distance = NULL;
            break;
        default:
            w->distance = kernels->l2_squared_int8;
            break;
    }
}

/* Ranks the ranked nearest of one window of the walk by their true distances to query. */
static rv_status
run_walk(walk *w, const rv_allocator *allocator, const float *query, uint32_t ranked,
         bank_ranking *ranking, uint32_t *distances, rv_error *err)
{
    const flat_header *header = w->header;
    rv_metric space = rv_bank_space((rv_metric)header->metric);
    rv_metric_map map = rv_metric_map_make(space, 0, 0);
    rv_graph graph = {.ctx = w,
                      .expand = walk_expand,
                      .distance = walk_distance,
                      .max_degree = 2 * header->m,
                      .key_limit = header->regions};
    rv_stop_rule rule = {.window = ranked < WALK_WINDOW / 2 ? WALK_WINDOW : 2 * ranked};
    rv_beam *beam;
    rv_status status = rv_beam_create(allocator, &graph, &map, &beam, err);

    if (status != RV_OK)
        return status;
    status = rv_beam_start(beam, &rule, header->entry, (int)header->entry_level, NULL, 0, err);
    for (uint32_t i = 0; status == RV_OK && i < ranked; i++) {
        rv_beam_result result;
        const float *centroid;
        rv_error failure;

        status = rv_beam_next(beam, &result, &failure);
        if (status == RV_ERR_NOTFOUND) { /* fewer reachable than asked for */
            status = RV_OK;
            break;
        }
        if (status != RV_OK) {
            rv_fail(err, status, "%s", failure.message);
            break;
        }
        centroid = flat_centroid(header, w->layout, (uint32_t)result.node);
        rv_bank_rank(ranking, flat_pattern(header, w->layout, (uint32_t)result.node), centroid,
                     rv_raw_distance(space, query, centroid, header->dim));
        ++*distances;
    }
    *distances += (uint32_t)rv_beam_get_stats(beam).distances;
    rv_beam_destroy(beam);
    return status;
}

static rv_status
walk_lookup(const flat_header *header, const flat_layout *layout, const rv_allocator *allocator,
            const float *query, bank_ranking *ranking, uint32_t *distances, rv_error *err)
{
    uint32_t k = ranking->k < header->regions ? ranking->k : header->regions;
    float *unit = NULL;
    rv_status status;
    walk w;

    walk_init(&w, header, layout, query);
    if (w.distance == NULL) {
        int8_t *code;

        /* The query at unit length, and its code behind it. */
        unit = rv_alloc_array(allocator, header->dim, sizeof(*unit) + sizeof(*code));
        if (unit == NULL)
            return rv_fail_nomem(err, header->dim * (sizeof(*unit) + sizeof(*code)));
        code = (int8_t *)(unit + header->dim);
        rv_normalize(query, unit, header->dim);
        w.code_scale = rv_int8_encode(unit, code, header->dim);
        w.code = code;
    }
    status = run_walk(&w, allocator, query, k + WALK_RANKED_EXTRA, ranking, distances, err);
    rv_free(allocator, unit);
    return status;
}

rv_status
rv_bank_flat_lookup(const void *buffer, const rv_allocator *allocator, const float *query,
                    uint32_t k, rv_bank_match *out, uint32_t *count, uint32_t *distances,
                    rv_error *err)
{
    const flat_header *header = buffer;
    bank_ranking ranking = {.matches = out, .k = k};
    flat_layout layout;
    uint32_t computed = 0;
    rv_status status = rv_bank_check_vector(query, header->dim, "query", err);

    *count = 0;
    if (distances != NULL)
        *distances = 0;
    if (status != RV_OK || k == 0 || header->regions == 0)
        return status;
    rv_flat_layout(header, &layout);
    if (header->m > 0) {
        status = walk_lookup(header, &layout, allocator, query, &ranking, &computed, err);
    } else {
        scan(header, &layout, query, &ranking);
        computed = header->regions;
    }
    if (distances != NULL)
        *distances = computed;
    if (status != RV_OK)
        return status;
    rv_bank_finish_matches(&ranking, rv_bank_space((rv_metric)header->metric));
    *count = ranking.count;
    return RV_OK;
}
