/*
 * certificate.c - the worker's side of recall certificates: keeping the checks, and acting on them.
 *
 * A check is the recall of one search as it was served, measured against every row of the table. It
 * counts when the search was adaptive (a static one promised nothing), was answered by the present
 * build of the index, and was drawn without regard to what it was (RuvSample.even), so that the
 * checks speak for all searches. The draw goes on at RUV_CHECK_SHARE at least when there is nothing
 * left to learn. On a table where passes are rare the checks come from audits (audit.c).
 *
 * Checks are rows of ruvector_recall_checks, by index, declared target and number of rows taken
 * (k): the last RUV_CHECK_WINDOW of each, for the last RUV_CHECK_GROUPS pairs of target and k of an
 * index. What they say is worked out when somebody asks (certificate_sql.c), and here, after every
 * pass, whether the mean has fallen below the target (engine/certificate.h). Then effort is raised
 * at once (guard.c) and the log says so, once until a later verdict is better. Checks of searches
 * from before the raise say nothing about what is served now: further raises look at later ones
 * only, and once there are RUV_RAISED_CHECKS of these the former go.
 */
#include "learning/worker.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RUV_CHECK_WINDOW 3000
#define RUV_CHECK_GROUPS 32
#define RUV_RAISED_CHECKS 100

/* A check that is not stored yet. */
typedef struct RuvCheck {
    double target;
    int k;
    TimestampTz searched_at;
    float recall;
} RuvCheck;

/* A fall below the target, until enough later searches were checked. */
typedef struct RuvFall {
    double target;
    int k;
    TimestampTz raised_at;
    bool awaiting; /* checks from before raised_at are still there */
} RuvFall;

void
ruv_certificate_add(RuvIndexState *state, double target, int k, TimestampTz searched_at,
                    float recall)
{
    MemoryContext former = MemoryContextSwitchTo(state->context);
    RuvCheck *check = palloc(sizeof(*check));

    /* A float of the ring; what was declared had few digits. */
    check->target = rint(target * 1e6) / 1e6;
    check->k = k;
    check->searched_at = searched_at;
    check->recall = recall;
    state->checks = lappend(state->checks, check);
    MemoryContextSwitchTo(former);
}

void
ruv_certificate_note(RuvIndexState *state, const RuvSample *sample)
{
    if (!sample->even || !sample->exact || sample->retrace || sample->recall < 0 ||
        sample->head.mode != RV_SEARCH_ADAPTIVE || !(sample->head.target_recall > 0))
        return;
    ruv_certificate_add(state, sample->head.target_recall, (int)sample->head.k,
                        sample->head.started_us, sample->recall);
}

void
ruv_certificate_forget(RuvIndexState *state)
{
    list_free_deep(state->checks);
    list_free_deep(state->falls);
    state->checks = NIL;
    state->falls = NIL;
}

/* ---- rows ---------------------------------------------------------------------------------- */

#define GROUP_PARAMETERS 3
#define OF_GROUP "index_oid = $1 AND target_recall = $2 AND k = $3"

typedef struct GroupKey {
    Oid types[GROUP_PARAMETERS + 1];
    Datum values[GROUP_PARAMETERS + 1];
} GroupKey;

/* Parameters $1 to $3 of a statement about one group; $4 is the caller's. */
static GroupKey
group_key(const RuvIndexState *state, double target, int k)
{
    GroupKey key = {{OIDOID, FLOAT8OID, INT4OID}};

    key.values[0] = ObjectIdGetDatum(state->index_oid);
    key.values[1] = Float8GetDatum(target);
    key.values[2] = Int32GetDatum(k);
    return key;
}

static void
insert_checks(RuvStore *store, const RuvIndexState *state)
{
    Oid types[8] = {
        OIDOID,        OIDOID, NAMEOID, INT8OID, FLOAT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID,
        FLOAT4ARRAYOID};
    int count = list_length(state->checks);
    Datum *items[4];
    Datum values[8];
    ListCell *cell;

    for (int i = 0; i < 4; i++)
        items[i] = palloc(sizeof(Datum) * count);
    foreach (cell, state->checks) {
        const RuvCheck *check = lfirst(cell);
        int i = foreach_current_index(cell);

        items[0][i] = Float8GetDatum(check->target);
        items[1][i] = Int32GetDatum(check->k);
        items[2][i] = TimestampTzGetDatum(check->searched_at);
        items[3][i] = Float4GetDatum(check->recall);
    }
    values[0] = ObjectIdGetDatum(state->index_oid);
    values[1] = ObjectIdGetDatum(state->table_oid);
    values[2] = NameGetDatum(&state->index_name);
    values[3] = Int64GetDatum((int64)state->identity.epoch);
    values[4] = PointerGetDatum(
        construct_array(items[0], count, FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
    values[5] = PointerGetDatum(construct_array(items[1], count, INT4OID, 4, true, TYPALIGN_INT));
    values[6] = PointerGetDatum(
        construct_array(items[2], count, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
    values[7] = PointerGetDatum(construct_array(items[3], count, FLOAT4OID, 4, true, TYPALIGN_INT));
    ruv_store_run(store,
                  "INSERT INTO @.ruvector_recall_checks (index_oid, table_id, index_name, "
                  "index_epoch, target_recall, k, searched_at, recall) "
                  "SELECT $1, $2::regclass, $3, $4, t.target, t.k, t.at, t.recall "
                  "FROM unnest($5, $6, $7, $8) AS t(target, k, at, recall)",
                  8, types, values, NULL);
}

/* Checks of a former build, and those beyond the window, oldest first. */
static void
trim_group(RuvStore *store, const RuvIndexState *state, double target, int k)
{
    GroupKey key = group_key(state, target, k);

    key.types[3] = INT8OID;
    key.values[3] = Int64GetDatum((int64)state->identity.epoch);
    ruv_store_run(store,
                  "DELETE FROM @.ruvector_recall_checks WHERE " OF_GROUP " AND index_epoch <> $4",
                  4, key.types, key.values, NULL);
    key.types[3] = INT4OID;
    key.values[3] = Int32GetDatum(RUV_CHECK_WINDOW);
    ruv_store_run(store,
                  "DELETE FROM @.ruvector_recall_checks WHERE " OF_GROUP " AND searched_at < "
                  "(SELECT searched_at FROM @.ruvector_recall_checks WHERE " OF_GROUP
                  " ORDER BY searched_at DESC OFFSET $4 - 1 LIMIT 1)",
                  4, key.types, key.values, NULL);
}

/* Only the pairs of target and k that were checked last stay. */
static void
trim_groups(RuvStore *store, const RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT4OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid), Int32GetDatum(RUV_CHECK_GROUPS)};

    ruv_store_run(store,
                  "DELETE FROM @.ruvector_recall_checks WHERE index_oid = $1 AND "
                  "(target_recall, k) IN (SELECT target_recall, k FROM @.ruvector_recall_checks "
                  "WHERE index_oid = $1 GROUP BY target_recall, k "
                  "ORDER BY max(searched_at) DESC OFFSET $2)",
                  2, types, values, NULL);
}

/* ---- falling below the target -------------------------------------------------------------- */

static RuvFall *
find_fall(const RuvIndexState *state, double target, int k)
{
    ListCell *cell;

    foreach (cell, state->falls) {
        RuvFall *fall = lfirst(cell);

        if (fall->target == target && fall->k == k)
            return fall;
    }
    return NULL;
}

static RuvFall *
add_fall(RuvIndexState *state, double target, int k)
{
    MemoryContext former = MemoryContextSwitchTo(state->context);
    RuvFall *fall = palloc0(sizeof(*fall));

    fall->target = target;
    fall->k = k;
    state->falls = lappend(state->falls, fall);
    MemoryContextSwitchTo(former);
    return fall;
}

/* The checks of a group after a time, in order; returns how many. */
static int
load_group(RuvStore *store, const RuvIndexState *state, double target, int k, TimestampTz after,
           double **recalls)
{
    GroupKey key = group_key(state, target, k);
    uint64 rows;

    key.types[3] = TIMESTAMPTZOID;
    key.values[3] = TimestampTzGetDatum(after);
    rows = ruv_store_run(store,
                         "SELECT recall FROM @.ruvector_recall_checks WHERE " OF_GROUP
                         " AND searched_at > $4 ORDER BY searched_at",
                         4, key.types, key.values, NULL);
    *recalls = palloc(sizeof(double) * Max(rows, 1));
    for (uint64 row = 0; row < rows; row++)
        (*recalls)[row] = DatumGetFloat4(ruv_store_value(row, 1, NULL));
    return (int)rows;
}

/* Once for a fall. reachable: the most that the index can find, the target at most. */
static void
report_fall(const RuvIndexState *state, const RuvFall *fall, const double *recalls, int count,
            double reachable)
{
    rv_certificate seen;
    rv_error err;

    if (rv_certificate_judge(recalls, (size_t)count, fall->target, &seen, &err) != RV_OK)
        return;
    ereport(LOG, (errmsg("the recall of index \"%s\" is below its target: %.4f of %g for %d rows",
                         NameStr(state->index_name), seen.mean, fall->target, fall->k),
                  errdetail("The mean of %d exact checks lies between %.4f and %.4f (95%%).", count,
                            seen.recall.low, seen.recall.high),
                  reachable < fall->target
                      ? errhint("No more than %.4f is in reach of the index: rebuild it with a "
                                "larger m or ef_construction, or declare a lower "
                                "ruvector.target_recall.",
                                reachable)
                      : errhint("ruvector_recall_certificate() shows it; effort is raised.")));
}

static void
forget_former_checks(RuvStore *store, const RuvIndexState *state, const RuvFall *fall)
{
    GroupKey key = group_key(state, fall->target, fall->k);

    key.types[3] = TIMESTAMPTZOID;
    key.values[3] = TimestampTzGetDatum(fall->raised_at);
    ruv_store_run(store,
                  "DELETE FROM @.ruvector_recall_checks WHERE " OF_GROUP " AND searched_at <= $4",
                  4, key.types, key.values, NULL);
}

/* Raises effort when the checks of a group say that it is needed, and may help. */
static void
watch_group(RuvStore *store, RuvIndexState *state, double target, int k)
{
    RuvFall *fall = find_fall(state, target, k);
    double *recalls;
    int count = load_group(store, state, target, k, fall ? fall->raised_at : DT_NOBEGIN, &recalls);
    double reachable = ruv_plan_reachable(state, (uint32)k, target);
    bool below = rv_certificate_below(recalls, (size_t)count, target);

    if (fall != NULL && fall->awaiting && count >= RUV_RAISED_CHECKS) {
        forget_former_checks(store, state, fall);
        fall->awaiting = false;
    }
    if (below) {
        if (fall == NULL) {
            fall = add_fall(state, target, k);
            report_fall(state, fall, recalls, count, reachable);
        }
        if (rv_certificate_below(recalls, (size_t)count, reachable)) {
            fall->raised_at = GetCurrentTimestamp();
            fall->awaiting = true;
            ruv_guard_widen(state, RUV_GUARD_RECALL,
                            psprintf("%d exact checks say that a recall of %.4g is not reached.",
                                     count, reachable));
        }
    } else if (fall != NULL && !fall->awaiting) {
        state->falls = list_delete_ptr(state->falls, fall);
        pfree(fall);
    }
    pfree(recalls);
}

/* ---- once a round -------------------------------------------------------------------------- */

/* True when no earlier check of the list is of the same group. */
static bool
first_of_group(const List *checks, const RuvCheck *check)
{
    ListCell *cell;

    foreach (cell, checks) {
        const RuvCheck *other = lfirst(cell);

        if (other->target == check->target && other->k == check->k)
            return other == check;
    }
    return false;
}

void
ruv_certificate_save(RuvStore *store, RuvIndexState *state)
{
    ListCell *cell;

    if (state->checks == NIL)
        return;
    insert_checks(store, state);
    foreach (cell, state->checks) {
        const RuvCheck *check = lfirst(cell);

        if (first_of_group(state->checks, check)) {
            trim_group(store, state, check->target, check->k);
            watch_group(store, state, check->target, check->k);
        }
    }
    trim_groups(store, state);
    list_free_deep(state->checks);
    state->checks = NIL;
}
