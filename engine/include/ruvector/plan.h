/*
 * plan.h - how to search one index, for every declared recall: which way, and with what effort.
 *
 * There are several ways to reach a recall: the same ef for every search, the distance-adaptive
 * stop (slack), the latter begun at the entry points of remembered queries. Which one takes the
 * least work depends on the data, the queries and the recall, so it is measured: each way is
 * calibrated on the deep traces, its work at equal recall is read off their curves (work.h), and a
 * way is taken only where it pays. What a way needs beforehand (a lookup) counts as work.
 *
 * A plan is plain data without pointers: it is stored, and copied to other processes, as it is.
 */
#ifndef RUVECTOR_PLAN_H
#define RUVECTOR_PLAN_H

#include "ruvector/bank.h"
#include "ruvector/base.h"
#include "ruvector/beam.h"
#include "ruvector/work.h"

#define RV_PLAN_VERSION 2

typedef enum rv_way {
    RV_WAY_STATIC = 0, /* one ef (for lists: probes) for every search */
    RV_WAY_SLACK = 1,  /* the distance-adaptive stop */
    RV_WAY_MEMORY = 2  /* the same, begun where remembered queries were answered */
} rv_way;

#define RV_WAYS 3

const char *rv_way_name(rv_way way); /* "static", "slack", "memory" */

/* One way at one target. */
typedef struct rv_plan_step {
    float effort; /* ef of RV_WAY_STATIC, else slack; < 0: not known */
    float recall; /* mean recall expected at this effort: of the samples' misses, miss_ratio, and
                     what their truth misses itself */
    float work;   /* mean distances at equal recall: at exactly the target, or at the best
                     reachable recall; < 0: not known */
    float limit;  /* distances after which a search ends, whatever its effort; 0: none. The effort
                     was calibrated under it */
    uint32_t
        in_reach; /* 1: traces reached the target; 0: effort is the largest that found anything */
} rv_plan_step;

typedef struct rv_plan_level {
    rv_plan_step steps[RV_WAYS];
    uint32_t way;      /* rv_way in use */
    uint32_t reserved; /* 0 */
} rv_plan_level;

typedef struct rv_plan {
    uint32_t magic;
    uint32_t version;
    uint64_t index_epoch;
    int64_t made_us;
    uint32_t k; /* rows per search of the samples */
    uint32_t samples;
    float miss_ratio;  /* what rv_plan_options had */
    float region_work; /* work with the corrections of regions over work without; 1: not measured */
    uint32_t use_regions;             /* 1: they pay */
    uint32_t reserved;                /* 0 */
    rv_plan_level levels[RV_TARGETS]; /* for rv_target_grid() */
    uint64_t checksum;
} rv_plan;

/* One traced query. The arrays of a way that was not traced are NULL: of memory, when there is
 * none. */
typedef struct rv_traced {
    const rv_effort *efforts; /* count, ascending: from the index's own entry */
    const rv_work *work;
    const rv_effort *memory_efforts; /* count: from remembered entry points */
    const rv_work *memory_work;      /* the lookup included */
    uint32_t count;                  /* true neighbours */
    double weight;                   /* > 0 */
} rv_traced;

typedef struct rv_plan_options {
    uint64_t index_epoch;
    int64_t now_us;
    uint32_t k;
    double safety;       /* standard errors of the mean recall that are added to a target */
    double miss_ratio;   /* served misses over those that the traces predicted; 1: as predicted */
    double truth_recall; /* recall of the neighbours that the samples took for the true ones, in
                            (0, 1]; 1: they are exact */
    double region_work;  /* as in rv_plan; 1 when unknown */
    double gain;         /* a way must save this share of the work to be taken, e.g. 0.01 */
    double regret;       /* a way in use is left when another saves this share, e.g. 0.02 */
} rv_plan_options;

/*
 * Calibrates every way for every target of the grid and chooses one for each. The aim is
 *   1 - (1 - min(target + safety x standard error, (1 + target) / 2) / truth_recall) / miss_ratio:
 * of the true neighbours, a share of truth_recall is among those that the samples know of.
 * former: the plan in use, of the same build of the index, or NULL. Samples without a work curve
 * calibrate, and do not count towards the work. RV_ERR_INVALID when there
 * is nothing to calibrate from.
 */
rv_status rv_plan_make(const rv_allocator *allocator, const rv_traced *samples, uint32_t count,
                       const rv_plan_options *options, const rv_plan *former, rv_plan *out,
                       rv_error *err);

/* What to do for any target: way and efforts, linear in log(1 - target) between the levels of the
 * grid; the way is that of the level at or above it. */
typedef struct rv_plan_choice {
    rv_way way;
    double effort;      /* ef or slack */
    double slack;       /* of RV_WAY_SLACK, whatever the way: for a query that resembles no
                           remembered one */
    double static_ef;   /* calibrated for this target: hard bounds are stated in it */
    double static_work; /* < 0: not known */
    double limit;       /* hard bound on the distances of a search, lookup included; 0: none */
    double expected_recall;
    bool in_reach;
} rv_plan_choice;

void rv_plan_choose(const rv_plan *plan, double target, rv_plan_choice *out);

/* How far beyond the largest k of a set its calibration is stretched. */
#define RV_PLAN_STRETCH 8

/*
 * The same from plans for several k (count >= 1, in any order) for a search that is asked for rows
 * (>= 1). The plan is that of the least k >= rows: who finds the k nearest at a recall finds the
 * nearest of them at least as well. Beyond the largest k it is that of the largest, stretched: ef
 * grows as the rows do, a slack is kept, as it only falls with k. *window: results per window,
 * the plan's k or rows, at most RV_PLAN_STRETCH times the largest k. Returns the plan.
 */
const rv_plan *rv_plan_choose_rows(const rv_plan *plans, uint32_t count, uint32_t rows,
                                   double target, rv_plan_choice *out, uint32_t *window);

/* Recall of one sample at an effort and a limit (0: none) of one way: what its trace predicts. */
double rv_traced_recall(const rv_traced *sample, rv_way way, double effort, double limit);

/* Magic, version, checksum, and every field against its range. */
rv_status rv_plan_check(const rv_plan *plan, rv_error *err);

#endif
