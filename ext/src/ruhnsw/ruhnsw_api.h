/*
 * ruhnsw_api.h - what the rest of the extension may ask of the ruhnsw access method.
 */
#ifndef RUVECTOR_RUHNSW_API_H
#define RUVECTOR_RUHNSW_API_H

#include "ruvector.h"
#include "learning.h"
#include "selection.h"
#include "ruvector/links.h"

#include "nodes/execnodes.h"

/* True when the relation is a ruhnsw index. */
extern bool ruhnsw_is_index(Relation index);

typedef struct RuhnswInfo {
    RuvIndexIdentity identity;
    int m;
    int ef_construction;
    const char *storage; /* as built; a constant */
    float max_norm;      /* upper bound of the rows' norms (inner product) */
    uint64 entry_node;   /* block << 16 | slot; 0 when empty */
    int entry_level;     /* -1 when empty */
} RuhnswInfo;

extern void ruhnsw_get_info(Relation index, RuhnswInfo *info);
/* Results per window of a search for k by slack. */
extern int ruhnsw_results_per_window(Relation index, int k);

/*
 * Deep trace of one query (as the index compares it: unit length for cosine) over the index's
 * pages, in the caller's memory context and snapshot. Arguments and results as rv_beam_trace.
 */
extern void ruhnsw_trace(Relation index, const float *query, const rv_trace_limits *limits,
                         const float *truth, uint32 truth_count, rv_effort *efforts,
                         rv_trace_summary *summary);

/* Reference search at a static effort: up to k hits, nearest first. Returns how many. */
extern int ruhnsw_search(Relation index, const float *query, int k, int ef_search, rv_hit *hits);
/* The same; *distances is what it took. */
extern int ruhnsw_probe(Relation index, const float *query, int k, int ef_search, rv_hit *hits,
                        uint64 *distances);

/* Detoasts an indexed value and prepares it as the index compares it (unit length for cosine, in
 * the current memory context). NULL when it is not indexed: wrong dimension is an error, a zero
 * vector under cosine is not indexed. */
extern const float *ruhnsw_prepare_value(const RuvIndexIdentity *identity, Datum value);

/* cost.c: what the model says of an index that is locked. */
extern RuvScanCost ruhnsw_scan_cost(Oid index_oid, double rows, Oid tablespace);
/* ---- learned links (learn.c); room for them: RuvIndexIdentity.link_room ---- */

/* The nearest rows of a search. */
typedef struct RuhnswFound {
    const uint64 *nodes; /* nearest first; 0: not known */
    int count;
    uint64 ended_at; /* the nearest node that the search returned when it missed them all, else 0 */
} RuhnswFound;

/* breathe is called now and then in each of the following. */

/* nodes[i] gets the node of the row at heap position rows[i] (block << 16 | offset; ascending,
 * different), 0 when no live node has it. */
extern void ruhnsw_find_rows(Relation index, const uint64 *rows, int count, uint64 *nodes,
                             void (*breathe)(void));

/* Asks for the links that the nearest rows of these searches lack. */
extern void ruhnsw_ask_links(Relation index, rv_links *links, const RuhnswFound *searches,
                             int count, void (*breathe)(void));

/*
 * Makes the links, sorted by from, or takes them away (make = false). done[i]: it was changed; a
 * link that is there already, has no room, or whose ends are not both live is not made. The caller
 * has the index open as for an insert. Returns how many were changed.
 */
extern int ruhnsw_write_links(Relation index, const rv_link *links, int count, bool make,
                              bool *done, void (*breathe)(void));

/* verify.c: the findings of ruvector_index_verify about this index, as rows of (severity, block,
 * message). all_rows: every row of the table is looked up as well. */
extern void ruhnsw_verify(Relation index, Relation table, bool all_rows, ReturnSetInfo *out);

#endif
