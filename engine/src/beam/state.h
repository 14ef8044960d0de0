/*
 * state.h - the beam's state, shared by the window search (beam.c), the searches of one level
 * (level.c) and the deep trace (trace.c).
 *
 * What was visited on layer 0 lives in these places:
 *   open      visited, not yet expanded, nearest on top; dead nodes too
 *   pending   the best live nodes of the present window, not handed out; farthest on top
 *   overflow  live nodes for later windows: they lost their place in pending, or never had one
 *   beyond    nodes farther than the stop bound when they were reached. The bound only falls while
 *             a window is open, so they cannot be expanded in it: one append keeps them, and the
 *             next window sorts them into open and overflow. This is why a static search does
 *             hardly more work than one that could not be resumed.
 *   best      distances of the nearest of pending, as many as the reference says (greatest on top);
 *             empty where that is the whole window
 *   near, far distances of all that was visited: the rank_limit least (greatest on top), and the
 *             rest. Used for the ef bound only; without it every distance is appended to far, in
 *             case a later rule asks for it.
 */
#ifndef RUVECTOR_BEAM_STATE_H
#define RUVECTOR_BEAM_STATE_H

#include <math.h>

#include "ruvector/beam.h"

#include "heap.h"
#include "visited.h"

/* Set on entries of beyond that hold a place in pending, so that they do not get another one. */
#define RV_NEIGHBOUR_HELD (1u << 31)

typedef enum rv_beam_state {
    RV_BEAM_IDLE = 0, /* no search started, or it was used for something else */
    RV_BEAM_BUSY = 1, /* inside a search; also after a failure or a longjmp out of one */
    RV_BEAM_READY = 2 /* between two calls of rv_beam_next */
} rv_beam_state;

/*
 * The stop by slack, as a bound on raw distances: metric(c) > (1 + slack) metric(kth), squared and
 * solved for c, becomes c > factor * kth + shift. No root is taken in the search.
 */
typedef struct rv_slack_rule {
    double factor;
    double shift;
    double floor; /* the raw distance whose metric form is 0 */
} rv_slack_rule;

rv_slack_rule rv_slack_rule_make(const rv_metric_map *map, double slack);

static inline double
rv_slack_bound(const rv_slack_rule *rule, float kth)
{
    double raw = (double)kth > rule->floor ? (double)kth : rule->floor;

    return rule->factor * raw + rule->shift;
}

struct rv_beam {
    const rv_allocator *allocator;
    const rv_graph *graph;
    rv_metric_map map;
    rv_visited visited;
    rv_beam_state state;
    rv_stop_rule rule;
    rv_beam_stats stats;
    uint64_t base_hops; /* expansions on layer 0 */

    rv_entry_list open;
    rv_entry_list pending; /* distances negated */
    rv_entry_list overflow;
    rv_entry_list beyond;
    rv_float_list best; /* distances negated */
    rv_float_list near; /* distances negated */
    rv_float_list far;
    rv_float_list expanded; /* deep trace: distances of expanded nodes, ascending */

    rv_entry_list emitted; /* the closed window, nearest first */
    size_t emitted_at;     /* the next one to hand out */
    uint64_t handed_out;   /* results of all closed windows */

    /* The present window. */
    uint32_t reference; /* size of best; 0: none */
    rv_slack_rule slack_rule;
    rv_stop_reason slack_reason; /* RV_STOP_EF when ef lets no slack through */
    size_t rank_limit;           /* of the ef bound; 0 = none */
    double bound;                /* no candidate with a greater raw distance is expanded */
    rv_stop_reason bound_reason;
    uint64_t window_start; /* stats.distances when it was opened */

    rv_neighbour *fresh; /* what the last expansion reached; room for max_degree */
    uint32_t fresh_count;
};

/* Empties every list and the visited set, zeroes the counters. */
void rv_beam_reset(rv_beam *beam);

/* Prepares the visited set for a search with a window of ef; rv_beam_reset comes next, or
 * rv_visited_clear. */
rv_status rv_beam_expect(rv_beam *beam, uint32_t ef, rv_error *err);

/* Compares with the reference-th of a window from now on, which is empty. */
rv_status rv_beam_set_reference(rv_beam *beam, uint32_t reference, uint32_t window, rv_error *err);

/* Notes the distance of a live node of the window among the best. */
static inline void
rv_beam_note_best(rv_beam *beam, float distance)
{
    if (beam->best.count < beam->reference)
        rv_float_heap_push(&beam->best, -distance);
    else if (beam->reference > 0 && distance < -beam->best.items[0])
        rv_float_heap_replace_top(&beam->best, -distance);
}

/* The distance that slack compares with; a full window is required. */
static inline float
rv_beam_reference_distance(const rv_beam *beam)
{
    return beam->reference > 0 ? -beam->best.items[0] : -beam->pending.items[0].distance;
}

/* Expands one node into fresh; counts, polls cancelled. */
rv_status rv_beam_expand(rv_beam *beam, rv_node node, int level, rv_error *err);

/*
 * Descends from entry to level 1, then puts what it found and the extra entry points into beyond,
 * each once; the visited set holds just these.
 */
rv_status rv_beam_enter(rv_beam *beam, rv_node entry, int entry_level, const rv_node *extra,
                        uint32_t extra_count, rv_error *err);

/* The in-search score, given the k-th best (or the worst) distance so far. */
float rv_beam_score(const rv_beam *beam, float kth);

#endif
