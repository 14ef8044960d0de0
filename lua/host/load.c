/*
 * load.c - policy files into a fresh Lua state.
 *
 * Order: read every file (files.c; a missing one is fine) or take a block of what another process
 * read (sources.c), make a state, compile and run each chunk once in an environment of its own,
 * check the table it returned, then run each self_test. Only a serving state that passed all of it
 * leaves this file. Precompiled bytecode is refused: LuaJIT
 * does not verify it, so it could do anything.
 *
 * The sources are kept, because a state that a policy filled with garbage it holds on to is
 * rebuilt without looking at the disk: what serves must be what was tested.
 */
#include <stdio.h>
#include <string.h>

#include "host/internal.h"

static const char *const function_names[RV_POLICY_KINDS][RV_POLICY_MAX_FUNCTIONS] = {
    {"judge", NULL},  {"distill", NULL}, {"interpolate", NULL}, {"merge", "keep"},
    {"choose", NULL}, {"predict", NULL}, {"heal", NULL}};

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

/* ---- running and checking a chunk --------------------------------------------------------- */

static void
compile(lua_State *L, const rv_policy *policy)
{
    char chunk[RV_POLICY_MAX_ID + 8];
    rv_sandbox *sandbox = rv_sandbox_of(L);

    if (policy->source_size > 0 && policy->source[0] == LUA_SIGNATURE[0])
        rv_sandbox_raise(L, RV_HOST_SYNTAX, 0, "precompiled bytecode is not accepted");
    snprintf(chunk, sizeof chunk, "@%s.lua", policy->id);
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

/* Settles what the policy decides: a default file by its name, any other by its field 'kind'. */
static void
take_kind(lua_State *L, rv_policy *policy)
{
    const char *text;
    int kind = 0;

    lua_getfield(L, 1, "kind");
    if (lua_isnil(L, -1) && policy->kind < RV_POLICY_KINDS) {
        lua_pop(L, 1);
        return;
    }
    text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
    while (kind < RV_POLICY_KINDS && strcmp(text, rv_policy_kind_name((rv_policy_kind)kind)) != 0)
        kind++;
    if (kind == RV_POLICY_KINDS)
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0,
                         "field 'kind' of the policy must say what it decides, such as 'verdict', "
                         "not %.40s",
                         text);
    if (policy->kind < RV_POLICY_KINDS && policy->kind != (rv_policy_kind)kind)
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0,
                         "field 'kind' of the policy is '%s', but the file's name makes it the "
                         "%s policy",
                         text, rv_policy_kind_name(policy->kind));
    policy->kind = (rv_policy_kind)kind;
    lua_pop(L, 1);
}

static void
check_contract(lua_State *L, rv_policy_kind kind)
{
    int present = rv_policy_contract(kind);
    const char *name = rv_policy_kind_name(kind);
    lua_Number version = 1;

    lua_getfield(L, 1, "contract");
    if (lua_type(L, -1) == LUA_TNUMBER)
        version = lua_tonumber(L, -1);
    else if (!lua_isnil(L, -1))
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "field 'contract' of the policy must be a number");
    lua_pop(L, 1);
    if (version == present)
        return;
    if (version > present)
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0,
                         "the policy was written for contract %.9g of %s policies, this ruvector "
                         "has contract %d: take a newer ruvector or an older policy",
                         version, name, present);
    if (!(version >= 1 && version == (int)version))
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0,
                         "there is no contract %.9g of %s policies; the present one is %d", version,
                         name, present);
    rv_sandbox_raise(L, RV_HOST_SHAPE, 0,
                     "the policy was written for contract %.9g of %s policies, the present one is "
                     "%d. What changed in contract %d: %s",
                     version, name, present, (int)version + 1,
                     rv_policy_contract_change(kind, (int)version + 1));
}

static void
take_function(lua_State *L, rv_policy *policy, int which)
{
    const char *name = rv_policy_function_name(policy->kind, which);
    lua_Debug activation;

    lua_getfield(L, 1, name);
    if (lua_type(L, -1) != LUA_TFUNCTION || lua_iscfunction(L, -1))
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "the policy has no function '%s'", name);
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">S", &activation);
    policy->lines[which] = activation.linedefined;
    policy->functions[which] = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Job: compiles, runs and checks one policy; leaves its references in the policy. */
static void
install(lua_State *L, void *data)
{
    rv_policy *policy = data;

    compile(L, policy);
    rv_environment_push(L);
    lua_setfenv(L, -2);
    lua_call(L, 0, 1);
    if (!lua_istable(L, 1))
        rv_sandbox_raise(L, RV_HOST_SHAPE, 0, "the file must return a table, not %s",
                         luaL_typename(L, 1));
    take_text(L, "name", policy->name, sizeof policy->name);
    take_text(L, "version", policy->version, sizeof policy->version);
    take_text(L, "describe", policy->describe, sizeof policy->describe);
    take_kind(L, policy);
    check_contract(L, policy->kind);
    check_defaults(L);
    for (int i = 0; i < RV_POLICY_MAX_FUNCTIONS; i++)
        if (rv_policy_function_name(policy->kind, i) != NULL)
            take_function(L, policy, i);
    lua_settop(L, 1);
    policy->table = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Job: policy.self_test(policy), which must return true; anything else is the reason. */
static void
run_self_test(lua_State *L, void *data)
{
    const rv_policy *policy = data;
    lua_Debug activation;

    lua_rawgeti(L, LUA_REGISTRYINDEX, policy->table);
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

static uint64_t
load_fuel(const rv_host *host, const rv_policy *policy)
{
    return rv_host_fuel(host, policy->kind < RV_POLICY_KINDS ? policy->kind : RV_POLICY_VERDICT);
}

static void
report(rv_host_failure *failure, rv_host_cause cause, const rv_policy *policy,
       const rv_sandbox *sandbox)
{
    rv_policy_kind kind = policy->kind < RV_POLICY_KINDS ? policy->kind : RV_POLICY_VERDICT;

    rv_failure_set(failure, cause, kind, policy->file, sandbox->line, sandbox->reason);
}

/* Runs job over every loaded policy; stops at the first that fails. */
static bool
run_each(const rv_host *host, rv_serving *serving, rv_sandbox *sandbox, rv_job job,
         rv_host_failure *failure)
{
    for (uint32_t i = 0; i < serving->loaded_count; i++) {
        rv_policy *policy = &serving->loaded[i];
        rv_host_cause cause = rv_sandbox_run(sandbox, load_fuel(host, policy), job, policy);

        if (cause != RV_HOST_OK) {
            report(failure, cause, policy, sandbox);
            return false;
        }
    }
    return true;
}

static bool
run_once(const rv_host *host, rv_serving *serving, rv_sandbox *sandbox, rv_job job,
         rv_host_failure *failure)
{
    rv_host_cause cause = rv_sandbox_run(sandbox, host->fuel, job, serving);

    return cause == RV_HOST_OK || refuse(failure, cause, RV_POLICY_VERDICT, NULL, sandbox->reason);
}

/* Fills a new state with every policy of serving. False: *failure says why. */
static bool
fill_state(const rv_host *host, rv_serving *serving, rv_sandbox *sandbox, rv_host_failure *failure)
{
    return run_once(host, serving, sandbox, rv_library_open, failure) &&
           run_each(host, serving, sandbox, install, failure) &&
           run_once(host, serving, sandbox, push_kernels, failure) &&
           run_once(host, serving, sandbox, rv_interpolation_prepare, failure);
}

void
rv_serving_use(rv_serving *serving, rv_policy_kind kind, int which)
{
    serving->used[kind] = which;
    if (which >= 0)
        serving->policies[kind] = serving->loaded[which];
    else
        memset(&serving->policies[kind], 0, sizeof serving->policies[kind]);
}

int
rv_serving_find(const rv_serving *serving, rv_policy_kind kind, const char *id)
{
    for (uint32_t i = 0; i < serving->loaded_count; i++)
        if (serving->loaded[i].kind == kind && strcmp(serving->loaded[i].id, id) == 0)
            return (int)i;
    return -1;
}

static void
use_defaults(rv_serving *serving)
{
    for (int i = 0; i < RV_POLICY_KINDS; i++) {
        rv_policy_kind kind = (rv_policy_kind)i;

        serving->defaults[kind] = rv_serving_find(serving, kind, rv_policy_kind_name(kind));
        rv_serving_use(serving, kind, serving->defaults[kind]);
    }
}

static rv_sandbox *
open_sandbox(const rv_host *host, rv_host_failure *failure)
{
    rv_sandbox *sandbox = rv_sandbox_create(&host->allocator, host->memory);

    if (sandbox == NULL)
        refuse(failure, RV_HOST_MEMORY, RV_POLICY_VERDICT, NULL,
               "no memory for a Lua state (ruvector.policy_memory)");
    return sandbox;
}

static rv_serving *
new_serving(const rv_host *host, const char *directory, rv_host_failure *failure)
{
    rv_serving *serving = host->allocator.alloc(host->allocator.ctx, sizeof *serving);

    if (serving == NULL)
        refuse(failure, RV_HOST_MEMORY, RV_POLICY_VERDICT, directory, "no memory for policies");
    else
        memset(serving, 0, sizeof *serving);
    return serving;
}

/* Makes the state of what was read. Takes serving, and destroys it when something failed. */
static rv_serving *
prepare(const rv_host *host, rv_serving *serving, bool read, rv_host_failure *failure)
{
    if (read) {
        serving->sandbox = open_sandbox(host, failure);
        if (serving->sandbox != NULL && fill_state(host, serving, serving->sandbox, failure) &&
            run_each(host, serving, serving->sandbox, run_self_test, failure)) {
            use_defaults(serving);
            return serving;
        }
    }
    rv_serving_destroy(host, serving);
    return NULL;
}

rv_serving *
rv_serving_load(const rv_host *host, const char *directory, rv_host_failure *failure)
{
    rv_serving *serving = new_serving(host, directory, failure);

    if (serving == NULL)
        return NULL;
    return prepare(host, serving, rv_files_read(host, directory, serving, failure), failure);
}

rv_serving *
rv_serving_import(const rv_host *host, const void *block, size_t size, rv_host_failure *failure)
{
    rv_serving *serving = new_serving(host, NULL, failure);

    if (serving == NULL)
        return NULL;
    return prepare(host, serving, rv_sources_read(host, block, size, serving, failure), failure);
}

/* The references of a policy belong to its state, so a failure leaves nothing that could serve:
 * the caller then destroys serving. */
bool
rv_serving_rebuild(const rv_host *host, rv_serving *serving)
{
    rv_host_failure ignored;

    rv_sandbox_destroy(serving->sandbox);
    serving->sandbox = open_sandbox(host, &ignored);
    if (serving->sandbox == NULL || !fill_state(host, serving, serving->sandbox, &ignored))
        return false;
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++)
        rv_serving_use(serving, (rv_policy_kind)kind, serving->used[kind]);
    return true;
}

void
rv_serving_destroy(const rv_host *host, rv_serving *serving)
{
    if (serving == NULL)
        return;
    rv_sandbox_destroy(serving->sandbox);
    rv_files_free(host, serving);
    host->allocator.free(host->allocator.ctx, serving);
}
