/*
 * lookup.c - the patterns nearest to a query.
 *
 * Up to RV_BANK_EXACT_LIMIT regions a scan with the batch kernel is exact and about as fast as any
 * index; above it an HNSW over the centroids, built at the first lookup after a change, is searched
 * and its results are ranked by exact distances.
 */
#include "internal.h"

#include <math.h>
#include <string.h>

#define GRAPH_EF_CONSTRUCTION 100
#define GRAPH_SEED UINT64_C(0x5EED0FBA2C)
#define GRAPH_EF 64

rv_metric
rv_bank_space(rv_metric metric)
{
    return metric == RV_METRIC_IP ? RV_METRIC_COSINE : metric;
}

float
rv_bank_metric_distance(rv_metric space, float raw)
{
    rv_metric_map map = rv_metric_map_make(space, 0, 0);
    return (float)rv_metric_map_apply(&map, raw);
}

float
rv_bank_similarity(rv_metric space, float raw, float radius)
{
    double distance;

    if (space == RV_METRIC_COSINE)
        return !(raw < 1) ? 0 : raw <= 0 ? 1 : 1 - raw;
    distance = rv_bank_metric_distance(space, raw);
    if (distance <= 0)
        return 1;
    /* 1 - d / (d + radius); an infinite distance (the square overflowed) is no similarity. */
    return isfinite(distance) ? (float)(radius / (distance + radius)) : 0;
}

float
rv_bank_match_outside(const rv_bank_match *match)
{
    float radius = match->pattern->radius;

    return match->distance > radius ? 1 - radius / match->distance : 0;
}

static bool
ranks_before(const rv_bank_match *a, const rv_bank_match *b)
{
    return a->distance != b->distance ? a->distance < b->distance : a->pattern->id < b->pattern->id;
}

void
rv_bank_rank(bank_ranking *ranking, const rv_pattern *pattern, const float *centroid, float raw)
{
    rv_bank_match match = {.pattern = pattern, .centroid = centroid, .distance = raw};
    rv_bank_match *matches = ranking->matches;
    uint32_t at = ranking->count;

    if (at == ranking->k) {
        if (at == 0 || !ranks_before(&match, &matches[at - 1]))
            return;
        at--;
    } else {
        ranking->count++;
    }
    for (; at > 0 && ranks_before(&match, &matches[at - 1]); at--)
        matches[at] = matches[at - 1];
    matches[at] = match;
}

void
rv_bank_finish_matches(bank_ranking *ranking, rv_metric space)
{
    for (uint32_t i = 0; i < ranking->count; i++) {
        rv_bank_match *match = &ranking->matches[i];

        match->similarity = rv_bank_similarity(space, match->distance, match->pattern->radius);
        match->distance = rv_bank_metric_distance(space, match->distance);
    }
}

void
rv_bank_scan(rv_bank *bank, const float *query)
{
    if (bank->count > 0)
        rv_raw_distance_batch(rv_bank_space(bank->metric), false, query, bank->rows, bank->count,
                              bank->dim, bank->scratch);
}

void
rv_bank_drop_graph(rv_bank *bank)
{
    rv_hnsw_destroy(bank->graph);
    bank->graph = NULL;
}

rv_status
rv_bank_build_graph(rv_bank *bank, rv_error *err)
{
    rv_hnsw_options options = {
        .metric = rv_bank_space(bank->metric),
        .dim = bank->dim,
        .m = RV_BANK_GRAPH_M,
        .ef_construction = GRAPH_EF_CONSTRUCTION,
        .seed = GRAPH_SEED,
    };
    rv_hnsw *graph;
    rv_status status;

    if (bank->graph != NULL)
        return RV_OK;
    status = rv_hnsw_create(bank->allocator, &options, &graph, err);
    for (uint32_t i = 0; status == RV_OK && i < bank->count; i++) {
        rv_node node;
        status = rv_hnsw_insert(graph, bank->rows[i], &node, err);
        if (status != RV_OK)
            rv_hnsw_destroy(graph);
    }
    if (status == RV_OK)
        bank->graph = graph;
    return status;
}

static rv_status
lookup_by_graph(rv_bank *bank, const float *query, bank_ranking *ranking, rv_error *err)
{
    rv_metric space = rv_bank_space(bank->metric);
    uint32_t wanted = ranking->k < bank->count ? ranking->k : bank->count;
    uint32_t ef = wanted > GRAPH_EF / 2 ? 2 * wanted : GRAPH_EF;
    uint32_t found = 0;
    rv_beam_result *results;
    rv_status status = rv_bank_build_graph(bank, err);

    if (status != RV_OK)
        return status;
    results = rv_alloc_array(bank->allocator, wanted, sizeof(*results));
    if (results == NULL)
        return rv_fail_nomem(err, wanted * sizeof(*results));
    status =
        rv_hnsw_search(bank->graph, bank->allocator, query, wanted, ef, results, &found, NULL, err);
    for (uint32_t i = 0; status == RV_OK && i < found; i++) {
        const bank_entry *entry = bank->regions[results[i].node];
        rv_bank_rank(ranking, &entry->pattern, entry->centroid,
                     rv_raw_distance(space, query, entry->centroid, bank->dim));
    }
    rv_free(bank->allocator, results);
    return status;
}

rv_status
rv_bank_lookup(rv_bank *bank, const float *query, uint32_t k, rv_bank_match *out, uint32_t *count,
               rv_error *err)
{
    bank_ranking ranking = {.matches = out, .k = k};
    rv_status status = rv_bank_check_vector(query, bank->dim, "query", err);

    *count = 0;
    if (status != RV_OK || k == 0 || bank->count == 0)
        return status;
    if (bank->count > RV_BANK_EXACT_LIMIT) {
        status = lookup_by_graph(bank, query, &ranking, err);
        if (status != RV_OK)
            return status;
    } else {
        rv_bank_scan(bank, query);
        for (uint32_t i = 0; i < bank->count; i++)
            rv_bank_rank(&ranking, &bank->regions[i]->pattern, bank->rows[i], bank->scratch[i]);
    }
    rv_bank_finish_matches(&ranking, rv_bank_space(bank->metric));
    *count = ranking.count;
    return RV_OK;
}
