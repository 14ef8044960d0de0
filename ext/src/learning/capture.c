/*
 * capture.c - what happened: the last search of this backend, and its trajectory into the ring.
 *
 * Called once at the end of a scan, possibly while an error unwinds it, so nothing here locks,
 * allocates or raises. The index's entry was resolved when the scan chose its plan; if the registry
 * changed since then this one search goes unrecorded.
 *
 * A query id is a UUID of version 8: 60 bits drawn at server start, 30 bits that count the backends
 * which recorded a search, 32 bits that count this backend's searches. Ids do not repeat within
 * 2^30 backends of one server run, and runs differ by their random half.
 */
#include "learning/learning_internal.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#define RUV_SESSION_MASK ((UINT64CONST(1) << 30) - 1)

static RuvLastSearch last_search;

const RuvLastSearch *
ruv_last_search(void)
{
    return last_search.valid ? &last_search : NULL;
}

static void
next_query_id(uint64 *id)
{
    static uint64 high = 0;
    static uint64 session = 0;
    static uint32 counter = 0;

    if (high == 0 || counter == PG_UINT32_MAX) {
        if (ruv_shared != NULL) {
            high = ruv_shared->boot_id;
            session = pg_atomic_fetch_add_u64(&ruv_shared->sessions, 1);
        } else if (!pg_strong_random(&high, sizeof(high))) {
            high = (uint64)GetCurrentTimestamp();
        }
        high = (high & ~UINT64CONST(0xF000)) | UINT64CONST(0x8000); /* version 8 */
        counter = 0;
    }
    id[0] = high;
    id[1] = (UINT64CONST(2) << 62) | ((session & RUV_SESSION_MASK) << 32) | ++counter;
}

bool
ruv_is_own_query_id(const uint64 *query_id)
{
    return ruv_shared != NULL &&
           query_id[0] == ((ruv_shared->boot_id & ~UINT64CONST(0xF000)) | UINT64CONST(0x8000));
}

/* Whether this search is one of the share that ruvector.trajectory_sample_rate asks for. */
static bool
drawn(void)
{
    static rv_prng prng;
    static bool seeded = false;

    if (ruv_trajectory_sample_rate >= 1.0)
        return true;
    if (!seeded) {
        rv_prng_seed(&prng, ((uint64)MyProcPid << 32) ^ (uint64)MyStartTimestamp);
        seeded = true;
    }
    return rv_prng_uniform(&prng) < ruv_trajectory_sample_rate;
}

static void
push_trajectory(const RuvSearchReport *report, rv_ring *ring)
{
    rv_trajectory head = {0};

    head.query_id[0] = last_search.query_id[0];
    head.query_id[1] = last_search.query_id[1];
    head.started_us = report->started;
    head.index_epoch = report->index->epoch;
    head.database_oid = MyDatabaseId;
    head.index_oid = report->index->index_oid;
    head.user_oid = last_search.user_oid;
    head.dim = (uint32_t)report->index->dim;
    head.k = report->k;
    head.mode = report->choice->mode;
    head.ef_search = (uint32_t)report->choice->ef_search;
    head.distances = (uint32_t)Min(report->stats.distances, PG_UINT32_MAX);
    head.hops = (uint32_t)Min(report->stats.hops, PG_UINT32_MAX);
    head.pages = report->pages;
    head.result_count = Min(Min(report->k, report->hit_count), RV_TRAJECTORY_MAX_HITS);
    head.target_recall = (float)report->choice->target_recall;
    head.slack = report->choice->slack;
    head.latency_us = (float)report->latency_us;
    head.score = report->stats.score;
    head.expected_recall = (float)report->choice->expected_recall;
    if (report->choice->mode == RV_SEARCH_ADAPTIVE)
        head.window = (uint32_t)report->choice->window;
    (void)rv_trajectory_push(ring, &head, report->query, report->hits);
}

void
ruv_capture(const RuvSearchReport *report)
{
    RuvIndexCache *cache;

    next_query_id(last_search.query_id);
    last_search.user_oid = GetUserId();
    last_search.index_oid = report->index->index_oid;
    last_search.choice = *report->choice;
    last_search.stats = report->stats;
    last_search.latency_us = report->latency_us;
    last_search.pages = report->pages;
    last_search.k = report->k;
    last_search.valid = true;

    if (!ruv_learning_enabled || report->k == 0)
        return;
    cache = ruv_index_cache_peek(report->index->index_oid);
    if (cache != NULL && cache->ring != NULL && drawn())
        push_trajectory(report, cache->ring);
}
