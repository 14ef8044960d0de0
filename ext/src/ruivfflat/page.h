/*
 * page.h - the on-disk format of a ruivfflat index, and the only code that knows it.
 *
 *   block 0      META   what the index is
 *   block 1..c   CENTRE the lists: for each its first block and its centre, in fixed slots, one
 *                       after the other; never changed after the build
 *   the rest     LIST   rows of one list, in a chain of pages
 *                REST   what the codes of one LIST page leave out of their vectors
 * A page that is all zeros was added to the file just before a crash; nothing refers to it.
 *
 * A LIST page has no line pointers. It is four arrays of `capacity` slots, so that a search runs
 * over them from end to end:
 *   row     ItemPointerData; an invalid one marks a free slot
 *   scale   float, fixed32 only
 *   error   float, fixed32 only: how far the code is from the vector (rv_ivf_encode_fixed)
 *   code    the vector as float32, or the high part of fixed point (codes.h), an int8
 * WAL looks at the bytes before pd_lower, the end of the last code that was ever in use.
 * Slot i of a page with codes has three more bytes of each element, in planes, in slot i % e of
 * REST page rest[i / e], where e is the number of vectors on such a page. Code and rest together
 * take no more than the vector would, and say as much of it as distances in single precision can
 * tell.
 *
 * What readers may rely on
 *   - A row stays in its slot until it is removed: nothing ever moves between slots or pages, so a
 *     scan that walks the chain while rows come and go misses none that was there all the time.
 *   - Pages are only ever added, at the end of a chain, and stay in it. Blocks ascend along a
 * chain, so a damaged link can not lead in a circle.
 *   - Freed slots are used again by the list that they belong to.
 *
 * Lock order: along a chain from first to last, then a REST page; the first page of a list is not
 * locked while another one is, except along the chain. The META page is locked alone.
 *
 * Reserved fields are zero under this version.
 */
#ifndef RUIVF_PAGE_H
#define RUIVF_PAGE_H

#include "ruvector.h"

#include "access/generic_xlog.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/itemptr.h"
#include "utils/rel.h"

#define RUIVF_MAGIC 0x52564931 /* "RVI1" */
#define RUIVF_VERSION 2
#define RUIVF_PAGE_ID 0xFFA8 /* last two bytes of every page */

#define RUIVF_META_BLOCK 0
#define RUIVF_FIRST_CENTRE_BLOCK 1

#define RUIVF_MAX_DIMENSIONS 2000
#define RUIVF_MAX_REST_BLOCKS 8 /* REST pages of one LIST page */

/* How vectors are stored. AUTO is a storage parameter only: the meta page has what it became. */
typedef enum RuivfStorage {
    RUIVF_STORAGE_AUTO = 0,
    RUIVF_STORAGE_FLOAT32 = 1,
    RUIVF_STORAGE_FIXED32 = 2
} RuivfStorage;

#define RUIVF_REST_PLANES 3 /* of fixed32 */

typedef enum RuivfPageKind {
    RUIVF_PAGE_META = 1,
    RUIVF_PAGE_CENTRE = 2,
    RUIVF_PAGE_LIST = 3,
    RUIVF_PAGE_REST = 4
} RuivfPageKind;

typedef struct RuivfPageTrailer {
    uint16 kind; /* RuivfPageKind */
    uint16 reserved;
    uint16 version;
    uint16 page_id;
} RuivfPageTrailer;

typedef struct RuivfMetaData {
    uint32 magic;
    uint32 version;
    uint64 epoch; /* random, drawn at each build; never 0 */
    uint16 dim;
    uint8 metric;  /* rv_metric */
    uint8 storage; /* RuivfStorage, not AUTO */
    uint32 lists;
    float max_norm; /* upper bound of the norms of all vectors ever stored */
    float spread;   /* mean raw distance of a row to its centre, at the build; see rv_ivf_start */
    uint64 reserved[5];
} RuivfMetaData;

/* The head of a CENTRE page's contents; its slots follow. */
typedef struct RuivfCentreHeader {
    uint32 first_list; /* number of the list in slot 0 */
    uint32 count;      /* slots in use */
} RuivfCentreHeader;

typedef struct RuivfCentre {
    BlockNumber first_block; /* of the list's chain */
    uint32 reserved;
    float centre[FLEXIBLE_ARRAY_MEMBER]; /* of unit length under cosine and inner product */
} RuivfCentre;

/* The head of a LIST page's contents; the arrays follow. */
typedef struct RuivfListHeader {
    uint32 list;
    BlockNumber next;         /* InvalidBlockNumber: the last page of the chain */
    BlockNumber insert_block; /* first page only; hint: where a free slot may be */
    uint16 used;              /* slots from here on were never used */
    uint16 live;              /* slots with a row */
    uint64 reserved;
    BlockNumber rest[RUIVF_MAX_REST_BLOCKS]; /* InvalidBlockNumber: not there yet */
} RuivfListHeader;

/* The head of a REST page's contents; the vectors follow. */
typedef struct RuivfRestHeader {
    BlockNumber owner; /* its LIST page */
    uint32 reserved;
} RuivfRestHeader;

StaticAssertDecl(sizeof(RuivfPageTrailer) == 8, "page trailer is 8 bytes on disk");
StaticAssertDecl(sizeof(RuivfMetaData) == 72 && offsetof(RuivfMetaData, lists) == 20,
                 "meta data layout");
StaticAssertDecl(sizeof(RuivfCentreHeader) == 8 && offsetof(RuivfCentre, centre) == 8,
                 "centre page layout");
StaticAssertDecl(sizeof(RuivfListHeader) == 56 && offsetof(RuivfListHeader, rest) == 24,
                 "list page layout");
StaticAssertDecl(sizeof(RuivfRestHeader) == 8, "exact page layout");
StaticAssertDecl(sizeof(ItemPointerData) == 6, "item pointers are packed");

#define RUIVF_CONTENT_SIZE                                                                         \
    (BLCKSZ - MAXALIGN(SizeOfPageHeaderData) - MAXALIGN(sizeof(RuivfPageTrailer)))

StaticAssertDecl(sizeof(RuivfListHeader) + MAXALIGN(sizeof(ItemPointerData)) +
                             sizeof(float) * RUIVF_MAX_DIMENSIONS <=
                         RUIVF_CONTENT_SIZE ||
                     BLCKSZ < 8192,
                 "a row of the most dimensions fits a page");

/* Where things are on the pages of one index: it follows from dimensions and storage. */
typedef struct RuivfLayout {
    int dim;
    rv_ivf_storage code; /* what a search scores */
    int capacity;        /* slots of a LIST page */
    int rest_per;        /* vectors of a REST page; 0: there are none */
    int centres_per;     /* slots of a CENTRE page */
    Size centre_size;    /* bytes of such a slot */
    Size code_size;      /* bytes of a code */
    Size scales_at;      /* offsets in a LIST page's contents */
    Size errors_at;
    Size codes_at;
} RuivfLayout;

extern void ruivf_layout_init(RuivfLayout *layout, int dim, RuivfStorage storage);
extern uint32 ruivf_centre_blocks(const RuivfLayout *layout, uint32 lists);

/* ---- parts of a page whose frame was checked ---- */

static inline RuivfPageTrailer *
ruivf_trailer(Page page)
{
    return (RuivfPageTrailer *)((char *)page + BLCKSZ - MAXALIGN(sizeof(RuivfPageTrailer)));
}

static inline RuivfListHeader *
ruivf_list_header(Page page)
{
    return (RuivfListHeader *)PageGetContents(page);
}

static inline ItemPointerData *
ruivf_rows(Page page)
{
    return (ItemPointerData *)(PageGetContents(page) + sizeof(RuivfListHeader));
}

static inline float *
ruivf_scales(Page page, const RuivfLayout *layout)
{
    return (float *)(PageGetContents(page) + layout->scales_at);
}

static inline float *
ruivf_errors(Page page, const RuivfLayout *layout)
{
    return (float *)(PageGetContents(page) + layout->errors_at);
}

static inline char *
ruivf_codes(Page page, const RuivfLayout *layout)
{
    return PageGetContents(page) + layout->codes_at;
}

static inline int8 *
ruivf_rest(Page page, const RuivfLayout *layout, int slot)
{
    return (int8 *)(PageGetContents(page) + sizeof(RuivfRestHeader)) +
           (Size)slot * RUIVF_REST_PLANES * layout->dim;
}

static inline RuivfCentre *
ruivf_centre_at(Page page, const RuivfLayout *layout, int slot)
{
    return (RuivfCentre *)(PageGetContents(page) + sizeof(RuivfCentreHeader) +
                           (Size)slot * layout->centre_size);
}

/* A slot of a LIST page, as the engine keeps it. */
static inline uint64
ruivf_ref(BlockNumber block, int slot)
{
    return ((uint64)block << 16) | (uint64)slot;
}

/* A row of the table as the engine keeps it. */
static inline uint64
ruivf_row(const ItemPointerData *tid)
{
    return ((uint64)ItemPointerGetBlockNumberNoCheck(tid) << 16) |
           ItemPointerGetOffsetNumberNoCheck(tid);
}

/* ---- reading ---- */

/* Raises ERRCODE_INDEX_CORRUPTED; format describes what is wrong with the block. */
extern void ruivf_corrupt(Relation index, BlockNumber block, const char *format, ...)
    pg_attribute_printf(3, 4) pg_attribute_noreturn();

/* What is wrong with a page as one of this kind, or NULL. A page of zeros is wrong. */
extern const char *ruivf_check_frame(Page page, RuivfPageKind kind);
/* What is wrong with the contents of a LIST page in a file of so many blocks, or NULL. */
extern const char *ruivf_check_list(Page page, BlockNumber block, const RuivfLayout *layout,
                                    BlockNumber blocks);
/* Likewise of a CENTRE page, whose place tells what it must hold. */
extern const char *ruivf_check_centres(Page page, BlockNumber block, const RuivfLayout *layout,
                                       uint32 lists);
extern const char *ruivf_check_meta(const RuivfMetaData *meta);

/* Pins and locks a page of this kind, frame checked. lock_mode 0: pinned only, for CENTRE pages. */
extern Buffer ruivf_read(Relation index, BlockNumber block, RuivfPageKind kind, int lock_mode);
/* A LIST page of a list, contents checked. blocks: the size of the file, not necessarily the
 * newest.
 */
extern Buffer ruivf_read_list(Relation index, BlockNumber block, const RuivfLayout *layout,
                              uint32 list, BlockNumber blocks, int lock_mode);
/* The buffer of a LIST page that was pinned before: locks it, and checks it likewise. */
extern void ruivf_lock_list(Relation index, Buffer buffer, const RuivfLayout *layout, uint32 list,
                            BlockNumber blocks, int lock_mode);
/* A CENTRE page, pinned, contents checked. */
extern Buffer ruivf_read_centres(Relation index, BlockNumber block, const RuivfLayout *layout,
                                 uint32 lists);

/* ---- writing ---- */

extern void ruivf_page_init(Page page, RuivfPageKind kind);
extern void ruivf_list_page_init(Page page, uint32 list);
extern void ruivf_rest_page_init(Page page, BlockNumber owner);
/* Adds a block to the file: exclusively locked, a page of zeros. */
extern Buffer ruivf_extend(Relation index);
/* Puts a row into a slot of a LIST page, and what its code leaves out into the slot of its REST
 * page (NULL where there are none). The counters are the caller's. */
extern void ruivf_put_row(Page page, Page rest, const RuivfLayout *layout, rv_metric metric,
                          int slot, const ItemPointerData *tid, const float *vector);
/* The vector of a slot, as the index has it; rest: its REST page, where there are any. */
extern void ruivf_get_vector(Page page, Page rest, const RuivfLayout *layout, int slot,
                             float *vector);

#endif
