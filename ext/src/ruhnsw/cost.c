/*
 * cost.c - what an index scan costs, for the planner.
 *
 * Model. A search descends log_m(n) layers with about 2m distances each, then visits about m nodes
 * of layer 0 for every place of its window (measured: 14 to 18 at m = 16, falling towards the size
 * of the index when that is small). That is the startup cost: nothing comes out before it is done.
 * Every further row costs about m more visits, so that a LIMIT near the number of rows is left to
 * the sequential scan and sort, and a LIMIT of a few rows is not.
 *
 * A visit is one distance, and a glance at a page in memory, which is priced as a fiftieth of a
 * page read in sequence: one visit takes about a third of the time that an exact scan spends on a
 * row (at 128 dimensions), which the planner puts at 0.08 pages. A vector index that is used at all
 * has its pages in memory, so they are not priced as random. The heap fetches are added by the
 * planner.
 *
 * The operator is of no use for anything but ordering: without an ORDER BY that matches the cost is
 * infinite.
 */
#include "ruhnsw/ruhnsw.h"

#include <math.h>

#include "access/genam.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/float.h"
#include "utils/selfuncs.h"
#include "utils/spccache.h"

#define PAGES_PER_VISIT 0.02

RuvScanCost
ruhnsw_scan_cost(Oid index_oid, double rows, Oid tablespace)
{
    Relation index = index_open(index_oid, NoLock);
    RuvScanCost cost;
    RuhnswInfo info;
    double page_cost;
    double visit_cost;
    double descent;

    ruhnsw_get_info(index, &info);
    index_close(index, NoLock);
    rows = Max(rows, 1.0);
    get_tablespace_page_costs(tablespace, NULL, &page_cost);
    visit_cost = page_cost * PAGES_PER_VISIT + cpu_index_tuple_cost + cpu_operator_cost;
    descent = 2 * info.m * log(Max(rows, info.m)) / log(info.m);
    cost.startup =
        visit_cost *
        Min(descent + (double)info.m * ruv_effective_ef_search(&info.identity.own), rows);
    cost.total = cost.startup + rows * info.m * visit_cost;
    return cost;
}

void
ruhnsw_cost_estimate(PlannerInfo *root, IndexPath *path, double loop_count, Cost *startup_cost,
                     Cost *total_cost, Selectivity *selectivity, double *correlation, double *pages)
{
    IndexOptInfo *info = path->indexinfo;
    RuvScanCost cost;

    *correlation = 0;
    if (path->indexorderbys == NIL) {
        *startup_cost = *total_cost = get_float8_infinity();
        *selectivity = 0;
        *pages = 0;
        return;
    }
    cost = ruhnsw_scan_cost(info->indexoid, info->tuples, info->reltablespace);
    ruv_select_index(root, path, &cost);
    *startup_cost = cost.startup;
    *total_cost = cost.total;
    *selectivity = 1.0;
    *pages = Min(Max(info->tuples, 1.0), (double)info->pages);
}
