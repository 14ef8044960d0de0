/*
 * sql_policy.c - SQL functions for the policies: load them anew, and show what serves.
 *
 * Reload is build new, self-test, publish: the files are loaded and tested in this session, and
 * only when that succeeded are their texts put into shared memory, where every other process takes
 * them at its next call. A mistake in a file is reported here and changes nothing anywhere.
 */
#include "learning/worker.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
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

    if (ruv_policy_reload(&failure) != RV_HOST_OK)
        fail_reload(&failure);
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

/* "ok" and "missing" are no failures. */
static Datum
causes_json(const RuvPolicyFigures *figures)
{
    StringInfoData text;

    initStringInfo(&text);
    for (int cause = 0; cause < RV_HOST_CAUSES; cause++)
        if (figures->by_cause[cause] > 0)
            appendStringInfo(&text, "%s\"%s\": " UINT64_FORMAT, text.len > 0 ? ", " : "",
                             rv_host_cause_name((rv_host_cause)cause), figures->by_cause[cause]);
    return DirectFunctionCall1(jsonb_in, CStringGetDatum(psprintf("{%s}", text.data)));
}

/* SHA-256 in hexadecimal, as sha256sum prints it for the file. */
static Datum
checksum(const rv_policy_info *info)
{
    bytea *source = palloc(VARHDRSZ + info->source_size);
    Datum digest;

    SET_VARSIZE(source, VARHDRSZ + info->source_size);
    memcpy(VARDATA(source), info->source, info->source_size);
    digest = DirectFunctionCall1(sha256_bytea, PointerGetDatum(source));
    return DirectFunctionCall2(binary_encode, digest, CStringGetTextDatum("hex"));
}

#define POLICIES_COLUMNS 14

static void
put_policy(Tuplestorestate *rows, TupleDesc descriptor, const rv_policy_info *info, bool serves)
{
    bool built_in = info->source == NULL;
    RuvPolicyFigures figures = ruv_policy_figures(info->kind, built_in ? NULL : info->id);
    Datum values[POLICIES_COLUMNS];
    bool nulls[POLICIES_COLUMNS] = {false};
    int i = 0;

    values[i++] = CStringGetTextDatum(info->id);
    values[i++] = CStringGetTextDatum(rv_policy_kind_name(info->kind));
    values[i++] = CStringGetTextDatum(info->name);
    values[i++] = CStringGetTextDatum(info->version);
    values[i] = CStringGetTextDatum(shown_file(info->file));
    nulls[i++] = built_in;
    values[i] = built_in ? (Datum)0 : checksum(info);
    nulls[i++] = built_in;
    values[i++] = BoolGetDatum(serves);
    values[i++] = Int64GetDatum(ruv_policy_generation());
    values[i++] = Int64GetDatum((int64)figures.calls);
    values[i++] = Int64GetDatum((int64)figures.failures);
    values[i++] = causes_json(&figures);
    values[i++] = Float8GetDatum(figures.mean_us);
    values[i++] = Float8GetDatum(figures.worst_us);
    values[i++] = CStringGetTextDatum(info->describe);
    Assert(i == POLICIES_COLUMNS);
    tuplestore_putvalues(rows, descriptor, values, nulls);
}

/* The policies of one kind: the built-in where it serves by default, then what was loaded. */
static void
put_kind(Tuplestorestate *rows, TupleDesc descriptor, rv_policy_kind kind, const char *chosen)
{
    rv_host *host = ruv_policy_host();
    const char *serving = rv_policy_kind_name(kind);
    rv_policy_info info;

    for (uint32 i = 0; i < rv_host_policy_count(host); i++) {
        rv_host_policy(host, i, &info);
        if (info.kind == kind && strcmp(info.id, chosen) == 0)
            serving = chosen;
    }
    rv_host_info(host, kind, &info);
    if (info.source == NULL)
        put_policy(rows, descriptor, &info, serving != chosen);
    for (uint32 i = 0; i < rv_host_policy_count(host); i++) {
        rv_host_policy(host, i, &info);
        if (info.kind == kind)
            put_policy(rows, descriptor, &info, strcmp(info.id, serving) == 0);
    }
}

Datum
ruv_policies(PG_FUNCTION_ARGS)
{
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    RuvPolicyNames chosen = {{""}};
    RuvStore store;

    if (ruv_policy_host() == NULL)
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("no memory for the policy host")));
    if (ruv_store_open(&store)) {
        ruv_policy_choices_of_database(&store, &chosen);
        ruv_store_close(&store);
    }
    for (int kind = 0; kind < RV_POLICY_KINDS; kind++)
        put_kind(rows, descriptor, (rv_policy_kind)kind, chosen.id[kind]);
    return (Datum)0;
}
