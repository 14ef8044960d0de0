/*
 * index_api.h - what the rest of the extension may ask of an index, whatever its access method.
 */
#ifndef RUVECTOR_INDEX_API_H
#define RUVECTOR_INDEX_API_H

#include "ruvector.h"
#include "learning.h"

/* The access methods, for queries on pg_am. */
#define RUV_INDEX_METHODS "('ruhnsw', 'ruivfflat')"

/* True when the relation is an index of one of the extension's access methods. */
extern bool ruv_is_index(Relation index);

/* The calls below need such an index. */

extern void ruv_index_identity(Relation index, RuvIndexIdentity *identity);

/* What the index was built with: the links per node of a graph, or the number of lists; the other
 * one is 0. */
extern void ruv_index_built_with(Relation index, int *m, int *lists);

/* Detoasts an indexed value and prepares it as the index compares it (unit length for cosine, in
 * the current memory context). NULL when it is not indexed: wrong dimension is an error, a zero
 * vector under cosine is not indexed. */
extern const float *ruv_index_prepare(const RuvIndexIdentity *identity, Datum value);

/*
 * Deep trace of one query (as the index compares it) over the index's pages, in the caller's memory
 * context and snapshot. Arguments and results as rv_beam_trace or rv_ivf_trace: an effort is a
 * slack and either an ef_search or a number of lists.
 */
extern void ruv_index_trace(Relation index, const float *query, const rv_trace_limits *limits,
                            const float *truth, uint32 truth_count, rv_effort *efforts,
                            rv_trace_summary *summary);

/* Results per window of the search chosen, and how many windows k results take. */
extern void ruv_index_windows(Relation index, const RuvChoice *choice, int k, int *size,
                              int *windows);
/* Distances that a trace may compute: a bound for a table of so many rows. */
extern uint64 ruv_index_trace_distances(Relation index, double rows);

/* Reference search at a static effort, an ef_search of a graph: up to k hits, nearest first.
 * Returns how many. */
extern int ruv_index_search(Relation index, const float *query, int k, int effort, rv_hit *hits);

/* A search as the static settings do it, not reported as one: up to k hits, nearest first, at an
 * ef_search of a graph or a number of probes. *distances: the work. Returns how many. */
extern int ruv_index_probe(Relation index, const float *query, int k, int effort, rv_hit *hits,
                           uint64 *distances);
/* How vectors are kept, as the storage parameter names it; a constant. */
extern const char *ruv_index_storage_name(Relation index);
/* The name of that effort as a storage parameter; the least and the most that make sense for k
 * rows. */
extern const char *ruv_index_effort_name(Relation index);
extern int ruv_index_least_effort(Relation index, int k);
extern int ruv_index_most_effort(Relation index);

#endif
