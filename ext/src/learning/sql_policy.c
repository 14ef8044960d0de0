/*
 * sql_policy.c - SQL functions for the policies: load them anew, and show what serves.
 *
 * Reload is build new, self-test, announce: the files are loaded and tested in this session first,
 * and only when that succeeded does the shared generation move on, which every other process
 * follows at its next call. A mistake in a file is reported here and changes nothing anywhere.
 */
#include "learning/worker.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_reload_policies);
PG_FUNCTION_INFO_V1(ruv_policies);

static void
fail_reload(const rv_host_failure *failure)
{
    char place[sizeof(failure->file) + 32] = "";

    if (failure->file[0] != '\0' && failure->line > 0)
        snprintf(place, sizeof(place), "%s, line %d: ", failure->file, failure->line);
    else if (failure->file[0] != '\0')
        snprintf(place, sizeof(place), "%s: ", failure->file);
    ereport(ERROR,
            (errcode(ERRCODE_CONFIG_FILE_ERROR),
             errmsg("the policies were not reloaded: %s%s", place, failure->reason),
             errdetail("Cause: %s. The former policies stay in use.",
                       rv_host_cause_name(failure->cause)),
             errhint("Mend the file and call ruvector_reload_policies() again. The directory is "
                     "\"%s\" (ruvector.policy_directory).",
                     ruv_policy_directory_path())));
}

static void
save_policy(RuvStore *store, rv_policy_kind kind)
{
    Oid types[5] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, NAMEOID};
    Datum values[5];
    rv_policy_info info;

    rv_host_info(ruv_policy_host(), kind, &info);
    values[0] = CStringGetTextDatum(rv_policy_kind_name(kind));
    values[1] = CStringGetTextDatum(info.name);
    values[2] = CStringGetTextDatum(info.version);
    values[3] = CStringGetTextDatum(info.file);
    values[4] =
        DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(store->former_user, false)));
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_policy_state (kind, name, version, file, loaded_by) "
                  "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kind) DO UPDATE SET "
                  "name = excluded.name, version = excluded.version, file = excluded.file, "
                  "loaded_by = excluded.loaded_by, loaded_at = now()",
                  5, types, values, NULL);
}

Datum
ruv_reload_policies(PG_FUNCTION_ARGS)
{
    rv_host_failure failure;
    RuvStore store;

    if (!superuser())
        ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                        errmsg("only a superuser may reload the policies")));
    if (ruv_policy_reload(&failure) != RV_HOST_OK)
        fail_reload(&failure);
    ruv_policy_announce();
    if (!XactReadOnly && ruv_store_open(&store)) {
        for (int kind = 0; kind < RV_POLICY_KINDS; kind++)
            save_policy(&store, (rv_policy_kind)kind);
        ruv_store_close(&store);
    }
    PG_RETURN_INT64(ruv_policy_generation());
}

/* Where files lie on the server is shown to those who see all settings; others see the name. */
static const char *
shown_file(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_SETTINGS) || slash == NULL)
        return path;
    return slash + 1;
}

#define POLICIES_COLUMNS 11

static void
put_policy(Tuplestorestate *rows, TupleDesc descriptor, rv_policy_kind kind)
{
    RuvPolicyFigures figures = ruv_policy_figures(kind);
    Datum values[POLICIES_COLUMNS];
    bool nulls[POLICIES_COLUMNS] = {false};
    rv_policy_info info;
    bool built_in;
    int i = 0;

    rv_host_info(ruv_policy_host(), kind, &info);
    built_in = info.file[0] == '\0';
    values[i++] = CStringGetTextDatum(info.name);
    values[i++] = CStringGetTextDatum(rv_policy_kind_name(kind));
    values[i++] = CStringGetTextDatum(info.version);
    values[i] = CStringGetTextDatum(shown_file(info.file));
    nulls[i++] = built_in;
    values[i++] = CStringGetTextDatum(built_in ? "built-in" : "loaded");
    values[i++] = Int64GetDatum(ruv_policy_generation());
    values[i++] = Int64GetDatum((int64)figures.calls);
    values[i++] = Int64GetDatum((int64)figures.failures);
    values[i++] = Float8GetDatum(figures.mean_us);
    values[i++] = Float8GetDatum(figures.worst_us);
    values[i++] = CStringGetTextDatum(info.describe);
    Assert(i == POLICIES_COLUMNS);
    tuplestore_putvalues(rows, descriptor, values, nulls);
}

Datum
ruv_policies(PG_FUNCTION_ARGS)
{
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);

    if (ruv_policy_host() == NULL)
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("no memory for the policy host")));
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++)
        put_policy(rows, descriptor, (rv_policy_kind)kind);
    return (Datum)0;
}
