/*
 * publish.c - a bank goes from the worker to every backend, which search it where it lies.
 *
 * The worker flattens into a fresh chunk of the bank area that nobody else knows, then puts its
 * offset into the slot: one atomic word, so a reader finds the former bank or the new one and never
 * half of either. Readers copy nothing, take no lock and wait for nobody; a bank costs its size
 * once, however many sessions search.
 *
 * Epochs keep a chunk that somebody reads. bank_sequence counts the chunks that were taken out of
 * their slot ("retired").
 *
 *   reader   writes the sequence it sees into its own word; full barrier; reads the slot's offset;
 *            searches; writes 0
 *   worker   replaces the slot's offset; counts the sequence up, and the result is the former
 *            chunk's retired_at; full barrier; looks at every reader's word. A chunk is free when
 *            each of them is 0 or at least its retired_at
 *
 * A reader whose word is at least retired_at read the sequence after the offset had been replaced,
 * so it has the new one. A reader whose word the worker did not see yet has its barrier after the
 * worker's, and finds the new offset too. Reading takes microseconds, and a chunk that is still
 * read is freed by a later look; a reader that was stopped in the middle delays that, and nothing
 * else. What a reader took lives until it lets go (ruv_release_bank) or its transaction fails.
 *
 * The flat memory and the plans travel in the bank's chunk, behind it: a slack that was calibrated
 * with remembered entry points is too small for searches without them, so none may be had alone.
 *
 * When ruvector.bank_memory is used up, the regions that were used least stay out; the index-wide
 * pattern holds without them. When the remembered queries alone do not fit, the publication is
 * refused, the former one stays, and the worker makes them fewer (remember.c).
 *
 * Locks: see shmem.c.
 */
#include "learning/learning_internal.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#define CHUNK_MAGIC 0x52564348 /* "RVCH" */

/* Of the bank area, for one index: others need room, and its own next bank. */
#define LARGEST_SHARE 0.45

/* What lies in front of a bank. */
typedef struct BankChunk {
    uint32 magic;
    Oid database;
    Oid index_oid;
    uint32 plan_count;
    uint64 bank_size;
    uint64 memory_size; /* 0: none */
    uint64 retired_at;  /* while in the list of retired chunks */
    dsa_pointer next_retired;
    char padding[16];
} BankChunk;

StaticAssertDecl(sizeof(BankChunk) == 64, "a bank begins on a cache line of its own");

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

/* Where the memory begins, from the bank's beginning. */
static Size
memory_start(Size bank_size)
{
    return TYPEALIGN(64, bank_size);
}

/* Where the plans begin: behind bank and memory. */
static Size
plan_start(Size bank_size, Size memory_size)
{
    return TYPEALIGN(64, memory_start(bank_size) + memory_size);
}

/* What is published of one index, as it goes into a chunk. */
typedef struct Contents {
    Oid index_oid;
    const char *memory;
    Size memory_size;
    const rv_plan *plans;
    int plan_count;
} Contents;

static Size
chunk_size(const Contents *contents, Size bank_size)
{
    return sizeof(BankChunk) + plan_start(bank_size, contents->memory_size) +
           contents->plan_count * sizeof(rv_plan);
}

/* ---- chunks that nobody should find any more ----------------------------------------------- */

/* The least sequence that an active reader has; the largest number when there is none. */
static uint64
oldest_reader(void)
{
    uint64 oldest = PG_UINT64_MAX;

    pg_memory_barrier();
    for (int i = 0; i < ruv_shared->reader_count; i++) {
        uint64 since = pg_atomic_read_u64(&ruv_shared_readers()[i].since);

        if (since != 0)
            oldest = Min(oldest, since);
    }
    return oldest;
}

/* Frees the retired chunks that nobody reads. */
static void
reclaim_locked(void)
{
    dsa_pointer *link = &ruv_shared->retired_banks;
    uint64 oldest;

    if (!DsaPointerIsValid(*link))
        return;
    oldest = oldest_reader();
    while (DsaPointerIsValid(*link)) {
        dsa_pointer pointer = *link;
        BankChunk *chunk = dsa_get_address(bank_area(), pointer);

        if (chunk->retired_at <= oldest) {
            *link = chunk->next_retired;
            dsa_free(bank_area(), pointer);
        } else {
            link = &chunk->next_retired;
        }
    }
}

void
ruv_publish_reclaim(void)
{
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    reclaim_locked();
    LWLockRelease(ruv_shared->lock);
}

/* The chunk is out of its slot already. */
static void
retire_locked(dsa_pointer pointer)
{
    BankChunk *chunk = dsa_get_address(bank_area(), pointer);

    chunk->retired_at = pg_atomic_add_fetch_u64(&ruv_shared->bank_sequence, 1);
    chunk->next_retired = ruv_shared->retired_banks;
    ruv_shared->retired_banks = pointer;
    reclaim_locked();
}

/* ---- publishing ---------------------------------------------------------------------------- */

/* Puts a chunk in the place of the former one. The slot may have gone to another index meanwhile
 * (learning was disabled): the chunk is then dropped. */
static void
swap_bank(RuvIndexSlot *slot, dsa_pointer pointer, uint32 left_out)
{
    BankChunk *chunk = dsa_get_address(bank_area(), pointer);
    dsa_pointer former = InvalidDsaPointer;
    bool published = false;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    if (slot->database == chunk->database && slot->index_oid == chunk->index_oid) {
        former = slot->bank;
        slot->bank = pointer;
        slot->bank_size = chunk->bank_size;
        slot->memory_size = chunk->memory_size;
        slot->patterns_left_out = left_out;
        pg_write_barrier(); /* the chunk's bytes, before its offset */
        pg_atomic_write_u64(&slot->bank_at, (uint64)((char *)chunk - ruv_shared_bank_area()));
        if (DsaPointerIsValid(former))
            retire_locked(former);
        published = true;
    }
    LWLockRelease(ruv_shared->lock);
    if (!published)
        dsa_free(bank_area(), pointer);
}

static dsa_pointer
allocate_chunk(Size size)
{
    dsa_pointer pointer =
        dsa_allocate_extended(bank_area(), size, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);

    if (DsaPointerIsValid(pointer) || !DsaPointerIsValid(ruv_shared->retired_banks))
        return pointer;
    ruv_publish_reclaim();
    return dsa_allocate_extended(bank_area(), size, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
}

/* What is wrong with what was written, if anything: readers look at nothing twice. */
static rv_status
check_chunk(const BankChunk *chunk, rv_error *err)
{
    const char *bank = (const char *)(chunk + 1);
    rv_status status = rv_bank_flat_check(bank, chunk->bank_size, err);

    if (status == RV_OK && chunk->memory_size > 0)
        status =
            rv_memory_flat_check(bank + memory_start(chunk->bank_size), chunk->memory_size, err);
    for (uint32 i = 0; status == RV_OK && i < chunk->plan_count; i++)
        status = rv_plan_check(
            (const rv_plan *)(bank + plan_start(chunk->bank_size, chunk->memory_size)) + i, err);
    return status;
}

static void
fill_chunk(BankChunk *chunk, const Contents *contents, Size bank_size)
{
    char *bank = (char *)(chunk + 1);

    memset(chunk, 0, sizeof(*chunk));
    chunk->magic = CHUNK_MAGIC;
    chunk->database = MyDatabaseId;
    chunk->index_oid = contents->index_oid;
    chunk->bank_size = bank_size;
    chunk->memory_size = contents->memory_size;
    chunk->plan_count = contents->plan_count;
    if (contents->memory_size > 0)
        memcpy(bank + memory_start(bank_size), contents->memory, contents->memory_size);
    if (contents->plan_count > 0)
        memcpy(bank + plan_start(bank_size, contents->memory_size), contents->plans,
               contents->plan_count * sizeof(rv_plan));
}

/* A chunk with this bank and contents; InvalidDsaPointer when there is no room for it. */
static dsa_pointer
write_chunk(rv_bank *bank, const Contents *contents)
{
    dsa_pointer pointer;
    BankChunk *chunk;
    size_t size = 0;
    rv_status status;
    rv_error err = {0};

    status = rv_bank_flatten(bank, NULL, 0, &size, &err);
    if (status != RV_ERR_FULL)
        ruv_check(status == RV_OK ? RV_ERR_STATE : status, &err, "publishing the pattern bank");
    if (chunk_size(contents, size) > ruv_shared->bank_bytes * LARGEST_SHARE)
        return InvalidDsaPointer;
    pointer = allocate_chunk(chunk_size(contents, size));
    if (!DsaPointerIsValid(pointer))
        return pointer;
    chunk = dsa_get_address(bank_area(), pointer);
    fill_chunk(chunk, contents, size);
    status = rv_bank_flatten(bank, chunk + 1, size, &size, &err);
    if (status == RV_OK)
        status = check_chunk(chunk, &err);
    if (status != RV_OK)
        dsa_free(bank_area(), pointer);
    ruv_check(status, &err, "publishing the pattern bank");
    return pointer;
}

/* The same with as many regions as there is room for: half of them, a quarter, ... none. *left_out
 * gets how many are not in it. */
static dsa_pointer
write_reduced(const rv_bank *bank, const Contents *contents, uint32 *left_out)
{
    MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "ruvector reduced bank",
                                                  ALLOCSET_DEFAULT_SIZES);
    uint32 regions = rv_bank_count(bank) - (rv_bank_index_pattern(bank) != NULL);
    uint32 kept = regions;
    dsa_pointer pointer = InvalidDsaPointer;
    rv_allocator allocator;
    rv_error err = {0};

    ruv_context_allocator(context, &allocator);
    while (!DsaPointerIsValid(pointer) && kept > 0) {
        rv_bank *reduced;

        kept /= 2;
        ruv_check(rv_bank_most_used(bank, &allocator, kept, &reduced, &err), &err,
                  "publishing the pattern bank");
        pointer = write_chunk(reduced, contents);
        rv_bank_destroy(reduced);
    }
    MemoryContextDelete(context);
    *left_out = regions - kept;
    return pointer;
}

static void
log_left_out(const RuvIndexSlot *slot, Oid index_oid, uint32 left_out)
{
    if (left_out > 0 && slot->patterns_left_out == 0)
        ereport(LOG,
                (errmsg("ruvector.bank_memory is used up: %u region patterns of index %u, those "
                        "used least, are not searched",
                        left_out, index_oid),
                 errhint("Raise ruvector.bank_memory and restart the server.")));
}

bool
ruv_publish_bank(RuvIndexSlot *slot, Oid index_oid, rv_bank *bank, const char *memory,
                 Size memory_size, const rv_plan *plans, int plan_count)
{
    Contents contents = {index_oid, memory, memory_size, plans, plan_count};
    uint32 left_out = 0;
    dsa_pointer pointer = write_chunk(bank, &contents);

    if (!DsaPointerIsValid(pointer))
        pointer = write_reduced(bank, &contents, &left_out);
    if (!DsaPointerIsValid(pointer))
        return false;
    log_left_out(slot, index_oid, left_out);
    swap_bank(slot, pointer, left_out);
    return true;
}

void
ruv_unpublish_locked(RuvIndexSlot *slot)
{
    dsa_pointer former = slot->bank;

    pg_atomic_write_u64(&slot->bank_at, 0);
    slot->bank = InvalidDsaPointer;
    slot->bank_size = 0;
    slot->memory_size = 0;
    slot->patterns_left_out = 0;
    slot->queries_left_out = 0;
    if (DsaPointerIsValid(former))
        retire_locked(former);
}

/* ---- reading ------------------------------------------------------------------------------- */

static RuvReader *
own_reader(void)
{
    return &ruv_shared_readers()[ruv_backend_number()];
}

static void
forget_reading(XactEvent event, void *argument)
{
    if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT)
        pg_atomic_write_u64(&own_reader()->since, 0);
}

/* From here to end_reading a chunk that is found in a slot stays. */
static void
begin_reading(void)
{
    static bool registered = false;

    if (!registered) {
        RegisterXactCallback(forget_reading, NULL);
        registered = true;
    }
    pg_atomic_write_u64(&own_reader()->since, pg_atomic_read_u64(&ruv_shared->bank_sequence));
    pg_memory_barrier();
}

static void
end_reading(void)
{
    pg_memory_barrier();
    pg_atomic_write_u64(&own_reader()->since, 0);
}

bool
ruv_fetch_bank(RuvIndexCache *cache)
{
    const BankChunk *chunk;
    uint64 at;

    if (pg_atomic_read_u64(&cache->slot->bank_at) == 0)
        return false;
    begin_reading();
    at = pg_atomic_read_u64(&cache->slot->bank_at);
    chunk = (const BankChunk *)(ruv_shared_bank_area() + at);
    /* The slot may have gone to another index since it was looked up. */
    if (at == 0 || chunk->magic != CHUNK_MAGIC || chunk->database != MyDatabaseId ||
        chunk->index_oid != cache->index_oid) {
        end_reading();
        return false;
    }
    cache->bank = (const char *)(chunk + 1);
    cache->memory = chunk->memory_size > 0 ? cache->bank + memory_start(chunk->bank_size) : NULL;
    cache->plans =
        (const rv_plan *)(cache->bank + plan_start(chunk->bank_size, chunk->memory_size));
    cache->plan_count = chunk->plan_count;
    return true;
}

void
ruv_release_bank(RuvIndexCache *cache)
{
    cache->bank = NULL;
    cache->memory = NULL;
    cache->plans = NULL;
    cache->plan_count = 0;
    end_reading();
}
