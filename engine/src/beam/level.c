/*
 * level.c - expanding a node, the greedy descent, and the search of one level that construction
 * uses.
 *
 * The descent keeps one visited set over all upper levels: a node that was farther than the best on
 * one level cannot become the best on the next, so its distance need not be computed again.
 */
#include "state.h"

#include <assert.h>

#include "../base/internal.h"

/* Marks a node as visited; false if it was. */
static inline bool
visit(rv_beam *beam, rv_node node)
{
    const rv_graph *graph = beam->graph;

    return rv_visited_insert(&beam->visited, graph->key ? graph->key(graph->ctx, node) : node);
}

static rv_status
fail_visited(const rv_beam *beam, rv_error *err)
{
    return rv_fail_nomem(err, ((size_t)4 << beam->visited.bits) * sizeof(rv_node));
}

rv_status
rv_beam_expect(rv_beam *beam, uint32_t ef, rv_error *err)
{
    const rv_graph *graph = beam->graph;

    /* A search visits about half of what it looks at for each place of its window. */
    return rv_visited_expect(&beam->visited, (uint64_t)ef * graph->max_degree / 2, graph->key_limit,
                             err);
}

rv_status
rv_beam_expand(rv_beam *beam, rv_node node, int level, rv_error *err)
{
    const rv_graph *graph = beam->graph;
    rv_status status;

    if (graph->cancelled != NULL && graph->cancelled(graph->ctx))
        return rv_fail(err, RV_ERR_CANCELLED, "the search was cancelled");
    beam->fresh_count = 0;
    status = graph->expand(graph->ctx, node, level, &beam->visited, beam->fresh, graph->max_degree,
                           &beam->fresh_count);
    if (status != RV_OK)
        return rv_fail(err, status, "the graph could not expand node %llu at level %d",
                       (unsigned long long)node, level);
    if (beam->visited.failed)
        return fail_visited(beam, err);
    assert(beam->fresh_count <= graph->max_degree);
    beam->stats.hops++;
    beam->stats.distances += beam->fresh_count;
    /* Overflowing vectors give NaN, which has no place in an order: they are as far as can be. */
    for (uint32_t i = 0; i < beam->fresh_count; i++)
        if (isnan(beam->fresh[i].distance))
            beam->fresh[i].distance = INFINITY;
    return RV_OK;
}

/* The distance of an entry point; *found false when the node no longer exists. */
static rv_status
measure(rv_beam *beam, rv_node node, rv_neighbour *out, bool *found, rv_error *err)
{
    rv_status status;

    out->node = node;
    out->distance = 0.0f;
    out->flags = 0;
    *found = false;
    status = beam->graph->distance(beam->graph->ctx, node, &out->distance, &out->flags);
    if (status == RV_ERR_NOTFOUND)
        return RV_OK;
    if (status != RV_OK)
        return rv_fail(err, status, "the graph could not measure node %llu",
                       (unsigned long long)node);
    if (isnan(out->distance))
        out->distance = INFINITY;
    beam->stats.distances++;
    *found = true;
    return RV_OK;
}

/* Moves to the nearest neighbour while there is a nearer one, level by level down to 1. */
static rv_status
descend(rv_beam *beam, rv_neighbour *at, int level, rv_error *err)
{
    visit(beam, at->node);
    for (; level >= 1; level--) {
        bool nearer = true;

        while (nearer) {
            rv_status status = rv_beam_expand(beam, at->node, level, err);

            if (status != RV_OK)
                return status;
            nearer = false;
            for (uint32_t i = 0; i < beam->fresh_count; i++) {
                if (beam->fresh[i].distance < at->distance) {
                    *at = beam->fresh[i];
                    nearer = true;
                }
            }
        }
    }
    return RV_OK;
}

rv_status
rv_beam_enter(rv_beam *beam, rv_node entry, int entry_level, const rv_node *extra,
              uint32_t extra_count, rv_error *err)
{
    rv_neighbour point;
    bool found;
    rv_status status;

    status = rv_entry_list_reserve(beam->allocator, &beam->beyond, (size_t)extra_count + 1, err);
    if (status != RV_OK)
        return status;
    if (entry_level >= 0) {
        status = measure(beam, entry, &point, &found, err);
        if (status == RV_OK && found)
            status = descend(beam, &point, entry_level, err);
        if (status != RV_OK)
            return status;
        rv_visited_clear(&beam->visited);
        if (found) {
            visit(beam, point.node);
            rv_entry_list_append(&beam->beyond, point);
        }
    }
    for (uint32_t i = 0; i < extra_count; i++) {
        if (!visit(beam, extra[i]))
            continue;
        status = measure(beam, extra[i], &point, &found, err);
        if (status != RV_OK)
            return status;
        if (found)
            rv_entry_list_append(&beam->beyond, point);
    }
    if (beam->visited.failed)
        return fail_visited(beam, err);
    return RV_OK;
}

/* Adds a node of the level to open, and to the ef nearest live ones, if it is near enough. */
static inline void
add_level_node(rv_beam *beam, rv_neighbour entry, uint32_t ef)
{
    bool full = beam->pending.count >= ef;

    if (full && entry.distance >= -beam->pending.items[0].distance)
        return;
    rv_entry_heap_push(&beam->open, entry);
    if (entry.flags & RV_NEIGHBOUR_DEAD)
        return;
    entry.distance = -entry.distance;
    if (full)
        rv_entry_heap_replace_top(&beam->pending, entry);
    else
        rv_entry_heap_push(&beam->pending, entry);
}

static rv_status
reserve_level(rv_beam *beam, size_t extra, rv_error *err)
{
    rv_status status = rv_entry_list_reserve(beam->allocator, &beam->open, extra, err);

    if (status != RV_OK)
        return status;
    return rv_entry_list_reserve(beam->allocator, &beam->pending, extra, err);
}

rv_status
rv_beam_search_level(rv_beam *beam, const rv_neighbour *entries, uint32_t entry_count, uint32_t ef,
                     int level, rv_neighbour *out, uint32_t *count, rv_error *err)
{
    rv_status status;

    *count = 0;
    if (ef < 1)
        return rv_fail(err, RV_ERR_RANGE, "ef is 0, must be at least 1");
    beam->state = RV_BEAM_IDLE;
    rv_entry_list_clear(&beam->open);
    rv_entry_list_clear(&beam->pending);
    if ((status = rv_beam_expect(beam, ef, err)) != RV_OK ||
        (status = reserve_level(beam, entry_count, err)) != RV_OK)
        return status;
    rv_visited_clear(&beam->visited);
    for (uint32_t i = 0; i < entry_count; i++)
        if (visit(beam, entries[i].node))
            add_level_node(beam, entries[i], ef);
    if (beam->visited.failed)
        return fail_visited(beam, err);

    while (beam->open.count > 0) {
        if (beam->pending.count >= ef &&
            beam->open.items[0].distance > -beam->pending.items[0].distance)
            break;
        status = reserve_level(beam, beam->graph->max_degree, err);
        if (status == RV_OK)
            status = rv_beam_expand(beam, rv_entry_heap_pop(&beam->open).node, level, err);
        if (status != RV_OK)
            return status;
        for (uint32_t i = 0; i < beam->fresh_count; i++)
            add_level_node(beam, beam->fresh[i], ef);
    }
    *count = (uint32_t)beam->pending.count;
    for (uint32_t i = *count; i-- > 0;) {
        out[i] = rv_entry_heap_pop(&beam->pending);
        out[i].distance = -out[i].distance;
    }
    return RV_OK;
}
