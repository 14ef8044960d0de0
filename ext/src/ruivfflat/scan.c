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

#include "index_scan.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

typedef struct RuivfScan {
    RuvScan scan;
    MemoryContext context;
    rv_allocator allocator;
    RuivfReader reader;
    rv_ivf *ivf;

    rv_ivf_rule rule;
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
    state->scan.query = palloc(sizeof(float) * state->reader.meta.dim);
    ruv_check(rv_ivf_create(&state->allocator, &state->reader.source, &state->ivf, &err), &err,
              "ruivfflat search");
    MemoryContextSwitchTo(former);
    scan->opaque = state;
    return scan;
}

static void
report_search(RuivfScan *state)
{
    rv_beam_stats stats;

    if (!state->scan.started || state->scan.null_query)
        return;
    stats = rv_ivf_get_stats(state->ivf);
    ruv_scan_report(&state->scan, &stats, state->reader.pages);
}

void
ruivf_rescan(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys)
{
    RuivfScan *state = scan->opaque;

    report_search(state);
    ruv_scan_reset(&state->scan);
    ruv_scan_take_keys(scan, keys, orderbys);
}

static void
make_rule(RuivfScan *state)
{
    const RuvChoice *choice = &state->scan.choice;
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

    for (int i = 0; i < state->scan.choice.entry_count; i++)
        if (state->scan.choice.entry_points[i] >= 1 &&
            state->scan.choice.entry_points[i] <= state->reader.meta.lists)
            lists[count++] = (uint32)state->scan.choice.entry_points[i] - 1;
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
    state->scan.started_at = GetCurrentTimestamp();
    state->reader.pages = 0;
    ruv_scan_load_query(&state->scan, scan->orderByData, (rv_metric)state->reader.meta.metric,
                        state->reader.meta.dim);
    ruivf_reader_aim(&state->reader, state->scan.query);
    ruivf_identity(scan->indexRelation, &state->reader.meta, &state->scan.identity);
    ruv_choose(&state->scan.identity, state->scan.query, ruv_rows_asked(scan), &state->scan.choice);
    make_rule(state);
    ruv_check(rv_ivf_start(state->ivf, &state->rule, &state->reader.scorer,
                           state->reader.meta.spread, state->reader.distances,
                           state->reader.meta.lists, &err),
              &err, "ruivfflat search");
    if (state->rule.adaptive)
        prefer_lists(state);
    pgstat_count_index_scan(scan->indexRelation);
    state->scan.started = true;
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
        (!state->rule.adaptive ||
         state->scan.returned >= ruv_effective_ef_search(&state->scan.identity.own)))
        return false;
    rows = rv_ivf_rows(state->ivf);
    if (rows >= (uint64)ruv_max_scan_tuples)
        return false;
    left = ruv_max_scan_tuples - rows;
    if (state->rule.adaptive && state->scan.choice.max_distances > 0)
        left = Min(left, state->scan.choice.max_distances);
    state->rule.max_rows = left;
    ruv_check(rv_ivf_set_rule(state->ivf, &state->rule, &err), &err, "ruivfflat search");
    return true;
}

static void
return_row(IndexScanDesc scan, const rv_ivf_result *result)
{
    RuivfScan *state = scan->opaque;
    ItemPointerData tid;

    ItemPointerSet(&tid, (BlockNumber)(result->row >> 16),
                   (OffsetNumber)(result->row & PG_UINT16_MAX));
    ruv_scan_return(scan, &state->scan, &tid, (uint64)result->list + 1, result->distance);
}

static bool
next_row(IndexScanDesc scan)
{
    RuivfScan *state = scan->opaque;

    if (!state->scan.started)
        start_search(scan);
    while (!state->scan.finished && may_continue(state)) {
        rv_ivf_result result;
        rv_error err;
        rv_status status = rv_ivf_next(state->ivf, &result, &err);

        if (status == RV_ERR_NOTFOUND)
            break;
        ruv_check(status, &err, "ruivfflat search");
        if (ruv_scan_is_late(&state->scan, result.distance))
            continue;
        return_row(scan, &result);
        return true;
    }
    state->scan.finished = true;
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
    if (!state->scan.started)
        INSTR_TIME_SET_ZERO(state->scan.spent);
    INSTR_TIME_SET_CURRENT(before);
    former = MemoryContextSwitchTo(state->context);
    found = next_row(scan);
    MemoryContextSwitchTo(former);
    INSTR_TIME_SET_CURRENT(after);
    INSTR_TIME_ACCUM_DIFF(state->scan.spent, after, before);
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
