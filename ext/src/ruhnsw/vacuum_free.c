/*
 * vacuum_free.c - unlinked nodes, and when their room is free.
 *
 * A scan may stand on a node that nothing links to any more, and walks on from it. So a node is
 * freed when every transaction that had a snapshot while something still linked to it has ended:
 * at the end of the vacuum that unlinked it if they end within two seconds (most are short), else
 * by a later one, which compares the transaction id that the node was stamped with. page.h says why
 * a stale reference that survived somewhere does no harm.
 */
#include "ruhnsw/vacuum.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "storage/indexfsm.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

/* How long a vacuum waits for the transactions that may stand on what it unlinked. */
#define PATIENCE_MS 2000
#define NAP_MS 20

/* Frees the first rows tuple of a node of the locked page. */
static void
free_chain_head(RuhnswVacuum *vacuum, Buffer buffer, uint64 ref, uint64 position)
{
    Buffer side = ruhnsw_read(vacuum->index, ruhnsw_ref_block(position), BUFFER_LOCK_EXCLUSIVE);
    RuhnswRows *rows = ruhnsw_get_rows(vacuum->index, BufferGetPage(side), position, ref);
    RuhnswChange change;
    RuhnswNode *node;

    if (rows == NULL)
        ruhnsw_corrupt(vacuum->index, ruhnsw_ref_block(ref),
                       "the further rows of a node are missing");
    ruhnsw_change_begin(&change, vacuum->index, false);
    node = ruhnsw_get_node(vacuum->index, vacuum_geometry(vacuum),
                           ruhnsw_change_page(&change, buffer), ref);
    ruhnsw_tail(vacuum_geometry(vacuum), node)->more = rows->next;
    PageIndexTupleDeleteNoCompact(ruhnsw_change_page(&change, side), ruhnsw_ref_offset(position));
    ruhnsw_change_commit(&change);
    UnlockReleaseBuffer(side);
}

/* Frees an unlinked node of the locked page, its upper links and its rows tuples. */
static void
free_node(RuhnswVacuum *vacuum, Buffer buffer, OffsetNumber offset)
{
    const RuhnswGeometry *geometry = vacuum_geometry(vacuum);
    BlockNumber block = BufferGetBlockNumber(buffer);
    RuhnswNode *node = vacuum_node_at(vacuum, BufferGetPage(buffer), block, offset);
    uint64 ref = ruhnsw_ref(block, offset);
    uint64 upper = ruhnsw_tail(geometry, node)->upper;
    Buffer side = InvalidBuffer;
    RuhnswChange change;

    while (ruhnsw_tail(geometry, node)->more != 0)
        free_chain_head(vacuum, buffer, ref, ruhnsw_tail(geometry, node)->more);
    if (upper != 0) {
        side = ruhnsw_read(vacuum->index, ruhnsw_ref_block(upper), BUFFER_LOCK_EXCLUSIVE);
        if (ruhnsw_get_links(vacuum->index, BufferGetPage(side), upper, ref, geometry->m) == NULL)
            ruhnsw_corrupt(vacuum->index, block,
                           "the upper links of the node in slot %u are missing", offset);
    }
    ruhnsw_change_begin(&change, vacuum->index, false);
    node = vacuum_node_at(vacuum, ruhnsw_change_page(&change, buffer), block, offset);
    memset(node, 0, geometry->slot_size);
    if (upper != 0)
        PageIndexTupleDeleteNoCompact(ruhnsw_change_page(&change, side), ruhnsw_ref_offset(upper));
    ruhnsw_change_commit(&change);
    if (upper != 0)
        UnlockReleaseBuffer(side);
}

void
ruhnsw_vacuum_free_nodes(RuhnswVacuum *vacuum, Buffer buffer)
{
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);
    bool freed = PageIsNew(page);

    for (OffsetNumber offset = FirstOffsetNumber; offset <= vacuum_slot_count(vacuum, page);
         offset++) {
        RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);

        if (node == NULL || !(node->flags & RUHNSW_NODE_UNLINKED))
            continue;
        if (vacuum->no_witness ||
            GlobalVisCheckRemovableFullXid(
                NULL, FullTransactionIdFromU64(
                          ruhnsw_tail(vacuum_geometry(vacuum), node)->unlinked_at))) {
            free_node(vacuum, buffer, offset);
            freed = true;
        } else {
            vacuum->unlinked++;
        }
    }
    if (freed)
        RecordFreeIndexPage(vacuum->index, block);
    else if (vacuum_is_side(page) && PageGetExactFreeSpace(page) > vacuum->side_room) {
        vacuum->side_room = PageGetExactFreeSpace(page);
        vacuum->side_block = block;
    }
}

void
ruhnsw_vacuum_free_all(RuhnswVacuum *vacuum)
{
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = vacuum_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);

        ruhnsw_vacuum_free_nodes(vacuum, buffer);
        UnlockReleaseBuffer(buffer);
    }
}

void
ruhnsw_vacuum_unlink(RuhnswVacuum *vacuum)
{
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = vacuum_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);
        RuhnswChange change = {0};
        Page page = BufferGetPage(buffer);
        bool changing = false;

        for (OffsetNumber offset = FirstOffsetNumber; offset <= vacuum_slot_count(vacuum, page);
             offset++) {
            RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);

            if (node == NULL || !vacuum_is_dead(vacuum, ruhnsw_ref(block, offset)))
                continue;
            if (!changing) {
                ruhnsw_change_begin(&change, vacuum->index, false);
                page = ruhnsw_change_page(&change, buffer);
                node = vacuum_node_at(vacuum, page, block, offset);
                changing = true;
            }
            node->flags |= RUHNSW_NODE_UNLINKED;
            ruhnsw_tail(vacuum_geometry(vacuum), node)->unlinked_at =
                U64FromFullTransactionId(ReadNextFullTransactionId());
            vacuum->unlinked++;
        }
        if (changing)
            ruhnsw_change_commit(&change);
        UnlockReleaseBuffer(buffer);
    }
}

RuhnswWitnesses
ruhnsw_vacuum_witnesses(void)
{
    RuhnswWitnesses witnesses;

    witnesses.ids =
        GetCurrentVirtualXIDs(InvalidTransactionId, true, false, PROC_IN_VACUUM, &witnesses.count);
    return witnesses;
}

static bool
all_gone(const RuhnswWitnesses *witnesses)
{
    for (int i = 0; i < witnesses->count; i++)
        if (!VirtualXactLock(witnesses->ids[i], false))
            return false;
    return true;
}

/* Waits a little for the witnesses to end. */
static bool
wait_until_gone(const RuhnswWitnesses *witnesses)
{
    for (int waited = 0; !all_gone(witnesses); waited += NAP_MS) {
        if (waited >= PATIENCE_MS)
            return false;
        (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, NAP_MS,
                        PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    }
    return true;
}

void
ruhnsw_vacuum_free_at_once(RuhnswVacuum *vacuum, const RuhnswWitnesses *witnesses)
{
    if (vacuum->unlinked == 0 || !wait_until_gone(witnesses))
        return;
    ruhnsw_vacuum_wait_for_inserts(vacuum);
    vacuum->no_witness = true;
    vacuum->unlinked = 0;
    ruhnsw_vacuum_free_all(vacuum);
}
