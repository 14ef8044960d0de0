/*
 * worker.c - the learning worker of one database: its loop.
 *
 *   read the configuration (at start, when told, when a relation changed)
 *   drain the ring          every round, and during long work (drain.c)
 *   join feedback           when some was given (feedback_join.c)
 *   extract                 when somebody waits for it: everything at once (extract.c)
 *   learn                   one round per index that is due (learn.c)
 *   rest                    so that learning stays within ruvector.learning_budget: after t seconds
 *                           of processor time no learning for t / budget - t seconds; the ring is
 *                           drained all the same
 *
 * The worker runs as the bootstrap superuser and writes only to the extension's tables. It ends by
 * itself when the extension or the last learning table is gone; SIGTERM (server stop, DROP
 * DATABASE) ends it at the next check for interrupts. What it held in memory is lost then: searches
 * that were drained but not yet judged.
 *
 * In recovery it writes nothing: it publishes the patterns that came from the primary, looks now
 * and then whether they changed, and begins to learn after a promotion. On a standby the ring is
 * drained and forgotten.
 *
 * An error in one index's round is logged, counted, shown in ruvector_learning_stats(), and that
 * index is loaded again from its tables after a pause that doubles from 1 s to 5 min. The others go
 * on.
 *
 * Locks: see shmem.c.
 */
#include "learning/worker.h"

#include <time.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pause.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define RUV_STANDBY_NAP_MS 5000
#define RUV_FIRST_RETRY_MS 1000
#define RUV_LAST_RETRY_MS 300000
/* The load that searches make is a mean over about so long. */
#define RUV_LOAD_SECONDS 10

RuvWorker ruv_worker;

static bool lacks_index = false; /* an index was locked when it should be loaded */
static TimestampTz rest_until = 0;

double
ruv_processor_seconds(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) != 0)
        return 0;
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static RuvDatabaseSlot *
my_slot(void)
{
    return &ruv_shared->databases[ruv_worker.database_slot];
}

/* ---- coming and going ---------------------------------------------------------------------- */

static void
sign_off(int code, Datum argument)
{
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    my_slot()->worker_pid = 0;
    my_slot()->worker_latch = NULL;
    my_slot()->worker_state = RUV_WORKER_NONE;
    LWLockRelease(ruv_shared->lock);
    ConditionVariableBroadcast(&ruv_shared->worker_changed);
}

static bool
anything_to_learn(void)
{
    RuvStore store;
    bool learns;

    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    learns = ruv_store_open(&store);
    if (learns) {
        learns = ruv_store_count_tables(&store) > 0;
        ruv_store_close(&store);
    }
    PopActiveSnapshot();
    CommitTransactionCommand();
    return learns;
}

/* Looks before it takes a slot, since most databases that are probed at start do not learn. */
static bool
probe(void)
{
    RuvDatabaseSlot *slot;
    bool learns;
    int number;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    number = ruv_database_find(MyDatabaseId);
    if (number >= 0)
        ruv_shared->databases[number].sync_requested = false;
    LWLockRelease(ruv_shared->lock);

    learns = anything_to_learn();

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    slot = number >= 0 ? &ruv_shared->databases[number] : NULL;
    if (slot != NULL && !learns && !slot->sync_requested && slot->worker_pid == 0) {
        slot->wanted = false;
        slot->extract_done = slot->extract_requested;
    }
    LWLockRelease(ruv_shared->lock);
    ConditionVariableBroadcast(&ruv_shared->worker_changed);
    return learns;
}

/* Takes the database's slot. False: another worker has it, or no slot is free. */
static bool
sign_on(void)
{
    bool taken;

    ruv_worker.database_slot = ruv_database_claim(MyDatabaseId);
    if (ruv_worker.database_slot < 0) {
        ereport(LOG, (errmsg("%d databases of this cluster learn already, which is the limit",
                             ruv_shared->database_count),
                      errhint("Raise ruvector.max_learning_databases and restart the server.")));
        return false;
    }
    before_shmem_exit(sign_off, (Datum)0);
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    taken = my_slot()->worker_pid == 0 && !my_slot()->held;
    if (taken) {
        my_slot()->worker_pid = MyProcPid;
        my_slot()->worker_latch = MyLatch;
        my_slot()->worker_state = RUV_WORKER_STARTING;
        my_slot()->wanted = true;
        my_slot()->sync_requested = true;
    }
    LWLockRelease(ruv_shared->lock);
    if (!taken)
        cancel_before_shmem_exit(sign_off, (Datum)0);
    return taken;
}

/* Nothing is left to learn here. False: somebody has just asked for it again. */
static bool
try_to_retire(void)
{
    bool retire;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    retire = !my_slot()->sync_requested;
    if (retire) {
        my_slot()->wanted = false;
        my_slot()->extract_done = my_slot()->extract_requested;
    }
    LWLockRelease(ruv_shared->lock);
    if (retire) {
        ConditionVariableBroadcast(&ruv_shared->worker_changed);
        ruv_registry_forget(MyDatabaseId, NULL, NULL);
    }
    return retire;
}

/* ---- the configuration ---------------------------------------------------------------------- */

/* Reads the configuration. False: there is nothing to learn. */
static bool
synchronise(void)
{
    RuvStore store;
    bool learns;
    ListCell *cell;

    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    my_slot()->sync_requested = false;
    LWLockRelease(ruv_shared->lock);
    ruv_worker.stale = false;
    lacks_index = false;

    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    learns = ruv_store_open(&store);
    if (learns) {
        Datum indexes = ruv_store_indexes(&store);

        if (!RecoveryInProgress())
            ruv_store_tidy(&store, indexes);
        learns = ruv_store_count_tables(&store) > 0;
        foreach (cell, ruv_worker.indexes)
            ((RuvIndexState *)lfirst(cell))->seen = false;
        ruv_store_list_indexes(&store, indexes, ruv_state_configure);
        ruv_states_forget_unseen();
        RUV_PAUSE("ruvector-configuration-read");
        foreach (cell, ruv_worker.indexes)
            if (!ruv_state_refresh(&store, lfirst(cell)))
                lacks_index = true;
        ruv_policy_choices_sync(&store, ruv_worker.indexes);
        ruv_store_close(&store);
    }
    PopActiveSnapshot();
    CommitTransactionCommand();
    return learns;
}

static void
note_relation_change(Datum argument, Oid relation)
{
    ruv_worker.stale = true;
}

bool
ruv_configuration_waits(void)
{
    bool requested;

    LWLockAcquire(ruv_shared->lock, LW_SHARED);
    requested = my_slot()->sync_requested;
    LWLockRelease(ruv_shared->lock);
    return requested;
}

static bool
synchronisation_due(void)
{
    /* Other sessions' changes of relations arrive at the start of a transaction. */
    StartTransactionCommand();
    CommitTransactionCommand();
    return ruv_configuration_waits() || ruv_worker.stale || lacks_index;
}

/* ---- learning ------------------------------------------------------------------------------ */

static void
note_failure(RuvIndexState *state, const char *message)
{
    int64 pause = RUV_FIRST_RETRY_MS;

    for (int i = 0; i < state->consecutive_errors && pause < RUV_LAST_RETRY_MS; i++)
        pause *= 2;
    state->consecutive_errors++;
    state->retry_after =
        TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Min(pause, RUV_LAST_RETRY_MS));
    pg_atomic_fetch_add_u64(&state->slot->failures, 1);
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    strlcpy(state->slot->last_error, message, RUV_ERROR_TEXT);
    LWLockRelease(ruv_shared->lock);
    ruv_state_unload(state);
    ruv_worker.stale = true; /* load it again */
}

static void
note_success(RuvIndexState *state)
{
    if (state->consecutive_errors == 0 && state->slot->last_learned == state->last_learned)
        return;
    state->consecutive_errors = 0;
    LWLockAcquire(ruv_shared->lock, LW_EXCLUSIVE);
    state->slot->last_error[0] = '\0';
    state->slot->last_learned = state->last_learned;
    LWLockRelease(ruv_shared->lock);
}

bool
ruv_worker_learn(RuvIndexState *state, bool force)
{
    volatile bool done = false;

    SetCurrentStatementStartTimestamp();
    PG_TRY();
    {
        done = ruv_learn_round(state, force);
        note_success(state);
    }
    PG_CATCH();
    {
        ErrorData *error;

        HOLD_INTERRUPTS();
        MemoryContextSwitchTo(ruv_worker.context);
        error = CopyErrorData();
        error_context_stack = NULL;
        EmitErrorReport();
        AbortOutOfAnyTransaction();
        FlushErrorState();
        MemoryContextSwitchTo(ruv_worker.context);
        note_failure(state, error->message);
        FreeErrorData(error);
        pgstat_report_activity(STATE_IDLE, NULL);
        RESUME_INTERRUPTS();
    }
    PG_END_TRY();
    ruv_worker_drain();
    return done;
}

static void
rest_after(double seconds)
{
    double pause = seconds / ruv_learning_budget - seconds;

    rest_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause * 1000);
}

/* A round for every index that is due. Returns whether anything was done. */
static bool
learn_all(void)
{
    double started = ruv_processor_seconds();
    bool worked = false;
    ListCell *cell;

    foreach (cell, ruv_worker.indexes) {
        RuvIndexState *state = lfirst(cell);

        if (state->loaded && ruv_learn_due(state, GetCurrentTimestamp(), false)) {
            ruv_database_set_state(ruv_worker.database_slot, RUV_WORKER_LEARNING);
            if (ruv_worker_learn(state, false))
                worked = true;
        }
    }
    if (worked)
        rest_after(ruv_processor_seconds() - started);
    ruv_database_set_state(ruv_worker.database_slot, RUV_WORKER_IDLE);
    return worked;
}

/* What was loaded, to the backends, without writing anything. */
static void
publish_loaded(void)
{
    ListCell *cell;

    foreach (cell, ruv_worker.indexes) {
        RuvIndexState *state = lfirst(cell);

        bool due = state->bank_changed ||
                   (state->publish_again != 0 && GetCurrentTimestamp() >= state->publish_again);

        if (state->loaded && due && state->bank != NULL) {
            ruv_state_publish(state);
            note_success(state);
        }
    }
    if (DsaPointerIsValid(ruv_shared->retired_banks))
        ruv_publish_reclaim();
}

/* ---- the loop ------------------------------------------------------------------------------ */

static void
follow_signals(void)
{
    CHECK_FOR_INTERRUPTS();
    if (ConfigReloadPending) {
        ConfigReloadPending = false;
        ProcessConfigFile(PGC_SIGHUP);
    }
}

static void
nap(long milliseconds)
{
    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, milliseconds,
                    PG_WAIT_EXTENSION);
    ResetLatch(MyLatch);
    follow_signals();
}

bool
ruv_worker_follow_configuration(void)
{
    bool learns = true;

    follow_signals();
    if (synchronisation_due()) {
        learns = synchronise();
        ruv_observe_parked(lacks_index);
        ruv_worker.stale = ruv_worker.stale || !learns; /* until the worker retires */
    }
    return learns;
}

/* Whether the primary has learned since an index was loaded. */
static bool
learned_elsewhere(RuvStore *store, const RuvIndexState *state)
{
    RuvIndexState stored = *state;

    ruv_store_load_state(store, &stored);
    return stored.last_learned != state->last_learned;
}

/* One turn in recovery: patterns come with the write-ahead log. */
static void
stand_by(void)
{
    RuvStore store;
    ListCell *cell;

    ruv_database_set_state(ruv_worker.database_slot, RUV_WORKER_STANDBY);
    ruv_worker_drain();
    nap(RUV_STANDBY_NAP_MS);
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    if (ruv_store_open(&store)) {
        foreach (cell, ruv_worker.indexes) {
            RuvIndexState *state = lfirst(cell);

            if (learned_elsewhere(&store, state)) {
                ruv_state_unload(state);
                ruv_worker.stale = true;
            } else if (state->loaded) {
                ruv_costs_load(&store, state); /* they change with every round */
            }
        }
        ruv_store_close(&store);
    }
    PopActiveSnapshot();
    CommitTransactionCommand();
}

/* Until the next look at the ring: the interval, or less when the rest ends sooner. */
static long
nap_length(void)
{
    long rest = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), rest_until);

    return rest > 0 ? Min(rest, ruv_learning_interval) : ruv_learning_interval;
}

static void
take_turn(void)
{
    bool worked = false;
    long look_again;

    ruv_worker_drain();
    if (ruv_feedback_due(GetCurrentTimestamp()))
        ruv_feedback_join();
    look_again = ruv_extract_now();
    if (GetCurrentTimestamp() >= rest_until)
        worked = learn_all();
    if (worked && GetCurrentTimestamp() >= rest_until)
        follow_signals();
    else
        nap(Min(nap_length(), look_again));
}

static void
prepare_worker(void)
{
    ruv_worker.stale = true;
    ruv_worker.context =
        AllocSetContextCreate(TopMemoryContext, "ruvector worker", ALLOCSET_DEFAULT_SIZES);
    MemoryContextSwitchTo(ruv_worker.context);
    ruv_worker.ring = ruv_shared_ring(ruv_worker.database_slot);
    ruv_worker.record_capacity = rv_ring_max_record(ruv_worker.ring);
    ruv_worker.record = MemoryContextAllocHuge(ruv_worker.context, ruv_worker.record_capacity);
    rv_rate_start(&ruv_worker.searches, GetCurrentTimestamp(), RUV_LOAD_SECONDS);
    rv_rate_start(&ruv_worker.search_seconds, GetCurrentTimestamp(), RUV_LOAD_SECONDS);
    rv_prng_seed(&ruv_worker.prng, (uint64)MyStartTimestamp ^ ((uint64)MyProcPid << 40));
    CacheRegisterRelcacheCallback(note_relation_change, (Datum)0);
    pgstat_report_appname("ruvector learning worker");
}

/* Settings that the database's owner may have given its sessions, and that must not hold here:
 * nobody waits for the worker's statements, they must not be cut short, and they write. */
static void
override_settings(void)
{
    static const char *const settings[][2] = {{"statement_timeout", "0"},
                                              {"lock_timeout", "0"},
                                              {"idle_in_transaction_session_timeout", "0"},
                                              {"synchronous_commit", "local"},
                                              {"default_transaction_read_only", "off"},
                                              {"default_transaction_isolation", "read committed"}};

    for (int i = 0; i < (int)lengthof(settings); i++)
        SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

void
ruv_worker_main(Datum database)
{
    pqsignal(SIGHUP, SignalHandlerForConfigReload);
    pqsignal(SIGTERM, die);
    BackgroundWorkerUnblockSignals();
    BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
    /* A reload that was announced while this process began found nobody to hear of it. */
    ProcessConfigFile(PGC_SIGHUP);
    override_settings();
    if (!probe() || !sign_on())
        proc_exit(0);
    prepare_worker();
    for (;;) {
        SetCurrentStatementStartTimestamp(); /* what now() says */
        if (!ruv_worker_follow_configuration() && try_to_retire())
            proc_exit(0);
        publish_loaded();
        if (RecoveryInProgress())
            stand_by();
        else
            take_turn();
    }
}
