/*
 * flatten.c - a bank to its flat form and back. flat.h describes the format.
 */
#include "flat.h"
#include "ruvector/codes.h"
#include "../base/checksum.h"

#include <assert.h>
#include <math.h>
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
    at += regions * layout->code_stride;
    layout->scales = at;
    at += align_up(regions * sizeof(float));
    layout->squares = at;
    at += align_up(regions * sizeof(uint32_t));
    layout->errors = at;
    at += align_up(regions * sizeof(float));
    layout->region_of = at;
    at += graph ? align_up(regions * sizeof(uint32_t)) : 0;
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

/* Which region is which node, and back: both NULL without a graph, where they are the same. */
typedef struct node_order {
    uint32_t *region_of;
    uint32_t *node_of;
} node_order;

static void
free_order(const rv_bank *bank, node_order *order)
{
    rv_free(bank->allocator, order->region_of);
    rv_free(bank->allocator, order->node_of);
}

/* Takes the regions that are linked from one on and have no number yet. */
static uint32_t
number_linked(const rv_hnsw *graph, uint32_t region, node_order *order, uint32_t count)
{
    uint32_t degree;
    const uint32_t *links = rv_hnsw_links(graph, region, 0, &degree);

    for (uint32_t i = 0; i < degree; i++) {
        if (order->node_of[links[i]] != UINT32_MAX)
            continue;
        order->node_of[links[i]] = count;
        order->region_of[count++] = links[i];
    }
    return count;
}

/*
 * Numbers the regions so that what a walk reads together lies together: the neighbours of a node
 * follow each other, and the neighbours of the last of them come next, so that a cluster is
 * finished before another begins. stack: room for bank->count.
 */
static void
number_nodes(const rv_bank *bank, node_order *order, uint32_t *stack)
{
    uint32_t count = 0;
    uint32_t waiting = 0;

    for (uint32_t i = 0; i < bank->count; i++)
        order->node_of[i] = UINT32_MAX;
    for (uint32_t start = 0; start < bank->count; start++) {
        if (order->node_of[start] != UINT32_MAX)
            continue;
        order->node_of[start] = count;
        order->region_of[count++] = start;
        stack[waiting++] = start;
        while (waiting > 0) {
            uint32_t before = count;

            count = number_linked(bank->graph, stack[--waiting], order, count);
            for (uint32_t node = before; node < count; node++)
                stack[waiting++] = order->region_of[node];
        }
    }
}

static rv_status
make_order(const rv_bank *bank, node_order *order, rv_error *err)
{
    uint32_t *stack = rv_alloc_array(bank->allocator, bank->count, sizeof(*stack));

    order->region_of = rv_alloc_array(bank->allocator, bank->count, sizeof(uint32_t));
    order->node_of = rv_alloc_array(bank->allocator, bank->count, sizeof(uint32_t));
    if (stack == NULL || order->region_of == NULL || order->node_of == NULL) {
        rv_free(bank->allocator, stack);
        free_order(bank, order);
        return rv_fail_nomem(err, bank->count * sizeof(uint32_t));
    }
    number_nodes(bank, order, stack);
    rv_free(bank->allocator, stack);
    return RV_OK;
}

static void
describe(const rv_bank *bank, const node_order *order, flat_header *header)
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
        header->entry = order->node_of[entry];
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

/* How far a code is from its row, rounded up. */
static float
code_error(const float *row, const int8_t *code, float scale, uint32_t dim)
{
    double sum = 0;

    for (uint32_t i = 0; i < dim; i++) {
        double off = (double)row[i] - (double)scale * code[i];

        sum += off * off;
    }
    return nextafterf((float)sqrt(sum), INFINITY);
}

static uint32_t
code_squares(const int8_t *code, uint32_t dim)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < dim; i++)
        sum += (uint32_t)(code[i] * code[i]);
    return sum;
}

/* unit: room for dim floats. */
static void
write_codes(const rv_bank *bank, const node_order *order, char *buffer, const flat_layout *layout,
            float *unit)
{
    bool directions = rv_bank_space(bank->metric) == RV_METRIC_COSINE;
    float *scales = (float *)(void *)(buffer + layout->scales);
    uint32_t *squares = (uint32_t *)(void *)(buffer + layout->squares);
    float *errors = (float *)(void *)(buffer + layout->errors);

    for (uint32_t node = 0; node < bank->count; node++) {
        const float *row = bank->rows[order->region_of != NULL ? order->region_of[node] : node];
        int8_t *code = (int8_t *)(buffer + layout->codes + node * layout->code_stride);

        if (directions) {
            rv_normalize(row, unit, bank->dim);
            row = unit;
        }
        scales[node] = rv_int8_encode(row, code, bank->dim);
        squares[node] = code_squares(code, bank->dim);
        errors[node] = code_error(row, code, scales[node], bank->dim);
    }
}

static void
write_links(const rv_bank *bank, const node_order *order, uint32_t node, int level, uint32_t *row)
{
    uint32_t count;
    const uint32_t *links = rv_hnsw_links(bank->graph, order->region_of[node], level, &count);

    row[0] = count;
    for (uint32_t i = 0; i < count; i++)
        row[1 + i] = order->node_of[links[i]];
}

static void
write_graph(const rv_bank *bank, const node_order *order, char *buffer, const flat_layout *layout)
{
    uint32_t *base = (uint32_t *)(void *)(buffer + layout->base);
    uint32_t *start = (uint32_t *)(void *)(buffer + layout->upper_start);
    uint32_t *upper = (uint32_t *)(void *)(buffer + layout->upper);
    uint32_t blocks = 0;

    for (uint32_t i = 0; i < bank->count; i++) {
        int levels = rv_hnsw_level(bank->graph, order->region_of[i]);

        write_links(bank, order, i, 0, base + (size_t)i * (1 + 2 * RV_BANK_GRAPH_M));
        start[i] = blocks;
        for (int level = 1; level <= levels; level++)
            write_links(bank, order, i, level, upper + (size_t)blocks++ * (1 + RV_BANK_GRAPH_M));
    }
    start[bank->count] = blocks;
    memcpy(buffer + layout->region_of, order->region_of, bank->count * sizeof(uint32_t));
}

/* What the header says, into a buffer of layout's size. */
static rv_status
write_flat(const rv_bank *bank, const node_order *order, const flat_header *header,
           const flat_layout *layout, char *buffer, rv_error *err)
{
    float *unit = rv_alloc_array(bank->allocator, bank->dim, sizeof(*unit));

    if (unit == NULL)
        return rv_fail_nomem(err, bank->dim * sizeof(*unit));
    memset(buffer, 0, layout->size);
    memcpy(buffer, header, sizeof(*header));
    write_patterns(bank, buffer, layout);
    write_codes(bank, order, buffer, layout, unit);
    if (order->region_of != NULL)
        write_graph(bank, order, buffer, layout);
    rv_free(bank->allocator, unit);
    ((flat_header *)(void *)buffer)->checksum =
        rv_flat_checksum((const flat_header *)(const void *)buffer, layout->size);
    return RV_OK;
}

rv_status
rv_bank_flatten(rv_bank *bank, void *buffer, size_t capacity, size_t *size, rv_error *err)
{
    node_order order = {NULL, NULL};
    flat_header header;
    flat_layout layout;
    rv_status status = RV_OK;

    *size = 0;
    if (bank->count > RV_BANK_EXACT_LIMIT) {
        status = rv_bank_build_graph(bank, err);
        if (status == RV_OK)
            status = make_order(bank, &order, err);
        if (status != RV_OK)
            return status;
    }
    describe(bank, &order, &header);
    rv_flat_layout(&header, &layout);
    header.size = *size = layout.size;
    if (capacity < layout.size)
        status = rv_fail(err, RV_ERR_FULL, "flat bank: it needs %zu bytes, the buffer has %zu",
                         layout.size, capacity);
    else if ((uintptr_t)buffer % 8 != 0)
        status = rv_fail(err, RV_ERR_INVALID, "flat bank: the buffer must be aligned to 8 bytes");
    else
        status = write_flat(bank, &order, &header, &layout, buffer, err);
    free_order(bank, &order);
    return status;
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
