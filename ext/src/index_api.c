/*
 * index_api.c - passing what is asked of an index to its access method.
 */
#include "index_api.h"

#include "ruhnsw/ruhnsw_api.h"
#include "ruivfflat/ruivfflat_api.h"

/* A graph compares about m rows for each place of its ef_search; a list search has to compare many
 * more for the same recall. */
#define ROWS_PER_EFFORT 64
/* A trace of a graph jumps about in memory, one of lists reads it from end to end. */
#define GRAPH_TRACE_DISTANCES 20000
#define LISTS_TRACE_DISTANCES 500000
#define LEAST_TRACE_DISTANCES 1000

bool
ruv_is_index(Relation index)
{
    return ruhnsw_is_index(index) || ruivf_is_index(index);
}

void
ruv_index_identity(Relation index, RuvIndexIdentity *identity)
{
    if (ruivf_is_index(index)) {
        RuivfInfo info;

        ruivf_get_info(index, &info);
        *identity = info.identity;
    } else {
        RuhnswInfo info;

        ruhnsw_get_info(index, &info);
        *identity = info.identity;
    }
}

void
ruv_index_built_with(Relation index, int *m, int *lists)
{
    *m = *lists = 0;
    if (ruivf_is_index(index)) {
        RuivfInfo info;

        ruivf_get_info(index, &info);
        *lists = (int)info.lists;
    } else {
        RuhnswInfo info;

        ruhnsw_get_info(index, &info);
        *m = info.m;
    }
}

const float *
ruv_index_prepare(const RuvIndexIdentity *identity, Datum value)
{
    /* Both access methods compare vectors in the same form. */
    return ruhnsw_prepare_value(identity, value);
}

void
ruv_index_trace(Relation index, const float *query, const rv_trace_limits *limits,
                const float *truth, uint32 truth_count, rv_effort *efforts,
                rv_trace_summary *summary)
{
    if (ruivf_is_index(index))
        ruivf_trace(index, query, limits, truth, truth_count, efforts, summary);
    else
        ruhnsw_trace(index, query, limits, truth, truth_count, efforts, summary);
}

void
ruv_index_windows(Relation index, const RuvChoice *choice, int k, int *size, int *windows)
{
    bool by_slack = choice->mode == RV_SEARCH_ADAPTIVE && choice->way != RV_WAY_STATIC;

    *size = choice->window;
    *windows = 0;
    if (by_slack && ruivf_is_index(index)) {
        /* Each window is twice the one before. */
        for (int64 sum = 0, window = *size; sum < k; window *= 2, (*windows)++)
            sum += window;
        return;
    }
    if (by_slack)
        *size = ruhnsw_results_per_window(index, choice->window);
    *windows = (k + *size - 1) / *size;
}

uint64
ruv_index_trace_distances(Relation index, double rows)
{
    if (ruivf_is_index(index))
        return (uint64)Max(LEAST_TRACE_DISTANCES, Min(LISTS_TRACE_DISTANCES, rows));
    return (uint64)Max(LEAST_TRACE_DISTANCES, Min(GRAPH_TRACE_DISTANCES, rows / 2));
}

int
ruv_index_search(Relation index, const float *query, int k, int effort, rv_hit *hits)
{
    if (ruivf_is_index(index))
        return ruivf_search(index, query, k, effort * ROWS_PER_EFFORT, hits);
    return ruhnsw_search(index, query, k, effort, hits);
}

int
ruv_index_probe(Relation index, const float *query, int k, int effort, rv_hit *hits,
                uint64 *distances)
{
    if (ruivf_is_index(index))
        return ruivf_probe(index, query, k, effort, hits, distances);
    return ruhnsw_probe(index, query, k, effort, hits, distances);
}

const char *
ruv_index_effort_name(Relation index)
{
    return ruivf_is_index(index) ? "probes" : "ef_search";
}

int
ruv_index_least_effort(Relation index, int k)
{
    return ruivf_is_index(index) ? 1 : k;
}

int
ruv_index_most_effort(Relation index)
{
    RuivfInfo info;

    if (!ruivf_is_index(index))
        return RUV_MAX_EF_SEARCH;
    ruivf_get_info(index, &info);
    return (int)Min(info.lists, RUV_MAX_PROBES);
}

const char *
ruv_index_storage_name(Relation index)
{
    RuhnswInfo graph;
    RuivfInfo lists;

    if (ruivf_is_index(index)) {
        ruivf_get_info(index, &lists);
        return lists.storage;
    }
    ruhnsw_get_info(index, &graph);
    return graph.storage;
}
