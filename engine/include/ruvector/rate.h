/*
 * rate.h - how much of something happens per second lately.
 *
 * An amount counts less the longer ago it was: by exp(-age / span), so the rate follows a change
 * within a few spans and needs no memory of single events. What happened before the start is not
 * taken for nothing: right after the start the rate is the mean since then.
 */
#ifndef RUVECTOR_RATE_H
#define RUVECTOR_RATE_H

#include "ruvector/base.h"

typedef struct rv_rate {
    double sum; /* of the amounts, as they count at at_us */
    int64_t at_us;
    int64_t since_us;
    double span_s;
} rv_rate;

/* Begins at now_us, on the caller's clock in microseconds; span_s > 0. */
void rv_rate_start(rv_rate *rate, int64_t now_us, double span_s);
/* A clock that has gone back stands still. */
void rv_rate_add(rv_rate *rate, int64_t now_us, double amount);
/* Amount per second; 0 at the very start. */
double rv_rate_read(const rv_rate *rate, int64_t now_us);

#endif
