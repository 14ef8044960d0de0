/*
 * select.c - which neighbours a node links to: the selection heuristic, and its incremental form
 * for lists that are full.
 *
 * The heuristic (algorithm 4 of Malkov and Yashunin) goes through candidates from near to far and
 * keeps one when it is nearer to the selecting node than to every one kept before: links spread in
 * all directions instead of crowding in one. Places left over are filled with the nearest of the
 * others.
 *
 * In a list that was made by the heuristic, a new link changes little: those before it stay as they
 * are, and those after it can only be affected if it is kept itself. So a back link costs a handful
 * of distances, and the result is exactly that of a selection from scratch.
 */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

#define MAX_LINKS (2 * RV_HNSW_MAX_M + 1)

static int
compare_candidates(const void *a, const void *b)
{
    const rv_candidate *x = a;
    const rv_candidate *y = b;

    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return (x->node > y->node) - (x->node < y->node);
}

static void
sort_candidates(rv_candidate *candidates, uint32_t count)
{
    /* A search hands its results over sorted already, ties aside. */
    for (uint32_t i = 1; i < count; i++) {
        if (compare_candidates(&candidates[i - 1], &candidates[i]) > 0) {
            qsort(candidates, count, sizeof *candidates, compare_candidates);
            return;
        }
    }
}

static inline float
distance_between(rv_metric metric, bool unit, const float *a, const float *b, uint32_t dim)
{
    return unit ? rv_raw_distance_unit(metric, a, b, dim) : rv_raw_distance(metric, a, b, dim);
}

uint32_t
rv_hnsw_select(rv_metric metric, bool unit, uint32_t dim, rv_candidate *candidates, uint32_t count,
               uint32_t limit, uint32_t *filled)
{
    uint32_t kept = 0;
    uint32_t chosen;

    sort_candidates(candidates, count);
    for (uint32_t i = 0; i < count && kept < limit; i++) {
        rv_candidate candidate = candidates[i];
        bool keep = true;

        for (uint32_t j = 0; j < kept && keep; j++)
            keep = candidate.distance <
                   distance_between(metric, unit, candidate.vector, candidates[j].vector, dim);
        if (!keep)
            continue;
        /* Behind the kept ones the passed-over stay in order. */
        memmove(&candidates[kept + 1], &candidates[kept], (i - kept) * sizeof *candidates);
        candidates[kept++] = candidate;
    }
    chosen = count < limit ? count : limit;
    if (filled != NULL)
        *filled = chosen - kept;
    return chosen;
}

float
rv_hnsw_between(const rv_hnsw *graph, rv_node a, rv_node b)
{
    const rv_hnsw_options *options = &graph->options;

    return distance_between(options->metric, options->unit, rv_hnsw_vector_of(graph, a),
                            rv_hnsw_vector_of(graph, b), options->dim);
}

/* Whether the link at `at` is nearer to the owner than to every kept link in [from, at). */
static bool
is_kept(const rv_hnsw *graph, const rv_link_list *list, uint32_t from, uint32_t at)
{
    for (uint32_t i = from; i < at; i++)
        if (list->kept[i] &&
            list->distances[at] >= rv_hnsw_between(graph, list->nodes[at], list->nodes[i]))
            return false;
    return true;
}

/* Brings the marks behind a new kept link at `added` up to date. */
static void
update_marks(const rv_hnsw *graph, rv_link_list *list, uint32_t added, uint32_t count)
{
    uint32_t fresh[MAX_LINKS]; /* kept links that were not so before */
    uint32_t fresh_count = 0;
    bool lost = false; /* a kept link was not kept any more: those it held back may be */

    fresh[fresh_count++] = added;
    for (uint32_t i = added + 1; i < count; i++) {
        if (list->kept[i]) {
            for (uint32_t j = 0; j < fresh_count && list->kept[i]; j++)
                list->kept[i] = list->distances[i] <
                                rv_hnsw_between(graph, list->nodes[i], list->nodes[fresh[j]]);
            lost = lost || !list->kept[i];
        } else if (lost && is_kept(graph, list, 0, i)) {
            list->kept[i] = 1;
            fresh[fresh_count++] = i;
        }
    }
}

void
rv_hnsw_remove_link(rv_link_list *list, uint32_t at, uint32_t count)
{
    uint32_t behind = count - at - 1;

    memmove(list->nodes + at, list->nodes + at + 1, behind * sizeof *list->nodes);
    memmove(list->distances + at, list->distances + at + 1, behind * sizeof *list->distances);
    memmove(list->kept + at, list->kept + at + 1, behind);
}

void
rv_hnsw_insert_link(rv_link_list *list, uint32_t at, uint32_t count, uint32_t node, float distance)
{
    uint32_t behind = count - at;

    memmove(list->nodes + at + 1, list->nodes + at, behind * sizeof *list->nodes);
    memmove(list->distances + at + 1, list->distances + at, behind * sizeof *list->distances);
    memmove(list->kept + at + 1, list->kept + at, behind);
    list->nodes[at] = node;
    list->distances[at] = distance;
    list->kept[at] = 0;
}

/* The last link that only fills the list up; count when there is none. */
static uint32_t
last_filler(const rv_link_list *list, uint32_t count)
{
    for (uint32_t i = count; i-- > 0;)
        if (!list->kept[i])
            return i;
    return count;
}

static void
add_link(const rv_hnsw *graph, rv_node owner, int level, rv_node node, float distance)
{
    uint32_t nodes[MAX_LINKS];
    float distances[MAX_LINKS];
    uint8_t kept[MAX_LINKS];
    rv_link_list list = rv_hnsw_list(graph, owner, level);
    rv_link_list work = {list.count, nodes, distances, kept, list.capacity + 1};
    uint32_t count = *list.count;
    uint32_t at = count;

    while (at > 0 && (list.distances[at - 1] > distance ||
                      (list.distances[at - 1] == distance && list.nodes[at - 1] > node)))
        at--;
    if (at == list.capacity && last_filler(&list, count) == count)
        return;
    memcpy(nodes, list.nodes, count * sizeof *nodes);
    memcpy(distances, list.distances, count * sizeof *distances);
    memcpy(kept, list.kept, count);
    rv_hnsw_insert_link(&work, at, count, (uint32_t)node, distance);
    count++;
    if (is_kept(graph, &work, 0, at)) {
        kept[at] = 1;
        update_marks(graph, &work, at, count);
    }
    if (count > list.capacity) {
        uint32_t leaves = last_filler(&work, count);

        rv_hnsw_remove_link(&work, leaves < count ? leaves : count - 1, count);
        count--;
    }
    for (uint32_t i = 0; i < count; i++)
        rv_hnsw_write(&list.nodes[i], nodes[i]);
    memcpy(list.distances, distances, count * sizeof *distances);
    memcpy(list.kept, kept, count);
    rv_hnsw_write(list.count, count);
}

void
rv_hnsw_add_link(rv_hnsw *graph, rv_node owner, int level, rv_node node, float distance)
{
    uint8_t *lock = &rv_hnsw_chunk(graph, owner)->locks[rv_hnsw_slot(graph, owner)];

    if (!graph->is_shared) {
        add_link(graph, owner, level, node, distance);
        return;
    }
    rv_hnsw_lock(lock);
    add_link(graph, owner, level, node, distance);
    rv_hnsw_unlock(lock);
}
