/*
 * memory.c - the growing form of the memory: an HNSW graph over past queries.
 *
 * What enters the graph is the decoded int8 code of a query, not the query, so that the graph, its
 * flat form and a memory restored from that agree to the bit. HNSW cannot forget single nodes; a
 * full memory is built anew from its newer half, which costs one insertion more per query in the
 * long run and keeps what is recent.
 */
#include "memory_internal.h"

#include <math.h>
#include <string.h>

#include "../base/internal.h"
#include "ruvector/codes.h"

#define FIRST_ROOM 64
#define MIN_CAPACITY 16

static rv_status
create_graph(const rv_memory *memory, rv_hnsw **out, rv_error *err)
{
    rv_hnsw_options options = {
        .metric = memory_space(memory->metric),
        .dim = memory->dim,
        .m = MEMORY_M,
        .ef_construction = MEMORY_EF_CONSTRUCTION,
        .seed = 1,
        .unit = memory_space(memory->metric) == RV_METRIC_COSINE,
    };

    return rv_hnsw_create(&memory->allocator, &options, out, err);
}

rv_status
rv_memory_create(const rv_allocator *allocator, rv_metric metric, uint32_t dim, uint32_t capacity,
                 rv_memory **out, rv_error *err)
{
    rv_memory *memory;
    rv_status status;

    if (dim < 1 || dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_DIMENSION, "%u dimensions, must be 1 to %d", dim,
                       RV_MAX_DIMENSIONS);
    if (capacity < MIN_CAPACITY || capacity > RV_MEMORY_MAX_QUERIES)
        return rv_fail(err, RV_ERR_RANGE, "a memory of %u queries, must be %d to %d", capacity,
                       MIN_CAPACITY, RV_MEMORY_MAX_QUERIES);
    memory = rv_alloc_zero(allocator, sizeof(*memory));
    if (memory == NULL)
        return rv_fail_nomem(err, sizeof(*memory));
    memory->allocator = *allocator;
    memory->metric = metric;
    memory->dim = dim;
    memory->capacity = capacity;
    memory->code = rv_alloc_array(allocator, dim, sizeof(*memory->code));
    memory->vector = rv_alloc_array(allocator, dim, sizeof(*memory->vector));
    if (memory->code == NULL || memory->vector == NULL)
        status = rv_fail_nomem(err, dim * sizeof(*memory->vector));
    else
        status = create_graph(memory, &memory->graph, err);
    if (status != RV_OK) {
        rv_memory_destroy(memory);
        return status;
    }
    *out = memory;
    return RV_OK;
}

void
rv_memory_destroy(rv_memory *memory)
{
    rv_allocator allocator;

    if (memory == NULL)
        return;
    allocator = memory->allocator;
    rv_hnsw_destroy(memory->graph);
    rv_free(&allocator, memory->entries);
    rv_free(&allocator, memory->code);
    rv_free(&allocator, memory->vector);
    rv_free(&allocator, memory);
}

uint32_t
rv_memory_count(const rv_memory *memory)
{
    return (uint32_t)rv_hnsw_count(memory->graph);
}

size_t
rv_memory_bytes(const rv_memory *memory)
{
    return sizeof(*memory) + rv_hnsw_memory(memory->graph) +
           memory->entry_room * sizeof(*memory->entries) +
           memory->dim * (sizeof(*memory->code) + sizeof(*memory->vector));
}

static rv_status
reserve_entry(rv_memory *memory, rv_error *err)
{
    uint32_t count = rv_memory_count(memory);
    uint32_t room = memory->entry_room == 0 ? FIRST_ROOM : 2 * memory->entry_room;
    memory_entry *entries;

    if (count < memory->entry_room)
        return RV_OK;
    entries = rv_alloc_array(&memory->allocator, room, sizeof(*entries));
    if (entries == NULL)
        return rv_fail_nomem(err, room * sizeof(*entries));
    if (count > 0)
        memcpy(entries, memory->entries, count * sizeof(*entries));
    rv_free(&memory->allocator, memory->entries);
    memory->entries = entries;
    memory->entry_room = room;
    return RV_OK;
}

/* Builds the graph anew from the newer half. */
static rv_status
forget_older_half(rv_memory *memory, rv_error *err)
{
    uint32_t count = rv_memory_count(memory);
    uint32_t first = count / 2;
    rv_hnsw *graph;
    rv_status status = create_graph(memory, &graph, err);

    for (uint32_t i = first; status == RV_OK && i < count; i++) {
        rv_node node;

        status = rv_hnsw_insert(graph, rv_hnsw_vector(memory->graph, i), &node, err);
    }
    if (status != RV_OK) {
        rv_hnsw_destroy(graph);
        return status;
    }
    memmove(memory->entries, memory->entries + first, (count - first) * sizeof(*memory->entries));
    rv_hnsw_destroy(memory->graph);
    memory->graph = graph;
    return RV_OK;
}

static rv_status
check_query(const rv_memory *memory, const float *query, rv_error *err)
{
    for (uint32_t i = 0; i < memory->dim; i++)
        if (!isfinite(query[i]))
            return rv_fail(err, RV_ERR_RANGE, "element %u of the query is not finite", i + 1);
    return RV_OK;
}

/* The vector that stands for a query: unit length where directions are compared, then its code. */
static void
decode_query(rv_memory *memory, const float *query)
{
    float scale;

    if (memory_space(memory->metric) == RV_METRIC_COSINE)
        rv_normalize(query, memory->vector, memory->dim);
    else
        memcpy(memory->vector, query, memory->dim * sizeof(*memory->vector));
    scale = rv_int8_encode(memory->vector, memory->code, memory->dim);
    rv_int8_decode(memory->code, scale, memory->vector, memory->dim);
    /* Rounding changes the length too, which would show in every similarity. */
    if (memory_space(memory->metric) == RV_METRIC_COSINE)
        rv_normalize(memory->vector, memory->vector, memory->dim);
}

rv_status
rv_memory_insert(rv_memory *memory, const float *vector, const rv_node *nodes, uint32_t count,
                 rv_error *err)
{
    memory_entry *entry;
    rv_node node;
    bool known;
    rv_status status = RV_OK;

    if (rv_memory_count(memory) >= memory->capacity)
        status = forget_older_half(memory, err);
    if (status == RV_OK)
        status = reserve_entry(memory, err);
    if (status == RV_OK)
        status = rv_hnsw_insert_or_find(memory->graph, vector, &node, &known, err);
    if (status != RV_OK)
        return status;
    entry = &memory->entries[node];
    memset(entry, 0, sizeof(*entry));
    entry->count = count < RV_MEMORY_ENTRIES ? count : RV_MEMORY_ENTRIES;
    memcpy(entry->nodes, nodes, entry->count * sizeof(*nodes));
    return RV_OK;
}

rv_status
rv_memory_add(rv_memory *memory, const float *query, const rv_node *nodes, uint32_t count,
              rv_error *err)
{
    rv_status status = check_query(memory, query, err);

    if (status != RV_OK)
        return status;
    if (count == 0)
        return rv_fail(err, RV_ERR_INVALID, "a query without nodes cannot be remembered");
    decode_query(memory, query);
    return rv_memory_insert(memory, memory->vector, nodes, count, err);
}
