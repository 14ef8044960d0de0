/*
 * storage.c - chunks of nodes and the arena of the upper layers; graph.h has the design.
 */
#include "graph.h"

#include <assert.h>
#include <sched.h>
#include <string.h>

#include "../base/internal.h"

#define ARENA_FIRST ((size_t)4096)
#define ARENA_LARGEST ((size_t)256 * 1024)

static size_t
round_up(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

void
rv_hnsw_storage_init(rv_hnsw *graph)
{
    uint32_t m = graph->options.m;
    size_t row;

    /* Rows that are a whole number of lines touch the fewest; short rows are better packed. */
    if (graph->options.dim >= RV_LINE / sizeof(float))
        graph->stride = (uint32_t)round_up(graph->options.dim, RV_LINE / sizeof(float));
    else
        graph->stride = graph->options.dim;
    row = graph->stride * sizeof(float);
    graph->chunk_bits = 4;
    while (graph->chunk_bits < 14 && (row << (graph->chunk_bits + 1)) <= RV_CHUNK_BYTES)
        graph->chunk_bits++;
    /* The count, m nodes, m distances, m marks. */
    graph->upper_bytes =
        round_up(sizeof(uint32_t) + m * (sizeof(uint32_t) + sizeof(float) + 1), sizeof(uint32_t));
}

void
rv_hnsw_storage_release(rv_hnsw *graph)
{
    if (graph->is_shared)
        return; /* the memory is the caller's */
    for (size_t i = 0; i < graph->chunk_count; i++)
        rv_free(graph->allocator, graph->chunks[i].memory);
    rv_free(graph->allocator, graph->chunks);
    while (graph->arena != NULL) {
        rv_arena_block *next = graph->arena->next;

        rv_free(graph->allocator, graph->arena);
        graph->arena = next;
    }
}

static rv_status
check_limit(const rv_hnsw *graph, size_t extra, rv_error *err)
{
    size_t limit = graph->options.memory_limit;

    if (limit > 0 && (extra > limit || graph->memory > limit - extra))
        return rv_fail(err, RV_ERR_FULL,
                       "the graph of %llu nodes would pass its memory limit of %zu bytes",
                       (unsigned long long)graph->own.count, limit);
    return RV_OK;
}

/* Bytes of a chunk that starts on a line. */
static size_t
chunk_bytes(const rv_hnsw *graph, size_t nodes)
{
    size_t degree = 2 * (size_t)graph->options.m;

    return round_up(nodes * graph->stride * sizeof(float), RV_LINE) +
           round_up(nodes * (1 + degree) * sizeof(uint32_t), RV_LINE) + nodes * sizeof(uintptr_t) +
           round_up(nodes * degree * sizeof(float), 8) + nodes * degree + 2 * nodes;
}

static void
lay_out_chunk(const rv_hnsw *graph, size_t nodes, uint8_t *at, rv_chunk *chunk)
{
    size_t degree = 2 * (size_t)graph->options.m;
    size_t vectors = round_up(nodes * graph->stride * sizeof(float), RV_LINE);
    size_t links = round_up(nodes * (1 + degree) * sizeof(uint32_t), RV_LINE);
    size_t distances = nodes * degree * sizeof(float);
    size_t upper = nodes * sizeof(uintptr_t);
    size_t kept = nodes * degree;

    chunk->vectors = (float *)(void *)at;
    at += vectors;
    chunk->links = (uint32_t *)(void *)at;
    at += links;
    chunk->upper = (uintptr_t *)(void *)at;
    at += upper;
    chunk->distances = (float *)(void *)at;
    at += round_up(distances, 8);
    chunk->kept = at;
    at += kept;
    chunk->levels = at;
    chunk->locks = at + nodes;
}

/* One allocation for a chunk of some nodes. */
static rv_status
make_chunk(rv_hnsw *graph, size_t nodes, rv_chunk *chunk, rv_error *err)
{
    size_t bytes = RV_LINE + chunk_bytes(graph, nodes);
    rv_status status = check_limit(graph, bytes, err);

    if (status != RV_OK)
        return status;
    chunk->memory = rv_alloc(graph->allocator, bytes);
    if (chunk->memory == NULL)
        return rv_fail_nomem(err, bytes);
    chunk->bytes = bytes;
    lay_out_chunk(graph, nodes, (uint8_t *)round_up((size_t)(uintptr_t)chunk->memory, RV_LINE),
                  chunk);
    return RV_OK;
}

/* The first chunk, twice as large as before. */
static rv_status
grow_first_chunk(rv_hnsw *graph, size_t nodes, rv_error *err)
{
    size_t degree = 2 * (size_t)graph->options.m;
    size_t used = (size_t)graph->own.count;
    rv_chunk *old = &graph->chunks[0];
    rv_chunk chunk;
    rv_status status = make_chunk(graph, nodes, &chunk, err);

    if (status != RV_OK)
        return status;
    memcpy(chunk.vectors, old->vectors, used * graph->stride * sizeof(float));
    memcpy(chunk.links, old->links, used * (1 + degree) * sizeof(uint32_t));
    memcpy(chunk.distances, old->distances, used * degree * sizeof(float));
    memcpy(chunk.kept, old->kept, used * degree);
    memcpy(chunk.levels, old->levels, used);
    memcpy(chunk.upper, old->upper, used * sizeof(uintptr_t));
    graph->memory += chunk.bytes - old->bytes;
    rv_free(graph->allocator, old->memory);
    *old = chunk;
    return RV_OK;
}

static rv_status
add_chunk(rv_hnsw *graph, size_t nodes, rv_error *err)
{
    rv_chunk chunk;
    rv_status status;

    if (graph->chunk_count == graph->chunk_room) {
        size_t room = graph->chunk_room > 0 ? graph->chunk_room * 2 : 8;
        size_t bytes = room * sizeof *graph->chunks;
        rv_chunk *chunks;

        status = check_limit(graph, bytes, err);
        if (status != RV_OK)
            return status;
        chunks = rv_alloc(graph->allocator, bytes);
        if (chunks == NULL)
            return rv_fail_nomem(err, bytes);
        if (graph->chunk_count > 0)
            memcpy(chunks, graph->chunks, graph->chunk_count * sizeof *chunks);
        rv_free(graph->allocator, graph->chunks);
        graph->memory += (room - graph->chunk_room) * sizeof *chunks;
        graph->chunks = chunks;
        graph->chunk_room = room;
    }
    status = make_chunk(graph, nodes, &chunk, err);
    if (status != RV_OK)
        return status;
    graph->chunks[graph->chunk_count++] = chunk;
    graph->memory += chunk.bytes;
    return RV_OK;
}

static rv_status
reserve_private(rv_hnsw *graph, rv_error *err)
{
    size_t full = (size_t)1 << graph->chunk_bits;
    rv_status status;

    if (graph->own.count >= UINT32_MAX)
        return rv_fail(err, RV_ERR_FULL, "the graph has %llu nodes, the most there can be",
                       (unsigned long long)graph->own.count);
    if (graph->own.count < graph->own.capacity)
        return RV_OK;
    if (graph->own.capacity == 0) {
        status = add_chunk(graph, RV_FIRST_CHUNK_NODES, err);
        if (status == RV_OK)
            graph->own.capacity = RV_FIRST_CHUNK_NODES;
    } else if (graph->own.capacity < full) {
        size_t nodes =
            (size_t)graph->own.capacity * 2 < full ? (size_t)graph->own.capacity * 2 : full;

        status = grow_first_chunk(graph, nodes, err);
        if (status == RV_OK)
            graph->own.capacity = nodes;
    } else {
        status = add_chunk(graph, full, err);
        if (status == RV_OK)
            graph->own.capacity += full;
    }
    return status;
}

/* Zeroed memory out of the arena. */
static rv_status
arena_alloc(rv_hnsw *graph, size_t size, uint8_t **out, rv_error *err)
{
    rv_arena_block *block = graph->arena;
    const size_t header = round_up(sizeof *block, RV_LINE);

    size = round_up(size, 8);
    if (block == NULL || block->size - block->used < size) {
        size_t bytes = block == NULL ? ARENA_FIRST : block->size * 2;
        rv_status status;

        if (bytes > ARENA_LARGEST)
            bytes = ARENA_LARGEST;
        if (bytes < header + size)
            bytes = header + size;
        status = check_limit(graph, bytes, err);
        if (status != RV_OK)
            return status;
        block = rv_alloc(graph->allocator, bytes);
        if (block == NULL)
            return rv_fail_nomem(err, bytes);
        block->next = graph->arena;
        block->used = header;
        block->size = bytes;
        graph->arena = block;
        graph->memory += bytes;
    }
    *out = (uint8_t *)block + block->used;
    block->used += size;
    memset(*out, 0, size);
    return RV_OK;
}

/* Zeroed memory behind a shared graph's chunk. */
static bool
shared_upper(rv_hnsw *graph, size_t size, uintptr_t *out)
{
    rv_hnsw_shared *shared = graph->shared;
    uint64_t used = __atomic_load_n(&shared->upper_used, __ATOMIC_RELAXED);

    do {
        if (shared->upper_size - used < size)
            return false;
    } while (!__atomic_compare_exchange_n(&shared->upper_used, &used, used + size, false,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    *out = (uintptr_t)used;
    memset(graph->upper_base + used, 0, size);
    return true;
}

static bool
shared_number(rv_hnsw *graph, rv_node *node)
{
    rv_hnsw_shared *shared = graph->shared;
    uint64_t count = __atomic_load_n(&shared->count, __ATOMIC_RELAXED);

    do {
        if (count >= shared->capacity)
            return false;
    } while (!__atomic_compare_exchange_n(&shared->count, &count, count + 1, false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    *node = count;
    return true;
}

rv_status
rv_hnsw_reserve(rv_hnsw *graph, int level, rv_node *node, rv_error *err)
{
    size_t upper_bytes = (size_t)level * graph->upper_bytes;
    uintptr_t upper = 0;
    rv_chunk *chunk;
    size_t slot;

    if (graph->is_shared) {
        if ((level > 0 && !shared_upper(graph, upper_bytes, &upper)) || !shared_number(graph, node))
            return rv_fail(err, RV_ERR_FULL, "the shared memory of the graph is full at %llu nodes",
                           (unsigned long long)rv_hnsw_nodes(graph));
    } else {
        rv_status status = reserve_private(graph, err);
        uint8_t *block = NULL;

        if (status == RV_OK && level > 0)
            status = arena_alloc(graph, upper_bytes, &block, err);
        if (status != RV_OK)
            return status;
        upper = (uintptr_t)block;
        *node = graph->own.count++;
    }
    chunk = &graph->chunks[*node >> graph->chunk_bits];
    slot = rv_hnsw_slot(graph, *node);
    chunk->levels[slot] = (uint8_t)level;
    chunk->locks[slot] = 0;
    chunk->upper[slot] = upper;
    *rv_hnsw_base_links(graph, *node) = 0;
    return RV_OK;
}

static size_t
upper_room(const rv_hnsw *graph, uint64_t nodes)
{
    /* A node has 1 / (m - 1) upper levels on average; a tenth more, and some for small graphs. */
    uint64_t blocks = nodes / (graph->options.m - 1);

    return (size_t)(blocks + blocks / 10 + 64) * graph->upper_bytes;
}

size_t
rv_hnsw_storage_bytes(const rv_hnsw *graph, uint64_t nodes)
{
    return round_up(sizeof(rv_hnsw_shared), RV_LINE) +
           round_up(chunk_bytes(graph, (size_t)nodes), RV_LINE) + upper_room(graph, nodes);
}

bool
rv_hnsw_storage_share(rv_hnsw *graph, void *memory, size_t bytes)
{
    rv_hnsw_shared *shared = memory;
    uint64_t low = 0, high = UINT32_MAX; /* low nodes fit */

    if (bytes / sizeof(float) / graph->stride < high)
        high = bytes / sizeof(float) / graph->stride + 1;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;

        if (rv_hnsw_storage_bytes(graph, middle) <= bytes)
            low = middle;
        else
            high = middle;
    }
    if (low == 0)
        return false;
    memset(shared, 0, sizeof *shared);
    shared->options = graph->options;
    shared->capacity = low;
    shared->upper_size = upper_room(graph, low);
    shared->magic = RV_SHARED_MAGIC;
    rv_hnsw_storage_attach(graph, memory);
    return true;
}

void
rv_hnsw_storage_attach(rv_hnsw *graph, void *memory)
{
    uint8_t *at = (uint8_t *)memory + round_up(sizeof(rv_hnsw_shared), RV_LINE);

    graph->is_shared = true;
    graph->shared = memory;
    graph->chunk_bits = 32; /* one chunk holds all */
    graph->chunks = &graph->shared_chunk;
    lay_out_chunk(graph, (size_t)graph->shared->capacity, at, graph->chunks);
    graph->upper_base = at + round_up(chunk_bytes(graph, (size_t)graph->shared->capacity), RV_LINE);
}

#define SPINS_BEFORE_YIELD 200

static inline void
relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void
rv_hnsw_lock(uint8_t *lock)
{
    for (unsigned spins = 1; __atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0; spins++) {
        while (__atomic_load_n(lock, __ATOMIC_RELAXED) != 0 && spins++ % SPINS_BEFORE_YIELD != 0)
            relax();
        if (spins >= SPINS_BEFORE_YIELD)
            sched_yield(); /* the holder may wait for this processor */
    }
}

void
rv_hnsw_unlock(uint8_t *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

rv_link_list
rv_hnsw_list(const rv_hnsw *graph, rv_node node, int level)
{
    size_t m = graph->options.m;
    rv_link_list list;

    if (level == 0) {
        const rv_chunk *chunk = rv_hnsw_chunk(graph, node);
        size_t slot = rv_hnsw_slot(graph, node);

        list.count = chunk->links + slot * (1 + 2 * m);
        list.nodes = list.count + 1;
        list.distances = chunk->distances + slot * 2 * m;
        list.kept = chunk->kept + slot * 2 * m;
        list.capacity = (uint32_t)(2 * m);
    } else {
        assert(level <= rv_hnsw_level_of(graph, node));
        list.count = rv_hnsw_upper_links(graph, node, level);
        list.nodes = list.count + 1;
        list.distances = (float *)(void *)(list.nodes + m);
        list.kept = (uint8_t *)(list.distances + m);
        list.capacity = (uint32_t)m;
    }
    return list;
}
