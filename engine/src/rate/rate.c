/* rate.c - see rate.h. */
#include "ruvector/rate.h"

#include <math.h>

static double
seconds(int64_t from_us, int64_t to_us)
{
    return to_us > from_us ? (double)(to_us - from_us) / 1e6 : 0;
}

void
rv_rate_start(rv_rate *rate, int64_t now_us, double span_s)
{
    *rate = (rv_rate){0, now_us, now_us, span_s};
}

void
rv_rate_add(rv_rate *rate, int64_t now_us, double amount)
{
    rate->sum = rate->sum * exp(-seconds(rate->at_us, now_us) / rate->span_s) + amount;
    if (now_us > rate->at_us)
        rate->at_us = now_us;
}

double
rv_rate_read(const rv_rate *rate, int64_t now_us)
{
    double seen = rate->span_s * -expm1(-seconds(rate->since_us, now_us) / rate->span_s);

    if (!(seen > 0))
        return 0;
    return rate->sum * exp(-seconds(rate->at_us, now_us) / rate->span_s) / seen;
}
