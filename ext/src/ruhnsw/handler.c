/*
 * handler.c - the access method's entry point, its storage parameters, and the support functions
 * of its operator classes.
 *
 * m, storage and learned_links are fixed by the build (the meta page has them): ALTER INDEX ... SET
 * changes them for the next REINDEX. The others take effect at once.
 */
#include "ruhnsw/ruhnsw.h"

#include "opclass.h"

#include "access/reloptions.h"
#include "commands/progress.h"
#include "commands/vacuum.h"
#include "utils/index_selfuncs.h"
#include "utils/selfuncs.h"

static relopt_enum_elt_def storage_names[] = {
    {"auto", RUHNSW_STORAGE_AUTO},
    {"float32", RUHNSW_STORAGE_FLOAT32},
    {"fixed32", RUHNSW_STORAGE_FIXED32},
    {"fixed24", RUHNSW_STORAGE_FIXED24},
    {"float16", RUHNSW_STORAGE_FLOAT16},
    {"int8", RUHNSW_STORAGE_INT8},
    {NULL, 0},
};

static relopt_kind option_kind;
static bool options_defined = false;

static void
define_options(void)
{
    if (options_defined)
        return;
    option_kind = add_reloption_kind();
    add_int_reloption(option_kind, "m", "Links per node above layer 0; twice as many on layer 0.",
                      RUHNSW_DEFAULT_M, RUHNSW_MIN_M, RUHNSW_MAX_M, AccessExclusiveLock);
    add_int_reloption(option_kind, "ef_construction",
                      "Candidates that are looked at for the links of a new node.",
                      RUHNSW_DEFAULT_EF_CONSTRUCTION, RUHNSW_MIN_EF_CONSTRUCTION,
                      RUHNSW_MAX_EF_CONSTRUCTION, ShareUpdateExclusiveLock);
    add_enum_reloption(option_kind, "storage", "How the index keeps vectors.", storage_names,
                       RUHNSW_STORAGE_AUTO,
                       "Valid values are \"auto\", \"float32\", \"fixed32\", \"fixed24\", "
                       "\"float16\" and \"int8\".",
                       AccessExclusiveLock);
    add_int_reloption(option_kind, "learned_links",
                      "Links that a node has room for beside those of the graph.",
                      RUHNSW_DEFAULT_LEARNED, 0, RUHNSW_MAX_LEARNED, AccessExclusiveLock);
    add_bool_reloption(option_kind, "adaptive_search",
                       "Search this index with what was learned about it.", true,
                       ShareUpdateExclusiveLock);
    add_int_reloption(option_kind, "ef_search",
                      "ruvector.ef_search of this index; 0 follows that setting.", 0, 0,
                      RUV_MAX_EF_SEARCH, ShareUpdateExclusiveLock);
    add_real_reloption(option_kind, "target_recall",
                       "ruvector.target_recall of this index; 0 follows that setting.", 0, 0, 1,
                       ShareUpdateExclusiveLock);
    options_defined = true;
}

static bytea *
ruhnsw_options(Datum reloptions, bool validate)
{
    static const relopt_parse_elt table[] = {
        {"m", RELOPT_TYPE_INT, offsetof(RuhnswOptions, m)},
        {"ef_construction", RELOPT_TYPE_INT, offsetof(RuhnswOptions, ef_construction)},
        {"storage", RELOPT_TYPE_ENUM, offsetof(RuhnswOptions, storage)},
        {"learned_links", RELOPT_TYPE_INT, offsetof(RuhnswOptions, learned_links)},
        {"adaptive_search", RELOPT_TYPE_BOOL, offsetof(RuhnswOptions, adaptive_search)},
        {"ef_search", RELOPT_TYPE_INT, offsetof(RuhnswOptions, ef_search)},
        {"target_recall", RELOPT_TYPE_REAL, offsetof(RuhnswOptions, target_recall)},
    };
    RuhnswOptions *options = build_reloptions(reloptions, validate, option_kind,
                                              sizeof(RuhnswOptions), table, lengthof(table));

    if (validate && options && options->ef_construction < 2 * options->m)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("ef_construction must be at least 2 * m"),
                        errdetail("ef_construction is %d, m is %d.", options->ef_construction,
                                  options->m)));
    if (validate && options)
        ruv_check_own_target(options->target_recall);
    return (bytea *)options;
}

int
ruhnsw_option_m(Relation index)
{
    RuhnswOptions *options = (RuhnswOptions *)index->rd_options;

    return options ? options->m : RUHNSW_DEFAULT_M;
}

int
ruhnsw_option_ef_construction(Relation index)
{
    RuhnswOptions *options = (RuhnswOptions *)index->rd_options;

    return options ? options->ef_construction : RUHNSW_DEFAULT_EF_CONSTRUCTION;
}

RuhnswStorage
ruhnsw_option_storage(Relation index)
{
    RuhnswOptions *options = (RuhnswOptions *)index->rd_options;

    return options ? (RuhnswStorage)options->storage : RUHNSW_STORAGE_AUTO;
}

const char *
ruhnsw_storage_name(RuhnswStorage storage)
{
    for (relopt_enum_elt_def *name = storage_names; name->string_val; name++)
        if (name->symbol_val == (int)storage)
            return name->string_val;
    return "unknown";
}

int
ruhnsw_option_learned(Relation index)
{
    RuhnswOptions *options = (RuhnswOptions *)index->rd_options;

    return options ? options->learned_links : RUHNSW_DEFAULT_LEARNED;
}

bool
ruhnsw_option_adaptive(Relation index)
{
    RuhnswOptions *options = (RuhnswOptions *)index->rd_options;

    return options ? options->adaptive_search : true;
}

RuvOwnEffort
ruhnsw_option_effort(Relation index)
{
    RuhnswOptions *options = (RuhnswOptions *)index->rd_options;
    RuvOwnEffort own = {0};

    if (options) {
        own.ef_search = options->ef_search;
        own.target_recall = options->target_recall;
    }
    return own;
}

bool
ruhnsw_is_index(Relation index)
{
    return index->rd_rel->relkind == RELKIND_INDEX && index->rd_indam != NULL &&
           index->rd_indam->ambuild == ruhnsw_build;
}

static char *
ruhnsw_phase_name(int64 phase)
{
    switch (phase) {
        case PROGRESS_CREATEIDX_SUBPHASE_INITIALIZE:
            return "initializing";
        case RUHNSW_PHASE_LOAD:
            return "building the graph in memory";
        case RUHNSW_PHASE_WRITE:
            return "writing pages";
        case RUHNSW_PHASE_INSERT:
            return "inserting into pages";
        case RUHNSW_PHASE_CONNECT:
            return "checking reachability";
        default:
            return NULL;
    }
}

PG_FUNCTION_INFO_V1(ruhnsw_metric_l2);
Datum
ruhnsw_metric_l2(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_L2);
}

PG_FUNCTION_INFO_V1(ruhnsw_metric_ip);
Datum
ruhnsw_metric_ip(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_IP);
}

PG_FUNCTION_INFO_V1(ruhnsw_metric_cosine);
Datum
ruhnsw_metric_cosine(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_COSINE);
}

PG_FUNCTION_INFO_V1(ruhnsw_metric_l1);
Datum
ruhnsw_metric_l1(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_L1);
}

PG_FUNCTION_INFO_V1(ruhnsw_handler);
Datum
ruhnsw_handler(PG_FUNCTION_ARGS)
{
    IndexAmRoutine *am = makeNode(IndexAmRoutine);

    define_options();
    am->amstrategies = 0;
    am->amsupport = 1;
    am->amcanorderbyop = true;
    am->amoptionalkey = true;
    am->amkeytype = InvalidOid;
    ruv_can_build_parallel(am);
    am->amparallelvacuumoptions = VACUUM_OPTION_NO_PARALLEL;

    am->ambuild = ruhnsw_build;
    am->ambuildempty = ruhnsw_build_empty;
    am->aminsert = ruhnsw_insert;
    am->ambulkdelete = ruhnsw_bulk_delete;
    am->amvacuumcleanup = ruhnsw_vacuum_cleanup;
    am->amcostestimate = ruhnsw_cost_estimate;
    am->amoptions = ruhnsw_options;
    am->ambuildphasename = ruhnsw_phase_name;
    am->amvalidate = ruv_validate_opclass;
    am->ambeginscan = ruhnsw_begin_scan;
    am->amrescan = ruhnsw_rescan;
    am->amgettuple = ruhnsw_get_tuple;
    am->amendscan = ruhnsw_end_scan;
    PG_RETURN_POINTER(am);
}
