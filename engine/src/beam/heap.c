/*
 * heap.c - growth and late ordering of the beam's arrays; heap.h has the design.
 */
#include "heap.h"

#include <string.h>

#include "../base/internal.h"

#define MIN_CAPACITY 64

/* A larger copy of an array of count elements; NULL without memory or when sizes overflow. */
static void *
larger_copy(const rv_allocator *allocator, void *items, size_t count, size_t element_size,
            size_t *capacity, size_t extra, rv_error *err)
{
    size_t wanted = *capacity < MIN_CAPACITY ? MIN_CAPACITY : *capacity * 2;
    void *copy;

    if (extra > SIZE_MAX / 4 || wanted > SIZE_MAX / 4) {
        rv_fail_nomem(err, SIZE_MAX);
        return NULL;
    }
    if (wanted < count + extra)
        wanted = count + extra;
    copy = rv_alloc_array(allocator, wanted, element_size);
    if (copy == NULL) {
        rv_fail_nomem(err, wanted * element_size);
        return NULL;
    }
    if (count > 0)
        memcpy(copy, items, count * element_size);
    rv_free(allocator, items);
    *capacity = wanted;
    return copy;
}

rv_status
rv_entry_list_grow(const rv_allocator *allocator, rv_entry_list *list, size_t extra, rv_error *err)
{
    rv_neighbour *items = larger_copy(allocator, list->items, list->count, sizeof *items,
                                      &list->capacity, extra, err);

    if (items == NULL)
        return RV_ERR_NOMEM;
    list->items = items;
    return RV_OK;
}

rv_status
rv_float_list_grow(const rv_allocator *allocator, rv_float_list *list, size_t extra, rv_error *err)
{
    float *items = larger_copy(allocator, list->items, list->count, sizeof *items, &list->capacity,
                               extra, err);

    if (items == NULL)
        return RV_ERR_NOMEM;
    list->items = items;
    return RV_OK;
}

/* Few new elements are sifted up one by one; many are worth building the heap anew. */
void
rv_entry_heap_order(rv_entry_list *list)
{
    if (list->count - list->ordered < list->count / 4) {
        for (size_t i = list->ordered; i < list->count; i++)
            rv_entry_sift_up(list->items, i, list->items[i]);
    } else if (list->ordered < list->count) {
        for (size_t i = list->count / 2; i-- > 0;)
            rv_entry_sift_down(list->items, list->count, i, list->items[i]);
    }
    list->ordered = list->count;
}

void
rv_float_heap_order(rv_float_list *list)
{
    if (list->count - list->ordered < list->count / 4) {
        for (size_t i = list->ordered; i < list->count; i++)
            rv_float_sift_up(list->items, i, list->items[i]);
    } else if (list->ordered < list->count) {
        for (size_t i = list->count / 2; i-- > 0;)
            rv_float_sift_down(list->items, list->count, i, list->items[i]);
    }
    list->ordered = list->count;
}
