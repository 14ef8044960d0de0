/*
 * flatten.c - a bank to its flat form and back. flat.h describes the format.
 */
#include "flat.h"
#include "ruvector/codes.h"
#include "../base/checksum.h"

#include <assert.h>
#include <string.h>

static_assert(sizeof(flat_header) == 128, "the header is two cache lines");
static_assert(sizeof(size_t) == 8, "the sections of a large bank pass 4 GiB");

static size_t
align_up(size_t size)
{
    return (size + 63) / 64 * 64;
}

void
rv_flat_layout(const flat_header *header, flat_layout *layout)
{
    size_t regions = header->regions;
    bool graph = header->m > 0;
    size_t at = sizeof(flat_header);

    layout->centroid_stride = align_up(header->dim * sizeof(float));
    layout->code_stride = align_up(header->dim);
    layout->patterns = at;
    at += align_up((regions + header->has_index) * sizeof(rv_pattern));
    layout->centroids = at;
    at += regions * layout->centroid_stride;
    layout->codes = at;
    at += graph ? regions * layout->code_stride : 0;
    layout->scales = at;
    at += graph ? align_up(regions * sizeof(float)) : 0;
    layout->base = at;
    at += graph ? align_up(regions * (1 + 2 * header->m) * sizeof(uint32_t)) : 0;
    layout->upper_start = at;
    at += graph ? align_up((regions + 1) * sizeof(uint32_t)) : 0;
    layout->upper = at;
    at += graph ? align_up((size_t)header->upper_blocks * (1 + header->m) * sizeof(uint32_t)) : 0;
    layout->size = at;
}

uint64_t
rv_flat_checksum(const flat_header *header, size_t size)
{
    const char *bytes = (const char *)header;
    rv_checksum checksum;

    rv_checksum_start(&checksum, header->version);
    for (size_t at = FLAT_CHECKED_FROM; at < size; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        rv_checksum_add(&checksum, word);
    }
    return rv_checksum_end(&checksum, size);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void
describe(const rv_bank *bank, flat_header *header)
{
    memset(header, 0, sizeof(*header));
    header->magic = FLAT_MAGIC;
    header->version = RV_BANK_FLAT_VERSION;
    header->byte_order = FLAT_BYTE_ORDER;
    header->metric = (uint32_t)bank->metric;
    header->dim = bank->dim;
    header->max_patterns = bank->max_patterns;
    header->regions = bank->count;
    header->last_id = bank->last_id;
    header->has_index = bank->index != NULL;
    if (bank->count > RV_BANK_EXACT_LIMIT) {
        rv_node entry;

        header->m = RV_BANK_GRAPH_M;
        header->entry_level = (uint32_t)rv_hnsw_entry(bank->graph, &entry);
        header->entry = (uint32_t)entry;
        for (uint32_t i = 0; i < bank->count; i++)
            header->upper_blocks += (uint32_t)rv_hnsw_level(bank->graph, i);
    }
}

static void
write_patterns(const rv_bank *bank, char *buffer, const flat_layout *layout)
{
    rv_pattern *patterns = (rv_pattern *)(void *)(buffer + layout->patterns);

    if (bank->index != NULL)
        *patterns++ = bank->index->pattern;
    for (uint32_t i = 0; i < bank->count; i++) {
        patterns[i] = bank->regions[i]->pattern;
        memcpy(buffer + layout->centroids + i * layout->centroid_stride, bank->rows[i],
               bank->dim * sizeof(float));
    }
}

/* unit: room for dim floats. */
static void
write_codes(const rv_bank *bank, char *buffer, const flat_layout *layout, float *unit)
{
    bool normalize = rv_bank_space(bank->metric) == RV_METRIC_COSINE;
    float *scales = (float *)(void *)(buffer + layout->scales);

    for (uint32_t i = 0; i < bank->count; i++) {
        const float *row = bank->rows[i];
        int8_t *code = (int8_t *)(buffer + layout->codes + i * layout->code_stride);

        if (normalize) {
            rv_normalize(row, unit, bank->dim);
            row = unit;
        }
        scales[i] = rv_int8_encode(row, code, bank->dim);
    }
}

static void
write_links(const rv_hnsw *graph, uint32_t node, int level, uint32_t *row)
{
    uint32_t count;
    const uint32_t *links = rv_hnsw_links(graph, node, level, &count);

    row[0] = count;
    memcpy(row + 1, links, count * sizeof(*links));
}

static void
write_graph(const rv_bank *bank, char *buffer, const flat_layout *layout)
{
    uint32_t *base = (uint32_t *)(void *)(buffer + layout->base);
    uint32_t *start = (uint32_t *)(void *)(buffer + layout->upper_start);
    uint32_t *upper = (uint32_t *)(void *)(buffer + layout->upper);
    uint32_t blocks = 0;

    for (uint32_t i = 0; i < bank->count; i++) {
        int levels = rv_hnsw_level(bank->graph, i);

        write_links(bank->graph, i, 0, base + (size_t)i * (1 + 2 * RV_BANK_GRAPH_M));
        start[i] = blocks;
        for (int level = 1; level <= levels; level++)
            write_links(bank->graph, i, level, upper + (size_t)blocks++ * (1 + RV_BANK_GRAPH_M));
    }
    start[bank->count] = blocks;
}

rv_status
rv_bank_flatten(rv_bank *bank, void *buffer, size_t capacity, size_t *size, rv_error *err)
{
    bool graph = bank->count > RV_BANK_EXACT_LIMIT;
    flat_header header;
    flat_layout layout;
    float *unit = NULL;
    rv_status status = graph ? rv_bank_build_graph(bank, err) : RV_OK;

    *size = 0;
    if (status != RV_OK)
        return status;
    describe(bank, &header);
    rv_flat_layout(&header, &layout);
    header.size = *size = layout.size;
    if (capacity < layout.size)
        return rv_fail(err, RV_ERR_FULL, "flat bank: it needs %zu bytes, the buffer has %zu",
                       layout.size, capacity);
    if ((uintptr_t)buffer % 8 != 0)
        return rv_fail(err, RV_ERR_INVALID, "flat bank: the buffer must be aligned to 8 bytes");
    if (graph) {
        unit = rv_alloc_array(bank->allocator, bank->dim, sizeof(*unit));
        if (unit == NULL)
            return rv_fail_nomem(err, bank->dim * sizeof(*unit));
    }

    memset(buffer, 0, layout.size);
    memcpy(buffer, &header, sizeof(header));
    write_patterns(bank, buffer, &layout);
    if (graph) {
        write_codes(bank, buffer, &layout, unit);
        write_graph(bank, buffer, &layout);
        rv_free(bank->allocator, unit);
    }
    ((flat_header *)buffer)->checksum = rv_flat_checksum(buffer, layout.size);
    return RV_OK;
}

/* ---- reading back --------------------------------------------------------------------------- */

rv_status
rv_bank_unflatten(const rv_allocator *allocator, const void *buffer, size_t size, rv_bank **out,
                  rv_error *err)
{
    const flat_header *header = buffer;
    const rv_pattern *index;
    flat_layout layout;
    rv_bank *bank;
    rv_status status = rv_bank_flat_check(buffer, size, err);

    if (status != RV_OK)
        return status;
    rv_flat_layout(header, &layout);
    status = rv_bank_create(allocator, (rv_metric)header->metric, header->dim, header->max_patterns,
                            &bank, err);
    if (status != RV_OK)
        return status;
    index = rv_bank_flat_index_pattern(buffer);
    if (index != NULL)
        status = rv_bank_put(bank, index, NULL, NULL, err);
    for (uint32_t i = 0; status == RV_OK && i < header->regions; i++)
        status = rv_bank_put(bank, flat_pattern(header, &layout, i),
                             flat_centroid(header, &layout, i), NULL, err);
    if (status != RV_OK) {
        rv_bank_destroy(bank);
        return status;
    }
    bank->last_id = header->last_id;
    *out = bank;
    return RV_OK;
}
