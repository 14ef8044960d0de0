/*
 * optimizer.c - how to search: by what was learned, or by the static settings.
 *
 * The adaptive plan
 *   way          which way takes the least work for the declared recall, as measured on this
 *                index's own queries (plans.c): one effort for every search, the slack, or the
 *                slack begun at remembered entry points. What a search does not use it does not
 *                look up
 *   slack, ef    the plan's calibration at the declared recall; where regions pay, corrected by
 *                the nearest region patterns as the interpolation policy sees fit
 *   entry points the nodes that answered the nearest remembered queries; the search then begins
 *                there and does not descend. The slack was calibrated with them (trace.c)
 *   window       the number of results the calibration was made for: there is one for each common
 *                number of rows (plans.c), and the search takes that of the rows which the
 *                statement asks for (rows_asked.c). Further windows follow when the executor takes
 *                more
 *   guard        while the worker doubts the calibration, log(1 + slack) is multiplied (guard.c)
 *   limit        a search ends after some multiple of the mean work of its target, which the slack
 *                was calibrated under (plan.c): the hardest queries would take many times the mean
 *                for their last neighbour
 *   hard bounds  a wrong calibration must not cost without limit: ef at RUV_EF_HEADROOM times the
 *                static ef that reaches the same recall, and, where no limit was calibrated,
 *                distances per window at RUV_DISTANCE_HEADROOM times what searches with that ef
 *                take on average (but at least RUV_MIN_DISTANCE_BOUND). The headroom is wide since
 *                the mean over queries is the product's promise and the hard queries, which need
 *                many times the mean, carry it
 *
 * A bank without a plan (imported, or of a former version) serves by its index-wide pattern, with
 * everything in use.
 *
 * Without a bank for this build of the index the plan is static, and says why. Nothing here may
 * fail a query: memory that is short, a policy that fails or a bank that does not fit all mean a
 * simpler plan.
 */
#include "learning/learning_internal.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/memutils.h"

#define RUV_NEAREST_PATTERNS 3
#define RUV_EF_HEADROOM 8
#define RUV_DISTANCE_HEADROOM 20
#define RUV_MIN_DISTANCE_BOUND 5000
#define RUV_MAX_EF_BOUND 100000
#define RUV_GUARDED_SLACK 0.02f /* a calibrated slack of 0 can be widened, too */

const char *
ruv_choice_reason_name(RuvChoiceReason reason)
{
    switch (reason) {
        case RUV_REASON_LEARNED:
            return "learned";
        case RUV_REASON_SETTING_OFF:
            return "ruvector.adaptive_search is off";
        case RUV_REASON_INDEX_OFF:
            return "the index's adaptive_search is off";
        case RUV_REASON_NOT_PRELOADED:
            return "ruvector is not in shared_preload_libraries";
        case RUV_REASON_LEARNING_DISABLED:
            return "ruvector.learning_enabled is off";
        case RUV_REASON_NOTHING_LEARNED:
            return "nothing learned yet";
        case RUV_REASON_INDEX_REBUILT:
            return "the index was rebuilt since";
        case RUV_REASON_POLICY_FAILED:
            return "learned, with the built-in interpolation";
    }
    return "unknown";
}

static void
choose_static(const RuvIndexIdentity *index, RuvChoice *choice)
{
    memset(choice, 0, sizeof(*choice));
    choice->mode = RV_SEARCH_STATIC;
    choice->ef_search = ruv_effective_ef_search(&index->own);
    choice->window = choice->ef_search;
    choice->target_recall = ruv_effective_target_recall(&index->own);
    choice->expected_recall = -1;
    choice->probes = ruv_effective_probes(&index->own);
    choice->best_similarity = -1;
}

/* Memory of one lookup, reused by all of this backend. */
static MemoryContext
lookup_memory(rv_allocator *allocator)
{
    static MemoryContext context = NULL;

    if (context == NULL)
        context =
            AllocSetContextCreate(TopMemoryContext, "ruvector bank lookup", ALLOCSET_SMALL_SIZES);
    ruv_context_allocator(context, allocator);
    return context;
}

/* What a pattern says for the declared target. */
static void
describe_pattern(const rv_pattern *pattern, double similarity, double target,
                 rv_interpolate_pattern *out)
{
    out->similarity = similarity;
    out->slack = rv_pattern_slack_at(pattern, target);
    out->ef_search = rv_pattern_ef_at(pattern, target);
    out->probes = Max(pattern->optimal_probes, 1);
    out->expected_recall = rv_pattern_recall_at(pattern, target);
    out->confidence = pattern->confidence;
    out->samples = pattern->samples;
}

/* The calibrated way takes the place of what the index-wide pattern says. */
static void
describe_plan(const rv_plan_choice *plan, rv_interpolate_pattern *out)
{
    if (plan->way != RV_WAY_STATIC)
        out->slack = plan->effort;
    out->ef_search = Max(ceil(plan->static_ef), 1);
    out->expected_recall = plan->expected_recall;
}

/* What a region says, moved from the index-wide pattern that it was shrunk towards to the slack in
 * use: what a region knows is how it differs. */
static void
describe_region(const rv_pattern *region, const rv_pattern *index_wide, double similarity,
                const rv_interpolate_input *in, rv_interpolate_pattern *out)
{
    double common = log1p((double)rv_pattern_slack_at(index_wide, in->target_recall));

    describe_pattern(region, similarity, in->target_recall, out);
    out->slack = Max(expm1(log1p(out->slack) - common + log1p(in->defaults.slack)), 0);
}

/* The region patterns near the query that were calibrated for the same window and build. */
static void
add_nearest_patterns(const RuvIndexCache *cache, const rv_pattern *defaults, const float *query,
                     rv_interpolate_input *in, uint32 *distances)
{
    rv_bank_match matches[RUV_NEAREST_PATTERNS];
    MemoryContext context;
    rv_allocator allocator;
    uint32_t count = 0;

    if (rv_bank_flat_count(cache->bank) <= 1)
        return;
    context = lookup_memory(&allocator);
    if (rv_bank_flat_lookup(cache->bank, &allocator, query, RUV_NEAREST_PATTERNS, matches, &count,
                            distances, NULL) != RV_OK)
        count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const rv_pattern *pattern = matches[i].pattern;

        if (pattern->k == defaults->k && pattern->index_epoch == defaults->index_epoch)
            describe_region(pattern, defaults, matches[i].similarity, in,
                            &in->patterns[in->pattern_count++]);
    }
    MemoryContextReset(context);
}

static uint64
distance_bound(double expected, int ef_bound)
{
    double bound =
        Max(Max(expected, 0) * RUV_DISTANCE_HEADROOM, (double)ef_bound * RUV_EF_HEADROOM);

    return (uint64)Max(bound, RUV_MIN_DISTANCE_BOUND);
}

/* Entry points from remembered queries; none when no past query is near or memory is short. */
static void
choose_entry_points(const RuvIndexIdentity *index, const RuvIndexCache *cache, const float *query,
                    RuvChoice *choice)
{
    rv_memory_match match;
    MemoryContext context;
    rv_allocator allocator;

    if (cache->memory == NULL || rv_memory_flat_dim(cache->memory) != (uint32_t)index->dim)
        return;
    context = lookup_memory(&allocator);
    if (rv_memory_lookup(cache->memory, &allocator, query, false, &match, NULL) == RV_OK) {
        choice->entry_count = (int)match.count;
        choice->lookup_distances += match.distances;
        memcpy(choice->entry_points, match.nodes, match.count * sizeof(*match.nodes));
    }
    MemoryContextReset(context);
}

/* More effort while what was learned may not hold; the bounds move with it. */
static void
apply_guard(const RuvIndexCache *cache, RuvChoice *choice)
{
    RuvGuard guard = ruv_guard_read(cache->slot);
    double factor = (double)guard.factor;

    if (factor <= 1.0)
        return;
    choice->ef_search = (int)Min(ceil(choice->ef_search * factor), RUV_MAX_EF_BOUND);
    choice->max_distances = (uint64)((double)choice->max_distances * factor);
    if (choice->way == RV_WAY_STATIC)
        choice->window = choice->probes = choice->ef_search;
    else
        choice->slack = (float)expm1(factor * log1p((double)Max(choice->slack, RUV_GUARDED_SLACK)));
}

/* One effort for every search, where that takes the least work. */
static void
choose_one_effort(const RuvIndexCache *cache, const rv_plan_choice *plan, RuvChoice *choice)
{
    int effort = (int)Max(Min(ceil(plan->effort), RUV_MAX_EF_BOUND), 1);

    choice->mode = RV_SEARCH_ADAPTIVE;
    choice->reason = RUV_REASON_LEARNED;
    choice->way = RV_WAY_STATIC;
    choice->ef_search = choice->window = choice->probes = effort;
    choice->expected_recall = plan->expected_recall;
    choice->patterns_used = 1;
    apply_guard(cache, choice);
}

/* The plan for that many rows and this target, if one was made for what the bank was made for. Rows
 * that nobody knows are those of the most searches. */
static const rv_plan *
read_plan(const RuvIndexCache *cache, const rv_pattern *pattern, uint32 rows, double target,
          RuvAdvice *advice)
{
    uint32_t window;
    const rv_plan *plan;

    if (cache->plan_count == 0 || cache->plans[0].index_epoch != pattern->index_epoch)
        return NULL;
    plan = rv_plan_choose_rows(cache->plans, cache->plan_count, rows > 0 ? rows : pattern->k,
                               target, &advice->plan, &window);
    if (rows == 0 && plan->k != pattern->k)
        return NULL;
    advice->window = (int)window;
    return plan;
}

RuvChoiceReason
ruv_advise(const RuvIndexCache *cache, uint64 epoch, const float *query, uint32 rows, double target,
           RuvAdvice *advice)
{
    const rv_plan *made_for;
    const rv_pattern *pattern = rv_bank_flat_index_pattern(cache->bank);
    rv_interpolate_input *in = &advice->in;

    memset(advice, 0, sizeof(*advice));
    if (pattern == NULL)
        return RUV_REASON_NOTHING_LEARNED;
    if (pattern->index_epoch != epoch)
        return RUV_REASON_INDEX_REBUILT;
    advice->window = (int)pattern->k;
    made_for = read_plan(cache, pattern, rows, target, advice);
    advice->known = made_for != NULL;
    advice->mean_work = advice->known ? advice->plan.static_work : (double)pattern->mean_distances;
    advice->asks = !advice->known || advice->plan.way != RV_WAY_STATIC;
    if (!advice->asks)
        return RUV_REASON_LEARNED;
    /* The same build means the same metric and dimensions too. */
    in->k = advice->window;
    in->target_recall = target;
    describe_pattern(pattern, 1.0, target, &in->defaults);
    if (advice->known)
        describe_plan(&advice->plan, &in->defaults);
    if (!advice->known || made_for->use_regions)
        add_nearest_patterns(cache, pattern, query, in, &advice->lookup_distances);
    return RUV_REASON_LEARNED;
}

void
ruv_advised_bounds(const RuvAdvice *advice, const rv_interpolation *answer, int *ef_search,
                   uint64 *max_distances)
{
    double bound = RUV_EF_HEADROOM * Max(answer->ef_search, advice->in.defaults.ef_search);

    *ef_search = (int)Max(Min(bound, RUV_MAX_EF_BOUND), advice->window);
    *max_distances = advice->known && advice->plan.limit > 0
                         ? (uint64)Max(advice->plan.limit, 1)
                         : distance_bound(advice->mean_work, *ef_search);
}

double
ruv_advised_slack(const RuvAdvice *advice, const rv_interpolation *answer, bool remembered)
{
    /* The slack of `memory` is that of queries which resemble remembered ones. */
    if (advice->known && advice->plan.way == RV_WAY_MEMORY && !remembered)
        return Max(answer->slack, advice->plan.slack);
    return answer->slack;
}

/* Static when the bank does not serve; otherwise fills the adaptive plan. */
static void
choose_adaptive(const RuvIndexIdentity *index, const RuvIndexCache *cache, const float *query,
                uint32 rows, RuvChoice *choice)
{
    RuvChoiceReason reason;
    RuvAdvice advice;
    rv_interpolation answer;
    rv_host_cause cause;

    reason = ruv_advise(cache, index->epoch, query, rows, choice->target_recall, &advice);
    if (reason != RUV_REASON_LEARNED) {
        choice->reason = reason;
        return;
    }
    if (!advice.asks) {
        choose_one_effort(cache, &advice.plan, choice);
        return;
    }
    ruv_policy_use(cache->slot != NULL ? &cache->policies : NULL);
    cause = ruv_policy_interpolate(&advice.in, &answer);

    choice->mode = RV_SEARCH_ADAPTIVE;
    choice->reason = cause == RV_HOST_OK || cause == RV_HOST_MISSING ? RUV_REASON_LEARNED
                                                                     : RUV_REASON_POLICY_FAILED;
    choice->way = advice.known ? advice.plan.way : RV_WAY_MEMORY;
    choice->window = advice.window;
    choice->lookup_distances += advice.lookup_distances;
    choice->probes = (int)answer.probes;
    choice->expected_recall = advice.in.defaults.expected_recall;
    choice->patterns_used = 1 + (int)advice.in.pattern_count;
    choice->best_similarity = advice.in.pattern_count > 0 ? advice.in.patterns[0].similarity : -1;
    ruv_advised_bounds(&advice, &answer, &choice->ef_search, &choice->max_distances);
    if (choice->way == RV_WAY_MEMORY)
        choose_entry_points(index, cache, query, choice);
    /* The work that it bounds has the lookup in it; the search counts its own. */
    choice->max_distances -= Min(choice->lookup_distances, choice->max_distances - 1);
    choice->slack = (float)ruv_advised_slack(&advice, &answer, choice->entry_count > 0);
    apply_guard(cache, choice);
}

void
ruv_choose(const RuvIndexIdentity *index, const float *query, uint32 rows, RuvChoice *choice)
{
    RuvIndexCache *cache;

    choose_static(index, choice);
    if (ruv_shared == NULL) {
        choice->reason = RUV_REASON_NOT_PRELOADED;
        return;
    }
    if (!ruv_learning_enabled) {
        choice->reason = RUV_REASON_LEARNING_DISABLED;
        return;
    }
    /* Also for a static search: ruv_capture relies on the entry that this resolves. */
    cache = ruv_index_cache(index->index_oid);
    if (!ruv_adaptive_search)
        choice->reason = RUV_REASON_SETTING_OFF;
    else if (!index->adaptive)
        choice->reason = RUV_REASON_INDEX_OFF;
    else if (cache->slot == NULL || !ruv_fetch_bank(cache))
        choice->reason = RUV_REASON_NOTHING_LEARNED;
    else {
        choose_adaptive(index, cache, query, rows, choice);
        ruv_release_bank(cache);
    }
}
