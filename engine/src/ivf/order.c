/*
 * order.c - heaps and selection over candidates and lists.
 *
 * A search scores thousands of rows and hands out tens of them, so nothing is sorted before it is
 * asked for: the nearest few live in a heap while lists are scanned, and the rest is only divided
 * (quickselect, which keeps to a median of three and to Hoare's two-sided scan).
 */
#include "order.h"
#include "../base/internal.h"

#include <string.h>

rv_status
rv_ivf_array_reserve(const rv_allocator *allocator, rv_ivf_array *array, size_t extra,
                     rv_error *err)
{
    size_t capacity = array->capacity > 0 ? array->capacity : 256;
    rv_ivf_candidate *items;

    if (array->capacity - array->count >= extra)
        return RV_OK;
    while (capacity - array->count < extra)
        capacity *= 2;
    items = rv_alloc_array(allocator, capacity, sizeof(*items));
    if (items == NULL)
        return rv_fail_nomem(err, capacity * sizeof(*items));
    if (array->count > 0)
        memcpy(items, array->items, array->count * sizeof(*items));
    rv_free(allocator, array->items);
    array->items = items;
    array->capacity = capacity;
    return RV_OK;
}

/* Puts item into the hole at `at` of a far heap of count items, or below it. */
static void
sift_far(rv_ivf_candidate *items, size_t count, size_t at, rv_ivf_candidate item)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count && rv_ivf_before(&items[child], &items[child + 1]))
            child++;
        if (!rv_ivf_before(&item, &items[child]))
            break;
        items[at] = items[child];
        at = child;
    }
    items[at] = item;
}

void
rv_ivf_heap_make(rv_ivf_array *heap)
{
    for (size_t at = heap->count / 2; at-- > 0;)
        sift_far(heap->items, heap->count, at, heap->items[at]);
}

void
rv_ivf_heap_push(rv_ivf_array *heap, rv_ivf_candidate item)
{
    size_t at = heap->count++;

    while (at > 0) {
        size_t parent = (at - 1) / 2;

        if (!rv_ivf_before(&heap->items[parent], &item))
            break;
        heap->items[at] = heap->items[parent];
        at = parent;
    }
    heap->items[at] = item;
}

void
rv_ivf_heap_replace_top(rv_ivf_array *heap, rv_ivf_candidate item)
{
    sift_far(heap->items, heap->count, 0, item);
}

void
rv_ivf_heap_sort(rv_ivf_array *heap)
{
    for (size_t last = heap->count; last-- > 1;) {
        rv_ivf_candidate top = heap->items[0];

        sift_far(heap->items, last, 0, heap->items[last]);
        heap->items[last] = top;
    }
}

void
rv_ivf_near_push(rv_ivf_array *heap, rv_ivf_candidate item)
{
    size_t at = heap->count++;

    while (at > 0) {
        size_t parent = (at - 1) / 2;

        if (!rv_ivf_before(&item, &heap->items[parent]))
            break;
        heap->items[at] = heap->items[parent];
        at = parent;
    }
    heap->items[at] = item;
}

rv_ivf_candidate
rv_ivf_near_pop(rv_ivf_array *heap)
{
    rv_ivf_candidate *items = heap->items;
    rv_ivf_candidate top = items[0];
    size_t count = --heap->count;
    rv_ivf_candidate last = items[count];
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count && rv_ivf_before(&items[child + 1], &items[child]))
            child++;
        if (!rv_ivf_before(&items[child], &last))
            break;
        items[at] = items[child];
        at = child;
    }
    if (count > 0)
        items[at] = last;
    return top;
}

static void
swap(rv_ivf_candidate *a, rv_ivf_candidate *b)
{
    rv_ivf_candidate item = *a;

    *a = *b;
    *b = item;
}

/* The median of the first, the middle and the last item, moved to the front: a pivot that also
 * stops both scans of a partition. */
static rv_ivf_candidate
pivot_of(rv_ivf_candidate *items, size_t count)
{
    rv_ivf_candidate *middle = &items[count / 2];
    rv_ivf_candidate *last = &items[count - 1];

    if (rv_ivf_before(last, middle))
        swap(last, middle);
    if (rv_ivf_before(middle, items))
        swap(middle, items);
    if (rv_ivf_before(last, middle))
        swap(last, middle);
    swap(items, middle);
    return items[0];
}

void
rv_ivf_select(rv_ivf_candidate *items, size_t count, size_t want)
{
    while (want > 0 && want < count) {
        rv_ivf_candidate pivot = pivot_of(items, count);
        size_t low = 0;
        size_t high = count;

        for (;;) {
            do
                low++;
            while (low < count && rv_ivf_before(&items[low], &pivot));
            do
                high--;
            while (rv_ivf_before(&pivot, &items[high]));
            if (low >= high)
                break;
            swap(&items[low], &items[high]);
        }
        /* Everything before high is not after the pivot, everything behind it not before. */
        swap(&items[0], &items[high]);
        if (want == high || want == high + 1)
            return;
        if (want < high) {
            count = high;
        } else {
            items += high + 1;
            count -= high + 1;
            want -= high + 1;
        }
    }
}

static bool
nearer(rv_ivf_list a, rv_ivf_list b)
{
    return a.excess < b.excess || (a.excess == b.excess && a.list < b.list);
}

static void
sift_list(rv_ivf_list *heap, size_t count, size_t at, rv_ivf_list item)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count && nearer(heap[child + 1], heap[child]))
            child++;
        if (!nearer(heap[child], item))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
}

void
rv_ivf_lists_make(rv_ivf_list *heap, size_t count)
{
    for (size_t at = count / 2; at-- > 0;)
        sift_list(heap, count, at, heap[at]);
}

rv_ivf_list
rv_ivf_lists_pop(rv_ivf_list *heap, size_t *count)
{
    rv_ivf_list top = heap[0];

    (*count)--;
    if (*count > 0)
        sift_list(heap, *count, 0, heap[*count]);
    return top;
}
