/*
 * memory.h - remembered queries: where in the graph the neighbours of past queries were found.
 *
 * A query that resembles a past one starts its search among that one's neighbours instead of
 * descending through the upper layers. About a hundred distances to compact codes are spent on
 * finding the past queries, and they replace the descent; what is saved are the expansions that
 * lead into the right region, and the true neighbours that lie behind a detour.
 *
 * The memory grows in one process (rv_memory, over an HNSW graph of the queries) and is searched by
 * others in its flat form: one relocatable buffer, without pointers. Queries are kept as int8
 * codes; under COSINE and IP they are compared by cosine.
 */
#ifndef RUVECTOR_MEMORY_H
#define RUVECTOR_MEMORY_H

#include "ruvector/base.h"
#include "ruvector/beam.h"
#include "ruvector/distance.h"

#define RV_MEMORY_ENTRIES 8    /* nodes kept of one query */
#define RV_MEMORY_NEAREST 4    /* past queries whose nodes a lookup returns */
#define RV_MEMORY_MAX_NODES 32 /* RV_MEMORY_NEAREST x RV_MEMORY_ENTRIES */
#define RV_MEMORY_MAX_QUERIES 1000000
#define RV_MEMORY_FLAT_VERSION 1

typedef struct rv_memory rv_memory;

/* capacity: queries kept, 16 to RV_MEMORY_MAX_QUERIES. When full, the older half is forgotten. */
rv_status rv_memory_create(const rv_allocator *allocator, rv_metric metric, uint32_t dim,
                           uint32_t capacity, rv_memory **out, rv_error *err);
void rv_memory_destroy(rv_memory *memory); /* NULL is allowed */
uint32_t rv_memory_count(const rv_memory *memory);
size_t rv_memory_bytes(const rv_memory *memory); /* allocated */

/*
 * Remembers that nodes (count of them, nearest first; the first RV_MEMORY_ENTRIES are kept, none is
 * an error) answered query (dim finite floats). A query with the same code replaces the former one.
 * After a failure the memory is as it was, except that forgetting may have happened.
 */
rv_status rv_memory_add(rv_memory *memory, const float *query, const rv_node *nodes, uint32_t count,
                        rv_error *err);

/* The flat form, in at most capacity bytes; *size always gets the need (RV_ERR_FULL when capacity
 * is less). The buffer must be aligned to 8 bytes. */
rv_status rv_memory_flatten(const rv_memory *memory, void *buffer, size_t capacity, size_t *size,
                            rv_error *err);

/* Verifies magic, version, checksum, every count, offset and link. */
rv_status rv_memory_flat_check(const void *buffer, size_t size, rv_error *err);
uint32_t rv_memory_flat_count(const void *buffer);
uint32_t rv_memory_flat_dim(const void *buffer);
rv_metric rv_memory_flat_metric(const void *buffer);

/* A memory of its own from a flat form that rv_memory_flat_check has accepted. */
rv_status rv_memory_unflatten(const rv_allocator *allocator, const void *buffer, uint32_t capacity,
                              rv_memory **out, rv_error *err);

typedef struct rv_memory_match {
    uint32_t count;     /* nodes found; 0: nothing near enough, search as if there were no memory */
    uint32_t distances; /* distances computed by the lookup */
    rv_node nodes[RV_MEMORY_MAX_NODES]; /* distinct, those of the nearest past query first */
} rv_memory_match;

/*
 * The nodes of the past queries nearest to query, in a checked flat form. A past query farther than
 * most past queries are from each other says nothing and is left out. skip_equal passes over past
 * queries equal to this one up to the rounding of their codes, in the answer and on the way to it:
 * to measure, on a query that is remembered itself, what memory does for one that is not.
 */
rv_status rv_memory_lookup(const void *buffer, const rv_allocator *allocator, const float *query,
                           bool skip_equal, rv_memory_match *out, rv_error *err);

#endif
