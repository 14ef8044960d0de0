/*
 * sieve.c - bounds of distances by codes, so that an exact search reads few vectors.
 *
 * Directions are coded in 16 bits (rv_wide_encode): q / |q| times W = RV_WIDE_LENGTH is w + f with
 * |f| <= sqrt(dim) / 2, and so for a row r. The product D of two codes is an exact integer, and by
 * Cauchy and Schwarz the cosine of q and r is D / W^2, to within
 *
 *     (|f| + |g|) / W + |f| |g| / W^2 <= sqrt(dim) / W + dim / (4 W^2)
 *
 * (f and g of q and r), which bounds the three distances that are made of inner products from
 * below. Multiples of gamma add what single precision may make of a distance, and of the lengths
 * and sums here, with room to spare: no pair is dropped whose computed distance would have been
 * good enough, so the search stays exact to the bit.
 *
 * What lies outside of the range where squares are sound passes always.
 */
#include "sieve.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "../base/internal.h"
#include "ruvector/codes.h"

#define LEAST_SQUARES 1e-20
#define MOST_SQUARES 1e20

static const double wide = RV_WIDE_LENGTH;

rv_status
rv_sieve_open(rv_sieve *sieve, const rv_allocator *allocator, rv_metric metric, bool unit,
              const float *queries, uint32_t count, uint32_t dim, rv_error *err)
{
    size_t padded = (dim + RV_WIDE_STEP - 1) / RV_WIDE_STEP * RV_WIDE_STEP;
    size_t tiled = (count + RV_TILE_QUERIES - 1) / RV_TILE_QUERIES * RV_TILE_QUERIES;

    memset(sieve, 0, sizeof *sieve);
    sieve->allocator = allocator;
    sieve->metric = metric;
    sieve->unit = unit;
    sieve->dim = dim;
    sieve->padded = (uint32_t)padded;
    sieve->gamma = (dim + 32) * (double)FLT_EPSILON;
    sieve->code_error = sqrt((double)dim) / wide + dim / (4.0 * wide * wide);
    sieve->query_codes = rv_alloc_array_zero(allocator, tiled * padded, sizeof(int16_t));
    sieve->lengths = rv_alloc_array(allocator, count, sizeof *sieve->lengths);
    sieve->row_codes = rv_alloc_array_zero(allocator, RV_EXACT_BLOCK * padded, sizeof(int16_t));
    if (sieve->query_codes == NULL || sieve->lengths == NULL || sieve->row_codes == NULL) {
        rv_sieve_close(sieve);
        return rv_fail_nomem(err, tiled * padded * sizeof(int16_t));
    }
    for (uint32_t i = 0; i < count; i++)
        sieve->lengths[i] =
            rv_wide_encode(queries + (size_t)i * dim, sieve->query_codes + i * padded, dim);
    return RV_OK;
}

void
rv_sieve_close(rv_sieve *sieve)
{
    rv_free(sieve->allocator, sieve->query_codes);
    rv_free(sieve->allocator, sieve->lengths);
    rv_free(sieve->allocator, sieve->row_codes);
    memset(sieve, 0, sizeof *sieve);
}

static bool
is_sound(double length)
{
    return length * length > LEAST_SQUARES && length * length < MOST_SQUARES;
}

static void
fill_row(rv_sieve *sieve, const float *row, uint32_t at)
{
    double length = rv_wide_encode(row, sieve->row_codes + (size_t)at * sieve->padded, sieve->dim);
    double bound = sieve->code_error + 4.0 * sieve->gamma;
    bool direction = sieve->metric == RV_METRIC_COSINE && !sieve->unit;

    sieve->factor[at] = sieve->square[at] = 0.0f;
    sieve->base[at] = INFINITY;
    if (!is_sound(length))
        return;
    sieve->factor[at] = (float)((direction ? 1.0 : length) / (wide * wide));
    sieve->base[at] = (float)((direction ? 1.0 : length) * bound);
    if (sieve->metric == RV_METRIC_L2)
        sieve->square[at] = (float)(length * length * (1.0 - 8.0 * sieve->gamma));
}

void
rv_sieve_fill(rv_sieve *sieve, const float *const *rows, uint32_t count)
{
    sieve->rows = count;
    for (uint32_t i = 0; i < count; i++)
        fill_row(sieve, rows[i], i);
    for (uint32_t i = count; i < RV_EXACT_BLOCK; i++) {
        sieve->factor[i] = sieve->square[i] = 0.0f;
        sieve->base[i] = -INFINITY;
    }
}

void
rv_sieve_multiply(const rv_sieve *sieve, uint32_t query, int32_t *products)
{
    const rv_kernels *kernels = rv_kernels_active();
    const int16_t *queries[RV_TILE_QUERIES];

    for (uint32_t i = 0; i < RV_TILE_QUERIES; i++)
        queries[i] = sieve->query_codes + (size_t)(query + i) * sieve->padded;
    /* The last tile may reach beyond the rows of the block: what is there is of an earlier one. */
    for (uint32_t row = 0; row < sieve->rows; row += RV_TILE_ROWS) {
        const int16_t *rows[RV_TILE_ROWS];
        int32_t tile[RV_TILE_QUERIES * RV_TILE_ROWS];

        for (uint32_t j = 0; j < RV_TILE_ROWS; j++)
            rows[j] = sieve->row_codes + (size_t)(row + j) * sieve->padded;
        kernels->dot_wides_tile(queries, rows, sieve->padded, tile);
        for (uint32_t i = 0; i < RV_TILE_QUERIES; i++)
            memcpy(products + i * RV_EXACT_BLOCK + row, tile + i * RV_TILE_ROWS,
                   RV_TILE_ROWS * sizeof *tile);
    }
}

/* What a row needs to have to be as near as worst; -INFINITY: nothing can be said. */
static float
needed_for(const rv_sieve *sieve, double length, double worst)
{
    bool cosine = sieve->metric == RV_METRIC_COSINE;
    double nearest = cosine ? 1.0 : 0.0;
    double needed;

    if (!is_sound(length) || !isfinite(worst))
        return -INFINITY;
    if (sieve->metric == RV_METRIC_L2)
        needed = (length * length * (1.0 - 8.0 * sieve->gamma) - worst) / (2.0 * length);
    else
        needed = (nearest - worst) / (cosine && !sieve->unit ? 1.0 : length);
    /* The rounding of the sums in rv_sieve_pass(), and of the distance's own last step. */
    return (float)(needed - 8.0 * (double)FLT_EPSILON * (fabs(needed) + nearest));
}

uint32_t
rv_sieve_pass(const rv_sieve *sieve, uint32_t query, const int32_t *products, float worst,
              uint32_t *passed)
{
    double length = sieve->lengths[query];
    float needed = needed_for(sieve, length, (double)worst);
    float half = is_sound(length) ? (float)(0.5 / length) : 0.0f;
    float most[RV_EXACT_BLOCK];
    int32_t kept = 0;
    uint32_t count = 0;

    /* Whole blocks, without a branch: nearly always none is kept. */
    for (uint32_t i = 0; i < RV_EXACT_BLOCK; i++)
        most[i] = sieve->factor[i] * (float)products[i] + sieve->base[i] - sieve->square[i] * half;
    for (uint32_t i = 0; i < RV_EXACT_BLOCK; i++)
        kept += most[i] < needed ? 0 : 1;
    if (kept == 0)
        return 0;
    for (uint32_t i = 0; i < sieve->rows; i++) {
        passed[count] = i;
        count += !(most[i] < needed);
    }
    return count;
}
