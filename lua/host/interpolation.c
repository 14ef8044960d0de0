/*
 * interpolation.c - from the nearest patterns to the parameters of one search: arguments and result
 * of policies/interpolation.lua, and the built-in, which mirrors that file's formula.
 *
 * This call is made by every adaptive search, so it allocates nothing on the host's side: the
 * argument tables are made once per state and refilled. They and the names of their fields hang in
 * one registry table, whose layout is the enum below.
 */
#include <math.h>

#include "host/internal.h"

enum {
    SLOT_QUERY = 1,
    SLOT_PATTERNS = 2,
    SLOT_DEFAULTS = 3,
    SLOT_PATTERN = 4 /* and the RV_INTERPOLATE_MAX_PATTERNS - 1 that follow */
};

typedef struct interpolate_call {
    const rv_serving *serving;
    const rv_interpolate_input *in;
    rv_interpolation out;
} interpolate_call;

/* ---- the policy --------------------------------------------------------------------------- */

void
rv_interpolation_prepare(lua_State *L, void *data)
{
    rv_serving *serving = data;

    lua_createtable(L, SLOT_PATTERN + RV_INTERPOLATE_MAX_PATTERNS, 0);
    for (int slot = SLOT_QUERY; slot < SLOT_PATTERN + RV_INTERPOLATE_MAX_PATTERNS; slot++) {
        lua_createtable(L, slot == SLOT_PATTERNS ? RV_INTERPOLATE_MAX_PATTERNS : 0,
                        slot == SLOT_PATTERNS ? 0 : 8);
        lua_rawseti(L, 1, slot);
    }
    serving->interpolate_arguments = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void
fill_pattern(lua_State *L, const rv_interpolate_pattern *pattern)
{
    rv_set_number(L, "similarity", pattern->similarity);
    rv_set_number(L, "slack", pattern->slack);
    rv_set_number(L, "ef_search", pattern->ef_search);
    rv_set_number(L, "probes", pattern->probes);
    rv_set_number(L, "expected_recall", pattern->expected_recall);
    rv_set_number(L, "confidence", pattern->confidence);
    rv_set_number(L, "samples", pattern->samples);
}

static void
push_arguments(lua_State *L, const interpolate_call *call)
{
    const rv_interpolate_input *in = call->in;
    uint32_t i;

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->serving->interpolate_arguments); /* index 2 */
    lua_rawgeti(L, 2, SLOT_QUERY);
    rv_set_number(L, "k", in->k);
    rv_set_number(L, "target_recall", in->target_recall);
    lua_rawgeti(L, 2, SLOT_PATTERNS); /* index 4 */
    for (i = 0; i < in->pattern_count && i < RV_INTERPOLATE_MAX_PATTERNS; i++) {
        lua_rawgeti(L, 2, SLOT_PATTERN + (int)i);
        fill_pattern(L, &in->patterns[i]);
        lua_rawseti(L, 4, (int)i + 1);
    }
    for (; i < RV_INTERPOLATE_MAX_PATTERNS; i++) {
        lua_pushnil(L);
        lua_rawseti(L, 4, (int)i + 1);
    }
    lua_rawgeti(L, 2, SLOT_DEFAULTS);
    fill_pattern(L, &in->defaults);
    lua_remove(L, 2);
}

static void
interpolate_by_policy(lua_State *L, void *data)
{
    static const char *const fields[] = {"slack", "ef_search", "probes", NULL};
    interpolate_call *call = data;
    const rv_policy *policy = &call->serving->policies[RV_POLICY_INTERPOLATION];
    rv_origin origin = {policy, RV_POLICY_INTERPOLATION, 0};

    lua_rawgeti(L, LUA_REGISTRYINDEX, policy->functions[0]);
    push_arguments(L, call);
    rv_call_for_table(L, &origin, 3);
    call->out.slack = rv_get_number(L, &origin, 1, "", "slack", 0, 10);
    call->out.ef_search = rv_get_number(L, &origin, 1, "", "ef_search", 1, 100000);
    call->out.probes = rv_get_number(L, &origin, 1, "", "probes", 1, 100000);
    rv_only_fields(L, &origin, 1, "", fields);
}

/* ---- the built-in ------------------------------------------------------------------------- */

#define SIMILARITY_POWER 8
#define DEFAULT_WEIGHT 0.5
#define SLACK_RATIO 3
#define SLACK_FLOOR 0.02
#define EFFORT_RATIO 4

static double
whole_effort(double logarithm, double fallback)
{
    return rv_clamp(ceil(exp(logarithm) - 1e-9), fallback, fallback * EFFORT_RATIO);
}

static void
interpolate_built_in(const rv_interpolate_input *in, rv_interpolation *out)
{
    const rv_interpolate_pattern *defaults = &in->defaults;
    double weight = DEFAULT_WEIGHT;
    double slack = weight * log(1 + defaults->slack);
    double ef = weight * log(defaults->ef_search);
    double probes = weight * log(defaults->probes);

    for (uint32_t i = 0; i < in->pattern_count && i < RV_INTERPOLATE_MAX_PATTERNS; i++) {
        const rv_interpolate_pattern *pattern = &in->patterns[i];
        double share = pow(rv_clamp(pattern->similarity, 0, 1), SIMILARITY_POWER) *
                       rv_clamp(pattern->confidence, 0, 1);

        weight += share;
        slack += share * log(1 + pattern->slack);
        ef += share * log(pattern->ef_search);
        probes += share * log(pattern->probes);
    }
    out->slack = rv_clamp(exp(slack / weight) - 1, defaults->slack / SLACK_RATIO,
                          fmax(defaults->slack * SLACK_RATIO, SLACK_FLOOR));
    out->ef_search = whole_effort(ef / weight, defaults->ef_search);
    out->probes = whole_effort(probes / weight, defaults->probes);
    out->slack = fmin(fmax(out->slack, 0), 10);
    out->ef_search = fmin(fmax(out->ef_search, 1), 100000);
    out->probes = fmin(fmax(out->probes, 1), 100000);
}

rv_host_cause
rv_host_interpolate(rv_host *host, const rv_interpolate_input *in, rv_interpolation *out,
                    rv_host_failure *failure)
{
    interpolate_call call = {.serving = host->serving, .in = in};
    rv_host_cause cause =
        rv_gateway_call(host, RV_POLICY_INTERPOLATION, interpolate_by_policy, &call, failure);

    if (cause == RV_HOST_OK)
        *out = call.out;
    else
        interpolate_built_in(in, out);
    return cause;
}
