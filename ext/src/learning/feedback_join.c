/*
 * feedback_join.c - the worker's side of feedback: from rows to samples, verdicts and weights.
 *
 * A row of ruvector_feedback is pending until the verdict that knows of it is stored. The worker
 * reads the pending rows when somebody has committed one, when it has loaded an index anew, and
 * once a minute. Nothing that it does with a row is lost by an error or a crash: the row is still
 * pending then, and joining it again has the same effect.
 *
 *   the search waits for its trace    its verdict will know of the feedback
 *   it was traced                     it is judged again, with what was measured then
 *   it was not sampled                its record is looked up in the ring; it is traced first
 *   it is gone                        the row is settled: nothing can be learned from it
 *
 * Roles that judge the same search are counted together: of a returned row on which they disagree
 * the share of votes counts as relevant, the rest as irrelevant. That a row was missed is measured,
 * not voted upon. Its weight in a calibration comes out of the share of the role that was first.
 *
 * A row may be locked by a session that has not committed; the worker then leaves it pending rather
 * than wait. A row that changed since it was read stays pending, too: its revision tells.
 */
#include "learning/feedback.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Searches joined in one go, and those among them that wait for a trace they were not drawn for. */
#define RUV_JOIN_LIMIT 1024
#define RUV_MAX_EXTRA_CANDIDATES 256
#define RUV_LOOK_AGAIN_MS (60 * 1000)
/* Feedback that nothing is learned from any more is kept this long, for refined queries. */
#define RUV_CLEAN_MS (10 * 60 * 1000)
#define RUV_KEEP_SETTLED "1 hour"

typedef struct PendingFeedback {
    uint64 query_id[2];
    Oid index_oid;
    RuvSampleFeedback figures;
} PendingFeedback;

typedef enum JoinResult {
    JOINED,
    LATER, /* too many wait already, or the index is not loaded */
    GONE
} JoinResult;

static uint64 feedback_seen = 0;
static bool unread = true; /* whatever feedback_seen says */
static TimestampTz last_look = 0;
static TimestampTz last_clean = 0;

/* ---- when ---------------------------------------------------------------------------------- */

static uint64
feedback_given(void)
{
    uint64 given;

    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    given = ruv_shared->databases[ruv_worker.database_slot].feedback_given;
    LWLockRelease(ruv_shared->lock);
    return given;
}

bool
ruv_feedback_due(TimestampTz now)
{
    return unread || feedback_given() != feedback_seen ||
           TimestampDifferenceExceeds(last_look, now, RUV_LOOK_AGAIN_MS);
}

bool
ruv_feedback_left(void)
{
    return unread;
}

void
ruv_feedback_reread(void)
{
    unread = true;
}

/* ---- reading ------------------------------------------------------------------------------- */

#define PENDING_QUERY                                                                              \
    "WITH waiting AS (SELECT query_id FROM @.ruvector_feedback WHERE pending "                     \
    "GROUP BY query_id ORDER BY min(given_at) LIMIT $1), "                                         \
    "given AS (SELECT f.* FROM @.ruvector_feedback f JOIN waiting USING (query_id)), "             \
    "votes AS (SELECT g.query_id, r.place, r.id, avg(r.good) AS share FROM given g, LATERAL ("     \
    "SELECT 's' AS place, unnest(g.relevant) AS id, 1.0::float8 AS good UNION ALL "                \
    "SELECT 's', unnest(g.irrelevant), 0.0 UNION ALL "                                             \
    "SELECT 'n', unnest(g.missed_near), 1.0 UNION ALL "                                            \
    "SELECT 'f', unnest(g.missed_far), 1.0) r GROUP BY 1, 2, 3), "                                 \
    "figures AS (SELECT query_id, sum(share) FILTER (WHERE place = 's') AS relevant, "             \
    "sum(1 - share) FILTER (WHERE place = 's') AS irrelevant, "                                    \
    "count(*) FILTER (WHERE place = 'n') AS missed_near, "                                         \
    "count(*) FILTER (WHERE place = 'f') AS missed_far FROM votes GROUP BY query_id), "            \
    "givers AS (SELECT query_id, max(index_oid) AS index_oid, "                                    \
    "array_agg(user_id ORDER BY given_at, user_id) AS roles, "                                     \
    "array_agg(revision ORDER BY given_at, user_id) AS revisions FROM given GROUP BY query_id) "   \
    "SELECT query_id, index_oid, roles, revisions, roles[1], coalesce(relevant, 0)::float4, "      \
    "coalesce(irrelevant, 0)::float4, coalesce(missed_near, 0)::float4, "                          \
    "coalesce(missed_far, 0)::float4 FROM givers LEFT JOIN figures USING (query_id)"

static ArrayType *
array_copy(uint64 row, int column, MemoryContext context)
{
    ArrayType *array = DatumGetArrayTypeP(ruv_store_value(row, column, NULL));

    return memcpy(MemoryContextAlloc(context, VARSIZE(array)), array, VARSIZE(array));
}

static void
read_pending(uint64 row, PendingFeedback *pending, MemoryContext context)
{
    RuvSampleFeedback *figures = &pending->figures;

    memset(pending, 0, sizeof(*pending));
    ruv_query_id_halves(ruv_store_value(row, 1, NULL), pending->query_id);
    pending->index_oid = DatumGetObjectId(ruv_store_value(row, 2, NULL));
    figures->roles = array_copy(row, 3, context);
    figures->revisions = array_copy(row, 4, context);
    figures->role = DatumGetObjectId(ruv_store_value(row, 5, NULL));
    figures->relevant = DatumGetFloat4(ruv_store_value(row, 6, NULL));
    figures->irrelevant = DatumGetFloat4(ruv_store_value(row, 7, NULL));
    figures->missed_near = DatumGetFloat4(ruv_store_value(row, 8, NULL));
    figures->missed_far = DatumGetFloat4(ruv_store_value(row, 9, NULL));
}

static PendingFeedback *
read_all_pending(RuvStore *store, int *count, MemoryContext context)
{
    Oid types[1] = {INT4OID};
    Datum values[1] = {Int32GetDatum(RUV_JOIN_LIMIT)};
    uint64 rows = ruv_store_run(store, PENDING_QUERY, 1, types, values, NULL);
    PendingFeedback *pending = MemoryContextAlloc(context, sizeof(PendingFeedback) * Max(rows, 1));

    for (uint64 row = 0; row < rows; row++)
        read_pending(row, &pending[row], context);
    *count = (int)rows;
    return pending;
}

/* ---- joining ------------------------------------------------------------------------------- */

static RuvSample *
find_sample(const List *samples, const uint64 *query_id)
{
    ListCell *cell;

    foreach (cell, samples) {
        RuvSample *sample = lfirst(cell);

        if (sample->head.query_id[0] == query_id[0] && sample->head.query_id[1] == query_id[1])
            return sample;
    }
    return NULL;
}

static void
give_feedback(RuvIndexState *state, RuvSample *sample, const PendingFeedback *pending)
{
    RuvSampleFeedback *copy = MemoryContextAlloc(state->context, sizeof(*copy));
    const RuvSampleFeedback *from = &pending->figures;

    *copy = *from;
    copy->roles = memcpy(MemoryContextAlloc(state->context, VARSIZE(from->roles)), from->roles,
                         VARSIZE(from->roles));
    copy->revisions = memcpy(MemoryContextAlloc(state->context, VARSIZE(from->revisions)),
                             from->revisions, VARSIZE(from->revisions));
    if (sample->feedback != NULL)
        ruv_feedback_free(sample->feedback);
    sample->feedback = copy;
}

static int
count_extra_candidates(const RuvIndexState *state)
{
    int extra = 0;
    ListCell *cell;

    foreach (cell, state->candidates) {
        const RuvSample *sample = lfirst(cell);

        extra += !sample->drawn && sample->feedback != NULL;
    }
    return extra;
}

/* A search that nobody drew: from the ring to the head of the queue. */
static JoinResult
sample_from_ring(RuvIndexState *state, const PendingFeedback *pending)
{
    const rv_trajectory *head;
    const float *query;
    const rv_hit *hits;
    RuvSample *sample;
    MemoryContext former;
    size_t size;

    if (!ruv_find_recorded(pending->query_id, ruv_worker.record, ruv_worker.record_capacity,
                           &size) ||
        rv_trajectory_view(ruv_worker.record, size, &head, &query, &hits, NULL) != RV_OK ||
        head->index_oid != state->index_oid || head->dim != (uint32)state->identity.dim ||
        head->k > RV_TRAJECTORY_MAX_HITS)
        return GONE;
    if (count_extra_candidates(state) >= RUV_MAX_EXTRA_CANDIDATES)
        return LATER;
    sample = ruv_sample_create(state, head, query, hits);
    sample->retrace = head->index_epoch != state->identity.epoch;
    give_feedback(state, sample, pending);
    former = MemoryContextSwitchTo(state->context);
    state->candidates = lcons(sample, state->candidates);
    MemoryContextSwitchTo(former);
    return JOINED;
}

static JoinResult
join(const PendingFeedback *pending)
{
    RuvIndexState *state = ruv_state_find(pending->index_oid);
    RuvSample *sample;

    if (state == NULL || !state->loaded)
        return LATER;
    sample = find_sample(state->candidates, pending->query_id);
    if (sample != NULL) {
        sample->for_links = false; /* now it is looked at for what feedback says of it */
        give_feedback(state, sample, pending);
        return JOINED;
    }
    sample = find_sample(state->samples, pending->query_id);
    if (sample == NULL)
        return sample_from_ring(state, pending);
    give_feedback(state, sample, pending);
    state->feedback_waiting++;
    return JOINED;
}

/* ---- settling ------------------------------------------------------------------------------ */

/* These revisions of these roles' rows need no further look. */
static void
settle(RuvStore *store, const uint64 *query_id, ArrayType *roles, ArrayType *revisions)
{
    Oid types[3] = {UUIDOID, OIDARRAYOID, INT4ARRAYOID};
    Datum values[3] = {ruv_query_id_datum(query_id), PointerGetDatum(roles),
                       PointerGetDatum(revisions)};

    ruv_store_run(store,
                  "UPDATE @.ruvector_feedback f SET pending = false FROM ("
                  "SELECT r.query_id, r.user_id, r.revision FROM @.ruvector_feedback r "
                  "WHERE r.query_id = $1 AND r.pending "
                  "AND (r.user_id, r.revision) IN (SELECT * FROM unnest($2, $3)) "
                  "FOR UPDATE OF r SKIP LOCKED) s WHERE f.query_id = s.query_id "
                  "AND f.user_id = s.user_id AND f.revision = s.revision",
                  3, types, values, NULL);
}

/* Settled rows whose search is stored no longer, once they are old. */
static void
clean(RuvStore *store)
{
    TimestampTz now = GetCurrentTimestamp();

    if (!TimestampDifferenceExceeds(last_clean, now, RUV_CLEAN_MS))
        return;
    last_clean = now;
    ruv_store_run(store,
                  "DELETE FROM @.ruvector_feedback f WHERE NOT f.pending "
                  "AND f.given_at < now() - interval '" RUV_KEEP_SETTLED "' AND NOT EXISTS ("
                  "SELECT FROM @.ruvector_trajectory_log t WHERE t.query_id = f.query_id)",
                  0, NULL, NULL, NULL);
}

static bool
join_all(RuvStore *store, MemoryContext context)
{
    int count;
    PendingFeedback *pending = read_all_pending(store, &count, context);
    bool all = count < RUV_JOIN_LIMIT;

    /* What was pushed before its feedback was given is drawn, or not, before it is looked for. */
    ruv_worker_drain();
    for (int i = 0; i < count; i++) {
        JoinResult result = join(&pending[i]);

        if (result == GONE)
            settle(store, pending[i].query_id, pending[i].figures.roles,
                   pending[i].figures.revisions);
        all = all && result != LATER;
    }
    clean(store);
    return all;
}

void
ruv_feedback_join(void)
{
    uint64 given = feedback_given();
    MemoryContext context =
        AllocSetContextCreate(ruv_worker.context, "ruvector feedback", ALLOCSET_DEFAULT_SIZES);
    RuvStore store;

    unread = false;
    last_look = GetCurrentTimestamp();
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    if (ruv_store_open(&store)) {
        unread = !join_all(&store, context);
        ruv_store_close(&store);
    }
    PopActiveSnapshot();
    CommitTransactionCommand();
    feedback_seen = given;
    MemoryContextSwitchTo(ruv_worker.context);
    MemoryContextDelete(context);
}

/* ---- storing ------------------------------------------------------------------------------- */

#define VERDICT_COLUMNS 13

static void
save_verdict(RuvStore *store, const RuvSample *sample)
{
    const rv_judgement *verdict = &sample->verdict;
    const RuvSampleFeedback *feedback = sample->feedback;
    Oid types[VERDICT_COLUMNS] = {UUIDOID,   BOOLOID,   FLOAT4OID,    FLOAT4OID, FLOAT4OID,
                                  FLOAT4OID, FLOAT4OID, TEXTARRAYOID, FLOAT4OID, FLOAT4OID,
                                  FLOAT4OID, FLOAT4OID, OIDOID};
    Datum values[VERDICT_COLUMNS] = {ruv_query_id_datum(sample->head.query_id),
                                     BoolGetDatum(verdict->success),
                                     Float4GetDatum((float)verdict->confidence),
                                     Float4GetDatum((float)verdict->score_latency),
                                     Float4GetDatum((float)verdict->score_recall),
                                     Float4GetDatum((float)verdict->score_diversity),
                                     Float4GetDatum((float)verdict->score_feedback),
                                     ruv_recommendations_datum(verdict),
                                     Float4GetDatum(feedback->relevant),
                                     Float4GetDatum(feedback->irrelevant),
                                     Float4GetDatum(feedback->missed_near),
                                     Float4GetDatum(feedback->missed_far),
                                     ObjectIdGetDatum(feedback->role)};

    ruv_store_run(store,
                  "UPDATE @.ruvector_trajectory_log SET success = $2, confidence = $3, "
                  "score_latency = nullif($4, -1), score_recall = nullif($5, -1), "
                  "score_diversity = nullif($6, -1), score_feedback = nullif($7, -1), "
                  "recommendations = $8, feedback_relevant = $9, feedback_irrelevant = $10, "
                  "feedback_missed_near = $11, feedback_missed_far = $12, feedback_role = $13 "
                  "WHERE query_id = $1",
                  VERDICT_COLUMNS, types, values, NULL);
}

void
ruv_feedback_save(RuvStore *store, const RuvIndexState *state)
{
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        if (sample->feedback == NULL || !sample->feedback->judged || sample->feedback->stored)
            continue;
        save_verdict(store, sample);
        settle(store, sample->head.query_id, sample->feedback->roles, sample->feedback->revisions);
    }
}
