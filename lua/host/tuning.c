/*
 * tuning.c - from a measured curve to the setting of an index: arguments and result of
 * policies/tuning.lua, and the built-in, which mirrors that file's rules.
 */
#include <math.h>

#include "host/internal.h"

#define RECALL_FLOOR 0.99
#define LATENCY_FLOOR 0.90
#define BALANCED_FLOOR 0.90
#define MISS_FLOOR 0.005
#define RECALL_TOLERANCE 0.001
#define LEAST_TARGET 0.5
#define MOST_TARGET 0.99

const char *
rv_tuning_goal_name(rv_tuning_goal goal)
{
    static const char *const names[RV_TUNING_GOALS] = {"recall", "latency", "balanced"};

    return (unsigned)goal < RV_TUNING_GOALS ? names[goal] : "unknown";
}

/* ---- the policy --------------------------------------------------------------------------- */

typedef struct choose_call {
    const rv_policy *policy;
    const rv_tuning_point *points;
    uint32_t count;
    rv_tuning_goal goal;
    rv_tuning_choice out;
} choose_call;

static void
push_curve(lua_State *L, const choose_call *call)
{
    lua_createtable(L, (int)call->count, 0);
    for (uint32_t i = 0; i < call->count; i++) {
        lua_createtable(L, 0, 4);
        rv_set_number(L, "effort", call->points[i].effort);
        rv_set_number(L, "recall", call->points[i].recall);
        rv_set_number(L, "distances", call->points[i].distances);
        rv_set_number(L, "latency_us", call->points[i].latency_us);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static void
choose_by_policy(lua_State *L, void *data)
{
    static const char *const fields[] = {"point", "target_recall", NULL};
    choose_call *call = data;
    rv_origin origin = {call->policy, RV_POLICY_TUNING, 0};

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->functions[0]);
    push_curve(L, call);
    lua_pushstring(L, rv_tuning_goal_name(call->goal));
    rv_call_for_table(L, &origin, 2);
    call->out.point = (uint32_t)rv_get_integer(L, &origin, 1, "", "point", 1, call->count) - 1;
    call->out.target_recall = rv_get_number(L, &origin, 1, "", "target_recall", LEAST_TARGET, 1);
    rv_only_fields(L, &origin, 1, "", fields);
}

/* ---- the built-in ------------------------------------------------------------------------- */

/* The least effort that reaches a recall; else the least that comes close to the best there is. */
static uint32_t
least_effort(const rv_tuning_point *points, uint32_t count, double recall)
{
    double best = 0;

    for (uint32_t i = 0; i < count; i++)
        best = fmax(best, points[i].recall);
    for (uint32_t i = 0; i < count; i++)
        if (points[i].recall >= fmin(recall, best - RECALL_TOLERANCE))
            return i;
    return count - 1;
}

static double
product(const rv_tuning_point *point)
{
    return point->distances * (1 - point->recall + MISS_FLOOR);
}

static uint32_t
balanced(const rv_tuning_point *points, uint32_t count)
{
    uint32_t chosen = least_effort(points, count, BALANCED_FLOOR);
    uint32_t last = least_effort(points, count, RECALL_FLOOR);

    for (uint32_t i = chosen + 1; i <= last; i++)
        if (points[i].recall >= BALANCED_FLOOR && product(&points[i]) < product(&points[chosen]))
            chosen = i;
    return chosen;
}

static void
choose_built_in(const choose_call *call, rv_tuning_choice *out)
{
    if (call->goal == RV_TUNE_RECALL)
        out->point = least_effort(call->points, call->count, RECALL_FLOOR);
    else if (call->goal == RV_TUNE_LATENCY)
        out->point = least_effort(call->points, call->count, LATENCY_FLOOR);
    else
        out->point = balanced(call->points, call->count);
    out->target_recall = rv_clamp(floor(call->points[out->point].recall * 1000 + 1e-9) / 1000,
                                  LEAST_TARGET, MOST_TARGET);
}

rv_host_cause
rv_host_choose(rv_host *host, const rv_tuning_point *points, uint32_t count, rv_tuning_goal goal,
               rv_tuning_choice *out, rv_host_failure *failure)
{
    choose_call call = {.points = points, .count = count, .goal = goal};
    rv_host_cause cause;

    if (host->serving != NULL)
        call.policy = &host->serving->policies[RV_POLICY_TUNING];
    cause = rv_gateway_call(host, RV_POLICY_TUNING, choose_by_policy, &call, failure);
    if (cause == RV_HOST_OK)
        *out = call.out;
    else
        choose_built_in(&call, out);
    return cause;
}
