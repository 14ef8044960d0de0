/*
 * state.h - a search over lists: what search.c and trace.c share.
 *
 * Where a scored row is
 *   front  the nearest of those that wait: a heap (farthest on top) while lists are scanned,
 *          ascending from front_at on while a window is handed out. No item of the pool is before
 *          one of the front
 *   pool   the others, in no order
 *   ready  compared exactly and not yet handed out; nearest on top
 */
#ifndef RUVECTOR_IVF_STATE_H
#define RUVECTOR_IVF_STATE_H

#include "order.h"

struct rv_ivf {
    const rv_allocator *allocator;
    rv_ivf_source source;
    rv_ivf_rule rule;

    rv_ivf_list *lists; /* a heap of those that were not visited */
    size_t list_count;
    size_t list_capacity;

    rv_ivf_array front;
    size_t front_at;
    size_t front_limit;
    rv_ivf_array pool;
    rv_ivf_array ready;

    bool open;       /* a window is being handed out */
    uint32_t window; /* adaptive: rows of the present or next window */
    float slack;     /* adaptive: of it */
    uint32_t handed; /* rows of this window handed out */

    bool tracing;
    float bound;           /* of a trace: what is no farther is a true neighbour */
    rv_ivf_array suspects; /* rows of the list just scanned whose key is within the bound */

    rv_beam_stats stats;
    uint64_t rows; /* scored */
};

/* Visits the first of the lists that are left; there is one. */
rv_status rv_ivf_visit_list(rv_ivf *ivf, rv_error *err);

#endif
