/*
 * feedback.c - relevance feedback as arithmetic. Nothing here decides who may give feedback or what
 * it changes: the server does the one, the policies do the other.
 *
 * The mean of many rows is summed in double precision, so that the order of the rows does not show
 * in the result.
 */
#include "ruvector/feedback.h"
#include "../base/internal.h"

#include <float.h>
#include <math.h>

/* Distances of the search and distances computed afterwards come from different kernels. */
#define DISTANCE_TOLERANCE 1e-5
#define LEAST_DISTANCE 1e-3

static double
tolerance(double distance)
{
    return DISTANCE_TOLERANCE * fmax(fabs(distance), LEAST_DISTANCE);
}

rv_row_place
rv_feedback_place(const rv_hit *hits, uint32_t count, uint64_t id, double distance)
{
    double last = -INFINITY;

    for (uint32_t i = 0; i < count; i++) {
        if (hits[i].id == id || fabs(hits[i].distance - distance) <= tolerance(distance))
            return RV_ROW_RETURNED;
        last = fmax(last, hits[i].distance);
    }
    return count == 0 || distance < last ? RV_ROW_MISSED_NEAR : RV_ROW_MISSED_FAR;
}

static rv_status
check_weight(const char *name, double weight, rv_error *err)
{
    if (weight >= 0 && weight <= RV_REFINE_MAX_WEIGHT)
        return RV_OK;
    return rv_fail(err, RV_ERR_RANGE, "%s is %g; it must be between 0 and %d", name, weight,
                   RV_REFINE_MAX_WEIGHT);
}

static double
mean_element(const float *const *rows, uint32_t count, uint32_t element)
{
    double sum = 0;

    for (uint32_t i = 0; i < count; i++)
        sum += rows[i][element];
    return count > 0 ? sum / count : 0;
}

/* What the sum is divided by. */
static rv_status
find_scale(const rv_refine_input *in, double *scale, rv_error *err)
{
    *scale = 1;
    if (in->metric != RV_METRIC_L2 && in->metric != RV_METRIC_L1)
        return RV_OK;
    *scale = in->alpha + (in->relevant_count > 0 ? in->beta : 0) -
             (in->irrelevant_count > 0 ? in->gamma : 0);
    if (*scale > 0)
        return RV_OK;
    return rv_fail(err, RV_ERR_RANGE,
                   "the weights of the query and the rows sum to %g; it must be "
                   "more than 0",
                   *scale);
}

rv_status
rv_feedback_refine(const rv_refine_input *in, float *out, rv_error *err)
{
    rv_status status = check_weight("alpha", in->alpha, err);
    double scale;

    if (status == RV_OK)
        status = check_weight("beta", in->beta, err);
    if (status == RV_OK)
        status = check_weight("gamma", in->gamma, err);
    if (status == RV_OK)
        status = find_scale(in, &scale, err);
    if (status != RV_OK)
        return status;
    for (uint32_t i = 0; i < in->dim; i++) {
        double element = (in->alpha * in->query[i] +
                          in->beta * mean_element(in->relevant, in->relevant_count, i) -
                          in->gamma * mean_element(in->irrelevant, in->irrelevant_count, i)) /
                         scale;

        if (!(fabs(element) <= FLT_MAX))
            return rv_fail(err, RV_ERR_RANGE,
                           "element %u of the refined query is %g, which is too "
                           "large for a float",
                           i + 1, element);
        out[i] = (float)element;
    }
    if (in->metric == RV_METRIC_COSINE && !(rv_normalize(out, out, in->dim) > 0))
        return rv_fail(err, RV_ERR_RANGE,
                       "the refined query is zero, which has no direction; "
                       "change alpha, beta or gamma");
    return RV_OK;
}

void
rv_feedback_limit(const double *wanted, uint32_t count, double drawn, double share, double *factors)
{
    double total = 0;
    double room = RV_FEEDBACK_TOTAL_SHARE * drawn;

    for (uint32_t i = 0; i < count; i++) {
        factors[i] = wanted[i] > share * drawn ? share * drawn / wanted[i] : 1;
        total += factors[i] * wanted[i];
    }
    for (uint32_t i = 0; i < count && total > room; i++)
        factors[i] *= room / total;
}
