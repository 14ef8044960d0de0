/*
 * costs.c - what searches of an index took, by the number of rows they gave: learned costs for the
 * planner.
 *
 * The worker sees every recorded search, and keeps running means of its latency and its distances
 * in the index's slot of shared memory, one for each doubling of k; there the planner reads them
 * without a lock. They forget with a half-life of some hundred searches, so that they follow the
 * index, the load and the calibration. The worker is the only writer. A torn pair of mean and count
 * does no harm. They last until the index is rebuilt: every round stores them, and a worker that
 * finds none in shared memory, since the server has started anew, takes up those that are stored.
 * On a standby these are the primary's.
 */
#include "learning/store_values.h"
#include "learning/worker.h"

#include <math.h>

#include "access/xlog.h"
#include "catalog/pg_type.h"
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
    pg_atomic_init_u64(&slot->costs_epoch, 0);
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

/* What is there of another build goes: the index may have been rebuilt while no worker ran. */
static void
follow_build(RuvIndexSlot *slot, uint64 epoch)
{
    if (pg_atomic_read_u64(&slot->costs_epoch) == epoch)
        return;
    ruv_costs_reset(slot);
    pg_atomic_write_u64(&slot->costs_epoch, epoch);
}

void
ruv_costs_observe(RuvIndexSlot *slot, const rv_trajectory *head)
{
    RuvSearchCost *cost = &slot->costs[bucket_of(head->k)];
    uint64 searches;
    double weight;

    follow_build(slot, head->index_epoch);
    searches = pg_atomic_read_u64(&cost->searches);
    weight = 1.0 / Min(searches + 1, RUV_COST_MEMORY);

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
            recall += ruv_true_recall(state, sample);
            measured++;
        }
    }
    /* 0 is unknown. */
    pg_atomic_write_u64(&state->slot->mean_recall,
                        measured == 0 ? 0 : 1 + (uint64)(recall / measured * RUV_RECALL_UNITS));
}

/* ---- over a restart -------------------------------------------------------------------------- */

static bool
any_measured(RuvIndexSlot *slot)
{
    for (int i = 0; i < RUV_COST_BUCKETS; i++)
        if (pg_atomic_read_u64(&slot->costs[i].searches) > 0)
            return true;
    return false;
}

void
ruv_costs_save(RuvStore *store, const RuvIndexState *state)
{
    Oid types[5] = {OIDOID, INT8OID, INT8ARRAYOID, FLOAT4ARRAYOID, FLOAT4ARRAYOID};
    Datum values[5] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};
    uint64 searches[RUV_COST_BUCKETS];
    float latencies[RUV_COST_BUCKETS];
    float distances[RUV_COST_BUCKETS];

    if (state->slot->index_oid != state->index_oid ||
        pg_atomic_read_u64(&state->slot->costs_epoch) != state->identity.epoch)
        return;
    for (int i = 0; i < RUV_COST_BUCKETS; i++) {
        RuvSearchCost *cost = &state->slot->costs[i];

        searches[i] = pg_atomic_read_u64(&cost->searches);
        latencies[i] = (float)((double)pg_atomic_read_u64(&cost->latency) / RUV_COST_UNITS);
        distances[i] = (float)((double)pg_atomic_read_u64(&cost->distances) / RUV_COST_UNITS);
    }
    values[2] = ruv_node_array(searches, RUV_COST_BUCKETS);
    values[3] = ruv_float_array(latencies, RUV_COST_BUCKETS);
    values[4] = ruv_float_array(distances, RUV_COST_BUCKETS);
    ruv_store_run(store,
                  "UPDATE @.ruvector_index_state SET cost_epoch = $2, cost_searches = $3, "
                  "cost_latency_us = $4, cost_distances = $5 WHERE index_oid = $1",
                  5, types, values, NULL);
}

void
ruv_costs_load(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};
    Datum *columns[3];
    int counts[3];

    if (state->slot->index_oid != state->index_oid)
        return;
    follow_build(state->slot, state->identity.epoch);
    /* On a standby nothing is measured: what is there came from here before. */
    if ((any_measured(state->slot) && !RecoveryInProgress()) ||
        ruv_store_run(store,
                      "SELECT cost_searches, cost_latency_us, cost_distances "
                      "FROM @.ruvector_index_state WHERE index_oid = $1 AND cost_epoch = $2",
                      2, types, values, NULL) == 0)
        return;
    columns[0] = ruv_node_items(ruv_store_value(0, 1, NULL), &counts[0]);
    columns[1] = ruv_float_items(ruv_store_value(0, 2, NULL), &counts[1]);
    columns[2] = ruv_float_items(ruv_store_value(0, 3, NULL), &counts[2]);
    for (int i = 0; i < Min(RUV_COST_BUCKETS, Min(counts[0], Min(counts[1], counts[2]))); i++) {
        RuvSearchCost *cost = &state->slot->costs[i];

        pg_atomic_write_u64(&cost->latency,
                            (uint64)(DatumGetFloat4(columns[1][i]) * RUV_COST_UNITS));
        pg_atomic_write_u64(&cost->distances,
                            (uint64)(DatumGetFloat4(columns[2][i]) * RUV_COST_UNITS));
        pg_atomic_write_u64(&cost->searches, (uint64)DatumGetInt64(columns[0][i]));
    }
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
