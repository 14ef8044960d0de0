/*
 * sql_bank.c - SQL functions on the patterns of one index: merge those that are alike, drop those
 * that serve little. The worker does both by itself now and then, by the policy retention; here
 * somebody says how. bank_edit.h tells how the worker takes it over.
 */
#include "learning/bank_edit.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(ruv_consolidate_patterns);
PG_FUNCTION_INFO_V1(ruv_prune_patterns);

/* Opens an index of ruvector whose patterns the caller may change. */
static Relation
open_own_index(Oid index_oid)
{
    Relation index;

    ruv_require_preload();
    ruv_require_primary();
    index = relation_open(index_oid, AccessShareLock);
    if (!ruv_is_index(index))
        ereport(ERROR,
                (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                 errmsg("\"%s\" is not an index of ruvector", RelationGetRelationName(index))));
    if (!ruv_owns_relation(index_oid))
        aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_INDEX, RelationGetRelationName(index));
    ruv_require_enabled(index->rd_index->indrelid);
    return index;
}

static void
check_share(const char *name, double value)
{
    if (!(value >= 0 && value <= 1))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("%s is %g; it must be between 0 and 1", name, value)));
}

/* Regions of this index merged into others, by the policy retention. */
Datum
ruv_consolidate_patterns(PG_FUNCTION_ARGS)
{
    double similarity = PG_GETARG_FLOAT8(1);
    Relation index = open_own_index(PG_GETARG_OID(0));
    uint32_t merged = 0;
    rv_error err = {0};
    RuvBankEdit edit;

    check_share("similarity", similarity);
    ruv_bank_edit_begin(&edit, index, true);
    ruv_check(
        rv_bank_consolidate(edit.state.bank, similarity, ruv_policy_merge, NULL, &merged, &err),
        &err, "consolidating patterns");
    if (merged > 0)
        ruv_bank_edit_save(&edit);
    ruv_bank_edit_end(&edit);
    relation_close(index, NoLock);
    PG_RETURN_INT32((int32)merged);
}

typedef struct Demands {
    int min_usage;
    double min_confidence;
} Demands;

static bool
meets_demands(void *ctx, const rv_pattern *pattern)
{
    const Demands *demands = ctx;

    return pattern->usage >= (uint64)demands->min_usage &&
           pattern->confidence >= demands->min_confidence;
}

/* Regions of this index dropped: used less, or known with less confidence, than asked for. */
Datum
ruv_prune_patterns(PG_FUNCTION_ARGS)
{
    Demands demands = {PG_GETARG_INT32(1), PG_GETARG_FLOAT8(2)};
    Relation index = open_own_index(PG_GETARG_OID(0));
    uint32_t pruned = 0;
    rv_error err = {0};
    RuvBankEdit edit;

    if (demands.min_usage < 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("min_usage is %d; it must be at least 0", demands.min_usage)));
    check_share("min_confidence", demands.min_confidence);
    ruv_bank_edit_begin(&edit, index, true);
    ruv_check(rv_bank_prune(edit.state.bank, meets_demands, &demands, &pruned, &err), &err,
              "pruning patterns");
    if (pruned > 0)
        ruv_bank_edit_save(&edit);
    ruv_bank_edit_end(&edit);
    relation_close(index, NoLock);
    PG_RETURN_INT32((int32)pruned);
}
