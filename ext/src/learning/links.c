/*
 * links.c - learned links: from recorded searches to edges of the graph (engine: links.h).
 *
 * Queries are divided by a hash of their vector, so that equal queries are on the same side. Three
 * in four ask for links: of these only the true neighbours are wanted, as many as the healing
 * policy says, which the pass over the table finds on its way; nothing else of such a search is
 * kept. The others calibrate, and judge whether links pay: they never take part in making any.
 *
 * When a round takes place, how large it may be and what it must gain, the healing policy decides
 * (healing.c). A round:
 *
 *   choose   rows to nodes, the links that they lack, the most wanted first; what a search of the
 *            held-out queries costs at some recalls. The links are stored as a round that is being
 *            applied, and that is committed.
 *   apply    the links are written, RUV_LINK_CHUNK of them in a transaction, each node's in one WAL
 *            record
 *   judge    the held-out queries are traced on the new graph. Unless the same recalls cost less
 *            now, by what the policy asks for, the links are taken away again. Either way the
 *            round is stored as finished
 *
 * Changes of an index are not undone when a transaction fails. So whatever ends a round early, an
 * error, a crash, the end of the worker, leaves the stored round as it was, and the next worker to
 * load the index takes its links away before it does anything else.
 *
 * The slack in use was calibrated without the new links; until the samples have been traced again,
 * searches find a little more than they should, for as much work as before.
 *
 * Locks: those of an insert, taken only if free. Whoever waits for a stronger lock waits for one
 * chunk at most.
 */
#include "learning/linking.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pause.h"
#include "pgstat.h"
#include "ruhnsw/ruhnsw_api.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define RUV_LINK_PARTS 4 /* one of them is held out */
#define RUV_LINK_CHUNK 512
/* Different links that a round weighs. */
#define RUV_MAX_LINK_REQUESTS 400000

/* ---- which searches ------------------------------------------------------------------------ */

bool
ruv_links_wanted(const RuvIndexState *state)
{
    return ruv_learned_links && state->identity.link_room > 0;
}

bool
ruv_links_held_out(const float *query, int dim)
{
    return hash_bytes((const unsigned char *)query, (int)sizeof(float) * dim) % RUV_LINK_PARTS == 0;
}

void
ruv_links_part_samples(RuvIndexState *state)
{
    bool part = state->linking.linked || state->linking.unfinished;
    ListCell *cell;

    foreach (cell, state->samples) {
        RuvSample *sample = lfirst(cell);

        sample->even = sample->drawn && (!part || sample->held_out);
    }
}

bool
ruv_links_ask(const RuvIndexState *state, const RuvSample *sample)
{
    /* Other feedback than on a miss that somebody has noticed asks for nothing. */
    bool asks = sample->asks || (sample->feedback != NULL && sample->feedback->missed_near > 0);

    return sample->for_links ||
           (!sample->drawn && asks && ruv_links_wanted(state) && !sample->held_out);
}

/* The nearest of what a search returned when none of it is among the true neighbours, else 0. What
 * a former build returned is not known any more. */
static uint64
ended_at(const RuvSample *sample, float bound)
{
    if (sample->retrace || sample->hits == NULL || sample->head.result_count == 0)
        return 0;
    for (uint32 i = 0; i < sample->head.result_count; i++)
        if (sample->hits[i].distance <= bound)
            return 0;
    return sample->hits[0].node;
}

/* Where the next waiting query goes; -1: nowhere. Once as many wait as may, each further one takes
 * the place of another at random, so that those that are left speak for all that came. */
static int
place_of_query(RuvLinking *linking)
{
    uint64 place = linking->noted++;

    if (list_length(linking->queries) < RV_HEALING_MAX_QUERIES)
        return list_length(linking->queries);
    place = rv_prng_below(&ruv_worker.prng, place + 1);
    return place < RV_HEALING_MAX_QUERIES ? (int)place : -1;
}

void
ruv_links_note(RuvIndexState *state, const RuvSample *sample, const uint64 *ids,
               const float *distances, int count, bool are_nodes)
{
    RuvLinkQuery *query;
    MemoryContext former;
    int k = Min((int)sample->head.k, count);
    int place = count < 2 ? -1 : place_of_query(&state->linking);

    if (place < 0)
        return;
    former = MemoryContextSwitchTo(state->context);
    query = palloc(offsetof(RuvLinkQuery, ids) + sizeof(uint64) * count);
    query->count = count;
    query->k = (int)sample->head.k;
    query->are_nodes = are_nodes;
    query->ended_at = ended_at(sample, distances[k - 1]);
    memcpy(query->ids, ids, sizeof(uint64) * count);
    if (place < list_length(state->linking.queries)) {
        pfree(list_nth(state->linking.queries, place));
        lfirst(list_nth_cell(state->linking.queries, place)) = query;
    } else {
        state->linking.queries = lappend(state->linking.queries, query);
    }
    MemoryContextSwitchTo(former);
}

void
ruv_links_forget(RuvIndexState *state)
{
    list_free_deep(state->linking.queries);
    memset(&state->linking, 0, sizeof(state->linking));
    ruv_links_part_samples(state);
}

/* What was traced before is out of date. */
static void
graph_renewed(RuvIndexState *state)
{
    state->linking.renewed = true;
    state->graph_version++;
}

/* Links taken away by hand: the graph is another one, and what asked for them may ask again. */
void
ruv_links_follow_resets(RuvIndexState *state)
{
    uint64 resets = pg_atomic_read_u64(&state->slot->links_resets);

    if (state->linking.resets == resets)
        return;
    state->linking.resets = resets;
    state->linking.reset = true;
    graph_renewed(state);
    state->linking.changed = GetCurrentTimestamp();
    state->linking.used = 0;
    state->linking.linked = false;
    ruv_links_part_samples(state);
    state->linking.links = 0;
}

bool
ruv_links_retrace_due(const RuvIndexState *state)
{
    bool renewed = state->linking.renewed ||
                   state->linking.resets != pg_atomic_read_u64(&state->slot->links_resets);

    return renewed && list_length(state->samples) >= state->min_samples;
}

/* ---- choosing ------------------------------------------------------------------------------ */

static int
compare_ids(const void *a, const void *b)
{
    uint64 x = *(const uint64 *)a;
    uint64 y = *(const uint64 *)b;

    return x < y ? -1 : x > y ? 1 : 0;
}

/* The rows of all waiting searches: ascending, different. */
static uint64 *
collect_rows(const List *queries, int *count)
{
    Size room = 0;
    uint64 *rows;
    int found = 0;
    int kept = 0;
    ListCell *cell;

    foreach (cell, queries)
        room += ((RuvLinkQuery *)lfirst(cell))->count;
    rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * Max(room, 1));
    foreach (cell, queries) {
        const RuvLinkQuery *query = lfirst(cell);

        for (int i = 0; !query->are_nodes && i < query->count; i++)
            rows[found++] = query->ids[i];
    }
    qsort(rows, found, sizeof(uint64), compare_ids);
    for (int i = 0; i < found; i++)
        if (kept == 0 || rows[kept - 1] != rows[i])
            rows[kept++] = rows[i];
    *count = kept;
    return rows;
}

/* Puts the nodes of the rows in their place. */
static void
rows_to_nodes(List *queries, Relation index)
{
    int count;
    uint64 *rows = collect_rows(queries, &count);
    uint64 *nodes = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * Max(count, 1));
    ListCell *cell;

    ruhnsw_find_rows(index, rows, count, nodes, ruv_worker_breathe);
    foreach (cell, queries) {
        RuvLinkQuery *query = lfirst(cell);

        for (int i = 0; !query->are_nodes && i < query->count; i++) {
            uint64 *row = bsearch(&query->ids[i], rows, count, sizeof(uint64), compare_ids);

            query->ids[i] = row == NULL ? 0 : nodes[row - rows];
        }
        query->are_nodes = true;
    }
}

/* The links that these searches lack. */
static void
choose_links(RuvIndexState *state, List *queries, Relation index, RuvLinkRound *round)
{
    const rv_healing *bounds = &state->linking.answer;
    int searches = list_length(queries);
    RuhnswFound *found = palloc(sizeof(RuhnswFound) * searches);
    rv_allocator allocator;
    rv_links *links;
    rv_error err = {0};
    uint32_t count;
    uint32 wanted;
    ListCell *cell;

    rows_to_nodes(queries, index);
    foreach (cell, queries) {
        const RuvLinkQuery *query = lfirst(cell);
        RuhnswFound *to = &found[foreach_current_index(cell)];

        to->nodes = query->ids;
        to->count = Min(query->count, Max(query->k, (int)bounds->rows_per_query));
        to->ended_at = query->ended_at;
    }
    ruv_context_allocator(CurrentMemoryContext, &allocator);
    ruv_check(rv_links_create(&allocator, state->identity.metric,
                              state->identity.metric == RV_METRIC_COSINE,
                              (uint32_t)state->identity.dim, RUV_MAX_LINK_REQUESTS, &links, &err),
              &err, "looking for missing links");
    ruhnsw_ask_links(index, links, found, searches, ruv_worker_breathe);
    wanted = rv_links_count(links);
    round->links = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(rv_link) * Max(wanted, 1));
    ruv_check(rv_links_choose(links, bounds->min_requests,
                              Min(bounds->links_per_node, (uint32)state->identity.link_room),
                              round->links, wanted, &count, &err),
              &err, "choosing links");
    rv_links_destroy(links);
    round->count = (int)count;
    round->queries = searches;
}

/* ---- transactions -------------------------------------------------------------------------- */

/* Opens the index as an insert does, if nobody holds or waits for a conflicting lock, and it is
 * the build that is known; NULL if not. */
static Relation
open_index(const RuvIndexState *state)
{
    Relation index;
    RuvIndexIdentity identity;

    if (!ConditionalLockRelationOid(state->table_oid, RowExclusiveLock) ||
        !ConditionalLockRelationOid(state->index_oid, RowExclusiveLock))
        return NULL;
    index = try_relation_open(state->index_oid, NoLock);
    if (index == NULL || !ruv_is_index(index) || !index->rd_index->indisvalid)
        return NULL;
    ruv_index_identity(index, &identity);
    return identity.epoch == state->identity.epoch ? index : NULL;
}

static Relation
begin(const RuvIndexState *state)
{
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    pgstat_report_activity(STATE_RUNNING,
                           psprintf("learning links for %s", NameStr(state->index_name)));
    return open_index(state);
}

static void
end(void)
{
    PopActiveSnapshot();
    CommitTransactionCommand();
    pgstat_report_activity(STATE_IDLE, NULL);
}

/* Stores the round in the running transaction. False: the extension is gone. */
static bool
store_round(RuvIndexState *state, RuvLinkRound *round)
{
    RuvStore store;

    if (!ruv_store_open(&store))
        return false;
    ruv_store_save_link_round(&store, state, round);
    ruv_store_close(&store);
    return true;
}

/* Makes the round's links or takes them away. False: somebody needs the index otherwise. */
static bool
write_links(RuvIndexState *state, RuvLinkRound *round, bool make)
{
    round->written = 0;
    for (int at = 0; at < round->count;) {
        int last = Min(at + RUV_LINK_CHUNK, round->count);
        Relation index = begin(state);

        /* The links of one node are written together. */
        while (last < round->count && round->links[last].from == round->links[last - 1].from)
            last++;
        if (index == NULL) {
            end();
            return false;
        }
        round->written += ruhnsw_write_links(index, round->links + at, last - at, make,
                                             round->done + at, ruv_worker_breathe);
        relation_close(index, NoLock);
        RUV_PAUSE("ruvector-links-written");
        end();
        at = last;
    }
    return true;
}

/* Links that were there already, or found no room, are no part of the round. */
static void
keep_written(RuvLinkRound *round)
{
    int kept = 0;

    for (int i = 0; i < round->count; i++)
        if (round->done[i])
            round->links[kept++] = round->links[i];
    round->count = kept;
}

/* ---- a round ------------------------------------------------------------------------------- */

/* Forgets the first of the waiting queries: they had their say. */
static void
drop_queries(RuvIndexState *state, int count)
{
    MemoryContext former = MemoryContextSwitchTo(state->context);
    List *rest = list_copy_tail(state->linking.queries, count);

    for (int i = 0; i < count; i++)
        pfree(list_nth(state->linking.queries, i));
    list_free(state->linking.queries);
    state->linking.queries = rest;
    state->linking.noted = (uint64)list_length(rest);
    MemoryContextSwitchTo(former);
}

/* False: somebody needs the index otherwise. *ready: there is something to apply, and that is
 * stored. */
static bool
prepare(RuvIndexState *state, RuvLinkRound *round, RuvHeldOut *held_out, bool *ready)
{
    Relation index = begin(state);

    *ready = false;
    if (index != NULL) {
        MemoryContext former = MemoryContextSwitchTo(round->context);
        int asking = Min(list_length(state->linking.queries), (int)state->linking.answer.queries);

        choose_links(state, list_copy_head(state->linking.queries, asking), index, round);
        round->done = palloc0(sizeof(bool) * Max(round->count, 1));
        ruv_held_out_before(held_out, state);
        MemoryContextSwitchTo(former);
        relation_close(index, NoLock);
        state->linking.used += round->queries;
        drop_queries(state, asking);
        round->state = RUV_LINKS_APPLYING;
        *ready = round->count > 0 && store_round(state, round);
    }
    end();
    return index != NULL;
}

static bool
judge(RuvIndexState *state, RuvHeldOut *held_out)
{
    Relation index = begin(state);
    Relation table;
    bool judged = index != NULL;

    if (judged) {
        table = relation_open(state->table_oid, NoLock);
        ruv_held_out_after(held_out, state, table, index);
        relation_close(table, NoLock);
        relation_close(index, NoLock);
    }
    end();
    return judged;
}

/* Stores how the round ended. */
static void
finish(RuvIndexState *state, RuvLinkRound *round, RuvLinkRoundState how)
{
    round->state = how;
    state->linking.changed = GetCurrentTimestamp();
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    (void)store_round(state, round);
    end();
    ereport(
        DEBUG1,
        (errmsg("learned links of index \"%s\": %d of %d queries, %s", NameStr(state->index_name),
                round->count, round->queries, ruv_link_round_state_name(how)),
         errdetail("Distances of %d held-out queries at equal recall: %.1f before, %.1f after.",
                   round->held_out, round->before, round->after)));
}

/* False: somebody needs the index otherwise. What was begun is then unfinished. */
static bool
run_round(RuvIndexState *state, RuvLinkRound *round)
{
    RuvHeldOut held_out = {0};
    bool ready;

    if (!prepare(state, round, &held_out, &ready))
        return false;
    if (!ready)
        return true;
    state->linking.unfinished = true;
    ruv_links_part_samples(state);
    if (!write_links(state, round, true))
        return false;
    keep_written(round);
    if (!judge(state, &held_out))
        return false;
    round->held_out = held_out.count;
    round->before = held_out.before;
    round->after = held_out.after;
    state->linking.judged = held_out.before > 0;
    state->linking.gain = state->linking.judged ? 1 - held_out.after / held_out.before : 0;
    if (ruv_held_out_pays(&held_out, state->linking.answer.min_gain)) {
        finish(state, round, RUV_LINKS_KEPT);
        state->linking.linked = true;
        state->linking.links += (uint64)round->count;
        graph_renewed(state);
        ruv_held_out_keep(&held_out, state);
    } else {
        if (!write_links(state, round, false))
            return false;
        finish(state, round, RUV_LINKS_ROLLED_BACK);
    }
    state->linking.unfinished = false;
    ruv_links_part_samples(state);
    return true;
}

/* Takes away the links of rounds that did not end. False: somebody needs the index otherwise. */
static bool
recover(RuvIndexState *state, RuvLinkRound *round)
{
    while (ruv_links_load_unfinished(state, round)) {
        round->done = palloc0(sizeof(bool) * Max(round->count, 1));
        if (!write_links(state, round, false))
            return false;
        finish(state, round, RUV_LINKS_INTERRUPTED);
    }
    state->linking.unfinished = false;
    graph_renewed(state);
    ruv_links_part_samples(state);
    return true;
}

bool
ruv_links_round(RuvIndexState *state)
{
    double started = ruv_processor_seconds();
    RuvLinkRound round = {0};
    MemoryContext former;
    double seconds;
    bool done;

    round.context =
        AllocSetContextCreate(state->context, "ruvector links round", ALLOCSET_DEFAULT_SIZES);
    former = MemoryContextSwitchTo(round.context);
    done = state->linking.unfinished ? recover(state, &round) : run_round(state, &round);
    MemoryContextSwitchTo(former);
    MemoryContextDelete(round.context);
    seconds = ruv_processor_seconds() - started;
    state->learning_seconds += seconds;
    state->linking.seconds = seconds;
    state->linking.ended = GetCurrentTimestamp();
    return done;
}
