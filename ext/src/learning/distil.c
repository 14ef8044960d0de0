/*
 * distil.c - from judged samples to patterns, and from patterns to the bank.
 *
 * A calibration holds for the window it was traced with, so the samples of the most common k are
 * taken; searches that want another number of rows use the same slack, in windows of that k.
 *
 * The index-wide pattern is calibrated anew over all retained samples each time, so it replaces the
 * former one (keeping its id, birth and usage). Region patterns are learned into the bank with the
 * table's learning_rate, since a region seen long ago may have no sample left; when the
 * memory of queries was made anew they begin anew, too. They are few (RUV_MAX_REGIONS): every
 * search compares its query with each of them.
 */
#include "learning/linking.h"
#include "learning/worker.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RUV_NEAREST_USED 3

/* Samples that do not calibrate by themselves do not decide. */
uint32
ruv_most_common_k(const RuvIndexState *state, int *count)
{
    int counts[RV_TRAJECTORY_MAX_HITS + 1] = {0};
    uint32 best = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        counts[sample->head.k] += sample->even;
    }
    for (uint32 k = 1; k <= RV_TRAJECTORY_MAX_HITS; k++)
        if (counts[k] > 0 && counts[k] >= counts[best])
            best = k;
    if (count != NULL)
        *count = counts[best];
    return best;
}

bool
ruv_distillable(const RuvIndexState *state)
{
    int count;

    (void)ruv_most_common_k(state, &count);
    return count >= state->min_samples;
}

/* *count: how many. */
static rv_sample *
collect_samples(const RuvIndexState *state, uint32 k, TimestampTz now, int *count)
{
    rv_sample *samples = palloc0(sizeof(rv_sample) * (list_length(state->samples) + 1));
    int filled = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *from = lfirst(cell);
        rv_sample *to = &samples[filled];

        if (from->head.k != k || !(ruv_sample_weight(from) > 0))
            continue;
        to->weight = ruv_sample_weight(from);
        to->query = from->query;
        to->efforts = from->efforts;
        to->effort_count = from->effort_count;
        to->nearest_count = from->nearest_count;
        memcpy(to->nearest, from->nearest, sizeof(to->nearest));
        to->recall = from->recall;
        to->confidence = from->verdict.confidence;
        to->age_s = ruv_sample_age(from, now);
        to->work = from->descent_efforts != NULL ? &from->work : NULL;
        to->success = from->verdict.success;
        filled++;
    }
    *count = filled;
    return samples;
}

static void
require_bank(RuvIndexState *state)
{
    rv_error err = {0};

    if (state->bank == NULL)
        ruv_check(rv_bank_create(&state->allocator, state->identity.metric,
                                 (uint32_t)state->identity.dim, RUV_BANK_LIMIT, &state->bank, &err),
                  &err, "creating the pattern bank");
}

/* Drops patterns whose calibration does not hold any more: those of former builds of the index, and
 * regions calibrated with a former memory. */
static void
drop_outdated(RuvIndexState *state)
{
    rv_error err = {0};

    for (uint32 i = rv_bank_count(state->bank); i-- > 0;) {
        const float *centroid;
        const rv_pattern *pattern = rv_bank_get(state->bank, i, &centroid);

        if (pattern->index_epoch != state->identity.epoch ||
            (state->memory_renewed && pattern->scope == RV_PATTERN_REGION))
            ruv_check(rv_bank_remove(state->bank, pattern->id, &err), &err,
                      "dropping an outdated pattern");
    }
}

/* ---- usage --------------------------------------------------------------------------------- */

static void
add_usage(RuvIndexState *state, const rv_pattern *pattern, const float *centroid, uint64 uses)
{
    rv_pattern changed = *pattern;
    size_t bytes = sizeof(float) * state->identity.dim;
    float *copy = centroid == NULL ? NULL : memcpy(palloc(bytes), centroid, bytes);
    uint64_t id;
    rv_error err = {0};

    changed.usage += uses;
    ruv_check(rv_bank_put(state->bank, &changed, copy, &id, &err), &err, "counting usage");
}

/* Counts, by their rank in the bank, the patterns that the new samples' searches have used. A
 * traced search stands for 1 / RUV_TRACE_SHARE searches. */
static void
count_usage(RuvIndexState *state)
{
    uint32 patterns = state->bank == NULL ? 0 : rv_bank_count(state->bank);
    uint64 *uses = palloc0(sizeof(uint64) * (patterns + 1));
    int first = Max(list_length(state->samples) - (int)state->undistilled, 0);

    if (patterns == 0)
        return;
    for (int i = first; i < list_length(state->samples); i++) {
        const RuvSample *sample = list_nth(state->samples, i);
        rv_bank_match matches[RUV_NEAREST_USED];
        uint32_t count = 0;

        if (sample->head.mode != RV_SEARCH_ADAPTIVE || sample->retrace ||
            rv_bank_lookup(state->bank, sample->query, RUV_NEAREST_USED, matches, &count, NULL) !=
                RV_OK)
            continue;
        for (uint32 j = 0; j < count; j++)
            for (uint32 rank = 0; rank < patterns; rank++) {
                const float *centroid;

                if (rv_bank_get(state->bank, rank, &centroid) == matches[j].pattern)
                    uses[rank] += (uint64)(1 / RUV_TRACE_SHARE);
            }
    }
    for (uint32 rank = 0; rank < patterns; rank++) {
        const float *centroid;
        const rv_pattern *pattern = rv_bank_get(state->bank, rank, &centroid);

        if (pattern->scope == RV_PATTERN_INDEX)
            uses[rank] = state->adaptive_seen;
        if (uses[rank] > 0)
            add_usage(state, pattern, centroid, uses[rank]);
    }
    state->adaptive_seen = 0;
}

/* ---- into the bank ------------------------------------------------------------------------- */

static void
learn_index_pattern(RuvIndexState *state, rv_pattern *pattern)
{
    const rv_pattern *former = rv_bank_index_pattern(state->bank);
    uint64_t id;
    rv_error err = {0};

    if (former != NULL) {
        pattern->id = former->id;
        pattern->created_us = former->created_us;
        pattern->usage = former->usage;
    }
    ruv_check(rv_bank_put(state->bank, pattern, NULL, &id, &err), &err,
              "learning the index-wide pattern");
}

static void
learn_region_pattern(RuvIndexState *state, const rv_pattern *pattern, const float *centroid)
{
    uint64_t id;
    rv_error err = {0};
    rv_status status = rv_bank_learn(state->bank, pattern, centroid, state->learning_rate,
                                     RUV_MERGE_SIMILARITY, ruv_policy_merge, NULL, &id, &err);

    /* A full bank keeps what it has: the next consolidation makes room. */
    if (status != RV_ERR_FULL)
        ruv_check(status, &err, "learning a region pattern");
}

static void
learn_patterns(RuvIndexState *state, const rv_distill_output *found)
{
    for (uint32 i = 0; i < found->count; i++) {
        rv_pattern *pattern = &found->patterns[i];

        if (pattern->scope == RV_PATTERN_INDEX)
            learn_index_pattern(state, pattern);
        else if (ruv_keeps_queries(state)) /* a centroid is made of queries */
            learn_region_pattern(state, pattern,
                                 found->centroids + (size_t)i * state->identity.dim);
    }
}

/* Merges the region patterns that are most alike until there are few enough. */
static void
limit_regions(RuvIndexState *state)
{
    double similarity = RUV_MERGE_SIMILARITY;
    rv_error err = {0};

    while (rv_bank_count(state->bank) > RUV_MAX_REGIONS + 1 && similarity > 0) {
        uint32_t merged;

        ruv_check(
            rv_bank_consolidate(state->bank, similarity, ruv_policy_merge, NULL, &merged, &err),
            &err, "consolidating the pattern bank");
        similarity -= 0.1;
    }
}

bool
ruv_distil(RuvIndexState *state)
{
    MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "ruvector distillation",
                                                  ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(context);
    TimestampTz now = GetCurrentTimestamp();
    rv_distill_input in = {0};
    rv_distill_output out = {0};
    rv_allocator allocator;
    int count;

    in.k = ruv_most_common_k(state, &count);
    if (count >= state->min_samples) {
        in.metric = state->identity.metric;
        in.dim = (uint32_t)state->identity.dim;
        ruv_feedback_weigh(state, in.k);
        in.samples = collect_samples(state, in.k, now, &count);
        in.sample_count = (uint32_t)count;
        in.target_recall = ruv_effective_target_recall(&state->identity.own);
        in.min_samples = state->min_samples;
        in.learning_rate = state->learning_rate;
        in.index_epoch = state->identity.epoch;
        in.now_us = now;
        in.seed = state->identity.epoch; /* the same samples give the same regions */
        ruv_context_allocator(context, &allocator);
        (void)ruv_policy_distill(&allocator, &in, &out);
        if (out.count > 0) {
            require_bank(state);
            drop_outdated(state);
            count_usage(state);
            learn_patterns(state, &out);
            limit_regions(state);
            ruv_make_plan(state, in.k, out.region_work);
            state->bank_changed = true;
            state->memory_renewed = false;
            state->last_learned = now;
            ruv_guard_learned(state);
            ruv_drift_calibrated(state);
        }
        state->undistilled = 0;
        state->distilled_samples = (uint32)ruv_calibrating_samples(state);
    }
    MemoryContextSwitchTo(former);
    MemoryContextDelete(context);
    return state->bank_changed;
}

void
ruv_consolidate(RuvIndexState *state)
{
    uint32_t merged = 0;
    uint32_t pruned = 0;
    rv_error err = {0};

    ruv_check(rv_bank_consolidate(state->bank, RUV_MERGE_SIMILARITY, ruv_policy_merge, NULL,
                                  &merged, &err),
              &err, "consolidating the pattern bank");
    ruv_check(rv_bank_prune(state->bank, ruv_policy_keep, NULL, &pruned, &err), &err,
              "pruning the pattern bank");
    if (merged > 0 || pruned > 0)
        state->bank_changed = true;
}
