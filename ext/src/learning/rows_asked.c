/*
 * rows_asked.c - how many rows the running statement asks of a scan.
 *
 * An access method is not told the LIMIT above its scan, but a search is calibrated for a number of
 * rows. So the executor's runs are followed by a hook, which only remembers the innermost one; when
 * a search begins, the scan's node is looked for in that run's plan, and the least LIMIT between it
 * and the top says how many rows are wanted. By then the LIMIT has been evaluated: it is what asks
 * its subplan for rows.
 *
 * Nobody knows where something in between takes more rows than it gives (a filter, a sort, a join,
 * an aggregate), in a parallel worker, whose part of the plan ends below the LIMIT, and in the
 * statement that loads this library.
 */
#include "learning/learning_internal.h"

#include "executor/executor.h"
#include "nodes/nodeFuncs.h"

static ExecutorRun_hook_type previous_run_hook = NULL;
static QueryDesc *running = NULL; /* the innermost */

static void
run_query(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
    QueryDesc *outer = running;

    running = query;
    PG_TRY();
    {
        if (previous_run_hook)
            previous_run_hook(query, direction, count, execute_once);
        else
            standard_ExecutorRun(query, direction, count, execute_once);
    }
    PG_FINALLY();
    {
        running = outer;
    }
    PG_END_TRY();
}

typedef struct Wanted {
    IndexScanDesc scan;
    uint64 rows; /* that the node at hand is asked for; 0: nobody knows */
    bool found;
} Wanted;

/* What a node asks of its subplans when it is asked for rows. */
static uint64
passed_on(const PlanState *node, uint64 rows)
{
    switch (nodeTag(node)) {
        case T_LimitState: {
            const LimitState *limit = (const LimitState *)node;
            uint64 own = limit->noCount ? 0 : (uint64)(limit->count + limit->offset);

            return own == 0 ? rows : rows == 0 ? own : Min(rows, own);
        }
        case T_ResultState:
        case T_SubqueryScanState:
        case T_LockRowsState:
        case T_AppendState:
        case T_MergeAppendState:
            return node->qual == NULL ? rows : 0;
        default:
            return 0;
    }
}

/* Looks for the scan at a node and below. */
static bool
find_scan(PlanState *node, void *context)
{
    Wanted *wanted = context;
    uint64 rows = wanted->rows;

    if (node == NULL)
        return false;
    if (IsA(node, IndexScanState) && ((IndexScanState *)node)->iss_ScanDesc == wanted->scan) {
        if (node->qual != NULL)
            wanted->rows = 0;
        wanted->found = true;
        return true;
    }
    wanted->rows = passed_on(node, rows);
    if (planstate_tree_walker(node, find_scan, wanted))
        return true;
    wanted->rows = rows;
    return false;
}

uint32
ruv_rows_asked(IndexScanDesc scan)
{
    Wanted wanted = {.scan = scan};

    if (running == NULL || running->planstate == NULL)
        return 0;
    (void)find_scan(running->planstate, &wanted);
    return wanted.found ? (uint32)Min(wanted.rows, PG_UINT32_MAX) : 0;
}

void
ruv_rows_asked_init(void)
{
    previous_run_hook = ExecutorRun_hook;
    ExecutorRun_hook = run_query;
}
