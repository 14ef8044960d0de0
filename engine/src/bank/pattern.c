/*
 * pattern.c - one pattern: its table over recall targets, its check, and the default merge.
 *
 * Between two targets of the grid the effort is interpolated in log(1 - target): the work that a
 * recall costs grows about linearly in the logarithm of the misses it allows, so 0.985 lies nearer
 * to 0.99 than the plain numbers suggest.
 */
#include "internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static_assert(sizeof(rv_pattern) == 296, "a pattern has no padding: it is stored as it is");

static const double target_grid[RV_TARGETS] = {0.50, 0.70, 0.80, 0.85, 0.90,  0.93,
                                               0.95, 0.97, 0.98, 0.99, 0.995, 0.999};

const double *
rv_target_grid(void)
{
    return target_grid;
}

/* The row at or below target, and how far it lies towards the next one: 0 to below 1. */
static uint32_t
grid_row(double target, double *fraction)
{
    uint32_t row = RV_TARGETS - 1;

    *fraction = 0;
    if (!(target < target_grid[row])) /* NaN asks for the most */
        return row;
    if (target <= target_grid[0])
        return 0;
    do
        row--;
    while (target < target_grid[row]);
    *fraction = log((1 - target_grid[row]) / (1 - target)) /
                log((1 - target_grid[row]) / (1 - target_grid[row + 1]));
    return row;
}

static float
table_at(const float *table, double target)
{
    double fraction;
    uint32_t row = grid_row(target, &fraction);

    if (fraction == 0)
        return table[row];
    return (float)(table[row] + fraction * ((double)table[row + 1] - table[row]));
}

float
rv_pattern_slack_at(const rv_pattern *pattern, double target)
{
    return table_at(pattern->table_slack, target);
}

float
rv_pattern_recall_at(const rv_pattern *pattern, double target)
{
    return table_at(pattern->table_recall, target);
}

uint32_t
rv_pattern_ef_at(const rv_pattern *pattern, double target)
{
    double fraction;
    uint32_t row = grid_row(target, &fraction);
    const uint32_t *ef = pattern->table_ef;

    if (fraction == 0)
        return ef[row];
    return (uint32_t)ceil(ef[row] + fraction * ((double)ef[row + 1] - ef[row]) - 1e-9);
}

/* ---- check ---------------------------------------------------------------------------------- */

/* Messages begin with the field's name, so that an importer can put a path before them. */

static rv_status
check_share(const char *name, float value, double low, rv_error *err)
{
    if (value >= low && value <= 1)
        return RV_OK;
    return rv_fail(err, RV_ERR_RANGE, "%s is %g; must be %g to 1", name, value, low);
}

static rv_status
check_amount(const char *name, float value, rv_error *err)
{
    if (isfinite(value) && value >= 0)
        return RV_OK;
    return rv_fail(err, RV_ERR_RANGE, "%s is %g; must be finite and at least 0", name, value);
}

static rv_status
check_at_least_one(const char *name, uint32_t value, rv_error *err)
{
    if (value >= 1)
        return RV_OK;
    return rv_fail(err, RV_ERR_RANGE, "%s is 0; must be at least 1", name);
}

static rv_status
check_tables(const rv_pattern *p, rv_error *err)
{
    for (int i = 0; i < RV_TARGETS; i++) {
        if (!isfinite(p->table_slack[i]) || p->table_slack[i] < 0)
            return rv_fail(err, RV_ERR_RANGE,
                           "table_slack[%d] is %g; must be finite and at least 0", i,
                           p->table_slack[i]);
        if (i > 0 && p->table_slack[i] < p->table_slack[i - 1])
            return rv_fail(err, RV_ERR_RANGE,
                           "table_slack[%d] is %g; must not be less than the %g before it", i,
                           p->table_slack[i], p->table_slack[i - 1]);
        if (p->table_ef[i] < 1)
            return rv_fail(err, RV_ERR_RANGE, "table_ef[%d] is 0; must be at least 1", i);
        if (i > 0 && p->table_ef[i] < p->table_ef[i - 1])
            return rv_fail(err, RV_ERR_RANGE,
                           "table_ef[%d] is %u; must not be less than the %u before it", i,
                           p->table_ef[i], p->table_ef[i - 1]);
        if (!(p->table_recall[i] >= 0 && p->table_recall[i] <= 1))
            return rv_fail(err, RV_ERR_RANGE, "table_recall[%d] is %g; must be 0 to 1", i,
                           p->table_recall[i]);
    }
    return RV_OK;
}

rv_status
rv_pattern_check(const rv_pattern *p, rv_error *err)
{
    rv_status status;

    if (p->scope != RV_PATTERN_INDEX && p->scope != RV_PATTERN_REGION)
        return rv_fail(err, RV_ERR_RANGE, "scope is %u; must be %d (index) or %d (region)",
                       p->scope, RV_PATTERN_INDEX, RV_PATTERN_REGION);
    if ((status = check_at_least_one("k", p->k, err)) != RV_OK ||
        (status = check_at_least_one("optimal_ef_search", p->optimal_ef_search, err)) != RV_OK ||
        (status = check_at_least_one("optimal_probes", p->optimal_probes, err)) != RV_OK ||
        (status = check_share("target_recall", p->target_recall, 0.5, err)) != RV_OK ||
        (status = check_amount("slack", p->slack, err)) != RV_OK ||
        (status = check_share("expected_recall", p->expected_recall, 0, err)) != RV_OK ||
        (status = check_share("confidence", p->confidence, 0, err)) != RV_OK ||
        (status = check_amount("radius", p->radius, err)) != RV_OK ||
        (status = check_amount("mean_distances", p->mean_distances, err)) != RV_OK)
        return status;
    if (p->scope == RV_PATTERN_INDEX && p->radius != 0)
        return rv_fail(err, RV_ERR_RANGE, "radius is %g; must be 0 for an index-wide pattern",
                       p->radius);
    if (p->entry_count > RV_PATTERN_ENTRY_POINTS)
        return rv_fail(err, RV_ERR_RANGE, "entry_count is %u; must be at most %d", p->entry_count,
                       RV_PATTERN_ENTRY_POINTS);
    return check_tables(p, err);
}

/* ---- merge ---------------------------------------------------------------------------------- */

static float
mean_float(float a, float b, double weight)
{
    /* Written so that equal values stay exactly equal and the result lies between the two. */
    return (float)(a + weight * ((double)b - a));
}

static uint32_t
mean_uint(uint32_t a, uint32_t b, double weight)
{
    return (uint32_t)(a + weight * ((double)b - a) + 0.5);
}

static uint32_t
sum_uint32(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

static uint64_t
sum_uint64(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void
add_entry_points(rv_pattern *to, const uint64_t *points, uint32_t count)
{
    for (uint32_t i = 0; i < count && to->entry_count < RV_PATTERN_ENTRY_POINTS; i++) {
        bool known = false;

        for (uint32_t j = 0; j < to->entry_count; j++)
            known = known || to->entry_points[j] == points[i];
        if (!known)
            to->entry_points[to->entry_count++] = points[i];
    }
}

static void
merge_headline(rv_pattern *out, const rv_pattern *a, const rv_pattern *b, double weight)
{
    out->optimal_probes = mean_uint(a->optimal_probes, b->optimal_probes, weight);
    out->mean_distances = mean_float(a->mean_distances, b->mean_distances, weight);
    out->target_recall = b->target_recall;
    if (a->target_recall == b->target_recall) {
        out->optimal_ef_search = mean_uint(a->optimal_ef_search, b->optimal_ef_search, weight);
        out->slack = mean_float(a->slack, b->slack, weight);
        out->expected_recall = mean_float(a->expected_recall, b->expected_recall, weight);
    } else {
        out->optimal_ef_search = rv_pattern_ef_at(out, b->target_recall);
        out->slack = rv_pattern_slack_at(out, b->target_recall);
        out->expected_recall = rv_pattern_recall_at(out, b->target_recall);
    }
}

rv_status
rv_pattern_merge(void *ctx, const rv_pattern *a, const float *a_centroid, const rv_pattern *b,
                 const float *b_centroid, uint32_t dim, double weight, rv_pattern *out,
                 float *out_centroid, rv_error *err)
{
    rv_pattern merged = *a;

    (void)ctx;
    if (!(weight >= 0 && weight <= 1))
        return rv_fail(err, RV_ERR_RANGE, "merge: weight is %g; must be 0 to 1", weight);
    if (a->scope != b->scope || a->k != b->k || a->index_epoch != b->index_epoch)
        return rv_fail(err, RV_ERR_INVALID,
                       "merge: the patterns differ in scope (%u, %u), k (%u, %u) or index epoch",
                       a->scope, b->scope, a->k, b->k);

    merged.created_us = a->created_us < b->created_us ? a->created_us : b->created_us;
    merged.updated_us = a->updated_us > b->updated_us ? a->updated_us : b->updated_us;
    merged.usage = sum_uint64(a->usage, b->usage);
    merged.samples = sum_uint32(a->samples, b->samples);
    merged.confidence = mean_float(a->confidence, b->confidence, weight);
    merged.radius = mean_float(a->radius, b->radius, weight);
    /* A weighted mean of rising tables rises, and every rounding above is monotone. */
    for (int i = 0; i < RV_TARGETS; i++) {
        merged.table_slack[i] = mean_float(a->table_slack[i], b->table_slack[i], weight);
        merged.table_ef[i] = mean_uint(a->table_ef[i], b->table_ef[i], weight);
        merged.table_recall[i] = mean_float(a->table_recall[i], b->table_recall[i], weight);
    }
    for (int i = 1; i < RV_TARGETS; i++)
        if (merged.table_slack[i] < merged.table_slack[i - 1])
            merged.table_slack[i] = merged.table_slack[i - 1];
    merge_headline(&merged, a, b, weight);

    merged.entry_count = 0;
    memset(merged.entry_points, 0, sizeof(merged.entry_points));
    add_entry_points(&merged, b->entry_points, b->entry_count);
    add_entry_points(&merged, a->entry_points, a->entry_count);

    for (uint32_t i = 0; out_centroid != NULL && i < dim; i++)
        out_centroid[i] = mean_float(a_centroid[i], b_centroid[i], weight);
    *out = merged;
    return RV_OK;
}
