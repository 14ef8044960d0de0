/*
 * effort.h - how hard to search an index and what recall to aim at, when nobody has learned better.
 *
 * Three places can say it, and the most deliberate one wins:
 *   1. the session: SET, SET LOCAL, a function's SET clause, options of the connection
 *   2. the index's own storage parameters (ef_search or probes, target_recall), which
 *      ruvector_auto_tune() sets
 *   3. the server: postgresql.conf, ALTER DATABASE and ALTER ROLE, the built-in default
 */
#ifndef RUVECTOR_EFFORT_H
#define RUVECTOR_EFFORT_H

#include "ruvector.h"
#include "utils/guc.h"

/* Storage parameters of one index; 0: not set. */
typedef struct RuvOwnEffort {
    int ef_search; /* ruhnsw */
    int probes;    /* ruivfflat */
    double target_recall;
} RuvOwnEffort;

extern int ruv_effective_ef_search(const RuvOwnEffort *own);
extern int ruv_effective_probes(const RuvOwnEffort *own);
extern double ruv_effective_target_recall(const RuvOwnEffort *own);

/* An error unless target_recall is 0 or a recall that can be declared. */
extern void ruv_check_own_target(double target_recall);

/* Hooks of the three settings, which remember where their values come from (guc.c). */
extern bool ruv_check_int_source(int *value, void **extra, GucSource source);
extern bool ruv_check_real_source(double *value, void **extra, GucSource source);
extern void ruv_assign_ef_search(int value, void *extra);
extern void ruv_assign_probes(int value, void *extra);
extern void ruv_assign_target_recall(double value, void *extra);

#endif
