/*
 * verify.c - ruvector_index_verify of a ruivfflat index: checks it against the rules of its format.
 *
 * Checked: the meta page; the centre pages, finite centres and the length of spherical ones; the
 * chain of every list: kinds, owners, ascending links, counters; that every block belongs to one
 * chain, or is a page of vectors of one list page, or is all zeros; vectors finite, of unit length
 * under cosine, within the norm bound; codes, scales and error bounds against the vectors that they
 * were made from; that no row is in one page twice. With heapallindexed also: that every row of the
 * table which should be in the index is there (by a Bloom filter of the rows in the index, so a
 * missing row goes unnoticed with a chance of about 2%).
 *
 * A vector in another list than that of the nearest centre is no finding: the build chooses by sums
 * in another order, and the list is right to within rounding.
 *
 * A page is copied under its share lock and checked from the copy, so nothing else waits for the
 * verifier. On an index that changes meanwhile, rules that span pages can look broken for a moment:
 * run it when nothing writes.
 */
#include "ruivfflat/ruivfflat.h"

#include "opclass.h"

#include <math.h>

#include "access/tableam.h"
#include "catalog/index.h"
#include "lib/bloomfilter.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* More findings than this are counted, not listed. */
#define MAX_FINDINGS 1000
#define ERROR_TOLERANCE 1e-4 /* relative */
#define UNIT_TOLERANCE 1e-3
#define NORM_TOLERANCE 1e-4

typedef struct Verifier {
    Relation index;
    RuivfMetaData meta;
    RuivfLayout layout;
    ReturnSetInfo *out;
    uint64 findings;
    BlockNumber blocks;
    bool *claimed;        /* blocks that something refers to */
    bloom_filter *rows;   /* of the index, for heapallindexed; else NULL */
    PGAlignedBlock *page; /* the list page at hand */
    PGAlignedBlock *rest; /* and a page of its vectors */
    float *vector;        /* of the slot at hand */
} Verifier;

static void finding(Verifier *verifier, const char *severity, BlockNumber block, const char *format,
                    ...) pg_attribute_printf(4, 5);

static void
put_row(Verifier *verifier, const char *severity, BlockNumber block, const char *message)
{
    Datum values[3] = {CStringGetTextDatum(severity), Int64GetDatum((int64)block),
                       CStringGetTextDatum(message)};
    bool nulls[3] = {false, block == InvalidBlockNumber, false};

    tuplestore_putvalues(verifier->out->setResult, verifier->out->setDesc, values, nulls);
}

static void
finding(Verifier *verifier, const char *severity, BlockNumber block, const char *format, ...)
{
    char message[256];
    va_list args;

    if (++verifier->findings > MAX_FINDINGS)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    put_row(verifier, severity, block, message);
}

/* Copies a page; false, with a finding, when it is not one of this kind or was referred to before.
 */
static bool
copy_page(Verifier *verifier, BlockNumber block, RuivfPageKind kind, PGAlignedBlock *copy)
{
    Buffer buffer = ReadBuffer(verifier->index, block);
    const char *problem;

    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    memcpy(copy->data, BufferGetPage(buffer), BLCKSZ);
    UnlockReleaseBuffer(buffer);
    problem = ruivf_check_frame((Page)copy->data, kind);
    if (problem == NULL && verifier->claimed[block])
        problem = "the page is referred to twice";
    verifier->claimed[block] = true;
    if (problem)
        finding(verifier, "error", block, "%s", problem);
    return problem == NULL;
}

/* ---- rows ---- */

static void
check_vector(Verifier *verifier, BlockNumber block, int slot, const float *vector)
{
    float norm;

    for (int i = 0; i < verifier->meta.dim; i++) {
        if (!isfinite(vector[i])) {
            finding(verifier, "error", block, "element %d of the vector in slot %d is not finite",
                    i + 1, slot);
            return;
        }
    }
    norm = rv_norm(vector, verifier->meta.dim);
    if (verifier->meta.metric == RV_METRIC_COSINE && fabsf(norm - 1.0f) > UNIT_TOLERANCE)
        finding(verifier, "error", block, "the vector in slot %d has length %g, not 1", slot, norm);
    if (norm > verifier->meta.max_norm * (1 + NORM_TOLERANCE))
        finding(verifier, "error", block,
                "the vector in slot %d has length %g, more than the bound %g", slot, norm,
                verifier->meta.max_norm);
}

/* A bound that does not bound what the code leaves out would cost rows. Kernels of another level
 * may have rounded otherwise. */
static void
check_error(Verifier *verifier, BlockNumber block, int slot, const float *vector)
{
    const RuivfLayout *layout = &verifier->layout;
    Page page = (Page)verifier->page->data;
    const int8 *code = (const int8 *)ruivf_codes(page, layout) + layout->code_size * slot;
    float stored = ruivf_errors(page, layout)[slot];
    float scale = ruivf_scales(page, layout)[slot];
    float error =
        rv_ivf_code_error((rv_metric)verifier->meta.metric, vector, code, scale, layout->dim);

    if (!(stored >= error * (1 - ERROR_TOLERANCE)))
        finding(verifier, "error", block, "the error bound of slot %d is %g, less than %g", slot,
                stored, error);
}

/* Copies the page with the rest of the slots from this one on. */
static bool
copy_rest(Verifier *verifier, BlockNumber block, int slot)
{
    const RuivfListHeader *header = ruivf_list_header((Page)verifier->page->data);
    BlockNumber rest = header->rest[slot / verifier->layout.rest_per];
    const RuivfRestHeader *owner = (RuivfRestHeader *)PageGetContents((Page)verifier->rest->data);

    if (!copy_page(verifier, rest, RUIVF_PAGE_REST, verifier->rest))
        return false;
    if (owner->owner == block)
        return true;
    finding(verifier, "error", rest, "the page belongs to block %u, not to block %u", owner->owner,
            block);
    return false;
}

static void
check_slot(Verifier *verifier, BlockNumber block, int slot, bool rest)
{
    const RuivfLayout *layout = &verifier->layout;
    Page page = (Page)verifier->page->data;
    ItemPointer tids = ruivf_rows(page);

    for (int i = 0; i < slot; i++)
        if (ItemPointerIsValid(&tids[i]) && ItemPointerEquals(&tids[i], &tids[slot]))
            finding(verifier, "error", block, "slots %d and %d hold the same row", i, slot);
    if (verifier->rows)
        bloom_add_element(verifier->rows, (unsigned char *)&tids[slot], sizeof(ItemPointerData));
    if (layout->rest_per > 0 && !rest)
        return;
    ruivf_get_vector(page, (Page)verifier->rest->data, layout, slot, verifier->vector);
    check_vector(verifier, block, slot, verifier->vector);
    if (layout->rest_per > 0)
        check_error(verifier, block, slot, verifier->vector);
}

/* The page at hand. */
static void
check_page(Verifier *verifier, BlockNumber block)
{
    Page page = (Page)verifier->page->data;
    const RuivfListHeader *header = ruivf_list_header(page);
    int per = verifier->layout.rest_per;
    bool rest = false;
    int live = 0;

    for (int slot = 0; slot < header->used; slot++) {
        if (per > 0 && slot % per == 0)
            rest = copy_rest(verifier, block, slot);
        if (!ItemPointerIsValid(&ruivf_rows(page)[slot]))
            continue;
        live++;
        check_slot(verifier, block, slot, rest);
    }
    if (live != header->live)
        finding(verifier, "error", block, "the page holds %d rows and counts %d", live,
                header->live);
}

/* ---- lists ---- */

static void
check_chain(Verifier *verifier, uint32 list, BlockNumber first)
{
    BlockNumber block = first;
    BlockNumber hint = InvalidBlockNumber;
    bool hint_found = false;

    while (block != InvalidBlockNumber) {
        const RuivfListHeader *header = ruivf_list_header((Page)verifier->page->data);
        const char *problem;

        CHECK_FOR_INTERRUPTS();
        if (!copy_page(verifier, block, RUIVF_PAGE_LIST, verifier->page))
            return;
        if (header->list != list) {
            finding(verifier, "error", block, "the page belongs to list %u, not to list %u",
                    header->list, list);
            return;
        }
        problem = ruivf_check_list((Page)verifier->page->data, block, &verifier->layout,
                                   verifier->blocks);
        if (problem) {
            finding(verifier, "error", block, "%s", problem);
            return;
        }
        if (block == first)
            hint = header->insert_block;
        hint_found = hint_found || hint == block;
        check_page(verifier, block);
        block = header->next;
    }
    if (hint != InvalidBlockNumber && !hint_found)
        finding(verifier, "error", first, "the hint for inserts names block %u of another list",
                hint);
}

static void
check_centre(Verifier *verifier, BlockNumber block, uint32 list, const RuivfCentre *centre)
{
    bool spherical = rv_ivf_cluster_metric((rv_metric)verifier->meta.metric) == RV_METRIC_COSINE;
    float norm;

    for (int i = 0; i < verifier->meta.dim; i++) {
        if (!isfinite(centre->centre[i])) {
            finding(verifier, "error", block, "element %d of the centre of list %u is not finite",
                    i + 1, list);
            return;
        }
    }
    norm = rv_norm(centre->centre, verifier->meta.dim);
    /* The only list of an index that was built without rows has its centre at zero. */
    if (spherical && fabsf(norm - 1.0f) > UNIT_TOLERANCE && (verifier->meta.lists > 1 || norm > 0))
        finding(verifier, "error", block, "the centre of list %u has length %g, not 1", list, norm);
}

static void
check_lists(Verifier *verifier)
{
    PGAlignedBlock *centres = palloc(sizeof(PGAlignedBlock));
    const RuivfLayout *layout = &verifier->layout;
    uint32 count = ruivf_centre_blocks(layout, verifier->meta.lists);

    for (uint32 i = 0; i < count; i++) {
        BlockNumber block = RUIVF_FIRST_CENTRE_BLOCK + i;
        const RuivfCentreHeader *header = (RuivfCentreHeader *)PageGetContents((Page)centres->data);
        const char *problem;

        if (block >= verifier->blocks) {
            finding(verifier, "error", RUIVF_META_BLOCK, "the file ends before the centres do");
            return;
        }
        if (!copy_page(verifier, block, RUIVF_PAGE_CENTRE, centres))
            continue;
        problem = ruivf_check_centres((Page)centres->data, block, layout, verifier->meta.lists);
        if (problem) {
            finding(verifier, "error", block, "%s", problem);
            continue;
        }
        for (uint32 slot = 0; slot < header->count; slot++) {
            const RuivfCentre *centre = ruivf_centre_at((Page)centres->data, layout, (int)slot);

            check_centre(verifier, block, header->first_list + slot, centre);
            if (centre->first_block >= verifier->blocks)
                finding(verifier, "error", block, "list %u begins at block %u of %u",
                        header->first_list + slot, centre->first_block, verifier->blocks);
            else
                check_chain(verifier, header->first_list + slot, centre->first_block);
        }
    }
}

/* Blocks that nothing refers to must be empty. */
static void
check_unclaimed(Verifier *verifier)
{
    for (BlockNumber block = 0; block < verifier->blocks; block++) {
        Buffer buffer;

        if (verifier->claimed[block])
            continue;
        CHECK_FOR_INTERRUPTS();
        buffer = ReadBuffer(verifier->index, block);
        LockBuffer(buffer, BUFFER_LOCK_SHARE);
        if (!PageIsNew(BufferGetPage(buffer)))
            finding(verifier, "error", block, "no list refers to the page");
        UnlockReleaseBuffer(buffer);
    }
}

/* ---- heapallindexed ---- */

static void
check_row(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool alive, void *arg)
{
    Verifier *verifier = arg;
    RuVector *value;
    float *vector;

    if (isnull[0])
        return;
    value = DatumGetRuVector(values[0]);
    vector = palloc(sizeof(float) * verifier->meta.dim);
    if (ruv_index_vector((rv_metric)verifier->meta.metric, verifier->meta.dim, value, vector) &&
        bloom_lacks_element(verifier->rows, (unsigned char *)tid, sizeof(ItemPointerData)))
        finding(verifier, "error", InvalidBlockNumber,
                "row (%u,%u) of the table is not in the index", ItemPointerGetBlockNumber(tid),
                ItemPointerGetOffsetNumber(tid));
    pfree(vector);
    if ((Pointer)value != DatumGetPointer(values[0]))
        pfree(value);
}

/* The snapshot is taken before the index is read: what it sees must be in the index by then. */
static void
check_table(Verifier *verifier, Relation table, Snapshot snapshot)
{
    IndexInfo *info = BuildIndexInfo(verifier->index);
    TableScanDesc scan = table_beginscan_strat(table, snapshot, 0, NULL, true, true);

    info->ii_Concurrent = true; /* an MVCC snapshot decides */
    info->ii_Unique = false;
    table_index_build_scan(table, verifier->index, info, true, false, check_row, verifier, scan);
}

void
ruivf_verify(Relation index, Relation table, ReturnSetInfo *out)
{
    Verifier verifier = {.index = index, .out = out};
    Snapshot snapshot = NULL;

    ruivf_read_meta(index, &verifier.meta);
    ruivf_layout_init(&verifier.layout, verifier.meta.dim, (RuivfStorage)verifier.meta.storage);
    verifier.page = palloc(sizeof(PGAlignedBlock));
    verifier.rest = palloc(sizeof(PGAlignedBlock));
    verifier.vector = palloc(sizeof(float) * verifier.meta.dim);
    if (table != NULL) {
        snapshot = RegisterSnapshot(GetTransactionSnapshot());
        verifier.rows = bloom_create(Max((int64)table->rd_rel->reltuples, 10000), work_mem, 0);
    }
    verifier.blocks = RelationGetNumberOfBlocks(index);
    verifier.claimed = MemoryContextAllocExtended(
        CurrentMemoryContext, sizeof(bool) * verifier.blocks, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    verifier.claimed[RUIVF_META_BLOCK] = true;
    check_lists(&verifier);
    check_unclaimed(&verifier);
    if (table != NULL) {
        check_table(&verifier, table, snapshot);
        UnregisterSnapshot(snapshot);
        bloom_free(verifier.rows);
    }
    if (verifier.findings > MAX_FINDINGS)
        put_row(&verifier, "warning", InvalidBlockNumber,
                psprintf(UINT64_FORMAT " further findings are not listed",
                         verifier.findings - MAX_FINDINGS));
}
