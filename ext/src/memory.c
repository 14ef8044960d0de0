/*
 * memory.c - the engine's allocator over a PostgreSQL memory context.
 *
 * The engine reports lack of memory as a status, so the allocator must return NULL instead of
 * raising an error; what an interrupted engine call leaves behind goes with its context.
 */
#include "ruvector.h"

#include "utils/memutils.h"

static void *
context_alloc(void *ctx, size_t size)
{
    return MemoryContextAllocExtended((MemoryContext)ctx, size,
                                      MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
}

static void
context_free(void *ctx, void *pointer)
{
    pfree(pointer);
}

void
ruv_context_allocator(MemoryContext context, rv_allocator *out)
{
    out->alloc = context_alloc;
    out->free = context_free;
    out->ctx = context;
}
