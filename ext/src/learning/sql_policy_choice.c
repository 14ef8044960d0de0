/*
 * sql_policy_choice.c - SQL functions that choose policies: for a table, in the shadow, into
 * service and back.
 *
 * A choice is a row without an end in ruvector_policy_choices; a change ends it and adds another,
 * so the table is the history. `since` is when a policy first came into service: going back adds a
 * row with the former `since` again, so that going back twice goes back two steps and not to and
 * fro.
 *
 * Who may: a table's owner chooses for the table; what serves the whole database is for superusers,
 * and whoever they grant EXECUTE to. The files themselves can only be put there by whoever may
 * write to ruvector.policy_directory, which superusers set.
 */
#include "learning/worker.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_set_policy);
PG_FUNCTION_INFO_V1(ruv_shadow_policy);
PG_FUNCTION_INFO_V1(ruv_promote_policy);
PG_FUNCTION_INFO_V1(ruv_rollback_policy);
PG_FUNCTION_INFO_V1(ruv_shadow_report);

/* What a choice is about. */
typedef struct Scope {
    rv_policy_kind kind;
    Oid table_oid; /* InvalidOid: the whole database */
} Scope;

static const char *
scope_text(const Scope *scope)
{
    return OidIsValid(scope->table_oid)
               ? psprintf("for table \"%s\"", get_rel_name(scope->table_oid))
               : "for the whole database";
}

/* ---- arguments ------------------------------------------------------------------------------ */

static rv_policy_kind
kind_argument(FunctionCallInfo fcinfo, int number)
{
    char *name;
    int kind;
    StringInfoData known;

    if (PG_ARGISNULL(number))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("kind must not be null")));
    name = text_to_cstring(PG_GETARG_TEXT_PP(number));
    kind = ruv_policy_kind_by_name(name);
    if (kind >= 0)
        return (rv_policy_kind)kind;
    initStringInfo(&known);
    for (kind = 0; kind < RV_POLICY_KINDS; kind++)
        appendStringInfo(&known, "%s%s", kind > 0 ? ", " : "",
                         rv_policy_kind_name((rv_policy_kind)kind));
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("there is no kind of policy \"%s\"", name),
                    errhint("The kinds are %s.", known.data)));
}

/* The id of a loaded policy of the kind; NULL for null. */
static char *
policy_argument(FunctionCallInfo fcinfo, int number, rv_policy_kind kind)
{
    rv_host *host = ruv_policy_host();
    char *id;
    StringInfoData known;

    if (PG_ARGISNULL(number))
        return NULL;
    id = text_to_cstring(PG_GETARG_TEXT_PP(number));
    if (host == NULL)
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("no memory for the policy host")));
    initStringInfo(&known);
    for (uint32 i = 0; i < rv_host_policy_count(host); i++) {
        rv_policy_info info;

        rv_host_policy(host, i, &info);
        if (info.kind != kind)
            continue;
        if (strcmp(info.id, id) == 0)
            return id;
        appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "", info.id);
    }
    ereport(ERROR,
            (errcode(ERRCODE_UNDEFINED_OBJECT),
             errmsg("there is no %s policy \"%s\"", rv_policy_kind_name(kind), id),
             errdetail("Loaded %s policies: %s.", rv_policy_kind_name(kind),
                       known.len > 0 ? known.data : "none"),
             errhint("A file %s.lua with kind = \"%s\" in the policy directory takes part after "
                     "ruvector_reload_policies().",
                     id, rv_policy_kind_name(kind))));
}

/* The table of a choice, owned by the caller; InvalidOid for null. */
static Oid
table_argument(FunctionCallInfo fcinfo, int number)
{
    return PG_ARGISNULL(number) ? InvalidOid : ruv_own_table(PG_GETARG_OID(number));
}

/* ---- choices -------------------------------------------------------------------------------- */

static Datum
caller_name(const RuvStore *store)
{
    return DirectFunctionCall1(namein,
                               CStringGetDatum(GetUserNameFromId(store->former_user, false)));
}

/* Fills the parameters that name a choice: kind, table, role, caller. */
static void
fill_scope(const RuvStore *store, const Scope *scope, const char *role, Oid *types, Datum *values,
           char *nulls)
{
    types[0] = TEXTOID;
    types[1] = OIDOID;
    types[2] = TEXTOID;
    types[3] = NAMEOID;
    values[0] = CStringGetTextDatum(rv_policy_kind_name(scope->kind));
    values[1] = ObjectIdGetDatum(scope->table_oid);
    values[2] = CStringGetTextDatum(role);
    values[3] = caller_name(store);
    nulls[0] = nulls[2] = nulls[3] = ' ';
    nulls[1] = OidIsValid(scope->table_oid) ? ' ' : 'n';
}

#define SCOPE "kind = $1 AND table_id IS NOT DISTINCT FROM $2::regclass AND role = $3"

static void
end_choice(RuvStore *store, const Scope *scope, const char *role, bool rolled_back)
{
    Oid types[5] = {0};
    Datum values[5];
    char nulls[6] = "     ";

    fill_scope(store, scope, role, types, values, nulls);
    types[4] = BOOLOID;
    values[4] = BoolGetDatum(rolled_back);
    ruv_store_run(store,
                  "UPDATE @.ruvector_policy_choices SET ended_at = clock_timestamp(), "
                  "ended_by = $4, rolled_back = $5 WHERE " SCOPE " AND ended_at IS NULL",
                  5, types, values, nulls);
}

/* since 0: now. */
static void
add_choice(RuvStore *store, const Scope *scope, const char *role, const char *policy,
           TimestampTz since)
{
    Oid types[6] = {0};
    Datum values[6];
    char nulls[7] = "      ";

    fill_scope(store, scope, role, types, values, nulls);
    types[4] = TEXTOID;
    values[4] = CStringGetTextDatum(policy);
    types[5] = TIMESTAMPTZOID;
    values[5] = TimestampTzGetDatum(since);
    nulls[5] = since == 0 ? 'n' : ' ';
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_policy_choices (kind, table_id, role, chosen_by, policy, "
                  "since) VALUES ($1, $2::regclass, $3, $4, $5, "
                  "coalesce($6, clock_timestamp()))",
                  6, types, values, nulls);
}

/* The policy of the present choice, and since when; NULL: none, so the default one serves. */
static char *
present_choice(RuvStore *store, const Scope *scope, const char *role, TimestampTz *since)
{
    Oid types[4];
    Datum values[4];
    char nulls[5] = "    ";

    fill_scope(store, scope, role, types, values, nulls);
    if (ruv_store_run(store,
                      "SELECT policy, since FROM @.ruvector_policy_choices WHERE " SCOPE
                      " AND ended_at IS NULL AND $4 IS NOT NULL",
                      4, types, values, nulls) == 0)
        return NULL;
    if (since != NULL)
        *since = DatumGetTimestampTz(ruv_store_value(0, 2, NULL));
    return TextDatumGetCString(ruv_store_value(0, 1, NULL));
}

/* Makes a policy serve; NULL: the one that serves without a choice. */
static void
serve(RuvStore *store, const Scope *scope, const char *policy, TimestampTz since)
{
    end_choice(store, scope, "serves", false);
    if (policy != NULL)
        add_choice(store, scope, "serves", policy, since);
    ruv_worker_request();
}

static void
begin_change(RuvStore *store)
{
    ruv_require_preload();
    ruv_require_primary();
    PreventCommandIfReadOnly("a choice of policies");
    ruv_store_open_or_fail(store);
}

/* ---- functions ------------------------------------------------------------------------------ */

/* ruvector_set_policy(table, kind, policy); policy NULL: what serves the database again. */
Datum
ruv_set_policy(PG_FUNCTION_ARGS)
{
    Scope scope;
    char *policy;
    RuvStore store;

    if (PG_ARGISNULL(0))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("table must not be null")));
    scope.table_oid = table_argument(fcinfo, 0);
    scope.kind = kind_argument(fcinfo, 1);
    policy = policy_argument(fcinfo, 2, scope.kind);
    begin_change(&store);
    serve(&store, &scope, policy, 0);
    ruv_store_close(&store);
    PG_RETURN_VOID();
}

/* Refuses kinds of which the worker sees no case. */
static void
require_shadow(rv_policy_kind kind)
{
    if (kind != RV_POLICY_TUNING && kind != RV_POLICY_SELECTION)
        return;
    ereport(
        ERROR,
        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
         errmsg("%s policies cannot run in the shadow", rv_policy_kind_name(kind)),
         kind == RV_POLICY_TUNING
             ? errdetail("They are asked once in each call of ruvector_auto_tune(), which shows "
                         "the curve that they choose from.")
             : errdetail("They are asked while a query is planned, and only one of the two "
                         "plans is carried out: there is nothing to compare it with."),
         errhint("\"ruvector-policy replay\" tries a candidate on recorded searches.")));
}

/* ruvector_shadow_policy(kind, policy, table); policy NULL: no shadow any more. */
Datum
ruv_shadow_policy(PG_FUNCTION_ARGS)
{
    Scope scope = {kind_argument(fcinfo, 0), InvalidOid};
    char *policy;
    RuvStore store;

    require_shadow(scope.kind);
    policy = policy_argument(fcinfo, 1, scope.kind);
    scope.table_oid = table_argument(fcinfo, 2);
    begin_change(&store);
    end_choice(&store, &scope, "shadow", false);
    if (policy != NULL)
        add_choice(&store, &scope, "shadow", policy, 0);
    ruv_worker_request();
    ruv_store_close(&store);
    PG_RETURN_VOID();
}

/* ruvector_promote_policy(kind, policy, table) -> the policy; policy NULL: the one in the shadow.
 */
Datum
ruv_promote_policy(PG_FUNCTION_ARGS)
{
    Scope scope = {kind_argument(fcinfo, 0), InvalidOid};
    char *policy = policy_argument(fcinfo, 1, scope.kind);
    char serving[RUV_POLICY_ID];
    char *shadow;
    RuvStore store;

    scope.table_oid = table_argument(fcinfo, 2);
    begin_change(&store);
    shadow = present_choice(&store, &scope, "shadow", NULL);
    if (policy == NULL && shadow == NULL)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("no %s policy runs in the shadow %s",
                               rv_policy_kind_name(scope.kind), scope_text(&scope)),
                        errhint("Name the policy, or begin with ruvector_shadow_policy().")));
    strlcpy(serving, policy != NULL ? policy : shadow, sizeof(serving));
    if (shadow != NULL && strcmp(shadow, serving) == 0)
        end_choice(&store, &scope, "shadow", false);
    serve(&store, &scope, serving, 0);
    ruv_store_close(&store);
    PG_RETURN_TEXT_P(cstring_to_text(serving));
}

/* What served before the present choice: its policy and since when. NULL: the default one. */
static char *
former_choice(RuvStore *store, const Scope *scope, TimestampTz present_since, TimestampTz *since)
{
    Oid types[5];
    Datum values[5];
    char nulls[6] = "     ";

    fill_scope(store, scope, "serves", types, values, nulls);
    types[4] = TIMESTAMPTZOID;
    values[4] = TimestampTzGetDatum(present_since);
    if (ruv_store_run(store,
                      "SELECT policy, since FROM @.ruvector_policy_choices WHERE " SCOPE
                      " AND since < $5 AND NOT rolled_back AND $4 IS NOT NULL "
                      "ORDER BY since DESC LIMIT 1",
                      5, types, values, nulls) == 0)
        return NULL;
    *since = DatumGetTimestampTz(ruv_store_value(0, 2, NULL));
    return TextDatumGetCString(ruv_store_value(0, 1, NULL));
}

/* ruvector_rollback_policy(kind, table) -> the policy that serves again */
Datum
ruv_rollback_policy(PG_FUNCTION_ARGS)
{
    Scope scope = {kind_argument(fcinfo, 0), InvalidOid};
    TimestampTz since = 0;
    TimestampTz former_since = 0;
    char *former;
    RuvStore store;
    char serving[RUV_POLICY_ID];

    scope.table_oid = table_argument(fcinfo, 1);
    begin_change(&store);
    if (present_choice(&store, &scope, "serves", &since) == NULL)
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("the %s policy %s is the default one: there is nothing to go back from",
                        rv_policy_kind_name(scope.kind), scope_text(&scope))));
    former = former_choice(&store, &scope, since, &former_since);
    strlcpy(serving, former != NULL ? former : rv_policy_kind_name(scope.kind), sizeof(serving));
    end_choice(&store, &scope, "serves", true);
    if (former != NULL)
        add_choice(&store, &scope, "serves", former, former_since);
    ruv_worker_request();
    ruv_store_close(&store);
    PG_RETURN_TEXT_P(cstring_to_text(serving));
}

/* ---- the report ----------------------------------------------------------------------------- */

#define REPORT_COLUMNS 16

/* Figures of candidates that run in the shadow, or did. */
Datum
ruv_shadow_report(PG_FUNCTION_ARGS)
{
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    RuvStore store;
    uint64 count;

    ruv_store_open_or_fail(&store);
    count = ruv_store_run(
        &store,
        "SELECT kind, index_oid, policy, EXISTS (SELECT FROM @.ruvector_policy_choices c "
        "WHERE c.role = 'shadow' AND c.ended_at IS NULL AND c.kind = s.kind "
        "AND c.policy = s.policy AND (c.table_id IS NULL OR c.table_id = s.table_id)), "
        "since, calls, failures, missing, same, calls - failures - same, active_successes, "
        "candidate_successes, active_recall / active_of, candidate_recall / candidate_of, "
        "active_distances / active_of, candidate_distances / candidate_of "
        "FROM @.ruvector_policy_shadows s, LATERAL (SELECT "
        "nullif(CASE kind WHEN 'interpolation' THEN calls - failures WHEN 'healing' THEN 0 "
        "ELSE active_successes END, 0) AS active_of, "
        "nullif(CASE kind WHEN 'interpolation' THEN calls - failures WHEN 'healing' THEN 0 "
        "ELSE candidate_successes END, 0) AS candidate_of) of_what ORDER BY since, index_oid",
        0, NULL, NULL, NULL);
    for (uint64 row = 0; row < count; row++) {
        Datum values[REPORT_COLUMNS];
        bool nulls[REPORT_COLUMNS];

        for (int column = 0; column < REPORT_COLUMNS; column++)
            values[column] = ruv_store_value(row, column + 1, &nulls[column]);
        tuplestore_putvalues(rows, descriptor, values, nulls);
    }
    ruv_store_close(&store);
    return (Datum)0;
}
