/*
 * scan.c - ORDER BY column <operator> constant, nearest first.
 *
 * How to search is decided once per execution, at the first tuple (ruv_choose): statically with
 * `probes` lists, or with the learned slack. The engine hands out rows window by window; what
 * happens after the first window is up to ruvector.iterative_scan:
 *   off            the scan ends (an adaptive one not before ef_search rows, since its window is
 *                  the k of its calibration and not what the user asked for)
 *   relaxed_order  it goes on until max_scan_tuples rows were compared
 *   strict_order   likewise, but skips rows nearer than one already returned
 * A scan that goes on visits every list in the end, so it finds every row.
 *
 * Concurrency: see lists.c and vacuum.c for why a scan holds neither lock nor pin between pages.
 * Rows are filtered by the executor's MVCC snapshot. Only MVCC snapshots come here: ordering
 * operators are used by plain queries alone, and index-only scans are not offered.
 *
 * All memory of a scan lives in one context; the search and the reader are kept over rescans.
 */
#include "ruivfflat/ruivfflat.h"

#include "access/relscan.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

typedef struct RuivfScan {
    MemoryContext context;
    rv_allocator allocator;
    RuivfReader reader;
    rv_ivf *ivf;
    float *query;
    bool null_query; /* all rows are equally near: nothing to learn from */

    RuvIndexIdentity identity;
    RuvChoice choice;
    rv_ivf_rule rule;
    bool started; /* a search runs or has run since the last rescan */
    bool finished;
    float last_distance; /* of the last row returned, for strict_order */

    /* what the report needs */
    TimestampTz started_at;
    instr_time spent;
    uint32 returned;
    uint32 hit_count;
    rv_hit hits[RV_TRAJECTORY_MAX_HITS];
} RuivfScan;

IndexScanDesc
ruivf_begin_scan(Relation index, int nkeys, int norderbys)
{
    IndexScanDesc scan = RelationGetIndexScan(index, nkeys, norderbys);
    MemoryContext context =
        AllocSetContextCreate(CurrentMemoryContext, "ruivfflat scan", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(context);
    RuivfScan *state = palloc0(sizeof(RuivfScan));
    rv_error err;

    state->context = context;
    ruv_context_allocator(context, &state->allocator);
    ruivf_reader_open(&state->reader, index);
    state->query = palloc(sizeof(float) * state->reader.meta.dim);
    ruv_check(rv_ivf_create(&state->allocator, &state->reader.source, &state->ivf, &err), &err,
              "ruivfflat search");
    MemoryContextSwitchTo(former);
    scan->opaque = state;
    return scan;
}

/* Tells the learning engine about the search that ends here. */
static void
report_search(RuivfScan *state)
{
    RuvSearchReport report;

    if (!state->started || state->null_query)
        return;
    report.index = &state->identity;
    report.choice = &state->choice;
    report.query = state->query;
    report.started = state->started_at;
    report.latency_us = INSTR_TIME_GET_DOUBLE(state->spent) * 1e6;
    report.stats = rv_ivf_get_stats(state->ivf);
    report.stats.distances += state->choice.lookup_distances;
    report.pages = (uint32)Min(state->reader.pages, PG_UINT32_MAX);
    report.k = state->returned;
    report.hit_count = state->hit_count;
    report.hits = state->hits;
    ruv_capture(&report);
}

void
ruivf_rescan(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys)
{
    RuivfScan *state = scan->opaque;

    report_search(state);
    state->started = false;
    state->finished = false;
    state->returned = state->hit_count = 0;
    state->last_distance = 0;
    if (keys && scan->numberOfKeys > 0)
        memmove(scan->keyData, keys, scan->numberOfKeys * sizeof(ScanKeyData));
    if (orderbys && scan->numberOfOrderBys > 0)
        memmove(scan->orderByData, orderbys, scan->numberOfOrderBys * sizeof(ScanKeyData));
}

/* The query as the index compares it. A NULL has no distance to anything: any order is right. */
static void
load_query(RuivfScan *state, ScanKey key)
{
    int dim = state->reader.meta.dim;
    RuVector *value;

    state->null_query = (key->sk_flags & SK_ISNULL) != 0;
    if (state->null_query) {
        memset(state->query, 0, sizeof(float) * dim);
        return;
    }
    value = DatumGetRuVector(key->sk_argument);
    ruivf_prepare((rv_metric)state->reader.meta.metric, dim, value, state->query);
    if ((Pointer)value != DatumGetPointer(key->sk_argument))
        pfree(value);
}

static void
make_rule(RuivfScan *state)
{
    const RuvChoice *choice = &state->choice;
    rv_ivf_rule *rule = &state->rule;

    memset(rule, 0, sizeof(*rule));
    if (choice->mode == RV_SEARCH_ADAPTIVE && choice->way != RV_WAY_STATIC) {
        rule->adaptive = true;
        rule->window = Max(choice->window, 1);
        rule->slack = choice->slack;
        rule->max_lists = choice->ef_search;
        rule->max_rows = choice->max_distances;
    } else {
        rule->probes = Max(choice->probes, 1);
    }
}

/* Lists that answered similar queries. */
static void
prefer_lists(RuivfScan *state)
{
    uint32 lists[RUV_MAX_ENTRY_POINTS];
    uint32 count = 0;

    for (int i = 0; i < state->choice.entry_count; i++)
        if (state->choice.entry_points[i] >= 1 &&
            state->choice.entry_points[i] <= state->reader.meta.lists)
            lists[count++] = (uint32)state->choice.entry_points[i] - 1;
    if (count > 0)
        rv_ivf_prefer(state->ivf, lists, count);
}

static void
start_search(IndexScanDesc scan)
{
    RuivfScan *state = scan->opaque;
    rv_error err;

    if (!IsMVCCSnapshot(scan->xs_snapshot))
        elog(ERROR, "a ruivfflat index can only be scanned with an MVCC snapshot");
    state->started_at = GetCurrentTimestamp();
    state->reader.pages = 0;
    load_query(state, scan->orderByData);
    ruivf_reader_aim(&state->reader, state->query);
    ruivf_identity(scan->indexRelation, &state->reader.meta, &state->identity);
    ruv_choose(&state->identity, state->query, &state->choice);
    make_rule(state);
    ruv_check(rv_ivf_start(state->ivf, &state->rule, &state->reader.scorer,
                           state->reader.meta.spread, state->reader.distances,
                           state->reader.meta.lists, &err),
              &err, "ruivfflat search");
    if (state->rule.adaptive)
        prefer_lists(state);
    pgstat_count_index_scan(scan->indexRelation);
    state->started = true;
}

/* Whether the scan may go on to another window; sets the bound of that window's work. */
static bool
may_continue(RuivfScan *state)
{
    uint64 rows;
    uint64 left;
    rv_error err;

    if (rv_ivf_ready(state->ivf))
        return true;
    if (rv_ivf_get_stats(state->ivf).windows == 0)
        return true;
    if (ruv_iterative_scan == RUV_ITERATIVE_OFF &&
        (!state->rule.adaptive || state->returned >= ruv_effective_ef_search(&state->identity.own)))
        return false;
    rows = rv_ivf_rows(state->ivf);
    if (rows >= (uint64)ruv_max_scan_tuples)
        return false;
    left = ruv_max_scan_tuples - rows;
    if (state->rule.adaptive && state->choice.max_distances > 0)
        left = Min(left, state->choice.max_distances);
    state->rule.max_rows = left;
    ruv_check(rv_ivf_set_rule(state->ivf, &state->rule, &err), &err, "ruivfflat search");
    return true;
}

static void
return_row(IndexScanDesc scan, const rv_ivf_result *result)
{
    RuivfScan *state = scan->opaque;

    ItemPointerSet(&scan->xs_heaptid, (BlockNumber)(result->row >> 16),
                   (OffsetNumber)(result->row & PG_UINT16_MAX));
    scan->xs_recheck = false;
    scan->xs_recheckorderby = false;
    if (state->hit_count < RV_TRAJECTORY_MAX_HITS) {
        rv_hit *hit = &state->hits[state->hit_count++];

        hit->id = result->row;
        hit->node = (uint64)result->list + 1;
        hit->distance = result->distance;
        hit->reserved = 0;
    }
    state->returned++;
    state->last_distance = result->distance;
}

static bool
next_row(IndexScanDesc scan)
{
    RuivfScan *state = scan->opaque;

    if (!state->started)
        start_search(scan);
    while (!state->finished && may_continue(state)) {
        rv_ivf_result result;
        rv_error err;
        rv_status status = rv_ivf_next(state->ivf, &result, &err);

        if (status == RV_ERR_NOTFOUND)
            break;
        ruv_check(status, &err, "ruivfflat search");
        if (ruv_iterative_scan == RUV_ITERATIVE_STRICT && state->returned > 0 &&
            result.distance < state->last_distance)
            continue;
        return_row(scan, &result);
        return true;
    }
    state->finished = true;
    return false;
}

bool
ruivf_get_tuple(IndexScanDesc scan, ScanDirection direction)
{
    RuivfScan *state = scan->opaque;
    MemoryContext former;
    instr_time before;
    instr_time after;
    bool found;

    if (scan->numberOfOrderBys != 1)
        elog(ERROR, "a ruivfflat index can only be scanned in the order of one distance");
    if (!ScanDirectionIsForward(direction))
        elog(ERROR, "a ruivfflat index cannot be scanned backwards");
    if (!state->started)
        INSTR_TIME_SET_ZERO(state->spent);
    INSTR_TIME_SET_CURRENT(before);
    former = MemoryContextSwitchTo(state->context);
    found = next_row(scan);
    MemoryContextSwitchTo(former);
    INSTR_TIME_SET_CURRENT(after);
    INSTR_TIME_ACCUM_DIFF(state->spent, after, before);
    return found;
}

void
ruivf_end_scan(IndexScanDesc scan)
{
    RuivfScan *state = scan->opaque;

    report_search(state);
    MemoryContextDelete(state->context);
    scan->opaque = NULL;
}
