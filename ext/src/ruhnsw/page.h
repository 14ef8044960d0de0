/*
 * page.h - the on-disk format of a ruhnsw index, and the only code that knows it.
 *
 * Block 0 is the meta page. Every other page is of one kind:
 *   NODES  node tuples, and the links tuples of these nodes where both fit on one page
 *   SIDE   links tuples of nodes whose page has no room for them (long vectors), and rows tuples:
 *          further rows of nodes that have more than a node tuple holds
 * A page that is all zeros was added to the file just before a crash; it counts as empty.
 *
 * A node is named by a reference: generation << 48 | block << 16 | offset. Links, the entry point
 * and the nodes of a running search (rv_node) are all such references. The generation makes a
 * reference to a slot that was freed and used again recognisable: a page counts its generation up
 * whenever it frees a node, and a new node takes the page's generation of the moment. A reference
 * whose slot is unused, or holds another generation, is "vanished": readers skip it. It would take
 * 65,536 rounds of freeing on one page during the life of one reference to be fooled, and then a
 * search would see a wrong but live row. Nodes of a build have generation 0.
 *
 * Rows with one and the same vector share a node, however many they are: the first few are in the
 * node tuple, the others in a chain of rows tuples, newest first. Nodes with equal vectors would
 * link to each other only and so drift off the graph. A rows tuple is freed with its node, not
 * before: a scan that is in the middle of a chain can rely on the rest.
 *
 * Lock order. At most two content locks are held at a time, and only in this order: a NODES page,
 * then a SIDE page. The meta page's content lock is never held together with another one.
 *
 * Room to grow: the meta page and page trailer carry a version, node and links tuples a type byte
 * and flags; reserved fields are written as zero and must be zero when read under version 1.
 */
#ifndef RUHNSW_PAGE_H
#define RUHNSW_PAGE_H

#include "ruvector.h"

#include "access/generic_xlog.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/itemptr.h"
#include "utils/rel.h"

#define RUHNSW_MAGIC 0x52564831 /* "RVH1" */
#define RUHNSW_VERSION 1
#define RUHNSW_PAGE_ID 0xFFA7 /* last two bytes of every page */

#define RUHNSW_META_BLOCK 0
#define RUHNSW_FIRST_BLOCK 1

#define RUHNSW_MAX_DIMENSIONS 2000
#define RUHNSW_MIN_M 2
#define RUHNSW_MAX_M 100
#define RUHNSW_MAX_LEVEL 23
#define RUHNSW_NODE_TIDS 8   /* rows in a node tuple */
#define RUHNSW_CHAIN_TIDS 64 /* rows in a rows tuple */

typedef enum RuhnswPageKind {
    RUHNSW_PAGE_META = 1,
    RUHNSW_PAGE_NODES = 2,
    RUHNSW_PAGE_SIDE = 3
} RuhnswPageKind;

typedef struct RuhnswPageTrailer {
    uint16 kind;       /* RuhnswPageKind */
    uint16 generation; /* of the nodes that are added to this page from now on */
    uint16 version;
    uint16 page_id;
} RuhnswPageTrailer;

typedef struct RuhnswMetaData {
    uint32 magic;
    uint32 version;
    uint64 epoch;      /* random, drawn at each build; never 0 */
    uint64 entry;      /* reference of the entry node; 0 = the index is empty */
    int32 entry_level; /* -1 = the index is empty */
    float max_norm;    /* upper bound of the norms of all vectors ever stored */
    uint16 dim;
    uint16 m;
    uint16 ef_construction; /* of the build; inserts follow the storage parameter */
    uint16 metric;          /* rv_metric */
    uint64 unlinked;        /* nodes that wait to be freed, as the last vacuum left it */
    uint64 side_block;      /* hint: a SIDE page that may have room; 0 = none */
    uint64 root;            /* reference of the node from which layer 0 is connected; 0 = empty */
    uint64 reserved[5];
} RuhnswMetaData;

#define RUHNSW_TUPLE_NODE 1
#define RUHNSW_TUPLE_LINKS 2
#define RUHNSW_TUPLE_ROWS 3

/* No row is left: walk through it, never return it, never link to it. */
#define RUHNSW_NODE_DEAD 0x0001
/* Nothing links to it any more; to be freed once no search can stand on it. Implies DEAD. */
#define RUHNSW_NODE_UNLINKED 0x0002
#define RUHNSW_NODE_FLAGS (RUHNSW_NODE_DEAD | RUHNSW_NODE_UNLINKED)

typedef struct RuhnswNode {
    uint8 type;
    uint8 level;
    uint16 flags;
    uint16 generation;
    uint16 tid_count;
    ItemPointerData links; /* its links tuple */
    uint16 dim;
    uint64 unlinked_at; /* full transaction id when it was unlinked, else 0 */
    uint64 more;        /* position of the first rows tuple, or 0 */
    ItemPointerData tids[RUHNSW_NODE_TIDS];
    float vector[FLEXIBLE_ARRAY_MEMBER]; /* as compared: of unit length under cosine */
} RuhnswNode;

/* The links of one node at all its levels: 2m slots for layer 0, then m for each layer above.
 * Within a level the first counts[level] slots are in use. */
typedef struct RuhnswLinks {
    uint8 type;
    uint8 level;
    uint16 m;
    uint32 reserved;
    uint64 owner; /* reference of the node */
    uint8 counts[RUHNSW_MAX_LEVEL + 1];
    uint64 links[FLEXIBLE_ARRAY_MEMBER];
} RuhnswLinks;

/* Further rows of one node. */
typedef struct RuhnswRows {
    uint8 type;
    uint8 reserved1;
    uint16 count;
    uint32 reserved2;
    uint64 owner; /* reference of the node */
    uint64 next;  /* position of the next rows tuple of the node, or 0 */
    ItemPointerData tids[RUHNSW_CHAIN_TIDS];
} RuhnswRows;

StaticAssertDecl(sizeof(RuhnswPageTrailer) == 8, "page trailer is 8 bytes on disk");
StaticAssertDecl(sizeof(RuhnswMetaData) == 104, "meta data is 104 bytes on disk");
StaticAssertDecl(offsetof(RuhnswMetaData, dim) == 32, "meta data layout");
StaticAssertDecl(sizeof(ItemPointerData) == 6, "item pointers are packed");
StaticAssertDecl(offsetof(RuhnswNode, links) == 8 && offsetof(RuhnswNode, unlinked_at) == 16 &&
                     offsetof(RuhnswNode, tids) == 32 && offsetof(RuhnswNode, vector) == 80,
                 "node tuple layout");
StaticAssertDecl(offsetof(RuhnswLinks, owner) == 8 && offsetof(RuhnswLinks, counts) == 16 &&
                     offsetof(RuhnswLinks, links) == 40,
                 "links tuple layout");
StaticAssertDecl(offsetof(RuhnswRows, owner) == 8 && offsetof(RuhnswRows, tids) == 24 &&
                     sizeof(RuhnswRows) == 408,
                 "rows tuple layout");
StaticAssertDecl(2 * RUHNSW_MAX_M <= PG_UINT8_MAX, "a level's link count fits its byte");

#define RUHNSW_PAGE_CAPACITY (BLCKSZ - SizeOfPageHeaderData - MAXALIGN(sizeof(RuhnswPageTrailer)))

StaticAssertDecl(MAXALIGN(offsetof(RuhnswNode, vector) + sizeof(float) * RUHNSW_MAX_DIMENSIONS) +
                             sizeof(ItemIdData) <=
                         RUHNSW_PAGE_CAPACITY ||
                     BLCKSZ < 8192,
                 "a node of the most dimensions fits a page");

/* ---- references ---- */

#define RUHNSW_NO_REF UINT64CONST(0)

static inline uint64
ruhnsw_ref(uint16 generation, BlockNumber block, OffsetNumber offset)
{
    return ((uint64)generation << 48) | ((uint64)block << 16) | offset;
}

static inline BlockNumber
ruhnsw_ref_block(uint64 ref)
{
    return (BlockNumber)(ref >> 16);
}

static inline OffsetNumber
ruhnsw_ref_offset(uint64 ref)
{
    return (OffsetNumber)ref;
}

static inline uint16
ruhnsw_ref_generation(uint64 ref)
{
    return (uint16)(ref >> 48);
}

/* The position of a tuple without a generation: links and rows tuples are checked by their owner.
 */
static inline uint64
ruhnsw_position(BlockNumber block, OffsetNumber offset)
{
    return ruhnsw_ref(0, block, offset);
}

/* ---- sizes ---- */

/* Links that a node may have at a level. */
static inline int
ruhnsw_level_limit(int m, int level)
{
    return level == 0 ? 2 * m : m;
}

/* Index of a level's first slot in RuhnswLinks.links. */
static inline int
ruhnsw_level_start(int m, int level)
{
    return level == 0 ? 0 : (level + 1) * m;
}

extern Size ruhnsw_node_size(int dim);
extern Size ruhnsw_links_size(int m, int level);
extern int ruhnsw_max_level(int m); /* the highest whose links tuple fits a page */
extern bool ruhnsw_links_apart(int dim, int m, int level); /* node and links need two pages */
extern int ruhnsw_max_items(int dim, int m); /* bound of the line pointers on a NODES page */

/* ---- reading ---- */

static inline RuhnswPageTrailer *
ruhnsw_trailer(Page page)
{
    return (RuhnswPageTrailer *)PageGetSpecialPointer(page);
}

/* Pins and locks a block and checks its page's frame. A page of zeros passes: see PageIsNew. */
extern Buffer ruhnsw_read(Relation index, BlockNumber block, int lock_mode);

/* The same for searches: a share lock, and a lighter check. */
extern Buffer ruhnsw_read_for_search(Relation index, BlockNumber block);

/* Raises ERRCODE_INDEX_CORRUPTED; format describes what is wrong with the block. */
extern void ruhnsw_corrupt(Relation index, BlockNumber block, const char *format, ...)
    pg_attribute_printf(3, 4) pg_attribute_noreturn();

/* The node of a reference on its locked page, checked; NULL when it vanished. */
extern RuhnswNode *ruhnsw_get_node(Relation index, Page page, uint64 ref, int dim);

/* The node at an offset of a locked page, of whatever generation; NULL when there is none. */
extern RuhnswNode *ruhnsw_node_at(Relation index, Page page, BlockNumber block, OffsetNumber offset,
                                  int dim);

/* The links tuple of a node (node->links) on its locked page, checked against the owner; NULL when
 * the node vanished since node was read. */
extern RuhnswLinks *ruhnsw_get_links(Relation index, Page page, ItemPointer where, uint64 owner,
                                     int m);

/* The rows tuple at an offset of a locked page, of whatever node; NULL when there is none. */
extern RuhnswRows *ruhnsw_rows_at(Relation index, Page page, BlockNumber block,
                                  OffsetNumber offset);

/* The rows tuple of a node at a position on its locked page, checked; NULL when the node vanished.
 */
extern RuhnswRows *ruhnsw_get_rows(Relation index, Page page, uint64 position, uint64 owner);

/* What is wrong with a tuple of an index with these dim and m, or NULL: the verifier's checks. */
extern const char *ruhnsw_check_node(const RuhnswNode *node, Size size, int dim, int m);
extern const char *ruhnsw_check_links(const RuhnswLinks *links, Size size, int m);
extern const char *ruhnsw_check_rows(const RuhnswRows *rows, Size size);

/* ---- writing ---- */

/*
 * One atomic change of up to three pages. Normally a generic WAL record; during a build (building)
 * pages are changed in place and the whole file is logged at its end, so a failed build leaves a
 * relation that nobody can see.
 */
typedef struct RuhnswChange {
    Relation index;
    GenericXLogState *xlog; /* NULL while building */
    Buffer buffers[3];
    int count;
} RuhnswChange;

extern void ruhnsw_change_begin(RuhnswChange *change, Relation index, bool building);
/* The page to write to, of an exclusively locked buffer. */
extern Page ruhnsw_change_page(RuhnswChange *change, Buffer buffer);
extern void ruhnsw_change_commit(RuhnswChange *change); /* buffers stay locked and pinned */
extern void ruhnsw_change_abort(RuhnswChange *change);

extern void ruhnsw_page_init(Page page, RuhnswPageKind kind);
/* Adds a block to the file: exclusively locked. It is a page of zeros, unless somebody else found
 * it and put it to use before it was locked: the extension lock is not held while the content lock
 * is waited for, because those who wait for the extension lock may hold content locks. */
extern Buffer ruhnsw_extend(Relation index);
/* True when items of these sizes fit (size2 = 0: one item). */
extern bool ruhnsw_page_fits(Page page, Size size1, Size size2);
/* The offset that the next item gets: the first unused line pointer, or a new one. skip: the
 * offset that an item to be added before will get, or InvalidOffsetNumber. */
extern OffsetNumber ruhnsw_next_offset(Page page, OffsetNumber skip);
extern void ruhnsw_put_item(Relation index, Page page, OffsetNumber offset, const void *item,
                            Size size);

#endif
