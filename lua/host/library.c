/*
 * library.c - what a policy may require.
 *
 *   ruvector.policy    arithmetic written in Lua (lua/library/policy.lua, compiled in)
 *   ruvector.kernels   the engine's statistics, below
 *
 * Both are made once for each Lua state and handed out as read-only views. They hold no state, so
 * that sharing them between policies lets nothing pass from one to another. What a kernel does in C
 * is charged to the instruction budget by the number of values, since no hook runs meanwhile.
 */
#include <math.h>
#include <string.h>

#include "host/internal.h"
#include "host/policy_library.h"

#define MAX_VALUES 1000000

/* ---- kernels ------------------------------------------------------------------------------- */

static double
number_argument(lua_State *L, int index, double low, double high)
{
    double value;

    luaL_checktype(L, index, LUA_TNUMBER);
    value = lua_tonumber(L, index);
    if (!(value >= low && value <= high))
        luaL_argerror(L, index, lua_pushfstring(L, "%f is not from %f to %f", value, low, high));
    return value;
}

/* A copy of the numbers at index, collected with the call's garbage. */
static double *
numbers_argument(lua_State *L, int index, size_t count, double low)
{
    double *values = lua_newuserdata(L, sizeof(double) * (count > 0 ? count : 1));

    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        if (lua_type(L, -1) != LUA_TNUMBER || !isfinite(lua_tonumber(L, -1)) ||
            lua_tonumber(L, -1) < low)
            luaL_argerror(L, index,
                          lua_pushfstring(L, "entry %d is not a finite number%s", (int)i + 1,
                                          low == 0 ? " of at least 0" : ""));
        values[i] = lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    return values;
}

static size_t
count_argument(lua_State *L, int index)
{
    size_t count;

    luaL_checktype(L, index, LUA_TTABLE);
    count = lua_objlen(L, index);
    if (count == 0 || count > MAX_VALUES)
        luaL_argerror(L, index,
                      lua_pushfstring(L, "%d numbers; 1 to %d are taken", (int)count, MAX_VALUES));
    rv_sandbox_charge(L, count);
    return count;
}

/* The weights at index, or NULL when there are none. */
static double *
weights_argument(lua_State *L, int index, size_t count)
{
    if (lua_isnoneornil(L, index))
        return NULL;
    luaL_checktype(L, index, LUA_TTABLE);
    if (lua_objlen(L, index) != count)
        luaL_argerror(
            L, index,
            lua_pushfstring(L, "%d weights for %d values", (int)lua_objlen(L, index), (int)count));
    return numbers_argument(L, index, count, 0);
}

static void
check(lua_State *L, rv_status status, const rv_error *err)
{
    if (status != RV_OK)
        luaL_error(L, "%s", err->message);
}

/* isotonic(values [, weights]) -> the nearest values that never fall */
static int
kernel_isotonic(lua_State *L)
{
    size_t count = count_argument(L, 1);
    double *values, *weights;
    rv_error err;

    lua_settop(L, 2);
    values = numbers_argument(L, 1, count, -HUGE_VAL);
    weights = weights_argument(L, 2, count);
    check(L, rv_isotonic(&rv_sandbox_of(L)->allocator, values, weights, count, values, &err), &err);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* quantile(values, share [, weights]) -> the least value with that share of the weight up to it */
static int
kernel_quantile(lua_State *L)
{
    size_t count = count_argument(L, 1);
    double share = number_argument(L, 2, 0, 1);
    double *values, *weights, result;
    rv_error err;

    lua_settop(L, 3);
    values = numbers_argument(L, 1, count, -HUGE_VAL);
    weights = weights_argument(L, 3, count);
    check(L, rv_quantile(values, weights, count, share, &result, &err), &err);
    lua_pushnumber(L, result);
    return 1;
}

static int
push_interval(lua_State *L, rv_interval (*interval)(double, double, double))
{
    double trials = number_argument(L, 2, 0, 1e15);
    double successes = number_argument(L, 1, 0, trials);
    double confidence = lua_isnoneornil(L, 3) ? 0.95 : number_argument(L, 3, 1e-9, 1 - 1e-9);
    rv_interval result = interval(successes, trials, confidence);

    lua_pushnumber(L, result.low);
    lua_pushnumber(L, result.high);
    return 2;
}

/* wilson(successes, trials [, confidence]) -> low, high: Wilson's score interval of a share */
static int
kernel_wilson(lua_State *L)
{
    return push_interval(L, rv_wilson_interval);
}

/* clopper_pearson(successes, trials [, confidence]) -> low, high: the exact interval of a share */
static int
kernel_clopper_pearson(lua_State *L)
{
    return push_interval(L, rv_clopper_pearson_interval);
}

static void
push_kernels(lua_State *L)
{
    static const luaL_Reg kernels[] = {{"isotonic", kernel_isotonic},
                                       {"quantile", kernel_quantile},
                                       {"wilson", kernel_wilson},
                                       {"clopper_pearson", kernel_clopper_pearson}};

    lua_createtable(L, 0, 4);
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        lua_pushcfunction(L, kernels[i].func);
        lua_setfield(L, -2, kernels[i].name);
    }
    rv_readonly(L, "ruvector.kernels.");
}

/* ---- require ------------------------------------------------------------------------------- */

/* Upvalue 1: the modules by name. */
static int
require_module(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    lua_settop(L, 1);
    lua_pushvalue(L, 1);
    lua_rawget(L, lua_upvalueindex(1));
    if (lua_isnil(L, -1))
        return luaL_error(L,
                          "there is no module '%s'; policies may require 'ruvector.policy' and "
                          "'ruvector.kernels'",
                          lua_tostring(L, 1));
    return 1;
}

void
rv_library_open(lua_State *L, void *data)
{
    rv_sandbox *sandbox = rv_sandbox_of(L);

    (void)data;
    lua_newtable(L);
    push_kernels(L);
    lua_setfield(L, -2, "ruvector.kernels");
    if (luaL_loadbufferx(L, policy_library, sizeof policy_library, "=ruvector.policy", "t") != 0)
        rv_sandbox_raise(L, RV_HOST_MEMORY, 0, "no memory for the policies' library");
    rv_environment_push(L);
    lua_setfenv(L, -2);
    lua_call(L, 0, 1);
    rv_readonly(L, "ruvector.policy.");
    lua_setfield(L, -2, "ruvector.policy");
    lua_pushcclosure(L, require_module, 1);
    sandbox->require = luaL_ref(L, LUA_REGISTRYINDEX);
}
