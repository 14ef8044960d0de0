/*
 * index_rows.h - every row that an index holds, read from its table.
 */
#ifndef RUVECTOR_INDEX_ROWS_H
#define RUVECTOR_INDEX_ROWS_H

#include "index_api.h"

/* vector: as the index compares it, valid during the call. */
typedef void (*ruv_each_row)(void *ctx, const float *vector, ItemPointer tid);

/*
 * Calls each for every row that the active snapshot sees and the index would hold: predicate and
 * expressions are honoured, rows that are not indexed (null, a zero vector under cosine) are left
 * out. They are the owner's code, so the caller acts as the owner (as_owner.h). Checks for
 * interrupts.
 */
extern void ruv_index_rows(Relation table, Relation index, const RuvIndexIdentity *identity,
                           ruv_each_row each, void *ctx);

#endif
