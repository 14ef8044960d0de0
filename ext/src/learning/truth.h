/*
 * truth.h - what searches should have found.
 */
#ifndef RUVECTOR_LEARNING_TRUTH_H
#define RUVECTOR_LEARNING_TRUTH_H

#include "learning/worker.h"

typedef struct RuvTruth {
    float *distances; /* raw, count x width, ascending in each row */
    uint64 *ids;      /* likewise: heap positions, or nodes when they come from a search */
    uint32 *found;    /* per search */
    uint32 width;
    bool exact;
} RuvTruth;

/* Finds the true neighbours of a batch, in the caller's memory context and snapshot, as the table's
 * owner. False: somebody waits for a lock, nothing is known. */
extern bool ruv_find_truth(RuvTruth *truth, RuvIndexState *state, Relation table, Relation index,
                           RuvSample **batch, int count);
/* The k nearest by a search that stands for the truth where no pass is affordable; raw distances,
 * nearest first. Returns how many. */
extern int ruv_reference_search(Relation index, const float *query, int k, rv_hit *hits);
/* Processor time that a pass over the table takes, about. */
extern double ruv_pass_seconds(Relation table, int dim, int queries);
/* True when somebody waits for a lock on one of them that conflicts with a weak one. Breathes
 * (worker.c). */
extern bool ruv_somebody_waits(Relation table, Relation index);
/* Rows of a table as far as is known, at least 1. */
extern double ruv_table_rows(Relation table);

/* Whether a raw distance is that of a true neighbour, whose last one is at `last`: ties count, and
 * kernels differ by rounding. */
extern bool ruv_reaches(float distance, float last);

#endif
