/*
 * kernels.c - the functions that distillation.lua may call: batch.c behind checked arguments.
 *
 * A kernel owns nothing when it raises: what batch.c allocates belongs to the batch, which
 * rv_host_distill frees whatever happens. Kernels work only while distill runs, on its samples.
 */
#include <math.h>

#include "host/internal.h"

#define MAX_ITERATIONS 100

static rv_batch *
current_batch(lua_State *L)
{
    rv_batch *batch = rv_sandbox_of(L)->batch;

    if (batch == NULL)
        luaL_error(L, "kernels can be called only while distill runs");
    return batch;
}

static void
check(lua_State *L, rv_status status, const rv_error *err)
{
    if (status == RV_ERR_CANCELLED)
        rv_sandbox_raise(L, RV_HOST_FUEL, 0, "a kernel ran out of the call's time");
    if (status == RV_ERR_NOMEM)
        rv_sandbox_raise(L, RV_HOST_MEMORY, 0, "a kernel ran out of memory");
    if (status != RV_OK)
        luaL_error(L, "%s", err->message);
}

static double
number_argument(lua_State *L, int index, double low, double high)
{
    double value;

    if (lua_type(L, index) != LUA_TNUMBER)
        luaL_typerror(L, index, "number");
    value = lua_tonumber(L, index);
    if (!(value >= low && value <= high))
        luaL_argerror(L, index, lua_pushfstring(L, "%f is not from %f to %f", value, low, high));
    return value;
}

/* An optional cluster number; nothing means all samples. */
static uint32_t
group_argument(lua_State *L, const rv_batch *batch, int index)
{
    double value;

    if (lua_isnoneornil(L, index))
        return 0;
    value = number_argument(L, index, 1, batch->clusters);
    if (value != floor(value))
        luaL_argerror(L, index, "a cluster's number is whole");
    return (uint32_t)value;
}

static double *
array_argument(lua_State *L, int index, uint32_t count)
{
    double *values;

    luaL_checktype(L, index, LUA_TTABLE);
    if (lua_objlen(L, index) != count)
        luaL_argerror(L, index,
                      lua_pushfstring(L, "%d entries; %d are expected", (int)lua_objlen(L, index),
                                      (int)count));
    values = lua_newuserdata(L, (count ? count : 1) * sizeof *values);
    for (uint32_t i = 0; i < count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        values[i] = lua_tonumber(L, -1);
        if (lua_type(L, -1) != LUA_TNUMBER || !(values[i] >= 0 && values[i] <= 1e12))
            luaL_argerror(
                L, index,
                lua_pushfstring(L, "entry %d must be a number from 0 to 1e12", (int)i + 1));
        lua_pop(L, 1);
    }
    return values;
}

/* weigh(weights): how much each sample counts; 0 leaves it out. */
static int
kernel_weigh(lua_State *L)
{
    rv_batch *batch = current_batch(L);

    rv_batch_weigh(batch, array_argument(L, 1, batch->in->sample_count));
    return 0;
}

/* sizes() -> { samples that count in cluster 1, ... } */
static int
kernel_sizes(lua_State *L)
{
    rv_batch *batch = current_batch(L);

    lua_createtable(L, (int)batch->clusters, 0);
    for (uint32_t c = 1; c <= batch->clusters; c++) {
        lua_pushnumber(L, rv_batch_size(batch, c));
        lua_rawseti(L, -2, (int)c);
    }
    return 1;
}

/* kmeans(clusters, iterations) -> the sizes of the clusters made, at most as many as asked for */
static int
kernel_kmeans(lua_State *L)
{
    rv_batch *batch = current_batch(L);
    double clusters = number_argument(L, 1, 1, RV_MAX_CLUSTERS);
    double iterations = number_argument(L, 2, 1, MAX_ITERATIONS);
    rv_error err;

    check(L,
          rv_batch_cluster(batch, (uint32_t)clusters, (uint32_t)iterations,
                           rv_sandbox_of(L)->deadline_ns, &err),
          &err);
    return kernel_sizes(L);
}

static int
quantile(lua_State *L, rv_effort_kind kind)
{
    rv_batch *batch = current_batch(L);
    double target = number_argument(L, 1, 0, 1), value;
    rv_error err;

    check(L, rv_batch_quantile(batch, kind, group_argument(L, batch, 2), target, &value, &err),
          &err);
    lua_pushnumber(L, value);
    return 1;
}

/* slack_quantile(target [, cluster]) -> slack, math.huge when out of reach */
static int
kernel_slack_quantile(lua_State *L)
{
    return quantile(L, RV_NEED_SLACK);
}

/* ef_quantile(target [, cluster]) -> ef */
static int
kernel_ef_quantile(lua_State *L)
{
    return quantile(L, RV_NEED_EF);
}

static int
highest(lua_State *L, rv_effort_kind kind)
{
    rv_batch *batch = current_batch(L);
    double value;
    rv_error err;

    check(L, rv_batch_highest(batch, kind, group_argument(L, batch, 1), &value, &err), &err);
    lua_pushnumber(L, value);
    return 1;
}

/* highest_slack([cluster]) -> the largest slack that found anything */
static int
kernel_highest_slack(lua_State *L)
{
    return highest(L, RV_NEED_SLACK);
}

/* highest_ef([cluster]) -> the largest ef that found anything */
static int
kernel_highest_ef(lua_State *L)
{
    return highest(L, RV_NEED_EF);
}

static int
push_mean(lua_State *L, double mean, double error)
{
    lua_pushnumber(L, mean);
    lua_pushnumber(L, error);
    return 2;
}

/* recall_at(slack [, cluster]) -> mean recall, its standard error */
static int
kernel_recall_at(lua_State *L)
{
    rv_batch *batch = current_batch(L);
    double slack = number_argument(L, 1, 0, HUGE_VAL), mean, error;

    rv_batch_recall(batch, group_argument(L, batch, 2), slack, &mean, &error);
    return push_mean(L, mean, error);
}

/* recall_by_cluster({ slack of cluster 1, ... }) -> mean recall of all, its standard error */
static int
kernel_recall_by_cluster(lua_State *L)
{
    rv_batch *batch = current_batch(L);
    double mean, error;

    if (batch->clusters == 0)
        return luaL_error(L, "recall_by_cluster needs kmeans to be called first");
    rv_batch_recall_by_cluster(batch, array_argument(L, 1, batch->clusters), &mean, &error);
    return push_mean(L, mean, error);
}

/* distances_at(slack [, cluster]) -> mean distance computations */
static int
kernel_distances_at(lua_State *L)
{
    rv_batch *batch = current_batch(L);
    double slack = number_argument(L, 1, 0, HUGE_VAL);

    lua_pushnumber(L, rv_batch_distances(batch, group_argument(L, batch, 2), slack));
    return 1;
}

static int
push_work(lua_State *L, double work)
{
    if (work >= 0)
        lua_pushnumber(L, work);
    else
        lua_pushnil(L);
    return 1;
}

/* work_at(slack [, cluster]) -> mean distance computations of searches that stop by it; nil when
 * not known */
static int
kernel_work_at(lua_State *L)
{
    rv_batch *batch = current_batch(L);
    double slack = number_argument(L, 1, 0, HUGE_VAL);

    return push_work(L, rv_batch_work(batch, group_argument(L, batch, 2), slack));
}

/* work_by_cluster({ slack of cluster 1, ... }) -> the same over all, each at its own cluster's */
static int
kernel_work_by_cluster(lua_State *L)
{
    rv_batch *batch = current_batch(L);

    if (batch->clusters == 0)
        return luaL_error(L, "work_by_cluster needs kmeans to be called first");
    return push_work(L, rv_batch_work_by_cluster(batch, array_argument(L, 1, batch->clusters)));
}

/* isotonic(values) -> the nearest values that never fall */
static int
kernel_isotonic(lua_State *L)
{
    rv_batch *batch = current_batch(L);
    uint32_t count;
    double *values;
    rv_error err;

    luaL_checktype(L, 1, LUA_TTABLE);
    count = (uint32_t)lua_objlen(L, 1);
    values = array_argument(L, 1, count);
    if (count > 0)
        check(L, rv_isotonic(&batch->allocator, values, NULL, count, values, &err), &err);
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 0; i < count; i++) {
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

void
rv_kernels_push(lua_State *L)
{
    static const struct {
        const char *name;
        lua_CFunction function;
    } kernels[] = {{"weigh", kernel_weigh},
                   {"kmeans", kernel_kmeans},
                   {"sizes", kernel_sizes},
                   {"slack_quantile", kernel_slack_quantile},
                   {"ef_quantile", kernel_ef_quantile},
                   {"highest_slack", kernel_highest_slack},
                   {"highest_ef", kernel_highest_ef},
                   {"recall_at", kernel_recall_at},
                   {"recall_by_cluster", kernel_recall_by_cluster},
                   {"distances_at", kernel_distances_at},
                   {"work_at", kernel_work_at},
                   {"work_by_cluster", kernel_work_by_cluster},
                   {"isotonic", kernel_isotonic}};

    lua_createtable(L, 0, 20);
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        lua_pushcfunction(L, kernels[i].function);
        lua_setfield(L, -2, kernels[i].name);
    }
    rv_readonly(L, "kernels.");
}
