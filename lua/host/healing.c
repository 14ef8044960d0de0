/*
 * healing.c - when links are learned, and how many: arguments and result of policies/healing.lua,
 * and the built-in, which mirrors that file's rules.
 *
 * Called by the worker, at each of its turns on which a round of links would be possible.
 */
#include <math.h>

#include "host/internal.h"

#define FIRST_ROUND 4
#define GROWTH 1.0
#define GROWTH_PAUSED 0.5
#define PAUSE_S 0.2
#define SPREAD 2
#define ROWS_PER_QUERY 48

/* ---- the policy --------------------------------------------------------------------------- */

typedef struct heal_call {
    const rv_policy *policy;
    const rv_healing_input *in;
    rv_healing out;
} heal_call;

static void
push_situation(lua_State *L, const rv_healing_input *in)
{
    lua_createtable(L, 0, 17);
    rv_set_number(L, "hour", in->hour);
    rv_set_number(L, "weekday", in->weekday);
    rv_set_signal(L, "load", in->load);
    rv_set_signal(L, "searches_per_second", in->searches_per_second);
    rv_set_signal(L, "idle_s", in->idle_s);
    lua_pushboolean(L, in->asked > 0);
    lua_setfield(L, -2, "asked");
    rv_set_number(L, "waiting", in->waiting);
    rv_set_number(L, "used", in->used);
    rv_set_number(L, "held_out", in->held_out);
    rv_set_number(L, "min_samples", in->min_samples);
    rv_set_signal(L, "since_round_s", in->since_round_s);
    rv_set_signal(L, "round_s", in->round_s);
    if (!isnan(in->gain))
        rv_set_number(L, "gain", in->gain);
    rv_set_signal(L, "rows", in->rows);
    rv_set_signal(L, "links", in->links);
    rv_set_number(L, "room", in->room);
    rv_set_number(L, "budget", in->budget);
}

static void
heal_by_policy(lua_State *L, void *data)
{
    static const char *const fields[] = {
        "run", "queries", "rows_per_query", "links_per_node", "min_requests", "min_gain", NULL};
    heal_call *call = data;
    rv_origin origin = {call->policy, RV_POLICY_HEALING, 0};
    rv_healing *out = &call->out;

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->functions[0]);
    push_situation(L, call->in);
    rv_call_for_table(L, &origin, 1);
    out->run = rv_get_boolean(L, &origin, 1, "", "run");
    out->queries =
        (uint32_t)rv_get_integer(L, &origin, 1, "", "queries", 1, RV_HEALING_MAX_QUERIES);
    out->rows_per_query =
        (uint32_t)rv_get_integer(L, &origin, 1, "", "rows_per_query", 2, RV_LINKS_MAX_NODES);
    out->links_per_node =
        (uint32_t)rv_get_integer(L, &origin, 1, "", "links_per_node", 1, RV_HEALING_MAX_LINKS);
    out->min_requests =
        (uint32_t)rv_get_integer(L, &origin, 1, "", "min_requests", 1, RV_HEALING_MAX_QUERIES);
    out->min_gain = rv_get_number(L, &origin, 1, "", "min_gain", 0, 1);
    rv_only_fields(L, &origin, 1, "", fields);
}

/* ---- the built-in ------------------------------------------------------------------------- */

/* Enough queries wait: as many as all rounds before used, half of that while no searches come. */
static bool
enough(const rv_healing_input *in)
{
    bool paused = in->asked > 0 || !(in->idle_s >= 0 && in->idle_s <= PAUSE_S);
    double growth = paused ? GROWTH_PAUSED : GROWTH;
    double wanted = fmax(FIRST_ROUND * in->min_samples, growth * in->used);

    return in->waiting >= fmin(wanted, RV_HEALING_MAX_QUERIES) && in->held_out >= in->min_samples;
}

static bool
rested(const rv_healing_input *in)
{
    return in->asked > 0 || !(in->since_round_s >= 0 && in->round_s >= 0) ||
           in->since_round_s >= SPREAD * in->round_s;
}

static void
heal_built_in(const rv_healing_input *in, rv_healing *out)
{
    out->run = enough(in) && rested(in);
    out->queries = RV_HEALING_MAX_QUERIES;
    out->rows_per_query = ROWS_PER_QUERY;
    out->links_per_node = (uint32_t)rv_clamp(in->room, 1, RV_HEALING_MAX_LINKS);
    out->min_requests = 1;
    out->min_gain = 0;
}

rv_host_cause
rv_host_heal(rv_host *host, const rv_healing_input *in, rv_healing *out, rv_host_failure *failure)
{
    heal_call call = {.in = in};
    rv_host_cause cause;

    if (host->serving != NULL)
        call.policy = &host->serving->policies[RV_POLICY_HEALING];
    cause = rv_gateway_call(host, RV_POLICY_HEALING, heal_by_policy, &call, failure);
    if (cause == RV_HOST_OK)
        *out = call.out;
    else
        heal_built_in(in, out);
    return cause;
}
