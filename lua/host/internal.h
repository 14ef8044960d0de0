/*
 * internal.h - what the files of the policy host share; nothing outside lua/host includes it.
 *
 * The host in layers, each using only those above it:
 *   sandbox.c      one Lua state: capped memory, instruction budget, the protected call
 *   environment.c  the allow-list of names that a policy sees
 *   files.c        the files of a directory and their text
 *   sources.c      the same out of a block of bytes, and into one
 *   contract.c     versions of what each kind of policy gets and returns
 *   library.c      the modules that a policy may require
 *   load.c         policy files into a fresh state, self-tests, rebuild
 *   gateway.c      rv_host itself: create, swap, call a policy, count and report failures
 *   marshal.c      numbers into tables, tables into checked numbers
 *   verdict.c, interpolation.c, distillation.c, retention.c, tuning.c, selection.c,
 *   healing.c      one policy each: its arguments, its result, its built-in default
 *   batch.c        the arithmetic of distillation over many samples, without Lua
 *   kernels.c      that arithmetic as the functions that distillation.lua calls
 */
#ifndef RUVECTOR_HOST_INTERNAL_H
#define RUVECTOR_HOST_INTERNAL_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>
#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>

#include "host/host.h"

/* ---- sandbox.c ---------------------------------------------------------------------------- */

/* Instructions between two looks at the budget, unless they are being counted; also how far a call
 * may overrun it. */
#define RV_FUEL_TICK 1000

struct rv_batch;

/* A job runs inside the protected call; it may raise Lua errors at any point. */
typedef void (*rv_job)(lua_State *L, void *data);

typedef struct rv_sandbox {
    lua_State *L;
    rv_allocator allocator;
    size_t used; /* bytes held by the Lua state */
    size_t cap;
    char *nursery; /* one block for what a new state takes at its birth */
    size_t nursery_used;
    bool opening;

    /* the call that runs */
    rv_job job;
    void *job_data;
    int64_t fuel;        /* instructions left */
    uint64_t fuel_given; /* for the message */
    int tick;            /* instructions between two looks at the budget */
    uint64_t allocated;  /* bytes, in this call */
    int64_t started_ns;
    int64_t deadline_ns;

    /* how it failed */
    rv_host_cause raised; /* set by whoever raises on the host's behalf, else RV_HOST_OK */
    int line;
    char reason[512];

    int trampoline; /* registry references */
    int handler;
    int require; /* 0 before rv_library_open */
    jmp_buf panic;
    bool broken;            /* a panic happened: the state must not be used again */
    struct rv_batch *batch; /* the samples of the distillation that runs, else NULL */
} rv_sandbox;

/* A state with JIT off and no library reachable. NULL when memory does not suffice. */
rv_sandbox *rv_sandbox_create(const rv_allocator *allocator, size_t cap);
void rv_sandbox_destroy(rv_sandbox *sandbox);

/*
 * Runs job(L, data) in one protected call with a budget of fuel instructions. Returns RV_HOST_OK or
 * the cause; then sandbox->line and sandbox->reason tell more. Never raises, never leaves by
 * longjmp. After a memory failure a full collection has been done.
 */
rv_host_cause rv_sandbox_run(rv_sandbox *sandbox, uint64_t fuel, rv_job job, void *data);

/* Takes work that C does, in the worth of instructions, from the budget of the call that runs;
 * raises RV_HOST_FUEL when that or the time is gone. */
void rv_sandbox_charge(lua_State *L, uint64_t instructions);

/* The sandbox that a Lua state belongs to. */
rv_sandbox *rv_sandbox_of(lua_State *L);

/* Raises a failure with the given cause from within a job. line 0: where the policy is now. */
_Noreturn void rv_sandbox_raise(lua_State *L, rv_host_cause cause, int line, const char *format,
                                ...) __attribute__((format(printf, 4, 5)));

/* Keeps a Lua error message as the reason, its "file.lua:12:" as the line. */
void rv_sandbox_note(rv_sandbox *sandbox, const char *message);

int64_t rv_clock_ns(void);

/* ---- environment.c ------------------------------------------------------------------------ */

/* Pushes a fresh environment for one policy. */
void rv_environment_push(lua_State *L);

/* Replaces the table on top by a read-only view of it; what names it in error messages. */
void rv_readonly(lua_State *L, const char *what);

/* ---- library.c ---------------------------------------------------------------------------- */

/* Job: makes the modules of a state; the environments that follow offer them. data is not used. */
void rv_library_open(lua_State *L, void *data);

/* ---- files.c ------------------------------------------------------------------------------ */

#define RV_POLICY_MAX_FUNCTIONS 2
#define RV_POLICY_MAX_BYTES (256 * 1024)
#define RV_POLICY_MAX_FILES 64
#define RV_POLICY_MAX_ID 63
#define RV_POLICY_MAX_PATH 4096 /* of a file's full name */

typedef struct rv_counters {
    uint64_t calls;
    uint64_t timed;
    uint64_t failures[RV_HOST_CAUSES];
    double total_us;
    double worst_us;
} rv_counters;

/* One policy as loaded. source == NULL: no file, the built-in serves. */
typedef struct rv_policy {
    char id[RV_POLICY_MAX_ID + 1]; /* the file's name without ".lua" */
    rv_policy_kind kind;           /* RV_POLICY_KINDS: not known before the chunk has run */
    char name[64];
    char version[32];
    char describe[512];
    char *file;   /* full path */
    char *source; /* kept so that a state can be rebuilt without reading again */
    size_t source_size;
    int table; /* registry references into the serving state */
    int functions[RV_POLICY_MAX_FUNCTIONS];
    int lines[RV_POLICY_MAX_FUNCTIONS]; /* where each is defined, for shape failures */
} rv_policy;

/* What serves between two loads. */
typedef struct rv_serving {
    rv_sandbox *sandbox;
    uint32_t loaded_count;
    rv_policy loaded[RV_POLICY_MAX_FILES];
    rv_counters counters[RV_POLICY_MAX_FILES]; /* of each loaded policy */
    int defaults[RV_POLICY_KINDS];             /* which of them serves by default; -1: none */
    int used[RV_POLICY_KINDS];                 /* which of them serves each kind; -1: none */
    rv_policy policies[RV_POLICY_KINDS];       /* these: copies that share text and references */
    int interpolate_arguments;                 /* registry references, see interpolation.c */
    int kernels;
} rv_serving;

/* Lists and reads the files of a directory into serving->loaded. */
bool rv_files_read(const rv_host *host, const char *directory, rv_serving *serving,
                   rv_host_failure *failure);
void rv_files_free(const rv_host *host, rv_serving *serving);

/* Whether a policy may be named so; id may go on beyond length. */
bool rv_policy_valid_id(const char *id, size_t length);
/* The kind of a default file; RV_POLICY_KINDS: an alternative. */
rv_policy_kind rv_policy_kind_by_id(const char *id);
/* The order of loading, by kind and id. */
int rv_policy_compare(const void *a, const void *b);

/* ---- sources.c ---------------------------------------------------------------------------- */

/* Checks a block of rv_host_export and copies its policies into serving->loaded. */
bool rv_sources_read(const rv_host *host, const void *block, size_t size, rv_serving *serving,
                     rv_host_failure *failure);

/* ---- contract.c --------------------------------------------------------------------------- */

/* What a version changed; NULL: there is no such version. */
const char *rv_policy_contract_change(rv_policy_kind kind, int version);

/* ---- load.c ------------------------------------------------------------------------------- */

/* The Lua names of a kind's functions, e.g. "judge"; NULL beyond the last. */
const char *rv_policy_function_name(rv_policy_kind kind, int which);

/* Reads, compiles, runs and self-tests; NULL with *failure filled when anything fails. */
rv_serving *rv_serving_load(const rv_host *host, const char *directory, rv_host_failure *failure);
/* The same from a block of rv_host_export. */
rv_serving *rv_serving_import(const rv_host *host, const void *block, size_t size,
                              rv_host_failure *failure);
void rv_serving_destroy(const rv_host *host, rv_serving *serving);

/* Makes a loaded policy (-1: the built-in) the one that serves a kind. */
void rv_serving_use(rv_serving *serving, rv_policy_kind kind, int which);
/* The loaded policy of this kind and id; -1: none. */
int rv_serving_find(const rv_serving *serving, rv_policy_kind kind, const char *id);

/* A new state from the kept sources, after the old one became unusable. False: it could not, and
 * serving is only good for rv_serving_destroy. */
bool rv_serving_rebuild(const rv_host *host, rv_serving *serving);

/* ---- gateway.c ---------------------------------------------------------------------------- */

#define RV_LOGGED_MAX 64

struct rv_host {
    rv_allocator allocator;
    uint64_t fuel;
    int tick; /* see rv_host_set_counting */
    size_t memory;
    char *directory;
    rv_serving *serving; /* NULL: built-ins only */
    rv_counters counters[RV_POLICY_KINDS];
    rv_host_log_fn log;
    void *log_ctx;
    struct {
        rv_policy_kind kind;
        int used; /* which of the loaded policies */
        rv_host_cause cause;
        int line;
    } logged[RV_LOGGED_MAX];
    uint32_t logged_count;
};

/* The fuel of one call of a kind. */
uint64_t rv_host_fuel(const rv_host *host, rv_policy_kind kind);

/* Fills a failure; file may be NULL. failure may be NULL. */
void rv_failure_set(rv_host_failure *failure, rv_host_cause cause, rv_policy_kind kind,
                    const char *file, int line, const char *reason);

/*
 * The one way into a policy: runs job under the gateway. RV_HOST_MISSING when no policy of this
 * kind is loaded. Anything but RV_HOST_OK: the caller uses its built-in.
 */
rv_host_cause rv_gateway_call(rv_host *host, rv_policy_kind kind, rv_job job, void *data,
                              rv_host_failure *failure);

/* ---- marshal.c ---------------------------------------------------------------------------- */

/* Where a result came from, so that a shape failure can name it. */
typedef struct rv_origin {
    const rv_policy *policy;
    rv_policy_kind kind;
    int which; /* number of the function */
} rv_origin;

/* table[field] = value for the table on top. Unknown (negative or NaN) is nil in rv_set_signal. */
void rv_set_number(lua_State *L, const char *field, double value);
void rv_set_signal(lua_State *L, const char *field, double value);
void rv_set_floats(lua_State *L, const char *field, const float *values, uint32_t count);

/* Calls the function of origin with the nargs values on top and leaves one table there, or raises
 * RV_HOST_SHAPE when the result is no table. */
void rv_call_for_table(lua_State *L, const rv_origin *origin, int nargs);

/* table[field] of the table at index, checked: a number (no string) from low to high. */
double rv_get_number(lua_State *L, const rv_origin *origin, int index, const char *path,
                     const char *field, double low, double high);
double rv_get_integer(lua_State *L, const rv_origin *origin, int index, const char *path,
                      const char *field, double low, double high);
bool rv_get_boolean(lua_State *L, const rv_origin *origin, int index, const char *path,
                    const char *field);
/* An array of exactly count numbers from low to high that never fall. */
void rv_get_rising(lua_State *L, const rv_origin *origin, int index, const char *path,
                   const char *field, uint32_t count, double low, double high, double *out);
/* Raises unless the table at index has only the given fields (a NULL-terminated list). */
void rv_only_fields(lua_State *L, const rv_origin *origin, int index, const char *path,
                    const char *const *fields);
/* Raises RV_HOST_SHAPE in the name of origin. */
_Noreturn void rv_shape(lua_State *L, const rv_origin *origin, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The nearest value from low to high; low for NaN. */
double rv_clamp(double value, double low, double high);

/* Sets the headline fields (slack, optimal_ef_search, expected_recall) from the tables. */
void rv_pattern_headline(rv_pattern *pattern);

/* ---- interpolation.c ---------------------------------------------------------------------- */

/* Builds the argument tables that every call reuses; a job. data: rv_serving. */
void rv_interpolation_prepare(lua_State *L, void *serving);

/* ---- batch.c ------------------------------------------------------------------------------ */

#define RV_MAX_CLUSTERS 256

typedef struct rv_need {
    double value;      /* least slack or ef that finds one true neighbour; INFINITY: none */
    double cumulative; /* weight of this and all before */
} rv_need;

typedef enum rv_effort_kind { RV_NEED_SLACK = 0, RV_NEED_EF = 1 } rv_effort_kind;

/* The samples of one distillation. Group 0 is all of them, group c >= 1 is cluster c. */
typedef struct rv_batch {
    const rv_distill_input *in;
    rv_allocator allocator;
    double *weights;                        /* per sample; 0 leaves it out */
    uint32_t clusters;                      /* 0 before rv_batch_cluster */
    float *centroids;                       /* clusters x dim */
    uint32_t *assignment;                   /* per sample, from 0 */
    uint32_t *order;                        /* samples sorted by cluster */
    uint32_t *starts;                       /* clusters + 1 offsets into order */
    rv_need *needs[2][RV_MAX_CLUSTERS + 1]; /* sorted, made when first asked for */
    size_t need_counts[2][RV_MAX_CLUSTERS + 1];
} rv_batch;

rv_status rv_batch_init(rv_batch *batch, const rv_allocator *allocator, const rv_distill_input *in,
                        rv_error *err);
void rv_batch_free(rv_batch *batch);

/* New weights, all finite and >= 0. */
void rv_batch_weigh(rv_batch *batch, const double *weights);
/* k-means over the queries of all samples; replaces former clusters. clusters: 1 to
 * RV_MAX_CLUSTERS. RV_ERR_CANCELLED after deadline_ns (rv_clock_ns). */
rv_status rv_batch_cluster(rv_batch *batch, uint32_t clusters, uint32_t iterations,
                           int64_t deadline_ns, rv_error *err);
/* Samples of a group that take part. */
uint32_t rv_batch_size(const rv_batch *batch, uint32_t group);

/*
 * The least effort that finds the share target of the true neighbours of the group, each sample
 * counting with its weight whatever its number of neighbours; INFINITY when out of reach or the
 * group is empty. highest: the largest finite one instead (0 when nothing was found).
 */
rv_status rv_batch_quantile(rv_batch *batch, rv_effort_kind kind, uint32_t group, double target,
                            double *out, rv_error *err);
rv_status rv_batch_highest(rv_batch *batch, rv_effort_kind kind, uint32_t group, double *out,
                           rv_error *err);

/* Mean recall of the group at a slack, and the standard error of that mean. slacks: one per
 * cluster, every sample searched with its own cluster's. */
void rv_batch_recall(const rv_batch *batch, uint32_t group, double slack, double *mean,
                     double *error);
void rv_batch_recall_by_cluster(const rv_batch *batch, const double *slacks, double *mean,
                                double *error);
/* Mean distance computations when the last neighbour within the slack is found. */
double rv_batch_distances(const rv_batch *batch, uint32_t group, double slack);
/* Mean distance computations of searches that stop by this slack, each sample at its own cluster's
 * in the second; negative when no sample of the group has a curve of work. */
double rv_batch_work(const rv_batch *batch, uint32_t group, double slack);
double rv_batch_work_by_cluster(const rv_batch *batch, const double *slacks);
/* Metric distance to the centroid that holds this share of the group; 0 for group 0. */
rv_status rv_batch_radius(const rv_batch *batch, uint32_t group, double share, double *out,
                          rv_error *err);
/* The nodes that are most often among the nearest of the group's samples. Returns how many. */
rv_status rv_batch_entry_points(const rv_batch *batch, uint32_t group, uint32_t limit,
                                uint64_t *nodes, uint32_t *count, rv_error *err);

/* ---- kernels.c ---------------------------------------------------------------------------- */

/* Pushes the read-only table of kernels; they work while sandbox->batch is set. */
void rv_kernels_push(lua_State *L);

#endif
