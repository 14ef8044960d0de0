/*
 * memory_flat.h - the layout of a flat memory: a header, then sections at offsets that follow from
 * it.
 *
 *   codes    count x stride int8, each row from a multiple of CODE_ALIGNMENT bytes
 *   scales   count float
 *   starts   count uint32: where a query's links begin, in words of the links section
 *   links    per query: its level, then for level 0, 1, ... the number of links and the links
 *   sizes    count uint8: nodes of the query
 *   nodes    count x RV_MEMORY_ENTRIES rv_node
 * Every section begins at a multiple of 8 bytes.
 */
#ifndef RUVECTOR_MEMORY_FLAT_H
#define RUVECTOR_MEMORY_FLAT_H

#include "memory_internal.h"

#define MEMORY_MAGIC UINT64_C(0x314d454d56525652) /* "RVRVMEM1" */
#define CODE_ALIGNMENT 16

typedef struct memory_header {
    uint64_t magic;
    uint32_t version;
    uint32_t metric;
    uint64_t size;     /* of the whole buffer */
    uint64_t checksum; /* of everything after this header, seeded with its other fields */
    uint32_t dim;
    uint32_t count;
    uint32_t m;
    uint32_t entry;
    uint32_t entry_level;
    uint32_t link_words;
    float reach; /* raw: farther past queries say nothing */
    uint32_t reserved;
} memory_header;

_Static_assert(sizeof(memory_header) == 64, "the flat header is 64 bytes");

typedef struct memory_layout {
    size_t stride;
    size_t codes, scales, starts, links, sizes, nodes, end;
} memory_layout;

static inline size_t
memory_align(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

static inline memory_layout
memory_layout_of(const memory_header *header)
{
    size_t count = header->count;
    memory_layout at;

    at.stride = ((size_t)header->dim + CODE_ALIGNMENT - 1) / CODE_ALIGNMENT * CODE_ALIGNMENT;
    at.codes = sizeof(*header);
    at.scales = at.codes + count * at.stride;
    at.starts = at.scales + memory_align(count * sizeof(float));
    at.links = at.starts + memory_align(count * sizeof(uint32_t));
    at.sizes = at.links + memory_align((size_t)header->link_words * sizeof(uint32_t));
    at.nodes = at.sizes + memory_align(count);
    at.end = at.nodes + count * RV_MEMORY_ENTRIES * sizeof(rv_node);
    return at;
}

/* A section as an array; buffers are aligned to 8 bytes. */
#define MEMORY_SECTION(type, buffer, offset)                                                       \
    ((const type *)(const void *)((const char *)(buffer) + (offset)))

/* The links of one query at a level: *count of them. The level exists. */
static inline const uint32_t *
memory_links(const uint32_t *links, uint32_t start, uint32_t level, uint32_t *count)
{
    const uint32_t *at = links + start + 1;

    for (; level > 0; level--)
        at += 1 + at[0];
    *count = at[0];
    return at + 1;
}

uint64_t rv_memory_checksum(const void *buffer);

#endif
