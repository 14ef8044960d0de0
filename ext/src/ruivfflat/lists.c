/*
 * lists.c - reading lists, for scans and traces.
 *
 * A LIST page is
 * read under its share lock, and what a search needs of it is copied: nothing is held when the next
 * page is locked, and the chain goes on from the link that was copied, which stays true because
 * pages are never taken out of a chain.
 *
 * The next page is pinned, and its first lines are asked of the memory, while a page is scored: the
 * pages of a list lie anywhere in the shared buffers, and the processor's own prefetching stops at
 * their ends.
 */
#include "ruivfflat/ruivfflat.h"

#include "miscadmin.h"

#define PREFETCH_BYTES 1024
#define CACHE_LINE 64

static rv_status scan_list(void *ctx, uint32_t list, rv_ivf *ivf, uint64_t *scored, rv_error *err);
static bool exact_distance(void *ctx, uint64_t ref, float *distance);

void
ruivf_reader_open(RuivfReader *reader, Relation index)
{
    memset(reader, 0, sizeof(*reader));
    reader->index = index;
    ruivf_read_meta(index, &reader->meta);
    ruivf_layout_init(&reader->layout, reader->meta.dim, (RuivfStorage)reader->meta.storage);
    reader->distances = palloc(sizeof(float) * reader->meta.lists);
    reader->first_blocks = palloc(sizeof(BlockNumber) * reader->meta.lists);
    reader->batch = palloc(sizeof(rv_ivf_candidate) * reader->layout.capacity);
    reader->keys = palloc(sizeof(float) * reader->layout.capacity);
    reader->vector = palloc(sizeof(float) * reader->meta.dim);
    reader->code = palloc(reader->layout.code_size);
    reader->source.ctx = reader;
    reader->source.scan = scan_list;
    reader->source.exact = exact_distance;
}

void
ruivf_reader_aim(RuivfReader *reader, const float *query)
{
    const RuivfLayout *layout = &reader->layout;
    RuivfMetaData now;

    /* Inserts may have raised the bound of the norms. */
    ruivf_read_meta(reader->index, &now);
    if (now.epoch != reader->meta.epoch)
        elog(ERROR, "index \"%s\" was rebuilt during a scan",
             RelationGetRelationName(reader->index));
    reader->meta.max_norm = now.max_norm;
    rv_ivf_scorer_init(&reader->scorer, (rv_metric)reader->meta.metric, layout->code, query,
                       layout->dim, now.max_norm);
    reader->pages += 1 + ruivf_list_distances(reader->index, &now, layout, &reader->scorer,
                                              reader->distances, reader->first_blocks);
}

static void
prefetch_page(Page page)
{
    const char *start = PageGetContents(page);

    for (Size at = 0; at < PREFETCH_BYTES; at += CACHE_LINE)
        __builtin_prefetch(start + at, 0, 3);
}

/* Scores the rows of a locked page into the batch; returns how many there are. */
static uint32
score_page(RuivfReader *reader, uint32 list, Page page, BlockNumber block)
{
    const RuivfLayout *layout = &reader->layout;
    const ItemPointerData *rows = ruivf_rows(page);
    int used = ruivf_list_header(page)->used;
    uint32 count = 0;

    rv_ivf_score(&reader->scorer, ruivf_codes(page, layout), ruivf_scales(page, layout),
                 ruivf_errors(page, layout), used, reader->keys);
    for (int slot = 0; slot < used; slot++) {
        rv_ivf_candidate *candidate = &reader->batch[count];

        if (!ItemPointerIsValid(&rows[slot]))
            continue;
        candidate->ref = layout->rest_per > 0 ? ruivf_ref(block, slot) : RV_IVF_IS_EXACT;
        candidate->key = reader->keys[slot];
        candidate->list = list;
        candidate->row = ruivf_row(&rows[slot]);
        count++;
    }
    return count;
}

/* rv_ivf_source.scan */
static rv_status
scan_list(void *ctx, uint32_t list, rv_ivf *ivf, uint64_t *scored, rv_error *err)
{
    RuivfReader *reader = ctx;
    BlockNumber blocks = RelationGetNumberOfBlocks(reader->index);
    BlockNumber block = reader->first_blocks[list];
    Buffer buffer;

    if (block >= blocks)
        ruivf_corrupt(reader->index, RUIVF_FIRST_CENTRE_BLOCK, "list %u begins at block %u of %u",
                      list, block, blocks);
    buffer = ReadBuffer(reader->index, block);
    while (BufferIsValid(buffer)) {
        Page page = BufferGetPage(buffer);
        Buffer next = InvalidBuffer;
        BlockNumber next_block;
        uint32 count;
        rv_status status;

        CHECK_FOR_INTERRUPTS();
        ruivf_lock_list(reader->index, buffer, &reader->layout, list, blocks, BUFFER_LOCK_SHARE);
        next_block = ruivf_list_header(page)->next;
        if (next_block != InvalidBlockNumber) {
            next = ReadBuffer(reader->index, next_block);
            prefetch_page(BufferGetPage(next));
        }
        count = score_page(reader, list, page, block);
        UnlockReleaseBuffer(buffer);
        reader->pages++;
        *scored += count;
        status = rv_ivf_push(ivf, reader->batch, count, err);
        if (status != RV_OK) {
            if (BufferIsValid(next))
                ReleaseBuffer(next);
            return status;
        }
        buffer = next;
        block = next_block;
    }
    return RV_OK;
}

/* rv_ivf_source.exact. A row that was removed meanwhile leaves its vector, or another row's, or the
 * code of the one with the rest of the other: what comes of it is a row that no snapshot of this
 * scan can see. */
static bool
exact_distance(void *ctx, uint64_t ref, float *distance)
{
    RuivfReader *reader = ctx;
    const RuivfLayout *layout = &reader->layout;
    BlockNumber block = (BlockNumber)(ref >> 16);
    int slot = (int)(ref & PG_UINT16_MAX);
    Buffer buffer = ruivf_read(reader->index, block, RUIVF_PAGE_LIST, BUFFER_LOCK_SHARE);
    Page page = BufferGetPage(buffer);
    BlockNumber rest = ruivf_list_header(page)->rest[slot / layout->rest_per];
    float scale = ruivf_scales(page, layout)[slot];

    memcpy(reader->code, ruivf_codes(page, layout) + layout->code_size * slot, layout->code_size);
    UnlockReleaseBuffer(buffer);
    buffer = ruivf_read(reader->index, rest, RUIVF_PAGE_REST, BUFFER_LOCK_SHARE);
    rv_fixed_decode((const int8 *)reader->code,
                    ruivf_rest(BufferGetPage(buffer), layout, slot % layout->rest_per),
                    RUIVF_REST_PLANES, scale, reader->vector, layout->dim);
    UnlockReleaseBuffer(buffer);
    *distance = rv_ivf_exact(&reader->scorer, reader->vector);
    reader->pages += 2;
    return true;
}
