/*
 * graph.c - the pages of an index as the graph that the engine's beam walks.
 *
 * Expanding a node takes two rounds. First its links are copied under a share lock, which is then
 * released. Then the vectors of those not yet visited are compared in place, page by page: links
 * that lie on one page are compared under one pin and lock. No pin or lock outlives a callback, and
 * at most one page is locked at any time.
 *
 * Vanished nodes (page.h) are skipped; a node of the build's own pages never vanishes.
 *
 * Distances are computed straight from the page, so the vector of a page being changed must never
 * be seen half-written: writers hold the exclusive content lock, and a node's vector never changes.
 */
#include "ruhnsw/ruhnsw.h"

#include "miscadmin.h"

static rv_status graph_expand(void *ctx, rv_node node, int level, rv_visited *visited,
                              rv_neighbour *out, uint32_t capacity, uint32_t *count);
static rv_status graph_distance(void *ctx, rv_node node, float *distance, uint32_t *flags);

void
ruhnsw_graph_refresh(RuhnswGraph *graph)
{
    ruhnsw_read_meta(graph->index, &graph->meta);
    graph->metric = (rv_metric)graph->meta.metric;
    graph->unit = graph->metric == RV_METRIC_COSINE;
    graph->entry_vanished = false;
}

void
ruhnsw_graph_open(RuhnswGraph *graph, Relation index)
{
    memset(graph, 0, sizeof(*graph));
    graph->index = index;
    ruhnsw_graph_refresh(graph);
    graph->graph.ctx = graph;
    graph->graph.expand = graph_expand;
    graph->graph.distance = graph_distance;
    graph->graph.max_degree = ruhnsw_level_limit(graph->meta.m, 0);
    graph->links = palloc(sizeof(uint64) * graph->graph.max_degree);
    graph->waiting = palloc(sizeof(uint64) * graph->graph.max_degree);
}

bool
ruhnsw_ref_in_file(Relation index, uint64 ref)
{
    return ruhnsw_ref_block(ref) >= RUHNSW_FIRST_BLOCK &&
           ruhnsw_ref_block(ref) < RelationGetNumberOfBlocks(index);
}

float
ruhnsw_distance(const RuhnswGraph *graph, const float *a, const float *b)
{
    return graph->unit ? rv_raw_distance_unit(graph->metric, a, b, graph->meta.dim)
                       : rv_raw_distance(graph->metric, a, b, graph->meta.dim);
}

static Buffer
read_page(RuhnswGraph *graph, BlockNumber block)
{
    graph->pages++;
    return ruhnsw_read_for_search(graph->index, block);
}

static int
copy_links(const RuhnswLinks *links, int m, int level, uint64 *out)
{
    int count = links->counts[level];

    memcpy(out, links->links + ruhnsw_level_start(m, level), sizeof(uint64) * count);
    return count;
}

int
ruhnsw_load_links(RuhnswGraph *graph, uint64 ref, int level, uint64 *out, ItemPointer where,
                  uint16 *node_flags)
{
    int m = graph->meta.m;
    Buffer buffer = read_page(graph, ruhnsw_ref_block(ref));
    RuhnswNode *node = ruhnsw_get_node(graph->index, BufferGetPage(buffer), ref, graph->meta.dim);
    RuhnswLinks *links;
    ItemPointerData position;
    int count = -1;

    if (node == NULL) {
        UnlockReleaseBuffer(buffer);
        return -1;
    }
    position = node->links;
    if (where)
        *where = position;
    if (node_flags)
        *node_flags = node->flags;
    if (level > node->level) {
        UnlockReleaseBuffer(buffer);
        return -1;
    }
    if (ItemPointerGetBlockNumber(&position) != ruhnsw_ref_block(ref)) {
        UnlockReleaseBuffer(buffer);
        buffer = read_page(graph, ItemPointerGetBlockNumber(&position));
    }
    links = ruhnsw_get_links(graph->index, BufferGetPage(buffer), &position, ref, m);
    if (links && level <= links->level)
        count = copy_links(links, m, level, out);
    else if (ItemPointerGetBlockNumber(&position) == ruhnsw_ref_block(ref))
        ruhnsw_corrupt(graph->index, ruhnsw_ref_block(ref),
                       "the links of the node at offset %u are missing", ruhnsw_ref_offset(ref));
    UnlockReleaseBuffer(buffer);
    return count;
}

bool
ruhnsw_load_node(RuhnswGraph *graph, uint64 ref, float *out, uint16 *flags, int *level)
{
    Buffer buffer = read_page(graph, ruhnsw_ref_block(ref));
    RuhnswNode *node = ruhnsw_get_node(graph->index, BufferGetPage(buffer), ref, graph->meta.dim);

    if (node) {
        if (out)
            memcpy(out, node->vector, sizeof(float) * graph->meta.dim);
        if (flags)
            *flags = node->flags;
        if (level)
            *level = node->level;
    }
    UnlockReleaseBuffer(buffer);
    return node != NULL;
}

int
ruhnsw_next_rows(RuhnswGraph *graph, uint64 ref, uint64 *position, ItemPointerData *tids)
{
    uint64 next = 0;
    int count = 0;
    Buffer buffer = read_page(graph, ruhnsw_ref_block(*position ? *position : ref));
    Page page = BufferGetPage(buffer);

    if (*position == 0) {
        RuhnswNode *node = ruhnsw_get_node(graph->index, page, ref, graph->meta.dim);

        if (node && !(node->flags & RUHNSW_NODE_DEAD)) {
            count = node->tid_count;
            next = node->more;
            memcpy(tids, node->tids, sizeof(ItemPointerData) * count);
        }
    } else {
        RuhnswRows *rows = ruhnsw_get_rows(graph->index, page, *position, ref);

        if (rows) {
            count = rows->count;
            next = rows->next;
            memcpy(tids, rows->tids, sizeof(ItemPointerData) * count);
        }
    }
    UnlockReleaseBuffer(buffer);
    *position = next ? next : RUHNSW_ROWS_END;
    return count;
}

static inline bool
compare_node(RuhnswGraph *graph, Page page, uint64 ref, rv_neighbour *out)
{
    RuhnswNode *node = ruhnsw_get_node(graph->index, page, ref, graph->meta.dim);

    if (node == NULL)
        return false;
    out->node = ref;
    out->distance = ruhnsw_distance(graph, graph->query, node->vector);
    out->flags = node->flags & RUHNSW_NODE_DEAD ? RV_NEIGHBOUR_DEAD : 0;
    return true;
}

/* Compares every waiting reference that lies on the page of the first one; the rest stays. */
static int
compare_page(RuhnswGraph *graph, int waiting, rv_neighbour *out, uint32_t *count)
{
    BlockNumber block = ruhnsw_ref_block(graph->waiting[0]);
    Buffer buffer = read_page(graph, block);
    Page page = BufferGetPage(buffer);
    int left = 0;

    for (int i = 0; i < waiting; i++) {
        uint64 ref = graph->waiting[i];

        if (ruhnsw_ref_block(ref) != block)
            graph->waiting[left++] = ref;
        else if (compare_node(graph, page, ref, &out[*count]))
            (*count)++;
    }
    UnlockReleaseBuffer(buffer);
    return left;
}

static rv_status
graph_expand(void *ctx, rv_node node, int level, rv_visited *visited, rv_neighbour *out,
             uint32_t capacity, uint32_t *count)
{
    RuhnswGraph *graph = ctx;
    int link_count;
    int waiting = 0;

    CHECK_FOR_INTERRUPTS();
    *count = 0;
    link_count = ruhnsw_load_links(graph, node, level, graph->links, NULL, NULL);
    for (int i = 0; i < link_count; i++)
        if (rv_visited_add(visited, graph->links[i]))
            graph->waiting[waiting++] = graph->links[i];
    Assert(waiting <= (int)capacity);
    while (waiting > 0)
        waiting = compare_page(graph, waiting, out, count);
    return RV_OK;
}

static rv_status
graph_distance(void *ctx, rv_node node, float *distance, uint32_t *flags)
{
    RuhnswGraph *graph = ctx;
    Buffer buffer = read_page(graph, ruhnsw_ref_block(node));
    rv_neighbour neighbour;
    bool found = compare_node(graph, BufferGetPage(buffer), node, &neighbour);

    UnlockReleaseBuffer(buffer);
    if (!found) {
        if (node == graph->meta.entry)
            graph->entry_vanished = true;
        return RV_ERR_NOTFOUND;
    }
    *distance = neighbour.distance;
    *flags = neighbour.flags;
    return RV_OK;
}
