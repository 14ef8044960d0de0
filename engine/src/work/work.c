/*
 * work.c - the curve from effort to work: its grids, filling it, reading it.
 */
#include "ruvector/work.h"

#include <math.h>
#include <string.h>

static const float slack_grid[RV_WORK_SLACKS] = {
    0.000000f, 0.004000f, 0.005000f, 0.006250f, 0.007812f, 0.009766f, 0.012207f,
    0.015259f, 0.019073f, 0.023842f, 0.029802f, 0.037253f, 0.046566f, 0.058208f,
    0.072760f, 0.090949f, 0.113687f, 0.142109f, 0.177636f, 0.222045f, 0.277556f,
    0.346945f, 0.433681f, 0.542101f, 0.677626f, 0.847033f, 1.058791f, 1.323489f,
};

static const uint32_t ef_grid[RV_WORK_EFS] = {
    1,  2,   3,   4,   6,   8,   12,  16,   23,   32,   46,   64,
    91, 128, 182, 256, 363, 512, 725, 1024, 1449, 2048, 2897, 4096,
};

const float *
rv_work_slack_grid(void)
{
    return slack_grid;
}

const uint32_t *
rv_work_ef_grid(void)
{
    return ef_grid;
}

void
rv_work_clear(rv_work *work)
{
    memset(work, 0xFF, sizeof *work);
}

static void
add_known(uint32_t *values, int count, uint32_t distances)
{
    for (int i = 0; i < count && values[i] != RV_WORK_UNKNOWN; i++)
        values[i] = values[i] < RV_WORK_UNKNOWN - 1 - distances ? values[i] + distances
                                                                : RV_WORK_UNKNOWN - 1;
}

void
rv_work_add(rv_work *work, uint32_t distances)
{
    add_known(work->slack, RV_WORK_SLACKS, distances);
    add_known(work->ef, RV_WORK_EFS, distances);
}

/* ---- reading ------------------------------------------------------------------------------- */

/* The value beyond the last known point, by the slope of the curve's last stretch on logarithmic
 * scales; work never falls, and hardly grows faster than the square of an effort. */
static double
extrapolate(const double *grid, const uint32_t *values, int known, double effort)
{
    double last = values[known - 1];
    int from = known - 1;
    double slope = 1.0;

    while (from > 0 && grid[from] > grid[known - 1] / 2)
        from--;
    if (from < known - 1 && grid[from] > 0 && values[from] > 0)
        slope = log(last / values[from]) / log(grid[known - 1] / grid[from]);
    slope = fmin(fmax(slope, 0.0), 2.0);
    if (!(grid[known - 1] > 0))
        return last;
    return last * pow(effort / grid[known - 1], slope);
}

static double
read_curve(const double *grid, const uint32_t *values, int count, double effort)
{
    int known = 0;
    int at = 0;

    while (known < count && values[known] != RV_WORK_UNKNOWN)
        known++;
    if (known == 0)
        return -1.0;
    while (at < known && grid[at] <= effort)
        at++;
    if (at == 0)
        return values[0];
    if (at < known) {
        double share = (effort - grid[at - 1]) / (grid[at] - grid[at - 1]);

        return values[at - 1] + share * ((double)values[at] - (double)values[at - 1]);
    }
    return effort > grid[known - 1] ? extrapolate(grid, values, known, effort) : values[known - 1];
}

double
rv_work_at_slack(const rv_work *work, double slack)
{
    double grid[RV_WORK_SLACKS];

    for (int i = 0; i < RV_WORK_SLACKS; i++)
        grid[i] = (double)slack_grid[i];
    return read_curve(grid, work->slack, RV_WORK_SLACKS, slack);
}

/* No search costs less than one with the trace's window and no slack, which points of the grid
 * below the window cannot tell. */
static double
least_work(const rv_work *work)
{
    return work->slack[0] == RV_WORK_UNKNOWN ? -1.0 : (double)work->slack[0];
}

double
rv_work_at_ef(const rv_work *work, double ef)
{
    double grid[RV_WORK_EFS];

    for (int i = 0; i < RV_WORK_EFS; i++)
        grid[i] = (double)ef_grid[i];
    return fmax(read_curve(grid, work->ef, RV_WORK_EFS, ef), least_work(work));
}

/* ---- filling ------------------------------------------------------------------------------- */

void
rv_work_meter_start(rv_work_meter *meter, rv_work *work, float slack_goal, uint32_t ef_goal)
{
    memset(meter, 0, sizeof *meter);
    meter->work = work;
    meter->slack_goal = slack_goal;
    meter->ef_goal = ef_goal;
    if (work != NULL)
        rv_work_clear(work);
}

void
rv_work_meter_note(rv_work_meter *meter, float slack, uint32_t ef, uint64_t distances)
{
    uint32_t done = distances < RV_WORK_UNKNOWN ? (uint32_t)distances : RV_WORK_UNKNOWN - 1;

    meter->slack = slack;
    meter->ef = ef;
    if (meter->work == NULL)
        return;
    while (meter->slack_at < RV_WORK_SLACKS && slack > slack_grid[meter->slack_at])
        meter->work->slack[meter->slack_at++] = done;
    while (meter->ef_at < RV_WORK_EFS && ef > ef_grid[meter->ef_at])
        meter->work->ef[meter->ef_at++] = done;
}

bool
rv_work_meter_done(const rv_work_meter *meter)
{
    return meter->work == NULL || (meter->slack > meter->slack_goal && meter->ef > meter->ef_goal);
}

void
rv_work_meter_finish(rv_work_meter *meter, uint64_t distances)
{
    rv_work_meter_note(meter, INFINITY, UINT32_MAX, distances);
}
