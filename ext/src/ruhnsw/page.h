/*
 * page.h - the on-disk format of a ruhnsw index, and the only code that knows it.
 *
 * Block 0 is the meta page. Every other page is of one kind:
 *   NODES  an array of slots of one size, each empty or a node
 *   SIDE   tuples behind line pointers: the links of the upper levels (one node in m has any), and
 *          rows tuples, further rows of nodes that have more than a slot holds
 * A page that is all zeros was added to the file just before a crash; it counts as empty.
 *
 * A slot, in the order in which a search touches it (RuhnswGeometry has the offsets):
 *   node     flags, level, counts, scale of the code, tag     a visit reads these 16 bytes
 *   code     the vector as a search compares it               and these
 *   links    2m node numbers of layer 0, link_count in use    an expansion reads these
 *   learned  learned_links numbers, RUHNSW_NO_LINK if unused  and these
 *   rest     what the code leaves out, if that is kept        a result reads this
 *   tail     the first rows; where upper links and further    and this
 *            rows are
 * Everything about a node but its upper links lies on one page at an address that follows from its
 * number, so a search needs neither line pointers nor tuple headers, and can ask for the cache
 * lines of all neighbours of a node before it reads the first one.
 *
 * Why this layout. Tried over the real buffer manager, the same graph (200,000 x 128 SIFT vectors,
 * m = 16), microseconds per search at ef_search 100 (1,590 distances, recall .991):
 *                                       lock and pin   pin, hint,   no pin, hint,
 *                                       every page     prefetch     prefetch       pages
 *   slots, float32                          725           382           230        18,183
 *   slots, float16                          586           252           176        11,113
 *   slots, int8 code + float32 vector       695           256           186        22,224
 *   int8 codes on pages of their own,
 *     links and float32 vectors apart       581           228           153        23,731
 * (hint: a backend-local array of the last known buffer of each block.) Most of the time is access
 * to pages, not the layout; what is left is waiting for memory, so cache lines per visit count,
 * and slots begin on a cache line. A search in one or two bytes an element has the same recall as
 * one in float32 as long as its results are measured again. So a slot has an int8 code to walk on,
 * and what the code leaves out, which only results read. Beside the whole vector the code took a
 * fifth more space; 24 bits beside the 8 of the code take no more than the vector alone, and say
 * as much of it as distances in single precision can tell. Dense pages of codes would save another
 * 15% of the time, being kinder to the translation of addresses, at the price of two pages for
 * every node. code.c has the other ways of storing, graph.c how pages are read without a pin.
 *
 * A node is named by a reference, block << 16 | slot number from 1; on disk links are node numbers,
 * (block - 1) * slots per page + slot - 1, in 32 bits. Slots of nodes that vacuum took out are used
 * again. A reference that somebody kept over that time (a scan on a standby, a remembered entry
 * point) then names another live node, which is as good a place to walk over, and whose rows are
 * younger than the snapshot of whoever kept it. A reference to an empty slot is "vanished": readers
 * skip it.
 *
 * Rows with one and the same vector share a node, however many they are: the first few are in the
 * slot, the others in a chain of rows tuples, newest first. Nodes with equal vectors would link to
 * each other only and so drift off the graph. A rows tuple is freed with its node, not before: a
 * scan that is in the middle of a chain can rely on the rest.
 *
 * Lock order. At most two content locks are held at a time, and only in this order: a NODES page,
 * then a SIDE page. The meta page's content lock is never held together with another one.
 *
 * Room to grow: the meta page and page trailer carry a version; reserved fields are written as zero
 * and must be zero when read under this version.
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
#define RUHNSW_VERSION 3
#define RUHNSW_PAGE_ID 0xFFA7 /* last two bytes of every page */

#define RUHNSW_META_BLOCK 0
#define RUHNSW_FIRST_BLOCK 1

#define RUHNSW_MIN_M 2
#define RUHNSW_MAX_M 100
#define RUHNSW_MAX_LEVEL 23
#define RUHNSW_MAX_LEARNED 32
#define RUHNSW_NODE_TIDS 4   /* rows in a slot */
#define RUHNSW_CHAIN_TIDS 64 /* rows in a rows tuple */

/* How vectors are stored. AUTO is a storage parameter only: the meta page has what it became. */
typedef enum RuhnswStorage {
    RUHNSW_STORAGE_AUTO = 0,
    RUHNSW_STORAGE_FLOAT32 = 1,
    RUHNSW_STORAGE_FIXED32 = 2,
    RUHNSW_STORAGE_FIXED24 = 3,
    RUHNSW_STORAGE_FLOAT16 = 4,
    RUHNSW_STORAGE_INT8 = 5
} RuhnswStorage;

typedef enum RuhnswPageKind {
    RUHNSW_PAGE_META = 1,
    RUHNSW_PAGE_NODES = 2,
    RUHNSW_PAGE_SIDE = 3
} RuhnswPageKind;

typedef struct RuhnswPageTrailer {
    uint16 kind; /* RuhnswPageKind */
    uint16 reserved;
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
    uint16 storage;         /* RuhnswStorage, not AUTO */
    uint16 learned;         /* learned links that a node has room for */
    float max_error;        /* upper bound of the distances from a vector to its code */
    uint64 reserved[4];
} RuhnswMetaData;

#define RUHNSW_TUPLE_LINKS 2
#define RUHNSW_TUPLE_ROWS 3

#define RUHNSW_NODE_USED 0x01
/* No row is left: walk through it, never return it, never link to it. */
#define RUHNSW_NODE_DEAD 0x02
/* Nothing links to it any more; to be freed once no search can stand on it. Implies DEAD. */
#define RUHNSW_NODE_UNLINKED 0x04
#define RUHNSW_NODE_FLAGS (RUHNSW_NODE_USED | RUHNSW_NODE_DEAD | RUHNSW_NODE_UNLINKED)

/* An unused place among the learned links. */
#define RUHNSW_NO_LINK PG_UINT32_MAX

/* The head of a slot; all zeros when the slot is empty. */
typedef struct RuhnswNode {
    uint8 flags;
    uint8 level;
    uint8 tid_count;
    uint8 link_count; /* on layer 0, learned ones not counted */
    float scale;      /* value = scale * code */
    uint32 tag;       /* ruhnsw_tag of its number */
    uint32 reserved;
} RuhnswNode;

/* The end of a slot. */
typedef struct RuhnswTail {
    uint64 unlinked_at; /* full transaction id when it was unlinked, else 0 */
    uint64 upper;       /* position of its links tuple; 0 on level 0 */
    uint64 more;        /* position of the first rows tuple, or 0 */
    ItemPointerData tids[RUHNSW_NODE_TIDS];
} RuhnswTail;

/* The links of one node on its upper levels: m slots for each. Within a level the first
 * counts[level] slots are in use; counts[0] is 0. */
typedef struct RuhnswLinks {
    uint8 type;
    uint8 level;
    uint16 m;
    uint32 reserved;
    uint64 owner; /* reference of the node */
    uint8 counts[RUHNSW_MAX_LEVEL + 1];
    uint32 links[FLEXIBLE_ARRAY_MEMBER];
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
StaticAssertDecl(sizeof(RuhnswNode) == 16, "node head is 16 bytes on disk");
StaticAssertDecl(offsetof(RuhnswTail, tids) == 24 && sizeof(RuhnswTail) == 48, "node tail layout");
StaticAssertDecl(offsetof(RuhnswLinks, owner) == 8 && offsetof(RuhnswLinks, counts) == 16 &&
                     offsetof(RuhnswLinks, links) == 40,
                 "links tuple layout");
StaticAssertDecl(offsetof(RuhnswRows, owner) == 8 && offsetof(RuhnswRows, tids) == 24 &&
                     sizeof(RuhnswRows) == 408,
                 "rows tuple layout");
StaticAssertDecl(2 * RUHNSW_MAX_M <= PG_UINT8_MAX, "a level's link count fits its byte");

#define RUHNSW_PAGE_CAPACITY (BLCKSZ - SizeOfPageHeaderData - MAXALIGN(sizeof(RuhnswPageTrailer)))

/* Where things are in a slot, and how many slots a page has: follows from the meta page. */
typedef struct RuhnswGeometry {
    int dim;
    int m;
    int learned;
    RuhnswStorage storage;
    uint32 code_size; /* bytes of a code, unaligned */
    uint32 links;     /* offsets within a slot */
    uint32 rest;      /* of the elements' rest; without one the same as tail */
    uint32 tail;
    uint32 slot_size;
    uint32 slots; /* per page; 0: a slot does not fit a page */
    const rv_kernels *kernels;
    uint32 salt; /* of the tags: from the epoch */
    int max_level;
    uint64 inverse; /* 2^64 / slots, rounded up: see ruhnsw_number_ref */
} RuhnswGeometry;

/* Whether elements have a rest beside their code. */
static inline bool
ruhnsw_has_rest(RuhnswStorage storage)
{
    return storage <= RUHNSW_STORAGE_FIXED24;
}

extern void ruhnsw_geometry_make(RuhnswGeometry *geometry, int dim, int m, int learned,
                                 RuhnswStorage storage);
extern void ruhnsw_geometry(const RuhnswMetaData *meta, RuhnswGeometry *geometry);
/* The most dimensions that fit a page. */
extern int ruhnsw_max_dimensions(int m, int learned, RuhnswStorage storage);

/* ---- references ---- */

#define RUHNSW_NO_REF UINT64CONST(0)
#define RUHNSW_LINE 64
#define RUHNSW_SLOT_START RUHNSW_LINE /* of the first slot */

static inline uint64
ruhnsw_ref(BlockNumber block, OffsetNumber offset)
{
    return ((uint64)block << 16) | offset;
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

/* The position of a tuple on a SIDE page, in the same form. */
static inline uint64
ruhnsw_position(BlockNumber block, OffsetNumber offset)
{
    return ruhnsw_ref(block, offset);
}

static inline uint64
ruhnsw_ref_number(const RuhnswGeometry *geometry, uint64 ref)
{
    return (uint64)(ruhnsw_ref_block(ref) - RUHNSW_FIRST_BLOCK) * geometry->slots +
           ruhnsw_ref_offset(ref) - 1;
}

/*
 * What a node's head says of its number, and of its index. Whoever looks at a slot without a pin
 * knows by it that the bytes are those of this node, with a chance of one in 4 billion to be wrong.
 * Never 0, which an empty slot has.
 */
static inline uint32
ruhnsw_number_tag(const RuhnswGeometry *geometry, uint32 number)
{
    return ((number ^ geometry->salt) * 0x9E3779B1u) | 1;
}

static inline uint32
ruhnsw_tag(const RuhnswGeometry *geometry, uint64 ref)
{
    return ruhnsw_number_tag(geometry, (uint32)ruhnsw_ref_number(geometry, ref));
}

/* Division by a constant: number * ceil(2^64 / slots) / 2^64 is exact, since number < 2^32. */
static inline uint64
ruhnsw_number_ref(const RuhnswGeometry *geometry, uint32 number)
{
    uint32 page = geometry->slots > 1
                      ? (uint32)(((unsigned __int128)geometry->inverse * number) >> 64)
                      : number;

    return ruhnsw_ref(page + RUHNSW_FIRST_BLOCK,
                      (OffsetNumber)(number - page * geometry->slots + 1));
}

static inline uint32
ruhnsw_slot_start(const RuhnswGeometry *geometry, OffsetNumber offset)
{
    return RUHNSW_SLOT_START + (offset - 1) * geometry->slot_size;
}

/* ---- a slot ---- */

static inline void *
ruhnsw_code(const RuhnswNode *node)
{
    return (char *)node + sizeof(RuhnswNode);
}

/* 2m numbers on layer 0; the learned links follow. */
static inline uint32 *
ruhnsw_base_links(const RuhnswGeometry *geometry, const RuhnswNode *node)
{
    return (uint32 *)((char *)node + geometry->links);
}

static inline uint32 *
ruhnsw_learned_links(const RuhnswGeometry *geometry, const RuhnswNode *node)
{
    return ruhnsw_base_links(geometry, node) + 2 * geometry->m;
}

static inline RuhnswTail *
ruhnsw_tail(const RuhnswGeometry *geometry, const RuhnswNode *node)
{
    return (RuhnswTail *)((char *)node + geometry->tail);
}

/* ---- sizes ---- */

/* Links that a node may have at a level. */
static inline int
ruhnsw_level_limit(int m, int level)
{
    return level == 0 ? 2 * m : m;
}

/* Index of an upper level's first slot in RuhnswLinks.links. */
static inline int
ruhnsw_level_start(int m, int level)
{
    return (level - 1) * m;
}

extern Size ruhnsw_links_size(int m, int level); /* level >= 1 */
extern int ruhnsw_max_level(int m);              /* the highest whose links tuple fits a page */

/* ---- reading ---- */

static inline RuhnswPageTrailer *
ruhnsw_trailer(Page page)
{
    return (RuhnswPageTrailer *)PageGetSpecialPointer(page);
}

/* Pins and locks a block and checks its page's frame. A page of zeros passes: see PageIsNew. */
extern Buffer ruhnsw_read(Relation index, BlockNumber block, int lock_mode);

/* The check of ruhnsw_read for a page that was read otherwise. */
extern void ruhnsw_check_frame(Relation index, Page page, BlockNumber block);

/* Raises ERRCODE_INDEX_CORRUPTED; format describes what is wrong with the block. */
extern void ruhnsw_corrupt(Relation index, BlockNumber block, const char *format, ...)
    pg_attribute_printf(3, 4) pg_attribute_noreturn();

/* The number of slots that the page has had in use at some time. */
extern OffsetNumber ruhnsw_slot_count(const RuhnswGeometry *geometry, Page page);

/* The node in a slot of a locked NODES page, checked; NULL when the slot is empty or there is none.
 */
extern RuhnswNode *ruhnsw_node_at(Relation index, const RuhnswGeometry *geometry, Page page,
                                  BlockNumber block, OffsetNumber offset);

/* The same for a reference whose page is locked. */
static inline RuhnswNode *
ruhnsw_get_node(Relation index, const RuhnswGeometry *geometry, Page page, uint64 ref)
{
    return ruhnsw_node_at(index, geometry, page, ruhnsw_ref_block(ref), ruhnsw_ref_offset(ref));
}

/* The upper links of a node at a position on its locked page, checked against the owner; NULL when
 * the node vanished since its tail was read. */
extern RuhnswLinks *ruhnsw_get_links(Relation index, Page page, uint64 position, uint64 owner,
                                     int m);

/* The rows tuple at an offset of a locked page, of whatever node; NULL when there is none. */
extern RuhnswRows *ruhnsw_rows_at(Relation index, Page page, BlockNumber block,
                                  OffsetNumber offset);

/* The rows tuple of a node at a position on its locked page, checked; NULL when the node vanished.
 */
extern RuhnswRows *ruhnsw_get_rows(Relation index, Page page, uint64 position, uint64 owner);

/* What is wrong with a node or a tuple, or NULL: the verifier's checks. */
extern const char *ruhnsw_check_node(const RuhnswGeometry *geometry, const RuhnswNode *node);
extern const char *ruhnsw_check_links(const RuhnswLinks *links, Size size, int m);
extern const char *ruhnsw_check_rows(const RuhnswRows *rows, Size size);

/* ---- codes (code.c) ---- */

/* Writes a vector as a code and its scale into a slot. Finite elements of any size can be encoded.
 */
extern void ruhnsw_encode(const RuhnswGeometry *geometry, const float *vector, RuhnswNode *node);
/* The vector, as exactly as it is stored. */
extern void ruhnsw_decode(const RuhnswGeometry *geometry, const RuhnswNode *node, float *vector);
/* Upper bound of the Euclidean distance from the vector to what a search compares. */
extern float ruhnsw_code_error(const RuhnswGeometry *geometry, const float *vector,
                               const RuhnswNode *node);
/* Raw distance (distance.h) of a query to a node's code. */
typedef float (*ruhnsw_measure)(const RuhnswGeometry *geometry, const float *query,
                                const RuhnswNode *node);
extern ruhnsw_measure ruhnsw_choose_measure(RuhnswStorage storage, rv_metric metric);

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
/* The slot that the next node of a NODES page gets; InvalidOffsetNumber when it is full. A page of
 * zeros has room. */
extern OffsetNumber ruhnsw_free_slot(const RuhnswGeometry *geometry, Page page);
/* Makes the slot part of the page and returns it; the caller fills in all of slot_size bytes. */
extern RuhnswNode *ruhnsw_use_slot(const RuhnswGeometry *geometry, Page page, OffsetNumber offset);
/* True when an item of this size fits a SIDE page. */
extern bool ruhnsw_page_fits(Page page, Size size);
/* The offset that the next item of a SIDE page gets: the first unused line pointer, or a new one.
 */
extern OffsetNumber ruhnsw_next_offset(Page page);
extern void ruhnsw_put_item(Relation index, Page page, OffsetNumber offset, const void *item,
                            Size size);

#endif
