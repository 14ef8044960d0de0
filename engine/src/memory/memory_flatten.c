/*
 * memory_flatten.c - to the flat form and back, and the check of a flat form from outside.
 */
#include "memory_flat.h"

#include <math.h>
#include <string.h>

#include "../base/checksum.h"
#include "../base/internal.h"
#include "ruvector/codes.h"
#include "ruvector/stats.h"

/* Share of the past queries whose nearest other one is within reach. */
#define REACH_QUANTILE 0.98

uint64_t
rv_memory_checksum(const void *buffer)
{
    const memory_header *header = buffer;
    const uint64_t *words = MEMORY_SECTION(uint64_t, buffer, sizeof(*header));
    memory_header seed = *header;
    uint64_t fields[sizeof(seed) / sizeof(uint64_t)];
    rv_checksum checksum;

    seed.checksum = 0;
    memcpy(fields, &seed, sizeof(seed));
    rv_checksum_start(&checksum, RV_MEMORY_FLAT_VERSION);
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        rv_checksum_add(&checksum, fields[i]);
    for (uint64_t i = 0; i < (header->size - sizeof(*header)) / sizeof(uint64_t); i++)
        rv_checksum_add(&checksum, words[i]);
    return rv_checksum_end(&checksum, header->size);
}

static uint32_t
count_link_words(const rv_memory *memory)
{
    uint32_t words = 0;

    for (uint32_t i = 0; i < rv_memory_count(memory); i++) {
        words += 1;
        for (int level = 0; level <= rv_hnsw_level(memory->graph, i); level++) {
            uint32_t count;

            (void)rv_hnsw_links(memory->graph, i, level, &count);
            words += 1 + count;
        }
    }
    return words;
}

/* How far a past query may be and still say something: the REACH_QUANTILE of the distances between
 * a past query and the nearest other one it is linked to. 0 for a memory of one query. */
static rv_status
measure_reach(const rv_memory *memory, float *reach, rv_error *err)
{
    uint32_t count = rv_memory_count(memory);
    double *nearest = rv_alloc_array(&memory->allocator, count, sizeof(*nearest));
    uint32_t measured = 0;
    double value = 0;
    rv_status status = RV_OK;

    if (nearest == NULL)
        return rv_fail_nomem(err, count * sizeof(*nearest));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t degree;
        const uint32_t *links = rv_hnsw_links(memory->graph, i, 0, &degree);

        if (degree > 0)
            nearest[measured++] = (double)rv_raw_distance_unit(
                memory_space(memory->metric), rv_hnsw_vector(memory->graph, i),
                rv_hnsw_vector(memory->graph, links[0]), memory->dim);
    }
    if (measured > 0)
        status = rv_quantile(nearest, NULL, measured, REACH_QUANTILE, &value, err);
    rv_free(&memory->allocator, nearest);
    *reach = (float)value;
    return status;
}

static void
write_links(const rv_memory *memory, uint32_t query, uint32_t *links, uint32_t *at)
{
    int top = rv_hnsw_level(memory->graph, query);

    links[(*at)++] = (uint32_t)top;
    for (int level = 0; level <= top; level++) {
        uint32_t count;
        const uint32_t *from = rv_hnsw_links(memory->graph, query, level, &count);

        links[(*at)++] = count;
        memcpy(links + *at, from, count * sizeof(*from));
        *at += count;
    }
}

static void
write_sections(const rv_memory *memory, const memory_header *header, char *buffer)
{
    memory_layout at = memory_layout_of(header);
    float *scales = (float *)(void *)(buffer + at.scales);
    uint32_t *starts = (uint32_t *)(void *)(buffer + at.starts);
    uint32_t *links = (uint32_t *)(void *)(buffer + at.links);
    uint8_t *sizes = (uint8_t *)(buffer + at.sizes);
    rv_node *nodes = (rv_node *)(void *)(buffer + at.nodes);
    uint32_t next = 0;

    for (uint32_t i = 0; i < header->count; i++) {
        int8_t *code = (int8_t *)(buffer + at.codes + i * at.stride);

        scales[i] = rv_int8_encode(rv_hnsw_vector(memory->graph, i), code, header->dim);
        starts[i] = next;
        write_links(memory, i, links, &next);
        sizes[i] = (uint8_t)memory->entries[i].count;
        memcpy(nodes + (size_t)i * RV_MEMORY_ENTRIES, memory->entries[i].nodes,
               sizeof(memory->entries[i].nodes));
    }
}

rv_status
rv_memory_flatten(const rv_memory *memory, void *buffer, size_t capacity, size_t *size,
                  rv_error *err)
{
    memory_header header = {.magic = MEMORY_MAGIC, .version = RV_MEMORY_FLAT_VERSION};
    rv_node entry = 0;
    int level = rv_hnsw_entry(memory->graph, &entry);
    rv_status status;

    header.metric = (uint32_t)memory->metric;
    header.dim = memory->dim;
    header.count = rv_memory_count(memory);
    header.m = MEMORY_M;
    header.entry = (uint32_t)entry;
    header.entry_level = level < 0 ? 0 : (uint32_t)level;
    header.link_words = count_link_words(memory);
    header.size = memory_layout_of(&header).end;
    *size = header.size;
    if (capacity < header.size)
        return rv_fail(err, RV_ERR_FULL, "the flat memory needs %zu bytes, the buffer has %zu",
                       (size_t)header.size, capacity);
    status = measure_reach(memory, &header.reach, err);
    if (status != RV_OK)
        return status;
    memset(buffer, 0, header.size);
    memcpy(buffer, &header, sizeof(header));
    write_sections(memory, &header, buffer);
    ((memory_header *)buffer)->checksum = rv_memory_checksum(buffer);
    return RV_OK;
}

/* ---- the check ------------------------------------------------------------------------------ */

static rv_status
check_header(const memory_header *header, size_t size, rv_error *err)
{
    if (size < sizeof(*header))
        return rv_fail(err, RV_ERR_FORMAT, "%zu bytes, a flat memory has at least %zu", size,
                       sizeof(*header));
    if (header->magic != MEMORY_MAGIC)
        return rv_fail(err, RV_ERR_FORMAT, "not a flat memory: wrong magic");
    if (header->version != RV_MEMORY_FLAT_VERSION)
        return rv_fail(err, RV_ERR_VERSION, "flat memory version %u, this code reads %d",
                       header->version, RV_MEMORY_FLAT_VERSION);
    if (header->metric < RV_METRIC_L2 || header->metric > RV_METRIC_L1)
        return rv_fail(err, RV_ERR_FORMAT, "metric %u is unknown", header->metric);
    if (header->dim < 1 || header->dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_FORMAT, "%u dimensions, must be 1 to %d", header->dim,
                       RV_MAX_DIMENSIONS);
    if (header->count > RV_MEMORY_MAX_QUERIES || header->m < 1 || header->m > RV_HNSW_MAX_M ||
        header->entry_level > RV_HNSW_MAX_LEVEL || !isfinite(header->reach) ||
        (header->count > 0 && header->entry >= header->count))
        return rv_fail(err, RV_ERR_FORMAT, "a count of the flat memory's header is out of range");
    if (header->size != size || memory_layout_of(header).end != size)
        return rv_fail(err, RV_ERR_FORMAT, "%zu bytes, the header's counts ask for %zu", size,
                       memory_layout_of(header).end);
    return RV_OK;
}

/* True when the links of one query lie in the section and name queries that have the level. */
static bool
links_fit(const memory_header *header, const uint32_t *starts, const uint32_t *links,
          uint32_t query)
{
    uint64_t at = starts[query];
    uint32_t top;

    if (at >= header->link_words || links[at] > RV_HNSW_MAX_LEVEL)
        return false;
    top = links[at++];
    for (uint32_t level = 0; level <= top; level++) {
        uint32_t count = at < header->link_words ? links[at] : UINT32_MAX;

        if (count > 2 * header->m || at + 1 + count > header->link_words)
            return false;
        for (uint32_t i = 1; i <= count; i++) {
            uint32_t to = links[at + i];

            if (to >= header->count || starts[to] >= header->link_words ||
                links[starts[to]] < level)
                return false;
        }
        at += 1 + count;
    }
    return true;
}

rv_status
rv_memory_flat_check(const void *buffer, size_t size, rv_error *err)
{
    const memory_header *header = buffer;
    rv_status status = check_header(header, size, err);
    memory_layout at;
    const uint32_t *starts;
    const uint32_t *links;

    if (status != RV_OK)
        return status;
    if (rv_memory_checksum(buffer) != header->checksum)
        return rv_fail(err, RV_ERR_CORRUPT, "the flat memory's checksum does not fit its content");
    at = memory_layout_of(header);
    starts = MEMORY_SECTION(uint32_t, buffer, at.starts);
    links = MEMORY_SECTION(uint32_t, buffer, at.links);
    for (uint32_t i = 0; i < header->count; i++) {
        if (!links_fit(header, starts, links, i))
            return rv_fail(err, RV_ERR_CORRUPT, "the links of query %u lead out of the memory", i);
        if (!isfinite(MEMORY_SECTION(float, buffer, at.scales)[i]) ||
            MEMORY_SECTION(uint8_t, buffer, at.sizes)[i] < 1 ||
            MEMORY_SECTION(uint8_t, buffer, at.sizes)[i] > RV_MEMORY_ENTRIES)
            return rv_fail(err, RV_ERR_CORRUPT, "query %u has a value out of range", i);
    }
    if (header->count > 0 && links[starts[header->entry]] < header->entry_level)
        return rv_fail(err, RV_ERR_CORRUPT, "the entry query does not reach the entry level");
    return RV_OK;
}

uint32_t
rv_memory_flat_count(const void *buffer)
{
    return ((const memory_header *)buffer)->count;
}

uint32_t
rv_memory_flat_dim(const void *buffer)
{
    return ((const memory_header *)buffer)->dim;
}

rv_metric
rv_memory_flat_metric(const void *buffer)
{
    return (rv_metric)((const memory_header *)buffer)->metric;
}

rv_status
rv_memory_unflatten(const rv_allocator *allocator, const void *buffer, uint32_t capacity,
                    rv_memory **out, rv_error *err)
{
    const memory_header *header = buffer;
    memory_layout at = memory_layout_of(header);
    rv_memory *memory;
    float *vector;
    rv_status status =
        rv_memory_create(allocator, (rv_metric)header->metric, header->dim, capacity, &memory, err);

    if (status != RV_OK)
        return status;
    vector = rv_alloc_array(allocator, header->dim, sizeof(*vector));
    if (vector == NULL)
        status = rv_fail_nomem(err, header->dim * sizeof(*vector));
    for (uint32_t i = 0; status == RV_OK && i < header->count; i++) {
        rv_int8_decode(MEMORY_SECTION(int8_t, buffer, at.codes + i * at.stride),
                       MEMORY_SECTION(float, buffer, at.scales)[i], vector, header->dim);
        status =
            rv_memory_add(memory, vector,
                          MEMORY_SECTION(rv_node, buffer, at.nodes) + (size_t)i * RV_MEMORY_ENTRIES,
                          MEMORY_SECTION(uint8_t, buffer, at.sizes)[i], err);
    }
    rv_free(allocator, vector);
    if (status != RV_OK) {
        rv_memory_destroy(memory);
        return status;
    }
    *out = memory;
    return RV_OK;
}
