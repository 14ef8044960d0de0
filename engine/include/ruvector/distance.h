/*
 * distance.h - distances between float32 vectors, and between a float32 query and stored codes.
 *
 * Every kernel exists once as source and is compiled once per instruction-set level; one table is
 * chosen when the library is loaded (cpuid, or RUVECTOR_SIMD=scalar|avx2|avx512|neon; a name that
 * is unknown or cannot run here is ignored). Inputs need no alignment. Levels differ from each
 * other by rounding only.
 *
 * "Raw" distances are what a search compares: cheap, and ordered like the real distance.
 *   L2      squared Euclidean distance
 *   IP      minus the inner product
 *   COSINE  1 - cosine similarity (0 to 2); 1 when either vector is zero
 *   L1      sum of absolute differences
 */
#ifndef RUVECTOR_DISTANCE_H
#define RUVECTOR_DISTANCE_H

#include "ruvector/base.h"

typedef enum rv_metric {
    RV_METRIC_L2 = 1,
    RV_METRIC_IP = 2,
    RV_METRIC_COSINE = 3,
    RV_METRIC_L1 = 4
} rv_metric;

/* "l2", "inner_product", "cosine" or "l1"; "unknown" for any other number. */
const char *rv_metric_name(rv_metric metric);

typedef enum rv_simd_level {
    RV_SIMD_SCALAR = 0,
    RV_SIMD_AVX2 = 1,   /* with FMA and F16C */
    RV_SIMD_AVX512 = 2, /* F, BW, DQ, VL */
    RV_SIMD_NEON = 3
} rv_simd_level;

/* Pairs that a tile kernel computes together: each of so many queries with each of so many rows. */
#define RV_TILE_QUERIES 2
#define RV_TILE_ROWS 4

/* The lengths of wide codes in tiles are multiples of it: no level takes more elements at a step.
 */
#define RV_WIDE_STEP 32

/* dim is the number of elements; 0 is allowed and gives 0. */
typedef struct rv_kernels {
    rv_simd_level level;
    const char *name;
    float (*l2_squared)(const float *a, const float *b, uint32_t dim);
    float (*inner_product)(const float *a, const float *b, uint32_t dim);
    float (*l1)(const float *a, const float *b, uint32_t dim);
    /* Cosine similarity in [-1, 1]; 0 when either vector is zero. */
    float (*cosine)(const float *a, const float *b, uint32_t dim);
    /* A tile: out[i * RV_TILE_ROWS + j] is the kernel of queries[i] and rows[j], to the bit what
     * the kernel of one pair gives: it adds the same terms in the same order. */
    void (*l2_squared_tile)(const float *const *queries, const float *const *rows, uint32_t dim,
                            float *out);
    void (*inner_product_tile)(const float *const *queries, const float *const *rows, uint32_t dim,
                               float *out);
    void (*l1_tile)(const float *const *queries, const float *const *rows, uint32_t dim,
                    float *out);
    /* IEEE half precision rows; the query stays float32. */
    float (*l2_squared_half)(const float *a, const uint16_t *b, uint32_t dim);
    float (*inner_product_half)(const float *a, const uint16_t *b, uint32_t dim);
    float (*l1_half)(const float *a, const uint16_t *b, uint32_t dim);
    /* int8 rows, value = scale * code (see codes.h). */
    float (*l2_squared_int8)(const float *a, const int8_t *b, float scale, uint32_t dim);
    float (*inner_product_int8)(const float *a, const int8_t *b, float scale, uint32_t dim);
    float (*l1_int8)(const float *a, const int8_t *b, float scale, uint32_t dim);
    /* The inner products of a wide code (codes.h) and count int8 codes, which begin stride bytes
     * apart: exact as long as the wide one is no longer than 32767 (1 + 1/100). dim is at most
     * RV_MAX_DIMENSIONS. */
    void (*dot_codes)(const int16_t *wide, const int8_t *codes, size_t stride, size_t count,
                      uint32_t dim, int32_t *out);
    /* A tile of wide codes: out[i * RV_TILE_ROWS + j] is the inner product of queries[i] and
     * rows[j], exact under the same condition for both. dim is a multiple of RV_WIDE_STEP; who
     * has fewer elements fills up with zeros. */
    void (*dot_wides_tile)(const int16_t *const *queries, const int16_t *const *rows, uint32_t dim,
                           int32_t *out);
    /* float32 <-> half, count elements, round to nearest even; overflow becomes infinity. */
    void (*to_half)(const float *in, uint16_t *out, size_t count);
    void (*from_half)(const uint16_t *in, float *out, size_t count);
    /* factor * in, rounded to nearest even and held within int16; factor * in must be finite and
     * within int32. */
    void (*to_wide)(const float *in, float factor, int16_t *out, size_t count);
    /* A vector in fixed point, of 2 or 3 planes beside the high one (see codes.h). */
    void (*from_fixed)(const int8_t *high, const int8_t *rest, uint32_t planes, float scale,
                       float *out, uint32_t dim);
} rv_kernels;

/* The table chosen for this process; never NULL; the same pointer for the life of the process. */
const rv_kernels *rv_kernels_active(void);

/* The table of one level, or NULL when this build or this machine cannot run it. NEON is emulated,
 * slowly, where it is not native. */
const rv_kernels *rv_kernels_for(rv_simd_level level);

/* Raw distance under a metric. For COSINE over vectors known to have unit length prefer
 * rv_raw_distance_unit, which skips the norms. */
float rv_raw_distance(rv_metric metric, const float *a, const float *b, uint32_t dim);
float rv_raw_distance_unit(rv_metric metric, const float *a, const float *b, uint32_t dim);

/*
 * Raw distances of one query to many vectors: out[i] = raw(query, rows[i]). The rows lie anywhere;
 * the next ones are prefetched while one is computed. unit as in rv_raw_distance_unit.
 */
void rv_raw_distance_batch(rv_metric metric, bool unit, const float *query,
                           const float *const *rows, size_t count, uint32_t dim, float *out);

/*
 * Raw distances of many queries to many vectors that are in the cache: out[i * count + j] =
 * raw(queries + i * dim, rows[j]). A pair's distance is to the bit the same whatever it is computed
 * together with, and the same as that of rv_raw_distance, or rv_raw_distance_unit for unit: so ties
 * stay ties. Computed in tiles, which takes a half to two thirds of the time; cosine of vectors
 * that have no unit length is computed pair by pair.
 */
void rv_raw_distance_block(rv_metric metric, bool unit, const float *queries, size_t query_count,
                           const float *const *rows, size_t count, uint32_t dim, float *out);

float rv_norm(const float *a, uint32_t dim);

/* Scales to unit length into out (may be a). Returns the former norm; a zero vector stays zero. */
float rv_normalize(const float *a, float *out, uint32_t dim);

/* The user-facing distance of a raw one: sqrt for L2, the rest unchanged. */
double rv_distance_from_raw(rv_metric metric, double raw);

/*
 * The metric form of a raw distance: metric(raw) = sqrt(a + b * raw), or raw itself for L1. It
 * obeys the triangle inequality, which the slack of the stop rule needs.
 *   L2      a = 0, b = 1: the Euclidean distance
 *   COSINE  a = 0, b = 2: the chord sqrt(2 - 2 cos)
 *   IP      a = 2 M^2, b = 2 M / |q|: the Euclidean distance after every row x is lifted to
 *           (x, sqrt(M^2 - |x|^2)) and the query is scaled to length M; M is an upper bound of the
 *           rows' norms. The lift keeps the order of inner products (Bachrach et al., 2014).
 *   L1      the distance itself is a metric
 */
typedef struct rv_metric_map {
    rv_metric metric;
    float a;
    float b;
} rv_metric_map;

/* max_norm and query_norm matter for IP only; when either is 0 the map is a = 1, b = 0 (constant),
 * so a slack never stops such a search early. */
rv_metric_map rv_metric_map_make(rv_metric metric, float max_norm, float query_norm);

/* metric(raw), never negative. */
double rv_metric_map_apply(const rv_metric_map *map, double raw);

#endif
