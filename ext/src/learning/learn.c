/*
 * learn.c - one round of learning for one index: trace and judge a batch, distil when it is time,
 * store everything in one transaction, publish after it has committed.
 *
 * When
 *   a pass over the table   once RUV_FULL_BATCH candidates wait, or when the searches pause. A pass
 *                           costs the rows whatever the number of searches, so passes for less than
 *                           a full batch keep a distance of RUV_SPREAD times what one costs.
 *   a distillation          min_samples samples are there, and they grew by a fifth since the last
 *                           one, or the searches pause; then too it keeps RUV_SPREAD times its cost
 *                           between two. A burst of searches is learned soon, and once
 *
 * The overall share of a core is the loop's affair (worker.c).
 *
 * Locks: the bank's lock (bank_edit.h) and AccessShareLock on table and index, taken only if free;
 * the latter are given back early when somebody waits for them (truth.c). An index whose round
 * fails is left alone for a while that doubles with every failure; the reason shows in
 * ruvector_learning_stats().
 */
#include "learning/linking.h"
#include "learning/worker.h"

#include "as_owner.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define RUV_FULL_BATCH 64
#define RUV_SPREAD 20
#define RUV_GROWTH 0.2
/* Searches have paused when none came for this long. */
#define RUV_PAUSE_MS 200

static bool
paused(const RuvIndexState *state, TimestampTz now)
{
    return TimestampDifferenceExceeds(state->last_drained, now, RUV_PAUSE_MS);
}

/* Whether a candidate waits whose search began before that. */
static bool
waits_since(const RuvIndexState *state, TimestampTz time)
{
    ListCell *cell;

    foreach (cell, state->candidates)
        if (((const RuvSample *)lfirst(cell))->head.started_us <= time)
            return true;
    return false;
}

static bool
pass_due(const RuvIndexState *state, TimestampTz now, bool force)
{
    int waiting = list_length(state->candidates);

    if (force)
        return waits_since(state, ruv_worker.extract_until);
    return waiting >= RUV_FULL_BATCH ||
           (waiting > 0 && paused(state, now) && now >= state->next_pass);
}

static bool
distillation_due(const RuvIndexState *state, TimestampTz now, bool force)
{
    if (state->undistilled == 0 || !ruv_distillable(state))
        return false;
    if (force || state->undistilled >= RUV_GROWTH * state->distilled_samples ||
        ruv_drift_relearning_due(state))
        return true;
    return paused(state, now) && now >= state->next_distil;
}

static bool
memory_due(const RuvIndexState *state, TimestampTz now, bool force)
{
    bool still = force || (paused(state, now) && now >= state->next_distil);

    if (state->memory != NULL && rv_memory_count(state->memory) >= (uint32)state->min_samples &&
        ruv_drift_relearning_due(state))
        return true;
    return ruv_memory_due(state, still);
}

static bool
consolidation_due(const RuvIndexState *state, TimestampTz now)
{
    return state->bank != NULL && rv_bank_count(state->bank) > 1 &&
           TimestampDifferenceExceeds(state->consolidated, now, ruv_consolidation_interval * 1000);
}

/* Anything but links. */
static bool
round_due(const RuvIndexState *state, TimestampTz now, bool force)
{
    return state->feedback_waiting > 0 || pass_due(state, now, force) ||
           distillation_due(state, now, force) || memory_due(state, now, force) ||
           ruv_links_retrace_due(state) || consolidation_due(state, now) ||
           ruv_recertify_due(state) || state->bank_changed || state->audit.changed ||
           ruv_privacy_due(state);
}

bool
ruv_learn_due(RuvIndexState *state, TimestampTz now, bool force)
{
    if (!force && now < state->retry_after)
        return false;
    ruv_links_decide(state, now, force);
    return state->linking.due || (!force && ruv_audit_due(state, now)) ||
           round_due(state, now, force);
}

/* ---- verdicts ------------------------------------------------------------------------------ */

static void
fill_feedback(const RuvSampleFeedback *feedback, rv_judge_input *in)
{
    in->feedback_relevant = feedback == NULL ? -1 : feedback->relevant;
    in->feedback_irrelevant = feedback == NULL ? -1 : feedback->irrelevant;
    in->feedback_missed_near = feedback == NULL ? -1 : feedback->missed_near;
    in->feedback_missed_far = feedback == NULL ? -1 : feedback->missed_far;
}

static void
judge(const RuvSample *sample, const rv_judge_input *index_figures, rv_judgement *verdict)
{
    rv_judge_input in = *index_figures;

    in.k = sample->head.k;
    in.returned = sample->head.result_count;
    in.latency_us = sample->head.latency_us;
    in.distances = sample->head.distances;
    in.hops = sample->head.hops;
    in.pages = sample->head.pages;
    in.ef_search = sample->head.ef_search;
    in.slack = sample->head.slack;
    in.adaptive = sample->head.mode == RV_SEARCH_ADAPTIVE ? 1 : 0;
    in.target_recall = sample->head.target_recall;
    in.expected_recall = sample->head.expected_recall < 0 ? -1 : sample->head.expected_recall;
    in.recall = sample->recall;
    in.score = sample->head.score < 0 ? -1 : sample->head.score;
    in.needed_distances = sample->needed_distances;
    in.diversity = sample->diversity;
    fill_feedback(sample->feedback, &in);
    (void)ruv_policy_judge(&in, verdict);
}

static void
fill_index_figures(const RuvIndexState *state, Relation index, rv_judge_input *figures)
{
    int m;
    int lists;

    memset(figures, 0, sizeof(*figures));
    ruv_running_fill(state, figures);
    ruv_index_built_with(index, &m, &lists);
    figures->index_m = m > 0 ? m : -1;
    figures->index_lists = lists > 0 ? lists : -1;
}

/* The verdict knows of the feedback now. True when that changes what the sample weighs. */
static bool
note_feedback(RuvSample *sample)
{
    if (sample->feedback == NULL)
        return false;
    sample->feedback->judged = true;
    return sample->feedback->missed_near > 0;
}

/* The traced part of a batch becomes samples. A search whose truth is empty teaches nothing. */
static void
take_samples(RuvIndexState *state, Relation index, RuvSample **batch, int count)
{
    rv_judge_input figures;

    fill_index_figures(state, index, &figures);
    for (int i = 0; i < count; i++) {
        RuvSample *sample = batch[i];

        if (sample->effort_count == 0) {
            ruv_sample_free(sample);
            continue;
        }
        if (!sample->retrace) {
            judge(sample, &figures, &sample->verdict);
            state->judged++;
            ruv_totals_judged(state, sample);
        }
        ruv_certificate_note(state, sample);
        ruv_plan_note_served(state, sample);
        ruv_policy_shadow_interpolate(state, sample);
        ruv_drift_note_sample(state, sample);
        sample->stored = false;
        ruv_state_add_sample(state, sample);
        state->undistilled += note_feedback(sample) || sample->even;
    }
}

/* Judges again the samples on which there is new feedback. A verdict on a former build of the index
 * stands as it is. */
static void
judge_again(RuvIndexState *state, Relation table, Relation index)
{
    rv_judge_input figures;
    ListCell *cell;

    fill_index_figures(state, index, &figures);
    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        if (sample->feedback == NULL || sample->feedback->judged)
            continue;
        if (!sample->retrace)
            judge(sample, &figures, &sample->verdict);
        state->undistilled += note_feedback(sample);
        if (ruv_sample_calibrates(sample))
            ruv_retrace_sample(state, table, index, sample);
    }
    state->feedback_waiting = 0;
}

/* ---- a pass over the table ----------------------------------------------------------------- */

/* Takes up to limit candidates out of the queue, oldest first. */
static int
take_batch(RuvIndexState *state, int limit, RuvSample **batch)
{
    int count = Min(limit, list_length(state->candidates));
    MemoryContext former;
    List *rest;

    for (int i = 0; i < count; i++)
        batch[i] = list_nth(state->candidates, i);
    former = MemoryContextSwitchTo(state->context);
    rest = list_copy_tail(state->candidates, count);
    list_free(state->candidates);
    state->candidates = rest;
    MemoryContextSwitchTo(former);
    state->candidates_seen = (uint64)list_length(state->candidates);
    state->in_flight = count;
    return count;
}

static void
put_back(RuvIndexState *state, RuvSample **batch, int count)
{
    for (int i = 0; i < count; i++)
        ruv_state_add_candidate(state, batch[i]);
}

static void
pass(RuvIndexState *state, Relation table, Relation index)
{
    double started = ruv_processor_seconds();
    RuvSample *batch[RUV_MAX_BATCH];
    int limit = Min(ruv_batch_limit(table, state->identity.dim), RUV_MAX_BATCH);
    int count = take_batch(state, limit, batch);
    double seconds;
    int done;

    ruv_links_ask_size(state);
    done = ruv_trace_batch(state, table, index, batch, count);
    put_back(state, batch + done, count - done);
    state->in_flight = done;
    take_samples(state, index, batch, done);
    ruv_drift_after_pass(state, table);
    seconds = ruv_processor_seconds() - started;
    if (!ruv_exact_affordable(table, state->identity.dim))
        ruv_audit_earn(state, table, seconds);
    state->next_pass =
        TimestampTzPlusMilliseconds(GetCurrentTimestamp(), seconds * 1000 * RUV_SPREAD);
}

static void
distil(RuvIndexState *state)
{
    double started = ruv_processor_seconds();

    (void)ruv_distil(state);
    state->next_distil = TimestampTzPlusMilliseconds(
        GetCurrentTimestamp(), (ruv_processor_seconds() - started) * 1000 * RUV_SPREAD);
}

bool
ruv_worker_open(const RuvIndexState *state, Relation *table, Relation *index)
{
    if (!ConditionalLockRelationOid(state->table_oid, AccessShareLock))
        return false;
    *table = try_relation_open(state->table_oid, NoLock);
    if (*table == NULL || !ConditionalLockRelationOid(state->index_oid, AccessShareLock))
        return false;
    *index = try_relation_open(state->index_oid, NoLock);
    return *index != NULL && ruv_is_index(*index) && (*index)->rd_index->indisvalid;
}

/* Takes over what a session has changed since the bank was loaded. The caller has the bank's lock.
 * False: learning was disabled or begun anew, of which the worker has not read yet. */
static bool
follow_changes(RuvIndexState *state)
{
    RuvStore store;

    if (state->slot->index_oid != state->index_oid || state->slot->fresh)
        return false;
    if (state->bank_revision == pg_atomic_read_u64(&state->slot->bank_revision))
        return true;
    if (!ruv_store_open(&store))
        return false;
    ruv_store_follow_patterns(&store, state);
    ruv_store_close(&store);
    return true;
}

/* What is due, as the table's owner: no function of theirs may have the worker's rights. */
static void
work(RuvIndexState *state, bool force, Relation table, Relation index)
{
    TimestampTz now = GetCurrentTimestamp();
    RuvIndexIdentity identity;
    RuvFormerUser former;

    ruv_become_owner(table, &former);
    ruv_policy_use(&state->slot->policies);
    ruv_policy_shadow(&state->shadow);
    ruv_index_identity(index, &identity);
    if (ruv_privacy_due(state))
        ruv_privacy_start_over(state, &identity);
    else if (identity.epoch != state->identity.epoch)
        ruv_state_start_over(state, &identity);
    ruv_links_follow_resets(state);
    if (state->feedback_waiting > 0)
        judge_again(state, table, index);
    if (pass_due(state, now, force))
        pass(state, table, index);
    if (ruv_recertify_due(state))
        ruv_recertify(state);
    now = GetCurrentTimestamp();
    if (memory_due(state, now, force) || ruv_links_retrace_due(state)) {
        if (memory_due(state, now, force))
            ruv_memory_flatten(state);
        ruv_retrace_samples(state, table, index);
        state->linking.renewed = false;
        distil(state);
    } else if (distillation_due(state, now, force)) {
        distil(state);
    }
    if (consolidation_due(state, now)) {
        ruv_consolidate(state);
        state->consolidated = now;
    }
    ruv_policy_shadow(NULL);
    ruv_resume_user(&former);
}

static void
save(RuvIndexState *state, bool patterns)
{
    RuvStore store;

    /* Dropped meanwhile: the next sync sees to it. */
    if (!ruv_store_open(&store))
        return;
    ruv_privacy_erase(&store, state);
    ruv_store_save_samples(&store, state);
    ruv_feedback_save(&store, state);
    ruv_certificate_save(&store, state);
    ruv_shadow_save(&store, state);
    ruv_links_save_reset(&store, state);
    if (patterns)
        ruv_store_save_patterns(&store, state);
    if (state->plan_changed)
        ruv_store_save_plans(&store, state);
    /* A memory belongs to the patterns calibrated with it; one given up goes at once. */
    if (state->memory_changed && (patterns || state->flat_memory == NULL))
        ruv_store_save_memory(&store, state);
    ruv_store_save_state(&store, state);
    ruv_totals_save(&store, state);
    ruv_audit_save(&store, state);
    ruv_costs_save(&store, state);
    ruv_store_close(&store);
}

static void
mark_stored(RuvIndexState *state)
{
    ListCell *cell;

    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        sample->stored = true;
        if (sample->hits != NULL)
            pfree(sample->hits);
        sample->hits = NULL;
    }
    ruv_feedback_saved(state);
    ruv_shadow_saved(state);
    state->linking.reset = false;
}

bool
ruv_learn_round(RuvIndexState *state, bool force)
{
    double started;
    Relation table = NULL;
    Relation index = NULL;
    bool opened;

    bool links = state->linking.due;

    state->linking.due = false;
    if (links && ruv_links_round(state))
        return true;
    if (!force && ruv_audit_due(state, GetCurrentTimestamp()) && ruv_audit(state))
        return true;
    if (!round_due(state, GetCurrentTimestamp(), force))
        return false;
    started = ruv_processor_seconds();

    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    pgstat_report_activity(STATE_RUNNING,
                           psprintf("learning from searches of %s", NameStr(state->index_name)));
    opened = ruv_bank_try_lock(state->index_oid) && ruv_worker_open(state, &table, &index) &&
             follow_changes(state);
    if (opened)
        work(state, force, table, index);
    if (index != NULL)
        index_close(index, NoLock);
    if (table != NULL)
        table_close(table, NoLock);
    if (opened) {
        state->learning_seconds += ruv_processor_seconds() - started;
        started = ruv_processor_seconds();
        save(state, state->bank_changed && state->bank != NULL);
    }
    PopActiveSnapshot();
    CommitTransactionCommand();
    pgstat_report_activity(STATE_IDLE, NULL);
    if (!opened)
        return false;
    state->in_flight = 0;
    mark_stored(state);
    if (state->bank_changed && state->bank != NULL) {
        bool renewed_memory = state->memory_changed;

        state->memory_changed = false;
        ruv_state_publish(state);
        if (renewed_memory)
            state->memory_published = GetCurrentTimestamp();
    }
    state->learning_seconds += ruv_processor_seconds() - started;
    return true;
}
