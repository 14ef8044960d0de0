/*
 * batch.c - the arithmetic of distillation: over up to a million judged samples, in groups.
 *
 * A sample's efforts tell for each of its true neighbours the least slack (and ef) that finds it.
 * Pool them over a group, give each sample a total weight of its own, sort: then the recall reached
 * at a slack is the share of weight at or below it, and the slack for a recall is a quantile. The
 * sorted pools are kept per group, so asking for twelve targets costs one sort.
 *
 * No Lua here: kernels.c offers these functions to the policy, distillation.c uses them itself.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/internal.h"

static void *
take(const rv_batch *batch, size_t count, size_t size)
{
    return batch->allocator.alloc(batch->allocator.ctx, (count ? count : 1) * size);
}

static void
give(const rv_batch *batch, void *pointer)
{
    if (pointer != NULL)
        batch->allocator.free(batch->allocator.ctx, pointer);
}

static rv_status
no_memory(rv_error *err)
{
    if (err != NULL) {
        err->status = RV_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "no memory for the samples of a distillation");
    }
    return RV_ERR_NOMEM;
}

static void
forget_needs(rv_batch *batch)
{
    for (int kind = 0; kind < 2; kind++)
        for (int group = 0; group <= RV_MAX_CLUSTERS; group++) {
            give(batch, batch->needs[kind][group]);
            batch->needs[kind][group] = NULL;
        }
}

static void
forget_clusters(rv_batch *batch)
{
    forget_needs(batch);
    give(batch, batch->centroids);
    give(batch, batch->assignment);
    give(batch, batch->order);
    give(batch, batch->starts);
    batch->centroids = NULL;
    batch->assignment = batch->order = batch->starts = NULL;
    batch->clusters = 0;
}

rv_status
rv_batch_init(rv_batch *batch, const rv_allocator *allocator, const rv_distill_input *in,
              rv_error *err)
{
    memset(batch, 0, sizeof *batch);
    batch->in = in;
    batch->allocator = *allocator;
    batch->weights = take(batch, in->sample_count, sizeof *batch->weights);
    if (batch->weights == NULL)
        return no_memory(err);
    for (uint32_t i = 0; i < in->sample_count; i++)
        batch->weights[i] = in->samples[i].effort_count > 0 ? in->samples[i].weight : 0;
    return RV_OK;
}

void
rv_batch_free(rv_batch *batch)
{
    forget_clusters(batch);
    give(batch, batch->weights);
    batch->weights = NULL;
}

void
rv_batch_weigh(rv_batch *batch, const double *weights)
{
    forget_needs(batch);
    for (uint32_t i = 0; i < batch->in->sample_count; i++)
        batch->weights[i] =
            batch->in->samples[i].effort_count > 0 ? weights[i] * batch->in->samples[i].weight : 0;
}

/* ---- groups ------------------------------------------------------------------------------- */

/* The samples of a group: *count numbers; NULL means 0, 1, 2, ... */
static const uint32_t *
members(const rv_batch *batch, uint32_t group, uint32_t *count)
{
    if (group == 0) {
        *count = batch->in->sample_count;
        return NULL;
    }
    *count = batch->starts[group] - batch->starts[group - 1];
    return batch->order + batch->starts[group - 1];
}

static const rv_sample *
member(const rv_batch *batch, const uint32_t *list, uint32_t i, double *weight)
{
    uint32_t number = list ? list[i] : i;

    *weight = batch->weights[number];
    return &batch->in->samples[number];
}

uint32_t
rv_batch_size(const rv_batch *batch, uint32_t group)
{
    uint32_t count, size = 0;
    const uint32_t *list = members(batch, group, &count);
    double weight;

    for (uint32_t i = 0; i < count; i++) {
        member(batch, list, i, &weight);
        size += weight > 0;
    }
    return size;
}

/* Sorts the samples by cluster: counting sort over the assignment. */
static void
order_by_cluster(rv_batch *batch)
{
    uint32_t count = batch->in->sample_count;

    memset(batch->starts, 0, (batch->clusters + 1) * sizeof *batch->starts);
    for (uint32_t i = 0; i < count; i++)
        batch->starts[batch->assignment[i] + 1]++;
    for (uint32_t c = 0; c < batch->clusters; c++)
        batch->starts[c + 1] += batch->starts[c];
    for (uint32_t i = 0; i < count; i++)
        batch->order[batch->starts[batch->assignment[i]]++] = i;
    for (uint32_t c = batch->clusters; c > 0; c--)
        batch->starts[c] = batch->starts[c - 1];
    batch->starts[0] = 0;
}

/* The kernels' part of the call's time limit; see sandbox.c. */
static bool
out_of_time(void *deadline_ns)
{
    return rv_clock_ns() > *(int64_t *)deadline_ns;
}

rv_status
rv_batch_cluster(rv_batch *batch, uint32_t clusters, uint32_t iterations, int64_t deadline_ns,
                 rv_error *err)
{
    const rv_distill_input *in = batch->in;
    rv_kmeans_options options = {.metric = in->metric,
                                 .dim = in->dim,
                                 .clusters = clusters,
                                 .max_iterations = iterations,
                                 .tolerance = 1e-6,
                                 .seed = in->seed,
                                 .cancelled = out_of_time,
                                 .cancelled_ctx = &deadline_ns};
    rv_kmeans_result result;
    rv_status status;
    float *rows;

    forget_clusters(batch);
    if (in->sample_count == 0)
        return RV_OK;
    rows = take(batch, (size_t)in->sample_count * in->dim, sizeof *rows);
    batch->centroids = take(batch, (size_t)clusters * in->dim, sizeof *batch->centroids);
    batch->assignment = take(batch, in->sample_count, sizeof *batch->assignment);
    batch->order = take(batch, in->sample_count, sizeof *batch->order);
    batch->starts = take(batch, clusters + 1, sizeof *batch->starts);
    if (rows == NULL || batch->centroids == NULL || batch->assignment == NULL ||
        batch->order == NULL || batch->starts == NULL) {
        give(batch, rows);
        forget_clusters(batch);
        return no_memory(err);
    }
    for (uint32_t i = 0; i < in->sample_count; i++)
        memcpy(rows + (size_t)i * in->dim, in->samples[i].query, in->dim * sizeof *rows);
    status = rv_kmeans(&batch->allocator, &options, rows, in->sample_count, batch->centroids,
                       batch->assignment, &result, err);
    give(batch, rows);
    if (status != RV_OK) {
        forget_clusters(batch);
        return status;
    }
    batch->clusters = result.clusters;
    order_by_cluster(batch);
    return RV_OK;
}

/* ---- needs: efforts pooled and sorted ----------------------------------------------------- */

static double
effort_value(const rv_effort *effort, rv_effort_kind kind)
{
    if (kind == RV_NEED_SLACK)
        return effort->slack;
    return effort->ef == UINT32_MAX ? (double)INFINITY : (double)effort->ef;
}

static int
compare_needs(const void *a, const void *b)
{
    double left = ((const rv_need *)a)->value, right = ((const rv_need *)b)->value;

    return (left > right) - (left < right);
}

static rv_status
pool(rv_batch *batch, rv_effort_kind kind, uint32_t group, rv_error *err)
{
    uint32_t count;
    const uint32_t *list = members(batch, group, &count);
    size_t total = 0, filled = 0;
    double weight, sum = 0;
    rv_need *needs;

    if (batch->needs[kind][group] != NULL)
        return RV_OK;
    for (uint32_t i = 0; i < count; i++) {
        const rv_sample *sample = member(batch, list, i, &weight);

        if (weight > 0)
            total += sample->effort_count;
    }
    needs = take(batch, total, sizeof *needs);
    if (needs == NULL)
        return no_memory(err);
    for (uint32_t i = 0; i < count; i++) {
        const rv_sample *sample = member(batch, list, i, &weight);

        for (uint32_t j = 0; weight > 0 && j < sample->effort_count; j++) {
            needs[filled].value = effort_value(&sample->efforts[j], kind);
            needs[filled++].cumulative = weight / sample->effort_count;
        }
    }
    qsort(needs, filled, sizeof *needs, compare_needs);
    for (size_t i = 0; i < filled; i++)
        needs[i].cumulative = sum += needs[i].cumulative;
    batch->needs[kind][group] = needs;
    batch->need_counts[kind][group] = filled;
    return RV_OK;
}

rv_status
rv_batch_quantile(rv_batch *batch, rv_effort_kind kind, uint32_t group, double target, double *out,
                  rv_error *err)
{
    rv_status status = pool(batch, kind, group, err);
    const rv_need *needs = batch->needs[kind][group];
    size_t low = 0, high = batch->need_counts[kind][group];
    double wanted;

    if (status != RV_OK)
        return status;
    if (high == 0) {
        *out = INFINITY;
        return RV_OK;
    }
    wanted = target * needs[high - 1].cumulative * (1 - 1e-12); /* forgive rounding of the sums */
    high--;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (needs[middle].cumulative >= wanted)
            high = middle;
        else
            low = middle + 1;
    }
    *out = needs[low].value;
    return RV_OK;
}

rv_status
rv_batch_highest(rv_batch *batch, rv_effort_kind kind, uint32_t group, double *out, rv_error *err)
{
    rv_status status = pool(batch, kind, group, err);
    size_t count = batch->need_counts[kind][group];

    if (status != RV_OK)
        return status;
    while (count > 0 && isinf(batch->needs[kind][group][count - 1].value))
        count--;
    *out = count > 0 ? batch->needs[kind][group][count - 1].value : 0;
    return RV_OK;
}

/* ---- recall, work ------------------------------------------------------------------------- */

/* Neighbours of a sample found within slack; the efforts ascend. */
static uint32_t
found_within(const rv_sample *sample, double slack)
{
    uint32_t found = 0;

    while (found < sample->effort_count && sample->efforts[found].slack <= slack)
        found++;
    return found;
}

typedef struct mean_sums {
    double weight, value, weight2, weight2_value, weight2_value2;
} mean_sums;

static void
add_recall(mean_sums *sums, const rv_sample *sample, double weight, double slack)
{
    double recall = (double)found_within(sample, slack) / sample->effort_count;

    sums->weight += weight;
    sums->value += weight * recall;
    sums->weight2 += weight * weight;
    sums->weight2_value += weight * weight * recall;
    sums->weight2_value2 += weight * weight * recall * recall;
}

/* Weighted mean and its standard error, sqrt(sum w^2 (r - mean)^2) / sum w. */
static void
finish_mean(const mean_sums *sums, double *mean, double *error)
{
    double squares;

    if (sums->weight <= 0) {
        *mean = *error = 0;
        return;
    }
    *mean = sums->value / sums->weight;
    squares =
        sums->weight2_value2 - 2 * *mean * sums->weight2_value + *mean * *mean * sums->weight2;
    *error = sqrt(fmax(squares, 0)) / sums->weight;
}

void
rv_batch_recall(const rv_batch *batch, uint32_t group, double slack, double *mean, double *error)
{
    uint32_t count;
    const uint32_t *list = members(batch, group, &count);
    mean_sums sums = {0};
    double weight;

    for (uint32_t i = 0; i < count; i++) {
        const rv_sample *sample = member(batch, list, i, &weight);

        if (weight > 0)
            add_recall(&sums, sample, weight, slack);
    }
    finish_mean(&sums, mean, error);
}

void
rv_batch_recall_by_cluster(const rv_batch *batch, const double *slacks, double *mean, double *error)
{
    mean_sums sums = {0};

    for (uint32_t i = 0; i < batch->in->sample_count; i++)
        if (batch->weights[i] > 0)
            add_recall(&sums, &batch->in->samples[i], batch->weights[i],
                       slacks[batch->assignment[i]]);
    finish_mean(&sums, mean, error);
}

double
rv_batch_distances(const rv_batch *batch, uint32_t group, double slack)
{
    uint32_t count;
    const uint32_t *list = members(batch, group, &count);
    double weight, total = 0, sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        const rv_sample *sample = member(batch, list, i, &weight);
        uint32_t found = weight > 0 ? found_within(sample, slack) : 0;

        if (found == 0 || sample->efforts[found - 1].distances == UINT32_MAX)
            continue;
        total += weight;
        sum += weight * sample->efforts[found - 1].distances;
    }
    return total > 0 ? sum / total : 0;
}

typedef struct work_sums {
    double weight, work;
} work_sums;

static void
add_work(work_sums *sums, const rv_sample *sample, double weight, double slack)
{
    double work = sample->work == NULL || weight <= 0 ? -1 : rv_work_at_slack(sample->work, slack);

    if (work < 0)
        return;
    sums->weight += weight;
    sums->work += weight * work;
}

double
rv_batch_work(const rv_batch *batch, uint32_t group, double slack)
{
    uint32_t count;
    const uint32_t *list = members(batch, group, &count);
    work_sums sums = {0};
    double weight;

    for (uint32_t i = 0; i < count; i++) {
        const rv_sample *sample = member(batch, list, i, &weight);

        add_work(&sums, sample, weight, slack);
    }
    return sums.weight > 0 ? sums.work / sums.weight : -1;
}

double
rv_batch_work_by_cluster(const rv_batch *batch, const double *slacks)
{
    work_sums sums = {0};

    for (uint32_t i = 0; i < batch->in->sample_count; i++)
        add_work(&sums, &batch->in->samples[i], batch->weights[i], slacks[batch->assignment[i]]);
    return sums.weight > 0 ? sums.work / sums.weight : -1;
}

/* ---- where a group lies ------------------------------------------------------------------- */

rv_status
rv_batch_radius(const rv_batch *batch, uint32_t group, double share, double *out, rv_error *err)
{
    const rv_distill_input *in = batch->in;
    rv_metric metric = in->metric == RV_METRIC_IP ? RV_METRIC_COSINE : in->metric;
    rv_metric_map map = rv_metric_map_make(metric, 0, 0);
    uint32_t count, filled = 0;
    const uint32_t *list = members(batch, group, &count);
    double weight, *distances;
    rv_status status;

    *out = 0;
    if (group == 0)
        return RV_OK;
    distances = take(batch, count, sizeof *distances);
    if (distances == NULL)
        return no_memory(err);
    for (uint32_t i = 0; i < count; i++) {
        const rv_sample *sample = member(batch, list, i, &weight);
        const float *centroid = batch->centroids + (size_t)(group - 1) * in->dim;

        if (weight > 0)
            distances[filled++] = rv_metric_map_apply(
                &map, rv_raw_distance(metric, sample->query, centroid, in->dim));
    }
    status = filled > 0 ? rv_quantile(distances, NULL, filled, share, out, err) : RV_OK;
    give(batch, distances);
    return status;
}

typedef struct node_count {
    uint64_t node;
    uint32_t count;
} node_count;

static int
compare_nodes(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

/* Keeps the limit most frequent in top, most frequent first; equal ones by node. */
static void
offer(node_count *top, uint32_t *count, uint32_t limit, node_count candidate)
{
    uint32_t at;

    if (*count == limit && (limit == 0 || top[limit - 1].count >= candidate.count))
        return;
    at = *count < limit ? (*count)++ : limit - 1;
    while (at > 0 && top[at - 1].count < candidate.count) {
        top[at] = top[at - 1];
        at--;
    }
    top[at] = candidate;
}

rv_status
rv_batch_entry_points(const rv_batch *batch, uint32_t group, uint32_t limit, uint64_t *nodes,
                      uint32_t *out_count, rv_error *err)
{
    uint32_t count, kept = 0;
    const uint32_t *list = members(batch, group, &count);
    node_count top[RV_PATTERN_ENTRY_POINTS];
    size_t filled = 0;
    double weight;
    uint64_t *all = take(batch, (size_t)count * 8, sizeof *all);

    *out_count = 0;
    if (all == NULL)
        return no_memory(err);
    for (uint32_t i = 0; i < count; i++) {
        const rv_sample *sample = member(batch, list, i, &weight);

        for (uint32_t j = 0; weight > 0 && j < sample->nearest_count && j < 8; j++)
            all[filled++] = sample->nearest[j];
    }
    qsort(all, filled, sizeof *all, compare_nodes);
    for (size_t i = 0; i < filled;) {
        node_count run = {all[i], 0};

        for (; i < filled && all[i] == run.node; i++)
            run.count++;
        offer(top, &kept, limit, run);
    }
    give(batch, all);
    for (uint32_t i = 0; i < kept; i++)
        nodes[i] = top[i].node;
    *out_count = kept;
    return RV_OK;
}
