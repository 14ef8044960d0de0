/*
 * reach.c - which nodes can be reached from the root over layer 0, and linking in those that
 * cannot.
 *
 * Every search starts on layer 0 from the root as well (scan.c), so reachability in this sense
 * means that a search which runs on long enough finds the row. The root is a node like any other;
 * it is not the entry point because that moves whenever a node of a higher level comes, and from
 * there not everything need be within reach. The root moves when vacuum takes it out, and vacuum
 * connects what cannot be reached from the new one.
 *
 * For vacuum dead nodes are no way: it links in whatever only they lead to before it takes the
 * first link to one of them away, so that nobody is cut off at any moment, nor by a crash. For the
 * verifier they are, as for searches.
 *
 * Two bits per slot of the index: reached, and expanded. The file is swept in page order; each
 * sweep expands whatever was reached and not yet expanded, and what it reaches on later pages is
 * still expanded in the same sweep. A graph of this kind needs about as many sweeps as it is wide,
 * a handful. Sweeps read sequentially and need 2 bits per possible slot, where a queue would read
 * at random and need 8 bytes per node. What a node that was linked in leads to is followed by a
 * queue all the same: it is mostly nothing, and a sweep for each would look at the whole map.
 *
 * Concurrent inserts do no harm: nodes that appear meanwhile may be taken for unreachable, and then
 * get a link more than they need.
 */
#include "ruhnsw/ruhnsw.h"

#include "miscadmin.h"
#include "pause.h"
#include "utils/memutils.h"

/* Rounds of looking for unreachable nodes and linking them in. */
#define CONNECT_ROUNDS 5
/* Times that a node is tried to be linked in again while others change the same lists. */
#define RECONNECT_ATTEMPTS 8

struct RuhnswReach {
    RuhnswGeometry geometry;
    uint64 root;
    bool through_dead; /* dead nodes are walked through */
    BlockNumber blocks;
    uint32 stride; /* bytes per block in each of the two maps */
    uint8 *reached;
    uint8 *expanded;
    bool changed;
    bool queueing; /* what is reached goes to the queue as well */
    uint64 *queue;
    Size queue_length;
    Size queue_room;
};

static uint8 *
slot(const RuhnswReach *reach, uint8 *map, BlockNumber block, OffsetNumber offset, uint8 *bit)
{
    if (block >= reach->blocks || offset >= reach->stride * 8)
        return NULL;
    *bit = 1 << (offset % 8);
    return map + (Size)block * reach->stride + offset / 8;
}

static void
enqueue(RuhnswReach *reach, uint64 ref)
{
    if (reach->queue_length == reach->queue_room) {
        reach->queue_room *= 2;
        reach->queue = repalloc_huge(reach->queue, sizeof(uint64) * reach->queue_room);
    }
    reach->queue[reach->queue_length++] = ref;
}

static void
mark(RuhnswReach *reach, uint64 ref)
{
    uint8 bit;
    uint8 *byte = slot(reach, reach->reached, ruhnsw_ref_block(ref), ruhnsw_ref_offset(ref), &bit);

    if (byte && !(*byte & bit)) {
        *byte |= bit;
        reach->changed = true;
        if (reach->queueing)
            enqueue(reach, ref);
    }
}

bool
ruhnsw_reached(const RuhnswReach *reach, uint64 ref)
{
    uint8 bit;
    uint8 *byte = slot(reach, reach->reached, ruhnsw_ref_block(ref), ruhnsw_ref_offset(ref), &bit);

    return byte && (*byte & bit);
}

/* Some slot of the block is reached and not expanded. */
static bool
block_waits(const RuhnswReach *reach, BlockNumber block)
{
    const uint8 *reached = reach->reached + (Size)block * reach->stride;
    const uint8 *expanded = reach->expanded + (Size)block * reach->stride;

    for (uint32 i = 0; i < reach->stride; i++)
        if (reached[i] & ~expanded[i])
            return true;
    return false;
}

/* Marks what a slot of the locked page links to. Learned links do not count: they may be removed.
 */
static void
expand_slot(RuhnswReach *reach, Relation index, Page page, BlockNumber block, OffsetNumber offset)
{
    const RuhnswGeometry *geometry = &reach->geometry;
    RuhnswNode *node = ruhnsw_node_at(index, geometry, page, block, offset);
    const uint32 *links;

    if (node == NULL || (!reach->through_dead && (node->flags & RUHNSW_NODE_DEAD)))
        return;
    links = ruhnsw_base_links(geometry, node);
    for (int i = 0; i < node->link_count; i++)
        mark(reach, ruhnsw_number_ref(geometry, links[i]));
}

static void
expand_block(RuhnswReach *reach, Relation index, BlockNumber block, BufferAccessStrategy strategy)
{
    Buffer buffer = ReadBufferExtended(index, MAIN_FORKNUM, block, RBM_NORMAL, strategy);

    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    for (OffsetNumber offset = FirstOffsetNumber; offset <= reach->geometry.slots; offset++) {
        uint8 bit = 0;
        uint8 *reached = slot(reach, reach->reached, block, offset, &bit);
        uint8 *expanded = slot(reach, reach->expanded, block, offset, &bit);

        if (!(*reached & bit) || (*expanded & bit))
            continue;
        *expanded |= bit;
        expand_slot(reach, index, BufferGetPage(buffer), block, offset);
    }
    UnlockReleaseBuffer(buffer);
}

/* Sweeps until nothing new is reached. */
static void
sweep(RuhnswReach *reach, Relation index, BufferAccessStrategy strategy)
{
    do {
        reach->changed = false;
        for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < reach->blocks; block++) {
            CHECK_FOR_INTERRUPTS();
            while (block_waits(reach, block))
                expand_block(reach, index, block, strategy);
        }
    } while (reach->changed);
}

/* Marks ref and everything that it leads to. */
static void
spread(RuhnswReach *reach, Relation index, uint64 ref, BufferAccessStrategy strategy)
{
    reach->queueing = true;
    mark(reach, ref);
    while (reach->queue_length > 0) {
        BlockNumber block = ruhnsw_ref_block(reach->queue[--reach->queue_length]);

        CHECK_FOR_INTERRUPTS();
        if (block_waits(reach, block))
            expand_block(reach, index, block, strategy);
    }
    reach->queueing = false;
}

RuhnswReach *
ruhnsw_reach_compute(Relation index, const RuhnswMetaData *meta, uint64 root, bool through_dead,
                     BufferAccessStrategy strategy)
{
    RuhnswReach *reach = palloc0(sizeof(RuhnswReach));
    Size size;

    reach->root = root;
    reach->queue_room = 64;
    reach->queue = palloc(sizeof(uint64) * reach->queue_room);
    reach->blocks = RelationGetNumberOfBlocks(index);
    ruhnsw_geometry(meta, &reach->geometry);
    reach->stride = (reach->geometry.slots + 1 + 7) / 8;
    size = (Size)reach->blocks * reach->stride;
    reach->reached =
        MemoryContextAllocExtended(CurrentMemoryContext, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    reach->expanded =
        MemoryContextAllocExtended(CurrentMemoryContext, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    reach->through_dead = through_dead;
    if (root != RUHNSW_NO_REF) {
        mark(reach, root);
        sweep(reach, index, strategy);
    }
    return reach;
}

void
ruhnsw_reach_free(RuhnswReach *reach)
{
    pfree(reach->reached);
    pfree(reach->expanded);
    pfree(reach->queue);
    pfree(reach);
}

/* The next live node from *offset on that is not reached; false at the end of the page. */
static bool
next_unreached(const RuhnswReach *reach, Relation index, BlockNumber block, OffsetNumber *offset,
               BufferAccessStrategy strategy, uint64 *ref)
{
    Buffer buffer = ReadBufferExtended(index, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
    Page page = BufferGetPage(buffer);
    bool found = false;

    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    while (!found && *offset <= ruhnsw_slot_count(&reach->geometry, page)) {
        RuhnswNode *node = ruhnsw_node_at(index, &reach->geometry, page, block, *offset);

        if (node && !(node->flags & RUHNSW_NODE_DEAD)) {
            *ref = ruhnsw_ref(block, *offset);
            found = !ruhnsw_reached(reach, *ref);
        }
        (*offset)++;
    }
    UnlockReleaseBuffer(buffer);
    return found;
}

/* Links ref in from a node within reach. Should its list be full of links that have to stay, ref
 * takes one of them over first. */
static bool
link_in(RuhnswWriter *writer, uint64 from, uint64 ref)
{
    int room = ruhnsw_level_limit(writer->graph.meta.m, 0);
    uint64 *links;
    bool linked = false;
    int count;

    if (from == ref)
        return false;
    if (ruhnsw_link(writer, from, ref, 0, true))
        return true;
    links = palloc(sizeof(uint64) * room);
    count = ruhnsw_load_links(&writer->graph, from, 0, links, NULL, NULL);
    for (int i = count - 1; i >= 0 && !linked; i--)
        linked = links[i] != ref && ruhnsw_link(writer, ref, links[i], 0, true) &&
                 ruhnsw_link(writer, from, ref, 0, true);
    pfree(links);
    return linked;
}

/* The live nodes near ref that a search finds which starts at the root and stays on layer 0: all of
 * them are within reach. False: ref is not there any more. */
static bool
search_near(RuhnswWriter *writer, uint64 root, uint64 ref, uint32 *count)
{
    RuhnswGraph *graph = &writer->graph;
    rv_neighbour *entry = &writer->entries[0];
    rv_error err;

    if (!ruhnsw_load_node(graph, ref, writer->vector, NULL, NULL))
        return false;
    graph->query = writer->vector;
    ruv_reader_refresh(&graph->reader);
    entry->node = root;
    if (graph->graph.distance(graph, root, &entry->distance, &entry->flags) != RV_OK)
        ruhnsw_corrupt(graph->index, ruhnsw_ref_block(root), "the root of layer 0 is not there");
    ruv_check(rv_beam_search_level(writer->beam, entry, 1, writer->ef_construction, 0,
                                   writer->found, count, &err),
              &err, "ruhnsw connect");
    return true;
}

/* Links ref in from the nearest reached node that a search from the root finds, or else from the
 * root. */
static bool
connect_node(RuhnswWriter *writer, const RuhnswReach *reach, uint64 ref)
{
    uint32 count;

    if (!search_near(writer, reach->root, ref, &count))
        return false;
    for (uint32 i = 0; i < count; i++)
        if (ruhnsw_reached(reach, writer->found[i].node) &&
            link_in(writer, writer->found[i].node, ref))
            return true;
    return link_in(writer, reach->root, ref);
}

bool
ruhnsw_reconnect(RuhnswWriter *writer, uint64 ref)
{
    for (int attempt = 0; attempt < RECONNECT_ATTEMPTS; attempt++) {
        uint64 root = writer->graph.meta.root;
        uint32 count;

        CHECK_FOR_INTERRUPTS();
        if (root == ref || !search_near(writer, root, ref, &count))
            return true;
        for (uint32 i = 0; i < count; i++)
            if (writer->found[i].node == ref)
                return true;
        for (uint32 i = 0; i < count; i++)
            if (link_in(writer, writer->found[i].node, ref))
                return true;
        if (link_in(writer, root, ref))
            return true;
    }
    return false;
}

/* One round; returns how many nodes could not be reached at its start or until their turn. */
static uint64
connect_round(RuhnswWriter *writer, uint64 root, BufferAccessStrategy strategy)
{
    Relation index = writer->graph.index;
    RuhnswReach *reach = ruhnsw_reach_compute(index, &writer->graph.meta, root, false, strategy);
    uint64 unreached = 0;

    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < reach->blocks; block++) {
        OffsetNumber offset = FirstOffsetNumber;
        uint64 ref;

        CHECK_FOR_INTERRUPTS();
        while (next_unreached(reach, index, block, &offset, strategy, &ref)) {
            unreached++;
            if (connect_node(writer, reach, ref))
                spread(reach, index, ref, strategy);
            RUV_PAUSE("ruhnsw-connecting");
        }
    }
    ruhnsw_reach_free(reach);
    ruhnsw_attach_dropped(writer);
    return unreached;
}

uint64
ruhnsw_connect(RuhnswWriter *writer, uint64 root, BufferAccessStrategy strategy)
{
    uint64 total = 0;
    uint64 unreached = 0;

    ruhnsw_graph_refresh(&writer->graph);
    if (root == RUHNSW_NO_REF)
        return 0;
    for (int round = 0; round < CONNECT_ROUNDS; round++) {
        /* The last round would rather cut somebody off for a moment than leave somebody out. */
        writer->may_cut = round == CONNECT_ROUNDS - 1;
        unreached = connect_round(writer, root, strategy);
        total += unreached;
        if (unreached == 0)
            break;
    }
    writer->may_cut = false;
    if (unreached > 0)
        elog(DEBUG1, "index \"%s\" still has nodes that are hard to reach",
             RelationGetRelationName(writer->graph.index));
    return total;
}
