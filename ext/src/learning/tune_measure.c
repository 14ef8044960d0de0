/*
 * tune_measure.c - see tune.h.
 *
 * Truth comes from one pass over the table, so recall is exact; ties count as found. A row that is
 * its own query would find itself at any effort, so it is left out on both sides: of the truth and
 * of what a search returns, which is asked for one more.
 *
 * Efforts rise by half an octave, which is as fine as a setting needs to be: between two
 * neighbours recall changes by little where it matters.
 */
#include "learning/truth.h"
#include "learning/tune.h"

#include <math.h>

#include "index_rows.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"

#define RUV_EFFORT_STEP 1.41421356
/* Recall that is good enough to stop at, and what a step has to bring to go on: less, twice in
 * succession, is the end. */
#define RUV_RECALL_ENOUGH 0.9995
#define RUV_RECALL_GAIN 0.0005

/* ---- queries ------------------------------------------------------------------------------- */

RuvTuneQueries *
ruv_tune_queries(int dim, int k, int room)
{
    RuvTuneQueries *queries = palloc0(sizeof(*queries));

    queries->dim = dim;
    queries->k = k;
    queries->room = room;
    queries->vectors =
        MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * dim * (Size)room);
    queries->own = palloc0(sizeof(uint64) * room);
    queries->found = palloc0(sizeof(uint32) * room);
    queries->farthest = palloc0(sizeof(float) * room);
    return queries;
}

static void
put_query(RuvTuneQueries *queries, int place, const float *vector)
{
    memcpy(queries->vectors + (Size)place * queries->dim, vector, sizeof(float) * queries->dim);
}

void
ruv_tune_add_query(RuvTuneQueries *queries, const float *vector)
{
    Assert(queries->count < queries->room);
    put_query(queries, queries->count++, vector);
}

typedef struct HoldOut {
    RuvTuneQueries *queries;
    rv_prng prng;
    uint64 seen;
} HoldOut;

/* Vitter's algorithm R. */
static void
hold_out_row(void *ctx, const float *vector, ItemPointer tid)
{
    HoldOut *draw = ctx;
    RuvTuneQueries *queries = draw->queries;
    uint64 place = draw->seen++;

    if (queries->count < queries->room)
        queries->count++;
    else
        place = rv_prng_below(&draw->prng, draw->seen);
    if (place < (uint64)queries->room) {
        put_query(queries, (int)place, vector);
        queries->own[place] = ruv_row_id(tid);
    }
}

void
ruv_tune_hold_out(RuvTuneQueries *queries, Relation table, Relation index,
                  const RuvIndexIdentity *identity)
{
    HoldOut draw = {.queries = queries};

    rv_prng_seed(&draw.prng, identity->epoch);
    queries->held_out = true;
    (void)ruv_index_rows(table, index, identity, hold_out_row, NULL, &draw);
}

/* ---- truth --------------------------------------------------------------------------------- */

/* The neighbours of one query without the query itself; the last one's distance. */
static void
take_truth(RuvTuneQueries *queries, int query, const rv_exact_hit *hits, uint32 count)
{
    uint32 kept = 0;

    for (uint32 i = 0; i < count && kept < (uint32)queries->k; i++) {
        if (queries->held_out && hits[i].id == queries->own[query])
            continue;
        queries->farthest[query] = hits[i].distance;
        kept++;
    }
    queries->found[query] = kept;
}

static void
drop_empty(RuvTuneQueries *queries)
{
    int kept = 0;

    for (int i = 0; i < queries->count; i++) {
        if (queries->found[i] == 0)
            continue;
        memmove(queries->vectors + (Size)kept * queries->dim,
                queries->vectors + (Size)i * queries->dim, sizeof(float) * queries->dim);
        queries->own[kept] = queries->own[i];
        queries->found[kept] = queries->found[i];
        queries->farthest[kept++] = queries->farthest[i];
    }
    queries->count = kept;
}

void
ruv_tune_find_truth(RuvTuneQueries *queries, Relation table, Relation index,
                    const RuvIndexIdentity *identity)
{
    uint32 width = (uint32)queries->k + 1;
    rv_exact_hit *hits = palloc(sizeof(*hits) * width);
    rv_exact *exact;

    if (queries->count == 0)
        return;
    exact =
        ruv_exact_pass(table, index, identity, queries->vectors, queries->count, width, NULL, NULL);
    for (int i = 0; i < queries->count; i++)
        take_truth(queries, i, hits, rv_exact_result(exact, (uint32_t)i, hits));
    rv_exact_destroy(exact);
    drop_empty(queries);
}

/* ---- the curve ----------------------------------------------------------------------------- */

/* Share of the true neighbours among the hits: by distance, so ties count. */
static double
recall_of(const RuvTuneQueries *queries, int query, const rv_hit *hits, int count)
{
    float last = queries->farthest[query];
    uint32 reached = 0;

    for (int i = 0; i < count; i++)
        if (ruv_reaches(hits[i].distance, last) &&
            !(queries->held_out && hits[i].id == queries->own[query]))
            reached++;
    return (double)Min(reached, queries->found[query]) / queries->found[query];
}

static void
measure_point(const RuvTuneQueries *queries, Relation index, rv_hit *hits, rv_tuning_point *point)
{
    int wanted = queries->k + (queries->held_out ? 1 : 0);
    instr_time spent;
    double recall = 0;
    double distances = 0;

    INSTR_TIME_SET_ZERO(spent);
    for (int i = 0; i < queries->count; i++) {
        uint64 computed = 0;
        instr_time before;
        instr_time after;
        int count;

        CHECK_FOR_INTERRUPTS();
        INSTR_TIME_SET_CURRENT(before);
        count = ruv_index_probe(index, queries->vectors + (Size)i * queries->dim, wanted,
                                (int)point->effort, hits, &computed);
        INSTR_TIME_SET_CURRENT(after);
        INSTR_TIME_ACCUM_DIFF(spent, after, before);
        recall += recall_of(queries, i, hits, count);
        distances += (double)computed;
    }
    point->recall = recall / queries->count;
    point->distances = distances / queries->count;
    point->latency_us = INSTR_TIME_GET_DOUBLE(spent) * 1e6 / queries->count;
}

/* Whether more effort might still bring something. */
static bool
worth_more(const RuvTuneCurve *curve)
{
    const rv_tuning_point *last = &curve->points[curve->count - 1];

    if (curve->count == RV_TUNING_MAX_POINTS || last->recall >= RUV_RECALL_ENOUGH)
        return false;
    return curve->count < 3 || last->recall - last[-2].recall >= RUV_RECALL_GAIN;
}

void
ruv_tune_measure(const RuvTuneQueries *queries, Relation index, int most_effort,
                 RuvTuneCurve *curve)
{
    int wanted = queries->k + (queries->held_out ? 1 : 0);
    rv_hit *hits = palloc(sizeof(*hits) * wanted);
    double effort = ruv_index_least_effort(index, wanted);
    int former = 0;

    curve->count = 0;
    /* Once for nothing: the first searches bring the index into memory. */
    curve->points[0].effort = Max(rint(effort), 1);
    measure_point(queries, index, hits, &curve->points[0]);
    do {
        rv_tuning_point *point = &curve->points[curve->count++];

        point->effort = Min(Max(rint(effort), former + 1), most_effort);
        measure_point(queries, index, hits, point);
        former = (int)point->effort;
        effort *= RUV_EFFORT_STEP;
    } while (worth_more(curve) && former < most_effort);
}
