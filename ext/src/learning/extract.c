/*
 * extract.c - the worker's side of ruvector_extract_patterns(): everything that was recorded and
 * said is learned before the caller gets an answer, whatever the budget and the pauses between
 * rounds say; or the caller gets to know that it could not be.
 *
 * What may be in the way
 *   a lock    on the table, the index or its bank. The worker waits for no lock, so it tries again
 *             until RUV_EXTRACT_PATIENCE_MS have passed since the first try. Not longer: the lock
 *             may be the caller's own.
 *   an error  of the index's round. It is not tried again for the same caller.
 *
 * Settings and configuration that were there when the function was called are read first. The
 * outcome stands in the index's slot before the ticket is given back; the caller reads it there
 * (registry.c). Locks: see shmem.c.
 */
#include "learning/worker.h"

#include "utils/timestamp.h"

#define RUV_EXTRACT_PATIENCE_MS 5000
#define RUV_EXTRACT_RETRY_MS 20

static uint64 present_ticket = 0; /* what is being worked at; 0: nothing */
static TimestampTz first_try = 0;

static RuvDatabaseSlot *
my_slot(void)
{
    return &ruv_shared->databases[ruv_worker.database_slot];
}

/* The latest ticket that waits for an answer; 0: none does. */
static uint64
waiting_ticket(void)
{
    uint64 ticket;

    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    ticket = my_slot()->extract_requested;
    if (ticket == my_slot()->extract_done)
        ticket = 0;
    LWLockRelease(ruv_shared->lock);
    return ticket;
}

bool
ruv_extraction_waits(void)
{
    return waiting_ticket() != 0;
}

/* Rounds of one index until nothing is due, or one cannot take place. True: at least one did. */
static bool
learn_index_now(RuvIndexState *state)
{
    bool worked = false;

    while (state->loaded && state->failed_ticket != present_ticket &&
           ruv_learn_due(state, GetCurrentTimestamp(), true)) {
        bool done = ruv_worker_learn(state, true);

        if (state->consecutive_errors > 0)
            state->failed_ticket = present_ticket;
        if (!done)
            break;
        worked = true;
    }
    return worked;
}

/* Feedback that had no room to wait is joined once other feedback has been learned. What comes in
 * meanwhile is not waited for, or a busy server would never answer. */
static void
learn_all_now(void)
{
    bool worked;

    do {
        ListCell *cell;

        worked = false;
        ruv_worker_drain();
        if (ruv_feedback_due(GetCurrentTimestamp()))
            ruv_feedback_join();
        foreach (cell, ruv_worker.indexes)
            worked = learn_index_now(lfirst(cell)) || worked;
    } while (worked && ruv_feedback_left());
}

static RuvExtraction
outcome_of(RuvIndexState *state)
{
    if (state->failed_ticket == present_ticket)
        return RUV_EXTRACTION_FAILED;
    /* Not loaded, though nobody holds it: no index that could be searched. */
    if (state->loaded ? ruv_learn_due(state, GetCurrentTimestamp(), true) : state->locked)
        return RUV_EXTRACTION_BLOCKED;
    return RUV_EXTRACTION_COMPLETE;
}

static bool
anything_blocked(void)
{
    ListCell *cell;

    foreach (cell, ruv_worker.indexes)
        if (outcome_of(lfirst(cell)) == RUV_EXTRACTION_BLOCKED)
            return true;
    return false;
}

static void
answer(void)
{
    ListCell *cell;

    foreach (cell, ruv_worker.indexes) {
        RuvIndexState *state = lfirst(cell);

        state->extraction = outcome_of(state);
    }
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    foreach (cell, ruv_worker.indexes) {
        const RuvIndexState *state = lfirst(cell);

        if (state->slot != NULL && state->slot->index_oid == state->index_oid)
            state->slot->extraction = state->extraction;
    }
    my_slot()->extract_done = present_ticket;
    LWLockRelease(ruv_shared->lock);
    ConditionVariableBroadcast(&ruv_shared->worker_changed);
    present_ticket = 0;
}

long
ruv_extract_now(void)
{
    uint64 ticket = waiting_ticket();
    TimestampTz now = GetCurrentTimestamp();

    if (ticket == 0)
        return RUV_EXTRACT_IDLE;
    if (present_ticket == 0)
        first_try = now;
    if (present_ticket != ticket)
        ruv_worker.extract_until = now;
    present_ticket = ticket;
    if (!ruv_worker_follow_configuration())
        return RUV_EXTRACT_RETRY_MS; /* the worker retires, which answers, too */
    learn_all_now();
    if (anything_blocked() &&
        !TimestampDifferenceExceeds(first_try, GetCurrentTimestamp(), RUV_EXTRACT_PATIENCE_MS))
        return RUV_EXTRACT_RETRY_MS;
    answer();
    return RUV_EXTRACT_IDLE;
}
