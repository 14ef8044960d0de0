/*
 * remember.c - the worker's memory of queries: where past ones were answered.
 *
 * Every search that the ring delivers is remembered with the nodes it returned, traced or not; it
 * costs one insertion into a small graph. The memory grows all the time, but searches use a flat
 * form of it, and the slack is calibrated for that form: samples are traced from the entry points
 * that the flat form gives for their query (leaving out the query itself). So the flat form changes
 * only when the calibration is made anew with it: when the memory has grown threefold, and when the
 * searches pause after it grew noticeably.
 *
 * Where queries may not be kept (privacy.c) nothing is remembered, since a memory holds them.
 */
#include "learning/worker.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RUV_MEMORY_LIMIT 100000
/* Share of the bank area that the memory of one index may take; two forms of it live there for a
 * moment when a new one is published. */
#define RUV_MEMORY_SHARE 0.25
#define RUV_MEMORY_OVERHEAD 300 /* bytes per query besides its code, measured */
#define RUV_MEMORY_MINIMUM 16
#define RUV_MEMORY_GROWTH 3.0
/* Until a bank for which there was no room is tried again. */
#define RUV_NO_ROOM_MS 10000
#define RUV_MEMORY_GROWTH_PAUSED 1.1

/* Queries that are kept: as many as searches are, within the shared memory for them. */
static uint32
memory_capacity(const RuvIndexState *state)
{
    double room = (double)ruv_bank_memory * 1024 * RUV_MEMORY_SHARE;
    double fit = room / (state->identity.dim + RUV_MEMORY_OVERHEAD);

    if (state->memory_limit > 0)
        fit = Min(fit, state->memory_limit);
    return (uint32)Max(RUV_MEMORY_MINIMUM, Min(Min(state->window, RUV_MEMORY_LIMIT), fit));
}

static bool
require_memory(RuvIndexState *state)
{
    return state->memory != NULL ||
           rv_memory_create(&state->allocator, state->identity.metric,
                            (uint32_t)state->identity.dim, memory_capacity(state), &state->memory,
                            NULL) == RV_OK;
}

void
ruv_remember(RuvIndexState *state, const rv_trajectory *head, const float *query,
             const rv_hit *hits)
{
    rv_node nodes[RV_MEMORY_ENTRIES];
    double started = ruv_processor_seconds();
    uint32 count = 0;

    if (!ruv_keeps_queries(state) || head->index_epoch != state->identity.epoch)
        return;
    for (uint32 i = 0; i < head->result_count && count < RV_MEMORY_ENTRIES; i++)
        if (count == 0 || nodes[count - 1] != hits[i].node) /* rows may share a node */
            nodes[count++] = hits[i].node;
    /* What cannot be remembered, for lack of memory, is learning lost and no more. */
    if (count > 0 && require_memory(state))
        (void)rv_memory_add(state->memory, query, nodes, count, NULL);
    state->learning_seconds += ruv_processor_seconds() - started;
}

void
ruv_forget_memory(RuvIndexState *state)
{
    rv_memory_destroy(state->memory);
    state->memory = NULL;
    if (state->flat_memory != NULL)
        pfree(state->flat_memory);
    state->flat_memory = NULL;
    state->flat_memory_size = 0;
}

static uint32
flat_count(const RuvIndexState *state)
{
    return state->flat_memory == NULL ? 0 : rv_memory_flat_count(state->flat_memory);
}

bool
ruv_memory_due(const RuvIndexState *state, bool paused)
{
    double growth = paused ? RUV_MEMORY_GROWTH_PAUSED : RUV_MEMORY_GROWTH;
    uint32 count = state->memory == NULL ? 0 : rv_memory_count(state->memory);

    if (!ruv_keeps_queries(state))
        return state->memory != NULL || state->flat_memory != NULL;
    if (state->memory_limit > 0 && count > 0 && count < flat_count(state))
        return true; /* the flat form cannot be published */
    if (list_length(state->samples) < state->min_samples || count < (uint32)state->min_samples)
        return false;
    /* Full, it forgets its older half: fewer queries, but newer ones. */
    return count < flat_count(state) || count >= growth * flat_count(state);
}

void
ruv_memory_flatten(RuvIndexState *state)
{
    size_t size = 0;
    char *flat;
    rv_error err = {0};

    state->memory_changed = true;
    state->memory_renewed = true;
    state->memory_version++;
    if (!ruv_keeps_queries(state)) {
        ruv_forget_memory(state);
        return;
    }
    (void)rv_memory_flatten(state->memory, NULL, 0, &size, NULL);
    flat = MemoryContextAllocHuge(state->context, size);
    ruv_check(rv_memory_flatten(state->memory, flat, size, &size, &err), &err,
              "flattening the remembered queries");
    if (state->flat_memory != NULL)
        pfree(state->flat_memory);
    state->flat_memory = flat;
    state->flat_memory_size = size;
}

bool
ruv_memory_restore(RuvIndexState *state, const char *flat, size_t size)
{
    /* The flat form is read in place: its own block is aligned, a stored value need not be. */
    state->flat_memory = MemoryContextAllocHuge(state->context, size);
    state->flat_memory_size = size;
    memcpy(state->flat_memory, flat, size);
    if (rv_memory_flat_check(state->flat_memory, size, NULL) == RV_OK &&
        rv_memory_flat_dim(state->flat_memory) == (uint32_t)state->identity.dim &&
        rv_memory_flat_metric(state->flat_memory) == state->identity.metric &&
        rv_memory_unflatten(&state->allocator, state->flat_memory, memory_capacity(state),
                            &state->memory, NULL) == RV_OK)
        return true;
    ruv_forget_memory(state);
    return false;
}

void
ruv_memory_entry_points(const RuvIndexState *state, const float *query, rv_memory_match *match)
{
    rv_allocator allocator;
    rv_error err = {0};

    match->count = 0;
    match->distances = 0;
    if (state->flat_memory == NULL)
        return;
    ruv_context_allocator(CurrentMemoryContext, &allocator);
    ruv_check(rv_memory_lookup(state->flat_memory, &allocator, query, true, match, &err), &err,
              "looking up remembered queries");
}

/* ---- room in shared memory ----------------------------------------------------------------- */

static void
note_no_room(const RuvIndexState *state, const char *consequence)
{
    ereport(LOG, (errmsg("ruvector.bank_memory is used up: %s for index \"%s\"", consequence,
                         NameStr(state->index_name)),
                  errhint("Raise ruvector.bank_memory and restart the server.")));
}

/* Keeps the newer half of the remembered queries at most. */
static void
remember_fewer(RuvIndexState *state)
{
    uint32 limit = Max(flat_count(state) / 2, RUV_MEMORY_MINIMUM);
    rv_memory *fewer = NULL;
    rv_error err = {0};

    ruv_check(rv_memory_unflatten(&state->allocator, state->flat_memory, limit, &fewer, &err), &err,
              "remembering fewer queries");
    if (state->memory_limit == 0)
        note_no_room(state, "fewer queries are remembered");
    state->memory_limit = limit;
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    state->slot->queries_left_out += flat_count(state) - rv_memory_count(fewer);
    LWLockRelease(ruv_shared->lock);
    rv_memory_destroy(state->memory);
    state->memory = fewer;
}

void
ruv_state_publish(RuvIndexState *state)
{
    state->bank_changed = false;
    state->plan_changed = false;
    if (ruv_publish_bank(state->slot, state->index_oid, state->bank, state->flat_memory,
                         state->flat_memory_size, state->plans, state->plan_count))
        state->publish_again = 0;
    else if (flat_count(state) > RUV_MEMORY_MINIMUM)
        remember_fewer(state);
    else {
        if (state->publish_again == 0)
            note_no_room(state, "nothing learned is published");
        state->publish_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RUV_NO_ROOM_MS);
    }
}
