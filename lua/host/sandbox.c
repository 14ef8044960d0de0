/*
 * sandbox.c - one Lua state in which untrusted arithmetic may run.
 *
 * What bounds a policy, and why each is needed:
 *   memory        every byte of the state comes through capped_allocate, which refuses beyond the
 *                 cap; Lua then raises "not enough memory", which nothing in a policy can catch.
 *   instructions  a count hook every RV_FUEL_TICK instructions. It fires in the interpreter only,
 *                 so the JIT is off. No pcall, xpcall or coroutine exists in the environment, so
 *                 the error that the hook raises reaches the gateway.
 *   time          instructions do not bound what one of them may cost (comparing two strings of
 *                 ten megabytes is one instruction), so the hook also looks at the clock: one
 *                 second for each million instructions of budget, at least one. Honest policies
 *                 stay far below it.
 *
 * Everything that can raise runs inside lua_pcall, under rv_sandbox_run. The trampoline and the
 * message handler are made once and kept in the registry, so that entering allocates nothing. The
 * panic function is the last resort for an error outside of it, which would end the process: it
 * returns to rv_sandbox_run and marks the state as broken.
 */
#define _POSIX_C_SOURCE 200809L

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/internal.h"

int64_t
rv_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

rv_sandbox *
rv_sandbox_of(lua_State *L)
{
    void *sandbox;

    lua_getallocf(L, &sandbox);
    return sandbox;
}

/* LuaJIT crashes when an allocation fails inside lua_newstate (it frees a half-made state), so what
 * that call takes, about 12 kB, comes from one block that was allocated before. */
#define NURSERY_BYTES ((size_t)64 * 1024)

static bool
in_nursery(const rv_sandbox *sandbox, const char *block)
{
    return block >= sandbox->nursery && block < sandbox->nursery + NURSERY_BYTES;
}

static void *
take_block(rv_sandbox *sandbox, size_t size)
{
    char *block;
    size_t rounded = (size + 15) & ~(size_t)15;

    if (!sandbox->opening || rounded > NURSERY_BYTES - sandbox->nursery_used)
        return sandbox->allocator.alloc(sandbox->allocator.ctx, size);
    block = sandbox->nursery + sandbox->nursery_used;
    sandbox->nursery_used += rounded;
    return block;
}

static void
give_block(rv_sandbox *sandbox, void *block)
{
    if (!in_nursery(sandbox, block))
        sandbox->allocator.free(sandbox->allocator.ctx, block);
}

/* lua_Alloc over an rv_allocator, which has no resize: a block moves when it changes size. Lua
 * relies on shrinking never to fail, so then the old block stays. */
static void *
capped_allocate(void *data, void *block, size_t old_size, size_t new_size)
{
    rv_sandbox *sandbox = data;
    void *moved;

    if (block == NULL)
        old_size = 0;
    if (new_size == 0) {
        if (block != NULL)
            give_block(sandbox, block);
        sandbox->used -= old_size;
        return NULL;
    }
    if (new_size > old_size &&
        (sandbox->used > sandbox->cap || new_size - old_size > sandbox->cap - sandbox->used))
        return NULL;
    moved = take_block(sandbox, new_size);
    if (moved == NULL) {
        if (new_size > old_size)
            return NULL;
        sandbox->used -= old_size - new_size;
        return block;
    }
    if (block != NULL) {
        memcpy(moved, block, old_size < new_size ? old_size : new_size);
        give_block(sandbox, block);
    }
    sandbox->used = sandbox->used - old_size + new_size;
    sandbox->allocated += new_size;
    return moved;
}

static int
panicked(lua_State *L)
{
    longjmp(rv_sandbox_of(L)->panic, 1);
    return 0;
}

/* Once the budget is gone every further charge raises again. */
void
rv_sandbox_charge(lua_State *L, uint64_t instructions)
{
    rv_sandbox *sandbox = rv_sandbox_of(L);

    sandbox->fuel -= (int64_t)instructions;
    if (sandbox->fuel <= 0)
        rv_sandbox_raise(L, RV_HOST_FUEL, 0,
                         "the instruction budget of %llu ran out (ruvector.policy_fuel)",
                         (unsigned long long)sandbox->fuel_given);
    if (rv_clock_ns() > sandbox->deadline_ns)
        rv_sandbox_raise(L, RV_HOST_FUEL, 0,
                         "the call ran longer than the second allowed for each million "
                         "instructions of budget");
}

/* The count hook. */
static void
spend_fuel(lua_State *L, lua_Debug *activation)
{
    (void)activation;
    rv_sandbox_charge(L, (uint64_t)rv_sandbox_of(L)->tick);
}

/* The line where the innermost function of the policy's file stands; 0 when there is none. */
static int
innermost_line(lua_State *L)
{
    lua_Debug activation;

    for (int level = 0; level < 64 && lua_getstack(L, level, &activation); level++) {
        lua_getinfo(L, "Sl", &activation);
        if (activation.currentline > 0 && activation.source[0] == '@')
            return activation.currentline;
    }
    return 0;
}

/* Splits "verdict.lua:12: text" into line and text. Messages without such a start stay whole. */
static const char *
split_position(const char *message, int *line)
{
    const char *colon = strstr(message, ".lua:");
    char *end;
    long number;

    if (colon == NULL || strcspn(message, " \n") < (size_t)(colon - message))
        return message;
    number = strtol(colon + 5, &end, 10);
    if (end == colon + 5 || end[0] != ':' || number <= 0 || number > 1000000)
        return message;
    *line = (int)number;
    return end[1] == ' ' ? end + 2 : end + 1;
}

void
rv_sandbox_note(rv_sandbox *sandbox, const char *message)
{
    message = split_position(message, &sandbox->line);
    snprintf(sandbox->reason, sizeof sandbox->reason, "%s", message);
}

/* Message handler: notes what failed and where while the failing frames still exist. */
static int
note_error(lua_State *L)
{
    rv_sandbox *sandbox = rv_sandbox_of(L);

    if (sandbox->line == 0)
        sandbox->line = innermost_line(L);
    if (sandbox->raised != RV_HOST_OK)
        return 1;
    if (lua_type(L, 1) == LUA_TSTRING)
        rv_sandbox_note(sandbox, lua_tostring(L, 1));
    else
        snprintf(sandbox->reason, sizeof sandbox->reason, "error raised with a %s value",
                 luaL_typename(L, 1));
    return 1;
}

void
rv_sandbox_raise(lua_State *L, rv_host_cause cause, int line, const char *format, ...)
{
    rv_sandbox *sandbox = rv_sandbox_of(L);
    va_list arguments;

    sandbox->raised = cause;
    sandbox->line = line;
    va_start(arguments, format);
    vsnprintf(sandbox->reason, sizeof sandbox->reason, format, arguments);
    va_end(arguments);
    lua_pushnil(L);
    for (;;) /* lua_error does not return; its declaration does not say so */
        lua_error(L);
}

static int
trampoline(lua_State *L)
{
    rv_sandbox *sandbox = rv_sandbox_of(L);

    sandbox->job(L, sandbox->job_data);
    return 0;
}

static rv_host_cause
cause_of(const rv_sandbox *sandbox, int status)
{
    if (status == 0)
        return RV_HOST_OK;
    if (status == LUA_ERRMEM)
        return RV_HOST_MEMORY;
    return sandbox->raised != RV_HOST_OK ? sandbox->raised : RV_HOST_ERROR;
}

/* One protected call; the only function that arms the panic return. */
static int
protected_call(rv_sandbox *sandbox)
{
    lua_State *L = sandbox->L;
    int status;

    if (setjmp(sandbox->panic) != 0) {
        sandbox->broken = true;
        return LUA_ERRERR;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, sandbox->handler);
    lua_rawgeti(L, LUA_REGISTRYINDEX, sandbox->trampoline);
    status = lua_pcall(L, 0, 0, 1);
    lua_settop(L, 0);
    return status;
}

static void
collect(lua_State *L, void *data)
{
    (void)data;
    lua_gc(L, LUA_GCCOLLECT, 0);
}

rv_host_cause
rv_sandbox_run(rv_sandbox *sandbox, uint64_t fuel, rv_job job, void *data)
{
    int64_t seconds = (int64_t)(fuel / 1000000) + 1;
    rv_host_cause cause;

    sandbox->job = job;
    sandbox->job_data = data;
    sandbox->fuel = (int64_t)fuel;
    sandbox->fuel_given = fuel;
    sandbox->started_ns = rv_clock_ns();
    sandbox->deadline_ns = sandbox->started_ns + seconds * 1000000000;
    sandbox->allocated = 0;
    sandbox->raised = RV_HOST_OK;
    sandbox->line = 0;
    sandbox->reason[0] = '\0';
    if (sandbox->broken) {
        snprintf(sandbox->reason, sizeof sandbox->reason, "the Lua state broke in an earlier call");
        return RV_HOST_ERROR;
    }
    lua_sethook(sandbox->L, spend_fuel, LUA_MASKCOUNT, sandbox->tick);
    cause = cause_of(sandbox, protected_call(sandbox));
    if (cause == RV_HOST_MEMORY) {
        if (sandbox->raised == RV_HOST_OK)
            snprintf(sandbox->reason, sizeof sandbox->reason,
                     "the memory cap of %zu bytes was hit (ruvector.policy_memory)", sandbox->cap);
        sandbox->job = collect;
        protected_call(sandbox);
    }
    if (cause != RV_HOST_OK && sandbox->reason[0] == '\0')
        snprintf(sandbox->reason, sizeof sandbox->reason, "an error without a message");
    return cause;
}

static int
open_sandbox(lua_State *L)
{
    rv_sandbox *sandbox = rv_sandbox_of(L);

    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    lua_pushcfunction(L, note_error);
    sandbox->handler = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushcfunction(L, trampoline);
    sandbox->trampoline = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

rv_sandbox *
rv_sandbox_create(const rv_allocator *allocator, size_t cap)
{
    rv_sandbox *sandbox;

    if (cap < NURSERY_BYTES)
        return NULL;
    sandbox = allocator->alloc(allocator->ctx, sizeof *sandbox);
    if (sandbox == NULL)
        return NULL;
    memset(sandbox, 0, sizeof *sandbox);
    sandbox->allocator = *allocator;
    sandbox->cap = cap;
    sandbox->tick = RV_FUEL_TICK;
    sandbox->nursery = allocator->alloc(allocator->ctx, NURSERY_BYTES);
    if (sandbox->nursery != NULL) {
        sandbox->opening = true;
        sandbox->L = lua_newstate(capped_allocate, sandbox);
        sandbox->opening = false;
    }
    if (sandbox->L == NULL) {
        rv_sandbox_destroy(sandbox);
        return NULL;
    }
    lua_atpanic(sandbox->L, panicked);
    if (lua_cpcall(sandbox->L, open_sandbox, NULL) != 0) {
        rv_sandbox_destroy(sandbox);
        return NULL;
    }
    lua_settop(sandbox->L, 0);
    return sandbox;
}

void
rv_sandbox_destroy(rv_sandbox *sandbox)
{
    rv_allocator allocator;

    if (sandbox == NULL)
        return;
    allocator = sandbox->allocator;
    if (sandbox->L != NULL && !sandbox->broken)
        lua_close(sandbox->L);
    if (sandbox->nursery != NULL)
        allocator.free(allocator.ctx, sandbox->nursery);
    allocator.free(allocator.ctx, sandbox);
}
