/*
 * shmem.c - the learning engine's shared memory: what is there, and who may touch it how.
 *
 * Everything is in one block that is sized at server start, because what must be reachable from
 * every backend without a lock cannot move or grow:
 *
 *   RuvShared                 control words, policy counters, registry of indexes, databases
 *   rings                     one per database that may learn (ruvector.max_learning_databases), of
 *                             ruvector.trajectory_buffer_size cells each; laid out at first use, so
 *                             that an unused ring costs address space only
 *   bank area                 ruvector.bank_memory; a dynamic shared area created in place and held
 *                             to its first segment, so that a bank is found by its offset and a
 *                             reader needs no mapping of its own
 *   readers                   a word per backend: what it reads of the bank area (publish.c)
 *   policies                  the texts that serve in the whole cluster (policy_share.c), in room
 *                             for as many and as large files as a directory may have; likewise
 *                             address space until it is used
 *
 * One ring per database, and not one for all: the worker that reads a ring can see the tables of
 * its own database only, and a busy database must not push out what another has not read yet.
 *
 * Locks
 *   what                                  written by                  protected by
 *   databases[], indexes[], plain fields  workers, functions, hooks   lock, exclusive
 *   bank, bank_size, ..._left_out         the database's worker       lock, exclusive
 *   bank_at, bank_sequence                the database's worker       atomic; epochs (publish.c)
 *   readers                               each backend its own        atomic; epochs (publish.c)
 *   the bytes of a bank                   the worker until they are   nobody else knows them
 *                                           published, then none
 *   retired_banks                         workers, sessions that      lock, exclusive
 *                                           forget
 *   registry_generation                   whoever makes the change,   atomic; read without lock
 *                                           after it
 *   policy_generation, policy_state, ..., whoever loads for the       policy_lock, exclusive; the
 *     the texts of policies                 cluster                     generation is read without
 *   bank_revision, links_resets           sessions, afterwards        atomic
 *   live figures of a slot, counters      workers, backends           atomic
 *   ring                                  every backend; read by the  lock-free (ring.h)
 *                                           database's worker
 *   worker_changed                        workers                     its own spinlock
 *
 * A search in the steady state reads two generations and a bank where it lies, and takes no lock.
 * Nothing raises an error while holding it, except through LWLockReleaseAll at abort.
 */
#include "learning/learning_internal.h"

#include "miscadmin.h"
#include "postmaster/autovacuum.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define RUV_TRANCHE "ruvector"
#define RUV_SHARED_ALIGN 128

StaticAssertDecl(sizeof(RuvPolicyCounters) == PG_CACHE_LINE_SIZE,
                 "counters of two policies must not share a cache line");

RuvShared *ruv_shared = NULL;

static shmem_startup_hook_type previous_startup_hook = NULL;
#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type previous_request_hook = NULL;
#endif

static Size
control_bytes(void)
{
    Size size = offsetof(RuvShared, databases);

    size = add_size(size, mul_size(sizeof(RuvDatabaseSlot), ruv_max_learning_databases));
    return TYPEALIGN(RUV_SHARED_ALIGN, size);
}

static Size
ring_bytes(void)
{
    return TYPEALIGN(RUV_SHARED_ALIGN, rv_ring_size((uint32_t)ruv_trajectory_buffer_size));
}

static Size
bank_bytes(void)
{
    return TYPEALIGN(RUV_SHARED_ALIGN,
                     Max((Size)ruv_bank_memory * 1024, dsa_minimum_size() + RUV_SHARED_ALIGN));
}

Size
ruv_shared_bytes(void)
{
    Size size = add_size(control_bytes(), bank_bytes());

    size = add_size(size, mul_size(sizeof(RuvReader), (Size)ruv_backend_limit()));
    size = add_size(size, rv_host_export_limit());
    return add_size(size, mul_size(ring_bytes(), ruv_max_learning_databases));
}

rv_ring *
ruv_shared_ring(int database_slot)
{
    char *rings = (char *)ruv_shared + control_bytes();

    Assert(database_slot >= 0 && database_slot < ruv_shared->database_count);
    return (rv_ring *)(rings + ruv_shared->ring_bytes * (Size)database_slot);
}

char *
ruv_shared_bank_area(void)
{
    return (char *)ruv_shared + control_bytes() +
           ruv_shared->ring_bytes * (Size)ruv_shared->database_count;
}

RuvReader *
ruv_shared_readers(void)
{
    return (RuvReader *)(ruv_shared_bank_area() + ruv_shared->bank_bytes);
}

char *
ruv_shared_policy_block(void)
{
    return (char *)(ruv_shared_readers() + ruv_shared->reader_count);
}

static void
request_shared_memory(void)
{
#if PG_VERSION_NUM >= 150000
    if (previous_request_hook)
        previous_request_hook();
#endif
    RequestAddinShmemSpace(ruv_shared_bytes());
    RequestNamedLWLockTranche(RUV_TRANCHE, 2);
}

static void
create_bank_area(void)
{
    dsa_area *area;

    area = dsa_create_in_place(ruv_shared_bank_area(), ruv_shared->bank_bytes,
                               ruv_shared->lock->tranche, NULL);
    dsa_pin(area);
    /* Never beyond what is in place: readers find banks by offset. */
    dsa_set_size_limit(area, ruv_shared->bank_bytes);
    dsa_detach(area);
}

static void
init_policy_counters(RuvPolicyCounters *counters)
{
    pg_atomic_init_u64(&counters->key, 0);
    pg_atomic_init_u64(&counters->calls, 0);
    pg_atomic_init_u64(&counters->total_ns, 0);
    pg_atomic_init_u64(&counters->worst_ns, 0);
    pg_atomic_init_u64(&counters->logged, 0);
    for (int cause = 0; cause < RV_HOST_CAUSES; cause++)
        pg_atomic_init_u64(&counters->failures[cause], 0);
}

static void
initialise_shared_memory(void)
{
    memset(ruv_shared, 0, control_bytes());
    ruv_shared->lock = &GetNamedLWLockTranche(RUV_TRANCHE)[0].lock;
    ruv_shared->policy_lock = &GetNamedLWLockTranche(RUV_TRANCHE)[1].lock;
    ruv_shared->policy_state = RUV_POLICIES_NONE;
    ruv_shared->database_count = ruv_max_learning_databases;
    ruv_shared->ring_bytes = ring_bytes();
    ruv_shared->bank_bytes = bank_bytes();
    ruv_shared->reader_count = ruv_backend_limit();
    pg_atomic_init_u64(&ruv_shared->bank_sequence, 1);
    ruv_shared->retired_banks = InvalidDsaPointer;
    for (int i = 0; i < ruv_shared->reader_count; i++)
        pg_atomic_init_u64(&ruv_shared_readers()[i].since, 0);
    if (!pg_strong_random(&ruv_shared->boot_id, sizeof(ruv_shared->boot_id)))
        ruv_shared->boot_id = (uint64)GetCurrentTimestamp();
    ConditionVariableInit(&ruv_shared->worker_changed);
    pg_atomic_init_u64(&ruv_shared->sessions, 0);
    pg_atomic_init_u64(&ruv_shared->registry_generation, 1);
    pg_atomic_init_u64(&ruv_shared->policy_generation, 1);
    pg_atomic_init_u64(&ruv_shared->load_failure, 0);
    for (int i = 0; i < RV_POLICY_KINDS; i++)
        init_policy_counters(&ruv_shared->policies[i]);
    for (int i = 0; i < RUV_NAMED_POLICIES; i++)
        init_policy_counters(&ruv_shared->named_policies[i]);
    for (int i = 0; i < RUV_MAX_INDEXES; i++) {
        pg_atomic_init_u64(&ruv_shared->indexes[i].bank_at, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].guard, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].bank_revision, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].links_resets, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].trajectories, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].waiting, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].undistilled, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].learning_us, 0);
        pg_atomic_init_u64(&ruv_shared->indexes[i].failures, 0);
        ruv_costs_init(&ruv_shared->indexes[i]);
    }
    create_bank_area();
}

static void
startup_shared_memory(void)
{
    bool found;

    if (previous_startup_hook)
        previous_startup_hook();
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    ruv_shared = ShmemInitStruct("ruvector", ruv_shared_bytes(), &found);
    if (!found)
        initialise_shared_memory();
    LWLockRelease(AddinShmemInitLock);
}

void
ruv_learning_init(void)
{
#if PG_VERSION_NUM >= 150000
    previous_request_hook = shmem_request_hook;
    shmem_request_hook = request_shared_memory;
#else
    request_shared_memory();
#endif
    previous_startup_hook = shmem_startup_hook;
    shmem_startup_hook = startup_shared_memory;
    ruv_hooks_init();
    ruv_rows_asked_init();
    ruv_launcher_register();
}

void
ruv_require_preload(void)
{
    if (ruv_shared != NULL)
        return;
    ereport(ERROR,
            (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
             errmsg("learning needs ruvector to be loaded at server start"),
             errdetail("Searches are recorded in shared memory, which is reserved at start only. "
                       "The type and the indexes work without it."),
             errhint("Add the line\n    shared_preload_libraries = 'ruvector'\nto postgresql.conf "
                     "(append it to what is there, separated by a comma), then restart the "
                     "server.")));
}
