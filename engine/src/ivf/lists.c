/*
 * lists.c - how many lists, and which list a row belongs to.
 *
 * The default follows what IVF indexes are usually given: a thousand rows in a list while that
 * keeps the number of lists below a thousand, then as many lists as rows in a list, which balances
 * the search for lists with the search in them.
 */
#include "ruvector/ivf.h"

#include <math.h>

#define ROWS_PER_LIST 1000.0
#define MANY_ROWS 1000000.0
#define SAMPLE_PER_LIST 50
#define LEAST_SAMPLE 10000

uint32_t
rv_ivf_default_lists(double rows)
{
    double lists;

    if (!(rows > ROWS_PER_LIST))
        return 1;
    lists = rows <= MANY_ROWS ? rows / ROWS_PER_LIST : sqrt(rows);
    return lists < RV_IVF_MAX_LISTS ? (uint32_t)lists : RV_IVF_MAX_LISTS;
}

uint32_t
rv_ivf_sample_rows(uint32_t lists)
{
    uint32_t wanted = lists * SAMPLE_PER_LIST;

    return wanted > LEAST_SAMPLE ? wanted : LEAST_SAMPLE;
}

size_t
rv_ivf_kmeans_bytes(uint32_t lists, uint32_t rows, uint32_t dim)
{
    size_t row = (size_t)dim * sizeof(float);

    /* The sample, three numbers for each of its rows, centres, and their sums, sizes and seeds. */
    return (size_t)rows * (row + 12) + (size_t)lists * (3 * row + 17 * sizeof(size_t));
}

rv_metric
rv_ivf_cluster_metric(rv_metric metric)
{
    return metric == RV_METRIC_IP ? RV_METRIC_COSINE : metric;
}

void
rv_ivf_nearest(rv_metric metric, const float *row, uint32_t dim, const void *centres, size_t stride,
               uint32_t count, uint32_t base, uint32_t *nearest, float *distance)
{
    const rv_kernels *kernels = rv_kernels_active();
    bool spherical = metric == RV_METRIC_IP || metric == RV_METRIC_COSINE;

    for (uint32_t i = 0; i < count; i++) {
        const void *place = (const char *)centres + i * stride;
        const float *centre = place;
        float value = spherical                ? -kernels->inner_product(row, centre, dim)
                      : metric == RV_METRIC_L1 ? kernels->l1(row, centre, dim)
                                               : kernels->l2_squared(row, centre, dim);

        if (value < *distance) {
            *distance = value;
            *nearest = base + i;
        }
    }
}
