/*
 * trajectory.h - one search as it happened: the record that travels through the ring.
 *
 * Packed form: rv_trajectory, then dim float32 of the query, padded with zeros to 8 bytes, then
 * result_count rv_hit. Native byte order; it lives in shared memory only and is never stored as
 * such.
 */
#ifndef RUVECTOR_TRAJECTORY_H
#define RUVECTOR_TRAJECTORY_H

#include "ruvector/base.h"
#include "ruvector/ring.h"

#define RV_TRAJECTORY_MAX_HITS 128

/* A returned row: id is the heap position (block << 16 | offset), node the graph node that held it,
 * distance is raw. */
typedef struct rv_hit {
    uint64_t id;
    uint64_t node;
    float distance;
    uint32_t reserved;
} rv_hit;

typedef enum rv_search_mode { RV_SEARCH_STATIC = 0, RV_SEARCH_ADAPTIVE = 1 } rv_search_mode;

typedef struct rv_trajectory {
    uint64_t query_id[2]; /* the two halves of the uuid */
    int64_t started_us;   /* microseconds since the PostgreSQL epoch */
    uint64_t index_epoch; /* changes with every rebuild of the index */
    uint32_t database_oid;
    uint32_t index_oid;
    uint32_t user_oid;
    uint32_t dim;
    uint32_t k;         /* rows the executor took */
    uint32_t mode;      /* rv_search_mode */
    uint32_t ef_search; /* static: the effort used; adaptive: the hard ef bound */
    uint32_t distances;
    uint32_t hops;         /* nodes expanded */
    uint32_t pages;        /* buffers read */
    uint32_t result_count; /* hits that follow: min(k, RV_TRAJECTORY_MAX_HITS) */
    float target_recall;
    float slack;           /* adaptive: the slack used; static: 0 */
    float latency_us;      /* time inside the index scan */
    float score;           /* the in-search score, see beam.h; < 0: not read */
    float expected_recall; /* what the optimizer promised; < 0: unknown */
    uint32_t window;       /* adaptive: rows that the effort was chosen for; static: 0 */
    uint32_t reserved;     /* 0 */
} rv_trajectory;

/* Bytes of the packed form; 0 when dim or result_count is beyond its limit. */
size_t rv_trajectory_size(uint32_t dim, uint32_t result_count);

/*
 * Pushes without an intermediate copy: head->dim floats of query, head->result_count hits (may be
 * NULL when 0). False when the ring could not take it (the ring counts it), or when head's dim is
 * not 1 to RV_MAX_DIMENSIONS or its result_count above RV_TRAJECTORY_MAX_HITS (nobody counts it).
 */
bool rv_trajectory_push(rv_ring *ring, const rv_trajectory *head, const float *query,
                        const rv_hit *hits);

/*
 * Views into a packed record, which must be aligned to 8 bytes; checks that size fits the header's
 * counts. query and hits may be NULL when not wanted. RV_ERR_FORMAT tells what does not fit.
 */
rv_status rv_trajectory_view(const void *record, size_t size, const rv_trajectory **head,
                             const float **query, const rv_hit **hits, rv_error *err);

#endif
