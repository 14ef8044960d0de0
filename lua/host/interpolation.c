/*
 * interpolation.c - from the nearest patterns to the parameters of one search: arguments and result
 * of policies/interpolation.lua, and the built-in, which mirrors that file's formula.
 *
 * This call is made by every adaptive search, so it allocates nothing on the host's side: the
 * argument tables are made once per state and refilled. They and the names of their fields hang in
 * one registry table, whose layout is the enum below.
 */
#include <assert.h>
#include <math.h>

#include "host/internal.h"

static const char *const keys[] = {"similarity",      "slack",      "ef_search", "probes",
                                   "expected_recall", "confidence", "samples",   "k",
                                   "target_recall"};
#define KEY_SLACK 1
#define KEY_EF_SEARCH 2
#define KEY_PROBES 3
#define PATTERN_KEYS 7 /* the first ones, in the order of rv_interpolate_pattern */
#define KEYS 9

enum {
    SLOT_QUERY = 1,
    SLOT_PATTERNS = 2,
    SLOT_DEFAULTS = 3,
    SLOT_PATTERN = 4, /* and the RV_INTERPOLATE_MAX_PATTERNS - 1 that follow */
    SLOT_KEY = SLOT_PATTERN + RV_INTERPOLATE_MAX_PATTERNS, /* and the KEYS - 1 that follow */
    SLOTS = SLOT_KEY + KEYS - 1
};

static_assert(offsetof(rv_interpolate_pattern, samples) == (PATTERN_KEYS - 1) * sizeof(double),
              "a pattern is PATTERN_KEYS doubles in the order of keys");

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

    lua_createtable(L, SLOTS, 0);
    for (int slot = SLOT_QUERY; slot < SLOT_KEY; slot++) {
        lua_createtable(L, slot == SLOT_PATTERNS ? RV_INTERPOLATE_MAX_PATTERNS : 0,
                        slot == SLOT_PATTERNS ? 0 : PATTERN_KEYS);
        lua_rawseti(L, 1, slot);
    }
    for (int key = 0; key < KEYS; key++) {
        lua_pushstring(L, keys[key]);
        lua_rawseti(L, 1, SLOT_KEY + key);
    }
    serving->interpolate_arguments = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Stack of a call: the arguments' table, the keys, then the function and what it gets. */
#define AT_SLOTS 1
#define AT_KEY 2
#define AT_FUNCTION (AT_KEY + KEYS)
#define AT_PATTERNS (AT_FUNCTION + 2)

/* table[keys[key]] = value for the table on top. */
static void
set_key(lua_State *L, int key, double value)
{
    lua_pushvalue(L, AT_KEY + key);
    lua_pushnumber(L, value);
    lua_rawset(L, -3);
}

static void
fill_pattern(lua_State *L, const rv_interpolate_pattern *pattern)
{
    const double *values = &pattern->similarity;

    for (int key = 0; key < PATTERN_KEYS; key++)
        set_key(L, key, values[key]);
}

static void
push_call(lua_State *L, const interpolate_call *call, const rv_policy *policy)
{
    const rv_interpolate_input *in = call->in;
    uint32_t i;

    luaL_checkstack(L, AT_FUNCTION + 8, "interpolate");
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->serving->interpolate_arguments);
    for (int key = 0; key < KEYS; key++)
        lua_rawgeti(L, AT_SLOTS, SLOT_KEY + key);
    lua_rawgeti(L, LUA_REGISTRYINDEX, policy->functions[0]);
    lua_rawgeti(L, AT_SLOTS, SLOT_QUERY);
    set_key(L, PATTERN_KEYS, in->k);
    set_key(L, PATTERN_KEYS + 1, in->target_recall);
    lua_rawgeti(L, AT_SLOTS, SLOT_PATTERNS);
    for (i = 0; i < in->pattern_count && i < RV_INTERPOLATE_MAX_PATTERNS; i++) {
        lua_rawgeti(L, AT_SLOTS, SLOT_PATTERN + (int)i);
        fill_pattern(L, &in->patterns[i]);
        lua_rawseti(L, AT_PATTERNS, (int)i + 1);
    }
    for (; i < RV_INTERPOLATE_MAX_PATTERNS; i++) {
        lua_pushnil(L);
        lua_rawseti(L, AT_PATTERNS, (int)i + 1);
    }
    lua_rawgeti(L, AT_SLOTS, SLOT_DEFAULTS);
    fill_pattern(L, &in->defaults);
}

/* One pass over the result, which is on top: true when it has the three fields, each a number in
 * its range, and no other. Names are compared by address, since equal strings are one in a state.
 */
static bool
take_result(lua_State *L, rv_interpolation *out)
{
    const char *slack = lua_tostring(L, AT_KEY + KEY_SLACK);
    const char *ef_search = lua_tostring(L, AT_KEY + KEY_EF_SEARCH);
    const char *probes = lua_tostring(L, AT_KEY + KEY_PROBES);
    int good = 0;

    lua_pushnil(L);
    while (lua_next(L, AT_FUNCTION) != 0) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        double value = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
        double *place = name == slack       ? &out->slack
                        : name == ef_search ? &out->ef_search
                        : name == probes    ? &out->probes
                                            : NULL;
        bool of_slack = place == &out->slack;

        lua_pop(L, 1);
        if (place == NULL || !(value >= (of_slack ? 0 : 1)) || value > (of_slack ? 10 : 100000)) {
            lua_pop(L, 1);
            return false;
        }
        *place = value;
        good++;
    }
    return good == 3;
}

static void
interpolate_by_policy(lua_State *L, void *data)
{
    static const char *const fields[] = {"slack", "ef_search", "probes", NULL};
    interpolate_call *call = data;
    const rv_policy *policy = &call->serving->policies[RV_POLICY_INTERPOLATION];
    rv_origin origin = {policy, RV_POLICY_INTERPOLATION, 0};

    push_call(L, call, policy);
    rv_call_for_table(L, &origin, 3);
    if (take_result(L, &call->out))
        return;
    /* Something is wrong with it: these say what. */
    call->out.slack = rv_get_number(L, &origin, AT_FUNCTION, "", "slack", 0, 10);
    call->out.ef_search = rv_get_number(L, &origin, AT_FUNCTION, "", "ef_search", 1, 100000);
    call->out.probes = rv_get_number(L, &origin, AT_FUNCTION, "", "probes", 1, 100000);
    rv_only_fields(L, &origin, AT_FUNCTION, "", fields);
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
