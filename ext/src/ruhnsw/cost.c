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

static RuhnswInfo
read_info(const IndexOptInfo *info)
{
    Relation index = index_open(info->indexoid, NoLock);
    RuhnswInfo meta;

    ruhnsw_get_info(index, &meta);
    index_close(index, NoLock);
    return meta;
}

void
ruhnsw_cost_estimate(PlannerInfo *root, IndexPath *path, double loop_count, Cost *startup_cost,
                     Cost *total_cost, Selectivity *selectivity, double *correlation, double *pages)
{
    IndexOptInfo *info = path->indexinfo;
    double rows = Max(info->tuples, 1.0);
    double page_cost;
    double visit_cost;
    double descent;
    double first;
    RuhnswInfo meta;
    double m;

    *correlation = 0;
    if (path->indexorderbys == NIL) {
        *startup_cost = *total_cost = get_float8_infinity();
        *selectivity = 0;
        *pages = 0;
        return;
    }
    meta = read_info(info);
    m = meta.m;
    get_tablespace_page_costs(info->reltablespace, NULL, &page_cost);
    visit_cost = page_cost * PAGES_PER_VISIT + cpu_index_tuple_cost + cpu_operator_cost;
    descent = 2 * m * log(Max(rows, m)) / log(m);
    first = Min(descent + m * ruv_effective_ef_search(&meta.identity.own), rows);

    *startup_cost = first * visit_cost;
    *total_cost = *startup_cost + rows * m * visit_cost;
    *selectivity = 1.0;
    *pages = Min(rows, (double)info->pages);
}
