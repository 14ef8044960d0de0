/*
 * insert.c - adding one row.
 *
 * A row whose vector is already there joins its node. Otherwise: find the
 * neighbours by a search, write the new node with its links, then let the neighbours link back.
 * Until the first neighbour does, nobody can see the node. Should the insert fail half way, the row
 * is not visible to anyone, and vacuum removes the node with it.
 *
 * Locks (see ruhnsw.h for the heavyweight ones): every page is locked by itself, except that a
 * node whose links or further rows need another page is written under both locks: a NODES page,
 * then a SIDE page, which is not waited for when it might be any page of the file. The entry point
 * changes under the exclusive heavyweight lock, after the new entry node is linked.
 *
 * Where nodes go: the page this backend used last, a page with room by the free space map (vacuum
 * feeds it), the last page, a new page. What goes to SIDE pages: the page that the meta page
 * names, else a new one, which is then named there.
 */
#include "ruhnsw/ruhnsw.h"

#include <math.h>

#include "miscadmin.h"
#include "pause.h"
#include "storage/freespace.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

#define FREE_SPACE_ATTEMPTS 8

/* ---- pages ---- */

/* A block if it can take items of these sizes: exclusively locked, or InvalidBuffer. wait = false:
 * only if its lock is free. *room gets what the free space map should know, 0 for another kind. */
static Buffer
try_block(Relation index, BlockNumber block, RuhnswPageKind kind, Size size1, Size size2, bool wait,
          Size *room)
{
    Buffer buffer = ReadBuffer(index, block);
    Page page = BufferGetPage(buffer);

    *room = 0;
    if (wait)
        LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    else if (!ConditionalLockBuffer(buffer)) {
        ReleaseBuffer(buffer);
        return InvalidBuffer;
    }
    if (PageIsNew(page))
        return buffer;
    if (ruhnsw_trailer(page)->kind == kind) {
        *room = PageGetExactFreeSpace(page);
        if (ruhnsw_page_fits(page, size1, size2))
            return buffer;
    }
    UnlockReleaseBuffer(buffer);
    return InvalidBuffer;
}

static Buffer
try_free_space_map(Relation index, Size size1, Size size2)
{
    Size need = MAXALIGN(size1) + MAXALIGN(size2) + 2 * sizeof(ItemIdData);
    BlockNumber block = GetPageWithFreeSpace(index, need);

    for (int i = 0; i < FREE_SPACE_ATTEMPTS; i++) {
        Buffer buffer;
        Size room;

        if (block == InvalidBlockNumber || block == RUHNSW_META_BLOCK ||
            block >= RelationGetNumberOfBlocks(index))
            return InvalidBuffer;
        buffer = try_block(index, block, RUHNSW_PAGE_NODES, size1, size2, true, &room);
        if (BufferIsValid(buffer))
            return buffer;
        block = RecordAndGetPageWithFreeSpace(index, block, room, need);
    }
    return InvalidBuffer;
}

/* A new page of zeros, exclusively locked. */
static Buffer
new_page(Relation index)
{
    for (;;) {
        Buffer buffer = ruhnsw_extend(index);

        if (PageIsNew(BufferGetPage(buffer)))
            return buffer;
        /* Somebody else was faster to use the new page. */
        UnlockReleaseBuffer(buffer);
    }
}

/* An exclusively locked NODES page, or one of zeros, with room for the items. */
static Buffer
find_nodes_page(Relation index, Size size1, Size size2)
{
    BlockNumber block = RelationGetTargetBlock(index);
    Buffer buffer = InvalidBuffer;
    Size room;

    if (block != InvalidBlockNumber && block < RelationGetNumberOfBlocks(index))
        buffer = try_block(index, block, RUHNSW_PAGE_NODES, size1, size2, true, &room);
    if (!BufferIsValid(buffer))
        buffer = try_free_space_map(index, size1, size2);
    if (!BufferIsValid(buffer)) {
        block = RelationGetNumberOfBlocks(index) - 1;
        if (block != RUHNSW_META_BLOCK)
            buffer = try_block(index, block, RUHNSW_PAGE_NODES, size1, size2, true, &room);
    }
    return BufferIsValid(buffer) ? buffer : new_page(index);
}

/* An exclusively locked SIDE page, or one of zeros, with room for the item. The caller holds the
 * lock of node_block, so no other lock may be waited for. */
static Buffer
find_side_page(RuhnswWriter *writer, Size size, BlockNumber node_block)
{
    Relation index = writer->graph.index;
    BlockNumber block = (BlockNumber)writer->graph.meta.side_block;
    Buffer buffer = InvalidBuffer;
    Size room;

    if (block != RUHNSW_META_BLOCK && block != node_block)
        buffer = try_block(index, block, RUHNSW_PAGE_SIDE, size, 0, false, &room);
    return BufferIsValid(buffer) ? buffer : new_page(index);
}

/* Names the SIDE page that was used last; no content lock may be held. */
static void
remember_side_page(RuhnswWriter *writer, BlockNumber block)
{
    if (writer->graph.meta.side_block == block)
        return;
    ruhnsw_set_side_block(writer->graph.index, block, writer->building);
    writer->graph.meta.side_block = block;
}

static Page
change_page(RuhnswChange *change, Buffer buffer, RuhnswPageKind kind)
{
    Page page = ruhnsw_change_page(change, buffer);

    if (PageIsNew(page))
        ruhnsw_page_init(page, kind);
    return page;
}

/* Writes writer->node and writer->links, completing the references between them. */
static uint64
place_node(RuhnswWriter *writer)
{
    Relation index = writer->graph.index;
    const RuhnswMetaData *meta = &writer->graph.meta;
    RuhnswNode *node = writer->node;
    RuhnswLinks *links = writer->links;
    Size node_size = ruhnsw_node_size(meta->dim);
    Size links_size = ruhnsw_links_size(meta->m, node->level);
    bool apart = ruhnsw_links_apart(meta->dim, meta->m, node->level);
    Buffer node_buffer = find_nodes_page(index, node_size, apart ? 0 : links_size);
    BlockNumber node_block = BufferGetBlockNumber(node_buffer);
    Buffer links_buffer = apart ? find_side_page(writer, links_size, node_block) : node_buffer;
    BlockNumber links_block = BufferGetBlockNumber(links_buffer);
    OffsetNumber node_offset;
    OffsetNumber links_offset;
    RuhnswChange change;
    Page node_page;
    Page links_page;
    uint64 ref;

    ruhnsw_change_begin(&change, index, writer->building);
    node_page = change_page(&change, node_buffer, RUHNSW_PAGE_NODES);
    links_page = apart ? change_page(&change, links_buffer, RUHNSW_PAGE_SIDE) : node_page;
    node_offset = ruhnsw_next_offset(node_page, InvalidOffsetNumber);
    links_offset = ruhnsw_next_offset(links_page, apart ? InvalidOffsetNumber : node_offset);
    node->generation = ruhnsw_trailer(node_page)->generation;
    ItemPointerSet(&node->links, links_block, links_offset);
    ref = ruhnsw_ref(node->generation, node_block, node_offset);
    links->owner = ref;
    ruhnsw_put_item(index, node_page, node_offset, node, node_size);
    ruhnsw_put_item(index, links_page, links_offset, links, links_size);
    ruhnsw_change_commit(&change);
    if (apart)
        UnlockReleaseBuffer(links_buffer);
    UnlockReleaseBuffer(node_buffer);
    if (apart)
        remember_side_page(writer, links_block);
    RelationSetTargetBlock(index, node_block);
    return ref;
}

/* ---- one row ---- */

typedef struct Addition {
    const float *vector;
    ItemPointer tid;
    bool joined; /* a node with this very vector has taken the row */
} Addition;

/* Adds the row to the locked node's newest rows tuple; false when there is none with room. */
static bool
join_chain(RuhnswWriter *writer, uint64 ref, uint64 position, ItemPointer tid)
{
    Relation index = writer->graph.index;
    Buffer buffer;
    RuhnswRows *rows;
    bool fits;

    if (position == 0)
        return false;
    buffer = ruhnsw_read(index, ruhnsw_ref_block(position), BUFFER_LOCK_EXCLUSIVE);
    rows = ruhnsw_get_rows(index, BufferGetPage(buffer), position, ref);
    if (rows == NULL)
        ruhnsw_corrupt(index, ruhnsw_ref_block(ref), "the further rows of a node are missing");
    fits = rows->count < RUHNSW_CHAIN_TIDS;
    if (fits) {
        RuhnswChange change;
        Page page;

        ruhnsw_change_begin(&change, index, writer->building);
        page = ruhnsw_change_page(&change, buffer);
        rows = ruhnsw_get_rows(index, page, position, ref);
        rows->tids[rows->count++] = *tid;
        ruhnsw_change_commit(&change);
    }
    UnlockReleaseBuffer(buffer);
    return fits;
}

/* Puts a new rows tuple with the row at the head of the locked node's chain. Returns its block. */
static BlockNumber
lengthen_chain(RuhnswWriter *writer, Buffer node_buffer, uint64 ref, ItemPointer tid)
{
    Relation index = writer->graph.index;
    Buffer side_buffer =
        find_side_page(writer, sizeof(RuhnswRows), BufferGetBlockNumber(node_buffer));
    BlockNumber block = BufferGetBlockNumber(side_buffer);
    RuhnswRows rows = {.type = RUHNSW_TUPLE_ROWS, .count = 1, .owner = ref};
    RuhnswChange change;
    RuhnswNode *node;
    Page page;
    OffsetNumber offset;

    ruhnsw_change_begin(&change, index, writer->building);
    node = ruhnsw_get_node(index, ruhnsw_change_page(&change, node_buffer), ref,
                           writer->graph.meta.dim);
    page = change_page(&change, side_buffer, RUHNSW_PAGE_SIDE);
    offset = ruhnsw_next_offset(page, InvalidOffsetNumber);
    rows.next = node->more;
    rows.tids[0] = *tid;
    ruhnsw_put_item(index, page, offset, &rows, sizeof(rows));
    node->more = ruhnsw_position(block, offset);
    ruhnsw_change_commit(&change);
    UnlockReleaseBuffer(side_buffer);
    return block;
}

/* Adds the row to a node with the same vector if the node lives. */
static bool
join_node(RuhnswWriter *writer, uint64 ref, ItemPointer tid)
{
    Relation index = writer->graph.index;
    Buffer buffer = ruhnsw_read(index, ruhnsw_ref_block(ref), BUFFER_LOCK_EXCLUSIVE);
    RuhnswNode *node = ruhnsw_get_node(index, BufferGetPage(buffer), ref, writer->graph.meta.dim);
    BlockNumber side_block = InvalidBlockNumber;

    if (node == NULL || (node->flags & RUHNSW_NODE_DEAD)) {
        UnlockReleaseBuffer(buffer);
        return false;
    }
    if (node->tid_count < RUHNSW_NODE_TIDS) {
        RuhnswChange change;

        ruhnsw_change_begin(&change, index, writer->building);
        node = ruhnsw_get_node(index, ruhnsw_change_page(&change, buffer), ref,
                               writer->graph.meta.dim);
        node->tids[node->tid_count++] = *tid;
        ruhnsw_change_commit(&change);
    } else if (!join_chain(writer, ref, node->more, tid)) {
        side_block = lengthen_chain(writer, buffer, ref, tid);
    }
    UnlockReleaseBuffer(buffer);
    if (side_block != InvalidBlockNumber)
        remember_side_page(writer, side_block);
    return true;
}

/* Chooses the new node's links at one level from what was found. */
static void
use_found(RuhnswWriter *writer, int level, uint32 found, void *arg)
{
    Addition *addition = arg;
    const RuhnswMetaData *meta = &writer->graph.meta;
    RuhnswLinks *links = writer->links;
    int count = 0;

    for (uint32 i = 0; i < found; i++)
        ruhnsw_add_candidate(writer, addition->vector, RUHNSW_NO_REF, writer->found[i].node,
                             &count);
    for (int i = 0; level == 0 && i < count && !addition->joined; i++)
        if (memcmp(writer->candidates[i].vector, addition->vector, sizeof(float) * meta->dim) == 0)
            addition->joined = join_node(writer, writer->candidates[i].node, addition->tid);
    if (addition->joined)
        return;
    count = rv_hnsw_select(writer->graph.metric, writer->graph.unit, meta->dim, writer->candidates,
                           count, ruhnsw_level_limit(meta->m, level), NULL);
    links->counts[level] = count;
    for (int i = 0; i < count; i++)
        links->links[ruhnsw_level_start(meta->m, level) + i] = writer->candidates[i].node;
}

/* Lets the chosen neighbours link back to the new node. */
static void
link_back(RuhnswWriter *writer, uint64 ref, int top)
{
    const RuhnswLinks *links = writer->links;
    int accepted = 0;

    for (int level = top; level >= 0; level--)
        for (int i = 0; i < links->counts[level]; i++) {
            uint64 other = links->links[ruhnsw_level_start(writer->graph.meta.m, level) + i];

            if (ruhnsw_link(writer, other, ref, level, false) && level == 0)
                accepted++;
        }
    if (accepted == 0)
        ruhnsw_attach(writer, ref, true);
    ruhnsw_attach_dropped(writer);
}

void
ruhnsw_add(RuhnswWriter *writer, const float *vector, ItemPointer tid, int level)
{
    const RuhnswMetaData *meta = &writer->graph.meta;
    Addition addition = {vector, tid, false};
    int top = Min(level, meta->entry_level);
    RuhnswNode *node = writer->node;
    const char *problem;
    uint64 ref;

    memset(writer->links, 0, ruhnsw_links_size(meta->m, level));
    if (top >= 0)
        ruhnsw_search_levels(writer, vector, top, use_found, &addition);
    if (addition.joined)
        return;

    writer->links->type = RUHNSW_TUPLE_LINKS;
    writer->links->level = level;
    writer->links->m = meta->m;
    memset(node, 0, offsetof(RuhnswNode, vector));
    node->type = RUHNSW_TUPLE_NODE;
    node->level = level;
    node->tid_count = 1;
    node->tids[0] = *tid;
    node->dim = meta->dim;
    ItemPointerSet(&node->links, RUHNSW_FIRST_BLOCK, FirstOffsetNumber);
    memcpy(node->vector, vector, sizeof(float) * meta->dim);
    problem = ruhnsw_check_node(node, ruhnsw_node_size(meta->dim), meta->dim, meta->m);
    if (problem == NULL)
        problem = ruhnsw_check_links(writer->links, ruhnsw_links_size(meta->m, level), meta->m);
    if (problem)
        elog(ERROR, "%s", problem);

    RUV_PAUSE("ruhnsw-insert-searched");
    ref = place_node(writer);
    RUV_PAUSE("ruhnsw-insert-placed");
    if (top >= 0)
        link_back(writer, ref, top);
    if (level > meta->entry_level) {
        RUV_PAUSE("ruhnsw-insert-promote");
        ruhnsw_set_entry(writer->graph.index, ref, level, writer->building);
        writer->graph.meta.entry = ref;
        if (writer->graph.meta.root == RUHNSW_NO_REF)
            writer->graph.meta.root = ref;
        writer->graph.meta.entry_level = level;
    }
}

static int
random_level(int m)
{
    static rv_prng rng;
    static bool seeded = false;

    if (!seeded) {
        uint64 seed;

        if (!pg_strong_random(&seed, sizeof(seed)))
            ereport(ERROR,
                    (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random seed")));
        rv_prng_seed(&rng, seed);
        seeded = true;
    }
    return Min(rv_hnsw_draw_level(&rng, m), ruhnsw_max_level(m));
}

/* The statement's writer, kept in its IndexInfo. */
static RuhnswWriter *
get_writer(Relation index, IndexInfo *info)
{
    RuhnswWriter *writer = info->ii_AmCache;

    if (writer == NULL) {
        MemoryContext former = MemoryContextSwitchTo(info->ii_Context);

        writer = palloc(sizeof(RuhnswWriter));
        ruhnsw_writer_open(writer, index, false);
        info->ii_AmCache = writer;
        MemoryContextSwitchTo(former);
    }
    return writer;
}

bool
ruhnsw_insert(Relation index, Datum *values, bool *isnull, ItemPointer tid, Relation heap,
              IndexUniqueCheck unique, bool unchanged, IndexInfo *info)
{
    LOCKMODE mode = ShareLock;
    RuhnswWriter *writer;
    RuhnswMetaData *meta;
    float norm;
    int level;

    if (isnull[0])
        return false;
    writer = get_writer(index, info);
    meta = &writer->graph.meta;
    if (!ruhnsw_prepare(writer->graph.metric, meta->dim, DatumGetRuVector(values[0]),
                        writer->vector))
        return false;

    level = random_level(meta->m);
    LockPage(index, RUHNSW_META_BLOCK, mode);
    ruhnsw_graph_refresh(&writer->graph);
    if (level > meta->entry_level) {
        UnlockPage(index, RUHNSW_META_BLOCK, mode);
        mode = ExclusiveLock;
        LockPage(index, RUHNSW_META_BLOCK, mode);
        ruhnsw_graph_refresh(&writer->graph);
    }
    norm = nextafterf(rv_norm(writer->vector, meta->dim), INFINITY);
    if (norm > meta->max_norm)
        ruhnsw_raise_max_norm(index, norm, false);
    ruhnsw_add(writer, writer->vector, tid, level);
    UnlockPage(index, RUHNSW_META_BLOCK, mode);
    return false;
}
