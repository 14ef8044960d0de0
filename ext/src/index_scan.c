/*
 * index_scan.c - the part of a scan that does not depend on how the index is searched.
 */
#include "index_scan.h"

#include "opclass.h"

void
ruv_scan_reset(RuvScan *scan)
{
    scan->started = false;
    scan->finished = false;
    scan->returned = scan->hit_count = 0;
    scan->last_distance = 0;
}

void
ruv_scan_take_keys(IndexScanDesc desc, ScanKey keys, ScanKey orderbys)
{
    if (keys && desc->numberOfKeys > 0)
        memmove(desc->keyData, keys, desc->numberOfKeys * sizeof(ScanKeyData));
    if (orderbys && desc->numberOfOrderBys > 0)
        memmove(desc->orderByData, orderbys, desc->numberOfOrderBys * sizeof(ScanKeyData));
}

void
ruv_scan_load_query(RuvScan *scan, ScanKey key, rv_metric metric, int dim)
{
    RuVector *value;

    scan->null_query = (key->sk_flags & SK_ISNULL) != 0;
    if (scan->null_query) {
        memset(scan->query, 0, sizeof(float) * dim);
        return;
    }
    value = DatumGetRuVector(key->sk_argument);
    ruv_index_vector(metric, dim, value, scan->query);
    if ((Pointer)value != DatumGetPointer(key->sk_argument))
        pfree(value);
}

bool
ruv_scan_is_late(const RuvScan *scan, float distance)
{
    return ruv_iterative_scan == RUV_ITERATIVE_STRICT && scan->returned > 0 &&
           distance < scan->last_distance;
}

void
ruv_scan_return(IndexScanDesc desc, RuvScan *scan, const ItemPointerData *tid, uint64 node,
                float distance)
{
    desc->xs_heaptid = *tid;
    desc->xs_recheck = false;
    desc->xs_recheckorderby = false;
    if (scan->hit_count < RV_TRAJECTORY_MAX_HITS) {
        rv_hit *hit = &scan->hits[scan->hit_count++];

        hit->id = ((uint64)ItemPointerGetBlockNumberNoCheck(tid) << 16) |
                  ItemPointerGetOffsetNumberNoCheck(tid);
        hit->node = node;
        hit->distance = distance;
        hit->reserved = 0;
    }
    scan->returned++;
    scan->last_distance = distance;
}

void
ruv_scan_report(const RuvScan *scan, const rv_beam_stats *stats, uint64 pages)
{
    RuvSearchReport report;

    report.index = &scan->identity;
    report.choice = &scan->choice;
    report.query = scan->query;
    report.started = scan->started_at;
    report.latency_us = INSTR_TIME_GET_DOUBLE(scan->spent) * 1e6;
    report.stats = *stats;
    report.stats.distances += scan->choice.lookup_distances;
    report.pages = (uint32)Min(pages, PG_UINT32_MAX);
    report.k = scan->returned;
    report.hit_count = scan->hit_count;
    report.hits = scan->hits;
    ruv_capture(&report);
}
