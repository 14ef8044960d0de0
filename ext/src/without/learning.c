/*
 * learning.c - what the access methods ask of learning, in a build without it (WITH_LEARNING=no):
 * every search is static, nothing is recorded, and the planner prices indexes by their model.
 */
#include "learning.h"
#include "selection.h"

void
ruv_choose(const RuvIndexIdentity *index, const float *query, uint32 rows, RuvChoice *choice)
{
    memset(choice, 0, sizeof(*choice));
    choice->mode = RV_SEARCH_STATIC;
    choice->reason = RUV_REASON_LEARNING_DISABLED;
    choice->ef_search = ruv_effective_ef_search(&index->own);
    choice->window = choice->ef_search;
    choice->target_recall = ruv_effective_target_recall(&index->own);
    choice->expected_recall = -1;
    choice->probes = ruv_effective_probes(&index->own);
    choice->best_similarity = -1;
}

uint32
ruv_rows_asked(IndexScanDesc scan)
{
    return 0;
}

void
ruv_capture(const RuvSearchReport *report)
{
}

void
ruv_note_links_reset(Oid index_oid)
{
}

void
ruv_learning_init(void)
{
}

void
ruv_select_index(PlannerInfo *root, IndexPath *path, RuvScanCost *cost)
{
}
