/*
 * index_rows.c - see index_rows.h.
 *
 * In an exact pass each row is fetched, detoasted and compared with every query while it is in the
 * cache, in blocks: the price of a row is shared by the queries.
 */
#include "index_rows.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "utils/snapmgr.h"

/* Rows between two questions whether a pass may go on. */
#define ROWS_BETWEEN 1024

/* The roots of the chains of a heap page. */
typedef struct ChainRoots {
    BlockNumber block; /* that they are of */
    OffsetNumber offsets[MaxHeapTuplesPerPage];
} ChainRoots;

/* Where the index has the row of a slot: after a HOT update that is the root of its chain, not the
 * tuple itself. The root of a tuple that a snapshot sees stays what it is. */
static ItemPointerData
place_in_index(TupleTableSlot *slot, ChainRoots *roots)
{
    ItemPointerData place = slot->tts_tid;
    BufferHeapTupleTableSlot *heap = (BufferHeapTupleTableSlot *)slot;
    OffsetNumber root;

    if (!TTS_IS_BUFFERTUPLE(slot) || !HeapTupleIsHeapOnly(heap->base.tuple))
        return place;
    if (roots->block != ItemPointerGetBlockNumber(&place)) {
        LockBuffer(heap->buffer, BUFFER_LOCK_SHARE);
        heap_get_root_tuples(BufferGetPage(heap->buffer), roots->offsets);
        LockBuffer(heap->buffer, BUFFER_LOCK_UNLOCK);
        roots->block = ItemPointerGetBlockNumber(&place);
    }
    root = roots->offsets[ItemPointerGetOffsetNumber(&place) - 1];
    if (OffsetNumberIsValid(root))
        ItemPointerSetOffsetNumber(&place, root);
    return place;
}

bool
ruv_index_rows(Relation table, Relation index, const RuvIndexIdentity *identity, ruv_each_row each,
               ruv_may_go_on go_on, void *ctx)
{
    IndexInfo *info = BuildIndexInfo(index);
    EState *estate = CreateExecutorState();
    ExprContext *econtext = GetPerTupleExprContext(estate);
    ExprState *predicate = ExecPrepareQual(info->ii_Predicate, estate);
    TupleTableSlot *slot = table_slot_create(table, NULL);
    TableScanDesc scan = table_beginscan(table, GetActiveSnapshot(), 0, NULL);
    ChainRoots roots = {.block = InvalidBlockNumber};
    bool complete = true;
    uint64 seen = 0;

    econtext->ecxt_scantuple = slot;
    while (complete && table_scan_getnextslot(scan, ForwardScanDirection, slot)) {
        MemoryContext former = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
        Datum values[INDEX_MAX_KEYS];
        bool nulls[INDEX_MAX_KEYS];

        CHECK_FOR_INTERRUPTS();
        if (ExecQual(predicate, econtext)) {
            const float *vector;

            FormIndexDatum(info, slot, estate, values, nulls);
            vector = nulls[0] ? NULL : ruv_index_prepare(identity, values[0]);
            if (vector != NULL) {
                ItemPointerData place = place_in_index(slot, &roots);

                each(ctx, vector, &place);
            }
        }
        MemoryContextSwitchTo(former);
        ResetExprContext(econtext);
        if (go_on != NULL && ++seen % ROWS_BETWEEN == 0)
            complete = go_on(ctx);
    }
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(slot);
    FreeExecutorState(estate);
    return complete;
}

/* ---- the nearest of them --------------------------------------------------------------------- */

/* Rows on their way to the comparison, block by block. */
typedef struct Feed {
    rv_exact *exact;
    int dim;
    float *vectors; /* RV_EXACT_BLOCK x dim */
    const float *rows[RV_EXACT_BLOCK];
    uint64 ids[RV_EXACT_BLOCK];
    int count;
    ruv_may_go_on go_on;
    void *ctx;
} Feed;

static void
feed_block(Feed *feed)
{
    rv_error err = {0};

    if (feed->count > 0)
        ruv_check(rv_exact_feed(feed->exact, feed->rows, feed->ids, (uint32_t)feed->count, &err),
                  &err, "finding true neighbours");
    feed->count = 0;
}

static void
feed_row(void *ctx, const float *vector, ItemPointer tid)
{
    Feed *feed = ctx;
    float *copy = feed->vectors + (Size)feed->count * feed->dim;

    memcpy(copy, vector, sizeof(float) * feed->dim);
    feed->rows[feed->count] = copy;
    feed->ids[feed->count] = ruv_row_id(tid);
    if (++feed->count == RV_EXACT_BLOCK)
        feed_block(feed);
}

static bool
feed_goes_on(void *ctx)
{
    const Feed *feed = ctx;

    return feed->go_on(feed->ctx);
}

rv_exact *
ruv_exact_pass(Relation table, Relation index, const RuvIndexIdentity *identity,
               const float *queries, int count, uint32 width, ruv_may_go_on go_on, void *ctx)
{
    Feed feed = {.dim = identity->dim, .go_on = go_on, .ctx = ctx};
    rv_allocator *allocator = palloc(sizeof(*allocator)); /* what is returned keeps it */
    rv_error err = {0};
    bool complete;

    ruv_context_allocator(CurrentMemoryContext, allocator);
    ruv_check(rv_exact_create(allocator, identity->metric, identity->metric == RV_METRIC_COSINE,
                              queries, (uint32_t)count, (uint32_t)identity->dim, width, &feed.exact,
                              &err),
              &err, "finding true neighbours");
    feed.vectors = palloc(sizeof(float) * identity->dim * RV_EXACT_BLOCK);
    complete = ruv_index_rows(table, index, identity, feed_row, go_on != NULL ? feed_goes_on : NULL,
                              &feed);
    if (complete)
        feed_block(&feed);
    pfree(feed.vectors);
    if (complete)
        return feed.exact;
    rv_exact_destroy(feed.exact);
    return NULL;
}
