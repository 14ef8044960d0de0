/*
 * heal.c - learned links, and ruvector_heal_index, which adds and removes them.
 *
 * A node has room for learned_links links beside those of the graph. They are a search's shortcuts:
 * the beam follows them like any other link of layer 0, nothing relies on them (reach.c does not
 * count them), so they can be taken away at any time. Every change of one is a WAL record of its
 * page, so standbys have them; vacuum takes out those to dead nodes.
 *
 * ruvector_heal_index asks every node, by a search for its own vector at the present ef_search
 * (ef_construction at most), whether it is found. One that is not gets a link from where the search
 * ended, and one back.
 *
 * Locks: as an insert (ruhnsw.h), the heavyweight lock in share mode while one node is asked and
 * linked, so that vacuum waits for a link that was chosen before its marks; then one content lock.
 * Writers are never kept waiting but for a page's moment.
 */
#include "ruhnsw/ruhnsw.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pause.h"
#include "storage/lmgr.h"
#include "utils/acl.h"

/* Smaller indexes are healed without a word: 8 MB. */
#define HEAL_REPORT_BLOCKS 1024

/* The node if it is live. */
static RuhnswNode *
live_node(const RuhnswGraph *graph, Page page, uint64 ref)
{
    RuhnswNode *node = ruhnsw_get_node(graph->index, &graph->geometry, page, ref);

    return node && !(node->flags & RUHNSW_NODE_DEAD) ? node : NULL;
}

/* The place for a learned link to a number; -1 when it is linked already, or there is none. */
static int
learned_place(const RuhnswGeometry *geometry, const RuhnswNode *node, uint32 number)
{
    const uint32 *links = ruhnsw_base_links(geometry, node);
    const uint32 *learned = ruhnsw_learned_links(geometry, node);
    int place = -1;

    for (int i = 0; i < node->link_count; i++)
        if (links[i] == number)
            return -1;
    for (int i = geometry->learned - 1; i >= 0; i--) {
        if (learned[i] == number)
            return -1;
        if (learned[i] == RUHNSW_NO_LINK)
            place = i;
    }
    return place;
}

bool
ruhnsw_learn_link(RuhnswWriter *writer, uint64 from, uint64 to)
{
    const RuhnswGraph *graph = &writer->graph;
    const RuhnswGeometry *geometry = &graph->geometry;
    uint32 number = (uint32)ruhnsw_ref_number(geometry, to);
    uint16 flags;
    Buffer buffer;
    RuhnswNode *node;
    int place = -1;

    if (from == to || !ruhnsw_load_node(&writer->graph, to, NULL, &flags, NULL) ||
        (flags & RUHNSW_NODE_DEAD))
        return false;
    buffer = ruhnsw_read(graph->index, ruhnsw_ref_block(from), BUFFER_LOCK_EXCLUSIVE);
    node = live_node(graph, BufferGetPage(buffer), from);
    if (node)
        place = learned_place(geometry, node, number);
    if (place >= 0) {
        RuhnswChange change;

        ruhnsw_change_begin(&change, graph->index, false);
        node = live_node(graph, ruhnsw_change_page(&change, buffer), from);
        ruhnsw_learned_links(geometry, node)[place] = number;
        ruhnsw_change_commit(&change);
    }
    UnlockReleaseBuffer(buffer);
    return place >= 0;
}

/* Takes the learned links off every node of an exclusively locked page; returns how many. */
static uint64
forget_page(const RuhnswGraph *graph, Buffer buffer)
{
    const RuhnswGeometry *geometry = &graph->geometry;
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);
    RuhnswChange change;
    uint64 count = 0;

    for (OffsetNumber offset = 1; offset <= ruhnsw_slot_count(geometry, page); offset++) {
        RuhnswNode *node = ruhnsw_node_at(graph->index, geometry, page, block, offset);

        for (int i = 0; node && i < geometry->learned; i++) {
            if (ruhnsw_learned_links(geometry, node)[i] == RUHNSW_NO_LINK)
                continue;
            if (count++ == 0) {
                ruhnsw_change_begin(&change, graph->index, false);
                page = ruhnsw_change_page(&change, buffer);
                node = ruhnsw_node_at(graph->index, geometry, page, block, offset);
            }
            ruhnsw_learned_links(geometry, node)[i] = RUHNSW_NO_LINK;
        }
    }
    if (count > 0)
        ruhnsw_change_commit(&change);
    return count;
}

static uint64
forget_all(const RuhnswGraph *graph)
{
    uint64 count = 0;

    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(graph->index);
         block++) {
        Buffer buffer;

        CHECK_FOR_INTERRUPTS();
        buffer = ruhnsw_read(graph->index, block, BUFFER_LOCK_EXCLUSIVE);
        count += forget_page(graph, buffer);
        UnlockReleaseBuffer(buffer);
        if (count > 0)
            RUV_PAUSE("ruhnsw-heal-forgotten");
    }
    return count;
}

typedef struct Healing {
    RuhnswWriter writer;
    uint64 ref; /* who is asked */
    int64 checked;
    int64 missed;
    int64 links;
} Healing;

/* Looks for the node among what was found, and links it in when it is not there. */
static void
use_found(RuhnswWriter *writer, int level, uint32 count, void *arg)
{
    Healing *healing = arg;

    healing->checked++;
    for (uint32 i = 0; i < count; i++)
        if (writer->found[i].node == healing->ref)
            return;
    healing->missed++;
    if (count == 0)
        return;
    RUV_PAUSE("ruhnsw-heal-missed");
    healing->links += ruhnsw_learn_link(writer, writer->found[0].node, healing->ref);
    RUV_PAUSE("ruhnsw-heal-linked");
    healing->links += ruhnsw_learn_link(writer, healing->ref, writer->found[0].node);
}

static void
heal_node(Healing *healing, uint64 ref)
{
    RuhnswWriter *writer = &healing->writer;
    Relation index = writer->graph.index;
    uint16 flags;

    CHECK_FOR_INTERRUPTS();
    LockPage(index, RUHNSW_META_BLOCK, ShareLock);
    ruhnsw_graph_refresh(&writer->graph);
    if (writer->graph.meta.entry_level >= 0 &&
        ruhnsw_load_node(&writer->graph, ref, writer->vector, &flags, NULL) &&
        !(flags & RUHNSW_NODE_DEAD)) {
        healing->ref = ref;
        ruhnsw_search_levels(writer, writer->vector, 0, use_found, healing);
    }
    UnlockPage(index, RUHNSW_META_BLOCK, ShareLock);
}

/* How far it is, at every tenth of an index that takes a while. */
static void
report_progress(const Healing *healing, BlockNumber done, BlockNumber blocks)
{
    Relation index = healing->writer.graph.index;

    if (blocks < HEAL_REPORT_BLOCKS ||
        (uint64)done * 10 / blocks == (uint64)(done + 1) * 10 / blocks)
        return;
    ereport(NOTICE,
            (errmsg("healing index \"%s\": %d%% done, " INT64_FORMAT " rows asked, " INT64_FORMAT
                    " missed, " INT64_FORMAT " links made",
                    RelationGetRelationName(index), (int)((uint64)(done + 1) * 100 / blocks),
                    healing->checked, healing->missed, healing->links)));
}

static void
heal(Healing *healing)
{
    const RuhnswGraph *graph = &healing->writer.graph;

    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < RelationGetNumberOfBlocks(graph->index);
         block++) {
        Buffer buffer = ruhnsw_read(graph->index, block, BUFFER_LOCK_SHARE);
        OffsetNumber count = ruhnsw_slot_count(&graph->geometry, BufferGetPage(buffer));

        UnlockReleaseBuffer(buffer);
        for (OffsetNumber offset = 1; offset <= count; offset++)
            heal_node(healing, ruhnsw_ref(block, offset));
        report_progress(healing, block, RelationGetNumberOfBlocks(graph->index));
    }
}

PG_FUNCTION_INFO_V1(ruhnsw_heal_index);
Datum
ruhnsw_heal_index(PG_FUNCTION_ARGS)
{
    Oid oid = PG_GETARG_OID(0);
    bool reset = PG_GETARG_BOOL(1);
    Healing healing = {0};
    Relation index;
    TupleDesc result;
    Datum values[3];
    bool nulls[3] = {false};

    PreventCommandDuringRecovery("ruvector_heal_index()");
    if (get_call_result_type(fcinfo, NULL, &result) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    index = relation_open(oid, RowExclusiveLock);
    if (!ruhnsw_is_index(index))
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("\"%s\" is not a ruhnsw index", RelationGetRelationName(index)),
                        errhint("Only graphs can be healed by links.")));
    if (!ruv_owns_relation(oid))
        aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_INDEX, RelationGetRelationName(index));
    if (RELATION_IS_OTHER_TEMP(index))
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("cannot heal temporary indexes of other sessions")));
    ruhnsw_writer_open(&healing.writer, index, false);
    if (reset) {
        healing.links = -(int64)forget_all(&healing.writer.graph);
        ruv_note_links_reset(oid);
    } else {
        healing.writer.ef_construction = Min(healing.writer.ef_construction, (uint32)ruv_ef_search);
        heal(&healing);
    }
    ruhnsw_writer_close(&healing.writer);
    relation_close(index, RowExclusiveLock);
    values[0] = Int64GetDatum(healing.checked);
    values[1] = Int64GetDatum(healing.missed);
    values[2] = Int64GetDatum(healing.links);
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(result), values, nulls));
}
