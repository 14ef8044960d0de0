/*
 * sql_feedback.c - what users say of results: ruvector_record_feedback() and
 * ruvector_refine_query().
 *
 * The rows are placed at once, against the search as it was recorded: a relevant row that is nearer
 * than the last result and was not returned is an index miss, one that is farther an embedding
 * miss. The caller is told, and the worker takes it from the table (feedback_join.c).
 */
#include "learning/feedback.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(ruv_record_feedback);
PG_FUNCTION_INFO_V1(ruv_refine_query);

/* ---- arguments ----------------------------------------------------------------------------- */

static void
read_query_id(FunctionCallInfo fcinfo, uint64 *query_id)
{
    if (PG_ARGISNULL(0))
        ereport(ERROR,
                (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the query id must not be null"),
                 errhint("ruvector_last_query_id() is null until this session has searched "
                         "with an index of ruvector.")));
    ruv_query_id_halves(PG_GETARG_DATUM(0), query_id);
}

/* The elements of an argument; a null argument has none. */
static Datum *
read_ids(FunctionCallInfo fcinfo, int argument, const char *name, int *count)
{
    Datum *items = NULL;
    bool *nulls;

    *count = 0;
    if (PG_ARGISNULL(argument))
        return NULL;
    deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
                      &items, &nulls, count);
    if (*count > ruv_feedback_max_ids)
        ereport(ERROR,
                (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                 errmsg("%s has %d ids; %d are the limit", name, *count, ruv_feedback_max_ids),
                 errhint("Judge the rows that were looked at, or raise "
                         "ruvector.feedback_max_ids.")));
    for (int i = 0; i < *count; i++)
        if (nulls[i])
            ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                            errmsg("%s must not contain nulls; element %d is null", name, i + 1)));
    return items;
}

static int
compare_rows(const void *a, const void *b)
{
    int64 left = ((const RuvJudgedRow *)a)->id;
    int64 right = ((const RuvJudgedRow *)b)->id;

    return (left > right) - (left < right);
}

/* Both arguments as rows, sorted, each id once. */
static RuvJudgedRow *
read_rows(FunctionCallInfo fcinfo, int *count)
{
    int relevant;
    int irrelevant;
    Datum *good = read_ids(fcinfo, 1, "relevant_ids", &relevant);
    Datum *bad = read_ids(fcinfo, 2, "irrelevant_ids", &irrelevant);
    int all = relevant + irrelevant;
    RuvJudgedRow *rows = palloc0(sizeof(RuvJudgedRow) * Max(all, 1));
    int kept = 0;

    for (int i = 0; i < all; i++) {
        rows[i].id = DatumGetInt64(i < relevant ? good[i] : bad[i - relevant]);
        rows[i].relevant = i < relevant;
    }
    qsort(rows, all, sizeof(RuvJudgedRow), compare_rows);
    for (int i = 0; i < all; i++) {
        if (kept == 0 || rows[kept - 1].id != rows[i].id)
            rows[kept++] = rows[i];
        else if (rows[kept - 1].relevant != rows[i].relevant)
            ereport(ERROR,
                    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                     errmsg("id " INT64_FORMAT " is both relevant and irrelevant", rows[i].id)));
    }
    *count = kept;
    return rows;
}

/* ---- ruvector_record_feedback -------------------------------------------------------------- */

typedef struct FeedbackCounts {
    int relevant;
    int irrelevant;
    int missed_near;
    int missed_far;
    int unknown;
} FeedbackCounts;

static FeedbackCounts
count_rows(const RuvJudgedRow *rows, int count)
{
    FeedbackCounts counts = {0};

    for (int i = 0; i < count; i++) {
        const RuvJudgedRow *row = &rows[i];

        if (!row->found)
            counts.unknown++;
        else if (!row->relevant)
            counts.irrelevant++;
        else if (row->place == RV_ROW_RETURNED)
            counts.relevant++;
        else if (row->place == RV_ROW_MISSED_NEAR)
            counts.missed_near++;
        else
            counts.missed_far++;
    }
    return counts;
}

static void
check_any_known(const RuvJudgedSearch *search, const FeedbackCounts *counts, int count)
{
    if (count > 0 && counts->unknown == count)
        ereport(ERROR,
                (errcode(ERRCODE_NO_DATA_FOUND),
                 errmsg("none of the %d ids names a row of \"%s\" that you can see and that the "
                        "index holds",
                        count, get_rel_name(search->table_oid)),
                 errhint("Rows are named by the primary key, or by the id_column of "
                         "ruvector_enable_learning().")));
}

/* A row that was missed can be placed only against the query. */
static void
check_query_kept(const RuvJudgedSearch *search)
{
    if (search->query == NULL)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("only a hash is left of the query of search %s",
                               ruv_query_id_text(search->query_id)),
                        errdetail("Queries of this table are anonymized when they are stored."),
                        errhint("Give feedback while the search is in memory; "
                                "ruvector.trajectory_buffer_size bounds how many are.")));
}

static const char *
status_name(RuvFeedbackStatus status)
{
    switch (status) {
        case RUV_FEEDBACK_RECORDED:
            return "recorded";
        case RUV_FEEDBACK_REPLACED:
            return "replaced";
        case RUV_FEEDBACK_UNCHANGED:
            return "unchanged";
        case RUV_FEEDBACK_WITHDRAWN:
            return "withdrawn";
    }
    return "unknown";
}

static void
add_sentence(StringInfo text, const char *sentence)
{
    if (text->len > 0)
        appendStringInfoChar(text, ' ');
    appendStringInfoString(text, sentence);
}

static const char *
relevant_rows(int count)
{
    return count == 1 ? "1 relevant row is" : psprintf("%d relevant rows are", count);
}

static char *
explain(const RuvJudgedSearch *search, const FeedbackCounts *counts)
{
    StringInfoData text;

    initStringInfo(&text);
    if (counts->missed_near > 0)
        add_sentence(&text, psprintf("Index miss: %s nearer than the last result, and not "
                                     "returned; more effort finds such rows.",
                                     relevant_rows(counts->missed_near)));
    if (counts->missed_far > 0)
        add_sentence(&text, psprintf("Embedding miss: %s farther than the last result; effort "
                                     "cannot help.",
                                     relevant_rows(counts->missed_far)));
    if (counts->unknown > 0)
        add_sentence(&text, psprintf("Not a row that you can see and that the index holds: %d of "
                                     "the ids.",
                                     counts->unknown));
    if (search->k > RV_TRAJECTORY_MAX_HITS)
        add_sentence(&text, psprintf("The search took %u rows, more than the %d that can be "
                                     "judged: it teaches nothing.",
                                     search->k, RV_TRAJECTORY_MAX_HITS));
    return text.data;
}

static Datum
unknown_ids(const RuvJudgedRow *rows, int count)
{
    Datum *items = palloc(sizeof(Datum) * Max(count, 1));
    int unknown = 0;

    for (int i = 0; i < count; i++)
        if (!rows[i].found)
            items[unknown++] = Int64GetDatum(rows[i].id);
    return PointerGetDatum(
        construct_array(items, unknown, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

#define FEEDBACK_COLUMNS 7

Datum
ruv_record_feedback(PG_FUNCTION_ARGS)
{
    Datum values[FEEDBACK_COLUMNS];
    bool nulls[FEEDBACK_COLUMNS] = {false};
    TupleDesc descriptor;
    RuvJudgedSearch search;
    FeedbackCounts counts;
    RuvJudgedRow *rows;
    uint64 query_id[2];
    int count;
    char *note;

    if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    ruv_require_preload();
    ruv_require_primary();
    read_query_id(fcinfo, query_id);
    rows = read_rows(fcinfo, &count);
    ruv_find_judged_search(query_id, &search);
    check_query_kept(&search);
    ruv_look_up_rows(&search, rows, count, false);
    counts = count_rows(rows, count);
    check_any_known(&search, &counts, count);
    values[0] = CStringGetTextDatum(status_name(ruv_store_feedback(&search, rows, count)));
    values[1] = Int32GetDatum(counts.relevant);
    values[2] = Int32GetDatum(counts.irrelevant);
    values[3] = Int32GetDatum(counts.missed_near);
    values[4] = Int32GetDatum(counts.missed_far);
    values[5] = unknown_ids(rows, count);
    note = explain(&search, &counts);
    values[6] = CStringGetTextDatum(note);
    nulls[6] = note[0] == '\0';
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}

/* ---- ruvector_refine_query ----------------------------------------------------------------- */

/* The vectors of the rows that are still there, relevant or not. */
static const float **
vectors_of(const RuvJudgedRow *rows, int count, bool relevant, uint32 *chosen)
{
    const float **vectors = palloc(sizeof(float *) * Max(count, 1));

    *chosen = 0;
    for (int i = 0; i < count; i++)
        if (rows[i].found && rows[i].relevant == relevant)
            vectors[(*chosen)++] = rows[i].vector;
    return vectors;
}

static rv_metric
metric_of(Oid index_oid)
{
    Relation index = index_open(index_oid, AccessShareLock);
    RuvIndexIdentity identity;

    ruv_index_identity(index, &identity);
    index_close(index, AccessShareLock);
    return identity.metric;
}

Datum
ruv_refine_query(PG_FUNCTION_ARGS)
{
    rv_refine_input in = {0};
    RuvJudgedSearch search;
    RuvJudgedRow *rows;
    RuVector *refined;
    uint64 query_id[2];
    int count;
    rv_error err = {0};

    ruv_require_preload();
    read_query_id(fcinfo, query_id);
    for (int i = 1; i <= 3; i++)
        if (PG_ARGISNULL(i))
            ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                            errmsg("alpha, beta and gamma must not be null")));
    ruv_find_judged_search(query_id, &search);
    check_query_kept(&search);
    rows = ruv_load_feedback(&search, &count);
    if (rows == NULL)
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("you have given no feedback on search %s", ruv_query_id_text(query_id)),
                 errhint("Name relevant rows with ruvector_record_feedback() first.")));
    ruv_look_up_rows(&search, rows, count, true);
    in.metric = metric_of(search.index_oid);
    in.dim = (uint32)search.dim;
    in.query = search.query;
    in.relevant = vectors_of(rows, count, true, &in.relevant_count);
    in.irrelevant = vectors_of(rows, count, false, &in.irrelevant_count);
    in.alpha = PG_GETARG_FLOAT8(1);
    in.beta = PG_GETARG_FLOAT8(2);
    in.gamma = PG_GETARG_FLOAT8(3);
    refined = ruv_vector_alloc(search.dim);
    ruv_check(rv_feedback_refine(&in, refined->x, &err), &err, "refining a query");
    PG_RETURN_RUVECTOR_P(refined);
}
