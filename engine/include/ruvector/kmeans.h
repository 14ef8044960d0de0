/*
 * kmeans.h - k-means clustering with a k-means++ start.
 */
#ifndef RUVECTOR_KMEANS_H
#define RUVECTOR_KMEANS_H

#include "ruvector/base.h"
#include "ruvector/distance.h"

typedef struct rv_kmeans_options {
    rv_metric metric; /* L2, L1 (assignment by L1, centre = mean), IP and COSINE (spherical:
                         assignment by cosine, centres have unit length) */
    uint32_t dim;
    uint32_t clusters;       /* >= 1; more than count is reduced to count */
    uint32_t max_iterations; /* >= 1 */
    double tolerance;        /* stop when the mean squared move of the centres falls below */
    uint64_t seed;
    bool (*cancelled)(void *ctx); /* polled per iteration and every 4,096 rows; may be NULL */
    void *cancelled_ctx;
} rv_kmeans_options;

typedef struct rv_kmeans_result {
    uint32_t clusters; /* centres written; every one has at least one row unless rows repeat */
    uint32_t iterations;
    double inertia; /* sum of raw distances of the rows to their centres; for IP too that of
                       COSINE, by which the rows were assigned */
} rv_kmeans_result;

/*
 * vectors: count x dim, row after row. centroids: room for clusters x dim. assignment: count
 * entries, may be NULL, as may result. Empty clusters take the row farthest from its centre; a row
 * without a direction (zero) is at distance 1 from every centre of COSINE and IP. Deterministic for
 * a seed at one SIMD level. RV_ERR_RANGE names the first element that is not finite; after any
 * failure centroids and assignment hold nothing of use.
 */
rv_status rv_kmeans(const rv_allocator *allocator, const rv_kmeans_options *options,
                    const float *vectors, size_t count, float *centroids, uint32_t *assignment,
                    rv_kmeans_result *result, rv_error *err);

/*
 * The nearest of the centres (clusters x dim, at least one) for each of count rows, the first of
 * equals, and its distance: squared under L2, summed under L1. IP and COSINE go by minus the inner
 * product, centres having unit length, so that a row's own length does not matter. A row that has
 * no finite distance gets centre 0. The results are those of the one-pair kernels.
 */
void rv_nearest_centres(rv_metric metric, const float *rows, size_t count, const float *centres,
                        uint32_t clusters, uint32_t dim, uint32_t *nearest, float *distance);

#endif
