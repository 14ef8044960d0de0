/*
 * page.c - reading with checks, writing through WAL, and sizes: see page.h for the format.
 *
 * Every read checks the frame of the page and the bounds of the tuple before anything in it is
 * believed, so that a damaged page is an error and never a crash. Searches are bound by cache
 * misses, so theirs is a check of the page's first cache line and of the tuple's, which they need
 * anyway; the trailer, which lies at the page's other end, is left to all others.
 */
#include "ruhnsw/page.h"

#include "miscadmin.h"
#include "storage/lmgr.h"

Size
ruhnsw_node_size(int dim)
{
    return MAXALIGN(offsetof(RuhnswNode, vector) + sizeof(float) * dim);
}

Size
ruhnsw_links_size(int m, int level)
{
    return MAXALIGN(offsetof(RuhnswLinks, links) + sizeof(uint64) * (level + 2) * m);
}

int
ruhnsw_max_level(int m)
{
    int level = (int)((RUHNSW_PAGE_CAPACITY - sizeof(ItemIdData) - MAXIMUM_ALIGNOF -
                       offsetof(RuhnswLinks, links)) /
                      (sizeof(uint64) * m)) -
                2;

    return Min(level, RUHNSW_MAX_LEVEL);
}

bool
ruhnsw_links_apart(int dim, int m, int level)
{
    return ruhnsw_node_size(dim) + ruhnsw_links_size(m, level) + 2 * sizeof(ItemIdData) >
           RUHNSW_PAGE_CAPACITY;
}

int
ruhnsw_max_items(int dim, int m)
{
    Size least = Min(ruhnsw_node_size(dim), ruhnsw_links_size(m, 0));

    return (int)(RUHNSW_PAGE_CAPACITY / (least + sizeof(ItemIdData))) + 1;
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

static void
check_frame(Relation index, Page page, BlockNumber block)
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
    check_frame(index, BufferGetPage(buffer), block);
    return buffer;
}

Buffer
ruhnsw_read_for_search(Relation index, BlockNumber block)
{
    Buffer buffer = ReadBuffer(index, block);
    Page page;

    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    page = BufferGetPage(buffer);
    if (!PageIsNew(page) &&
        ((PageHeader)page)->pd_special != BLCKSZ - MAXALIGN(sizeof(RuhnswPageTrailer)))
        ruhnsw_corrupt(index, block, "the page has an unexpected layout");
    return buffer;
}

/* The item at an offset if it is in use and within the page's bounds; NULL when unused. */
static void *
get_item(Relation index, Page page, BlockNumber block, OffsetNumber offset, Size *size)
{
    ItemId id;

    if (PageIsNew(page) || offset < FirstOffsetNumber || offset > PageGetMaxOffsetNumber(page))
        return NULL;
    id = PageGetItemId(page, offset);
    if (!ItemIdIsUsed(id))
        return NULL;
    if (!ItemIdIsNormal(id) || ItemIdGetOffset(id) < SizeOfPageHeaderData ||
        ItemIdGetOffset(id) % MAXIMUM_ALIGNOF != 0 ||
        ItemIdGetOffset(id) + ItemIdGetLength(id) > BLCKSZ - MAXALIGN(sizeof(RuhnswPageTrailer)))
        ruhnsw_corrupt(index, block, "line pointer %u is out of bounds", offset);
    *size = ItemIdGetLength(id);
    return PageGetItem(page, id);
}

const char *
ruhnsw_check_node(const RuhnswNode *node, Size size, int dim, int m)
{
    if (size != ruhnsw_node_size(dim))
        return "a node tuple has the wrong size";
    if (node->dim != dim)
        return "a node has the wrong number of dimensions";
    if (node->tid_count > RUHNSW_NODE_TIDS)
        return "a node has more rows than it has room for";
    if (node->level > ruhnsw_max_level(m))
        return "a node's level is too high";
    if (node->flags & ~RUHNSW_NODE_FLAGS)
        return "a node has unknown flags";
    if ((node->flags & RUHNSW_NODE_DEAD) ? node->tid_count > 0
                                         : node->tid_count == 0 && node->more == 0)
        return "a node's dead flag and its number of rows disagree";
    if ((node->flags & RUHNSW_NODE_UNLINKED) && !(node->flags & RUHNSW_NODE_DEAD))
        return "a live node is marked as unlinked";
    if (!ItemPointerIsValid(&node->links))
        return "a node has no links tuple";
    return NULL;
}

const char *
ruhnsw_check_links(const RuhnswLinks *links, Size size, int m)
{
    if (links->m != m)
        return "a links tuple was made for another m";
    if (links->level > ruhnsw_max_level(m) || size != ruhnsw_links_size(m, links->level))
        return "a links tuple has the wrong size";
    for (int level = 0; level <= RUHNSW_MAX_LEVEL; level++) {
        int limit = level <= links->level ? ruhnsw_level_limit(m, level) : 0;

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

RuhnswNode *
ruhnsw_node_at(Relation index, Page page, BlockNumber block, OffsetNumber offset, int dim)
{
    Size size = 0;
    RuhnswNode *node = get_item(index, page, block, offset, &size);

    if (node == NULL || node->type != RUHNSW_TUPLE_NODE)
        return NULL;
    if (size != ruhnsw_node_size(dim) || node->dim != dim || node->tid_count > RUHNSW_NODE_TIDS ||
        node->level > RUHNSW_MAX_LEVEL)
        ruhnsw_corrupt(index, block, "the node at offset %u is malformed", offset);
    return node;
}

RuhnswNode *
ruhnsw_get_node(Relation index, Page page, uint64 ref, int dim)
{
    RuhnswNode *node =
        ruhnsw_node_at(index, page, ruhnsw_ref_block(ref), ruhnsw_ref_offset(ref), dim);

    return node && node->generation == ruhnsw_ref_generation(ref) ? node : NULL;
}

RuhnswLinks *
ruhnsw_get_links(Relation index, Page page, ItemPointer where, uint64 owner, int m)
{
    BlockNumber block = ItemPointerGetBlockNumberNoCheck(where);
    OffsetNumber offset = ItemPointerGetOffsetNumberNoCheck(where);
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
    trailer->generation = 0;
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
ruhnsw_next_offset(Page page, OffsetNumber skip)
{
    OffsetNumber max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
    OffsetNumber offset;

    for (offset = FirstOffsetNumber; offset <= max; offset++)
        if (offset != skip && !ItemIdIsUsed(PageGetItemId(page, offset)))
            return offset;
    return offset == skip ? offset + 1 : offset;
}

bool
ruhnsw_page_fits(Page page, Size size1, Size size2)
{
    Size need = MAXALIGN(size1) + MAXALIGN(size2);
    OffsetNumber first;
    OffsetNumber last;
    OffsetNumber max;

    if (PageIsNew(page))
        return need + 2 * sizeof(ItemIdData) <= RUHNSW_PAGE_CAPACITY;
    first = ruhnsw_next_offset(page, InvalidOffsetNumber);
    last = size2 ? ruhnsw_next_offset(page, first) : first;
    max = PageGetMaxOffsetNumber(page);
    if (Max(first, last) > max)
        need += (Max(first, last) - max) * sizeof(ItemIdData);
    return PageGetExactFreeSpace(page) >= need;
}

void
ruhnsw_put_item(Relation index, Page page, OffsetNumber offset, const void *item, Size size)
{
    bool reuse = offset <= PageGetMaxOffsetNumber(page);

    if (PageAddItemExtended(page, (Item)item, size, offset, reuse ? PAI_OVERWRITE : 0) != offset)
        elog(ERROR, "failed to add an item to index \"%s\"", RelationGetRelationName(index));
}
