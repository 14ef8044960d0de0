/*
 * marshal.c - numbers into tables, and tables into checked numbers.
 *
 * What comes back from a policy is believed only after its type and range were checked. A failure
 * names the policy's function, the field, the value and what was expected, and points at the line
 * where the function is defined. No metatable can exist on a policy's table, so reading a field
 * never runs code.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "host/internal.h"

double
rv_clamp(double value, double low, double high)
{
    return !(value >= low) ? low : value > high ? high : value;
}

void
rv_set_number(lua_State *L, const char *field, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, field);
}

void
rv_set_signal(lua_State *L, const char *field, double value)
{
    if (value >= 0)
        lua_pushnumber(L, value);
    else
        lua_pushnil(L);
    lua_setfield(L, -2, field);
}

void
rv_set_floats(lua_State *L, const char *field, const float *values, uint32_t count)
{
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 0; i < count; i++) {
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, field);
}

void
rv_shape(lua_State *L, const rv_origin *origin, const char *format, ...)
{
    char text[400];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    rv_sandbox_raise(L, RV_HOST_SHAPE, origin->policy->lines[origin->which], "%s.%s returned %s",
                     origin->policy->id, rv_policy_function_name(origin->kind, origin->which),
                     text);
}

/* The value at index as it should appear in a message. */
static void
describe(lua_State *L, int index, char *text, size_t size)
{
    size_t length;
    const char *string;

    switch (lua_type(L, index)) {
        case LUA_TNUMBER:
            snprintf(text, size, "%.9g", lua_tonumber(L, index));
            break;
        case LUA_TSTRING:
            string = lua_tolstring(L, index, &length);
            snprintf(text, size, "the string \"%.40s%s\"", string, length > 40 ? "..." : "");
            break;
        case LUA_TBOOLEAN:
            snprintf(text, size, "%s", lua_toboolean(L, index) ? "true" : "false");
            break;
        case LUA_TNIL:
            snprintf(text, size, "nothing");
            break;
        default:
            snprintf(text, size, "a %s", luaL_typename(L, index));
    }
}

void
rv_call_for_table(lua_State *L, const rv_origin *origin, int nargs)
{
    char value[96];

    lua_call(L, nargs, 1);
    if (lua_istable(L, -1))
        return;
    describe(L, -1, value, sizeof value);
    rv_shape(L, origin, "%s; a table is expected", value);
}

static double
get_number(lua_State *L, const rv_origin *origin, int index, const char *path, const char *field,
           double low, double high, bool whole)
{
    double number = 0;
    bool valid;
    char value[96];

    lua_getfield(L, index, field);
    valid = lua_type(L, -1) == LUA_TNUMBER;
    if (valid) {
        number = lua_tonumber(L, -1);
        valid = number >= low && number <= high && (!whole || number == floor(number));
    }
    if (!valid) {
        describe(L, -1, value, sizeof value);
        rv_shape(L, origin, "%s%s = %s; a%s number from %.9g to %.9g is expected", path, field,
                 value, whole ? " whole" : "", low, high);
    }
    lua_pop(L, 1);
    return number;
}

double
rv_get_number(lua_State *L, const rv_origin *origin, int index, const char *path, const char *field,
              double low, double high)
{
    return get_number(L, origin, index, path, field, low, high, false);
}

double
rv_get_integer(lua_State *L, const rv_origin *origin, int index, const char *path,
               const char *field, double low, double high)
{
    return get_number(L, origin, index, path, field, low, high, true);
}

bool
rv_get_boolean(lua_State *L, const rv_origin *origin, int index, const char *path,
               const char *field)
{
    bool result;
    char value[96];

    lua_getfield(L, index, field);
    if (lua_type(L, -1) != LUA_TBOOLEAN) {
        describe(L, -1, value, sizeof value);
        rv_shape(L, origin, "%s%s = %s; true or false is expected", path, field, value);
    }
    result = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return result;
}

void
rv_get_rising(lua_State *L, const rv_origin *origin, int index, const char *path, const char *field,
              uint32_t count, double low, double high, double *out)
{
    char value[96];

    lua_getfield(L, index, field);
    if (!lua_istable(L, -1)) {
        describe(L, -1, value, sizeof value);
        rv_shape(L, origin, "%s%s = %s; a table of %u numbers is expected", path, field, value,
                 (unsigned)count);
    }
    if (lua_objlen(L, -1) != count)
        rv_shape(L, origin, "%s%s with %zu entries; %u numbers are expected", path, field,
                 lua_objlen(L, -1), (unsigned)count);
    for (uint32_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        if (lua_type(L, -1) != LUA_TNUMBER ||
            !(lua_tonumber(L, -1) >= low && lua_tonumber(L, -1) <= high)) {
            describe(L, -1, value, sizeof value);
            rv_shape(L, origin, "%s%s[%u] = %s; a number from %.9g to %.9g is expected", path,
                     field, (unsigned)i + 1, value, low, high);
        }
        out[i] = lua_tonumber(L, -1);
        if (i > 0 && out[i] < out[i - 1])
            rv_shape(L, origin,
                     "%s%s[%u] = %.9g, less than %.9g before it; the entries must not "
                     "fall",
                     path, field, (unsigned)i + 1, out[i], out[i - 1]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void
rv_only_fields(lua_State *L, const rv_origin *origin, int index, const char *path,
               const char *const *fields)
{
    char value[96];

    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        const char *const *known = fields;

        if (lua_type(L, -2) == LUA_TSTRING)
            while (*known != NULL && strcmp(*known, lua_tostring(L, -2)) != 0)
                known++;
        else
            known = NULL;
        if (known == NULL || *known == NULL) {
            describe(L, -2, value, sizeof value);
            rv_shape(L, origin, "%san unknown field, %s", path, value);
        }
        lua_pop(L, 1);
    }
}

void
rv_pattern_headline(rv_pattern *pattern)
{
    /* (double)0.98f is a little more than the row 0.98 of the table: round to what was declared */
    double target = round((double)pattern->target_recall * 1e6) / 1e6;

    pattern->slack = rv_pattern_slack_at(pattern, target);
    pattern->optimal_ef_search = rv_pattern_ef_at(pattern, target);
    pattern->expected_recall = rv_pattern_recall_at(pattern, target);
}
