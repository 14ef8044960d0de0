/*
 * plan.c - calibration of the ways to search, and the choice among them.
 *
 * A sample's efforts say for each of its true neighbours the least effort that finds it. Pooled
 * over all samples and sorted, the effort for a mean recall of r is the r-quantile of the pool. Two
 * efforts are taken from it for each target: one for the target itself, at which the ways are
 * compared, since only work at equal recall says anything; and one a little above (the aim), which
 * is served, so that unseen queries reach the target rather than just miss it.
 *
 * The slack is calibrated under a limit of distances, a multiple of what the target takes in the
 * mean: few searches meet it, but those that would take ten times the mean for the last neighbour
 * are paid for by all others. The slack is then a little larger, for the same recall. The least
 * multiple is taken with which the recall is in reach and the mean work hardly grows.
 *
 * The aim also answers for what a trace cannot see: it counts every true neighbour that it visits,
 * of which a search that walks by codes may leave one out of its window. The ratio of served to
 * predicted misses is measured on searches as they were served, and moves the aim.
 *
 * Nor can a trace tell of a true neighbour that nobody told it of. Where a search stood for the
 * truth and is known to miss a share of it, a trace that finds r of what it was told of finds r
 * times the rest of the share: target and aim are divided by it.
 *
 * Each way has one parameter, fitted to hundreds of samples, so measuring its work on the samples
 * it was fitted to flatters none of them noticeably; what would (a remembered query that meets
 * itself) is left out when traces are made.
 */
#include "ruvector/plan.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "../base/checksum.h"
#include "../base/internal.h"

#define PLAN_MAGIC 0x4E4C5052u /* "RPLN" */
#define MAX_EFFORT 100000.0
/* Trajectories carry a target as a float: 0.98 then lies above the level of 0.98. */
#define TARGET_ROUNDING 1e-6
/* The work that a limit may add to the mean, for a shorter tail. */
#define LIMIT_PRICE 1.02

/* Limits that are tried, in multiples of the mean work. On five graphs of text and photographs 2.5
 * cost at most 2% of the mean; with 2 a recall of 0.99 took more work on one of them, and 1.5 did
 * not reach it. */
static const double limit_multiples[] = {2.5, 3.0, 4.0, 6.0};

typedef struct need {
    double value;     /* least effort that finds one true neighbour; INFINITY: none */
    double distances; /* a larger limit than this finds it */
    double weight;
} need;

/* One way over all samples that were traced that way. */
typedef struct pool {
    const rv_traced *samples;
    uint32_t sample_count;
    rv_way way;
    need *needs; /* ascending */
    size_t count;
    double weight;
    uint32_t traced;
} pool;

const char *
rv_way_name(rv_way way)
{
    switch (way) {
        case RV_WAY_STATIC:
            return "static";
        case RV_WAY_SLACK:
            return "slack";
        case RV_WAY_MEMORY:
            return "memory";
    }
    return "unknown";
}

static const rv_effort *
efforts_of(const rv_traced *sample, rv_way way)
{
    return way == RV_WAY_MEMORY ? sample->memory_efforts : sample->efforts;
}

static double
effort_value(const rv_effort *effort, rv_way way)
{
    if (way == RV_WAY_STATIC)
        return effort->ef == UINT32_MAX ? (double)INFINITY : (double)effort->ef;
    return (double)effort->slack;
}

static double
work_at(const rv_traced *sample, rv_way way, double effort)
{
    const rv_work *work = way == RV_WAY_MEMORY ? sample->memory_work : sample->work;

    if (work == NULL)
        return -1.0;
    return way == RV_WAY_STATIC ? rv_work_at_ef(work, effort) : rv_work_at_slack(work, effort);
}

static double
limit_or_none(double limit)
{
    return limit > 0.0 ? limit : (double)INFINITY;
}

double
rv_traced_recall(const rv_traced *sample, rv_way way, double effort, double limit)
{
    double most = limit_or_none(limit);
    const rv_effort *efforts = efforts_of(sample, way);
    uint32_t found = 0;

    if (efforts == NULL || sample->count == 0)
        return -1.0;
    while (found < sample->count && effort_value(&efforts[found], way) <= effort &&
           (double)efforts[found].distances < most)
        found++;
    return (double)found / sample->count;
}

/* ---- pools --------------------------------------------------------------------------------- */

static int
compare_needs(const void *a, const void *b)
{
    double left = ((const need *)a)->value;
    double right = ((const need *)b)->value;

    return (left > right) - (left < right);
}

static rv_status
open_pool(pool *p, const rv_allocator *allocator, const rv_traced *samples, uint32_t count,
          rv_way way, rv_error *err)
{
    size_t room = 0;

    memset(p, 0, sizeof *p);
    p->samples = samples;
    p->sample_count = count;
    p->way = way;
    for (uint32_t i = 0; i < count; i++)
        room += samples[i].count;
    p->needs = rv_alloc_array(allocator, room, sizeof *p->needs);
    if (p->needs == NULL)
        return rv_fail_nomem(err, room * sizeof *p->needs);
    for (uint32_t i = 0; i < count; i++) {
        const rv_effort *efforts = efforts_of(&samples[i], way);

        if (efforts == NULL || samples[i].count == 0)
            continue;
        for (uint32_t j = 0; j < samples[i].count; j++)
            p->needs[p->count++] = (need){effort_value(&efforts[j], way), efforts[j].distances,
                                          samples[i].weight / samples[i].count};
        p->traced++;
    }
    qsort(p->needs, p->count, sizeof *p->needs, compare_needs);
    for (size_t i = 0; i < p->count; i++)
        p->weight += p->needs[i].weight;
    return RV_OK;
}

/* The least effort that finds this share of the true neighbours within the limit; the largest that
 * found any where that is out of reach. Never above MAX_EFFORT, so that a plan stays finite. */
static double
effort_for(const pool *p, double recall, double limit, bool *in_reach)
{
    double wanted = recall * p->weight * (1 - 1e-12); /* forgive rounding of the sums */
    double most = limit_or_none(limit);
    double sum = 0.0;
    double effort = 0.0;

    *in_reach = false;
    for (size_t i = 0; i < p->count && !*in_reach && isfinite(p->needs[i].value); i++) {
        if (p->needs[i].distances >= most)
            continue;
        effort = p->needs[i].value;
        sum += p->needs[i].weight;
        *in_reach = sum >= wanted;
    }
    return fmin(effort, MAX_EFFORT);
}

/* Weighted mean recall at an effort, and its standard error, sqrt(sum w^2 (r - mean)^2) / sum w. */
static double
mean_recall(const pool *p, double effort, double limit, double *error)
{
    double weight = 0.0;
    double sum = 0.0;
    double squares = 0.0;
    double mean;

    for (uint32_t i = 0; i < p->sample_count; i++) {
        double recall = rv_traced_recall(&p->samples[i], p->way, effort, limit);

        if (recall >= 0.0) {
            weight += p->samples[i].weight;
            sum += p->samples[i].weight * recall;
        }
    }
    mean = weight > 0.0 ? sum / weight : 0.0;
    for (uint32_t i = 0; i < p->sample_count; i++) {
        double recall = rv_traced_recall(&p->samples[i], p->way, effort, limit);

        if (recall >= 0.0)
            squares += pow(p->samples[i].weight * (recall - mean), 2.0);
    }
    *error = weight > 0.0 ? sqrt(squares) / weight : 0.0;
    return mean;
}

static double
mean_work(const pool *p, double effort, double limit)
{
    double most = limit_or_none(limit);
    double weight = 0.0;
    double sum = 0.0;

    for (uint32_t i = 0; i < p->sample_count; i++) {
        double work = work_at(&p->samples[i], p->way, effort);

        if (work >= 0.0) {
            weight += p->samples[i].weight;
            sum += p->samples[i].weight * fmin(work, most);
        }
    }
    return weight > 0.0 ? sum / weight : -1.0;
}

/* ---- one way at one target ----------------------------------------------------------------- */

static const rv_plan_step unknown_step = {.effort = -1.0f, .work = -1.0f};

/* Mean work at a recall that takes this effort. Whole efforts (lists, above all) reach more than
 * was asked for, so theirs is between the effort below and this one, where the recall is. */
static double
work_for(const pool *p, double recall, double effort)
{
    double work = mean_work(p, effort, 0.0);
    double error;
    double low;
    double high;

    if (p->way != RV_WAY_STATIC || work < 0.0 || effort < 2.0)
        return work;
    low = mean_recall(p, effort - 1.0, 0.0, &error);
    high = mean_recall(p, effort, 0.0, &error);
    if (high <= recall || high <= low)
        return work;
    return work -
           (high - fmax(recall, low)) / (high - low) * (work - mean_work(p, effort - 1.0, 0.0));
}

/* The recall to calibrate for, so that new queries reach the target. */
static double
aim_for(const pool *p, double target, double effort, double limit, const rv_plan_options *options)
{
    double ratio = p->way == RV_WAY_STATIC ? 1.0 : options->miss_ratio;
    double error;
    double aim;

    mean_recall(p, effort, limit, &error);
    aim = fmin(target + options->safety * error, (1.0 + target) / 2.0) / options->truth_recall;
    return fmax(1.0 - (1.0 - aim) / fmax(ratio, 1e-3), 0.0);
}

/* The least limit at which target and aim are in reach and the mean work is hardly more than the
 * work without; 0: none. */
static double
choose_limit(const pool *p, double target, double work, const rv_plan_options *options)
{
    for (size_t i = 0; i < sizeof limit_multiples / sizeof *limit_multiples; i++) {
        double limit = limit_multiples[i] * work;
        bool in_reach;
        bool aim_in_reach;
        double effort = effort_for(p, target / options->truth_recall, limit, &in_reach);

        (void)effort_for(p, aim_for(p, target, effort, limit, options), limit, &aim_in_reach);
        if (in_reach && aim_in_reach && mean_work(p, effort, limit) <= work * LIMIT_PRICE)
            return limit;
    }
    return 0.0;
}

static void
calibrate(const pool *p, double target, const rv_plan_options *options, rv_plan_step *step)
{
    double ratio = p->way == RV_WAY_STATIC ? 1.0 : options->miss_ratio;
    double known = target / options->truth_recall; /* of the neighbours that the samples know of */
    double limit = 0.0;
    double effort;
    double error;
    double work;
    bool in_reach;

    *step = unknown_step;
    if (p->count == 0 || p->traced * 2 < p->sample_count)
        return;
    effort = effort_for(p, known, 0.0, &in_reach);
    work = work_for(p, known, effort);
    step->in_reach = in_reach;
    if (p->way != RV_WAY_STATIC && in_reach && work > 0.0)
        limit = choose_limit(p, target, work, options);
    if (limit > 0.0) {
        effort = effort_for(p, known, limit, &in_reach);
        work = mean_work(p, effort, limit);
    }
    step->limit = (float)limit;
    step->work = (float)work;
    step->effort =
        (float)effort_for(p, aim_for(p, target, effort, limit, options), limit, &in_reach);
    step->recall =
        (float)(options->truth_recall *
                fmax(1.0 - ratio * (1.0 - mean_recall(p, (double)step->effort, limit, &error)),
                     0.0));
}

/* More recall never takes less effort, nor less work, nor a lower limit. */
static void
make_rising(rv_plan *plan, rv_way way)
{
    for (int i = 1; i < RV_TARGETS; i++) {
        rv_plan_step *step = &plan->levels[i].steps[way];
        const rv_plan_step *before = &plan->levels[i - 1].steps[way];

        step->effort = fmaxf(step->effort, before->effort);
        step->work = fmaxf(step->work, before->work);
        step->recall = fmaxf(step->recall, before->recall);
        step->limit = before->limit > 0.0f && step->limit > 0.0f ? fmaxf(step->limit, before->limit)
                                                                 : step->limit;
    }
}

/* ---- the choice ---------------------------------------------------------------------------- */

static bool
usable(const rv_plan_level *level, uint32_t way)
{
    return way < RV_WAYS && level->steps[way].effort >= 0.0f && level->steps[way].work >= 0.0f;
}

/* From the simplest way up, each only for a gain; a way in use is left only for a larger one. A
 * recall that only some ways reach is worth any work. */
static uint32_t
choose_way(const rv_plan_level *level, const rv_plan_level *former, const rv_plan_options *options)
{
    uint32_t best = RV_WAYS;
    double gain = options->gain;

    if (former != NULL && usable(level, former->way)) {
        best = former->way;
        gain = options->regret;
    }
    for (uint32_t way = 0; way < RV_WAYS; way++) {
        const rv_plan_step *step = &level->steps[way];

        if (!usable(level, way) || way == best)
            continue;
        if (best == RV_WAYS || step->in_reach > level->steps[best].in_reach ||
            (step->in_reach == level->steps[best].in_reach &&
             (double)step->work < (1.0 - gain) * (double)level->steps[best].work))
            best = way;
    }
    /* Samples without curves of work: as far as is known adaptive search pays. */
    if (best == RV_WAYS)
        best = level->steps[RV_WAY_MEMORY].effort >= 0.0f ? RV_WAY_MEMORY : RV_WAY_SLACK;
    return best;
}

static uint64_t
checksum_of(const rv_plan *plan)
{
    rv_checksum sum;
    const char *bytes = (const char *)plan;
    size_t length = offsetof(rv_plan, checksum);

    rv_checksum_start(&sum, RV_PLAN_VERSION);
    for (size_t at = 0; at < length; at += sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, bytes + at, sizeof word);
        rv_checksum_add(&sum, word);
    }
    return rv_checksum_end(&sum, length);
}

_Static_assert(offsetof(rv_plan, checksum) % sizeof(uint64_t) == 0 &&
                   sizeof(rv_plan) == offsetof(rv_plan, checksum) + sizeof(uint64_t),
               "a plan has no padding: its bytes are summed");

rv_status
rv_plan_make(const rv_allocator *allocator, const rv_traced *samples, uint32_t count,
             const rv_plan_options *options, const rv_plan *former, rv_plan *out, rv_error *err)
{
    bool former_regions = former != NULL && former->use_regions;
    double regions = options->region_work;

    if (count == 0)
        return rv_fail(err, RV_ERR_INVALID, "no samples to calibrate from");
    if (!(options->truth_recall > 0.0 && options->truth_recall <= 1.0))
        return rv_fail(err, RV_ERR_INVALID, "recall of the truth is %g, not in (0, 1]",
                       options->truth_recall);
    memset(out, 0, sizeof *out);
    out->magic = PLAN_MAGIC;
    out->version = RV_PLAN_VERSION;
    out->index_epoch = options->index_epoch;
    out->made_us = options->now_us;
    out->k = options->k;
    out->samples = count;
    out->miss_ratio = (float)options->miss_ratio;
    out->region_work = (float)regions;
    out->use_regions = regions < 1.0 - (former_regions ? 0.0 : options->gain);
    for (uint32_t way = 0; way < RV_WAYS; way++) {
        pool p;
        rv_status status = open_pool(&p, allocator, samples, count, (rv_way)way, err);

        for (int i = 0; status == RV_OK && i < RV_TARGETS; i++)
            calibrate(&p, rv_target_grid()[i], options, &out->levels[i].steps[way]);
        rv_free(allocator, p.needs);
        if (status != RV_OK)
            return status;
        make_rising(out, (rv_way)way);
    }
    if (out->levels[0].steps[RV_WAY_SLACK].effort < 0.0f)
        return rv_fail(err, RV_ERR_INVALID, "no sample has a true neighbour to calibrate from");
    for (int i = 0; i < RV_TARGETS; i++)
        out->levels[i].way =
            choose_way(&out->levels[i], former != NULL ? &former->levels[i] : NULL, options);
    out->checksum = checksum_of(out);
    return RV_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* The levels around a target, and how far it lies from the lower one: 0 to 1. */
static void
surround(double target, int *low, int *high, double *share)
{
    const double *grid = rv_target_grid();

    *high = 0;
    while (*high < RV_TARGETS - 1 && target > grid[*high] + TARGET_ROUNDING)
        (*high)++;
    *low = *high > 0 ? *high - 1 : 0;
    *share = 1.0;
    if (*low < *high && target < grid[*high])
        *share = log((1 - grid[*low]) / (1 - target)) / log((1 - grid[*low]) / (1 - grid[*high]));
}

static double
between(float low, float high, double share)
{
    return (double)low + share * ((double)high - (double)low);
}

void
rv_plan_choose(const rv_plan *plan, double target, rv_plan_choice *out)
{
    const rv_plan_step *low;
    const rv_plan_step *high;
    double share;
    int from;
    int to;

    surround(target, &from, &to, &share);
    out->way = (rv_way)plan->levels[to].way;
    low = &plan->levels[from].steps[out->way];
    high = &plan->levels[to].steps[out->way];
    out->effort = between(low->effort, high->effort, share);
    out->expected_recall = between(low->recall, high->recall, share);
    out->in_reach = high->in_reach != 0;
    out->limit = low->limit > 0.0f && high->limit > 0.0f ? between(low->limit, high->limit, share)
                                                         : (double)high->limit;
    out->slack = between(plan->levels[from].steps[RV_WAY_SLACK].effort,
                         plan->levels[to].steps[RV_WAY_SLACK].effort, share);
    low = &plan->levels[from].steps[RV_WAY_STATIC];
    high = &plan->levels[to].steps[RV_WAY_STATIC];
    out->static_ef = between(low->effort, high->effort, share);
    out->static_work = between(low->work, high->work, share);
}

/* The plan of the least k >= rows, else that of the largest. */
static const rv_plan *
plan_for_rows(const rv_plan *plans, uint32_t count, uint32_t rows)
{
    const rv_plan *best = &plans[0];

    for (uint32_t i = 1; i < count; i++) {
        bool nearer = plans[i].k < best->k;

        if (best->k < rows ? !nearer : nearer && plans[i].k >= rows)
            best = &plans[i];
    }
    return best;
}

const rv_plan *
rv_plan_choose_rows(const rv_plan *plans, uint32_t count, uint32_t rows, double target,
                    rv_plan_choice *out, uint32_t *window)
{
    const rv_plan *plan = plan_for_rows(plans, count, rows);
    double stretch = fmin(fmax((double)rows / plan->k, 1.0), RV_PLAN_STRETCH);

    rv_plan_choose(plan, target, out);
    *window = (uint32_t)ceil(plan->k * stretch);
    out->static_ef *= stretch;
    if (out->static_work > 0.0)
        out->static_work *= stretch;
    out->limit *= stretch;
    if (out->way == RV_WAY_STATIC)
        out->effort *= stretch;
    return plan;
}

static rv_status
check_step(const rv_plan_step *step, double target, rv_way way, rv_error *err)
{
    bool known = step->effort >= 0.0f && (double)step->effort <= MAX_EFFORT;

    if ((known || step->effort == -1.0f) && step->recall >= 0.0f && step->recall <= 1.0f &&
        (step->work == -1.0f || (step->work >= 0.0f && isfinite(step->work))) &&
        step->limit >= 0.0f && isfinite(step->limit) && step->in_reach <= 1)
        return RV_OK;
    return rv_fail(err, RV_ERR_FORMAT, "the plan's way \"%s\" at a target of %g is out of range",
                   rv_way_name(way), target);
}

rv_status
rv_plan_check(const rv_plan *plan, rv_error *err)
{
    if (plan->magic != PLAN_MAGIC || plan->version != RV_PLAN_VERSION)
        return rv_fail(err, RV_ERR_FORMAT, "not a plan of version %d", RV_PLAN_VERSION);
    if (plan->checksum != checksum_of(plan))
        return rv_fail(err, RV_ERR_FORMAT, "the plan's checksum does not match");
    if (plan->k < 1 || plan->samples < 1 || plan->use_regions > 1 ||
        !(plan->miss_ratio > 0.0f && isfinite(plan->miss_ratio)))
        return rv_fail(err, RV_ERR_FORMAT, "the plan's head is out of range");
    for (int i = 0; i < RV_TARGETS; i++) {
        const rv_plan_level *level = &plan->levels[i];

        if (level->way >= RV_WAYS || level->steps[level->way].effort < 0.0f)
            return rv_fail(err, RV_ERR_FORMAT,
                           "the plan takes way %u at a target of %g, which it "
                           "does not know",
                           level->way, rv_target_grid()[i]);
        for (uint32_t way = 0; way < RV_WAYS; way++) {
            rv_status status =
                check_step(&level->steps[way], rv_target_grid()[i], (rv_way)way, err);

            if (status != RV_OK)
                return status;
        }
    }
    return RV_OK;
}
