/*
 * selection.h - which of two indexes on the same column a query should use.
 *
 * A column may have a graph and lists at once: lists are cheap where many rows are taken (large
 * limits, conditions that few rows meet), a graph where few are. Their cost functions price one
 * search each, by a model; what the searches really took is known to the learning worker. So where
 * both are there, the policy selection.lua is asked, and the costs of both are put into its order:
 * the cheaper one gets the lower of the two estimates, the other the same times the predicted
 * ratio. Whether an index is used at all is decided by the estimates, as without this.
 */
#ifndef RUVECTOR_SELECTION_H
#define RUVECTOR_SELECTION_H

#include "ruvector.h"
#include "host/host.h"

#include "nodes/pathnodes.h"

/* What a model says of one index. */
typedef struct RuvScanCost {
    Cost startup; /* before the first row */
    Cost total;   /* with all rows */
} RuvScanCost;

/* Changes the estimate of an ordered scan if the column has another index that could serve it.
 * Never an error of its own. */
extern void ruv_select_index(PlannerInfo *root, IndexPath *path, RuvScanCost *cost);

/* ---- learned costs (learning/costs.c) ---- */

/* Means of the searches of an index for about so many rows; false: none are known. Both indexes of
 * a pair are asked at once, so that they are compared over the same range of k. */
extern void ruv_learned_costs(Oid hnsw_oid, Oid ivfflat_oid, double k, rv_selection_index *hnsw,
                              rv_selection_index *ivfflat);

#endif
