/*
 * flat_search.c - lookup straight in a flat bank, without copying or changing it.
 *
 * Small banks are scanned, exactly (flat_scan.c). Larger ones are walked with the common beam over
 * int8 codes; the best of what the beam finds are then ranked by the float32 centroids, so that the
 * codes' rounding decides only who gets into the last round.
 */
#include "flat_query.h"

#include <math.h>
#include <string.h>

/*
 * A window of the walk, and how many of it are ranked exactly, for k results. With 10 links per
 * node and these, the 3 nearest of 10,000 clustered centroids of 768 dimensions are found with 200
 * code distances and recall 0.98; a window of 24 takes 280 for recall 1.00, 16 links and a window
 * of 32 take 550.
 */
#define WALK_WINDOW 12
#define WALK_RANKED_EXTRA 3
#define RANKED_BLOCK 16 /* centroids that are asked for before the first is read */

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

static double
wide_squares(const int16_t *wide, uint32_t dim)
{
    int64_t sum = 0;

    for (uint32_t i = 0; i < dim; i++)
        sum += wide[i] * wide[i];
    return (double)sum;
}

rv_status
rv_flat_query_open(flat_query *query, const flat_header *header, const float *values, rv_error *err)
{
    const rv_kernels *kernels = rv_kernels_active();
    uint32_t dim = header->dim;
    double scale;

    query->header = header;
    rv_flat_layout(header, &query->layout);
    query->values = values;
    query->scales = flat_scales(header, &query->layout);
    query->squares = flat_squares(header, &query->layout);
    query->space = rv_bank_space((rv_metric)header->metric);
    query->l1 = kernels->l1_int8;
    query->dots = kernels->dot_codes;
    query->length = rv_wide_encode(values, query->wide, dim);
    if (!isfinite(query->length))
        return rv_bank_check_vector(values, dim, "query", err);
    memset(query->wide + dim, 0, (query->layout.code_stride - dim) * sizeof(*query->wide));
    scale = (query->space == RV_METRIC_COSINE ? 1 : query->length) / RV_WIDE_LENGTH;
    query->wide_scale = scale;
    query->wide_squares =
        query->space == RV_METRIC_L2 ? scale * scale * wide_squares(query->wide, dim) : 0;
    return RV_OK;
}

void
rv_flat_rank(const flat_query *query, const uint32_t *regions, uint32_t count,
             bank_ranking *ranking)
{
    const flat_header *header = query->header;

    for (uint32_t from = 0; from < count; from += RANKED_BLOCK) {
        uint32_t block = count - from < RANKED_BLOCK ? count - from : RANKED_BLOCK;
        const float *rows[RANKED_BLOCK] = {NULL};
        float distances[RANKED_BLOCK];

        for (uint32_t i = 0; i < block; i++)
            rows[i] = flat_centroid(header, &query->layout, regions[from + i]);
        rv_raw_distance_batch(query->space, false, query->values, rows, block, header->dim,
                              distances);
        for (uint32_t i = 0; i < block; i++)
            rv_bank_rank(ranking, flat_pattern(header, &query->layout, regions[from + i]), rows[i],
                         distances[i]);
    }
}

/* ---- the walk ------------------------------------------------------------------------------- */

/* Asks for the beginning of a code: the processor fetches what follows when it sees the direction,
 * and as many lines as all codes of an expansion have would queue behind each other. */
#define PREFETCH_LINES 4

static inline void
prefetch_lines(const void *start, size_t bytes)
{
#if defined(__GNUC__)
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)start + at);
#else
    (void)start;
    (void)bytes;
#endif
}

static inline void
prefetch_code(const flat_query *query, uint32_t node)
{
    size_t stride = query->layout.code_stride;

    prefetch_lines(flat_code(query->header, &query->layout, node),
                   stride < PREFETCH_LINES * 64 ? stride : PREFETCH_LINES * 64);
}

/* The links of the node that is probably expanded next. */
static void
walk_prefetch(void *ctx, rv_node node)
{
    const flat_query *query = ctx;

    prefetch_lines(flat_links(query->header, &query->layout, (uint32_t)node, 0),
                   (1 + 2 * query->header->m) * sizeof(uint32_t));
}

static rv_status
walk_expand(void *ctx, rv_node node, int level, rv_visited *visited, rv_neighbour *out,
            uint32_t capacity, uint32_t *count)
{
    const flat_query *query = ctx;
    const uint32_t *links =
        flat_links(query->header, &query->layout, (uint32_t)node, (uint32_t)level);
    uint32_t fresh = 0;

    for (uint32_t i = 1; i <= links[0] && fresh < capacity; i++) {
        if (!rv_visited_add(visited, links[i]))
            continue;
        out[fresh].node = links[i];
        out[fresh].flags = 0;
        prefetch_code(query, links[i]);
        fresh++;
    }
    for (uint32_t i = 0; i < fresh; i++)
        out[i].distance = flat_distance(query, (uint32_t)out[i].node);
    *count = fresh;
    return RV_OK;
}

static rv_status
walk_distance(void *ctx, rv_node node, float *distance, uint32_t *flags)
{
    *distance = flat_distance(ctx, (uint32_t)node);
    *flags = 0;
    return RV_OK;
}

/* Ranks the next results of the walk, up to count of them and a block. *ranked: how many there
 * were; fewer than asked for where no more are reachable. */
static rv_status
rank_block(rv_beam *beam, const flat_query *query, uint32_t count, bank_ranking *ranking,
           uint32_t *ranked, rv_error *err)
{
    const uint32_t *region_of = flat_region_of(query->header, &query->layout);
    uint32_t regions[RANKED_BLOCK];
    rv_status status = RV_OK;
    rv_error failure;

    *ranked = 0;
    while (status == RV_OK && *ranked < count && *ranked < RANKED_BLOCK) {
        rv_beam_result result;

        status = rv_beam_next(beam, &result, &failure);
        if (status == RV_OK)
            regions[(*ranked)++] = region_of[result.node];
    }
    rv_flat_rank(query, regions, *ranked, ranking);
    return status == RV_OK || status == RV_ERR_NOTFOUND
               ? RV_OK
               : rv_fail(err, status, "%s", failure.message);
}

static rv_status
walk_lookup(flat_query *query, const rv_allocator *allocator, bank_ranking *ranking,
            uint32_t *distances, rv_error *err)
{
    const flat_header *header = query->header;
    rv_metric_map map = rv_metric_map_make(query->space, 0, 0);
    rv_graph graph = {.ctx = query,
                      .expand = walk_expand,
                      .distance = walk_distance,
                      .prefetch = walk_prefetch,
                      .max_degree = 2 * header->m,
                      .key_limit = header->regions};
    uint32_t wanted = ranking->k < header->regions ? ranking->k : header->regions;
    uint32_t left = wanted + WALK_RANKED_EXTRA;
    rv_stop_rule rule = {.window = left < WALK_WINDOW / 2 ? WALK_WINDOW : 2 * left};
    uint32_t ranked = 1;
    rv_beam *beam;
    rv_status status = rv_beam_create(allocator, &graph, &map, &beam, err);

    if (status != RV_OK)
        return status;
    status = rv_beam_start(beam, &rule, header->entry, (int)header->entry_level, NULL, 0, err);
    for (; status == RV_OK && left > 0 && ranked > 0; left -= ranked) {
        status = rank_block(beam, query, left, ranking, &ranked, err);
        *distances += ranked;
    }
    *distances += (uint32_t)rv_beam_get_stats(beam).distances;
    rv_beam_destroy(beam);
    return status;
}

rv_status
rv_bank_flat_lookup(const void *buffer, const rv_allocator *allocator, const float *query,
                    uint32_t k, rv_bank_match *out, uint32_t *count, uint32_t *distances,
                    rv_error *err)
{
    const flat_header *header = buffer;
    bank_ranking ranking = {.matches = out, .k = k};
    uint32_t computed = 0;
    flat_query coded;
    rv_status status = rv_flat_query_open(&coded, header, query, err);

    *count = 0;
    if (distances != NULL)
        *distances = 0;
    if (status != RV_OK || k == 0 || header->regions == 0)
        return status;
    if (header->m > 0)
        status = walk_lookup(&coded, allocator, &ranking, &computed, err);
    else
        computed = rv_flat_scan(&coded, &ranking);
    if (distances != NULL)
        *distances = computed;
    if (status != RV_OK)
        return status;
    rv_bank_finish_matches(&ranking, coded.space);
    *count = ranking.count;
    return RV_OK;
}
