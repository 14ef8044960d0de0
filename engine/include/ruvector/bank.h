/*
 * bank.h - the ReasoningBank of one index: patterns in memory, found by nearness, merged,
 * consolidated, pruned, flattened for shared memory, and exchanged as JSON.
 *
 * There is one index-wide pattern (scope RV_PATTERN_INDEX, no centroid): the calibration that holds
 * everywhere. Region patterns correct it near their centroid.
 *
 * A pattern holds its calibration as a table over a fixed grid of recall targets, since the target
 * is declared per query: slack[i] and ef[i] reach recall RV_TARGET_GRID[i].
 */
#ifndef RUVECTOR_BANK_H
#define RUVECTOR_BANK_H

#include "ruvector/base.h"
#include "ruvector/distance.h"
#include "ruvector/beam.h"

#define RV_TARGETS 12
#define RV_PATTERN_ENTRY_POINTS 8
#define RV_BANK_MAX_PATTERNS 100000
#define RV_BANK_JSON_VERSION 1
#define RV_BANK_FLAT_VERSION 2
#define RV_BANK_EXACT_LIMIT 512 /* up to so many region patterns every lookup is exact */
#define RV_BANK_JSON_MAX_BYTES (128 * 1024 * 1024)
#define RV_BANK_JSON_MAX_VALUES (16 * 1024 * 1024) /* numbers, strings, arrays, objects */
#define RV_BANK_JSON_MAX_DEPTH 8

/* 0.50 0.70 0.80 0.85 0.90 0.93 0.95 0.97 0.98 0.99 0.995 0.999 */
const double *rv_target_grid(void);

typedef enum rv_pattern_scope { RV_PATTERN_INDEX = 0, RV_PATTERN_REGION = 1 } rv_pattern_scope;

typedef struct rv_pattern {
    uint64_t id;          /* unique in the bank, > 0; 0 on store = assign the next */
    uint64_t index_epoch; /* the build of the index that was measured */
    uint64_t usage;       /* searches that used it */
    int64_t created_us;   /* microseconds since the PostgreSQL epoch */
    int64_t updated_us;
    uint32_t scope;             /* rv_pattern_scope */
    uint32_t k;                 /* the window the calibration was made for, >= 1 */
    uint32_t samples;           /* deep traces behind it */
    uint32_t optimal_ef_search; /* headline figures, at the target the worker was set to; >= 1 */
    uint32_t optimal_probes;    /* >= 1 */
    float target_recall;        /* that target, 0.5 to 1 */
    float slack;                /* finite, >= 0 */
    float expected_recall;      /* measured recall at that slack on the samples, 0 to 1 */
    float confidence;           /* 0 to 1 */
    float radius;               /* metric distance that holds 90% of the samples; 0 for index-wide;
                                   finite, >= 0 */
    float mean_distances;       /* mean distance computations at that slack; finite, >= 0 */
    uint32_t entry_count;       /* at most RV_PATTERN_ENTRY_POINTS */
    float table_slack[RV_TARGETS];  /* non-decreasing, finite, >= 0 */
    uint32_t table_ef[RV_TARGETS];  /* non-decreasing, >= 1 */
    float table_recall[RV_TARGETS]; /* recall reached on the samples with table_slack; below the
                                       grid's target where that is out of reach; 0 to 1 */
    uint64_t entry_points[RV_PATTERN_ENTRY_POINTS]; /* nodes of the index */
} rv_pattern;

/* Slack, ef (rounded up) or recall of a pattern for any target: linear in log(1 - target) between
 * grid points, the first row below 0.5, the last row beyond 0.999. */
float rv_pattern_slack_at(const rv_pattern *pattern, double target);
uint32_t rv_pattern_ef_at(const rv_pattern *pattern, double target);
float rv_pattern_recall_at(const rv_pattern *pattern, double target);

/* Every field against its documented range; message names the field, value and range. */
rv_status rv_pattern_check(const rv_pattern *pattern, rv_error *err);

typedef struct rv_bank rv_bank;

/* dim is 1 to RV_MAX_DIMENSIONS, max_patterns (index-wide one included) 1 to RV_BANK_MAX_PATTERNS.
 * The allocator must outlive the bank. */
rv_status rv_bank_create(const rv_allocator *allocator, rv_metric metric, uint32_t dim,
                         uint32_t max_patterns, rv_bank **out, rv_error *err);
void rv_bank_destroy(rv_bank *bank);
uint32_t rv_bank_count(const rv_bank *bank);
uint32_t rv_bank_dim(const rv_bank *bank);
rv_metric rv_bank_metric(const rv_bank *bank);
/* Pattern number i (0 <= i < count) and its centroid (NULL for index-wide); valid until the next
 * change. Order: the index-wide pattern first if there is one, then by id. */
const rv_pattern *rv_bank_get(const rv_bank *bank, uint32_t i, const float **centroid);
const rv_pattern *rv_bank_index_pattern(const rv_bank *bank); /* NULL if there is none */

/*
 * Adds a pattern as it is (checked; entry points beyond entry_count are set to 0). A second
 * index-wide pattern, or an id that is taken, replaces the former. centroid: dim floats, finite,
 * copied; NULL for index-wide. RV_ERR_FULL when the bank has max_patterns. id may be NULL. On any
 * failure the bank is as it was.
 */
rv_status rv_bank_put(rv_bank *bank, const rv_pattern *pattern, const float *centroid, uint64_t *id,
                      rv_error *err);
/* RV_ERR_NOTFOUND when there is none of that id. */
rv_status rv_bank_remove(rv_bank *bank, uint64_t id, rv_error *err);

/* How two patterns become one; a policy in the server, rv_pattern_merge by default. a is the older;
 * weight is the share of b in the result. centroids: dim floats, all NULL for index-wide patterns;
 * out_centroid may be a_centroid. The bank keeps id, scope, k and epoch of a, whatever out says,
 * and refuses an out that fails rv_pattern_check. */
typedef rv_status (*rv_merge_fn)(void *ctx, const rv_pattern *a, const float *a_centroid,
                                 const rv_pattern *b, const float *b_centroid, uint32_t dim,
                                 double weight, rv_pattern *out, float *out_centroid,
                                 rv_error *err);
/*
 * The default: figures and centroid are weighted means, rounded for integers, samples and usage are
 * sums, entry points are b's and then a's without repeats, created_us the earlier, updated_us the
 * later. Headline figures made for different targets are read off the merged table at b's.
 */
rv_status rv_pattern_merge(void *ctx, const rv_pattern *a, const float *a_centroid,
                           const rv_pattern *b, const float *b_centroid, uint32_t dim,
                           double weight, rv_pattern *out, float *out_centroid, rv_error *err);

/*
 * Learns one pattern: merged into the nearest region pattern of the same k and epoch whose cosine
 * similarity (L2, L1: 1 - d / (d + radius), with the larger radius of the two, so that it does not
 * depend on their order; 1 when d is 0) is at least similarity, with weight =
 * max(learning_rate, samples_new / (samples_old + samples_new)); otherwise put. The index-wide
 * pattern merges with the index-wide one of the same k and epoch, and replaces any other. A merged
 * pattern keeps the id of the older. merge NULL: rv_pattern_merge. learning_rate and similarity are
 * 0 to 1. Always an exact scan. On failure the bank is as it was.
 */
rv_status rv_bank_learn(rv_bank *bank, const rv_pattern *pattern, const float *centroid,
                        double learning_rate, double similarity, rv_merge_fn merge, void *merge_ctx,
                        uint64_t *id, rv_error *err);

typedef struct rv_bank_match {
    const rv_pattern *pattern;
    const float *centroid;
    float similarity; /* cosine, or 1 - d / (d + radius) for L2 and L1; 0 to 1 */
    float distance;   /* metric form; for IP and COSINE the chord, sqrt(2 - 2 cos) */
} rv_bank_match;

/* How far a query lies outside of the region that it was matched with: 0 within the radius, beyond
 * it 1 - radius / distance, which goes to 1. */
float rv_bank_match_outside(const rv_bank_match *match);

/*
 * The up to k nearest region patterns, nearest first (ties by id): exact up to RV_BANK_EXACT_LIMIT
 * region patterns, by an HNSW above. The index is rebuilt lazily after changes, so the first lookup
 * may take longer. Patterns of an IP bank are compared by cosine: a region is a set of directions.
 * out has room for k; its pointers are valid until the next change.
 */
rv_status rv_bank_lookup(rv_bank *bank, const float *query, uint32_t k, rv_bank_match *out,
                         uint32_t *count, rv_error *err);

/*
 * Merges region patterns of the same k and epoch pairwise, each with the one most like it, while
 * any two are at least similarity alike (rv_bank_learn); weight = samples_b / (samples_a +
 * samples_b). a is the one created first. *merged counts, also when a merge fails and ends it
 * early: what was merged until then stays. merge NULL: rv_pattern_merge.
 */
rv_status rv_bank_consolidate(rv_bank *bank, double similarity, rv_merge_fn merge, void *merge_ctx,
                              uint32_t *merged, rv_error *err);

/* A bank of its own with the index-wide pattern and the regions that were used most, the younger of
 * equals: at most so many. */
rv_status rv_bank_most_used(const rv_bank *bank, const rv_allocator *allocator, uint32_t regions,
                            rv_bank **out, rv_error *err);

/* Drops region patterns for which keep returns false, all after the last call of keep. *pruned
 * counts. */
typedef bool (*rv_keep_fn)(void *ctx, const rv_pattern *pattern);
rv_status rv_bank_prune(rv_bank *bank, rv_keep_fn keep, void *ctx, uint32_t *pruned, rv_error *err);

/* A search that was traced on the index as it is: its efforts, as of a deep trace. */
typedef struct rv_traced_search {
    const float *query; /* dim */
    const rv_effort *efforts;
    uint32_t count; /* true neighbours; 0 says nothing */
    uint32_t k;
} rv_traced_search;

#define RV_RECERTIFY_INDEX 30  /* searches that check an index-wide pattern */
#define RV_RECERTIFY_REGION 10 /* searches within its radius that check a region */

typedef struct rv_recertified {
    uint32_t taken;   /* patterns that hold now, made wider where they had to be */
    uint32_t dropped; /* regions that nothing could check */
} rv_recertified;

/*
 * Checks priors, patterns of another epoch than the given one, against searches that were traced on
 * this epoch's build. Once RV_RECERTIFY_INDEX searches of its k are there, the index-wide prior is
 * widened until the searches say that it reaches its recalls, and gets the epoch; then each region
 * likewise by the searches within its radius, or is dropped where there are too few. Widening
 * multiplies 1 + slack, and ef, by one factor for the whole table: few searches tell one number
 * well and a table badly. Rows whose misses are too rare to show in so many neighbours do not take
 * part in finding it. table_recall becomes what was measured. An index-wide pattern of the epoch
 * needs no check: priors are then regions only. Does nothing while there are too few searches. On
 * failure the bank is valid; some priors may have been taken.
 */
rv_status rv_bank_recertify(rv_bank *bank, uint64_t epoch, int64_t now_us,
                            const rv_traced_search *searches, uint32_t count, rv_recertified *out,
                            rv_error *err);

/*
 * The flat form: one relocatable buffer (offsets, no pointers), checksummed, that is searched in
 * place. rv_bank_flatten writes at most capacity bytes; *size always gets the need (RV_ERR_FULL
 * when capacity is less; buffer may be NULL when capacity is 0). The buffer must be aligned to 8
 * bytes, 64 is faster. src/bank/flat.h describes the format.
 */
rv_status rv_bank_flatten(rv_bank *bank, void *buffer, size_t capacity, size_t *size,
                          rv_error *err);
/* A bank of its own from a flat buffer; every offset, count, range and the checksum is verified. */
rv_status rv_bank_unflatten(const rv_allocator *allocator, const void *buffer, size_t size,
                            rv_bank **out, rv_error *err);
/* Lookup and index-wide pattern straight in a flat buffer that rv_bank_flat_check has accepted.
 * The allocator serves the call's scratch memory, all given back; distances (NULL is allowed) gets
 * the number of distances that the lookup computed. */
rv_status rv_bank_flat_check(const void *buffer, size_t size, rv_error *err);
rv_status rv_bank_flat_lookup(const void *buffer, const rv_allocator *allocator, const float *query,
                              uint32_t k, rv_bank_match *out, uint32_t *count, uint32_t *distances,
                              rv_error *err);
const rv_pattern *rv_bank_flat_index_pattern(const void *buffer);
uint32_t rv_bank_flat_count(const void *buffer);

/*
 * JSON, format version RV_BANK_JSON_VERSION. Export: a NUL-terminated string from the allocator,
 * *size its length. Numbers are written so that a round trip is exact (64-bit integers as strings).
 * Import checks everything before it builds anything: the message gives the path
 * ($.patterns[3].slack), the value and the reason. Limits: RV_BANK_JSON_MAX_BYTES, _MAX_VALUES,
 * _MAX_DEPTH, RV_BANK_MAX_PATTERNS. While importing, cJSON holds the parsed text in libc's memory
 * (80 bytes a value), not the allocator's: its hooks are global. text needs no NUL at its end.
 */
rv_status rv_bank_to_json(const rv_bank *bank, const rv_allocator *allocator, char **text,
                          size_t *size, rv_error *err);
rv_status rv_bank_from_json(const rv_allocator *allocator, const char *text, size_t size,
                            rv_bank **out, rv_error *err);

#endif
