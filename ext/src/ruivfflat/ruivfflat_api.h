/*
 * ruivfflat_api.h - what the rest of the extension may ask of the ruivfflat access method.
 */
#ifndef RUVECTOR_RUIVFFLAT_API_H
#define RUVECTOR_RUIVFFLAT_API_H

#include "ruvector.h"
#include "learning.h"
#include "selection.h"

#include "nodes/execnodes.h"

/* True when the relation is a ruivfflat index. */
extern bool ruivf_is_index(Relation index);

typedef struct RuivfInfo {
    RuvIndexIdentity identity;
    uint32 lists;
    const char *storage;
    float max_norm; /* upper bound of the rows' norms */
} RuivfInfo;

extern void ruivf_get_info(Relation index, RuivfInfo *info);

/* Deep trace of one query (as the index compares it) over the index's pages. Arguments and results
 * as rv_ivf_trace; a node is the number of a list plus one. */
extern void ruivf_trace(Relation index, const float *query, const rv_trace_limits *limits,
                        const float *truth, uint32 truth_count, rv_effort *efforts,
                        rv_trace_summary *summary);

/* Reference search that compares at least so many rows: up to k hits, nearest first. */
extern int ruivf_search(Relation index, const float *query, int k, int rows, rv_hit *hits);
/* A search of so many lists; *distances is what it took. */
extern int ruivf_probe(Relation index, const float *query, int k, int probes, rv_hit *hits,
                       uint64 *distances);

/* cost.c: what the model says of an index that is locked. */
extern RuvScanCost ruivf_scan_cost(Oid index_oid, double rows, double pages, Oid tablespace);

/* verify.c: the findings of ruvector_index_verify about this index, as rows of (severity, block,
 * message). table is NULL unless every row of it is to be looked up. */
extern void ruivf_verify(Relation index, Relation table, ReturnSetInfo *out);

#endif
