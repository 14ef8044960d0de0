/*
 * scan.c - ORDER BY column <operator> constant, nearest first.
 *
 * How to search is decided once per execution, at the first tuple (ruv_choose): statically with
 * ef_search, or with the learned slack. The beam hands out results window by window; what happens
 * after the first window is up to ruvector.iterative_scan:
 *   off            the scan ends (an adaptive one not before ef_search rows, since its window is
 *                  the k of its calibration and not what the user asked for)
 *   relaxed_order  it goes on until max_scan_tuples nodes were visited
 *   strict_order   likewise, but skips rows nearer than one already returned
 * Within a window rows come in the exact order of their distances: the beam knows them by their
 * codes, so what it hands out is measured again, and waits until nothing that the window may still
 * bring can be nearer (ruhnsw_lower_bound). Under float16 and int8 there is nothing more exact in
 * the index, and rows come in the order of the stored values.
 *
 * Both adaptive and static searches put the root into layer 0 as an additional start: every live
 * node can be reached from it over layer 0 (reach.c), so a search that runs on finds them all.
 *
 * Why no heavyweight lock and no pin is held by a scan
 *   - A node is freed only when every transaction that had a snapshot while something still linked
 *     to it has ended (vacuum.c), so what a running scan's beam has seen stays in place. On a
 *     standby vacuum knows nothing of the scan, and a node may be freed under it and its slot be
 *     used for another: the scan then skips it or walks over the other one, whose rows are too
 *     young for its snapshot.
 *   - Rows are filtered by the executor's MVCC snapshot. Should vacuum remove a row and its line
 *     pointer be used again between our reading of a node and the heap fetch, the new row is
 *     invisible to the snapshot. Only MVCC snapshots come here: ordering operators are used by
 *     plain queries alone, and index-only scans are not offered.
 *   - A node with a changed list of rows is read under one share lock: removed rows were dead to
 *     everyone, added ones are filtered as above.
 *   - The entry node can be freed between reading the meta page and reading the node (standby): the
 *     scan then reads the meta page again.
 *
 * All memory of a scan lives in one context; the beam and the graph are kept over rescans.
 */
#include "ruhnsw/ruhnsw.h"

#include "index_scan.h"

#include "miscadmin.h"
#include "pause.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* A vanished entry node means that the meta page has changed; if it has not, it is wrong. */
#define RUHNSW_ENTRY_ATTEMPTS 100

typedef struct RuhnswScan {
    RuvScan scan;
    MemoryContext context;
    rv_allocator allocator;
    RuhnswGraph graph;
    rv_beam *beam;
    bool meta_used; /* a search has begun with the meta page as the graph has it */

    rv_stop_rule rule;

    /* nodes of this window that wait for their turn, nearest first */
    RuhnswResult *waiting;
    int waiting_count;
    int waiting_room;
    float least; /* no later node of this window is nearer */

    /* rows of the node that is being handed out */
    rv_node node;
    uint64 position; /* of its next rows: see ruhnsw_next_rows */
    ItemPointerData tids[RUHNSW_CHAIN_TIDS];
    int tid_count;
    int tid_next;
    float distance;
    float query_norm;
} RuhnswScan;

IndexScanDesc
ruhnsw_begin_scan(Relation index, int nkeys, int norderbys)
{
    IndexScanDesc scan = RelationGetIndexScan(index, nkeys, norderbys);
    MemoryContext context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw scan", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(context);
    RuhnswScan *state = palloc0(sizeof(RuhnswScan));

    state->context = context;
    ruv_context_allocator(context, &state->allocator);
    ruhnsw_graph_open(&state->graph, index);
    state->position = RUHNSW_ROWS_END;
    state->scan.query = palloc(sizeof(float) * state->graph.meta.dim);
    state->waiting_room = 32;
    state->waiting = palloc(sizeof(RuhnswResult) * state->waiting_room);
    state->graph.query = state->scan.query;
    MemoryContextSwitchTo(former);
    scan->opaque = state;
    return scan;
}

static void
report_search(RuhnswScan *state)
{
    rv_beam_stats stats;

    if (!state->scan.started || state->scan.null_query)
        return;
    stats = rv_beam_get_stats(state->beam);
    ruv_scan_report(&state->scan, &stats, state->graph.reader.pages);
}

static void
reset_search(RuhnswScan *state)
{
    ruv_scan_reset(&state->scan);
    state->tid_count = state->tid_next = 0;
    state->position = RUHNSW_ROWS_END;
    state->waiting_count = 0;
}

void
ruhnsw_rescan(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys)
{
    RuhnswScan *state = scan->opaque;

    report_search(state);
    reset_search(state);
    ruv_scan_take_keys(scan, keys, orderbys);
}

static void
prepare_beam(RuhnswScan *state)
{
    const RuhnswMetaData *meta = &state->graph.meta;
    rv_metric_map map;
    rv_error err;

    state->query_norm = rv_norm(state->scan.query, meta->dim);
    map = rv_metric_map_make(state->graph.metric, meta->max_norm, state->query_norm);
    if (state->beam == NULL)
        ruv_check(rv_beam_create(&state->allocator, &state->graph.graph, &map, &state->beam, &err),
                  &err, "ruhnsw search");
    else
        rv_beam_set_map(state->beam, &map);
}

static void
make_rule(RuhnswScan *state)
{
    const RuvChoice *choice = &state->scan.choice;
    rv_stop_rule *rule = &state->rule;

    memset(rule, 0, sizeof(*rule));
    if (choice->mode == RV_SEARCH_ADAPTIVE) {
        rule->window = choice->way == RV_WAY_STATIC
                           ? (uint32)Max(choice->window, 1)
                           : ruhnsw_window(&state->graph, Max(choice->window, 1));
        rule->slack = choice->slack;
        rule->reference = choice->way == RV_WAY_STATIC ? 0 : (uint32)Max(choice->window, 1);
        rule->ef = choice->ef_search;
        rule->max_distances = choice->max_distances;
    } else {
        rule->window = Max(choice->ef_search, 1);
    }
}

/* Remembered entry points that can be looked at, and the root. With remembered ones the search does
 * not descend: it begins on layer 0. */
static uint32
make_starts(RuhnswScan *state, rv_node *starts)
{
    uint32 count = 0;

    for (int i = 0; i < state->scan.choice.entry_count; i++)
        if (ruhnsw_ref_in_file(&state->graph, state->scan.choice.entry_points[i]))
            starts[count++] = state->scan.choice.entry_points[i];
    starts[count++] = state->graph.meta.root;
    return count;
}

static void
start_search(IndexScanDesc scan)
{
    RuhnswScan *state = scan->opaque;
    rv_node starts[RUV_MAX_ENTRY_POINTS + 1];
    int attempts = 0;
    uint32 count;
    int level;
    rv_error err;

    if (!IsMVCCSnapshot(scan->xs_snapshot))
        elog(ERROR, "a ruhnsw index can only be scanned with an MVCC snapshot");
    state->scan.started_at = GetCurrentTimestamp();
    state->graph.reader.pages = 0;
    /* The first search begins when the scan does, just after the meta page was read. */
    if (state->meta_used)
        ruhnsw_graph_refresh(&state->graph);
    state->meta_used = true;
    RUV_PAUSE("ruhnsw-scan-meta");
    ruv_scan_load_query(&state->scan, scan->orderByData, state->graph.metric,
                        state->graph.meta.dim);
    ruhnsw_identity(scan->indexRelation, &state->graph.meta, &state->scan.identity);
    ruv_choose(&state->scan.identity, state->scan.query, ruv_rows_asked(scan), &state->scan.choice);
    prepare_beam(state);
    make_rule(state);
    pgstat_count_index_scan(scan->indexRelation);
    state->scan.started = true;
    do {
        const RuhnswMetaData *meta = &state->graph.meta;

        if (state->graph.entry_vanished)
            ruhnsw_graph_refresh(&state->graph);
        if (++attempts > RUHNSW_ENTRY_ATTEMPTS)
            ruhnsw_corrupt(scan->indexRelation, ruhnsw_ref_block(meta->entry),
                           "the entry point is not there");
        if (meta->entry_level < 0) {
            state->scan.finished = true;
            ruv_check(rv_beam_start(state->beam, &state->rule, 0, -1, NULL, 0, &err), &err,
                      "ruhnsw search");
            return;
        }
        count = make_starts(state, starts);
        level = count > 1 ? 0 : meta->entry_level;
        ruhnsw_graph_prefetch(&state->graph, starts, count);
        ruv_check(rv_beam_start(state->beam, &state->rule, meta->entry, level, starts, count, &err),
                  &err, "ruhnsw search");
    } while (state->graph.entry_vanished);
}

/* Whether the scan may go on to another window; sets the bound of that window's work. */
static bool
may_continue(RuhnswScan *state)
{
    rv_beam_stats stats;
    uint64 left;
    rv_error err;

    if (rv_beam_ready(state->beam))
        return true;
    stats = rv_beam_get_stats(state->beam);
    if (stats.windows == 0)
        return true;
    RUV_PAUSE("ruhnsw-scan-window");
    if (ruv_iterative_scan == RUV_ITERATIVE_OFF &&
        (state->scan.choice.mode != RV_SEARCH_ADAPTIVE ||
         state->scan.returned >= ruv_effective_ef_search(&state->scan.identity.own)))
        return false;
    if (stats.distances >= (uint64)ruv_max_scan_tuples)
        return false;
    left = ruv_max_scan_tuples - stats.distances;
    if (state->scan.choice.mode == RV_SEARCH_ADAPTIVE && state->scan.choice.max_distances > 0)
        left = Min(left, state->scan.choice.max_distances);
    state->rule.max_distances = left;
    ruv_check(rv_beam_set_rule(state->beam, &state->rule, &err), &err, "ruhnsw search");
    return true;
}

/* Takes the next rows of the current node, none when it died or vanished; false at its end. */
static bool
load_rows(RuhnswScan *state)
{
    state->tid_next = state->tid_count = 0;
    while (state->tid_count == 0 && state->position != RUHNSW_ROWS_END)
        state->tid_count =
            ruhnsw_next_rows(&state->graph, state->node, &state->position, state->tids);
    return state->tid_count > 0;
}

static void
add_waiting(RuhnswScan *state, const RuhnswResult *result)
{
    int at = state->waiting_count;

    if (at == state->waiting_room) {
        state->waiting_room *= 2;
        state->waiting = repalloc(state->waiting, sizeof(RuhnswResult) * state->waiting_room);
    }
    while (at > 0 && state->waiting[at - 1].distance > result->distance)
        at--;
    memmove(&state->waiting[at + 1], &state->waiting[at],
            sizeof(RuhnswResult) * (state->waiting_count - at));
    state->waiting[at] = *result;
    state->waiting_count++;
}

/*
 * Takes nodes from the beam, which orders them by the distances of the search, until the first of
 * those that wait is nearer than any later one of the window can be, or the window ends. In strict
 * order those that wait stay for the next window: what came before them would have to be skipped.
 * False: nothing waits, and the scan may not go on.
 */
static bool
fill_waiting(RuhnswScan *state)
{
    while (state->waiting_count == 0 || state->waiting[0].distance > state->least) {
        rv_beam_result found;
        RuhnswResult result;
        rv_status status;
        rv_error err;

        if (state->waiting_count > 0 && !rv_beam_ready(state->beam) &&
            ruv_iterative_scan != RUV_ITERATIVE_STRICT)
            break;
        if (!may_continue(state))
            break;
        status = rv_beam_next(state->beam, &found, &err);
        if (status == RV_ERR_NOTFOUND)
            break;
        ruv_check(status, &err, "ruhnsw search");
        state->least = ruhnsw_lower_bound(&state->graph, state->query_norm, found.distance);
        if (ruhnsw_load_result(&state->graph, found.node, &result))
            add_waiting(state, &result);
    }
    return state->waiting_count > 0;
}

/* Makes the next node the current one; false at the end. */
static bool
next_node(RuhnswScan *state)
{
    while (fill_waiting(state)) {
        RuhnswResult *first = &state->waiting[0];

        state->node = first->node;
        state->distance = first->distance;
        state->position = first->position;
        state->tid_next = 0;
        state->tid_count = first->tid_count;
        memcpy(state->tids, first->tids, sizeof(first->tids));
        state->waiting_count--;
        memmove(first, first + 1, sizeof(RuhnswResult) * state->waiting_count);
        if (ruv_scan_is_late(&state->scan, state->distance))
            continue;
        if (state->tid_count > 0 || load_rows(state))
            return true;
    }
    return false;
}

static bool
next_row(IndexScanDesc scan)
{
    RuhnswScan *state = scan->opaque;

    if (!state->scan.started)
        start_search(scan);
    if (state->scan.finished)
        return false;
    if (state->tid_next == state->tid_count && !load_rows(state) && !next_node(state)) {
        state->scan.finished = true;
        return false;
    }
    ruv_scan_return(scan, &state->scan, &state->tids[state->tid_next++], state->node,
                    state->distance);
    return true;
}

bool
ruhnsw_get_tuple(IndexScanDesc scan, ScanDirection direction)
{
    RuhnswScan *state = scan->opaque;
    MemoryContext former;
    instr_time before;
    instr_time after;
    bool found;

    if (scan->numberOfOrderBys != 1)
        elog(ERROR, "a ruhnsw index can only be scanned in the order of one distance");
    if (!ScanDirectionIsForward(direction))
        elog(ERROR, "a ruhnsw index cannot be scanned backwards");
    if (!state->scan.started)
        INSTR_TIME_SET_ZERO(state->scan.spent);
    INSTR_TIME_SET_CURRENT(before);
    former = MemoryContextSwitchTo(state->context);
    ruv_reader_refresh(&state->graph.reader);
    found = next_row(scan);
    ruv_reader_report(&state->graph.reader);
    MemoryContextSwitchTo(former);
    INSTR_TIME_SET_CURRENT(after);
    INSTR_TIME_ACCUM_DIFF(state->scan.spent, after, before);
    return found;
}

void
ruhnsw_end_scan(IndexScanDesc scan)
{
    RuhnswScan *state = scan->opaque;

    report_search(state);
    MemoryContextDelete(state->context);
    scan->opaque = NULL;
}
