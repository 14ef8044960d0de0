/*
 * peek.c - the hints of a reader and its pinned reads: see peek.h.
 *
 * The array of hints has a place for every block that the file had when it was made, and is made
 * anew, larger by an eighth, when a later block is read. Four bytes for each block of the index are
 * little beside the index, and are the backend's own: no lock, no sharing, nothing to invalidate.
 */
#include "peek.h"

#include "executor/instrument.h"
#include "pgstat.h"
#include "utils/memutils.h"

static void
make_hints(RuvReader *reader, BlockNumber blocks)
{
    Relation index = reader->index;
    RuvHints *former = index->rd_amcache;
    BlockNumber capacity = blocks + blocks / 8 + 64;
    RuvHints *hints = MemoryContextAllocExtended(
        index->rd_indexcxt, offsetof(RuvHints, buffers) + (Size)capacity * sizeof(Buffer),
        MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

    hints->capacity = capacity;
    hints->blocks = blocks;
    if (former) {
        memcpy(hints->buffers, former->buffers,
               sizeof(Buffer) * (Size)Min(former->capacity, capacity));
        index->rd_amcache = NULL;
        pfree(former);
    }
    index->rd_amcache = hints;
    reader->hints = hints;
}

void
ruv_reader_open(RuvReader *reader, Relation index)
{
    memset(reader, 0, sizeof(*reader));
    reader->index = index;
    reader->shared = !RelationUsesLocalBuffers(index);
    ruv_reader_refresh(reader);
}

void
ruv_reader_refresh(RuvReader *reader)
{
    reader->logged = RelationNeedsWAL(reader->index);
    reader->hints = reader->index->rd_amcache;
    if (reader->hints == NULL)
        make_hints(reader, RelationGetNumberOfBlocks(reader->index));
}

void
ruv_reader_report(RuvReader *reader)
{
    pgBufferUsage.shared_blks_hit += (int64)reader->unseen;
    if (pgstat_should_count_relation(reader->index)) {
        /* What pgstat_count_buffer_read and pgstat_count_buffer_hit do, many times. */
        PgStat_TableCounts *counts = &reader->index->pgstat_info->t_counts;

        counts->t_blocks_fetched += (PgStat_Counter)reader->unseen;
        counts->t_blocks_hit += (PgStat_Counter)reader->unseen;
    }
    reader->unseen = 0;
}

/* The pin of a block, by the hint if that is right and the buffer is in use: without the table. */
static Buffer
read_buffer(const RuvReader *reader, BlockNumber block)
{
    Buffer hint = reader->shared ? reader->hints->buffers[block] : InvalidBuffer;

    if (BufferIsValid(hint) &&
        BUF_STATE_GET_USAGECOUNT(pg_atomic_read_u32(&GetBufferDescriptor(hint - 1)->state)) >=
            RUV_PEEK_MIN_USAGE &&
        ruv_read_recent(reader->index, block, hint))
        return hint;
    return ReadBuffer(reader->index, block);
}

Page
ruv_peek_pinned(RuvReader *reader, BlockNumber block, RuvPeek *peek)
{
    if (block >= reader->hints->blocks) {
        BlockNumber blocks = RelationGetNumberOfBlocks(reader->index);

        if (block >= blocks)
            return NULL;
        if (blocks > reader->hints->capacity)
            make_hints(reader, blocks);
        reader->hints->blocks = blocks;
    }
    peek->pin = read_buffer(reader, block);
    peek->block = block;
    LockBuffer(peek->pin, BUFFER_LOCK_SHARE);
    if (reader->shared)
        reader->hints->buffers[block] = peek->pin;
    reader->pages++;
    return BufferGetPage(peek->pin);
}
