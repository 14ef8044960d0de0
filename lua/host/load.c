/*
 * load.c - policy files into a fresh Lua state.
 *
 * Order: read every file (a missing one is fine), make a state, compile and run each chunk once in
 * an environment of its own, check the table it returned, then run each self_test. Only a serving
 * state that passed all of it leaves this file. Precompiled bytecode is refused: LuaJIT does not
 * verify it, so it could do anything.
 *
 * The sources are kept, because a state that a policy filled with garbage it holds on to is
 * rebuilt without looking at the disk: what serves must be what was tested.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "host/internal.h"

static const char *const function_names[RV_POLICY_KINDS][RV_POLICY_MAX_FUNCTIONS] = {
    {"judge", NULL}, {"distill", NULL}, {"interpolate", NULL}, {"merge", "keep"}};

const char *
rv_policy_function_name(rv_policy_kind kind, int which)
{
    return which < RV_POLICY_MAX_FUNCTIONS ? function_names[kind][which] : NULL;
}

static bool
refuse(rv_host_failure *failure, rv_host_cause cause, rv_policy_kind kind, const char *file,
       const char *reason)
{
    rv_failure_set(failure, cause, kind, file, 0, reason);
    return false;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* Reads an open file of at most RV_POLICY_MAX_BYTES into policy->source. */
static bool
read_open(const rv_host *host, FILE *stream, rv_policy *policy, rv_policy_kind kind,
          rv_host_failure *failure)
{
    char reason[128];
    char *text = host->allocator.alloc(host->allocator.ctx, RV_POLICY_MAX_BYTES + 1);
    size_t size;

    if (text == NULL)
        return refuse(failure, RV_HOST_MEMORY, kind, policy->file, "no memory to read the file");
    size = fread(text, 1, RV_POLICY_MAX_BYTES + 1, stream);
    if (ferror(stream) || size > RV_POLICY_MAX_BYTES) {
        if (size > RV_POLICY_MAX_BYTES)
            snprintf(reason, sizeof reason, "the file is larger than %d bytes",
                     RV_POLICY_MAX_BYTES);
        else
            snprintf(reason, sizeof reason, "cannot read: %s", strerror(errno));
        host->allocator.free(host->allocator.ctx, text);
        return refuse(failure, RV_HOST_IO, kind, policy->file, reason);
    }
    policy->source = host->allocator.alloc(host->allocator.ctx, size + 1);
    if (policy->source != NULL)
        memcpy(policy->source, text, size);
    policy->source_size = size;
    host->allocator.free(host->allocator.ctx, text);
    if (policy->source == NULL)
        return refuse(failure, RV_HOST_MEMORY, kind, policy->file, "no memory to keep the file");
    return true;
}

/* Reads directory/kind.lua. A file that does not exist leaves policy->source NULL. */
static bool
read_policy(const rv_host *host, const char *directory, rv_policy_kind kind, rv_policy *policy,
            rv_host_failure *failure)
{
    size_t size = strlen(directory) + strlen(rv_policy_kind_name(kind)) + sizeof "/.lua";
    char reason[128];
    struct stat status;
    FILE *stream;
    bool read;

    policy->file = host->allocator.alloc(host->allocator.ctx, size);
    if (policy->file == NULL)
        return refuse(failure, RV_HOST_MEMORY, kind, directory, "no memory for the file's name");
    snprintf(policy->file, size, "%s/%s.lua", directory, rv_policy_kind_name(kind));
    if (stat(policy->file, &status) != 0 && errno == ENOENT)
        return true;
    stream = fopen(policy->file, "rb");
    if (stream == NULL || fstat(fileno(stream), &status) != 0 || !S_ISREG(status.st_mode)) {
        snprintf(reason, sizeof reason, "cannot read: %s",
                 stream == NULL ? strerror(errno) : "not a regular file");
        if (stream != NULL)
            fclose(stream);
        return refuse(failure, RV_HOST_IO, kind, policy->file, reason);
    }
    read = read_open(host, stream, policy, kind, failure);
    fclose(stream);
    return read;
}

/* ---- running and checking a chunk --------------------------------------------------------- */

typedef struct install_call {
    rv_policy *policy;
    rv_policy_kind kind;
} install_call;

static void
compile(lua_State *L, const rv_policy *policy, rv_policy_kind kind)
{
    char chunk[40];
    rv_sandbox *sandbox = rv_sandbox_of(L);

    if (policy->source_size > 0 && policy->source[0] == LUA_SIGNATURE[0])
        rv_sandbox_raise(L, RV_HOST_SYNTAX, 0, "precompiled bytecode is not accepted");
    snprintf(chunk, sizeof chunk, "@%s.lua", rv_policy_kind_name(kind));
    if (luaL_loadbufferx(L, policy->source, policy->source_size, chunk, "t") == LUA_ERRSYNTAX)
        sandbox->raised = RV_HOST_SYNTAX;
    if (lua_type(L, -1) == LUA_TFUNCTION)
        return;
    if (sandbox->raised == RV_HOST_OK)
        rv_sandbox_raise(L, RV_HOST_MEMORY, 0, "no memory to compile the policy");
    rv_sandbox_note(sandbox, lua_tostring(L, -1));
    lua_pushnil(L);
    lua_error(L);
}

/* Copies policy.field, a string of at most size - 1 bytes without control characters. */
static void
take_text(lua_State *L, const char *field, char *out, size_t size)
{
    size_t length;
    const char *text;

    lua_getfield(L, 1, field);
    if (lua_type(L, -1) != LUA_TSTRING)
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "field '%s' of the policy must be a string, not %s",
                         field, luaL_typename(L, -1));
    text = lua_tolstring(L, -1, &length);
    if (length == 0 || length >= size)
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0,
                         "field '%s' of the policy has %zu bytes; 1 to %zu are allowed", field,
                         length, size - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ' && text[i] != '\n')
            rv_sandbox_raise(L, RV_HOST_SHAPE, 0,
                             "field '%s' of the policy has a control character", field);
    memcpy(out, text, length + 1);
    lua_pop(L, 1);
}

static void
check_defaults(lua_State *L)
{
    lua_getfield(L, 1, "defaults");
    if (!lua_istable(L, -1))
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "field 'defaults' of the policy must be a table");
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        if (lua_type(L, -2) != LUA_TSTRING)
            rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "the fields of 'defaults' must have names");
        if (!lua_isboolean(L, -1) && lua_type(L, -1) != LUA_TNUMBER)
            rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "defaults.%s must be a number or a boolean",
                             lua_tostring(L, -2));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void
take_function(lua_State *L, install_call *call, int which)
{
    const char *name = rv_policy_function_name(call->kind, which);
    lua_Debug activation;

    lua_getfield(L, 1, name);
    if (lua_type(L, -1) != LUA_TFUNCTION || lua_iscfunction(L, -1))
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "the policy has no function '%s'", name);
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">S", &activation);
    call->policy->lines[which] = activation.linedefined;
    call->policy->functions[which] = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Job: compiles, runs and checks one policy; leaves its references in the policy. */
static void
install(lua_State *L, void *data)
{
    install_call *call = data;
    rv_policy *policy = call->policy;

    compile(L, policy, call->kind);
    rv_environment_push(L);
    lua_setfenv(L, -2);
    lua_call(L, 0, 1);
    if (!lua_istable(L, 1))
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "the file must return a table, not %s",
                         luaL_typename(L, 1));
    take_text(L, "name", policy->name, sizeof policy->name);
    take_text(L, "version", policy->version, sizeof policy->version);
    take_text(L, "describe", policy->describe, sizeof policy->describe);
    check_defaults(L);
    for (int i = 0; i < RV_POLICY_MAX_FUNCTIONS; i++)
        if (rv_policy_function_name(call->kind, i) != NULL)
            take_function(L, call, i);
    lua_settop(L, 1);
    policy->table = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Job: policy.self_test(policy), which must return true; anything else is the reason. */
static void
run_self_test(lua_State *L, void *data)
{
    install_call *call = data;
    lua_Debug activation;

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->table);
    lua_getfield(L, 1, "self_test");
    if (lua_isnil(L, 2))
        return;
    if (lua_type(L, 2) != LUA_TFUNCTION)
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "field 'self_test' of the policy must be a function");
    lua_pushvalue(L, 2);
    lua_getinfo(L, ">S", &activation);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    if (lua_isboolean(L, -1) && lua_toboolean(L, -1))
        return;
    if (lua_type(L, -1) == LUA_TSTRING)
        rv_sandbox_raise(L, RV_HOST_SELF_TEST, activation.linedefined, "self_test: %.400s",
                         lua_tostring(L, -1));
    rv_sandbox_raise(L, RV_HOST_SELF_TEST, activation.linedefined,
                     "self_test returned %s; true or a reason is expected",
                     lua_isnil(L, -1) ? "nothing" : luaL_typename(L, -1));
}

static void
push_kernels(lua_State *L, void *serving)
{
    rv_kernels_push(L);
    ((rv_serving *)serving)->kernels = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* ---- states ------------------------------------------------------------------------------- */

/* A new sandbox with every policy of serving in it. On failure serving is as it was. */
static rv_sandbox *
open_state(const rv_host *host, rv_serving *serving, rv_host_failure *failure)
{
    rv_sandbox *sandbox = rv_sandbox_create(&host->allocator, host->memory);
    rv_serving fresh = *serving;
    rv_host_cause cause = RV_HOST_OK;
    int kind;

    if (sandbox == NULL) {
        refuse(failure, RV_HOST_MEMORY, RV_POLICY_VERDICT, NULL,
               "no memory for a Lua state (ruvector.policy_memory)");
        return NULL;
    }
    for (kind = 0; kind < RV_POLICY_KINDS && cause == RV_HOST_OK; kind++) {
        install_call call = {&fresh.policies[kind], (rv_policy_kind)kind};

        if (call.policy->source != NULL)
            cause = rv_sandbox_run(sandbox, rv_host_fuel(host, call.kind), install, &call);
        if (cause != RV_HOST_OK)
            rv_failure_set(failure, cause, call.kind, call.policy->file, sandbox->line,
                           sandbox->reason);
    }
    if (cause == RV_HOST_OK) {
        cause = rv_sandbox_run(sandbox, host->fuel, push_kernels, &fresh);
        if (cause == RV_HOST_OK)
            cause = rv_sandbox_run(sandbox, host->fuel, rv_interpolation_prepare, &fresh);
        if (cause != RV_HOST_OK)
            refuse(failure, cause, RV_POLICY_VERDICT, NULL, sandbox->reason);
    }
    if (cause != RV_HOST_OK) {
        rv_sandbox_destroy(sandbox);
        return NULL;
    }
    *serving = fresh;
    return sandbox;
}

static bool
self_tests(const rv_host *host, rv_serving *serving, rv_host_failure *failure)
{
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++) {
        install_call call = {&serving->policies[kind], (rv_policy_kind)kind};
        rv_host_cause cause;

        if (call.policy->source == NULL)
            continue;
        cause =
            rv_sandbox_run(serving->sandbox, rv_host_fuel(host, call.kind), run_self_test, &call);
        if (cause != RV_HOST_OK) {
            rv_failure_set(failure, cause, call.kind, call.policy->file, serving->sandbox->line,
                           serving->sandbox->reason);
            return false;
        }
    }
    return true;
}

static bool
read_all(const rv_host *host, const char *directory, rv_serving *serving, rv_host_failure *failure)
{
    struct stat status;
    char reason[128];
    bool found = stat(directory, &status) == 0;

    if (!found || !S_ISDIR(status.st_mode)) {
        snprintf(reason, sizeof reason, "cannot read the policy directory: %s",
                 found ? "not a directory" : strerror(errno));
        return refuse(failure, RV_HOST_IO, RV_POLICY_VERDICT, directory, reason);
    }
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++)
        if (!read_policy(host, directory, (rv_policy_kind)kind, &serving->policies[kind], failure))
            return false;
    return true;
}

rv_serving *
rv_serving_load(const rv_host *host, const char *directory, rv_host_failure *failure)
{
    rv_serving *serving = host->allocator.alloc(host->allocator.ctx, sizeof *serving);

    if (serving == NULL) {
        refuse(failure, RV_HOST_MEMORY, RV_POLICY_VERDICT, directory, "no memory for policies");
        return NULL;
    }
    memset(serving, 0, sizeof *serving);
    if (read_all(host, directory, serving, failure)) {
        serving->sandbox = open_state(host, serving, failure);
        if (serving->sandbox != NULL && self_tests(host, serving, failure))
            return serving;
    }
    rv_serving_destroy(host, serving);
    return NULL;
}

bool
rv_serving_rebuild(const rv_host *host, rv_serving *serving)
{
    rv_host_failure ignored;
    rv_sandbox *sandbox = open_state(host, serving, &ignored);

    if (sandbox == NULL)
        return false;
    rv_sandbox_destroy(serving->sandbox);
    serving->sandbox = sandbox;
    return true;
}

void
rv_serving_destroy(const rv_host *host, rv_serving *serving)
{
    const rv_allocator *allocator = &host->allocator;

    if (serving == NULL)
        return;
    rv_sandbox_destroy(serving->sandbox);
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++) {
        if (serving->policies[kind].source != NULL)
            allocator->free(allocator->ctx, serving->policies[kind].source);
        if (serving->policies[kind].file != NULL)
            allocator->free(allocator->ctx, serving->policies[kind].file);
    }
    allocator->free(allocator->ctx, serving);
}
