/*
 * handler.c - the access method's entry point, its storage parameters, and the support functions
 * of its operator classes.
 *
 * lists and storage are fixed by the build (the meta page has them), so changing them takes effect
 * at the next REINDEX; the others take effect at once.
 */
#include "ruivfflat/ruivfflat.h"

#include "opclass.h"

#include "access/reloptions.h"
#include "commands/progress.h"
#include "commands/vacuum.h"

/* From here on codes save more than the exact comparisons of the best rows cost. */
#define AUTO_CODES_FROM 64

static relopt_kind option_kind;
static bool options_defined = false;

static relopt_enum_elt_def storage_values[] = {{"auto", RUIVF_STORAGE_AUTO},
                                               {"float32", RUIVF_STORAGE_FLOAT32},
                                               {"fixed32", RUIVF_STORAGE_FIXED32},
                                               {NULL, 0}};

static void
define_options(void)
{
    if (options_defined)
        return;
    option_kind = add_reloption_kind();
    add_int_reloption(option_kind, "lists",
                      "Lists that the rows are divided into; 0 chooses by the number of rows.",
                      RUIVF_DEFAULT_LISTS, 0, RV_IVF_MAX_LISTS, AccessExclusiveLock);
    add_enum_reloption(
        option_kind, "storage", "How the index keeps vectors.", storage_values, RUIVF_STORAGE_AUTO,
        "Valid values are \"auto\", \"float32\" and \"fixed32\".", AccessExclusiveLock);
    add_bool_reloption(option_kind, "adaptive_search",
                       "Search this index with what was learned about it.", true,
                       ShareUpdateExclusiveLock);
    add_int_reloption(option_kind, "probes",
                      "ruvector.probes of this index; 0 follows that setting.", 0, 0,
                      RUV_MAX_PROBES, ShareUpdateExclusiveLock);
    add_real_reloption(option_kind, "target_recall",
                       "ruvector.target_recall of this index; 0 follows that setting.", 0, 0, 1,
                       ShareUpdateExclusiveLock);
    options_defined = true;
}

static bytea *
ruivf_options(Datum reloptions, bool validate)
{
    static const relopt_parse_elt table[] = {
        {"lists", RELOPT_TYPE_INT, offsetof(RuivfOptions, lists)},
        {"storage", RELOPT_TYPE_ENUM, offsetof(RuivfOptions, storage)},
        {"adaptive_search", RELOPT_TYPE_BOOL, offsetof(RuivfOptions, adaptive_search)},
        {"probes", RELOPT_TYPE_INT, offsetof(RuivfOptions, probes)},
        {"target_recall", RELOPT_TYPE_REAL, offsetof(RuivfOptions, target_recall)},
    };
    RuivfOptions *options = build_reloptions(reloptions, validate, option_kind,
                                             sizeof(RuivfOptions), table, lengthof(table));

    if (validate && options)
        ruv_check_own_target(options->target_recall);
    return (bytea *)options;
}

int
ruivf_option_lists(Relation index)
{
    RuivfOptions *options = (RuivfOptions *)index->rd_options;

    return options ? options->lists : RUIVF_DEFAULT_LISTS;
}

RuivfStorage
ruivf_option_storage(Relation index, int dim)
{
    RuivfOptions *options = (RuivfOptions *)index->rd_options;

    if (options && options->storage != RUIVF_STORAGE_AUTO)
        return (RuivfStorage)options->storage;
    return dim < AUTO_CODES_FROM ? RUIVF_STORAGE_FLOAT32 : RUIVF_STORAGE_FIXED32;
}

const char *
ruivf_storage_name(RuivfStorage storage)
{
    return storage == RUIVF_STORAGE_FIXED32 ? "fixed32" : "float32";
}

bool
ruivf_option_adaptive(Relation index)
{
    RuivfOptions *options = (RuivfOptions *)index->rd_options;

    return options ? options->adaptive_search : true;
}

RuvOwnEffort
ruivf_option_effort(Relation index)
{
    RuivfOptions *options = (RuivfOptions *)index->rd_options;
    RuvOwnEffort own = {0};

    if (options) {
        own.probes = options->probes;
        own.target_recall = options->target_recall;
    }
    return own;
}

bool
ruivf_is_index(Relation index)
{
    return index->rd_rel->relkind == RELKIND_INDEX && index->rd_indam != NULL &&
           index->rd_indam->ambuild == ruivf_build;
}

static char *
ruivf_phase_name(int64 phase)
{
    switch (phase) {
        case PROGRESS_CREATEIDX_SUBPHASE_INITIALIZE:
            return "initializing";
        case RUIVF_PHASE_SAMPLE:
            return "sampling rows";
        case RUIVF_PHASE_KMEANS:
            return "finding the centres of the lists";
        case RUIVF_PHASE_ASSIGN:
            return "assigning rows to lists";
        case RUIVF_PHASE_SORT:
            return "sorting rows by list";
        case RUIVF_PHASE_WRITE:
            return "writing pages";
        default:
            return NULL;
    }
}

PG_FUNCTION_INFO_V1(ruivfflat_metric_l2);
Datum
ruivfflat_metric_l2(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_L2);
}

PG_FUNCTION_INFO_V1(ruivfflat_metric_ip);
Datum
ruivfflat_metric_ip(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_IP);
}

PG_FUNCTION_INFO_V1(ruivfflat_metric_cosine);
Datum
ruivfflat_metric_cosine(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_COSINE);
}

PG_FUNCTION_INFO_V1(ruivfflat_metric_l1);
Datum
ruivfflat_metric_l1(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(RV_METRIC_L1);
}

PG_FUNCTION_INFO_V1(ruivfflat_handler);
Datum
ruivfflat_handler(PG_FUNCTION_ARGS)
{
    IndexAmRoutine *am = makeNode(IndexAmRoutine);

    define_options();
    am->amstrategies = 0;
    am->amsupport = 1;
    am->amcanorderbyop = true;
    ruv_can_build_parallel(am);
    am->amoptionalkey = true;
    am->amkeytype = InvalidOid;
    am->amparallelvacuumoptions = VACUUM_OPTION_PARALLEL_BULKDEL;

    am->ambuild = ruivf_build;
    am->ambuildempty = ruivf_build_empty;
    am->aminsert = ruivf_insert;
    am->ambulkdelete = ruivf_bulk_delete;
    am->amvacuumcleanup = ruivf_vacuum_cleanup;
    am->amcostestimate = ruivf_cost_estimate;
    am->amoptions = ruivf_options;
    am->ambuildphasename = ruivf_phase_name;
    am->amvalidate = ruv_validate_opclass;
    am->ambeginscan = ruivf_begin_scan;
    am->amrescan = ruivf_rescan;
    am->amgettuple = ruivf_get_tuple;
    am->amendscan = ruivf_end_scan;
    PG_RETURN_POINTER(am);
}
