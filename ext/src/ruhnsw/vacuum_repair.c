/*
 * vacuum_repair.c - taking the dead nodes of a round out of the graph.
 *
 * The set of dead nodes is kept in memory, in as many rounds as maintenance_work_mem makes
 * necessary. Once the inserts that may have chosen one as a neighbour have ended, nobody links to
 * one of them any more; every live node that still does gets others instead, by a search for its
 * vector and the selection heuristic over what is left and what was found. Changes are optimistic
 * (link.c): one content lock at a time, tried again when somebody else was faster.
 *
 * At every moment every live node can be reached: by the time the first link is taken away all are
 * reached over live nodes alone, and no link between two live nodes of layer 0 is taken away.
 */
#include "ruhnsw/vacuum.h"

#include "pause.h"
#include "storage/lmgr.h"

#define REPAIR_ATTEMPTS 32

static bool
any_dead(RuhnswVacuum *vacuum, const uint64 *links, int count)
{
    for (int i = 0; i < count; i++)
        if (vacuum_is_dead(vacuum, links[i]))
            return true;
    return false;
}
/* ---- the dead nodes of this round ---- */

bool
ruhnsw_vacuum_collect(RuhnswVacuum *vacuum)
{
    HASHCTL control = {.keysize = sizeof(uint64), .entrysize = sizeof(uint64)};
    long count = 0;

    if (vacuum->dead)
        hash_destroy(vacuum->dead);
    vacuum->dead = hash_create("ruhnsw dead nodes", 1024, &control, HASH_ELEM | HASH_BLOBS);
    for (BlockNumber block = RUHNSW_FIRST_BLOCK;
         block < RelationGetNumberOfBlocks(vacuum->index) && count < vacuum->dead_limit; block++) {
        Buffer buffer = vacuum_block(vacuum, block, BUFFER_LOCK_SHARE);
        Page page = BufferGetPage(buffer);

        for (OffsetNumber offset = FirstOffsetNumber; offset <= vacuum_slot_count(vacuum, page);
             offset++) {
            RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);
            uint64 ref;

            if (node == NULL || !(node->flags & RUHNSW_NODE_DEAD) ||
                (node->flags & RUHNSW_NODE_UNLINKED))
                continue;
            ref = ruhnsw_ref(block, offset);
            hash_search(vacuum->dead, &ref, HASH_ENTER, NULL);
            count++;
        }
        UnlockReleaseBuffer(buffer);
    }
    return count > 0;
}

void
ruhnsw_vacuum_wait_for_inserts(RuhnswVacuum *vacuum)
{
    LockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
    UnlockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
}

/* ---- entry ---- */

static uint64
highest_live_node(RuhnswVacuum *vacuum, int *level)
{
    uint64 best = RUHNSW_NO_REF;

    *level = -1;
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = vacuum_block(vacuum, block, BUFFER_LOCK_SHARE);
        Page page = BufferGetPage(buffer);

        for (OffsetNumber offset = FirstOffsetNumber; offset <= vacuum_slot_count(vacuum, page);
             offset++) {
            RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);

            if (node && !(node->flags & RUHNSW_NODE_DEAD) && node->level > *level) {
                best = ruhnsw_ref(block, offset);
                *level = node->level;
            }
        }
        UnlockReleaseBuffer(buffer);
    }
    return best;
}

static bool
is_live(RuhnswGraph *graph, uint64 ref)
{
    uint16 flags;

    return ruhnsw_load_node(graph, ref, NULL, &flags, NULL) && !(flags & RUHNSW_NODE_DEAD);
}

uint64
ruhnsw_vacuum_replace_entry(RuhnswVacuum *vacuum)
{
    RuhnswGraph *graph = &vacuum->writer.graph;
    uint64 root;

    LockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
    ruhnsw_graph_refresh(graph);
    if (graph->meta.entry != RUHNSW_NO_REF && !is_live(graph, graph->meta.entry)) {
        int level;
        uint64 entry = highest_live_node(vacuum, &level);

        ruhnsw_set_entry(vacuum->index, entry, level, false, false);
        ruhnsw_graph_refresh(graph);
    }
    root = graph->meta.root;
    if (root != RUHNSW_NO_REF && !is_live(graph, root))
        root = graph->meta.entry;
    UnlockPage(vacuum->index, RUHNSW_META_BLOCK, ExclusiveLock);
    return root;
}

/* ---- repair ---- */

typedef struct Repair {
    RuhnswVacuum *vacuum;
    uint64 ref;
} Repair;

/* The live ones of the old links, which are the first candidates, into new_links; how many. */
static int
keep_live(RuhnswWriter *writer, int live)
{
    for (int i = 0; i < live; i++)
        writer->new_links[i] = writer->candidates[i].node;
    return live;
}

static bool
is_kept(const RuhnswWriter *writer, int kept, uint64 ref)
{
    for (int i = 0; i < kept; i++)
        if (writer->new_links[i] == ref)
            return true;
    return false;
}

/*
 * Replaces dead links of a node at one level by the best of what was found. On layer 0 the live
 * ones stay: each may be the only way to somebody. Above they compete again.
 */
static void
repair_level(RuhnswWriter *writer, int level, uint32 found, void *arg)
{
    Repair *repair = arg;
    const RuhnswMetaData *meta = &writer->graph.meta;
    int limit = ruhnsw_level_limit(meta->m, level);

    for (int attempt = 0; attempt < REPAIR_ATTEMPTS; attempt++) {
        uint64 position;
        int count = 0;
        int kept;
        int length;
        int chosen;
        int old_count = ruhnsw_load_links(&writer->graph, repair->ref, level, writer->old_links,
                                          &position, NULL);

        if (old_count < 0 || !any_dead(repair->vacuum, writer->old_links, old_count))
            return;
        for (int i = 0; i < old_count; i++)
            ruhnsw_add_candidate(writer, writer->vector, repair->ref, writer->old_links[i], &count);
        kept = length = level == 0 ? keep_live(writer, count) : 0;
        for (uint32 i = 0; i < found; i++)
            ruhnsw_add_candidate(writer, writer->vector, repair->ref, writer->found[i].node,
                                 &count);
        chosen = rv_hnsw_select(writer->graph.metric, writer->graph.unit, meta->dim,
                                writer->candidates, count, limit, NULL);
        for (int i = 0; i < chosen && length < limit; i++)
            if (!is_kept(writer, kept, writer->candidates[i].node))
                writer->new_links[length++] = writer->candidates[i].node;
        if (ruhnsw_replace_links(writer, repair->ref, position, level, writer->old_links, old_count,
                                 writer->new_links, length))
            return;
    }
    ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
                    errmsg("could not repair the links of a node of index \"%s\": they keep "
                           "changing",
                           RelationGetRelationName(writer->graph.index)),
                    errhint("VACUUM goes on where this one stopped.")));
}

static void
repair_node(RuhnswVacuum *vacuum, uint64 ref)
{
    RuhnswWriter *writer = &vacuum->writer;
    Repair repair = {vacuum, ref};
    int level;
    int top;

    ruhnsw_graph_refresh(&writer->graph);
    if (!ruhnsw_load_node(&writer->graph, ref, writer->vector, NULL, &level))
        return;
    top = Min(level, writer->graph.meta.entry_level);
    for (int above = level; above > top; above--)
        repair_level(writer, above, 0, &repair);
    if (top >= 0)
        ruhnsw_search_levels(writer, writer->vector, top, repair_level, &repair);
}

/* Takes the dead ones out of the learned links of the exclusively locked page. */
static void
drop_dead_learned(RuhnswVacuum *vacuum, Buffer buffer)
{
    const RuhnswGeometry *geometry = vacuum_geometry(vacuum);
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);
    RuhnswChange change;
    bool changing = false;

    for (OffsetNumber offset = FirstOffsetNumber; offset <= vacuum_slot_count(vacuum, page);
         offset++) {
        RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);

        for (int i = 0; node && i < geometry->learned; i++) {
            uint32 number = ruhnsw_learned_links(geometry, node)[i];

            if (number == RUHNSW_NO_LINK ||
                !vacuum_is_dead(vacuum, ruhnsw_number_ref(geometry, number)))
                continue;
            if (!changing) {
                ruhnsw_change_begin(&change, vacuum->index, false);
                page = ruhnsw_change_page(&change, buffer);
                node = vacuum_node_at(vacuum, page, block, offset);
                changing = true;
            }
            ruhnsw_learned_links(geometry, node)[i] = RUHNSW_NO_LINK;
        }
    }
    if (changing)
        ruhnsw_change_commit(&change);
}

static bool
has_dead_learned(RuhnswVacuum *vacuum, const RuhnswNode *node)
{
    const RuhnswGeometry *geometry = vacuum_geometry(vacuum);
    const uint32 *learned = ruhnsw_learned_links(geometry, node);

    for (int i = 0; i < geometry->learned; i++)
        if (learned[i] != RUHNSW_NO_LINK &&
            vacuum_is_dead(vacuum, ruhnsw_number_ref(geometry, learned[i])))
            return true;
    return false;
}

static bool
has_dead_base_link(RuhnswVacuum *vacuum, const RuhnswNode *node)
{
    const RuhnswGeometry *geometry = vacuum_geometry(vacuum);
    const uint32 *links = ruhnsw_base_links(geometry, node);

    for (int i = 0; i < node->link_count; i++)
        if (vacuum_is_dead(vacuum, ruhnsw_number_ref(geometry, links[i])))
            return true;
    return false;
}

static bool
has_dead_upper_link(RuhnswVacuum *vacuum, uint64 ref)
{
    RuhnswWriter *writer = &vacuum->writer;

    for (int level = 1;; level++) {
        int count = ruhnsw_load_links(&writer->graph, ref, level, writer->old_links, NULL, NULL);

        if (count < 0)
            return false;
        if (any_dead(vacuum, writer->old_links, count))
            return true;
    }
}

/* The nodes of a page that have dead links on layer 0 (repair), or that have upper levels on which
 * they may have (look). *learned: some node has dead learned links. */
static int
find_dead_links(RuhnswVacuum *vacuum, Page page, BlockNumber block, uint64 *refs, bool *look,
                bool *learned)
{
    int count = 0;

    *learned = false;
    for (OffsetNumber offset = FirstOffsetNumber; offset <= vacuum_slot_count(vacuum, page);
         offset++) {
        RuhnswNode *node = vacuum_node_at(vacuum, page, block, offset);

        if (node == NULL || (node->flags & RUHNSW_NODE_DEAD))
            continue;
        *learned = *learned || has_dead_learned(vacuum, node);
        look[count] = !has_dead_base_link(vacuum, node);
        if (look[count] && node->level == 0)
            continue;
        refs[count++] = ruhnsw_ref(block, offset);
    }
    return count;
}

void
ruhnsw_vacuum_repair(RuhnswVacuum *vacuum)
{
    uint64 *refs = palloc(sizeof(uint64) * MaxOffsetNumber);
    bool *look = palloc(sizeof(bool) * MaxOffsetNumber);

    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(vacuum->index);
         block++) {
        Buffer buffer = vacuum_block(vacuum, block, BUFFER_LOCK_SHARE);
        bool learned;
        int count = find_dead_links(vacuum, BufferGetPage(buffer), block, refs, look, &learned);

        UnlockReleaseBuffer(buffer);
        if (learned) {
            buffer = vacuum_block(vacuum, block, BUFFER_LOCK_EXCLUSIVE);
            drop_dead_learned(vacuum, buffer);
            UnlockReleaseBuffer(buffer);
        }
        for (int i = 0; i < count; i++) {
            if (look[i] && !has_dead_upper_link(vacuum, refs[i]))
                continue;
            repair_node(vacuum, refs[i]);
            RUV_PAUSE("ruhnsw-vacuum-repairing");
        }
    }
    pfree(refs);
    pfree(look);
}
