/*
 * vacuum.c - removing rows, and taking the nodes that lost all their rows out of the graph.
 *
 *   phase    what happens                                           locks
 *   remove   dead rows are taken off their nodes; a node without     content lock, one page
 *            rows is marked DEAD: from then on nobody chooses it     at a time; a node's chain
 *            as a neighbour. Nodes unlinked by an earlier vacuum     of rows under the node's
 *            are freed when no running transaction can see them      lock as well
 *   barrier  waits for the inserts that chose their neighbours       heavyweight exclusive on
 *            before the marks were set                               the meta block, at once
 *                                                                    released
 *   entry    a dead entry point is replaced by the live node of      the same, held
 *            the highest level
 *   connect  live nodes that only dead ones lead to are linked       one content lock at a
 *            in (reach.c), seen from the root, or when that is       time; optimistic (link.c)
 *            dead from the entry point, which then becomes the root
 *   repair   every live node that links to a dead one gets new       as connect
 *            links, by a search and the selection heuristic
 *   unlink   nothing links to the dead nodes any more: they are      content lock, one page
 *            stamped with the next transaction id                    at a time
 *   free     if every transaction that had a snapshot when the       barrier; content lock,
 *            nodes were unlinked has ended by now, they are freed    one page at a time
 *            at once; otherwise by the next vacuum
 *
 * Inserts hold the heavyweight lock in share mode for their whole duration (ruhnsw.h). One that
 * starts after the barrier sees every DEAD mark, so it neither links to a dead node nor adds a row
 * to it; and since changes of links are optimistic, it cannot write back a list that still contains
 * one. So after repair no live node links to a dead one, whatever ran concurrently.
 *
 * Scans take no lock. One may stand on a dead node, so the node stays walkable, links and all,
 * until every transaction that was running when the last link to it was removed has ended. Its slot
 * is then freed; page.h says why a stale reference that survived somewhere does no harm.
 *
 * Connecting comes first: a search, and an index after a crash, finds every live node at every
 * moment. (Repair came first once; a crash between the two left rows that no search could find
 * until the next vacuum.)
 *
 * A vacuum that is interrupted leaves nodes that are DEAD but not unlinked; the next one finds them
 * by their flag.
 *
 * Here are the phase remove and the order of the others; vacuum_repair.c has barrier, entry and
 * repair, reach.c connect, vacuum_free.c unlink and free.
 */
#include "ruhnsw/vacuum.h"

#include "miscadmin.h"
#include "pause.h"
#include "storage/indexfsm.h"

/* Bytes that one dead node takes in the set, roughly. */
#define BYTES_PER_DEAD 64
#define MIN_DEAD_PER_ROUND 1024

/* Slots or tuples of a page. */
static OffsetNumber
place_count(RuhnswVacuum *vacuum, Page page)
{
    return vacuum_is_side(page) ? PageGetMaxOffsetNumber(page) : vacuum_slot_count(vacuum, page);
}

/* ---- remove ---- */

/* The rows of the node or rows tuple at a place, and where their number is; NULL when there are
 * none. Only one of wide and narrow is set. */
typedef struct RowList {
    ItemPointerData *tids;
    uint16 *wide;
    uint8 *narrow;
} RowList;

static RowList
rows_at(RuhnswVacuum *vacuum, Page page, BlockNumber block, OffsetNumber offset)
{
    RowList list = {NULL, NULL, NULL};

    if (vacuum_is_side(page)) {
        RuhnswRows *rows = ruhnsw_rows_at(vacuum->index, page, block, offset);

        if (rows) {
            list.tids = rows->tids;
            list.wide = &rows->count;
        }
    } else {
        RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);

        if (node) {
            list.tids = ruhnsw_tail(vacuum_geometry(vacuum), node)->tids;
            list.narrow = &node->tid_count;
        }
    }
    return list;
}

static int
row_count(const RowList *list)
{
    return list->tids == NULL ? 0 : list->wide ? *list->wide : *list->narrow;
}

/* Asks for every row of the page whether it goes; masks[offset] has a bit per row. */
static bool
find_dead_rows(RuhnswVacuum *vacuum, Page page, BlockNumber block, uint64 *masks)
{
    bool found = false;

    for (OffsetNumber offset = FirstOffsetNumber; offset <= place_count(vacuum, page); offset++) {
        RowList list = rows_at(vacuum, page, block, offset);

        masks[offset] = 0;
        for (int i = 0; i < row_count(&list); i++) {
            if (vacuum->callback(&list.tids[i], vacuum->callback_state)) {
                masks[offset] |= UINT64CONST(1) << i;
                vacuum->stats->tuples_removed++;
                found = true;
            } else {
                vacuum->stats->num_index_tuples++;
            }
        }
    }
    return found;
}

/* Takes the rows of the mask off a list; returns how many are left. */
static int
shorten(RowList *list, uint64 mask)
{
    int count = row_count(list);
    int kept = 0;

    for (int i = 0; i < count; i++)
        if (!(mask & (UINT64CONST(1) << i)))
            list->tids[kept++] = list->tids[i];
    memset(&list->tids[kept], 0, sizeof(ItemPointerData) * (count - kept));
    if (list->wide)
        *list->wide = kept;
    else
        *list->narrow = kept;
    return kept;
}

static void
remove_dead_rows(RuhnswVacuum *vacuum, Buffer buffer, const uint64 *masks)
{
    BlockNumber block = BufferGetBlockNumber(buffer);
    RuhnswChange change;
    Page page;

    ruhnsw_change_begin(&change, vacuum->index, false);
    page = ruhnsw_change_page(&change, buffer);
    for (OffsetNumber offset = FirstOffsetNumber; offset <= place_count(vacuum, page); offset++) {
        RuhnswNode *node;
        RowList list;
        int kept;

        if (masks[offset] == 0)
            continue;
        node = vacuum_is_side(page) ? NULL : vacuum_node_at(vacuum, page, block, offset);
        list = rows_at(vacuum, page, block, offset);
        kept = shorten(&list, masks[offset]);
        if (node == NULL || ruhnsw_tail(vacuum_geometry(vacuum), node)->more != 0)
            vacuum->chains = true;
        else if (kept == 0)
            node->flags |= RUHNSW_NODE_DEAD;
    }
    ruhnsw_change_commit(&change);
}

/* Whether no rows tuple of the locked node has a row left. */
static bool
chain_is_empty(RuhnswVacuum *vacuum, uint64 ref, uint64 position)
{
    while (position != 0) {
        Buffer buffer;
        RuhnswRows *rows;
        int count;

        buffer = ruhnsw_read(vacuum->index, ruhnsw_ref_block(position), BUFFER_LOCK_SHARE);
        rows = ruhnsw_get_rows(vacuum->index, BufferGetPage(buffer), position, ref);
        if (rows == NULL)
            ruhnsw_corrupt(vacuum->index, ruhnsw_ref_block(ref),
                           "the further rows of a node are missing");
        count = rows->count;
        position = rows->next;
        UnlockReleaseBuffer(buffer);
        if (count > 0)
            return false;
    }
    return true;
}

/* Marks the nodes of the locked page that lost all rows, those of their chains included. */
static void
mark_empty_nodes(RuhnswVacuum *vacuum, Buffer buffer)
{
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);

    for (OffsetNumber offset = FirstOffsetNumber; offset <= vacuum_slot_count(vacuum, page);
         offset++) {
        RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);
        RuhnswChange change;

        if (node == NULL || (node->flags & RUHNSW_NODE_DEAD) || node->tid_count > 0 ||
            !chain_is_empty(vacuum, ruhnsw_ref(block, offset),
                            ruhnsw_tail(vacuum_geometry(vacuum), node)->more))
            continue;
        ruhnsw_change_begin(&change, vacuum->index, false);
        node = vacuum_node_at(vacuum, ruhnsw_change_page(&change, buffer), block, offset);
        node->flags |= RUHNSW_NODE_DEAD;
        ruhnsw_change_commit(&change);
    }
}

static void
remove_rows(RuhnswVacuum *vacuum)
{
    uint64 *masks = palloc(sizeof(uint64) * (MaxOffsetNumber + 1));

    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = vacuum_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);
        Page page = BufferGetPage(buffer);

        if (!PageIsNew(page) && find_dead_rows(vacuum, page, block, masks))
            remove_dead_rows(vacuum, buffer, masks);
        ruhnsw_vacuum_free_nodes(vacuum, buffer);
        UnlockReleaseBuffer(buffer);
    }
    pfree(masks);
    for (BlockNumber block = RUHNSW_FIRST_BLOCK;
         vacuum->chains && block < RelationGetNumberOfBlocks(vacuum->index); block++) {
        Buffer buffer = vacuum_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);

        mark_empty_nodes(vacuum, buffer);
        UnlockReleaseBuffer(buffer);
    }
}

/* Leaves what the next vacuum and the next inserts should know on the meta page. */
static void
finish(RuhnswVacuum *vacuum)
{
    ruhnsw_set_unlinked(vacuum->index, vacuum->unlinked);
    if (vacuum->side_room > 0)
        ruhnsw_set_side_block(vacuum->index, vacuum->side_block, false);
}

/* Makes sure that every live node is reached over live nodes from the root, which gets replaced
 * when it is not the present one. Without a live node there is none: replacing the entry point has
 * said so, and by now the first insert may have set another. */
static void
connect(RuhnswVacuum *vacuum, uint64 root)
{
    RUV_PAUSE("ruhnsw-vacuum-entry");
    if (root == RUHNSW_NO_REF)
        return;
    ruhnsw_connect(&vacuum->writer, root, vacuum->info->strategy);
    RUV_PAUSE("ruhnsw-vacuum-connected");
    if (vacuum->writer.graph.meta.root != root)
        ruhnsw_set_root(vacuum->index, root);
}

IndexBulkDeleteResult *
ruhnsw_bulk_delete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats,
                   IndexBulkDeleteCallback callback, void *callback_state)
{
    RuhnswVacuum vacuum = {
        .info = info, .index = info->index, .callback = callback, .callback_state = callback_state};
    RuhnswWitnesses witnesses;

    if (stats == NULL)
        stats = palloc0(sizeof(IndexBulkDeleteResult));
    stats->num_index_tuples = 0;
    vacuum.stats = stats;
    vacuum.dead_limit = Max((Size)maintenance_work_mem * 1024 / BYTES_PER_DEAD, MIN_DEAD_PER_ROUND);
    ruhnsw_writer_open(&vacuum.writer, info->index, false);

    remove_rows(&vacuum);
    RUV_PAUSE("ruhnsw-vacuum-removed");
    if (ruhnsw_vacuum_collect(&vacuum)) {
        ruhnsw_vacuum_wait_for_inserts(&vacuum);
        RUV_PAUSE("ruhnsw-vacuum-barrier");
        connect(&vacuum, ruhnsw_vacuum_replace_entry(&vacuum));
        do {
            ruhnsw_vacuum_repair(&vacuum);
            RUV_PAUSE("ruhnsw-vacuum-repaired");
            ruhnsw_vacuum_unlink(&vacuum);
        } while (ruhnsw_vacuum_collect(&vacuum));
        witnesses = ruhnsw_vacuum_witnesses();
        ruhnsw_vacuum_free_at_once(&vacuum, &witnesses);
    }
    hash_destroy(vacuum.dead);
    finish(&vacuum);
    ruhnsw_writer_close(&vacuum.writer);
    return stats;
}

/* Nothing was deleted this time: frees what earlier vacuums have unlinked, if there is anything. */
static void
free_unlinked(IndexVacuumInfo *info)
{
    RuhnswVacuum vacuum = {.info = info, .index = info->index};

    ruhnsw_writer_open(&vacuum.writer, info->index, false);
    if (vacuum.writer.graph.meta.unlinked > 0) {
        ruhnsw_vacuum_free_all(&vacuum);
        finish(&vacuum);
        IndexFreeSpaceMapVacuum(info->index);
    }
    ruhnsw_writer_close(&vacuum.writer);
}

IndexBulkDeleteResult *
ruhnsw_vacuum_cleanup(IndexVacuumInfo *info, IndexBulkDeleteResult *stats)
{
    if (info->analyze_only)
        return stats;
    if (stats == NULL) {
        free_unlinked(info);
        return NULL;
    }
    stats->num_pages = RelationGetNumberOfBlocks(info->index);
    stats->estimated_count = false;
    IndexFreeSpaceMapVacuum(info->index);
    return stats;
}
