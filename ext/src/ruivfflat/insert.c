/*
 * insert.c - adding one row to the list of the nearest centre.
 *
 * The page that took the session's last row of the list is tried first (centres.c). When it is
 * full, or there is none, the list's hint says where to look: the first page has it, a block of the
 * chain before which no slot is free, as far as anybody knows. An insert goes on from there along
 * the chain to the first page with a free slot, or adds a page at its end. A stale hint costs a
 * walk and nothing else: vacuum moves it back when it frees slots, and every session finds them
 * when its own page is full.
 *
 * One generic WAL record holds all that one row changes: its page and its REST page, or the
 * last page and the new ones. A crash in between leaves a block of zeros that nothing refers to.
 */
#include "ruivfflat/ruivfflat.h"

#include "opclass.h"

#include "miscadmin.h"
#include "pause.h"
#include "utils/memutils.h"

typedef struct Insert {
    Relation index;
    RuivfMetaData meta;
    RuivfLayout layout;
    uint32 list;
    BlockNumber first_block;
    BlockNumber recent_block; /* of this session; InvalidBlockNumber: none */
    ItemPointer tid;
    const float *vector;
} Insert;

/* The page for what a slot's code leaves out: an old one, or a block just added to the file. */
static Buffer
rest_buffer(Insert *insert, BlockNumber owner, BlockNumber block)
{
    Buffer buffer;

    if (block == InvalidBlockNumber)
        return ruivf_extend(insert->index);
    buffer = ruivf_read(insert->index, block, RUIVF_PAGE_REST, BUFFER_LOCK_EXCLUSIVE);
    if (((RuivfRestHeader *)PageGetContents(BufferGetPage(buffer)))->owner != owner)
        ruivf_corrupt(insert->index, block, "the page belongs to block %u, not to block %u",
                      ((RuivfRestHeader *)PageGetContents(BufferGetPage(buffer)))->owner, owner);
    return buffer;
}

static int
free_slot(Insert *insert, Page page, BlockNumber block)
{
    RuivfListHeader *header = ruivf_list_header(page);

    if (header->live == header->used)
        return header->used;
    for (int slot = 0; slot < header->used; slot++)
        if (!ItemPointerIsValid(&ruivf_rows(page)[slot]))
            return slot;
    ruivf_corrupt(insert->index, block, "the page has no free slot, although it counts %d rows",
                  header->live);
}

/*
 * Puts the row into a locked page with room. previous: the locked last page of the chain, when the
 * page is a new one that is to follow it; else InvalidBuffer.
 */
static void
put_row(Insert *insert, Buffer buffer, Buffer previous)
{
    const RuivfLayout *layout = &insert->layout;
    BlockNumber block = BufferGetBlockNumber(buffer);
    bool fresh = BufferIsValid(previous);
    int slot = fresh ? 0 : free_slot(insert, BufferGetPage(buffer), block);
    int part = layout->rest_per > 0 ? slot / layout->rest_per : 0;
    BlockNumber rest_block =
        fresh ? InvalidBlockNumber : ruivf_list_header(BufferGetPage(buffer))->rest[part];
    Buffer rest = layout->rest_per > 0 ? rest_buffer(insert, block, rest_block) : InvalidBuffer;
    GenericXLogState *xlog = GenericXLogStart(insert->index);
    Page page = GenericXLogRegisterBuffer(xlog, buffer, fresh ? GENERIC_XLOG_FULL_IMAGE : 0);
    RuivfListHeader *header = ruivf_list_header(page);
    Page rest_page = NULL;

    if (fresh) {
        Page former = GenericXLogRegisterBuffer(xlog, previous, 0);

        ruivf_list_page_init(page, insert->list);
        ruivf_list_header(former)->next = block;
    }
    if (BufferIsValid(rest)) {
        bool rest_fresh = rest_block == InvalidBlockNumber;

        rest_page = GenericXLogRegisterBuffer(xlog, rest, rest_fresh ? GENERIC_XLOG_FULL_IMAGE : 0);
        if (rest_fresh)
            ruivf_rest_page_init(rest_page, block);
        header->rest[part] = BufferGetBlockNumber(rest);
    }
    ruivf_put_row(page, rest_page, layout, (rv_metric)insert->meta.metric, slot, insert->tid,
                  insert->vector);
    header->used = Max(header->used, slot + 1);
    header->live++;
    GenericXLogFinish(xlog);
    if (BufferIsValid(rest))
        UnlockReleaseBuffer(rest);
}

static BlockNumber
insert_hint(Insert *insert, BlockNumber blocks)
{
    Buffer buffer = ruivf_read_list(insert->index, insert->first_block, &insert->layout,
                                    insert->list, blocks, BUFFER_LOCK_SHARE);
    BlockNumber hint = ruivf_list_header(BufferGetPage(buffer))->insert_block;

    UnlockReleaseBuffer(buffer);
    if (hint == InvalidBlockNumber)
        return insert->first_block;
    if (hint < insert->first_block || hint >= RelationGetNumberOfBlocks(insert->index))
        ruivf_corrupt(insert->index, insert->first_block, "the hint for inserts is out of range");
    return hint;
}

static void
move_hint(Insert *insert, BlockNumber blocks, BlockNumber hint)
{
    Buffer buffer;
    GenericXLogState *xlog;

    RUV_PAUSE("ruivfflat-insert-hint");
    buffer = ruivf_read_list(insert->index, insert->first_block, &insert->layout, insert->list,
                             blocks, BUFFER_LOCK_EXCLUSIVE);
    xlog = GenericXLogStart(insert->index);
    ruivf_list_header(GenericXLogRegisterBuffer(xlog, buffer, 0))->insert_block = hint;
    GenericXLogFinish(xlog);
    UnlockReleaseBuffer(buffer);
}

/* Puts the row into the page if there is room. next: the block that follows in the chain. */
static bool
try_page(Insert *insert, BlockNumber block, BlockNumber blocks, BlockNumber *next)
{
    Buffer buffer = ruivf_read_list(insert->index, block, &insert->layout, insert->list, blocks,
                                    BUFFER_LOCK_EXCLUSIVE);
    RuivfListHeader *header = ruivf_list_header(BufferGetPage(buffer));
    bool room = header->live < insert->layout.capacity;

    *next = header->next;
    if (room)
        put_row(insert, buffer, InvalidBuffer);
    UnlockReleaseBuffer(buffer);
    return room;
}

/* Puts the row into a new page behind the last one; returns false when that has got a successor,
 * which is *block then, else *block is the new page. */
static bool
add_page(Insert *insert, BlockNumber *block, BlockNumber blocks)
{
    Buffer buffer = ruivf_read_list(insert->index, *block, &insert->layout, insert->list, blocks,
                                    BUFFER_LOCK_EXCLUSIVE);
    BlockNumber next = ruivf_list_header(BufferGetPage(buffer))->next;
    bool last = next == InvalidBlockNumber;

    if (last) {
        Buffer fresh = ruivf_extend(insert->index);

        next = BufferGetBlockNumber(fresh);
        put_row(insert, fresh, buffer);
        UnlockReleaseBuffer(fresh);
    }
    UnlockReleaseBuffer(buffer);
    *block = next;
    return last;
}

/* From the list's hint on; returns the block that took the row. */
static BlockNumber
walk_chain(Insert *insert, BlockNumber blocks)
{
    BlockNumber hint;
    BlockNumber block;
    BlockNumber next;

    if (insert->first_block >= blocks)
        ruivf_corrupt(insert->index, RUIVF_FIRST_CENTRE_BLOCK, "list %u begins at block %u of %u",
                      insert->list, insert->first_block, blocks);
    hint = block = insert_hint(insert, blocks);
    while (!try_page(insert, block, blocks, &next)) {
        CHECK_FOR_INTERRUPTS();
        if (next != InvalidBlockNumber)
            block = next;
        else if (add_page(insert, &block, blocks))
            break;
    }
    if (block != hint)
        move_hint(insert, blocks, block);
    return block;
}

static void
add_to_list(Insert *insert)
{
    BlockNumber blocks = RelationGetNumberOfBlocks(insert->index);
    BlockNumber block = insert->recent_block;
    BlockNumber next;

    if (block == InvalidBlockNumber || !try_page(insert, block, blocks, &next))
        block = walk_chain(insert, blocks);
    if (block != insert->recent_block)
        ruivf_remember_block(insert->index, &insert->meta, insert->list, block);
}

bool
ruivf_insert(Relation index, Datum *values, bool *isnull, ItemPointer tid, Relation heap,
             IndexUniqueCheck unique, bool unchanged, IndexInfo *info)
{
    MemoryContext context;
    MemoryContext former;
    Insert insert = {.index = index, .tid = tid};
    float *vector;

    if (isnull[0])
        return false;
    context =
        AllocSetContextCreate(CurrentMemoryContext, "ruivfflat insert", ALLOCSET_DEFAULT_SIZES);
    former = MemoryContextSwitchTo(context);
    ruivf_read_meta(index, &insert.meta);
    ruivf_layout_init(&insert.layout, insert.meta.dim, (RuivfStorage)insert.meta.storage);
    vector = palloc(sizeof(float) * insert.meta.dim);
    if (ruv_index_vector((rv_metric)insert.meta.metric, insert.meta.dim,
                         DatumGetRuVector(values[0]), vector)) {
        float norm = ruivf_norm_bound(vector, insert.meta.dim);

        if (norm > insert.meta.max_norm)
            ruivf_raise_max_norm(index, norm);
        insert.vector = vector;
        insert.list = ruivf_find_list(index, &insert.meta, &insert.layout, vector,
                                      &insert.first_block, &insert.recent_block);
        add_to_list(&insert);
    }
    MemoryContextSwitchTo(former);
    MemoryContextDelete(context);
    return false;
}
