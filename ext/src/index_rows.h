/*
 * index_rows.h - every row that an index holds, read from its table; and the nearest of them.
 */
#ifndef RUVECTOR_INDEX_ROWS_H
#define RUVECTOR_INDEX_ROWS_H

#include "index_api.h"

/* vector: as the index compares it; tid: where the index has the row. Both valid during the call.
 */
typedef void (*ruv_each_row)(void *ctx, const float *vector, ItemPointer tid);

/* Asked now and then during a pass; false ends it. */
typedef bool (*ruv_may_go_on)(void *ctx);

/* A row's place in the table as a number. */
static inline uint64
ruv_row_id(ItemPointer tid)
{
    return ((uint64)ItemPointerGetBlockNumber(tid) << 16) | ItemPointerGetOffsetNumber(tid);
}

/*
 * Calls each for every row that the active snapshot sees and the index would hold: predicate and
 * expressions are honoured, rows that are not indexed (null, a zero vector under cosine) are left
 * out. They are the owner's code, so the caller acts as the owner (as_owner.h). Checks for
 * interrupts. go_on: may be NULL. False: it ended the pass.
 */
extern bool ruv_index_rows(Relation table, Relation index, const RuvIndexIdentity *identity,
                           ruv_each_row each, ruv_may_go_on go_on, void *ctx);

/*
 * Compares count queries (row after row, as the index compares them) with every such row, in one
 * pass; hits carry ruv_row_id. width: results per query. NULL: go_on, which gets ctx, ended the
 * pass. Read with rv_exact_result, free with rv_exact_destroy; it lives in the caller's context.
 */
extern rv_exact *ruv_exact_pass(Relation table, Relation index, const RuvIndexIdentity *identity,
                                const float *queries, int count, uint32 width, ruv_may_go_on go_on,
                                void *ctx);

#endif
