/*
 * learning_internal.h - what the files of the learning engine share with each other.
 *
 *   shmem.c      layout, start-up and the lock table of the shared memory
 *   registry.c   which indexes learn: slots in shared memory, looked up once per backend
 *   publish.c    banks in shared memory: written by the worker, read in place by backends
 *   policy.c     the one gateway to the policy host; policy_load.c the host of this process;
 *                policy_share.c what the cluster has accepted; policy_choice.c which policy serves
 *                an index; shadow.c candidates beside the serving ones
 *   optimizer.c  ruv_choose: how to search
 *   guard.c      more effort at once while what was learned may not hold
 *   capture.c    ruv_capture: what happened
 *   launcher.c   starts a worker per learning database; hooks.c keeps it away from DROP DATABASE
 *   bank_edit.c  a bank changed by a session; sql_bank.c, sql_exchange.c its SQL functions
 *   worker.c     the loop; index_states.c what it holds of each index; learn.c one round for one
 *                index; truth.c true neighbours; trace.c deep traces; distil.c patterns; store.c
 *                and store_*.c the tables
 *   sql_*.c      the SQL functions; rights.c who may call them
 */
#ifndef RUVECTOR_LEARNING_INTERNAL_H
#define RUVECTOR_LEARNING_INTERNAL_H

#include "ruvector.h"
#include "learning.h"
#include "host/host.h"

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"

/* ---- shared memory (shmem.c) --------------------------------------------------------------- */

#define RUV_MAX_INDEXES 1024 /* indexes that learn, in the whole cluster */
#define RUV_ERROR_TEXT 256

typedef enum RuvWorkerState {
    RUV_WORKER_NONE,
    RUV_WORKER_STARTING,
    RUV_WORKER_IDLE,
    RUV_WORKER_LEARNING,
    RUV_WORKER_STANDBY /* in recovery: publishes what the primary learned, writes nothing */
} RuvWorkerState;

/* One database that learns. */
typedef struct RuvDatabaseSlot {
    Oid database;        /* InvalidOid: never used */
    bool wanted;         /* a worker should run */
    bool held;           /* ... but not now */
    bool sync_requested; /* the configuration changed since the worker read it */
    bool ring_ready;
    int worker_state;    /* RuvWorkerState */
    pid_t worker_pid;    /* 0: none */
    Latch *worker_latch; /* valid while worker_pid is set */
    uint64 feedback_given;
    uint64 extract_requested;
    uint64 extract_done;
    char last_error[RUV_ERROR_TEXT];
} RuvDatabaseSlot;

/* Running means of the searches of an index for about so many rows: see costs.c. */
#define RUV_COST_BUCKETS 12
typedef struct RuvSearchCost {
    pg_atomic_uint64 searches;
    pg_atomic_uint64 latency;
    pg_atomic_uint64 distances;
} RuvSearchCost;

#define RUV_POLICY_ID 64

/* A policy for each kind, by the name of its file; "": the default one. */
typedef struct RuvPolicyNames {
    char id[RV_POLICY_KINDS][RUV_POLICY_ID];
} RuvPolicyNames;

/* What came of an extraction, for one index. */
typedef enum RuvExtraction {
    RUV_EXTRACTION_COMPLETE,
    RUV_EXTRACTION_BLOCKED, /* somebody held the table, the index or the bank */
    RUV_EXTRACTION_FAILED   /* last_error says why */
} RuvExtraction;

/* One index that learns. */
typedef struct RuvIndexSlot {
    Oid database; /* InvalidOid: free */
    Oid index_oid;
    Oid table_oid;
    bool fresh;               /* just registered: what the worker remembers of the index is void */
    int database_slot;        /* whose ring it uses */
    pg_atomic_uint64 bank_at; /* of the published chunk in the bank area; 0: none. See publish.c */
    dsa_pointer bank;         /* the same chunk */
    Size bank_size;
    uint32 patterns_left_out;       /* for lack of bank memory */
    uint32 queries_left_out;        /* remembered ones */
    Size memory_size;               /* of the flat memory behind the bank; 0: none */
    int64 last_learned;             /* TimestampTz; 0: never */
    pg_atomic_uint64 guard;         /* RuvGuard, packed; 0: none. See guard.c */
    pg_atomic_uint64 bank_revision; /* counts the changes by sessions (bank_edit.h) */
    char last_error[RUV_ERROR_TEXT];
    RuvExtraction extraction;      /* the last one of its database */
    RuvPolicyNames policies;       /* that serve it */
    pg_atomic_uint64 links_resets; /* times that learned links were taken away by hand */
    /* Live figures, written by the worker, read without the lock. */
    pg_atomic_uint64 trajectories; /* drained, since learning was enabled */
    pg_atomic_uint64 waiting;      /* sampled, not yet judged */
    pg_atomic_uint64 undistilled;  /* judged since the last distillation */
    pg_atomic_uint64 learning_us;  /* processor time */
    pg_atomic_uint64 failures;     /* rounds that ended with an error */
    /* Learned costs for the planner, likewise: costs.c. */
    pg_atomic_uint64 mean_recall; /* 0: unknown */
    pg_atomic_uint64 costs_epoch; /* the build that the costs are of */
    RuvSearchCost costs[RUV_COST_BUCKETS];
} RuvIndexSlot;

/* Cluster-wide counters of one kind of policy, or of one policy, on a cache line of their own. */
typedef struct RuvPolicyCounters {
    pg_atomic_uint64 key; /* of one policy: a hash of kind and name; 0: free */
    pg_atomic_uint64 calls;
    pg_atomic_uint64 total_ns;
    pg_atomic_uint64 worst_ns;
    pg_atomic_uint64 logged; /* bit per cause that was logged since the last reload */
    pg_atomic_uint64 failures[RV_HOST_CAUSES];
    char padding[PG_CACHE_LINE_SIZE - (5 + RV_HOST_CAUSES) * sizeof(pg_atomic_uint64)];
} RuvPolicyCounters;

/* Policies that have counters of their own; twice what a directory may hold. */
#define RUV_NAMED_POLICIES 128

/* What one backend reads, on a cache line of its own: the bank sequence that it saw when it began,
 * 0 when it reads nothing. See publish.c. */
typedef struct RuvReader {
    pg_atomic_uint64 since;
    char padding[PG_CACHE_LINE_SIZE - sizeof(pg_atomic_uint64)];
} RuvReader;

typedef struct RuvShared {
    LWLock *lock;
    uint64 boot_id;                 /* random; half of every query id */
    pg_atomic_uint64 bank_sequence; /* counts the chunks that left their slot, from 1 */
    dsa_pointer retired_banks;      /* a list of them, those that may still be read */
    int reader_count;
    Latch *launcher_latch;            /* NULL: no launcher */
    ConditionVariable worker_changed; /* a worker ended, or finished an extraction */
    int database_count;
    Size ring_bytes;                      /* of one ring */
    Size bank_bytes;                      /* of the bank area */
    pg_atomic_uint64 sessions;            /* backends that recorded a search */
    pg_atomic_uint64 registry_generation; /* changes whenever a slot comes or goes */
    pg_atomic_uint64 policy_generation;   /* changes with every load for the cluster */
    LWLock *policy_lock;                  /* for what follows: policy_share.c */
    int policy_state;                     /* RuvPolicyState, of policy_directory */
    Size policy_block_size;
    char policy_directory[MAXPGPATH];
    pg_atomic_uint64 load_failure; /* a hash of that of a load which was logged last; 0: none */
    RuvPolicyCounters policies[RV_POLICY_KINDS];
    RuvPolicyCounters named_policies[RUV_NAMED_POLICIES];
    RuvIndexSlot indexes[RUV_MAX_INDEXES];
    RuvDatabaseSlot databases[FLEXIBLE_ARRAY_MEMBER];
} RuvShared;

extern RuvShared *ruv_shared; /* NULL without preloading */

extern rv_ring *ruv_shared_ring(int database_slot);
extern char *ruv_shared_bank_area(void);
extern RuvReader *ruv_shared_readers(void);
extern char *ruv_shared_policy_block(void); /* of rv_host_export_limit() bytes */
extern Size ruv_shared_bytes(void);

/* ---- registry.c ---------------------------------------------------------------------------- */

/* What a backend knows of one index; see registry.c for its life. */
typedef struct RuvIndexCache {
    Oid index_oid;
    uint64 registry_generation; /* when it was resolved; 0: never */
    RuvIndexSlot *slot;         /* NULL: the index does not learn */
    RuvPolicyNames policies;    /* that serve it */
    rv_ring *ring;
    const char *bank;   /* between ruv_fetch_bank and ruv_release_bank */
    const char *memory; /* the remembered queries; NULL: none */
    const rv_plan *plans;
    uint32 plan_count;
} RuvIndexCache;

/* The entry of an index, resolved against the registry's present generation. Takes the lock
 * (shared) only when that changed. NULL without preloading. Never raises an error. */
extern RuvIndexCache *ruv_index_cache(Oid index_oid);
/* As above, without resolving: NULL when the entry is not up to date. For the end of a scan. */
extern RuvIndexCache *ruv_index_cache_peek(Oid index_oid);

/* The slot of this database, claimed if need be. -1: all are taken. */
extern int ruv_database_claim(Oid database);
/* -1: none. The caller holds the lock. */
extern int ruv_database_find(Oid database);
extern void ruv_database_set_state(int slot, RuvWorkerState state);
extern void ruv_database_set_error(int slot, const char *message);

/* Registers an index as learning (no effect if it is). NULL: the registry is full. */
extern RuvIndexSlot *ruv_registry_add(Oid database, int database_slot, Oid table_oid,
                                      Oid index_oid);
extern RuvIndexSlot *ruv_registry_find(Oid database, Oid index_oid);
/* The policies that serve an index; sessions see it when they next resolve the index. */
extern void ruv_registry_set_policies(RuvIndexSlot *slot, const RuvPolicyNames *policies);
/* Forgets the slots of a database for which keep returns false (keep NULL: all of them). */
typedef bool (*ruv_registry_keep_fn)(void *ctx, Oid table_oid, Oid index_oid);
extern void ruv_registry_forget(Oid database, ruv_registry_keep_fn keep, void *ctx);

/* At commit, in the order of the calls: register these indexes of a table, or forget all that are
 * registered for it; then let the worker read the configuration again. */
extern void ruv_registry_enable_at_commit(Oid table_oid, List *index_oids);
extern void ruv_registry_disable_at_commit(Oid table_oid);
/* At commit: lets the worker load the patterns of an index again (bank_edit.h). */
extern void ruv_registry_touch_at_commit(Oid index_oid);
/* At commit: asks for a worker in this database and lets it read the configuration again. */
extern void ruv_worker_request(void);
/* Now: asks the worker to learn everything it has, and waits until it has done so. Raises an error
 * when for an index of the table it could not. */
extern void ruv_worker_extract(Oid table_oid);

/* ---- guard.c ------------------------------------------------------------------------------- */

typedef enum RuvGuardReason {
    RUV_GUARD_NONE,
    RUV_GUARD_RECALL,  /* recall was measured below its target */
    RUV_GUARD_QUERIES, /* queries are unlike those that were learned from */
    RUV_GUARD_ROWS     /* rows are unlike those that were learned from */
} RuvGuardReason;

/* Extra effort for every search of an index, while what was learned may not hold. */
typedef struct RuvGuard {
    float factor; /* on log(1 + slack); 1: none */
    RuvGuardReason reason;
} RuvGuard;

/* Lock-free; callable by everybody. */
extern RuvGuard ruv_guard_read(const RuvIndexSlot *slot);
extern const char *ruv_guard_reason_name(RuvGuardReason reason); /* NULL for RUV_GUARD_NONE */

/* ---- costs.c ------------------------------------------------------------------------------- */

/* At the start of the server. */
extern void ruv_costs_init(RuvIndexSlot *slot);
/* Forgets the learned costs of an index: it is new, or was rebuilt. */
extern void ruv_costs_reset(RuvIndexSlot *slot);
/* Adds a search to them. */
extern void ruv_costs_observe(RuvIndexSlot *slot, const rv_trajectory *head);

/* ---- publish.c ----------------------------------------------------------------------------- */

/* Attaches the bank area, which may raise an error, so that what follows cannot. */
extern void ruv_publish_prepare(void);
/* Flattens and publishes the bank, together with the flat memory it was calibrated with
 * (memory_size 0: none) and the plans made from both. False: there is no room, even
 * without regions; what was published stays. */
extern bool ruv_publish_bank(RuvIndexSlot *slot, Oid index_oid, rv_bank *bank, const char *memory,
                             Size memory_size, const rv_plan *plans, int plan_count);
/* Frees what was published before and is not read any more. */
extern void ruv_publish_reclaim(void);
/* The caller holds the lock exclusively. */
extern void ruv_unpublish_locked(RuvIndexSlot *slot);
/* Finds the published bank, which stays where it is until it is released: soon, and in the same
 * function. False: none is published. Takes no lock, allocates nothing, raises no error. */
extern bool ruv_fetch_bank(RuvIndexCache *cache);
extern void ruv_release_bank(RuvIndexCache *cache);

/* ---- optimizer.c --------------------------------------------------------------------------- */

/* What the bank says about a query, and what the interpolation policy is asked about it. */
typedef struct RuvAdvice {
    bool asks;  /* false: one effort serves every search, and nothing is asked */
    bool known; /* a plan was made; else everything is in use */
    rv_plan_choice plan;
    rv_interpolate_input in;
    int window;       /* rows that the calibration was made for */
    double mean_work; /* distances; < 0: not known */
    uint32 lookup_distances;
} RuvAdvice;

/* Between ruv_fetch_bank and ruv_release_bank; epoch: of the index as it is; rows: how many the
 * search is asked for, 0 when nobody knows. Anything but
 * RUV_REASON_LEARNED: why the bank does not serve. Raises no error. */
extern RuvChoiceReason ruv_advise(const RuvIndexCache *cache, uint64 epoch, const float *query,
                                  uint32 rows, double target, RuvAdvice *advice);
/* The hard bounds of a search by this answer, and its slack; remembered: it begins at entry points.
 */
extern void ruv_advised_bounds(const RuvAdvice *advice, const rv_interpolation *answer,
                               int *ef_search, uint64 *max_distances);
extern double ruv_advised_slack(const RuvAdvice *advice, const rv_interpolation *answer,
                                bool remembered);

/* ---- policy_share.c ------------------------------------------------------------------------ */

/* What the cluster has for a process with a certain directory. */
typedef enum RuvPolicyState {
    RUV_POLICIES_NONE,      /* nothing: nobody has loaded yet, or there is no preloading */
    RUV_POLICIES_ELSEWHERE, /* what was loaded is of another directory */
    RUV_POLICIES_REFUSED,   /* the directory did not load */
    RUV_POLICIES_ACCEPTED
} RuvPolicyState;

typedef struct RuvAcceptedPolicies {
    RuvPolicyState state;
    uint64 generation;
    void *block; /* a copy for rv_host_import, the caller's to free; NULL: memory is short */
    Size size;
} RuvAcceptedPolicies;

/* Takes the lock, briefly; raises no error. */
extern void ruv_accepted_policies(const char *directory, RuvAcceptedPolicies *out);
/* Whether what was accepted or refused is of this directory. With preloading only. */
extern bool ruv_is_published_directory(const char *directory);
/* Puts what a host loaded (NULL: the directory was refused) in the place of what is there, if the
 * generation still is *generation, which then moves on. False: others were quicker, and what the
 * host loaded may be older than theirs. */
extern bool ruv_publish_policies(const rv_host *accepted, const char *directory,
                                 uint64 *generation);

/* ---- policy.c, policy_load.c --------------------------------------------------------------- */

/* The host of this process, at the shared generation and the present settings; NULL when memory is
 * short. */
extern rv_host *ruv_policy_host(void);
/* The host's log callback: it raises no error, and what it notes is logged after the call. */
extern void ruv_policy_remember_failure(void *ctx, const rv_host_failure *failure);
/* What policies answered before says nothing any more: others serve. */
extern void ruv_policy_forget_answers(void);

/* The policies that serve the calls that follow, until the next use: those of an index. NULL: the
 * default ones. The names must stay valid. */
extern void ruv_policy_use(const RuvPolicyNames *names);
/* Those of an index, as this session knows them. */
extern void ruv_policy_use_of(Oid index_oid);
/* Candidates that run beside them; NULL: none. The worker only. */
struct RuvShadow;
extern void ruv_policy_shadow(struct RuvShadow *shadow);

extern rv_host_cause ruv_policy_interpolate(const rv_interpolate_input *in, rv_interpolation *out);
extern rv_host_cause ruv_policy_judge(const rv_judge_input *in, rv_judgement *out);
extern rv_host_cause ruv_policy_distill(const rv_allocator *allocator, const rv_distill_input *in,
                                        rv_distill_output *out);
extern rv_host_cause ruv_policy_choose(const rv_tuning_point *points, uint32 count,
                                       rv_tuning_goal goal, rv_tuning_choice *out);
/* The built-in answers when memory is short, too. */
extern rv_host_cause ruv_policy_predict(const rv_selection_input *in, rv_selection *out);
/* A candidate beside the policy that serves an index, on a search that was traced; the worker only.
 */
struct RuvIndexState;
struct RuvSample;
extern void ruv_policy_shadow_interpolate(struct RuvIndexState *state,
                                          const struct RuvSample *sample);
/* names: the policies that serve the index, whatever ruv_policy_use says; candidates: NULL, none.
 * No round when memory is short. Raises no error by itself. */
extern rv_host_cause ruv_policy_heal(const RuvPolicyNames *names, struct RuvShadow *candidates,
                                     const rv_healing_input *in, rv_healing *out);
/* For rv_bank_learn, rv_bank_consolidate and rv_bank_prune; ctx is not used. */
extern rv_status ruv_policy_merge(void *ctx, const rv_pattern *a, const float *a_centroid,
                                  const rv_pattern *b, const float *b_centroid, uint32_t dim,
                                  double weight, rv_pattern *out, float *out_centroid,
                                  rv_error *err);
extern bool ruv_policy_keep(void *ctx, const rv_pattern *pattern);

/* Loads the directory anew, for the whole cluster; the former policies stay when that fails. */
extern rv_host_cause ruv_policy_reload(rv_host_failure *failure);
extern const char *ruv_policy_directory_path(void);
extern int64 ruv_policy_generation(void);

/* Of all processes; of this one without preloading. */
typedef struct RuvPolicyFigures {
    uint64 calls;
    uint64 failures;
    uint64 by_cause[RV_HOST_CAUSES];
    double mean_us;
    double worst_us;
} RuvPolicyFigures;
/* id NULL: of all policies of the kind, the built-in included. */
extern RuvPolicyFigures ruv_policy_figures(rv_policy_kind kind, const char *id);

/* ---- capture.c ----------------------------------------------------------------------------- */

/* The last search of this backend, for ruvector_last_search(). */
typedef struct RuvLastSearch {
    bool valid;
    Oid user_oid; /* whose search it was: nobody else is told */
    uint64 query_id[2];
    Oid index_oid;
    RuvChoice choice;
    rv_beam_stats stats;
    double latency_us;
    uint32 pages;
    uint32 k;
} RuvLastSearch;

extern const RuvLastSearch *ruv_last_search(void);
/* Whether an id was given out by this run of the server. */
extern bool ruv_is_own_query_id(const uint64 *query_id);

/* ---- rights.c ------------------------------------------------------------------------------ */

/* Whether the user may see statistics of every table: a member of pg_read_all_stats. */
extern bool ruv_reads_all_statistics(void);
/* Raises an error unless the user may SELECT from the table. */
extern void ruv_require_reader(Oid table_oid);
/* The same, or reads all statistics. */
extern void ruv_require_statistics_reader(Oid table_oid);

/* ---- sql_learning.c ------------------------------------------------------------------------ */

/* Raises an error on a standby. */
extern void ruv_require_primary(void);

/* ---- sql_search.c -------------------------------------------------------------------------- */

/* Starts the result of a function that returns rows; *descriptor describes them. */
extern struct Tuplestorestate *ruv_begin_rows(FunctionCallInfo fcinfo,
                                              struct TupleDescData **descriptor);

/* ---- hooks.c, launcher.c ------------------------------------------------------------------- */

extern void ruv_hooks_init(void);

/* rows_asked.c: once, when the library is preloaded. */
extern void ruv_rows_asked_init(void);
extern void ruv_launcher_register(void);
extern void ruv_launcher_wake_locked(void);
extern PGDLLEXPORT void ruv_launcher_main(Datum argument);
extern PGDLLEXPORT void ruv_worker_main(Datum database);

/* Raises an error that says what to add to postgresql.conf unless the library was preloaded. */
extern void ruv_require_preload(void);

#endif
