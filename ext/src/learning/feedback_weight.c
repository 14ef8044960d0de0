/*
 * feedback_weight.c - how far feedback moves a calibration, and how many samples it may fill.
 *
 * A calibration rests on searches that were drawn whatever they were (RuvSample.even); each weighs
 * 1. A search for which feedback proves an index miss weighs 1 more, and 1 if it was sampled only
 * because of the feedback. All other feedback weighs nothing here: it shows in verdicts, and an
 * embedding miss never raises effort.
 *
 * So that no client can steer what everybody gets: the weight of what one role has proven is at
 * most ruvector.feedback_share of the number of searches drawn, that of all roles
 * RV_FEEDBACK_TOTAL_SHARE (rv_feedback_limit), and of the samples that are kept one role's feedback
 * may fill the same share of the window.
 */
#include "learning/worker.h"

#include "utils/array.h"

void
ruv_feedback_free(RuvSampleFeedback *feedback)
{
    if (feedback->roles != NULL)
        pfree(feedback->roles);
    if (feedback->revisions != NULL)
        pfree(feedback->revisions);
    pfree(feedback);
}

static bool
proves_index_miss(const RuvSample *sample)
{
    return sample->feedback != NULL && sample->feedback->missed_near > 0;
}

static int
compare_roles(const void *a, const void *b)
{
    Oid left = *(const Oid *)a;
    Oid right = *(const Oid *)b;

    return (left > right) - (left < right);
}

/* The roles of the proofs among samples of this k, sorted, each once. */
static Oid *
proving_roles(const RuvIndexState *state, uint32 k, int *count)
{
    Oid *roles = palloc(sizeof(Oid) * (list_length(state->samples) + 1));
    int all = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        if (sample->head.k == k && proves_index_miss(sample))
            roles[all++] = sample->feedback->role;
    }
    qsort(roles, all, sizeof(Oid), compare_roles);
    *count = 0;
    for (int i = 0; i < all; i++)
        if (*count == 0 || roles[*count - 1] != roles[i])
            roles[(*count)++] = roles[i];
    return roles;
}

static int
place_of(const Oid *roles, int count, Oid role)
{
    const Oid *found = bsearch(&role, roles, count, sizeof(Oid), compare_roles);

    Assert(found != NULL);
    return (int)(found - roles);
}

void
ruv_feedback_weigh(RuvIndexState *state, uint32 k)
{
    int count;
    Oid *roles = proving_roles(state, k, &count);
    double *wanted = palloc0(sizeof(double) * (count + 1));
    double *factors = palloc0(sizeof(double) * (count + 1));
    double drawn = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        sample->proof = 0;
        if (sample->head.k != k)
            continue;
        drawn += sample->even;
        if (proves_index_miss(sample))
            wanted[place_of(roles, count, sample->feedback->role)] += 1;
    }
    rv_feedback_limit(wanted, (uint32)count, drawn, ruv_feedback_share, factors);
    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        if (sample->head.k == k && proves_index_miss(sample))
            sample->proof = (float)factors[place_of(roles, count, sample->feedback->role)];
    }
    pfree(roles);
    pfree(wanted);
    pfree(factors);
}

bool
ruv_sample_calibrates(const RuvSample *sample)
{
    return sample->even || proves_index_miss(sample);
}

double
ruv_sample_weight(const RuvSample *sample)
{
    return sample->stale ? 0 : (sample->even ? 1 : 0) + sample->proof;
}

/* ---- how many are kept --------------------------------------------------------------------- */

typedef struct RoleCount {
    Oid role;
    int samples;
} RoleCount;

static RoleCount *
count_of(RoleCount *counts, int *roles, Oid role)
{
    int i = 0;

    while (i < *roles && counts[i].role != role)
        i++;
    if (i == *roles)
        counts[(*roles)++] = (RoleCount){role, 0};
    return &counts[i];
}

/* Drops what is there because of feedback alone, of each role all but the newest. */
static void
drop_excess(RuvIndexState *state)
{
    int most = (int)(ruv_feedback_share * state->window);
    RoleCount *counts = palloc(sizeof(RoleCount) * (list_length(state->samples) + 1));
    int roles = 0;

    for (int i = list_length(state->samples) - 1; i >= 0; i--) {
        RuvSample *sample = list_nth(state->samples, i);

        if (sample->drawn || sample->feedback == NULL)
            continue;
        if (++count_of(counts, &roles, sample->feedback->role)->samples > most) {
            state->samples = list_delete_nth_cell(state->samples, i);
            ruv_sample_free(sample);
        }
    }
    pfree(counts);
}

void
ruv_feedback_saved(RuvIndexState *state)
{
    bool extra = false;
    ListCell *cell;

    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        if (sample->feedback != NULL && sample->feedback->judged)
            sample->feedback->stored = true;
        extra = extra || !sample->drawn;
    }
    if (extra)
        drop_excess(state);
}
