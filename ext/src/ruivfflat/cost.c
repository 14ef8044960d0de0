/*
 * cost.c - what an index scan costs, for the planner.
 *
 * Model. A search compares the query with every centre, and then with every row of `probes` lists:
 * their share of the rows and of the pages. That is the startup cost: nothing comes out before it
 * is done. Taking all rows visits the other lists too and costs an ordered row each, so that a
 * LIMIT near the number of rows is left to the sequential scan and sort, and one of a few rows is
 * not.
 *
 * Pages are priced as sequential, not random: a list's pages follow each other, and a vector index
 * that is used at all has them in memory. A comparison costs an operator's call; it reads a float32
 * vector or a code, which the pages account for. The heap fetches are added by the planner.
 *
 * The operator is of no use for anything but ordering: without an ORDER BY that matches the cost is
 * infinite.
 */
#include "ruivfflat/ruivfflat.h"

#include <math.h>

#include "access/genam.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/float.h"
#include "utils/selfuncs.h"
#include "utils/spccache.h"

RuvScanCost
ruivf_scan_cost(Oid index_oid, double rows, double pages, Oid tablespace)
{
    Relation index = index_open(index_oid, NoLock);
    RuvScanCost cost;
    RuivfInfo info;
    double page_cost;
    double share;
    double scan_cost;
    double centres_cost;

    ruivf_get_info(index, &info);
    index_close(index, NoLock);
    rows = Max(rows, 1.0);
    share = Min(ruv_effective_probes(&info.identity.own) / (double)info.lists, 1.0);
    get_tablespace_page_costs(tablespace, NULL, &page_cost);
    scan_cost = pages * page_cost + rows * cpu_operator_cost;
    centres_cost = info.lists * cpu_operator_cost;
    cost.startup = centres_cost + share * scan_cost;
    cost.total = centres_cost + scan_cost +
                 rows * (cpu_index_tuple_cost + 2 * cpu_operator_cost * log2(Max(rows, 2)));
    return cost;
}

void
ruivf_cost_estimate(PlannerInfo *root, IndexPath *path, double loop_count, Cost *startup_cost,
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
    cost = ruivf_scan_cost(info->indexoid, info->tuples, info->pages, info->reltablespace);
    ruv_select_index(root, path, &cost);
    *startup_cost = cost.startup;
    *total_cost = cost.total;
    *selectivity = 1.0;
    *pages = info->pages;
}
