/*
 * selection.c - see selection.h.
 */
#include "selection.h"

#include "access/genam.h"
#include "access/relation.h"
#include "catalog/pg_amop.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "index_api.h"
#include "learning/learning_internal.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "ruhnsw/ruhnsw_api.h"
#include "ruivfflat/ruivfflat_api.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(ruv_explain_selection);

/* How many rows a query wants that does not say. */
#define RUV_USUAL_LIMIT 10
/* Two paths whose costs differ by less than a hundredth are one to the planner. */
#define RUV_LEAST_RATIO 1.02
#define RUV_MOST_RATIO 1000.0

/* Two indexes on the same column. */
typedef struct IndexPair {
    Oid hnsw;
    Oid ivfflat;
    RuvScanCost hnsw_cost;
    RuvScanCost ivfflat_cost;
} IndexPair;

typedef struct Selection {
    rv_selection_input in;
    rv_selection out;
    bool hnsw_preferred;
} Selection;

static double
cost_of_rows(const RuvScanCost *cost, double k, double rows)
{
    return cost->startup + (cost->total - cost->startup) * Min(k / Max(rows, 1), 1.0);
}

static double
declared_target(Oid index_oid)
{
    Relation index = index_open(index_oid, NoLock);
    RuvIndexIdentity identity;
    double target;

    ruv_index_identity(index, &identity);
    target = ruv_effective_target_recall(&identity.own);
    index_close(index, NoLock);
    return target;
}

/* Both indexes are locked. */
static void
compare_pair(const IndexPair *pair, double limit, double rows, double selectivity, Selection *out)
{
    rv_selection_input *in = &out->in;

    in->rows = rows;
    in->limit = limit;
    in->selectivity = selectivity;
    in->k = Max(Min(limit / selectivity, rows), 1);
    in->target_recall = declared_target(pair->hnsw);
    ruv_learned_costs(pair->hnsw, pair->ivfflat, in->k, &in->hnsw, &in->ivfflat);
    in->hnsw.cost = cost_of_rows(&pair->hnsw_cost, in->k, rows);
    in->ivfflat.cost = cost_of_rows(&pair->ivfflat_cost, in->k, rows);
    ruv_policy_use_of(pair->hnsw);
    (void)ruv_policy_predict(in, &out->out);
    out->hnsw_preferred = out->out.hnsw <= out->out.ivfflat;
}

/* ---- for the planner ----------------------------------------------------------------------- */

static bool
orders_by(Oid operator_oid, Oid family)
{
    return SearchSysCacheExists3(AMOPOPID, ObjectIdGetDatum(operator_oid), CharGetDatum(AMOP_ORDER),
                                 ObjectIdGetDatum(family));
}

static bool
same_key(const IndexOptInfo *a, const IndexOptInfo *b)
{
    if (a->indexkeys[0] != b->indexkeys[0])
        return false;
    return a->indexkeys[0] != 0 || equal(linitial(a->indexprs), linitial(b->indexprs));
}

typedef enum IndexMethod { METHOD_OTHER, METHOD_HNSW, METHOD_IVFFLAT } IndexMethod;

/* Locked by the planner. */
static IndexMethod
method_of(const IndexOptInfo *info)
{
    Relation index = index_open(info->indexoid, NoLock);
    IndexMethod method = ruhnsw_is_index(index)  ? METHOD_HNSW
                         : ruivf_is_index(index) ? METHOD_IVFFLAT
                                                 : METHOD_OTHER;

    index_close(index, NoLock);
    return method;
}

/* The index of the other access method that could serve the same scan; NULL: there is none. */
static IndexOptInfo *
rival(const IndexPath *path)
{
    IndexOptInfo *own = path->indexinfo;
    Node *order = linitial(path->indexorderbys);
    ListCell *cell;

    if (own->hypothetical || !IsA(order, OpExpr))
        return NULL;
    foreach (cell, own->rel->indexlist) {
        IndexOptInfo *other = lfirst(cell);

        if (other->relam == own->relam || other->hypothetical ||
            (other->indpred != NIL && !other->predOK) || !other->amcanorderbyop)
            continue;
        if (same_key(own, other) && orders_by(((OpExpr *)order)->opno, other->opfamily[0]) &&
            method_of(other) != METHOD_OTHER)
            return other;
    }
    return NULL;
}

static double
wanted_rows(const PlannerInfo *root)
{
    if (root->limit_tuples >= 1)
        return root->limit_tuples;
    /* A cursor, or part of a larger query, says how many it wants in its own way. */
    return root->tuple_fraction >= 1 ? root->tuple_fraction : RUV_USUAL_LIMIT;
}

static double
share_of_rows(const RelOptInfo *rel)
{
    double share = rel->rows / Max(rel->tuples, 1);

    return Max(Min(share, 1.0), 1.0 / Max(rel->tuples, 1));
}

void
ruv_select_index(PlannerInfo *root, IndexPath *path, RuvScanCost *cost)
{
    IndexOptInfo *own = path->indexinfo;
    IndexOptInfo *other = ruv_index_selection ? rival(path) : NULL;
    bool is_hnsw;
    RuvScanCost other_cost;
    IndexPair pair;
    Selection selection;
    double ratio;

    if (other == NULL)
        return;
    is_hnsw = method_of(own) == METHOD_HNSW;
    other_cost = is_hnsw ? ruivf_scan_cost(other->indexoid, other->tuples, other->pages,
                                           other->reltablespace)
                         : ruhnsw_scan_cost(other->indexoid, other->tuples, other->reltablespace);
    pair.hnsw = is_hnsw ? own->indexoid : other->indexoid;
    pair.ivfflat = is_hnsw ? other->indexoid : own->indexoid;
    pair.hnsw_cost = is_hnsw ? *cost : other_cost;
    pair.ivfflat_cost = is_hnsw ? other_cost : *cost;
    compare_pair(&pair, wanted_rows(root), Max(own->rel->tuples, 1), share_of_rows(own->rel),
                 &selection);
    cost->startup = Min(cost->startup, other_cost.startup);
    cost->total = Min(cost->total, other_cost.total);
    if (selection.hnsw_preferred == is_hnsw)
        return;
    ratio = is_hnsw ? selection.out.hnsw / selection.out.ivfflat
                    : selection.out.ivfflat / selection.out.hnsw;
    ratio = Max(Min(ratio, RUV_MOST_RATIO), RUV_LEAST_RATIO);
    cost->startup *= ratio;
    cost->total *= ratio;
}

/* ---- for people ---------------------------------------------------------------------------- */

#define SELECTION_COLUMNS 10

static char *
reason_text(const Selection *selection)
{
    const rv_selection_input *in = &selection->in;

    if (!ruv_index_selection)
        return "ruvector.index_selection is off: the planner's estimates decide";
    if (in->hnsw.searches < 0 || in->ivfflat.searches < 0)
        return "learning is not enabled for the table: the planner's estimates decide";
    return psprintf("%.0f and %.0f searches for about %.0f rows were measured; selection.lua "
                    "predicts %.4g and %.4g",
                    in->hnsw.searches, in->ivfflat.searches, in->k, selection->out.hnsw,
                    selection->out.ivfflat);
}

static Datum
known(double value, bool *null)
{
    *null = value < 0;
    return Float8GetDatum(value);
}

static void
put_index(Tuplestorestate *rows, TupleDesc descriptor, const Selection *selection, Oid index_oid,
          bool is_hnsw)
{
    const rv_selection_index *index = is_hnsw ? &selection->in.hnsw : &selection->in.ivfflat;
    bool by_estimate = selection->in.hnsw.cost <= selection->in.ivfflat.cost;
    Datum values[SELECTION_COLUMNS];
    bool nulls[SELECTION_COLUMNS] = {false};
    int i = 0;

    Assert(descriptor->natts == SELECTION_COLUMNS);
    values[i++] = ObjectIdGetDatum(index_oid);
    values[i++] = CStringGetTextDatum(is_hnsw ? "ruhnsw" : "ruivfflat");
    values[i++] =
        BoolGetDatum((ruv_index_selection ? selection->hnsw_preferred : by_estimate) == is_hnsw);
    values[i++] = Float8GetDatum(is_hnsw ? selection->out.hnsw : selection->out.ivfflat);
    values[i++] = Float8GetDatum(index->cost);
    values[i] = known(index->searches, &nulls[i]);
    i++;
    values[i] = known(index->latency_us, &nulls[i]);
    i++;
    values[i] = known(index->distances, &nulls[i]);
    i++;
    values[i] = known(index->recall, &nulls[i]);
    i++;
    values[i++] = CStringGetTextDatum(reason_text(selection));
    Assert(i == SELECTION_COLUMNS);
    tuplestore_putvalues(rows, descriptor, values, nulls);
}

/* Whether a graph and lists order the same column by the same operator. */
static bool
rivals(Relation hnsw, Relation ivfflat)
{
    Oid type = hnsw->rd_opcintype[0];
    AttrNumber column = hnsw->rd_index->indkey.values[0];
    Oid operator_oid = get_opfamily_member(hnsw->rd_opfamily[0], type, type, 1);

    if (!ruhnsw_is_index(hnsw) || !ruivf_is_index(ivfflat) || column == 0)
        return false;
    return ivfflat->rd_index->indkey.values[0] == column && OidIsValid(operator_oid) &&
           orders_by(operator_oid, ivfflat->rd_opfamily[0]);
}

static void
put_pair(Tuplestorestate *rows, TupleDesc descriptor, Relation table, Relation hnsw,
         Relation ivfflat, double limit, double selectivity)
{
    double tuples = Max(table->rd_rel->reltuples, 1);
    IndexPair pair = {RelationGetRelid(hnsw), RelationGetRelid(ivfflat)};
    Selection selection;

    pair.hnsw_cost = ruhnsw_scan_cost(pair.hnsw, tuples, hnsw->rd_rel->reltablespace);
    pair.ivfflat_cost = ruivf_scan_cost(pair.ivfflat, tuples, RelationGetNumberOfBlocks(ivfflat),
                                        ivfflat->rd_rel->reltablespace);
    compare_pair(&pair, limit, tuples, selectivity, &selection);
    put_index(rows, descriptor, &selection, pair.hnsw, true);
    put_index(rows, descriptor, &selection, pair.ivfflat, false);
}

Datum
ruv_explain_selection(PG_FUNCTION_ARGS)
{
    Oid table_oid = PG_GETARG_OID(0);
    int k = PG_GETARG_INT32(1);
    double selectivity = PG_GETARG_FLOAT8(2);
    TupleDesc descriptor;
    Tuplestorestate *rows = ruv_begin_rows(fcinfo, &descriptor);
    List *indexes = NIL;
    Relation table;
    ListCell *a;
    ListCell *b;

    if (k < 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("k is %d; it must be at least 1", k)));
    if (!(selectivity > 0 && selectivity <= 1))
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                 errmsg("selectivity is %g; it must be above 0 and at most 1", selectivity)));
    ruv_require_statistics_reader(table_oid);
    table = relation_open(table_oid, AccessShareLock);
    foreach (a, RelationGetIndexList(table))
        indexes = lappend(indexes, relation_open(lfirst_oid(a), AccessShareLock));
    foreach (a, indexes)
        foreach (b, indexes)
            if (rivals(lfirst(a), lfirst(b)))
                put_pair(rows, descriptor, table, lfirst(a), lfirst(b), k, selectivity);
    foreach (a, indexes)
        relation_close(lfirst(a), NoLock);
    relation_close(table, NoLock);
    return (Datum)0;
}
