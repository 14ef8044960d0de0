/*
 * retention.c - what stays in the bank: arguments and results of policies/retention.lua.
 *
 * The policy decides numbers; the host computes what follows from them: the centroid, the entry
 * points, the headline figures. The built-in merge is the engine's rv_pattern_merge; the built-in
 * keep mirrors the shipped policy.
 */
#include <math.h>
#include <string.h>

#include "host/internal.h"

#define MERGE 0 /* numbers of the functions */
#define KEEP 1

#define MIN_USAGE 2
#define MIN_CONFIDENCE 0.3
#define MAX_IDLE_DAYS 30
#define DAY_US INT64_C(86400000000)

/* ---- arguments ---------------------------------------------------------------------------- */

static void
push_efs(lua_State *L, const uint32_t *values)
{
    lua_createtable(L, RV_TARGETS, 0);
    for (int i = 0; i < RV_TARGETS; i++) {
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "table_ef");
}

static void
push_pattern(lua_State *L, const rv_pattern *pattern)
{
    luaL_checkstack(L, 8, "pattern");
    lua_createtable(L, 0, 20);
    lua_pushstring(L, pattern->scope == RV_PATTERN_INDEX ? "index" : "region");
    lua_setfield(L, -2, "scope");
    rv_set_number(L, "k", pattern->k);
    rv_set_number(L, "samples", pattern->samples);
    rv_set_number(L, "usage", (double)pattern->usage);
    rv_set_number(L, "created_s", (double)pattern->created_us / 1e6);
    rv_set_number(L, "updated_s", (double)pattern->updated_us / 1e6);
    rv_set_number(L, "target_recall", pattern->target_recall);
    rv_set_number(L, "slack", pattern->slack);
    rv_set_number(L, "ef_search", pattern->optimal_ef_search);
    rv_set_number(L, "probes", pattern->optimal_probes);
    rv_set_number(L, "expected_recall", pattern->expected_recall);
    rv_set_number(L, "confidence", pattern->confidence);
    rv_set_number(L, "radius", pattern->radius);
    rv_set_number(L, "mean_distances", pattern->mean_distances);
    rv_set_floats(L, "table_slack", pattern->table_slack, RV_TARGETS);
    push_efs(L, pattern->table_ef);
    rv_set_floats(L, "table_recall", pattern->table_recall, RV_TARGETS);
}

/* ---- merge -------------------------------------------------------------------------------- */

typedef struct merge_call {
    const rv_policy *policy;
    const rv_pattern *a;
    const rv_pattern *b;
    double weight;
    rv_pattern out;
    double centroid_weight;
} merge_call;

static void
take_merged(lua_State *L, const rv_origin *origin, merge_call *call)
{
    double table[RV_TARGETS];
    rv_pattern *out = &call->out;

    call->centroid_weight = rv_get_number(L, origin, 1, "", "centroid_weight", 0, 1);
    out->samples = (uint32_t)rv_get_integer(L, origin, 1, "", "samples", 0, 4e9);
    out->confidence = (float)rv_get_number(L, origin, 1, "", "confidence", 0, 1);
    out->radius = (float)rv_get_number(L, origin, 1, "", "radius", 0, 1e9);
    out->mean_distances = (float)rv_get_number(L, origin, 1, "", "mean_distances", 0, 1e12);
    out->optimal_probes = (uint32_t)rv_get_integer(L, origin, 1, "", "probes", 1, 100000);
    rv_get_rising(L, origin, 1, "", "table_slack", RV_TARGETS, 0, 10, table);
    for (int i = 0; i < RV_TARGETS; i++)
        out->table_slack[i] = (float)table[i];
    rv_get_rising(L, origin, 1, "", "table_ef", RV_TARGETS, 1, 1e6, table);
    for (int i = 0; i < RV_TARGETS; i++)
        out->table_ef[i] = (uint32_t)ceil(table[i]);
    rv_get_rising(L, origin, 1, "", "table_recall", RV_TARGETS, 0, 1, table);
    for (int i = 0; i < RV_TARGETS; i++)
        out->table_recall[i] = (float)table[i];
}

static bool
has_node(const rv_pattern *pattern, uint64_t node)
{
    for (uint32_t i = 0; i < pattern->entry_count; i++)
        if (pattern->entry_points[i] == node)
            return true;
    return false;
}

/* The newer pattern's and the older one's entry points in turn, each node once. */
static void
merge_entry_points(const rv_pattern *a, const rv_pattern *b, rv_pattern *out)
{
    const rv_pattern *sources[2] = {b, a};

    out->entry_count = 0;
    for (uint32_t i = 0; i < RV_PATTERN_ENTRY_POINTS; i++)
        for (int s = 0; s < 2; s++)
            if (i < sources[s]->entry_count && out->entry_count < RV_PATTERN_ENTRY_POINTS &&
                !has_node(out, sources[s]->entry_points[i]))
                out->entry_points[out->entry_count++] = sources[s]->entry_points[i];
    for (uint32_t i = out->entry_count; i < RV_PATTERN_ENTRY_POINTS; i++)
        out->entry_points[i] = 0;
}

/* What follows from both patterns without a decision. */
static void
complete(merge_call *call)
{
    const rv_pattern *a = call->a, *b = call->b;
    rv_pattern *out = &call->out;

    out->usage = a->usage + b->usage;
    out->created_us = a->created_us < b->created_us ? a->created_us : b->created_us;
    out->updated_us = a->updated_us > b->updated_us ? a->updated_us : b->updated_us;
    out->target_recall = b->target_recall;
    merge_entry_points(a, b, out);
    rv_pattern_headline(out);
}

static void
merge_by_policy(lua_State *L, void *data)
{
    static const char *const fields[] = {"centroid_weight", "samples", "confidence",  "radius",
                                         "mean_distances",  "probes",  "table_slack", "table_ef",
                                         "table_recall",    NULL};
    merge_call *call = data;
    rv_origin origin = {call->policy, RV_POLICY_RETENTION, MERGE};
    rv_error err;

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->functions[MERGE]);
    push_pattern(L, call->a);
    push_pattern(L, call->b);
    lua_pushnumber(L, call->weight);
    rv_call_for_table(L, &origin, 3);
    take_merged(L, &origin, call);
    rv_only_fields(L, &origin, 1, "", fields);
    complete(call);
    if (rv_pattern_check(&call->out, &err) != RV_OK)
        rv_shape(L, &origin, "%s", err.message);
}

/* The weighted mean; two centroids of unit length give one of unit length. */
static void
merge_centroids(const float *a, const float *b, uint32_t dim, double weight, float *out)
{
    bool unit = fabs(rv_norm(a, dim) - 1) < 1e-3 && fabs(rv_norm(b, dim) - 1) < 1e-3;

    for (uint32_t i = 0; i < dim; i++)
        out[i] = (float)((1 - weight) * a[i] + weight * b[i]);
    if (unit)
        rv_normalize(out, out, dim);
}

rv_status
rv_host_merge(void *ctx, const rv_pattern *a, const float *a_centroid, const rv_pattern *b,
              const float *b_centroid, uint32_t dim, double weight, rv_pattern *out,
              float *out_centroid, rv_error *err)
{
    rv_host *host = ctx;
    merge_call call = {.a = a, .b = b, .weight = weight, .out = *a};
    rv_host_cause cause;

    if (host->serving != NULL)
        call.policy = &host->serving->policies[RV_POLICY_RETENTION];
    cause = rv_gateway_call(host, RV_POLICY_RETENTION, merge_by_policy, &call, NULL);
    if (cause != RV_HOST_OK)
        return rv_pattern_merge(NULL, a, a_centroid, b, b_centroid, dim, weight, out, out_centroid,
                                err);
    if (a_centroid != NULL && b_centroid != NULL && out_centroid != NULL)
        merge_centroids(a_centroid, b_centroid, dim, call.centroid_weight, out_centroid);
    *out = call.out;
    return RV_OK;
}

/* ---- keep --------------------------------------------------------------------------------- */

typedef struct keep_call {
    const rv_policy *policy;
    const rv_pattern *pattern;
    int64_t now_us;
    bool out;
} keep_call;

static void
keep_by_policy(lua_State *L, void *data)
{
    keep_call *call = data;
    rv_origin origin = {call->policy, RV_POLICY_RETENTION, KEEP};

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->functions[KEEP]);
    push_pattern(L, call->pattern);
    lua_pushnumber(L, (double)call->now_us / 1e6);
    lua_call(L, 2, 1);
    if (!lua_isboolean(L, -1))
        rv_shape(L, &origin, "a %s; true or false is expected", luaL_typename(L, -1));
    call->out = lua_toboolean(L, -1);
}

static bool
keep_built_in(const rv_pattern *pattern, int64_t now_us)
{
    return pattern->usage >= MIN_USAGE || pattern->confidence >= MIN_CONFIDENCE ||
           now_us - pattern->updated_us <= MAX_IDLE_DAYS * DAY_US;
}

bool
rv_host_keep(void *keep_context, const rv_pattern *pattern)
{
    rv_keep_context *context = keep_context;
    rv_host *host = context->host;
    keep_call call = {.pattern = pattern, .now_us = context->now_us};

    if (host->serving != NULL)
        call.policy = &host->serving->policies[RV_POLICY_RETENTION];
    if (rv_gateway_call(host, RV_POLICY_RETENTION, keep_by_policy, &call, NULL) == RV_HOST_OK)
        return call.out;
    return keep_built_in(pattern, context->now_us);
}
