/*
 * mean.c - a confidence interval of the mean of bounded values, by betting.
 *
 * Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 86,
 * 2024), the hedged capital process for a fixed number of values. A gambler bets against "the mean
 * is m" on every value in turn; if it is m, their capital is a fair game that starts at 1, and
 * exceeds 2 / (1 - confidence) with at most half of the permitted probability (Markov's
 * inequality). All m at which neither the gambler who bets on a higher mean nor the one who bets on
 * a lower one got that rich form the interval. Nothing is assumed but bounds and a common mean; a
 * low variance makes the interval short.
 */
#include "ruvector/stats.h"

#include <math.h>

/* Bisection halves the interval down to the last digits that matter. */
#define STEPS 40

/*
 * Logarithm of the capital of the gambler who bets on a mean above m; of the mirrored values (1 -
 * x) when mirror is set. Falls as m grows: each factor does.
 */
static double
log_capital(const double *values, size_t count, double m, double needed, bool mirror)
{
    double sum = 0.5, spread = 0.25, capital = 0.0;
    double most = m > 0.0 ? RV_MEAN_BOLDNESS / m : INFINITY;

    for (size_t i = 0; i < count; i++) {
        double value = mirror ? 1.0 - values[i] : values[i];
        double variance = spread / (double)(i + 1); /* of the values before this one */
        double bet = fmin(sqrt(2.0 * needed / (variance * (double)count)), most);
        double mean;

        capital += log1p(bet * (value - m));
        sum += value;
        mean = sum / (double)(i + 2);
        spread += (value - mean) * (value - mean);
    }
    return capital;
}

/* The least mean (of the mirrored values) that the values do not exclude. */
static double
lower_end(const double *values, size_t count, double needed, bool mirror)
{
    double low = 0.0, high = 1.0;

    if (log_capital(values, count, low, needed, mirror) < needed)
        return 0.0;
    for (int i = 0; i < STEPS; i++) {
        double middle = 0.5 * (low + high);

        if (log_capital(values, count, middle, needed, mirror) >= needed)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Logarithm of the capital that excludes a mean on one side. */
static double
log_needed(double confidence)
{
    return log(2.0 / (1.0 - confidence));
}

rv_interval
rv_mean_interval(const double *values, size_t count, double confidence)
{
    rv_interval interval = {0.0, 1.0};
    double needed = log_needed(confidence);

    if (count == 0 || !(confidence > 0.0 && confidence < 1.0))
        return interval;
    interval.low = lower_end(values, count, needed, false);
    interval.high = 1.0 - lower_end(values, count, needed, true);
    return interval;
}

bool
rv_mean_excludes(const double *values, size_t count, double m, double confidence)
{
    double needed = log_needed(confidence);

    return count > 0 && confidence > 0.0 && confidence < 1.0 &&
           log_capital(values, count, 1.0 - m, needed, true) >= needed;
}
