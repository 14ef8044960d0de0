/*
 * trace.c - what a batch of searches should have found, and the least effort that finds it.
 *
 * The truth comes from one pass over the table for the whole batch: each row is fetched, detoasted
 * and compared with every query while it is in the cache. So the price of a row is shared, and a
 * larger batch is cheaper per search. Expression indexes and partial indexes are honoured: the rows
 * and values are those that the index would hold. Their functions are the owner's, so the caller
 * runs all of this as the table's owner (as_owner.h).
 *
 * On a table so large that even a small batch would take longer than RUV_PASS_SECONDS the truth is
 * estimated by a search of RUV_REFERENCE_EF instead, and the samples say so (exact = false).
 *
 * Each search is then traced over the index's own pages (rv_beam_trace), twice: from the index's
 * own entry, and from the entry points that the memory of queries gives for it. Limits of a trace:
 * slack 3, ef 4,000, and a bound of the access method on the distances (index_api.c); what is not
 * found within them counts as out of reach, and calibration treats it so.
 *
 * Somebody who waits for a stronger lock on the table (DDL) does not wait for a whole batch: both
 * loops look for waiters and stop early.
 */
#include "learning/linking.h"
#include "learning/worker.h"

#include <math.h>

#include "access/genam.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define RUV_PASS_SECONDS 1.0
#define RUV_MIN_BATCH 32
#define RUV_REFERENCE_EF 2000
#define RUV_TRACE_EF 4000
/* Measured on one core of 2020: fetching a row, and one element of one comparison. Only the size of
 * a batch depends on them. */
#define RUV_ROW_SECONDS 0.6e-6
#define RUV_ELEMENT_SECONDS 0.12e-9
/* Served and true distances come from different kernels: they agree to rounding. */
#define RUV_DISTANCE_TOLERANCE 1e-5

/* The rows of the index, block by block. */
typedef struct RowFeed {
    rv_exact *exact;
    const RuvIndexIdentity *identity;
    float *vectors; /* RV_EXACT_BLOCK x dim */
    const float *rows[RV_EXACT_BLOCK];
    uint64 ids[RV_EXACT_BLOCK];
    int count;
} RowFeed;

static double
table_rows(Relation table)
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
    return table_rows(table) * (RUV_ROW_SECONDS + RUV_MIN_BATCH * dim * RUV_ELEMENT_SECONDS) <=
           RUV_PASS_SECONDS * 4;
}

int
ruv_batch_limit(Relation table, int dim)
{
    double rows = table_rows(table);
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

static bool
somebody_waits(Relation table, Relation index)
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
            complete = !somebody_waits(table, index);
    }
    feed_block(feed);
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(slot);
    FreeExecutorState(estate);
    return complete;
}

typedef struct Truth {
    float *distances; /* count x width, ascending in each row */
    uint64 *ids;      /* likewise: heap positions, or nodes when they come from a search */
    uint32 *found;    /* per search */
    uint32 width;
    bool exact;
} Truth;

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
truth_by_pass(Truth *truth, RuvIndexState *state, Relation table, Relation index, RuvSample **batch,
              int count)
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
truth_by_search(Truth *truth, const RuvIndexState *state, Relation index, RuvSample **batch,
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

/* ---- what is measured of one search -------------------------------------------------------- */

/* Share of the true neighbours that the served search returned: by distance, so ties count. */
static float
served_recall(const RuvSample *sample, const float *truth, uint32 found)
{
    double last = truth[found - 1];
    double limit = last + RUV_DISTANCE_TOLERANCE * Max(fabs(last), 1e-3);
    uint32 reached = 0;

    for (uint32 i = 0; i < sample->head.result_count; i++)
        if (sample->hits[i].distance <= limit)
            reached++;
    return (float)Min(reached, found) / (float)found;
}

/* The least work that would have reached the declared recall. */
static float
needed_distances(const RuvSample *sample)
{
    double target = sample->head.target_recall > 0 ? sample->head.target_recall : ruv_target_recall;
    uint32 needed = (uint32)ceil(target * sample->effort_count - 1e-9);
    uint32 distances;

    needed = Max(1, Min(needed, sample->effort_count));
    distances = sample->efforts[needed - 1].distances;
    return distances == PG_UINT32_MAX ? -1 : (float)distances;
}

/* The vectors of the rows a search returned, as far as they are still there. */
static int
fetch_results(RuvIndexState *state, Relation table, Relation index, const RuvSample *sample,
              int limit, const float **vectors)
{
    IndexInfo *info = BuildIndexInfo(index);
    EState *estate = CreateExecutorState();
    ExprContext *econtext = GetPerTupleExprContext(estate);
    TupleTableSlot *slot = table_slot_create(table, NULL);
    IndexFetchTableData *fetch = table_index_fetch_begin(table);
    size_t bytes = sizeof(float) * state->identity.dim;
    int count = 0;

    econtext->ecxt_scantuple = slot;
    for (uint32 i = 0; i < sample->head.result_count && count < limit; i++) {
        ItemPointerData tid;
        bool again = false;
        Datum values[INDEX_MAX_KEYS];
        bool nulls[INDEX_MAX_KEYS];
        const float *vector;

        ItemPointerSet(&tid, (BlockNumber)(sample->hits[i].id >> 16),
                       (OffsetNumber)(sample->hits[i].id & 0xFFFF));
        if (!table_index_fetch_tuple(fetch, &tid, GetActiveSnapshot(), slot, &again, NULL))
            continue;
        FormIndexDatum(info, slot, estate, values, nulls);
        vector = nulls[0] ? NULL : ruv_index_prepare(&state->identity, values[0]);
        if (vector != NULL)
            vectors[count++] = memcpy(palloc(bytes), vector, bytes);
    }
    table_index_fetch_end(fetch);
    ExecDropSingleTupleTableSlot(slot);
    FreeExecutorState(estate);
    return count;
}

/*
 * Mean distance between two results over the distance of the last one, at most 1: near 0 when the
 * results are copies of each other. Over the first eight, which bounds the work. Inner product has
 * no distance between rows: unknown.
 */
#define RUV_DIVERSITY_RESULTS 8

static float
diversity(RuvIndexState *state, Relation table, Relation index, const RuvSample *sample)
{
    const float *vectors[RUV_DIVERSITY_RESULTS];
    rv_metric metric = state->identity.metric;
    rv_metric_map map = rv_metric_map_make(metric, 0, 0);
    double sum = 0;
    double last;
    int count;

    /* Under an index expression the rows' values would have to be computed as their owner. */
    if (metric == RV_METRIC_IP || index->rd_indexprs != NULL ||
        RelationGetIndexExpressions(index) != NIL || sample->head.result_count < 2)
        return -1;
    last = rv_metric_map_apply(&map, sample->hits[sample->head.result_count - 1].distance);
    count = fetch_results(state, table, index, sample, RUV_DIVERSITY_RESULTS, vectors);
    if (count < 2 || !(last > 0))
        return -1;
    for (int i = 0; i < count; i++)
        for (int j = i + 1; j < count; j++)
            sum += rv_metric_map_apply(&map, rv_raw_distance(metric, vectors[i], vectors[j],
                                                             (uint32_t)state->identity.dim));
    return (float)Min(sum / (count * (count - 1) / 2.0) / last, 1.0);
}

/* ---- one batch ----------------------------------------------------------------------------- */

/* One trace over the index; entry points may be none. */
static void
trace_from(RuvIndexState *state, Relation table, Relation index, RuvSample *sample,
           const rv_memory_match *entry, const float *truth, rv_effort *efforts, rv_work *work,
           rv_trace_summary *summary)
{
    rv_trace_limits limits = {0};

    limits.extra = entry->nodes;
    limits.extra_count = entry->count;
    limits.k = sample->head.k;
    limits.max_slack = RUV_TRACE_SLACK;
    limits.max_ef = RUV_TRACE_EF;
    limits.max_distances = ruv_index_trace_distances(index, table_rows(table));
    limits.work = work;
    ruv_work_goals(state, &limits.work_slack, &limits.work_ef);
    ruv_index_trace(index, sample->query, &limits, truth, sample->effort_count, efforts, summary);
}

static void
trace_from_descent(RuvIndexState *state, Relation table, Relation index, RuvSample *sample,
                   const float *truth)
{
    rv_memory_match none = {0};
    rv_trace_summary summary = {0};

    if (sample->descent_efforts == NULL)
        sample->descent_efforts =
            MemoryContextAlloc(state->context, sizeof(rv_effort) * sample->effort_count);
    trace_from(state, table, index, sample, &none, truth, sample->descent_efforts,
               &sample->descent_work, &summary);
    sample->score = summary.score;
    sample->nearest_count = summary.nearest_count;
    memcpy(sample->nearest, summary.nearest, sizeof(sample->nearest));
}

/* As a search with the present memory would go: the work of the lookup counts. */
static void
trace_from_memory(RuvIndexState *state, Relation table, Relation index, RuvSample *sample,
                  const float *truth)
{
    rv_trace_summary summary = {0};
    rv_memory_match match;

    ruv_memory_entry_points(state, sample->query, &match);
    sample->far = match.count == 0;
    if (match.count > 0) {
        trace_from(state, table, index, sample, &match, truth, sample->efforts, &sample->work,
                   &summary);
        sample->nearest_count = summary.nearest_count;
        memcpy(sample->nearest, summary.nearest, sizeof(sample->nearest));
    } else {
        memcpy(sample->efforts, sample->descent_efforts, sizeof(rv_effort) * sample->effort_count);
        sample->work = sample->descent_work;
    }
    for (uint32 i = 0; i < sample->effort_count; i++)
        if (sample->efforts[i].distances != PG_UINT32_MAX)
            sample->efforts[i].distances += match.distances;
    rv_work_add(&sample->work, match.distances);
    sample->needed_distances = needed_distances(sample);
}

static void
trace_sample(RuvIndexState *state, Relation table, Relation index, RuvSample *sample,
             const float *truth, uint32 found, bool exact)
{
    sample->exact = exact;
    if (sample->efforts != NULL)
        pfree(sample->efforts);
    sample->efforts = MemoryContextAlloc(state->context, sizeof(rv_effort) * found);
    sample->effort_count = found;
    sample->truth_bound = truth[found - 1];
    if (sample->descent_efforts != NULL)
        pfree(sample->descent_efforts);
    sample->descent_efforts = NULL;
    trace_from_descent(state, table, index, sample, truth);
    trace_from_memory(state, table, index, sample, truth);
    if (!sample->retrace && sample->hits != NULL) {
        sample->recall = served_recall(sample, truth, found);
        sample->diversity = diversity(state, table, index, sample);
    } else {
        sample->recall = -1;
        sample->diversity = -1;
    }
}

int
ruv_trace_batch(RuvIndexState *state, Relation table, Relation index, RuvSample **batch, int count)
{
    MemoryContext pass = AllocSetContextCreate(CurrentMemoryContext, "ruvector true neighbours",
                                               ALLOCSET_DEFAULT_SIZES);
    MemoryContext single =
        AllocSetContextCreate(CurrentMemoryContext, "ruvector deep trace", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(pass);
    Truth truth = {0};
    bool complete = true;
    int done = 0;

    truth.width = widest(state, batch, count);
    truth.distances =
        MemoryContextAllocHuge(pass, sizeof(float) * (size_t)truth.width * (size_t)count);
    truth.ids = MemoryContextAllocHuge(pass, sizeof(uint64) * (size_t)truth.width * (size_t)count);
    truth.found = palloc0(sizeof(uint32) * count);
    if (exact_affordable(table, state->identity.dim))
        complete = truth_by_pass(&truth, state, table, index, batch, count);
    else
        truth_by_search(&truth, state, index, batch, count);
    while (complete && done < count && (done % 16 != 0 || !somebody_waits(table, index))) {
        const float *distances = truth.distances + (size_t)done * truth.width;

        if (truth.found[done] > 0 && ruv_links_ask(state, batch[done]))
            ruv_links_note(state, batch[done], truth.ids + (size_t)done * truth.width, distances,
                           (int)truth.found[done], !truth.exact);
        if (truth.found[done] > 0 && !batch[done]->for_links) {
            MemoryContextSwitchTo(single);
            trace_sample(state, table, index, batch[done], distances, truth.found[done],
                         truth.exact);
            MemoryContextSwitchTo(pass);
            MemoryContextReset(single);
        }
        done++;
    }
    MemoryContextSwitchTo(former);
    MemoryContextDelete(single);
    MemoryContextDelete(pass);
    return done;
}

/* A sample's truth as far as it is kept: a trace asks for the farthest true neighbour only. */
static void
fill_truth(const RuvSample *sample, float *truth)
{
    for (uint32 i = 0; i < sample->effort_count; i++)
        truth[i] = sample->truth_bound;
}

void
ruv_trace_again(RuvIndexState *state, Relation table, Relation index, RuvSample *sample,
                RuvTraced *descent, RuvTraced *memory)
{
    float truth[RV_TRAJECTORY_MAX_HITS];
    rv_memory_match match = {0};
    rv_trace_summary summary = {0};

    fill_truth(sample, truth);
    trace_from(state, table, index, sample, &match, truth, descent->efforts, &descent->work,
               &summary);
    ruv_memory_entry_points(state, sample->query, &match);
    if (match.count > 0)
        trace_from(state, table, index, sample, &match, truth, memory->efforts, &memory->work,
                   &summary);
    else
        *memory = *descent;
    rv_work_add(&memory->work, match.distances);
}

/* False: not enough is kept of it. */
static bool
retrace(RuvIndexState *state, Relation table, Relation index, RuvSample *sample, bool graph_changed)
{
    float truth[RV_TRAJECTORY_MAX_HITS];

    if (isnan(sample->truth_bound) || sample->descent_efforts == NULL)
        return false;
    fill_truth(sample, truth);
    if (graph_changed)
        trace_from_descent(state, table, index, sample, truth);
    trace_from_memory(state, table, index, sample, truth);
    sample->outdated = false;
    return true;
}

void
ruv_retrace_sample(RuvIndexState *state, Relation table, Relation index, RuvSample *sample)
{
    (void)retrace(state, table, index, sample, true);
}

void
ruv_retrace_samples(RuvIndexState *state, Relation table, Relation index, bool graph_changed)
{
    MemoryContext single =
        AllocSetContextCreate(CurrentMemoryContext, "ruvector deep trace", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(single);
    int done = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        if (!ruv_sample_calibrates(sample)) {
            sample->outdated = true;
            continue;
        }
        if (!retrace(state, table, index, sample, graph_changed || sample->outdated))
            continue;
        MemoryContextReset(single);
        if (++done % 16 == 0)
            ruv_worker_breathe();
    }
    MemoryContextSwitchTo(former);
    MemoryContextDelete(single);
}
