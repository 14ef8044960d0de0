/*
 * interval.c - confidence intervals of a proportion, and the distributions they rest on.
 *
 * The incomplete beta function is a continued fraction (DLMF 8.17.22) evaluated by the modified
 * Lentz method; its inverse is Newton's method inside a bracket that bisection shrinks, so it
 * cannot diverge. lgamma is not used: it writes a global, and differences of its large values lose
 * digits. The density is written with Stirling's error term instead, which loses none.
 *
 * These functions have no error to return: arguments outside their domain are moved to its edge,
 * and where there is none the result is NaN.
 */
#include "ruvector/stats.h"

#include <float.h>
#include <math.h>

#define PI 3.14159265358979323846

double
rv_normal_quantile(double p)
{
    double tail = p < 0.5 ? p : 1.0 - p;
    double t, x;

    if (isnan(p))
        return p;
    if (tail <= 0.0)
        return p < 0.5 ? -INFINITY : INFINITY;
    /* Abramowitz and Stegun 26.2.23 is right to 4.5e-4; Halley's method triples the digits. */
    t = sqrt(-2.0 * log(tail));
    x = t - (2.515517 + t * (0.802853 + t * 0.010328)) /
                (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
    for (int i = 0; i < 3; i++) {
        double excess = 0.5 * erfc(x / sqrt(2.0)) - tail;
        double density = exp(-0.5 * x * x) / sqrt(2.0 * PI);
        if (density <= 0.0)
            break;
        x += 2.0 * excess / (2.0 * density - excess * x);
    }
    return p < 0.5 ? -x : x;
}

/* ln Gamma(x) - [(x - 1/2) ln x - x + ln(2 pi) / 2], the error of Stirling's formula; x > 0. */
static double
stirling_error(double x)
{
    double below = 0.0, z;

    /* The recurrence of the gamma function lifts x to where the series has all digits. */
    for (; x < 16.0; x += 1.0)
        below += (x + 0.5) * log1p(1.0 / x) - 1.0;
    z = 1.0 / (x * x);
    return below + (1.0 / 12.0 - z * (1.0 / 360.0 - z * (1.0 / 1260.0 - z * (1.0 / 1680.0)))) / x;
}

/* x^a (1 - x)^b / B(a, b), with y = 1 - x. */
static double
beta_power(double x, double y, double a, double b)
{
    double sum = a + b;
    double exponent = a * log(x * sum / a) + b * log(y * sum / b) + stirling_error(sum) -
                      stirling_error(a) - stirling_error(b);

    return exp(exponent) * sqrt(a / sum * b / (2.0 * PI));
}

static double
away_from_zero(double value)
{
    return fabs(value) < DBL_MIN ? DBL_MIN : value;
}

/* The continued fraction of I_x(a, b), which converges fast for x below (a + 1) / (a + b + 2): in
 * about the square root of the larger parameter. */
static double
beta_fraction(double x, double a, double b)
{
    double c = 1.0;
    double d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    double value = d;

    for (int m = 1; m < 100000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double step;

        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        value *= c * d;
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        step = c * d;
        value *= step;
        if (fabs(step - 1.0) < 4.0 * DBL_EPSILON)
            break;
    }
    return value;
}

double
rv_beta_cdf(double x, double a, double b)
{
    double y = 1.0 - x, result;

    if (isnan(x) || !(a > 0.0 && a < INFINITY) || !(b > 0.0 && b < INFINITY))
        return NAN;
    if (x <= 0.0)
        return 0.0;
    if (x >= 1.0)
        return 1.0;
    if (x < (a + 1.0) / (a + b + 2.0))
        result = beta_power(x, y, a, b) * beta_fraction(x, a, b) / a;
    else
        result = 1.0 - beta_power(y, x, b, a) * beta_fraction(y, b, a) / b;
    return result < 0.0 ? 0.0 : result > 1.0 ? 1.0 : result;
}

double
rv_beta_quantile(double p, double a, double b)
{
    double low = 0.0, high = 1.0, x = a / (a + b);

    if (isnan(p) || !(a > 0.0 && a < INFINITY) || !(b > 0.0 && b < INFINITY))
        return NAN;
    if (p <= 0.0)
        return 0.0;
    if (p >= 1.0)
        return 1.0;
    /* Bisection alone reaches the smallest double within 1,100 steps. */
    for (int i = 0; i < 1200; i++) {
        double excess = rv_beta_cdf(x, a, b) - p;
        double density = beta_power(x, 1.0 - x, a, b) / (x * (1.0 - x));
        double next = x - excess / density;

        if (excess == 0.0)
            break;
        if (excess > 0.0)
            high = x;
        else
            low = x;
        if (!(next > low && next < high))
            next = 0.5 * (low + high);
        if (fabs(next - x) <= 2.0 * DBL_EPSILON * x || next <= low || next >= high)
            return next;
        x = next;
    }
    return x;
}

/* Brings counts into 0 <= successes <= trials; false when there is nothing to count. */
static bool
counts_usable(double *successes, double trials)
{
    if (!(trials > 0.0 && trials < INFINITY) || isnan(*successes))
        return false;
    *successes = *successes < 0.0 ? 0.0 : *successes > trials ? trials : *successes;
    return true;
}

static double
clamp_confidence(double confidence)
{
    return confidence > 0.0 ? fmin(confidence, 1.0) : 0.0;
}

rv_interval
rv_wilson_interval(double successes, double trials, double confidence)
{
    rv_interval interval = {0.0, 1.0};
    double z, share, centre, half_width, scale;

    confidence = clamp_confidence(confidence);
    if (!counts_usable(&successes, trials) || confidence >= 1.0)
        return interval;
    z = rv_normal_quantile(0.5 + 0.5 * confidence);
    share = successes / trials;
    scale = 1.0 / (1.0 + z * z / trials);
    centre = scale * (share + z * z / (2.0 * trials));
    half_width = scale * z * sqrt(share * (1.0 - share) / trials + z * z / (4.0 * trials * trials));
    /* Exactly 0 and 1 at the ends, which rounding would miss. */
    interval.low = successes > 0.0 ? fmax(centre - half_width, 0.0) : 0.0;
    interval.high = successes < trials ? fmin(centre + half_width, 1.0) : 1.0;
    return interval;
}

rv_interval
rv_clopper_pearson_interval(double successes, double trials, double confidence)
{
    rv_interval interval = {0.0, 1.0};
    double tail = 0.5 * (1.0 - clamp_confidence(confidence));

    if (!counts_usable(&successes, trials))
        return interval;
    if (successes > 0.0)
        interval.low = rv_beta_quantile(tail, successes, trials - successes + 1.0);
    /* From the other side of the distribution, where the small tail has all its digits. */
    if (successes < trials)
        interval.high = 1.0 - rv_beta_quantile(tail, trials - successes, successes + 1.0);
    return interval;
}
