/*
 * tune.h - measuring an index at several efforts, for ruvector_auto_tune().
 */
#ifndef RUVECTOR_LEARNING_TUNE_H
#define RUVECTOR_LEARNING_TUNE_H

#include "index_api.h"
#include "host/host.h"

/* The queries that are measured with, and what they should find. */
typedef struct RuvTuneQueries {
    int dim;
    int k;
    int count;
    int room;
    bool held_out;   /* rows of the table: each is left out of its own answer */
    float *vectors;  /* count x dim, as the index compares them */
    uint64 *own;     /* held out: where each row is */
    uint32 *found;   /* true neighbours, <= k */
    float *farthest; /* distance of the last of these */
} RuvTuneQueries;

typedef struct RuvTuneCurve {
    uint32 count;
    rv_tuning_point points[RV_TUNING_MAX_POINTS];
} RuvTuneCurve;

/* Room for so many queries in the current memory context. */
extern RuvTuneQueries *ruv_tune_queries(int dim, int k, int room);
extern void ruv_tune_add_query(RuvTuneQueries *queries, const float *vector);

/* The three below run the owner's code: the caller acts as the owner. */

/* Fills the room with rows of the index, drawn evenly. */
extern void ruv_tune_hold_out(RuvTuneQueries *queries, Relation table, Relation index,
                              const RuvIndexIdentity *identity);
/* Finds the true neighbours by a pass over the table. Queries without any are dropped. */
extern void ruv_tune_find_truth(RuvTuneQueries *queries, Relation table, Relation index,
                                const RuvIndexIdentity *identity);
/* Searches every query at rising efforts, until recall rises no further. */
extern void ruv_tune_measure(const RuvTuneQueries *queries, Relation index, int most_effort,
                             RuvTuneCurve *curve);

#endif
