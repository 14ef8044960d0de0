/*
 * ring.h - the trajectory ring: many writers that never wait, one reader, in memory the caller
 * supplies (shared memory in the server).
 *
 * Contract; the design note with the state machine of a cell is in src/ring/ring.c.
 *  - The ring is an infinite sequence of fixed-size cells; the memory is a window over it. A record
 *    takes as many consecutive cells as it needs (header and payload), so small records do not pay
 *    for the largest one.
 *  - push never locks, allocates, waits or fails the caller: it stores the record or counts why
 * not.
 *  - A full ring overwrites the oldest; the reader counts what it lost.
 *  - A record that was read stays in the window until newer ones take its cells: it can be found.
 *  - Every struct is position-independent: processes may map the memory at different addresses.
 *  - Only lock-free atomics touch shared words, payload included, so ThreadSanitizer is clean.
 */
#ifndef RUVECTOR_RING_H
#define RUVECTOR_RING_H

#include "ruvector/base.h"

#define RV_RING_CELL_BYTES 1024

typedef struct rv_ring rv_ring; /* lies at the start of the caller's memory */

/* A piece of a record; push gathers them, so callers need not copy. */
typedef struct rv_span {
    const void *data;
    size_t size;
} rv_span;

/*
 * Totals since rv_ring_init, in records, exact whenever no push is running:
 *   pushes  = written + dropped + stalled
 *   written = read + lost + (torn - stalled) + those still waiting to be read
 */
typedef struct rv_ring_counters {
    uint64_t written; /* records stored by push */
    uint64_t dropped; /* records push gave up on: larger than the ring allows, or the window had
                         wrapped onto a cell whose writer had not finished */
    uint64_t lost;    /* stored records that were overwritten before the reader came */
    uint64_t torn;    /* records found overwritten while being read, or half-written when a whole
                         window had gone past them */
    uint64_t read;    /* records handed to the reader */
    uint64_t stalled; /* of torn, the half-written ones: their writer died or slept in push */
} rv_ring_counters;

/* Bytes for a ring of cells cells (a multiple of 64 bytes), or 0 if cells is not in [16, 2^24]. */
size_t rv_ring_size(uint32_t cells);

/* Lays out an empty ring in memory of rv_ring_size(cells) bytes, 64-byte aligned. */
rv_status rv_ring_init(void *memory, size_t size, uint32_t cells, rv_ring **out, rv_error *err);

/* The largest record payload this ring accepts, in bytes (a quarter of the window). */
size_t rv_ring_max_record(const rv_ring *ring);

/* Any number of concurrent callers. True when stored. */
bool rv_ring_push(rv_ring *ring, const rv_span *spans, uint32_t count);

/*
 * One reader at a time. Copies the oldest unread record into buffer.
 * RV_OK: *size is its length. RV_ERR_NOTFOUND: nothing to read now (also when the next record is
 * still being written). RV_ERR_FULL: buffer too small; *size tells the need; the record stays.
 */
rv_status rv_ring_pop(rv_ring *ring, void *buffer, size_t capacity, size_t *size);

/*
 * Copies the newest record of the window whose first word_count (1 or more) 8-byte words are these,
 * read already or not; it is not consumed, and nothing changes. Any number of concurrent callers,
 * beside writers and reader. RV_OK: *size is its length. RV_ERR_NOTFOUND: there is none, or it was
 * overwritten while it was copied. RV_ERR_FULL: buffer too small; *size tells the need. Looks at
 * every cell: a few nanoseconds each.
 */
rv_status rv_ring_find(rv_ring *ring, const uint64_t *words, uint32_t word_count, void *buffer,
                       size_t capacity, size_t *size);

rv_ring_counters rv_ring_read_counters(const rv_ring *ring);

/* Cells between the reader and the newest record: how far the reader is behind. */
uint64_t rv_ring_backlog(const rv_ring *ring);

#endif
