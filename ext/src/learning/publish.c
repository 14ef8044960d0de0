/*
 * publish.c - a bank goes from the worker to every backend.
 *
 * The worker flattens into a fresh chunk of the bank area that nobody else knows, then swaps it in
 * and frees the former one under the exclusive lock. A backend that sees a new bank generation
 * copies the chunk under the shared lock and searches its own copy from then on: a reader never
 * sees half a bank, never waits for a flatten, and holds nothing while it searches. The price is
 * one copy per backend and index that searches adaptively (some 100 kB for 100 patterns of 128
 * dimensions, and 300 bytes for each remembered query).
 *
 * The flat memory and the plan travel in the bank's chunk, behind it: a slack that was calibrated
 * with remembered entry points is too small for searches without them, so none may be had alone.
 *
 * Generations come from one sequence of the cluster and never repeat, so a copy cannot be taken for
 * another index's that came to the same slot.
 *
 * Locks: see shmem.c.
 */
#include "learning/learning_internal.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* Attached at the first publication of a process; workers publish, few others free. */
static dsa_area *
bank_area(void)
{
    static dsa_area *area = NULL;

    if (area == NULL) {
        MemoryContext former = MemoryContextSwitchTo(TopMemoryContext);

        area = dsa_attach_in_place(ruv_shared_bank_area(), NULL);
        on_shmem_exit(dsa_on_shmem_exit_release_in_place, PointerGetDatum(ruv_shared_bank_area()));
        MemoryContextSwitchTo(former);
    }
    return area;
}

void
ruv_publish_prepare(void)
{
    (void)bank_area();
}

/* Puts a chunk in the place of the former one. The slot may have gone to another index meanwhile
 * (learning was disabled): the chunk is then dropped. */
static void
swap_bank(RuvIndexSlot *slot, Oid index_oid, dsa_area *area, dsa_pointer chunk, Size size,
          Size memory_size, bool has_plan)
{
    dsa_pointer unused = chunk;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    if (slot->database == MyDatabaseId && slot->index_oid == index_oid) {
        unused = slot->bank;
        slot->bank = chunk;
        slot->bank_offset = (char *)dsa_get_address(area, chunk) - ruv_shared_bank_area();
        slot->bank_size = size;
        slot->memory_size = memory_size;
        slot->has_plan = has_plan;
        pg_atomic_write_u64(&slot->bank_generation, ++ruv_shared->bank_sequence);
    }
    LWLockRelease(ruv_shared->lock);
    if (DsaPointerIsValid(unused))
        dsa_free(area, unused);
}

/* Where the memory begins in a chunk. */
static Size
memory_start(Size bank_size)
{
    return TYPEALIGN(64, bank_size);
}

/* Where the plan begins: behind bank and memory. */
static Size
plan_start(Size bank_size, Size memory_size)
{
    return TYPEALIGN(64, memory_start(bank_size) + memory_size);
}

static Size
chunk_size(Size bank_size, Size memory_size, bool has_plan)
{
    if (has_plan)
        return plan_start(bank_size, memory_size) + sizeof(rv_plan);
    return memory_size > 0 ? memory_start(bank_size) + memory_size : bank_size;
}

void
ruv_publish_bank(RuvIndexSlot *slot, Oid index_oid, rv_bank *bank, const char *memory,
                 Size memory_size, const rv_plan *plan)
{
    bool has_plan = plan != NULL;
    dsa_area *area = bank_area();
    dsa_pointer chunk;
    size_t size = 0;
    rv_status status;
    rv_error err = {0};

    status = rv_bank_flatten(bank, NULL, 0, &size, &err);
    if (status != RV_ERR_FULL)
        ruv_check(status == RV_OK ? RV_ERR_STATE : status, &err, "publishing the pattern bank");
    chunk = dsa_allocate_extended(area, chunk_size(size, memory_size, has_plan),
                                  DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
    if (!DsaPointerIsValid(chunk))
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY),
                        errmsg("the pattern bank needs %zu bytes of shared memory, more than "
                               "ruvector.bank_memory has left",
                               chunk_size(size, memory_size, has_plan)),
                        errhint("Raise ruvector.bank_memory and restart the server.")));
    status = rv_bank_flatten(bank, dsa_get_address(area, chunk), size, &size, &err);
    if (status != RV_OK)
        dsa_free(area, chunk);
    ruv_check(status, &err, "publishing the pattern bank");
    if (memory_size > 0)
        memcpy((char *)dsa_get_address(area, chunk) + memory_start(size), memory, memory_size);
    if (has_plan)
        memcpy((char *)dsa_get_address(area, chunk) + plan_start(size, memory_size), plan,
               sizeof(*plan));
    swap_bank(slot, index_oid, area, chunk, size, memory_size, has_plan);
}

void
ruv_unpublish_locked(RuvIndexSlot *slot)
{
    if (DsaPointerIsValid(slot->bank))
        dsa_free(bank_area(), slot->bank);
    slot->bank = InvalidDsaPointer;
    slot->bank_size = 0;
    slot->memory_size = 0;
    slot->has_plan = false;
    pg_atomic_write_u64(&slot->bank_generation, 0);
}

/* Room for size bytes in the entry's copy, without an error when memory is short. */
static bool
reserve_copy(RuvIndexCache *cache, Size size)
{
    if (size <= cache->bank_capacity)
        return true;
    if (cache->bank != NULL)
        pfree(cache->bank);
    cache->bank =
        MemoryContextAllocExtended(TopMemoryContext, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
    cache->bank_capacity = cache->bank != NULL ? size : 0;
    cache->bank_generation = 0;
    return cache->bank != NULL;
}

/* Copies when the copy is large enough. Returns the size that is needed, 0 when none is published,
 * or the copy's size when it was made. */
static Size
copy_bank(RuvIndexCache *cache, bool *copied)
{
    Size size = 0;

    *copied = false;
    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    if (cache->slot->index_oid == cache->index_oid)
        size = chunk_size(cache->slot->bank_size, cache->slot->memory_size, cache->slot->has_plan);
    if (size > 0 && size <= cache->bank_capacity) {
        memcpy(cache->bank, ruv_shared_bank_area() + cache->slot->bank_offset, size);
        cache->bank_size = cache->slot->bank_size;
        cache->memory_size = cache->slot->memory_size;
        cache->has_plan = cache->slot->has_plan;
        cache->bank_generation = pg_atomic_read_u64(&cache->slot->bank_generation);
        *copied = true;
    }
    LWLockRelease(ruv_shared->lock);
    return size;
}

/* Checks a fresh copy and finds the memory in it. */
static bool
copy_is_sound(RuvIndexCache *cache)
{
    cache->memory = NULL;
    cache->plan = NULL;
    if (rv_bank_flat_check(cache->bank, cache->bank_size, NULL) != RV_OK)
        return false;
    if (cache->has_plan) {
        cache->plan =
            (const rv_plan *)(cache->bank + plan_start(cache->bank_size, cache->memory_size));
        if (rv_plan_check(cache->plan, NULL) != RV_OK)
            return false;
    }
    if (cache->memory_size == 0)
        return true;
    cache->memory = cache->bank + memory_start(cache->bank_size);
    return rv_memory_flat_check(cache->memory, cache->memory_size, NULL) == RV_OK;
}

bool
ruv_fetch_bank(RuvIndexCache *cache)
{
    uint64 generation = pg_atomic_read_u64(&cache->slot->bank_generation);
    bool copied = false;

    if (generation == 0)
        return false;
    if (cache->bank != NULL && cache->bank_generation == generation)
        return true;
    cache->bank_generation = 0;
    /* The bank may grow between the look at its size and the copy. */
    for (int attempt = 0; attempt < 3 && !copied; attempt++) {
        Size size = copy_bank(cache, &copied);

        if (size == 0 || (!copied && !reserve_copy(cache, size)))
            return false;
    }
    if (copied && !copy_is_sound(cache)) {
        cache->bank_generation = 0;
        return false;
    }
    return copied;
}
