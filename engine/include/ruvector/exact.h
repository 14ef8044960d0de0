/*
 * exact.h - exact k nearest rows for a batch of queries in one pass over the rows.
 *
 * Rows are fed in blocks; every block is compared with every query while it is in the cache. With
 * many queries codes are compared first, and only the vectors of rows that may be near. The result
 * is the same to the bit.
 */
#ifndef RUVECTOR_EXACT_H
#define RUVECTOR_EXACT_H

#include "ruvector/base.h"
#include "ruvector/distance.h"

#define RV_EXACT_BLOCK 64 /* the block size that suits the caches; any size is accepted */

typedef struct rv_exact rv_exact;

typedef struct rv_exact_hit {
    uint64_t id;
    float distance; /* raw */
    uint32_t reserved;
} rv_exact_hit;

/* queries: count x dim, row after row, must stay valid. unit: queries and rows have unit length. */
rv_status rv_exact_create(const rv_allocator *allocator, rv_metric metric, bool unit,
                          const float *queries, uint32_t count, uint32_t dim, uint32_t k,
                          rv_exact **out, rv_error *err);
void rv_exact_destroy(rv_exact *exact);

/* rows[i] is the vector of ids[i]; neither needs to stay valid after the call. */
rv_status rv_exact_feed(rv_exact *exact, const float *const *rows, const uint64_t *ids,
                        uint32_t count, rv_error *err);

/* The nearest so far of one query, by distance then id; returns how many (<= k). */
uint32_t rv_exact_result(rv_exact *exact, uint32_t query, rv_exact_hit *out);

/* Pairs of a query and a row so far, those included whose codes said enough. */
uint64_t rv_exact_distances(const rv_exact *exact);

#endif
