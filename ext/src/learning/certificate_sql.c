/*
 * certificate_sql.c - ruvector_recall_certificate(): what the checks of an index say.
 *
 * The verdicts are worked out from the stored checks (certificate.c) when they are asked for. They
 * tell how good the answers to other people's searches were, so they are for the table's owner. A
 * standby shows what came from its primary.
 */
#include "learning/worker.h"

#include <math.h>

#include "access/relation.h"
#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_recall_certificate);

typedef enum CertificateColumn {
    CERTIFICATE_TARGET,
    CERTIFICATE_K,
    CERTIFICATE_QUERIES,
    CERTIFICATE_MEAN,
    CERTIFICATE_LOW,
    CERTIFICATE_HIGH,
    CERTIFICATE_SHARE,
    CERTIFICATE_SHARE_LOW,
    CERTIFICATE_SINCE,
    CERTIFICATE_UNTIL,
    CERTIFICATE_VERDICT,
    CERTIFICATE_COLUMNS
} CertificateColumn;

/* The checks of one target and k. */
typedef struct CheckGroup {
    double target;
    int k; /* -1: none */
    bool stale;
    TimestampTz since;
    TimestampTz until;
    int count;
    double *recalls; /* in the order of the searches */
} CheckGroup;

/* The table of an index of ruvector; errors when it is none or of somebody else. */
static Oid
open_own_index(Oid index_oid, RuvIndexIdentity *identity)
{
    Relation index = relation_open(index_oid, AccessShareLock);
    Oid table_oid;

    if (!ruv_is_index(index))
        ereport(ERROR,
                (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                 errmsg("\"%s\" is not an index of ruvector", RelationGetRelationName(index))));
    table_oid = index->rd_index->indrelid;
    if (!ruv_owns_relation(table_oid))
        aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(table_oid));
    ruv_index_identity(index, identity);
    relation_close(index, NoLock);
    return table_oid;
}

static void
require_learning(RuvStore *store, Oid table_oid)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(table_oid)};

    if (ruv_store_run(store, "SELECT FROM @.ruvector_learning WHERE table_id = $1::oid::regclass",
                      1, types, values, NULL) == 0)
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("learning is not enabled for \"%s\"", get_rel_name(table_oid)),
                 errdetail("Searches are checked where they are learned from."),
                 errhint("SELECT ruvector_enable_learning('%s');", get_rel_name(table_oid))));
}

/* ---- rows ---------------------------------------------------------------------------------- */

static const char *
verdict_text(const CheckGroup *group, const rv_certificate *seen)
{
    if (group->stale)
        return "stale: index rebuilt";
    switch (seen->verdict) {
        case RV_CERTIFICATE_CERTIFIED:
            return "certified";
        case RV_CERTIFICATE_BELOW:
            return "below target";
        case RV_CERTIFICATE_NOT_YET:
            break;
    }
    if (seen->more == 0)
        return "not yet: too close to the target to tell";
    return psprintf("not yet: " UINT64_FORMAT " more checks", seen->more);
}

static void
put_group(Tuplestorestate *rows, TupleDesc descriptor, const CheckGroup *group)
{
    Datum values[CERTIFICATE_COLUMNS];
    bool nulls[CERTIFICATE_COLUMNS] = {false};
    rv_certificate seen;
    rv_error err = {0};

    ruv_check(
        rv_certificate_judge(group->recalls, (size_t)group->count, group->target, &seen, &err),
        &err, "judging the recall of an index");
    values[CERTIFICATE_TARGET] = Float8GetDatum(group->target);
    values[CERTIFICATE_K] = Int32GetDatum(group->k);
    values[CERTIFICATE_QUERIES] = Int64GetDatum(group->count);
    values[CERTIFICATE_MEAN] = Float8GetDatum(seen.mean);
    values[CERTIFICATE_LOW] = Float8GetDatum(seen.recall.low);
    values[CERTIFICATE_HIGH] = Float8GetDatum(seen.recall.high);
    values[CERTIFICATE_SHARE] = Float8GetDatum(seen.share);
    values[CERTIFICATE_SHARE_LOW] = Float8GetDatum(seen.share_low);
    values[CERTIFICATE_SINCE] = TimestampTzGetDatum(group->since);
    values[CERTIFICATE_UNTIL] = TimestampTzGetDatum(group->until);
    values[CERTIFICATE_VERDICT] = CStringGetTextDatum(verdict_text(group, &seen));
    if (group->count == 0)
        memset(&nulls[CERTIFICATE_MEAN], true, CERTIFICATE_VERDICT - CERTIFICATE_MEAN);
    nulls[CERTIFICATE_K] = group->k < 0;
    tuplestore_putvalues(rows, descriptor, values, nulls);
}

static bool
same_group(const CheckGroup *group, uint64 row)
{
    return group->count > 0 && group->target == DatumGetFloat8(ruv_store_value(row, 1, NULL)) &&
           group->k == DatumGetInt32(ruv_store_value(row, 2, NULL));
}

/* Adds the check of a result row, which opens a new group if the present one is empty. */
static void
take_check(CheckGroup *group, uint64 row, uint64 epoch)
{
    TimestampTz searched_at = DatumGetTimestampTz(ruv_store_value(row, 3, NULL));

    if (group->count == 0) {
        group->target = DatumGetFloat8(ruv_store_value(row, 1, NULL));
        group->k = DatumGetInt32(ruv_store_value(row, 2, NULL));
        group->since = searched_at;
        group->stale = (uint64)DatumGetInt64(ruv_store_value(row, 5, NULL)) != epoch;
    }
    group->until = searched_at;
    group->recalls[group->count++] = DatumGetFloat4(ruv_store_value(row, 4, NULL));
}

/* One row per target and k. Returns whether any of them is of the present build. */
static bool
put_groups(RuvStore *store, Oid index_oid, uint64 epoch, Tuplestorestate *rows,
           TupleDesc descriptor)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(index_oid)};
    CheckGroup group = {0};
    bool current = false;
    uint64 count;

    count = ruv_store_run(store,
                          "SELECT target_recall, k, searched_at, recall, index_epoch "
                          "FROM @.ruvector_recall_checks WHERE index_oid = $1 "
                          "ORDER BY target_recall, k, searched_at",
                          1, types, values, NULL);
    group.recalls = palloc(sizeof(double) * Max(count, 1));
    for (uint64 row = 0; row < count; row++) {
        CHECK_FOR_INTERRUPTS();
        if (group.count > 0 && !same_group(&group, row)) {
            put_group(rows, descriptor, &group);
            group.count = 0;
        }
        take_check(&group, row, epoch);
        current = current || !group.stale;
    }
    if (group.count > 0)
        put_group(rows, descriptor, &group);
    return current;
}

Datum
ruv_recall_certificate(PG_FUNCTION_ARGS)
{
    Oid index_oid = PG_GETARG_OID(0);
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    RuvIndexIdentity identity;
    RuvStore store;
    Oid table_oid;

    Assert(descriptor->natts == CERTIFICATE_COLUMNS);
    ruv_require_preload();
    table_oid = open_own_index(index_oid, &identity);
    ruv_store_open_or_fail(&store);
    require_learning(&store, table_oid);
    if (!put_groups(&store, index_oid, identity.epoch, rows, descriptor)) {
        CheckGroup none = {.target = ruv_effective_target_recall(&identity.own), .k = -1};

        put_group(rows, descriptor, &none);
    }
    ruv_store_close(&store);
    return (Datum)0;
}
