/*
 * drift.h - whether what comes now is still like what was learned from.
 *
 * Small, one-sided tests of a recent stretch against a longer one from the time of learning. They
 * are asked again and again, so each is strict: a false alarm once in some thousand looks.
 */
#ifndef RUVECTOR_DRIFT_H
#define RUVECTOR_DRIFT_H

#include "ruvector/base.h"

/*
 * Whether more of the recent cases are of a kind than of the former ones: the difference of the
 * shares is at least least_difference (above 0), and the chance of as many by luck is below one in
 * ten thousand (Fisher's exact test: in the first looks the counts are small). False while either
 * has fewer than 20 cases. Counts are below 2^53; takes time in proportion to the smaller of
 * recent_count and the hits.
 */
bool rv_drift_share(uint64_t recent_hits, uint64_t recent_count, uint64_t former_hits,
                    uint64_t former_count, double least_difference);

/*
 * Whether two samples come from different distributions: the two-sample test of Kolmogorov and
 * Smirnov (asymptotic, the statistic above 2.2 sqrt(1/n + 1/m): one false alarm in ten thousand).
 * Both are sorted in place; values must not be NaN. False while either has fewer than 20.
 */
bool rv_drift_distribution(float *recent, uint32_t recent_count, float *former,
                           uint32_t former_count);

/*
 * Whether the mean of count recalls is below target by more than tolerance, by more than 2.3
 * standard errors of the mean. False for fewer than 20.
 */
bool rv_drift_recall(const float *recalls, uint32_t count, double target, double tolerance);

#endif
