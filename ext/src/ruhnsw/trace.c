/*
 * trace.c - searches on behalf of the learning engine: the deep trace of one query, and a reference
 * search at a static effort. Neither is reported as a search.
 */
#include "ruhnsw/ruhnsw.h"

#include <math.h>

#include "utils/memutils.h"

/* Distances to vectors of 24 bits differ from those of the rows by more than their rounding. */
#define FIXED24_TOLERANCE 1e-5

/* A search outside of a scan, in a memory context of its own. */
typedef struct Probe {
    MemoryContext context;
    MemoryContext former;
    rv_allocator allocator;
    RuhnswGraph graph;
    rv_beam *beam;
    float query_norm;
} Probe;

static void
open_probe(Probe *probe, Relation index, const float *query)
{
    rv_metric_map map;
    rv_error err;

    probe->context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw trace", ALLOCSET_DEFAULT_SIZES);
    probe->former = MemoryContextSwitchTo(probe->context);
    ruv_context_allocator(probe->context, &probe->allocator);
    ruhnsw_graph_open(&probe->graph, index);
    probe->graph.query = query;
    probe->query_norm = rv_norm(query, probe->graph.meta.dim);
    map = rv_metric_map_make(probe->graph.metric, probe->graph.meta.max_norm, probe->query_norm);
    ruv_check(rv_beam_create(&probe->allocator, &probe->graph.graph, &map, &probe->beam, &err),
              &err, "ruhnsw trace");
}

static void
close_probe(Probe *probe)
{
    MemoryContextSwitchTo(probe->former);
    MemoryContextDelete(probe->context);
}

/*
 * Whether a node is no farther than a raw distance, by its vector. The trace walks by codes, as
 * searches do; most nodes are so far by their code that their vector need not be read.
 */
static bool
is_within(void *ctx, const rv_neighbour *visited, double farthest)
{
    Probe *probe = ctx;
    RuhnswResult result;

    if (probe->graph.geometry.storage == RUHNSW_STORAGE_FIXED24)
        farthest += FIXED24_TOLERANCE * fabs(farthest);
    return ruhnsw_lower_bound(&probe->graph, probe->query_norm, visited->distance) <= farthest &&
           ruhnsw_load_result(&probe->graph, visited->node, &result) && result.distance <= farthest;
}

/*
 * Where codes are all there is: the distances of true neighbours are those of the rows, the search
 * sees those of the codes. They differ by the projection of the code's error onto the direction of
 * the query: of an error in a random direction its length / sqrt(dim), twice that being rare. A
 * neighbour counts as found when its code is no farther than the true distance and this much, in
 * metric form.
 */
static float
code_distance_bound(const Probe *probe, float truth)
{
    const RuhnswMetaData *meta = &probe->graph.meta;
    rv_metric_map map = rv_metric_map_make(probe->graph.metric, meta->max_norm, probe->query_norm);
    double metric;

    if (probe->graph.metric == RV_METRIC_L1)
        return truth + 2.0f * meta->max_error;
    if (map.b == 0.0f)
        return truth;
    metric = rv_metric_map_apply(&map, truth) + 2.0 * meta->max_error / sqrt(meta->dim);
    return (float)((metric * metric - map.a) / map.b);
}

void
ruhnsw_trace(Relation index, const float *query, const rv_trace_limits *limits, const float *truth,
             uint32 truth_count, rv_effort *efforts, rv_trace_summary *summary)
{
    rv_trace_limits widened = *limits;
    Probe probe = {0};
    float *bounds;
    int level;
    rv_error err;

    open_probe(&probe, index, query);
    widened.k = ruhnsw_window(&probe.graph, limits->k);
    widened.reference = limits->k;
    if (ruhnsw_has_rest(probe.graph.geometry.storage)) {
        widened.within = is_within;
        widened.within_ctx = &probe;
    } else {
        bounds = palloc(sizeof(float) * truth_count);
        for (uint32 i = 0; i < truth_count; i++)
            bounds[i] = code_distance_bound(&probe, truth[i]);
        truth = bounds;
    }
    /* As a scan does: remembered entry points take the place of the descent. */
    level = limits->extra_count > 0 ? Min(probe.graph.meta.entry_level, 0)
                                    : probe.graph.meta.entry_level;
    ruv_check(rv_beam_trace(probe.beam, &widened, probe.graph.meta.entry, level, truth, truth_count,
                            efforts, summary, &err),
              &err, "ruhnsw trace");
    close_probe(&probe);
}

/* Adds the rows of one node to the hits; returns their new number, at most k. */
static int
add_hits(Probe *probe, const RuhnswResult *result, int count, int k, rv_hit *hits)
{
    ItemPointerData tids[RUHNSW_CHAIN_TIDS];
    uint64 position = 0;

    while (count < k && position != RUHNSW_ROWS_END) {
        int rows = ruhnsw_next_rows(&probe->graph, result->node, &position, tids);

        for (int i = 0; i < rows && count < k; i++) {
            hits[count].id = ruhnsw_position(ItemPointerGetBlockNumber(&tids[i]),
                                             ItemPointerGetOffsetNumber(&tids[i]));
            hits[count].node = result->node;
            hits[count].distance = result->distance;
            hits[count++].reserved = 0;
        }
    }
    return count;
}

static int
by_distance(const void *a, const void *b)
{
    float x = ((const RuhnswResult *)a)->distance;
    float y = ((const RuhnswResult *)b)->distance;

    return x < y ? -1 : x > y ? 1 : 0;
}

int
ruhnsw_search(Relation index, const float *query, int k, int ef_search, rv_hit *hits)
{
    uint64 distances;

    return ruhnsw_probe(index, query, k, ef_search, hits, &distances);
}

int
ruhnsw_probe(Relation index, const float *query, int k, int ef_search, rv_hit *hits,
             uint64 *distances)
{
    rv_stop_rule rule = {0};
    RuhnswResult *results;
    int result_count = 0;
    rv_node root;
    Probe probe = {0};
    rv_error err;
    int count = 0;

    open_probe(&probe, index, query);
    root = probe.graph.meta.root;
    rule.window = Max(ef_search, 1);
    if (probe.graph.meta.entry_level >= 0)
        ruv_check(rv_beam_start(probe.beam, &rule, probe.graph.meta.entry,
                                probe.graph.meta.entry_level, &root, 1, &err),
                  &err, "ruhnsw search");
    results = MemoryContextAllocHuge(probe.context, sizeof(RuhnswResult) * rule.window);
    while (probe.graph.meta.entry_level >= 0 && result_count < (int)rule.window) {
        rv_beam_result result;
        rv_status status;

        if (rv_beam_get_stats(probe.beam).windows > 0 && !rv_beam_ready(probe.beam))
            break;
        status = rv_beam_next(probe.beam, &result, &err);
        if (status == RV_ERR_NOTFOUND)
            break;
        ruv_check(status, &err, "ruhnsw search");
        if (ruhnsw_load_result(&probe.graph, result.node, &results[result_count]))
            result_count++;
    }
    qsort(results, result_count, sizeof(RuhnswResult), by_distance);
    for (int i = 0; i < result_count && count < k; i++)
        count = add_hits(&probe, &results[i], count, k, hits);
    *distances = rv_beam_get_stats(probe.beam).distances;
    close_probe(&probe);
    return count;
}
