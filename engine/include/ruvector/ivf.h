/*
 * ivf.h - search over an inverted file: rows in lists, a centre for each list.
 *
 * The lists are reached through one interface, scan(list): the search visits them in the order of
 * their centres' distances and hands out rows in windows. The rows of a list may be scored by
 * compact codes; what is handed out is in the order of the exact distances all the same, because
 * every code carries a bound of its error (rv_ivf_encode).
 *
 * A window is closed by one of two rules:
 *   static     `probes` lists were visited; it hands out every row of them
 *   adaptive   `window` rows wait to be handed out, and the next list's excess is more than
 * `slack`; it hands out `window` rows. Each later window hands out twice as many as the one before,
 * allows twice the slack, and visits at least one more list The excess of a list is how much
 * farther its centre is than the nearest one, in raw distance (the squared one under L2), measured
 * in the mean raw distance of a row to its own centre: were the lists equal Gaussian clouds, the
 * odds that a neighbour is in a list would fall exponentially with it. Measured on real vectors
 * (see search.c) it beats the other rules of its kind. Taking more rows than a window has lets the
 * search go on from where it stopped. What was scored and not handed out is kept: no list is
 * visited twice.
 */
#ifndef RUVECTOR_IVF_H
#define RUVECTOR_IVF_H

#include "ruvector/base.h"
#include "ruvector/beam.h"
#include "ruvector/distance.h"

#define RV_IVF_MAX_LISTS 32768

/* ---- building ---- */

/* Lists for so many rows: rows / 1000 up to a million rows, the square root above; at least 1. */
uint32_t rv_ivf_default_lists(double rows);

/* Rows that k-means wants to see for so many lists: 50 for each, and at least 10,000. */
uint32_t rv_ivf_sample_rows(uint32_t lists);

/* Bytes that k-means of a sample takes, sample and centres included. */
size_t rv_ivf_kmeans_bytes(uint32_t lists, uint32_t rows, uint32_t dim);

/* The metric by which k-means groups rows: cosine for inner product, else the metric itself. */
rv_metric rv_ivf_cluster_metric(rv_metric metric);

/*
 * Which of count centres a row belongs to: *nearest and *distance are replaced when a nearer one is
 * among them (the first of equals stays), so that centres may come piece by piece; begin with
 * *distance = INFINITY. Centre i is dim floats at (char *)centres + i * stride; numbers count from
 * base. Under inner product and cosine the centres have unit length and the row's own length does
 * not matter.
 */
void rv_ivf_nearest(rv_metric metric, const float *row, uint32_t dim, const void *centres,
                    size_t stride, uint32_t count, uint32_t base, uint32_t *nearest,
                    float *distance);

/* ---- codes ---- */

typedef enum rv_ivf_storage {
    RV_IVF_FLOAT32 = 1,
    RV_IVF_FLOAT16 = 2,
    RV_IVF_INT8 = 3
} rv_ivf_storage;

/* Bytes of the code of one vector. */
size_t rv_ivf_code_size(rv_ivf_storage storage, uint32_t dim);

/*
 * Encodes dim finite floats. *scale: int8 only, else 1. *error: an upper bound of the length of
 * vector - decoded (Euclidean; under L1 the sum of the absolute differences). A vector that the
 * code cannot hold (beyond half precision's range) gets a code of zeros and an infinite error:
 * correct, but always compared exactly. float32 copies.
 */
void rv_ivf_encode(rv_ivf_storage storage, rv_metric metric, const float *vector, uint32_t dim,
                   void *code, float *scale, float *error);

/*
 * The code of the int8 storage, and beside it the rest of a vector in fixed point, in 3 planes
 * (rv_fixed_encode). *error bounds the distance of the code to the vector that comes back from
 * both, which is the one that rows are compared by exactly.
 */
void rv_ivf_encode_fixed(rv_metric metric, const float *vector, uint32_t dim, int8_t *code,
                         int8_t *rest, float *scale, float *error);
/* That bound, of a vector that came back. */
float rv_ivf_code_error(rv_metric metric, const float *vector, const int8_t *code, float scale,
                        uint32_t dim);

/* What scoring needs to know of a query. */
typedef struct rv_ivf_scorer {
    rv_metric metric;
    rv_ivf_storage storage;
    uint32_t dim;
    const float *query; /* the caller's; of unit length under cosine, as the rows are */
    float query_norm;
    float max_norm; /* upper bound of the rows' norms */
    float rounding; /* relative error of a kernel's sum, bounded */
} rv_ivf_scorer;

void rv_ivf_scorer_init(rv_ivf_scorer *scorer, rv_metric metric, rv_ivf_storage storage,
                        const float *query, uint32_t dim, float max_norm);

/*
 * Scores count codes that lie one after the other. float32: out[i] is the raw distance; scales and
 * errors are not read. Else out[i] is a lower bound of it, also after rounding.
 */
void rv_ivf_score(const rv_ivf_scorer *scorer, const void *codes, const float *scales,
                  const float *errors, uint32_t count, float *out);

/* Raw distance of a stored float32 vector to the query. */
float rv_ivf_exact(const rv_ivf_scorer *scorer, const float *vector);

/* Raw distances of the query to count centres as in rv_ivf_nearest, on the scale of the rows'
 * distances (under inner product a centre stands for rows of the greatest length). */
void rv_ivf_list_distances(const rv_ivf_scorer *scorer, const void *centres, size_t stride,
                           uint32_t count, float *out);

/* ---- searching ---- */

#define RV_IVF_IS_EXACT UINT64_MAX

typedef struct rv_ivf_candidate {
    float key; /* raw distance, or a lower bound of it */
    uint32_t list;
    uint64_t ref; /* where the exact vector is, for `exact`; RV_IVF_IS_EXACT: key is exact */
    uint64_t row; /* opaque; breaks ties */
} rv_ivf_candidate;

typedef struct rv_ivf rv_ivf;

/* Adds scored rows; only within the source's scan. A key that is not a number counts as infinite.
 */
rv_status rv_ivf_push(rv_ivf *ivf, const rv_ivf_candidate *candidates, uint32_t count,
                      rv_error *err);

typedef struct rv_ivf_source {
    void *ctx;
    /* Scores every row of a list and pushes them, any number at a time. *scored: the distances that
     * were computed. */
    rv_status (*scan)(void *ctx, uint32_t list, rv_ivf *ivf, uint64_t *scored, rv_error *err);
    /* The exact raw distance of a pushed row; false when the row is gone, which leaves it out. */
    bool (*exact)(void *ctx, uint64_t ref, float *distance);
} rv_ivf_source;

typedef struct rv_ivf_rule {
    bool adaptive;
    uint32_t probes;    /* static: lists per window, >= 1 */
    uint32_t window;    /* adaptive: rows of the first window, >= 1 */
    float slack;        /* adaptive: >= 0, an excess */
    uint32_t max_lists; /* adaptive: lists per window; 0 = no bound */
    uint64_t max_rows;  /* rows scored per window; 0 = no bound. Checked before a list. */
} rv_ivf_rule;

typedef struct rv_ivf_result {
    uint64_t row;
    uint32_t list;
    float distance; /* raw, exact */
} rv_ivf_result;

rv_status rv_ivf_create(const rv_allocator *allocator, const rv_ivf_source *source, rv_ivf **out,
                        rv_error *err);
void rv_ivf_destroy(rv_ivf *ivf); /* NULL is allowed */

/*
 * Starts a new search and forgets the former one; memory is kept. distances: of the lists, as
 * rv_ivf_list_distances gives them; spread: the mean raw distance of a row to its own centre, under
 * rv_ivf_cluster_metric (0: unknown, an excess is then a bare difference). Nothing needs to stay
 * valid. After a failure a search cannot go on.
 */
rv_status rv_ivf_start(rv_ivf *ivf, const rv_ivf_rule *rule, const rv_ivf_scorer *scorer,
                       float spread, const float *distances, uint32_t lists, rv_error *err);

/* Lists in which answers to similar queries were found: their excess counts half. Call between
 * start and the first next. Numbers out of range are skipped, repetitions count once. */
void rv_ivf_prefer(rv_ivf *ivf, const uint32_t *lists, uint32_t count);

/* The next row. Within a window distances never fall. RV_ERR_NOTFOUND: every list was visited and
 * everything handed out. A hard bound never ends a window that has nothing to hand out. */
rv_status rv_ivf_next(rv_ivf *ivf, rv_ivf_result *result, rv_error *err);

/* True when rv_ivf_next need not visit a list. */
bool rv_ivf_ready(const rv_ivf *ivf);

/* Changes the rule for the windows that follow; adaptive must stay what it was. */
rv_status rv_ivf_set_rule(rv_ivf *ivf, const rv_ivf_rule *rule, rv_error *err);

/* distances include the centres and the exact ones; hops are lists; score is -1: not defined. */
rv_beam_stats rv_ivf_get_stats(const rv_ivf *ivf);

/* Rows scored so far: a row that was compared exactly as well counts once. */
uint64_t rv_ivf_rows(const rv_ivf *ivf);

/*
 * Deep trace: visits the lists in the order of a search, and finds for each true neighbour the
 * least effort. limits: k is the window, max_slack, max_ef (lists) and max_distances end the trace;
 * extra names preferred lists plus one, as the memory of queries does (0 and numbers out of range
 * are skipped). truth as in rv_beam_trace: the raw distances of the true neighbours, ascending;
 * what is no farther than the last one counts as found. efforts[i]: the least effort at which i + 1
 * of them are found: {slack} in the adaptive rule with window k; ef: the lists visited, which is
 * the least `probes`; distances: the work before the list that found it, centres included.
 * summary->nearest names lists plus one. Ends a search that was running.
 */
rv_status rv_ivf_trace(rv_ivf *ivf, const rv_trace_limits *limits, const rv_ivf_scorer *scorer,
                       float spread, const float *distances, uint32_t lists, const float *truth,
                       uint32_t truth_count, rv_effort *efforts, rv_trace_summary *summary,
                       rv_error *err);

#endif
