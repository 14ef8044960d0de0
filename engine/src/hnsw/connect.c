/*
 * connect.c - makes every node reachable from the entry point over layer 0.
 *
 * Pruning drops a link on one side only, so a node can lose the last link that leads to it. A
 * breadth-first tree over layer 0 tells who is lost, and which links are needed by others: those of
 * the tree. A lost node gets a link from one of the nearest reachable nodes, in place of a link
 * that is not in the tree if there is no room; what it leads to joins the tree. The tree only
 * grows, so one pass is enough.
 */
#include "graph.h"

#include <string.h>

#include "../base/internal.h"

#define NO_PARENT UINT32_MAX

typedef struct rv_tree {
    rv_hnsw *graph;
    uint32_t *parents; /* NO_PARENT: not reached; the entry is its own parent */
    uint32_t *queue;
} rv_tree;

/* Adds all that is reachable from a node, which gets a parent. */
static void
grow(rv_tree *tree, uint32_t from, uint32_t parent)
{
    uint64_t head = 0, tail = 0;

    tree->parents[from] = parent;
    tree->queue[tail++] = from;
    while (head < tail) {
        uint32_t node = tree->queue[head++];
        const uint32_t *links = rv_hnsw_base_links(tree->graph, node);

        for (uint32_t i = 1; i <= links[0]; i++) {
            if (tree->parents[links[i]] != NO_PARENT)
                continue;
            tree->parents[links[i]] = node;
            tree->queue[tail++] = links[i];
        }
    }
}

/* Links a reached node to a lost one; false when all its links are in the tree and it is full. */
static bool
link_from(rv_tree *tree, uint32_t from, uint32_t lost)
{
    rv_link_list list = rv_hnsw_list(tree->graph, from, 0);
    float distance = rv_hnsw_between(tree->graph, from, lost);
    uint32_t count = *list.count;
    uint32_t at;

    if (count == list.capacity) {
        at = count;
        while (at > 0 && tree->parents[list.nodes[at - 1]] == from)
            at--;
        if (at == 0)
            return false;
        rv_hnsw_remove_link(&list, at - 1, count--);
    }
    at = count;
    while (at > 0 && (list.distances[at - 1] > distance ||
                      (list.distances[at - 1] == distance && list.nodes[at - 1] > lost)))
        at--;
    rv_hnsw_insert_link(&list, at, count, lost, distance);
    *list.count = count + 1;
    return true;
}

/* Finds the lost node's nearest among the reached, and links it from the first that can. */
static rv_status
rescue(rv_tree *tree, uint32_t lost, rv_error *err)
{
    rv_hnsw *graph = tree->graph;
    const float *vector = rv_hnsw_vector_of(graph, lost);
    rv_node entry;
    rv_status status;

    rv_hnsw_enter_at(graph, &entry);
    rv_hnsw_nearest_enter(graph, vector, entry);
    status = rv_hnsw_nearest_level(graph, vector, graph->options.ef_construction, 0, err);
    if (status != RV_OK)
        return status;
    for (uint32_t i = 0; i < graph->pool_count; i++) {
        uint32_t from = graph->pool[i].node;

        if (link_from(tree, from, lost)) {
            grow(tree, lost, from);
            return RV_OK;
        }
    }
    /* The leaves of the tree have links to spare. */
    for (uint64_t i = 0; i < rv_hnsw_nodes(graph); i++) {
        if (tree->parents[i] != NO_PARENT && link_from(tree, (uint32_t)i, lost)) {
            grow(tree, lost, (uint32_t)i);
            return RV_OK;
        }
    }
    return rv_fail(err, RV_ERR_CORRUPT, "node %u cannot be linked from any other", lost);
}

rv_status
rv_hnsw_connect(rv_hnsw *graph, uint64_t *connected, rv_error *err)
{
    const rv_allocator *allocator = graph->allocator;
    uint64_t count = rv_hnsw_nodes(graph);
    rv_node entry;
    size_t bytes = (size_t)count * sizeof(uint32_t);
    rv_tree tree = {graph, NULL, NULL};
    rv_status status = RV_OK;

    *connected = 0;
    if (rv_hnsw_enter_at(graph, &entry) < 0)
        return RV_OK;
    tree.parents = rv_alloc(allocator, bytes);
    tree.queue = rv_alloc(allocator, bytes);
    if (tree.parents == NULL || tree.queue == NULL) {
        rv_free(allocator, tree.parents);
        rv_free(allocator, tree.queue);
        return rv_fail_nomem(err, bytes);
    }
    memset(tree.parents, 0xFF, bytes);
    grow(&tree, (uint32_t)entry, (uint32_t)entry);
    for (uint64_t i = 0; i < count && status == RV_OK; i++) {
        if (tree.parents[i] != NO_PARENT)
            continue;
        status = rescue(&tree, (uint32_t)i, err);
        if (status == RV_OK)
            (*connected)++;
    }
    rv_free(allocator, tree.parents);
    rv_free(allocator, tree.queue);
    return status;
}
