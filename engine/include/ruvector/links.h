/*
 * links.h - which links a graph lacks for the queries that were asked.
 *
 * A proximity graph links rows that are near to each other. Queries that are unlike the rows find
 * their nearest rows scattered: each belongs to a neighbourhood of its own, and the beam reaches
 * the last of them by a detour. What helps is a way among the rows that one query wants. So, for
 * each query: its nearest rows are points, joined where the graph links them in both directions;
 * the groups that remain are joined by the shortest links between them, both ways, until there is
 * one group (Kruskal's minimum spanning tree). A search that finds any of them then finds the
 * others without leaving the neighbourhood of the query.
 *
 * Requests of many queries are added up. A link costs every later search that expands its node a
 * distance, and a node has room for few, so the most requested come first.
 *
 * The module knows neither pages nor indexes: the caller hands in each node with its vector and its
 * links, and puts the links that were chosen where it keeps them.
 */
#ifndef RUVECTOR_LINKS_H
#define RUVECTOR_LINKS_H

#include "ruvector/base.h"
#include "ruvector/beam.h"
#include "ruvector/distance.h"

#define RV_LINKS_MAX_NODES 128 /* nearest rows of one query */

typedef struct rv_links rv_links;

/* One of the nearest rows of a query. */
typedef struct rv_link_node {
    rv_node node;
    const float *vector;  /* dim floats, as the graph compares them */
    const rv_node *links; /* those of layer 0 that it has, learned ones too */
    uint32_t link_count;
} rv_link_node;

/* A link that queries ask for. */
typedef struct rv_link {
    rv_node from;
    rv_node to;
    uint32_t requests; /* queries that asked for it */
    float distance;    /* raw, between its ends; 0 when it was asked for by itself */
} rv_link;

/* dim: of the vectors; unit: they have unit length (COSINE only). limit: different links that are
 * remembered, at least 1; what is asked for beyond is counted and left out. */
rv_status rv_links_create(const rv_allocator *allocator, rv_metric metric, bool unit, uint32_t dim,
                          uint32_t limit, rv_links **out, rv_error *err);
void rv_links_destroy(rv_links *links); /* NULL is allowed */

/*
 * Asks for the links that the nearest rows of one query lack: count different nodes, at most
 * RV_LINKS_MAX_NODES, in any order. On failure nothing was asked for.
 */
rv_status rv_links_ask(rv_links *links, const rv_link_node *nodes, uint32_t count, rv_error *err);

/* Asks for one link, such as from where a search ended to what it should have found. A link from a
 * node to itself is none. */
rv_status rv_links_ask_for(rv_links *links, rv_node from, rv_node to, rv_error *err);

uint32_t rv_links_count(const rv_links *links);    /* different links asked for */
uint64_t rv_links_left_out(const rv_links *links); /* requests beyond the limit */

/*
 * The links to make: those asked for by at least min_requests queries, the most requested first
 * (then the shorter), at most per_node from each node and at most capacity in all, into out. Sorted
 * by from, then in that order: who writes them touches each node once. *count of them. Ends the
 * gathering: further requests start from none.
 */
rv_status rv_links_choose(rv_links *links, uint32_t min_requests, uint32_t per_node, rv_link *out,
                          uint32_t capacity, uint32_t *count, rv_error *err);

#endif
