/*
 * learn.c - learned links for recorded searches: what the learning engine asks of a graph.
 *
 * Three steps, each over many searches at once:
 *   find rows    from heap positions to nodes, in one pass over the pages of the index
 *   ask          hands the nodes of each search, with vectors and links, to the engine, which knows
 *                the links that they lack (links.h)
 *   write        makes chosen links, or takes them away again, node by node
 *
 * What is read in the first two steps may be out of date in the third: a node may be dead then, or
 * its slot be another row's. Writing looks at both ends again. A link to some other live row is
 * useless, and harmless.
 *
 * Locks: reading takes content locks, one at a time. Writing is as heal.c says.
 */
#include "ruhnsw/ruhnsw.h"

#include "miscadmin.h"
#include "pause.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

/* ---- rows to nodes ------------------------------------------------------------------------- */

typedef struct RowFinder {
    const RuhnswGeometry *geometry;
    Relation index;
    const uint64 *rows; /* ascending */
    uint64 *nodes;
    int count;
} RowFinder;

static void
note_rows(RowFinder *finder, uint64 node, const ItemPointerData *tids, int tid_count)
{
    for (int i = 0; i < tid_count; i++) {
        uint64 row = ruhnsw_position(ItemPointerGetBlockNumber(&tids[i]),
                                     ItemPointerGetOffsetNumber(&tids[i]));
        int low = 0;
        int high = finder->count;

        while (low < high) {
            int middle = (low + high) / 2;

            if (finder->rows[middle] < row)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < finder->count && finder->rows[low] == row)
            finder->nodes[low] = node;
    }
}

static void
note_nodes(RowFinder *finder, Page page, BlockNumber block)
{
    OffsetNumber slots = ruhnsw_slot_count(finder->geometry, page);

    for (OffsetNumber offset = FirstOffsetNumber; offset <= slots; offset++) {
        RuhnswNode *node = ruhnsw_node_at(finder->index, finder->geometry, page, block, offset);

        if (node && !(node->flags & RUHNSW_NODE_DEAD))
            note_rows(finder, ruhnsw_ref(block, offset), ruhnsw_tail(finder->geometry, node)->tids,
                      node->tid_count);
    }
}

static void
note_chains(RowFinder *finder, Page page, BlockNumber block)
{
    for (OffsetNumber offset = FirstOffsetNumber; offset <= PageGetMaxOffsetNumber(page);
         offset++) {
        RuhnswRows *rows = ruhnsw_rows_at(finder->index, page, block, offset);

        if (rows)
            note_rows(finder, rows->owner, rows->tids, rows->count);
    }
}

void
ruhnsw_find_rows(Relation index, const uint64 *rows, int count, uint64 *nodes,
                 void (*breathe)(void))
{
    BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
    BlockNumber blocks = RelationGetNumberOfBlocks(index);
    RuhnswMetaData meta;
    RuhnswGeometry geometry;
    RowFinder finder = {&geometry, index, rows, nodes, count};

    ruhnsw_read_meta(index, &meta);
    ruhnsw_geometry(&meta, &geometry);
    memset(nodes, 0, sizeof(uint64) * count);
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; count > 0 && block < blocks; block++) {
        Buffer buffer = ReadBufferExtended(index, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
        Page page = BufferGetPage(buffer);

        LockBuffer(buffer, BUFFER_LOCK_SHARE);
        if (!PageIsNew(page)) {
            ruhnsw_check_frame(index, page, block);
            if (ruhnsw_trailer(page)->kind == RUHNSW_PAGE_NODES)
                note_nodes(&finder, page, block);
            else
                note_chains(&finder, page, block);
        }
        UnlockReleaseBuffer(buffer);
        if (block % 64 == 0)
            breathe();
    }
    FreeAccessStrategy(strategy);
}

/* ---- what searches lack -------------------------------------------------------------------- */

/* Room for the nodes of one search. */
typedef struct Asker {
    RuhnswGraph graph;
    rv_link_node *nodes;
    float *vectors;
    uint64 *links;
    int room; /* links of one node */
} Asker;

static void
open_asker(Asker *asker, Relation index)
{
    ruhnsw_graph_open(&asker->graph, index);
    asker->room = asker->graph.graph.max_degree;
    asker->nodes = palloc(sizeof(rv_link_node) * RV_LINKS_MAX_NODES);
    asker->vectors = MemoryContextAllocHuge(
        CurrentMemoryContext, sizeof(float) * asker->graph.meta.dim * RV_LINKS_MAX_NODES);
    asker->links = palloc(sizeof(uint64) * asker->room * RV_LINKS_MAX_NODES);
}

/* Reads one node as number `at` of the search's; false when it is not there or not live. */
static bool
read_node(Asker *asker, int at, uint64 ref)
{
    float *vector = asker->vectors + (Size)at * asker->graph.meta.dim;
    uint64 *links = asker->links + (Size)at * asker->room;
    uint16 flags;
    int base;
    int learned;

    if (!ruhnsw_ref_in_file(&asker->graph, ref) ||
        !ruhnsw_load_node(&asker->graph, ref, vector, &flags, NULL) || (flags & RUHNSW_NODE_DEAD))
        return false;
    base = ruhnsw_load_links(&asker->graph, ref, 0, links, NULL, NULL);
    learned = base < 0 ? -1 : ruhnsw_load_learned(&asker->graph, ref, links + base);
    if (learned < 0)
        return false;
    asker->nodes[at].node = ref;
    asker->nodes[at].vector = vector;
    asker->nodes[at].links = links;
    asker->nodes[at].link_count = (uint32)(base + learned);
    return true;
}

/* Equal rows share a node. */
static bool
has_node(const Asker *asker, int count, uint64 ref)
{
    for (int i = 0; i < count; i++)
        if (asker->nodes[i].node == ref)
            return true;
    return false;
}

static void
ask_for_search(Asker *asker, rv_links *links, const RuhnswFound *found)
{
    int count = 0;
    rv_error err = {0};

    for (int i = 0; i < found->count && count < RV_LINKS_MAX_NODES; i++)
        if (found->nodes[i] != RUHNSW_NO_REF && !has_node(asker, count, found->nodes[i]) &&
            read_node(asker, count, found->nodes[i]))
            count++;
    if (count == 0)
        return;
    ruv_check(rv_links_ask(links, asker->nodes, (uint32)count, &err), &err,
              "looking for missing links");
    if (found->ended_at != RUHNSW_NO_REF)
        ruv_check(rv_links_ask_for(links, found->ended_at, asker->nodes[0].node, &err), &err,
                  "looking for missing links");
}

void
ruhnsw_ask_links(Relation index, rv_links *links, const RuhnswFound *searches, int count,
                 void (*breathe)(void))
{
    MemoryContext context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw links", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(context);
    Asker asker;

    open_asker(&asker, index);
    for (int i = 0; i < count; i++) {
        ruv_reader_refresh(&asker.graph.reader);
        ask_for_search(&asker, links, &searches[i]);
        if (i % 64 == 0)
            breathe();
    }
    MemoryContextSwitchTo(former);
    MemoryContextDelete(context);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Links of one node. */
typedef struct Bundle {
    const rv_link *links;
    int count;
    bool *done;
} Bundle;

static RuhnswNode *
live_node(const RuhnswGraph *graph, Page page, uint64 ref)
{
    RuhnswNode *node = ruhnsw_get_node(graph->index, &graph->geometry, page, ref);

    return node && !(node->flags & RUHNSW_NODE_DEAD) ? node : NULL;
}

/* The place to put a link, or where it is when it is to be taken away; -1: none. */
static int
place_of(const RuhnswGeometry *geometry, const RuhnswNode *node, uint32 number, bool make)
{
    const uint32 *links = ruhnsw_base_links(geometry, node);
    const uint32 *learned = ruhnsw_learned_links(geometry, node);
    int place = -1;

    for (int i = 0; make && i < node->link_count; i++)
        if (links[i] == number)
            return -1;
    for (int i = geometry->learned - 1; i >= 0; i--) {
        if (learned[i] == number)
            return make ? -1 : i;
        if (make && learned[i] == RUHNSW_NO_LINK)
            place = i;
    }
    return place;
}

/* Changes the links of a node on a page that is a copy or the page itself; returns how many. */
static int
change_node(const RuhnswGraph *graph, Page page, const Bundle *bundle, const bool *usable,
            bool make)
{
    const RuhnswGeometry *geometry = &graph->geometry;
    RuhnswNode *node = live_node(graph, page, bundle->links[0].from);
    int changed = 0;

    for (int i = 0; i < bundle->count; i++) {
        uint32 number = (uint32)ruhnsw_ref_number(geometry, bundle->links[i].to);
        int place = usable[i] ? place_of(geometry, node, number, make) : -1;

        bundle->done[i] = place >= 0;
        if (place < 0)
            continue;
        ruhnsw_learned_links(geometry, node)[place] = make ? number : RUHNSW_NO_LINK;
        changed++;
    }
    return changed;
}

/* Which links of a bundle can be changed at all; false: none. Those to dead nodes cannot be made.
 */
static bool
choose_usable(RuhnswGraph *graph, const Bundle *bundle, bool make, bool *usable)
{
    bool any = false;

    for (int i = 0; i < bundle->count; i++) {
        const rv_link *link = &bundle->links[i];
        uint16 flags = 0;

        usable[i] = link->from != link->to && ruhnsw_ref_in_file(graph, link->to) &&
                    (!make || (ruhnsw_load_node(graph, link->to, NULL, &flags, NULL) &&
                               !(flags & RUHNSW_NODE_DEAD)));
        any = any || usable[i];
    }
    return any;
}

static int
write_bundle(RuhnswGraph *graph, const Bundle *bundle, bool make)
{
    uint64 from = bundle->links[0].from;
    bool *usable = palloc(sizeof(bool) * bundle->count);
    RuhnswChange change;
    Buffer buffer;
    int changed = 0;

    memset(bundle->done, 0, sizeof(bool) * bundle->count);
    if (ruhnsw_ref_in_file(graph, from) && choose_usable(graph, bundle, make, usable)) {
        buffer = ruhnsw_read(graph->index, ruhnsw_ref_block(from), BUFFER_LOCK_EXCLUSIVE);
        if (live_node(graph, BufferGetPage(buffer), from)) {
            ruhnsw_change_begin(&change, graph->index, false);
            changed = change_node(graph, ruhnsw_change_page(&change, buffer), bundle, usable, make);
            if (changed > 0)
                ruhnsw_change_commit(&change);
            else
                ruhnsw_change_abort(&change);
        }
        UnlockReleaseBuffer(buffer);
    }
    pfree(usable);
    return changed;
}

int
ruhnsw_write_links(Relation index, const rv_link *links, int count, bool make, bool *done,
                   void (*breathe)(void))
{
    MemoryContext context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw links", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(context);
    RuhnswGraph graph;
    int changed = 0;
    int next;

    ruhnsw_graph_open(&graph, index);
    for (int at = 0; at < count; at = next) {
        Bundle bundle = {&links[at], 0, &done[at]};

        for (next = at; next < count && links[next].from == links[at].from; next++)
            bundle.count++;
        RUV_PAUSE("ruhnsw-write-link");
        LockPage(index, RUHNSW_META_BLOCK, ShareLock);
        ruv_reader_refresh(&graph.reader);
        changed += write_bundle(&graph, &bundle, make);
        UnlockPage(index, RUHNSW_META_BLOCK, ShareLock);
        if (at % 16 == 0)
            breathe();
    }
    MemoryContextSwitchTo(former);
    MemoryContextDelete(context);
    return changed;
}
