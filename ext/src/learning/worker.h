/*
 * worker.h - what the files of the background worker share: its view of an index, its samples, and
 * the tables.
 */
#ifndef RUVECTOR_LEARNING_WORKER_H
#define RUVECTOR_LEARNING_WORKER_H

#include "learning/learning_internal.h"

#include "executor/spi.h"
#include "index_api.h"

/* Sampled searches that wait for their deep trace, per index; further ones replace one at random.
 */
#define RUV_MAX_CANDIDATES 4096
/* Searches in one pass over the table. */
#define RUV_MAX_BATCH 512
/* Share of the searches that is traced once min_samples were: those that are held out from learned
 * links, links.c. */
#define RUV_TRACE_SHARE 0.25
/* Samples of one k that are traced again when memory or links have changed. Twice as many would
 * bring the standard error of a recall of 0.99 from 0.0011 to 0.0008. */
#define RUV_RETRACE_MOST 1000
/* Share of the others that is traced and judged all the same, so that a query that comes again and
 * again is seen whichever side it is on. */
#define RUV_JUDGED_SHARE 0.05
/* Share of the searches that ask for learned links. */
#define RUV_LINK_SHARE 0.6
/* The largest slack that a trace goes on to. */
#define RUV_TRACE_SLACK 3.0f
/* ... and never less than this, whatever else decides which searches are traced: certificates rest
 * on such even draws. */
#define RUV_CHECK_SHARE 0.01
/* How alike two region patterns are that become one. */
#define RUV_MERGE_SIMILARITY 0.8
/* Region patterns that distillation leaves; more cost every search more than they gain. */
#define RUV_MAX_PLANS 8 /* of one index: for so many numbers of rows */
#define RUV_MAX_REGIONS 16
/* Patterns that a bank takes. */
#define RUV_BANK_LIMIT 1000
/* The epoch of a pattern whose calibration is not known to hold; no index has it. */
#define RUV_EPOCH_UNKNOWN 0
/* Searches behind the running statistics that a verdict compares with. */
#define RUV_RUNNING 512

/* What users said of one search, all roles together; see feedback_join.c. */
typedef struct RuvSampleFeedback {
    float relevant; /* returned rows; one on which roles disagree counts in parts */
    float irrelevant;
    float missed_near;
    float missed_far;
    Oid role;                    /* who said so first: whose share its weight comes out of */
    struct ArrayType *roles;     /* the rows of ruvector_feedback that are in here, and their */
    struct ArrayType *revisions; /* revisions; NULL: loaded with the sample */
    bool judged;                 /* the sample's verdict knows of it */
    bool stored;                 /* with the sample, in the tables */
} RuvSampleFeedback;

/* One search: a candidate before its deep trace, a sample for calibration after it. */
typedef struct RuvSample {
    rv_trajectory head; /* as it was served; dim floats in query */
    float *query;       /* as the index compares it */
    rv_hit *hits;       /* what it returned; NULL once stored, or when loaded from the table */
    bool retrace;       /* served by a former build: hits and verdict say nothing any more */
    float recall;       /* of the search as served; -1 unknown */
    bool exact;         /* measured against every row, not against a search of large effort */
    bool drawn;         /* for calibration, whatever the search was */
    bool even;          /* drawn, and asked for no link that is there: speaks for all searches */
    float truth_bound;  /* raw distance of the last true neighbour; NaN: not known any more */
    float needed_distances;     /* least work that would have reached its target; -1 unknown */
    float diversity;            /* -1 unknown */
    rv_effort *efforts;         /* as a search with the present memory would find them */
    rv_work work;               /* of such a search, the lookup included */
    rv_effort *descent_efforts; /* from the index's own entry; NULL when loaded from the table */
    rv_work descent_work;
    float score;          /* in-search score from the index's own entry; < 0: not read */
    bool far;             /* no remembered query was near when it was traced */
    uint64 traced_graph;  /* graph_version and memory_version of the state when it was traced: */
    uint64 traced_memory; /* what differs is out of date */
    bool stale; /* out of date and not traced again, since newer ones are enough: has no weight */
    bool held_out; /* its query judges learned links and asks for none: links.c */
    double
        aged_s; /* seconds that the sample counts as older than it is: what it says is outdated */
    uint32 effort_count;
    uint32 nearest_count;
    uint64 nearest[8];
    rv_judgement verdict;
    RuvSampleFeedback *feedback; /* NULL: none */
    float proof;    /* weight of a proven index miss in the next calibration, on top of its own */
    bool stored;    /* a row of ruvector_trajectory_log holds it */
    bool asks;      /* drawn to ask for links, should its query be on the side that does */
    bool for_links; /* a candidate of which only the true neighbours are wanted */
} RuvSample;

typedef struct RuvRunning {
    float latency_us[RUV_RUNNING];
    float distances[RUV_RUNNING];
    uint64 count; /* ever added */
} RuvRunning;

/* Sums over searches of one mode since learning was enabled. */
typedef struct RuvTotals {
    uint64 searches;
    double distances;
    double latency_us;
    uint64 checked; /* searches whose recall was measured */
    double recall;
} RuvTotals;
/* The nearest rows of a search that asks for learned links. */
typedef struct RuvLinkQuery {
    int count;
    int k;           /* that the search asked for */
    bool are_nodes;  /* ids are nodes, 0 unknown; else heap positions, block << 16 | offset */
    uint64 ended_at; /* node nearest to the query of what was returned instead; 0: some was right */
    uint64 ids[FLEXIBLE_ARRAY_MEMBER]; /* nearest first */
} RuvLinkQuery;

typedef struct RuvLinking {
    List *queries;       /* of RuvLinkQuery: they wait for a round */
    uint64 noted;        /* that came since the last round, or have waited longer */
    uint64 used;         /* queries that rounds of this build used */
    bool linked;         /* links of a round are in the graph */
    bool renewed;        /* the graph, since the samples were traced */
    TimestampTz changed; /* when links last came or went: searches of before say nothing of now */
    uint64 resets;       /* of the slot's, that the worker knows of */
    bool reset;          /* links were taken away by hand: their rounds are to be marked */
    bool unfinished;     /* a round was cut short: its links are to be taken away */
    bool due;            /* a round, as decided at the beginning of this turn */
    rv_healing answer;   /* of the healing policy, when it was last asked; see healing.c */
    uint64 links;        /* that rounds of this build left in the graph */
    TimestampTz ended;   /* the last round of this build; 0: none yet */
    double seconds;      /* processor time that it took; 0: not known */
    bool judged;         /* its gain is known */
    double gain;
} RuvLinking;

/* Searches that a policy called a success, of those whose recall is known; sums. */
typedef struct RuvShadowSuccesses {
    uint64 count;
    double recall;
    double distances;
} RuvShadowSuccesses;

/* What a candidate did since the figures were last saved. */
typedef struct RuvShadowFigures {
    uint64 calls;
    uint64 failures; /* of these: no answer that keeps the contract */
    uint64 same;     /* of these: the answer of the policy that serves */
    uint64 missing;  /* not called: no such file any more */
    RuvShadowSuccesses active;
    RuvShadowSuccesses candidate;
} RuvShadowFigures;

/* What is known of the reference searches of an index; see audit.c. */
typedef struct RuvAudit {
    List *searches;  /* for the next audit, oldest first */
    double earned;   /* seconds of passes with reference searches since the last one */
    double cost;     /* seconds of the last one, before it about what it will take; 0: not known */
    double checks;   /* reference searches that were compared, of former audits less than all */
    double recall;   /* sum over these */
    bool changed;    /* the two, since they were stored */
    double given_up; /* the ruvector.audit_pass_limit that ended one, of this build; 0: none did */
} RuvAudit;

typedef struct RuvShadow {
    RuvPolicyNames names; /* "": no candidate of this kind */
    RuvShadowFigures figures[RV_POLICY_KINDS];
} RuvShadow;
/* What drift.c looks at. */
#define RUV_DRIFT_RECENT 100
typedef struct RuvDrift {
    bool far[RUV_DRIFT_RECENT]; /* of the last sampled queries: unlike every remembered one */
    uint32 query_count;
    uint32 query_at;
    uint64 former_far; /* of the samples of the last calibration */
    uint64 former_count;
    float gaps[RUV_DRIFT_RECENT]; /* of the last checks: recall less its target */
    uint32 recall_count;
    uint32 recall_at;
    int calibrated;    /* samples of the last calibration, the first of the list */
    double blocks;     /* of the table, about when the plan was made; 0: not known */
    bool relearn;      /* an alarm was raised and not learned from yet */
    TimestampTz since; /* that alarm */
} RuvDrift;

/* What the worker knows of one index that learns. */
typedef struct RuvIndexState {
    Oid index_oid;
    Oid table_oid;
    NameData index_name;
    int window; /* samples that are kept */
    double learning_rate;
    int min_samples;
    bool keep_queries; /* false: no vector or hash of a query goes into any table; privacy.c */
    RuvIndexIdentity identity;
    double rows; /* of the table, at the last sync */
    RuvIndexSlot *slot;
    bool locked;              /* by others, when it should be loaded */
    RuvExtraction extraction; /* how the last one ended, until the slot tells it */
    uint64 failed_ticket;     /* of the extraction in which a round failed; 0: none did */
    bool loaded;              /* from the tables; what follows is then valid */
    MemoryContext context;    /* everything below */
    rv_allocator allocator;   /* over it */
    rv_bank *bank;            /* NULL: nothing learned */
    bool bank_changed;        /* since it was published */
    uint64 bank_revision;     /* of the slot when the bank was loaded (bank_edit.h) */
    rv_memory *memory;        /* of queries; NULL: none yet */
    char *flat_memory;        /* what samples are traced with and searches use; NULL: none yet */
    size_t flat_memory_size;
    bool memory_changed;   /* flat_memory since it was stored */
    bool memory_renewed;   /* flat_memory since the last distillation */
    uint64 memory_version; /* goes up with every new flat_memory */
    uint64 graph_version;  /* goes up when learned links come or go */
    bool vectors_stored;   /* rows or region patterns of this index may hold vectors of queries */
    List *samples;         /* of RuvSample, oldest first */
    uint32 memory_limit;   /* queries there is room for in shared memory; 0: not known */
    TimestampTz publish_again; /* there was no room at all; 0: published */
    List *dismissed;           /* query ids of samples whose rows, if any, are to go */
    uint64 samples_ever;       /* that were added */
    uint64 recertified_with;   /* samples_ever when priors were last checked */
    List *candidates;          /* of RuvSample */
    int feedback_waiting;      /* samples whose feedback is not in their verdict yet */
    int in_flight;             /* candidates taken for a pass whose round has not ended */
    uint64 candidates_seen;    /* since the last round; for the reservoir */
    uint64 sampled;            /* candidates ever taken for this build */
    uint64 adaptive_seen;      /* adaptive searches since usage was last written to the bank */
    uint64 trajectories;
    uint64 judged;
    RuvTotals totals[2];      /* of static and of adaptive searches */
    uint32 undistilled;       /* samples with a weight since the last distillation */
    uint32 distilled_samples; /* that calibrated in the last distillation */
    double learning_seconds;
    TimestampTz last_learned;
    TimestampTz consolidated;
    TimestampTz last_drained;
    TimestampTz next_pass; /* fixed costs of a pass are spread, see learn.c */
    TimestampTz next_distil;
    TimestampTz retry_after; /* after an error */
    int consecutive_errors;
    TimestampTz guard_since;      /* of the last widening */
    rv_plan plans[RUV_MAX_PLANS]; /* by k, that of the most common one first; see plans.c */
    int plan_count;
    bool plan_changed; /* since it was stored */
    RuvDrift drift;
    TimestampTz memory_published; /* since when searches use the present flat memory */
    /* By k, against those that traces predicted, over the same searches. */
    double served_misses[RV_TRAJECTORY_MAX_HITS + 1];
    double predicted_misses[RV_TRAJECTORY_MAX_HITS + 1];
    List *checks; /* for the certificate, not stored yet: see certificate.c */
    List *falls;  /* below a target, effort raised */
    RuvAudit audit;
    RuvLinking linking;
    RuvRunning running;
    RuvShadow shadow; /* policies that run beside those that serve */
    bool seen;        /* by the present sync */
} RuvIndexState;

/* The whole worker. */
typedef struct RuvWorker {
    int database_slot;
    rv_ring *ring;
    char *record; /* room for the largest record */
    size_t record_capacity;
    List *indexes;             /* of RuvIndexState */
    bool stale;                /* the configuration, or a relation, is no more what was read */
    TimestampTz extract_until; /* a forced round is for searches that began before this */
    rv_rate searches;          /* of all indexes that learn, as they come out of the ring */
    rv_rate search_seconds;    /* the time they took */
    rv_prng prng;
    TimestampTz last_drain;
    MemoryContext context;
} RuvWorker;

extern RuvWorker ruv_worker;

/* An open connection to the extension's tables, as their owner and with a safe search_path. */
typedef struct RuvStore {
    char schema[NAMEDATALEN * 2 + 3]; /* quoted */
    Oid vector_type;
    Oid former_user;
    int former_security;
    int settings_level;
} RuvStore;

/* ---- drain.c ------------------------------------------------------------------------------- */

/* Empties the ring into the candidates. Callable at any time: no transaction, no error. */
extern void ruv_worker_drain(void);
/* The same when it has not been done for a while, and CHECK_FOR_INTERRUPTS: for long loops. */
extern void ruv_worker_breathe(void);
/* After the configuration was read: records that had to wait for it. wait: what is still unknown
 * may belong to an index that could not be read. */
extern void ruv_observe_parked(bool wait);

/* ---- worker.c ------------------------------------------------------------------------------ */

/* One round of one index; an error stays in here and shows in consecutive_errors. Returns whether
 * the round took place. */
extern bool ruv_worker_learn(RuvIndexState *state, bool force);
/* True when a session has asked for the configuration to be read. */
extern bool ruv_configuration_waits(void);
/* Takes over settings and configuration as they are now. False: there is nothing to learn. */
extern bool ruv_worker_follow_configuration(void);
/* Processor time of this process, in seconds. */
extern double ruv_processor_seconds(void);

/* ---- index_states.c ------------------------------------------------------------------------ */

/* The state of an index that learns; NULL when it does not. */
extern RuvIndexState *ruv_state_find(Oid index_oid);
/* Forgets what the tables can tell again. */
extern void ruv_state_unload(RuvIndexState *state);
/* Takes over what the configuration says of an index; its state is made when there is none. The
 * index is marked as seen unless too many learn. */
extern void ruv_state_configure(const RuvIndexState *configured);
/* Drops the states that were not seen, and their places in shared memory. */
extern void ruv_states_forget_unseen(void);
/* Loads an index from its tables unless it is loaded, or begins anew when it was built anew since.
 * False: the index is locked or gone. */
extern bool ruv_state_refresh(RuvStore *store, RuvIndexState *state);

/* ---- extract.c ----------------------------------------------------------------------------- */

#define RUV_EXTRACT_IDLE (60 * 60 * 1000L)

/* Learns everything for those who wait in ruvector_extract_patterns(), and lets them go. Returns
 * the milliseconds after which to call it again: RUV_EXTRACT_IDLE unless something is in the way.
 */
extern long ruv_extract_now(void);
/* True while anybody waits there. */
extern bool ruv_extraction_waits(void);

/* ---- samples.c ----------------------------------------------------------------------------- */

extern RuvSample *ruv_sample_create(RuvIndexState *state, const rv_trajectory *head,
                                    const float *query, const rv_hit *hits);
extern void ruv_sample_free(RuvSample *sample);
/* How old a sample counts as, in seconds. */
extern double ruv_sample_age(const RuvSample *sample, TimestampTz now);
/* A search that the ring delivered: counted, and taken as a candidate if the draw says so. */
extern void ruv_state_observe(RuvIndexState *state, const rv_trajectory *head, const float *query,
                              const rv_hit *hits);
extern void ruv_state_add_candidate(RuvIndexState *state, RuvSample *sample);
extern void ruv_state_add_sample(RuvIndexState *state, RuvSample *sample);
/* How many samples calibrate by themselves. */
extern int ruv_calibrating_samples(const RuvIndexState *state);
/* The index was built anew: what is left are the queries, which wait to be traced again. */
extern void ruv_state_start_over(RuvIndexState *state, const RuvIndexIdentity *identity);
extern void ruv_state_publish_figures(RuvIndexState *state);
/* Fills the index's side of a verdict's input. */
extern void ruv_running_fill(const RuvIndexState *state, rv_judge_input *in);

struct RuvStore;

/* ---- totals.c ------------------------------------------------------------------------------ */

extern void ruv_totals_observe(RuvIndexState *state, const rv_trajectory *head);
extern void ruv_totals_judged(RuvIndexState *state, const RuvSample *sample);
/* With, and after, the row of the index's state. */
extern void ruv_totals_load(struct RuvStore *store, RuvIndexState *state);
extern void ruv_totals_save(struct RuvStore *store, const RuvIndexState *state);

/* ---- privacy.c ----------------------------------------------------------------------------- */

/* Whether vectors of queries may be stored, remembered and averaged into patterns. */
extern bool ruv_keeps_queries(const RuvIndexState *state);
/* A keyed hash of the query, as bytea. False: none is kept. */
extern bool ruv_query_hash(const RuvIndexState *state, const RuvSample *sample, Datum *out);
/* Whether vectors are stored that may not be any more. */
extern bool ruv_privacy_due(const RuvIndexState *state);
/* The two steps that take them back: what the worker and searches have, then the tables' rows. */
extern void ruv_privacy_start_over(RuvIndexState *state, const RuvIndexIdentity *identity);
extern void ruv_privacy_erase(struct RuvStore *store, RuvIndexState *state);

/* ---- remember.c ---------------------------------------------------------------------------- */

/* Remembers where a query was answered. Callable at any time: no error. */
extern void ruv_remember(RuvIndexState *state, const rv_trajectory *head, const float *query,
                         const rv_hit *hits);
extern void ruv_forget_memory(RuvIndexState *state);
/* Publishes bank and memory. Where there is no room for the memory, fewer queries are remembered
 * from now on: the next round calibrates with them, and what was published before serves until
 * then. */
extern void ruv_state_publish(RuvIndexState *state);
/* True when the flat form should be made anew. */
extern bool ruv_memory_due(const RuvIndexState *state, bool paused);
/* Makes it anew; the samples must then be traced again and distilled before it is published. */
extern void ruv_memory_flatten(RuvIndexState *state);
/* From a stored flat form. False when it is damaged or does not fit the index. */
extern bool ruv_memory_restore(RuvIndexState *state, const char *flat, size_t size);
/* Entry points for tracing a query, as a search would get them had the query not been seen. */
extern void ruv_memory_entry_points(const RuvIndexState *state, const float *query,
                                    rv_memory_match *match);

/* ---- recertify.c --------------------------------------------------------------------------- */

/* True when patterns of another build wait and searches came since they were last checked. */
extern bool ruv_recertify_due(const RuvIndexState *state);
/* Checks them against the samples. Raises errors for lack of memory. */
extern void ruv_recertify(RuvIndexState *state);

/* ---- learn.c, trace.c, distil.c ------------------------------------------------------------ */

/* True when there is work that should be done now; force: any work at all, with searches that began
 * before ruv_worker.extract_until. Decides whether the next round is one of links. */
extern bool ruv_learn_due(RuvIndexState *state, TimestampTz now, bool force);
/* One round: of links, in transactions of its own, or in one transaction: trace and judge a batch,
 * distil, store, publish. Raises errors; the caller cleans up. Returns false when nothing was done:
 * somebody else has a lock, or nothing was due. */
extern bool ruv_learn_round(RuvIndexState *state, bool force);

/* Finds the true neighbours of a batch and traces every search of it. Stops early (returns the
 * number of samples done) when somebody waits for a lock on the table. Inside a transaction with an
 * active snapshot. */
extern int ruv_trace_batch(RuvIndexState *state, Relation table, Relation index, RuvSample **batch,
                           int count);
/* Traces one sample again, on the present graph and with the present memory, as far as that has
 * changed since it was traced, and enough is kept of it. */
extern void ruv_retrace_sample(RuvIndexState *state, Relation table, Relation index,
                               RuvSample *sample);
/* The same for the samples that calibrate, the newest RUV_RETRACE_MOST of each k. Older ones are
 * stale from then on. */
extern void ruv_retrace_samples(RuvIndexState *state, Relation table, Relation index);
/* How many searches one pass over this table should take. */
extern int ruv_batch_limit(Relation table, int dim);
/* False: the truth about searches of this table comes from reference searches. */
extern bool ruv_exact_affordable(Relation table, int dim);
/* Opens table and index of a state with AccessShareLock, if nobody holds or waits for a conflicting
 * lock. False: it could not; what is not NULL then is open all the same. */
extern bool ruv_worker_open(const RuvIndexState *state, Relation *table, Relation *index);

/* Whether enough samples of one k calibrate. */
extern bool ruv_distillable(const RuvIndexState *state);
/* Calibrates over the samples and merges into the bank. False: too few samples of one k. */
extern bool ruv_distil(RuvIndexState *state);
extern void ruv_consolidate(RuvIndexState *state);

/* ---- bank_edit.c --------------------------------------------------------------------------- */

/* The bank's lock: held to the end of the transaction by whoever changes an index's patterns, be it
 * the worker's round or a session (bank_edit.h). */
extern void ruv_bank_lock(Oid index_oid);
/* False when somebody else has it. */
extern bool ruv_bank_try_lock(Oid index_oid);

/* ---- plans.c ------------------------------------------------------------------------------- */

/* The target, or as much of it as the plan for k rows can reach. */
extern double ruv_plan_reachable(const RuvIndexState *state, uint32 k, double target);
/* How far the curves of work of a trace should go. */
extern void ruv_work_goals(const RuvIndexState *state, float *slack, uint32 *ef);
/* Compares a served search with what its trace predicted for it. */
extern void ruv_plan_note_served(RuvIndexState *state, const RuvSample *sample);
/* Makes the plans anew, where there are enough samples: that of k, then of other common ones.
 * region_work: see rv_plan_options; of k. */
extern void ruv_make_plan(RuvIndexState *state, uint32 k, double region_work);
extern void ruv_store_save_plans(RuvStore *store, RuvIndexState *state);
extern void ruv_store_load_plans(RuvStore *store, RuvIndexState *state);
/* Returns how many; 0 when the bytea holds no sound plans. */
extern int ruv_plans_from_datum(Datum value, rv_plan *plans);

/* ---- drift.c ------------------------------------------------------------------------------- */

/* A sampled query, when it comes out of the ring. No transaction, no error. */
extern void ruv_drift_note_query(RuvIndexState *state, const float *query);
/* A traced and judged sample; then the whole after a pass over the table; then after a calibration.
 */
extern void ruv_drift_note_sample(RuvIndexState *state, const RuvSample *sample);
extern void ruv_drift_after_pass(RuvIndexState *state, Relation table);
extern void ruv_drift_calibrated(RuvIndexState *state);
/* An alarm was raised, and enough samples came since to learn anew. */
extern bool ruv_drift_relearning_due(const RuvIndexState *state);

/* ---- guard.c ------------------------------------------------------------------------------- */

/* More effort for every search of the index from now on, until a calibration was made from enough
 * searches that came later. Call it with every finding: a further call adds to the widening, up to
 * a limit, once searches were judged that came after the former one. evidence: a sentence for the
 * log. Cheap; no transaction, no error. */
extern void ruv_guard_widen(RuvIndexState *state, RuvGuardReason reason, const char *evidence);
/* After a calibration: takes the widening back if there is enough evidence. */
extern void ruv_guard_learned(RuvIndexState *state);

/* ---- costs.c ------------------------------------------------------------------------------- */

/* The mean recall of the checked searches, for the planner. */
extern void ruv_costs_publish_recall(RuvIndexState *state);
/* After the row of the index's state. */
extern void ruv_costs_save(RuvStore *store, const RuvIndexState *state);
extern void ruv_costs_load(RuvStore *store, RuvIndexState *state);

/* ---- certificate.c ------------------------------------------------------------------------- */

/* Keeps the recall of a judged search if it counts for the certificate. */
extern void ruv_certificate_note(RuvIndexState *state, const RuvSample *sample);
/* Keeps the exact recall of any search for it. */
extern void ruv_certificate_add(RuvIndexState *state, double target, int k, TimestampTz searched_at,
                                float recall);
/* Stores what was kept; raises effort where it shows recall below a target. */
extern void ruv_certificate_save(RuvStore *store, RuvIndexState *state);
/* The index was built anew. */
extern void ruv_certificate_forget(RuvIndexState *state);

/* ---- audit.c ------------------------------------------------------------------------------- */

/* Keeps a search that was drawn for the next audit, where there are any. No error. */
extern void ruv_audit_note(RuvIndexState *state, const RuvSample *sample);
/* Counts the processor time of a batch with reference searches. */
extern void ruv_audit_earn(RuvIndexState *state, Relation table, double seconds);
extern bool ruv_audit_due(RuvIndexState *state, TimestampTz now);
/* Does one, in a transaction of its own. Raises errors; the caller cleans up. False: somebody else
 * has a lock. */
extern bool ruv_audit(RuvIndexState *state);
/* Mean recall of the reference searches themselves, above 0; 1 while nothing is known of it. */
extern double ruv_reference_recall(const RuvIndexState *state);
/* Recall of a search whose recall was measured: less what a reference search that it was measured
 * with misses itself. */
extern double ruv_true_recall(const RuvIndexState *state, const RuvSample *sample);
/* The index was built anew. */
extern void ruv_audit_forget(RuvIndexState *state);
extern void ruv_audit_load(RuvStore *store, RuvIndexState *state);
/* After the row of the index's state. */
extern void ruv_audit_save(RuvStore *store, RuvIndexState *state);

/* ---- rows.c -------------------------------------------------------------------------------- */

/* A row of a function's result, all null at first. */
typedef struct RuvRow {
    TupleDesc descriptor;
    Datum *values;
    bool *nulls;
} RuvRow;

extern RuvRow ruv_row_start(TupleDesc descriptor);
extern void ruv_row_set(RuvRow *row, const char *name, Datum value);
extern void ruv_row_set_int(RuvRow *row, const char *name, uint64 value);
extern void ruv_row_set_float(RuvRow *row, const char *name, double value);
extern void ruv_row_set_text(RuvRow *row, const char *name, const char *value);
/* Copies every column of a row of the last statement that the result has under the same name. */
extern void ruv_row_copy(RuvRow *row, uint64 source);
/* recall_low and recall_high, from mean_recall over recalls searches in a row of the last
 * statement: an interval of 95%. */
extern void ruv_row_set_recall_interval(RuvRow *row, uint64 source);

/* ---- feedback_join.c, feedback_weight.c ----------------------------------------------------- */

/* True when there may be feedback that no sample knows of yet. */
extern bool ruv_feedback_due(TimestampTz now);
/* Joins it to the samples and candidates, in a transaction of its own; a search that was not
 * sampled becomes a candidate. Raises errors. */
extern void ruv_feedback_join(void);
/* True when the last join left some that there was no room for, or no loaded index. */
extern bool ruv_feedback_left(void);
/* Read all of it again: samples were loaded anew. */
extern void ruv_feedback_reread(void);
/* Stores the verdicts that feedback has changed. */
extern void ruv_feedback_save(RuvStore *store, const RuvIndexState *state);
/* After the transaction has committed: notes that they are stored, and drops samples beyond what
 * feedback of one role may fill. */
extern void ruv_feedback_saved(RuvIndexState *state);
extern void ruv_feedback_free(RuvSampleFeedback *feedback);
/* Sets proof in all samples of this k. */
extern void ruv_feedback_weigh(RuvIndexState *state, uint32 k);
/* What a sample weighs in a calibration; 0: it takes no part. */
extern double ruv_sample_weight(const RuvSample *sample);
/* Whether it can have a weight. */
extern bool ruv_sample_calibrates(const RuvSample *sample);

/* ---- policy_choice.c, shadow.c ------------------------------------------------------------- */

/* -1: there is no such kind. */
extern int ruv_policy_kind_by_name(const char *name);
/* The policies chosen for the whole database. */
extern void ruv_policy_choices_of_database(RuvStore *store, RuvPolicyNames *names);
/* Reads the choices of policies and tells every index of the list (of RuvIndexState) its own. */
extern void ruv_policy_choices_sync(RuvStore *store, List *states);

/* Follows these candidates from now on; figures of others begin anew. */
extern void ruv_shadow_follow(RuvShadow *shadow, const RuvPolicyNames *names);
/* Ask the candidate, if there is one (shadow NULL: there is none), compare with what the serving
 * policy answered, count. No effect on anything else. */
extern void ruv_shadow_judge(RuvShadow *shadow, rv_host *host, const rv_judge_input *in,
                             const rv_judgement *active);
extern void ruv_shadow_distill(RuvShadow *shadow, rv_host *host, const rv_allocator *allocator,
                               const rv_distill_input *in, const rv_distill_output *active);
extern void ruv_shadow_keep(RuvShadow *shadow, rv_host *host, int64 now_us,
                            const rv_pattern *pattern, bool active);
/* What the searches would be that both answers make of a traced search: its trace tells. */
extern void ruv_shadow_interpolate(RuvIndexState *state, rv_host *host, const RuvSample *sample);
extern void ruv_shadow_heal(RuvShadow *shadow, rv_host *host, const rv_healing_input *in,
                            const rv_healing *active);
/* Adds the figures to their rows; they begin anew once the transaction has committed. */
extern void ruv_shadow_save(RuvStore *store, const RuvIndexState *state);
extern void ruv_shadow_saved(RuvIndexState *state);

/* ---- store.c, store_samples.c, store_patterns.c, store_values.c ----------------------------- */

/* False when the extension is not there, or older than its library. Needs a transaction. */
extern bool ruv_store_open(RuvStore *store);
/* The same for SQL functions: an error that says what to do. */
extern void ruv_store_open_or_fail(RuvStore *store);
extern void ruv_store_close(RuvStore *store);
/* Runs a statement in which "@." stands for the extension's schema. Returns the rows processed. */
extern uint64 ruv_store_run(RuvStore *store, const char *text, int count, Oid *types, Datum *values,
                            const char *nulls);
extern SPIPlanPtr ruv_store_prepare(RuvStore *store, const char *text, int count, Oid *types);
/* A column of a result row of the last statement; *null may be NULL when there can be none. */
extern Datum ruv_store_value(uint64 row, int column, bool *null);
/* The same by the column's name. */
extern Datum ruv_store_named(uint64 row, const char *name, bool *null);

/* The indexes of the extension that are there at one moment, an oid[] that lives as long as the
 * store is open. What follows takes statements, each of which sees what was committed before it;
 * all go by this, so that an index which is dropped, or made again under its name, meanwhile is not
 * half seen. */
extern Datum ruv_store_indexes(RuvStore *store);
/* Which tables and indexes, of these, learn; the callback gets a state with the configured fields
 * set. */
typedef void (*ruv_store_index_fn)(const RuvIndexState *configured);
extern void ruv_store_list_indexes(RuvStore *store, Datum indexes, ruv_store_index_fn each);
extern uint64 ruv_store_count_tables(RuvStore *store);
/* Of a table for which learning is enabled. */
extern double ruv_store_learning_rate(RuvStore *store, Oid table_oid);
/* Adopts rows of indexes that were made anew under their name, removes rows of what is gone and is
 * not one of these. */
extern void ruv_store_tidy(RuvStore *store, Datum indexes);
/* The name of this database, as text. */
extern Datum ruv_store_home(void);
extern void ruv_store_forget_table(RuvStore *store, Oid table_oid, bool configuration);

extern void ruv_store_load_state(RuvStore *store, RuvIndexState *state);
extern void ruv_store_save_state(RuvStore *store, const RuvIndexState *state);
extern void ruv_store_load_samples(RuvStore *store, RuvIndexState *state);
extern void ruv_store_save_samples(RuvStore *store, RuvIndexState *state);
extern void ruv_store_load_patterns(RuvStore *store, RuvIndexState *state);
extern void ruv_store_save_patterns(RuvStore *store, RuvIndexState *state);
/* Loads the patterns again when a session has changed them since; a round or the reading of the
 * configuration begins with it. */
extern void ruv_store_follow_patterns(RuvStore *store, RuvIndexState *state);
extern void ruv_store_load_memory(RuvStore *store, RuvIndexState *state);
extern void ruv_store_save_memory(RuvStore *store, RuvIndexState *state);

/* The two halves of a query id as a uuid, and back. */
extern Datum ruv_query_id_datum(const uint64 *query_id);
extern void ruv_query_id_halves(Datum value, uint64 *query_id);
/* A verdict's recommendations as text[]. */
extern Datum ruv_recommendations_datum(const rv_judgement *verdict);
/* ---- sql_learning.c ------------------------------------------------------------------------ */

/* Raises an error in recovery. */
extern void ruv_require_primary(void);
/* The same oid, if the caller owns the table (or is a superuser); raises an error otherwise. */
extern Oid ruv_own_table(Oid table_oid);
/* Raises an error unless learning is enabled for the table. */
extern void ruv_require_enabled(Oid table_oid);
/* The indexes of ruvector of a table, as oids. */
extern List *ruv_own_indexes(Relation table);

#endif
