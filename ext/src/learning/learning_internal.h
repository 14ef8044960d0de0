/*
 * learning_internal.h - what the files of the learning engine share with each other.
 */
#ifndef RUVECTOR_LEARNING_INTERNAL_H
#define RUVECTOR_LEARNING_INTERNAL_H

#include "ruvector.h"
#include "learning.h"

/* The last search of this backend, for ruvector_last_search(). */
typedef struct RuvLastSearch {
    bool valid;
    uint64 query_id[2];
    Oid index_oid;
    RuvChoice choice;
    rv_beam_stats stats;
    double latency_us;
    uint32 pages;
    uint32 k;
} RuvLastSearch;

extern const RuvLastSearch *ruv_last_search(void);

#endif
