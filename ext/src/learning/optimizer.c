/*
 * optimizer.c - how to search: what was learned, or the static settings.
 */
#include "learning/learning_internal.h"

const char *
ruv_choice_reason_name(RuvChoiceReason reason)
{
    switch (reason) {
        case RUV_REASON_LEARNED:
            return "learned";
        case RUV_REASON_SETTING_OFF:
            return "adaptive_search is off";
        case RUV_REASON_INDEX_OFF:
            return "the index's adaptive_search is off";
        case RUV_REASON_NOT_PRELOADED:
            return "not preloaded";
        case RUV_REASON_LEARNING_DISABLED:
            return "learning_enabled is off";
        case RUV_REASON_NOTHING_LEARNED:
            return "nothing learned yet";
        case RUV_REASON_INDEX_REBUILT:
            return "the index was rebuilt";
        case RUV_REASON_POLICY_FAILED:
            return "learned, by the built-in interpolation";
    }
    return "unknown";
}

static void
choose_static(RuvChoice *choice)
{
    memset(choice, 0, sizeof(*choice));
    choice->mode = RV_SEARCH_STATIC;
    choice->ef_search = ruv_ef_search;
    choice->window = ruv_ef_search;
    choice->target_recall = ruv_target_recall;
    choice->expected_recall = -1;
    choice->probes = ruv_probes;
    choice->best_similarity = -1;
}

void
ruv_choose(const RuvIndexIdentity *index, const float *query, RuvChoice *choice)
{
    choose_static(choice);
    if (!ruv_preloaded)
        choice->reason = RUV_REASON_NOT_PRELOADED;
    else if (!ruv_learning_enabled)
        choice->reason = RUV_REASON_LEARNING_DISABLED;
    else if (!ruv_adaptive_search)
        choice->reason = RUV_REASON_SETTING_OFF;
    else if (!index->adaptive)
        choice->reason = RUV_REASON_INDEX_OFF;
    else
        choice->reason = RUV_REASON_NOTHING_LEARNED;
}
