/*
 * distance.c - raw distances, batches, norms and the metric forms, on the active kernels.
 */
#include "kernels.h"

#include <math.h>

/* The active kernel that a metric reads, and how its value becomes a raw distance. */
typedef float (*float_kernel)(const float *a, const float *b, uint32_t dim);

static float_kernel
kernel_of(const rv_kernels *kernels, rv_metric metric, bool unit)
{
    switch (metric) {
        case RV_METRIC_IP:
            return kernels->inner_product;
        case RV_METRIC_COSINE:
            return unit ? kernels->inner_product : kernels->cosine;
        case RV_METRIC_L1:
            return kernels->l1;
        default:
            return kernels->l2_squared;
    }
}

static inline float
raw_of(rv_metric metric, float value)
{
    if (metric == RV_METRIC_IP)
        return -value;
    if (metric == RV_METRIC_COSINE) {
        /* Unit vectors are so to within rounding; their product may pass 1 by as much. */
        float raw = 1.0f - value;
        return raw < 0.0f ? 0.0f : raw > 2.0f ? 2.0f : raw;
    }
    return value;
}

float
rv_raw_distance(rv_metric metric, const float *a, const float *b, uint32_t dim)
{
    return raw_of(metric, kernel_of(rv_kernels_active(), metric, false)(a, b, dim));
}

float
rv_raw_distance_unit(rv_metric metric, const float *a, const float *b, uint32_t dim)
{
    return raw_of(metric, kernel_of(rv_kernels_active(), metric, true)(a, b, dim));
}

#define CACHE_LINE 64
/* How far ahead to ask for memory. Enough requests to cover a memory access of about 100 ns, few
 * enough that they do not queue behind each other; of a long row the processor's own prefetcher
 * fetches the rest once the first lines have shown the direction. */
#define PREFETCH_BYTES_AHEAD 2048
#define PREFETCH_BYTES_PER_ROW 512
#define PREFETCH_ROWS_MAX 8

static inline void
prefetch_row(const float *row, size_t bytes)
{
    const char *start = (const char *)row;

    for (size_t at = 0; at < bytes; at += CACHE_LINE)
        __builtin_prefetch(start + at, 0, 3);
}

void
rv_raw_distance_batch(rv_metric metric, bool unit, const float *query, const float *const *rows,
                      size_t count, uint32_t dim, float *out)
{
    float_kernel kernel = kernel_of(rv_kernels_active(), metric, unit);
    size_t row_bytes = (size_t)dim * sizeof(float);
    size_t bytes = row_bytes < PREFETCH_BYTES_PER_ROW ? row_bytes : PREFETCH_BYTES_PER_ROW;
    size_t ahead = PREFETCH_BYTES_AHEAD / (bytes > 0 ? bytes : 1);

    if (ahead > PREFETCH_ROWS_MAX)
        ahead = PREFETCH_ROWS_MAX;
    for (size_t i = 0; i < count && i < ahead; i++)
        prefetch_row(rows[i], bytes);
    for (size_t i = 0; i < count; i++) {
        if (i + ahead < count)
            prefetch_row(rows[i + ahead], bytes);
        out[i] = raw_of(metric, kernel(query, rows[i], dim));
    }
}

typedef void (*tile_kernel)(const float *const *queries, const float *const *rows, uint32_t dim,
                            float *out);

/* NULL: none. */
static tile_kernel
tile_kernel_of(const rv_kernels *kernels, rv_metric metric, bool unit)
{
    switch (metric) {
        case RV_METRIC_IP:
            return kernels->inner_product_tile;
        case RV_METRIC_COSINE:
            return unit ? kernels->inner_product_tile : NULL;
        case RV_METRIC_L1:
            return kernels->l1_tile;
        default:
            return kernels->l2_squared_tile;
    }
}

void
rv_raw_distance_block(rv_metric metric, bool unit, const float *queries, size_t query_count,
                      const float *const *rows, size_t count, uint32_t dim, float *out)
{
    float_kernel pair = kernel_of(rv_kernels_active(), metric, unit);
    tile_kernel tile = tile_kernel_of(rv_kernels_active(), metric, unit);
    size_t tiled_queries = tile == NULL ? 0 : query_count - query_count % RV_TILE_QUERIES;
    size_t tiled_rows = count - count % RV_TILE_ROWS;

    for (size_t i = 0; i < tiled_queries; i += RV_TILE_QUERIES) {
        const float *of_tile[RV_TILE_QUERIES] = {queries + i * dim, queries + (i + 1) * dim};

        for (size_t j = 0; j < tiled_rows; j += RV_TILE_ROWS) {
            float values[RV_TILE_QUERIES * RV_TILE_ROWS];

            tile(of_tile, rows + j, dim, values);
            for (size_t at = 0; at < RV_TILE_QUERIES * RV_TILE_ROWS; at++)
                out[(i + at / RV_TILE_ROWS) * count + j + at % RV_TILE_ROWS] =
                    raw_of(metric, values[at]);
        }
    }
    for (size_t i = 0; i < query_count; i++)
        for (size_t j = i < tiled_queries ? tiled_rows : 0; j < count; j++)
            out[i * count + j] = raw_of(metric, pair(queries + i * dim, rows[j], dim));
}

/* The Euclidean norm in double precision, sound over the whole range of float32. */
static double
norm_double(const float *a, uint32_t dim)
{
    float squared = rv_kernels_active()->inner_product(a, a, dim);
    double sum = 0.0;

    if (squared > 1e-30f && squared < 1e30f)
        return sqrt((double)squared);
    for (uint32_t i = 0; i < dim; i++)
        sum += (double)a[i] * (double)a[i];
    return sqrt(sum);
}

float
rv_norm(const float *a, uint32_t dim)
{
    return (float)norm_double(a, dim);
}

float
rv_normalize(const float *a, float *out, uint32_t dim)
{
    double norm = norm_double(a, dim);
    double scale = norm > 0.0 ? 1.0 / norm : 0.0;

    for (uint32_t i = 0; i < dim; i++)
        out[i] = (float)((double)a[i] * scale);
    return (float)norm;
}

float
rv_cosine_double(const float *a, const float *b, uint32_t dim)
{
    double dot = 0.0, aa = 0.0, bb = 0.0, similarity;

    for (uint32_t i = 0; i < dim; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    if (aa == 0.0 || bb == 0.0)
        return 0.0f;
    similarity = dot / (sqrt(aa) * sqrt(bb));
    return similarity > 1.0 ? 1.0f : similarity < -1.0 ? -1.0f : (float)similarity;
}

double
rv_distance_from_raw(rv_metric metric, double raw)
{
    return metric == RV_METRIC_L2 ? sqrt(raw > 0.0 ? raw : 0.0) : raw;
}

rv_metric_map
rv_metric_map_make(rv_metric metric, float max_norm, float query_norm)
{
    rv_metric_map map = {metric, 0.0f, 1.0f};

    if (metric == RV_METRIC_COSINE)
        map.b = 2.0f;
    if (metric == RV_METRIC_IP) {
        float a = 2.0f * max_norm * max_norm;
        float b = 2.0f * max_norm / query_norm;
        bool usable = max_norm > 0.0f && query_norm > 0.0f && isfinite(a) && isfinite(b);
        map.a = usable ? a : 1.0f;
        map.b = usable ? b : 0.0f;
    }
    return map;
}

double
rv_metric_map_apply(const rv_metric_map *map, double raw)
{
    double squared;

    if (map->metric == RV_METRIC_L1)
        return raw > 0.0 ? raw : 0.0;
    squared = (double)map->a + (double)map->b * raw;
    return squared > 0.0 ? sqrt(squared) : 0.0;
}

const char *
rv_metric_name(rv_metric metric)
{
    switch (metric) {
        case RV_METRIC_L2:
            return "l2";
        case RV_METRIC_IP:
            return "inner_product";
        case RV_METRIC_COSINE:
            return "cosine";
        case RV_METRIC_L1:
            return "l1";
    }
    return "unknown";
}
