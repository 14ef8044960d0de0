/*
 * links.c - requests for links: gathered by query, chosen by how often they were asked for.
 *
 * Requests live in one array, found through an open hash of (from, to). One query touches count
 * nodes and their links: a small hash of its nodes answers "is this link's end among them", so the
 * cost is the sum of the links, not its product with the nodes; the distances of all pairs in
 * different groups, and the sort of them, are what remains.
 */
#include "ruvector/links.h"

#include <stdlib.h>
#include <string.h>

#include "../base/internal.h"

#define NODE_SLOTS (4 * RV_LINKS_MAX_NODES)
#define MAX_PAIRS (RV_LINKS_MAX_NODES * (RV_LINKS_MAX_NODES - 1) / 2)
#define FIRST_ROOM 1024u

typedef struct pair {
    float distance;
    uint8_t a;
    uint8_t b;
} pair;

struct rv_links {
    const rv_allocator *allocator;
    rv_metric metric;
    bool unit;
    uint32_t dim;
    uint32_t limit;
    uint64_t left_out;
    rv_link *requests;
    uint32_t count;
    uint32_t room;
    uint32_t *slots; /* 1 + index of a request, 0: empty; a power of two of them, over half empty */
    uint32_t slot_count;
    /* Of the query that asks. */
    uint16_t node_slots[NODE_SLOTS]; /* 1 + index of a node */
    uint8_t group[RV_LINKS_MAX_NODES];
    uint64_t linked[RV_LINKS_MAX_NODES][RV_LINKS_MAX_NODES / 64]; /* bit b of a: a links to b */
    pair pairs[MAX_PAIRS];
};

static inline uint64_t
mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9E3779B97F4A7C15u;
    return x ^ (x >> 29);
}

rv_status
rv_links_create(const rv_allocator *allocator, rv_metric metric, bool unit, uint32_t dim,
                uint32_t limit, rv_links **out, rv_error *err)
{
    rv_links *links;

    *out = NULL;
    if (metric < RV_METRIC_L2 || metric > RV_METRIC_L1)
        return rv_fail(err, RV_ERR_INVALID, "metric is %d, must be 1 to 4", (int)metric);
    if (dim < 1 || dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_DIMENSION, "vectors of %u dimensions, must be 1 to %d", dim,
                       RV_MAX_DIMENSIONS);
    if (limit < 1 || limit > UINT32_MAX / 4)
        return rv_fail(err, RV_ERR_RANGE, "a limit of %u links, must be 1 to %u", limit,
                       UINT32_MAX / 4);
    links = rv_alloc_zero(allocator, sizeof *links);
    if (links == NULL)
        return rv_fail_nomem(err, sizeof *links);
    links->allocator = allocator;
    links->metric = metric;
    links->unit = unit;
    links->dim = dim;
    links->limit = limit;
    *out = links;
    return RV_OK;
}

static void
forget_requests(rv_links *links)
{
    rv_free(links->allocator, links->requests);
    rv_free(links->allocator, links->slots);
    links->requests = NULL;
    links->slots = NULL;
    links->count = links->room = links->slot_count = 0;
    links->left_out = 0;
}

void
rv_links_destroy(rv_links *links)
{
    if (links == NULL)
        return;
    forget_requests(links);
    rv_free(links->allocator, links);
}

/* ---- requests ------------------------------------------------------------------------------ */

/* The place of a link: its own, or the empty one where it belongs. */
static uint32_t
find_slot(const rv_links *links, rv_node from, rv_node to)
{
    uint32_t mask = links->slot_count - 1;
    uint32_t at = (uint32_t)mix(mix(from) ^ to) & mask;

    while (links->slots[at] != 0) {
        const rv_link *request = &links->requests[links->slots[at] - 1];

        if (request->from == from && request->to == to)
            break;
        at = (at + 1) & mask;
    }
    return at;
}

/* Room for extra more requests. */
static rv_status
reserve(rv_links *links, uint32_t extra, rv_error *err)
{
    uint32_t need = links->count + extra;
    uint32_t room = links->room > 0 ? links->room : FIRST_ROOM;
    rv_link *requests;
    uint32_t *slots;

    if (need <= links->room)
        return RV_OK;
    while (room < need)
        room *= 2;
    requests = rv_alloc_array(links->allocator, room, sizeof *requests);
    slots = rv_alloc_array_zero(links->allocator, 2 * (size_t)room, sizeof *slots);
    if (requests == NULL || slots == NULL) {
        rv_free(links->allocator, requests);
        rv_free(links->allocator, slots);
        return rv_fail_nomem(err, room * sizeof *requests);
    }
    if (links->count > 0)
        memcpy(requests, links->requests, links->count * sizeof *requests);
    rv_free(links->allocator, links->requests);
    rv_free(links->allocator, links->slots);
    links->requests = requests;
    links->slots = slots;
    links->room = room;
    links->slot_count = 2 * room;
    for (uint32_t i = 0; i < links->count; i++)
        links->slots[find_slot(links, requests[i].from, requests[i].to)] = i + 1;
    return RV_OK;
}

/* There is room for it. */
static void
ask(rv_links *links, rv_node from, rv_node to, float distance)
{
    uint32_t slot = find_slot(links, from, to);

    if (links->slots[slot] != 0) {
        links->requests[links->slots[slot] - 1].requests++;
    } else if (links->count == links->limit) {
        links->left_out++;
    } else {
        links->requests[links->count] = (rv_link){from, to, 1, distance};
        links->slots[slot] = ++links->count;
    }
}

rv_status
rv_links_ask_for(rv_links *links, rv_node from, rv_node to, rv_error *err)
{
    rv_status status;

    if (from == to)
        return RV_OK;
    status = reserve(links, 1, err);
    if (status == RV_OK)
        ask(links, from, to, 0.0f);
    return status;
}

/* ---- one query ----------------------------------------------------------------------------- */

static uint32_t
node_slot(const rv_links *links, const rv_link_node *nodes, rv_node node)
{
    uint32_t at = (uint32_t)mix(node) % NODE_SLOTS;

    while (links->node_slots[at] != 0 && nodes[links->node_slots[at] - 1].node != node)
        at = (at + 1) % NODE_SLOTS;
    return at;
}

static bool
has_link(const rv_links *links, uint32_t a, uint32_t b)
{
    return (links->linked[a][b / 64] >> (b % 64)) & 1;
}

static uint8_t
group_of(rv_links *links, uint8_t node)
{
    while (links->group[node] != node) {
        links->group[node] = links->group[links->group[node]];
        node = links->group[node];
    }
    return node;
}

/* Notes which of the nodes link to which. RV_ERR_INVALID: a node came twice. */
static rv_status
read_links(rv_links *links, const rv_link_node *nodes, uint32_t count, rv_error *err)
{
    memset(links->node_slots, 0, sizeof links->node_slots);
    memset(links->linked, 0, sizeof links->linked[0] * count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = node_slot(links, nodes, nodes[i].node);

        if (links->node_slots[slot] != 0)
            return rv_fail(err, RV_ERR_INVALID, "node %llu is there twice",
                           (unsigned long long)nodes[i].node);
        links->node_slots[slot] = (uint16_t)(i + 1);
        links->group[i] = (uint8_t)i;
    }
    for (uint32_t a = 0; a < count; a++) {
        for (uint32_t i = 0; i < nodes[a].link_count; i++) {
            uint32_t b = links->node_slots[node_slot(links, nodes, nodes[a].links[i])];

            if (b != 0)
                links->linked[a][(b - 1) / 64] |= (uint64_t)1 << ((b - 1) % 64);
        }
    }
    return RV_OK;
}

/* Joins what is linked both ways. */
static void
join_linked(rv_links *links, uint32_t count)
{
    for (uint32_t a = 0; a < count; a++)
        for (uint32_t b = a + 1; b < count; b++)
            if (has_link(links, a, b) && has_link(links, b, a))
                links->group[group_of(links, (uint8_t)a)] = group_of(links, (uint8_t)b);
}

static int
compare_pairs(const void *x, const void *y)
{
    const pair *p = x;
    const pair *q = y;

    if (p->distance != q->distance)
        return p->distance < q->distance ? -1 : 1;
    return p->a != q->a ? (int)p->a - (int)q->a : (int)p->b - (int)q->b;
}

/* Pairs of nodes in different groups, nearest first. */
static uint32_t
collect_pairs(rv_links *links, const rv_link_node *nodes, uint32_t count)
{
    uint32_t found = 0;

    for (uint32_t a = 0; a < count; a++) {
        for (uint32_t b = a + 1; b < count; b++) {
            const float *x = nodes[a].vector;
            const float *y = nodes[b].vector;
            float distance;

            if (group_of(links, (uint8_t)a) == group_of(links, (uint8_t)b))
                continue;
            distance = links->unit ? rv_raw_distance_unit(links->metric, x, y, links->dim)
                                   : rv_raw_distance(links->metric, x, y, links->dim);
            if (distance == distance) /* no order has a place for NaN */
                links->pairs[found++] = (pair){distance, (uint8_t)a, (uint8_t)b};
        }
    }
    qsort(links->pairs, found, sizeof *links->pairs, compare_pairs);
    return found;
}

rv_status
rv_links_ask(rv_links *links, const rv_link_node *nodes, uint32_t count, rv_error *err)
{
    rv_status status;
    uint32_t pairs;

    if (count > RV_LINKS_MAX_NODES)
        return rv_fail(err, RV_ERR_RANGE, "%u nodes of one query, must be at most %d", count,
                       RV_LINKS_MAX_NODES);
    if (count < 2)
        return RV_OK;
    if ((status = read_links(links, nodes, count, err)) != RV_OK ||
        (status = reserve(links, 2 * (count - 1), err)) != RV_OK)
        return status;
    join_linked(links, count);
    pairs = collect_pairs(links, nodes, count);
    for (uint32_t i = 0; i < pairs; i++) {
        const pair *p = &links->pairs[i];
        uint8_t a = group_of(links, p->a);
        uint8_t b = group_of(links, p->b);

        if (a == b)
            continue;
        links->group[a] = b;
        if (!has_link(links, p->a, p->b))
            ask(links, nodes[p->a].node, nodes[p->b].node, p->distance);
        if (!has_link(links, p->b, p->a))
            ask(links, nodes[p->b].node, nodes[p->a].node, p->distance);
    }
    return RV_OK;
}

/* ---- choosing ------------------------------------------------------------------------------ */

uint32_t
rv_links_count(const rv_links *links)
{
    return links->count;
}

uint64_t
rv_links_left_out(const rv_links *links)
{
    return links->left_out;
}

/* Of two links the more requested first, then the shorter; the nodes make the order total. */
static int
compare_wish(const void *x, const void *y)
{
    const rv_link *p = x;
    const rv_link *q = y;

    if (p->requests != q->requests)
        return p->requests > q->requests ? -1 : 1;
    if (p->distance != q->distance)
        return p->distance < q->distance ? -1 : 1;
    if (p->from != q->from)
        return p->from < q->from ? -1 : 1;
    return p->to < q->to ? -1 : p->to > q->to;
}

static int
compare_from(const void *x, const void *y)
{
    const rv_link *p = x;
    const rv_link *q = y;

    if (p->from != q->from)
        return p->from < q->from ? -1 : 1;
    return compare_wish(x, y);
}

rv_status
rv_links_choose(rv_links *links, uint32_t min_requests, uint32_t per_node, rv_link *out,
                uint32_t capacity, uint32_t *count, rv_error *err)
{
    uint32_t kept = 0;
    uint32_t run = 0;

    *count = 0;
    if (per_node < 1)
        return rv_fail(err, RV_ERR_RANGE, "%u links per node, must be at least 1", per_node);
    /* The first per_node of each node, packed to the front. */
    if (links->count > 0)
        qsort(links->requests, links->count, sizeof *links->requests, compare_from);
    for (uint32_t i = 0; i < links->count; i++) {
        const rv_link request = links->requests[i];

        run = i > 0 && kept > 0 && links->requests[kept - 1].from == request.from ? run : 0;
        if (request.requests < min_requests || run == per_node)
            continue;
        links->requests[kept++] = request;
        run++;
    }
    /* Of these the most wanted, if not all fit. */
    if (kept > capacity) {
        qsort(links->requests, kept, sizeof *links->requests, compare_wish);
        kept = capacity;
        if (kept > 0)
            qsort(links->requests, kept, sizeof *links->requests, compare_from);
    }
    if (kept > 0)
        memcpy(out, links->requests, kept * sizeof *out);
    *count = kept;
    forget_requests(links);
    return RV_OK;
}
