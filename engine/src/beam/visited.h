/*
 * visited.h - the set of visited nodes of one search.
 *
 * It holds keys (rv_graph.key): where the graph numbers its nodes from 0, a bitmap of them, which a
 * test and set costs a handful of instructions and, for graphs of some 100,000 nodes, no more than
 * the first two caches. Keys beyond the bitmap, and all keys of larger graphs, whose bitmap would
 * take longer to clear than it saves, are in a table: open addressing with linear probing over
 * uint64, at most half full.
 *
 * Two things matter about the table: one probe per key in the common case, and a search that visits
 * little must not pay for clearing a table that an earlier search made large. So a table of
 * capacity C lies at slots[C .. 2C): growing within the allocated array moves to the disjoint next
 * region, and a new search starts with a capacity that suits what the former one used. In steady
 * state nothing is allocated.
 */
#ifndef RUVECTOR_BEAM_VISITED_H
#define RUVECTOR_BEAM_VISITED_H

#include "ruvector/beam.h"

#define RV_VISITED_EMPTY UINT64_MAX

/* Keys that a bitmap may have: clearing it takes about a microsecond. */
#define RV_VISITED_MAP_MAX (UINT64_C(1) << 20)

struct rv_visited {
    const rv_allocator *allocator;
    uint64_t *map;      /* a bit for each key below map_limit */
    uint64_t map_limit; /* a multiple of 64; 0: no bitmap */
    uint64_t *slots;    /* 2 << max_bits of them */
    uint64_t *table;    /* slots + (1 << bits) */
    uint64_t mask;
    uint64_t count;   /* keys in the table */
    uint64_t limit;   /* grow when count reaches it */
    uint64_t typical; /* a decaying maximum of the counts of former searches */
    uint32_t bits;
    uint32_t max_bits;
    bool has_empty; /* the key that is the empty mark */
    bool failed;    /* no memory to grow: a key was refused */
};

rv_status rv_visited_init(rv_visited *visited, const rv_allocator *allocator, rv_error *err);
void rv_visited_release(rv_visited *visited);

/* Forgets all keys and the failure mark. */
void rv_visited_clear(rv_visited *visited);

/*
 * Prepares for a search that visits count nodes of a graph whose keys are below key_limit (0: not
 * known). What is in the set afterwards is not defined: rv_visited_clear comes next.
 */
rv_status rv_visited_expect(rv_visited *visited, uint64_t count, uint64_t key_limit, rv_error *err);

/* Doubles the capacity; false (and failed) without memory, the set is then unchanged. */
bool rv_visited_grow(rv_visited *visited);

static inline uint64_t
rv_visited_home(const rv_visited *visited, uint64_t key)
{
    return (key * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - visited->bits);
}

/* rv_visited_insert for keys that are not in the bitmap. */
static inline bool
rv_visited_insert_sparse(rv_visited *visited, uint64_t key)
{
    uint64_t at;

    if (key == RV_VISITED_EMPTY) {
        bool added = !visited->has_empty;

        visited->has_empty = true;
        return added;
    }
    if (visited->count >= visited->limit && !rv_visited_grow(visited))
        return false;
    at = rv_visited_home(visited, key);
    while (visited->table[at] != RV_VISITED_EMPTY) {
        if (visited->table[at] == key)
            return false;
        at = (at + 1) & visited->mask;
    }
    visited->table[at] = key;
    visited->count++;
    return true;
}

/* rv_visited_add for callers inside the engine. */
static inline bool
rv_visited_insert(rv_visited *visited, uint64_t key)
{
    uint64_t bit = UINT64_C(1) << (key % 64);
    uint64_t *word;

    if (key >= visited->map_limit)
        return rv_visited_insert_sparse(visited, key);
    word = &visited->map[key / 64];
    if (*word & bit)
        return false;
    *word |= bit;
    return true;
}

#endif
