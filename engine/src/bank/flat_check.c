/*
 * flat_check.c - whether a buffer is a flat bank, down to the last link.
 *
 * After it the lookup trusts every count, id and link without looking again, so a buffer that is
 * wrong in a way the checksum does not show (it is no secret) must fail here.
 */
#include "flat.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static rv_status
check_counts(const flat_header *h, rv_error *err)
{
    uint64_t total = (uint64_t)h->regions + h->has_index;
    bool graph = h->regions > RV_BANK_EXACT_LIMIT;
    uint32_t stray = 0;

    for (size_t i = 0; i < sizeof(h->reserved) / sizeof(h->reserved[0]); i++)
        stray |= h->reserved[i];
    if (h->metric < RV_METRIC_L2 || h->metric > RV_METRIC_L1)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: there is no metric %u", h->metric);
    if (h->dim < 1 || h->dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: %u dimensions; must be 1 to %d", h->dim,
                       RV_MAX_DIMENSIONS);
    if (h->max_patterns < 1 || h->max_patterns > RV_BANK_MAX_PATTERNS)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: max_patterns is %u; must be 1 to %d",
                       h->max_patterns, RV_BANK_MAX_PATTERNS);
    if (h->has_index > 1 || total > h->max_patterns)
        return rv_fail(err, RV_ERR_FORMAT,
                       "flat bank: %u region and %u index-wide patterns; must be at most %u in all "
                       "and 1 index-wide",
                       h->regions, h->has_index, h->max_patterns);
    if (graph ? h->m < 2 || h->m > RV_BANK_GRAPH_MAX_M : h->m != 0)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: %u links per node with %u regions", h->m,
                       h->regions);
    if (graph ? h->entry >= h->regions || h->entry_level > RV_HNSW_MAX_LEVEL ||
                    h->upper_blocks > (uint64_t)h->regions * RV_HNSW_MAX_LEVEL
              : h->entry != 0 || h->entry_level != 0 || h->upper_blocks != 0)
        return rv_fail(err, RV_ERR_FORMAT,
                       "flat bank: entry %u at level %u and %u upper blocks with %u regions",
                       h->entry, h->entry_level, h->upper_blocks, h->regions);
    if (stray != 0)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: reserved header fields are not zero");
    return RV_OK;
}

static rv_status
check_header(const flat_header *h, size_t size, flat_layout *layout, rv_error *err)
{
    rv_status status;

    if (h->magic != FLAT_MAGIC)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: the magic number is %#llx; must be %#llx",
                       (unsigned long long)h->magic, (unsigned long long)FLAT_MAGIC);
    if (h->byte_order != FLAT_BYTE_ORDER)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: written on a machine of other byte order");
    if (h->version != RV_BANK_FLAT_VERSION)
        return rv_fail(err, RV_ERR_VERSION, "flat bank: version %u; this code reads %d", h->version,
                       RV_BANK_FLAT_VERSION);
    status = check_counts(h, err);
    if (status != RV_OK)
        return status;
    rv_flat_layout(h, layout);
    if (h->size != layout->size || h->size > size)
        return rv_fail(err, RV_ERR_FORMAT,
                       "flat bank: its size is given as %llu bytes; its counts make %zu, the "
                       "buffer has %zu",
                       (unsigned long long)h->size, layout->size, size);
    if (h->checksum != rv_flat_checksum(h, layout->size))
        return rv_fail(err, RV_ERR_CORRUPT, "flat bank: the checksum does not match the contents");
    return RV_OK;
}

static rv_status
check_pattern(const flat_header *h, const rv_pattern *pattern, uint32_t scope, uint32_t number,
              rv_error *err)
{
    rv_error cause;
    rv_status status = rv_pattern_check(pattern, &cause);

    if (status != RV_OK)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: pattern %u: %.200s", number, cause.message);
    if (pattern->scope != scope)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: pattern %u: scope is %u; must be %u", number,
                       pattern->scope, scope);
    if (pattern->id == 0 || pattern->id > h->last_id)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: pattern %u: id is %llu; must be 1 to %llu",
                       number, (unsigned long long)pattern->id, (unsigned long long)h->last_id);
    for (uint32_t i = pattern->entry_count; i < RV_PATTERN_ENTRY_POINTS; i++)
        if (pattern->entry_points[i] != 0)
            return rv_fail(err, RV_ERR_FORMAT,
                           "flat bank: pattern %u: an unused entry point is not 0", number);
    return RV_OK;
}

static rv_status
check_patterns(const flat_header *h, const flat_layout *layout, rv_error *err)
{
    const rv_pattern *index = rv_bank_flat_index_pattern(h);
    uint64_t previous = 0;
    rv_status status = RV_OK;

    if (index != NULL)
        status = check_pattern(h, index, RV_PATTERN_INDEX, 0, err);
    for (uint32_t i = 0; status == RV_OK && i < h->regions; i++) {
        const rv_pattern *pattern = flat_pattern(h, layout, i);
        char what[48];

        status = check_pattern(h, pattern, RV_PATTERN_REGION, i + h->has_index, err);
        if (status != RV_OK)
            break;
        if (pattern->id <= previous || (index != NULL && pattern->id == index->id))
            return rv_fail(err, RV_ERR_FORMAT,
                           "flat bank: pattern %u: id %llu repeats or is out of order",
                           i + h->has_index, (unsigned long long)pattern->id);
        previous = pattern->id;
        snprintf(what, sizeof(what), "flat bank: centroid %u", i);
        if (rv_bank_check_vector(flat_centroid(h, layout, i), h->dim, what, err) != RV_OK) {
            status = RV_ERR_FORMAT;
            if (err != NULL)
                err->status = status;
        }
    }
    return status;
}

static rv_status
check_links(const flat_header *h, const flat_layout *layout, uint32_t node, uint32_t level,
            rv_error *err)
{
    const uint32_t *links = flat_links(h, layout, node, level);
    uint32_t limit = level == 0 ? 2 * h->m : h->m;

    if (links[0] > limit)
        return rv_fail(err, RV_ERR_FORMAT,
                       "flat bank: node %u has %u links on level %u; at most %u fit", node,
                       links[0], level, limit);
    for (uint32_t i = 1; i <= links[0]; i++)
        if (links[i] >= h->regions || flat_level(h, layout, links[i]) < level)
            return rv_fail(err, RV_ERR_FORMAT,
                           "flat bank: node %u links to %u on level %u, where there is no such "
                           "node",
                           node, links[i], level);
    return RV_OK;
}

static rv_status
check_codes(const flat_header *h, const flat_layout *layout, rv_error *err)
{
    const float *scales = flat_scales(h, layout);
    const float *errors = flat_errors(h, layout);

    for (uint32_t i = 0; i < h->regions; i++) {
        if (!(isfinite(scales[i]) && scales[i] >= 0))
            return rv_fail(err, RV_ERR_FORMAT,
                           "flat bank: scale %u is %g; must be finite and at least 0", i,
                           scales[i]);
        if (!(isfinite(errors[i]) && errors[i] >= 0))
            return rv_fail(err, RV_ERR_FORMAT,
                           "flat bank: error %u is %g; must be finite and at least 0", i,
                           errors[i]);
    }
    return RV_OK;
}

/* Every region is one node. */
static rv_status
check_order(const flat_header *h, const flat_layout *layout, rv_error *err)
{
    const uint32_t *region_of = flat_region_of(h, layout);
    uint64_t seen[RV_BANK_MAX_PATTERNS / 64 + 1] = {0};

    for (uint32_t i = 0; i < h->regions; i++) {
        uint32_t region = region_of[i];

        if (region >= h->regions || (seen[region / 64] >> region % 64 & 1) != 0)
            return rv_fail(err, RV_ERR_FORMAT,
                           "flat bank: node %u is region %u, of which there is no such or another "
                           "node",
                           i, region);
        seen[region / 64] |= UINT64_C(1) << region % 64;
    }
    return RV_OK;
}

static rv_status
check_graph(const flat_header *h, const flat_layout *layout, rv_error *err)
{
    const uint32_t *start = flat_upper_start(h, layout);
    rv_status status = check_order(h, layout, err);

    if (status != RV_OK)
        return status;
    for (uint32_t i = 0; i < h->regions; i++) {
        if (start[i + 1] < start[i] || start[i + 1] - start[i] > RV_HNSW_MAX_LEVEL)
            return rv_fail(err, RV_ERR_FORMAT, "flat bank: node %u has upper blocks %u to %u", i,
                           start[i], start[i + 1]);
    }
    if (start[0] != 0 || start[h->regions] != h->upper_blocks)
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: its nodes have upper blocks %u to %u of %u",
                       start[0], start[h->regions], h->upper_blocks);
    if (h->entry_level != flat_level(h, layout, h->entry))
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: entry %u has level %u, not %u", h->entry,
                       flat_level(h, layout, h->entry), h->entry_level);
    for (uint32_t i = 0; status == RV_OK && i < h->regions; i++)
        for (uint32_t level = 0; status == RV_OK && level <= flat_level(h, layout, i); level++)
            status = check_links(h, layout, i, level, err);
    return status;
}

rv_status
rv_bank_flat_check(const void *buffer, size_t size, rv_error *err)
{
    const flat_header *header = buffer;
    flat_layout layout;
    rv_status status;

    if (buffer == NULL || (uintptr_t)buffer % 8 != 0)
        return rv_fail(err, RV_ERR_INVALID,
                       "flat bank: the buffer must be given and aligned to 8 bytes");
    if (size < sizeof(*header))
        return rv_fail(err, RV_ERR_FORMAT, "flat bank: %zu bytes; the header alone has %zu", size,
                       sizeof(*header));
    status = check_header(header, size, &layout, err);
    if (status == RV_OK)
        status = check_patterns(header, &layout, err);
    if (status == RV_OK)
        status = check_codes(header, &layout, err);
    if (status == RV_OK && header->m > 0)
        status = check_graph(header, &layout, err);
    return status;
}
