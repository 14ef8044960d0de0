/*
 * index_scan.h - what a scan of either access method keeps beside its search: the query, what was
 * chosen for it, and what the learning engine is told when it ends.
 */
#ifndef RUVECTOR_INDEX_SCAN_H
#define RUVECTOR_INDEX_SCAN_H

#include "ruvector.h"
#include "learning.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

typedef struct RuvScan {
    RuvIndexIdentity identity;
    RuvChoice choice;
    float *query;    /* as the index compares it */
    bool null_query; /* all rows are equally near: nothing to learn from */
    bool started;    /* a search runs or has run since the last rescan */
    bool finished;
    float last_distance; /* of the last row returned */

    /* what the report needs */
    TimestampTz started_at;
    instr_time spent;
    uint32 returned;
    uint32 hit_count;
    rv_hit hits[RV_TRAJECTORY_MAX_HITS];
} RuvScan;

/* Forgets the search before the next one; a report of it comes first. */
extern void ruv_scan_reset(RuvScan *scan);
/* amrescan's keys. */
extern void ruv_scan_take_keys(IndexScanDesc desc, ScanKey keys, ScanKey orderbys);
/* Fills in query and null_query. A NULL has no distance to anything: any order is right. */
extern void ruv_scan_load_query(RuvScan *scan, ScanKey key, rv_metric metric, int dim);
/* Under strict_order: whether a row comes too late to be returned. */
extern bool ruv_scan_is_late(const RuvScan *scan, float distance);
/* Hands out a row; node as the trajectory is to name it. */
extern void ruv_scan_return(IndexScanDesc desc, RuvScan *scan, const ItemPointerData *tid,
                            uint64 node, float distance);
/* Tells the learning engine about the search that ends here. */
extern void ruv_scan_report(const RuvScan *scan, const rv_beam_stats *stats, uint64 pages);

#endif
