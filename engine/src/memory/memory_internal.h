/*
 * memory_internal.h - what the growing and the flat form of the memory share.
 */
#ifndef RUVECTOR_MEMORY_INTERNAL_H
#define RUVECTOR_MEMORY_INTERNAL_H

#include "ruvector/hnsw.h"
#include "ruvector/memory.h"

/* Measured on 10,000 real queries of 128 dimensions: 93 distances per lookup, and more links or a
 * wider search find no better entry points. */
#define MEMORY_M 8
#define MEMORY_EF_CONSTRUCTION 40

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
