/*
 * plans.c - the worker's part in the plan of an index (engine/plan.h): from samples to a plan, its
 * row in the tables, and what served searches say about its predictions.
 *
 * A plan is made with every distillation, from the samples of the most common k whose traces this
 * worker has seen: the curves of work are not stored. After a restart the stored plan therefore
 * stays until enough new samples are there to be a better one (RUV_PLAN_SHARE of what is behind it,
 * or RUV_PLAN_ENOUGH).
 *
 * Traces walk by exact distances, searches may walk by codes, and so miss a little more. How much
 * is measured in pairs: a search that was served at some effort, and what its own trace says of
 * that effort. The ratio of the two sums of misses goes into the next plan. RUV_PRIOR_MISSES, in
 * searches, keep it near 1 while little was seen; old pairs fade. A search that was served with
 * a former memory, or before links were learned, says nothing here: its trace has the present ones,
 * and would make every later search pay for misses that are mended. Nor does one that was looked at
 * because of feedback: people speak of the searches that went wrong.
 *
 * A plan belongs to one build of its index and is not dumped.
 */
#include "learning/worker.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RUV_PLAN_SAFETY 0.7  /* standard errors added to a target */
#define RUV_PLAN_GAIN 0.01   /* a way must save this share of the work */
#define RUV_PLAN_REGRET 0.02 /* a way in use is left for one that saves this share */
#define RUV_PLAN_SHARE 0.5
#define RUV_PLAN_ENOUGH 500
#define RUV_PLAN_HALF_LIFE_DAYS 14.0
#define RUV_PRIOR_MISSES 1.0
#define RUV_MAX_MISS_RATIO 2.0
#define RUV_MISS_FADE 0.999 /* per pair */
/* Until a plan says how far traces must go for the curves of work. */
#define RUV_FIRST_WORK_SLACK 0.15f
#define RUV_FIRST_WORK_EF 256
#define RUV_WORK_LEVEL 9 /* of the target grid: 0.99 */
#define RUV_WORK_MARGIN 1.2f
#define RUV_MAX_WORK_SLACK 2.0f
#define RUV_MAX_WORK_EF 2000

void
ruv_work_goals(const RuvIndexState *state, float *slack, uint32 *ef)
{
    const rv_plan_step *steps = state->plan.levels[RUV_WORK_LEVEL].steps;

    *slack = RUV_FIRST_WORK_SLACK;
    *ef = RUV_FIRST_WORK_EF;
    if (!state->has_plan)
        return;
    *slack = Max(steps[RV_WAY_SLACK].effort, steps[RV_WAY_MEMORY].effort) * RUV_WORK_MARGIN;
    *slack = Min(*slack, RUV_MAX_WORK_SLACK);
    *ef = (uint32)Min(Max(steps[RV_WAY_STATIC].effort, 1) * RUV_WORK_MARGIN, RUV_MAX_WORK_EF);
}

/* ---- what was served against what was predicted --------------------------------------------- */

static void
traced_of(const RuvIndexState *state, const RuvSample *sample, rv_traced *out)
{
    memset(out, 0, sizeof(*out));
    out->count = sample->effort_count;
    out->efforts = sample->descent_efforts;
    out->work = &sample->descent_work;
    if (state->flat_memory != NULL) {
        out->memory_efforts = sample->efforts;
        out->memory_work = &sample->work;
    }
}

void
ruv_plan_note_served(RuvIndexState *state, const RuvSample *sample)
{
    rv_plan_choice choice;
    rv_traced traced;
    double predicted;

    if (!state->has_plan || sample->descent_efforts == NULL || sample->retrace || !sample->exact ||
        !sample->even || sample->recall < 0 || sample->head.mode != RV_SEARCH_ADAPTIVE ||
        sample->head.k != state->plan.k ||
        sample->head.started_us < Max(state->memory_published, state->linking.changed))
        return;
    rv_plan_choose(&state->plan, sample->head.target_recall, &choice);
    if (choice.way == RV_WAY_STATIC)
        return;
    traced_of(state, sample, &traced);
    predicted = rv_traced_recall(&traced, choice.way, sample->head.slack);
    if (predicted < 0)
        return;
    state->served_misses = state->served_misses * RUV_MISS_FADE + 1 - sample->recall;
    state->predicted_misses = state->predicted_misses * RUV_MISS_FADE + 1 - predicted;
}

static double
miss_ratio(const RuvIndexState *state)
{
    double ratio =
        (state->served_misses + RUV_PRIOR_MISSES) / (state->predicted_misses + RUV_PRIOR_MISSES);

    return Min(Max(ratio, 1 / RUV_MAX_MISS_RATIO), RUV_MAX_MISS_RATIO);
}

/* ---- making one ---------------------------------------------------------------------------- */

/* Samples of k with complete traces. */
static uint32
collect_traced(const RuvIndexState *state, uint32 k, TimestampTz now, rv_traced *out)
{
    uint32 count = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        if (sample->head.k != k || sample->effort_count == 0 || sample->descent_efforts == NULL ||
            !(ruv_sample_weight(sample) > 0))
            continue;
        traced_of(state, sample, &out[count]);
        out[count].weight =
            ruv_sample_weight(sample) *
            exp2(-ruv_sample_age(sample, now) / SECS_PER_DAY / RUV_PLAN_HALF_LIFE_DAYS);
        count++;
    }
    return count;
}

static bool
enough(const RuvIndexState *state, uint32 count)
{
    if (count < (uint32)Max(state->min_samples, 1))
        return false;
    /* A plan for the graph as it was before links came or went is no better than none. */
    if (!state->has_plan || state->plan.index_epoch != state->identity.epoch ||
        state->plan.made_us < state->linking.changed)
        return true;
    return count >= RUV_PLAN_ENOUGH || count >= RUV_PLAN_SHARE * state->plan.samples;
}

static void
report_reach(const RuvIndexState *state, const rv_plan *former)
{
    double target = ruv_effective_target_recall(&state->identity.own);
    rv_plan_choice now;
    rv_plan_choice before;

    rv_plan_choose(&state->plan, target, &now);
    if (former != NULL)
        rv_plan_choose(former, target, &before);
    if (now.in_reach || (former != NULL && !before.in_reach))
        return;
    ereport(LOG,
            (errmsg("a recall of %g is out of reach of index \"%s\"", target,
                    NameStr(state->index_name)),
             errdetail("Searches take the largest effort that found anything more, for a recall "
                       "of %.4f.",
                       now.expected_recall),
             errhint("Rebuild the index with a larger m or ef_construction, or declare a "
                     "lower ruvector.target_recall.")));
}

void
ruv_make_plan(RuvIndexState *state, uint32 k, double region_work)
{
    TimestampTz now = GetCurrentTimestamp();
    rv_traced *samples = palloc(sizeof(rv_traced) * Max(list_length(state->samples), 1));
    uint32 count = collect_traced(state, k, now, samples);
    bool same_build =
        state->has_plan && state->plan.index_epoch == state->identity.epoch && state->plan.k == k;
    rv_plan former = state->plan;
    rv_plan_options options = {.index_epoch = state->identity.epoch,
                               .now_us = now,
                               .k = k,
                               .safety = RUV_PLAN_SAFETY,
                               .miss_ratio = miss_ratio(state),
                               .region_work = region_work,
                               .gain = RUV_PLAN_GAIN,
                               .regret = RUV_PLAN_REGRET};
    rv_allocator allocator;
    rv_error err = {0};

    if (enough(state, count)) {
        ruv_context_allocator(CurrentMemoryContext, &allocator);
        ruv_check(rv_plan_make(&allocator, samples, count, &options, same_build ? &former : NULL,
                               &state->plan, &err),
                  &err, "planning searches");
        state->has_plan = true;
        state->plan_changed = true;
        report_reach(state, same_build ? &former : NULL);
    }
    pfree(samples);
}

/* ---- its row ------------------------------------------------------------------------------- */

void
ruv_store_save_plan(RuvStore *store, RuvIndexState *state)
{
    Oid types[5] = {OIDOID, OIDOID, NAMEOID, INT8OID, BYTEAOID};
    Datum values[5] = {ObjectIdGetDatum(state->index_oid), ObjectIdGetDatum(state->table_oid),
                       NameGetDatum(&state->index_name),
                       Int64GetDatum((int64)state->plan.index_epoch)};
    bytea *bytes = palloc(VARHDRSZ + sizeof(rv_plan));

    SET_VARSIZE(bytes, VARHDRSZ + sizeof(rv_plan));
    memcpy(VARDATA(bytes), &state->plan, sizeof(rv_plan));
    values[4] = PointerGetDatum(bytes);
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_search_plans (index_oid, table_id, index_name, "
                  "index_epoch, plan) VALUES ($1, $2::regclass, $3, $4, $5) "
                  "ON CONFLICT (index_oid) DO UPDATE SET index_epoch = excluded.index_epoch, "
                  "plan = excluded.plan",
                  5, types, values, NULL);
    pfree(bytes);
}

bool
ruv_plan_from_datum(Datum value, rv_plan *plan)
{
    bytea *bytes = DatumGetByteaPP(value);

    if (VARSIZE_ANY_EXHDR(bytes) != sizeof(rv_plan))
        return false;
    memcpy(plan, VARDATA_ANY(bytes), sizeof(rv_plan));
    return rv_plan_check(plan, NULL) == RV_OK;
}

void
ruv_store_load_plan(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};

    state->has_plan =
        ruv_store_run(
            store,
            "SELECT plan FROM @.ruvector_search_plans WHERE index_oid = $1 AND index_epoch = $2", 2,
            types, values, NULL) > 0 &&
        ruv_plan_from_datum(ruv_store_value(0, 1, NULL), &state->plan);
}
