/*
 * visited.c - memory and growth of the set of visited nodes; visited.h has the design.
 */
#include "visited.h"

#include <string.h>

#include "../base/internal.h"

#define MIN_BITS 10
#define MAX_BITS 40
#define MAX_EXPECTED 100000

static void
use_capacity(rv_visited *visited, uint32_t bits)
{
    uint64_t capacity = UINT64_C(1) << bits;

    visited->bits = bits;
    visited->table = visited->slots + capacity;
    visited->mask = capacity - 1;
    visited->limit = capacity / 2;
    visited->count = 0;
    memset(visited->table, 0xFF, capacity * sizeof(uint64_t));
}

rv_status
rv_visited_init(rv_visited *visited, const rv_allocator *allocator, rv_error *err)
{
    memset(visited, 0, sizeof *visited);
    visited->allocator = allocator;
    visited->max_bits = MIN_BITS;
    visited->slots = rv_alloc_array(allocator, (size_t)2 << MIN_BITS, sizeof(uint64_t));
    if (visited->slots == NULL)
        return rv_fail_nomem(err, ((size_t)2 << MIN_BITS) * sizeof(uint64_t));
    use_capacity(visited, MIN_BITS);
    return RV_OK;
}

void
rv_visited_release(rv_visited *visited)
{
    rv_free(visited->allocator, visited->map);
    rv_free(visited->allocator, visited->slots);
    visited->map = visited->slots = NULL;
    visited->map_limit = 0;
}

void
rv_visited_clear(rv_visited *visited)
{
    uint32_t bits = MIN_BITS;

    /* Large searches are remembered for a while, since small ones come in between: construction
     * searches every level. */
    visited->typical -= visited->typical / 8;
    if (visited->typical < visited->count)
        visited->typical = visited->count;
    while (bits < visited->max_bits &&
           (UINT64_C(1) << bits) < visited->typical * 2 + visited->typical / 2)
        bits++;
    if (visited->count > 0 || bits != visited->bits)
        use_capacity(visited, bits);
    if (visited->map_limit > 0)
        memset(visited->map, 0, visited->map_limit / 8);
    visited->has_empty = false;
    visited->failed = false;
}

/* Makes the bitmap cover keys below limit, or drops it where that is not worth it. */
static rv_status
expect_keys(rv_visited *visited, uint64_t limit, rv_error *err)
{
    uint64_t *map = NULL;

    if (limit > RV_VISITED_MAP_MAX)
        limit = 0;
    limit = (limit + 63) / 64 * 64;
    if (limit == visited->map_limit)
        return RV_OK;
    if (limit > 0) {
        map = rv_alloc_array(visited->allocator, limit / 64, sizeof *map);
        if (map == NULL)
            return rv_fail_nomem(err, limit / 8);
    }
    rv_free(visited->allocator, visited->map);
    visited->map = map;
    visited->map_limit = limit;
    return RV_OK;
}

/* Makes rv_visited_clear choose a table for count keys, up to a bound. */
static rv_status
expect_table(rv_visited *visited, uint64_t count, rv_error *err)
{
    uint32_t bits = visited->max_bits;
    uint64_t *slots;

    if (count > MAX_EXPECTED)
        count = MAX_EXPECTED;
    if (visited->typical < count)
        visited->typical = count + count / 7;
    while ((UINT64_C(1) << bits) < count * 2 + count / 2)
        bits++;
    if (bits == visited->max_bits)
        return RV_OK;
    slots = rv_alloc_array(visited->allocator, (size_t)2 << bits, sizeof(uint64_t));
    if (slots == NULL)
        return rv_fail_nomem(err, ((size_t)2 << bits) * sizeof(uint64_t));
    rv_free(visited->allocator, visited->slots);
    visited->slots = slots;
    visited->max_bits = bits;
    use_capacity(visited, MIN_BITS);
    return RV_OK;
}

rv_status
rv_visited_expect(rv_visited *visited, uint64_t count, uint64_t key_limit, rv_error *err)
{
    rv_status status = expect_keys(visited, key_limit, err);

    if (status == RV_OK && visited->map_limit == 0)
        status = expect_table(visited, count, err);
    return status;
}

bool
rv_visited_grow(rv_visited *visited)
{
    uint64_t *old_slots = visited->slots;
    uint64_t *old_table = visited->table;
    uint64_t old_capacity = visited->mask + 1;
    uint64_t count = visited->count;
    uint32_t bits = visited->bits + 1;

    if (bits > visited->max_bits) {
        uint64_t *slots = NULL;

        if (bits <= MAX_BITS)
            slots = rv_alloc_array(visited->allocator, (size_t)2 << bits, sizeof(uint64_t));
        if (slots == NULL) {
            visited->failed = true;
            return false;
        }
        visited->slots = slots;
        visited->max_bits = bits;
    }
    use_capacity(visited, bits);
    for (uint64_t i = 0; i < old_capacity; i++) {
        uint64_t key = old_table[i];
        uint64_t at;

        if (key == RV_VISITED_EMPTY)
            continue;
        at = rv_visited_home(visited, key);
        while (visited->table[at] != RV_VISITED_EMPTY)
            at = (at + 1) & visited->mask;
        visited->table[at] = key;
    }
    visited->count = count;
    if (visited->slots != old_slots)
        rv_free(visited->allocator, old_slots);
    return true;
}

bool
rv_visited_add(rv_visited *visited, uint64_t key)
{
    return rv_visited_insert(visited, key);
}

uint32_t
rv_visited_add_all(rv_visited *visited, uint32_t *keys, uint32_t count)
{
    uint32_t fresh = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = keys[i];

        keys[fresh] = key;
        fresh += rv_visited_insert(visited, key);
    }
    return fresh;
}
