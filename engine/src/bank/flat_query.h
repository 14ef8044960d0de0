/*
 * flat_query.h - a query as it is compared with the codes of a flat bank.
 *
 * The query becomes a wide code (codes.h), and its inner products with the int8 codes are taken in
 * integers. They are exact, and so are the lengths of codes, so that a Euclidean distance may be
 * made of them (|q|^2 + |x|^2 - 2 <q, x>, in double precision) without losing the small ones. L1
 * has no such form: the query stays float32.
 */
#ifndef RUVECTOR_BANK_FLAT_QUERY_H
#define RUVECTOR_BANK_FLAT_QUERY_H

#include "flat.h"

#include "ruvector/codes.h"

/* Codes are read to the end of their padding, which saves the kernels their tails. */
#define FLAT_WIDE_ELEMENTS ((RV_MAX_DIMENSIONS + 63) / 64 * 64)

typedef struct flat_query {
    const flat_header *header;
    flat_layout layout;
    const float *values; /* as given */
    const float *scales;
    const uint32_t *squares;
    rv_metric space;
    float (*l1)(const float *query, const int8_t *code, float scale, uint32_t dim);
    void (*dots)(const int16_t *wide, const int8_t *codes, size_t stride, size_t count,
                 uint32_t dim, int32_t *out);
    double length;                    /* the query's */
    double wide_scale;                /* value = wide_scale x wide; COSINE: of unit length */
    double wide_squares;              /* L2: the squared length of what the wide code says */
    int16_t wide[FLAT_WIDE_ELEMENTS]; /* zero beyond dim, as the codes are */
} flat_query;

/* RV_ERR_RANGE, naming the element, unless all values are finite. */
rv_status rv_flat_query_open(flat_query *query, const flat_header *header, const float *values,
                             rv_error *err);

/* The raw distance that a product of the codes says; not under L1. */
static inline float
flat_distance_of(const flat_query *query, uint32_t node, int32_t product)
{
    double scale;

    if (query->space == RV_METRIC_COSINE)
        return 1 - (float)query->wide_scale * query->scales[node] * (float)product;
    scale = (double)query->scales[node];
    return (float)(query->wide_squares +
                   scale * (scale * query->squares[node] - 2 * query->wide_scale * product));
}

/* The raw distance to what the code of a node stands for. */
static inline float
flat_distance(const flat_query *query, uint32_t node)
{
    const int8_t *code = flat_code(query->header, &query->layout, node);
    size_t stride = query->layout.code_stride;
    int32_t product;

    if (query->space == RV_METRIC_L1)
        return query->l1(query->values, code, query->scales[node], query->header->dim);
    query->dots(query->wide, code, stride, 1, (uint32_t)stride, &product);
    return flat_distance_of(query, node, product);
}

/* Ranks some regions by their true distances to the query. */
void rv_flat_rank(const flat_query *query, const uint32_t *regions, uint32_t count,
                  bank_ranking *ranking);

/*
 * Ranks the nearest ranking->k regions of a bank without a graph, by their true distances: exact.
 * Returns how many distances that took, those to codes included.
 */
uint32_t rv_flat_scan(const flat_query *query, bank_ranking *ranking);

#endif
