/*
 * build.c - CREATE INDEX and REINDEX: loading rows. build_write.c writes the pages.
 *
 * The graph is built in memory by the engine (rv_hnsw) within maintenance_work_mem and then written
 * page by page. Rows with one and the same vector share a node.
 *
 * With parallel workers (build_parallel.c) they and the leader build one graph in shared memory.
 *
 * When the memory is used up, what is there is written, a notice names the memory that would have
 * sufficed, and the remaining rows are inserted into the pages one by one.
 *
 * Nobody else can see the index during its build: pages are written without WAL, and the whole file
 * is logged at the end. Without workers equal rows in equal order give equal graphs: all draws come
 * from a fixed seed.
 *
 * Nodes that pruning has cut off from the entry point are linked in at the end, in memory or, after
 * inserts into pages, by reach.c.
 */
#include "ruhnsw/build.h"

#include "opclass.h"

#include <math.h>

#include "access/tableam.h"
#include "access/xloginsert.h"
#include "catalog/index.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "pause.h"
#include "pgstat.h"
#include "utils/memutils.h"

#define BUILD_SEED UINT64CONST(0x7275766563746f72)

static rv_hnsw_options
graph_options(const RuhnswBuild *build)
{
    rv_hnsw_options options = {0};

    options.metric = (rv_metric)build->meta.metric;
    options.dim = build->meta.dim;
    options.m = build->meta.m;
    options.ef_construction = build->meta.ef_construction;
    options.seed = BUILD_SEED;
    options.unit = options.metric == RV_METRIC_COSINE;
    options.memory_limit = build->memory_limit;
    return options;
}

void
ruhnsw_build_prepare(RuhnswBuild *build)
{
    build->memory_limit = (Size)maintenance_work_mem * 1024;
    build->vector = palloc(sizeof(float) * build->meta.dim);
    build->row_context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw build row", ALLOCSET_DEFAULT_SIZES);
    build->graph_context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw build", ALLOCSET_DEFAULT_SIZES);
    ruv_context_allocator(build->graph_context, &build->allocator);
}

/* A graph of this process alone. */
static void
start_graph(RuhnswBuild *build, const rv_hnsw_options *options)
{
    rv_error err;

    ruv_check(rv_hnsw_create(&build->allocator, options, &build->graph, &err), &err,
              "ruhnsw build");
    build->node_capacity = 1024;
    build->nodes =
        MemoryContextAllocHuge(build->graph_context, build->node_capacity * sizeof(RuhnswNodeRows));
    build->more_capacity = 64;
    build->more =
        MemoryContextAllocHuge(build->graph_context, build->more_capacity * sizeof(RuhnswMoreRow));
}

static Size
memory_used(const RuhnswBuild *build)
{
    return rv_hnsw_memory(build->graph) +
           rv_hnsw_count(build->graph) * RUHNSW_BUILD_BYTES_PER_NODE +
           build->more_count * sizeof(RuhnswMoreRow);
}

static void
tell_memory(const RuhnswBuild *build)
{
    BlockNumber pages;
    double rows;
    double visible;

    estimate_rel_size(build->heap, NULL, &pages, &rows, &visible);
    /* A parallel scan is over by now, and has counted. */
    rows = build->parallel ? (double)build->rows : Max(rows, (double)build->rows * 1.1);
    ereport(
        NOTICE,
        (errmsg("ruhnsw graph no longer fits into maintenance_work_mem after " INT64_FORMAT " rows",
                build->rows_in_memory),
         errdetail("The remaining rows are inserted one by one, which takes much longer."),
         errhint("About %.0f MB of maintenance_work_mem would be enough for all of about %.0f "
                 "rows.",
                 ceil((double)memory_used(build) / Max(build->rows_in_memory, 1) * rows * 1.1 /
                      (1024 * 1024)),
                 rows)));
}

static void
forget_graph(RuhnswBuild *build)
{
    build->graph = NULL;
    MemoryContextDelete(build->graph_context);
}

/* Writes what is in memory and goes on with inserts into pages. */
static void
flush_graph(RuhnswBuild *build)
{
    tell_memory(build);
    RUV_PAUSE("ruhnsw-build-write");
    ruhnsw_write_graph(build);
    forget_graph(build);
    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_INSERT);
    ruhnsw_writer_open(&build->writer, build->index, true);
}

/* Adds a row to a node of the graph in memory. */
static void
add_node_row(RuhnswBuild *build, RuhnswNodeRows *rows, ItemPointer tid)
{
    RuhnswMoreRow *more;

    if (rows->count < RUHNSW_NODE_TIDS) {
        rows->tids[rows->count++] = *tid;
        return;
    }
    if (build->more_count == build->more_capacity) {
        build->more_capacity *= 2;
        build->more = repalloc_huge(build->more, build->more_capacity * sizeof(RuhnswMoreRow));
    }
    more = &build->more[build->more_count++];
    more->tid = *tid;
    more->next = rows->first_more;
    rows->first_more = (uint32)build->more_count;
    rows->more++;
}

/* False when the memory is used up; the graph is then as it was. */
static bool
add_in_memory(RuhnswBuild *build, ItemPointer tid)
{
    bool duplicate = false;
    rv_status status;
    rv_node node;
    rv_error err;

    if (memory_used(build) + RUHNSW_BUILD_BYTES_PER_NODE > build->memory_limit)
        return false;
    status = rv_hnsw_insert_or_find(build->graph, build->vector, &node, &duplicate, &err);
    if (status == RV_ERR_FULL)
        return false;
    ruv_check(status, &err, "ruhnsw build");
    if (node >= build->node_capacity) {
        build->node_capacity *= 2;
        build->nodes = repalloc_huge(build->nodes, build->node_capacity * sizeof(RuhnswNodeRows));
    }
    if (!duplicate)
        memset(&build->nodes[node], 0, sizeof(RuhnswNodeRows));
    add_node_row(build, &build->nodes[node], tid);
    build->rows_in_memory++;
    return true;
}

static float
norm_bound(const RuhnswBuild *build)
{
    return nextafterf(rv_norm(build->vector, build->meta.dim), INFINITY);
}

void
ruhnsw_build_insert(RuhnswBuild *build, ItemPointer tid)
{
    int level = rv_hnsw_draw_level(&build->rng, build->meta.m);

    (void)ruhnsw_add(&build->writer, build->vector, tid,
                     Min(level, ruhnsw_max_level(build->meta.m)), true);
}

static void
add_row(RuhnswBuild *build, ItemPointer tid)
{
    build->meta.max_norm = Max(build->meta.max_norm, norm_bound(build));
    if (build->parallel) {
        ruhnsw_parallel_add(build, tid);
        return;
    }
    if (build->graph && add_in_memory(build, tid))
        return;
    if (build->graph)
        flush_graph(build);
    ruhnsw_build_insert(build, tid);
}

static void
build_callback(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool alive, void *arg)
{
    RuhnswBuild *build = arg;
    MemoryContext former;
    bool indexed;

    if (isnull[0])
        return;
    former = MemoryContextSwitchTo(build->row_context);
    indexed = ruv_index_vector((rv_metric)build->meta.metric, build->meta.dim,
                               DatumGetRuVector(values[0]), build->vector);
    MemoryContextSwitchTo(former);
    if (indexed) {
        add_row(build, tid);
        build->rows++;
        if (build->parallel)
            ruhnsw_parallel_progress(build);
        else
            pgstat_progress_update_param(PROGRESS_CREATEIDX_TUPLES_DONE, build->rows);
    }
    MemoryContextReset(build->row_context);
}

double
ruhnsw_build_scan(RuhnswBuild *build, IndexInfo *info, TableScanDesc scan)
{
    return table_index_build_scan(build->heap, build->index, info, true, true, build_callback,
                                  build, scan);
}

static void
finish_pages(RuhnswBuild *build)
{
    uint64 connected;
    rv_error err;

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_CONNECT);
    if (build->graph == NULL) {
        ruhnsw_connect(&build->writer, build->writer.graph.meta.root, NULL);
        ruhnsw_writer_close(&build->writer);
        return;
    }
    ruv_check(rv_hnsw_connect(build->graph, &connected, &err), &err, "ruhnsw build");
    RUV_PAUSE("ruhnsw-build-write");
    ruhnsw_write_graph(build);
    forget_graph(build);
}

/* Loads all rows; returns how many the table has. */
static double
load(RuhnswBuild *build, IndexInfo *info)
{
    rv_hnsw_options options = graph_options(build);
    double heap_tuples;

    if (!ruhnsw_parallel_load(build, info, &options, &heap_tuples)) {
        start_graph(build, &options);
        return ruhnsw_build_scan(build, info, NULL);
    }
    if (build->rows > build->rows_in_memory) {
        flush_graph(build);
        ruhnsw_parallel_spilled(build);
    }
    return heap_tuples;
}

IndexBuildResult *
ruhnsw_build(Relation heap, Relation index, IndexInfo *info)
{
    RuhnswBuild *build = palloc0(sizeof(RuhnswBuild));
    IndexBuildResult *result = palloc(sizeof(IndexBuildResult));

    if (RelationGetNumberOfBlocks(index) != 0)
        elog(ERROR, "index \"%s\" already contains data", RelationGetRelationName(index));
    build->heap = heap;
    build->index = index;
    rv_prng_seed(&build->rng, BUILD_SEED);
    ruhnsw_make_meta(index, &build->meta);
    ruhnsw_create_meta(index, MAIN_FORKNUM, &build->meta);
    ruhnsw_build_prepare(build);

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUHNSW_PHASE_LOAD);
    result->heap_tuples = load(build, info);
    finish_pages(build);
    if (build->parallel)
        ruhnsw_parallel_end(build);
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
