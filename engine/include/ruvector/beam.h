/*
 * beam.h - best-first search over a proximity graph, with the stop rule, resumable.
 *
 * The graph is reached through one interface, expand(node): the same beam walks PostgreSQL pages,
 * the build's memory graph and the bank.
 *
 * The search hands out results in windows. A window of w results is closed, sorted and handed out
 * when no open candidate is nearer than (1 + slack) times the w-th best pending result, measured in
 * the metric form of the distance (distance.h). Two familiar rules are special cases:
 *   static search    w = ef_search, slack = 0: exactly the classical ef_search rule
 *   adaptive search  w = k, slack = the calibrated value
 * A first window may compare with a nearer result than its last, the reference-th: one that has
 * room for more results than are wanted, because distances are rough, stops by those that are
 * wanted. Taking more results than one window simply lets the beam go on from where it stopped, so
 * filters and large LIMITs need nothing special. Hard bounds end a window early: ef (the classical
 * bound over all that was visited) and max_distances per window.
 */
#ifndef RUVECTOR_BEAM_H
#define RUVECTOR_BEAM_H

#include "ruvector/base.h"
#include "ruvector/distance.h"
#include "ruvector/work.h"

typedef uint64_t rv_node; /* opaque to the beam: an array index, or block << 16 | offset */

#define RV_NEIGHBOUR_DEAD 1u /* walk through it, never return it */

typedef struct rv_neighbour {
    rv_node node;
    float distance; /* raw, to the query of this search */
    uint32_t flags;
} rv_neighbour;

/* The set of visited nodes, by their keys (rv_graph.key): grows through the allocator. */
typedef struct rv_visited rv_visited;

/* Adds a key. True if it was not yet in the set. On lack of memory returns false and the beam
 * reports RV_ERR_NOMEM at its next step. */
bool rv_visited_add(rv_visited *visited, uint64_t key);

/* The same for count keys; moves those that were not yet in the set to the front, in their order,
 * and returns how many. */
uint32_t rv_visited_add_all(rv_visited *visited, uint32_t *keys, uint32_t count);

typedef struct rv_graph {
    void *ctx;
    /*
     * Appends to out the neighbours of node at level whose keys rv_visited_add accepted, with raw
     * distances to the current query; at most capacity of them, capacity is never less than
     * max_degree. Stores the number written in *count. The implementation reads all links first,
     * then fetches the vectors of the unvisited ones, so that it can prefetch.
     */
    rv_status (*expand)(void *ctx, rv_node node, int level, rv_visited *visited, rv_neighbour *out,
                        uint32_t capacity, uint32_t *count);
    /* Raw distance of one node to the current query, for entry points. flags as above. A node that
     * no longer exists: RV_ERR_NOTFOUND, and the beam skips it. */
    rv_status (*distance)(void *ctx, rv_node node, float *distance, uint32_t *flags);
    uint32_t max_degree;
    /* Asks the memory for the links of a node that will probably be expanded soon; may be NULL. */
    void (*prefetch)(void *ctx, rv_node node);
    /* Early exit, polled once per expansion; NULL = never. True ends with RV_ERR_CANCELLED. */
    bool (*cancelled)(void *ctx);
    /* The key of a node in the visited set; NULL: the node itself. */
    uint64_t (*key)(void *ctx, rv_node node);
    /* Nearly all keys are below it, and most numbers below it are keys; 0: nothing is known. */
    uint64_t key_limit;
} rv_graph;

typedef struct rv_stop_rule {
    uint32_t window;        /* results per window, >= 1 */
    float slack;            /* >= 0 */
    uint32_t ef;            /* hard: stop the window when the next candidate is farther than the
                               ef-th nearest visited node; 0 = none; below window counts as window */
    uint64_t max_distances; /* hard: distance computations per window; 0 = none */
    uint32_t reference;     /* of the first window: the result that slack compares with; 0 or more
                               than window: the window-th */
} rv_stop_rule;

/*
 * The fine print of the bounds:
 *   - a hard bound ends a window only when it has a result to hand out: a stretch of dead nodes
 *     never ends a scan before the graph is exhausted;
 *   - the ef bound counts live and dead nodes of layer 0, and in later windows rises by the number
 *     of results already handed out, so that every window can go on; up to window (0 < ef <=
 *     window) it is the window itself: no slack is given;
 *   - max_distances is checked before an expansion, which may pass it by its own neighbours; the
 *     descent counts towards the first window.
 */

/* Why the last window was closed. */
typedef enum rv_stop_reason {
    RV_STOP_NONE = 0,
    RV_STOP_RULE = 1,      /* window and slack */
    RV_STOP_EF = 2,        /* the hard ef bound */
    RV_STOP_DISTANCES = 3, /* the hard bound on distances */
    RV_STOP_EXHAUSTED = 4  /* every reachable node was expanded */
} rv_stop_reason;

typedef struct rv_beam_result {
    rv_node node;
    float distance; /* raw */
    uint32_t flags;
} rv_beam_result;

/* What the search did so far. */
typedef struct rv_beam_stats {
    uint64_t distances; /* every distance computed, descent and entry points included */
    uint64_t hops;      /* nodes expanded, all levels */
    uint32_t windows;
    uint32_t reason; /* rv_stop_reason of the last window */
    float score;     /* in-search score: after the first RV_SCORE_HOPS expansions on layer 0,
                        metric distance of the nearest open candidate over that of the window-th
                        best so far (the worst when there are fewer); below 1 the search is still
                        coming nearer. -1 when not reached */
} rv_beam_stats;

#define RV_SCORE_HOPS 8

typedef struct rv_beam rv_beam;

/* graph and allocator must outlive the beam; the map is copied. */
rv_status rv_beam_create(const rv_allocator *allocator, const rv_graph *graph,
                         const rv_metric_map *map, rv_beam **out, rv_error *err);

/* The map of the searches that follow: for inner product it depends on the query. */
void rv_beam_set_map(rv_beam *beam, const rv_metric_map *map);

void rv_beam_destroy(rv_beam *beam); /* NULL is allowed */

/*
 * Starts a new search and forgets the former one (memory is kept for reuse). Descends greedily from
 * entry at entry_level to level 1, then opens layer 0 with what it found and with the extra entry
 * points (remembered ones; skipped if they no longer exist). extra_count may be 0; entry_level -1
 * means that there is no entry. After any failure (also a longjmp out of a callback) a search
 * cannot go on: start a new one, or destroy the beam.
 */
rv_status rv_beam_start(rv_beam *beam, const rv_stop_rule *rule, rv_node entry, int entry_level,
                        const rv_node *extra, uint32_t extra_count, rv_error *err);

/*
 * The next result. RV_OK: *result is set; within a window distances never fall. RV_ERR_NOTFOUND:
 * the graph is exhausted. A result found later that is nearer than one handed out in an earlier
 * window is still handed out (relaxed order).
 */
rv_status rv_beam_next(rv_beam *beam, rv_beam_result *result, rv_error *err);

/* True when rv_beam_next has a result ready without further search. */
bool rv_beam_ready(const rv_beam *beam);

/* Changes the rule for the windows that follow. */
rv_status rv_beam_set_rule(rv_beam *beam, const rv_stop_rule *rule, rv_error *err);

rv_beam_stats rv_beam_get_stats(const rv_beam *beam);

/*
 * Classical search of one level, for construction: the ef nearest visited live nodes of that level,
 * nearest first, into out (room for ef). Dead nodes are walked through and not returned, so *count
 * is 0 when there is no live one in reach: descend further with the same entries then. Starts with
 * an empty visited set and ends a search that was running; distances and hops are added to the
 * counters.
 */
rv_status rv_beam_search_level(rv_beam *beam, const rv_neighbour *entries, uint32_t entry_count,
                               uint32_t ef, int level, rv_neighbour *out, uint32_t *count,
                               rv_error *err);

/*
 * Deep trace: the least effort at which each true neighbour is found.
 *
 * The order in which a best-first search expands nodes does not depend on its stop rule, a smaller
 * effort only ends sooner. So one run to a large effort shows the outcome of every smaller one:
 * a node enters at slack s = the largest (candidate / reference-th best - 1) met at the expansions
 * up to the one that reached it, in metric form, and at ef = the largest rank that an expanded
 * candidate had among the visited nodes.
 */
typedef struct rv_trace_limits {
    uint32_t k;             /* the window of the searches that will use the calibration */
    uint32_t reference;     /* and their reference; 0: k */
    float max_slack;        /* stop beyond, e.g. 3 */
    uint32_t max_ef;        /* stop beyond; also the size of the rank structure */
    uint64_t max_distances; /* stop beyond */
    const rv_node *extra;   /* entry points as for rv_beam_start; may be NULL */
    uint32_t extra_count;
    /* For graphs whose distances are rough, those of codes: whether a visited node is no farther
     * than a raw distance, whatever its rough one. NULL: the graph's distances are the nodes'. */
    bool (*within)(void *ctx, const rv_neighbour *visited, double farthest);
    void *within_ctx;
    /* For the work: with `work` given the trace goes on after the last true neighbour was found,
     * until it has passed both efforts (0: not at all), within the limits above. */
    rv_work *work; /* filled; may be NULL */
    float work_slack;
    uint32_t work_ef;
} rv_trace_limits;

typedef struct rv_effort {
    float slack;        /* least slack that finds it; INFINITY: not found within the limits */
    uint32_t ef;        /* least ef_search, at least k; UINT32_MAX: not found */
    uint32_t distances; /* distance computations done before the expansion that found it: a search
                           with any larger max_distances finds it; UINT32_MAX: not found */
} rv_effort;

typedef struct rv_trace_summary {
    uint64_t distances; /* work of the trace itself */
    uint32_t found;     /* true neighbours found */
    float score;        /* in-search score of the run */
    float kth_distance; /* raw, the k-th best when the trace ended */
    uint32_t nearest_count;
    rv_node nearest[8]; /* nearest nodes found, nearest first: candidates for entry points */
} rv_trace_summary;

/*
 * truth: raw distances of the true neighbours, ascending, 1 to k of them. A visited live node
 * counts as found when it is no farther than the last of them (so ties count, as they do for
 * recall; tolerance 1e-6 of the distance, for cosine of at least 1); limits->within decides where
 * it is given. efforts: truth_count entries, ascending: entry i is the least effort at which i + 1
 * true neighbours are found: the rule {window = k, slack, reference} finds them in its first window
 * and no smaller slack does; {window = k, any large slack, ef} likewise, and without dead nodes
 * {window = ef, slack = 0}. The run ends when all are found, or at the first candidate beyond a
 * limit.
 */
rv_status rv_beam_trace(rv_beam *beam, const rv_trace_limits *limits, rv_node entry,
                        int entry_level, const float *truth, uint32_t truth_count,
                        rv_effort *efforts, rv_trace_summary *summary, rv_error *err);

#endif
