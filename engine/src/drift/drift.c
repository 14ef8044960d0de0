/*
 * drift.c - tests of a recent stretch against the time of learning.
 */
#include "ruvector/drift.h"

#include <math.h>
#include <stdlib.h>

#define LEAST_COUNT 20
#define SHARE_ERRORS 3.3
#define RECALL_ERRORS 2.3
#define KS_CRITICAL 2.2

bool
rv_drift_share(uint64_t recent_hits, uint64_t recent_count, uint64_t former_hits,
               uint64_t former_count, double least_difference)
{
    double n = (double)recent_count + 1.0;
    double m = (double)former_count + 1.0;
    double recent = ((double)recent_hits + 0.5) / n;
    double former = ((double)former_hits + 0.5) / m;
    double pooled = (recent * n + former * m) / (n + m);

    if (recent_count < LEAST_COUNT || former_count < LEAST_COUNT)
        return false;
    return recent - former >= least_difference &&
           recent - former > SHARE_ERRORS * sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m));
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
