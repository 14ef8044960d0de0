/*
 * sql_exchange.c - patterns out of a database and into one, as JSON.
 *
 *   {"format": "ruvector-patterns", "version": 1, "table": "public.items",
 *    "indexes": [{"index": "items_embedding_idx", "method": "ruhnsw", "memory": "5feceb66..." |
 * null, "bank": {"format": "ruvector-bank", ...}}]}
 *
 * "bank" is the engine's format (engine/src/bank/json.h), exact to the bit. "memory" names the
 * remembered queries that the patterns were calibrated with; those themselves stay where they are,
 * since they are queries.
 *
 * An import reads and checks the whole document before it changes anything; every complaint begins
 * with the path of what is wrong. It serves the index of the same name, or else the only one with
 * that access method, metric and number of dimensions.
 *
 * Whom to trust: a calibration holds for the build of the index, and the remembered queries, that
 * it was made with. Patterns of the present build and memory count at once. Others are a prior:
 * they lie in the bank, searches stay static, and the worker checks them against recorded searches
 * first (recertify.c). An index that has patterns of its own needs no prior: a merge leaves it out.
 *
 * Superusers only, or a role that was granted EXECUTE, which is then trusted with every table of
 * the database: centroids are means of queries, and a forged slack would spoil every search.
 */
#include "learning/bank_edit.h"
#include "learning/exchange.h"

#include "access/relation.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_export_patterns);
PG_FUNCTION_INFO_V1(ruv_import_patterns);

/* ---- export -------------------------------------------------------------------------------- */

static void
append_index(StringInfo out, Relation index)
{
    RuvBankEdit edit;
    rv_error err = {0};
    char *text;
    size_t size;

    ruv_bank_edit_begin(&edit, index, false);
    ruv_check(rv_bank_to_json(edit.state.bank, &edit.state.allocator, &text, &size, &err), &err,
              "exporting patterns");
    appendStringInfoString(out, "{\"index\":");
    escape_json(out, RelationGetRelationName(index));
    appendStringInfoString(out, ",\"method\":");
    escape_json(out, get_am_name(index->rd_rel->relam));
    appendStringInfoString(out, ",\"memory\":");
    if (edit.memory_digest != NULL)
        escape_json(out, edit.memory_digest);
    else
        appendStringInfoString(out, "null");
    appendStringInfoString(out, ",\"bank\":");
    appendBinaryStringInfo(out, text, (int)size);
    appendStringInfoChar(out, '}');
    ruv_bank_edit_end(&edit);
}

Datum
ruv_export_patterns(PG_FUNCTION_ARGS)
{
    Oid table_oid = PG_GETARG_OID(0);
    bool first = true;
    StringInfoData out;
    Relation table;
    ListCell *cell;

    ruv_require_preload();
    table = relation_open(table_oid, AccessShareLock);
    ruv_require_enabled(table_oid);
    initStringInfo(&out);
    appendStringInfoString(&out, "{\"format\":\"" RUV_EXCHANGE_FORMAT "\",\"version\":");
    appendStringInfo(&out, "%d,\"table\":", RUV_EXCHANGE_VERSION);
    escape_json(&out, quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table)),
                                                 RelationGetRelationName(table)));
    appendStringInfoString(&out, ",\"indexes\":[");
    foreach (cell, ruv_own_indexes(table)) {
        Relation index = relation_open(lfirst_oid(cell), AccessShareLock);

        if (!first)
            appendStringInfoChar(&out, ',');
        append_index(&out, index);
        first = false;
        relation_close(index, AccessShareLock);
    }
    appendStringInfoString(&out, "]}");
    relation_close(table, NoLock);
    PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(out.data)));
}

/* ---- which index a bank is for ------------------------------------------------------------- */

typedef struct Candidate {
    Relation index;
    RuvIndexIdentity identity;
    bool taken; /* by an entry of the document */
} Candidate;

/* The table's indexes, opened. */
static List *
open_candidates(Relation table)
{
    List *candidates = NIL;
    ListCell *cell;

    foreach (cell, ruv_own_indexes(table)) {
        Candidate *candidate = palloc0(sizeof(*candidate));

        candidate->index = relation_open(lfirst_oid(cell), AccessShareLock);
        ruv_index_identity(candidate->index, &candidate->identity);
        candidates = lappend(candidates, candidate);
    }
    return candidates;
}

static bool
fits(const Candidate *candidate, const RuvExchangeEntry *entry)
{
    return strcmp(get_am_name(candidate->index->rd_rel->relam), entry->method) == 0 &&
           candidate->identity.metric == rv_bank_metric(entry->bank) &&
           candidate->identity.dim == (int)rv_bank_dim(entry->bank);
}

static Candidate *
find_candidate(List *candidates, const RuvExchangeEntry *entry)
{
    Candidate *found = NULL;
    int count = 0;
    ListCell *cell;

    foreach (cell, candidates) {
        Candidate *candidate = lfirst(cell);

        if (!fits(candidate, entry))
            continue;
        if (strcmp(RelationGetRelationName(candidate->index), entry->index_name) == 0)
            return candidate;
        found = candidate;
        count++;
    }
    return count == 1 ? found : NULL;
}

static void
match_entries(const RuvExchange *exchange, Relation table, List *candidates, Candidate **matches)
{
    for (int i = 0; i < exchange->count; i++) {
        const RuvExchangeEntry *entry = &exchange->entries[i];
        Candidate *candidate = find_candidate(candidates, entry);

        if (candidate == NULL)
            ereport(ERROR,
                    (errcode(ERRCODE_DATA_EXCEPTION),
                     errmsg("importing patterns: $.indexes[%d] is for %s, %s over %u dimensions; "
                            "\"%s\" has no such index, or several and none is called \"%s\"",
                            i, entry->method, rv_metric_name(rv_bank_metric(entry->bank)),
                            rv_bank_dim(entry->bank), RelationGetRelationName(table),
                            entry->index_name)));
        if (candidate->taken)
            ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                            errmsg("importing patterns: $.indexes[%d] is for index \"%s\", as "
                                   "another entry is",
                                   i, RelationGetRelationName(candidate->index))));
        candidate->taken = true;
        matches[i] = candidate;
    }
}

/* ---- into one bank ------------------------------------------------------------------------- */

typedef struct Outcome {
    int taken;
    int left_out; /* priors that are not needed */
} Outcome;

static bool
is_current(const RuvBankEdit *edit, const rv_pattern *pattern)
{
    return pattern->index_epoch == edit->state.identity.epoch;
}

/* Made with the remembered queries that the index has now. */
static bool
same_memory(const RuvBankEdit *edit, const RuvExchangeEntry *entry)
{
    if (entry->memory == NULL || edit->memory_digest == NULL)
        return entry->memory == edit->memory_digest;
    return strcmp(entry->memory, edit->memory_digest) == 0;
}

static void
replace_bank(RuvBankEdit *edit, const RuvExchangeEntry *entry, Outcome *outcome)
{
    bool trusted = same_memory(edit, entry);
    rv_error err = {0};

    while (rv_bank_count(edit->state.bank) > 0)
        ruv_check(
            rv_bank_remove(edit->state.bank, rv_bank_get(edit->state.bank, 0, NULL)->id, &err),
            &err, "importing patterns");
    for (uint32 i = 0; i < rv_bank_count(entry->bank); i++) {
        const float *centroid;
        rv_pattern pattern = *rv_bank_get(entry->bank, i, &centroid);

        if (!trusted && is_current(edit, &pattern))
            pattern.index_epoch = RUV_EPOCH_UNKNOWN;
        ruv_check(rv_bank_put(edit->state.bank, &pattern, centroid, NULL, &err), &err,
                  "importing patterns");
        outcome->taken++;
    }
}

static void
merge_into_bank(RuvBankEdit *edit, const RuvExchangeEntry *entry, double learning_rate,
                Outcome *outcome)
{
    bool trusted = same_memory(edit, entry);
    const rv_pattern *own = rv_bank_index_pattern(edit->state.bank);
    bool knows_better = own != NULL && is_current(edit, own);
    rv_error err = {0};

    for (uint32 i = 0; i < rv_bank_count(entry->bank); i++) {
        const float *centroid;
        rv_pattern pattern = *rv_bank_get(entry->bank, i, &centroid);
        bool current = is_current(edit, &pattern);

        if (!(current && trusted) && knows_better) {
            outcome->left_out++;
            continue;
        }
        if (current && !trusted)
            pattern.index_epoch = RUV_EPOCH_UNKNOWN;
        pattern.id = 0;
        ruv_check(rv_bank_learn(edit->state.bank, &pattern, centroid, learning_rate,
                                RUV_MERGE_SIMILARITY, ruv_policy_merge, NULL, NULL, &err),
                  &err, "importing patterns");
        outcome->taken++;
    }
}

/* ---- import -------------------------------------------------------------------------------- */

static bool
replaces(FunctionCallInfo fcinfo)
{
    char *mode = text_to_cstring(PG_GETARG_TEXT_PP(2));

    if (strcmp(mode, "merge") != 0 && strcmp(mode, "replace") != 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("mode is \"%s\"; it must be \"merge\" or \"replace\"", mode)));
    return mode[0] == 'r';
}

static const char *
bank_standing(const RuvBankEdit *edit)
{
    const rv_pattern *own = rv_bank_index_pattern(edit->state.bank);

    if (own != NULL && is_current(edit, own))
        return "certified";
    return rv_bank_count(edit->state.bank) > 0 ? "prior" : "empty";
}

#define IMPORT_COLUMNS 5

static void
import_entry(const RuvExchangeEntry *entry, const Candidate *candidate, bool replace,
             Tuplestorestate *rows, TupleDesc descriptor)
{
    Datum values[IMPORT_COLUMNS];
    bool nulls[IMPORT_COLUMNS] = {false};
    Outcome outcome = {0};
    RuvBankEdit edit;

    ruv_bank_edit_begin(&edit, candidate->index, true);
    if (replace)
        replace_bank(&edit, entry, &outcome);
    else
        merge_into_bank(&edit, entry, ruv_store_learning_rate(&edit.store, edit.state.table_oid),
                        &outcome);
    ruv_bank_edit_save(&edit);
    values[0] = ObjectIdGetDatum(edit.state.index_oid);
    values[1] = Int32GetDatum(outcome.taken);
    values[2] = Int32GetDatum(outcome.left_out);
    values[3] = Int32GetDatum((int32)rv_bank_count(edit.state.bank));
    values[4] = CStringGetTextDatum(bank_standing(&edit));
    tuplestore_putvalues(rows, descriptor, values, nulls);
    ruv_bank_edit_end(&edit);
}

Datum
ruv_import_patterns(PG_FUNCTION_ARGS)
{
    bool replace = replaces(fcinfo);
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    RuvExchange exchange;
    Candidate **matches;
    List *candidates;
    Relation table;
    ListCell *cell;

    ruv_require_preload();
    ruv_require_primary();
    table = relation_open(PG_GETARG_OID(0), AccessShareLock);
    ruv_require_enabled(RelationGetRelid(table));
    ruv_exchange_read(PG_GETARG_JSONB_P(1), &exchange);
    candidates = open_candidates(table);
    matches = palloc0(sizeof(*matches) * Max(exchange.count, 1));
    match_entries(&exchange, table, candidates, matches);
    for (int i = 0; i < exchange.count; i++)
        import_entry(&exchange.entries[i], matches[i], replace, rows, descriptor);
    foreach (cell, candidates)
        relation_close(((Candidate *)lfirst(cell))->index, AccessShareLock);
    relation_close(table, NoLock);
    return (Datum)0;
}
