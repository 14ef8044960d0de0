/*
 * build.c - CREATE INDEX and REINDEX.
 *
 * The graph is built in memory by the engine (rv_hnsw) within maintenance_work_mem and then written
 * page by page. Rows with one and the same vector share a node while it has room. Nodes are written
 * in breadth-first order of layer 0, so that neighbours tend to share pages.
 *
 * When the memory is used up, what is there is written, a notice names the memory that would have
 * sufficed, and the remaining rows are inserted into the pages one by one.
 *
 * Nobody else can see the index during its build: pages are written without WAL, and the whole file
 * is logged at the end. Equal rows in equal order give equal graphs: all draws come from a fixed
 * seed.
 *
 * The graph of a build is checked for nodes that pruning has cut off from the entry point; see
 * reach.c.
 */
#include "ruhnsw/ruhnsw.h"

#include <math.h>

#include "access/tableam.h"
#include "access/xloginsert.h"
#include "catalog/index.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "pgstat.h"
#include "utils/memutils.h"

#define BUILD_SEED UINT64CONST(0x7275766563746f72)

/* The rows of one node of the graph in memory. */
typedef struct NodeRows {
    uint16 count;
    ItemPointerData tids[RUHNSW_NODE_TIDS];
} NodeRows;

/* Per node, beside the graph itself: NodeRows, and while writing a reference and an order. */
#define BYTES_PER_NODE (sizeof(NodeRows) + sizeof(uint64) + sizeof(uint32) + 1)

typedef struct Build {
    Relation heap;
    Relation index;
    RuhnswMetaData meta;
    rv_prng rng;
    float *vector; /* the present row's, as compared */
    MemoryContext row_context;
    int64 rows; /* indexed so far */

    /* in memory; graph is NULL once it was written */
    MemoryContext graph_context;
    rv_allocator allocator;
    rv_hnsw *graph;
    NodeRows *nodes;
    Size node_capacity;
    Size memory_limit;

    bool connected;      /* everything written can be reached */
    RuhnswWriter writer; /* after that: inserts into pages */
} Build;

/* ---- writing the graph ---- */

/* Where the next node goes; run twice, once to give references and once to write. */
typedef struct Packer {
    int dim;
    int m;
    BlockNumber next_block;
    BlockNumber node_block;
    BlockNumber links_block;
    Size node_room;
    Size links_room;
    OffsetNumber node_items;
    OffsetNumber links_items;
} Packer;

typedef struct Place {
    ItemPointerData node;
    ItemPointerData links;
} Place;

static void
packer_init(Packer *packer, int dim, int m)
{
    memset(packer, 0, sizeof(*packer));
    packer->dim = dim;
    packer->m = m;
    packer->next_block = RUHNSW_FIRST_BLOCK;
    packer->node_block = packer->links_block = InvalidBlockNumber;
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
    if (!apart) {
        packer->node_room -= links_need;
        ItemPointerSet(&place.links, packer->node_block, ++packer->node_items);
        return place;
    }
    if (packer->links_room < links_need) {
        packer->links_block = packer->next_block++;
        packer->links_room = RUHNSW_PAGE_CAPACITY;
        packer->links_items = 0;
    }
    packer->links_room -= links_need;
    ItemPointerSet(&place.links, packer->links_block, ++packer->links_items);
    return place;
}

/* Pages are filled one after the other; at most one of each kind is open. */
typedef struct PageWriter {
    Relation index;
    Buffer nodes;
    Buffer links;
} PageWriter;

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

static int
build_level(const Build *build, rv_node node)
{
    return Min(rv_hnsw_level(build->graph, node), ruhnsw_max_level(build->meta.m));
}

static void
write_node(Build *build, PageWriter *writer, rv_node number, Place place, const uint64 *refs,
           RuhnswNode *node, RuhnswLinks *links)
{
    int m = build->meta.m;
    int level = build_level(build, number);
    NodeRows *rows = &build->nodes[number];
    bool apart = ItemPointerGetBlockNumber(&place.node) != ItemPointerGetBlockNumber(&place.links);
    const char *problem;

    memset(node, 0, offsetof(RuhnswNode, vector));
    node->type = RUHNSW_TUPLE_NODE;
    node->level = level;
    node->tid_count = rows->count;
    node->links = place.links;
    node->dim = build->meta.dim;
    memcpy(node->tids, rows->tids, sizeof(ItemPointerData) * rows->count);
    memcpy(node->vector, rv_hnsw_vector(build->graph, number), sizeof(float) * build->meta.dim);

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
    problem = ruhnsw_check_node(node, ruhnsw_node_size(build->meta.dim), build->meta.dim, m);
    if (problem == NULL)
        problem = ruhnsw_check_links(links, ruhnsw_links_size(m, level), m);
    if (problem)
        elog(ERROR, "%s", problem);
    write_item(writer, &writer->nodes, RUHNSW_PAGE_NODES, &place.node, node,
               ruhnsw_node_size(build->meta.dim));
    write_item(writer, apart ? &writer->links : &writer->nodes,
               apart ? RUHNSW_PAGE_LINKS : RUHNSW_PAGE_NODES, &place.links, links,
               ruhnsw_links_size(m, level));
}

/* Breadth first over layer 0 from the entry point; nodes that are not reached come last. Returns
 * how many were reached. */
static uint64
breadth_first(const Build *build, uint32 *order)
{
    uint64 n = rv_hnsw_count(build->graph);
    bool *placed = MemoryContextAllocHuge(CurrentMemoryContext, n);
    uint64 reached = 0;
    uint64 count;
    rv_node entry;

    memset(placed, 0, n);
    if (rv_hnsw_entry(build->graph, &entry) >= 0) {
        order[reached++] = (uint32)entry;
        placed[entry] = true;
    }
    for (uint64 head = 0; head < reached; head++) {
        uint32 degree;
        const uint32 *links = rv_hnsw_links(build->graph, order[head], 0, &degree);

        for (uint32 i = 0; i < degree; i++) {
            if (placed[links[i]])
                continue;
            placed[links[i]] = true;
            order[reached++] = links[i];
        }
    }
    count = reached;
    for (uint64 i = 0; i < n; i++)
        if (!placed[i])
            order[count++] = (uint32)i;
    pfree(placed);
    return reached;
}

static void
write_graph(Build *build)
{
    uint64 n = rv_hnsw_count(build->graph);
    uint32 *order = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(uint32));
    uint64 *refs = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(uint64));
    RuhnswNode *node = palloc(BLCKSZ);
    RuhnswLinks *links = palloc(BLCKSZ);
    PageWriter writer = {build->index, InvalidBuffer, InvalidBuffer};
    Packer packer;
    rv_node entry;

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_WRITE);
    build->connected = breadth_first(build, order) == n;
    packer_init(&packer, build->meta.dim, build->meta.m);
    for (uint64 i = 0; i < n; i++) {
        Place place = pack(&packer, build_level(build, order[i]));

        refs[order[i]] = ruhnsw_ref(0, ItemPointerGetBlockNumber(&place.node),
                                    ItemPointerGetOffsetNumber(&place.node));
    }
    packer_init(&packer, build->meta.dim, build->meta.m);
    for (uint64 i = 0; i < n; i++)
        write_node(build, &writer, order[i], pack(&packer, build_level(build, order[i])), refs,
                   node, links);
    close_page(&writer.nodes);
    close_page(&writer.links);
    if (rv_hnsw_entry(build->graph, &entry) >= 0)
        ruhnsw_set_entry(build->index, refs[entry], build_level(build, entry), true);
    ruhnsw_raise_max_norm(build->index, build->meta.max_norm, true);
    pfree(order);
    pfree(refs);
    pfree(node);
    pfree(links);
}

/* ---- loading rows ---- */

static void
start_graph(Build *build)
{
    rv_hnsw_options options = {0};
    rv_error err;

    build->memory_limit = (Size)maintenance_work_mem * 1024;
    build->graph_context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw build", ALLOCSET_DEFAULT_SIZES);
    ruv_context_allocator(build->graph_context, &build->allocator);
    options.metric = (rv_metric)build->meta.metric;
    options.dim = build->meta.dim;
    options.m = build->meta.m;
    options.ef_construction = build->meta.ef_construction;
    options.seed = BUILD_SEED;
    options.unit = options.metric == RV_METRIC_COSINE;
    options.memory_limit = build->memory_limit;
    ruv_check(rv_hnsw_create(&build->allocator, &options, &build->graph, &err), &err,
              "ruhnsw build");
    build->node_capacity = 1024;
    build->nodes =
        MemoryContextAllocHuge(build->graph_context, build->node_capacity * sizeof(NodeRows));
}

static void
tell_memory(const Build *build)
{
    BlockNumber pages;
    double rows;
    double visible;
    double used =
        rv_hnsw_memory(build->graph) + (double)rv_hnsw_count(build->graph) * BYTES_PER_NODE;

    estimate_rel_size(build->heap, NULL, &pages, &rows, &visible);
    rows = Max(rows, (double)build->rows * 1.1);
    ereport(
        NOTICE,
        (errmsg("ruhnsw graph no longer fits into maintenance_work_mem after " INT64_FORMAT " rows",
                build->rows),
         errdetail("The remaining rows are inserted one by one, which takes much longer."),
         errhint("About %.0f MB of maintenance_work_mem would be enough for all of about %.0f "
                 "rows.",
                 ceil(used / Max(build->rows, 1) * rows * 1.1 / (1024 * 1024)), rows)));
}

/* Writes what is in memory and goes on with inserts into pages. */
static void
flush_graph(Build *build)
{
    tell_memory(build);
    write_graph(build);
    build->graph = NULL;
    MemoryContextDelete(build->graph_context);
    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_INSERT);
    ruhnsw_writer_open(&build->writer, build->index, true);
    build->connected = false;
}

/* False when the memory is used up; the graph is then as it was. */
static bool
add_in_memory(Build *build, ItemPointer tid)
{
    uint64 count = rv_hnsw_count(build->graph);
    bool duplicate = false;
    rv_status status;
    rv_node node;
    NodeRows *rows;
    rv_error err;

    if (rv_hnsw_memory(build->graph) + (count + 1) * BYTES_PER_NODE > build->memory_limit)
        return false;
    status = rv_hnsw_insert_or_find(build->graph, build->vector, &node, &duplicate, &err);
    if (status == RV_OK && duplicate && build->nodes[node].count == RUHNSW_NODE_TIDS) {
        duplicate = false;
        status = rv_hnsw_insert(build->graph, build->vector, &node, &err);
    }
    if (status == RV_ERR_FULL)
        return false;
    ruv_check(status, &err, "ruhnsw build");
    if (node >= build->node_capacity) {
        build->node_capacity *= 2;
        build->nodes = repalloc_huge(build->nodes, build->node_capacity * sizeof(NodeRows));
    }
    rows = &build->nodes[node];
    if (!duplicate)
        rows->count = 0;
    rows->tids[rows->count++] = *tid;
    return true;
}

static void
add_row(Build *build, ItemPointer tid)
{
    float norm = nextafterf(rv_norm(build->vector, build->meta.dim), INFINITY);

    build->meta.max_norm = Max(build->meta.max_norm, norm);
    if (build->graph && !add_in_memory(build, tid))
        flush_graph(build);
    else if (build->graph)
        return;
    ruhnsw_add(
        &build->writer, build->vector, tid,
        Min(rv_hnsw_draw_level(&build->rng, build->meta.m), ruhnsw_max_level(build->meta.m)));
}

static void
build_callback(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool alive, void *arg)
{
    Build *build = arg;
    MemoryContext former;
    bool indexed;

    if (isnull[0])
        return;
    former = MemoryContextSwitchTo(build->row_context);
    indexed = ruhnsw_prepare((rv_metric)build->meta.metric, build->meta.dim,
                             DatumGetRuVector(values[0]), build->vector);
    if (indexed) {
        add_row(build, tid);
        build->rows++;
        pgstat_progress_update_param(PROGRESS_CREATEIDX_TUPLES_DONE, build->rows);
    }
    MemoryContextSwitchTo(former);
    MemoryContextReset(build->row_context);
}

static void
finish_pages(Build *build)
{
    if (build->graph) {
        write_graph(build);
        build->graph = NULL;
        MemoryContextDelete(build->graph_context);
        if (!build->connected)
            ruhnsw_writer_open(&build->writer, build->index, true);
    }
    if (!build->connected) {
        pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_CONNECT);
        ruhnsw_connect(&build->writer, NULL);
        ruhnsw_writer_close(&build->writer);
    }
}

IndexBuildResult *
ruhnsw_build(Relation heap, Relation index, IndexInfo *info)
{
    Build *build = palloc0(sizeof(Build));
    IndexBuildResult *result = palloc(sizeof(IndexBuildResult));

    if (RelationGetNumberOfBlocks(index) != 0)
        elog(ERROR, "index \"%s\" already contains data", RelationGetRelationName(index));
    build->heap = heap;
    build->index = index;
    rv_prng_seed(&build->rng, BUILD_SEED);
    ruhnsw_make_meta(index, &build->meta);
    ruhnsw_create_meta(index, MAIN_FORKNUM, &build->meta);
    build->vector = palloc(sizeof(float) * build->meta.dim);
    build->row_context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw build row", ALLOCSET_DEFAULT_SIZES);
    start_graph(build);

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_LOAD);
    result->heap_tuples =
        table_index_build_scan(heap, index, info, true, true, build_callback, build, NULL);
    finish_pages(build);
    if (RelationNeedsWAL(index))
        log_newpage_range(index, MAIN_FORKNUM, 0, RelationGetNumberOfBlocks(index), true);
    result->index_tuples = build->rows;
    MemoryContextDelete(build->row_context);
    pfree(build->vector);
    pfree(build);
    return result;
}

void
ruhnsw_build_empty(Relation index)
{
    RuhnswMetaData meta;

    ruhnsw_make_meta(index, &meta);
    ruhnsw_create_meta(index, INIT_FORKNUM, &meta);
}
