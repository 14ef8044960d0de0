/*
 * privacy.c - what of a query may be kept, and taking back what was.
 *
 * By default its vector is stored with its trajectory, remembered with the nodes that answered it,
 * and averaged into the centroids of region patterns.
 *
 * With ruvector.trajectory_anonymize a keyed hash is stored in its place: HMAC-SHA-256 under a key
 * that lives in the worker's memory only. Equal queries can be told while one worker runs, and
 * nobody can try guesses against the table. With keep_queries = false of a table there is no hash
 * either.
 *
 * In both cases no vector made of queries is in any table, in the remembered queries or in a
 * published bank; neither are the rows that were returned, their distances, or the nodes near to a
 * query, since they tell where it lies. What is left to learn from is the calibration of the whole
 * index: the efforts that a query needed say nothing of its place. Samples without a vector serve
 * until the worker ends.
 *
 * When the setting is switched on, the worker takes back what was stored. The queries that it holds
 * in memory are traced again, since what was learned rests on remembered ones; their rows get a
 * hash as they are judged, the others none. Until they are, searches are static. Vacuum and the
 * recycling of WAL remove the bytes from the disk.
 */
#include "learning/worker.h"

#include "catalog/pg_type.h"
#include "storage/lwlock.h"
#if PG_VERSION_NUM >= 140000
#include "common/hmac.h"
#include "common/sha2.h"
#endif

bool
ruv_keeps_queries(const RuvIndexState *state)
{
    return state->keep_queries && !ruv_trajectory_anonymize;
}

#if PG_VERSION_NUM >= 140000
static bool
keyed_hash(const float *query, uint32 dim, bytea *hash)
{
    static uint8 key[32];
    static bool has_key = false;
    pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
    bool done;

    if (!has_key)
        has_key = pg_strong_random(key, sizeof(key));
    done = has_key && context != NULL && pg_hmac_init(context, key, sizeof(key)) >= 0 &&
           pg_hmac_update(context, (const uint8 *)query, sizeof(float) * dim) >= 0 &&
           pg_hmac_final(context, (uint8 *)VARDATA(hash), PG_SHA256_DIGEST_LENGTH) >= 0;
    if (context != NULL)
        pg_hmac_free(context);
    return done;
}
#endif

bool
ruv_query_hash(const RuvIndexState *state, const RuvSample *sample, Datum *out)
{
#if PG_VERSION_NUM >= 140000
    bytea *hash;

    if (!state->keep_queries)
        return false;
    hash = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
    SET_VARSIZE(hash, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
    *out = PointerGetDatum(hash);
    return keyed_hash(sample->query, sample->head.dim, hash);
#else
    return false;
#endif
}

bool
ruv_privacy_due(const RuvIndexState *state)
{
    return !ruv_keeps_queries(state) && state->vectors_stored;
}

void
ruv_privacy_start_over(RuvIndexState *state, const RuvIndexIdentity *identity)
{
    ruv_state_start_over(state, identity);
    rv_bank_destroy(state->bank);
    state->bank = NULL;
    state->bank_changed = false;
    state->memory_changed = true;
    ruv_publish_prepare();
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    if (state->slot->index_oid == state->index_oid)
        ruv_unpublish_locked(state->slot);
    LWLockRelease(ruv_shared->lock);
}

void
ruv_privacy_erase(RuvStore *store, RuvIndexState *state)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(state->index_oid)};

    if (!ruv_privacy_due(state))
        return;
    ruv_store_run(store,
                  "UPDATE @.ruvector_trajectory_log SET query = NULL, nearest = '{}', "
                  "result_ids = NULL, result_distances = NULL "
                  "WHERE index_oid = $1 AND query IS NOT NULL",
                  1, types, values, NULL);
    ruv_store_run(store, "DELETE FROM @.ruvector_patterns WHERE index_oid = $1", 1, types, values,
                  NULL);
    state->vectors_stored = false;
}
