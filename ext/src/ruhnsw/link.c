/*
 * link.c - choosing and changing the links of nodes on pages: what inserts, vacuum and the check of
 * reachability have in common.
 *
 * Changing a node's links is optimistic. The list is read and the lock released; the new list is
 * chosen at leisure, reading other pages one at a time; then the page of the list is locked
 * exclusively, the list compared with what was read, and replaced if it is still the same, else
 * everything is done again. So no content lock is held while another page is read, and a stale list
 * never overwrites a newer one: vacuum relies on that to know that a link it removed stays removed.
 *
 * Pruning can cut nodes off: a full list must drop somebody, and that may have been the only way to
 * some part of the graph. So on layer 0 a node is dropped from a list only when one that stays in
 * the list links to it: every way that led over the dropped link now leads over that one, and what
 * could be reached still can. Should several writers drop links at the same moment, each relying on
 * one that another drops, both see it when they look again afterwards (attach_dropped), and the
 * link is put back.
 *
 * A link to a dead node is a way like any other as long as something lives behind it: a vacuum that
 * was interrupted leaves dead nodes standing for hours. So the same rule holds for them. Vacuum
 * takes them out of lists without asking (vacuum_repair.c), but only after it has made sure that
 * every live node is reached over live nodes alone (reach.c), which the rule keeps true.
 */
#include "ruhnsw/ruhnsw.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/memutils.h"

/* Times that a list is chosen anew because somebody else changed it; the link is then given up. */
#define LINK_ATTEMPTS 32

/* Links that are looked at again for each one dropped. */
#define ATTACH_TURNS 4

/* Links of a full list that are considered for being dropped, worst first. */
#define VICTIM_ATTEMPTS 4

void
ruhnsw_writer_open(RuhnswWriter *writer, Relation index, bool building)
{
    MemoryContext context =
        AllocSetContextCreate(CurrentMemoryContext, "ruhnsw writer", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(context);
    rv_metric_map map;
    rv_error err;
    Size links;
    Size vector;

    memset(writer, 0, sizeof(*writer));
    writer->context = context;
    writer->building = building;
    ruv_context_allocator(context, &writer->allocator);
    ruhnsw_graph_open(&writer->graph, index);
    map = rv_metric_map_make(writer->graph.metric, 0.0f, 0.0f);
    ruv_check(rv_beam_create(&writer->allocator, &writer->graph.graph, &map, &writer->beam, &err),
              &err, "ruhnsw insert");

    writer->ef_construction = Max(ruhnsw_option_ef_construction(index), 2 * writer->graph.meta.m);
    links = (2 * writer->graph.meta.m + 1) * sizeof(uint64);
    vector = sizeof(float) * writer->graph.meta.dim;
    writer->candidate_room = writer->ef_construction + 2 * writer->graph.meta.m + 1;
    writer->found = palloc(sizeof(rv_neighbour) * writer->ef_construction);
    writer->entries = palloc(sizeof(rv_neighbour) * writer->ef_construction);
    writer->candidates = palloc(sizeof(rv_candidate) * writer->candidate_room);
    writer->vectors = MemoryContextAllocHuge(context, vector * writer->candidate_room);
    writer->vector = palloc(vector);
    writer->anchor = palloc(vector);
    writer->old_links = palloc(links);
    writer->new_links = palloc(links);
    writer->back_links = palloc(links);
    writer->far_links = palloc(links);
    writer->dropped_room = 64;
    writer->dropped = palloc(sizeof(RuhnswDropped) * writer->dropped_room);
    writer->distances = palloc(sizeof(float) * writer->candidate_room);
    writer->node = palloc0(BLCKSZ);
    writer->links = palloc(BLCKSZ);
    MemoryContextSwitchTo(former);
}

void
ruhnsw_writer_close(RuhnswWriter *writer)
{
    MemoryContextDelete(writer->context);
    writer->context = NULL;
}

void
ruhnsw_search_levels(RuhnswWriter *writer, const float *vector, int top, ruhnsw_use_found use,
                     void *arg)
{
    RuhnswGraph *graph = &writer->graph;
    uint32 entry_count = 1;
    rv_neighbour *entry = &writer->entries[0];
    rv_error err;

    Assert(top <= graph->meta.entry_level);
    graph->query = vector;
    ruv_reader_refresh(&graph->reader);
    entry->node = graph->meta.entry;
    if (graph->graph.distance(graph, entry->node, &entry->distance, &entry->flags) != RV_OK)
        ruhnsw_corrupt(graph->index, ruhnsw_ref_block(entry->node), "the entry point is not there");
    for (int level = graph->meta.entry_level; level >= 0; level--) {
        uint32 ef = level > top ? 1 : writer->ef_construction;
        uint32 count;

        ruv_check(rv_beam_search_level(writer->beam, writer->entries, entry_count, ef, level,
                                       writer->found, &count, &err),
                  &err, "ruhnsw insert");
        /* Without a live node on this level the next one starts where this one did. */
        if (count > 0) {
            memcpy(writer->entries, writer->found, sizeof(rv_neighbour) * count);
            entry_count = count;
        }
        if (level <= top)
            use(writer, level, count, arg);
    }
}

void
ruhnsw_add_candidate(RuhnswWriter *writer, const float *from, uint64 self, uint64 ref, int *count)
{
    rv_candidate *candidate = &writer->candidates[*count];
    float *vector = writer->vectors + (Size)*count * writer->graph.meta.dim;
    uint16 flags;

    if (ref == self)
        return;
    for (int i = 0; i < *count; i++)
        if (writer->candidates[i].node == ref)
            return;
    Assert(*count < writer->candidate_room);
    if (!ruhnsw_peek_node(&writer->graph, ref, vector, &flags) || (flags & RUHNSW_NODE_DEAD))
        return;
    candidate->node = ref;
    candidate->vector = vector;
    candidate->distance = ruhnsw_distance(&writer->graph, from, vector);
    candidate->tag = 0;
    (*count)++;
}

/* The list of a level at a position on its locked page; NULL when the node vanished. *count gets
 * the place of its length. */
static uint32 *
list_at(const RuhnswGraph *graph, Page page, uint64 position, uint64 ref, int level, uint8 **count)
{
    if (level == 0) {
        RuhnswNode *node = ruhnsw_get_node(graph->index, &graph->geometry, page, ref);

        *count = node ? &node->link_count : NULL;
        return node ? ruhnsw_base_links(&graph->geometry, node) : NULL;
    } else {
        RuhnswLinks *links = ruhnsw_get_links(graph->index, page, position, ref, graph->geometry.m);

        if (links == NULL || level > links->level)
            return NULL;
        *count = &links->counts[level];
        return links->links + ruhnsw_level_start(graph->geometry.m, level);
    }
}

static bool
same_links(const RuhnswGeometry *geometry, const uint32 *numbers, const uint64 *links, int count)
{
    for (int i = 0; i < count; i++)
        if (ruhnsw_number_ref(geometry, numbers[i]) != links[i])
            return false;
    return true;
}

bool
ruhnsw_replace_links(RuhnswWriter *writer, uint64 ref, uint64 position, int level,
                     const uint64 *old_links, int old_count, const uint64 *new_links, int new_count)
{
    RuhnswGraph *graph = &writer->graph;
    int limit = ruhnsw_level_limit(graph->geometry.m, level);
    Buffer buffer = ruhnsw_read(graph->index, ruhnsw_ref_block(position), BUFFER_LOCK_EXCLUSIVE);
    uint8 *count = NULL;
    uint32 *list = list_at(graph, BufferGetPage(buffer), position, ref, level, &count);
    bool same = list != NULL && *count == old_count &&
                same_links(&graph->geometry, list, old_links, old_count);

    if (new_count > limit)
        elog(ERROR, "%d links are too many for level %d", new_count, level);
    if (same) {
        RuhnswChange change;

        ruhnsw_change_begin(&change, graph->index, writer->building);
        list = list_at(graph, ruhnsw_change_page(&change, buffer), position, ref, level, &count);
        *count = new_count;
        for (int i = 0; i < limit; i++)
            list[i] = i < new_count ? (uint32)ruhnsw_ref_number(&graph->geometry, new_links[i]) : 0;
        ruhnsw_change_commit(&change);
    }
    UnlockReleaseBuffer(buffer);
    return same;
}

static bool
contains(const uint64 *links, int count, uint64 ref)
{
    for (int i = 0; i < count; i++)
        if (links[i] == ref)
            return true;
    return false;
}

/* True when the live node via links to target on layer 0. */
static bool
leads_to(RuhnswWriter *writer, uint64 via, uint64 target)
{
    uint16 flags;
    int count = ruhnsw_load_links(&writer->graph, via, 0, writer->far_links, NULL, &flags);

    return count > 0 && !(flags & RUHNSW_NODE_DEAD) && contains(writer->far_links, count, target);
}

static void
remember_dropped(RuhnswWriter *writer, uint64 from, uint64 to)
{
    if (writer->dropped_count == writer->dropped_room) {
        writer->dropped_room *= 2;
        writer->dropped =
            repalloc_huge(writer->dropped, sizeof(RuhnswDropped) * (Size)writer->dropped_room);
    }
    writer->dropped[writer->dropped_count].from = from;
    writer->dropped[writer->dropped_count++].to = to;
}

/* True when one of the other candidates links to candidate i on layer 0. Those nearest to it are
 * asked first: they are the likeliest. */
static bool
other_leads_to(RuhnswWriter *writer, int count, int i)
{
    const rv_candidate *candidates = writer->candidates;
    float *distances = writer->distances;

    for (int j = 0; j < count; j++)
        distances[j] = ruhnsw_distance(&writer->graph, candidates[i].vector, candidates[j].vector);
    distances[i] = INFINITY;
    for (int asked = 1; asked < count; asked++) {
        int nearest = 0;

        for (int j = 1; j < count; j++)
            if (distances[j] < distances[nearest])
                nearest = j;
        if (nearest == i)
            return false;
        if (leads_to(writer, candidates[nearest].node, candidates[i].node))
            return true;
        distances[nearest] = INFINITY;
    }
    return false;
}

static bool
is_candidate(const RuhnswWriter *writer, int count, uint64 ref)
{
    for (int i = 0; i < count; i++)
        if (writer->candidates[i].node == ref)
            return true;
    return false;
}

/* The dead nodes among the old links, those that are no candidates; returns how many. */
static int
dead_links(RuhnswWriter *writer, int old_count, int count, uint64 *dead)
{
    int found = 0;

    for (int i = 0; i < old_count; i++) {
        uint64 ref = writer->old_links[i];
        uint16 flags;

        if (!is_candidate(writer, count, ref) &&
            ruhnsw_load_node(&writer->graph, ref, NULL, &flags, NULL) && (flags & RUHNSW_NODE_DEAD))
            dead[found++] = ref;
    }
    return found;
}

/* Which of the dead links can go because one of count live candidates leads there too; -1: none. */
static int
choose_dead(RuhnswWriter *writer, const uint64 *dead, int dead_count, int count, int level,
            bool force)
{
    int attempts = force ? dead_count : Min(dead_count, VICTIM_ATTEMPTS);

    for (int i = 0; i < attempts; i++) {
        if (level > 0)
            return i;
        for (int j = 0; j < count; j++)
            if (leads_to(writer, writer->candidates[j].node, dead[i]))
                return i;
    }
    return -1;
}

/*
 * Which of count candidates, one more than the list holds, goes: the one that the heuristic leaves
 * out (it is last), unless it must stay. Returns its position, or -1 when none can go.
 */
static int
choose_victim(RuhnswWriter *writer, uint64 to, int count, int level, bool force)
{
    int attempts = force ? count : VICTIM_ATTEMPTS;

    if (writer->candidates[count - 1].node == to && !force)
        return -1;
    for (int i = count - 1; i >= 0 && attempts > 0; i--) {
        if (writer->candidates[i].node == to)
            continue;
        if (level > 0 || other_leads_to(writer, count, i))
            return i;
        attempts--;
    }
    return -1;
}

/* Takes the dead link that can go best out of the list; false when all have to stay. */
static bool
drop_dead(RuhnswWriter *writer, uint64 *dead, int dead_count, int count, int level, bool force)
{
    int gone = choose_dead(writer, dead, dead_count, count, level, force);

    if (gone < 0 && writer->may_cut && dead_count > 0)
        gone = 0;
    if (gone < 0)
        return false;
    dead[gone] = dead[dead_count - 1];
    return true;
}

/*
 * Chooses the new list of a full node into new_links: the dead ones that stay, then live ones.
 * Returns its length, or -1 when to is not let in. *victim: the live node that was dropped, or no
 * reference.
 */
static int
choose_links(RuhnswWriter *writer, uint64 from, uint64 to, int old_count, int level, bool force,
             uint64 *victim)
{
    const RuhnswMetaData *meta = &writer->graph.meta;
    int limit = ruhnsw_level_limit(meta->m, level);
    int count = 0;
    int skip = -1;
    int kept = 0;
    int live;

    *victim = RUHNSW_NO_REF;
    if (!ruhnsw_load_node(&writer->graph, from, writer->anchor, NULL, NULL))
        return -1;
    for (int i = 0; i < old_count; i++)
        ruhnsw_add_candidate(writer, writer->anchor, from, writer->old_links[i], &count);
    live = count;
    ruhnsw_add_candidate(writer, writer->anchor, from, to, &count);
    if (count == live)
        return -1;
    if (live < old_count)
        kept = dead_links(writer, old_count, count, writer->new_links);
    if (kept + count > limit) {
        if (drop_dead(writer, writer->new_links, kept, count, level, force)) {
            kept--;
        } else {
            rv_hnsw_select(writer->graph.metric, writer->graph.unit, meta->dim, writer->candidates,
                           count, count - 1, NULL);
            skip = choose_victim(writer, to, count, level, force);
            if (skip < 0)
                return -1;
            *victim = writer->candidates[skip].node;
        }
    }
    for (int i = 0; i < count; i++)
        if (i != skip)
            writer->new_links[kept++] = writer->candidates[i].node;
    return kept;
}

bool
ruhnsw_link(RuhnswWriter *writer, uint64 from, uint64 to, int level, bool force)
{
    int limit = ruhnsw_level_limit(writer->graph.meta.m, level);

    for (int attempt = 0; attempt < LINK_ATTEMPTS; attempt++) {
        uint64 victim = RUHNSW_NO_REF;
        uint64 position;
        uint16 flags;
        int old_count;
        int new_count;

        CHECK_FOR_INTERRUPTS();
        old_count =
            ruhnsw_load_links(&writer->graph, from, level, writer->old_links, &position, &flags);
        if (old_count < 0 || (flags & RUHNSW_NODE_DEAD))
            return false;
        if (contains(writer->old_links, old_count, to))
            return true;
        if (old_count < limit) {
            memcpy(writer->new_links, writer->old_links, sizeof(uint64) * old_count);
            writer->new_links[old_count] = to;
            new_count = old_count + 1;
        } else {
            new_count = choose_links(writer, from, to, old_count, level, force, &victim);
            if (new_count < 0)
                return false;
        }
        if (ruhnsw_replace_links(writer, from, position, level, writer->old_links, old_count,
                                 writer->new_links, new_count)) {
            if (victim != RUHNSW_NO_REF && level == 0)
                remember_dropped(writer, from, victim);
            return true;
        }
    }
    return false;
}

/*
 * Lets a full node link to a fresh one, to which nothing links yet, in place of its last link: the
 * fresh node first takes over the link that goes.
 */
static bool
splice_in(RuhnswWriter *writer, uint64 from, uint64 fresh)
{
    int limit = ruhnsw_level_limit(writer->graph.meta.m, 0);
    int from_count = ruhnsw_load_links(&writer->graph, from, 0, writer->new_links, NULL, NULL);
    uint64 position;
    uint64 moved;
    int count;

    if (from_count <= 0)
        return false;
    moved = writer->new_links[from_count - 1];
    count = ruhnsw_load_links(&writer->graph, fresh, 0, writer->old_links, &position, NULL);
    if (count < 0 || moved == fresh)
        return false;
    memcpy(writer->new_links, writer->old_links, sizeof(uint64) * count);
    writer->new_links[count < limit ? count : limit - 1] = moved;
    if (!contains(writer->old_links, count, moved) &&
        !ruhnsw_replace_links(writer, fresh, position, 0, writer->old_links, count,
                              writer->new_links, Min(count + 1, limit)))
        return false;
    return ruhnsw_link(writer, from, fresh, 0, true);
}

void
ruhnsw_attach(RuhnswWriter *writer, uint64 fresh)
{
    int room = ruhnsw_level_limit(writer->graph.meta.m, 0);
    uint64 *links = palloc(sizeof(uint64) * room);
    int count = ruhnsw_load_links(&writer->graph, fresh, 0, links, NULL, NULL);
    bool attached = false;

    for (int i = 0; i < count && !attached; i++)
        attached = ruhnsw_link(writer, links[i], fresh, 0, true);
    for (int i = 0; i < count && !attached; i++)
        attached = splice_in(writer, links[i], fresh);
    pfree(links);
    /* Others may change the very lists that were tried, in a small graph more than once. */
    if (!attached && !ruhnsw_reconnect(writer, fresh))
        ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
                        errmsg("a new row finds no place among its neighbours in index \"%s\"",
                               RelationGetRelationName(writer->graph.index)),
                        errdetail("Other sessions change the same neighbours all the time."),
                        errhint("Try again.")));
}

/* True when from links to node to, or to one that does. */
static bool
within_two_links(RuhnswWriter *writer, uint64 from, uint64 to)
{
    int count = ruhnsw_load_links(&writer->graph, from, 0, writer->back_links, NULL, NULL);

    if (count > 0 && contains(writer->back_links, count, to))
        return true;
    for (int i = 0; i < count; i++)
        if (leads_to(writer, writer->back_links[i], to))
            return true;
    return false;
}

void
ruhnsw_attach_dropped(RuhnswWriter *writer)
{
    /* Putting a link back may drop another, which is appended and looked at as well. In a small
     * list three nodes that lead to each other in a circle could take turns for ever: after a while
     * only those are put back to which a search finds no way. */
    int last = writer->dropped_count * ATTACH_TURNS;

    for (int i = 0; i < writer->dropped_count && i < last * ATTACH_TURNS; i++) {
        RuhnswDropped dropped = writer->dropped[i];

        if (within_two_links(writer, dropped.from, dropped.to) ||
            (i < last && ruhnsw_link(writer, dropped.from, dropped.to, 0, true)))
            continue;
        if (!ruhnsw_reconnect(writer, dropped.to))
            ereport(WARNING, (errmsg("a row of index \"%s\" may be missed by searches",
                                     RelationGetRelationName(writer->graph.index)),
                              errhint("VACUUM makes it found again.")));
    }
    writer->dropped_count = 0;
}
