/*
 * beam.c - the search in windows: start, next, the stop bounds.
 *
 * One window is one pass of run_window: what earlier windows left is sorted into place
 * (open_window), nodes are expanded nearest first until a bound stops it, and the best pending
 * results are queued for handing out (close_window). state.h says where nodes are kept.
 *
 * The rules of the bounds:
 *   - a bound ends a window only when it has something to hand out, so that a stretch of dead nodes
 *     cannot end a scan;
 *   - the slack bound needs a full window; the ef bound is over everything visited, dead nodes
 *     included, and rises by what earlier windows handed out;
 *   - max_distances is looked at before an expansion, which may then pass it by its own neighbours.
 */
#include "state.h"

#include <string.h>

#include "../base/internal.h"

/* A cap for the score where the window-th distance is 0. */
#define SCORE_MAX 1e6

rv_status
rv_beam_create(const rv_allocator *allocator, const rv_graph *graph, const rv_metric_map *map,
               rv_beam **out, rv_error *err)
{
    uint32_t degree = graph->max_degree > 0 ? graph->max_degree : 1;
    rv_beam *beam = rv_alloc_zero(allocator, sizeof *beam);
    rv_status status;

    *out = NULL;
    if (beam == NULL)
        return rv_fail_nomem(err, sizeof *beam);
    beam->allocator = allocator;
    beam->graph = graph;
    beam->map = *map;
    beam->fresh = rv_alloc_array(allocator, degree, sizeof *beam->fresh);
    if (beam->fresh == NULL) {
        rv_free(allocator, beam);
        return rv_fail_nomem(err, degree * sizeof *beam->fresh);
    }
    status = rv_visited_init(&beam->visited, allocator, err);
    if (status != RV_OK) {
        rv_free(allocator, beam->fresh);
        rv_free(allocator, beam);
        return status;
    }
    *out = beam;
    return RV_OK;
}

void
rv_beam_destroy(rv_beam *beam)
{
    if (beam == NULL)
        return;
    rv_visited_release(&beam->visited);
    rv_free(beam->allocator, beam->open.items);
    rv_free(beam->allocator, beam->pending.items);
    rv_free(beam->allocator, beam->overflow.items);
    rv_free(beam->allocator, beam->beyond.items);
    rv_free(beam->allocator, beam->best.items);
    rv_free(beam->allocator, beam->near.items);
    rv_free(beam->allocator, beam->far.items);
    rv_free(beam->allocator, beam->expanded.items);
    rv_free(beam->allocator, beam->emitted.items);
    rv_free(beam->allocator, beam->fresh);
    rv_free(beam->allocator, beam);
}

void
rv_beam_set_map(rv_beam *beam, const rv_metric_map *map)
{
    beam->map = *map;
}

rv_slack_rule
rv_slack_rule_make(const rv_metric_map *map, double slack)
{
    rv_slack_rule rule = {1.0, 0.0, -INFINITY};

    if (slack <= 0.0)
        return rule;
    if (map->metric == RV_METRIC_L1) {
        rule.factor = 1.0 + slack;
        rule.floor = 0.0;
    } else if (map->b > 0.0f) {
        double zero = -(double)map->a / (double)map->b;

        rule.factor = (1.0 + slack) * (1.0 + slack);
        rule.shift = (1.0 - rule.factor) * zero;
        rule.floor = zero;
    } else {
        rule.shift = INFINITY; /* all metric distances are equal: none is far enough to stop at */
    }
    return rule;
}

static rv_status
check_rule(const rv_stop_rule *rule, rv_error *err)
{
    if (rule->window < 1)
        return rv_fail(err, RV_ERR_RANGE, "window is 0, must be at least 1");
    if (!(rule->slack >= 0.0f))
        return rv_fail(err, RV_ERR_RANGE, "slack is %g, must be at least 0", (double)rule->slack);
    return RV_OK;
}

rv_status
rv_beam_set_rule(rv_beam *beam, const rv_stop_rule *rule, rv_error *err)
{
    rv_status status = check_rule(rule, err);

    if (status == RV_OK)
        beam->rule = *rule;
    return status;
}

void
rv_beam_reset(rv_beam *beam)
{
    rv_visited_clear(&beam->visited);
    memset(&beam->stats, 0, sizeof beam->stats);
    beam->stats.score = -1.0f;
    beam->base_hops = 0;
    rv_entry_list_clear(&beam->open);
    rv_entry_list_clear(&beam->pending);
    rv_entry_list_clear(&beam->overflow);
    rv_entry_list_clear(&beam->beyond);
    rv_float_list_clear(&beam->best);
    rv_float_list_clear(&beam->near);
    rv_float_list_clear(&beam->far);
    rv_entry_list_clear(&beam->emitted);
    beam->emitted_at = 0;
    beam->handed_out = 0;
    beam->reference = 0;
    beam->rank_limit = 0;
    beam->window_start = 0;
}

rv_status
rv_beam_set_reference(rv_beam *beam, uint32_t reference, uint32_t window, rv_error *err)
{
    rv_float_list_clear(&beam->best);
    beam->reference = reference < window ? reference : 0;
    return rv_float_list_reserve(beam->allocator, &beam->best, beam->reference, err);
}

rv_status
rv_beam_start(rv_beam *beam, const rv_stop_rule *rule, rv_node entry, int entry_level,
              const rv_node *extra, uint32_t extra_count, rv_error *err)
{
    rv_status status = rv_beam_set_rule(beam, rule, err);

    beam->state = RV_BEAM_BUSY;
    if (status != RV_OK)
        return status;
    status = rv_beam_expect(beam, rule->window, err);
    if (status != RV_OK)
        return status;
    rv_beam_reset(beam);
    status = rv_beam_enter(beam, entry, entry_level, extra, extra_count, err);
    if (status != RV_OK)
        return status;
    status = rv_float_list_reserve(beam->allocator, &beam->far, beam->beyond.count, err);
    if (status != RV_OK)
        return status;
    for (size_t i = 0; i < beam->beyond.count; i++)
        rv_float_list_append(&beam->far, beam->beyond.items[i].distance);
    beam->state = RV_BEAM_READY;
    return RV_OK;
}

static void
update_bound(rv_beam *beam)
{
    beam->bound = INFINITY;
    beam->bound_reason = beam->slack_reason;
    if (beam->pending.count == 0)
        return;
    if (beam->pending.count >= beam->rule.window)
        beam->bound = rv_slack_bound(&beam->slack_rule, rv_beam_reference_distance(beam));
    if (beam->rank_limit > 0 && beam->near.count >= beam->rank_limit) {
        double ef_bound = (double)-beam->near.items[0];

        if (ef_bound < beam->bound) {
            beam->bound = ef_bound;
            beam->bound_reason = RV_STOP_EF;
        }
    }
}

/* Makes near hold the rank_limit least distances visited so far. */
static rv_status
set_rank_limit(rv_beam *beam, size_t limit, rv_error *err)
{
    rv_status status = rv_float_list_reserve(beam->allocator, &beam->far, beam->near.count, err);

    if (status != RV_OK)
        return status;
    beam->rank_limit = limit;
    while (beam->near.count > limit)
        rv_float_list_append(&beam->far, -rv_float_heap_pop(&beam->near));
    if (beam->near.count < limit && beam->far.count > 0) {
        size_t wanted = limit - beam->near.count;

        if (wanted > beam->far.count)
            wanted = beam->far.count;
        status = rv_float_list_reserve(beam->allocator, &beam->near, wanted, err);
        if (status != RV_OK)
            return status;
        rv_float_heap_order(&beam->far);
        while (wanted-- > 0)
            rv_float_heap_push(&beam->near, -rv_float_heap_pop(&beam->far));
    }
    return RV_OK;
}

/* Sorts what earlier windows left into open, pending and overflow, and sets the bounds. */
static rv_status
open_window(rv_beam *beam, rv_error *err)
{
    const rv_allocator *allocator = beam->allocator;
    const rv_stop_rule *rule = &beam->rule;
    bool ef_is_window = rule->ef > 0 && rule->ef <= rule->window;
    bool ef_is_rank = rule->ef > rule->window;
    bool first = beam->handed_out == 0;
    size_t beyond = beam->beyond.count;
    size_t places = rule->window;
    rv_status status;

    if ((status = rv_entry_list_reserve(allocator, &beam->open, beyond, err)) != RV_OK ||
        (status = rv_entry_list_reserve(allocator, &beam->overflow, beyond, err)) != RV_OK)
        return status;
    if (places > beam->overflow.count + beyond)
        places = beam->overflow.count + beyond;
    if ((status = rv_entry_list_reserve(allocator, &beam->pending, places, err)) != RV_OK ||
        (status = set_rank_limit(beam, ef_is_rank ? rule->ef + beam->handed_out : 0, err)) !=
            RV_OK ||
        (status = rv_beam_set_reference(beam, first && !ef_is_window ? rule->reference : 0,
                                        rule->window, err)) != RV_OK)
        return status;

    for (size_t i = 0; i < beyond; i++) {
        rv_neighbour entry = beam->beyond.items[i];
        bool waits = (entry.flags & (RV_NEIGHBOUR_DEAD | RV_NEIGHBOUR_HELD)) == 0;

        entry.flags &= ~RV_NEIGHBOUR_HELD;
        rv_entry_heap_push(&beam->open, entry);
        if (waits)
            rv_entry_list_append(&beam->overflow, entry);
    }
    rv_entry_list_clear(&beam->beyond);

    rv_entry_heap_order(&beam->overflow);
    while (beam->pending.count < rule->window && beam->overflow.count > 0) {
        rv_neighbour entry = rv_entry_heap_pop(&beam->overflow);

        rv_beam_note_best(beam, entry.distance);
        entry.distance = -entry.distance;
        rv_entry_heap_push(&beam->pending, entry);
    }
    beam->slack_rule = rv_slack_rule_make(&beam->map, ef_is_window ? 0.0 : (double)rule->slack);
    beam->slack_reason = ef_is_window && rule->slack > 0.0f ? RV_STOP_EF : RV_STOP_RULE;
    update_bound(beam);
    return RV_OK;
}

/* Queues the pending results, nearest first. */
static rv_status
close_window(rv_beam *beam, rv_stop_reason reason, rv_error *err)
{
    size_t count = beam->pending.count;
    rv_status status;

    rv_entry_list_clear(&beam->emitted);
    beam->emitted_at = 0;
    status = rv_entry_list_reserve(beam->allocator, &beam->emitted, count, err);
    if (status != RV_OK)
        return status;
    for (size_t i = count; i-- > 0;) {
        rv_neighbour entry = rv_entry_heap_pop(&beam->pending);

        entry.distance = -entry.distance;
        beam->emitted.items[i] = entry;
    }
    beam->emitted.count = count;
    beam->handed_out += count;
    beam->window_start = beam->stats.distances;
    beam->stats.windows++;
    beam->stats.reason = reason;
    return RV_OK;
}

/* Counts a distance towards the ef bound. True when the bound may have moved. */
static inline bool
add_rank(rv_beam *beam, float distance)
{
    if (beam->near.count < beam->rank_limit) {
        rv_float_heap_push(&beam->near, -distance);
        return true;
    }
    if (beam->rank_limit > 0 && distance < -beam->near.items[0]) {
        rv_float_list_append(&beam->far, -beam->near.items[0]);
        rv_float_heap_replace_top(&beam->near, -distance);
        return true;
    }
    rv_float_list_append(&beam->far, distance);
    return false;
}

/* Gives a live node its place in the window if it is near enough. */
static inline bool
add_pending(rv_beam *beam, rv_neighbour entry)
{
    rv_beam_note_best(beam, entry.distance);
    entry.distance = -entry.distance;
    if (beam->pending.count < beam->rule.window) {
        rv_entry_heap_push(&beam->pending, entry);
        return true;
    }
    if (entry.distance > beam->pending.items[0].distance) {
        rv_neighbour loser = beam->pending.items[0];

        loser.distance = -loser.distance;
        rv_entry_list_append(&beam->overflow, loser);
        rv_entry_heap_replace_top(&beam->pending, entry);
        return true;
    }
    return false;
}

static inline void
add_visited(rv_beam *beam, rv_neighbour entry)
{
    bool live = (entry.flags & RV_NEIGHBOUR_DEAD) == 0;
    bool moved = add_rank(beam, entry.distance);
    bool held = live && add_pending(beam, entry);

    if (moved || held)
        update_bound(beam);
    if ((double)entry.distance > beam->bound) {
        if (held)
            entry.flags |= RV_NEIGHBOUR_HELD;
        rv_entry_list_append(&beam->beyond, entry);
        return;
    }
    rv_entry_heap_push(&beam->open, entry);
    if (live && !held)
        rv_entry_list_append(&beam->overflow, entry);
}

/* Room for what one expansion may add, so that adding never fails half way. */
static rv_status
reserve_expansion(rv_beam *beam, rv_error *err)
{
    const rv_allocator *allocator = beam->allocator;
    size_t extra = beam->graph->max_degree;
    rv_status status;

    if ((status = rv_entry_list_reserve(allocator, &beam->open, extra, err)) != RV_OK ||
        (status = rv_entry_list_reserve(allocator, &beam->pending, extra, err)) != RV_OK ||
        (status = rv_entry_list_reserve(allocator, &beam->overflow, extra, err)) != RV_OK ||
        (status = rv_entry_list_reserve(allocator, &beam->beyond, extra, err)) != RV_OK ||
        (status = rv_float_list_reserve(allocator, &beam->far, extra, err)) != RV_OK)
        return status;
    return rv_float_list_reserve(allocator, &beam->near, beam->rank_limit > 0 ? extra : 0, err);
}

float
rv_beam_score(const rv_beam *beam, float kth)
{
    double nearest = INFINITY;
    double numerator, denominator;

    if (beam->open.count > 0)
        nearest = (double)beam->open.items[0].distance;
    for (size_t i = 0; i < beam->beyond.count; i++)
        if ((double)beam->beyond.items[i].distance < nearest)
            nearest = (double)beam->beyond.items[i].distance;
    if (!isfinite(nearest) || !isfinite(kth))
        return -1.0f;
    numerator = rv_metric_map_apply(&beam->map, nearest);
    denominator = rv_metric_map_apply(&beam->map, (double)kth);
    if (denominator <= 0.0)
        return numerator <= 0.0 ? 1.0f : (float)SCORE_MAX;
    return (float)fmin(numerator / denominator, SCORE_MAX);
}

/* Whether the window ends before the next expansion. */
static bool
must_stop(const rv_beam *beam, rv_stop_reason *reason)
{
    uint64_t spent = beam->stats.distances - beam->window_start;

    if (beam->open.count == 0) {
        *reason = beam->beyond.count == 0 ? RV_STOP_EXHAUSTED : beam->bound_reason;
        return true;
    }
    if (beam->pending.count == 0)
        return false;
    if ((double)beam->open.items[0].distance > beam->bound) {
        *reason = beam->bound_reason;
        return true;
    }
    if (beam->rule.max_distances > 0 && spent >= beam->rule.max_distances) {
        *reason = RV_STOP_DISTANCES;
        return true;
    }
    return false;
}

static rv_status
expand_nearest(rv_beam *beam, rv_error *err)
{
    rv_node node = rv_entry_heap_pop(&beam->open).node;

    if (beam->open.count > 0 && beam->graph->prefetch != NULL)
        beam->graph->prefetch(beam->graph->ctx, beam->open.items[0].node);
    return rv_beam_expand(beam, node, 0, err);
}

static rv_status
run_window(rv_beam *beam, rv_error *err)
{
    rv_stop_reason reason = RV_STOP_NONE;
    rv_status status = open_window(beam, err);

    while (status == RV_OK && !must_stop(beam, &reason)) {
        status = reserve_expansion(beam, err);
        if (status != RV_OK)
            break;
        status = expand_nearest(beam, err);
        if (status != RV_OK)
            break;
        for (uint32_t i = 0; i < beam->fresh_count; i++)
            add_visited(beam, beam->fresh[i]);
        if (++beam->base_hops == RV_SCORE_HOPS && beam->pending.count > 0)
            beam->stats.score = rv_beam_score(beam, -beam->pending.items[0].distance);
    }
    return status == RV_OK ? close_window(beam, reason, err) : status;
}

rv_status
rv_beam_next(rv_beam *beam, rv_beam_result *result, rv_error *err)
{
    const rv_neighbour *next;

    if (beam->state != RV_BEAM_READY)
        return rv_fail(err, RV_ERR_STATE,
                       "no search is running: call rv_beam_start first, also after a failure");
    while (beam->emitted_at == beam->emitted.count) {
        rv_status status;

        if (beam->open.count == 0 && beam->beyond.count == 0 && beam->overflow.count == 0) {
            beam->stats.reason = RV_STOP_EXHAUSTED;
            return rv_fail(err, RV_ERR_NOTFOUND, "every reachable node was handed out");
        }
        beam->state = RV_BEAM_BUSY;
        status = run_window(beam, err);
        if (status != RV_OK)
            return status;
        beam->state = RV_BEAM_READY;
    }
    next = &beam->emitted.items[beam->emitted_at++];
    result->node = next->node;
    result->distance = next->distance;
    result->flags = next->flags;
    return RV_OK;
}

bool
rv_beam_ready(const rv_beam *beam)
{
    return beam->state == RV_BEAM_READY && beam->emitted_at < beam->emitted.count;
}

rv_beam_stats
rv_beam_get_stats(const rv_beam *beam)
{
    return beam->stats;
}
