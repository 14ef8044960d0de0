/*
 * trace.c - the deep trace: one best-first run that tells the least effort of every true neighbour.
 *
 * The run keeps two running maxima over the candidates it expands:
 *   slack  what the rule {window = k, slack, reference} needs not to stop before this candidate;
 *   ef     what the ef bound needs: one more than the number of visited nodes that are strictly
 *          nearer than the candidate. All nodes still open are at least as far as the candidate, so
 *          these are exactly the expanded nodes nearer than it. Expansions come nearly in ascending
 *          order, so a sorted array with insertion from its end keeps the ranks at almost no cost.
 * Both follow the rules of beam.c to the letter (no bound before something was found, slack only
 * with k found, equality goes on), so a search given an effort reported here finds what the trace
 * found with it.
 */
#include "state.h"

#include <float.h>
#include <string.h>

#include "../base/internal.h"

#define NEAREST_MAX 8
#define TRUTH_TOLERANCE 1e-6

typedef struct rv_trace {
    rv_beam *beam;
    rv_trace_limits limits;
    uint32_t max_ef; /* at least k */
    uint32_t spent;  /* distances before the expansion at hand */
    float slack;     /* running maxima */
    uint32_t ef;
    rv_slack_rule slack_rule; /* of slack */
    rv_slack_rule max_rule;   /* of limits.max_slack: what is farther is not kept */
    double truth_bound;       /* the farthest truth, tolerance included */
    uint32_t truth_count;
    rv_effort *efforts;
    uint32_t found;
    rv_work_meter meter;
    uint32_t nearest_count;
    rv_neighbour nearest[NEAREST_MAX]; /* ascending */
} rv_trace;

/* The least slack, rounded up to a float, at which the rule goes on to a candidate beyond kth, the
 * distance of the reference. */
static float
needed_slack(const rv_metric_map *map, float candidate, float kth)
{
    double nearer = rv_metric_map_apply(map, (double)kth);
    double ratio = rv_metric_map_apply(map, (double)candidate) / nearer;
    float slack = (float)(ratio - 1.0);
    rv_slack_rule rule;

    if (nearer <= 0.0 || !isfinite(ratio))
        return INFINITY;
    if (slack < FLT_MIN)
        slack = FLT_MIN;
    rule = rv_slack_rule_make(map, (double)slack);
    while (isfinite(slack) && (double)candidate > rv_slack_bound(&rule, kth)) {
        slack = nextafterf(slack, INFINITY);
        rule = rv_slack_rule_make(map, (double)slack);
    }
    return slack;
}

static inline float
kth_distance(const rv_beam *beam)
{
    return beam->pending.count > 0 ? -beam->pending.items[0].distance : INFINITY;
}

/* One more than the number of expanded nodes strictly nearer; notes the candidate as expanded. */
static uint32_t
rank_and_note(rv_trace *trace, float distance)
{
    rv_float_list *expanded = &trace->beam->expanded;
    size_t at = expanded->count;

    while (at > 0 && expanded->items[at - 1] >= distance)
        at--;
    if (at >= trace->max_ef)
        return UINT32_MAX;
    /* With max_ef nearer ones, the farthest cannot matter to any rank within the limit. */
    if (expanded->count == trace->max_ef)
        expanded->count--;
    memmove(expanded->items + at + 1, expanded->items + at,
            (expanded->count - at) * sizeof *expanded->items);
    expanded->items[at] = distance;
    expanded->count++;
    return (uint32_t)at + 1;
}

/* Raises the running maxima to what expanding the candidate takes; false: beyond the limits. */
static bool
raise_effort(rv_trace *trace, float candidate)
{
    const rv_beam *beam = trace->beam;
    uint32_t rank = rank_and_note(trace, candidate);

    if (beam->pending.count == 0)
        return true;
    if (rank > trace->max_ef)
        return false;
    if (rank > trace->ef)
        trace->ef = rank;
    if (beam->pending.count >= trace->limits.k) {
        float kth = rv_beam_reference_distance(beam);

        if ((double)candidate > rv_slack_bound(&trace->slack_rule, kth)) {
            trace->slack = needed_slack(&beam->map, candidate, kth);
            trace->slack_rule = rv_slack_rule_make(&beam->map, (double)trace->slack);
        }
    }
    return trace->slack <= trace->limits.max_slack;
}

static void
note_nearest(rv_trace *trace, rv_neighbour entry)
{
    uint32_t at = trace->nearest_count;

    if (at == NEAREST_MAX) {
        if (entry.distance >= trace->nearest[at - 1].distance)
            return;
        at--;
    } else {
        trace->nearest_count++;
    }
    for (; at > 0 && trace->nearest[at - 1].distance > entry.distance; at--)
        trace->nearest[at] = trace->nearest[at - 1];
    trace->nearest[at] = entry;
}

static bool
is_true(const rv_trace *trace, const rv_neighbour *entry)
{
    const rv_trace_limits *limits = &trace->limits;

    if (limits->within != NULL)
        return limits->within(limits->within_ctx, entry, trace->truth_bound);
    return (double)entry->distance <= trace->truth_bound;
}

/* What is found from here on is found at this work. */
static void
note_spent(rv_trace *trace)
{
    uint64_t distances = trace->beam->stats.distances;

    trace->spent = distances < UINT32_MAX ? (uint32_t)distances : UINT32_MAX - 1;
}

static void
add_visited(rv_trace *trace, rv_neighbour entry)
{
    rv_beam *beam = trace->beam;

    if ((entry.flags & RV_NEIGHBOUR_DEAD) == 0) {
        rv_neighbour held = entry;

        rv_beam_note_best(beam, entry.distance);
        held.distance = -entry.distance;
        if (beam->pending.count < trace->limits.k)
            rv_entry_heap_push(&beam->pending, held);
        else if (held.distance > beam->pending.items[0].distance)
            rv_entry_heap_replace_top(&beam->pending, held);
        note_nearest(trace, entry);
        if (trace->found < trace->truth_count && is_true(trace, &entry)) {
            rv_effort *effort = &trace->efforts[trace->found++];

            effort->slack = trace->slack;
            effort->ef = trace->ef;
            effort->distances = trace->spent;
        }
    }
    if (beam->pending.count < trace->limits.k ||
        (double)entry.distance <=
            rv_slack_bound(&trace->max_rule, rv_beam_reference_distance(beam)))
        rv_entry_heap_push(&beam->open, entry);
}

/* Room for the rank of one candidate and for what its expansion may add. */
static rv_status
reserve_expansion(rv_beam *beam, size_t extra, rv_error *err)
{
    rv_status status;

    if ((status = rv_entry_list_reserve(beam->allocator, &beam->open, extra, err)) != RV_OK ||
        (status = rv_entry_list_reserve(beam->allocator, &beam->pending, extra, err)) != RV_OK)
        return status;
    return rv_float_list_reserve(beam->allocator, &beam->expanded, 1, err);
}

static bool
wants_more(const rv_trace *trace)
{
    return trace->found < trace->truth_count || !rv_work_meter_done(&trace->meter);
}

static rv_status
run_trace(rv_trace *trace, rv_error *err)
{
    rv_beam *beam = trace->beam;
    const rv_trace_limits *limits = &trace->limits;
    rv_status status = reserve_expansion(beam, beam->beyond.count, err);

    if (status != RV_OK)
        return status;
    note_spent(trace);
    for (size_t i = 0; i < beam->beyond.count; i++)
        add_visited(trace, beam->beyond.items[i]);
    rv_entry_list_clear(&beam->beyond);

    while (wants_more(trace)) {
        rv_neighbour next;

        if (beam->open.count == 0) {
            rv_work_meter_finish(&trace->meter, beam->stats.distances);
            break;
        }
        if (limits->max_distances > 0 && beam->stats.distances >= limits->max_distances)
            break;
        status = reserve_expansion(beam, beam->graph->max_degree, err);
        if (status != RV_OK)
            return status;
        next = rv_entry_heap_pop(&beam->open);
        if (!raise_effort(trace, next.distance))
            break;
        rv_work_meter_note(&trace->meter, trace->slack, trace->ef, beam->stats.distances);
        note_spent(trace);
        status = rv_beam_expand(beam, next.node, 0, err);
        if (status != RV_OK)
            return status;
        for (uint32_t i = 0; i < beam->fresh_count; i++)
            add_visited(trace, beam->fresh[i]);
        if (++beam->base_hops == RV_SCORE_HOPS && beam->pending.count > 0)
            beam->stats.score = rv_beam_score(beam, kth_distance(beam));
    }
    return RV_OK;
}

static rv_status
check_trace(const rv_trace_limits *limits, uint32_t truth_count, rv_error *err)
{
    if (limits->k < 1)
        return rv_fail(err, RV_ERR_RANGE, "k is 0, must be at least 1");
    if (truth_count < 1 || truth_count > limits->k)
        return rv_fail(err, RV_ERR_RANGE, "%u true neighbours given, must be 1 to k = %u",
                       truth_count, limits->k);
    if (limits->max_ef < 1)
        return rv_fail(err, RV_ERR_RANGE, "max_ef is 0, must be at least 1");
    if (!(limits->max_slack >= 0.0f))
        return rv_fail(err, RV_ERR_RANGE, "max_slack is %g, must be at least 0",
                       (double)limits->max_slack);
    return RV_OK;
}

static double
truth_bound(rv_metric metric, float farthest)
{
    double scale = fabs((double)farthest);

    /* Cosine distances are differences from 1, so their error does not shrink with them. */
    if (metric == RV_METRIC_COSINE && scale < 1.0)
        scale = 1.0;
    return (double)farthest + TRUTH_TOLERANCE * scale;
}

rv_status
rv_beam_trace(rv_beam *beam, const rv_trace_limits *limits, rv_node entry, int entry_level,
              const float *truth, uint32_t truth_count, rv_effort *efforts,
              rv_trace_summary *summary, rv_error *err)
{
    rv_status status = check_trace(limits, truth_count, err);
    rv_trace trace;

    beam->state = RV_BEAM_IDLE;
    if (status != RV_OK)
        return status;
    memset(&trace, 0, sizeof trace);
    trace.beam = beam;
    trace.limits = *limits;
    trace.max_ef = limits->max_ef > limits->k ? limits->max_ef : limits->k;
    trace.ef = limits->k;
    trace.slack_rule = rv_slack_rule_make(&beam->map, 0.0);
    trace.max_rule = rv_slack_rule_make(&beam->map, (double)limits->max_slack);
    trace.truth_bound = truth_bound(beam->map.metric, truth[truth_count - 1]);
    trace.truth_count = truth_count;
    trace.efforts = efforts;
    rv_work_meter_start(&trace.meter, limits->work, limits->work_slack, limits->work_ef);
    for (uint32_t i = 0; i < truth_count; i++)
        efforts[i] = (rv_effort){INFINITY, UINT32_MAX, UINT32_MAX};

    status = rv_beam_expect(beam, limits->k, err);
    if (status != RV_OK)
        return status;
    rv_beam_reset(beam);
    rv_float_list_clear(&beam->expanded);
    status = rv_beam_set_reference(beam, limits->reference, limits->k, err);
    if (status == RV_OK)
        status = rv_beam_enter(beam, entry, entry_level, limits->extra, limits->extra_count, err);
    if (status == RV_OK)
        status = run_trace(&trace, err);
    if (status != RV_OK)
        return status;

    memset(summary, 0, sizeof *summary);
    summary->distances = beam->stats.distances;
    summary->found = trace.found;
    summary->score = beam->stats.score;
    summary->kth_distance = kth_distance(beam);
    summary->nearest_count = trace.nearest_count;
    for (uint32_t i = 0; i < trace.nearest_count; i++)
        summary->nearest[i] = trace.nearest[i].node;
    return RV_OK;
}
