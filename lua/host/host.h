/*
 * host.h - the policy host: runs the Lua files of a policy directory as untrusted arithmetic.
 *
 * One gateway: every rv_host_* call below goes through one protected call and comes back with a
 * result, never with a Lua error or a longjmp. Policies get tables of numbers and return tables of
 * numbers; the host checks shape and range on return. JIT off, instruction budget, memory cap,
 * allow-listed environment. On any failure the call's built-in default (written in C, in the file
 * of each policy) is used, the failure is counted, and the cause with file and line is reported.
 *
 * This layer knows the engine and LuaJIT, not PostgreSQL. Not thread-safe: one host per process or
 * thread. A kernel called from a policy must not leave by longjmp.
 */
#ifndef RUVECTOR_HOST_H
#define RUVECTOR_HOST_H

#include "ruvector/engine.h"

typedef enum rv_policy_kind {
    RV_POLICY_VERDICT = 0,
    RV_POLICY_DISTILLATION = 1,
    RV_POLICY_INTERPOLATION = 2,
    RV_POLICY_RETENTION = 3,
    RV_POLICY_TUNING = 4,
    RV_POLICY_SELECTION = 5,
    RV_POLICY_HEALING = 6
} rv_policy_kind;
#define RV_POLICY_KINDS 7

/* "verdict", "distillation", ...; the file is this name plus ".lua". */
const char *rv_policy_kind_name(rv_policy_kind kind);

/* The version of what a policy of this kind gets and returns (contract.c). */
int rv_policy_contract(rv_policy_kind kind);

typedef enum rv_host_cause {
    RV_HOST_OK = 0,
    RV_HOST_MISSING = 1, /* no such file; the built-in serves; not counted as a failure */
    RV_HOST_SYNTAX = 2,
    RV_HOST_ERROR = 3,     /* a Lua error while running */
    RV_HOST_FUEL = 4,      /* the instruction budget ran out */
    RV_HOST_MEMORY = 5,    /* the memory cap was hit */
    RV_HOST_SHAPE = 6,     /* a field missing, of a wrong type or out of range */
    RV_HOST_SELF_TEST = 7, /* the policy's own self_test failed */
    RV_HOST_IO = 8         /* the file or directory cannot be read, or is too large */
} rv_host_cause;
#define RV_HOST_CAUSES 9

const char *rv_host_cause_name(rv_host_cause cause);

typedef struct rv_host_failure {
    rv_host_cause cause;
    rv_policy_kind kind;
    int line; /* 0: unknown */
    char file[256];
    char reason[512]; /* names field, value and expected range for RV_HOST_SHAPE */
} rv_host_failure;

typedef struct rv_host_options {
    const char *directory;         /* NULL: built-ins only */
    uint64_t fuel;                 /* VM instructions per call; distillation gets 100 times this */
    size_t memory;                 /* bytes for the whole Lua state; below 64 kB none opens */
    const rv_allocator *allocator; /* for everything the host allocates, Lua state included */
} rv_host_options;

#define RV_HOST_DEFAULT_FUEL 1000000
#define RV_HOST_DEFAULT_MEMORY (32 * 1024 * 1024)

typedef struct rv_host rv_host;

/* A host that serves built-ins only until rv_host_load succeeds. */
rv_status rv_host_create(const rv_host_options *options, rv_host **out, rv_error *err);
void rv_host_destroy(rv_host *host);

/*
 * Build new, self-test, swap: loads every policy file of the directory into a fresh Lua state, runs
 * each one's self_test, and only then replaces the serving state. On any failure the old state
 * keeps serving, *failure says why, and the result is its cause. A missing file is no failure.
 */
rv_host_cause rv_host_load(rv_host *host, const char *directory, rv_host_failure *failure);

/*
 * What was loaded (ids, file names, texts) as a block of bytes, for hosts of other processes of
 * this machine, which then serve the same whatever happens to the files. *size gets what it takes,
 * at most rv_host_export_limit(). RV_ERR_FULL when that is more than capacity; block NULL asks for
 * the size alone. Allocates nothing and runs no Lua.
 */
size_t rv_host_export_limit(void);
rv_status rv_host_export(const rv_host *host, void *block, size_t capacity, size_t *size,
                         rv_error *err);

/* rv_host_load from a block instead of a directory. The block is checked and copied; a damaged one
 * fails with RV_HOST_IO. */
rv_host_cause rv_host_import(rv_host *host, const void *block, size_t size,
                             rv_host_failure *failure);

/* One policy. Strings live until the next load. */
typedef struct rv_policy_info {
    rv_policy_kind kind;
    const char *id;   /* the file's name without ".lua"; the kind's name for the built-in */
    const char *name; /* declared name; "built-in" when the built-in serves */
    const char *version;
    const char *describe;
    const char *file;   /* full path; "" for built-in */
    const char *source; /* source_size bytes; NULL for built-in */
    size_t source_size;
    uint64_t calls;
    uint64_t failures; /* sum over causes; kept over reloads */
    uint64_t failures_by_cause[RV_HOST_CAUSES];
    double mean_us;
    double worst_us;
} rv_policy_info;
/* What serves a kind by default; the figures are those of all policies of the kind. */
void rv_host_info(const rv_host *host, rv_policy_kind kind, rv_policy_info *info);

/* The policies that were loaded, default ones first; the figures are each one's own, since the
 * load. which: 0 to rv_host_policy_count - 1. */
uint32_t rv_host_policy_count(const rv_host *host);
void rv_host_policy(const rv_host *host, uint32_t which, rv_policy_info *info);

/*
 * Lets the loaded policy with this id serve the calls of a kind from now on, until the next use or
 * load; id NULL: the default one. RV_HOST_MISSING when no policy of the kind has that id: then the
 * default one serves.
 */
rv_host_cause rv_host_use(rv_host *host, rv_policy_kind kind, const char *id);

/* The id of the policy that serves a kind now; NULL: the built-in. Valid until the next load. */
const char *rv_host_used(const rv_host *host, rv_policy_kind kind);

/* What the last call cost: instructions, and bytes allocated by the Lua state. Instructions are
 * counted one by one, which takes time, only while counting is on. */
typedef struct rv_host_cost {
    uint64_t instructions;
    uint64_t bytes;
} rv_host_cost;
void rv_host_set_counting(rv_host *host, bool on);
rv_host_cost rv_host_last_cost(const rv_host *host);

/* Called once for the first failure of each (kind, cause, line) since the load; may be NULL. */
typedef void (*rv_host_log_fn)(void *ctx, const rv_host_failure *failure);
void rv_host_set_log(rv_host *host, rv_host_log_fn log, void *ctx);

/* ---- verdict ---------------------------------------------------------------------------- */

/* A signal that is not known is -1 throughout. */
typedef struct rv_judge_input {
    /* the trajectory */
    double k, returned;
    double latency_us, distances, hops, pages;
    double ef_search, slack, adaptive; /* adaptive: 1 or 0 */
    double target_recall, expected_recall;
    double recall; /* measured by deep trace, tie-aware; -1 unknown */
    double score;
    double needed_distances; /* least work that would have reached the target; -1 unknown */
    double diversity;        /* mean pairwise metric distance of the results over the k-th
                                distance, clipped to [0, 1]; -1 unknown */
    /* Rows as users judged them; a row on which they disagree counts in parts. */
    double feedback_relevant, feedback_irrelevant;    /* returned rows */
    double feedback_missed_near, feedback_missed_far; /* relevant rows not returned: nearer than
                                                         the k-th result, or farther */
    /* the index's running statistics */
    double index_judged, index_latency_p50_us, index_latency_p95_us, index_mean_distances,
        index_mean_recall;
    double index_m, index_lists; /* built with; -1: not an index of that kind, or unknown */
} rv_judge_input;

#define RV_MAX_RECOMMENDATIONS 4
#define RV_RECOMMENDATION_SIZE 160

typedef struct rv_judgement {
    bool success;
    double confidence;                                                   /* 0 to 1 */
    double score_latency, score_recall, score_diversity, score_feedback; /* 0 to 1, -1 missing */
    uint32_t recommendation_count;
    char recommendations[RV_MAX_RECOMMENDATIONS][RV_RECOMMENDATION_SIZE];
} rv_judgement;

/* Always fills *out (by the built-in when the policy fails); returns what happened. */
rv_host_cause rv_host_judge(rv_host *host, const rv_judge_input *in, rv_judgement *out,
                            rv_host_failure *failure);

/* ---- interpolation ------------------------------------------------------------------------ */

#define RV_INTERPOLATE_MAX_PATTERNS 8

/* What one pattern says for the declared target. */
typedef struct rv_interpolate_pattern {
    double similarity; /* 0 to 1 */
    double slack, ef_search, probes;
    double expected_recall, confidence, samples;
} rv_interpolate_pattern;

typedef struct rv_interpolate_input {
    double k, target_recall;
    rv_interpolate_pattern defaults; /* the index-wide pattern; similarity 1 */
    uint32_t pattern_count;          /* nearest first */
    rv_interpolate_pattern patterns[RV_INTERPOLATE_MAX_PATTERNS];
} rv_interpolate_input;

typedef struct rv_interpolation {
    double slack;     /* 0 to 10 */
    double ef_search; /* 1 to 100000; in adaptive search the hard ef bound follows from it */
    double probes;    /* 1 to 100000 */
} rv_interpolation;

rv_host_cause rv_host_interpolate(rv_host *host, const rv_interpolate_input *in,
                                  rv_interpolation *out, rv_host_failure *failure);

/* ---- distillation ------------------------------------------------------------------------- */

/* One judged deep trace. Pointers are the caller's, valid during the call. */
typedef struct rv_sample {
    const float *query;       /* dim floats */
    const rv_effort *efforts; /* effort_count entries, ascending (beam.h) */
    const rv_work *work;      /* what a search costs at each effort; NULL: not known */
    uint32_t effort_count;    /* true neighbours, <= k */
    uint32_t nearest_count;   /* <= 8 */
    uint64_t nearest[8];      /* nodes, nearest first: candidates for entry points */
    double recall;            /* of the search as it was served; -1 unknown */
    double confidence;        /* of its verdict */
    double age_s;             /* seconds since the search */
    double weight;            /* 1; more or less where feedback says so */
    bool success;
} rv_sample;

typedef struct rv_distill_input {
    rv_metric metric;
    uint32_t dim;
    uint32_t k; /* the window all samples were traced with */
    const rv_sample *samples;
    uint32_t sample_count;
    double target_recall; /* for the headline figures */
    double min_samples;
    double learning_rate;
    uint64_t index_epoch;
    int64_t now_us; /* for created_us and updated_us */
    uint64_t seed;
} rv_distill_input;

typedef struct rv_distill_output {
    uint32_t count;
    rv_pattern *patterns; /* ids 0; every one passes rv_pattern_check */
    float *centroids;     /* count x dim; the row of an index-wide pattern is zero */
    double region_work;   /* work with the region patterns over work without, on samples that took
                             no part in making them; 1: not measured */
} rv_distill_output;

/* The output lives in memory of the given allocator until rv_distill_output_free. With fewer than
 * min_samples samples the built-in and the shipped policy return no patterns. */
rv_host_cause rv_host_distill(rv_host *host, const rv_allocator *allocator,
                              const rv_distill_input *in, rv_distill_output *out,
                              rv_host_failure *failure);
void rv_distill_output_free(const rv_allocator *allocator, rv_distill_output *out);

/* ---- retention ---------------------------------------------------------------------------- */

/* Signature of rv_merge_fn (bank.h) and rv_keep_fn, with the host as ctx. The policy decides the
 * numbers (slack, ef, recall, confidence, samples, weight of the centroid); the host computes the
 * centroid and checks the result. */
rv_status rv_host_merge(void *host, const rv_pattern *a, const float *a_centroid,
                        const rv_pattern *b, const float *b_centroid, uint32_t dim, double weight,
                        rv_pattern *out, float *out_centroid, rv_error *err);

typedef struct rv_keep_context {
    rv_host *host;
    int64_t now_us;
} rv_keep_context;
bool rv_host_keep(void *keep_context, const rv_pattern *pattern);

/* ---- tuning ------------------------------------------------------------------------------- */

#define RV_TUNING_MAX_POINTS 64

/* One measured setting of an index. */
typedef struct rv_tuning_point {
    double effort;    /* ef_search or probes */
    double recall;    /* mean, 0 to 1 */
    double distances; /* mean */
    double latency_us;
} rv_tuning_point;

typedef enum rv_tuning_goal {
    RV_TUNE_RECALL = 0,
    RV_TUNE_LATENCY = 1,
    RV_TUNE_BALANCED = 2
} rv_tuning_goal;
#define RV_TUNING_GOALS 3

/* "recall", "latency", "balanced". */
const char *rv_tuning_goal_name(rv_tuning_goal goal);

typedef struct rv_tuning_choice {
    uint32_t point;       /* which of the curve, from 0 */
    double target_recall; /* for adaptive searches, 0.5 to 1 */
} rv_tuning_choice;

/* points: 1 to RV_TUNING_MAX_POINTS of them, rising effort. */
rv_host_cause rv_host_choose(rv_host *host, const rv_tuning_point *points, uint32_t count,
                             rv_tuning_goal goal, rv_tuning_choice *out, rv_host_failure *failure);

/* ---- selection ---------------------------------------------------------------------------- */

/* What is known of one of two indexes on the same column. -1: unknown. */
typedef struct rv_selection_index {
    double cost;       /* of a search for k rows, in the planner's units; always known */
    double searches;   /* for about so many rows that were measured */
    double latency_us; /* their mean */
    double distances;  /* likewise */
    double recall;     /* mean, of the searches of any k that were checked */
} rv_selection_index;

typedef struct rv_selection_input {
    double k;           /* rows that the index has to give: limit / selectivity */
    double limit;       /* rows that the query wants */
    double rows;        /* of the table */
    double selectivity; /* share of the rows that the query's conditions leave, 0 to 1 */
    double target_recall;
    rv_selection_index hnsw, ivfflat;
} rv_selection_input;

/* What a search costs by either index; only their ratio matters. 1e-9 to 1e18. */
typedef struct rv_selection {
    double hnsw, ivfflat;
} rv_selection;

rv_host_cause rv_host_predict(rv_host *host, const rv_selection_input *in, rv_selection *out,
                              rv_host_failure *failure);

/* ---- healing ------------------------------------------------------------------------------ */

/* What bounds one round of learned links, whatever the policy says. */
#define RV_HEALING_MAX_QUERIES 8192
#define RV_HEALING_MAX_LINKS 32 /* of one node */

/* When a round of learned links may run, and how large. What is not known is -1; gain, which may
 * be negative, is NaN then. */
typedef struct rv_healing_input {
    double hour;                /* of the day in the server's time zone, 0 to 24 */
    double weekday;             /* 1 Monday to 7 Sunday */
    double load;                /* share of one core that searches take, 0 idle */
    double searches_per_second; /* likewise of all indexes that learn in the database */
    double idle_s;              /* since the last search of this index */
    double asked;               /* 1: somebody waits for everything to be learned; or 0 */
    double waiting;             /* queries that could ask for links */
    double used;                /* by the rounds of this build */
    double held_out;            /* queries that could judge the round */
    double min_samples;         /* of the table's learning */
    double since_round_s;       /* since the last round ended */
    double round_s;             /* processor time that it took */
    double gain;                /* 1 - distances after it / before it, at equal recall */
    double rows;                /* of the table */
    double links;               /* learned ones that a node has, mean */
    double room;                /* for learned links, of a node; always known */
    double budget;              /* share of one core that learning may take */
} rv_healing_input;

typedef struct rv_healing {
    bool run;                /* a round may begin now */
    uint32_t queries;        /* that may ask in it, oldest first; 1 to RV_HEALING_MAX_QUERIES */
    uint32_t rows_per_query; /* that are joined, at least the query's k; 2 to RV_LINKS_MAX_NODES */
    uint32_t links_per_node; /* that it may make; 1 to RV_HEALING_MAX_LINKS */
    uint32_t min_requests;   /* queries that must ask for a link; 1 to RV_HEALING_MAX_QUERIES */
    double min_gain;         /* the round stays where its gain is above; 0 to 1 */
} rv_healing;

rv_host_cause rv_host_heal(rv_host *host, const rv_healing_input *in, rv_healing *out,
                           rv_host_failure *failure);

#endif
