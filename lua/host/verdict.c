/*
 * verdict.c - was this search good? Arguments and result of policies/verdict.lua, and the built-in
 * judge, which mirrors that file's formulas with its shipped defaults: see there for the why.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/internal.h"

typedef struct judge_call {
    const rv_policy *policy;
    const rv_judge_input *in;
    rv_judgement out;
} judge_call;

/* ---- the policy --------------------------------------------------------------------------- */

static void
push_trajectory(lua_State *L, const rv_judge_input *in)
{
    lua_createtable(L, 0, 16);
    rv_set_signal(L, "k", in->k);
    rv_set_signal(L, "returned", in->returned);
    rv_set_signal(L, "latency_us", in->latency_us);
    rv_set_signal(L, "distances", in->distances);
    rv_set_signal(L, "hops", in->hops);
    rv_set_signal(L, "pages", in->pages);
    rv_set_signal(L, "ef_search", in->ef_search);
    rv_set_signal(L, "slack", in->slack);
    lua_pushboolean(L, in->adaptive > 0);
    lua_setfield(L, -2, "adaptive");
    rv_set_signal(L, "target_recall", in->target_recall);
    rv_set_signal(L, "expected_recall", in->expected_recall);
    rv_set_signal(L, "recall", in->recall);
    rv_set_signal(L, "score", in->score);
    rv_set_signal(L, "needed_distances", in->needed_distances);
    rv_set_signal(L, "diversity", in->diversity);
    lua_createtable(L, 0, 4);
    rv_set_signal(L, "relevant", in->feedback_relevant);
    rv_set_signal(L, "irrelevant", in->feedback_irrelevant);
    rv_set_signal(L, "missed_near", in->feedback_missed_near);
    rv_set_signal(L, "missed_far", in->feedback_missed_far);
    lua_setfield(L, -2, "feedback");
}

static void
push_context(lua_State *L, const judge_call *call)
{
    lua_createtable(L, 0, 8);
    rv_set_signal(L, "judged", call->in->index_judged);
    rv_set_signal(L, "latency_p50_us", call->in->index_latency_p50_us);
    rv_set_signal(L, "latency_p95_us", call->in->index_latency_p95_us);
    rv_set_signal(L, "mean_distances", call->in->index_mean_distances);
    rv_set_signal(L, "mean_recall", call->in->index_mean_recall);
    rv_set_signal(L, "m", call->in->index_m);
    rv_set_signal(L, "lists", call->in->index_lists);
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->table);
    lua_getfield(L, -1, "defaults");
    lua_setfield(L, -3, "defaults");
    lua_pop(L, 1);
}

/* scores.field of the table on top: 0 to 1, or -1 for nil. */
static double
take_score(lua_State *L, const rv_origin *origin, const char *field)
{
    bool missing;

    lua_getfield(L, -1, field);
    missing = lua_isnil(L, -1);
    lua_pop(L, 1);
    return missing ? -1 : rv_get_number(L, origin, lua_gettop(L), "scores.", field, 0, 1);
}

static void
take_scores(lua_State *L, const rv_origin *origin, int result, rv_judgement *out)
{
    static const char *const fields[] = {"latency", "recall", "diversity", "feedback", NULL};

    lua_getfield(L, result, "scores");
    if (!lua_istable(L, -1))
        rv_shape(L, origin, "scores = a %s; a table is expected", luaL_typename(L, -1));
    rv_only_fields(L, origin, lua_gettop(L), "scores: ", fields);
    out->score_latency = take_score(L, origin, "latency");
    out->score_recall = take_score(L, origin, "recall");
    out->score_diversity = take_score(L, origin, "diversity");
    out->score_feedback = take_score(L, origin, "feedback");
    lua_pop(L, 1);
}

static void
take_recommendation(lua_State *L, const rv_origin *origin, int number, char *out)
{
    size_t length;
    const char *text;

    if (lua_type(L, -1) != LUA_TSTRING)
        rv_shape(L, origin, "recommendations[%d] = a %s; a string is expected", number,
                 luaL_typename(L, -1));
    text = lua_tolstring(L, -1, &length);
    if (length == 0 || length >= RV_RECOMMENDATION_SIZE)
        rv_shape(L, origin, "recommendations[%d] of %zu bytes; 1 to %d are expected", number,
                 length, RV_RECOMMENDATION_SIZE - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ')
            rv_shape(L, origin, "recommendations[%d] with a control character", number);
    memcpy(out, text, length + 1);
}

static void
take_recommendations(lua_State *L, const rv_origin *origin, int result, rv_judgement *out)
{
    size_t count;

    lua_getfield(L, result, "recommendations");
    if (!lua_istable(L, -1))
        rv_shape(L, origin, "recommendations = a %s; a table of strings is expected",
                 luaL_typename(L, -1));
    count = lua_objlen(L, -1);
    if (count > RV_MAX_RECOMMENDATIONS)
        rv_shape(L, origin, "%zu recommendations; at most %d are expected", count,
                 RV_MAX_RECOMMENDATIONS);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        take_recommendation(L, origin, (int)i + 1, out->recommendations[i]);
        lua_pop(L, 1);
    }
    out->recommendation_count = (uint32_t)count;
    lua_pop(L, 1);
}

static void
judge_by_policy(lua_State *L, void *data)
{
    static const char *const fields[] = {"success", "confidence", "scores", "recommendations",
                                         NULL};
    judge_call *call = data;
    rv_origin origin = {call->policy, RV_POLICY_VERDICT, 0};

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->functions[0]);
    push_trajectory(L, call->in);
    push_context(L, call);
    rv_call_for_table(L, &origin, 2);
    call->out.success = rv_get_boolean(L, &origin, 1, "", "success");
    call->out.confidence = rv_get_number(L, &origin, 1, "", "confidence", 0, 1);
    take_scores(L, &origin, 1, &call->out);
    take_recommendations(L, &origin, 1, &call->out);
    rv_only_fields(L, &origin, 1, "", fields);
}

/* ---- the built-in ------------------------------------------------------------------------- */

#define SUCCESS_THRESHOLD 0.70
#define WEIGHT_RECALL 0.5
#define WEIGHT_LATENCY 0.2
#define WEIGHT_DIVERSITY 0.1
#define WEIGHT_FEEDBACK 0.2
#define RECALL_TOLERANCE 0.2
#define PROMISED_SHARE 0.5
#define LATENCY_FACTOR 2.0
#define DIVERSITY_FULL 0.5
#define MIN_JUDGED 20
#define COARSE_FACTOR 8
#define WASTE_FACTOR 3
#define DUPLICATE_DIVERSITY 0.05
#define MAX_M 100
#define MAX_LISTS 32768

static double
score_recall(const rv_judge_input *in)
{
    double recall = in->recall >= 0 ? in->recall : in->expected_recall;

    if (!(recall >= 0) || !(in->target_recall >= 0))
        return -1;
    return rv_clamp(1 - (in->target_recall - recall) / RECALL_TOLERANCE, 0, 1);
}

static double
score_latency(const rv_judge_input *in)
{
    double zero = in->index_latency_p95_us * LATENCY_FACTOR;

    if (!(in->latency_us >= 0) || !(in->index_judged >= MIN_JUDGED) ||
        !(in->index_latency_p50_us > 0) || !(zero > in->index_latency_p50_us))
        return -1;
    return rv_clamp((zero - in->latency_us) / (zero - in->index_latency_p50_us), 0, 1);
}

static double
known(double signal)
{
    return signal >= 0 ? signal : 0;
}

static double
score_feedback(const rv_judge_input *in)
{
    double relevant = known(in->feedback_relevant);
    double rows = relevant + known(in->feedback_irrelevant) + known(in->feedback_missed_near);

    return rows > 0 ? rv_clamp(relevant / rows, 0, 1) : -1;
}

static void
recommend(rv_judgement *out, const char *text)
{
    if (out->recommendation_count < RV_MAX_RECOMMENDATIONS)
        snprintf(out->recommendations[out->recommendation_count++], RV_RECOMMENDATION_SIZE, "%s",
                 text);
}

/* Twice the parameter that the index was built with, as far as there is a larger one. */
static void
recommend_finer_index(const rv_judge_input *in, rv_judgement *out)
{
    char text[RV_RECOMMENDATION_SIZE];

    if (in->index_lists >= MAX_LISTS)
        snprintf(text, sizeof text, "index too coarse: rebuild as ruhnsw");
    else if (in->index_lists > 0)
        snprintf(text, sizeof text, "index too coarse: rebuild with lists = %d",
                 (int)fmin(2 * in->index_lists, MAX_LISTS));
    else if (!(in->index_m >= 0) || in->index_m >= MAX_M)
        snprintf(text, sizeof text, "index too coarse: rebuild with larger ef_construction");
    else
        snprintf(text, sizeof text, "index too coarse: rebuild with m = %d",
                 (int)fmin(2 * in->index_m, MAX_M));
    recommend(out, text);
}

/* What to do about the work, where the recall that it bought is known. */
static void
recommend_effort(const rv_judge_input *in, rv_judgement *out)
{
    bool needed_known = in->needed_distances >= 0;
    bool adaptive = in->adaptive > 0;

    if (in->recall >= in->target_recall) {
        if (needed_known && !adaptive && in->distances > WASTE_FACTOR * in->needed_distances)
            recommend(out, "lower effort: adaptive search would do far less");
    } else if (!needed_known || (in->index_mean_distances > 0 &&
                                 in->needed_distances > COARSE_FACTOR * in->index_mean_distances)) {
        recommend_finer_index(in, out);
    } else if (adaptive) {
        recommend(out, "raise target");
    } else {
        recommend(out, "raise effort: ef_search or probes are low for the target; "
                       "adaptive search would choose them");
    }
}

static void
recommend_all(const rv_judge_input *in, rv_judgement *out)
{
    if (known(in->feedback_missed_near) > 0)
        recommend(out, "index miss: a relevant row nearer than the last result was not found; "
                       "raise target");
    if (known(in->feedback_missed_far) > 0)
        recommend(out, "embedding miss: effort cannot help");
    if (in->recall >= 0 && in->target_recall >= 0)
        recommend_effort(in, out);
    if (in->diversity >= 0 && in->diversity < DUPLICATE_DIVERSITY)
        recommend(out, "duplicate rows: the results are nearly the same");
}

static void
judge_built_in(const rv_judge_input *in, rv_judgement *out)
{
    double scores[4],
        weights[4] = {WEIGHT_RECALL, WEIGHT_LATENCY, WEIGHT_DIVERSITY, WEIGHT_FEEDBACK};
    double all = 0, weight = 0, mean = 0, spread = 0;

    memset(out, 0, sizeof *out);
    scores[0] = out->score_recall = score_recall(in);
    scores[1] = out->score_latency = score_latency(in);
    scores[2] = out->score_diversity =
        in->diversity >= 0 ? rv_clamp(in->diversity / DIVERSITY_FULL, 0, 1) : -1;
    scores[3] = out->score_feedback = score_feedback(in);
    for (int i = 0; i < 4; i++) {
        all += weights[i];
        if (i == 0 && !(in->recall >= 0))
            weights[i] *= PROMISED_SHARE;
        if (scores[i] < 0)
            continue;
        weight += weights[i];
        mean += weights[i] * scores[i];
    }
    recommend_all(in, out);
    out->success = !(known(in->feedback_missed_near) > 0);
    if (weight <= 0)
        return;
    mean /= weight;
    for (int i = 0; i < 4; i++)
        if (scores[i] >= 0)
            spread += weights[i] * (scores[i] - mean) * (scores[i] - mean);
    out->success = out->success && mean >= SUCCESS_THRESHOLD;
    out->confidence = rv_clamp(weight / all * (1 - 2 * sqrt(spread / weight)), 0, 1);
}

rv_host_cause
rv_host_judge(rv_host *host, const rv_judge_input *in, rv_judgement *out, rv_host_failure *failure)
{
    judge_call call = {.in = in};
    rv_host_cause cause;

    if (host->serving != NULL)
        call.policy = &host->serving->policies[RV_POLICY_VERDICT];
    cause = rv_gateway_call(host, RV_POLICY_VERDICT, judge_by_policy, &call, failure);
    if (cause == RV_HOST_OK)
        *out = call.out;
    else
        judge_built_in(in, out);
    return cause;
}
