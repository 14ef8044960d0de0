/*
 * policy.c - the one gateway from PostgreSQL to the policy host: calls, and what is counted and
 * logged of them. The host itself is policy_load.c's.
 *
 * No ereport happens while the host runs: its log callback only remembers the failure, which is
 * written after the call has come back. A cause is logged once per policy and reload in the whole
 * cluster (a bit in shared memory), so that a broken policy does not fill the log of a busy server.
 *
 * The counters that ruvector_policies() shows are the cluster's, in shared memory; without
 * preloading they are this process's.
 */
#include "learning/worker.h"

#include "common/hashfn.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static rv_host_failure unlogged_failure;
static bool has_unlogged_failure = false;
static const RuvPolicyNames *serving_names = NULL; /* see ruv_policy_use */
static RuvShadow *shadow = NULL;

/*
 * The last answer of the interpolation policy that was given without patterns. Such an input
 * follows from the plan and the target alone, so searches repeat it, and a policy is a function of
 * its input: asking again would cost a search two microseconds for the same answer.
 */
static struct {
    bool valid;
    char id[RUV_POLICY_ID];
    rv_interpolate_input in;
    rv_interpolation out;
} remembered_answer;

void
ruv_policy_forget_answers(void)
{
    remembered_answer.valid = false;
}

/* ---- failures ------------------------------------------------------------------------------ */

void
ruv_policy_remember_failure(void *ctx, const rv_host_failure *failure)
{
    unlogged_failure = *failure;
    has_unlogged_failure = true;
}

static void
log_failure(void)
{
    rv_host_failure failure = unlogged_failure;

    if (!has_unlogged_failure)
        return;
    has_unlogged_failure = false;
    if (ruv_shared != NULL) {
        uint64 bit = UINT64CONST(1) << failure.cause;

        if (pg_atomic_fetch_or_u64(&ruv_shared->policies[failure.kind].logged, bit) & bit)
            return;
    }
    ereport(LOG, (errmsg("the %s policy failed (%s), the built-in default serves: %s",
                         rv_policy_kind_name(failure.kind), rv_host_cause_name(failure.cause),
                         failure.reason),
                  errdetail("File %s, line %d.", failure.file, failure.line)));
}

/* ---- counters ------------------------------------------------------------------------------ */

/* The counters of one policy, found by a hash of its kind and name; NULL: as many others have some.
 * Slots are taken once and for all, so that a search finds its own without a lock. */
static RuvPolicyCounters *
named_counters(rv_policy_kind kind, const char *id)
{
    uint64 key = hash_bytes_extended((const unsigned char *)id, (int)strlen(id), kind) | 1;

    for (int probe = 0; probe < RUV_NAMED_POLICIES; probe++) {
        RuvPolicyCounters *counters =
            &ruv_shared->named_policies[(key / 2 + probe) % RUV_NAMED_POLICIES];
        uint64 found = pg_atomic_read_u64(&counters->key);

        if (found == key)
            return counters;
        if (found == 0 && pg_atomic_compare_exchange_u64(&counters->key, &found, key))
            return counters;
        if (found == key)
            return counters;
    }
    return NULL;
}

static void
count_call(RuvPolicyCounters *counters, rv_host_cause cause, uint64 ns)
{
    uint64 worst = pg_atomic_read_u64(&counters->worst_ns);

    pg_atomic_fetch_add_u64(&counters->calls, 1);
    pg_atomic_fetch_add_u64(&counters->total_ns, ns);
    if (cause != RV_HOST_OK && cause != RV_HOST_MISSING)
        pg_atomic_fetch_add_u64(&counters->failures[cause], 1);
    while (ns > worst && !pg_atomic_compare_exchange_u64(&counters->worst_ns, &worst, ns))
        ;
}

static void
figures_of_counters(RuvPolicyCounters *counters, RuvPolicyFigures *figures)
{
    figures->calls = pg_atomic_read_u64(&counters->calls);
    figures->worst_us = pg_atomic_read_u64(&counters->worst_ns) / 1e3;
    if (figures->calls > 0)
        figures->mean_us = pg_atomic_read_u64(&counters->total_ns) / 1e3 / figures->calls;
    for (int cause = 0; cause < RV_HOST_CAUSES; cause++) {
        figures->by_cause[cause] = pg_atomic_read_u64(&counters->failures[cause]);
        figures->failures += figures->by_cause[cause];
    }
}

static void
figures_of_host(const rv_host *host, rv_policy_kind kind, const char *id, RuvPolicyFigures *figures)
{
    rv_policy_info info;

    if (id == NULL)
        rv_host_info(host, kind, &info);
    for (uint32 i = 0; id != NULL && i < rv_host_policy_count(host); i++) {
        rv_host_policy(host, i, &info);
        if (info.kind == kind && strcmp(info.id, id) == 0)
            break;
    }
    figures->calls = info.calls;
    figures->failures = info.failures;
    for (int cause = 0; cause < RV_HOST_CAUSES; cause++)
        figures->by_cause[cause] = info.failures_by_cause[cause];
    figures->mean_us = info.mean_us;
    figures->worst_us = info.worst_us;
}

RuvPolicyFigures
ruv_policy_figures(rv_policy_kind kind, const char *id)
{
    RuvPolicyFigures figures = {0};
    RuvPolicyCounters *counters;

    if (ruv_shared == NULL) {
        rv_host *host = ruv_policy_host();

        if (host != NULL)
            figures_of_host(host, kind, id, &figures);
        return figures;
    }
    counters = id == NULL ? &ruv_shared->policies[kind] : named_counters(kind, id);
    if (counters != NULL)
        figures_of_counters(counters, &figures);
    return figures;
}

/* ---- which policy -------------------------------------------------------------------------- */

void
ruv_policy_use(const RuvPolicyNames *names)
{
    serving_names = names;
}

void
ruv_policy_use_of(Oid index_oid)
{
    const RuvIndexCache *cache = ruv_index_cache(index_oid);

    serving_names = cache != NULL && cache->slot != NULL ? &cache->policies : NULL;
}

void
ruv_policy_shadow(RuvShadow *candidates)
{
    shadow = candidates;
}

/* Lets the chosen policy serve. One that is not there any more is reported, once per reload in the
 * whole cluster; then the default one serves. */
static void
use_chosen(rv_host *serving, rv_policy_kind kind)
{
    const char *id = serving_names == NULL ? "" : serving_names->id[kind];
    RuvPolicyCounters *counters;

    if (rv_host_use(serving, kind, id[0] == '\0' ? NULL : id) == RV_HOST_OK)
        return;
    counters = ruv_shared == NULL ? NULL : named_counters(kind, id);
    if (counters != NULL &&
        (pg_atomic_fetch_or_u64(&counters->logged, UINT64CONST(1) << RV_HOST_MISSING) &
         (UINT64CONST(1) << RV_HOST_MISSING)))
        return;
    ereport(LOG,
            (errmsg("the %s policy \"%s\" is not in the policy directory, the default one serves",
                    rv_policy_kind_name(kind), id),
             errhint("The directory is \"%s\".", ruv_policy_directory_path())));
}

/* ---- calls --------------------------------------------------------------------------------- */

static void
finish_call(rv_host *serving, rv_policy_kind kind, rv_host_cause cause, instr_time started)
{
    if (ruv_shared != NULL) {
        const char *id = rv_host_used(serving, kind);
        RuvPolicyCounters *own = id == NULL ? NULL : named_counters(kind, id);
        instr_time ended;
        uint64 ns;

        INSTR_TIME_SET_CURRENT(ended);
        INSTR_TIME_SUBTRACT(ended, started);
        ns = (uint64)(INSTR_TIME_GET_DOUBLE(ended) * 1e9);
        count_call(&ruv_shared->policies[kind], cause, ns);
        if (own != NULL)
            count_call(own, cause, ns);
    }
    log_failure();
}

/* Whether the policy in use has answered this, and what. */
static bool
recall_answer(const char *id, const rv_interpolate_input *in, rv_interpolation *out)
{
    if (!remembered_answer.valid || id == NULL || in->pattern_count > 0 ||
        strcmp(remembered_answer.id, id) != 0 ||
        memcmp(&remembered_answer.in, in, sizeof(*in)) != 0)
        return false;
    *out = remembered_answer.out;
    return true;
}

static void
remember_answer(const char *id, const rv_interpolate_input *in, const rv_interpolation *out)
{
    if (id == NULL || in->pattern_count > 0 || strlen(id) >= sizeof(remembered_answer.id))
        return;
    strlcpy(remembered_answer.id, id, sizeof(remembered_answer.id));
    remembered_answer.in = *in;
    remembered_answer.out = *out;
    remembered_answer.valid = true;
}

rv_host_cause
ruv_policy_interpolate(const rv_interpolate_input *in, rv_interpolation *out)
{
    rv_host *serving = ruv_policy_host();
    rv_host_failure failure;
    rv_host_cause cause;
    instr_time started;

    if (serving == NULL) {
        out->slack = in->defaults.slack;
        out->ef_search = in->defaults.ef_search;
        out->probes = in->defaults.probes;
        return RV_HOST_MEMORY;
    }
    use_chosen(serving, RV_POLICY_INTERPOLATION);
    if (recall_answer(rv_host_used(serving, RV_POLICY_INTERPOLATION), in, out))
        return RV_HOST_OK;
    INSTR_TIME_SET_CURRENT(started);
    cause = rv_host_interpolate(serving, in, out, &failure);
    finish_call(serving, RV_POLICY_INTERPOLATION, cause, started);
    if (cause == RV_HOST_OK)
        remember_answer(rv_host_used(serving, RV_POLICY_INTERPOLATION), in, out);
    return cause;
}

/* After a candidate was asked: its failure is the report's affair. In the log it would pass for one
 * of the serving policy, and keep that one's own out of it. */
static void
leave_shadow(void)
{
    has_unlogged_failure = false;
}

/* The worker cannot go on without a host; it tries again in its next round. */
static rv_host *
required_host(void)
{
    rv_host *serving = ruv_policy_host();

    if (serving == NULL)
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("no memory for the policy host")));
    return serving;
}

rv_host_cause
ruv_policy_judge(const rv_judge_input *in, rv_judgement *out)
{
    rv_host *serving = required_host();
    rv_host_failure failure;
    rv_host_cause cause;
    instr_time started;

    use_chosen(serving, RV_POLICY_VERDICT);
    INSTR_TIME_SET_CURRENT(started);
    cause = rv_host_judge(serving, in, out, &failure);
    finish_call(serving, RV_POLICY_VERDICT, cause, started);
    ruv_shadow_judge(shadow, serving, in, out);
    leave_shadow();
    CHECK_FOR_INTERRUPTS();
    return cause;
}

rv_host_cause
ruv_policy_distill(const rv_allocator *allocator, const rv_distill_input *in,
                   rv_distill_output *out)
{
    rv_host *serving = required_host();
    rv_host_failure failure;
    rv_host_cause cause;
    instr_time started;

    use_chosen(serving, RV_POLICY_DISTILLATION);
    INSTR_TIME_SET_CURRENT(started);
    cause = rv_host_distill(serving, allocator, in, out, &failure);
    finish_call(serving, RV_POLICY_DISTILLATION, cause, started);
    ruv_shadow_distill(shadow, serving, allocator, in, out);
    leave_shadow();
    CHECK_FOR_INTERRUPTS();
    return cause;
}

rv_host_cause
ruv_policy_choose(const rv_tuning_point *points, uint32 count, rv_tuning_goal goal,
                  rv_tuning_choice *out)
{
    rv_host *serving = required_host();
    rv_host_failure failure;
    rv_host_cause cause;
    instr_time started;

    use_chosen(serving, RV_POLICY_TUNING);
    INSTR_TIME_SET_CURRENT(started);
    cause = rv_host_choose(serving, points, count, goal, out, &failure);
    finish_call(serving, RV_POLICY_TUNING, cause, started);
    CHECK_FOR_INTERRUPTS();
    return cause;
}

rv_host_cause
ruv_policy_predict(const rv_selection_input *in, rv_selection *out)
{
    rv_host *serving = ruv_policy_host();
    rv_host_failure failure;
    rv_host_cause cause;
    instr_time started;

    if (serving == NULL) {
        out->hnsw = in->hnsw.cost;
        out->ivfflat = in->ivfflat.cost;
        return RV_HOST_MEMORY;
    }
    use_chosen(serving, RV_POLICY_SELECTION);
    INSTR_TIME_SET_CURRENT(started);
    cause = rv_host_predict(serving, in, out, &failure);
    finish_call(serving, RV_POLICY_SELECTION, cause, started);
    return cause;
}

rv_host_cause
ruv_policy_heal(const RuvPolicyNames *names, RuvShadow *candidates, const rv_healing_input *in,
                rv_healing *out)
{
    rv_host *serving = ruv_policy_host();
    const RuvPolicyNames *former = serving_names;
    rv_host_failure failure;
    rv_host_cause cause;
    instr_time started;

    if (serving == NULL) {
        *out = (rv_healing){false, 1, 2, 1, 1, 0};
        return RV_HOST_MEMORY;
    }
    serving_names = names;
    use_chosen(serving, RV_POLICY_HEALING);
    serving_names = former;
    INSTR_TIME_SET_CURRENT(started);
    cause = rv_host_heal(serving, in, out, &failure);
    finish_call(serving, RV_POLICY_HEALING, cause, started);
    ruv_shadow_heal(candidates, serving, in, out);
    leave_shadow();
    return cause;
}

void
ruv_policy_shadow_interpolate(RuvIndexState *state, const RuvSample *sample)
{
    ruv_shadow_interpolate(state, required_host(), sample);
    leave_shadow();
    CHECK_FOR_INTERRUPTS();
}

/* The retention calls return a status of their own, so a failure shows in the host's counter. */
static void
finish_retention(rv_host *serving, uint64 failures_before, instr_time started)
{
    rv_policy_info info;

    rv_host_info(serving, RV_POLICY_RETENTION, &info);
    finish_call(serving, RV_POLICY_RETENTION,
                info.failures > failures_before ? RV_HOST_ERROR : RV_HOST_OK, started);
}

rv_status
ruv_policy_merge(void *ctx, const rv_pattern *a, const float *a_centroid, const rv_pattern *b,
                 const float *b_centroid, uint32_t dim, double weight, rv_pattern *out,
                 float *out_centroid, rv_error *err)
{
    rv_host *serving = required_host();
    rv_policy_info before;
    instr_time started;
    rv_status status;

    use_chosen(serving, RV_POLICY_RETENTION);
    rv_host_info(serving, RV_POLICY_RETENTION, &before);
    INSTR_TIME_SET_CURRENT(started);
    status =
        rv_host_merge(serving, a, a_centroid, b, b_centroid, dim, weight, out, out_centroid, err);
    finish_retention(serving, before.failures, started);
    return status;
}

bool
ruv_policy_keep(void *ctx, const rv_pattern *pattern)
{
    rv_keep_context keep_context = {required_host(), GetCurrentTimestamp()};
    rv_policy_info before;
    instr_time started;
    bool keep;

    use_chosen(keep_context.host, RV_POLICY_RETENTION);
    rv_host_info(keep_context.host, RV_POLICY_RETENTION, &before);
    INSTR_TIME_SET_CURRENT(started);
    keep = rv_host_keep(&keep_context, pattern);
    finish_retention(keep_context.host, before.failures, started);
    ruv_shadow_keep(shadow, keep_context.host, keep_context.now_us, pattern, keep);
    leave_shadow();
    return keep;
}
