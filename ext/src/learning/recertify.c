/*
 * recertify.c - priors: patterns of another build of an index, checked on searches traced here.
 *
 * They come from before a REINDEX, from a dump, or from ruvector_import_patterns(). Until they are
 * checked, searches are static. RV_RECERTIFY_INDEX traced searches are enough for a check
 * (rv_bank_recertify), fewer than a calibration from nothing needs (min_samples); a distillation
 * then takes the index-wide pattern's place, and merges with the regions.
 */
#include "learning/worker.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

static bool
has_prior(const RuvIndexState *state)
{
    for (uint32 i = 0; i < rv_bank_count(state->bank); i++)
        if (rv_bank_get(state->bank, i, NULL)->index_epoch != state->identity.epoch)
            return true;
    return false;
}

bool
ruv_recertify_due(const RuvIndexState *state)
{
    return state->bank != NULL && list_length(state->samples) >= RV_RECERTIFY_INDEX &&
           state->samples_ever != state->recertified_with && has_prior(state);
}

void
ruv_recertify(RuvIndexState *state)
{
    int count = list_length(state->samples);
    rv_traced_search *searches = palloc(sizeof(*searches) * count);
    rv_recertified result;
    rv_error err = {0};

    for (int i = 0; i < count; i++) {
        const RuvSample *sample = list_nth(state->samples, i);

        searches[i].query = sample->query;
        searches[i].efforts = sample->efforts;
        searches[i].count = sample->effort_count;
        searches[i].k = sample->head.k;
    }
    ruv_check(rv_bank_recertify(state->bank, state->identity.epoch, GetCurrentTimestamp(), searches,
                                (uint32_t)count, &result, &err),
              &err, "checking patterns of another build");
    pfree(searches);
    state->recertified_with = state->samples_ever;
    if (result.taken + result.dropped == 0)
        return;
    state->bank_changed = true;
    ereport(LOG, (errmsg("%u patterns of another build serve index \"%s\" now, %u were dropped",
                         result.taken, NameStr(state->index_name), result.dropped)));
}
