/*
 * stats.h - the statistics that learning needs: quantiles, isotonic regression, intervals.
 */
#ifndef RUVECTOR_STATS_H
#define RUVECTOR_STATS_H

#include "ruvector/base.h"

/*
 * The q-quantile of values (0 <= q <= 1): the least value v such that at least q of the total
 * weight is <= v (inverse of the empirical distribution function; no interpolation, so INFINITY
 * among the values is handled). weights may be NULL (all 1). values and weights are reordered.
 * RV_ERR_INVALID when count is 0 or the total weight is not positive; NaN is RV_ERR_RANGE. A value
 * of weight 0 is never the answer. O(count log count).
 */
rv_status rv_quantile(double *values, double *weights, size_t count, double q, double *out,
                      rv_error *err);

/*
 * Isotonic regression by pool adjacent violators: the non-decreasing fit that minimises the
 * weighted squared error. y is given in order of x; fit may be y. weights may be NULL. Values must
 * be finite and weights not negative (RV_ERR_RANGE); O(count).
 */
rv_status rv_isotonic(const rv_allocator *allocator, const double *y, const double *weights,
                      size_t count, double *fit, rv_error *err);

typedef struct rv_interval {
    double low;
    double high;
} rv_interval;

/* Wilson's score interval for successes of trials at the given confidence (0 < c < 1). trials = 0
 * gives [0, 1]. (Wilson, 1927.) */
rv_interval rv_wilson_interval(double successes, double trials, double confidence);

/* Clopper and Pearson's exact interval (1934), by the quantiles of the beta distribution. */
rv_interval rv_clopper_pearson_interval(double successes, double trials, double confidence);

/*
 * Interval of the mean of count values in [0, 1], in the order in which they were drawn, at the
 * given confidence (0 < c < 1): by betting (Waudby-Smith and Ramdas, 2024). Valid for every
 * distribution on [0, 1] and every count; no values give [0, 1]. O(count), some 80 times.
 */
rv_interval rv_mean_interval(const double *values, size_t count, double confidence);

/* True when that interval's upper end is below m. Once O(count). */
bool rv_mean_excludes(const double *values, size_t count, double m, double confidence);

/* The share of its capital that the interval's gambler risks at most on one value: less makes it
 * longer where the mean is near its bound, more makes one extreme value weigh too much. */
#define RV_MEAN_BOLDNESS 0.75

/* Quantile of the standard normal distribution (0 < p < 1). */
double rv_normal_quantile(double p);

/* Regularised incomplete beta function I_x(a, b), and its inverse in x. */
double rv_beta_cdf(double x, double a, double b);
double rv_beta_quantile(double p, double a, double b);

#endif
