/*
 * certificate.c - the verdict on the recall of an index, from exact checks.
 *
 * Certified takes precedence over below: with very many checks both can be shown at once, of a mean
 * that lies within the margin.
 */
#include "ruvector/certificate.h"

#include "../base/internal.h"

#include <math.h>

/* Recalls are counts of neighbours over k in single precision; one just at the target is at it. */
#define ROUNDING 1e-6
/* No number that a person could act on. */
#define MOST_MORE 1000000

bool
rv_certificate_below(const double *recalls, size_t count, double target)
{
    return rv_mean_excludes(recalls, count, target, RV_CERTIFICATE_ALARM_CONFIDENCE);
}

/*
 * Checks until the evidence against m reaches what a confidence needs, were the checks to go on as
 * so far: the growth of the logarithm per check at the best constant bet (Kelly's, to second
 * order). side +1: the mean is above m; -1: below.
 */
static double
checks_needed(const double *recalls, size_t count, double mean, double m, int side,
              double confidence)
{
    double needed = log(2.0 / (1.0 - confidence));
    double gap = side * (mean - m);
    double room = side > 0 ? m : 1.0 - m;
    double variance = 0.0, bet, growth = 0.0;

    if (count == 0)
        return needed / log1p(RV_MEAN_BOLDNESS * (1.0 - m) / m);
    for (size_t i = 0; i < count; i++)
        variance += (recalls[i] - mean) * (recalls[i] - mean) / (double)count;
    if (!(gap > 0.0))
        return INFINITY;
    bet = fmin(gap / (variance + gap * gap), RV_MEAN_BOLDNESS / fmax(room, 1e-9));
    for (size_t i = 0; i < count; i++)
        growth += log1p(bet * side * (recalls[i] - m)) / (double)count;
    return growth > 0.0 ? needed / growth : INFINITY;
}

static uint64_t
more_checks(const double *recalls, size_t count, double mean, double target)
{
    double floor_of_target = target - RV_CERTIFICATE_MARGIN;
    double up = checks_needed(recalls, count, mean, floor_of_target, 1, RV_CERTIFICATE_CONFIDENCE);
    double down = count == 0 ? INFINITY
                             : checks_needed(recalls, count, mean, target, -1,
                                             RV_CERTIFICATE_ALARM_CONFIDENCE);
    double more = ceil(fmin(up, down) - (double)count);

    if (!(more < MOST_MORE))
        return 0;
    return more < 1.0 ? 1 : (uint64_t)more;
}

static rv_status
check_recalls(const double *recalls, size_t count, double target, rv_error *err)
{
    if (!(target > RV_CERTIFICATE_MARGIN && target <= 1.0))
        return rv_fail(err, RV_ERR_RANGE, "the target is %g: it must be above %g and at most 1",
                       target, RV_CERTIFICATE_MARGIN);
    for (size_t i = 0; i < count; i++)
        if (!(recalls[i] >= 0.0 && recalls[i] <= 1.0))
            return rv_fail(err, RV_ERR_RANGE, "recall %zu is %g: it must be between 0 and 1", i,
                           recalls[i]);
    return RV_OK;
}

rv_status
rv_certificate_judge(const double *recalls, size_t count, double target, rv_certificate *out,
                     rv_error *err)
{
    rv_status status = check_recalls(recalls, count, target, err);
    double kept = 0.0;

    if (status != RV_OK)
        return status;
    out->checks = count;
    out->mean = 0.0;
    for (size_t i = 0; i < count; i++) {
        out->mean += recalls[i] / (double)count;
        kept += recalls[i] >= target - ROUNDING;
    }
    out->recall = rv_mean_interval(recalls, count, RV_CERTIFICATE_CONFIDENCE);
    out->share = kept / (double)count;
    /* One-sided at 95% is the lower end of the two-sided interval at 90%. */
    out->share_low =
        rv_clopper_pearson_interval(kept, (double)count, 2.0 * RV_CERTIFICATE_CONFIDENCE - 1.0).low;
    out->more = 0;
    if (count == 0) {
        out->mean = out->share = NAN;
        out->verdict = RV_CERTIFICATE_NOT_YET;
    } else if (out->recall.low >= target - RV_CERTIFICATE_MARGIN) {
        out->verdict = RV_CERTIFICATE_CERTIFIED;
    } else if (rv_certificate_below(recalls, count, target)) {
        out->verdict = RV_CERTIFICATE_BELOW;
    } else {
        out->verdict = RV_CERTIFICATE_NOT_YET;
    }
    if (out->verdict == RV_CERTIFICATE_NOT_YET)
        out->more = more_checks(recalls, count, out->mean, target);
    return RV_OK;
}
