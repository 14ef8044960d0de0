/*
 * index_states.c - what the worker holds of each index that learns: made from the configuration,
 * loaded from the tables, dropped with the index.
 */
#include "learning/linking.h"
#include "learning/worker.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

RuvIndexState *
ruv_state_find(Oid index_oid)
{
    ListCell *cell;

    foreach (cell, ruv_worker.indexes)
        if (((RuvIndexState *)lfirst(cell))->index_oid == index_oid)
            return lfirst(cell);
    return NULL;
}

void
ruv_state_unload(RuvIndexState *state)
{
    if (state->context != NULL)
        MemoryContextDelete(state->context);
    state->context =
        AllocSetContextCreate(ruv_worker.context, "ruvector index state", ALLOCSET_DEFAULT_SIZES);
    ruv_context_allocator(state->context, &state->allocator);
    state->loaded = false;
    state->bank = NULL;
    state->bank_changed = false;
    state->memory = NULL; /* its memory went with the context */
    state->flat_memory = NULL;
    state->flat_memory_size = 0;
    state->memory_changed = false;
    state->memory_renewed = false;
    state->vectors_stored = false;
    state->plan_count = 0;
    memset(&state->drift, 0, sizeof(state->drift));
    state->plan_changed = false;
    memset(state->served_misses, 0, sizeof(state->served_misses));
    memset(state->predicted_misses, 0, sizeof(state->predicted_misses));
    state->memory_limit = 0;
    state->publish_again = 0;
    state->samples = NIL;
    state->dismissed = NIL;
    state->candidates = NIL;
    memset(&state->linking, 0, sizeof(state->linking));
    state->candidates_seen = 0;
    state->checks = NIL;
    state->falls = NIL;
    memset(&state->audit, 0, sizeof(state->audit));
    state->in_flight = 0;
    state->feedback_waiting = 0;
    state->sampled = 0;
    state->undistilled = 0;
    state->distilled_samples = 0;
}

/* Counts that the tables do not have any more after ruvector_clear_learning(). */
static void
forget_figures(RuvIndexState *state)
{
    state->trajectories = 0;
    state->judged = 0;
    state->learning_seconds = 0;
    state->last_learned = 0;
    state->consolidated = 0;
    memset(&state->running, 0, sizeof(state->running));
    memset(&state->totals, 0, sizeof(state->totals));
}

static void
drop_state(RuvIndexState *state)
{
    ruv_worker.indexes = list_delete_ptr(ruv_worker.indexes, state);
    MemoryContextDelete(state->context);
    pfree(state);
}

void
ruv_state_configure(const RuvIndexState *configured)
{
    RuvIndexState *state = ruv_state_find(configured->index_oid);

    if (state == NULL) {
        MemoryContext former = MemoryContextSwitchTo(ruv_worker.context);

        state = palloc0(sizeof(*state));
        state->index_oid = configured->index_oid;
        ruv_worker.indexes = lappend(ruv_worker.indexes, state);
        MemoryContextSwitchTo(former);
        ruv_state_unload(state);
    }
    state->table_oid = configured->table_oid;
    state->index_name = configured->index_name;
    state->window = configured->window;
    state->learning_rate = configured->learning_rate;
    state->min_samples = configured->min_samples;
    state->keep_queries = configured->keep_queries;
    state->slot = ruv_registry_add(MyDatabaseId, ruv_worker.database_slot, state->table_oid,
                                   state->index_oid);
    state->seen = state->slot != NULL;
    if (state->slot != NULL && state->slot->fresh) {
        ruv_state_unload(state);
        forget_figures(state);
        state->slot->fresh = false;
    }
    if (state->slot == NULL)
        ereport(LOG, (errmsg("index %s cannot learn: %d indexes of this cluster do already, which "
                             "is the limit",
                             NameStr(state->index_name), RUV_MAX_INDEXES)));
}

/* A session that enables learning adds the slots and asks for the configuration to be read in one
 * step: while that is asked for, an index that is not in what was read may have come after it. */
static bool
keep_slot(void *ctx, Oid table_oid, Oid index_oid)
{
    return ruv_shared->databases[ruv_worker.database_slot].sync_requested ||
           ruv_state_find(index_oid) != NULL;
}

void
ruv_states_forget_unseen(void)
{
    List *all = list_copy(ruv_worker.indexes);
    ListCell *cell;

    foreach (cell, all) {
        RuvIndexState *state = lfirst(cell);

        if (!state->seen)
            drop_state(state);
    }
    list_free(all);
    ruv_registry_forget(MyDatabaseId, keep_slot, NULL);
}

/* The build of an index as it is now. False: it is locked (state->locked) or gone. */
static bool
read_identity(RuvIndexState *state, RuvIndexIdentity *identity)
{
    Relation index;
    bool usable;

    state->locked = !ConditionalLockRelationOid(state->index_oid, AccessShareLock);
    if (state->locked)
        return false;
    index = try_relation_open(state->index_oid, NoLock);
    if (index == NULL)
        return false;
    usable = ruv_is_index(index) && index->rd_index->indisvalid;
    if (usable)
        ruv_index_identity(index, identity);
    relation_close(index, NoLock);
    return usable;
}

/* As the planner knows it; -1: never analysed. */
static double
rows_of_table(Oid table_oid)
{
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table_oid));
    double rows = -1;

    if (HeapTupleIsValid(tuple)) {
        rows = ((Form_pg_class)GETSTRUCT(tuple))->reltuples;
        ReleaseSysCache(tuple);
    }
    return rows;
}

bool
ruv_state_refresh(RuvStore *store, RuvIndexState *state)
{
    RuvIndexIdentity identity;

    state->rows = rows_of_table(state->table_oid);
    if (!read_identity(state, &identity))
        return false;
    if (!state->loaded) {
        state->identity = identity;
        state->bank_revision = pg_atomic_read_u64(&state->slot->bank_revision);
        state->linking.resets = pg_atomic_read_u64(&state->slot->links_resets);
        ruv_store_load_state(store, state);
        /* What came after the last round was counted, also where that worker ended or failed. */
        state->trajectories =
            Max(state->trajectories, pg_atomic_read_u64(&state->slot->trajectories));
        if (state->consolidated == 0) /* the first interval begins */
            state->consolidated = GetCurrentTimestamp();
        ruv_totals_load(store, state);
        ruv_audit_load(store, state);
        ruv_costs_load(store, state);
        ruv_store_load_links(store, state);
        ruv_store_load_samples(store, state);
        ruv_links_part_samples(state);
        ruv_store_load_patterns(store, state);
        ruv_store_load_memory(store, state);
        state->vectors_stored = state->vectors_stored || state->flat_memory != NULL;
        ruv_store_load_plans(store, state);
        state->distilled_samples = (uint32)ruv_calibrating_samples(state);
        state->loaded = true;
        ruv_feedback_reread();
    } else if (identity.epoch != state->identity.epoch) {
        ruv_state_start_over(state, &identity);
    } else {
        state->identity = identity; /* storage parameters may have changed */
        ruv_store_follow_patterns(store, state);
    }
    return true;
}
