/*
 * kmeans.c - in a build without clustering (WITH_ADVANCED=no): no clusters are found, so there are
 * no regions of the query space, and the calibration of the whole index serves everywhere.
 */
#include "ruvector/kmeans.h"

#include <string.h>

rv_status
rv_kmeans(const rv_allocator *allocator, const rv_kmeans_options *options, const float *vectors,
          size_t count, float *centroids, uint32_t *assignment, rv_kmeans_result *result,
          rv_error *err)
{
    (void)allocator;
    (void)options;
    (void)vectors;
    (void)centroids;
    (void)err;
    if (assignment != NULL)
        memset(assignment, 0, count * sizeof *assignment);
    if (result != NULL)
        memset(result, 0, sizeof *result);
    return RV_OK;
}
