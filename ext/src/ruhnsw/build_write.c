/*
 * build_write.c - writing a graph from memory to pages.
 *
 * Links name pages, so every node must have its place before the first page is written. The same
 * packer therefore runs twice: once to give references, once to write. Pages are filled one after
 * the other, at most one of each kind being open, and every page is written once.
 *
 * Nodes are written in breadth-first order of layer 0, so that neighbours tend to share pages.
 */
#include "ruhnsw/build.h"

#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"

/* Where the next item goes. */
typedef struct Packer {
    int dim;
    int m;
    BlockNumber next_block;
    BlockNumber node_block;
    BlockNumber side_block;
    Size node_room;
    Size side_room;
    OffsetNumber node_items;
    OffsetNumber side_items;
} Packer;

typedef struct Place {
    ItemPointerData node;
    ItemPointerData links;
} Place;

typedef struct PageWriter {
    Relation index;
    Packer packer;
    Buffer nodes;
    Buffer side;
    RuhnswNode *node; /* workspace, a page each */
    RuhnswLinks *links;
} PageWriter;

static void
packer_init(Packer *packer, int dim, int m)
{
    memset(packer, 0, sizeof(*packer));
    packer->dim = dim;
    packer->m = m;
    packer->next_block = RUHNSW_FIRST_BLOCK;
    packer->node_block = packer->side_block = InvalidBlockNumber;
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
    Size node_need = ruhnsw_node_size(packer->dim) + sizeof(ItemIdData);
    Size links_need = ruhnsw_links_size(packer->m, level) + sizeof(ItemIdData);
    bool apart = ruhnsw_links_apart(packer->dim, packer->m, level);
    Place place;

    if (packer->node_room < node_need + (apart ? 0 : links_need)) {
        packer->node_block = packer->next_block++;
        packer->node_room = RUHNSW_PAGE_CAPACITY;
        packer->node_items = 0;
    }
    packer->node_room -= node_need;
    ItemPointerSet(&place.node, packer->node_block, ++packer->node_items);
    if (apart) {
        pack_aside(packer, ruhnsw_links_size(packer->m, level), &place.links);
    } else {
        packer->node_room -= links_need;
        ItemPointerSet(&place.links, packer->node_block, ++packer->node_items);
    }
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

static void
write_item(PageWriter *writer, Buffer *buffer, RuhnswPageKind kind, ItemPointer where,
           const void *item, Size size)
{
    BlockNumber block = ItemPointerGetBlockNumber(where);

    if (!BufferIsValid(*buffer) || BufferGetBlockNumber(*buffer) != block) {
        close_page(buffer);
        CHECK_FOR_INTERRUPTS();
        *buffer = ruhnsw_extend(writer->index);
        if (BufferGetBlockNumber(*buffer) != block)
            elog(ERROR, "index \"%s\" was extended by someone else during its build",
                 RelationGetRelationName(writer->index));
        ruhnsw_page_init(BufferGetPage(*buffer), kind);
    }
    ruhnsw_put_item(writer->index, BufferGetPage(*buffer), ItemPointerGetOffsetNumber(where), item,
                    size);
}

static void
make_links(RuhnswBuild *build, rv_node number, int level, const uint64 *refs, RuhnswLinks *links)
{
    int m = build->meta.m;

    memset(links, 0, ruhnsw_links_size(m, level));
    links->type = RUHNSW_TUPLE_LINKS;
    links->level = level;
    links->m = m;
    links->owner = refs[number];
    for (int l = 0; l <= level; l++) {
        uint32 count;
        const uint32 *found = rv_hnsw_links(build->graph, number, l, &count);

        if (count > (uint32)ruhnsw_level_limit(m, l))
            elog(ERROR, "a node of the graph in memory has %u links at level %d", count, l);
        links->counts[l] = count;
        for (uint32 i = 0; i < count; i++)
            links->links[ruhnsw_level_start(m, l) + i] = refs[found[i]];
    }
}

static void
make_node(RuhnswBuild *build, rv_node number, int level, Place place, uint64 more, RuhnswNode *node)
{
    RuhnswNodeRows *rows = &build->nodes[number];

    memset(node, 0, offsetof(RuhnswNode, vector));
    node->type = RUHNSW_TUPLE_NODE;
    node->level = level;
    node->tid_count = rows->count;
    node->links = place.links;
    node->dim = build->meta.dim;
    node->more = more;
    memcpy(node->tids, rows->tids, sizeof(ItemPointerData) * rows->count);
    memcpy(node->vector, rv_hnsw_vector(build->graph, number), sizeof(float) * build->meta.dim);
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
        write_item(writer, &writer->side, RUHNSW_PAGE_SIDE, &places[i], &rows, sizeof(rows));
    }
}

static void
check_made(const RuhnswBuild *build, const PageWriter *writer, int level)
{
    const char *problem = ruhnsw_check_node(writer->node, ruhnsw_node_size(build->meta.dim),
                                            build->meta.dim, build->meta.m);

    if (problem == NULL)
        problem = ruhnsw_check_links(writer->links, ruhnsw_links_size(build->meta.m, level),
                                     build->meta.m);
    if (problem)
        elog(ERROR, "%s", problem);
}

static void
write_node(RuhnswBuild *build, PageWriter *writer, rv_node number, const uint64 *refs)
{
    int level = build_level(build, number);
    Place place = pack(&writer->packer, level);
    uint32 length = chain_length(&build->nodes[number]);
    ItemPointerData *chain =
        MemoryContextAllocHuge(CurrentMemoryContext, sizeof(ItemPointerData) * (length + 1));
    bool apart = ItemPointerGetBlockNumber(&place.node) != ItemPointerGetBlockNumber(&place.links);
    uint64 more = 0;

    for (uint32 i = 0; i < length; i++)
        pack_aside(&writer->packer, sizeof(RuhnswRows), &chain[i]);
    if (length > 0)
        more = ruhnsw_position(ItemPointerGetBlockNumber(&chain[0]),
                               ItemPointerGetOffsetNumber(&chain[0]));
    make_node(build, number, level, place, more, writer->node);
    make_links(build, number, level, refs, writer->links);
    check_made(build, writer, level);
    write_item(writer, &writer->nodes, RUHNSW_PAGE_NODES, &place.node, writer->node,
               ruhnsw_node_size(build->meta.dim));
    write_item(writer, apart ? &writer->side : &writer->nodes,
               apart ? RUHNSW_PAGE_SIDE : RUHNSW_PAGE_NODES, &place.links, writer->links,
               ruhnsw_links_size(build->meta.m, level));
    write_chain(build, writer, &build->nodes[number], refs[number], chain);
    pfree(chain);
}

/* Breadth first over layer 0 from the entry point; nodes that are not reached come last. */
static void
breadth_first(const RuhnswBuild *build, uint32 *order)
{
    uint64 n = rv_hnsw_count(build->graph);
    bool *placed = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1));
    uint64 count = 0;
    rv_node entry;

    memset(placed, 0, n);
    if (rv_hnsw_entry(build->graph, &entry) >= 0) {
        order[count++] = (uint32)entry;
        placed[entry] = true;
    }
    for (uint64 head = 0; head < count; head++) {
        uint32 degree;
        const uint32 *links = rv_hnsw_links(build->graph, order[head], 0, &degree);

        for (uint32 i = 0; i < degree; i++) {
            if (placed[links[i]])
                continue;
            placed[links[i]] = true;
            order[count++] = links[i];
        }
    }
    for (uint64 i = 0; i < n; i++)
        if (!placed[i])
            order[count++] = (uint32)i;
    pfree(placed);
}

/* Gives every node its reference. */
static void
place_nodes(RuhnswBuild *build, const uint32 *order, uint64 *refs)
{
    ItemPointerData ignored;
    Packer packer;

    packer_init(&packer, build->meta.dim, build->meta.m);
    for (uint64 i = 0; i < rv_hnsw_count(build->graph); i++) {
        Place place = pack(&packer, build_level(build, order[i]));

        for (uint32 left = chain_length(&build->nodes[order[i]]); left > 0; left--)
            pack_aside(&packer, sizeof(RuhnswRows), &ignored);
        refs[order[i]] = ruhnsw_ref(0, ItemPointerGetBlockNumber(&place.node),
                                    ItemPointerGetOffsetNumber(&place.node));
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
    breadth_first(build, order);
    place_nodes(build, order, refs);
    writer.node = palloc(BLCKSZ);
    writer.links = palloc(BLCKSZ);
    packer_init(&writer.packer, build->meta.dim, build->meta.m);
    for (uint64 i = 0; i < n; i++)
        write_node(build, &writer, order[i], refs);
    close_page(&writer.nodes);
    close_page(&writer.side);
    if (writer.packer.side_block != InvalidBlockNumber)
        ruhnsw_set_side_block(build->index, writer.packer.side_block, true);
    if (rv_hnsw_entry(build->graph, &entry) >= 0)
        ruhnsw_set_entry(build->index, refs[entry], build_level(build, entry), true);
    ruhnsw_raise_max_norm(build->index, build->meta.max_norm, true);
    pfree(order);
    pfree(refs);
    pfree(writer.node);
    pfree(writer.links);
}
