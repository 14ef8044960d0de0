/*
 * internal.h - what the files of the bank share.
 *
 * The bank holds each pattern in a block of its own together with its centroid, and region patterns
 * in an array of pointers sorted by id: pointers that rv_bank_get gave out move only when their own
 * pattern changes, a change costs no copy of other patterns, and `rows` (the centroids in the same
 * order) is what the batch kernels take.
 *
 * Every change is built aside first and then put in place by steps that cannot fail, so a lack of
 * memory, a refused merge, or a callback that leaves by longjmp finds the bank as it was.
 */
#ifndef RUVECTOR_BANK_INTERNAL_H
#define RUVECTOR_BANK_INTERNAL_H

#include "ruvector/bank.h"
#include "ruvector/hnsw.h"
#include "../base/internal.h"

#define RV_BANK_GRAPH_M 10 /* few links: a lookup must stay cheap beside the search it serves */
#define RV_BANK_GRAPH_MAX_M 100 /* what a flat bank may claim */

typedef struct bank_entry {
    rv_pattern pattern;
    bool marked;      /* to be pruned; or not yet compared with all others by consolidate */
    float centroid[]; /* dim floats; none for the index-wide pattern */
} bank_entry;

struct rv_bank {
    const rv_allocator *allocator;
    rv_metric metric;
    uint32_t dim;
    uint32_t max_patterns;
    uint64_t last_id;     /* the largest ever used */
    bank_entry *index;    /* the index-wide pattern, or NULL */
    bank_entry **regions; /* by id */
    const float **rows;   /* rows[i] = regions[i]->centroid */
    float *scratch;       /* capacity floats: the distances of one scan */
    uint32_t count;       /* of regions */
    uint32_t capacity;
    rv_hnsw *graph; /* over regions, node i = regions[i]; NULL: none, or out of date */
};

/* The metric that nearness among centroids is measured by: IP becomes COSINE. */
rv_metric rv_bank_space(rv_metric metric);

/* Similarity in [0, 1] of two things at a raw distance in space; radius matters for L2 and L1. */
float rv_bank_similarity(rv_metric space, float raw, float radius);

/* A raw distance in space as metric distance. */
float rv_bank_metric_distance(rv_metric space, float raw);

/* RV_ERR_RANGE, naming the element, unless all values are finite. what names the vector. */
rv_status rv_bank_check_vector(const float *vector, uint32_t dim, const char *what, rv_error *err);

/* Raw distances of query to every region centroid, into bank->scratch. */
void rv_bank_scan(rv_bank *bank, const float *query);

/* Builds bank->graph if it is out of date. Only for more than RV_BANK_EXACT_LIMIT regions. */
rv_status rv_bank_build_graph(rv_bank *bank, rv_error *err);

/* Forgets the graph; called by every change of regions. */
void rv_bank_drop_graph(rv_bank *bank);

/*
 * The k best matches seen so far, nearest first, ties by id. distance holds the raw distance until
 * rv_bank_finish_matches turns it into the metric form and computes the similarities.
 */
typedef struct bank_ranking {
    rv_bank_match *matches;
    uint32_t k;
    uint32_t count;
} bank_ranking;

void rv_bank_rank(bank_ranking *ranking, const rv_pattern *pattern, const float *centroid,
                  float raw);
void rv_bank_finish_matches(bank_ranking *ranking, rv_metric space);

/* Puts an entry, made by rv_bank_new_entry and owned by the bank from now on, in the place of
 * regions[i]. Cannot fail. */
void rv_bank_replace_region(rv_bank *bank, uint32_t i, bank_entry *entry);
/* Takes regions[i] out and frees it. */
void rv_bank_drop_region(rv_bank *bank, uint32_t i);
/* A block for a pattern of scope; its contents are the caller's to fill. */
bank_entry *rv_bank_new_entry(const rv_bank *bank, uint32_t scope, rv_error *err);

#endif
