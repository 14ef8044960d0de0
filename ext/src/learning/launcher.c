/*
 * launcher.c - one process that keeps a worker in every database that learns.
 *
 * States of a database, as the launcher sees it
 *
 *   (start of server) --> probing --> running --> ended --+--> forgotten   nothing to learn there
 *                           ^                       |     |
 *   (a table learns) -------+------<--- back-off ---+     +--> held --> back-off   DROP DATABASE
 * ...
 *
 * At start every database that accepts connections is probed: its worker looks whether the
 * extension and a learning table are there and ends at once if not. Later a database is known by
 * its slot, which ruvector_enable_learning() claims. Whether a worker should run is the slot's
 * `wanted`: the worker clears it when it finds nothing to do, so a worker that ended while wanted
 * has failed and is started again, after a pause that doubles from one second to one minute.
 *
 * On a standby no call claims a slot, since a database comes to learn by replication: there the
 * databases are probed again every RUV_STANDBY_PROBE_MS.
 *
 * The launcher is connected to no database; it reads pg_database only. When it dies the postmaster
 * starts it again, and it probes anew.
 *
 * Locks: see shmem.c.
 */
#include "learning/learning_internal.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define RUV_FIRST_BACKOFF_MS 1000
#define RUV_LAST_BACKOFF_MS 60000
/* A worker that lived this long starts again without delay. */
#define RUV_HEALTHY_MS 60000
/* Probing workers at a time: they share max_worker_processes with everybody. */
#define RUV_PROBES_AT_ONCE 2
#define RUV_LAUNCHER_NAP_MS 10000
#define RUV_STANDBY_PROBE_MS 60000

typedef struct Job {
    Oid database;
    BackgroundWorkerHandle *handle; /* NULL: not running */
    TimestampTz started;
    TimestampTz not_before;
    int backoff_ms;
    bool probe; /* not started yet, wanted or not */
} Job;

static List *jobs = NIL;
static TimestampTz last_probed = 0;
static bool was_in_recovery = false;

void
ruv_launcher_register(void)
{
    BackgroundWorker worker = {0};

    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_ConsistentState;
    worker.bgw_restart_time = 5;
    strlcpy(worker.bgw_library_name, "ruvector", BGW_MAXLEN);
    strlcpy(worker.bgw_function_name, "ruv_launcher_main", BGW_MAXLEN);
    strlcpy(worker.bgw_name, "ruvector launcher", BGW_MAXLEN);
    strlcpy(worker.bgw_type, "ruvector launcher", BGW_MAXLEN);
    RegisterBackgroundWorker(&worker);
}

void
ruv_launcher_wake_locked(void)
{
    if (ruv_shared->launcher_latch != NULL)
        SetLatch(ruv_shared->launcher_latch);
}

static void
announce_launcher(Latch *latch)
{
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    ruv_shared->launcher_latch = latch;
    LWLockRelease(ruv_shared->lock);
}

static void
forget_launcher(int code, Datum argument)
{
    announce_launcher(NULL);
}

/* ---- jobs ---------------------------------------------------------------------------------- */

static Job *
find_job(Oid database)
{
    ListCell *cell;

    foreach (cell, jobs)
        if (((Job *)lfirst(cell))->database == database)
            return lfirst(cell);
    return NULL;
}

static Job *
add_job(Oid database, bool probe)
{
    MemoryContext former = MemoryContextSwitchTo(TopMemoryContext);
    Job *job = palloc0(sizeof(*job));

    job->database = database;
    job->backoff_ms = RUV_FIRST_BACKOFF_MS;
    job->probe = probe;
    jobs = lappend(jobs, job);
    MemoryContextSwitchTo(former);
    return job;
}

static void
add_probes(void)
{
    Relation relation;
    TableScanDesc scan;
    HeapTuple tuple;

    last_probed = GetCurrentTimestamp();
    StartTransactionCommand();
    (void)GetTransactionSnapshot();
    relation = table_open(DatabaseRelationId, AccessShareLock);
    scan = table_beginscan_catalog(relation, 0, NULL);
    while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL) {
        Form_pg_database form = (Form_pg_database)GETSTRUCT(tuple);

        if (form->datallowconn && find_job(form->oid) == NULL)
            (void)add_job(form->oid, true);
    }
    table_endscan(scan);
    table_close(relation, AccessShareLock);
    CommitTransactionCommand();
}

static bool
database_exists(Oid database)
{
    bool exists;

    StartTransactionCommand();
    exists = SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database));
    CommitTransactionCommand();
    return exists;
}

typedef struct SlotView {
    bool known;
    bool wanted;
    bool held;
    bool has_worker;
} SlotView;

static SlotView
view_slot(Oid database)
{
    SlotView view = {0};
    int number;

    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    number = ruv_database_find(database);
    if (number >= 0) {
        view.known = true;
        view.wanted = ruv_shared->databases[number].wanted;
        view.held = ruv_shared->databases[number].held;
        view.has_worker = ruv_shared->databases[number].worker_pid != 0;
    }
    LWLockRelease(ruv_shared->lock);
    return view;
}

/* A database that was dropped while nobody could tell (in recovery, for example). */
static void
forget_database(Oid database)
{
    int number;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    number = ruv_database_find(database);
    if (number >= 0 && ruv_shared->databases[number].worker_pid == 0) {
        ruv_shared->databases[number].database = InvalidOid;
        ruv_shared->databases[number].wanted = false;
    }
    LWLockRelease(ruv_shared->lock);
    ruv_registry_forget(database, NULL, NULL);
}

/* Databases that came to learn since. */
static void
add_wanted_jobs(void)
{
    for (int i = 0; i < ruv_shared->database_count; i++) {
        Oid database;
        bool wanted;

        LWLockAcquire(ruv_shared->lock, LW_SHARED);
        database = ruv_shared->databases[i].database;
        wanted = ruv_shared->databases[i].wanted;
        LWLockRelease(ruv_shared->lock);
        if (OidIsValid(database) && wanted && find_job(database) == NULL)
            (void)add_job(database, false);
    }
}

static void
start_worker(Job *job, TimestampTz now)
{
    BackgroundWorker worker = {0};
    MemoryContext former = MemoryContextSwitchTo(TopMemoryContext);

    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_ConsistentState;
    worker.bgw_restart_time = BGW_NEVER_RESTART;
    strlcpy(worker.bgw_library_name, "ruvector", BGW_MAXLEN);
    strlcpy(worker.bgw_function_name, "ruv_worker_main", BGW_MAXLEN);
    strlcpy(worker.bgw_name, "ruvector learning worker", BGW_MAXLEN);
    strlcpy(worker.bgw_type, "ruvector learning worker", BGW_MAXLEN);
    worker.bgw_main_arg = ObjectIdGetDatum(job->database);
    worker.bgw_notify_pid = MyProcPid;
    job->started = now;
    job->probe = false;
    if (!RegisterDynamicBackgroundWorker(&worker, &job->handle)) {
        job->handle = NULL;
        job->probe = true;
        job->not_before = TimestampTzPlusMilliseconds(now, RUV_LAST_BACKOFF_MS);
        ereport(LOG, (errmsg("no background worker slot is free for learning"),
                      errhint("Raise max_worker_processes.")));
    }
    MemoryContextSwitchTo(former);
}

/* A worker has ended: when may the next one start? */
static void
note_end(Job *job, TimestampTz now)
{
    pfree(job->handle);
    job->handle = NULL;
    if (TimestampDifferenceExceeds(job->started, now, RUV_HEALTHY_MS))
        job->backoff_ms = RUV_FIRST_BACKOFF_MS;
    job->not_before = TimestampTzPlusMilliseconds(now, job->backoff_ms);
    job->backoff_ms = Min(job->backoff_ms * 2, RUV_LAST_BACKOFF_MS);
}

/* Looks after one job. True when it is done with; *probing counts the probes under way. */
static bool
tend_job(Job *job, int *probing, TimestampTz now, long *nap_ms)
{
    SlotView slot = view_slot(job->database);
    pid_t pid;

    if (job->handle != NULL) {
        if (GetBackgroundWorkerPid(job->handle, &pid) != BGWH_STOPPED) {
            if (!slot.has_worker)
                (*probing)++;
            return false;
        }
        note_end(job, now);
        if (slot.held)
            job->not_before = now;
    }
    if (!job->probe && !slot.wanted)
        return true;
    if (slot.held)
        return false;
    if (now < job->not_before) {
        *nap_ms = Min(*nap_ms, TimestampDifferenceMilliseconds(now, job->not_before) + 1);
        return false;
    }
    if (!database_exists(job->database)) {
        forget_database(job->database);
        return true;
    }
    if (slot.wanted || *probing < RUV_PROBES_AT_ONCE) {
        start_worker(job, now);
        (*probing)++;
    }
    return false;
}

static long
tend_jobs(void)
{
    TimestampTz now = GetCurrentTimestamp();
    long nap_ms = RUV_LAUNCHER_NAP_MS;
    int probing = 0;
    ListCell *cell;

    add_wanted_jobs();
    foreach (cell, jobs) {
        Job *job = lfirst(cell);

        if (tend_job(job, &probing, now, &nap_ms)) {
            jobs = foreach_delete_current(jobs, cell);
            pfree(job);
        }
    }
    return nap_ms;
}

/* Also once after a promotion: what came by replication since the last probe. */
static void
probe_again(void)
{
    bool in_recovery = RecoveryInProgress();

    if (in_recovery != was_in_recovery ||
        (in_recovery &&
         TimestampDifferenceExceeds(last_probed, GetCurrentTimestamp(), RUV_STANDBY_PROBE_MS)))
        add_probes();
    was_in_recovery = in_recovery;
}

void
ruv_launcher_main(Datum argument)
{
    pqsignal(SIGHUP, SignalHandlerForConfigReload);
    pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
    BackgroundWorkerUnblockSignals();
    BackgroundWorkerInitializeConnection(NULL, NULL, 0);
    before_shmem_exit(forget_launcher, (Datum)0);
    announce_launcher(MyLatch);
    pgstat_report_appname("ruvector launcher");
    was_in_recovery = RecoveryInProgress();
    add_probes();
    while (!ShutdownRequestPending) {
        long nap_ms;

        probe_again();
        nap_ms = tend_jobs();

        (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, nap_ms,
                        PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
        if (ConfigReloadPending) {
            ConfigReloadPending = false;
            ProcessConfigFile(PGC_SIGHUP);
        }
    }
    proc_exit(0);
}
