/*
 * trace.c - the deep trace: the least effort at which each true neighbour is found.
 *
 * The order of the lists does not depend on the stop rule; a smaller effort only visits fewer. So
 * one run shows every smaller one: list number j is reached at the slack of its excess, or at none
 * when fewer than a window's rows were there before it, and at j probes.
 */
#include "state.h"
#include "ruvector/memory.h"
#include "../base/internal.h"

#include <math.h>

/* True and found distances may come from different kernels: they agree to rounding. */
#define TOLERANCE 1e-5f

static rv_status
check_limits(const rv_trace_limits *limits, uint32_t truth_count, rv_error *err)
{
    if (limits->k < 1 || truth_count < 1 || truth_count > limits->k)
        return rv_fail(err, RV_ERR_RANGE, "%u true neighbours for a k of %u: 1 to k are needed",
                       truth_count, limits->k);
    return RV_OK;
}

/* Lists that the memory of queries names, plus one. */
static void
prefer(rv_ivf *ivf, const rv_trace_limits *limits)
{
    uint32_t lists[RV_MEMORY_MAX_NODES];
    uint32_t count = 0;

    for (uint32_t i = 0; i < limits->extra_count && count < RV_MEMORY_MAX_NODES; i++)
        if (limits->extra[i] > 0 && limits->extra[i] <= RV_IVF_MAX_LISTS)
            lists[count++] = (uint32_t)limits->extra[i] - 1;
    if (count > 0)
        rv_ivf_prefer(ivf, lists, count);
}

static void
note_list(rv_trace_summary *summary, uint32_t list)
{
    uint32_t room = sizeof(summary->nearest) / sizeof(*summary->nearest);

    for (uint32_t i = 0; i < summary->nearest_count; i++)
        if (summary->nearest[i] == (rv_node)list + 1)
            return;
    if (summary->nearest_count < room)
        summary->nearest[summary->nearest_count++] = (rv_node)list + 1;
}

/* Looks for true neighbours among the rows of the list that was just visited. */
static void
take_found(rv_ivf *ivf, float slack, uint64_t spent, uint32_t truth_count, rv_effort *efforts,
           rv_trace_summary *summary)
{
    for (size_t i = 0; i < ivf->suspects.count && summary->found < truth_count; i++) {
        const rv_ivf_candidate *item = &ivf->suspects.items[i];
        float distance = item->key;

        if (item->ref != RV_IVF_IS_EXACT &&
            !ivf->source.exact(ivf->source.ctx, item->ref, &distance))
            continue;
        if (!(distance <= ivf->bound))
            continue;
        efforts[summary->found++] =
            (rv_effort){.slack = slack,
                        .ef = (uint32_t)ivf->stats.hops,
                        .distances = spent < UINT32_MAX ? (uint32_t)spent : UINT32_MAX - 1};
        note_list(summary, item->list);
    }
    ivf->suspects.count = 0;
}

static rv_status
run(rv_ivf *ivf, const rv_trace_limits *limits, uint32_t truth_count, rv_effort *efforts,
    rv_trace_summary *summary, rv_error *err)
{
    float slack = 0.0f;
    rv_work_meter meter;

    rv_work_meter_start(&meter, limits->work, limits->work_slack, limits->work_ef);
    while (summary->found < truth_count || !rv_work_meter_done(&meter)) {
        float excess;
        uint64_t spent = ivf->stats.distances;
        rv_status status;

        if (ivf->list_count == 0) {
            rv_work_meter_finish(&meter, ivf->stats.distances);
            break;
        }
        excess = ivf->lists[0].excess;
        if (ivf->front.count == ivf->front_limit)
            slack = excess > slack ? excess : slack;
        if (slack > limits->max_slack || ivf->stats.hops >= limits->max_ef ||
            ivf->stats.distances >= limits->max_distances)
            break;
        rv_work_meter_note(&meter, slack, (uint32_t)ivf->stats.hops + 1, ivf->stats.distances);
        status = rv_ivf_visit_list(ivf, err);
        if (status != RV_OK)
            return status;
        take_found(ivf, slack, spent, truth_count, efforts, summary);
    }
    return RV_OK;
}

rv_status
rv_ivf_trace(rv_ivf *ivf, const rv_trace_limits *limits, const rv_ivf_scorer *scorer, float spread,
             const float *distances, uint32_t lists, const float *truth, uint32_t truth_count,
             rv_effort *efforts, rv_trace_summary *summary, rv_error *err)
{
    rv_ivf_rule rule = {.adaptive = true, .window = limits->k};
    rv_status status = check_limits(limits, truth_count, err);
    float last;

    if (status == RV_OK)
        status = rv_ivf_start(ivf, &rule, scorer, spread, distances, lists, err);
    if (status == RV_OK)
        status = rv_ivf_array_reserve(ivf->allocator, &ivf->front, limits->k, err);
    if (status != RV_OK)
        return status;
    last = truth[truth_count - 1];
    ivf->bound = last + TOLERANCE * (scorer->metric == RV_METRIC_COSINE ? fmaxf(fabsf(last), 1.0f)
                                                                        : fabsf(last));
    ivf->tracing = true;
    ivf->front_limit = limits->k;
    prefer(ivf, limits);
    *summary = (rv_trace_summary){.score = -1.0f};
    for (uint32_t i = 0; i < truth_count; i++)
        efforts[i] = (rv_effort){INFINITY, UINT32_MAX, UINT32_MAX};
    status = run(ivf, limits, truth_count, efforts, summary, err);
    ivf->tracing = false;
    summary->distances = ivf->stats.distances;
    summary->kth_distance = ivf->front.count > 0 ? ivf->front.items[0].key : INFINITY;
    return status;
}
