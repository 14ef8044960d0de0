/*
 * environment.c - what a policy sees: an allow-list of names, nothing else.
 *
 * Every policy gets an environment of its own. It is an empty table whose missing names are looked
 * up in a table of allowed ones, so that
 *   reading a name that is not allowed, and assigning any global, is an error with that name;
 *   nothing allowed can be replaced, and one policy cannot see what another did.
 * Libraries (math, string, table) are read-only views made the same way.
 *
 * Left out, and why:
 *   pcall, xpcall, coroutine    could swallow or outlive the stop of the budget
 *   load, loadstring, dofile, loadfile, module            code from elsewhere
 *   io, os, package, ffi, jit, debug, print               the world outside
 *   getmetatable, setmetatable, rawget, rawset, rawequal, newproxy, getfenv, setfenv
 *                               ways around the views; finalizers
 *   collectgarbage, gcinfo      the host's business
 *   math.random, math.randomseed   a policy gives equal results for equal arguments
 *   string.find, match, gmatch, gsub, dump   patterns backtrack inside C, out of the budget's reach
 * Strings have no methods: ("x"):upper() would reach all of the string library.
 *
 * Five functions are the host's versions. require: Lua's loads code; this one knows the modules of
 * library.c and nothing else. format and tostring: Lua's show the addresses of tables and
 * functions. table.insert and table.sort: Lua's can stay in C, out of the budget's reach, for as
 * long as a policy likes (a position of -2^31; numbers in an order that makes quicksort quadratic).
 */
#include <string.h>

#include "host/internal.h"

static const char *const base_names[] = {"assert", "error",  "ipairs",   "next", "pairs",
                                         "select", "unpack", "tonumber", "type", NULL};

static const char *const math_names[] = {
    "abs",   "acos", "asin",  "atan", "atan2", "ceil", "cos",   "cosh", "deg", "exp",
    "floor", "fmod", "frexp", "huge", "ldexp", "log",  "log10", "max",  "min", "modf",
    "pi",    "pow",  "rad",   "sin",  "sinh",  "sqrt", "tan",   "tanh", NULL};

static const char *const string_names[] = {"byte",    "char", "len",   "lower", "rep",
                                           "reverse", "sub",  "upper", NULL};

static const char *const table_names[] = {"concat", "maxn", "remove", NULL};

/* __index of a view's backing table: upvalue 1 says what the table is, e.g. "math.". */
static int
missing_name(lua_State *L)
{
    const char *prefix = lua_tostring(L, lua_upvalueindex(1));
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2);

    return luaL_error(L, "'%s%s' is not defined or not available to policies", prefix, name);
}

static int
refuse_assignment(lua_State *L)
{
    const char *prefix = lua_tostring(L, lua_upvalueindex(1));
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2);

    if (prefix[0] == '\0')
        return luaL_error(L, "assignment to global '%s'; declare it local", name);
    return luaL_error(L, "assignment to read-only '%s%s'", prefix, name);
}

void
rv_readonly(lua_State *L, const char *what)
{
    lua_newtable(L); /* metatable of the backing table: undefined names */
    lua_pushstring(L, what);
    lua_pushcclosure(L, missing_name, 1);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);

    lua_newtable(L); /* the view and its metatable */
    lua_newtable(L);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, what);
    lua_pushcclosure(L, refuse_assignment, 1);
    lua_setfield(L, -2, "__newindex");
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
}

static void
check_printable(lua_State *L, int index)
{
    int type = lua_type(L, index);

    if (type != LUA_TNUMBER && type != LUA_TSTRING && type != LUA_TBOOLEAN && type != LUA_TNIL)
        luaL_error(L, "a %s cannot be shown as text", lua_typename(L, type));
}

/* tostring for numbers, strings, booleans and nil; upvalue 1 is Lua's. */
static int
safe_tostring(lua_State *L)
{
    luaL_checkany(L, 1);
    check_printable(L, 1);
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* string.format without %p and without values that have an address; upvalue 1 is Lua's. */
static int
safe_format(lua_State *L)
{
    const char *text = luaL_checkstring(L, 1);
    int count = lua_gettop(L);

    for (const char *at = strchr(text, '%'); at != NULL; at = strchr(at, '%')) {
        at += 1 + strspn(at + 1, "-+ #0123456789.");
        if (*at == 'p')
            return luaL_error(L, "%%p is not available to policies");
        if (*at != '\0')
            at++;
    }
    for (int i = 2; i <= count; i++)
        check_printable(L, i);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, count, 1);
    return 1;
}

/* field of the table on top = wrapper, with the original of the library table as upvalue. */
static void
wrap(lua_State *L, int library, const char *field, lua_CFunction wrapper)
{
    lua_getfield(L, library, field);
    lua_pushcclosure(L, wrapper, 1);
    lua_setfield(L, -2, field);
}

/* table.insert with a position that lies in the table; upvalue 1 is Lua's. */
static int
safe_insert(lua_State *L)
{
    int count = lua_gettop(L);

    luaL_checktype(L, 1, LUA_TTABLE);
    if (count == 3) {
        lua_Number position = luaL_checknumber(L, 2);

        if (!(position >= 1 && position <= (lua_Number)lua_objlen(L, 1) + 1))
            return luaL_argerror(L, 2, "position out of bounds");
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, count, 0);
    return 0;
}

/* table.sort that compares in Lua, where the budget counts; upvalue 1 is Lua's, 2 compares. */
static int
safe_sort(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    if (lua_isnil(L, 2)) {
        lua_pushvalue(L, lua_upvalueindex(2));
        lua_replace(L, 2);
    }
    luaL_checktype(L, 2, LUA_TFUNCTION);
    if (lua_iscfunction(L, 2))
        return luaL_argerror(L, 2, "a comparator must be written in Lua");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 2, 0);
    return 0;
}

/* Adds insert and sort to the table on top. */
static void
wrap_table_functions(lua_State *L, int library)
{
    static const char less[] = "return function(a, b) return a < b end";

    wrap(L, library, "insert", safe_insert);
    lua_getfield(L, library, "sort");
    if (luaL_loadbuffer(L, less, sizeof less - 1, "=sort") != 0)
        rv_sandbox_raise(L, RV_HOST_MEMORY, 0, "no memory for a policy's environment");
    lua_call(L, 0, 1);
    lua_pushcclosure(L, safe_sort, 2);
    lua_setfield(L, -2, "sort");
}

/* Copies the listed fields of the table at from into the table on top. */
static void
copy_names(lua_State *L, int from, const char *const *names)
{
    for (; *names != NULL; names++) {
        lua_getfield(L, from, *names);
        lua_setfield(L, -2, *names);
    }
}

static void
open_library(lua_State *L, lua_CFunction open, const char *name)
{
    lua_pushcfunction(L, open);
    lua_pushstring(L, name);
    lua_call(L, 1, 0);
}

/* allowed[name] = read-only view of the listed fields of the global library. */
static void
add_library(lua_State *L, const char *name, const char *const *names, const char *prefix)
{
    int library;

    lua_getfield(L, LUA_GLOBALSINDEX, name);
    library = lua_gettop(L);
    lua_newtable(L);
    copy_names(L, library, names);
    if (names == string_names)
        wrap(L, library, "format", safe_format);
    if (names == table_names)
        wrap_table_functions(L, library);
    rv_readonly(L, prefix);
    lua_remove(L, library);
    lua_setfield(L, -2, name);
}

void
rv_environment_push(lua_State *L)
{
    luaL_checkstack(L, 16, "environment");
    open_library(L, luaopen_base, "");
    open_library(L, luaopen_math, LUA_MATHLIBNAME);
    open_library(L, luaopen_table, LUA_TABLIBNAME);
    open_library(L, luaopen_string, LUA_STRLIBNAME);

    lua_pushliteral(L, ""); /* strings lose their methods */
    lua_pushnil(L);
    lua_setmetatable(L, -2);
    lua_pop(L, 1);

    lua_newtable(L);
    copy_names(L, LUA_GLOBALSINDEX, base_names);
    wrap(L, LUA_GLOBALSINDEX, "tostring", safe_tostring);
    if (rv_sandbox_of(L)->require != 0) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, rv_sandbox_of(L)->require);
        lua_setfield(L, -2, "require");
    }
    add_library(L, LUA_MATHLIBNAME, math_names, "math.");
    add_library(L, LUA_STRLIBNAME, string_names, "string.");
    add_library(L, LUA_TABLIBNAME, table_names, "table.");
    rv_readonly(L, "");
}
