/*
 * order.h - the arrays of a search: candidates by key, and lists by distance.
 *
 * Candidates are ordered by (key, row), so that equal distances come out in one order.
 */
#ifndef RUVECTOR_IVF_ORDER_H
#define RUVECTOR_IVF_ORDER_H

#include "ruvector/ivf.h"

typedef struct rv_ivf_array {
    rv_ivf_candidate *items;
    size_t count;
    size_t capacity;
} rv_ivf_array;

static inline bool
rv_ivf_before(const rv_ivf_candidate *a, const rv_ivf_candidate *b)
{
    return a->key < b->key || (a->key == b->key && a->row < b->row);
}

/* Makes room for extra more items; unchanged on failure. */
rv_status rv_ivf_array_reserve(const rv_allocator *allocator, rv_ivf_array *array, size_t extra,
                               rv_error *err);

/* A heap with the farthest item on top. */
void rv_ivf_heap_make(rv_ivf_array *heap);
void rv_ivf_heap_push(rv_ivf_array *heap, rv_ivf_candidate item); /* room is reserved */
void rv_ivf_heap_replace_top(rv_ivf_array *heap, rv_ivf_candidate item);

/* Turns a heap into an ascending array. */
void rv_ivf_heap_sort(rv_ivf_array *heap);

/* A heap with the nearest item on top. */
void rv_ivf_near_push(rv_ivf_array *heap, rv_ivf_candidate item); /* room is reserved */
rv_ivf_candidate rv_ivf_near_pop(rv_ivf_array *heap);

/* Reorders items so that the nearest `want` come first, in any order. */
void rv_ivf_select(rv_ivf_candidate *items, size_t count, size_t want);

typedef struct rv_ivf_list {
    float excess;
    uint32_t list;
} rv_ivf_list;

/* A heap with the nearest list on top; equal distances by number. */
void rv_ivf_lists_make(rv_ivf_list *heap, size_t count);
rv_ivf_list rv_ivf_lists_pop(rv_ivf_list *heap, size_t *count);

#endif
