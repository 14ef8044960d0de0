/*
 * kmeans.c - Lloyd's k-means from a k-means++ start (Arthur and Vassilvitskii, 2007).
 *
 * COSINE and IP are spherical k-means: every row counts as its direction, so a row's distance to a
 * centre of unit length is 1 - dot / |row|, and a centre is the scaled sum of its rows'
 * directions. Rows are not copied: one number per row, 1 / |row|, does the scaling.
 *
 * An empty cluster takes the row that is farthest from its centre, out of a cluster that keeps
 * another row. That happens in every iteration, and again at the end, because the last move of the
 * centres may empty a cluster too; only rows that repeat leave nothing to take. On return
 * assignment, inertia and centroids belong together.
 *
 * Order is fixed everywhere (rows by number, ties to the lower centre), sums are in double
 * precision and the generator is seeded: equal input gives equal output at one SIMD level.
 */
#include "ruvector/kmeans.h"
#include "../base/internal.h"

#include <math.h>
#include <string.h>

#define CANCEL_ROWS 4096
/* Rows for each cluster that the first centres are drawn from: the start takes a pass over them for
 * each centre, and more of them do not make it better. */
#define SEED_ROWS 16
/* Rounds of refilling clusters at the end; each lowers the inertia, and one is the rule. */
#define SETTLE_ROUNDS 16

typedef struct kmeans {
    const rv_allocator *allocator;
    const rv_kmeans_options *options;
    const rv_kernels *kernels;
    bool spherical;
    uint32_t dim;
    uint32_t clusters;
    const float *vectors;
    size_t count;
    float *centroids;     /* the caller's */
    uint32_t *assignment; /* the caller's, or own_assignment */
    uint32_t *own_assignment;
    float *distance;     /* of each row to its centre, raw; while seeding, of each seed row */
    float *inverse_norm; /* 1 / |row|, 0 for a row without a direction; spherical only */
    double *sums;        /* clusters x dim */
    size_t *sizes;       /* rows of each cluster */
    size_t *seed_rows;   /* that the first centres are drawn from */
    size_t seed_count;
    rv_prng rng;
} kmeans;

static const float *
row_at(const kmeans *km, size_t row)
{
    return km->vectors + row * km->dim;
}

static float *
centre_at(const kmeans *km, uint32_t cluster)
{
    return km->centroids + (size_t)cluster * km->dim;
}

static rv_status
check_options(const rv_kmeans_options *options, size_t count, rv_error *err)
{
    if (options->metric < RV_METRIC_L2 || options->metric > RV_METRIC_L1)
        return rv_fail(err, RV_ERR_INVALID, "%d is not a metric", (int)options->metric);
    if (options->dim < 1 || options->dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_DIMENSION, "rows of %u dimensions: 1 to %d are supported",
                       options->dim, RV_MAX_DIMENSIONS);
    if (count == 0)
        return rv_fail(err, RV_ERR_INVALID, "k-means needs at least one row");
    if (options->clusters < 1)
        return rv_fail(err, RV_ERR_RANGE, "clusters is 0: at least one is needed");
    if (options->max_iterations < 1)
        return rv_fail(err, RV_ERR_RANGE, "max_iterations is 0: at least one is needed");
    if (!(options->tolerance >= 0.0))
        return rv_fail(err, RV_ERR_RANGE, "tolerance is %g: it must not be negative",
                       options->tolerance);
    return RV_OK;
}

static void
release(kmeans *km)
{
    rv_free(km->allocator, km->own_assignment);
    rv_free(km->allocator, km->distance);
    rv_free(km->allocator, km->inverse_norm);
    rv_free(km->allocator, km->sums);
    rv_free(km->allocator, km->sizes);
    rv_free(km->allocator, km->seed_rows);
}

/* On failure what was allocated is left to release(). */
static rv_status
allocate(kmeans *km, rv_error *err)
{
    const rv_allocator *allocator = km->allocator;
    size_t clusters = km->clusters;

    km->distance = rv_alloc_array(allocator, km->count, sizeof(*km->distance));
    km->sums = rv_alloc_array(allocator, clusters * km->dim, sizeof(*km->sums));
    km->sizes = rv_alloc_array(allocator, clusters, sizeof(*km->sizes));
    km->seed_rows = rv_alloc_array(allocator, km->seed_count, sizeof(*km->seed_rows));
    if (km->distance == NULL || km->sums == NULL || km->sizes == NULL || km->seed_rows == NULL)
        goto nomem;
    if (km->spherical) {
        km->inverse_norm = rv_alloc_array(allocator, km->count, sizeof(*km->inverse_norm));
        if (km->inverse_norm == NULL)
            goto nomem;
    }
    if (km->assignment == NULL) {
        km->own_assignment = rv_alloc_array(allocator, km->count, sizeof(*km->own_assignment));
        km->assignment = km->own_assignment;
        if (km->assignment == NULL)
            goto nomem;
    }
    return RV_OK;

nomem:
    return rv_fail(err, RV_ERR_NOMEM, "out of memory: k-means of %zu rows into %u clusters",
                   km->count, km->clusters);
}

/* Polled before the work on row number row. */
static bool
is_cancelled(const kmeans *km, size_t row)
{
    const rv_kmeans_options *options = km->options;
    return row % CANCEL_ROWS == 0 && options->cancelled != NULL &&
           options->cancelled(options->cancelled_ctx);
}

static rv_status
fail_cancelled(rv_error *err)
{
    return rv_fail(err, RV_ERR_CANCELLED, "k-means was cancelled");
}

/* Refuses values that no distance can be taken of, and measures the rows if they are directions. */
static rv_status
inspect_rows(kmeans *km, rv_error *err)
{
    for (size_t row = 0; row < km->count; row++) {
        const float *values = row_at(km, row);
        if (is_cancelled(km, row))
            return fail_cancelled(err);
        for (uint32_t i = 0; i < km->dim; i++) {
            if (!isfinite(values[i]))
                return rv_fail(err, RV_ERR_RANGE,
                               "element %u of row %zu is %g: rows must be finite", i, row,
                               (double)values[i]);
        }
        if (km->spherical) {
            float inverse = 1.0f / rv_norm(values, km->dim);
            km->inverse_norm[row] = isfinite(inverse) ? inverse : 0.0f;
        }
    }
    return RV_OK;
}

/* The raw distance that minus the inner product stands for; others as they are. */
static float
raw_distance(const kmeans *km, size_t row, float distance)
{
    float raw;

    if (!km->spherical)
        return distance;
    if (km->inverse_norm[row] == 0.0f)
        return 1.0f;
    raw = 1.0f + distance * km->inverse_norm[row];
    return raw < 0.0f ? 0.0f : raw > 2.0f ? 2.0f : raw;
}

static float
distance_to(const kmeans *km, size_t row, const float *centre)
{
    const float *values = row_at(km, row);

    if (km->spherical)
        return raw_distance(km, row, -km->kernels->inner_product(values, centre, km->dim));
    return km->options->metric == RV_METRIC_L1 ? km->kernels->l1(values, centre, km->dim)
                                               : km->kernels->l2_squared(values, centre, km->dim);
}

static void
move_centre_to_row(kmeans *km, uint32_t cluster, size_t row)
{
    float *centre = centre_at(km, cluster);

    if (km->spherical)
        rv_normalize(row_at(km, row), centre, km->dim);
    else
        memcpy(centre, row_at(km, row), km->dim * sizeof(*centre));
}

/* Chooses the rows that the first centres are drawn from: one at random out of every so many. */
static void
choose_seed_rows(kmeans *km)
{
    for (size_t i = 0; i < km->seed_count; i++) {
        size_t first = i * km->count / km->seed_count;
        size_t end = (i + 1) * km->count / km->seed_count;

        km->seed_rows[i] = first + (size_t)rv_prng_below(&km->rng, end - first);
    }
}

/* A row drawn with probability proportional to its distance from the centres so far; any row when
 * all of them sit on centres. */
static size_t
draw_row(kmeans *km)
{
    double total = 0.0, wanted, sum = 0.0;
    size_t last = 0;

    for (size_t i = 0; i < km->seed_count; i++)
        total += (double)km->distance[i];
    if (!(total > 0.0 && total < INFINITY))
        return (size_t)rv_prng_below(&km->rng, km->count);
    wanted = rv_prng_uniform(&km->rng) * total;
    for (size_t i = 0; i < km->seed_count; i++) {
        if (km->distance[i] > 0.0f) {
            sum += (double)km->distance[i];
            last = i;
            if (sum > wanted)
                break;
        }
    }
    return km->seed_rows[last];
}

/* k-means++: the first centre is any row, each next one a row drawn by its raw distance. */
static rv_status
seed_centres(kmeans *km, rv_error *err)
{
    choose_seed_rows(km);
    for (uint32_t cluster = 0; cluster < km->clusters; cluster++) {
        size_t chosen = cluster == 0 ? (size_t)rv_prng_below(&km->rng, km->count) : draw_row(km);

        move_centre_to_row(km, cluster, chosen);
        for (size_t i = 0; i < km->seed_count; i++) {
            float distance;

            if (is_cancelled(km, i))
                return fail_cancelled(err);
            distance = distance_to(km, km->seed_rows[i], centre_at(km, cluster));
            if (cluster == 0 || distance < km->distance[i])
                km->distance[i] = distance;
        }
    }
    return RV_OK;
}

static rv_status
assign_rows(kmeans *km, rv_error *err)
{
    memset(km->sizes, 0, km->clusters * sizeof(*km->sizes));
    for (size_t start = 0; start < km->count; start += CANCEL_ROWS) {
        size_t count = km->count - start < CANCEL_ROWS ? km->count - start : CANCEL_ROWS;

        if (is_cancelled(km, start))
            return fail_cancelled(err);
        rv_nearest_centres(km->options->metric, row_at(km, start), count, km->centroids,
                           km->clusters, km->dim, km->assignment + start, km->distance + start);
        for (size_t row = start; row < start + count; row++) {
            km->distance[row] = raw_distance(km, row, km->distance[row]);
            km->sizes[km->assignment[row]]++;
        }
    }
    return RV_OK;
}

/* Gives each empty cluster the row farthest from its centre. Returns how many were filled. */
static uint32_t
fill_empty_clusters(kmeans *km)
{
    uint32_t filled = 0;

    for (uint32_t cluster = 0; cluster < km->clusters; cluster++) {
        size_t farthest = km->count;

        if (km->sizes[cluster] > 0)
            continue;
        for (size_t row = 0; row < km->count; row++) {
            if (km->sizes[km->assignment[row]] > 1 && km->distance[row] > 0.0f &&
                (farthest == km->count || km->distance[row] > km->distance[farthest]))
                farthest = row;
        }
        if (farthest == km->count)
            break; /* what is left to take repeats a centre */
        km->sizes[km->assignment[farthest]]--;
        km->sizes[cluster] = 1;
        km->assignment[farthest] = cluster;
        km->distance[farthest] = 0.0f;
        move_centre_to_row(km, cluster, farthest);
        filled++;
    }
    return filled;
}

static void
sum_rows(kmeans *km)
{
    memset(km->sums, 0, (size_t)km->clusters * km->dim * sizeof(*km->sums));
    for (size_t row = 0; row < km->count; row++) {
        const float *values = row_at(km, row);
        double *sum = km->sums + (size_t)km->assignment[row] * km->dim;
        double scale = km->spherical ? (double)km->inverse_norm[row] : 1.0;

        for (uint32_t i = 0; i < km->dim; i++)
            sum[i] += scale * (double)values[i];
    }
}

/* What a cluster's sum is multiplied by to become its centre; 0 leaves the centre where it is: an
 * empty cluster, or directions that cancel out. */
static double
centre_scale(const kmeans *km, uint32_t cluster)
{
    const double *sum = km->sums + (size_t)cluster * km->dim;
    double squared = 0.0;

    if (!km->spherical)
        return km->sizes[cluster] > 0 ? 1.0 / (double)km->sizes[cluster] : 0.0;
    for (uint32_t i = 0; i < km->dim; i++)
        squared += sum[i] * sum[i];
    return squared > 1e-24 ? 1.0 / sqrt(squared) : 0.0;
}

/* Moves every centre to the mean of its rows. Returns the mean squared move of the centres. */
static double
update_centres(kmeans *km)
{
    double total = 0.0;

    sum_rows(km);
    for (uint32_t cluster = 0; cluster < km->clusters; cluster++) {
        const double *sum = km->sums + (size_t)cluster * km->dim;
        float *centre = centre_at(km, cluster);
        double scale = centre_scale(km, cluster);

        for (uint32_t i = 0; scale > 0.0 && i < km->dim; i++) {
            float next = (float)(sum[i] * scale);
            double move = (double)next - (double)centre[i];
            total += move * move;
            centre[i] = next;
        }
    }
    return total / km->clusters;
}

/* Assigns the rows to the final centres and leaves no cluster empty that need not be. */
static rv_status
settle(kmeans *km, rv_error *err)
{
    for (int round = 0; round < SETTLE_ROUNDS; round++) {
        rv_status status = assign_rows(km, err);
        if (status != RV_OK)
            return status;
        if (fill_empty_clusters(km) == 0)
            break;
    }
    return RV_OK;
}

static rv_status
iterate(kmeans *km, uint32_t *iterations, rv_error *err)
{
    bool settled = false;
    rv_status status = seed_centres(km, err);

    *iterations = 0;
    while (status == RV_OK && *iterations < km->options->max_iterations) {
        uint32_t filled;
        double move;

        status = assign_rows(km, err);
        if (status != RV_OK)
            break;
        (*iterations)++;
        filled = fill_empty_clusters(km);
        move = update_centres(km);
        /* Centres that did not move at all still fit the assignment. */
        settled = filled == 0 && move == 0.0;
        if (filled == 0 && move <= km->options->tolerance)
            break;
    }
    return status == RV_OK && !settled ? settle(km, err) : status;
}

rv_status
rv_kmeans(const rv_allocator *allocator, const rv_kmeans_options *options, const float *vectors,
          size_t count, float *centroids, uint32_t *assignment, rv_kmeans_result *result,
          rv_error *err)
{
    kmeans km = {.allocator = allocator,
                 .options = options,
                 .kernels = rv_kernels_active(),
                 .vectors = vectors,
                 .count = count,
                 .centroids = centroids,
                 .assignment = assignment};
    uint32_t iterations;
    rv_status status = check_options(options, count, err);

    if (status != RV_OK)
        return status;
    km.spherical = options->metric == RV_METRIC_COSINE || options->metric == RV_METRIC_IP;
    km.dim = options->dim;
    km.clusters = options->clusters < count ? options->clusters : (uint32_t)count;
    km.seed_count = count / SEED_ROWS < km.clusters ? count : (size_t)km.clusters * SEED_ROWS;
    rv_prng_seed(&km.rng, options->seed);

    status = allocate(&km, err);
    if (status == RV_OK)
        status = inspect_rows(&km, err);
    if (status == RV_OK)
        status = iterate(&km, &iterations, err);
    if (status == RV_OK && result != NULL) {
        *result = (rv_kmeans_result){.clusters = km.clusters, .iterations = iterations};
        for (size_t row = 0; row < count; row++)
            result->inertia += (double)km.distance[row];
    }
    release(&km);
    return status;
}
