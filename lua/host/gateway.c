/*
 * gateway.c - rv_host: which policies serve, the one way into them, and what is counted.
 *
 * The serving state changes in rv_host_load and rv_host_import: a new one is built and self-tested
 * apart, and takes over only when that succeeded. Counters and the record of what was logged belong
 * to the host: counters survive a reload, the log starts anew.
 *
 * After a call that hit the memory cap the state is collected. A policy that hoards (in a local
 * table that its functions share) would keep failing and, the state being shared, starve the
 * others, so when much is still held the state is rebuilt from the kept sources.
 */
#include <stdio.h>
#include <string.h>

#include "host/internal.h"

static const char *const kind_names[RV_POLICY_KINDS] = {
    "verdict", "distillation", "interpolation", "retention", "tuning", "selection", "healing"};

static const char *const cause_names[RV_HOST_CAUSES] = {
    "ok", "missing", "syntax", "error", "fuel", "memory", "shape", "self_test", "io"};

const char *
rv_policy_kind_name(rv_policy_kind kind)
{
    return (unsigned)kind < RV_POLICY_KINDS ? kind_names[kind] : "unknown";
}

const char *
rv_host_cause_name(rv_host_cause cause)
{
    return (unsigned)cause < RV_HOST_CAUSES ? cause_names[cause] : "unknown";
}

uint64_t
rv_host_fuel(const rv_host *host, rv_policy_kind kind)
{
    return kind == RV_POLICY_DISTILLATION ? host->fuel * 100 : host->fuel;
}

void
rv_failure_set(rv_host_failure *failure, rv_host_cause cause, rv_policy_kind kind, const char *file,
               int line, const char *reason)
{
    if (failure == NULL)
        return;
    failure->cause = cause;
    failure->kind = kind;
    failure->line = line;
    snprintf(failure->file, sizeof failure->file, "%s", file ? file : "");
    snprintf(failure->reason, sizeof failure->reason, "%s", reason ? reason : "");
}

static rv_status
fail(rv_error *err, rv_status status, const char *message)
{
    if (err != NULL) {
        err->status = status;
        snprintf(err->message, sizeof err->message, "%s", message);
    }
    return status;
}

rv_status
rv_host_create(const rv_host_options *options, rv_host **out, rv_error *err)
{
    const rv_allocator *allocator;
    rv_host *host;

    if (options == NULL || out == NULL || options->allocator == NULL)
        return fail(err, RV_ERR_INVALID, "rv_host_create needs options with an allocator");
    if (options->fuel > UINT64_C(1000000000000))
        return fail(err, RV_ERR_RANGE, "the instruction budget must be at most 10^12");
    allocator = options->allocator;
    *out = NULL;
    host = allocator->alloc(allocator->ctx, sizeof *host);
    if (host == NULL)
        return fail(err, RV_ERR_NOMEM, "no memory for the policy host");
    memset(host, 0, sizeof *host);
    host->allocator = *allocator;
    host->fuel = options->fuel ? options->fuel : RV_HOST_DEFAULT_FUEL;
    host->tick = RV_FUEL_TICK;
    host->memory = options->memory ? options->memory : RV_HOST_DEFAULT_MEMORY;
    if (options->directory != NULL) {
        size_t size = strlen(options->directory) + 1;

        host->directory = allocator->alloc(allocator->ctx, size);
        if (host->directory == NULL) {
            allocator->free(allocator->ctx, host);
            return fail(err, RV_ERR_NOMEM, "no memory for the policy directory's name");
        }
        memcpy(host->directory, options->directory, size);
    }
    *out = host;
    return RV_OK;
}

void
rv_host_destroy(rv_host *host)
{
    rv_allocator allocator;

    if (host == NULL)
        return;
    allocator = host->allocator;
    rv_serving_destroy(host, host->serving);
    if (host->directory != NULL)
        allocator.free(allocator.ctx, host->directory);
    allocator.free(allocator.ctx, host);
}

/* Puts what was loaded in the place of the former; fresh NULL: the built-ins. */
static rv_host_cause
take_over(rv_host *host, rv_serving *fresh)
{
    rv_serving_destroy(host, host->serving);
    host->serving = fresh;
    host->logged_count = 0;
    return RV_HOST_OK;
}

rv_host_cause
rv_host_load(rv_host *host, const char *directory, rv_host_failure *failure)
{
    rv_host_failure ignored;
    rv_serving *fresh = NULL;

    if (failure == NULL)
        failure = &ignored;
    rv_failure_set(failure, RV_HOST_OK, RV_POLICY_VERDICT, NULL, 0, NULL);
    if (directory == NULL)
        directory = host->directory;
    if (directory != NULL) {
        fresh = rv_serving_load(host, directory, failure);
        if (fresh == NULL)
            return failure->cause;
    }
    return take_over(host, fresh);
}

rv_host_cause
rv_host_import(rv_host *host, const void *block, size_t size, rv_host_failure *failure)
{
    rv_host_failure ignored;
    rv_serving *fresh;

    if (failure == NULL)
        failure = &ignored;
    rv_failure_set(failure, RV_HOST_OK, RV_POLICY_VERDICT, NULL, 0, NULL);
    fresh = rv_serving_import(host, block, size, failure);
    return fresh == NULL ? failure->cause : take_over(host, fresh);
}

void
rv_host_set_log(rv_host *host, rv_host_log_fn log, void *ctx)
{
    host->log = log;
    host->log_ctx = ctx;
}

static const rv_policy *
loaded_policy(const rv_host *host, rv_policy_kind kind)
{
    const rv_policy *policy;

    if (host->serving == NULL)
        return NULL;
    policy = &host->serving->policies[kind];
    return policy->source != NULL ? policy : NULL;
}

static void
fill_info(const rv_policy *policy, rv_policy_kind kind, const rv_counters *counters,
          rv_policy_info *info)
{
    memset(info, 0, sizeof *info);
    info->kind = kind;
    info->id = policy ? policy->id : rv_policy_kind_name(kind);
    info->name = policy ? policy->name : "built-in";
    info->version = policy ? policy->version : "";
    info->describe = policy ? policy->describe : "the default written in C";
    info->file = policy ? policy->file : "";
    info->source = policy ? policy->source : NULL;
    info->source_size = policy ? policy->source_size : 0;
    info->calls = counters->calls;
    for (int cause = 0; cause < RV_HOST_CAUSES; cause++) {
        info->failures_by_cause[cause] = counters->failures[cause];
        info->failures += counters->failures[cause];
    }
    info->mean_us = counters->timed ? counters->total_us / (double)counters->timed : 0;
    info->worst_us = counters->worst_us;
}

static int
default_policy(const rv_host *host, rv_policy_kind kind)
{
    return host->serving == NULL ? -1 : host->serving->defaults[kind];
}

void
rv_host_info(const rv_host *host, rv_policy_kind kind, rv_policy_info *info)
{
    int which = default_policy(host, kind);

    fill_info(which < 0 ? NULL : &host->serving->loaded[which], kind, &host->counters[kind], info);
}

uint32_t
rv_host_policy_count(const rv_host *host)
{
    return host->serving == NULL ? 0 : host->serving->loaded_count;
}

void
rv_host_policy(const rv_host *host, uint32_t which, rv_policy_info *info)
{
    const rv_policy *policy = &host->serving->loaded[which];

    fill_info(policy, policy->kind, &host->serving->counters[which], info);
}

rv_host_cause
rv_host_use(rv_host *host, rv_policy_kind kind, const char *id)
{
    rv_serving *serving = host->serving;
    int which;

    if (serving == NULL)
        return id == NULL ? RV_HOST_OK : RV_HOST_MISSING;
    if (id == NULL && serving->used[kind] == serving->defaults[kind])
        return RV_HOST_OK;
    if (serving->used[kind] >= 0 && id != NULL && strcmp(serving->policies[kind].id, id) == 0)
        return RV_HOST_OK;
    which = id == NULL ? -1 : rv_serving_find(serving, kind, id);
    rv_serving_use(serving, kind, which >= 0 ? which : default_policy(host, kind));
    return which >= 0 || id == NULL ? RV_HOST_OK : RV_HOST_MISSING;
}

const char *
rv_host_used(const rv_host *host, rv_policy_kind kind)
{
    const rv_policy *policy = loaded_policy(host, kind);

    return policy != NULL ? policy->id : NULL;
}

void
rv_host_set_counting(rv_host *host, bool on)
{
    host->tick = on ? 1 : RV_FUEL_TICK;
}

rv_host_cost
rv_host_last_cost(const rv_host *host)
{
    rv_host_cost cost = {0};

    if (host->serving != NULL) {
        const rv_sandbox *sandbox = host->serving->sandbox;

        cost.instructions = sandbox->fuel_given - (uint64_t)sandbox->fuel;
        cost.bytes = sandbox->allocated;
    }
    return cost;
}

static void
log_once(rv_host *host, const rv_host_failure *failure, int used)
{
    for (uint32_t i = 0; i < host->logged_count; i++)
        if (host->logged[i].kind == failure->kind && host->logged[i].used == used &&
            host->logged[i].cause == failure->cause && host->logged[i].line == failure->line)
            return;
    if (host->logged_count == RV_LOGGED_MAX)
        return;
    host->logged[host->logged_count].kind = failure->kind;
    host->logged[host->logged_count].used = used;
    host->logged[host->logged_count].cause = failure->cause;
    host->logged[host->logged_count].line = failure->line;
    host->logged_count++;
    if (host->log != NULL)
        host->log(host->log_ctx, failure);
}

static void
add_time(rv_counters *counters, double elapsed)
{
    counters->timed++;
    counters->total_us += elapsed;
    if (elapsed > counters->worst_us)
        counters->worst_us = elapsed;
}

static void
count_time(rv_counters *counters, rv_counters *own, int64_t started_ns)
{
    double elapsed = (double)(rv_clock_ns() - started_ns) / 1000;

    add_time(counters, elapsed);
    add_time(own, elapsed);
}

/* Rebuilds a state that cannot serve on: broken, or still holding much after a collection. */
static void
recover(rv_host *host, rv_host_cause cause)
{
    rv_sandbox *sandbox = host->serving->sandbox;

    if (!sandbox->broken && (cause != RV_HOST_MEMORY || sandbox->used < sandbox->cap / 2))
        return;
    if (rv_serving_rebuild(host, host->serving))
        return;
    rv_serving_destroy(host, host->serving);
    host->serving = NULL;
}

rv_host_cause
rv_gateway_call(rv_host *host, rv_policy_kind kind, rv_job job, void *data,
                rv_host_failure *failure)
{
    const rv_policy *policy = loaded_policy(host, kind);
    rv_counters *counters = &host->counters[kind];
    rv_counters *own;
    rv_sandbox *sandbox;
    rv_host_failure local;
    rv_host_cause cause;
    int used;

    counters->calls++;
    if (failure != NULL)
        failure->cause = RV_HOST_OK;
    if (policy == NULL) {
        rv_failure_set(failure, RV_HOST_MISSING, kind, NULL, 0, "no such policy is loaded");
        return RV_HOST_MISSING;
    }
    used = host->serving->used[kind];
    own = &host->serving->counters[used];
    own->calls++;
    sandbox = host->serving->sandbox;
    sandbox->tick = host->tick;
    cause = rv_sandbox_run(sandbox, rv_host_fuel(host, kind), job, data);
    count_time(counters, own, sandbox->started_ns);
    if (cause == RV_HOST_OK)
        return RV_HOST_OK;
    counters->failures[cause]++;
    own->failures[cause]++;
    rv_failure_set(&local, cause, kind, policy->file, sandbox->line, sandbox->reason);
    recover(host, cause);
    log_once(host, &local, used);
    if (failure != NULL)
        *failure = local;
    return cause;
}
