/*
 * build_write.c - the pages of a new index, in the order of their blocks.
 *
 * The CENTRE pages come first but are written last, when it is known where the lists begin. Of each
 * list the pages follow each other, those with what its codes leave out behind the page that has
 * them.
 */
#include "ruivfflat/build.h"

#include "access/xloginsert.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "pause.h"
#include "pgstat.h"

typedef struct Writer {
    RuivfBuild *build;
    ForkNumber fork;
    BlockNumber *first_blocks;
    uint32 list; /* being written */
    Buffer page; /* its last LIST page, locked */
    Buffer rest; /* the last REST page of that, locked, or InvalidBuffer */
    float *vector;
} Writer;

static Buffer
add_block(Writer *writer)
{
    Buffer buffer = ReadBufferExtended(writer->build->index, writer->fork, P_NEW, RBM_NORMAL, NULL);

    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    return buffer;
}

static void
finish_buffer(Writer *writer, Buffer buffer)
{
    START_CRIT_SECTION();
    MarkBufferDirty(buffer);
    /* An init fork must survive a crash although the relation itself is not logged. */
    if (writer->fork == INIT_FORKNUM)
        log_newpage_buffer(buffer, true);
    END_CRIT_SECTION();
    UnlockReleaseBuffer(buffer);
}

static void
finish_page(Writer *writer)
{
    finish_buffer(writer, writer->page);
    if (BufferIsValid(writer->rest))
        finish_buffer(writer, writer->rest);
    writer->page = writer->rest = InvalidBuffer;
}

static void
begin_list(Writer *writer, uint32 list)
{
    writer->list = list;
    writer->page = add_block(writer);
    writer->first_blocks[list] = BufferGetBlockNumber(writer->page);
    ruivf_list_page_init(BufferGetPage(writer->page), list);
}

static void
begin_next_page(Writer *writer)
{
    Buffer next = add_block(writer);

    ruivf_list_page_init(BufferGetPage(next), writer->list);
    ruivf_list_header(BufferGetPage(writer->page))->next = BufferGetBlockNumber(next);
    finish_page(writer);
    writer->page = next;
}

/* Inserts go on where the build ended. */
static void
end_list(Writer *writer)
{
    BlockNumber first = writer->first_blocks[writer->list];
    BlockNumber last = BufferGetBlockNumber(writer->page);
    Buffer buffer;

    finish_page(writer);
    if (last == first)
        return;
    buffer = ReadBufferExtended(writer->build->index, writer->fork, first, RBM_NORMAL, NULL);
    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    ruivf_list_header(BufferGetPage(buffer))->insert_block = last;
    finish_buffer(writer, buffer);
}

/* Begins a REST page for the slots from this one on. */
static void
begin_rest(Writer *writer, int slot)
{
    const RuivfLayout *layout = &writer->build->layout;

    if (BufferIsValid(writer->rest))
        finish_buffer(writer, writer->rest);
    writer->rest = add_block(writer);
    ruivf_rest_page_init(BufferGetPage(writer->rest), BufferGetBlockNumber(writer->page));
    ruivf_list_header(BufferGetPage(writer->page))->rest[slot / layout->rest_per] =
        BufferGetBlockNumber(writer->rest);
}

static void
add_row(Writer *writer, ItemPointer tid)
{
    const RuivfLayout *layout = &writer->build->layout;
    RuivfListHeader *header;
    int slot;

    if (ruivf_list_header(BufferGetPage(writer->page))->used == layout->capacity)
        begin_next_page(writer);
    header = ruivf_list_header(BufferGetPage(writer->page));
    slot = header->used++;
    header->live++;
    if (layout->rest_per > 0 && slot % layout->rest_per == 0)
        begin_rest(writer, slot);
    ruivf_put_row(BufferGetPage(writer->page),
                  BufferIsValid(writer->rest) ? BufferGetPage(writer->rest) : NULL, layout,
                  (rv_metric)writer->build->meta.metric, slot, tid, writer->vector);
}

static void
write_lists(Writer *writer, RuivfSorted *sorted)
{
    uint32 lists = writer->build->meta.lists;
    ItemPointerData tid;
    uint32 list = 0;
    int64 done = 0;
    bool more = sorted != NULL && ruivf_next_sorted(sorted, &list, &tid, writer->vector);

    for (uint32 current = 0; current < lists; current++) {
        begin_list(writer, current);
        while (more && list == current) {
            CHECK_FOR_INTERRUPTS();
            add_row(writer, &tid);
            if (++done % 1024 == 0)
                pgstat_progress_update_param(PROGRESS_CREATEIDX_TUPLES_DONE, done);
            more = ruivf_next_sorted(sorted, &list, &tid, writer->vector);
        }
        end_list(writer);
    }
    if (more)
        elog(ERROR, "a row was assigned to list %u of %u", list, lists);
}

static void
write_centres(Writer *writer, BlockNumber block, uint32 first)
{
    const RuivfBuild *build = writer->build;
    Buffer buffer = ReadBufferExtended(build->index, writer->fork, block, RBM_NORMAL, NULL);
    Page page = BufferGetPage(buffer);
    uint32 count = Min(build->meta.lists - first, (uint32)build->layout.centres_per);
    RuivfCentreHeader *header;

    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    ruivf_page_init(page, RUIVF_PAGE_CENTRE);
    header = (RuivfCentreHeader *)PageGetContents(page);
    header->first_list = first;
    header->count = count;
    for (uint32 i = 0; i < count; i++) {
        RuivfCentre *centre = ruivf_centre_at(page, &build->layout, (int)i);

        centre->first_block = writer->first_blocks[first + i];
        memcpy(centre->centre, build->centres + (Size)(first + i) * build->meta.dim,
               sizeof(float) * build->meta.dim);
    }
    finish_buffer(writer, buffer);
}

void
ruivf_write_index(RuivfBuild *build, ForkNumber fork, RuivfSorted *sorted)
{
    Writer writer = {.build = build, .fork = fork, .page = InvalidBuffer, .rest = InvalidBuffer};
    uint32 centre_blocks = ruivf_centre_blocks(&build->layout, build->meta.lists);
    Buffer meta;

    if (fork == MAIN_FORKNUM) {
        pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUIVF_PHASE_WRITE);
        pgstat_progress_update_param(PROGRESS_CREATEIDX_TUPLES_TOTAL, (int64)build->rows);
    }
    writer.first_blocks = palloc(sizeof(BlockNumber) * build->meta.lists);
    writer.vector = palloc(sizeof(float) * build->meta.dim);
    meta = add_block(&writer);
    ruivf_write_meta(BufferGetPage(meta), &build->meta);
    finish_buffer(&writer, meta);
    for (uint32 i = 0; i < centre_blocks; i++)
        UnlockReleaseBuffer(add_block(&writer));
    write_lists(&writer, sorted);
    RUV_PAUSE("ruivfflat-build-centres");
    for (uint32 i = 0; i < centre_blocks; i++)
        write_centres(&writer, RUIVF_FIRST_CENTRE_BLOCK + i, i * build->layout.centres_per);
    pfree(writer.first_blocks);
    pfree(writer.vector);
}
