/*
 * truth.c - the true neighbours of a batch of searches.
 *
 * They come from one pass over the table for the whole batch (index_rows.h), so that a larger batch
 * is cheaper per search.
 *
 * On a table so large that even a small batch would take longer than ruvector.exact_pass_limit the
 * truth is estimated by a search of RUV_REFERENCE_EF instead, and the samples say so (exact =
 * false). How far that is off is measured now and then: audit.c.
 *
 * Somebody who waits for a stronger lock on the table (DDL) does not wait for a whole pass: it
 * looks for waiters and stops early.
 */
#include "learning/truth.h"
#include "learning/linking.h"

#include "index_rows.h"

#include <math.h>

#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define RUV_PASS_SECONDS 1.0
#define RUV_MIN_BATCH 32
#define RUV_REFERENCE_EF 2000
#define RUV_DISTANCE_TOLERANCE 1e-5
/* Measured on one core of 2020 with a busy neighbour: fetching a row, and one element of one
 * comparison by codes (exact.h; l1 has none and takes half as long again). The size of a batch
 * depends on them, and whether a pass is tried at all. */
#define RUV_ROW_SECONDS 0.6e-6
#define RUV_ELEMENT_SECONDS 0.08e-9

double
ruv_table_rows(Relation table)
{
    double rows = table->rd_rel->reltuples;

    /* Never analysed: by size, as for rows of a hundred bytes. */
    if (rows < 0)
        rows = (double)RelationGetNumberOfBlocks(table) * (BLCKSZ / 128);
    return Max(rows, 1);
}

double
ruv_pass_seconds(Relation table, int dim, int queries)
{
    return ruv_table_rows(table) * (RUV_ROW_SECONDS + (double)queries * dim * RUV_ELEMENT_SECONDS);
}

bool
ruv_exact_affordable(Relation table, int dim)
{
    return ruv_pass_seconds(table, dim, RUV_MIN_BATCH) <= ruv_exact_pass_limit;
}

int
ruv_batch_limit(Relation table, int dim)
{
    double rows = ruv_table_rows(table);
    double queries;

    if (!ruv_exact_affordable(table, dim))
        return RUV_MIN_BATCH;
    queries = (Min(RUV_PASS_SECONDS, ruv_exact_pass_limit) - rows * RUV_ROW_SECONDS) /
              (rows * dim * RUV_ELEMENT_SECONDS);
    return (int)Max(RUV_MIN_BATCH, Min(queries, RUV_MAX_BATCH));
}

bool
ruv_reaches(float distance, float last)
{
    return distance <= last + RUV_DISTANCE_TOLERANCE * Max(fabs(last), 1e-3);
}

/* ---- truth by a pass over the table -------------------------------------------------------- */

/*
 * Whether somebody waits for a lock that conflicts with ours. PostgreSQL does not tell the holder
 * of a weak lock; but a request for another weak mode is refused while a conflicting request waits.
 */
static bool
waited_for(Relation relation)
{
    if (!ConditionalLockRelation(relation, RowShareLock))
        return true;
    UnlockRelation(relation, RowShareLock);
    return false;
}

bool
ruv_somebody_waits(Relation table, Relation index)
{
    ruv_worker_breathe();
    return waited_for(table) || waited_for(index);
}

/* True neighbours that a search is looked at for. */
static uint32
wanted(const RuvIndexState *state, const RuvSample *sample)
{
    return sample->for_links ? Max(sample->head.k, state->linking.answer.rows_per_query)
                             : sample->head.k;
}

static uint32
widest(const RuvIndexState *state, RuvSample **batch, int count)
{
    uint32 width = 1;

    for (int i = 0; i < count; i++)
        width = Max(width, wanted(state, batch[i]));
    return width;
}

typedef struct Relations {
    Relation table;
    Relation index;
} Relations;

static bool
nobody_waits(void *ctx)
{
    const Relations *relations = ctx;

    return !ruv_somebody_waits(relations->table, relations->index);
}

static bool
truth_by_pass(RuvTruth *truth, RuvIndexState *state, Relation table, Relation index,
              RuvSample **batch, int count)
{
    int dim = state->identity.dim;
    float *queries = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * dim * count);
    rv_exact_hit *hits = palloc(sizeof(rv_exact_hit) * truth->width);
    Relations relations = {table, index};
    rv_exact *exact;

    for (int i = 0; i < count; i++)
        memcpy(queries + (size_t)i * dim, batch[i]->query, sizeof(float) * dim);
    exact = ruv_exact_pass(table, index, &state->identity, queries, count, truth->width,
                           nobody_waits, &relations);
    if (exact == NULL)
        return false;
    for (int i = 0; i < count; i++) {
        uint32 found = rv_exact_result(exact, (uint32_t)i, hits);

        truth->found[i] = Min(found, wanted(state, batch[i]));
        for (uint32 j = 0; j < truth->found[i]; j++) {
            truth->distances[(size_t)i * truth->width + j] = hits[j].distance;
            truth->ids[(size_t)i * truth->width + j] = hits[j].id;
        }
    }
    rv_exact_destroy(exact);
    truth->exact = true;
    return true;
}

int
ruv_reference_search(Relation index, const float *query, int k, rv_hit *hits)
{
    return Max(ruv_index_search(index, query, k, RUV_REFERENCE_EF, hits), 0);
}

static void
truth_by_search(RuvTruth *truth, const RuvIndexState *state, Relation index, RuvSample **batch,
                int count)
{
    rv_hit *hits = palloc(sizeof(rv_hit) * truth->width);

    for (int i = 0; i < count; i++) {
        int found =
            ruv_reference_search(index, batch[i]->query, (int)wanted(state, batch[i]), hits);

        truth->found[i] = (uint32)found;
        for (int j = 0; j < found; j++) {
            truth->distances[(size_t)i * truth->width + j] = hits[j].distance;
            truth->ids[(size_t)i * truth->width + j] = hits[j].node;
        }
        ruv_worker_breathe();
    }
    truth->exact = false;
}

bool
ruv_find_truth(RuvTruth *truth, RuvIndexState *state, Relation table, Relation index,
               RuvSample **batch, int count)
{
    Size cells;

    truth->width = widest(state, batch, count);
    cells = (Size)truth->width * (Size)count;
    truth->distances = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * cells);
    truth->ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * cells);
    truth->found = palloc0(sizeof(uint32) * count);
    if (ruv_exact_affordable(table, state->identity.dim))
        return truth_by_pass(truth, state, table, index, batch, count);
    truth_by_search(truth, state, index, batch, count);
    return true;
}
