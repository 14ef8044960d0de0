/*
 * audit.c - how far reference searches are from the truth, and exact checks where they stand for
 * it.
 *
 * On a table too large for a pass with every batch, recall is measured against searches of large
 * effort (truth.c), which may miss a neighbour themselves. An audit is a pass over the table all
 * the same: now and then, for the latest searches of those that are judged. It gives
 *   - the recall of the reference searches, run again under the audit's snapshot. Shown in
 *     ruvector_learning_stats(); calibration (plans.c) and drift.c allow for it;
 *   - exact checks of the searches as they were served, which certificates rest on (certificate.c).
 * A reference search found a true neighbour when it found that row: what it returns may be dead, or
 * of a rounded distance. A few checks say little, so what others are told is drawn towards 1 by
 * RUV_AUDIT_PRIOR checks without a miss.
 *
 * When: what passes with reference searches took since the last audit is as much as an audit takes,
 * so audits are half of it at most. They run in a transaction of their own, without the bank's
 * lock, since they may take minutes; whatever waits for one ends it: a stronger lock on table or
 * index, ruvector_extract_patterns(), a change of what learns, ruvector.audit_pass_limit. Its time
 * is lost then, and its searches are not checked.
 *
 * Rows that came after a search count against it, so only searches of the last RUV_AUDIT_AGE_MS are
 * looked at. They are kept as they come out of the ring, whenever their traces are due, and are
 * drawn without regard to what they were, as for any check.
 */
#include "learning/truth.h"
#include "learning/worker.h"

#include "as_owner.h"
#include "index_rows.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "pause.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define RUV_AUDIT_SEARCHES 64
#define RUV_AUDIT_LEAST 8
#define RUV_AUDIT_AGE_MS (10 * 60 * 1000)
/* What earlier audits still say when a further one has ended. */
#define RUV_AUDIT_FADE 0.8
#define RUV_AUDIT_PRIOR 50

/* A search that an audit may look at. */
typedef struct RuvAuditSearch {
    uint32 k;
    double target; /* 0: it promised nothing */
    TimestampTz searched_at;
    float *query;
    float *distances; /* of the rows it returned */
    uint32 count;
} RuvAuditSearch;

/* ---- what is kept for the next one ----------------------------------------------------------- */

static void
free_search(RuvAuditSearch *search)
{
    pfree(search->query);
    pfree(search->distances);
    pfree(search);
}

static void
drop_first(RuvAudit *audit)
{
    free_search(linitial(audit->searches));
    audit->searches = list_delete_first(audit->searches);
}

static void
drop_old(RuvAudit *audit, TimestampTz now)
{
    ListCell *cell;

    foreach (cell, audit->searches) {
        RuvAuditSearch *search = lfirst(cell);

        if (!TimestampDifferenceExceeds(search->searched_at, now, RUV_AUDIT_AGE_MS))
            continue;
        audit->searches = foreach_delete_current(audit->searches, cell);
        free_search(search);
    }
}

void
ruv_audit_note(RuvIndexState *state, const RuvSample *sample)
{
    RuvAudit *audit = &state->audit;
    MemoryContext former;
    RuvAuditSearch *search;

    /* Before the first reference search nothing is known to need an audit. */
    if (audit->cost <= 0 || !sample->even || sample->retrace || sample->hits == NULL)
        return;
    former = MemoryContextSwitchTo(state->context);
    if (list_length(audit->searches) == RUV_AUDIT_SEARCHES)
        drop_first(audit);
    search = palloc(sizeof(*search));
    search->k = sample->head.k;
    search->target = sample->head.mode == RV_SEARCH_ADAPTIVE ? sample->head.target_recall : 0;
    search->searched_at = sample->head.started_us;
    search->query = palloc(sizeof(float) * state->identity.dim);
    memcpy(search->query, sample->query, sizeof(float) * state->identity.dim);
    search->count = sample->head.result_count;
    search->distances = palloc(sizeof(float) * Max(search->count, 1));
    for (uint32 i = 0; i < search->count; i++)
        search->distances[i] = sample->hits[i].distance;
    audit->searches = lappend(audit->searches, search);
    MemoryContextSwitchTo(former);
}

void
ruv_audit_earn(RuvIndexState *state, Relation table, double seconds)
{
    RuvAudit *audit = &state->audit;

    audit->earned += seconds;
    if (audit->cost <= 0)
        audit->cost = ruv_pass_seconds(table, state->identity.dim, RUV_AUDIT_SEARCHES);
}

static void
drop_all(List *searches)
{
    ListCell *cell;

    foreach (cell, searches)
        free_search(lfirst(cell));
    list_free(searches);
}

void
ruv_audit_forget(RuvIndexState *state)
{
    drop_all(state->audit.searches);
    memset(&state->audit, 0, sizeof(state->audit));
}

double
ruv_reference_recall(const RuvIndexState *state)
{
    return (state->audit.recall + RUV_AUDIT_PRIOR) / (state->audit.checks + RUV_AUDIT_PRIOR);
}

double
ruv_true_recall(const RuvIndexState *state, const RuvSample *sample)
{
    return sample->exact ? sample->recall : sample->recall * ruv_reference_recall(state);
}

/* ---- the pass -------------------------------------------------------------------------------- */

bool
ruv_audit_due(RuvIndexState *state, TimestampTz now)
{
    RuvAudit *audit = &state->audit;

    drop_old(audit, now);
    return ruv_audit_pass_limit > audit->given_up && audit->earned >= audit->cost &&
           list_length(audit->searches) >= RUV_AUDIT_LEAST && !ruv_extraction_waits();
}

/* An audit under way. Meanwhile the ring is drained, and searches come for the next one. */
typedef struct AuditPass {
    List *searches;
    Relation table;
    Relation index;
    TimestampTz started;
    bool too_long;
} AuditPass;

static bool
pass_goes_on(void *ctx)
{
    AuditPass *pass = ctx;

    RUV_PAUSE("ruvector-audit");
    pass->too_long = TimestampDifferenceExceeds(pass->started, GetCurrentTimestamp(),
                                                (int)(ruv_audit_pass_limit * 1000));
    /* Who waits for everything to be learned asks for the configuration to be read, too. */
    return !pass->too_long && !ruv_configuration_waits() &&
           !ruv_somebody_waits(pass->table, pass->index);
}

/* NULL: the pass was ended. */
static rv_exact *
true_neighbours(RuvIndexState *state, AuditPass *pass, uint32 *width)
{
    int dim = state->identity.dim;
    int count = list_length(pass->searches);
    float *queries = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * dim * count);
    ListCell *cell;

    *width = 1;
    foreach (cell, pass->searches) {
        const RuvAuditSearch *search = lfirst(cell);

        memcpy(queries + (Size)foreach_current_index(cell) * dim, search->query,
               sizeof(float) * dim);
        *width = Max(*width, search->k);
    }
    return ruv_exact_pass(pass->table, pass->index, &state->identity, queries, count, *width,
                          pass_goes_on, pass);
}

/* Share of the true neighbours that a search returned: by distance, as every served search is
 * judged. */
static float
served_recall(const RuvAuditSearch *search, const rv_exact_hit *truth, uint32 found)
{
    uint32 reached = 0;

    for (uint32 i = 0; i < search->count; i++)
        reached += ruv_reaches(search->distances[i], truth[found - 1].distance);
    return (float)Min(reached, found) / (float)found;
}

/* Share of the true neighbours among the hits: these rows, or others as far as the last of them. */
static double
reference_recall(const rv_hit *hits, int count, const rv_exact_hit *truth, uint32 found)
{
    float last = truth[found - 1].distance;
    uint32 reached = 0;

    for (int i = 0; i < count; i++) {
        bool same = ruv_reaches(hits[i].distance, last) && ruv_reaches(last, hits[i].distance);

        for (uint32 j = 0; !same && j < found; j++)
            same = hits[i].id == truth[j].id;
        reached += same;
    }
    return (double)Min(reached, found) / found;
}

/* What one search says of the reference, and of itself. */
static void
compare(RuvIndexState *state, Relation index, const RuvAuditSearch *search,
        const rv_exact_hit *truth, uint32 found)
{
    rv_hit *hits = palloc(sizeof(rv_hit) * search->k);
    int count = ruv_reference_search(index, search->query, (int)search->k, hits);

    state->audit.checks += 1;
    state->audit.recall += reference_recall(hits, count, truth, found);
    if (search->target > 0)
        ruv_certificate_add(state, search->target, (int)search->k, search->searched_at,
                            served_recall(search, truth, found));
    pfree(hits);
}

static void
compare_all(RuvIndexState *state, const AuditPass *pass, rv_exact *exact, uint32 width)
{
    rv_exact_hit *truth = palloc(sizeof(*truth) * width);
    ListCell *cell;

    state->audit.checks *= RUV_AUDIT_FADE;
    state->audit.recall *= RUV_AUDIT_FADE;
    foreach (cell, pass->searches) {
        const RuvAuditSearch *search = lfirst(cell);
        uint32 found = rv_exact_result(exact, (uint32)foreach_current_index(cell), truth);

        found = Min(found, search->k);
        if (found > 0)
            compare(state, pass->index, search, truth, found);
        ruv_worker_breathe();
    }
    state->audit.changed = true;
}

static void
give_up(RuvIndexState *state)
{
    state->audit.given_up = ruv_audit_pass_limit;
    ereport(LOG,
            (errmsg("the reference searches of index \"%s\" cannot be audited",
                    NameStr(state->index_name)),
             errdetail("A pass over its table takes longer than ruvector.audit_pass_limit, %g s. "
                       "How far recall estimates are off is not known, and no certificate is "
                       "given.",
                       ruv_audit_pass_limit),
             errhint("Raise ruvector.audit_pass_limit.")));
}

/* False: the pass was ended. */
static bool
audit_relations(RuvIndexState *state, Relation table, Relation index)
{
    AuditPass pass = {.searches = state->audit.searches,
                      .table = table,
                      .index = index,
                      .started = GetCurrentTimestamp()};
    RuvIndexIdentity identity;
    RuvFormerUser former;
    rv_exact *exact;
    uint32 width;

    ruv_index_identity(index, &identity);
    if (identity.epoch != state->identity.epoch) {
        ruv_audit_forget(state);
        return true;
    }
    state->audit.searches = NIL;
    ruv_become_owner(table, &former);
    exact = true_neighbours(state, &pass, &width);
    if (exact != NULL) {
        compare_all(state, &pass, exact, width);
        rv_exact_destroy(exact);
    } else if (pass.too_long) {
        give_up(state);
    }
    ruv_resume_user(&former);
    drop_all(pass.searches);
    return exact != NULL;
}

/* Afterwards it has cost that much, and so will the next. One that was ended says less of what one
 * costs, and leaves what is over. */
static void
account(RuvAudit *audit, double seconds, bool complete)
{
    audit->cost = complete ? seconds : Max(audit->cost, seconds);
    audit->earned = complete ? 0 : Max(audit->earned - seconds, 0);
}

bool
ruv_audit(RuvIndexState *state)
{
    double started = ruv_processor_seconds();
    Relation table = NULL;
    Relation index = NULL;
    bool complete = false;
    double seconds;
    bool opened;

    if (state->audit.cost > ruv_audit_pass_limit) {
        give_up(state);
        return false;
    }
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    pgstat_report_activity(STATE_RUNNING, psprintf("checking searches of %s against every row",
                                                   NameStr(state->index_name)));
    opened = ruv_worker_open(state, &table, &index);
    if (opened)
        complete = audit_relations(state, table, index);
    if (index != NULL)
        index_close(index, NoLock);
    if (table != NULL)
        table_close(table, NoLock);
    PopActiveSnapshot();
    CommitTransactionCommand();
    pgstat_report_activity(STATE_IDLE, NULL);
    if (!opened)
        return false;
    seconds = ruv_processor_seconds() - started;
    account(&state->audit, seconds, complete);
    state->learning_seconds += seconds;
    return true;
}

/* ---- its figures ----------------------------------------------------------------------------- */

void
ruv_audit_load(RuvStore *store, RuvIndexState *state)
{
    Oid types[2] = {OIDOID, INT8OID};
    Datum values[2] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch)};

    if (ruv_store_run(store,
                      "SELECT reference_checks, reference_recall FROM @.ruvector_index_state "
                      "WHERE index_oid = $1 AND reference_epoch = $2",
                      2, types, values, NULL) == 0)
        return;
    state->audit.checks = DatumGetFloat8(ruv_store_value(0, 1, NULL));
    state->audit.recall = DatumGetFloat8(ruv_store_value(0, 2, NULL));
}

void
ruv_audit_save(RuvStore *store, RuvIndexState *state)
{
    Oid types[4] = {OIDOID, INT8OID, FLOAT8OID, FLOAT8OID};
    Datum values[4] = {ObjectIdGetDatum(state->index_oid),
                       Int64GetDatum((int64)state->identity.epoch),
                       Float8GetDatum(state->audit.checks), Float8GetDatum(state->audit.recall)};

    if (!state->audit.changed)
        return;
    ruv_store_run(store,
                  "UPDATE @.ruvector_index_state SET reference_epoch = $2, reference_checks = $3, "
                  "reference_recall = $4 WHERE index_oid = $1",
                  4, types, values, NULL);
    state->audit.changed = false;
}
