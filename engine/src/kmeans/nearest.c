/*
 * nearest.c - the nearest centre of each row, for many rows.
 *
 * Rows are compared with centres in blocks of both, so that the kernels find what they read in the
 * cache and serve several pairs at once. A row's result does not depend on the rows beside it.
 */
#include "ruvector/kmeans.h"

#include <math.h>

/* Of these a block of vectors of 128 dimensions takes 24 kB. */
#define BLOCK_ROWS 16
#define BLOCK_CENTRES 32

static void
compare_blocks(rv_metric metric, const float *rows, uint32_t count, const float *centres,
               uint32_t first, uint32_t clusters, uint32_t dim, uint32_t *nearest, float *distance)
{
    const float *block[BLOCK_CENTRES];
    float distances[BLOCK_ROWS * BLOCK_CENTRES];

    for (uint32_t i = 0; i < clusters; i++)
        block[i] = centres + (size_t)(first + i) * dim;
    rv_raw_distance_block(metric, true, rows, count, block, clusters, dim, distances);
    for (uint32_t row = 0; row < count; row++) {
        for (uint32_t i = 0; i < clusters; i++) {
            if (distances[row * clusters + i] < distance[row]) {
                distance[row] = distances[row * clusters + i];
                nearest[row] = first + i;
            }
        }
    }
}

void
rv_nearest_centres(rv_metric metric, const float *rows, size_t count, const float *centres,
                   uint32_t clusters, uint32_t dim, uint32_t *nearest, float *distance)
{
    if (metric == RV_METRIC_COSINE)
        metric = RV_METRIC_IP;
    for (size_t start = 0; start < count; start += BLOCK_ROWS) {
        uint32_t block = (uint32_t)(count - start < BLOCK_ROWS ? count - start : BLOCK_ROWS);

        for (uint32_t row = 0; row < block; row++) {
            nearest[start + row] = 0;
            distance[start + row] = INFINITY;
        }
        for (uint32_t first = 0; first < clusters; first += BLOCK_CENTRES)
            compare_blocks(metric, rows + start * dim, block, centres, first,
                           clusters - first < BLOCK_CENTRES ? clusters - first : BLOCK_CENTRES, dim,
                           nearest + start, distance + start);
    }
}
