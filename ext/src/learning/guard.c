/*
 * guard.c - more effort at once, when what was learned may not hold any more.
 *
 * A calibration speaks of the rows and the queries it was made from. When there is evidence that
 * either has changed, or that recall is short of what was declared, re-learning takes a while; the
 * guard acts before it. It is one word in the index's slot of shared memory: a factor on
 * log(1 + slack), and a reason. Every search reads it (optimizer.c), so a change needs no new bank
 * and no lock.
 *
 * Each further widening multiplies the factor by RUV_GUARD_STEP, up to RUV_GUARD_MOST, but not
 * before RUV_GUARD_TRIAL searches were judged that came after the last one: several checks may find
 * the same evidence, and what a widening does must be seen before it is found too little. The guard
 * is lifted when a calibration was made from enough searches that came after the widening
 * (RUV_GUARD_EVIDENCE, or min_samples if that is less); then the calibration itself knows.
 *
 * The word outlives the worker, not the server: after a restart of the server the checks that
 * widened it find the same evidence again.
 */
#include "learning/worker.h"

#include "utils/timestamp.h"

#define RUV_GUARD_STEP 1.5f
#define RUV_GUARD_MOST 3.0f
#define RUV_GUARD_TRIAL 30
#define RUV_GUARD_EVIDENCE 100

const char *
ruv_guard_reason_name(RuvGuardReason reason)
{
    switch (reason) {
        case RUV_GUARD_NONE:
            return NULL;
        case RUV_GUARD_RECALL:
            return "recall below target";
        case RUV_GUARD_QUERIES:
            return "queries have changed";
        case RUV_GUARD_ROWS:
            return "rows have changed";
    }
    return "unknown";
}

static uint64
pack(RuvGuard guard)
{
    uint32 bits;

    memcpy(&bits, &guard.factor, sizeof(bits));
    return (uint64)guard.reason << 32 | bits;
}

static RuvGuard
unpack(uint64 word)
{
    RuvGuard guard = {1.0f, RUV_GUARD_NONE};
    uint32 bits = (uint32)word;

    if (word == 0)
        return guard;
    memcpy(&guard.factor, &bits, sizeof(bits));
    guard.reason = (RuvGuardReason)(word >> 32);
    return guard;
}

RuvGuard
ruv_guard_read(const RuvIndexSlot *slot)
{
    return unpack(pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &slot->guard)));
}

/* Samples of searches after the last widening, those that calibrate. */
static int
evidence_since(const RuvIndexState *state)
{
    int count = 0;
    ListCell *cell;

    foreach (cell, state->samples) {
        const RuvSample *sample = lfirst(cell);

        count += sample->even && sample->head.started_us >= state->guard_since;
    }
    return count;
}

void
ruv_guard_widen(RuvIndexState *state, RuvGuardReason reason, const char *evidence)
{
    RuvGuard guard = ruv_guard_read(state->slot);

    if (reason == RUV_GUARD_NONE || state->slot->index_oid != state->index_oid)
        return;
    if (guard.reason != RUV_GUARD_NONE && evidence_since(state) < RUV_GUARD_TRIAL)
        return;
    state->guard_since = GetCurrentTimestamp();
    if (guard.factor >= RUV_GUARD_MOST)
        return;
    guard.factor = Min(guard.factor * RUV_GUARD_STEP, RUV_GUARD_MOST);
    guard.reason = reason;
    pg_atomic_write_u64(&state->slot->guard, pack(guard));
    ereport(LOG,
            (errmsg("searches of index \"%s\" take more effort for now: %s",
                    NameStr(state->index_name), ruv_guard_reason_name(reason)),
             errdetail("%s log(1 + slack) is multiplied by %.2f until enough searches from now on "
                       "were learned from.",
                       evidence, guard.factor)));
}

void
ruv_guard_learned(RuvIndexState *state)
{
    RuvGuard guard = ruv_guard_read(state->slot);

    if (guard.reason == RUV_GUARD_NONE || state->slot->index_oid != state->index_oid)
        return;
    /* A former worker widened it. */
    if (state->guard_since == 0)
        state->guard_since = GetCurrentTimestamp();
    if (evidence_since(state) < Min(RUV_GUARD_EVIDENCE, state->min_samples))
        return;
    pg_atomic_write_u64(&state->slot->guard, 0);
    ereport(LOG, (errmsg("searches of index \"%s\" take the calibrated effort again",
                         NameStr(state->index_name))));
}
