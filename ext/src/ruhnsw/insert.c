/*
 * insert.c - adding one row.
 *
 * A row whose vector, as it is stored, is already there joins its node. Otherwise: find the
 * neighbours by a search, write the new node with its links, then let the neighbours link back.
 * Until the first neighbour does, which is one on layer 0, nobody can see the node. Should the
 * insert fail half way, the row is not visible to anyone, and vacuum removes the node with it. In a
 * graph whose nodes are all dead, which vacuum leaves for a while, a row is the first again: it
 * becomes root and entry point, and nobody is linked to what vacuum takes away.
 *
 * Locks (see ruhnsw.h for the heavyweight ones): every page is locked by itself, except that a
 * node with upper levels or further rows is written under both locks: a NODES page, then a SIDE
 * page, which is not waited for when it might be any page of the file. The entry point
 * changes under the exclusive heavyweight lock, after the new entry node is linked.
 *
 * Where nodes go: the page this backend used last, a page with room by the free space map (vacuum
 * feeds it), the last page, a new page. What goes to SIDE pages: the page that the meta page
 * names, else a new one, which is then named there.
 */
#include "ruhnsw/ruhnsw.h"

#include "opclass.h"

#include <math.h>

#include "miscadmin.h"
#include "pause.h"
#include "storage/freespace.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

#define FREE_SPACE_ATTEMPTS 8

/* ---- pages ---- */

/* The free space map knows pages with an empty slot from pages without. */
#define ROOM_NEEDED (BLCKSZ / 2)
#define ROOM_OF_SLOT (BLCKSZ - 1)

/* A block if it can take the item: exclusively locked, or InvalidBuffer. wait = false: only if its
 * lock is free. NODES take a slot, SIDE pages an item of a size. */
static Buffer
try_block(Relation index, BlockNumber block, RuhnswPageKind kind, const RuhnswGeometry *geometry,
          Size size, bool wait)
{
    Buffer buffer = ReadBuffer(index, block);
    Page page = BufferGetPage(buffer);
    bool fits;

    if (wait)
        LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    else if (!ConditionalLockBuffer(buffer)) {
        ReleaseBuffer(buffer);
        return InvalidBuffer;
    }
    if (PageIsNew(page))
        return buffer;
    ruhnsw_check_frame(index, page, block);
    fits = ruhnsw_trailer(page)->kind == kind &&
           (kind == RUHNSW_PAGE_NODES ? ruhnsw_free_slot(geometry, page) != InvalidOffsetNumber
                                      : ruhnsw_page_fits(page, size));
    if (fits)
        return buffer;
    UnlockReleaseBuffer(buffer);
    return InvalidBuffer;
}

static Buffer
try_free_space_map(Relation index, const RuhnswGeometry *geometry)
{
    BlockNumber block = GetPageWithFreeSpace(index, ROOM_NEEDED);

    for (int i = 0; i < FREE_SPACE_ATTEMPTS; i++) {
        Buffer buffer;

        if (block == InvalidBlockNumber || block == RUHNSW_META_BLOCK ||
            block >= RelationGetNumberOfBlocks(index))
            return InvalidBuffer;
        buffer = try_block(index, block, RUHNSW_PAGE_NODES, geometry, 0, true);
        if (BufferIsValid(buffer))
            return buffer;
        block = RecordAndGetPageWithFreeSpace(index, block, 0, ROOM_NEEDED);
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

/* An exclusively locked NODES page, or one of zeros, with an empty slot. */
static Buffer
find_nodes_page(Relation index, const RuhnswGeometry *geometry)
{
    BlockNumber block = RelationGetTargetBlock(index);
    Buffer buffer = InvalidBuffer;

    if (block != InvalidBlockNumber && block < RelationGetNumberOfBlocks(index))
        buffer = try_block(index, block, RUHNSW_PAGE_NODES, geometry, 0, true);
    if (!BufferIsValid(buffer))
        buffer = try_free_space_map(index, geometry);
    if (!BufferIsValid(buffer)) {
        block = RelationGetNumberOfBlocks(index) - 1;
        if (block != RUHNSW_META_BLOCK)
            buffer = try_block(index, block, RUHNSW_PAGE_NODES, geometry, 0, true);
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

    if (block != RUHNSW_META_BLOCK && block != node_block)
        buffer = try_block(index, block, RUHNSW_PAGE_SIDE, &writer->graph.geometry, size, false);
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

/* Links name nodes in 32 bits. */
static void
check_number(const RuhnswGeometry *geometry, Relation index, uint64 ref)
{
    if (ruhnsw_ref_number(geometry, ref) >= RUHNSW_NO_LINK)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("index \"%s\" cannot have more than %u nodes",
                               RelationGetRelationName(index), RUHNSW_NO_LINK),
                        errhint("Partition the table.")));
}

/* Writes writer->node, and writer->links if it has upper levels, completing the references between
 * them. */
static uint64
place_node(RuhnswWriter *writer)
{
    Relation index = writer->graph.index;
    const RuhnswGeometry *geometry = &writer->graph.geometry;
    RuhnswNode *node = writer->node;
    RuhnswLinks *links = writer->links;
    bool upper = node->level > 0;
    Size links_size = upper ? ruhnsw_links_size(geometry->m, node->level) : 0;
    Buffer node_buffer = find_nodes_page(index, geometry);
    BlockNumber node_block = BufferGetBlockNumber(node_buffer);
    Buffer links_buffer = upper ? find_side_page(writer, links_size, node_block) : InvalidBuffer;
    BlockNumber links_block = upper ? BufferGetBlockNumber(links_buffer) : InvalidBlockNumber;
    Page page = BufferGetPage(node_buffer);
    OffsetNumber slot = PageIsNew(page) ? 1 : ruhnsw_free_slot(geometry, page);
    uint64 ref = ruhnsw_ref(node_block, slot);
    RuhnswChange change;

    check_number(geometry, index, ref);
    node->tag = ruhnsw_tag(geometry, ref);
    ruhnsw_change_begin(&change, index, writer->building);
    page = change_page(&change, node_buffer, RUHNSW_PAGE_NODES);
    if (upper) {
        Page side = change_page(&change, links_buffer, RUHNSW_PAGE_SIDE);
        OffsetNumber offset = ruhnsw_next_offset(side);

        links->owner = ref;
        ruhnsw_tail(geometry, node)->upper = ruhnsw_position(links_block, offset);
        ruhnsw_put_item(index, side, offset, links, links_size);
    }
    memcpy(ruhnsw_use_slot(geometry, page, slot), node, geometry->slot_size);
    ruhnsw_change_commit(&change);
    if (upper)
        UnlockReleaseBuffer(links_buffer);
    UnlockReleaseBuffer(node_buffer);
    if (upper)
        remember_side_page(writer, links_block);
    RelationSetTargetBlock(index, node_block);
    return ref;
}

/* ---- one row ---- */

typedef struct Addition {
    const float *vector;
    ItemPointer tid;
    bool joined;  /* a node with this very vector has taken the row */
    uint32 found; /* live nodes on layer 0 */
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
    const RuhnswGeometry *geometry = &writer->graph.geometry;
    Buffer side_buffer =
        find_side_page(writer, sizeof(RuhnswRows), BufferGetBlockNumber(node_buffer));
    BlockNumber block = BufferGetBlockNumber(side_buffer);
    RuhnswRows rows = {.type = RUHNSW_TUPLE_ROWS, .count = 1, .owner = ref};
    RuhnswChange change;
    RuhnswNode *node;
    Page page;
    OffsetNumber offset;

    ruhnsw_change_begin(&change, index, writer->building);
    node = ruhnsw_get_node(index, geometry, ruhnsw_change_page(&change, node_buffer), ref);
    page = change_page(&change, side_buffer, RUHNSW_PAGE_SIDE);
    offset = ruhnsw_next_offset(page);
    rows.next = ruhnsw_tail(geometry, node)->more;
    rows.tids[0] = *tid;
    ruhnsw_put_item(index, page, offset, &rows, sizeof(rows));
    ruhnsw_tail(geometry, node)->more = ruhnsw_position(block, offset);
    ruhnsw_change_commit(&change);
    UnlockReleaseBuffer(side_buffer);
    return block;
}

/* Adds the row to a node with the same vector if the node lives. */
static bool
join_node(RuhnswWriter *writer, uint64 ref, ItemPointer tid)
{
    Relation index = writer->graph.index;
    const RuhnswGeometry *geometry = &writer->graph.geometry;
    Buffer buffer = ruhnsw_read(index, ruhnsw_ref_block(ref), BUFFER_LOCK_EXCLUSIVE);
    RuhnswNode *node = ruhnsw_get_node(index, geometry, BufferGetPage(buffer), ref);
    BlockNumber side_block = InvalidBlockNumber;

    if (node == NULL || (node->flags & RUHNSW_NODE_DEAD)) {
        UnlockReleaseBuffer(buffer);
        return false;
    }
    if (node->tid_count < RUHNSW_NODE_TIDS) {
        RuhnswChange change;

        ruhnsw_change_begin(&change, index, writer->building);
        node = ruhnsw_get_node(index, geometry, ruhnsw_change_page(&change, buffer), ref);
        ruhnsw_tail(geometry, node)->tids[node->tid_count++] = *tid;
        ruhnsw_change_commit(&change);
    } else if (!join_chain(writer, ref, ruhnsw_tail(geometry, node)->more, tid)) {
        side_block = lengthen_chain(writer, buffer, ref, tid);
    }
    UnlockReleaseBuffer(buffer);
    if (side_block != InvalidBlockNumber)
        remember_side_page(writer, side_block);
    return true;
}

/* Joins one of the candidates if it has the new vector's code. */
static void
join_equal(RuhnswWriter *writer, Addition *addition, int count)
{
    Size size = sizeof(float) * writer->graph.meta.dim;

    ruhnsw_decode(&writer->graph.geometry, writer->node, writer->anchor);
    for (int i = 0; i < count && !addition->joined; i++)
        if (memcmp(writer->candidates[i].vector, writer->anchor, size) == 0)
            addition->joined = join_node(writer, writer->candidates[i].node, addition->tid);
}

/* Chooses the new node's links at one level from what was found. */
static void
use_found(RuhnswWriter *writer, int level, uint32 found, void *arg)
{
    Addition *addition = arg;
    const RuhnswGeometry *geometry = &writer->graph.geometry;
    uint32 *links = level > 0 ? writer->links->links + ruhnsw_level_start(geometry->m, level)
                              : ruhnsw_base_links(geometry, writer->node);
    int count = 0;

    for (uint32 i = 0; i < found; i++)
        ruhnsw_add_candidate(writer, addition->vector, RUHNSW_NO_REF, writer->found[i].node,
                             &count);
    if (level == 0) {
        addition->found = found;
        join_equal(writer, addition, count);
    }
    if (addition->joined)
        return;
    count = rv_hnsw_select(writer->graph.metric, writer->graph.unit, geometry->dim,
                           writer->candidates, count, ruhnsw_level_limit(geometry->m, level), NULL);
    if (level > 0)
        writer->links->counts[level] = count;
    else
        writer->node->link_count = count;
    for (int i = 0; i < count; i++)
        links[i] = (uint32)ruhnsw_ref_number(geometry, writer->candidates[i].node);
}

/* Lets the chosen neighbours of a level link back to the new node; returns how many did. */
static int
link_back_level(RuhnswWriter *writer, uint64 ref, int level)
{
    const RuhnswGeometry *geometry = &writer->graph.geometry;
    int count = level > 0 ? writer->links->counts[level] : writer->node->link_count;
    const uint32 *links = level > 0 ? writer->links->links + ruhnsw_level_start(geometry->m, level)
                                    : ruhnsw_base_links(geometry, writer->node);
    int accepted = 0;

    for (int i = 0; i < count; i++)
        if (ruhnsw_link(writer, ruhnsw_number_ref(geometry, links[i]), ref, level, false))
            accepted++;
    return accepted;
}

/* Lets the chosen neighbours link back to the new node, on layer 0 first: whoever finds it on an
 * upper layer may become its neighbour, and must not depend on a node to which layer 0 has no way,
 * perhaps for good if this insert ends here. */
static void
link_back(RuhnswWriter *writer, uint64 ref, int top)
{
    for (int level = 0; level <= top; level++) {
        if (link_back_level(writer, ref, level) == 0 && level == 0)
            ruhnsw_attach(writer, ref);
        RUV_PAUSE("ruhnsw-insert-linked");
    }
    ruhnsw_attach_dropped(writer);
}

/* Begins the slot and the links tuple of a new node, and raises the meta page's bounds for it. */
static void
make_node(RuhnswWriter *writer, const float *vector, ItemPointer tid, int level)
{
    const RuhnswGeometry *geometry = &writer->graph.geometry;
    RuhnswMetaData *meta = &writer->graph.meta;
    RuhnswNode *node = writer->node;
    float norm = nextafterf(rv_norm(vector, geometry->dim), INFINITY);
    float error;

    memset(node, 0, geometry->slot_size);
    node->flags = RUHNSW_NODE_USED;
    node->level = level;
    node->tid_count = 1;
    ruhnsw_encode(geometry, vector, node);
    memset(ruhnsw_learned_links(geometry, node), 0xFF, sizeof(uint32) * geometry->learned);
    ruhnsw_tail(geometry, node)->tids[0] = *tid;
    if (level > 0) {
        memset(writer->links, 0, ruhnsw_links_size(geometry->m, level));
        writer->links->type = RUHNSW_TUPLE_LINKS;
        writer->links->level = level;
        writer->links->m = geometry->m;
    }
    error = ruhnsw_code_error(geometry, vector, node);
    if (norm > meta->max_norm || error > meta->max_error) {
        meta->max_norm = Max(meta->max_norm, norm);
        meta->max_error = Max(meta->max_error, error);
        ruhnsw_raise_bounds(writer->graph.index, meta->max_norm, meta->max_error, writer->building);
    }
}

/* Finds the new node's neighbours, again when all of them died before they were looked at. */
static void
find_neighbours(RuhnswWriter *writer, int top, Addition *addition)
{
    do {
        CHECK_FOR_INTERRUPTS();
        addition->found = 0;
        ruhnsw_search_levels(writer, addition->vector, top, use_found, addition);
    } while (!addition->joined && writer->node->link_count == 0 && addition->found > 0);
}

bool
ruhnsw_add(RuhnswWriter *writer, const float *vector, ItemPointer tid, int level, bool alone)
{
    RuhnswMetaData *meta = &writer->graph.meta;
    Addition addition = {vector, tid, false, 0};
    int top = Min(level, meta->entry_level);
    bool first = top < 0;
    const char *problem = NULL;
    uint64 ref;

    make_node(writer, vector, tid, level);
    if (!first)
        find_neighbours(writer, top, &addition);
    if (addition.joined)
        return true;
    first = first || writer->node->link_count == 0;
    if (first && !alone)
        return false;

    if (level > 0)
        problem = ruhnsw_check_links(writer->links, ruhnsw_links_size(meta->m, level), meta->m);
    if (problem)
        elog(ERROR, "%s", problem);

    RUV_PAUSE("ruhnsw-insert-searched");
    ref = place_node(writer);
    RUV_PAUSE("ruhnsw-insert-placed");
    if (!first)
        link_back(writer, ref, top);
    if (first || level > meta->entry_level) {
        RUV_PAUSE("ruhnsw-insert-promote");
        ruhnsw_set_entry(writer->graph.index, ref, level, first, writer->building);
        meta->entry = ref;
        if (first)
            meta->root = ref;
        meta->entry_level = level;
    }
    return true;
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
    int level;

    if (isnull[0])
        return false;
    writer = get_writer(index, info);
    meta = &writer->graph.meta;
    if (!ruv_index_vector(writer->graph.metric, meta->dim, DatumGetRuVector(values[0]),
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
    if (!ruhnsw_add(writer, writer->vector, tid, level, mode == ExclusiveLock)) {
        UnlockPage(index, RUHNSW_META_BLOCK, mode);
        mode = ExclusiveLock;
        LockPage(index, RUHNSW_META_BLOCK, mode);
        ruhnsw_graph_refresh(&writer->graph);
        (void)ruhnsw_add(writer, writer->vector, tid, level, true);
    }
    UnlockPage(index, RUHNSW_META_BLOCK, mode);
    return false;
}
