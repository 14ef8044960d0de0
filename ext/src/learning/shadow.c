/*
 * shadow.c - a candidate policy beside the one that serves, on live searches.
 *
 * In the worker only, and only for what the worker asks: verdicts, distillation, retention. The
 * candidate gets the same input after the serving policy has answered; the two answers are compared
 * and counted, and the candidate's is thrown away. Its failures count here and nowhere else.
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
