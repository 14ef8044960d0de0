/*
 * quantile.c - the weighted quantile and isotonic regression.
 *
 * The quantile sorts in place by heapsort: no memory, no recursion, the same time for every input.
 */
#include "ruvector/stats.h"
#include "../base/internal.h"

#include <math.h>

static void
swap_items(double *values, double *weights, size_t i, size_t j)
{
    double value = values[i];

    values[i] = values[j];
    values[j] = value;
    if (weights != NULL) {
        double weight = weights[i];
        weights[i] = weights[j];
        weights[j] = weight;
    }
}

/* Lets the item at root sink until the heap of count items is in order below it. */
static void
sift_down(double *values, double *weights, size_t root, size_t count)
{
    for (size_t child = 2 * root + 1; child < count; child = 2 * root + 1) {
        if (child + 1 < count && values[child + 1] > values[child])
            child++;
        if (values[root] >= values[child])
            return;
        swap_items(values, weights, root, child);
        root = child;
    }
}

static void
sort_items(double *values, double *weights, size_t count)
{
    for (size_t i = count / 2; i > 0; i--)
        sift_down(values, weights, i - 1, count);
    for (size_t end = count; end > 1; end--) {
        swap_items(values, weights, 0, end - 1);
        sift_down(values, weights, 0, end - 1);
    }
}

/* Weights are finite and not negative; message names the first that is not. */
static rv_status
check_weights(const double *weights, size_t count, rv_error *err)
{
    for (size_t i = 0; weights != NULL && i < count; i++) {
        if (!(weights[i] >= 0.0 && weights[i] < INFINITY))
            return rv_fail(err, RV_ERR_RANGE,
                           "weight %zu is %g: weights must be finite and not negative", i,
                           weights[i]);
    }
    return RV_OK;
}

rv_status
rv_quantile(double *values, double *weights, size_t count, double q, double *out, rv_error *err)
{
    double total = 0.0, sum = 0.0, wanted;
    rv_status status;

    if (count == 0)
        return rv_fail(err, RV_ERR_INVALID, "the quantile of no values is not defined");
    if (!(q >= 0.0 && q <= 1.0))
        return rv_fail(err, RV_ERR_RANGE, "q is %g: it must be within 0 and 1", q);
    for (size_t i = 0; i < count; i++) {
        if (isnan(values[i]))
            return rv_fail(err, RV_ERR_RANGE, "value %zu is NaN", i);
    }
    status = check_weights(weights, count, err);
    if (status != RV_OK)
        return status;

    sort_items(values, weights, count);
    for (size_t i = 0; i < count; i++)
        total += weights != NULL ? weights[i] : 1.0;
    if (!(total > 0.0 && total < INFINITY))
        return rv_fail(err, RV_ERR_INVALID,
                       "the total weight is %g: it must be positive and finite", total);
    /* 0.07 * 100 is a little above 7 in floating point; the 7th of 100 values is meant. */
    wanted = q * total - 1e-12 * total;
    for (size_t i = 0; i < count; i++) {
        double weight = weights != NULL ? weights[i] : 1.0;
        sum += weight;
        if (weight > 0.0) {
            *out = values[i];
            if (sum >= wanted)
                break;
        }
    }
    return RV_OK;
}

/* Neighbouring values that share one fitted value. */
typedef struct block {
    double mean;
    double weight;
    size_t count;
} block;

static block
pool(const block *a, const block *b)
{
    block merged = {a->mean, a->weight + b->weight, a->count + b->count};
    /* Without weight each value counts the same. */
    double share =
        merged.weight > 0.0 ? b->weight / merged.weight : (double)b->count / (double)merged.count;

    merged.mean = a->mean + (b->mean - a->mean) * share;
    return merged;
}

rv_status
rv_isotonic(const rv_allocator *allocator, const double *y, const double *weights, size_t count,
            double *fit, rv_error *err)
{
    block *blocks;
    size_t top = 0, at = 0;
    rv_status status = check_weights(weights, count, err);

    if (status != RV_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(y[i]))
            return rv_fail(err, RV_ERR_RANGE, "value %zu is %g: values must be finite", i, y[i]);
    }
    blocks = rv_alloc_array(allocator, count, sizeof(*blocks));
    if (blocks == NULL)
        return rv_fail_nomem(err, count * sizeof(*blocks));

    /* Each value starts a block and is pooled backwards while the order is violated: a block is
     * made once and pooled away at most once, so the time is linear. */
    for (size_t i = 0; i < count; i++) {
        block current = {y[i], weights != NULL ? weights[i] : 1.0, 1};
        while (top > 0 && blocks[top - 1].mean >= current.mean)
            current = pool(&blocks[--top], &current);
        blocks[top++] = current;
    }
    for (size_t b = 0; b < top; b++) {
        for (size_t i = 0; i < blocks[b].count; i++)
            fit[at++] = blocks[b].mean;
    }
    rv_free(allocator, blocks);
    return RV_OK;
}
