/*
 * drift.c - the worker notices when rows or queries are not what they were, and sees to it that
 * searches stay good until it has learned again.
 *
 * What is looked at (the tests are the engine's, drift.h)
 *   queries   the share of sampled queries that no remembered query resembles, among the last
 *             RUV_DRIFT_RECENT against that share at the last calibration. Looked at when a record
 *             is drained, so that the alarm does not wait for a pass over the table
 *   scores    the in-search scores of the last samples against those of the calibration
 *   recall    of adaptive searches, as they were served, against their targets, or what is in
 *             reach of them; where it was measured with reference searches, less what these miss
 *             (audit.c)
 *   rows      the size of the table against its size at the last plan
 *
 * Only samples that calibrate are looked at: those that feedback brought are no even draw.
 *
 * What an alarm does
 *   - the guard is widened at once (guard.c);
 *   - what samples from before say counts less, a sixteenth (four half-lives of plans.c; a quarter
 *     was too much, since they are many): they age by RUV_DRIFT_AGE_DAYS, those of the recent
 *     stretch do not;
 *   - memory and calibration are due as soon as there are RUV_DRIFT_EVIDENCE later samples. The
 *     calibration takes the widening back.
 */
#include "learning/worker.h"

#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define RUV_DRIFT_EVIDENCE 100
#define RUV_DRIFT_AGE_DAYS 56.0
#define RUV_DRIFT_LEAST_SHARE 0.15
#define RUV_DRIFT_TOLERANCE 0.005
#define RUV_DRIFT_GROWTH 1.1

static void
start_over(RuvDrift *drift)
{
    drift->query_count = drift->query_at = 0;
    drift->recall_count = drift->recall_at = 0;
}

/* Older samples say less from now on. */
static void
age_samples(RuvIndexState *state)
{
    int kept = list_length(state->samples) - RUV_DRIFT_RECENT;

    for (int i = 0; i < kept; i++)
        ((RuvSample *)list_nth(state->samples, i))->aged_s += RUV_DRIFT_AGE_DAYS * SECS_PER_DAY;
}

/* evidence: allocated; a long-lived context may be current. */
static void
alarm_about(RuvIndexState *state, RuvGuardReason reason, char *evidence)
{
    /* While the last alarm is being learned from, only a want of recall says anything new. */
    if (!state->drift.relearn) {
        age_samples(state);
        state->drift.relearn = true;
        state->drift.since = GetCurrentTimestamp();
    }
    ruv_guard_widen(state, reason, evidence);
    pfree(evidence);
    start_over(&state->drift);
}

bool
ruv_drift_relearning_due(const RuvIndexState *state)
{
    int wanted = Min(RUV_DRIFT_EVIDENCE, state->min_samples);
    int count = 0;

    if (!state->drift.relearn)
        return false;
    for (int i = list_length(state->samples); i-- > 0 && count < wanted;) {
        const RuvSample *sample = list_nth(state->samples, i);

        if (sample->even && sample->head.started_us >= state->drift.since)
            count++;
    }
    return count >= wanted;
}

/* ---- queries ------------------------------------------------------------------------------- */

void
ruv_drift_note_query(RuvIndexState *state, const float *query)
{
    RuvDrift *drift = &state->drift;
    rv_memory_match match;
    rv_allocator allocator;
    uint32 far = 0;

    if (state->flat_memory == NULL || state->plan_count == 0)
        return;
    ruv_context_allocator(state->context, &allocator);
    if (rv_memory_lookup(state->flat_memory, &allocator, query, false, &match, NULL) != RV_OK)
        return;
    drift->far[drift->query_at] = match.count == 0;
    drift->query_at = (drift->query_at + 1) % RUV_DRIFT_RECENT;
    drift->query_count = Min(drift->query_count + 1, RUV_DRIFT_RECENT);
    for (uint32 i = 0; i < drift->query_count; i++)
        far += drift->far[i];
    if (!drift->relearn && rv_drift_share(far, drift->query_count, drift->former_far,
                                          drift->former_count, RUV_DRIFT_LEAST_SHARE))
        alarm_about(
            state, RUV_GUARD_QUERIES,
            psprintf("Of the last %u searches %u resemble no remembered query, of " UINT64_FORMAT
                     " learned from " UINT64_FORMAT " did.",
                     drift->query_count, far, drift->former_count, drift->former_far));
}

/* ---- samples ------------------------------------------------------------------------------- */

static void
note_recall(RuvIndexState *state, const RuvSample *sample)
{
    RuvDrift *drift = &state->drift;
    double target;

    if (!sample->even || sample->retrace || sample->recall < 0 ||
        sample->head.mode != RV_SEARCH_ADAPTIVE || !(sample->head.target_recall > 0) ||
        sample->head.started_us < state->guard_since)
        return;
    /* More effort does not help beyond what is in reach, nor can a measured recall be above what a
     * reference search finds. */
    target = ruv_plan_reachable(state, sample->head.k, sample->head.target_recall);
    if (!sample->exact)
        target = Min(target, ruv_reference_recall(state));
    drift->gaps[drift->recall_at] = (float)(ruv_true_recall(state, sample) - target);
    drift->recall_at = (drift->recall_at + 1) % RUV_DRIFT_RECENT;
    drift->recall_count = Min(drift->recall_count + 1, RUV_DRIFT_RECENT);
    if (rv_drift_recall(drift->gaps, drift->recall_count, 0, RUV_DRIFT_TOLERANCE))
        alarm_about(
            state, RUV_GUARD_RECALL,
            psprintf("The last %u judged searches found less than was declared and is in reach.",
                     drift->recall_count));
}

void
ruv_drift_note_sample(RuvIndexState *state, const RuvSample *sample)
{
    if (state->plan_count > 0)
        note_recall(state, sample);
}

/* Scores of a stretch of the samples; -1 are those that were not read. */
static uint32
collect_scores(const RuvIndexState *state, int from, int to, float *out)
{
    uint32 count = 0;

    for (int i = Max(from, 0); i < to; i++) {
        const RuvSample *sample = list_nth(state->samples, i);

        if (sample->even && sample->descent_efforts != NULL && sample->score >= 0)
            out[count++] = sample->score;
    }
    return count;
}

static void
compare_scores(RuvIndexState *state)
{
    int all = list_length(state->samples);
    int middle = Min(state->drift.calibrated, all);
    float *former;
    float *recent;
    uint32 former_count;
    uint32 recent_count;

    if (state->drift.relearn || middle <= 0 || middle >= all)
        return;
    former = palloc(sizeof(float) * middle);
    recent = palloc(sizeof(float) * (all - middle));
    former_count = collect_scores(state, 0, middle, former);
    recent_count = collect_scores(state, Max(middle, all - RUV_DRIFT_RECENT), all, recent);
    if (rv_drift_distribution(recent, recent_count, former, former_count))
        alarm_about(state, RUV_GUARD_QUERIES,
                    psprintf("In-search scores of the last %u judged searches are not those of the "
                             "%u that were learned from: their medians are %.3f and %.3f.",
                             recent_count, former_count, recent[recent_count / 2],
                             former[former_count / 2]));
    pfree(former);
    pfree(recent);
}

void
ruv_drift_after_pass(RuvIndexState *state, Relation table)
{
    double blocks = RelationGetNumberOfBlocks(table);

    if (state->plan_count == 0)
        return;
    compare_scores(state);
    if (state->drift.blocks > 0 && blocks > state->drift.blocks * RUV_DRIFT_GROWTH &&
        !state->drift.relearn)
        alarm_about(state, RUV_GUARD_ROWS,
                    psprintf("The table has %.0f pages, and had %.0f when it was learned.", blocks,
                             state->drift.blocks));
    if (state->drift.blocks <= 0)
        state->drift.blocks = blocks;
}

/* ---- after a calibration ------------------------------------------------------------------- */

void
ruv_drift_calibrated(RuvIndexState *state)
{
    RuvDrift *drift = &state->drift;
    ListCell *cell;

    drift->former_far = drift->former_count = 0;
    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        if (!sample->even || sample->stale || sample->descent_efforts == NULL || sample->aged_s > 0)
            continue;
        drift->former_far += sample->far;
        drift->former_count++;
    }
    drift->calibrated = list_length(state->samples);
    drift->query_count = drift->query_at = 0;
    if (!drift->relearn || ruv_drift_relearning_due(state)) {
        drift->relearn = false;
        drift->blocks = 0;
    }
}
