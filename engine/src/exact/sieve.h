/*
 * sieve.h - which rows of a block may be among the nearest of a query, by codes; private to this
 * directory.
 */
#ifndef RUVECTOR_EXACT_SIEVE_H
#define RUVECTOR_EXACT_SIEVE_H

#include "ruvector/exact.h"

/* Queries from which on coding a row costs less than what it spares. */
#define RV_SIEVE_LEAST 16

typedef struct rv_sieve {
    const rv_allocator *allocator;
    rv_metric metric;
    bool unit;
    uint32_t dim;
    uint32_t padded;   /* elements of a code */
    double gamma;      /* bound of the relative rounding of a distance in single precision */
    double code_error; /* bound of the error of the cosine of two directions by their codes */
    int16_t *query_codes;
    double *lengths; /* of each query */
    int16_t *row_codes;
    uint32_t rows; /* of the block */
    /* For the product D of the codes of a query and a row,
     *     factor D + base - square / (2 |query|)
     * is as much as the row can have of what makes a pair near. */
    float factor[RV_EXACT_BLOCK];
    float base[RV_EXACT_BLOCK];
    float square[RV_EXACT_BLOCK];
} rv_sieve;

/* Not for RV_METRIC_L1. Queries as in rv_exact_create. */
rv_status rv_sieve_open(rv_sieve *sieve, const rv_allocator *allocator, rv_metric metric, bool unit,
                        const float *queries, uint32_t count, uint32_t dim, rv_error *err);
void rv_sieve_close(rv_sieve *sieve);

/* The next block: up to RV_EXACT_BLOCK rows. */
void rv_sieve_fill(rv_sieve *sieve, const float *const *rows, uint32_t count);

/* The products of the codes of RV_TILE_QUERIES queries, from `query` on, and the rows of the block;
 * of queries that there are not, anything. products: RV_TILE_QUERIES rows of RV_EXACT_BLOCK. */
void rv_sieve_multiply(const rv_sieve *sieve, uint32_t query, int32_t *products);

/* Numbers of the rows of the block whose raw distance to the query may be worst or less, ascending,
 * by its products; returns how many. passed: room for RV_EXACT_BLOCK. */
uint32_t rv_sieve_pass(const rv_sieve *sieve, uint32_t query, const int32_t *products, float worst,
                       uint32_t *passed);

#endif
