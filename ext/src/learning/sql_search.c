/*
 * sql_search.c - SQL functions per search: the last one of this session, and what the next one of
 * an index would do; and the helper for functions that return rows.
 */
#include "learning/worker.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "index_api.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_last_query_id);
PG_FUNCTION_INFO_V1(ruv_last_search_row);
PG_FUNCTION_INFO_V1(ruv_get_search_params);

Tuplestorestate *
ruv_begin_rows(FunctionCallInfo fcinfo, TupleDesc *descriptor)
{
    ReturnSetInfo *info = (ReturnSetInfo *)fcinfo->resultinfo;
    MemoryContext former;

    if (info == NULL || !IsA(info, ReturnSetInfo) || !(info->allowedModes & SFRM_Materialize))
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("a function that returns rows was called where rows cannot be "
                               "taken")));
    former = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
    if (get_call_result_type(fcinfo, NULL, descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    info->returnMode = SFRM_Materialize;
    info->setResult =
        tuplestore_begin_heap((info->allowedModes & SFRM_Materialize_Random) != 0, false, work_mem);
    info->setDesc = *descriptor;
    MemoryContextSwitchTo(former);
    return info->setResult;
}

static const char *
mode_name(rv_search_mode mode)
{
    return mode == RV_SEARCH_ADAPTIVE ? "adaptive" : "static";
}

static const char *
stop_name(uint32 reason)
{
    switch ((rv_stop_reason)reason) {
        case RV_STOP_NONE:
            return "caller";
        case RV_STOP_RULE:
            return "rule";
        case RV_STOP_EF:
            return "ef bound";
        case RV_STOP_DISTANCES:
            return "distance bound";
        case RV_STOP_EXHAUSTED:
            return "exhausted";
    }
    return "unknown";
}

/* The last search of this session if the present user may know of it: after SET ROLE, or outside of
 * the SECURITY DEFINER function that made it, it is another's. NULL: none. */
static const RuvLastSearch *
own_last_search(void)
{
    const RuvLastSearch *last = ruv_last_search();

    return last != NULL && has_privs_of_role(GetUserId(), last->user_oid) ? last : NULL;
}

Datum
ruv_last_query_id(PG_FUNCTION_ARGS)
{
    const RuvLastSearch *last = own_last_search();

    if (last == NULL)
        PG_RETURN_NULL();
    return ruv_query_id_datum(last->query_id);
}

/* A figure that may be unknown: negative means null. */
static Datum
known(double value, bool *null)
{
    *null = value < 0;
    return Float8GetDatum(value);
}

#define LAST_SEARCH_COLUMNS 19

Datum
ruv_last_search_row(PG_FUNCTION_ARGS)
{
    const RuvLastSearch *last = own_last_search();
    Datum values[LAST_SEARCH_COLUMNS];
    bool nulls[LAST_SEARCH_COLUMNS] = {false};
    TupleDesc descriptor;
    const RuvChoice *choice;
    int i = 0;

    if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    if (last == NULL)
        PG_RETURN_NULL();
    choice = &last->choice;
    values[i++] = ruv_query_id_datum(last->query_id);
    values[i++] = ObjectIdGetDatum(last->index_oid);
    values[i++] = CStringGetTextDatum(mode_name(choice->mode));
    values[i++] = CStringGetTextDatum(ruv_choice_reason_name(choice->reason));
    values[i++] = Int32GetDatum(choice->ef_search);
    values[i++] = Float8GetDatum(choice->slack);
    values[i++] = Int32GetDatum(choice->window);
    values[i++] = Float8GetDatum(choice->target_recall);
    values[i] = known(choice->expected_recall, &nulls[i]);
    i++;
    values[i++] = Int32GetDatum(choice->patterns_used);
    values[i++] = Int32GetDatum((int32)last->k);
    values[i++] = Int64GetDatum((int64)last->stats.distances);
    values[i++] = Int64GetDatum((int64)last->stats.hops);
    values[i++] = Int64GetDatum((int64)last->pages);
    values[i++] = Int32GetDatum((int32)last->stats.windows);
    values[i++] = CStringGetTextDatum(stop_name(last->stats.reason));
    values[i++] = Float8GetDatum(last->latency_us);
    values[i] = known(last->stats.score, &nulls[i]);
    i++;
    values[i++] = Int32GetDatum(choice->entry_count);
    Assert(i == LAST_SEARCH_COLUMNS);
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}

/* ---- what the next search would do --------------------------------------------------------- */

static void
plan_search(Oid index_oid, Datum query, int k, RuvChoice *choice, int *window, int *windows)
{
    Relation index = relation_open(index_oid, AccessShareLock);
    RuvIndexIdentity identity;
    const float *prepared;

    if (!ruv_is_index(index))
        ereport(ERROR,
                (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                 errmsg("\"%s\" is not an index of ruvector", RelationGetRelationName(index))));
    ruv_require_reader(index->rd_index->indrelid);
    ruv_index_identity(index, &identity);
    prepared = ruv_index_prepare(&identity, query);
    if (prepared == NULL)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("a zero vector has no direction, so it has no cosine distance")));
    ruv_choose(&identity, prepared, (uint32)k, choice);
    ruv_index_windows(index, choice, k, window, windows);
    relation_close(index, AccessShareLock);
}

static double
bank_confidence(Oid index_oid)
{
    RuvIndexCache *cache = ruv_index_cache(index_oid);
    const rv_pattern *pattern;
    double confidence;

    if (cache == NULL || cache->slot == NULL || !ruv_fetch_bank(cache))
        return -1;
    pattern = rv_bank_flat_index_pattern(cache->bank);
    confidence = pattern == NULL ? -1 : pattern->confidence;
    ruv_release_bank(cache);
    return confidence;
}

#define SEARCH_PARAMS_COLUMNS 12

Datum
ruv_get_search_params(PG_FUNCTION_ARGS)
{
    Oid index_oid = PG_GETARG_OID(0);
    int k = PG_GETARG_INT32(2);
    Datum values[SEARCH_PARAMS_COLUMNS];
    bool nulls[SEARCH_PARAMS_COLUMNS] = {false};
    TupleDesc descriptor;
    RuvChoice choice;
    int window;
    int windows;
    bool adaptive;
    int i = 0;

    if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    if (k < 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("k is %d; it must be at least 1", k)));
    plan_search(index_oid, PG_GETARG_DATUM(1), k, &choice, &window, &windows);
    adaptive = choice.mode == RV_SEARCH_ADAPTIVE;
    values[i++] = CStringGetTextDatum(mode_name(choice.mode));
    values[i++] = CStringGetTextDatum(ruv_choice_reason_name(choice.reason));
    values[i++] = Int32GetDatum(choice.ef_search);
    values[i++] = Float8GetDatum(choice.slack);
    values[i++] = Int32GetDatum(choice.probes);
    values[i++] = Int32GetDatum(window);
    values[i++] = Int32GetDatum(windows);
    values[i++] = Float8GetDatum(choice.target_recall);
    values[i] = known(choice.expected_recall, &nulls[i]);
    i++;
    values[i] = known(adaptive ? bank_confidence(index_oid) : -1, &nulls[i]);
    i++;
    values[i++] = Int32GetDatum(choice.patterns_used);
    values[i] = Int64GetDatum((int64)choice.max_distances);
    nulls[i++] = choice.max_distances == 0;
    Assert(i == SEARCH_PARAMS_COLUMNS);
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}
