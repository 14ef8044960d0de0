/*
 * visited.h - the set of visited nodes of one search.
 *
 * Open addressing with linear probing over uint64, at most half full. Two things matter: one probe
 * per node in the common case, and a search that visits little must not pay for clearing a table
 * that an earlier search made large. So a table of capacity C lies at slots[C .. 2C): growing
 * within the allocated array moves to the disjoint next region, and a new search starts with a
 * capacity that suits what the former one used. In steady state nothing is allocated.
 */
#ifndef RUVECTOR_BEAM_VISITED_H
#define RUVECTOR_BEAM_VISITED_H

#include "ruvector/beam.h"

#define RV_VISITED_EMPTY UINT64_MAX

struct rv_visited {
    const rv_allocator *allocator;
    uint64_t *slots; /* 2 << max_bits of them */
    uint64_t *table; /* slots + (1 << bits) */
    uint64_t mask;
    uint64_t count;   /* nodes in the table */
    uint64_t limit;   /* grow when count reaches it */
    uint64_t typical; /* a decaying maximum of the counts of former searches */
    uint32_t bits;
    uint32_t max_bits;
    bool has_empty; /* the node whose number is the empty mark */
    bool failed;    /* no memory to grow: a node was refused */
};

rv_status rv_visited_init(rv_visited *visited, const rv_allocator *allocator, rv_error *err);
void rv_visited_release(rv_visited *visited);

/* Forgets all nodes and the failure mark. */
void rv_visited_clear(rv_visited *visited);

/* Makes the next rv_visited_clear choose a capacity for count nodes, up to a bound; the set is as
 * it was without memory. */
rv_status rv_visited_expect(rv_visited *visited, uint64_t count, rv_error *err);

/* Doubles the capacity; false (and failed) without memory, the set is then unchanged. */
bool rv_visited_grow(rv_visited *visited);

static inline uint64_t
rv_visited_home(const rv_visited *visited, rv_node node)
{
    return (node * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - visited->bits);
}

/* rv_visited_add for callers inside the engine. */
static inline bool
rv_visited_insert(rv_visited *visited, rv_node node)
{
    uint64_t at;

    if (node == RV_VISITED_EMPTY) {
        bool added = !visited->has_empty;

        visited->has_empty = true;
        return added;
    }
    if (visited->count >= visited->limit && !rv_visited_grow(visited))
        return false;
    at = rv_visited_home(visited, node);
    while (visited->table[at] != RV_VISITED_EMPTY) {
        if (visited->table[at] == node)
            return false;
        at = (at + 1) & visited->mask;
    }
    visited->table[at] = node;
    visited->count++;
    return true;
}

#endif
