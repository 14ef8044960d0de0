/*
 * distillation.c - from judged deep traces to patterns: arguments and result of
 * policies/distillation.lua, and the built-in.
 *
 * The policy decides targets, weights, clusters and shrinkage and returns tables; what follows from
 * them without a decision is the host's: centroid, radius, entry points, mean work, the headline
 * figures at the declared target. Every pattern is checked before it leaves.
 *
 * The built-in makes the index-wide pattern only, by the same rule as the shipped policy: that is
 * where nearly all of the gain lies, and the least that can go wrong.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/internal.h"

#define RADIUS_SHARE 0.9 /* bank.h: the radius holds 90% of the samples */
#define MAX_SLACK 10
#define MAX_EF 100000

typedef struct distill_call {
    const rv_serving *serving;
    const rv_allocator *allocator; /* for the output */
    rv_batch *batch;
    rv_distill_output *out;
    uint32_t capacity;
} distill_call;

/* ---- output ------------------------------------------------------------------------------- */

void
rv_distill_output_free(const rv_allocator *allocator, rv_distill_output *out)
{
    if (out->patterns != NULL)
        allocator->free(allocator->ctx, out->patterns);
    if (out->centroids != NULL)
        allocator->free(allocator->ctx, out->centroids);
    memset(out, 0, sizeof *out);
}

/* Room for count patterns; false when memory does not suffice. */
static bool
reserve_output(distill_call *call, uint32_t count)
{
    const rv_allocator *allocator = call->allocator;
    size_t floats = (size_t)count * call->batch->in->dim;

    rv_distill_output_free(allocator, call->out);
    call->out->region_work = 1;
    call->capacity = count;
    if (count == 0)
        return true;
    call->out->patterns = allocator->alloc(allocator->ctx, count * sizeof(rv_pattern));
    call->out->centroids = allocator->alloc(allocator->ctx, floats * sizeof(float));
    return call->out->patterns != NULL && call->out->centroids != NULL;
}

/* What the policy decides about one pattern. */
typedef struct decision {
    uint32_t group; /* 0: index-wide, else the cluster */
    uint32_t entry_points;
    uint32_t probes;
    double confidence;
    double region_work; /* index-wide; 1 unless the policy says so */
    double slack[RV_TARGETS], ef[RV_TARGETS], recall[RV_TARGETS];
} decision;

/* Completes a pattern, checks it and appends it to the output. */
static rv_status
append_pattern(distill_call *call, const decision *decided, rv_error *err)
{
    rv_batch *batch = call->batch;
    const rv_distill_input *in = batch->in;
    rv_pattern *pattern = &call->out->patterns[call->out->count];
    float *centroid = call->out->centroids + (size_t)call->out->count * in->dim;
    double radius;
    rv_status status;

    memset(pattern, 0, sizeof *pattern);
    pattern->index_epoch = in->index_epoch;
    pattern->created_us = pattern->updated_us = in->now_us;
    pattern->scope = decided->group == 0 ? RV_PATTERN_INDEX : RV_PATTERN_REGION;
    pattern->k = in->k;
    pattern->samples = rv_batch_size(batch, decided->group);
    pattern->optimal_probes = decided->probes;
    pattern->target_recall = (float)in->target_recall;
    pattern->confidence = (float)decided->confidence;
    for (int i = 0; i < RV_TARGETS; i++) {
        pattern->table_slack[i] = (float)decided->slack[i];
        pattern->table_ef[i] = (uint32_t)ceil(decided->ef[i]);
        pattern->table_recall[i] = (float)decided->recall[i];
    }
    rv_pattern_headline(pattern);
    pattern->mean_distances = (float)rv_batch_distances(batch, decided->group, pattern->slack);
    status = rv_batch_radius(batch, decided->group, RADIUS_SHARE, &radius, err);
    if (status != RV_OK)
        return status;
    pattern->radius = (float)radius;
    status = rv_batch_entry_points(batch, decided->group, decided->entry_points,
                                   pattern->entry_points, &pattern->entry_count, err);
    if (status != RV_OK)
        return status;
    if (decided->group == 0)
        memset(centroid, 0, in->dim * sizeof *centroid);
    else
        memcpy(centroid, batch->centroids + (size_t)(decided->group - 1) * in->dim,
               in->dim * sizeof *centroid);
    status = rv_pattern_check(pattern, err);
    if (status == RV_OK)
        call->out->count++;
    return status;
}

/* ---- the policy --------------------------------------------------------------------------- */

static const char *
metric_name(rv_metric metric)
{
    switch (metric) {
        case RV_METRIC_L2:
            return "l2";
        case RV_METRIC_IP:
            return "inner_product";
        case RV_METRIC_COSINE:
            return "cosine";
        case RV_METRIC_L1:
            return "l1";
    }
    return "unknown";
}

/* table[field] = { value of each sample }, from a number at a fixed place in rv_sample. */
static void
push_column(lua_State *L, const rv_distill_input *in, const char *field, size_t offset)
{
    lua_createtable(L, (int)in->sample_count, 0);
    for (uint32_t i = 0; i < in->sample_count; i++) {
        double value;

        memcpy(&value, (const char *)&in->samples[i] + offset, sizeof value);
        lua_pushnumber(L, value == value ? value : -1);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, field);
}

static void
push_batch(lua_State *L, const rv_distill_input *in)
{
    luaL_checkstack(L, 8, "batch");
    lua_createtable(L, 0, 12);
    rv_set_number(L, "count", in->sample_count);
    rv_set_number(L, "k", in->k);
    rv_set_number(L, "dim", in->dim);
    rv_set_number(L, "target_recall", in->target_recall);
    rv_set_number(L, "min_samples", in->min_samples);
    rv_set_number(L, "learning_rate", in->learning_rate);
    lua_pushstring(L, metric_name(in->metric));
    lua_setfield(L, -2, "metric");
    lua_createtable(L, RV_TARGETS, 0);
    for (int i = 0; i < RV_TARGETS; i++) {
        lua_pushnumber(L, rv_target_grid()[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "targets");
    push_column(L, in, "recall", offsetof(rv_sample, recall));
    push_column(L, in, "confidence", offsetof(rv_sample, confidence));
    push_column(L, in, "age_s", offsetof(rv_sample, age_s));
    lua_createtable(L, (int)in->sample_count, 0);
    for (uint32_t i = 0; i < in->sample_count; i++) {
        lua_pushboolean(L, in->samples[i].success);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "success");
}

/* Reads the pattern on top of the stack, number of the result. */
static void
take_decision(lua_State *L, const rv_origin *origin, const rv_batch *batch, uint32_t number,
              decision *out)
{
    static const char *const fields[] = {"cluster",      "confidence",  "probes",
                                         "entry_points", "table_slack", "table_ef",
                                         "table_recall", "region_work", NULL};
    int index = lua_gettop(L);
    char path[32];

    snprintf(path, sizeof path, "patterns[%u].", (unsigned)number);
    if (!lua_istable(L, index))
        rv_shape(L, origin, "patterns[%u] = a %s; a table is expected", (unsigned)number,
                 luaL_typename(L, index));
    out->group = (uint32_t)rv_get_integer(L, origin, index, path, "cluster", 0, batch->clusters);
    out->confidence = rv_get_number(L, origin, index, path, "confidence", 0, 1);
    out->probes = (uint32_t)rv_get_integer(L, origin, index, path, "probes", 1, 100000);
    out->entry_points = (uint32_t)rv_get_integer(L, origin, index, path, "entry_points", 0,
                                                 RV_PATTERN_ENTRY_POINTS);
    rv_get_rising(L, origin, index, path, "table_slack", RV_TARGETS, 0, MAX_SLACK, out->slack);
    rv_get_rising(L, origin, index, path, "table_ef", RV_TARGETS, 1, MAX_EF, out->ef);
    rv_get_rising(L, origin, index, path, "table_recall", RV_TARGETS, 0, 1, out->recall);
    lua_getfield(L, index, "region_work");
    out->region_work = 1;
    if (!lua_isnil(L, -1))
        out->region_work = rv_get_number(L, origin, index, path, "region_work", 0, 100);
    lua_pop(L, 1);
    rv_only_fields(L, origin, index, path, fields);
}

static void
take_patterns(lua_State *L, const rv_origin *origin, distill_call *call)
{
    bool seen[RV_MAX_CLUSTERS + 1] = {false};
    size_t count = lua_objlen(L, 1);
    rv_status status;
    rv_error err;

    if (count > call->batch->clusters + 1)
        rv_shape(L, origin,
                 "%zu patterns; at most one for each of %u clusters and one for the "
                 "whole index are expected",
                 count, (unsigned)call->batch->clusters);
    if (!reserve_output(call, (uint32_t)count))
        rv_sandbox_raise(L, RV_HOST_MEMORY, 0, "no memory for the patterns");
    for (uint32_t i = 1; i <= count; i++) {
        decision decided;

        lua_rawgeti(L, 1, (int)i);
        take_decision(L, origin, call->batch, i, &decided);
        if (seen[decided.group])
            rv_shape(L, origin, "patterns[%u].cluster = %u, which an earlier pattern has",
                     (unsigned)i, (unsigned)decided.group);
        seen[decided.group] = true;
        if (decided.group == 0)
            call->out->region_work = decided.region_work;
        status = append_pattern(call, &decided, &err);
        if (status == RV_ERR_NOMEM)
            rv_sandbox_raise(L, RV_HOST_MEMORY, 0, "no memory for the patterns");
        if (status != RV_OK)
            rv_shape(L, origin, "patterns[%u]: %s", (unsigned)i, err.message);
        lua_pop(L, 1);
    }
}

static void
distill_by_policy(lua_State *L, void *data)
{
    distill_call *call = data;
    const rv_policy *policy = &call->serving->policies[RV_POLICY_DISTILLATION];
    rv_origin origin = {policy, RV_POLICY_DISTILLATION, 0};

    rv_sandbox_of(L)->batch = call->batch;
    lua_rawgeti(L, LUA_REGISTRYINDEX, policy->functions[0]);
    push_batch(L, call->batch->in);
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->serving->kernels);
    lua_rawgeti(L, LUA_REGISTRYINDEX, policy->table);
    lua_getfield(L, -1, "defaults");
    lua_remove(L, -2);
    rv_call_for_table(L, &origin, 3);
    take_patterns(L, &origin, call);
}

/* ---- the built-in ------------------------------------------------------------------------- */

#define SAFETY 0.9
#define CONFIDENCE_HALF 100
#define HALF_LIFE_S (14 * 86400.0)

/* Older samples count less, as in the policy. */
static void
weigh_by_age(rv_batch *batch)
{
    for (uint32_t i = 0; i < batch->in->sample_count; i++)
        if (batch->in->samples[i].age_s > 0)
            batch->weights[i] *= exp2(-batch->in->samples[i].age_s / HALF_LIFE_S);
}

/* The effort that reaches a recall; the highest known where that is out of reach. */
static rv_status
effort_for(rv_batch *batch, rv_effort_kind kind, double recall, double *out, rv_error *err)
{
    rv_status status = rv_batch_quantile(batch, kind, 0, recall, out, err);

    if (status == RV_OK && isinf(*out))
        status = rv_batch_highest(batch, kind, 0, out, err);
    return status;
}

/* The recall to calibrate to: the target and a margin of SAFETY standard errors. */
static rv_status
safe_recall(rv_batch *batch, double target, double *out, rv_error *err)
{
    double slack, mean, error;
    rv_status status = rv_batch_quantile(batch, RV_NEED_SLACK, 0, target, &slack, err);

    *out = target;
    if (status != RV_OK || isinf(slack))
        return status;
    rv_batch_recall(batch, 0, slack, &mean, &error);
    *out = fmin(target + SAFETY * error, (1 + target) / 2);
    return RV_OK;
}

static rv_status
decide_index_wide(rv_batch *batch, decision *out, rv_error *err)
{
    double size = rv_batch_size(batch, 0), safe, error;

    memset(out, 0, sizeof *out);
    out->probes = 1;
    out->entry_points = RV_PATTERN_ENTRY_POINTS;
    out->confidence = size / (size + CONFIDENCE_HALF);
    for (int i = 0; i < RV_TARGETS; i++) {
        rv_status status = safe_recall(batch, rv_target_grid()[i], &safe, err);

        if (status == RV_OK)
            status = effort_for(batch, RV_NEED_SLACK, safe, &out->slack[i], err);
        if (status == RV_OK)
            status = effort_for(batch, RV_NEED_EF, safe, &out->ef[i], err);
        if (status != RV_OK)
            return status;
        out->slack[i] = rv_clamp(out->slack[i], i > 0 ? out->slack[i - 1] : 0, MAX_SLACK);
        out->ef[i] = rv_clamp(out->ef[i], i > 0 ? out->ef[i - 1] : batch->in->k, MAX_EF);
        rv_batch_recall(batch, 0, out->slack[i], &out->recall[i], &error);
    }
    return RV_OK;
}

static rv_status
distill_built_in(distill_call *call)
{
    const rv_distill_input *in = call->batch->in;
    decision decided;
    rv_error err;
    rv_status status;

    rv_distill_output_free(call->allocator, call->out);
    if (rv_batch_size(call->batch, 0) < fmax(in->min_samples, 1))
        return RV_OK;
    weigh_by_age(call->batch);
    status = decide_index_wide(call->batch, &decided, &err);
    if (status == RV_OK && !reserve_output(call, 1))
        status = RV_ERR_NOMEM;
    if (status == RV_OK)
        status = append_pattern(call, &decided, &err);
    if (status != RV_OK)
        rv_distill_output_free(call->allocator, call->out);
    return status;
}

rv_host_cause
rv_host_distill(rv_host *host, const rv_allocator *allocator, const rv_distill_input *in,
                rv_distill_output *out, rv_host_failure *failure)
{
    rv_batch batch;
    distill_call call = {
        .serving = host->serving, .allocator = allocator, .batch = &batch, .out = out};
    rv_host_cause cause;
    rv_error err;

    memset(out, 0, sizeof *out);
    out->region_work = 1;
    if (rv_batch_init(&batch, &host->allocator, in, &err) != RV_OK) {
        rv_failure_set(failure, RV_HOST_MEMORY, RV_POLICY_DISTILLATION, NULL, 0, err.message);
        return RV_HOST_MEMORY;
    }
    cause = rv_gateway_call(host, RV_POLICY_DISTILLATION, distill_by_policy, &call, failure);
    if (host->serving != NULL)
        host->serving->sandbox->batch = NULL;
    if (cause != RV_HOST_OK) {
        rv_batch_free(&batch); /* back to equal weights and no clusters */
        if (rv_batch_init(&batch, &host->allocator, in, &err) != RV_OK ||
            distill_built_in(&call) == RV_ERR_NOMEM) {
            rv_failure_set(failure, RV_HOST_MEMORY, RV_POLICY_DISTILLATION, NULL, 0,
                           "no memory for the built-in distillation");
            cause = RV_HOST_MEMORY;
        }
    }
    rv_batch_free(&batch);
    return cause;
}
