/*
 * registry.c - which indexes learn: slots in shared memory, and each backend's view of them.
 *
 * The tables are the truth; the registry is what backends can read without a query. It is filled
 * when ruvector_enable_learning() commits, so that the very next search is recorded, and put right
 * by the worker, which reads the tables again whenever it is told to (or a relation changed).
 *
 * A backend looks an index up once and keeps the result with the registry's generation of that
 * moment, in a direct-mapped table of RUV_CACHE_ENTRIES: no allocation, no lock, no hash chain. Two
 * indexes that fall on the same entry take turns; each turn costs one look under the shared lock.
 *
 * Locks: see shmem.c.
 */
#include "learning/learning_internal.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define RUV_CACHE_ENTRIES 128

static RuvIndexCache cache_entries[RUV_CACHE_ENTRIES];

/* What this transaction does to the registry when it commits. */
typedef struct PendingChange {
    Oid table_oid;
    List *index_oids; /* NIL: learning was disabled */
    Oid touched;      /* InvalidOid, or the index whose patterns were changed, and nothing else */
} PendingChange;

static List *pending_changes = NIL; /* in TopTransactionContext */
static bool pending_request = false;
static bool callback_registered = false;

/* ---- the view of a backend ----------------------------------------------------------------- */

static RuvIndexCache *
cache_entry(Oid index_oid)
{
    return &cache_entries[murmurhash32(index_oid) % RUV_CACHE_ENTRIES];
}

static void
cache_resolve(RuvIndexCache *entry, Oid index_oid, uint64 generation)
{
    entry->index_oid = index_oid;
    entry->slot = NULL;
    entry->ring = NULL;
    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    entry->slot = ruv_registry_find(MyDatabaseId, index_oid);
    if (entry->slot != NULL)
        entry->policies = entry->slot->policies;
    if (entry->slot != NULL && ruv_shared->databases[entry->slot->database_slot].ring_ready)
        entry->ring = ruv_shared_ring(entry->slot->database_slot);
    LWLockRelease(ruv_shared->lock);
    entry->registry_generation = generation;
}

RuvIndexCache *
ruv_index_cache(Oid index_oid)
{
    RuvIndexCache *entry;
    uint64 generation;

    if (ruv_shared == NULL)
        return NULL;
    entry = cache_entry(index_oid);
    /* Read before the slots, so that a change in between is seen the next time. */
    generation = pg_atomic_read_u64(&ruv_shared->registry_generation);
    if (entry->index_oid != index_oid || entry->registry_generation != generation) {
        pg_read_barrier();
        cache_resolve(entry, index_oid, generation);
    }
    return entry;
}

RuvIndexCache *
ruv_index_cache_peek(Oid index_oid)
{
    RuvIndexCache *entry;

    if (ruv_shared == NULL)
        return NULL;
    entry = cache_entry(index_oid);
    if (entry->index_oid != index_oid ||
        entry->registry_generation != pg_atomic_read_u64(&ruv_shared->registry_generation))
        return NULL;
    return entry;
}

/* ---- slots --------------------------------------------------------------------------------- */

static void
announce_registry_locked(void)
{
    pg_atomic_fetch_add_u64(&ruv_shared->registry_generation, 1);
}

RuvIndexSlot *
ruv_registry_find(Oid database, Oid index_oid)
{
    for (int i = 0; i < RUV_MAX_INDEXES; i++) {
        RuvIndexSlot *slot = &ruv_shared->indexes[i];

        if (slot->index_oid == index_oid && slot->database == database)
            return slot;
    }
    return NULL;
}

static RuvIndexSlot *
add_locked(Oid database, int database_slot, Oid table_oid, Oid index_oid)
{
    RuvIndexSlot *slot = ruv_registry_find(database, index_oid);

    if (slot != NULL)
        return slot;
    slot = ruv_registry_find(InvalidOid, InvalidOid);
    if (slot == NULL)
        return NULL;
    slot->database = database;
    slot->index_oid = index_oid;
    slot->table_oid = table_oid;
    slot->database_slot = database_slot;
    slot->fresh = true;
    pg_atomic_fetch_add_u64(&slot->bank_revision, 1);
    slot->last_learned = 0;
    slot->last_error[0] = '\0';
    slot->extraction = RUV_EXTRACTION_COMPLETE;
    memset(&slot->policies, 0, sizeof(slot->policies));
    pg_atomic_write_u64(&slot->guard, 0);
    pg_atomic_write_u64(&slot->trajectories, 0);
    pg_atomic_write_u64(&slot->waiting, 0);
    pg_atomic_write_u64(&slot->undistilled, 0);
    pg_atomic_write_u64(&slot->learning_us, 0);
    pg_atomic_write_u64(&slot->failures, 0);
    ruv_costs_reset(slot);
    announce_registry_locked();
    return slot;
}

RuvIndexSlot *
ruv_registry_add(Oid database, int database_slot, Oid table_oid, Oid index_oid)
{
    RuvIndexSlot *slot;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    slot = add_locked(database, database_slot, table_oid, index_oid);
    LWLockRelease(ruv_shared->lock);
    return slot;
}

void
ruv_registry_set_policies(RuvIndexSlot *slot, const RuvPolicyNames *policies)
{
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    if (memcmp(&slot->policies, policies, sizeof(*policies)) != 0) {
        slot->policies = *policies;
        announce_registry_locked();
    }
    LWLockRelease(ruv_shared->lock);
}

void
ruv_note_links_reset(Oid index_oid)
{
    RuvIndexSlot *slot;

    if (ruv_shared == NULL)
        return;
    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    slot = ruv_registry_find(MyDatabaseId, index_oid);
    if (slot != NULL)
        pg_atomic_fetch_add_u64(&slot->links_resets, 1);
    LWLockRelease(ruv_shared->lock);
}

static void
forget_slot_locked(RuvIndexSlot *slot)
{
    ruv_unpublish_locked(slot);
    slot->database = InvalidOid;
    slot->index_oid = InvalidOid;
    slot->table_oid = InvalidOid;
    announce_registry_locked();
}

void
ruv_registry_forget(Oid database, ruv_registry_keep_fn keep, void *ctx)
{
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    for (int i = 0; i < RUV_MAX_INDEXES; i++) {
        RuvIndexSlot *slot = &ruv_shared->indexes[i];

        if (slot->database == database &&
            (keep == NULL || !keep(ctx, slot->table_oid, slot->index_oid)))
            forget_slot_locked(slot);
    }
    LWLockRelease(ruv_shared->lock);
}

/* ---- databases ----------------------------------------------------------------------------- */

int
ruv_database_find(Oid database)
{
    for (int i = 0; i < ruv_shared->database_count; i++)
        if (ruv_shared->databases[i].database == database)
            return i;
    return -1;
}

/* A slot nobody uses: never used, or left by a database that stopped learning. */
static int
find_free_database(void)
{
    int free_slot = ruv_database_find(InvalidOid);

    for (int i = 0; free_slot < 0 && i < ruv_shared->database_count; i++) {
        RuvDatabaseSlot *slot = &ruv_shared->databases[i];

        if (!slot->wanted && !slot->held && slot->worker_pid == 0)
            free_slot = i;
    }
    return free_slot;
}

int
ruv_database_claim(Oid database)
{
    int number;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    number = ruv_database_find(database);
    if (number < 0 && (number = find_free_database()) >= 0) {
        RuvDatabaseSlot *slot = &ruv_shared->databases[number];
        bool ring_ready = slot->ring_ready;

        memset(slot, 0, sizeof(*slot));
        slot->database = database;
        /* A ring is laid out once: a backend of its former database may still be pushing. The
         * worker passes over records of other databases. */
        slot->ring_ready = ring_ready;
        if (!ring_ready) {
            rv_ring *ring;

            slot->ring_ready =
                rv_ring_init(ruv_shared_ring(number), ruv_shared->ring_bytes,
                             (uint32_t)ruv_trajectory_buffer_size, &ring, NULL) == RV_OK;
        }
    }
    LWLockRelease(ruv_shared->lock);
    return number;
}

void
ruv_database_set_state(int slot, RuvWorkerState state)
{
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    ruv_shared->databases[slot].worker_state = state;
    LWLockRelease(ruv_shared->lock);
}

void
ruv_database_set_error(int slot, const char *message)
{
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    strlcpy(ruv_shared->databases[slot].last_error, message, RUV_ERROR_TEXT);
    LWLockRelease(ruv_shared->lock);
}

/* ---- at the end of a transaction ----------------------------------------------------------- */

static void
request_worker_locked(int number)
{
    RuvDatabaseSlot *slot = &ruv_shared->databases[number];

    slot->wanted = true;
    slot->sync_requested = true;
    if (slot->worker_pid != 0)
        SetLatch(slot->worker_latch);
    else
        ruv_launcher_wake_locked();
}

static void
apply_change_locked(int number, const PendingChange *change)
{
    ListCell *cell;

    if (OidIsValid(change->touched)) {
        RuvIndexSlot *slot = ruv_registry_find(MyDatabaseId, change->touched);

        if (slot != NULL)
            pg_atomic_fetch_add_u64(&slot->bank_revision, 1);
        return;
    }
    if (change->index_oids == NIL) {
        for (int i = 0; i < RUV_MAX_INDEXES; i++)
            if (ruv_shared->indexes[i].database == MyDatabaseId &&
                ruv_shared->indexes[i].table_oid == change->table_oid)
                forget_slot_locked(&ruv_shared->indexes[i]);
    }
    foreach (cell, change->index_oids)
        (void)add_locked(MyDatabaseId, number, change->table_oid, lfirst_oid(cell));
}

static void
transaction_callback(XactEvent event, void *arg)
{
    bool commit = event == XACT_EVENT_COMMIT;
    ListCell *cell;
    int number;

    /* What is remembered here is gone when COMMIT PREPARED comes, perhaps in another session. */
    if (event == XACT_EVENT_PRE_PREPARE && pending_request)
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("cannot PREPARE a transaction that has changed what is learned")));
    if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
        return;
    if (pending_request && commit) {
        LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
        number = ruv_database_find(MyDatabaseId);
        if (number >= 0) {
            foreach (cell, pending_changes)
                apply_change_locked(number, lfirst(cell));
            request_worker_locked(number);
        }
        LWLockRelease(ruv_shared->lock);
    }
    pending_changes = NIL;
    pending_request = false;
}

static void
remember_change(Oid table_oid, List *index_oids, Oid touched)
{
    MemoryContext former = MemoryContextSwitchTo(TopTransactionContext);
    PendingChange *change = palloc(sizeof(*change));

    if (!callback_registered) {
        RegisterXactCallback(transaction_callback, NULL);
        callback_registered = true;
    }
    change->table_oid = table_oid;
    change->index_oids = list_copy(index_oids);
    change->touched = touched;
    pending_changes = lappend(pending_changes, change);
    pending_request = true;
    MemoryContextSwitchTo(former);
}

void
ruv_registry_enable_at_commit(Oid table_oid, List *index_oids)
{
    if (ruv_database_claim(MyDatabaseId) < 0)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("%d databases of this cluster learn already, which is the limit",
                               ruv_shared->database_count),
                        errhint("Raise ruvector.max_learning_databases and restart the server, or "
                                "disable learning in another database.")));
    if (index_oids != NIL)
        remember_change(table_oid, index_oids, InvalidOid);
    else
        ruv_worker_request();
}

void
ruv_registry_disable_at_commit(Oid table_oid)
{
    ruv_publish_prepare();
    remember_change(table_oid, NIL, InvalidOid);
}

void
ruv_registry_touch_at_commit(Oid index_oid)
{
    (void)ruv_database_claim(MyDatabaseId);
    remember_change(InvalidOid, NIL, index_oid);
}

void
ruv_worker_request(void)
{
    if (ruv_database_claim(MyDatabaseId) < 0)
        return;
    if (!callback_registered) {
        RegisterXactCallback(transaction_callback, NULL);
        callback_registered = true;
    }
    pending_request = true;
}

/* ---- a wait for the worker ----------------------------------------------------------------- */

/* A worker that is not there after this long will not come. */
#define RUV_WORKER_WAIT_MS 30000
/* One that waits this long for a lock of the extension's tables may be waiting for the caller. */
#define RUV_LOCK_WAIT_MS 10000
#define RUV_WAIT_CLASS 0xFF000000U

static bool
extraction_done(int number, uint64 ticket, pid_t *worker)
{
    bool done;

    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    done = ruv_shared->databases[number].extract_done >= ticket;
    *worker = ruv_shared->databases[number].worker_pid;
    LWLockRelease(ruv_shared->lock);
    return done;
}

/* The worker waits for no lock on tables that learn, but writes to its own as anybody does. That is
 * a wait for this session where this session's transaction holds such a lock, and no deadlock that
 * the server could see. */
static bool
waits_for_lock(pid_t pid)
{
    PGPROC *process = pid != 0 ? BackendPidGetProc(pid) : NULL;

    return process != NULL && (process->wait_event_info & RUV_WAIT_CLASS) == PG_WAIT_LOCK;
}

/* What came of it for the indexes of one table. The first trouble: *index, and last_error if that
 * is what it was. */
static RuvExtraction
read_extraction(Oid table_oid, Oid *index, char *last_error)
{
    RuvExtraction found = RUV_EXTRACTION_COMPLETE;

    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    for (int i = 0; i < RUV_MAX_INDEXES && found == RUV_EXTRACTION_COMPLETE; i++) {
        const RuvIndexSlot *slot = &ruv_shared->indexes[i];

        if (slot->database != MyDatabaseId || slot->table_oid != table_oid)
            continue;
        found = slot->extraction;
        *index = slot->index_oid;
        strlcpy(last_error, slot->last_error, RUV_ERROR_TEXT);
    }
    LWLockRelease(ruv_shared->lock);
    return found;
}

static void
report_extraction(Oid table_oid)
{
    char last_error[RUV_ERROR_TEXT];
    Oid index;

    switch (read_extraction(table_oid, &index, last_error)) {
        case RUV_EXTRACTION_COMPLETE:
            return;
        case RUV_EXTRACTION_BLOCKED:
            ereport(ERROR,
                    (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
                     errmsg("not everything that was recorded for index \"%s\" could be learned",
                            get_rel_name(index)),
                     errdetail("A transaction, this one or another, has locked the table, the "
                               "index or its patterns, and the learning worker waits for no lock."),
                     errhint("Call the function again when that transaction has ended.")));
            return;
        case RUV_EXTRACTION_FAILED:
            ereport(ERROR,
                    (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                     errmsg("not everything that was recorded for index \"%s\" could be learned",
                            get_rel_name(index)),
                     errdetail("The learning worker failed: %s", last_error),
                     errhint("The worker tries again by itself; the server's log has the whole "
                             "error.")));
            return;
    }
}

static void
report_no_worker(void)
{
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("no learning worker is running for this database"),
                    errhint("The server's log says why. Workers need a free slot of "
                            "max_worker_processes and of ruvector.max_learning_databases.")));
}

static void
report_locked_worker(pid_t worker)
{
    ereport(ERROR,
            (errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("the learning worker waits for a lock"),
             errdetail("A transaction, this one or another, has locked a table of the "
                       "extension, or rows of one, for more than %d s.",
                       RUV_LOCK_WAIT_MS / 1000),
             errhint("Call the function again when that transaction has ended; "
                     "pg_blocking_pids(%d) says whose it is.",
                     (int)worker)));
}

void
ruv_worker_extract(Oid table_oid)
{
    int number = ruv_database_claim(MyDatabaseId);
    TimestampTz well = GetCurrentTimestamp(); /* there was a worker then, and it could work */
    uint64 ticket;
    pid_t worker;

    if (number < 0)
        report_no_worker();
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    ticket = ++ruv_shared->databases[number].extract_requested;
    request_worker_locked(number);
    LWLockRelease(ruv_shared->lock);
    ConditionVariablePrepareToSleep(&ruv_shared->worker_changed);
    while (!extraction_done(number, ticket, &worker)) {
        TimestampTz now = GetCurrentTimestamp();
        bool locked = waits_for_lock(worker);

        if (worker != 0 && !locked)
            well = now;
        if (locked && TimestampDifferenceExceeds(well, now, RUV_LOCK_WAIT_MS))
            report_locked_worker(worker);
        if (worker == 0 && TimestampDifferenceExceeds(well, now, RUV_WORKER_WAIT_MS))
            report_no_worker();
        (void)ConditionVariableTimedSleep(&ruv_shared->worker_changed, 100, PG_WAIT_EXTENSION);
    }
    ConditionVariableCancelSleep();
    report_extraction(table_oid);
}
