/*
 * memory_internal.h - what the growing and the flat form of the memory share.
 */
#ifndef RUVECTOR_MEMORY_INTERNAL_H
#define RUVECTOR_MEMORY_INTERNAL_H

#include "ruvector/hnsw.h"
#include "ruvector/memory.h"

/* A lookup is a quarter of a search's work at a recall of 0.95, so it pays to find entry points
 * that are nearly as good for less: on two sets of real queries 6 links took 78 to 82 distances
 * where 8 took 93, and searches 2% to 5% less, lookup included; 5 or 4 links lose in the search
 * what they save in the lookup. */
#define MEMORY_M 6
#define MEMORY_EF_CONSTRUCTION 80

typedef struct memory_entry {
    rv_node nodes[RV_MEMORY_ENTRIES];
    uint32_t count;
} memory_entry;

struct rv_memory {
    rv_allocator allocator;
    rv_metric metric;
    uint32_t dim;
    uint32_t capacity;
    rv_hnsw *graph;        /* node i is query i, in order of arrival */
    memory_entry *entries; /* of query i */
    uint32_t entry_room;
    int8_t *code;  /* dim: scratch */
    float *vector; /* dim: scratch */
};

/* Past queries are compared by direction where the rows are. */
static inline rv_metric
memory_space(rv_metric metric)
{
    return metric == RV_METRIC_IP ? RV_METRIC_COSINE : metric;
}

/* rv_memory_add for a vector that is decoded already (and count is not 0). */
rv_status rv_memory_insert(rv_memory *memory, const float *vector, const rv_node *nodes,
                           uint32_t count, rv_error *err);

#endif
