/*
 * flat.h - the flat form of a bank: one relocatable buffer, searched in place.
 *
 * Native byte order and IEEE floats, told by byte_order: it travels between processes of one
 * machine and is no interchange format (JSON is). Sections follow each other in this order, each
 * beginning at a multiple of 64 bytes, gaps zero. Where they begin follows from the header's counts
 * alone (rv_flat_layout), so there is no offset to forge:
 *
 *   header      128 bytes
 *   patterns    rv_pattern x (has_index + regions): the index-wide one first, then by id
 *   centroids   regions rows of dim float32, each row padded to 64 bytes
 *   codes       regions rows of dim int8, each row padded to 64 bytes: the centroid (scaled to
 *               unit length for COSINE and IP) as of rv_int8_encode
 *   scales      regions float32: value = scale x code
 *   squares     regions uint32: the sum of the code's squares
 *   errors      regions float32: the Euclidean distance of what was coded from what the code says,
 *               rounded up
 *   only with more than RV_BANK_EXACT_LIMIT regions, whose lookup walks an HNSW; codes to errors
 *   are then in the order of its nodes, in which neighbours lie together:
 *   region_of   regions uint32: the region that is node i
 *   base        regions rows of 1 + 2m uint32: how many links, then the links on layer 0
 *   upper_start regions + 1 uint32: the upper layers of node i are the blocks
 *               upper_start[i] .. upper_start[i + 1] - 1, layer 1 first
 *   upper       upper_blocks rows of 1 + m uint32: as base, on layers above 0
 *
 * Lookups compare codes: a quarter of the memory of float32, and memory is what they wait for. What
 * they find is ranked by the float32 centroids.
 *
 * The checksum (base/checksum.h, seeded with the version) covers everything after itself.
 */
#ifndef RUVECTOR_BANK_FLAT_H
#define RUVECTOR_BANK_FLAT_H

#include "internal.h"

#define FLAT_MAGIC UINT64_C(0x314b4e4142565552) /* "RUVBANK1" */
#define FLAT_BYTE_ORDER UINT32_C(0x01020304)
#define FLAT_CHECKED_FROM 32 /* the first byte that the checksum covers */

typedef struct flat_header {
    uint64_t magic;
    uint32_t version;
    uint32_t byte_order;
    uint64_t size;
    uint64_t checksum;
    uint32_t metric;
    uint32_t dim;
    uint32_t max_patterns;
    uint32_t regions;
    uint64_t last_id;
    uint32_t has_index; /* 0 or 1 */
    uint32_t m;         /* links per node above layer 0; 0 without a graph */
    uint32_t entry;     /* node where a walk begins */
    uint32_t entry_level;
    uint32_t upper_blocks;
    uint32_t reserved[13]; /* 0 */
} flat_header;

/* Offsets of the sections from the buffer's start, and the strides of their rows in bytes. */
typedef struct flat_layout {
    size_t patterns;
    size_t centroids;
    size_t codes;
    size_t scales;
    size_t squares;
    size_t errors;
    size_t region_of;
    size_t base;
    size_t upper_start;
    size_t upper;
    size_t size;
    size_t centroid_stride;
    size_t code_stride;
} flat_layout;

/* header's counts must be within their limits, which keeps every sum far below SIZE_MAX. */
void rv_flat_layout(const flat_header *header, flat_layout *layout);

/* The checksum that belongs into the header. */
uint64_t rv_flat_checksum(const flat_header *header, size_t size);

static inline const rv_pattern *
flat_pattern(const flat_header *header, const flat_layout *layout, uint32_t region)
{
    const char *patterns = (const char *)header + layout->patterns;
    return (const rv_pattern *)(const void *)patterns + header->has_index + region;
}

static inline const float *
flat_centroid(const flat_header *header, const flat_layout *layout, uint32_t region)
{
    const char *rows = (const char *)header + layout->centroids;
    return (const float *)(const void *)(rows + region * layout->centroid_stride);
}

/* Of a node; without a graph, of a region. */
static inline const int8_t *
flat_code(const flat_header *header, const flat_layout *layout, uint32_t node)
{
    const char *rows = (const char *)header + layout->codes;
    return (const int8_t *)(rows + node * layout->code_stride);
}

static inline const float *
flat_scales(const flat_header *header, const flat_layout *layout)
{
    return (const float *)(const void *)((const char *)header + layout->scales);
}

static inline const uint32_t *
flat_squares(const flat_header *header, const flat_layout *layout)
{
    return (const uint32_t *)(const void *)((const char *)header + layout->squares);
}

static inline const float *
flat_errors(const flat_header *header, const flat_layout *layout)
{
    return (const float *)(const void *)((const char *)header + layout->errors);
}

static inline const uint32_t *
flat_region_of(const flat_header *header, const flat_layout *layout)
{
    return (const uint32_t *)(const void *)((const char *)header + layout->region_of);
}

static inline const uint32_t *
flat_upper_start(const flat_header *header, const flat_layout *layout)
{
    return (const uint32_t *)(const void *)((const char *)header + layout->upper_start);
}

/* The number of levels of a node above layer 0. */
static inline uint32_t
flat_level(const flat_header *header, const flat_layout *layout, uint32_t node)
{
    const uint32_t *start = flat_upper_start(header, layout);
    return start[node + 1] - start[node];
}

/* The links of node on a level it has: their count, then the links. */
static inline const uint32_t *
flat_links(const flat_header *header, const flat_layout *layout, uint32_t node, uint32_t level)
{
    const char *base = (const char *)header;

    if (level == 0)
        return (const uint32_t *)(const void *)(base + layout->base) +
               (size_t)node * (1 + 2 * header->m);
    return (const uint32_t *)(const void *)(base + layout->upper) +
           (size_t)(flat_upper_start(header, layout)[node] + level - 1) * (1 + header->m);
}

#endif
