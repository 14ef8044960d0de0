/*
 * opclass.c - operator classes of ruhnsw and ruivfflat: one ordering operator that returns float8,
 * and one support function that names the metric. Both access methods know theirs, and check them,
 * in the same way, and read the column that they index in the same way.
 */
#include "opclass.h"

#include "access/amvalidate.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/pg_amop.h"
#include "catalog/pg_amproc.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_type.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

static bool
complain(const char *opclass, const char *problem)
{
    ereport(INFO, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
                   errmsg("operator class \"%s\" %s", opclass, problem)));
    return false;
}

static bool
check_operators(const char *opclass, Oid family, Oid type)
{
    CatCList *list = SearchSysCacheList1(AMOPSTRATEGY, ObjectIdGetDatum(family));
    bool result = true;

    if (list->n_members != 1)
        result = complain(opclass, "must have exactly one operator");
    for (int i = 0; i < list->n_members; i++) {
        Form_pg_amop operator=(Form_pg_amop) GETSTRUCT(&list->members[i]->tuple);

        if (operator->amopstrategy != 1)
            result = complain(opclass, "has an operator whose strategy number is not 1");
        if (operator->amoppurpose != AMOP_ORDER)
            result = complain(opclass, "has an operator that is not for ordering");
        if (!check_amop_signature(operator->amopopr, FLOAT8OID, type, type))
            result = complain(opclass, "has an operator that does not return a distance of two "
                                       "vectors as double precision");
        if (operator->amoppurpose ==
            AMOP_ORDER && !opfamily_can_sort_type(operator->amopsortfamily, FLOAT8OID))
            result = complain(opclass, "sorts by an operator family that is not one of double "
                                       "precision");
    }
    ReleaseCatCacheList(list);
    return result;
}

static bool
check_functions(const char *opclass, Oid family)
{
    CatCList *list = SearchSysCacheList1(AMPROCNUM, ObjectIdGetDatum(family));
    bool found = false;
    bool result = true;

    for (int i = 0; i < list->n_members; i++) {
        Form_pg_amproc proc = (Form_pg_amproc)GETSTRUCT(&list->members[i]->tuple);

        if (proc->amprocnum != RUV_METRIC_PROC) {
            result = complain(opclass, "has a support function with an unknown number");
            continue;
        }
        found = true;
        if (!check_amproc_signature(proc->amproc, INT4OID, true, 1, 1, INTERNALOID))
            result = complain(opclass, "has a metric function that is not of the form "
                                       "(internal) returns integer");
    }
    ReleaseCatCacheList(list);
    return found ? result : complain(opclass, "has no metric function");
}

bool
ruv_validate_opclass(Oid opclass)
{
    HeapTuple tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(opclass));
    Form_pg_opclass form;
    bool operators;
    bool functions;

    if (!HeapTupleIsValid(tuple))
        elog(ERROR, "cache lookup failed for operator class %u", opclass);
    form = (Form_pg_opclass)GETSTRUCT(tuple);
    operators = check_operators(NameStr(form->opcname), form->opcfamily, form->opcintype);
    functions = check_functions(NameStr(form->opcname), form->opcfamily);
    ReleaseSysCache(tuple);
    return operators && functions;
}

rv_metric
ruv_index_metric(Relation index)
{
    FmgrInfo *proc = index_getprocinfo(index, 1, RUV_METRIC_PROC);
    int32 metric = DatumGetInt32(FunctionCall1(proc, PointerGetDatum(NULL)));

    if (metric < RV_METRIC_L2 || metric > RV_METRIC_L1)
        elog(ERROR, "operator class of index \"%s\" names unknown metric %d",
             RelationGetRelationName(index), metric);
    return (rv_metric)metric;
}

int
ruv_column_dimensions(Relation index)
{
    int dim = TupleDescAttr(index->rd_att, 0)->atttypmod;

    if (dim < 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("column does not have dimensions"),
                        errhint("Declare them, for example as ruvector(768), or index the "
                                "expression (column::ruvector(768)).")));
    return dim;
}

uint64
ruv_draw_epoch(void)
{
    uint64 epoch = 0;

    while (epoch == 0)
        if (!pg_strong_random(&epoch, sizeof(epoch)))
            ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
                            errmsg("could not generate a random epoch for the index")));
    return epoch;
}

bool
ruv_index_vector(rv_metric metric, int dim, const RuVector *value, float *out)
{
    if (value->dim != dim)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("different vector dimensions %d and %d", value->dim, dim),
                        errdetail("The index has vectors of %d dimensions.", dim)));
    if (metric == RV_METRIC_COSINE)
        return rv_normalize(value->x, out, dim) > 0.0f;
    memcpy(out, value->x, sizeof(float) * dim);
    return true;
}
