/*
 * heap.h - the arrays and binary heaps of the beam.
 *
 * Two element types: neighbours by distance, and bare distances. Both heaps keep the least on top;
 * a heap that must keep the greatest on top stores negated distances. Lists are reserved once per
 * expansion for all that it may add, so pushing never allocates or fails.
 *
 * A list may be appended to without order and be made a heap later, when it is first popped: most
 * of what a search sets aside is never looked at again. `ordered` counts the leading elements that
 * already form a heap.
 */
#ifndef RUVECTOR_BEAM_HEAP_H
#define RUVECTOR_BEAM_HEAP_H

#include "ruvector/beam.h"

typedef struct rv_entry_list {
    rv_neighbour *items;
    size_t count;
    size_t capacity;
    size_t ordered;
} rv_entry_list;

typedef struct rv_float_list {
    float *items;
    size_t count;
    size_t capacity;
    size_t ordered;
} rv_float_list;

/* Makes room for extra more elements; the list is unchanged on failure. */
rv_status rv_entry_list_grow(const rv_allocator *allocator, rv_entry_list *list, size_t extra,
                             rv_error *err);
rv_status rv_float_list_grow(const rv_allocator *allocator, rv_float_list *list, size_t extra,
                             rv_error *err);

/* Turns what was appended since into part of the heap. */
void rv_entry_heap_order(rv_entry_list *list);
void rv_float_heap_order(rv_float_list *list);

static inline rv_status
rv_entry_list_reserve(const rv_allocator *allocator, rv_entry_list *list, size_t extra,
                      rv_error *err)
{
    if (list->capacity - list->count >= extra)
        return RV_OK;
    return rv_entry_list_grow(allocator, list, extra, err);
}

static inline rv_status
rv_float_list_reserve(const rv_allocator *allocator, rv_float_list *list, size_t extra,
                      rv_error *err)
{
    if (list->capacity - list->count >= extra)
        return RV_OK;
    return rv_float_list_grow(allocator, list, extra, err);
}

static inline void
rv_entry_list_append(rv_entry_list *list, rv_neighbour entry)
{
    list->items[list->count++] = entry;
}

static inline void
rv_float_list_append(rv_float_list *list, float value)
{
    list->items[list->count++] = value;
}

static inline void
rv_entry_list_clear(rv_entry_list *list)
{
    list->count = list->ordered = 0;
}

static inline void
rv_float_list_clear(rv_float_list *list)
{
    list->count = list->ordered = 0;
}

/* Moves the element at `at` towards the top until it is in order. */
static inline void
rv_entry_sift_up(rv_neighbour *items, size_t at, rv_neighbour entry)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;

        if (items[parent].distance <= entry.distance)
            break;
        items[at] = items[parent];
        at = parent;
    }
    items[at] = entry;
}

/* Puts entry into the hole at `at` of a heap of count elements, or below it. */
static inline void
rv_entry_sift_down(rv_neighbour *items, size_t count, size_t at, rv_neighbour entry)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count)
            child += items[child + 1].distance < items[child].distance;
        if (items[child].distance >= entry.distance)
            break;
        items[at] = items[child];
        at = child;
    }
    items[at] = entry;
}

static inline void
rv_entry_heap_push(rv_entry_list *heap, rv_neighbour entry)
{
    size_t at = heap->count++;

    heap->ordered = heap->count;
    rv_entry_sift_up(heap->items, at, entry);
}

/* The last leaf nearly always belongs near the bottom: the hole goes down to a leaf first. */
static inline rv_neighbour
rv_entry_heap_pop(rv_entry_list *heap)
{
    rv_neighbour *items = heap->items;
    rv_neighbour top = items[0];
    size_t count = heap->ordered = --heap->count;
    size_t at = 0;
    size_t child = 1;

    while (child + 1 < count) {
        child += items[child + 1].distance < items[child].distance;
        items[at] = items[child];
        at = child;
        child = 2 * at + 1;
    }
    if (child < count) {
        items[at] = items[child];
        at = child;
    }
    if (count > 0)
        rv_entry_sift_up(items, at, items[count]);
    return top;
}

static inline void
rv_entry_heap_replace_top(rv_entry_list *heap, rv_neighbour entry)
{
    rv_entry_sift_down(heap->items, heap->count, 0, entry);
}

static inline void
rv_float_sift_up(float *items, size_t at, float value)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;

        if (items[parent] <= value)
            break;
        items[at] = items[parent];
        at = parent;
    }
    items[at] = value;
}

static inline void
rv_float_sift_down(float *items, size_t count, size_t at, float value)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count)
            child += items[child + 1] < items[child];
        if (items[child] >= value)
            break;
        items[at] = items[child];
        at = child;
    }
    items[at] = value;
}

static inline void
rv_float_heap_push(rv_float_list *heap, float value)
{
    size_t at = heap->count++;

    heap->ordered = heap->count;
    rv_float_sift_up(heap->items, at, value);
}

static inline float
rv_float_heap_pop(rv_float_list *heap)
{
    float top = heap->items[0];
    size_t count = heap->ordered = --heap->count;

    if (count > 0)
        rv_float_sift_down(heap->items, count, 0, heap->items[count]);
    return top;
}

static inline void
rv_float_heap_replace_top(rv_float_list *heap, float value)
{
    rv_float_sift_down(heap->items, heap->count, 0, value);
}

#endif
