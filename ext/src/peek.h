/*
 * peek.h - reading index pages in shared buffers without a pin.
 *
 * A search over a graph reads hundreds of places, a few cache lines each. Finding a page by the
 * buffer table, pinning and unpinning it and taking its content lock cost several times what the
 * reading itself does (page.h of ruhnsw has the figures). So a search remembers the buffer in which
 * it last found each block, and peeks:
 *
 *   1. the buffer's descriptor says that it holds the block, and is valid;
 *   2. the bytes are read;
 *   3. the descriptor still says so.
 *
 * Step 3 makes sure that the buffer was not given to another page meanwhile. Buffers are never
 * unmapped, so what is read in vain is garbage, not a crash; the reader must bound what it does
 * with it until step 3 has passed, and then do it again with a pin (ruv_peek_pinned). One case
 * passes all three steps wrongly: the buffer loses the block and gets it back between 1 and 3. So
 * nothing that is peeked at may be trusted with more than the direction of a search; what is handed
 * out as a result is read again under a pin and a lock.
 *
 * Bytes that change in place (links) need more: ruv_peek_stable also refuses a page whose content
 * lock is held exclusively, and compares the page's LSN before and after. Every change of a logged
 * page raises its LSN before the lock is released, so an unchanged LSN and no exclusive lock at
 * both ends mean that nothing was written in between. Relations that are not logged are read under
 * a pin and a lock instead.
 *
 * What is not counted is evicted: a peek leaves no trace in the buffer's usage count. When that has
 * fallen low the page is read in the usual way, which raises it; so a page that is in use stays.
 * Reads are counted as buffer hits, so that EXPLAIN (BUFFERS) and the statistics see them.
 *
 * The hints are the relation's rd_amcache: they vanish with a relcache invalidation and are found
 * again one by one. A reader must call ruv_reader_refresh whenever such a one may have happened.
 */
#ifndef RUVECTOR_PEEK_H
#define RUVECTOR_PEEK_H

#include "ruvector.h"

#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/rel.h"

/* Below this usage count a page is read in the usual way. */
#define RUV_PEEK_MIN_USAGE 2

/* One glance in so many is made a look under a pin. */
#define RUV_GLANCES_PER_LOOK 64

typedef struct RuvHints {
    BlockNumber capacity;
    BlockNumber blocks;                    /* that the file is known to have, at most capacity */
    Buffer buffers[FLEXIBLE_ARRAY_MEMBER]; /* InvalidBuffer: unknown */
} RuvHints;

typedef struct RuvReader {
    Relation index;
    RuvHints *hints;
    bool shared;   /* in shared buffers: can be peeked at */
    bool logged;   /* changes raise the LSN */
    uint64 pages;  /* pages looked at since the reader was opened */
    uint64 unseen; /* peeks that are not in the statistics yet */
    uint32 glances;
} RuvReader;

/* One look at one page. */
typedef struct RuvPeek {
    Buffer pin; /* InvalidBuffer: not pinned */
    BufferDesc *descriptor;
    BlockNumber block;
    XLogRecPtr lsn;
} RuvPeek;

extern void ruv_reader_open(RuvReader *reader, Relation index);
/* At the start of whatever runs without taking heavyweight locks. */
extern void ruv_reader_refresh(RuvReader *reader);
/* Adds the peeks since the last call to the statistics. */
extern void ruv_reader_report(RuvReader *reader);

/* Pins and share-locks the block, and notes its buffer. A block past the end of the file gives
 * NULL.
 */
extern Page ruv_peek_pinned(RuvReader *reader, BlockNumber block, RuvPeek *peek);

/* Asks for cache lines of a block whose buffer is known. */
static inline void
ruv_prefetch(const RuvReader *reader, BlockNumber block, uint32 offset, uint32 size)
{
    const RuvHints *hints = reader->hints;

    if (reader->shared && block < hints->blocks && BufferIsValid(hints->buffers[block])) {
        const char *at = (const char *)BufferGetBlock(hints->buffers[block]) + offset;
        const char *end = at + size;

        for (at -= (uintptr_t)at % 64; at < end; at += 64)
            __builtin_prefetch(at);
    }
}

static inline bool
ruv_peek_holds(const RuvReader *reader, const RuvPeek *peek, uint32 state)
{
    return (state & BM_VALID) && ruv_buffer_holds(peek->descriptor, reader->index, peek->block);
}

/* Step 1. The page may be pinned instead; NULL: no such block. */
static inline Page
ruv_peek(RuvReader *reader, BlockNumber block, RuvPeek *peek)
{
    Buffer buffer = InvalidBuffer;

    if (reader->shared && block < reader->hints->blocks)
        buffer = reader->hints->buffers[block];
    if (BufferIsValid(buffer)) {
        uint32 state;

        peek->pin = InvalidBuffer;
        peek->descriptor = GetBufferDescriptor(buffer - 1);
        peek->block = block;
        state = pg_atomic_read_u32(&peek->descriptor->state);
        if (ruv_peek_holds(reader, peek, state) &&
            BUF_STATE_GET_USAGECOUNT(state) >= RUV_PEEK_MIN_USAGE) {
            reader->pages++;
            reader->unseen++;
            pg_read_barrier();
            return BufferGetPage(buffer);
        }
    }
    return ruv_peek_pinned(reader, block, peek);
}

/* Step 3, or the release of the pin. False: what was read is worthless, read it pinned. */
static inline bool
ruv_peek_end(RuvReader *reader, RuvPeek *peek)
{
    if (BufferIsValid(peek->pin)) {
        UnlockReleaseBuffer(peek->pin);
        return true;
    }
    pg_read_barrier();
    return ruv_peek_holds(reader, peek, pg_atomic_read_u32(&peek->descriptor->state));
}

/*
 * A look at a page in the buffer where it was last, for many short looks at places that tell by
 * themselves whose they are: the descriptor, far away in memory, is not asked. NULL: not known, or
 * it is time to look in the usual way, so that the buffer's usage is counted now and then.
 */
static inline Page
ruv_glance(RuvReader *reader, BlockNumber block)
{
    if (!reader->shared || block >= reader->hints->blocks ||
        !BufferIsValid(reader->hints->buffers[block]) ||
        ++reader->glances % RUV_GLANCES_PER_LOOK == 0)
        return NULL;
    reader->pages++;
    reader->unseen++;
    return BufferGetPage(reader->hints->buffers[block]);
}

static inline bool
ruv_peek_unlocked(const RuvPeek *peek)
{
    LWLock *lock = BufferDescriptorGetContentLock(peek->descriptor);

    return !(pg_atomic_read_u32(&lock->state) & RUV_LWLOCK_EXCLUSIVE);
}

/* The same for bytes that change in place. */
static inline Page
ruv_peek_stable(RuvReader *reader, BlockNumber block, RuvPeek *peek)
{
    Page page =
        reader->logged ? ruv_peek(reader, block, peek) : ruv_peek_pinned(reader, block, peek);

    if (page == NULL || BufferIsValid(peek->pin))
        return page;
    if (!ruv_peek_unlocked(peek))
        return ruv_peek_pinned(reader, block, peek);
    pg_read_barrier();
    peek->lsn = PageGetLSN(page);
    pg_read_barrier();
    return page;
}

static inline bool
ruv_peek_stable_end(RuvReader *reader, RuvPeek *peek)
{
    Page page;

    if (BufferIsValid(peek->pin))
        return ruv_peek_end(reader, peek);
    page = BufferGetPage(BufferDescriptorGetBuffer(peek->descriptor));
    pg_read_barrier();
    if (PageGetLSN(page) != peek->lsn || !ruv_peek_unlocked(peek))
        return false;
    return ruv_peek_end(reader, peek);
}

#endif
