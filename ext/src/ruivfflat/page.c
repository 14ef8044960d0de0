/*
 * page.c - sizes, reading with checks, and writing slots: see page.h for the format.
 *
 * Every read checks the frame of the page and the counters and links in its head before anything is
 * believed, so that a damaged page is an error and never a crash. The slots themselves hold numbers
 * that any value is harmless for: rows go to the table access method, which checks them, and
 * distances that are not numbers count as infinite.
 */
#include "ruivfflat/page.h"

#include "miscadmin.h"
#include "storage/lmgr.h"

/* The offsets of the arrays for so many slots; returns the end of the last one. */
static Size
place_arrays(RuivfLayout *layout, int capacity)
{
    Size at = MAXALIGN(sizeof(RuivfListHeader) + sizeof(ItemPointerData) * capacity);
    Size floats = sizeof(float) * capacity;

    layout->capacity = capacity;
    layout->scales_at = at;
    at += layout->rest_per > 0 ? floats : 0;
    layout->errors_at = at;
    at += layout->rest_per > 0 ? floats : 0;
    layout->codes_at = MAXALIGN(at);
    return layout->codes_at + layout->code_size * capacity;
}

void
ruivf_layout_init(RuivfLayout *layout, int dim, RuivfStorage storage)
{
    int capacity;

    memset(layout, 0, sizeof(*layout));
    layout->dim = dim;
    layout->code = storage == RUIVF_STORAGE_FIXED32 ? RV_IVF_INT8 : RV_IVF_FLOAT32;
    layout->code_size = rv_ivf_code_size(layout->code, dim);
    layout->centre_size = offsetof(RuivfCentre, centre) + sizeof(float) * dim;
    layout->centres_per =
        (int)((RUIVF_CONTENT_SIZE - sizeof(RuivfCentreHeader)) / layout->centre_size);
    capacity = (int)((RUIVF_CONTENT_SIZE - sizeof(RuivfListHeader)) /
                     (layout->code_size + sizeof(ItemPointerData)));
    if (storage == RUIVF_STORAGE_FIXED32) {
        layout->rest_per =
            (int)((RUIVF_CONTENT_SIZE - sizeof(RuivfRestHeader)) / (RUIVF_REST_PLANES * dim));
        capacity = Min(capacity, layout->rest_per * RUIVF_MAX_REST_BLOCKS);
    }
    while (place_arrays(layout, capacity) > RUIVF_CONTENT_SIZE)
        capacity--;
}

uint32
ruivf_centre_blocks(const RuivfLayout *layout, uint32 lists)
{
    return (lists + layout->centres_per - 1) / layout->centres_per;
}

void
ruivf_corrupt(Relation index, BlockNumber block, const char *format, ...)
{
    char message[256];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    ereport(ERROR, (errcode(ERRCODE_INDEX_CORRUPTED),
                    errmsg("index \"%s\" is corrupted at block %u: %s",
                           RelationGetRelationName(index), block, message),
                    errhint("Please REINDEX it.")));
    pg_unreachable();
}

const char *
ruivf_check_frame(Page page, RuivfPageKind kind)
{
    PageHeader header = (PageHeader)page;
    RuivfPageTrailer *trailer = ruivf_trailer(page);

    if (PageIsNew(page))
        return "the page is empty";
    if (header->pd_special != BLCKSZ - MAXALIGN(sizeof(RuivfPageTrailer)) ||
        PageGetPageSize(page) != BLCKSZ)
        return "the page has an unexpected layout";
    if (trailer->page_id != RUIVF_PAGE_ID)
        return "the page does not belong to this access method";
    if (trailer->version != RUIVF_VERSION)
        return "the page has an unknown format version";
    if (trailer->kind != kind)
        return "the page is of another kind than its place says";
    return NULL;
}

/* An offset in a page, of what ends there. */
static LocationIndex
page_end(Page page, const void *end)
{
    return (LocationIndex)((const char *)end - (const char *)page);
}

const char *
ruivf_check_list(Page page, BlockNumber block, const RuivfLayout *layout, BlockNumber blocks)
{
    const RuivfListHeader *header = ruivf_list_header(page);

    if (header->used > layout->capacity)
        return "the page has more slots in use than it has";
    if (header->live > header->used)
        return "the page has more rows than slots in use";
    if (header->used > 0 &&
        ((PageHeader)page)->pd_lower <
            page_end(page, ruivf_codes(page, layout) + layout->code_size * header->used))
        return "the page has slots in use beyond its end";
    if (header->next != InvalidBlockNumber && (header->next <= block || header->next >= blocks))
        return "the link to the next page is out of range";
    for (int i = 0; layout->rest_per > 0 && i * layout->rest_per < header->used; i++)
        if (header->rest[i] == RUIVF_META_BLOCK || header->rest[i] >= blocks)
            return "the link to what codes leave out is out of range";
    return NULL;
}

const char *
ruivf_check_centres(Page page, BlockNumber block, const RuivfLayout *layout, uint32 lists)
{
    const RuivfCentreHeader *header = (const RuivfCentreHeader *)PageGetContents(page);
    uint32 first = (block - RUIVF_FIRST_CENTRE_BLOCK) * layout->centres_per;

    if (header->first_list != first || header->count < 1 ||
        header->count != Min(lists - first, (uint32)layout->centres_per))
        return "the page holds other lists than its place says";
    return NULL;
}

const char *
ruivf_check_meta(const RuivfMetaData *meta)
{
    if (meta->magic != RUIVF_MAGIC)
        return "the meta page has no magic number of this access method";
    if (meta->version != RUIVF_VERSION)
        return "the meta page has an unknown format version";
    if (meta->epoch == 0)
        return "the meta page has no epoch";
    if (meta->dim < 1 || meta->dim > RUIVF_MAX_DIMENSIONS)
        return "the number of dimensions is out of range";
    if (meta->metric < RV_METRIC_L2 || meta->metric > RV_METRIC_L1)
        return "the metric is unknown";
    if (meta->storage < RUIVF_STORAGE_FLOAT32 || meta->storage > RUIVF_STORAGE_FIXED32)
        return "the storage is unknown";
    if (meta->lists < 1 || meta->lists > RV_IVF_MAX_LISTS)
        return "the number of lists is out of range";
    if (!(meta->max_norm >= 0.0f))
        return "the bound of the norms is negative";
    if (!(meta->spread >= 0.0f))
        return "the spread of the rows is negative";
    return NULL;
}

static void
complain(Relation index, Buffer buffer, const char *problem)
{
    if (problem)
        ruivf_corrupt(index, BufferGetBlockNumber(buffer), "%s", problem);
}

Buffer
ruivf_read(Relation index, BlockNumber block, RuivfPageKind kind, int lock_mode)
{
    Buffer buffer = ReadBuffer(index, block);

    if (lock_mode)
        LockBuffer(buffer, lock_mode);
    complain(index, buffer, ruivf_check_frame(BufferGetPage(buffer), kind));
    return buffer;
}

void
ruivf_lock_list(Relation index, Buffer buffer, const RuivfLayout *layout, uint32 list,
                BlockNumber blocks, int lock_mode)
{
    BlockNumber block = BufferGetBlockNumber(buffer);
    Page page = BufferGetPage(buffer);
    const char *problem;

    LockBuffer(buffer, lock_mode);
    complain(index, buffer, ruivf_check_frame(page, RUIVF_PAGE_LIST));
    if (ruivf_list_header(page)->list != list)
        ruivf_corrupt(index, block, "the page belongs to list %u, not to list %u",
                      ruivf_list_header(page)->list, list);
    problem = ruivf_check_list(page, block, layout, blocks);
    /* The file may have grown since its size was asked for. */
    if (problem)
        problem = ruivf_check_list(page, block, layout, RelationGetNumberOfBlocks(index));
    complain(index, buffer, problem);
}

Buffer
ruivf_read_list(Relation index, BlockNumber block, const RuivfLayout *layout, uint32 list,
                BlockNumber blocks, int lock_mode)
{
    Buffer buffer = ReadBuffer(index, block);

    ruivf_lock_list(index, buffer, layout, list, blocks, lock_mode);
    return buffer;
}

Buffer
ruivf_read_centres(Relation index, BlockNumber block, const RuivfLayout *layout, uint32 lists)
{
    Buffer buffer = ruivf_read(index, block, RUIVF_PAGE_CENTRE, 0);

    complain(index, buffer, ruivf_check_centres(BufferGetPage(buffer), block, layout, lists));
    return buffer;
}

void
ruivf_page_init(Page page, RuivfPageKind kind)
{
    RuivfPageTrailer *trailer;

    PageInit(page, BLCKSZ, sizeof(RuivfPageTrailer));
    trailer = ruivf_trailer(page);
    trailer->kind = kind;
    trailer->reserved = 0;
    trailer->version = RUIVF_VERSION;
    trailer->page_id = RUIVF_PAGE_ID;
    /* WAL leaves out what lies between these two: here it is all in use. */
    ((PageHeader)page)->pd_lower = ((PageHeader)page)->pd_upper;
}

void
ruivf_list_page_init(Page page, uint32 list)
{
    RuivfListHeader *header;

    ruivf_page_init(page, RUIVF_PAGE_LIST);
    header = ruivf_list_header(page);
    header->list = list;
    header->next = InvalidBlockNumber;
    header->insert_block = InvalidBlockNumber;
    for (int i = 0; i < RUIVF_MAX_REST_BLOCKS; i++)
        header->rest[i] = InvalidBlockNumber;
    ((PageHeader)page)->pd_lower = page_end(page, header + 1);
}

void
ruivf_rest_page_init(Page page, BlockNumber owner)
{
    ruivf_page_init(page, RUIVF_PAGE_REST);
    ((RuivfRestHeader *)PageGetContents(page))->owner = owner;
    ((PageHeader)page)->pd_lower = page_end(page, PageGetContents(page) + sizeof(RuivfRestHeader));
}

/* Slots are filled from the first on: what lies behind the last is not in use, and WAL need not
 * look at it. */
static void
use_until(Page page, const void *end)
{
    PageHeader header = (PageHeader)page;

    header->pd_lower = Max(header->pd_lower, page_end(page, end));
}

Buffer
ruivf_extend(Relation index)
{
    bool lock_needed = !RELATION_IS_LOCAL(index);
    Buffer buffer;

    if (lock_needed)
        LockRelationForExtension(index, ExclusiveLock);
    buffer = ReadBuffer(index, P_NEW);
    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    if (lock_needed)
        UnlockRelationForExtension(index, ExclusiveLock);
    return buffer;
}

static void
put_fixed(Page page, Page rest_page, const RuivfLayout *layout, rv_metric metric, int slot,
          const float *vector)
{
    int8 *code = (int8 *)ruivf_codes(page, layout) + layout->code_size * slot;
    int8 *rest = ruivf_rest(rest_page, layout, slot % layout->rest_per);

    rv_ivf_encode_fixed(metric, vector, layout->dim, code, rest, &ruivf_scales(page, layout)[slot],
                        &ruivf_errors(page, layout)[slot]);
    use_until(rest_page, rest + RUIVF_REST_PLANES * layout->dim);
}

void
ruivf_put_row(Page page, Page rest, const RuivfLayout *layout, rv_metric metric, int slot,
              const ItemPointerData *tid, const float *vector)
{
    char *code = ruivf_codes(page, layout) + layout->code_size * slot;

    if (layout->rest_per > 0)
        put_fixed(page, rest, layout, metric, slot, vector);
    else
        memcpy(code, vector, layout->code_size);
    use_until(page, code + layout->code_size);
    ruivf_rows(page)[slot] = *tid;
}

void
ruivf_get_vector(Page page, Page rest, const RuivfLayout *layout, int slot, float *vector)
{
    const char *code = ruivf_codes(page, layout) + layout->code_size * slot;

    if (layout->rest_per > 0)
        rv_fixed_decode((const int8 *)code, ruivf_rest(rest, layout, slot % layout->rest_per),
                        RUIVF_REST_PLANES, ruivf_scales(page, layout)[slot], vector, layout->dim);
    else
        memcpy(vector, code, layout->code_size);
}
