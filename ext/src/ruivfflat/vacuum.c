/*
 * vacuum.c - removing rows.
 *
 * One pass over the file, one page at a time under its exclusive lock: the slots of dead rows are
 * freed. Nothing moves and no page leaves its chain, so neither a scan nor an insert that is under
 * way has to be waited for. What lies in a freed slot stays until another row takes it; the link to
 * a row is what makes a slot count.
 *
 * Why a scan needs no pin: it copies the rows of a page under its share lock. Should a row be
 * removed and its line pointer be used again before the scan fetches it, the new row was inserted
 * after the scan's snapshot was taken, so the snapshot does not see it. The same holds on a
 * standby, where the index's WAL records come before those of the table.
 *
 * Afterwards the hints of the lists that lost rows are set back to the first page with a free slot.
 */
#include "ruivfflat/ruivfflat.h"

#include "commands/vacuum.h"
#include "miscadmin.h"
#include "pause.h"

typedef struct Vacuum {
    IndexVacuumInfo *info;
    Relation index;
    IndexBulkDeleteResult *stats;
    IndexBulkDeleteCallback callback;
    void *callback_state;
    RuivfMetaData meta;
    RuivfLayout layout;
    BlockNumber *free_blocks; /* of each list: the first page in which a slot was freed */
} Vacuum;

static Buffer
read_block(Vacuum *vacuum, BlockNumber block)
{
    Buffer buffer;

    vacuum_delay_point();
    buffer =
        ReadBufferExtended(vacuum->index, MAIN_FORKNUM, block, RBM_NORMAL, vacuum->info->strategy);
    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    return buffer;
}

/* Frees the slots of dead rows of a locked LIST page. */
static void
clean_page(Vacuum *vacuum, Buffer buffer)
{
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);
    uint32 list = ruivf_list_header(page)->list;
    int used = ruivf_list_header(page)->used;
    GenericXLogState *xlog = NULL;
    uint64 kept = 0;

    for (int slot = 0; slot < used; slot++) {
        ItemPointer tid = &ruivf_rows(page)[slot];

        if (!ItemPointerIsValid(tid))
            continue;
        if (!vacuum->callback(tid, vacuum->callback_state)) {
            kept++;
            continue;
        }
        if (xlog == NULL) {
            xlog = GenericXLogStart(vacuum->index);
            page = GenericXLogRegisterBuffer(xlog, buffer, 0);
        }
        ItemPointerSetInvalid(&ruivf_rows(page)[slot]);
        ruivf_list_header(page)->live--;
        vacuum->stats->tuples_removed++;
        vacuum->free_blocks[list] = Min(vacuum->free_blocks[list], block);
    }
    vacuum->stats->num_index_tuples += kept;
    if (xlog != NULL)
        GenericXLogFinish(xlog);
}

static void
clean_lists(Vacuum *vacuum)
{
    BlockNumber blocks = RelationGetNumberOfBlocks(vacuum->index);
    BlockNumber first =
        RUIVF_FIRST_CENTRE_BLOCK + ruivf_centre_blocks(&vacuum->layout, vacuum->meta.lists);

    /* Pages that are added meanwhile hold new rows only. */
    for (BlockNumber block = first; block < blocks; block++) {
        Buffer buffer = read_block(vacuum, block);
        Page page = BufferGetPage(buffer);
        const char *problem;

        if (PageIsNew(page) || ruivf_check_frame(page, RUIVF_PAGE_REST) == NULL) {
            UnlockReleaseBuffer(buffer);
            continue;
        }
        problem = ruivf_check_frame(page, RUIVF_PAGE_LIST);
        if (problem == NULL)
            problem = ruivf_check_list(page, block, &vacuum->layout,
                                       RelationGetNumberOfBlocks(vacuum->index));
        if (problem == NULL && ruivf_list_header(page)->list >= vacuum->meta.lists)
            problem = "the page belongs to a list that does not exist";
        if (problem)
            ruivf_corrupt(vacuum->index, block, "%s", problem);
        clean_page(vacuum, buffer);
        UnlockReleaseBuffer(buffer);
        RUV_PAUSE("ruivfflat-vacuum-page");
    }
}

/* Sets a list's hint back to a page with a free slot. */
static void
set_hint_back(Vacuum *vacuum, BlockNumber first_block, BlockNumber free_block)
{
    Buffer buffer = read_block(vacuum, first_block);
    RuivfListHeader *header = ruivf_list_header(BufferGetPage(buffer));
    const char *problem = ruivf_check_frame(BufferGetPage(buffer), RUIVF_PAGE_LIST);

    if (problem)
        ruivf_corrupt(vacuum->index, first_block, "%s", problem);
    if (header->insert_block != InvalidBlockNumber && free_block < header->insert_block) {
        GenericXLogState *xlog = GenericXLogStart(vacuum->index);

        ruivf_list_header(GenericXLogRegisterBuffer(xlog, buffer, 0))->insert_block = free_block;
        GenericXLogFinish(xlog);
    }
    UnlockReleaseBuffer(buffer);
}

static void
set_hints_back(Vacuum *vacuum)
{
    const RuivfLayout *layout = &vacuum->layout;
    BlockNumber blocks = RelationGetNumberOfBlocks(vacuum->index);

    for (uint32 list = 0; list < vacuum->meta.lists; list++) {
        uint32 slot = list % layout->centres_per;
        Buffer centres;
        BlockNumber first_block;

        if (vacuum->free_blocks[list] == InvalidBlockNumber)
            continue;
        centres =
            ruivf_read_centres(vacuum->index, RUIVF_FIRST_CENTRE_BLOCK + list / layout->centres_per,
                               layout, vacuum->meta.lists);
        first_block = ruivf_centre_at(BufferGetPage(centres), layout, slot)->first_block;
        ReleaseBuffer(centres);
        if (first_block >= blocks)
            ruivf_corrupt(vacuum->index, RUIVF_FIRST_CENTRE_BLOCK,
                          "list %u begins at block %u of %u", list, first_block, blocks);
        set_hint_back(vacuum, first_block, vacuum->free_blocks[list]);
    }
}

IndexBulkDeleteResult *
ruivf_bulk_delete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats,
                  IndexBulkDeleteCallback callback, void *callback_state)
{
    Vacuum vacuum = {
        .info = info, .index = info->index, .callback = callback, .callback_state = callback_state};

    if (stats == NULL)
        stats = palloc0(sizeof(IndexBulkDeleteResult));
    stats->num_index_tuples = 0;
    vacuum.stats = stats;
    ruivf_read_meta(info->index, &vacuum.meta);
    ruivf_layout_init(&vacuum.layout, vacuum.meta.dim, (RuivfStorage)vacuum.meta.storage);
    vacuum.free_blocks = palloc(sizeof(BlockNumber) * vacuum.meta.lists);
    for (uint32 list = 0; list < vacuum.meta.lists; list++)
        vacuum.free_blocks[list] = InvalidBlockNumber;
    clean_lists(&vacuum);
    RUV_PAUSE("ruivfflat-vacuum-hints");
    set_hints_back(&vacuum);
    pfree(vacuum.free_blocks);
    return stats;
}

IndexBulkDeleteResult *
ruivf_vacuum_cleanup(IndexVacuumInfo *info, IndexBulkDeleteResult *stats)
{
    if (info->analyze_only || stats == NULL)
        return stats;
    stats->num_pages = RelationGetNumberOfBlocks(info->index);
    stats->estimated_count = false;
    return stats;
}
