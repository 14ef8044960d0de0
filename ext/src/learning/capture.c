/*
 * capture.c - remembers the last search of this backend and records it as a trajectory.
 */
#include "learning/learning_internal.h"

static RuvLastSearch last_search;

const RuvLastSearch *
ruv_last_search(void)
{
    return last_search.valid ? &last_search : NULL;
}

void
ruv_capture(const RuvSearchReport *report)
{
    last_search.index_oid = report->index->index_oid;
    last_search.choice = *report->choice;
    last_search.stats = report->stats;
    last_search.latency_us = report->latency_us;
    last_search.pages = report->pages;
    last_search.k = report->k;
    last_search.valid = true;
}
