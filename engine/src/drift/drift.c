/*
 * drift.c - tests of a recent stretch against the time of learning.
 */
#include "ruvector/drift.h"

#include <math.h>
#include <stdlib.h>

#define LEAST_COUNT 20
#define SHARE_CHANCE 1e-4
#define RECALL_ERRORS 2.3
#define KS_CRITICAL 2.2

/*
 * The chance of at least `hits` among n of a population of N with K of them: Fisher's exact test,
 * one-sided. The terms of the hypergeometric distribution follow from their neighbours, beginning
 * at the mode with 1; a sum of all of them makes chances of them.
 */
static double
chance_of_at_least(double hits, double n, double K, double N)
{
    double low = fmax(0.0, K - (N - n));
    double high = fmin(n, K);
    double mode = fmin(fmax(floor((n + 1.0) * (K + 1.0) / (N + 2.0)), low), high);
    double tail = mode >= hits ? 1.0 : 0.0;
    double all = 1.0;
    double term = 1.0;

    for (double x = mode; x < high && term > 0.0; x++) {
        term *= (K - x) * (n - x) / ((x + 1.0) * (N - K - n + x + 1.0));
        all += term;
        tail += x + 1.0 >= hits ? term : 0.0;
    }
    term = 1.0;
    for (double x = mode; x > low && term > 0.0; x--) {
        term *= x * (N - K - n + x) / ((K - x + 1.0) * (n - x + 1.0));
        all += term;
        tail += x - 1.0 >= hits ? term : 0.0;
    }
    return tail / all;
}

bool
rv_drift_share(uint64_t recent_hits, uint64_t recent_count, uint64_t former_hits,
               uint64_t former_count, double least_difference)
{
    double n = (double)recent_count;
    double m = (double)former_count;

    if (recent_count < LEAST_COUNT || former_count < LEAST_COUNT)
        return false;
    if ((double)recent_hits / n - (double)former_hits / m < least_difference)
        return false;
    return chance_of_at_least((double)recent_hits, n, (double)(recent_hits + former_hits), n + m) <
           SHARE_CHANCE;
}

static int
compare_floats(const void *a, const void *b)
{
    float left = *(const float *)a;
    float right = *(const float *)b;

    return (left > right) - (left < right);
}

bool
rv_drift_distribution(float *recent, uint32_t recent_count, float *former, uint32_t former_count)
{
    double largest = 0.0;
    uint32_t i = 0;
    uint32_t j = 0;

    if (recent_count < LEAST_COUNT || former_count < LEAST_COUNT)
        return false;
    qsort(recent, recent_count, sizeof *recent, compare_floats);
    qsort(former, former_count, sizeof *former, compare_floats);
    while (i < recent_count && j < former_count) {
        float value = recent[i] < former[j] ? recent[i] : former[j];

        while (i < recent_count && recent[i] <= value)
            i++;
        while (j < former_count && former[j] <= value)
            j++;
        largest = fmax(largest, fabs((double)i / recent_count - (double)j / former_count));
    }
    return largest > KS_CRITICAL * sqrt(1.0 / recent_count + 1.0 / former_count);
}

bool
rv_drift_recall(const float *recalls, uint32_t count, double target, double tolerance)
{
    double sum = 0.0;
    double squares = 0.0;
    double mean;
    double error;

    if (count < LEAST_COUNT)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        sum += (double)recalls[i];
        squares += (double)recalls[i] * (double)recalls[i];
    }
    mean = sum / count;
    error = sqrt(fmax(squares / count - mean * mean, 0.0) / count);
    return mean + RECALL_ERRORS * error < target - tolerance;
}
