/*
 * selection.c - which of two indexes on a column: arguments and result of policies/selection.lua,
 * and the built-in, which mirrors that file's rules.
 *
 * Called while a query is planned, and only where a column has both kinds of index.
 */
#include <math.h>

#include "host/internal.h"

#define MIN_SEARCHES 20
#define SHORTFALL_STEP 0.01
#define SHORTFALL_FACTOR 1.3
#define LEAST_COST 1e-9
#define MOST_COST 1e18

/* ---- the policy --------------------------------------------------------------------------- */

typedef struct predict_call {
    const rv_policy *policy;
    const rv_selection_input *in;
    rv_selection out;
} predict_call;

static void
push_index(lua_State *L, const char *name, const rv_selection_index *index)
{
    lua_createtable(L, 0, 5);
    rv_set_number(L, "cost", index->cost);
    rv_set_signal(L, "searches", index->searches);
    rv_set_signal(L, "latency_us", index->latency_us);
    rv_set_signal(L, "distances", index->distances);
    rv_set_signal(L, "recall", index->recall);
    lua_setfield(L, -2, name);
}

static void
predict_by_policy(lua_State *L, void *data)
{
    static const char *const fields[] = {"hnsw", "ivfflat", NULL};
    predict_call *call = data;
    const rv_selection_input *in = call->in;
    rv_origin origin = {call->policy, RV_POLICY_SELECTION, 0};

    lua_rawgeti(L, LUA_REGISTRYINDEX, call->policy->functions[0]);
    lua_createtable(L, 0, 7);
    rv_set_number(L, "k", in->k);
    rv_set_number(L, "limit", in->limit);
    rv_set_number(L, "rows", in->rows);
    rv_set_number(L, "selectivity", in->selectivity);
    rv_set_number(L, "target_recall", in->target_recall);
    push_index(L, "hnsw", &in->hnsw);
    push_index(L, "ivfflat", &in->ivfflat);
    rv_call_for_table(L, &origin, 1);
    call->out.hnsw = rv_get_number(L, &origin, 1, "", "hnsw", LEAST_COST, MOST_COST);
    call->out.ivfflat = rv_get_number(L, &origin, 1, "", "ivfflat", LEAST_COST, MOST_COST);
    rv_only_fields(L, &origin, 1, "", fields);
}

/* ---- the built-in ------------------------------------------------------------------------- */

static bool
measured(const rv_selection_index *index)
{
    return index->searches >= MIN_SEARCHES && index->latency_us > 0;
}

static double
predicted(const rv_selection_index *index, bool by_time, bool by_recall, double target)
{
    double cost = by_time ? index->latency_us : index->cost;
    double shortfall = by_recall ? fmax(target - index->recall, 0) : 0;

    return rv_clamp(cost * pow(SHORTFALL_FACTOR, shortfall / SHORTFALL_STEP), LEAST_COST,
                    MOST_COST);
}

static void
predict_built_in(const rv_selection_input *in, rv_selection *out)
{
    bool by_time = measured(&in->hnsw) && measured(&in->ivfflat);
    bool by_recall = in->hnsw.recall >= 0 && in->ivfflat.recall >= 0;

    out->hnsw = predicted(&in->hnsw, by_time, by_recall, in->target_recall);
    out->ivfflat = predicted(&in->ivfflat, by_time, by_recall, in->target_recall);
}

rv_host_cause
rv_host_predict(rv_host *host, const rv_selection_input *in, rv_selection *out,
                rv_host_failure *failure)
{
    predict_call call = {.in = in};
    rv_host_cause cause;

    if (host->serving != NULL)
        call.policy = &host->serving->policies[RV_POLICY_SELECTION];
    cause = rv_gateway_call(host, RV_POLICY_SELECTION, predict_by_policy, &call, failure);
    if (cause == RV_HOST_OK)
        *out = call.out;
    else
        predict_built_in(in, out);
    return cause;
}
