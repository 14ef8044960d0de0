/*
 * page.c - reading with checks, writing through WAL, and sizes: see page.h for the format.
 *
 * Every read checks the frame of the page and the bounds of what it takes from it before anything
 * in it is believed, so that a damaged page is an error and never a crash. Searches read in their
 * own way, and check in their own way: see graph.c.
 */
#include "ruhnsw/page.h"

#include "miscadmin.h"
#include "storage/lmgr.h"

/* Bytes of a page that slots can use. */
#define SLOT_ROOM (BLCKSZ - RUHNSW_SLOT_START - MAXALIGN(sizeof(RuhnswPageTrailer)))

/* With more slots on a page, one less is worth the alignment. */
#define MANY_SLOTS 6

static uint32
code_size(int dim, RuhnswStorage storage)
{
    return dim * (storage == RUHNSW_STORAGE_FLOAT16 ? sizeof(uint16) : sizeof(int8));
}

static uint32
rest_size(int dim, RuhnswStorage storage)
{
    switch (storage) {
        case RUHNSW_STORAGE_FLOAT32:
            return dim * sizeof(float);
        case RUHNSW_STORAGE_FIXED32:
            return 3 * dim;
        case RUHNSW_STORAGE_FIXED24:
            return 2 * dim;
        default:
            return 0;
    }
}

void
ruhnsw_geometry_make(RuhnswGeometry *geometry, int dim, int m, int learned, RuhnswStorage storage)
{
    uint32 aligned;

    geometry->dim = dim;
    geometry->m = m;
    geometry->learned = learned;
    geometry->storage = storage;
    geometry->code_size = code_size(dim, storage);
    geometry->links = sizeof(RuhnswNode) + MAXALIGN(geometry->code_size);
    geometry->rest = MAXALIGN(geometry->links + sizeof(uint32) * (2 * m + learned));
    geometry->tail = geometry->rest + MAXALIGN(rest_size(dim, storage));
    geometry->kernels = rv_kernels_active();
    geometry->salt = 0;
    geometry->max_level = ruhnsw_max_level(m);
    geometry->slot_size = geometry->tail + sizeof(RuhnswTail);
    geometry->slots = SLOT_ROOM / geometry->slot_size;
    /* Slots begin on a cache line unless a page would lose one by that. */
    aligned = TYPEALIGN(RUHNSW_LINE, geometry->slot_size);
    if (SLOT_ROOM / aligned >= geometry->slots || geometry->slots > MANY_SLOTS) {
        geometry->slot_size = aligned;
        geometry->slots = SLOT_ROOM / aligned;
    }
    geometry->inverse = geometry->slots > 1 ? PG_UINT64_MAX / geometry->slots + 1 : 0;
}

void
ruhnsw_geometry(const RuhnswMetaData *meta, RuhnswGeometry *geometry)
{
    ruhnsw_geometry_make(geometry, meta->dim, meta->m, meta->learned, (RuhnswStorage)meta->storage);
    geometry->salt = (uint32)(meta->epoch ^ (meta->epoch >> 32));
}

int
ruhnsw_max_dimensions(int m, int learned, RuhnswStorage storage)
{
    int bytes = code_size(1, storage) + rest_size(1, storage);
    RuhnswGeometry geometry;
    int dim;

    ruhnsw_geometry_make(&geometry, 1, m, learned, storage);
    /* Near the limit alignment decides. */
    dim = ((int)SLOT_ROOM - (int)geometry.tail - (int)sizeof(RuhnswTail)) / bytes +
          2 * MAXIMUM_ALIGNOF;
    do
        ruhnsw_geometry_make(&geometry, --dim, m, learned, storage);
    while (geometry.slots == 0);
    return dim;
}

Size
ruhnsw_links_size(int m, int level)
{
    return MAXALIGN(offsetof(RuhnswLinks, links) + sizeof(uint32) * level * m);
}

int
ruhnsw_max_level(int m)
{
    int level = (int)((RUHNSW_PAGE_CAPACITY - sizeof(ItemIdData) - MAXIMUM_ALIGNOF -
                       offsetof(RuhnswLinks, links)) /
                      (sizeof(uint32) * m));

    return Min(level, RUHNSW_MAX_LEVEL);
}

void
ruhnsw_corrupt(Relation index, BlockNumber block, const char *format, ...)
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

void
ruhnsw_check_frame(Relation index, Page page, BlockNumber block)
{
    RuhnswPageTrailer *trailer;

    if (PageIsNew(page))
        return;
    if (PageGetSpecialSize(page) != MAXALIGN(sizeof(RuhnswPageTrailer)) ||
        PageGetPageSize(page) != BLCKSZ)
        ruhnsw_corrupt(index, block, "the page has an unexpected layout");
    trailer = ruhnsw_trailer(page);
    if (trailer->page_id != RUHNSW_PAGE_ID)
        ruhnsw_corrupt(index, block, "the page id is %04x, not %04x", trailer->page_id,
                       RUHNSW_PAGE_ID);
    if (trailer->version != RUHNSW_VERSION)
        ruhnsw_corrupt(index, block, "page version %u is unknown, this is version %d",
                       trailer->version, RUHNSW_VERSION);
    if (trailer->kind < RUHNSW_PAGE_META || trailer->kind > RUHNSW_PAGE_SIDE ||
        (trailer->kind == RUHNSW_PAGE_META) != (block == RUHNSW_META_BLOCK))
        ruhnsw_corrupt(index, block, "page kind %u is not expected here", trailer->kind);
}

Buffer
ruhnsw_read(Relation index, BlockNumber block, int lock_mode)
{
    Buffer buffer = ReadBuffer(index, block);

    LockBuffer(buffer, lock_mode);
    ruhnsw_check_frame(index, BufferGetPage(buffer), block);
    return buffer;
}

/* The item at an offset if it is in use and within the page's bounds; NULL when unused. */
static void *
get_item(Relation index, Page page, BlockNumber block, OffsetNumber offset, Size *size)
{
    ItemId id;

    if (PageIsNew(page) || ruhnsw_trailer(page)->kind != RUHNSW_PAGE_SIDE ||
        offset < FirstOffsetNumber || offset > PageGetMaxOffsetNumber(page))
        return NULL;
    id = PageGetItemId(page, offset);
    if (!ItemIdIsUsed(id))
        return NULL;
    if (!ItemIdIsNormal(id) || ItemIdGetOffset(id) < SizeOfPageHeaderData ||
        ItemIdGetOffset(id) % MAXIMUM_ALIGNOF != 0 ||
        ItemIdGetLength(id) < offsetof(RuhnswLinks, links) ||
        ItemIdGetOffset(id) + ItemIdGetLength(id) > BLCKSZ - MAXALIGN(sizeof(RuhnswPageTrailer)))
        ruhnsw_corrupt(index, block, "line pointer %u is out of bounds", offset);
    *size = ItemIdGetLength(id);
    return PageGetItem(page, id);
}

const char *
ruhnsw_check_node(const RuhnswGeometry *geometry, const RuhnswNode *node)
{
    const RuhnswTail *tail = ruhnsw_tail(geometry, node);

    if (node->flags & ~RUHNSW_NODE_FLAGS)
        return "a node has unknown flags";
    if (node->tid_count > RUHNSW_NODE_TIDS)
        return "a node has more rows than it has room for";
    if (node->level > geometry->max_level)
        return "a node's level is too high";
    if (node->link_count > ruhnsw_level_limit(geometry->m, 0))
        return "a node has more links than layer 0 allows";
    if ((node->flags & RUHNSW_NODE_DEAD) ? node->tid_count > 0
                                         : node->tid_count == 0 && tail->more == 0)
        return "a node's dead flag and its number of rows disagree";
    if ((node->flags & RUHNSW_NODE_UNLINKED) && !(node->flags & RUHNSW_NODE_DEAD))
        return "a live node is marked as unlinked";
    if ((node->level > 0) != (tail->upper != 0))
        return "a node's level and its upper links disagree";
    return NULL;
}

const char *
ruhnsw_check_links(const RuhnswLinks *links, Size size, int m)
{
    if (links->m != m)
        return "a links tuple was made for another m";
    if (links->level < 1 || links->level > ruhnsw_max_level(m) ||
        size != ruhnsw_links_size(m, links->level))
        return "a links tuple has the wrong size";
    for (int level = 0; level <= RUHNSW_MAX_LEVEL; level++) {
        int limit = level > 0 && level <= links->level ? m : 0;

        if (links->counts[level] > limit)
            return "a node has more links than its level allows";
    }
    return NULL;
}

const char *
ruhnsw_check_rows(const RuhnswRows *rows, Size size)
{
    if (size != sizeof(RuhnswRows))
        return "a rows tuple has the wrong size";
    if (rows->count > RUHNSW_CHAIN_TIDS)
        return "a rows tuple has more rows than it has room for";
    return NULL;
}

OffsetNumber
ruhnsw_slot_count(const RuhnswGeometry *geometry, Page page)
{
    uint32 used = 0;

    if (!PageIsNew(page) && ruhnsw_trailer(page)->kind == RUHNSW_PAGE_NODES &&
        ((PageHeader)page)->pd_lower > RUHNSW_SLOT_START)
        used = (((PageHeader)page)->pd_lower - RUHNSW_SLOT_START) / geometry->slot_size;
    return (OffsetNumber)Min(used, geometry->slots);
}

RuhnswNode *
ruhnsw_node_at(Relation index, const RuhnswGeometry *geometry, Page page, BlockNumber block,
               OffsetNumber offset)
{
    RuhnswNode *node;
    const char *problem;

    if (offset < 1 || offset > ruhnsw_slot_count(geometry, page))
        return NULL;
    node = (RuhnswNode *)((char *)page + ruhnsw_slot_start(geometry, offset));
    if (!(node->flags & RUHNSW_NODE_USED))
        return NULL;
    problem = ruhnsw_check_node(geometry, node);
    if (problem)
        ruhnsw_corrupt(index, block, "%s (slot %u)", problem, offset);
    return node;
}

RuhnswLinks *
ruhnsw_get_links(Relation index, Page page, uint64 position, uint64 owner, int m)
{
    BlockNumber block = ruhnsw_ref_block(position);
    OffsetNumber offset = ruhnsw_ref_offset(position);
    Size size = 0;
    RuhnswLinks *links = get_item(index, page, block, offset, &size);
    const char *problem;

    if (links == NULL || links->type != RUHNSW_TUPLE_LINKS || links->owner != owner)
        return NULL;
    problem = ruhnsw_check_links(links, size, m);
    if (problem)
        ruhnsw_corrupt(index, block, "%s (offset %u)", problem, offset);
    return links;
}

RuhnswRows *
ruhnsw_rows_at(Relation index, Page page, BlockNumber block, OffsetNumber offset)
{
    Size size = 0;
    RuhnswRows *rows = get_item(index, page, block, offset, &size);
    const char *problem;

    if (rows == NULL || rows->type != RUHNSW_TUPLE_ROWS)
        return NULL;
    problem = ruhnsw_check_rows(rows, size);
    if (problem)
        ruhnsw_corrupt(index, block, "%s (offset %u)", problem, offset);
    return rows;
}

RuhnswRows *
ruhnsw_get_rows(Relation index, Page page, uint64 position, uint64 owner)
{
    RuhnswRows *rows =
        ruhnsw_rows_at(index, page, ruhnsw_ref_block(position), ruhnsw_ref_offset(position));

    return rows && rows->owner == owner ? rows : NULL;
}

void
ruhnsw_change_begin(RuhnswChange *change, Relation index, bool building)
{
    change->index = index;
    change->xlog = building ? NULL : GenericXLogStart(index);
    change->count = 0;
}

Page
ruhnsw_change_page(RuhnswChange *change, Buffer buffer)
{
    Assert(change->count < lengthof(change->buffers));
    change->buffers[change->count++] = buffer;
    if (change->xlog == NULL)
        return BufferGetPage(buffer);
    return GenericXLogRegisterBuffer(
        change->xlog, buffer, PageIsNew(BufferGetPage(buffer)) ? GENERIC_XLOG_FULL_IMAGE : 0);
}

void
ruhnsw_change_commit(RuhnswChange *change)
{
    if (change->xlog != NULL) {
        GenericXLogFinish(change->xlog);
        return;
    }
    for (int i = 0; i < change->count; i++)
        MarkBufferDirty(change->buffers[i]);
}

void
ruhnsw_change_abort(RuhnswChange *change)
{
    if (change->xlog != NULL)
        GenericXLogAbort(change->xlog);
}

void
ruhnsw_page_init(Page page, RuhnswPageKind kind)
{
    RuhnswPageTrailer *trailer;

    PageInit(page, BLCKSZ, sizeof(RuhnswPageTrailer));
    trailer = ruhnsw_trailer(page);
    trailer->kind = kind;
    trailer->reserved = 0;
    trailer->version = RUHNSW_VERSION;
    trailer->page_id = RUHNSW_PAGE_ID;
}

Buffer
ruhnsw_extend(Relation index)
{
    bool lock_needed = !RELATION_IS_LOCAL(index);
    Buffer buffer;

    if (lock_needed)
        LockRelationForExtension(index, ExclusiveLock);
    buffer = ReadBuffer(index, P_NEW);
    if (lock_needed)
        UnlockRelationForExtension(index, ExclusiveLock);
    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    return buffer;
}

OffsetNumber
ruhnsw_free_slot(const RuhnswGeometry *geometry, Page page)
{
    OffsetNumber count = ruhnsw_slot_count(geometry, page);

    for (OffsetNumber offset = 1; offset <= count; offset++) {
        const RuhnswNode *node =
            (const RuhnswNode *)((char *)page + ruhnsw_slot_start(geometry, offset));

        if (!(node->flags & RUHNSW_NODE_USED))
            return offset;
    }
    return count < geometry->slots ? count + 1 : InvalidOffsetNumber;
}

RuhnswNode *
ruhnsw_use_slot(const RuhnswGeometry *geometry, Page page, OffsetNumber offset)
{
    uint32 start = ruhnsw_slot_start(geometry, offset);
    PageHeader header = (PageHeader)page;

    Assert(offset >= 1 && offset <= geometry->slots);
    if (header->pd_lower < start + geometry->slot_size)
        header->pd_lower = start + geometry->slot_size;
    return (RuhnswNode *)((char *)page + start);
}

OffsetNumber
ruhnsw_next_offset(Page page)
{
    OffsetNumber max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
    OffsetNumber offset;

    for (offset = FirstOffsetNumber; offset <= max; offset++)
        if (!ItemIdIsUsed(PageGetItemId(page, offset)))
            return offset;
    return offset;
}

bool
ruhnsw_page_fits(Page page, Size size)
{
    Size need = MAXALIGN(size);

    if (PageIsNew(page))
        return need + sizeof(ItemIdData) <= RUHNSW_PAGE_CAPACITY;
    if (ruhnsw_next_offset(page) > PageGetMaxOffsetNumber(page))
        need += sizeof(ItemIdData);
    return PageGetExactFreeSpace(page) >= need;
}

void
ruhnsw_put_item(Relation index, Page page, OffsetNumber offset, const void *item, Size size)
{
    bool reuse = offset <= PageGetMaxOffsetNumber(page);

    if (PageAddItemExtended(page, (Item)item, size, offset, reuse ? PAI_OVERWRITE : 0) != offset)
        elog(ERROR, "failed to add an item to index \"%s\"", RelationGetRelationName(index));
}
