/*
 * feedback.h - what a user's judgement of results says about the search, and what may be made of
 * it: an index miss told from an embedding miss, a refined query, and how far feedback may weigh.
 */
#ifndef RUVECTOR_FEEDBACK_H
#define RUVECTOR_FEEDBACK_H

#include "ruvector/base.h"
#include "ruvector/distance.h"
#include "ruvector/trajectory.h"

typedef enum rv_row_place {
    RV_ROW_RETURNED = 0,    /* among the results, or as near as one of them */
    RV_ROW_MISSED_NEAR = 1, /* nearer than the last result, and not returned: the index missed it */
    RV_ROW_MISSED_FAR = 2   /* farther than the last result: no search effort would return it */
} rv_row_place;

/*
 * Where a row stands towards the results of a search. id is its heap position, distance its raw
 * distance to the query now. A row whose distance equals a result's, to rounding, counts as
 * returned: it may have moved since, and of rows equally far any may be returned. Without results
 * (count 0) every row is missed near.
 */
rv_row_place rv_feedback_place(const rv_hit *hits, uint32_t count, uint64_t id, double distance);

/* The largest weight that rv_feedback_refine takes. */
#define RV_REFINE_MAX_WEIGHT 1000

typedef struct rv_refine_input {
    rv_metric metric;
    uint32_t dim;
    const float *query;
    const float *const *relevant; /* relevant_count rows of dim */
    uint32_t relevant_count;
    const float *const *irrelevant;
    uint32_t irrelevant_count;
    double alpha; /* of the query, 0 to RV_REFINE_MAX_WEIGHT; beta and gamma likewise */
    double beta;  /* of the mean of the relevant rows */
    double gamma; /* of the mean of the irrelevant rows, which is taken away */
} rv_refine_input;

/*
 * The query moved towards what was relevant and away from what was not: alpha * query + beta *
 * mean(relevant) - gamma * mean(irrelevant); a mean over no rows is left out (J. Rocchio,
 * "Relevance feedback in information retrieval", in The SMART Retrieval System, 1971). Rocchio's
 * setting was the cosine, to which length is nothing. So under cosine distance the result has unit
 * length (hand in the query and the rows as unit vectors, then no row weighs more for being long),
 * and under L2 and L1, where the length of the sum would take it away from all of them, it is
 * divided by the sum of the weights that took part. out: dim floats, may be the query.
 * RV_ERR_RANGE: a weight outside its range, weights that sum to 0 or less (L2, L1), an element too
 * large for a float, or nothing left that has a direction (cosine).
 */
rv_status rv_feedback_refine(const rv_refine_input *in, float *out, rv_error *err);

/* What all givers of feedback together may weigh, as a share of the searches drawn at random. */
#define RV_FEEDBACK_TOTAL_SHARE 0.5

/*
 * How much feedback may weigh. wanted[i] is the weight that giver i's feedback would have, drawn
 * the number of searches that were sampled without regard to feedback (each weighs 1), share what
 * one giver may have of that number (0 to 1). factors[i] (0 to 1) brings every giver down to its
 * share, and all together to RV_FEEDBACK_TOTAL_SHARE.
 */
void rv_feedback_limit(const double *wanted, uint32_t count, double drawn, double share,
                       double *factors);

#endif
