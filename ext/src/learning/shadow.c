/*
 * shadow.c - a candidate policy beside the one that serves, on live searches.
 *
 * In the worker only. For what the worker asks - verdicts, distillation, retention, healing - the
 * candidate gets the same input after the serving policy has answered; the two answers are compared
 * and counted, and the candidate's is thrown away. Its failures count here and nowhere else.
 *
 * Interpolation is asked by sessions, which must not pay for a second answer. The worker asks both
 * policies once more about each search that it has traced, with what a session would be told now;
 * the trace shows recall and work of the search that follows from either answer. Searches that one
 * effort for all serves are not compared: nobody asks about them.
 *
 * Figures are kept per index as differences since the last save, and added to their row in the same
 * transaction as the round's other results, so they survive a restart and are never counted twice.
 */
#include "learning/worker.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

void
ruv_shadow_follow(RuvShadow *shadow, const RuvPolicyNames *names)
{
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++) {
        if (strcmp(shadow->names.id[kind], names->id[kind]) == 0)
            continue;
        strlcpy(shadow->names.id[kind], names->id[kind], RUV_POLICY_ID);
        memset(&shadow->figures[kind], 0, sizeof(shadow->figures[kind]));
    }
}

/* The figures of a candidate, which serves the host's next call; NULL: there is none that could.
 * Every call by policy.c begins with the policy that was chosen, so nothing has to be put back. */
static RuvShadowFigures *
begin_shadow(RuvShadow *shadow, rv_host *host, rv_policy_kind kind)
{
    if (shadow == NULL || shadow->names.id[kind][0] == '\0')
        return NULL;
    if (rv_host_use(host, kind, shadow->names.id[kind]) == RV_HOST_OK)
        return &shadow->figures[kind];
    shadow->figures[kind].missing++;
    return NULL;
}

static void
count_answer(RuvShadowFigures *figures, bool failed, bool same)
{
    figures->calls++;
    if (failed)
        figures->failures++;
    else if (same)
        figures->same++;
}

void
ruv_shadow_judge(RuvShadow *shadow, rv_host *host, const rv_judge_input *in,
                 const rv_judgement *active)
{
    RuvShadowFigures *figures = begin_shadow(shadow, host, RV_POLICY_VERDICT);
    rv_judgement candidate;
    rv_host_failure failure;
    bool failed;

    if (figures == NULL)
        return;
    failed = rv_host_judge(host, in, &candidate, &failure) != RV_HOST_OK;
    count_answer(figures, failed, candidate.success == active->success);
    if (failed || in->recall < 0)
        return;
    for (int by = 0; by < 2; by++) {
        RuvShadowSuccesses *successes = by == 0 ? &figures->active : &figures->candidate;

        if (!(by == 0 ? active : &candidate)->success)
            continue;
        successes->count++;
        successes->recall += in->recall;
        successes->distances += in->distances;
    }
}

/* Whether two distillations would have searches do the same: their index-wide slacks within 1%. */
static bool
same_patterns(const rv_distill_output *a, const rv_distill_output *b)
{
    if (a->count != b->count)
        return false;
    for (uint32 i = 0; i < a->count; i++)
        for (int row = 0; row < RV_TARGETS; row++)
            if (fabs((double)a->patterns[i].table_slack[row] - b->patterns[i].table_slack[row]) >
                0.01 * (1 + a->patterns[i].table_slack[row]))
                return false;
    return true;
}

void
ruv_shadow_distill(RuvShadow *shadow, rv_host *host, const rv_allocator *allocator,
                   const rv_distill_input *in, const rv_distill_output *active)
{
    RuvShadowFigures *figures = begin_shadow(shadow, host, RV_POLICY_DISTILLATION);
    rv_distill_output candidate = {0};
    rv_host_failure failure;
    bool failed;

    if (figures == NULL)
        return;
    failed = rv_host_distill(host, allocator, in, &candidate, &failure) != RV_HOST_OK;
    count_answer(figures, failed, same_patterns(active, &candidate));
    rv_distill_output_free(allocator, &candidate);
}

void
ruv_shadow_keep(RuvShadow *shadow, rv_host *host, int64 now_us, const rv_pattern *pattern,
                bool active)
{
    RuvShadowFigures *figures = begin_shadow(shadow, host, RV_POLICY_RETENTION);
    rv_keep_context context = {host, now_us};
    rv_policy_info before;
    rv_policy_info after;
    bool candidate;

    if (figures == NULL)
        return;
    rv_host_info(host, RV_POLICY_RETENTION, &before);
    candidate = rv_host_keep(&context, pattern);
    rv_host_info(host, RV_POLICY_RETENTION, &after);
    count_answer(figures, after.failures > before.failures, candidate == active);
}

void
ruv_shadow_heal(RuvShadow *shadow, rv_host *host, const rv_healing_input *in,
                const rv_healing *active)
{
    RuvShadowFigures *figures = begin_shadow(shadow, host, RV_POLICY_HEALING);
    rv_healing candidate;
    rv_host_failure failure;
    bool failed;

    if (figures == NULL)
        return;
    failed = rv_host_heal(host, in, &candidate, &failure) != RV_HOST_OK;
    count_answer(figures, failed, candidate.run == active->run);
    if (failed)
        return;
    figures->active.count += active->run;
    figures->candidate.count += candidate.run;
}

/* ---- interpolation -------------------------------------------------------------------------- */

/* What the search would be that follows from an answer. */
typedef struct Outcome {
    double recall;
    double distances;
} Outcome;

/* Answers as the policy with this id ("": the default one) does; false: it failed, and the built-in
 * answered. */
static bool
interpolate_by(rv_host *host, const char *id, const RuvAdvice *advice, rv_interpolation *answer)
{
    rv_host_failure failure;
    rv_host_cause cause;

    (void)rv_host_use(host, RV_POLICY_INTERPOLATION, id[0] == '\0' ? NULL : id);
    cause = rv_host_interpolate(host, &advice->in, answer, &failure);
    return cause == RV_HOST_OK || cause == RV_HOST_MISSING;
}

/* Reads it off the trace: a neighbour is found whose slack and ef are within the answer's, and the
 * work is that of the rule that ends the search first. False: the trace has no curve of work. */
static bool
follow(const RuvSample *sample, const RuvAdvice *advice, const rv_interpolation *answer,
       Outcome *outcome)
{
    bool by_memory = !advice->known || advice->plan.way == RV_WAY_MEMORY;
    const rv_effort *efforts = by_memory ? sample->efforts : sample->descent_efforts;
    const rv_work *work = by_memory ? &sample->work : &sample->descent_work;
    double slack = ruv_advised_slack(advice, answer, !sample->far);
    uint64 max_distances;
    uint32 found = 0;
    double by_slack;
    double by_ef;
    int ef;

    ruv_advised_bounds(advice, answer, &ef, &max_distances);
    by_slack = rv_work_at_slack(work, slack);
    by_ef = rv_work_at_ef(work, ef);
    if (by_slack < 0 || by_ef < 0)
        return false;
    for (uint32 i = 0; i < sample->effort_count; i++)
        found += efforts[i].slack <= slack && efforts[i].ef <= (uint32)ef &&
                 efforts[i].distances < max_distances;
    outcome->recall = (double)found / sample->effort_count;
    outcome->distances =
        Min(Min(by_slack, by_ef), (double)max_distances) + advice->lookup_distances;
    return true;
}

static void
add_outcome(RuvShadowSuccesses *successes, const Outcome *outcome, double target)
{
    successes->count += outcome->recall >= target - 1e-9;
    successes->recall += outcome->recall;
    successes->distances += outcome->distances;
}

/* What a session would be told of the search now; false: the policy is not asked about it. */
static bool
advise(const RuvIndexState *state, const RuvSample *sample, double target, RuvAdvice *advice)
{
    RuvIndexCache *cache = ruv_index_cache(state->index_oid);
    RuvChoiceReason reason;

    if (cache == NULL || cache->slot == NULL || !ruv_fetch_bank(cache))
        return false;
    reason =
        ruv_advise(cache, state->identity.epoch, sample->query, sample->head.k, target, advice);
    ruv_release_bank(cache);
    return reason == RUV_REASON_LEARNED && advice->asks && advice->window == (int)sample->head.k;
}

void
ruv_shadow_interpolate(RuvIndexState *state, rv_host *host, const RuvSample *sample)
{
    const char *candidate = state->shadow.names.id[RV_POLICY_INTERPOLATION];
    double target = sample->head.target_recall > 0 ? sample->head.target_recall : ruv_target_recall;
    rv_interpolation answers[2];
    Outcome outcomes[2];
    RuvShadowFigures *figures;
    RuvAdvice advice;
    bool failed;

    if (candidate[0] == '\0' || sample->descent_efforts == NULL ||
        !advise(state, sample, target, &advice))
        return;
    (void)interpolate_by(host, state->slot->policies.id[RV_POLICY_INTERPOLATION], &advice,
                         &answers[0]);
    figures = begin_shadow(&state->shadow, host, RV_POLICY_INTERPOLATION);
    if (figures == NULL || !follow(sample, &advice, &answers[0], &outcomes[0]))
        return;
    failed = !interpolate_by(host, candidate, &advice, &answers[1]);
    if (!failed && !follow(sample, &advice, &answers[1], &outcomes[1]))
        return;
    count_answer(figures, failed,
                 !failed && outcomes[0].recall == outcomes[1].recall &&
                     fabs(outcomes[0].distances - outcomes[1].distances) <=
                         0.01 * outcomes[0].distances);
    if (failed)
        return;
    add_outcome(&figures->active, &outcomes[0], target);
    add_outcome(&figures->candidate, &outcomes[1], target);
}

/* ---- the table ------------------------------------------------------------------------------ */

#define FIGURE_COLUMNS 14

static void
save_figures(RuvStore *store, const RuvIndexState *state, rv_policy_kind kind)
{
    static const char text[] =
        "INSERT INTO @.ruvector_policy_shadows AS s (index_oid, table_id, index_name, kind, "
        "policy, "
        "calls, failures, missing, same, active_successes, candidate_successes, active_recall, "
        "candidate_recall, active_distances, candidate_distances) "
        "VALUES ($1, $2::regclass, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) "
        "ON CONFLICT (index_oid, kind, policy) DO UPDATE SET calls = s.calls + excluded.calls, "
        "failures = s.failures + excluded.failures, missing = s.missing + excluded.missing, "
        "same = s.same + excluded.same, "
        "active_successes = s.active_successes + excluded.active_successes, "
        "candidate_successes = s.candidate_successes + excluded.candidate_successes, "
        "active_recall = s.active_recall + excluded.active_recall, "
        "candidate_recall = s.candidate_recall + excluded.candidate_recall, "
        "active_distances = s.active_distances + excluded.active_distances, "
        "candidate_distances = s.candidate_distances + excluded.candidate_distances";
    const RuvShadowFigures *figures = &state->shadow.figures[kind];
    Oid types[FIGURE_COLUMNS + 1] = {OIDOID,  OIDOID,    NAMEOID,   TEXTOID,   TEXTOID,
                                     INT8OID, INT8OID,   INT8OID,   INT8OID,   INT8OID,
                                     INT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID};
    Datum values[FIGURE_COLUMNS + 1] = {ObjectIdGetDatum(state->index_oid),
                                        ObjectIdGetDatum(state->table_oid),
                                        NameGetDatum(&state->index_name),
                                        CStringGetTextDatum(rv_policy_kind_name(kind)),
                                        CStringGetTextDatum(state->shadow.names.id[kind]),
                                        Int64GetDatum((int64)figures->calls),
                                        Int64GetDatum((int64)figures->failures),
                                        Int64GetDatum((int64)figures->missing),
                                        Int64GetDatum((int64)figures->same),
                                        Int64GetDatum((int64)figures->active.count),
                                        Int64GetDatum((int64)figures->candidate.count),
                                        Float8GetDatum(figures->active.recall),
                                        Float8GetDatum(figures->candidate.recall),
                                        Float8GetDatum(figures->active.distances),
                                        Float8GetDatum(figures->candidate.distances)};

    ruv_store_run(store, text, FIGURE_COLUMNS + 1, types, values, NULL);
}

void
ruv_shadow_save(RuvStore *store, const RuvIndexState *state)
{
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++)
        if (state->shadow.names.id[kind][0] != '\0' &&
            (state->shadow.figures[kind].calls > 0 || state->shadow.figures[kind].missing > 0))
            save_figures(store, state, (rv_policy_kind)kind);
}

void
ruv_shadow_saved(RuvIndexState *state)
{
    memset(state->shadow.figures, 0, sizeof(state->shadow.figures));
}
