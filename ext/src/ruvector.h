/*
 * ruvector.h - what every file of the extension shares: the type's layout, the allocator over
 * memory contexts, the one mapper from engine status to SQLSTATE, and the settings.
 *
 * PostgreSQL differences between major versions live in compat.h and nowhere else.
 */
#ifndef RUVECTOR_EXT_H
#define RUVECTOR_EXT_H

#include "postgres.h"
#include "fmgr.h"

#include "ruvector/engine.h"
#include "compat.h"

/* The vector as stored and as sent by clients: pgvector's layout. */
typedef struct RuVector {
    int32 vl_len_; /* varlena header, do not touch directly */
    int16 dim;     /* 1 to RV_MAX_DIMENSIONS */
    int16 unused;  /* always 0 */
    float x[FLEXIBLE_ARRAY_MEMBER];
} RuVector;

#define RUVECTOR_SIZE(dim) (offsetof(RuVector, x) + sizeof(float) * (dim))
#define DatumGetRuVector(d) ((RuVector *)PG_DETOAST_DATUM(d))
#define PG_GETARG_RUVECTOR_P(n) DatumGetRuVector(PG_GETARG_DATUM(n))
#define PG_RETURN_RUVECTOR_P(v) PG_RETURN_POINTER(v)

/* A zeroed vector in the current memory context; dim is the caller's to have checked. */
extern RuVector *ruv_vector_alloc(int dim);

/* memory.c: an engine allocator over a memory context; failure is NULL, never ereport. *out lives
 * in the caller's storage. */
extern void ruv_context_allocator(MemoryContext context, rv_allocator *out);

/* error.c: RV_OK returns; anything else becomes an ereport(ERROR) with the fitting SQLSTATE and the
 * engine's message. what names the operation, for example "ruhnsw search". */
extern void ruv_check(rv_status status, const rv_error *err, const char *what);

/* ---- settings (guc.c) ---- */

typedef enum RuvIterativeScan {
    RUV_ITERATIVE_OFF,
    RUV_ITERATIVE_STRICT,
    RUV_ITERATIVE_RELAXED
} RuvIterativeScan;

/* Where an index is searched, its own storage parameters may take the place of these: effort.h. */
extern int ruv_ef_search;              /* ruvector.ef_search, 1..10000 */
extern int ruv_probes;                 /* ruvector.probes */
extern bool ruv_adaptive_search;       /* ruvector.adaptive_search */
extern double ruv_target_recall;       /* ruvector.target_recall, 0.5..1 */
extern int ruv_iterative_scan;         /* ruvector.iterative_scan (RuvIterativeScan) */
extern int ruv_max_scan_tuples;        /* ruvector.max_scan_tuples */
extern bool ruv_index_selection;       /* ruvector.index_selection */
extern bool ruv_learning_enabled;      /* ruvector.learning_enabled (sighup) */
extern double ruv_learning_rate;       /* ruvector.learning_rate */
extern int ruv_min_samples;            /* ruvector.min_samples */
extern int ruv_trajectory_buffer_size; /* ruvector.trajectory_buffer_size, cells (restart) */
extern double ruv_trajectory_sample_rate;
extern bool ruv_trajectory_anonymize;
extern int ruv_feedback_rate;     /* searches per role and minute */
extern int ruv_feedback_max_ids;  /* in one array */
extern double ruv_feedback_share; /* of a calibration, per role, 0..1 */
extern bool ruv_learned_links;
extern int ruv_consolidation_interval; /* seconds */
extern int ruv_learning_interval;      /* milliseconds */
extern double ruv_learning_budget;     /* share of one core, 0.001..1 */
extern double ruv_exact_pass_limit;    /* seconds */
extern double ruv_audit_pass_limit;    /* seconds; 0: no audits */
extern int ruv_bank_memory;            /* kB of shared memory for banks (restart) */
extern int ruv_max_learning_databases; /* rings: databases that may learn (restart) */
extern char *ruv_policy_directory;
extern bool ruv_policy_directory_is_own; /* of this session, not the cluster's */
extern int ruv_policy_fuel;
extern int ruv_policy_memory; /* kB */

/* Ranges that storage parameters share with settings. */
#define RUV_MAX_EF_SEARCH 10000
#define RUV_MAX_PROBES 32768
#define RUV_LEAST_TARGET_RECALL 0.5

extern void ruv_define_settings(void);

/* True when the library was loaded through shared_preload_libraries. */
extern bool ruv_preloaded;

#endif
