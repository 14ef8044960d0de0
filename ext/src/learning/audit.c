/*
 * audit.c - how far reference searches are from the truth, and exact checks where they stand for
 * it.
 *
 * On a table too large for a pass with every batch, recall is measured against searches of large
 * effort (truth.c), which may miss a neighbour themselves. An audit is a pass over the table all
 * the same: now and then, for the latest searches that were judged that way. It gives
 *   - the recall of the reference searches, run again under the audit's snapshot. Shown in
 *     ruvector_learning_stats(); calibration (plans.c) and drift.c allow for it;
 *   - exact checks of the searches as they were served, which certificates rest on (certificate.c).
 *
 * When: what passes with reference searches took since the last audit is as much as an audit takes,
 * so audits are half of it at most. They run in a transaction of their own, without the bank's
 * lock, since they may take minutes; whatever waits for one ends it: a stronger lock on table or
 * index, ruvector_extract_patterns(), ruvector.audit_pass_limit. Nothing is lost with it but its
 * time.
 *
 * Rows that came after a search count against it, so only searches of the last RUV_AUDIT_AGE_MS are
 * looked at. Those are drawn without regard to what they were, as for any check.
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

/* A search that was judged by a reference search. */
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
    while (audit->searches != NIL &&
           TimestampDifferenceExceeds(((RuvAuditSearch *)linitial(audit->searches))->searched_at,
                                      now, RUV_AUDIT_AGE_MS))
        drop_first(audit);
}

void
ruv_audit_note(RuvIndexState *state, const RuvSample *sample)
{
    RuvAudit *audit = &state->audit;
    MemoryContext former;
    RuvAuditSearch *search;

    if (sample->exact || !sample->even || sample->retrace || sample->recall < 0 ||
        sample->hits == NULL)
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

void
ruv_audit_forget(RuvIndexState *state)
{
    while (state->audit.searches != NIL)
        drop_first(&state->audit);
    memset(&state->audit, 0, sizeof(state->audit));
}

double
ruv_reference_recall(const RuvIndexState *state)
{
    return state->audit.checks > 0 ? state->audit.recall / state->audit.checks : 1.0;
}

/* ---- the pass -------------------------------------------------------------------------------- */

bool
ruv_audit_due(RuvIndexState *state, TimestampTz now)
{
    RuvAudit *audit = &state->audit;

    drop_old(audit, now);
    return ruv_audit_pass_limit > audit->given_up && audit->earned >= audit->cost &&
           list_length(audit->searches) >= RUV_AUDIT_LEAST;
}

/* What a pass looks at while it goes on. */
typedef struct AuditPass {
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
    return !pass->too_long && !ruv_extraction_waits() &&
           !ruv_somebody_waits(pass->table, pass->index);
}

/* NULL: the pass was ended. */
static rv_exact *
true_neighbours(RuvIndexState *state, AuditPass *pass, uint32 *width)
{
    int dim = state->identity.dim;
    int count = list_length(state->audit.searches);
    float *queries = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * dim * count);
    ListCell *cell;

    *width = 1;
    foreach (cell, state->audit.searches) {
        const RuvAuditSearch *search = lfirst(cell);

        memcpy(queries + (Size)foreach_current_index(cell) * dim, search->query,
               sizeof(float) * dim);
        *width = Max(*width, search->k);
    }
    return ruv_exact_pass(pass->table, pass->index, &state->identity, queries, count, *width,
                          pass_goes_on, pass);
}

/* The share of the true neighbours, whose last one is at `last`, that is among these distances. */
static float
recall_of(const float *distances, uint32 count, float last, uint32 found)
{
    uint32 reached = 0;

    for (uint32 i = 0; i < count; i++)
        reached += ruv_reaches(distances[i], last);
    return (float)Min(reached, found) / (float)found;
}

/* What one search says of the reference, and of itself. */
static void
compare(RuvIndexState *state, Relation index, const RuvAuditSearch *search,
        const rv_exact_hit *truth, uint32 found)
{
    rv_hit *hits = palloc(sizeof(rv_hit) * search->k);
    float *distances = palloc(sizeof(float) * search->k);
    float last = truth[found - 1].distance;
    int count = ruv_reference_search(index, search->query, (int)search->k, hits);

    for (int i = 0; i < count; i++)
        distances[i] = hits[i].distance;
    state->audit.checks += 1;
    state->audit.recall += recall_of(distances, (uint32)count, last, found);
    if (search->target > 0)
        ruv_certificate_add(state, search->target, (int)search->k, search->searched_at,
                            recall_of(search->distances, search->count, last, found));
    pfree(distances);
    pfree(hits);
}

static void
compare_all(RuvIndexState *state, Relation index, rv_exact *exact, uint32 width)
{
    rv_exact_hit *truth = palloc(sizeof(*truth) * width);
    ListCell *cell;

    state->audit.checks *= RUV_AUDIT_FADE;
    state->audit.recall *= RUV_AUDIT_FADE;
    foreach (cell, state->audit.searches) {
        const RuvAuditSearch *search = lfirst(cell);
        uint32 found = rv_exact_result(exact, (uint32)foreach_current_index(cell), truth);

        found = Min(found, search->k);
        if (found > 0)
            compare(state, index, search, truth, found);
        ruv_worker_breathe();
    }
    state->audit.changed = true;
}

static void
report_too_long(const RuvIndexState *state)
{
    ereport(LOG,
            (errmsg("the reference searches of index \"%s\" cannot be audited",
                    NameStr(state->index_name)),
             errdetail("A pass over its table takes longer than ruvector.audit_pass_limit, %g s. "
                       "How far recall estimates are off is not known, and no certificate is "
                       "given.",
                       ruv_audit_pass_limit),
             errhint("Raise ruvector.audit_pass_limit.")));
}

static void
audit_relations(RuvIndexState *state, Relation table, Relation index)
{
    AuditPass pass = {.table = table, .index = index, .started = GetCurrentTimestamp()};
    RuvIndexIdentity identity;
    RuvFormerUser former;
    rv_exact *exact;
    uint32 width;

    ruv_index_identity(index, &identity);
    if (identity.epoch != state->identity.epoch) {
        ruv_audit_forget(state);
        return;
    }
    ruv_become_owner(table, &former);
    exact = true_neighbours(state, &pass, &width);
    if (exact != NULL) {
        compare_all(state, index, exact, width);
        rv_exact_destroy(exact);
        while (state->audit.searches != NIL)
            drop_first(&state->audit);
    } else if (pass.too_long) {
        state->audit.given_up = ruv_audit_pass_limit;
        report_too_long(state);
    }
    ruv_resume_user(&former);
}

bool
ruv_audit(RuvIndexState *state)
{
    double started = ruv_processor_seconds();
    Relation table = NULL;
    Relation index = NULL;
    bool opened;

    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    pgstat_report_activity(STATE_RUNNING, psprintf("checking searches of %s against every row",
                                                   NameStr(state->index_name)));
    opened = ruv_worker_open(state, &table, &index);
    if (opened)
        audit_relations(state, table, index);
    if (index != NULL)
        index_close(index, NoLock);
    if (table != NULL)
        table_close(table, NoLock);
    PopActiveSnapshot();
    CommitTransactionCommand();
    pgstat_report_activity(STATE_IDLE, NULL);
    if (!opened)
        return false;
    state->audit.earned = 0;
    state->audit.cost = Max(ruv_processor_seconds() - started, state->audit.cost / 2);
    state->learning_seconds += ruv_processor_seconds() - started;
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
