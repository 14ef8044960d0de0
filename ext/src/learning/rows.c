/*
 * rows.c - a row of a function's result, filled by the names of its columns.
 *
 * A function that returns many figures gains a column by one line in the SQL script and one where
 * the figure comes from; nothing counts places.
 */
#include "learning/worker.h"

#include "funcapi.h"
#include "utils/builtins.h"

RuvRow
ruv_row_start(TupleDesc descriptor)
{
    RuvRow row = {.descriptor = descriptor};

    row.values = palloc0(sizeof(Datum) * descriptor->natts);
    row.nulls = palloc(sizeof(bool) * descriptor->natts);
    memset(row.nulls, true, sizeof(bool) * descriptor->natts);
    return row;
}

/* The place of a column of the result; -1: there is none. */
static int
column_place(const RuvRow *row, const char *name)
{
    for (int i = 0; i < row->descriptor->natts; i++)
        if (namestrcmp(&TupleDescAttr(row->descriptor, i)->attname, name) == 0)
            return i;
    return -1;
}

void
ruv_row_set(RuvRow *row, const char *name, Datum value)
{
    int place = column_place(row, name);

    if (place < 0)
        elog(ERROR, "the result has no column %s", name);
    row->values[place] = value;
    row->nulls[place] = false;
}

void
ruv_row_set_int(RuvRow *row, const char *name, uint64 value)
{
    ruv_row_set(row, name, Int64GetDatum((int64)value));
}

void
ruv_row_set_float(RuvRow *row, const char *name, double value)
{
    ruv_row_set(row, name, Float8GetDatum(value));
}

void
ruv_row_set_text(RuvRow *row, const char *name, const char *value)
{
    ruv_row_set(row, name, CStringGetTextDatum(value));
}

void
ruv_row_copy(RuvRow *row, uint64 source)
{
    TupleDesc from = SPI_tuptable->tupdesc;

    for (int i = 0; i < from->natts; i++) {
        int place = column_place(row, NameStr(TupleDescAttr(from, i)->attname));

        if (place < 0)
            continue;
        if (TupleDescAttr(from, i)->atttypid != TupleDescAttr(row->descriptor, place)->atttypid)
            elog(ERROR, "column %s of the result has another type",
                 NameStr(TupleDescAttr(from, i)->attname));
        row->values[place] = ruv_store_value(source, i + 1, &row->nulls[place]);
    }
}

Datum
ruv_store_named(uint64 source, const char *name, bool *null)
{
    return ruv_store_value(source, SPI_fnumber(SPI_tuptable->tupdesc, name), null);
}

void
ruv_row_set_recall_interval(RuvRow *row, uint64 source)
{
    bool null;
    double recall = DatumGetFloat8(ruv_store_named(source, "mean_recall", &null));
    double count = (double)DatumGetInt64(ruv_store_named(source, "recalls", NULL));
    rv_interval interval;

    if (null)
        return;
    /* A search is one trial: the neighbours of one search stand or fall together. */
    interval = rv_wilson_interval(recall * count, count, 0.95);
    ruv_row_set_float(row, "recall_low", interval.low);
    ruv_row_set_float(row, "recall_high", interval.high);
}
