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
 *            the highest level, a dead root by the entry point
 *   repair   every live node that links to a dead one gets new       one content lock at a
 *            links, by a search and the selection heuristic          time; optimistic (link.c)
 *   connect  live nodes that only dead ones lead to are linked       as repair
 *            in (reach.c)
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
 * A vacuum that is interrupted leaves nodes that are DEAD but not unlinked; the next one finds them
 * by their flag. The set of dead nodes is kept in memory, in as many rounds as maintenance_work_mem
 * makes necessary.
 */
#include "ruhnsw/ruhnsw.h"

#include "access/transam.h"
#include "commands/vacuum.h"
#include "miscadmin.h"
#include "pause.h"
#include "storage/freespace.h"
#include "storage/indexfsm.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Bytes that one dead node takes in the set, roughly. */
#define BYTES_PER_DEAD 64
#define MIN_DEAD_PER_ROUND 1024
#define REPAIR_ATTEMPTS 32

/* The transactions that may stand on what was unlinked. */
typedef struct Witnesses {
    VirtualTransactionId *ids;
    int count;
} Witnesses;

typedef struct Vacuum {
    IndexVacuumInfo *info;
    Relation index;
    IndexBulkDeleteResult *stats;
    IndexBulkDeleteCallback callback;
    void *callback_state;
    RuhnswWriter writer;
    HTAB *dead; /* references of this round */
    long dead_limit;

    uint64 unlinked;        /* nodes that stay unlinked */
    bool no_witness;        /* nobody can stand on an unlinked node any more */
    bool chains;            /* rows were removed from chains: nodes may have lost their last one */
    BlockNumber side_block; /* a SIDE page with room */
    Size side_room;
} Vacuum;

static Buffer
read_block(Vacuum *vacuum, BlockNumber block, int lock_mode)
{
    Buffer buffer;

    vacuum_delay_point();
    buffer =
        ReadBufferExtended(vacuum->index, MAIN_FORKNUM, block, RBM_NORMAL, vacuum->info->strategy);
    LockBuffer(buffer, lock_mode);
    return buffer;
}

static const RuhnswGeometry *
geometry_of(const Vacuum *vacuum)
{
    return &vacuum->writer.graph.geometry;
}

/* Slots of a NODES page, 0 for others. */
static OffsetNumber
slot_count(Vacuum *vacuum, Page page)
{
    return ruhnsw_slot_count(geometry_of(vacuum), page);
}

static RuhnswNode *
node_at(Vacuum *vacuum, Page page, BlockNumber block, OffsetNumber offset)
{
    return ruhnsw_node_at(vacuum->index, geometry_of(vacuum), page, block, offset);
}

static bool
is_side(Page page)
{
    return !PageIsNew(page) && ruhnsw_trailer(page)->kind == RUHNSW_PAGE_SIDE;
}

/* Slots or tuples of a page. */
static OffsetNumber
place_count(Vacuum *vacuum, Page page)
{
    return is_side(page) ? PageGetMaxOffsetNumber(page) : slot_count(vacuum, page);
}

static bool
is_dead(Vacuum *vacuum, uint64 ref)
{
    return hash_search(vacuum->dead, &ref, HASH_FIND, NULL) != NULL;
}

static bool
any_dead(Vacuum *vacuum, const uint64 *links, int count)
{
    for (int i = 0; i < count; i++)
        if (is_dead(vacuum, links[i]))
            return true;
    return false;
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
rows_at(Vacuum *vacuum, Page page, BlockNumber block, OffsetNumber offset)
{
    RowList list = {NULL, NULL, NULL};

    if (is_side(page)) {
        RuhnswRows *rows = ruhnsw_rows_at(vacuum->index, page, block, offset);

        if (rows) {
            list.tids = rows->tids;
            list.wide = &rows->count;
        }
    } else {
        RuhnswNode *node = node_at(vacuum, page, block, offset);

        if (node) {
            list.tids = ruhnsw_tail(geometry_of(vacuum), node)->tids;
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
find_dead_rows(Vacuum *vacuum, Page page, BlockNumber block, uint64 *masks)
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
remove_dead_rows(Vacuum *vacuum, Buffer buffer, const uint64 *masks)
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
        node = is_side(page) ? NULL : node_at(vacuum, page, block, offset);
        list = rows_at(vacuum, page, block, offset);
        kept = shorten(&list, masks[offset]);
        if (node == NULL || ruhnsw_tail(geometry_of(vacuum), node)->more != 0)
            vacuum->chains = true;
        else if (kept == 0)
            node->flags |= RUHNSW_NODE_DEAD;
    }
    ruhnsw_change_commit(&change);
}

/* Whether no rows tuple of the locked node has a row left. */
static bool
chain_is_empty(Vacuum *vacuum, uint64 ref, uint64 position)
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
mark_empty_nodes(Vacuum *vacuum, Buffer buffer)
{
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);

    for (OffsetNumber offset = FirstOffsetNumber; offset <= slot_count(vacuum, page); offset++) {
        RuhnswNode *node = node_at(vacuum, page, block, offset);
        RuhnswChange change;

        if (node == NULL || (node->flags & RUHNSW_NODE_DEAD) || node->tid_count > 0 ||
            !chain_is_empty(vacuum, ruhnsw_ref(block, offset),
                            ruhnsw_tail(geometry_of(vacuum), node)->more))
            continue;
        ruhnsw_change_begin(&change, vacuum->index, false);
        node = node_at(vacuum, ruhnsw_change_page(&change, buffer), block, offset);
        node->flags |= RUHNSW_NODE_DEAD;
        ruhnsw_change_commit(&change);
    }
}

/* Frees the first rows tuple of a node of the locked page. */
static void
free_chain_head(Vacuum *vacuum, Buffer buffer, uint64 ref, uint64 position)
{
    Buffer side = ruhnsw_read(vacuum->index, ruhnsw_ref_block(position), BUFFER_LOCK_EXCLUSIVE);
    RuhnswRows *rows = ruhnsw_get_rows(vacuum->index, BufferGetPage(side), position, ref);
    RuhnswChange change;
    RuhnswNode *node;

    if (rows == NULL)
        ruhnsw_corrupt(vacuum->index, ruhnsw_ref_block(ref),
                       "the further rows of a node are missing");
    ruhnsw_change_begin(&change, vacuum->index, false);
    node = ruhnsw_get_node(vacuum->index, geometry_of(vacuum), ruhnsw_change_page(&change, buffer),
                           ref);
    ruhnsw_tail(geometry_of(vacuum), node)->more = rows->next;
    PageIndexTupleDeleteNoCompact(ruhnsw_change_page(&change, side), ruhnsw_ref_offset(position));
    ruhnsw_change_commit(&change);
    UnlockReleaseBuffer(side);
}

/* Frees an unlinked node of the locked page, its upper links and its rows tuples. */
static void
free_node(Vacuum *vacuum, Buffer buffer, OffsetNumber offset)
{
    const RuhnswGeometry *geometry = geometry_of(vacuum);
    BlockNumber block = BufferGetBlockNumber(buffer);
    RuhnswNode *node = node_at(vacuum, BufferGetPage(buffer), block, offset);
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
    node = node_at(vacuum, ruhnsw_change_page(&change, buffer), block, offset);
    memset(node, 0, geometry->slot_size);
    if (upper != 0)
        PageIndexTupleDeleteNoCompact(ruhnsw_change_page(&change, side), ruhnsw_ref_offset(upper));
    ruhnsw_change_commit(&change);
    if (upper != 0)
        UnlockReleaseBuffer(side);
}

/* Frees the unlinked nodes of the locked page that nobody can stand on, and remembers where there
 * is room: of NODES pages in the free space map, of SIDE pages the one with the most. */
static void
free_nodes(Vacuum *vacuum, Buffer buffer)
{
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);
    bool freed = PageIsNew(page);

    for (OffsetNumber offset = FirstOffsetNumber; offset <= slot_count(vacuum, page); offset++) {
        RuhnswNode *node = node_at(vacuum, page, block, offset);

        if (node == NULL || !(node->flags & RUHNSW_NODE_UNLINKED))
            continue;
        if (vacuum->no_witness ||
            GlobalVisCheckRemovableFullXid(
                NULL,
                FullTransactionIdFromU64(ruhnsw_tail(geometry_of(vacuum), node)->unlinked_at))) {
            free_node(vacuum, buffer, offset);
            freed = true;
        } else {
            vacuum->unlinked++;
        }
    }
    if (freed)
        RecordFreeIndexPage(vacuum->index, block);
    else if (is_side(page) && PageGetExactFreeSpace(page) > vacuum->side_room) {
        vacuum->side_room = PageGetExactFreeSpace(page);
        vacuum->side_block = block;
    }
}

static void
remove_rows(Vacuum *vacuum)
{
    uint64 *masks = palloc(sizeof(uint64) * (MaxOffsetNumber + 1));

    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = read_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);
        Page page = BufferGetPage(buffer);

        if (!PageIsNew(page) && find_dead_rows(vacuum, page, block, masks))
            remove_dead_rows(vacuum, buffer, masks);
        free_nodes(vacuum, buffer);
        UnlockReleaseBuffer(buffer);
    }
    pfree(masks);
    for (BlockNumber block = RUHNSW_FIRST_BLOCK;
         vacuum->chains && block < RelationGetNumberOfBlocks(vacuum->index); block++) {
        Buffer buffer = read_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);

        mark_empty_nodes(vacuum, buffer);
        UnlockReleaseBuffer(buffer);
    }
}

/* ---- the dead nodes of this round ---- */

static bool
collect_dead(Vacuum *vacuum)
{
    HASHCTL control = {.keysize = sizeof(uint64), .entrysize = sizeof(uint64)};
    long count = 0;

    if (vacuum->dead)
        hash_destroy(vacuum->dead);
    vacuum->dead = hash_create("ruhnsw dead nodes", 1024, &control, HASH_ELEM | HASH_BLOBS);
    for (BlockNumber block = RUHNSW_FIRST_BLOCK;
         block < RelationGetNumberOfBlocks(vacuum->index) && count < vacuum->dead_limit; block++) {
        Buffer buffer = read_block(vacuum, block, BUFFER_LOCK_SHARE);
        Page page = BufferGetPage(buffer);

        for (OffsetNumber offset = FirstOffsetNumber; offset <= slot_count(vacuum, page);
             offset++) {
            RuhnswNode *node = node_at(vacuum, page, block, offset);
            uint64 ref;

            if (node == NULL || !(node->flags & RUHNSW_NODE_DEAD) ||
                (node->flags & RUHNSW_NODE_UNLINKED))
                continue;
            ref = ruhnsw_ref(block, offset);
            hash_search(vacuum->dead, &ref, HASH_ENTER, NULL);
            count++;
        }
        UnlockReleaseBuffer(buffer);
    }
    return count > 0;
}

static void
wait_for_inserts(Vacuum *vacuum)
{
    LockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
    UnlockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
}

/* ---- entry ---- */

static uint64
highest_live_node(Vacuum *vacuum, int *level)
{
    uint64 best = RUHNSW_NO_REF;

    *level = -1;
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = read_block(vacuum, block, BUFFER_LOCK_SHARE);
        Page page = BufferGetPage(buffer);

        for (OffsetNumber offset = FirstOffsetNumber; offset <= slot_count(vacuum, page);
             offset++) {
            RuhnswNode *node = node_at(vacuum, page, block, offset);

            if (node && !(node->flags & RUHNSW_NODE_DEAD) && node->level > *level) {
                best = ruhnsw_ref(block, offset);
                *level = node->level;
            }
        }
        UnlockReleaseBuffer(buffer);
    }
    return best;
}

static bool
is_live(RuhnswGraph *graph, uint64 ref)
{
    uint16 flags;

    return ruhnsw_load_node(graph, ref, NULL, &flags, NULL) && !(flags & RUHNSW_NODE_DEAD);
}

static void
replace_entry(Vacuum *vacuum)
{
    RuhnswGraph *graph = &vacuum->writer.graph;

    LockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
    ruhnsw_graph_refresh(graph);
    if (graph->meta.entry != RUHNSW_NO_REF && !is_live(graph, graph->meta.entry)) {
        int level;
        uint64 entry = highest_live_node(vacuum, &level);

        ruhnsw_set_entry(vacuum->index, entry, level, false);
        ruhnsw_graph_refresh(graph);
    }
    if (graph->meta.root != RUHNSW_NO_REF && !is_live(graph, graph->meta.root)) {
        ruhnsw_set_root(vacuum->index, graph->meta.entry);
        ruhnsw_graph_refresh(graph);
    }
    UnlockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
}

/* ---- repair ---- */

typedef struct Repair {
    Vacuum *vacuum;
    uint64 ref;
} Repair;

/* Replaces dead links of a node at one level by the best of what is left and what was found. */
static void
repair_level(RuhnswWriter *writer, int level, uint32 found, void *arg)
{
    Repair *repair = arg;
    const RuhnswMetaData *meta = &writer->graph.meta;
    int limit = ruhnsw_level_limit(meta->m, level);

    for (int attempt = 0; attempt < REPAIR_ATTEMPTS; attempt++) {
        uint64 position;
        int count = 0;
        int chosen;
        int old_count = ruhnsw_load_links(&writer->graph, repair->ref, level, writer->old_links,
                                          &position, NULL);

        if (old_count < 0 || !any_dead(repair->vacuum, writer->old_links, old_count))
            return;
        for (int i = 0; i < old_count; i++)
            ruhnsw_add_candidate(writer, writer->vector, repair->ref, writer->old_links[i], &count);
        for (uint32 i = 0; i < found; i++)
            ruhnsw_add_candidate(writer, writer->vector, repair->ref, writer->found[i].node,
                                 &count);
        chosen = rv_hnsw_select(writer->graph.metric, writer->graph.unit, meta->dim,
                                writer->candidates, count, limit, NULL);
        for (int i = 0; i < chosen; i++)
            writer->new_links[i] = writer->candidates[i].node;
        if (ruhnsw_replace_links(writer, repair->ref, position, level, writer->old_links, old_count,
                                 writer->new_links, chosen))
            return;
    }
    ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
                    errmsg("could not repair the links of a node of index \"%s\": they keep "
                           "changing",
                           RelationGetRelationName(writer->graph.index)),
                    errhint("VACUUM goes on where this one stopped.")));
}

static void
repair_node(Vacuum *vacuum, uint64 ref)
{
    RuhnswWriter *writer = &vacuum->writer;
    Repair repair = {vacuum, ref};
    int level;
    int top;

    ruhnsw_graph_refresh(&writer->graph);
    if (!ruhnsw_load_node(&writer->graph, ref, writer->vector, NULL, &level))
        return;
    top = Min(level, writer->graph.meta.entry_level);
    for (int above = level; above > top; above--)
        repair_level(writer, above, 0, &repair);
    if (top >= 0)
        ruhnsw_search_levels(writer, writer->vector, top, repair_level, &repair);
}

/* Takes the dead ones out of the learned links of the exclusively locked page. */
static void
drop_dead_learned(Vacuum *vacuum, Buffer buffer)
{
    const RuhnswGeometry *geometry = geometry_of(vacuum);
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);
    RuhnswChange change;
    bool changing = false;

    for (OffsetNumber offset = FirstOffsetNumber; offset <= slot_count(vacuum, page); offset++) {
        RuhnswNode *node = node_at(vacuum, page, block, offset);

        for (int i = 0; node && i < geometry->learned; i++) {
            uint32 number = ruhnsw_learned_links(geometry, node)[i];

            if (number == RUHNSW_NO_LINK || !is_dead(vacuum, ruhnsw_number_ref(geometry, number)))
                continue;
            if (!changing) {
                ruhnsw_change_begin(&change, vacuum->index, false);
                page = ruhnsw_change_page(&change, buffer);
                node = node_at(vacuum, page, block, offset);
                changing = true;
            }
            ruhnsw_learned_links(geometry, node)[i] = RUHNSW_NO_LINK;
        }
    }
    if (changing)
        ruhnsw_change_commit(&change);
}

static bool
has_dead_learned(Vacuum *vacuum, const RuhnswNode *node)
{
    const RuhnswGeometry *geometry = geometry_of(vacuum);
    const uint32 *learned = ruhnsw_learned_links(geometry, node);

    for (int i = 0; i < geometry->learned; i++)
        if (learned[i] != RUHNSW_NO_LINK &&
            is_dead(vacuum, ruhnsw_number_ref(geometry, learned[i])))
            return true;
    return false;
}

static bool
has_dead_base_link(Vacuum *vacuum, const RuhnswNode *node)
{
    const RuhnswGeometry *geometry = geometry_of(vacuum);
    const uint32 *links = ruhnsw_base_links(geometry, node);

    for (int i = 0; i < node->link_count; i++)
        if (is_dead(vacuum, ruhnsw_number_ref(geometry, links[i])))
            return true;
    return false;
}

static bool
has_dead_upper_link(Vacuum *vacuum, uint64 ref)
{
    RuhnswWriter *writer = &vacuum->writer;

    for (int level = 1;; level++) {
        int count = ruhnsw_load_links(&writer->graph, ref, level, writer->old_links, NULL, NULL);

        if (count < 0)
            return false;
        if (any_dead(vacuum, writer->old_links, count))
            return true;
    }
}

/* The nodes of a page that have dead links on layer 0 (repair), or that have upper levels on which
 * they may have (look). *learned: some node has dead learned links. */
static int
find_dead_links(Vacuum *vacuum, Page page, BlockNumber block, uint64 *refs, bool *look,
                bool *learned)
{
    int count = 0;

    *learned = false;
    for (OffsetNumber offset = FirstOffsetNumber; offset <= slot_count(vacuum, page); offset++) {
        RuhnswNode *node = node_at(vacuum, page, block, offset);

        if (node == NULL || (node->flags & RUHNSW_NODE_DEAD))
            continue;
        *learned = *learned || has_dead_learned(vacuum, node);
        look[count] = !has_dead_base_link(vacuum, node);
        if (look[count] && node->level == 0)
            continue;
        refs[count++] = ruhnsw_ref(block, offset);
    }
    return count;
}

static void
repair_links(Vacuum *vacuum)
{
    uint64 *refs = palloc(sizeof(uint64) * MaxOffsetNumber);
    bool *look = palloc(sizeof(bool) * MaxOffsetNumber);

    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = read_block(vacuum, block, BUFFER_LOCK_SHARE);
        bool learned;
        int count = find_dead_links(vacuum, BufferGetPage(buffer), block, refs, look, &learned);

        UnlockReleaseBuffer(buffer);
        if (learned) {
            buffer = read_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);
            drop_dead_learned(vacuum, buffer);
            UnlockReleaseBuffer(buffer);
        }
        for (int i = 0; i < count; i++)
            if (!look[i] || has_dead_upper_link(vacuum, refs[i]))
                repair_node(vacuum, refs[i]);
    }
    pfree(refs);
    pfree(look);
}

/* ---- unlink ---- */

static void
mark_unlinked(Vacuum *vacuum)
{
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = read_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);
        RuhnswChange change = {0};
        Page page = BufferGetPage(buffer);
        bool changing = false;

        for (OffsetNumber offset = FirstOffsetNumber; offset <= slot_count(vacuum, page);
             offset++) {
            RuhnswNode *node = node_at(vacuum, page, block, offset);

            if (node == NULL || !is_dead(vacuum, ruhnsw_ref(block, offset)))
                continue;
            if (!changing) {
                ruhnsw_change_begin(&change, vacuum->index, false);
                page = ruhnsw_change_page(&change, buffer);
                node = node_at(vacuum, page, block, offset);
                changing = true;
            }
            node->flags |= RUHNSW_NODE_UNLINKED;
            ruhnsw_tail(geometry_of(vacuum), node)->unlinked_at =
                U64FromFullTransactionId(ReadNextFullTransactionId());
            vacuum->unlinked++;
        }
        if (changing)
            ruhnsw_change_commit(&change);
        UnlockReleaseBuffer(buffer);
    }
}

/* Every transaction of this database that has a snapshot. */
static Witnesses
call_witnesses(void)
{
    Witnesses witnesses;

    witnesses.ids =
        GetCurrentVirtualXIDs(InvalidTransactionId, true, false, PROC_IN_VACUUM, &witnesses.count);
    return witnesses;
}

static bool
all_gone(const Witnesses *witnesses)
{
    for (int i = 0; i < witnesses->count; i++)
        if (!VirtualXactLock(witnesses->ids[i], false))
            return false;
    return true;
}

/*
 * Frees the nodes that this vacuum unlinked, if the witnesses of that have gone. Scans that began
 * later cannot have met them, nor can inserts, once those that were under way have ended.
 */
static void
free_at_once(Vacuum *vacuum, const Witnesses *witnesses)
{
    if (vacuum->unlinked == 0 || !all_gone(witnesses))
        return;
    wait_for_inserts(vacuum);
    vacuum->no_witness = true;
    vacuum->unlinked = 0;
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = read_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);

        free_nodes(vacuum, buffer);
        UnlockReleaseBuffer(buffer);
    }
}

/* Leaves what the next vacuum and the next inserts should know on the meta page. */
static void
finish(Vacuum *vacuum)
{
    ruhnsw_set_unlinked(vacuum->index, vacuum->unlinked);
    if (vacuum->side_room > 0)
        ruhnsw_set_side_block(vacuum->index, vacuum->side_block, false);
}

IndexBulkDeleteResult *
ruhnsw_bulk_delete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats,
                   IndexBulkDeleteCallback callback, void *callback_state)
{
    Vacuum vacuum = {
        .info = info, .index = info->index, .callback = callback, .callback_state = callback_state};
    Witnesses witnesses;

    if (stats == NULL)
        stats = palloc0(sizeof(IndexBulkDeleteResult));
    stats->num_index_tuples = 0;
    vacuum.stats = stats;
    vacuum.dead_limit = Max((Size)maintenance_work_mem * 1024 / BYTES_PER_DEAD, MIN_DEAD_PER_ROUND);
    ruhnsw_writer_open(&vacuum.writer, info->index, false);

    remove_rows(&vacuum);
    RUV_PAUSE("ruhnsw-vacuum-removed");
    if (collect_dead(&vacuum)) {
        wait_for_inserts(&vacuum);
        RUV_PAUSE("ruhnsw-vacuum-barrier");
        replace_entry(&vacuum);
        RUV_PAUSE("ruhnsw-vacuum-entry");
        do {
            repair_links(&vacuum);
            ruhnsw_connect(&vacuum.writer, info->strategy);
            RUV_PAUSE("ruhnsw-vacuum-repaired");
            mark_unlinked(&vacuum);
        } while (collect_dead(&vacuum));
        witnesses = call_witnesses();
        free_at_once(&vacuum, &witnesses);
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
    Vacuum vacuum = {.info = info, .index = info->index};

    ruhnsw_writer_open(&vacuum.writer, info->index, false);
    if (vacuum.writer.graph.meta.unlinked > 0) {
        for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(info->index);
             block++) {
            Buffer buffer = read_block(&vacuum, block, BUFFER_LOCK_EXCLUSIVE);

            free_nodes(&vacuum, buffer);
            UnlockReleaseBuffer(buffer);
        }
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
