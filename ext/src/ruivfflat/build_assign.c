/*
 * build_assign.c - every row of the table with the number of its list, sorted.
 *
 * Parallel as CREATE INDEX of btree: the leader and its workers share one scan of the table; each
 * compares its rows with all centres, some at a time, and puts them into a sort of its own; the
 * leader merges the sorted runs. How many workers there are is the planner's rule for btree (table
 * size, max_parallel_maintenance_workers, parallel safety of expressions).
 *
 * Shared memory: RuivfAssignShared, then the table scan, the sort and the centres, each under its
 * key. The counters are added up under the spinlock; centres are read only.
 */
#include "ruivfflat/build.h"

#include "opclass.h"

#include <math.h>

#include "access/parallel.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "commands/progress.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#define KEY_SHARED UINT64CONST(0xA000000000000001)
#define KEY_SORT UINT64CONST(0xA000000000000002)
#define KEY_CENTRES UINT64CONST(0xA000000000000003)

#define PROGRESS_EVERY 1024
#define BATCH_ROWS 64 /* compared with the centres together */

typedef struct RuivfAssignShared {
    Oid heap_oid;
    Oid index_oid;
    bool concurrent;
    int participants; /* as asked for: what each takes of the memory follows */
    RuivfMetaData meta;
    ConditionVariable done;
    slock_t mutex;
    int finished;
    double heap_tuples;
    double rows;
    float max_norm;
} RuivfAssignShared;

#define ScanOf(shared)                                                                             \
    ((ParallelTableScanDesc)((char *)(shared) + BUFFERALIGN(sizeof(RuivfAssignShared))))

/* One participant, or the only one. */
typedef struct Assign {
    Relation heap;
    Relation index;
    const RuivfMetaData *meta;
    const float *centres;
    int batched;
    float *vectors; /* BATCH_ROWS x dim */
    ItemPointerData tids[BATCH_ROWS];
    bytea *value; /* of a vector */
    TupleTableSlot *slot;
    Tuplesortstate *sort;
    MemoryContext row_context;
    bool reports; /* progress */
    double rows;
    float max_norm;
} Assign;

struct RuivfSorted {
    Tuplesortstate *sort;
    TupleTableSlot *slot;
    int dim;
    ParallelContext *parallel; /* NULL: there were no workers */
    Snapshot snapshot;         /* registered for the workers, or SnapshotAny */
};

static TupleDesc
sorted_tuple(void)
{
    TupleDesc desc = CreateTemplateTupleDesc(3);

    TupleDescInitEntry(desc, 1, "list", INT4OID, -1, 0);
    TupleDescInitEntry(desc, 2, "row", TIDOID, -1, 0);
    TupleDescInitEntry(desc, 3, "vector", BYTEAOID, -1, 0);
    return desc;
}

static Tuplesortstate *
begin_sort(TupleDesc desc, int memory, SortCoordinate coordinate)
{
    AttrNumber columns[] = {1, 2};
    Oid operators[] = {Int4LessOperator, TIDLessOperator};
    Oid collations[] = {InvalidOid, InvalidOid};
    bool nulls_first[] = {false, false};

    return tuplesort_begin_heap(desc, 2, columns, operators, collations, nulls_first,
                                Max(memory, 64), coordinate, 0);
}

static void
sort_row(Assign *assign, uint32 list, ItemPointer tid, const float *vector)
{
    int dim = assign->meta->dim;

    memcpy(VARDATA(assign->value), vector, sizeof(float) * dim);
    ExecClearTuple(assign->slot);
    assign->slot->tts_values[0] = Int32GetDatum((int32)list);
    assign->slot->tts_values[1] = PointerGetDatum(tid);
    assign->slot->tts_values[2] = PointerGetDatum(assign->value);
    memset(assign->slot->tts_isnull, 0, 3 * sizeof(bool));
    ExecStoreVirtualTuple(assign->slot);
    tuplesort_puttupleslot(assign->sort, assign->slot);
    assign->rows++;
    if (assign->reports && fmod(assign->rows, PROGRESS_EVERY) == 0)
        pgstat_progress_update_param(PROGRESS_CREATEIDX_TUPLES_DONE, (int64)assign->rows);
}

static void
sort_batch(Assign *assign)
{
    int dim = assign->meta->dim;
    uint32 lists[BATCH_ROWS];
    float distances[BATCH_ROWS];

    rv_nearest_centres((rv_metric)assign->meta->metric, assign->vectors, assign->batched,
                       assign->centres, assign->meta->lists, dim, lists, distances);
    for (int i = 0; i < assign->batched; i++)
        sort_row(assign, lists[i], &assign->tids[i], assign->vectors + (Size)i * dim);
    assign->batched = 0;
}

static void
assign_row(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool alive, void *arg)
{
    Assign *assign = arg;
    int dim = assign->meta->dim;
    float *vector = assign->vectors + (Size)assign->batched * dim;
    MemoryContext former;
    bool indexed;

    if (isnull[0])
        return;
    former = MemoryContextSwitchTo(assign->row_context);
    indexed =
        ruv_index_vector((rv_metric)assign->meta->metric, dim, DatumGetRuVector(values[0]), vector);
    MemoryContextSwitchTo(former);
    MemoryContextReset(assign->row_context);
    if (!indexed)
        return;
    assign->max_norm = Max(assign->max_norm, ruivf_norm_bound(vector, dim));
    assign->tids[assign->batched++] = *tid;
    if (assign->batched == BATCH_ROWS)
        sort_batch(assign);
}

/* Reads the participant's part of the table into its sort; returns the rows of the table seen. */
static double
run_assign(Assign *assign, IndexInfo *info, TableScanDesc scan)
{
    double seen;

    assign->value = palloc0(VARHDRSZ + sizeof(float) * assign->meta->dim);
    SET_VARSIZE(assign->value, VARHDRSZ + sizeof(float) * assign->meta->dim);
    assign->vectors = palloc(sizeof(float) * BATCH_ROWS * assign->meta->dim);
    assign->slot = MakeSingleTupleTableSlot(sorted_tuple(), &TTSOpsVirtual);
    assign->row_context =
        AllocSetContextCreate(CurrentMemoryContext, "ruivfflat build row", ALLOCSET_DEFAULT_SIZES);
    seen = table_index_build_scan(assign->heap, assign->index, info, true, assign->reports,
                                  assign_row, assign, scan);
    sort_batch(assign);
    if (assign->reports)
        pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUIVF_PHASE_SORT);
    tuplesort_performsort(assign->sort);
    MemoryContextDelete(assign->row_context);
    ExecDropSingleTupleTableSlot(assign->slot);
    pfree(assign->value);
    pfree(assign->vectors);
    return seen;
}

/* ---- parallel ---- */

/* A participant's part of a parallel build. */
static void
take_part(RuivfAssignShared *shared, Sharedsort *sharedsort, const float *centres, Relation heap,
          Relation index, bool reports)
{
    SortCoordinateData coordinate = {
        .isWorker = true, .nParticipants = -1, .sharedsort = sharedsort};
    Assign assign = {.heap = heap,
                     .index = index,
                     .meta = &shared->meta,
                     .centres = centres,
                     .reports = reports};
    IndexInfo *info = BuildIndexInfo(index);
    double seen;

    info->ii_Concurrent = shared->concurrent;
    assign.sort =
        begin_sort(sorted_tuple(), maintenance_work_mem / shared->participants, &coordinate);
    seen = run_assign(&assign, info, table_beginscan_parallel(heap, ScanOf(shared)));
    SpinLockAcquire(&shared->mutex);
    shared->finished++;
    shared->heap_tuples += seen;
    shared->rows += assign.rows;
    shared->max_norm = Max(shared->max_norm, assign.max_norm);
    SpinLockRelease(&shared->mutex);
    ConditionVariableSignal(&shared->done);
    tuplesort_end(assign.sort);
}

extern PGDLLEXPORT void ruivf_build_worker(dsm_segment *segment, shm_toc *toc);

void
ruivf_build_worker(dsm_segment *segment, shm_toc *toc)
{
    RuivfAssignShared *shared = shm_toc_lookup(toc, KEY_SHARED, false);
    Sharedsort *sharedsort = shm_toc_lookup(toc, KEY_SORT, false);
    const float *centres = shm_toc_lookup(toc, KEY_CENTRES, false);
    LOCKMODE heap_lock = shared->concurrent ? ShareUpdateExclusiveLock : ShareLock;
    LOCKMODE index_lock = shared->concurrent ? RowExclusiveLock : AccessExclusiveLock;
    Relation heap = table_open(shared->heap_oid, heap_lock);
    Relation index = index_open(shared->index_oid, index_lock);

    tuplesort_attach_shared(sharedsort, segment);
    take_part(shared, sharedsort, centres, heap, index, false);
    index_close(index, index_lock);
    table_close(heap, heap_lock);
}

static RuivfAssignShared *
make_shared(RuivfBuild *build, RuivfSorted *sorted, int participants)
{
    ParallelContext *parallel = sorted->parallel;
    Size scan_size = table_parallelscan_estimate(build->heap, sorted->snapshot);
    Size shared_size = BUFFERALIGN(sizeof(RuivfAssignShared)) + scan_size;
    Size sort_size = tuplesort_estimate_shared(participants);
    Size centres_size = sizeof(float) * (Size)build->meta.lists * build->meta.dim;
    RuivfAssignShared *shared;
    Sharedsort *sharedsort;
    float *centres;

    shm_toc_estimate_chunk(&parallel->estimator, shared_size);
    shm_toc_estimate_chunk(&parallel->estimator, sort_size);
    shm_toc_estimate_chunk(&parallel->estimator, centres_size);
    shm_toc_estimate_keys(&parallel->estimator, 3);
    InitializeParallelDSM(parallel);
    if (parallel->seg == NULL)
        return NULL;
    shared = shm_toc_allocate(parallel->toc, shared_size);
    memset(shared, 0, sizeof(*shared));
    shared->heap_oid = RelationGetRelid(build->heap);
    shared->index_oid = RelationGetRelid(build->index);
    shared->concurrent = build->info->ii_Concurrent;
    shared->participants = participants;
    shared->meta = build->meta;
    ConditionVariableInit(&shared->done);
    SpinLockInit(&shared->mutex);
    table_parallelscan_initialize(build->heap, ScanOf(shared), sorted->snapshot);
    sharedsort = shm_toc_allocate(parallel->toc, sort_size);
    tuplesort_initialize_shared(sharedsort, participants, parallel->seg);
    centres = shm_toc_allocate(parallel->toc, centres_size);
    memcpy(centres, build->centres, centres_size);
    shm_toc_insert(parallel->toc, KEY_SHARED, shared);
    shm_toc_insert(parallel->toc, KEY_SORT, sharedsort);
    shm_toc_insert(parallel->toc, KEY_CENTRES, centres);
    return shared;
}

static void
end_parallel(RuivfSorted *sorted)
{
    WaitForParallelWorkersToFinish(sorted->parallel);
    if (IsMVCCSnapshot(sorted->snapshot))
        UnregisterSnapshot(sorted->snapshot);
    DestroyParallelContext(sorted->parallel);
    ExitParallelMode();
    sorted->parallel = NULL;
}

static void
wait_for_participants(RuivfAssignShared *shared, int participants)
{
    for (;;) {
        int finished;

        SpinLockAcquire(&shared->mutex);
        finished = shared->finished;
        SpinLockRelease(&shared->mutex);
        if (finished == participants)
            break;
        ConditionVariableSleep(&shared->done, WAIT_EVENT_PARALLEL_CREATE_INDEX_SCAN);
    }
    ConditionVariableCancelSleep();
}

/* False when no worker could be had. */
static bool
assign_parallel(RuivfBuild *build, RuivfSorted *sorted, int workers)
{
    SortCoordinateData coordinate = {0};
    RuivfAssignShared *shared;
    Sharedsort *sharedsort;

    EnterParallelMode();
    sorted->parallel = CreateParallelContext("ruvector", "ruivf_build_worker", workers);
    sorted->snapshot =
        build->info->ii_Concurrent ? RegisterSnapshot(GetTransactionSnapshot()) : SnapshotAny;
    shared = make_shared(build, sorted, workers + 1);
    if (shared != NULL)
        LaunchParallelWorkers(sorted->parallel);
    if (shared == NULL || sorted->parallel->nworkers_launched == 0) {
        end_parallel(sorted);
        return false;
    }
    sharedsort = shm_toc_lookup(sorted->parallel->toc, KEY_SORT, false);
    coordinate.nParticipants = sorted->parallel->nworkers_launched + 1;
    coordinate.sharedsort = sharedsort;
    take_part(shared, sharedsort, build->centres, build->heap, build->index, true);
    WaitForParallelWorkersToAttach(sorted->parallel);
    wait_for_participants(shared, coordinate.nParticipants);
    build->heap_tuples = shared->heap_tuples;
    build->rows = shared->rows;
    build->meta.max_norm = shared->max_norm;
    sorted->sort = begin_sort(sorted_tuple(), maintenance_work_mem, &coordinate);
    tuplesort_performsort(sorted->sort);
    return true;
}

/* ---- alone ---- */

static void
assign_alone(RuivfBuild *build, RuivfSorted *sorted)
{
    Assign assign = {.heap = build->heap,
                     .index = build->index,
                     .meta = &build->meta,
                     .centres = build->centres,
                     .reports = true};

    assign.sort = begin_sort(sorted_tuple(), maintenance_work_mem, NULL);
    build->heap_tuples = run_assign(&assign, build->info, NULL);
    build->rows = assign.rows;
    build->meta.max_norm = assign.max_norm;
    sorted->sort = assign.sort;
}

RuivfSorted *
ruivf_assign_rows(RuivfBuild *build)
{
    RuivfSorted *sorted = palloc0(sizeof(RuivfSorted));
    int workers =
        plan_create_index_workers(RelationGetRelid(build->heap), RelationGetRelid(build->index));

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUIVF_PHASE_ASSIGN);
    sorted->dim = build->meta.dim;
    if (workers == 0 || !assign_parallel(build, sorted, workers))
        assign_alone(build, sorted);
    sorted->slot = MakeSingleTupleTableSlot(sorted_tuple(), &TTSOpsMinimalTuple);
    return sorted;
}

bool
ruivf_next_sorted(RuivfSorted *sorted, uint32 *list, ItemPointer tid, float *vector)
{
    bool isnull;
    struct varlena *value;
    Datum datum;

    if (!tuplesort_gettupleslot(sorted->sort, true, false, sorted->slot, NULL))
        return false;
    *list = (uint32)DatumGetInt32(slot_getattr(sorted->slot, 1, &isnull));
    *tid = *(ItemPointer)DatumGetPointer(slot_getattr(sorted->slot, 2, &isnull));
    datum = slot_getattr(sorted->slot, 3, &isnull);
    value = (struct varlena *)DatumGetPointer(datum);
    if (VARSIZE_ANY_EXHDR(value) != sizeof(float) * sorted->dim)
        elog(ERROR, "a sorted vector has %zu bytes", (Size)VARSIZE_ANY_EXHDR(value));
    memcpy(vector, VARDATA_ANY(value), sizeof(float) * sorted->dim);
    return true;
}

void
ruivf_end_sorted(RuivfSorted *sorted)
{
    ExecDropSingleTupleTableSlot(sorted->slot);
    tuplesort_end(sorted->sort);
    if (sorted->parallel != NULL)
        end_parallel(sorted);
    pfree(sorted);
}
