/*
 * trace.c - the least effort that finds each true neighbour of a search.
 *
 * The true neighbours of a batch are found first (truth.c). Functions of an index's expressions are
 * the owner's, so the caller runs all of this as the table's owner (as_owner.h).
 *
 * Each search is then traced over the index's own pages (rv_beam_trace), twice: from the index's
 * own entry, and from the entry points that the memory of queries gives for it. A trace walks by
 * codes, as a search does, and reads vectors only where a code may be that of a true neighbour.
 *
 * Samples are traced again when they are out of date and calibrate: after links came or went both
 * ways, with a new memory only the way from it. The newest RUV_RETRACE_MOST of each k are enough,
 * so that what a change costs does not grow with the window. What was traced to judge links
 * (held_out.c) is not traced a second time when they stay.
 *
 * Limits of a trace: slack 3, ef 4,000, and a bound of the access method on the distances
 * (index_api.c); what is not found within them counts as out of reach, and calibration treats it
 * so.
 *
 * Somebody who waits for a stronger lock on the table (DDL) does not wait for a whole batch: it
 * ends early.
 */
#include "learning/linking.h"
#include "learning/truth.h"

#include <math.h>

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define RUV_TRACE_EF 4000

/* ---- what is measured of one search -------------------------------------------------------- */

/* Share of the true neighbours that the served search returned: by distance, so ties count. */
static float
served_recall(const RuvSample *sample, const float *truth, uint32 found)
{
    uint32 reached = 0;

    for (uint32 i = 0; i < sample->head.result_count; i++)
        reached += ruv_reaches(sample->hits[i].distance, truth[found - 1]);
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
trace_from(RuvIndexState *state, Relation table, Relation index, const RuvSample *sample,
           const rv_memory_match *entry, const float *truth, RuvTraced *out)
{
    rv_trace_limits limits = {0};
    rv_trace_summary summary = {0};

    limits.extra = entry->nodes;
    limits.extra_count = entry->count;
    limits.k = sample->head.k;
    limits.max_slack = RUV_TRACE_SLACK;
    limits.max_ef = RUV_TRACE_EF;
    limits.max_distances = ruv_index_trace_distances(index, ruv_table_rows(table));
    limits.work = &out->work;
    ruv_work_goals(state, &limits.work_slack, &limits.work_ef);
    ruv_index_trace(index, sample->query, &limits, truth, sample->effort_count, out->efforts,
                    &summary);
    out->score = summary.score;
    out->nearest_count = summary.nearest_count;
    memcpy(out->nearest, summary.nearest, sizeof(out->nearest));
}

static void
trace_from_descent(RuvIndexState *state, Relation table, Relation index, const RuvSample *sample,
                   const float *truth, RuvTraced *out)
{
    rv_memory_match none = {0};

    trace_from(state, table, index, sample, &none, truth, out);
    out->far = false;
}

/* As a search with the present memory would go, with the work of the lookup: where no remembered
 * query is near, from the descent. */
static void
trace_from_memory(RuvIndexState *state, Relation table, Relation index, const RuvSample *sample,
                  const float *truth, const RuvTraced *descent, RuvTraced *out)
{
    rv_memory_match match;

    ruv_memory_entry_points(state, sample->query, &match);
    if (match.count > 0)
        trace_from(state, table, index, sample, &match, truth, out);
    else
        *out = *descent;
    out->far = match.count == 0;
    for (uint32 i = 0; i < sample->effort_count; i++)
        if (out->efforts[i].distances != PG_UINT32_MAX)
            out->efforts[i].distances += match.distances;
    rv_work_add(&out->work, match.distances);
}

/* ---- what is kept of it -------------------------------------------------------------------- */

static void
keep_efforts(const RuvIndexState *state, const RuvSample *sample, const RuvTraced *traced,
             rv_effort **efforts)
{
    Size size = sizeof(rv_effort) * sample->effort_count;

    if (*efforts == NULL)
        *efforts = MemoryContextAlloc(state->context, size);
    memcpy(*efforts, traced->efforts, size);
}

static void
keep_descent(const RuvIndexState *state, RuvSample *sample, const RuvTraced *traced)
{
    keep_efforts(state, sample, traced, &sample->descent_efforts);
    sample->descent_work = traced->work;
    sample->score = traced->score;
    sample->traced_graph = state->graph_version;
}

static void
keep_memory(const RuvIndexState *state, RuvSample *sample, const RuvTraced *traced)
{
    keep_efforts(state, sample, traced, &sample->efforts);
    sample->work = traced->work;
    sample->far = traced->far;
    sample->nearest_count = traced->nearest_count;
    memcpy(sample->nearest, traced->nearest, sizeof(sample->nearest));
    sample->needed_distances = needed_distances(sample);
    sample->traced_memory = state->memory_version;
}

void
ruv_keep_traces(const RuvIndexState *state, RuvSample *sample, const RuvTraced *descent,
                const RuvTraced *memory)
{
    keep_descent(state, sample, descent);
    keep_memory(state, sample, memory);
}

static void
free_efforts(rv_effort **efforts)
{
    if (*efforts != NULL)
        pfree(*efforts);
    *efforts = NULL;
}

static void
trace_sample(RuvIndexState *state, Relation table, Relation index, RuvSample *sample,
             const float *truth, uint32 found, bool exact)
{
    RuvTraced descent;
    RuvTraced memory;

    sample->exact = exact;
    free_efforts(&sample->efforts);
    free_efforts(&sample->descent_efforts);
    sample->effort_count = found;
    sample->truth_bound = truth[found - 1];
    trace_from_descent(state, table, index, sample, truth, &descent);
    trace_from_memory(state, table, index, sample, truth, &descent, &memory);
    ruv_keep_traces(state, sample, &descent, &memory);
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
    RuvTruth truth = {0};
    bool complete;
    int done = 0;

    complete = ruv_find_truth(&truth, state, table, index, batch, count);
    while (complete && done < count && (done % 16 != 0 || !ruv_somebody_waits(table, index))) {
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
ruv_trace_again(RuvIndexState *state, Relation table, Relation index, const RuvSample *sample,
                RuvTraced *descent, RuvTraced *memory)
{
    float truth[RV_TRAJECTORY_MAX_HITS];

    fill_truth(sample, truth);
    trace_from_descent(state, table, index, sample, truth, descent);
    trace_from_memory(state, table, index, sample, truth, descent, memory);
}

/* The descent as it was traced last. */
static void
former_descent(const RuvSample *sample, RuvTraced *out)
{
    memcpy(out->efforts, sample->descent_efforts, sizeof(rv_effort) * sample->effort_count);
    out->work = sample->descent_work;
    out->score = sample->score;
    out->nearest_count = sample->nearest_count;
    memcpy(out->nearest, sample->nearest, sizeof(out->nearest));
}

/* Traced by this worker, with another graph or memory than the present ones. */
static bool
out_of_date(const RuvIndexState *state, const RuvSample *sample)
{
    return sample->descent_efforts != NULL && (sample->traced_graph != state->graph_version ||
                                               sample->traced_memory != state->memory_version);
}

/* Traces what is out of date. True: something was. */
static bool
retrace(RuvIndexState *state, Relation table, Relation index, RuvSample *sample)
{
    float truth[RV_TRAJECTORY_MAX_HITS];
    RuvTraced descent;
    RuvTraced memory;
    bool graph = sample->traced_graph != state->graph_version;

    if (isnan(sample->truth_bound) || !out_of_date(state, sample))
        return false;
    fill_truth(sample, truth);
    if (graph) {
        trace_from_descent(state, table, index, sample, truth, &descent);
        keep_descent(state, sample, &descent);
    } else {
        former_descent(sample, &descent);
    }
    trace_from_memory(state, table, index, sample, truth, &descent, &memory);
    keep_memory(state, sample, &memory);
    sample->stale = false;
    return true;
}

void
ruv_retrace_sample(RuvIndexState *state, Relation table, Relation index, RuvSample *sample)
{
    (void)retrace(state, table, index, sample);
}

void
ruv_retrace_samples(RuvIndexState *state, Relation table, Relation index)
{
    MemoryContext single =
        AllocSetContextCreate(CurrentMemoryContext, "ruvector deep trace", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(single);
    int counts[RV_TRAJECTORY_MAX_HITS + 1] = {0};
    int done = 0;

    for (int i = list_length(state->samples); i-- > 0;) {
        RuvSample *sample = list_nth(state->samples, i);

        if (!ruv_sample_calibrates(sample))
            continue;
        if (++counts[sample->head.k] > RUV_RETRACE_MOST) {
            sample->stale = out_of_date(state, sample);
            continue;
        }
        if (!retrace(state, table, index, sample))
            continue;
        MemoryContextReset(single);
        if (++done % 16 == 0)
            ruv_worker_breathe();
    }
    MemoryContextSwitchTo(former);
    MemoryContextDelete(single);
}
