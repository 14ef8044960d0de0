/*
 * index_rows.c - see index_rows.h.
 */
#include "index_rows.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/snapmgr.h"

void
ruv_index_rows(Relation table, Relation index, const RuvIndexIdentity *identity, ruv_each_row each,
               void *ctx)
{
    IndexInfo *info = BuildIndexInfo(index);
    EState *estate = CreateExecutorState();
    ExprContext *econtext = GetPerTupleExprContext(estate);
    ExprState *predicate = ExecPrepareQual(info->ii_Predicate, estate);
    TupleTableSlot *slot = table_slot_create(table, NULL);
    TableScanDesc scan = table_beginscan(table, GetActiveSnapshot(), 0, NULL);

    econtext->ecxt_scantuple = slot;
    while (table_scan_getnextslot(scan, ForwardScanDirection, slot)) {
        MemoryContext former = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
        Datum values[INDEX_MAX_KEYS];
        bool nulls[INDEX_MAX_KEYS];

        CHECK_FOR_INTERRUPTS();
        if (ExecQual(predicate, econtext)) {
            const float *vector;

            FormIndexDatum(info, slot, estate, values, nulls);
            vector = nulls[0] ? NULL : ruv_index_prepare(identity, values[0]);
            if (vector != NULL)
                each(ctx, vector, &slot->tts_tid);
        }
        MemoryContextSwitchTo(former);
        ResetExprContext(econtext);
    }
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(slot);
    FreeExecutorState(estate);
}
