/*
 * clustering.c - the access method ruivfflat in a build without k-means (WITH_ADVANCED=no): it can
 * be named, and an index of it cannot be built, changed or searched. The planner passes over one
 * that another build has made.
 */
#include "without/absent.h"

#include "access/amapi.h"
#include "access/genam.h"
#include "nodes/pathnodes.h"
#include "opclass.h"
#include "optimizer/optimizer.h"
#include "ruivfflat/ruivfflat_api.h"
#include "utils/float.h"

pg_attribute_noreturn() static void refuse(void)
{
    ruv_built_without("clustering, which ruivfflat needs", "WITH_ADVANCED");
}

static IndexBuildResult *
build(Relation table, Relation index, IndexInfo *info)
{
    refuse();
}

static void
build_empty(Relation index)
{
    refuse();
}

static bool
insert(Relation index, Datum *values, bool *nulls, ItemPointer tid, Relation table,
       IndexUniqueCheck check, bool unchanged, IndexInfo *info)
{
    refuse();
}

static IndexBulkDeleteResult *
bulk_delete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats, IndexBulkDeleteCallback callback,
            void *state)
{
    refuse();
}

static IndexBulkDeleteResult *
vacuum_cleanup(IndexVacuumInfo *info, IndexBulkDeleteResult *stats)
{
    return stats;
}

static void
cost_estimate(PlannerInfo *root, IndexPath *path, double loops, Cost *startup, Cost *total,
              Selectivity *selectivity, double *correlation, double *pages)
{
    *startup = *total = get_float8_infinity();
    *selectivity = 1;
    *correlation = 0;
    *pages = 0;
}

static bytea *
options(Datum reloptions, bool validate)
{
    return NULL;
}

static IndexScanDesc
begin_scan(Relation index, int keys, int orders)
{
    refuse();
}

static void
rescan(IndexScanDesc scan, ScanKey keys, int key_count, ScanKey orders, int order_count)
{
    refuse();
}

static bool
get_tuple(IndexScanDesc scan, ScanDirection direction)
{
    refuse();
}

static void
end_scan(IndexScanDesc scan)
{
}

PG_FUNCTION_INFO_V1(ruivfflat_handler);
Datum
ruivfflat_handler(PG_FUNCTION_ARGS)
{
    IndexAmRoutine *am = makeNode(IndexAmRoutine);

    am->amsupport = 1;
    am->amcanorderbyop = true;
    am->amoptionalkey = true;
    am->amkeytype = InvalidOid;
    am->ambuild = build;
    am->ambuildempty = build_empty;
    am->aminsert = insert;
    am->ambulkdelete = bulk_delete;
    am->amvacuumcleanup = vacuum_cleanup;
    am->amcostestimate = cost_estimate;
    am->amoptions = options;
    am->amvalidate = ruv_validate_opclass;
    am->ambeginscan = begin_scan;
    am->amrescan = rescan;
    am->amgettuple = get_tuple;
    am->amendscan = end_scan;
    PG_RETURN_POINTER(am);
}

/* ---- what others ask of an index of lists: there is none ---------------------------------------
 */

bool
ruivf_is_index(Relation index)
{
    return false;
}

void
ruivf_get_info(Relation index, RuivfInfo *info)
{
    refuse();
}

void
ruivf_trace(Relation index, const float *query, const rv_trace_limits *limits, const float *truth,
            uint32 truth_count, rv_effort *efforts, rv_trace_summary *summary)
{
    refuse();
}

int
ruivf_search(Relation index, const float *query, int k, int rows, rv_hit *hits)
{
    refuse();
}

int
ruivf_probe(Relation index, const float *query, int k, int probes, rv_hit *hits, uint64 *distances)
{
    refuse();
}

RuvScanCost
ruivf_scan_cost(Oid index_oid, double rows, double pages, Oid tablespace)
{
    refuse();
}

void
ruivf_verify(Relation index, Relation table, ReturnSetInfo *out)
{
    refuse();
}
