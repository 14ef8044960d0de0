/*
 * plans.c - the worker's part in the plans of an index (engine/plan.h): from samples to plans,
 * their row in the tables, and what served searches say about their predictions.
 *
 * There is a plan for each number of rows (k) that at least min_samples samples ask for, the most
 * common RUV_MAX_PLANS of them: a slack and its stop rule hold for the window they were traced
 * with. The first one is that of the most common k, which the patterns are made for too; it alone
 * takes part in corrections by region.
 *
 * Plans are made with every distillation, from samples whose traces this worker has seen: the
 * curves of work are not stored. After a restart a stored plan therefore stays until enough new
 * samples are there to be a better one (RUV_PLAN_SHARE of what is behind it, or RUV_PLAN_ENOUGH).
 *
 * A trace counts every true neighbour that it visits; a search that walks by codes may leave one of
 * them out of its window, and so misses a little more. How much is measured in pairs: a search that
 * was served at some effort, and what its own trace says of that effort. The ratio of the two sums
 * of misses, for each k, goes into its next plan. RUV_PRIOR_MISSES, in searches, keep it near 1
 * while little was seen; old pairs fade. A search that was served with a former memory, or before
 * links were learned, says nothing here: its trace has the present ones, and would make every later
 * search pay for misses that are mended. Nor does one that was served by the plan for another k:
 * its window was not that of its trace.
 *
 * Where the true neighbours of samples come from reference searches (truth.c), the plan aims as
 * much higher as these were found to miss (audit.c).
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
    if (state->plan_count == 0) {
        *slack = RUV_FIRST_WORK_SLACK;
        *ef = RUV_FIRST_WORK_EF;
        return;
    }
    *slack = 0;
    *ef = 0;
    for (int i = 0; i < state->plan_count; i++) {
        const rv_plan_step *steps = state->plans[i].levels[RUV_WORK_LEVEL].steps;
        float needed = Max(steps[RV_WAY_SLACK].effort, steps[RV_WAY_MEMORY].effort);

        *slack = Max(*slack, needed * RUV_WORK_MARGIN);
        *ef = Max(*ef, (uint32)(Max(steps[RV_WAY_STATIC].effort, 1) * RUV_WORK_MARGIN));
    }
    *slack = Min(*slack, RUV_MAX_WORK_SLACK);
    *ef = Min(*ef, RUV_MAX_WORK_EF);
}

/* The plan of this build for exactly k; NULL: none. */
static const rv_plan *
plan_of(const RuvIndexState *state, uint32 k)
{
    for (int i = 0; i < state->plan_count; i++)
        if (state->plans[i].k == k && state->plans[i].index_epoch == state->identity.epoch)
            return &state->plans[i];
    return NULL;
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
    const rv_plan *plan = plan_of(state, sample->head.k);
    rv_plan_choice choice;
    rv_traced traced;
    double predicted;
    double *served;
    double *foreseen;

    if (plan == NULL || sample->descent_efforts == NULL || sample->retrace || !sample->even ||
        sample->recall < 0 || sample->head.mode != RV_SEARCH_ADAPTIVE ||
        sample->head.window != plan->k ||
        sample->head.started_us < Max(state->memory_published, state->linking.changed))
        return;
    rv_plan_choose(plan, sample->head.target_recall, &choice);
    if (choice.way == RV_WAY_STATIC)
        return;
    traced_of(state, sample, &traced);
    predicted = rv_traced_recall(&traced, choice.way, sample->head.slack, choice.limit);
    if (predicted < 0)
        return;
    served = &state->served_misses[plan->k];
    foreseen = &state->predicted_misses[plan->k];
    *served = *served * RUV_MISS_FADE + 1 - sample->recall;
    *foreseen = *foreseen * RUV_MISS_FADE + 1 - predicted;
}

static double
miss_ratio(const RuvIndexState *state, uint32 k)
{
    double ratio = (state->served_misses[k] + RUV_PRIOR_MISSES) /
                   (state->predicted_misses[k] + RUV_PRIOR_MISSES);

    return Min(Max(ratio, 1 / RUV_MAX_MISS_RATIO), RUV_MAX_MISS_RATIO);
}

/* ---- making one ---------------------------------------------------------------------------- */

/* Samples of k with complete traces. *truth_recall: of what they took for their true neighbours. */
static uint32
collect_traced(const RuvIndexState *state, uint32 k, TimestampTz now, rv_traced *out,
               double *truth_recall)
{
    double reference = ruv_reference_recall(state);
    double weight = 0;
    double recall = 0;
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
        weight += out[count].weight;
        recall += out[count].weight * (sample->exact ? 1 : reference);
        count++;
    }
    *truth_recall = weight > 0 ? recall / weight : 1;
    return count;
}

static bool
enough(const RuvIndexState *state, const rv_plan *former, uint32 count)
{
    if (count < (uint32)Max(state->min_samples, 1))
        return false;
    /* A plan for the graph as it was before links came or went is no better than none. */
    if (former == NULL || former->made_us < state->linking.changed)
        return true;
    return count >= RUV_PLAN_ENOUGH || count >= RUV_PLAN_SHARE * former->samples;
}

double
ruv_plan_reachable(const RuvIndexState *state, uint32 k, double target)
{
    rv_plan_choice choice;
    uint32_t window;

    if (state->plan_count == 0)
        return target;
    (void)rv_plan_choose_rows(state->plans, state->plan_count, k, target, &choice, &window);
    return choice.in_reach ? target : Min(target, choice.expected_recall);
}

static void
report_reach(const RuvIndexState *state, const rv_plan *plan, const rv_plan *former)
{
    double target = ruv_effective_target_recall(&state->identity.own);
    rv_plan_choice now;
    rv_plan_choice before;

    rv_plan_choose(plan, target, &now);
    if (former != NULL)
        rv_plan_choose(former, target, &before);
    if (now.in_reach || (former != NULL && !before.in_reach))
        return;
    ereport(LOG,
            (errmsg("a recall of %g is out of reach of index \"%s\"", target,
                    NameStr(state->index_name)),
             errdetail("Searches for %u rows take the largest effort that found anything more, for "
                       "a recall of %.4f.",
                       plan->k, now.expected_recall),
             errhint("Rebuild the index with a larger m or ef_construction, or declare a "
                     "lower ruvector.target_recall.")));
}

/* The plan for k made anew, or the former one while that is the better; false: there is none. */
static bool
renew_plan(const RuvIndexState *state, uint32 k, double region_work, rv_plan *out)
{
    TimestampTz now = GetCurrentTimestamp();
    rv_traced *samples = palloc(sizeof(rv_traced) * Max(list_length(state->samples), 1));
    double truth_recall;
    uint32 count = collect_traced(state, k, now, samples, &truth_recall);
    const rv_plan *former = plan_of(state, k);
    rv_plan_options options = {.index_epoch = state->identity.epoch,
                               .now_us = now,
                               .k = k,
                               .safety = RUV_PLAN_SAFETY,
                               .miss_ratio = miss_ratio(state, k),
                               .truth_recall = truth_recall,
                               .region_work = region_work,
                               .gain = RUV_PLAN_GAIN,
                               .regret = RUV_PLAN_REGRET};
    rv_allocator allocator;
    rv_error err = {0};

    if (enough(state, former, count)) {
        ruv_context_allocator(CurrentMemoryContext, &allocator);
        ruv_check(rv_plan_make(&allocator, samples, count, &options, former, out, &err), &err,
                  "planning searches");
        report_reach(state, out, former);
    } else if (former != NULL) {
        *out = *former;
    }
    pfree(samples);
    return former != NULL || out->k == k;
}

/* The numbers of rows that may have a plan: first, then those of most samples, then those that have
 * one. Returns how many, at most RUV_MAX_PLANS. */
static int
choose_ks(const RuvIndexState *state, uint32 first, uint32 *ks)
{
    int counts[RV_TRAJECTORY_MAX_HITS + 1] = {0};
    int count = 1;
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        counts[sample->head.k] += sample->even;
    }
    /* A k that has a plan keeps it, after those with samples for a new one. */
    for (int i = 0; i < state->plan_count; i++)
        counts[state->plans[i].k] = Max(counts[state->plans[i].k], 1);
    ks[0] = first;
    counts[first] = 0;
    while (count < RUV_MAX_PLANS) {
        int best = 0;

        for (int k = 1; k <= RV_TRAJECTORY_MAX_HITS; k++)
            if (counts[k] > counts[best])
                best = k;
        if (counts[best] == 0)
            break;
        if (counts[best] >= state->min_samples || plan_of(state, (uint32)best) != NULL)
            ks[count++] = (uint32)best;
        counts[best] = 0;
    }
    return count;
}

void
ruv_make_plan(RuvIndexState *state, uint32 k, double region_work)
{
    rv_plan *fresh = palloc0(sizeof(rv_plan) * RUV_MAX_PLANS);
    uint32 ks[RUV_MAX_PLANS];
    int count = choose_ks(state, k, ks);
    int made = 0;

    for (int i = 0; i < count; i++)
        made += renew_plan(state, ks[i], ks[i] == k ? region_work : 1.0, &fresh[made]);
    if (made > 0) {
        memcpy(state->plans, fresh, sizeof(rv_plan) * made);
        state->plan_count = made;
        state->plan_changed = true;
    }
    pfree(fresh);
}

/* ---- their row ------------------------------------------------------------------------------ */

void
ruv_store_save_plans(RuvStore *store, RuvIndexState *state)
{
    Oid types[5] = {OIDOID, OIDOID, NAMEOID, INT8OID, BYTEAOID};
    Datum values[5] = {ObjectIdGetDatum(state->index_oid), ObjectIdGetDatum(state->table_oid),
                       NameGetDatum(&state->index_name),
                       Int64GetDatum((int64)state->plans[0].index_epoch)};
    Size size = sizeof(rv_plan) * state->plan_count;
    bytea *bytes = palloc(VARHDRSZ + size);

    SET_VARSIZE(bytes, VARHDRSZ + size);
    memcpy(VARDATA(bytes), state->plans, size);
    values[4] = PointerGetDatum(bytes);
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_search_plans (index_oid, table_id, index_name, "
                  "index_epoch, plan) VALUES ($1, $2::regclass, $3, $4, $5) "
                  "ON CONFLICT (index_oid) DO UPDATE SET index_epoch = excluded.index_epoch, "
                  "plan = excluded.plan",
                  5, types, values, NULL);
    pfree(bytes);
}

int
ruv_plans_from_datum(Datum value, rv_plan *plans)
{
    bytea *bytes = DatumGetByteaPP(value);
    Size size = VARSIZE_ANY_EXHDR(bytes);
    int count = (int)(size / sizeof(rv_plan));

    if (size % sizeof(rv_plan) != 0 || count < 1 || count > RUV_MAX_PLANS)
        return 0;
    memcpy(plans, VARDATA_ANY(bytes), size);
    for (int i = 0; i < count; i++)
        if (rv_plan_check(&plans[i], NULL) != RV_OK || plans[i].k > RV_TRAJECTORY_MAX_HITS)
            return 0;
    return count;
}

void
ruv_store_load_plans(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};
    uint64 found = ruv_store_run(
        store, "SELECT plan FROM @.ruvector_search_plans WHERE index_oid = $1 AND index_epoch = $2",
        2, types, values, NULL);

    state->plan_count =
        found > 0 ? ruv_plans_from_datum(ruv_store_value(0, 1, NULL), state->plans) : 0;
}
