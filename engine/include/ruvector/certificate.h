/*
 * certificate.h - what a number of exact checks of searches says about the recall of an index.
 *
 * A check is the recall of one search as it was served, in [0, 1]. Recalls are nothing like
 * normally distributed: nearly all are 1 and a few are low, so the usual interval of a mean is far
 * too short just when no low one has been met yet. The interval here holds for every distribution
 * on [0, 1] and every number of checks.
 */
#ifndef RUVECTOR_CERTIFICATE_H
#define RUVECTOR_CERTIFICATE_H

#include "ruvector/base.h"
#include "ruvector/stats.h"

/* Confidence of the interval, and of the share's lower bound. */
#define RV_CERTIFICATE_CONFIDENCE 0.95
/* A target counts as kept when the mean is shown to be no more than this below it: calibration aims
 * at the target itself, and a mean that lies on it could never be shown to be above. */
#define RV_CERTIFICATE_MARGIN 0.01
/* Of the interval whose upper end has to lie below the target for an alarm: alarms are looked for
 * after every pass, so each has to be rarely false. */
#define RV_CERTIFICATE_ALARM_CONFIDENCE 0.99

typedef enum rv_certificate_verdict {
    RV_CERTIFICATE_NOT_YET = 0,
    RV_CERTIFICATE_CERTIFIED = 1, /* the mean is at least target - margin */
    RV_CERTIFICATE_BELOW = 2      /* the mean is below the target */
} rv_certificate_verdict;

typedef struct rv_certificate {
    uint64_t checks;
    double mean;        /* NaN without checks */
    rv_interval recall; /* of the mean; [0, 1] without checks */
    double share;       /* of the checks at or above the target; NaN without checks */
    double share_low;   /* one-sided lower bound (Clopper and Pearson) */
    rv_certificate_verdict verdict;
    uint64_t more; /* not yet: checks that are still needed for a verdict, if they go on as so far;
                      0: the target cannot be told apart from the mean */
} rv_certificate;

/*
 * recalls: count values in [0, 1] in the order in which they were drawn (RV_ERR_RANGE otherwise);
 * target in (0, 1]. count 0 is allowed. O(count), some 80 times.
 */
rv_status rv_certificate_judge(const double *recalls, size_t count, double target,
                               rv_certificate *out, rv_error *err);

/* True when the checks show a mean below the target. Once O(count): for the watch between. */
bool rv_certificate_below(const double *recalls, size_t count, double target);

#endif
