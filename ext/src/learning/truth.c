/*
 * truth.c - the true neighbours of a batch of searches.
 *
 * They come from one pass over the table for the whole batch: each row is fetched, detoasted and
 * compared with every query while it is in the cache. So the price of a row is shared, and a larger
 * batch is cheaper per search. Expression indexes and partial indexes are honoured: the rows and
 * values are those that the index would hold.
 *
 * On a table so large that even a small batch would take longer than RUV_PASS_SECONDS the truth is
 * estimated by a search of RUV_REFERENCE_EF instead, and the samples say so (exact = false).
 *
 * Somebody who waits for a stronger lock on the table (DDL) does not wait for a whole pass: it
 * looks for waiters and stops early.
 */
#include "learning/truth.h"
#include "learning/linking.h"

#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define RUV_PASS_SECONDS 1.0
#define RUV_MIN_BATCH 32
#define RUV_REFERENCE_EF 2000
/* Measured on one core of 2020: fetching a row, and one element of one comparison. Only the size of
 * a batch depends on them. */
#define RUV_ROW_SECONDS 0.6e-6
#define RUV_ELEMENT_SECONDS 0.12e-9

/* The rows of the index, block by block. */
typedef struct RowFeed {
    rv_exact *exact;
    const RuvIndexIdentity *identity;
    float *vectors; /* RV_EXACT_BLOCK x dim */
    const float *rows[RV_EXACT_BLOCK];
    uint64 ids[RV_EXACT_BLOCK];
    int count;
} RowFeed;

double
ruv_table_rows(Relation table)
{
    double rows = table->rd_rel->reltuples;

    /* Never analysed: by size, as for rows of a hundred bytes. */
    if (rows < 0)
        rows = (double)RelationGetNumberOfBlocks(table) * (BLCKSZ / 128);
    return Max(rows, 1);
}

static bool
exact_affordable(Relation table, int dim)
{
    return ruv_table_rows(table) * (RUV_ROW_SECONDS + RUV_MIN_BATCH * dim * RUV_ELEMENT_SECONDS) <=
           RUV_PASS_SECONDS * 4;
}

int
ruv_batch_limit(Relation table, int dim)
{
    double rows = ruv_table_rows(table);
    double queries;

    if (!exact_affordable(table, dim))
        return RUV_MIN_BATCH;
    queries = (RUV_PASS_SECONDS - rows * RUV_ROW_SECONDS) / (rows * dim * RUV_ELEMENT_SECONDS);
    return (int)Max(RUV_MIN_BATCH, Min(queries, RUV_MAX_BATCH));
}

/* ---- truth by a pass over the table -------------------------------------------------------- */

static void
feed_block(RowFeed *feed)
{
    rv_error err = {0};

    if (feed->count > 0)
        ruv_check(rv_exact_feed(feed->exact, feed->rows, feed->ids, (uint32_t)feed->count, &err),
                  &err, "finding true neighbours");
    feed->count = 0;
}

static void
feed_row(RowFeed *feed, Datum value, ItemPointer tid)
{
    const float *vector = ruv_index_prepare(feed->identity, value);
    int dim = feed->identity->dim;
    float *copy = feed->vectors + (size_t)feed->count * dim;

    if (vector == NULL)
        return;
    memcpy(copy, vector, sizeof(float) * dim);
    feed->rows[feed->count] = copy;
    feed->ids[feed->count] =
        ((uint64)ItemPointerGetBlockNumber(tid) << 16) | ItemPointerGetOffsetNumber(tid);
    if (++feed->count == RV_EXACT_BLOCK)
        feed_block(feed);
}

/*
 * Whether somebody waits for a lock that conflicts with ours. PostgreSQL does not tell the holder
 * of a weak lock; but a request for another weak mode is refused while a conflicting request waits.
 */
static bool
waited_for(Relation relation)
{
    if (!ConditionalLockRelation(relation, RowShareLock))
        return true;
    UnlockRelation(relation, RowShareLock);
    return false;
}

bool
ruv_somebody_waits(Relation table, Relation index)
{
    ruv_worker_breathe();
    return waited_for(table) || waited_for(index);
}

/* Feeds every row that the index holds. False: stopped early. */
static bool
feed_table(RowFeed *feed, Relation table, Relation index)
{
    IndexInfo *info = BuildIndexInfo(index);
    EState *estate = CreateExecutorState();
    ExprContext *econtext = GetPerTupleExprContext(estate);
    ExprState *predicate = ExecPrepareQual(info->ii_Predicate, estate);
    TupleTableSlot *slot = table_slot_create(table, NULL);
    TableScanDesc scan = table_beginscan(table, GetActiveSnapshot(), 0, NULL);
    bool complete = true;
    uint64 seen = 0;

    econtext->ecxt_scantuple = slot;
    while (complete && table_scan_getnextslot(scan, ForwardScanDirection, slot)) {
        Datum values[INDEX_MAX_KEYS];
        bool nulls[INDEX_MAX_KEYS];
        MemoryContext former = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);

        if (ExecQual(predicate, econtext)) {
            FormIndexDatum(info, slot, estate, values, nulls);
            if (!nulls[0])
                feed_row(feed, values[0], &slot->tts_tid);
        }
        MemoryContextSwitchTo(former);
        ResetExprContext(econtext);
        if (++seen % 1024 == 0)
            complete = !ruv_somebody_waits(table, index);
    }
    feed_block(feed);
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(slot);
    FreeExecutorState(estate);
    return complete;
}

/* True neighbours that a search is looked at for. */
static uint32
wanted(const RuvIndexState *state, const RuvSample *sample)
{
    return sample->for_links ? Max(sample->head.k, state->linking.answer.rows_per_query)
                             : sample->head.k;
}

static uint32
widest(const RuvIndexState *state, RuvSample **batch, int count)
{
    uint32 width = 1;

    for (int i = 0; i < count; i++)
        width = Max(width, wanted(state, batch[i]));
    return width;
}

static bool
truth_by_pass(RuvTruth *truth, RuvIndexState *state, Relation table, Relation index,
              RuvSample **batch, int count)
{
    int dim = state->identity.dim;
    float *queries = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * dim * count);
    rv_exact_hit *hits = palloc(sizeof(rv_exact_hit) * truth->width);
    RowFeed feed = {0};
    rv_allocator allocator;
    rv_error err = {0};
    bool complete;

    for (int i = 0; i < count; i++)
        memcpy(queries + (size_t)i * dim, batch[i]->query, sizeof(float) * dim);
    ruv_context_allocator(CurrentMemoryContext, &allocator);
    ruv_check(rv_exact_create(&allocator, state->identity.metric,
                              state->identity.metric == RV_METRIC_COSINE, queries, (uint32_t)count,
                              (uint32_t)dim, truth->width, &feed.exact, &err),
              &err, "finding true neighbours");
    feed.identity = &state->identity;
    feed.vectors = palloc(sizeof(float) * dim * RV_EXACT_BLOCK);
    complete = feed_table(&feed, table, index);
    for (int i = 0; complete && i < count; i++) {
        uint32 found = rv_exact_result(feed.exact, (uint32_t)i, hits);

        truth->found[i] = Min(found, wanted(state, batch[i]));
        for (uint32 j = 0; j < truth->found[i]; j++) {
            truth->distances[(size_t)i * truth->width + j] = hits[j].distance;
            truth->ids[(size_t)i * truth->width + j] = hits[j].id;
        }
    }
    rv_exact_destroy(feed.exact);
    truth->exact = true;
    return complete;
}

static void
truth_by_search(RuvTruth *truth, const RuvIndexState *state, Relation index, RuvSample **batch,
                int count)
{
    rv_hit *hits = palloc(sizeof(rv_hit) * truth->width);

    for (int i = 0; i < count; i++) {
        int found = ruv_index_search(index, batch[i]->query, (int)wanted(state, batch[i]),
                                     RUV_REFERENCE_EF, hits);

        truth->found[i] = (uint32)Max(found, 0);
        for (int j = 0; j < found; j++) {
            truth->distances[(size_t)i * truth->width + j] = hits[j].distance;
            truth->ids[(size_t)i * truth->width + j] = hits[j].node;
        }
        ruv_worker_breathe();
    }
    truth->exact = false;
}

bool
ruv_find_truth(RuvTruth *truth, RuvIndexState *state, Relation table, Relation index,
               RuvSample **batch, int count)
{
    Size cells;

    truth->width = widest(state, batch, count);
    cells = (Size)truth->width * (Size)count;
    truth->distances = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * cells);
    truth->ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * cells);
    truth->found = palloc0(sizeof(uint32) * count);
    if (exact_affordable(table, state->identity.dim))
        return truth_by_pass(truth, state, table, index, batch, count);
    truth_by_search(truth, state, index, batch, count);
    return true;
}
