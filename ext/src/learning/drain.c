/*
 * drain.c - the worker's end of the ring: each record to the index that it is about.
 *
 * The first searches after learning was enabled are in the ring before the worker has read that it
 * was. Their records wait, in memory, until the configuration has been read; what no index claims
 * then belongs to none that learns, and is dropped. On a standby, which learns nothing, the ring is
 * emptied and forgotten.
 */
#include "learning/worker.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RUV_BREATHE_MS 50

/* Records that wait for their index to be loaded; further ones are dropped. */
#define RUV_MAX_PARKED 1024

typedef struct ParkedRecord {
    size_t size;
    char bytes[FLEXIBLE_ARRAY_MEMBER] pg_attribute_aligned(8);
} ParkedRecord;

static List *parked_records = NIL;

/* Learning was cleared and enabled again, of which the worker has not read yet: what it holds is
 * void, but the searches that come now count. */
static bool
begun_anew(const RuvIndexState *state)
{
    return state->slot != NULL &&
           (state->slot->fresh || state->slot->index_oid != state->index_oid);
}

/* False: of an index of this database that is not loaded, perhaps not yet. */
static bool
observe(const char *record, size_t size)
{
    const rv_trajectory *head;
    const float *query;
    const rv_hit *hits;
    RuvIndexState *state;

    if (rv_trajectory_view(record, size, &head, &query, &hits, NULL) != RV_OK ||
        head->database_oid != MyDatabaseId)
        return true;
    state = ruv_state_find(head->index_oid);
    if (state == NULL || !state->loaded || begun_anew(state))
        return false;
    ruv_state_observe(state, head, query, hits);
    return true;
}

/* A record that came before its index was loaded: learning was enabled a moment ago. It waits for
 * the configuration to be read. */
static void
park(const char *record, size_t size)
{
    MemoryContext former = MemoryContextSwitchTo(ruv_worker.context);
    ParkedRecord *parked;

    if (list_length(parked_records) < RUV_MAX_PARKED) {
        parked = palloc(offsetof(ParkedRecord, bytes) + size);
        parked->size = size;
        memcpy(parked->bytes, record, size);
        parked_records = lappend(parked_records, parked);
    }
    ruv_worker.stale = true;
    MemoryContextSwitchTo(former);
}

void
ruv_observe_parked(bool wait)
{
    List *waiting = parked_records;
    ListCell *cell;

    parked_records = NIL;
    foreach (cell, waiting) {
        ParkedRecord *parked = lfirst(cell);

        if (!observe(parked->bytes, parked->size) && wait)
            park(parked->bytes, parked->size);
    }
    list_free_deep(waiting);
}

void
ruv_worker_drain(void)
{
    size_t size;
    bool standby = RecoveryInProgress();
    ListCell *cell;

    ruv_worker.last_drain = GetCurrentTimestamp();
    while (rv_ring_pop(ruv_worker.ring, ruv_worker.record, ruv_worker.record_capacity, &size) ==
           RV_OK)
        if (!standby && !observe(ruv_worker.record, size))
            park(ruv_worker.record, size);
    foreach (cell, ruv_worker.indexes)
        if (((RuvIndexState *)lfirst(cell))->loaded)
            ruv_state_publish_figures(lfirst(cell));
}

void
ruv_worker_breathe(void)
{
    CHECK_FOR_INTERRUPTS();
    if (TimestampDifferenceExceeds(ruv_worker.last_drain, GetCurrentTimestamp(), RUV_BREATHE_MS))
        ruv_worker_drain();
}
