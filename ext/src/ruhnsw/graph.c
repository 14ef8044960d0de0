/*
 * graph.c - the pages of an index as the graph that the engine's beam walks.
 *
 * Expanding a node takes two rounds. First its links are copied. Then the cache lines of all
 * neighbours that were not yet visited are asked for, and their distances computed one after the
 * other, so that the memory serves many of them at once.
 *
 * Pages are peeked at, without a pin or a lock (peek.h says how and what it costs). What a peek
 * shows only leads the search:
 *   - a neighbour's code never changes while anything links to it, so a glance at it is good unless
 *     the buffer went to another page, which the tag in the node's head shows;
 *   - links change in place, and are read with ruv_peek_stable (links.c);
 *   - every number that comes out of a page is bounded before it is used as an address: a reference
 *     to a block that is not there ends in an error, a slot that is empty is skipped;
 *   - rows are read under a pin and a lock, with all checks.
 * Whatever does not look as it should in a peek is read again under a pin, and only then reported
 * as damage. No pin or lock outlives a callback, and at most one page is locked at any time.
 */
#include "ruhnsw/ruhnsw.h"

#include <math.h>

#include "miscadmin.h"

/* Bytes of a code that are asked for ahead; the processor's own prefetcher sees to the rest. */
#define PREFETCH_BYTES 1024

/* Relative error of distances in single precision, generously. */
#define ROUNDING 1e-5

static rv_status graph_expand(void *ctx, rv_node node, int level, rv_visited *visited,
                              rv_neighbour *out, uint32_t capacity, uint32_t *count);
static rv_status graph_distance(void *ctx, rv_node node, float *distance, uint32_t *flags);
static void graph_prefetch(void *ctx, rv_node ref);
static uint64 graph_key(void *ctx, rv_node ref);

/* A node that an expansion compares, and where a glance sees it; NULL: look in the usual way. */
typedef struct RuhnswVisit {
    uint64 ref;
    uint32 tag;
    const RuhnswNode *node;
} RuhnswVisit;

void
ruhnsw_graph_refresh(RuhnswGraph *graph)
{
    uint64 epoch = graph->meta.epoch;

    ruv_reader_refresh(&graph->reader);
    ruhnsw_read_meta(graph->index, &graph->meta);
    if (graph->meta.epoch != epoch)
        ruhnsw_geometry(&graph->meta, &graph->geometry);
    graph->graph.key_limit = (uint64)graph->reader.hints->blocks * graph->geometry.slots;
    graph->metric = (rv_metric)graph->meta.metric;
    graph->unit = graph->metric == RV_METRIC_COSINE;
    graph->measure = ruhnsw_choose_measure(graph->geometry.storage, graph->metric);
    graph->entry_vanished = false;
}

void
ruhnsw_graph_open(RuhnswGraph *graph, Relation index)
{
    memset(graph, 0, sizeof(*graph));
    graph->index = index;
    ruv_reader_open(&graph->reader, index);
    ruhnsw_graph_refresh(graph);
    graph->graph.ctx = graph;
    graph->graph.expand = graph_expand;
    graph->graph.distance = graph_distance;
    graph->graph.prefetch = graph_prefetch;
    graph->graph.key = graph_key;
    graph->graph.max_degree = ruhnsw_level_limit(graph->meta.m, 0) + graph->meta.learned;
    graph->vector = palloc(sizeof(float) * graph->meta.dim);
    graph->links = palloc(sizeof(uint32) * graph->graph.max_degree);
    graph->visits = palloc(sizeof(RuhnswVisit) * graph->graph.max_degree);
}

bool
ruhnsw_ref_in_file(const RuhnswGraph *graph, uint64 ref)
{
    return ruhnsw_ref_block(ref) >= RUHNSW_FIRST_BLOCK && ruhnsw_ref_offset(ref) >= 1 &&
           ruhnsw_ref_offset(ref) <= graph->geometry.slots &&
           (ruhnsw_ref_block(ref) < graph->reader.hints->blocks ||
            ruhnsw_ref_block(ref) < RelationGetNumberOfBlocks(graph->index));
}

float
ruhnsw_distance(const RuhnswGraph *graph, const float *a, const float *b)
{
    return graph->unit ? rv_raw_distance_unit(graph->metric, a, b, graph->meta.dim)
                       : rv_raw_distance(graph->metric, a, b, graph->meta.dim);
}

void
ruhnsw_no_such_block(const RuhnswGraph *graph, BlockNumber block)
{
    ruhnsw_corrupt(graph->index, block, "the block is not there, although something refers to it");
}

Page
ruhnsw_lock_page(RuhnswGraph *graph, BlockNumber block, RuvPeek *peek)
{
    Page page = ruv_peek_pinned(&graph->reader, block, peek);

    if (page == NULL)
        ruhnsw_no_such_block(graph, block);
    ruhnsw_check_frame(graph->index, page, block);
    return page;
}

/*
 * Pins and locks the page of a node and returns the node, checked; NULL when it vanished. A node
 * with the right tag says as much as the frame of its page, whose two ends are cache lines away.
 */
static RuhnswNode *
lock_node(RuhnswGraph *graph, uint64 ref, RuvPeek *peek)
{
    BlockNumber block = ruhnsw_ref_block(ref);
    Page page = ruv_peek_pinned(&graph->reader, block, peek);
    RuhnswNode *node;
    const char *problem;

    if (page == NULL)
        ruhnsw_no_such_block(graph, block);
    node =
        (RuhnswNode *)((char *)page + ruhnsw_slot_start(&graph->geometry, ruhnsw_ref_offset(ref)));
    if (node->tag != ruhnsw_tag(&graph->geometry, ref)) {
        ruhnsw_check_frame(graph->index, page, block);
        return ruhnsw_get_node(graph->index, &graph->geometry, page, ref);
    }
    if (!(node->flags & RUHNSW_NODE_USED))
        return NULL;
    problem = ruhnsw_check_node(&graph->geometry, node);
    if (problem)
        ruhnsw_corrupt(graph->index, block, "%s (slot %u)", problem, ruhnsw_ref_offset(ref));
    return node;
}

/* ---- nodes ---- */

bool
ruhnsw_load_node(RuhnswGraph *graph, uint64 ref, float *out, uint16 *flags, int *level)
{
    RuvPeek peek;
    RuhnswNode *node = lock_node(graph, ref, &peek);

    if (node) {
        if (out)
            ruhnsw_decode(&graph->geometry, node, out);
        if (flags)
            *flags = node->flags;
        if (level)
            *level = node->level;
    }
    ruv_peek_end(&graph->reader, &peek);
    return node != NULL;
}

bool
ruhnsw_peek_node(RuhnswGraph *graph, uint64 ref, float *out, uint16 *flags)
{
    BlockNumber block = ruhnsw_ref_block(ref);
    uint32 start = ruhnsw_slot_start(&graph->geometry, ruhnsw_ref_offset(ref));
    RuvPeek peek;
    Page page = ruv_peek(&graph->reader, block, &peek);
    const RuhnswNode *node;

    if (page == NULL)
        ruhnsw_no_such_block(graph, block);
    node = (const RuhnswNode *)((char *)page + start);
    *flags = node->flags;
    ruhnsw_decode(&graph->geometry, node, out);
    if (ruv_peek_end(&graph->reader, &peek) && (*flags & RUHNSW_NODE_USED))
        return true;
    return ruhnsw_load_node(graph, ref, out, flags, NULL);
}

/* The distance of the query to the node as exactly as it is stored. */
static float
exact_distance(const RuhnswGraph *graph, const RuhnswNode *node)
{
    if (!ruhnsw_has_rest(graph->geometry.storage))
        return graph->measure(&graph->geometry, graph->query, node);
    ruhnsw_decode(&graph->geometry, node, graph->vector);
    return ruhnsw_distance(graph, graph->query, graph->vector);
}

bool
ruhnsw_load_result(RuhnswGraph *graph, uint64 ref, RuhnswResult *result)
{
    RuvPeek peek;
    RuhnswNode *node = lock_node(graph, ref, &peek);
    bool live = node && !(node->flags & RUHNSW_NODE_DEAD);

    if (live) {
        RuhnswTail *tail = ruhnsw_tail(&graph->geometry, node);

        result->node = ref;
        result->distance = exact_distance(graph, node);
        result->position = tail->more ? tail->more : RUHNSW_ROWS_END;
        result->tid_count = node->tid_count;
        memcpy(result->tids, tail->tids, sizeof(ItemPointerData) * node->tid_count);
    }
    ruv_peek_end(&graph->reader, &peek);
    return live;
}

float
ruhnsw_lower_bound(const RuhnswGraph *graph, float query_norm, float distance)
{
    double error = graph->meta.max_error;
    double rounding;

    if (!ruhnsw_has_rest(graph->geometry.storage))
        return distance;
    switch (graph->metric) {
        case RV_METRIC_L2:
            error = sqrt(distance) * (1 - ROUNDING) - error;
            return error > 0 ? (float)(error * error) : 0.0f;
        case RV_METRIC_L1:
            return (float)(distance * (1 - ROUNDING) - sqrt(graph->meta.dim) * error);
        default:
            /* |q.x - q.c| <= |q| |x - c| */
            rounding = ROUNDING * query_norm * graph->meta.max_norm;
            return (float)(distance - query_norm * error - rounding);
    }
}

int
ruhnsw_next_rows(RuhnswGraph *graph, uint64 ref, uint64 *position, ItemPointerData *tids)
{
    uint64 next = 0;
    int count = 0;
    RuvPeek peek;
    Page page = ruhnsw_lock_page(graph, ruhnsw_ref_block(*position ? *position : ref), &peek);

    if (*position == 0) {
        RuhnswNode *node = ruhnsw_get_node(graph->index, &graph->geometry, page, ref);

        if (node && !(node->flags & RUHNSW_NODE_DEAD)) {
            RuhnswTail *tail = ruhnsw_tail(&graph->geometry, node);

            count = node->tid_count;
            next = tail->more;
            memcpy(tids, tail->tids, sizeof(ItemPointerData) * count);
        }
    } else {
        RuhnswRows *rows = ruhnsw_get_rows(graph->index, page, *position, ref);

        if (rows) {
            count = rows->count;
            next = rows->next;
            memcpy(tids, rows->tids, sizeof(ItemPointerData) * count);
        }
    }
    ruv_peek_end(&graph->reader, &peek);
    *position = next ? next : RUHNSW_ROWS_END;
    return count;
}

/* ---- the beam's callbacks ---- */

/* Compares one node with the query, with all checks; false when it vanished. */
static bool
compare_pinned(RuhnswGraph *graph, uint64 ref, rv_neighbour *out)
{
    RuvPeek peek;
    RuhnswNode *node = lock_node(graph, ref, &peek);

    if (node) {
        out->node = ref;
        out->distance = graph->measure(&graph->geometry, graph->query, node);
        out->flags = node->flags & RUHNSW_NODE_DEAD ? RV_NEIGHBOUR_DEAD : 0;
    }
    ruv_peek_end(&graph->reader, &peek);
    return node != NULL;
}

/* Glances at a node and asks for the cache lines that comparing it reads. */
static inline void
begin_visit(RuhnswGraph *graph, uint32 number, uint32 bytes, RuhnswVisit *visit)
{
    Page page;
    uint32 start;

    visit->ref = ruhnsw_number_ref(&graph->geometry, number);
    visit->tag = ruhnsw_number_tag(&graph->geometry, number);
    start = ruhnsw_slot_start(&graph->geometry, ruhnsw_ref_offset(visit->ref));
    page = ruv_glance(&graph->reader, ruhnsw_ref_block(visit->ref));
    if (page == NULL) {
        visit->node = NULL;
        ruv_prefetch(&graph->reader, ruhnsw_ref_block(visit->ref), start, bytes);
        return;
    }
    visit->node = (const RuhnswNode *)((char *)page + start);
    for (uint32 at = 0; at < bytes; at += RUHNSW_LINE)
        __builtin_prefetch((const char *)visit->node + at);
}

/* Compares the node with the query; false when it vanished. */
static inline bool
end_visit(RuhnswGraph *graph, const RuhnswVisit *visit, rv_neighbour *out)
{
    const RuhnswNode *node = visit->node;

    if (node == NULL)
        return compare_pinned(graph, visit->ref, out);
    out->node = visit->ref;
    out->distance = graph->measure(&graph->geometry, graph->query, node);
    out->flags = node->flags & RUHNSW_NODE_DEAD ? RV_NEIGHBOUR_DEAD : 0;
    pg_read_barrier();
    if (node->tag == visit->tag)
        return true;
    return compare_pinned(graph, visit->ref, out);
}

/* Asks for what an expansion of the node will read first. */
static void
graph_prefetch(void *ctx, rv_node ref)
{
    const RuhnswGraph *graph = ctx;

    ruv_prefetch(&graph->reader, ruhnsw_ref_block(ref),
                 ruhnsw_slot_start(&graph->geometry, ruhnsw_ref_offset(ref)) +
                     graph->geometry.links,
                 graph->geometry.rest - graph->geometry.links);
}

void
ruhnsw_graph_prefetch(const RuhnswGraph *graph, const rv_node *nodes, uint32 count)
{
    uint32 bytes = Min(sizeof(RuhnswNode) + graph->geometry.code_size, PREFETCH_BYTES);

    for (uint32 i = 0; i < count; i++)
        ruv_prefetch(&graph->reader, ruhnsw_ref_block(nodes[i]),
                     ruhnsw_slot_start(&graph->geometry, ruhnsw_ref_offset(nodes[i])), bytes);
}

static rv_status
graph_expand(void *ctx, rv_node node, int level, rv_visited *visited, rv_neighbour *out,
             uint32_t capacity, uint32_t *count)
{
    RuhnswGraph *graph = ctx;
    uint32 bytes = Min(sizeof(RuhnswNode) + graph->geometry.code_size, PREFETCH_BYTES);
    int link_count;
    uint32 fresh;
    int found = 0;
    int nearest = 0;

    CHECK_FOR_INTERRUPTS();
    ruv_reader_refresh(&graph->reader);
    link_count = ruhnsw_graph_links(graph, node, level, true, graph->links, NULL, NULL);
    fresh = link_count > 0 ? rv_visited_add_all(visited, graph->links, link_count) : 0;
    Assert(fresh <= capacity);
    for (uint32 i = 0; i < fresh; i++)
        begin_visit(graph, graph->links[i], bytes, &graph->visits[i]);
    for (uint32 i = 0; i < fresh; i++) {
        if (!end_visit(graph, &graph->visits[i], &out[found]))
            continue;
        if (out[found].distance < out[nearest].distance)
            nearest = found;
        found++;
    }
    /* Often the next one to be expanded. */
    if (found > 0)
        graph_prefetch(graph, out[nearest].node);
    *count = found;
    return RV_OK;
}

static rv_status
graph_distance(void *ctx, rv_node node, float *distance, uint32_t *flags)
{
    RuhnswGraph *graph = ctx;
    rv_neighbour neighbour;

    ruv_reader_refresh(&graph->reader);
    if (!compare_pinned(graph, node, &neighbour)) {
        if (node == graph->meta.entry)
            graph->entry_vanished = true;
        return RV_ERR_NOTFOUND;
    }
    *distance = neighbour.distance;
    *flags = neighbour.flags;
    return RV_OK;
}

/* Nodes are numbered without gaps but for the slots of SIDE pages, of which there are few. */
static uint64
graph_key(void *ctx, rv_node ref)
{
    const RuhnswGraph *graph = ctx;

    return ruhnsw_ref_number(&graph->geometry, ref);
}
