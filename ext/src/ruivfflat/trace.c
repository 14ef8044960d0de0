/*
 * trace.c - searches on behalf of the learning engine: the deep trace of one query, and a reference
 * search. Neither is reported as a search.
 */
#include "ruivfflat/ruivfflat.h"

#include "utils/memutils.h"

/* A search outside of a scan, in a memory context of its own. */
typedef struct Probe {
    MemoryContext context;
    MemoryContext former;
    rv_allocator allocator;
    RuivfReader reader;
    rv_ivf *ivf;
} Probe;

static void
open_probe(Probe *probe, Relation index, const float *query)
{
    rv_error err;

    probe->context =
        AllocSetContextCreate(CurrentMemoryContext, "ruivfflat trace", ALLOCSET_DEFAULT_SIZES);
    probe->former = MemoryContextSwitchTo(probe->context);
    ruv_context_allocator(probe->context, &probe->allocator);
    ruivf_reader_open(&probe->reader, index);
    ruivf_reader_aim(&probe->reader, query);
    ruv_check(rv_ivf_create(&probe->allocator, &probe->reader.source, &probe->ivf, &err), &err,
              "ruivfflat trace");
}

static void
close_probe(Probe *probe)
{
    MemoryContextSwitchTo(probe->former);
    MemoryContextDelete(probe->context);
}

void
ruivf_trace(Relation index, const float *query, const rv_trace_limits *limits, const float *truth,
            uint32 truth_count, rv_effort *efforts, rv_trace_summary *summary)
{
    Probe probe;
    rv_error err;

    open_probe(&probe, index, query);
    ruv_check(rv_ivf_trace(probe.ivf, limits, &probe.reader.scorer, probe.reader.meta.spread,
                           probe.reader.distances, probe.reader.meta.lists, truth, truth_count,
                           efforts, summary, &err),
              &err, "ruivfflat trace");
    close_probe(&probe);
}

/* Up to k hits within the first window of a search, nearest first. */
static int
search_window(Relation index, const float *query, int k, const rv_ivf_rule *rule, rv_hit *hits,
              uint64 *distances)
{
    Probe probe;
    rv_error err;
    int count = 0;

    open_probe(&probe, index, query);
    ruv_check(rv_ivf_start(probe.ivf, rule, &probe.reader.scorer, probe.reader.meta.spread,
                           probe.reader.distances, probe.reader.meta.lists, &err),
              &err, "ruivfflat search");
    while (count < k && (rv_ivf_get_stats(probe.ivf).windows == 0 || rv_ivf_ready(probe.ivf))) {
        rv_ivf_result result;
        rv_status status = rv_ivf_next(probe.ivf, &result, &err);

        if (status == RV_ERR_NOTFOUND)
            break;
        ruv_check(status, &err, "ruivfflat search");
        hits[count].id = result.row;
        hits[count].node = (uint64)result.list + 1;
        hits[count].distance = result.distance;
        hits[count++].reserved = 0;
    }
    *distances = rv_ivf_get_stats(probe.ivf).distances;
    close_probe(&probe);
    return count;
}

int
ruivf_search(Relation index, const float *query, int k, int rows, rv_hit *hits)
{
    rv_ivf_rule rule = {.probes = RV_IVF_MAX_LISTS, .max_rows = (uint64)Max(rows, 1)};
    uint64 distances;

    return search_window(index, query, k, &rule, hits, &distances);
}

int
ruivf_probe(Relation index, const float *query, int k, int probes, rv_hit *hits, uint64 *distances)
{
    rv_ivf_rule rule = {.probes = (uint32)Max(probes, 1)};

    return search_window(index, query, k, &rule, hits, distances);
}
