/*
 * effort.c - see effort.h.
 *
 * PostgreSQL keeps the source of a setting's value to itself. The check hook is told it, and what
 * it puts into `extra` travels with the value: through SET LOCAL, the end of a transaction, RESET
 * and into parallel workers.
 */
#include "effort.h"

#include <stdlib.h>

static GucSource ef_search_source = PGC_S_DEFAULT;
static GucSource probes_source = PGC_S_DEFAULT;
static GucSource target_recall_source = PGC_S_DEFAULT;

static bool
remember_source(void **extra, GucSource source)
{
    GucSource *kept = ruv_guc_malloc(sizeof(*kept));

    if (kept == NULL)
        return false;
    *kept = source;
    *extra = kept;
    return true;
}

bool
ruv_check_int_source(int *value, void **extra, GucSource source)
{
    return remember_source(extra, source);
}

bool
ruv_check_real_source(double *value, void **extra, GucSource source)
{
    return remember_source(extra, source);
}

void
ruv_assign_ef_search(int value, void *extra)
{
    ef_search_source = *(GucSource *)extra;
}

void
ruv_assign_probes(int value, void *extra)
{
    probes_source = *(GucSource *)extra;
}

void
ruv_assign_target_recall(double value, void *extra)
{
    target_recall_source = *(GucSource *)extra;
}

/* ALTER DATABASE and ALTER ROLE speak of all indexes, so they do not outdo one of them. */
static bool
of_session(GucSource source)
{
    return source >= PGC_S_CLIENT;
}

int
ruv_effective_ef_search(const RuvOwnEffort *own)
{
    return own->ef_search > 0 && !of_session(ef_search_source) ? own->ef_search : ruv_ef_search;
}

int
ruv_effective_probes(const RuvOwnEffort *own)
{
    return own->probes > 0 && !of_session(probes_source) ? own->probes : ruv_probes;
}

double
ruv_effective_target_recall(const RuvOwnEffort *own)
{
    return own->target_recall > 0 && !of_session(target_recall_source) ? own->target_recall
                                                                       : ruv_target_recall;
}

void
ruv_check_own_target(double target_recall)
{
    if (target_recall != 0 && target_recall < RUV_LEAST_TARGET_RECALL)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("target_recall is %g; it must be between %g and 1, or 0 for none",
                               target_recall, RUV_LEAST_TARGET_RECALL)));
}
