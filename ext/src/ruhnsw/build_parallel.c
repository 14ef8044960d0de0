/*
 * build_parallel.c - several processes that build one graph in shared memory.
 *
 * The leader lays out a shared graph (rv_hnsw_create_shared) in a segment of at most
 * maintenance_work_mem, starts the workers, and takes part itself: each process takes blocks of the
 * table from one parallel scan and inserts their rows. When all have finished, the leader alone
 * makes every node reachable and writes the pages, as it does for a graph of its own.
 *
 * When the segment is full, the graph stays as it is, and every process goes on with its part of
 * the scan but puts the rows into a shared temporary file. The leader inserts these into the pages
 * at the end. So the table is scanned once, and nobody but the leader writes to the index. A
 * segment that is planned too small by stale statistics is full early in the same way.
 *
 * Locks:
 *     lists of links, the entry point   the engine's, see hnsw.h
 *     mutex (spinlock)                  the rows of nodes, and the sums in RuhnswSharedBuild
 *     full, rows                        atomics
 */
#include "ruhnsw/build.h"

#include <math.h>

#include "access/parallel.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "commands/progress.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/sharedfileset.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/sharedtuplestore.h"
#include "utils/snapmgr.h"

#define KEY_SHARED UINT64CONST(0x5255000000000001)
#define KEY_GRAPH UINT64CONST(0x5255000000000002)
#define KEY_NODES UINT64CONST(0x5255000000000003)
#define KEY_MORE UINT64CONST(0x5255000000000004)
#define KEY_SPILL UINT64CONST(0x5255000000000005)
#define KEY_BUFFER_USAGE UINT64CONST(0x5255000000000006)
#define KEY_WAL_USAGE UINT64CONST(0x5255000000000007)
#define KEY_QUERY UINT64CONST(0x5255000000000008)

#define ALIGNED 64 /* of the graph's memory */
/* The part of the memory for rows beyond what their nodes hold: 1 / so much. */
#define MORE_SHARE 16

typedef struct RuhnswSharedBuild {
    Oid heap;
    Oid index;
    bool concurrent;
    int participants;
    RuhnswMetaData meta;
    Size more_capacity;
    pg_atomic_uint32 full; /* 1: rows go to the temporary file */
    pg_atomic_uint64 rows; /* indexed, or spilled */
    SharedFileSet files;

    slock_t mutex; /* guards the rest, and the rows of nodes */
    Size more_count;
    uint64 rows_in_memory;
    double heap_tuples;
    float max_norm;
    bool broken_hot_chain;
    /* the parallel scan's description follows, on a line of its own */
} RuhnswSharedBuild;

struct RuhnswParallel {
    ParallelContext *context; /* NULL in a worker */
    Snapshot snapshot;
    RuhnswSharedBuild *shared;
    SharedTuplestoreAccessor *spill;
    MinimalTuple row; /* a vector behind the tuple's length */
    WalUsage *wal_usage;
    BufferUsage *buffer_usage;
};

static ParallelTableScanDesc
scan_of(RuhnswSharedBuild *shared)
{
    return (ParallelTableScanDesc)((char *)shared + BUFFERALIGN(sizeof(RuhnswSharedBuild)));
}

static Size
row_size(const RuhnswBuild *build)
{
    return MAXALIGN(sizeof(uint32)) + sizeof(float) * build->meta.dim;
}

/* ---- what every participant does ---- */

static void
add_shared_row(RuhnswBuild *build, rv_node node, ItemPointer tid, bool *full)
{
    RuhnswSharedBuild *shared = build->parallel->shared;
    RuhnswNodeRows *rows = &build->nodes[node];

    *full = false;
    SpinLockAcquire(&shared->mutex);
    if (rows->count < RUHNSW_NODE_TIDS) {
        rows->tids[rows->count++] = *tid;
    } else if (shared->more_count < shared->more_capacity) {
        RuhnswMoreRow *more = &build->more[shared->more_count++];

        more->tid = *tid;
        more->next = rows->first_more;
        rows->first_more = (uint32)shared->more_count;
        rows->more++;
    } else {
        *full = true;
    }
    if (!*full)
        shared->rows_in_memory++;
    SpinLockRelease(&shared->mutex);
}

static bool
add_to_graph(RuhnswBuild *build, ItemPointer tid)
{
    bool duplicate;
    bool full;
    rv_status status;
    rv_node node;
    rv_error err;

    status = rv_hnsw_insert_or_find(build->graph, build->vector, &node, &duplicate, &err);
    if (status == RV_ERR_FULL)
        return false;
    ruv_check(status, &err, "ruhnsw build");
    /* A node of its own has room for its first row, unless others have filled it meanwhile. */
    add_shared_row(build, node, tid, &full);
    return !full;
}

void
ruhnsw_parallel_add(RuhnswBuild *build, ItemPointer tid)
{
    RuhnswParallel *parallel = build->parallel;
    RuhnswSharedBuild *shared = parallel->shared;

    if (pg_atomic_read_u32(&shared->full) == 0) {
        if (add_to_graph(build, tid))
            return;
        pg_atomic_write_u32(&shared->full, 1);
    }
    memcpy((char *)parallel->row + MAXALIGN(sizeof(uint32)), build->vector,
           sizeof(float) * build->meta.dim);
    sts_puttuple(parallel->spill, tid, parallel->row);
}

void
ruhnsw_parallel_progress(RuhnswBuild *build)
{
    uint64 rows = pg_atomic_add_fetch_u64(&build->parallel->shared->rows, 1);

    if (build->parallel->context)
        pgstat_progress_update_param(PROGRESS_CREATEIDX_TUPLES_DONE, (int64)rows);
}

static void
take_part(RuhnswBuild *build, IndexInfo *info)
{
    RuhnswParallel *parallel = build->parallel;
    RuhnswSharedBuild *shared = parallel->shared;
    TableScanDesc scan = table_beginscan_parallel(build->heap, scan_of(shared));
    double tuples;

    parallel->row = palloc0(row_size(build));
    parallel->row->t_len = (uint32)row_size(build);
    tuples = ruhnsw_build_scan(build, info, scan);
    sts_end_write(parallel->spill);
    SpinLockAcquire(&shared->mutex);
    shared->heap_tuples += tuples;
    shared->max_norm = Max(shared->max_norm, build->meta.max_norm);
    shared->broken_hot_chain = shared->broken_hot_chain || info->ii_BrokenHotChain;
    SpinLockRelease(&shared->mutex);
}

/* ---- a worker ---- */

extern PGDLLEXPORT void ruhnsw_parallel_main(dsm_segment *segment, shm_toc *toc);

void
ruhnsw_parallel_main(dsm_segment *segment, shm_toc *toc)
{
    RuhnswSharedBuild *shared = shm_toc_lookup(toc, KEY_SHARED, false);
    WalUsage *wal_usage = shm_toc_lookup(toc, KEY_WAL_USAGE, false);
    BufferUsage *buffer_usage = shm_toc_lookup(toc, KEY_BUFFER_USAGE, false);
    RuhnswParallel parallel = {.shared = shared};
    RuhnswBuild build = {.parallel = &parallel, .meta = shared->meta};
    IndexInfo *info;
    rv_error err;

    debug_query_string = shm_toc_lookup(toc, KEY_QUERY, true);
    pgstat_report_activity(STATE_RUNNING, debug_query_string);
    build.heap =
        table_open(shared->heap, shared->concurrent ? ShareUpdateExclusiveLock : ShareLock);
    build.index =
        index_open(shared->index, shared->concurrent ? RowExclusiveLock : AccessExclusiveLock);
    build.meta.max_norm = 0;
    build.nodes = shm_toc_lookup(toc, KEY_NODES, false);
    build.more = shm_toc_lookup(toc, KEY_MORE, false);
    SharedFileSetAttach(&shared->files, segment);
    parallel.spill =
        sts_attach(shm_toc_lookup(toc, KEY_SPILL, false), ParallelWorkerNumber + 1, &shared->files);
    ruhnsw_build_prepare(&build);
    ruv_check(rv_hnsw_attach(&build.allocator,
                             (void *)TYPEALIGN(ALIGNED, shm_toc_lookup(toc, KEY_GRAPH, false)),
                             ParallelWorkerNumber + 1, &build.graph, &err),
              &err, "ruhnsw build");
    info = BuildIndexInfo(build.index);
    info->ii_Concurrent = shared->concurrent;
    InstrStartParallelQuery();
    take_part(&build, info);
    InstrEndParallelQuery(&buffer_usage[ParallelWorkerNumber], &wal_usage[ParallelWorkerNumber]);
    index_close(build.index, shared->concurrent ? RowExclusiveLock : AccessExclusiveLock);
    table_close(build.heap, shared->concurrent ? ShareUpdateExclusiveLock : ShareLock);
}

/* ---- the leader ---- */

typedef struct SegmentPlan {
    uint64 nodes;
    Size graph;
    Size rows;
    Size more;
} SegmentPlan;

/*
 * A generous bound of the rows, since the segment cannot grow: twice the estimate when there are
 * statistics, else what the table's pages can hold. What is planned beyond maintenance_work_mem is
 * cut off.
 */
static uint64
most_rows(Relation heap)
{
    BlockNumber pages;
    double rows;
    double visible;

    estimate_rel_size(heap, NULL, &pages, &rows, &visible);
    if (heap->rd_rel->reltuples >= 0)
        return (uint64)(rows * 2.0) + 10000;
    return (uint64)RelationGetNumberOfBlocks(heap) * MaxHeapTuplesPerPage + 1;
}

static SegmentPlan
plan_segment(RuhnswBuild *build, const rv_hnsw_options *options)
{
    uint64 most = Min(most_rows(build->heap), (uint64)UINT32_MAX - 1);
    SegmentPlan plan = {0};
    uint64 low = 1, high = most + 1;
    Size room;

    plan.more = Min(build->memory_limit / MORE_SHARE, most * sizeof(RuhnswMoreRow));
    plan.more = Max(plan.more, sizeof(RuhnswMoreRow));
    room = build->memory_limit - plan.more;
    while (high - low > 1) {
        uint64 middle = low + (high - low) / 2;

        if (rv_hnsw_shared_size(options, middle) + middle * RUHNSW_BUILD_BYTES_PER_NODE <= room)
            low = middle;
        else
            high = middle;
    }
    plan.nodes = low;
    plan.graph = rv_hnsw_shared_size(options, low);
    plan.rows = low * sizeof(RuhnswNodeRows);
    return plan;
}

static void
estimate_key(ParallelContext *context, Size size)
{
    shm_toc_estimate_chunk(&context->estimator, size);
    shm_toc_estimate_keys(&context->estimator, 1);
}

static void *
put_key(ParallelContext *context, uint64 key, Size size)
{
    void *memory = shm_toc_allocate(context->toc, size);

    shm_toc_insert(context->toc, key, memory);
    return memory;
}

static void
make_shared(RuhnswBuild *build, IndexInfo *info, Size size, const SegmentPlan *plan)
{
    RuhnswParallel *parallel = build->parallel;
    RuhnswSharedBuild *shared = put_key(parallel->context, KEY_SHARED, size);

    memset(shared, 0, sizeof(*shared));
    shared->heap = RelationGetRelid(build->heap);
    shared->index = RelationGetRelid(build->index);
    shared->concurrent = info->ii_Concurrent;
    shared->participants = parallel->context->nworkers + 1;
    shared->meta = build->meta;
    shared->more_capacity = plan->more / sizeof(RuhnswMoreRow);
    pg_atomic_init_u32(&shared->full, 0);
    pg_atomic_init_u64(&shared->rows, 0);
    SpinLockInit(&shared->mutex);
    SharedFileSetInit(&shared->files, parallel->context->seg);
    table_parallelscan_initialize(build->heap, scan_of(shared), parallel->snapshot);
    parallel->shared = shared;
}

static void
fill_segment(RuhnswBuild *build, IndexInfo *info, Size shared_size, const SegmentPlan *plan,
             const rv_hnsw_options *options)
{
    RuhnswParallel *parallel = build->parallel;
    ParallelContext *context = parallel->context;
    int participants = context->nworkers + 1;
    rv_error err;

    make_shared(build, info, shared_size, plan);
    build->nodes = put_key(context, KEY_NODES, plan->rows);
    memset(build->nodes, 0, plan->rows);
    build->more = put_key(context, KEY_MORE, plan->more);
    parallel->spill =
        sts_initialize(put_key(context, KEY_SPILL, sts_estimate(participants)), participants, 0,
                       sizeof(ItemPointerData), 0, &parallel->shared->files, "ruhnsw_build");
    parallel->buffer_usage =
        put_key(context, KEY_BUFFER_USAGE, sizeof(BufferUsage) * context->nworkers);
    parallel->wal_usage = put_key(context, KEY_WAL_USAGE, sizeof(WalUsage) * context->nworkers);
    if (debug_query_string)
        strcpy(put_key(context, KEY_QUERY, strlen(debug_query_string) + 1), debug_query_string);
    ruv_check(rv_hnsw_create_shared(
                  &build->allocator, options,
                  (void *)TYPEALIGN(ALIGNED, put_key(context, KEY_GRAPH, plan->graph + ALIGNED)),
                  plan->graph, &build->graph, &err),
              &err, "ruhnsw build");
}

static void
end_parallel(RuhnswBuild *build)
{
    RuhnswParallel *parallel = build->parallel;

    if (IsMVCCSnapshot(parallel->snapshot))
        UnregisterSnapshot(parallel->snapshot);
    DestroyParallelContext(parallel->context);
    ExitParallelMode();
    pfree(parallel);
    build->parallel = NULL;
}

/* Sets up the segment and starts the workers; false when there are none to be had. */
static bool
start_parallel(RuhnswBuild *build, IndexInfo *info, const rv_hnsw_options *options, int workers)
{
    SegmentPlan plan = plan_segment(build, options);
    RuhnswParallel *parallel = palloc0(sizeof(RuhnswParallel));
    ParallelContext *context;
    Size shared_size;

    build->parallel = parallel;
    EnterParallelMode();
    context = CreateParallelContext("ruvector", "ruhnsw_parallel_main", workers);
    parallel->context = context;
    parallel->snapshot =
        info->ii_Concurrent ? RegisterSnapshot(GetTransactionSnapshot()) : SnapshotAny;
    shared_size = add_size(BUFFERALIGN(sizeof(RuhnswSharedBuild)),
                           table_parallelscan_estimate(build->heap, parallel->snapshot));
    estimate_key(context, shared_size);
    estimate_key(context, plan.graph + ALIGNED);
    estimate_key(context, plan.rows);
    estimate_key(context, plan.more);
    estimate_key(context, sts_estimate(workers + 1));
    estimate_key(context, sizeof(BufferUsage) * workers);
    estimate_key(context, sizeof(WalUsage) * workers);
    if (debug_query_string)
        estimate_key(context, strlen(debug_query_string) + 1);
    InitializeParallelDSM(context);
    if (context->seg == NULL) {
        end_parallel(build);
        return false;
    }
    fill_segment(build, info, shared_size, &plan, options);
    LaunchParallelWorkers(context);
    if (context->nworkers_launched > 0)
        return true;
    rv_hnsw_destroy(build->graph);
    build->graph = NULL;
    end_parallel(build);
    return false;
}

bool
ruhnsw_parallel_load(RuhnswBuild *build, IndexInfo *info, const rv_hnsw_options *options,
                     double *heap_tuples)
{
    int workers =
        plan_create_index_workers(RelationGetRelid(build->heap), RelationGetRelid(build->index));
    RuhnswParallel *parallel;

    if (workers <= 0 || !start_parallel(build, info, options, workers))
        return false;
    parallel = build->parallel;
    take_part(build, info);
    WaitForParallelWorkersToAttach(parallel->context);
    WaitForParallelWorkersToFinish(parallel->context);
    for (int i = 0; i < parallel->context->nworkers_launched; i++)
        InstrAccumParallelQuery(&parallel->buffer_usage[i], &parallel->wal_usage[i]);
    *heap_tuples = parallel->shared->heap_tuples;
    build->rows = (int64)pg_atomic_read_u64(&parallel->shared->rows);
    build->rows_in_memory = (int64)parallel->shared->rows_in_memory;
    build->more_count = parallel->shared->more_count;
    build->meta.max_norm = Max(build->meta.max_norm, parallel->shared->max_norm);
    info->ii_BrokenHotChain = parallel->shared->broken_hot_chain;
    pgstat_progress_update_param(PROGRESS_CREATEIDX_TUPLES_DONE, build->rows);
    return true;
}

void
ruhnsw_parallel_spilled(RuhnswBuild *build)
{
    RuhnswParallel *parallel = build->parallel;
    ItemPointerData tid;
    MinimalTuple row;

    sts_begin_parallel_scan(parallel->spill);
    while ((row = sts_parallel_scan_next(parallel->spill, &tid)) != NULL) {
        CHECK_FOR_INTERRUPTS();
        memcpy(build->vector, (char *)row + MAXALIGN(sizeof(uint32)),
               sizeof(float) * build->meta.dim);
        ruhnsw_build_insert(build, &tid);
    }
    sts_end_parallel_scan(parallel->spill);
}

void
ruhnsw_parallel_end(RuhnswBuild *build)
{
    end_parallel(build);
}
