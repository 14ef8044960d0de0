/*
 * exact.c - exact k nearest rows for a batch of queries.
 *
 * Every query keeps a heap of its k best, the worst on top. Rows come in blocks. For a few queries
 * the distances of several to one block are computed together, while the block's vectors are in the
 * cache. For many the block is coded, codes say which rows may beat a query's worst (sieve.h), and
 * only the distances of those are computed. A distance does not depend on what it is computed
 * together with (rv_raw_distance_block). Hits are ordered by distance, then id, so the result
 * depends neither on the order of feeding nor on the way.
 */
#include "ruvector/exact.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/internal.h"
#include "sieve.h"

struct rv_exact {
    const rv_allocator *allocator;
    const float *queries;
    rv_metric metric;
    bool unit;
    uint32_t count;
    uint32_t dim;
    uint32_t k;
    uint64_t distances;
    rv_exact_hit *hits; /* k per query: heaps */
    uint32_t *found;    /* hits of each query */
    bool sieved;
    rv_sieve sieve;
};

static inline bool
is_farther(const rv_exact_hit *a, const rv_exact_hit *b)
{
    return a->distance > b->distance || (a->distance == b->distance && a->id > b->id);
}

static int
compare_hits(const void *a, const void *b)
{
    return is_farther(a, b) - is_farther(b, a);
}

rv_status
rv_exact_create(const rv_allocator *allocator, rv_metric metric, bool unit, const float *queries,
                uint32_t count, uint32_t dim, uint32_t k, rv_exact **out, rv_error *err)
{
    rv_exact *exact;

    *out = NULL;
    if (metric < RV_METRIC_L2 || metric > RV_METRIC_L1)
        return rv_fail(err, RV_ERR_INVALID, "metric is %d, must be 1 to 4", (int)metric);
    if (k < 1)
        return rv_fail(err, RV_ERR_RANGE, "k is 0, must be at least 1");
    if (dim < 1 || dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_DIMENSION, "vectors of %u dimensions, must be 1 to %d", dim,
                       RV_MAX_DIMENSIONS);
    exact = rv_alloc_zero(allocator, sizeof *exact);
    if (exact == NULL)
        return rv_fail_nomem(err, sizeof *exact);
    exact->allocator = allocator;
    exact->queries = queries;
    exact->metric = metric;
    exact->unit = unit;
    exact->count = count;
    exact->dim = dim;
    exact->k = k;
    exact->hits = rv_alloc_array(allocator, (size_t)count * k, sizeof *exact->hits);
    exact->found = rv_alloc_array_zero(allocator, count, sizeof *exact->found);
    if (exact->hits == NULL || exact->found == NULL) {
        rv_exact_destroy(exact);
        return rv_fail_nomem(err, (size_t)count * k * sizeof *exact->hits);
    }
    if (count >= RV_SIEVE_LEAST && metric != RV_METRIC_L1) {
        rv_status status =
            rv_sieve_open(&exact->sieve, allocator, metric, unit, queries, count, dim, err);

        if (status != RV_OK) {
            rv_exact_destroy(exact);
            return status;
        }
        exact->sieved = true;
    }
    *out = exact;
    return RV_OK;
}

void
rv_exact_destroy(rv_exact *exact)
{
    if (exact == NULL)
        return;
    if (exact->sieved)
        rv_sieve_close(&exact->sieve);
    rv_free(exact->allocator, exact->hits);
    rv_free(exact->allocator, exact->found);
    rv_free(exact->allocator, exact);
}

static void
sift_up(rv_exact_hit *heap, uint32_t at, rv_exact_hit hit)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;

        if (!is_farther(&hit, &heap[parent]))
            break;
        heap[at] = heap[parent];
        at = parent;
    }
    heap[at] = hit;
}

static void
replace_top(rv_exact_hit *heap, uint32_t count, rv_exact_hit hit)
{
    uint32_t at = 0;

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count && is_farther(&heap[child + 1], &heap[child]))
            child++;
        if (!is_farther(&heap[child], &hit))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = hit;
}

/* Offers one block's distances to one query. */
static void
offer(rv_exact *exact, uint32_t query, const float *distances, const uint64_t *ids, uint32_t count)
{
    rv_exact_hit *heap = exact->hits + (size_t)query * exact->k;
    uint32_t found = exact->found[query];
    float worst = found < exact->k ? INFINITY : heap[0].distance;

    for (uint32_t i = 0; i < count; i++) {
        if (distances[i] > worst)
            continue;
        /* Overflowing vectors give NaN, which has no place in an order: as far as can be. */
        rv_exact_hit hit = {ids[i], isnan(distances[i]) ? INFINITY : distances[i], 0};

        if (found < exact->k)
            sift_up(heap, found++, hit);
        else if (is_farther(&heap[0], &hit))
            replace_top(heap, found, hit);
        if (found == exact->k)
            worst = heap[0].distance;
    }
    exact->found[query] = found;
}

/* The distances of a block to every query. */
static void
feed_all(rv_exact *exact, const float *const *rows, const uint64_t *ids, uint32_t count)
{
    float distances[RV_TILE_QUERIES * RV_EXACT_BLOCK];

    for (uint32_t query = 0; query < exact->count; query += RV_TILE_QUERIES) {
        uint32_t left = exact->count - query;
        uint32_t together = left < RV_TILE_QUERIES ? left : RV_TILE_QUERIES;

        rv_raw_distance_block(exact->metric, exact->unit,
                              exact->queries + (size_t)query * exact->dim, together, rows, count,
                              exact->dim, distances);
        for (uint32_t i = 0; i < together; i++)
            offer(exact, query + i, distances + (size_t)i * count, ids, count);
    }
}

/* The distances of the rows of a block that may matter to one query. */
static void
feed_passed(rv_exact *exact, uint32_t query, const int32_t *products, const float *const *rows,
            const uint64_t *ids)
{
    bool full = exact->found[query] == exact->k;
    float worst = full ? exact->hits[(size_t)query * exact->k].distance : INFINITY;
    uint32_t passed[RV_EXACT_BLOCK];
    uint32_t count = rv_sieve_pass(&exact->sieve, query, products, worst, passed);
    const float *near_rows[RV_EXACT_BLOCK];
    uint64_t near_ids[RV_EXACT_BLOCK];
    float distances[RV_EXACT_BLOCK];

    if (count == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        near_rows[i] = rows[passed[i]];
        near_ids[i] = ids[passed[i]];
    }
    rv_raw_distance_block(exact->metric, exact->unit, exact->queries + (size_t)query * exact->dim,
                          1, near_rows, count, exact->dim, distances);
    offer(exact, query, distances, near_ids, count);
}

static void
feed_sieved(rv_exact *exact, const float *const *rows, const uint64_t *ids, uint32_t count)
{
    int32_t products[RV_TILE_QUERIES * RV_EXACT_BLOCK] = {0};

    rv_sieve_fill(&exact->sieve, rows, count);
    for (uint32_t query = 0; query < exact->count; query++) {
        uint32_t in_tile = query % RV_TILE_QUERIES;

        if (in_tile == 0)
            rv_sieve_multiply(&exact->sieve, query, products);
        feed_passed(exact, query, products + in_tile * RV_EXACT_BLOCK, rows, ids);
    }
}

rv_status
rv_exact_feed(rv_exact *exact, const float *const *rows, const uint64_t *ids, uint32_t count,
              rv_error *err)
{
    (void)err;
    for (uint32_t start = 0; start < count; start += RV_EXACT_BLOCK) {
        uint32_t block = count - start < RV_EXACT_BLOCK ? count - start : RV_EXACT_BLOCK;

        if (exact->sieved)
            feed_sieved(exact, rows + start, ids + start, block);
        else
            feed_all(exact, rows + start, ids + start, block);
    }
    exact->distances += (uint64_t)exact->count * count;
    return RV_OK;
}

uint32_t
rv_exact_result(rv_exact *exact, uint32_t query, rv_exact_hit *out)
{
    uint32_t found = exact->found[query];

    if (found > 0)
        memcpy(out, exact->hits + (size_t)query * exact->k, found * sizeof *out);
    qsort(out, found, sizeof *out, compare_hits);
    return found;
}

uint64_t
rv_exact_distances(const rv_exact *exact)
{
    return exact->distances;
}
