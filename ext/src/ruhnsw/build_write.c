/*
 * build_write.c - writing a graph from memory to pages.
 *
 * Links name nodes by number, and a node's number follows from its place, so every node must have
 * its place before the first page is written. The same packer therefore runs twice: once to give
 * references, once to write. Pages are filled one after the other, at most one of each kind being
 * open, and every page is written once.
 *
 * Nodes are written so that neighbours share pages (order_by_pages).
 */
#include "ruhnsw/build.h"

#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"

/* Where the next item goes. */
typedef struct Packer {
    const RuhnswGeometry *geometry;
    BlockNumber next_block;
    BlockNumber node_block;
    BlockNumber side_block;
    Size side_room;
    uint32 slots; /* used on node_block */
    OffsetNumber side_items;
} Packer;

typedef struct Place {
    ItemPointerData node;
    ItemPointerData links; /* for nodes of a level above 0 */
} Place;

typedef struct PageWriter {
    Relation index;
    RuhnswGeometry geometry;
    Packer packer;
    Buffer nodes;
    Buffer side;
    float max_error;
    RuhnswLinks *links; /* workspace, a page */
} PageWriter;

static void
packer_init(Packer *packer, const RuhnswGeometry *geometry)
{
    memset(packer, 0, sizeof(*packer));
    packer->geometry = geometry;
    packer->next_block = RUHNSW_FIRST_BLOCK;
    packer->node_block = packer->side_block = InvalidBlockNumber;
    packer->slots = geometry->slots;
}

/* The place of one item on a SIDE page. */
static void
pack_aside(Packer *packer, Size size, ItemPointer where)
{
    Size need = MAXALIGN(size) + sizeof(ItemIdData);

    if (packer->side_room < need) {
        packer->side_block = packer->next_block++;
        packer->side_room = RUHNSW_PAGE_CAPACITY;
        packer->side_items = 0;
    }
    packer->side_room -= need;
    ItemPointerSet(where, packer->side_block, ++packer->side_items);
}

static Place
pack(Packer *packer, int level)
{
    Place place;

    if (packer->slots == packer->geometry->slots) {
        packer->node_block = packer->next_block++;
        packer->slots = 0;
    }
    ItemPointerSet(&place.node, packer->node_block, ++packer->slots);
    if (level > 0)
        pack_aside(packer, ruhnsw_links_size(packer->geometry->m, level), &place.links);
    return place;
}

/* Rows tuples that a node needs. */
static uint32
chain_length(const RuhnswNodeRows *rows)
{
    return (rows->more + RUHNSW_CHAIN_TIDS - 1) / RUHNSW_CHAIN_TIDS;
}

static int
build_level(const RuhnswBuild *build, rv_node node)
{
    return Min(rv_hnsw_level(build->graph, node), ruhnsw_max_level(build->meta.m));
}

static void
close_page(Buffer *buffer)
{
    if (!BufferIsValid(*buffer))
        return;
    MarkBufferDirty(*buffer);
    UnlockReleaseBuffer(*buffer);
    *buffer = InvalidBuffer;
}

/* Makes the block the open one of its kind and returns its page. */
static Page
open_page(PageWriter *writer, Buffer *buffer, RuhnswPageKind kind, BlockNumber block)
{
    if (!BufferIsValid(*buffer) || BufferGetBlockNumber(*buffer) != block) {
        close_page(buffer);
        CHECK_FOR_INTERRUPTS();
        *buffer = ruhnsw_extend(writer->index);
        if (BufferGetBlockNumber(*buffer) != block)
            elog(ERROR, "index \"%s\" was extended by someone else during its build",
                 RelationGetRelationName(writer->index));
        ruhnsw_page_init(BufferGetPage(*buffer), kind);
    }
    return BufferGetPage(*buffer);
}

static void
write_side_item(PageWriter *writer, ItemPointer where, const void *item, Size size)
{
    Page page =
        open_page(writer, &writer->side, RUHNSW_PAGE_SIDE, ItemPointerGetBlockNumber(where));

    ruhnsw_put_item(writer->index, page, ItemPointerGetOffsetNumber(where), item, size);
}

/* Puts the numbers of a level's links into numbers; returns how many. */
static int
number_links(RuhnswBuild *build, const PageWriter *writer, rv_node node, int level,
             const uint64 *refs, uint32 *numbers)
{
    uint32 count;
    const uint32 *found = rv_hnsw_links(build->graph, node, level, &count);

    if (count > (uint32)ruhnsw_level_limit(writer->geometry.m, level))
        elog(ERROR, "a node of the graph in memory has %u links at level %d", count, level);
    for (uint32 i = 0; i < count; i++)
        numbers[i] = (uint32)ruhnsw_ref_number(&writer->geometry, refs[found[i]]);
    return (int)count;
}

static void
write_upper_links(RuhnswBuild *build, PageWriter *writer, rv_node node, int level,
                  const uint64 *refs, ItemPointer where)
{
    int m = writer->geometry.m;
    RuhnswLinks *links = writer->links;
    const char *problem;

    memset(links, 0, ruhnsw_links_size(m, level));
    links->type = RUHNSW_TUPLE_LINKS;
    links->level = level;
    links->m = m;
    links->owner = refs[node];
    for (int l = 1; l <= level; l++)
        links->counts[l] =
            number_links(build, writer, node, l, refs, links->links + ruhnsw_level_start(m, l));
    problem = ruhnsw_check_links(links, ruhnsw_links_size(m, level), m);
    if (problem)
        elog(ERROR, "%s", problem);
    write_side_item(writer, where, links, ruhnsw_links_size(m, level));
}

static void
write_slot(RuhnswBuild *build, PageWriter *writer, rv_node number, int level, Place *place,
           uint64 more, const uint64 *refs)
{
    const RuhnswGeometry *geometry = &writer->geometry;
    RuhnswNodeRows *rows = &build->nodes[number];
    const float *vector = rv_hnsw_vector(build->graph, number);
    Page page = open_page(writer, &writer->nodes, RUHNSW_PAGE_NODES,
                          ItemPointerGetBlockNumber(&place->node));
    RuhnswNode *node = ruhnsw_use_slot(geometry, page, ItemPointerGetOffsetNumber(&place->node));
    RuhnswTail *tail = ruhnsw_tail(geometry, node);
    const char *problem;

    node->flags = RUHNSW_NODE_USED;
    node->tag = ruhnsw_tag(geometry, refs[number]);
    node->level = level;
    node->tid_count = rows->count;
    ruhnsw_encode(geometry, vector, node);
    writer->max_error = Max(writer->max_error, ruhnsw_code_error(geometry, vector, node));
    node->link_count =
        number_links(build, writer, number, 0, refs, ruhnsw_base_links(geometry, node));
    memset(ruhnsw_learned_links(geometry, node), 0xFF, sizeof(uint32) * geometry->learned);
    tail->more = more;
    if (level > 0)
        tail->upper = ruhnsw_position(ItemPointerGetBlockNumber(&place->links),
                                      ItemPointerGetOffsetNumber(&place->links));
    memcpy(tail->tids, rows->tids, sizeof(ItemPointerData) * rows->count);
    problem = ruhnsw_check_node(geometry, node);
    if (problem)
        elog(ERROR, "%s", problem);
}

/* Writes the rows tuples of a node to their places. */
static void
write_chain(RuhnswBuild *build, PageWriter *writer, const RuhnswNodeRows *node_rows, uint64 owner,
            ItemPointerData *places)
{
    uint32 length = chain_length(node_rows);
    uint32 row = node_rows->first_more;

    for (uint32 i = 0; i < length; i++) {
        RuhnswRows rows = {.type = RUHNSW_TUPLE_ROWS, .owner = owner};

        if (i + 1 < length)
            rows.next = ruhnsw_position(ItemPointerGetBlockNumber(&places[i + 1]),
                                        ItemPointerGetOffsetNumber(&places[i + 1]));
        for (; row != 0 && rows.count < RUHNSW_CHAIN_TIDS; row = build->more[row - 1].next)
            rows.tids[rows.count++] = build->more[row - 1].tid;
        write_side_item(writer, &places[i], &rows, sizeof(rows));
    }
}

static void
write_node(RuhnswBuild *build, PageWriter *writer, rv_node number, const uint64 *refs)
{
    int level = build_level(build, number);
    Place place = pack(&writer->packer, level);
    uint32 length = chain_length(&build->nodes[number]);
    ItemPointerData *chain =
        MemoryContextAllocHuge(CurrentMemoryContext, sizeof(ItemPointerData) * (length + 1));
    uint64 more = 0;

    for (uint32 i = 0; i < length; i++)
        pack_aside(&writer->packer, sizeof(RuhnswRows), &chain[i]);
    if (length > 0)
        more = ruhnsw_position(ItemPointerGetBlockNumber(&chain[0]),
                               ItemPointerGetOffsetNumber(&chain[0]));
    write_slot(build, writer, number, level, &place, more, refs);
    if (level > 0)
        write_upper_links(build, writer, number, level, refs, &place.links);
    write_chain(build, writer, &build->nodes[number], refs[number], chain);
    pfree(chain);
}

/* The order in which nodes are written: what is placed so far, and what waits for a page. */
typedef struct Order {
    const RuhnswBuild *build;
    uint32 *nodes; /* placed ones */
    uint64 count;
    bool *placed;
    uint32 *waiting; /* neighbours of placed nodes, each once; some are placed by now */
    uint64 waiting_head;
    uint64 waiting_count;
    bool *awaited;
} Order;

static void
place(Order *order, uint32 node)
{
    order->placed[node] = true;
    order->nodes[order->count++] = node;
}

/* Fills a page with the seed and the nearest neighbours, not yet placed, of those already on it;
 * further neighbours wait. */
static void
fill_page(Order *order, uint32 seed, uint32 slots)
{
    uint64 end = order->count + slots;
    uint64 first = order->count;

    place(order, seed);
    for (uint64 at = first; at < order->count; at++) {
        uint32 degree;
        const uint32 *links = rv_hnsw_links(order->build->graph, order->nodes[at], 0, &degree);

        for (uint32 i = 0; i < degree; i++) {
            if (order->placed[links[i]])
                continue;
            if (order->count < end) {
                place(order, links[i]);
            } else if (!order->awaited[links[i]]) {
                order->awaited[links[i]] = true;
                order->waiting[order->waiting_count++] = links[i];
            }
        }
    }
}

/*
 * Page by page from the entry point: a search that expands a node wants its neighbours, and finds
 * the more of them on one page the nearer the nodes of a page are to each other. Pages follow each
 * other breadth first; nodes that are not reached come last.
 */
static void
order_by_pages(const RuhnswBuild *build, uint32 slots, uint32 *nodes)
{
    uint64 n = rv_hnsw_count(build->graph);
    Size size = Max(n, 1);
    Order order = {.build = build, .nodes = nodes};
    uint64 next = 0;
    rv_node entry;

    order.placed =
        MemoryContextAllocExtended(CurrentMemoryContext, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    order.awaited =
        MemoryContextAllocExtended(CurrentMemoryContext, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    order.waiting = MemoryContextAllocHuge(CurrentMemoryContext, size * sizeof(uint32));
    if (rv_hnsw_entry(build->graph, &entry) >= 0)
        fill_page(&order, (uint32)entry, slots);
    while (order.count < n) {
        uint32 seed;

        if (order.waiting_head < order.waiting_count)
            seed = order.waiting[order.waiting_head++];
        else
            seed = (uint32)next++;
        if (!order.placed[seed])
            fill_page(&order, seed, slots);
    }
    pfree(order.placed);
    pfree(order.awaited);
    pfree(order.waiting);
}

/* Gives every node its reference. */
static void
place_nodes(RuhnswBuild *build, const RuhnswGeometry *geometry, const uint32 *order, uint64 *refs)
{
    ItemPointerData ignored;
    Packer packer;

    packer_init(&packer, geometry);
    for (uint64 i = 0; i < rv_hnsw_count(build->graph); i++) {
        Place place = pack(&packer, build_level(build, order[i]));

        for (uint32 left = chain_length(&build->nodes[order[i]]); left > 0; left--)
            pack_aside(&packer, sizeof(RuhnswRows), &ignored);
        refs[order[i]] = ruhnsw_ref(ItemPointerGetBlockNumber(&place.node),
                                    ItemPointerGetOffsetNumber(&place.node));
        if (ruhnsw_ref_number(geometry, refs[order[i]]) >= RUHNSW_NO_LINK)
            ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                            errmsg("index \"%s\" cannot have more than %u nodes",
                                   RelationGetRelationName(build->index), RUHNSW_NO_LINK),
                            errhint("Partition the table.")));
    }
}

void
ruhnsw_write_graph(RuhnswBuild *build)
{
    uint64 n = rv_hnsw_count(build->graph);
    uint32 *order = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(uint32));
    uint64 *refs = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(uint64));
    PageWriter writer = {build->index, .nodes = InvalidBuffer, .side = InvalidBuffer};
    rv_node entry;

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_WRITE);
    ruhnsw_geometry(&build->meta, &writer.geometry);
    order_by_pages(build, writer.geometry.slots, order);
    place_nodes(build, &writer.geometry, order, refs);
    writer.links = palloc(BLCKSZ);
    packer_init(&writer.packer, &writer.geometry);
    for (uint64 i = 0; i < n; i++)
        write_node(build, &writer, order[i], refs);
    close_page(&writer.nodes);
    close_page(&writer.side);
    if (writer.packer.side_block != InvalidBlockNumber)
        ruhnsw_set_side_block(build->index, writer.packer.side_block, true);
    if (rv_hnsw_entry(build->graph, &entry) >= 0)
        ruhnsw_set_entry(build->index, refs[entry], build_level(build, entry), true, true);
    ruhnsw_raise_bounds(build->index, build->meta.max_norm, writer.max_error, true);
    pfree(order);
    pfree(refs);
    pfree(writer.links);
}
