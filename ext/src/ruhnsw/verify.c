/*
 * verify.c - ruvector_index_verify of a ruhnsw index: checks it against the rules of its format.
 *
 * Checked: the frame of every page; bounds, sizes and flags of every tuple; that every node has its
 * links tuple and its chain of rows tuples, and every such tuple its node; that links are in
 * bounds, unique, not to the node itself, not to vanished nodes or to nodes below their level; that
 * unlinked nodes have no links to them from live ones; vectors finite, and of unit length under
 * cosine, within the norm bound; the entry point and the root; that every live node can be reached
 * from the root over layer 0. With heapallindexed also: that every row of the table which should be
 * in the index is there (by a Bloom filter of the rows in the index, so a missing row goes
 * unnoticed with a chance of about 2%).
 *
 * "error" means that the index breaks a rule, "warning" that it works but not as well as it should
 * (a node that a search cannot reach is an error: its rows cannot be found).
 *
 * A page is copied under its share lock and checked from the copy, so nothing else waits for the
 * verifier. On an index that changes meanwhile, rules that span pages can look broken for a moment:
 * run it when nothing writes.
 */
#include "ruhnsw/ruhnsw.h"

#include <math.h>

#include "access/tableam.h"
#include "catalog/index.h"
#include "funcapi.h"
#include "lib/bloomfilter.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* More findings than this are counted, not listed. */
#define MAX_FINDINGS 1000
#define UNIT_TOLERANCE 1e-3
#define NORM_TOLERANCE 1e-4

typedef struct Verifier {
    Relation table; /* NULL when it cannot be told */
    Relation index;
    RuhnswGraph graph;
    RuhnswReach *reach;
    ReturnSetInfo *out;
    uint64 findings;
    uint64 *links;
    float *vector;
    bloom_filter *rows; /* of the nodes, for heapallindexed; else NULL */
    uint64 chained;     /* rows tuples that nodes name */
    uint64 rows_tuples; /* rows tuples there are */
} Verifier;

static void finding(Verifier *verifier, const char *severity, BlockNumber block, const char *format,
                    ...) pg_attribute_printf(4, 5);

static void
put_row(Verifier *verifier, const char *severity, BlockNumber block, const char *message)
{
    Datum values[3] = {CStringGetTextDatum(severity), Int64GetDatum((int64)block),
                       CStringGetTextDatum(message)};
    bool nulls[3] = {false, block == InvalidBlockNumber, false};

    tuplestore_putvalues(verifier->out->setResult, verifier->out->setDesc, values, nulls);
}

static void
finding(Verifier *verifier, const char *severity, BlockNumber block, const char *format, ...)
{
    char message[256];
    va_list args;

    if (++verifier->findings > MAX_FINDINGS)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    put_row(verifier, severity, block, message);
}

/* ---- one page ---- */

/* The item of a page's copy if it lies within the page's bounds. */
static void *
checked_item(Verifier *verifier, Page page, BlockNumber block, OffsetNumber offset, Size *size)
{
    ItemId id = PageGetItemId(page, offset);

    if (!ItemIdIsUsed(id))
        return NULL;
    if (!ItemIdIsNormal(id) || ItemIdGetOffset(id) < ((PageHeader)page)->pd_upper ||
        ItemIdGetOffset(id) % MAXIMUM_ALIGNOF != 0 ||
        ItemIdGetLength(id) < offsetof(RuhnswLinks, links) ||
        ItemIdGetOffset(id) + ItemIdGetLength(id) > ((PageHeader)page)->pd_special) {
        finding(verifier, "error", block, "line pointer %u is out of bounds", offset);
        return NULL;
    }
    *size = ItemIdGetLength(id);
    return PageGetItem(page, id);
}

static void
check_vector(Verifier *verifier, BlockNumber block, OffsetNumber offset, const RuhnswNode *node)
{
    const RuhnswMetaData *meta = &verifier->graph.meta;
    float *vector = verifier->vector;
    float norm;

    ruhnsw_decode(&verifier->graph.geometry, node, vector);
    for (int i = 0; i < meta->dim; i++) {
        if (!isfinite(vector[i])) {
            finding(verifier, "error", block, "element %d of the vector at offset %u is not finite",
                    i + 1, offset);
            return;
        }
    }
    norm = rv_norm(vector, meta->dim);
    if (meta->metric == RV_METRIC_COSINE && fabsf(norm - 1.0f) > UNIT_TOLERANCE + meta->max_error)
        finding(verifier, "error", block, "the vector at offset %u has length %g, not 1", offset,
                norm);
    if (norm > meta->max_norm * (1 + NORM_TOLERANCE) + meta->max_error)
        finding(verifier, "error", block,
                "the vector at offset %u has length %g, more than the bound %g", offset, norm,
                meta->max_norm);
}

/* The rows of one tuple. */
static void
check_tids(Verifier *verifier, BlockNumber block, OffsetNumber offset, const ItemPointerData *tids,
           int count)
{
    for (int i = 0; i < count; i++) {
        if (!ItemPointerIsValid(&tids[i]))
            finding(verifier, "error", block, "row %d of the tuple at offset %u is not valid",
                    i + 1, offset);
        for (int j = 0; j < i; j++)
            if (ItemPointerEquals((ItemPointer)&tids[i], (ItemPointer)&tids[j]))
                finding(verifier, "error", block, "the tuple at offset %u has a row twice", offset);
        if (verifier->rows)
            bloom_add_element(verifier->rows, (unsigned char *)&tids[i], sizeof(ItemPointerData));
    }
}

static bool
position_in_file(Verifier *verifier, uint64 position)
{
    return ruhnsw_ref_block(position) >= RUHNSW_FIRST_BLOCK &&
           ruhnsw_ref_block(position) < RelationGetNumberOfBlocks(verifier->index);
}

/* Follows a node's chain of rows tuples. */
static void
check_chain(Verifier *verifier, uint64 ref, const RuhnswNode *node)
{
    ItemPointerData tids[RUHNSW_CHAIN_TIDS];
    uint64 position = ruhnsw_tail(&verifier->graph.geometry, node)->more;
    uint64 bound = (uint64)RelationGetNumberOfBlocks(verifier->index) * BLCKSZ / sizeof(RuhnswRows);

    while (position != 0 && position != RUHNSW_ROWS_END) {
        if (!position_in_file(verifier, position) || verifier->chained > bound) {
            finding(verifier, "error", ruhnsw_ref_block(ref),
                    "the further rows of the node at offset %u do not end", ruhnsw_ref_offset(ref));
            return;
        }
        verifier->chained++;
        ruhnsw_next_rows(&verifier->graph, ref, &position, tids);
    }
}

/* One link of a live node. */
static void
check_link(Verifier *verifier, uint64 ref, int level, uint64 link)
{
    BlockNumber block = ruhnsw_ref_block(ref);
    OffsetNumber offset = ruhnsw_ref_offset(ref);
    int link_level;
    uint16 flags;

    if (link == ref)
        finding(verifier, "error", block, "the node at offset %u links to itself", offset);
    else if (!ruhnsw_ref_in_file(&verifier->graph, link))
        finding(verifier, "error", block,
                "the node at offset %u links to block %u, which is not there", offset,
                ruhnsw_ref_block(link));
    else if (!ruhnsw_load_node(&verifier->graph, link, NULL, &flags, &link_level))
        finding(verifier, "error", block,
                "the node at offset %u links to (%u,%u), which is not that node any more", offset,
                ruhnsw_ref_block(link), ruhnsw_ref_offset(link));
    else if (flags & RUHNSW_NODE_UNLINKED)
        finding(verifier, "error", block,
                "the node at offset %u links to (%u,%u), which was taken out of the graph", offset,
                ruhnsw_ref_block(link), ruhnsw_ref_offset(link));
    else if (link_level < level)
        finding(verifier, "error", block,
                "the node at offset %u links at level %d to (%u,%u) of level %d", offset, level,
                ruhnsw_ref_block(link), ruhnsw_ref_offset(link), link_level);
}

static void
check_node_links(Verifier *verifier, uint64 ref, const RuhnswNode *node)
{
    BlockNumber block = ruhnsw_ref_block(ref);
    OffsetNumber offset = ruhnsw_ref_offset(ref);

    for (int level = 0; level <= node->level; level++) {
        int count = ruhnsw_load_links(&verifier->graph, ref, level, verifier->links, NULL, NULL);

        if (count < 0) {
            finding(verifier, "error", block, "the node at offset %u has no links of level %d",
                    offset, level);
            return;
        }
        if (node->flags & RUHNSW_NODE_DEAD)
            continue;
        for (int i = 0; i < count; i++) {
            check_link(verifier, ref, level, verifier->links[i]);
            for (int j = 0; j < i; j++)
                if (verifier->links[i] == verifier->links[j])
                    finding(verifier, "error", block,
                            "the node at offset %u links to (%u,%u) twice at level %d", offset,
                            ruhnsw_ref_block(verifier->links[i]),
                            ruhnsw_ref_offset(verifier->links[i]), level);
        }
    }
}

/* Learned links of a live node: to live nodes, not to itself, none twice. */
static void
check_learned(Verifier *verifier, uint64 ref, const RuhnswNode *node)
{
    const RuhnswGeometry *geometry = &verifier->graph.geometry;
    const uint32 *learned = ruhnsw_learned_links(geometry, node);

    for (int i = 0; i < geometry->learned; i++) {
        if (learned[i] == RUHNSW_NO_LINK)
            continue;
        check_link(verifier, ref, 0, ruhnsw_number_ref(geometry, learned[i]));
        for (int j = 0; j < i; j++)
            if (learned[i] == learned[j])
                finding(verifier, "error", ruhnsw_ref_block(ref),
                        "the node at offset %u has a learned link twice", ruhnsw_ref_offset(ref));
    }
}

/*
 * Whether a row of the node is there for our snapshot. An insert that a crash or an error cut short
 * may leave a node that nothing links to; its row was never there for anyone, and vacuum removes
 * the node, so it breaks no rule.
 */
static bool
has_visible_row(Verifier *verifier, uint64 ref)
{
    ItemPointerData tids[RUHNSW_CHAIN_TIDS];
    uint64 position = 0;

    while (position != RUHNSW_ROWS_END) {
        int count = ruhnsw_next_rows(&verifier->graph, ref, &position, tids);

        for (int i = 0; i < count; i++)
            if (verifier->table == NULL ||
                table_index_fetch_tuple_check(verifier->table, &tids[i], GetActiveSnapshot(), NULL))
                return true;
    }
    return false;
}

static void
check_node(Verifier *verifier, BlockNumber block, OffsetNumber offset, const RuhnswNode *node)
{
    const RuhnswMetaData *meta = &verifier->graph.meta;
    const char *problem = ruhnsw_check_node(&verifier->graph.geometry, node);
    uint64 ref = ruhnsw_ref(block, offset);

    if (problem) {
        finding(verifier, "error", block, "%s (slot %u)", problem, offset);
        return;
    }
    if (node->level > meta->entry_level && !(node->flags & RUHNSW_NODE_DEAD) &&
        has_visible_row(verifier, ref))
        finding(verifier, "warning", block,
                "the node at offset %u has level %u, above the entry point's %d", offset,
                node->level, meta->entry_level);
    if (node->tag != ruhnsw_tag(&verifier->graph.geometry, ref))
        finding(verifier, "error", block, "the node at offset %u has another node's tag", offset);
    check_vector(verifier, block, offset, node);
    check_tids(verifier, block, offset, ruhnsw_tail(&verifier->graph.geometry, node)->tids,
               node->tid_count);
    check_chain(verifier, ref, node);
    check_node_links(verifier, ref, node);
    if (node->flags & RUHNSW_NODE_DEAD)
        return;
    check_learned(verifier, ref, node);
    if (verifier->reach && !ruhnsw_reached(verifier->reach, ref) && has_visible_row(verifier, ref))
        finding(verifier, "error", block, "the node at offset %u cannot be reached from the root",
                offset);
}

static void
check_links_tuple(Verifier *verifier, BlockNumber block, OffsetNumber offset,
                  const RuhnswLinks *links, Size size)
{
    const char *problem = ruhnsw_check_links(links, size, verifier->graph.meta.m);
    uint64 where;
    uint64 owner = links->owner;

    if (problem) {
        finding(verifier, "error", block, "%s (offset %u)", problem, offset);
        return;
    }
    if (!ruhnsw_ref_in_file(&verifier->graph, owner) ||
        ruhnsw_load_links(&verifier->graph, owner, 1, verifier->links, &where, NULL) < 0 ||
        where != ruhnsw_position(block, offset))
        finding(verifier, "error", block, "the links tuple at offset %u belongs to no node",
                offset);
}

static void
check_rows_tuple(Verifier *verifier, BlockNumber block, OffsetNumber offset, const RuhnswRows *rows,
                 Size size)
{
    const char *problem = ruhnsw_check_rows(rows, size);

    verifier->rows_tuples++;
    if (problem)
        finding(verifier, "error", block, "%s (offset %u)", problem, offset);
    else if (!ruhnsw_ref_in_file(&verifier->graph, rows->owner) ||
             !ruhnsw_load_node(&verifier->graph, rows->owner, NULL, NULL, NULL))
        finding(verifier, "error", block, "the rows tuple at offset %u belongs to no node", offset);
    else
        check_tids(verifier, block, offset, rows->tids, rows->count);
}

static void
check_nodes_page(Verifier *verifier, Page page, BlockNumber block)
{
    const RuhnswGeometry *geometry = &verifier->graph.geometry;
    uint32 used = ((PageHeader)page)->pd_lower - RUHNSW_SLOT_START;

    if (((PageHeader)page)->pd_lower < RUHNSW_SLOT_START || used % geometry->slot_size != 0 ||
        used / geometry->slot_size > geometry->slots) {
        finding(verifier, "error", block, "the page's slots end at byte %u",
                ((PageHeader)page)->pd_lower);
        return;
    }
    for (OffsetNumber offset = 1; offset <= ruhnsw_slot_count(geometry, page); offset++) {
        const RuhnswNode *node =
            (const RuhnswNode *)((char *)page + ruhnsw_slot_start(geometry, offset));

        if (node->flags & RUHNSW_NODE_USED)
            check_node(verifier, block, offset, node);
        else if (node->flags != 0)
            finding(verifier, "error", block, "the empty slot %u has flags", offset);
    }
}

static void
check_side_page(Verifier *verifier, Page page, BlockNumber block)
{
    for (OffsetNumber offset = FirstOffsetNumber; offset <= PageGetMaxOffsetNumber(page);
         offset++) {
        Size size = 0;
        uint8 *item = checked_item(verifier, page, block, offset, &size);

        if (item == NULL)
            continue;
        if (*item == RUHNSW_TUPLE_LINKS)
            check_links_tuple(verifier, block, offset, (RuhnswLinks *)item, size);
        else if (*item == RUHNSW_TUPLE_ROWS)
            check_rows_tuple(verifier, block, offset, (RuhnswRows *)item, size);
        else
            finding(verifier, "error", block, "the tuple at offset %u has type %u", offset, *item);
    }
}

static void
check_page(Verifier *verifier, Page page, BlockNumber block)
{
    if (ruhnsw_trailer(page)->kind == RUHNSW_PAGE_NODES)
        check_nodes_page(verifier, page, block);
    else
        check_side_page(verifier, page, block);
}

/* ---- the index ---- */

static void
check_entry(Verifier *verifier)
{
    const RuhnswMetaData *meta = &verifier->graph.meta;
    uint16 flags;
    int level;

    if (meta->entry == RUHNSW_NO_REF)
        return;
    if (!ruhnsw_ref_in_file(&verifier->graph, meta->entry) ||
        !ruhnsw_load_node(&verifier->graph, meta->entry, NULL, &flags, &level)) {
        finding(verifier, "error", RUHNSW_META_BLOCK, "the entry point is not there");
        return;
    }
    if (flags & RUHNSW_NODE_UNLINKED)
        finding(verifier, "error", RUHNSW_META_BLOCK, "the entry point was taken out of the graph");
    if (level != meta->entry_level)
        finding(verifier, "error", RUHNSW_META_BLOCK,
                "the entry point has level %d, the meta page says %d", level, meta->entry_level);
    if (!ruhnsw_ref_in_file(&verifier->graph, meta->root) ||
        !ruhnsw_load_node(&verifier->graph, meta->root, NULL, &flags, NULL) ||
        (flags & RUHNSW_NODE_UNLINKED)) {
        finding(verifier, "error", RUHNSW_META_BLOCK, "the root of layer 0 is not there");
        return;
    }
    verifier->reach = ruhnsw_reach_compute(verifier->index, meta, meta->root, true, NULL);
}

static void
verify(Verifier *verifier)
{
    BlockNumber blocks = RelationGetNumberOfBlocks(verifier->index);
    PGAlignedBlock *copy = palloc(sizeof(PGAlignedBlock));

    check_entry(verifier);
    for (BlockNumber block = RUHNSW_FIRST_BLOCK; block < blocks; block++) {
        Buffer buffer;

        CHECK_FOR_INTERRUPTS();
        buffer = ruhnsw_read(verifier->index, block, BUFFER_LOCK_SHARE);
        memcpy(copy->data, BufferGetPage(buffer), BLCKSZ);
        UnlockReleaseBuffer(buffer);
        if (!PageIsNew((Page)copy->data))
            check_page(verifier, (Page)copy->data, block);
    }
    if (verifier->chained != verifier->rows_tuples)
        finding(verifier, "error", InvalidBlockNumber,
                "nodes name " UINT64_FORMAT " rows tuples, there are " UINT64_FORMAT,
                verifier->chained, verifier->rows_tuples);
}

static void
end_findings(Verifier *verifier)
{
    if (verifier->findings > MAX_FINDINGS)
        put_row(verifier, "warning", InvalidBlockNumber,
                psprintf(UINT64_FORMAT " further findings are not listed",
                         verifier->findings - MAX_FINDINGS));
}

/* ---- heapallindexed ---- */

static void
check_row(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool alive, void *arg)
{
    Verifier *verifier = arg;
    RuvIndexIdentity identity;
    const float *vector;

    if (isnull[0])
        return;
    ruhnsw_identity(index, &verifier->graph.meta, &identity);
    vector = ruhnsw_prepare_value(&identity, values[0]);
    if (vector == NULL)
        return;
    pfree((void *)vector);
    if (bloom_lacks_element(verifier->rows, (unsigned char *)tid, sizeof(ItemPointerData)))
        finding(verifier, "error", InvalidBlockNumber,
                "row (%u,%u) of the table is not in the index", ItemPointerGetBlockNumber(tid),
                ItemPointerGetOffsetNumber(tid));
}

/* The snapshot is taken before the index is read: what it sees must be in the index by then. */
static void
check_table(Verifier *verifier, Relation table, Snapshot snapshot)
{
    IndexInfo *info = BuildIndexInfo(verifier->index);
    TableScanDesc scan = table_beginscan_strat(table, snapshot, 0, NULL, true, true);

    info->ii_Concurrent = true; /* an MVCC snapshot decides */
    info->ii_Unique = false;
    table_index_build_scan(table, verifier->index, info, true, false, check_row, verifier, scan);
}

void
ruhnsw_verify(Relation index, Relation table, bool all_rows, ReturnSetInfo *out)
{
    Verifier verifier = {.table = table, .index = index, .out = out};
    Snapshot snapshot = NULL;

    ruhnsw_graph_open(&verifier.graph, index);
    verifier.links = palloc(sizeof(uint64) * 2 * RUHNSW_MAX_M);
    verifier.vector = palloc(sizeof(float) * verifier.graph.meta.dim);
    if (all_rows) {
        snapshot = RegisterSnapshot(GetTransactionSnapshot());
        verifier.rows = bloom_create(Max((int64)table->rd_rel->reltuples, 10000), work_mem, 0);
    }
    verify(&verifier);
    if (all_rows) {
        check_table(&verifier, table, snapshot);
        UnregisterSnapshot(snapshot);
        bloom_free(verifier.rows);
    }
    end_findings(&verifier);
}
