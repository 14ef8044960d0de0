/*
 * costs.c - what searches of an index took, by the number of rows they gave: learned costs for the
 * planner.
 *
 * The worker sees every recorded search, and keeps running means of its latency and its distances
 * in the index's slot of shared memory, one for each doubling of k; there the planner reads them
 * without a lock. They forget with a half-life of some hundred searches, so that they follow the
 * index, the load and the calibration. The worker is the only writer. A torn pair of mean and count
 * does no harm. They last as long as the server runs and the index is not rebuilt.
 */
#include "learning/worker.h"

#include <math.h>

#include "selection.h"

#define RUV_COST_MEMORY 256
#define RUV_COST_UNITS 1000.0 /* of the stored means, per microsecond or distance */
#define RUV_RECALL_UNITS 1e9

static int
bucket_of(double k)
{
    int bucket = k < 2 ? 0 : (int)floor(log2(k));

    return Min(bucket, RUV_COST_BUCKETS - 1);
}

static void
add_to_mean(pg_atomic_uint64 *mean, double value, double weight)
{
    double former = (double)pg_atomic_read_u64(mean);

    pg_atomic_write_u64(mean, (uint64)(former + (value * RUV_COST_UNITS - former) * weight));
}

void
ruv_costs_init(RuvIndexSlot *slot)
{
    for (int i = 0; i < RUV_COST_BUCKETS; i++) {
        pg_atomic_init_u64(&slot->costs[i].searches, 0);
        pg_atomic_init_u64(&slot->costs[i].latency, 0);
        pg_atomic_init_u64(&slot->costs[i].distances, 0);
    }
    pg_atomic_init_u64(&slot->mean_recall, 0);
}

void
ruv_costs_reset(RuvIndexSlot *slot)
{
    for (int i = 0; i < RUV_COST_BUCKETS; i++) {
        pg_atomic_write_u64(&slot->costs[i].searches, 0);
        pg_atomic_write_u64(&slot->costs[i].latency, 0);
        pg_atomic_write_u64(&slot->costs[i].distances, 0);
    }
    pg_atomic_write_u64(&slot->mean_recall, 0);
}

void
ruv_costs_observe(RuvIndexSlot *slot, const rv_trajectory *head)
{
    RuvSearchCost *cost = &slot->costs[bucket_of(head->k)];
    uint64 searches = pg_atomic_read_u64(&cost->searches);
    double weight = 1.0 / Min(searches + 1, RUV_COST_MEMORY);

    add_to_mean(&cost->latency, head->latency_us, weight);
    add_to_mean(&cost->distances, head->distances, weight);
    pg_atomic_write_u64(&cost->searches, searches + 1);
}

void
ruv_costs_publish_recall(RuvIndexState *state)
{
    double recall = 0;
    int measured = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        if (sample->recall >= 0 && sample->even) {
            recall += sample->recall;
            measured++;
        }
    }
    /* 0 is unknown. */
    pg_atomic_write_u64(&state->slot->mean_recall,
                        measured == 0 ? 0 : 1 + (uint64)(recall / measured * RUV_RECALL_UNITS));
}

/* ---- reading ------------------------------------------------------------------------------- */

static RuvIndexSlot *
slot_of(Oid index_oid)
{
    RuvIndexCache *cache = ruv_index_cache(index_oid);

    return cache == NULL ? NULL : cache->slot;
}

static uint64
searches_in(const RuvIndexSlot *slot, int bucket)
{
    return pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &slot->costs[bucket].searches));
}

static void
read_cost(RuvIndexSlot *slot, int bucket, rv_selection_index *out)
{
    RuvSearchCost *cost = &slot->costs[bucket];
    uint64 recall = pg_atomic_read_u64(&slot->mean_recall);

    out->searches = (double)searches_in(slot, bucket);
    if (out->searches > 0) {
        out->latency_us = (double)pg_atomic_read_u64(&cost->latency) / RUV_COST_UNITS;
        out->distances = (double)pg_atomic_read_u64(&cost->distances) / RUV_COST_UNITS;
    }
    if (recall > 0)
        out->recall = (double)(recall - 1) / RUV_RECALL_UNITS;
}

/* The range of k at or next to the one wanted in which most searches of both were measured. */
static int
common_bucket(const RuvIndexSlot *a, const RuvIndexSlot *b, double k)
{
    int wanted = bucket_of(k);
    int best = wanted;

    for (int i = Max(wanted - 1, 0); i <= Min(wanted + 1, RUV_COST_BUCKETS - 1); i++)
        if (Min(searches_in(a, i), searches_in(b, i)) >
            Min(searches_in(a, best), searches_in(b, best)))
            best = i;
    return best;
}

void
ruv_learned_costs(Oid hnsw_oid, Oid ivfflat_oid, double k, rv_selection_index *hnsw,
                  rv_selection_index *ivfflat)
{
    RuvIndexSlot *first = slot_of(hnsw_oid);
    RuvIndexSlot *second = slot_of(ivfflat_oid);
    int bucket;

    hnsw->searches = hnsw->latency_us = hnsw->distances = hnsw->recall = -1;
    ivfflat->searches = ivfflat->latency_us = ivfflat->distances = ivfflat->recall = -1;
    if (first == NULL || second == NULL)
        return;
    bucket = common_bucket(first, second, k);
    read_cost(first, bucket, hnsw);
    read_cost(second, bucket, ivfflat);
}
