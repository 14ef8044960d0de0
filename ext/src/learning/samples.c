/*
 * samples.c - the worker's memory of searches: candidates, samples and running statistics.
 *
 * Every drained search feeds the running statistics. The first min_samples of a build become
 * candidates for a deep trace, then three in ten do (RUV_TRACE_SHARE): calibration gains little
 * from more, and the deep trace is what learning costs. The draw does not look at the search, and
 * what it takes is marked as drawn, and as even: certificates count nothing else. When candidates
 * arrive faster than they are traced, a reservoir (Vitter's algorithm R) keeps an even draw of what
 * arrived since the last round, so that a burst cannot grow the worker or push out what is
 * different.
 */
#include "learning/linking.h"
#include "learning/worker.h"

#include <math.h>

#include "utils/memutils.h"
#include "utils/timestamp.h"

RuvSample *
ruv_sample_create(RuvIndexState *state, const rv_trajectory *head, const float *query,
                  const rv_hit *hits)
{
    MemoryContext former = MemoryContextSwitchTo(state->context);
    RuvSample *sample = palloc0(sizeof(*sample));

    sample->head = *head;
    sample->query = palloc(sizeof(float) * head->dim);
    memcpy(sample->query, query, sizeof(float) * head->dim);
    sample->held_out = ruv_links_held_out(query, (int)head->dim);
    if (hits != NULL && head->result_count > 0) {
        sample->hits = palloc(sizeof(rv_hit) * head->result_count);
        memcpy(sample->hits, hits, sizeof(rv_hit) * head->result_count);
    }
    sample->recall = -1;
    sample->truth_bound = NAN;
    sample->needed_distances = -1;
    sample->diversity = -1;
    MemoryContextSwitchTo(former);
    return sample;
}

void
ruv_sample_free(RuvSample *sample)
{
    if (sample->hits != NULL)
        pfree(sample->hits);
    if (sample->efforts != NULL)
        pfree(sample->efforts);
    if (sample->feedback != NULL)
        ruv_feedback_free(sample->feedback);
    if (sample->descent_efforts != NULL)
        pfree(sample->descent_efforts);
    pfree(sample->query);
    pfree(sample);
}

double
ruv_sample_age(const RuvSample *sample, TimestampTz now)
{
    double age = (double)(now - sample->head.started_us) / USECS_PER_SEC;

    return Max(age, 0) + sample->aged_s;
}

void
ruv_state_add_candidate(RuvIndexState *state, RuvSample *sample)
{
    MemoryContext former = MemoryContextSwitchTo(state->context);

    state->candidates_seen++;
    if (list_length(state->candidates) < RUV_MAX_CANDIDATES) {
        state->candidates = lappend(state->candidates, sample);
    } else {
        uint64 place = rv_prng_below(&ruv_worker.prng, state->candidates_seen);
        ListCell *cell =
            place < RUV_MAX_CANDIDATES ? list_nth_cell(state->candidates, (int)place) : NULL;

        /* Nobody's feedback makes room. */
        if (cell != NULL && ((RuvSample *)lfirst(cell))->feedback == NULL) {
            ruv_sample_free(lfirst(cell));
            lfirst(cell) = sample;
        } else {
            ruv_sample_free(sample);
        }
    }
    MemoryContextSwitchTo(former);
}

int
ruv_calibrating_samples(const RuvIndexState *state)
{
    int count = 0;
    ListCell *cell;

    foreach (cell, state->samples)
        count += ((const RuvSample *)lfirst(cell))->even;
    return count;
}

/* The oldest sample goes; but while no more than min_samples calibrate, the oldest of those that do
 * not. Searches that are judged and nothing else would fill a small window otherwise, and
 * calibration would wait for ever. */
static int
least_wanted(const RuvIndexState *state, int calibrating)
{
    ListCell *cell;

    if (calibrating <= state->min_samples)
        foreach (cell, state->samples)
            if (!((const RuvSample *)lfirst(cell))->even)
                return foreach_current_index(cell);
    return 0;
}

static void
dismiss(RuvIndexState *state, int place)
{
    RuvSample *sample = list_nth(state->samples, place);

    state->dismissed =
        lappend(state->dismissed, DatumGetPointer(ruv_query_id_datum(sample->head.query_id)));
    ruv_sample_free(sample);
    state->samples = list_delete_nth_cell(state->samples, place);
}

static void
limit_to_window(RuvIndexState *state)
{
    int calibrating;

    if (list_length(state->samples) <= state->window)
        return;
    calibrating = ruv_calibrating_samples(state);
    while (list_length(state->samples) > state->window) {
        int place = least_wanted(state, calibrating);

        calibrating -= ((const RuvSample *)list_nth(state->samples, place))->even;
        dismiss(state, place);
    }
}

void
ruv_state_add_sample(RuvIndexState *state, RuvSample *sample)
{
    MemoryContext former = MemoryContextSwitchTo(state->context);

    state->samples = lappend(state->samples, sample);
    state->samples_ever++;
    limit_to_window(state);
    MemoryContextSwitchTo(former);
}

static void
running_add(RuvRunning *running, const rv_trajectory *head)
{
    int place = (int)(running->count++ % RUV_RUNNING);

    running->latency_us[place] = head->latency_us;
    running->distances[place] = (float)head->distances;
}

StaticAssertDecl(RUV_TRACE_SHARE >= RUV_CHECK_SHARE, "certificates need their even draw");

/* What a search is looked at for. */
typedef enum RuvUse { RUV_USE_NONE, RUV_USE_SAMPLE, RUV_USE_VERDICT, RUV_USE_LINKS } RuvUse;

static RuvUse
draw_use(const RuvIndexState *state, const float *query)
{
    double draw = rv_prng_uniform(&ruv_worker.prng);

    /* A first calibration takes whatever comes, also where links of former learning are left: one
     * that is a little too sure of them is better than none for four times as long. */
    if (state->sampled < (uint64)state->min_samples &&
        (state->linking.used == 0 || state->bank == NULL))
        return RUV_USE_SAMPLE;
    if (!ruv_links_wanted(state) && state->linking.used == 0)
        return draw < RUV_TRACE_SHARE ? RUV_USE_SAMPLE : RUV_USE_NONE;
    if (ruv_links_held_out(query, state->identity.dim))
        return RUV_USE_SAMPLE;
    if (draw < RUV_JUDGED_SHARE)
        return RUV_USE_VERDICT;
    draw -= RUV_JUDGED_SHARE;
    return ruv_links_wanted(state) && draw < RUV_LINK_SHARE / (1 - RUV_TRACE_SHARE) ? RUV_USE_LINKS
                                                                                    : RUV_USE_NONE;
}

void
ruv_state_observe(RuvIndexState *state, const rv_trajectory *head, const float *query,
                  const rv_hit *hits)
{
    RuvSample *sample;
    RuvUse use;

    state->trajectories++;
    state->last_drained = GetCurrentTimestamp();
    rv_rate_add(&ruv_worker.searches, state->last_drained, 1);
    rv_rate_add(&ruv_worker.search_seconds, state->last_drained, head->latency_us / 1e6);
    running_add(&state->running, head);
    ruv_totals_observe(state, head);
    if (state->slot->index_oid == state->index_oid && head->index_epoch == state->identity.epoch)
        ruv_costs_observe(state->slot, head);
    if (head->mode == RV_SEARCH_ADAPTIVE)
        state->adaptive_seen++;
    /* A query of a former build is as good a question as any; only its answer is out of date. More
     * rows than a record carries cannot be judged. */
    if (head->dim != (uint32_t)state->identity.dim || head->k > RV_TRAJECTORY_MAX_HITS)
        return;
    ruv_remember(state, head, query, hits);
    use = draw_use(state, query);
    if (use == RUV_USE_NONE)
        return;
    sample = ruv_sample_create(state, head, query, hits);
    sample->for_links = use == RUV_USE_LINKS;
    sample->asks = use != RUV_USE_SAMPLE;
    if (use == RUV_USE_SAMPLE)
        state->sampled++;
    sample->retrace = head->index_epoch != state->identity.epoch;
    sample->drawn = sample->even = use == RUV_USE_SAMPLE;
    if (!sample->retrace)
        ruv_drift_note_query(state, sample->query);
    ruv_audit_note(state, sample);
    ruv_state_add_candidate(state, sample);
}

void
ruv_state_start_over(RuvIndexState *state, const RuvIndexIdentity *identity)
{
    List *former = state->samples;
    bool same_space =
        identity->dim == state->identity.dim && identity->metric == state->identity.metric;
    ListCell *cell;

    ruv_forget_memory(state);
    ruv_certificate_forget(state);
    ruv_audit_forget(state);
    if (state->slot->index_oid == state->index_oid)
        ruv_costs_reset(state->slot);
    ruv_links_forget(state);
    state->identity = *identity;
    state->plan_count = 0;
    memset(&state->drift, 0, sizeof(state->drift));
    memset(state->served_misses, 0, sizeof(state->served_misses));
    memset(state->predicted_misses, 0, sizeof(state->predicted_misses));
    state->samples = NIL;
    state->sampled = 0;
    state->undistilled = 0;
    state->distilled_samples = 0;
    foreach (cell, state->candidates)
        ((RuvSample *)lfirst(cell))->retrace = true;
    foreach (cell, former) {
        RuvSample *sample = lfirst(cell);

        if (same_space) {
            sample->retrace = true;
            ruv_state_add_candidate(state, sample);
            state->sampled++;
        } else {
            ruv_sample_free(sample);
        }
    }
    list_free(former);
}

void
ruv_state_publish_figures(RuvIndexState *state)
{
    RuvIndexSlot *slot = state->slot;

    /* Learning may have been disabled, and the slot given to another index. */
    if (slot->index_oid != state->index_oid)
        return;
    pg_atomic_write_u64(&slot->trajectories, state->trajectories);
    pg_atomic_write_u64(&slot->waiting,
                        (uint64)(list_length(state->candidates) + state->in_flight));
    ruv_costs_publish_recall(state);
    pg_atomic_write_u64(&slot->undistilled, (ruv_distillable(state) ? state->undistilled : 0) +
                                                (ruv_links_retrace_due(state) ? 1 : 0) +
                                                (ruv_links_pending(state) ? 1 : 0));
    pg_atomic_write_u64(&slot->learning_us, (uint64)(state->learning_seconds * 1e6));
}

static double
quantile_of(const float *values, int count, double q)
{
    double sorted[RUV_RUNNING];
    double out = -1;

    for (int i = 0; i < count; i++)
        sorted[i] = values[i];
    if (rv_quantile(sorted, NULL, (size_t)count, q, &out, NULL) != RV_OK)
        return -1;
    return out;
}

void
ruv_running_fill(const RuvIndexState *state, rv_judge_input *in)
{
    int count = (int)Min(state->running.count, RUV_RUNNING);
    double recall = 0;
    int measured = 0;
    double distances = 0;
    ListCell *cell;

    in->index_judged = (double)state->judged;
    in->index_latency_p50_us = -1;
    in->index_latency_p95_us = -1;
    in->index_mean_distances = -1;
    in->index_mean_recall = -1;
    if (count > 0) {
        in->index_latency_p50_us = quantile_of(state->running.latency_us, count, 0.50);
        in->index_latency_p95_us = quantile_of(state->running.latency_us, count, 0.95);
        for (int i = 0; i < count; i++)
            distances += state->running.distances[i];
        in->index_mean_distances = distances / count;
    }
    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        if (sample->recall >= 0 && sample->even) {
            recall += ruv_true_recall(state, sample);
            measured++;
        }
    }
    if (measured > 0)
        in->index_mean_recall = recall / measured;
}
