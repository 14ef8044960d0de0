/*
 * base.c - status names, error messages and the two allocators.
 *
 * Every allocation of the engine passes through rv_alloc or its kin here, which is what lets the
 * specs fail each one in turn (rv_test_allocator).
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *
rv_status_name(rv_status status)
{
    switch (status) {
        case RV_OK:
            return "ok";
        case RV_ERR_NOMEM:
            return "out of memory";
        case RV_ERR_INVALID:
            return "invalid argument";
        case RV_ERR_DIMENSION:
            return "dimension";
        case RV_ERR_RANGE:
            return "out of range";
        case RV_ERR_FORMAT:
            return "format";
        case RV_ERR_VERSION:
            return "version";
        case RV_ERR_FULL:
            return "full";
        case RV_ERR_NOTFOUND:
            return "not found";
        case RV_ERR_CANCELLED:
            return "cancelled";
        case RV_ERR_CORRUPT:
            return "corrupt";
        case RV_ERR_STATE:
            return "state";
    }
    return "unknown";
}

rv_status
rv_fail(rv_error *err, rv_status status, const char *fmt, ...)
{
    if (err != NULL) {
        va_list args;
        err->status = status;
        va_start(args, fmt);
        vsnprintf(err->message, sizeof(err->message), fmt, args);
        va_end(args);
    }
    return status;
}

rv_status
rv_fail_nomem(rv_error *err, size_t size)
{
    return rv_fail(err, RV_ERR_NOMEM, "out of memory: an allocation of %zu bytes failed", size);
}

void *
rv_alloc(const rv_allocator *allocator, size_t size)
{
    return allocator->alloc(allocator->ctx, size > 0 ? size : 1);
}

void *
rv_alloc_zero(const rv_allocator *allocator, size_t size)
{
    void *block = rv_alloc(allocator, size);
    if (block != NULL)
        memset(block, 0, size);
    return block;
}

void *
rv_alloc_array(const rv_allocator *allocator, size_t count, size_t element_size)
{
    if (element_size != 0 && count > SIZE_MAX / element_size)
        return NULL;
    return rv_alloc(allocator, count * element_size);
}

void *
rv_alloc_array_zero(const rv_allocator *allocator, size_t count, size_t element_size)
{
    if (element_size != 0 && count > SIZE_MAX / element_size)
        return NULL;
    return rv_alloc_zero(allocator, count * element_size);
}

void
rv_free(const rv_allocator *allocator, void *pointer)
{
    if (pointer != NULL)
        allocator->free(allocator->ctx, pointer);
}

static void *
malloc_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return malloc(size);
}

static void
malloc_free(void *ctx, void *pointer)
{
    (void)ctx;
    free(pointer);
}

const rv_allocator *
rv_malloc_allocator(void)
{
    static const rv_allocator allocator = {malloc_alloc, malloc_free, NULL};
    return &allocator;
}

static void *
test_alloc(void *ctx, size_t size)
{
    rv_test_allocator *a = ctx;
    void *block;

    a->calls++;
    if (a->calls == a->fail_at)
        return NULL;
    block = malloc(size);
    if (block != NULL) {
        /* Fresh memory is never zero by luck: code that relies on it fails in the specs. */
        memset(block, 0xA5, size);
        a->live++;
    }
    return block;
}

static void
test_free(void *ctx, void *pointer)
{
    rv_test_allocator *a = ctx;
    a->live--;
    free(pointer);
}

void
rv_test_allocator_init(rv_test_allocator *a, uint64_t fail_at)
{
    a->allocator.alloc = test_alloc;
    a->allocator.free = test_free;
    a->allocator.ctx = a;
    a->calls = 0;
    a->fail_at = fail_at;
    a->live = 0;
}
