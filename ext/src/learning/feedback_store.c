/*
 * feedback_store.c - ruvector_feedback: what was said of each search, one row per search and role.
 *
 * The same again changes nothing, something else takes its place, and feedback on no row takes it
 * back. Every change raises the row's revision, so the worker can tell what it has used already,
 * and several roles that judge the same search do not disturb each other.
 *
 * Bounds: the searches that a role may judge within a minute (ruvector.feedback_rate), the changes
 * of one judgement (RUV_MAX_REVISIONS), the ids in one call (sql_feedback.c). Calls that run at the
 * same moment may exceed the rate by their number. How far feedback weighs is bounded elsewhere
 * (feedback_join.c), by what a role has in the samples, however it came there.
 */
#include "learning/feedback.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define RUV_MAX_REVISIONS 100
#define RUV_RATE_MS (60 * 1000)

/* ---- rows as arrays ------------------------------------------------------------------------ */

typedef bool (*row_test)(const RuvJudgedRow *row);

static bool
is_relevant(const RuvJudgedRow *row)
{
    return row->found && row->relevant && row->place == RV_ROW_RETURNED;
}

static bool
is_irrelevant(const RuvJudgedRow *row)
{
    return row->found && !row->relevant && row->place == RV_ROW_RETURNED;
}

static bool
is_missed_near(const RuvJudgedRow *row)
{
    return row->found && row->relevant && row->place == RV_ROW_MISSED_NEAR;
}

static bool
is_missed_far(const RuvJudgedRow *row)
{
    return row->found && row->relevant && row->place == RV_ROW_MISSED_FAR;
}

/* Not returned, and rightly: it tells nothing of the search, and refines the query. */
static bool
is_unseen(const RuvJudgedRow *row)
{
    return row->found && !row->relevant && row->place != RV_ROW_RETURNED;
}

static Datum
ids_where(const RuvJudgedRow *rows, int count, row_test test)
{
    Datum *items = palloc(sizeof(Datum) * Max(count, 1));
    int chosen = 0;

    for (int i = 0; i < count; i++)
        if (test(&rows[i]))
            items[chosen++] = Int64GetDatum(rows[i].id);
    return PointerGetDatum(
        construct_array(items, chosen, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static int
count_found(const RuvJudgedRow *rows, int count)
{
    int found = 0;

    for (int i = 0; i < count; i++)
        found += rows[i].found;
    return found;
}

/* ---- limits -------------------------------------------------------------------------------- */

static void
check_rate(RuvStore *connection, Oid caller)
{
    Oid types[2] = {OIDOID, TIMESTAMPTZOID};
    Datum values[2] = {ObjectIdGetDatum(caller), TimestampTzGetDatum(TimestampTzPlusMilliseconds(
                                                     GetCurrentTimestamp(), -RUV_RATE_MS))};
    int64 given;

    ruv_store_run(connection,
                  "SELECT count(*) FROM @.ruvector_feedback WHERE user_id = $1 AND given_at > $2",
                  2, types, values, NULL);
    given = DatumGetInt64(ruv_store_value(0, 1, NULL));
    if (given >= ruv_feedback_rate)
        ereport(ERROR,
                (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                 errmsg("this role has judged " INT64_FORMAT " searches within a minute, which is "
                        "the limit",
                        given),
                 errhint("Wait, judge fewer searches, or let an administrator raise "
                         "ruvector.feedback_rate.")));
}

static void
check_revision(const RuvJudgedSearch *search, int revision)
{
    if (revision >= RUV_MAX_REVISIONS)
        ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("feedback on search %s was changed %d times, which is the limit",
                               ruv_query_id_text(search->query_id), RUV_MAX_REVISIONS)));
}

/* ---- telling the worker --------------------------------------------------------------------- */

static bool announce = false; /* when this transaction commits */

static void
announce_feedback(XactEvent event, void *arg)
{
    int number;

    if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
        return;
    if (announce && event == XACT_EVENT_COMMIT) {
        LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
        number = ruv_database_find(MyDatabaseId);
        if (number >= 0) {
            ruv_shared->databases[number].feedback_given++;
            if (ruv_shared->databases[number].worker_pid != 0)
                SetLatch(ruv_shared->databases[number].worker_latch);
        }
        LWLockRelease(ruv_shared->lock);
    }
    announce = false;
}

/* A prepared transaction is not announced: the worker looks by itself once in a while. */
static void
announce_at_commit(void)
{
    static bool registered = false;

    if (!registered)
        RegisterXactCallback(announce_feedback, NULL);
    registered = true;
    announce = true;
}

/* ---- storing ------------------------------------------------------------------------------- */

#define RUV_FEEDBACK_VALUES 12

static void
fill_values(Oid caller, const RuvJudgedSearch *search, const RuvJudgedRow *rows, int count,
            Datum *values)
{
    static const row_test tests[] = {is_relevant, is_irrelevant, is_missed_near, is_missed_far,
                                     is_unseen};

    const char *index_name = get_rel_name(search->index_oid);

    if (index_name == NULL)
        elog(ERROR, "cache lookup failed for index %u", search->index_oid);
    values[0] = ruv_query_id_datum(search->query_id);
    values[1] = ObjectIdGetDatum(caller);
    for (int i = 0; i < (int)lengthof(tests); i++)
        values[2 + i] = ids_where(rows, count, tests[i]);
    values[7] = ObjectIdGetDatum(search->table_oid);
    values[8] = ObjectIdGetDatum(search->index_oid);
    values[9] = DirectFunctionCall1(namein, CStringGetDatum(index_name));
    values[10] = TimestampTzGetDatum(GetCurrentTimestamp());
    /* What no trace will ever judge waits for none. */
    values[11] = BoolGetDatum(search->k <= RV_TRAJECTORY_MAX_HITS);
}

static RuvFeedbackStatus
store(RuvStore *connection, Oid caller, const RuvJudgedSearch *search, const RuvJudgedRow *rows,
      int count)
{
    Oid types[RUV_FEEDBACK_VALUES] = {UUIDOID,      OIDOID,       INT8ARRAYOID,   INT8ARRAYOID,
                                      INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,   OIDOID,
                                      OIDOID,       NAMEOID,      TIMESTAMPTZOID, BOOLOID};
    Datum values[RUV_FEEDBACK_VALUES];
    bool withdrawn = count_found(rows, count) == 0;
    bool known;

    fill_values(caller, search, rows, count, values);
    known = ruv_store_run(connection,
                          "SELECT revision, relevant = $3 AND irrelevant = $4 AND missed_near = $5 "
                          "AND missed_far = $6 AND irrelevant_unseen = $7 "
                          "FROM @.ruvector_feedback WHERE query_id = $1 AND user_id = $2",
                          7, types, values, NULL) > 0;
    if (known && DatumGetBool(ruv_store_value(0, 2, NULL)))
        return RUV_FEEDBACK_UNCHANGED;
    if (known)
        check_revision(search, DatumGetInt32(ruv_store_value(0, 1, NULL)));
    else
        check_rate(connection, caller);
    if (!known && withdrawn)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("no relevant and no irrelevant ids were given"),
                        errdetail("Without ids, former feedback on a search is taken back; this "
                                  "role has given none on search %s.",
                                  ruv_query_id_text(search->query_id))));
    ruv_store_run(connection,
                  "INSERT INTO @.ruvector_feedback AS f (query_id, user_id, relevant, irrelevant, "
                  "missed_near, missed_far, irrelevant_unseen, table_id, index_oid, index_name, "
                  "given_at, pending, revision) "
                  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8::regclass, $9, $10, $11, $12, 1) "
                  "ON CONFLICT (query_id, user_id) DO UPDATE SET relevant = excluded.relevant, "
                  "irrelevant = excluded.irrelevant, missed_near = excluded.missed_near, "
                  "missed_far = excluded.missed_far, "
                  "irrelevant_unseen = excluded.irrelevant_unseen, given_at = excluded.given_at, "
                  "pending = excluded.pending, revision = f.revision + 1",
                  RUV_FEEDBACK_VALUES, types, values, NULL);
    announce_at_commit();
    return withdrawn ? RUV_FEEDBACK_WITHDRAWN
           : known   ? RUV_FEEDBACK_REPLACED
                     : RUV_FEEDBACK_RECORDED;
}

RuvFeedbackStatus
ruv_store_feedback(const RuvJudgedSearch *search, const RuvJudgedRow *rows, int count)
{
    Oid caller = GetUserId();
    RuvFeedbackStatus status;
    RuvStore connection;

    ruv_store_open_or_fail(&connection);
    status = store(&connection, caller, search, rows, count);
    ruv_store_close(&connection);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------- */

RuvJudgedRow *
ruv_load_feedback(const RuvJudgedSearch *search, int *count)
{
    Oid types[2] = {UUIDOID, OIDOID};
    Datum values[2] = {ruv_query_id_datum(search->query_id), ObjectIdGetDatum(GetUserId())};
    MemoryContext context = CurrentMemoryContext;
    RuvJudgedRow *rows = NULL;
    RuvStore store;
    uint64 found;

    ruv_store_open_or_fail(&store);
    found = ruv_store_run(
        &store,
        "SELECT id, good FROM @.ruvector_feedback f, LATERAL ("
        "SELECT unnest(f.relevant || f.missed_near || f.missed_far) AS id, true AS good UNION ALL "
        "SELECT unnest(f.irrelevant || f.irrelevant_unseen), false) r "
        "WHERE f.query_id = $1 AND f.user_id = $2 ORDER BY id",
        2, types, values, NULL);
    if (found > 0)
        rows = MemoryContextAllocZero(context, sizeof(RuvJudgedRow) * found);
    for (uint64 i = 0; i < found; i++) {
        rows[i].id = DatumGetInt64(ruv_store_value(i, 1, NULL));
        rows[i].relevant = DatumGetBool(ruv_store_value(i, 2, NULL));
    }
    ruv_store_close(&store);
    *count = (int)found;
    return rows;
}
