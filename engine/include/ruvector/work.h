/*
 * work.h - the work of one search as a function of its effort, read off one deep trace.
 *
 * A best-first search with a smaller effort only ends sooner, so the run that shows which effort
 * finds which neighbour also shows how many distances each effort costs: those that were computed
 * when the rule would have stopped. The curve is kept at the points of two fixed grids, one of
 * slack and one of ef (for lists: probes).
 */
#ifndef RUVECTOR_WORK_H
#define RUVECTOR_WORK_H

#include "ruvector/base.h"

#define RV_WORK_SLACKS 28
#define RV_WORK_EFS 24
#define RV_WORK_UNKNOWN UINT32_MAX

typedef struct rv_work {
    uint32_t slack[RV_WORK_SLACKS]; /* distances when the rule {window = k, slack} stops, for the
                                       slacks of the grid; never falls; RV_WORK_UNKNOWN: the trace
                                       ended before */
    uint32_t ef[RV_WORK_EFS];       /* likewise for {window = ef, slack = 0} */
} rv_work;

/* The grids, ascending: slack 0, 0.004, and then a quarter more each time, to 1.32; ef the powers
 * of the square root of 2, rounded up, to 4096. */
const float *rv_work_slack_grid(void);
const uint32_t *rv_work_ef_grid(void);

/* Everything unknown. */
void rv_work_clear(rv_work *work);

/* Adds the same number of distances to every known point: a lookup before the search. */
void rv_work_add(rv_work *work, uint32_t distances);

/*
 * Distances at any effort: linear between grid points, in log effort and log distances beyond the
 * last known one. Negative when nothing is known.
 */
double rv_work_at_slack(const rv_work *work, double slack);
double rv_work_at_ef(const rv_work *work, double ef);

/*
 * Filling a curve while a trace runs. note: the next step takes this slack and this ef; distances
 * were computed until now. done: both goals were passed, so that the trace may end. finish: it
 * ended because nothing was left to visit, so every larger effort costs the same.
 */
typedef struct rv_work_meter {
    rv_work *work; /* NULL: nothing is noted */
    uint32_t slack_at;
    uint32_t ef_at;
    float slack_goal;
    uint32_t ef_goal;
    float slack; /* noted last */
    uint32_t ef;
} rv_work_meter;

void rv_work_meter_start(rv_work_meter *meter, rv_work *work, float slack_goal, uint32_t ef_goal);
void rv_work_meter_note(rv_work_meter *meter, float slack, uint32_t ef, uint64_t distances);
bool rv_work_meter_done(const rv_work_meter *meter);
void rv_work_meter_finish(rv_work_meter *meter, uint64_t distances);

#endif
