/*
 * totals.c - what searches cost before and after an index had learned: sums over every recorded
 * search since learning was enabled, apart for static and for adaptive ones. They outlive the
 * trajectories, of which only the last trajectory_window are kept.
 */
#include "learning/worker.h"

#include "catalog/pg_type.h"

#define TOTALS_COLUMNS 5

void
ruv_totals_observe(RuvIndexState *state, const rv_trajectory *head)
{
    RuvTotals *totals = &state->totals[head->mode == RV_SEARCH_ADAPTIVE];

    totals->searches++;
    totals->distances += head->distances;
    totals->latency_us += head->latency_us;
}

void
ruv_totals_judged(RuvIndexState *state, const RuvSample *sample)
{
    RuvTotals *totals = &state->totals[sample->head.mode == RV_SEARCH_ADAPTIVE];

    if (sample->retrace || sample->recall < 0 || !sample->even)
        return;
    totals->checked++;
    totals->recall += sample->recall;
}

void
ruv_totals_load(RuvStore *store, RuvIndexState *state)
{
    Oid types[1] = {OIDOID};
    Datum values[1] = {ObjectIdGetDatum(state->index_oid)};

    if (ruv_store_run(store,
                      "SELECT static_searches, static_distances, static_latency_us, "
                      "static_checked, static_recall, adaptive_searches, adaptive_distances, "
                      "adaptive_latency_us, adaptive_checked, adaptive_recall "
                      "FROM @.ruvector_index_state WHERE index_oid = $1",
                      1, types, values, NULL) == 0)
        return;
    for (int i = 0; i < 2; i++) {
        RuvTotals *totals = &state->totals[i];
        int column = 1 + i * TOTALS_COLUMNS;

        totals->searches = (uint64)DatumGetInt64(ruv_store_value(0, column, NULL));
        totals->distances = DatumGetFloat8(ruv_store_value(0, column + 1, NULL));
        totals->latency_us = DatumGetFloat8(ruv_store_value(0, column + 2, NULL));
        totals->checked = (uint64)DatumGetInt64(ruv_store_value(0, column + 3, NULL));
        totals->recall = DatumGetFloat8(ruv_store_value(0, column + 4, NULL));
    }
}

void
ruv_totals_save(RuvStore *store, const RuvIndexState *state)
{
    static const Oid totals_types[TOTALS_COLUMNS] = {INT8OID, FLOAT8OID, FLOAT8OID, INT8OID,
                                                     FLOAT8OID};
    Oid types[1 + 2 * TOTALS_COLUMNS] = {OIDOID};
    Datum values[1 + 2 * TOTALS_COLUMNS] = {ObjectIdGetDatum(state->index_oid)};

    for (int i = 0; i < 2; i++) {
        const RuvTotals *totals = &state->totals[i];
        int column = 1 + i * TOTALS_COLUMNS;

        memcpy(types + column, totals_types, sizeof(totals_types));
        values[column] = Int64GetDatum((int64)totals->searches);
        values[column + 1] = Float8GetDatum(totals->distances);
        values[column + 2] = Float8GetDatum(totals->latency_us);
        values[column + 3] = Int64GetDatum((int64)totals->checked);
        values[column + 4] = Float8GetDatum(totals->recall);
    }
    ruv_store_run(store,
                  "UPDATE @.ruvector_index_state SET static_searches = $2, static_distances = $3, "
                  "static_latency_us = $4, static_checked = $5, static_recall = $6, "
                  "adaptive_searches = $7, adaptive_distances = $8, adaptive_latency_us = $9, "
                  "adaptive_checked = $10, adaptive_recall = $11 WHERE index_oid = $1",
                  1 + 2 * TOTALS_COLUMNS, types, values, NULL);
}
