/*
 * ruivfflat.h - what the files of the access method share. The on-disk format is page.h's.
 *
 * Locks: none but the content locks of pages, in the order that page.h gives, and the relation
 * extension lock. An insert, a vacuum and any number of scans may be on one list at a time:
 *   insert  exclusive on the page that takes the row; when that is a new one, also on the last page
 *           of the chain, which it is linked to
 *   vacuum  exclusive on one page at a time
 *   scan    share on one page at a time; it copies what it needs and holds nothing between pages
 */
#ifndef RUIVFFLAT_H
#define RUIVFFLAT_H

#include "ruivfflat/page.h"
#include "ruivfflat/ruivfflat_api.h"

#include "access/amapi.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"

#define RUIVF_DEFAULT_LISTS 0 /* chosen from the number of rows */

/* Build phases of pg_stat_progress_create_index; 1 is PROGRESS_CREATEIDX_SUBPHASE_INITIALIZE. */
#define RUIVF_PHASE_SAMPLE 2
#define RUIVF_PHASE_KMEANS 3
#define RUIVF_PHASE_ASSIGN 4
#define RUIVF_PHASE_SORT 5
#define RUIVF_PHASE_WRITE 6

typedef struct RuivfOptions {
    int32 vl_len_;
    int lists;
    int storage; /* RuivfStorage */
    bool adaptive_search;
    int probes; /* 0: the setting's */
    double target_recall;
} RuivfOptions;

/* ---- options and operator class (handler.c) ---- */

extern int ruivf_option_lists(Relation index);
extern RuivfStorage ruivf_option_storage(Relation index, int dim); /* auto resolved */
extern const char *ruivf_storage_name(RuivfStorage storage);
extern bool ruivf_option_adaptive(Relation index);
extern RuvOwnEffort ruivf_option_effort(Relation index);

/* ---- meta page (meta.c) ---- */

extern void ruivf_read_meta(Relation index, RuivfMetaData *meta); /* checked */
/* Content of the meta page of an index with one list; checks the column and the options. */
extern void ruivf_make_meta(Relation index, RuivfMetaData *meta);
extern void ruivf_write_meta(Page page, const RuivfMetaData *meta);
extern void ruivf_raise_max_norm(Relation index, float norm);
extern void ruivf_identity(Relation index, const RuivfMetaData *meta, RuvIndexIdentity *out);
/* An upper bound of the norm of a vector, for max_norm. */
extern float ruivf_norm_bound(const float *vector, int dim);

/* ---- reading the lists (lists.c) ---- */

/* A reader: the meta page and the layout that follows from it. */
typedef struct RuivfReader {
    Relation index;
    RuivfMetaData meta;
    RuivfLayout layout;
    rv_ivf_scorer scorer;
    float *distances;          /* of the centres to the query */
    BlockNumber *first_blocks; /* of the lists */
    rv_ivf_candidate *batch;   /* a page's rows */
    float *vector;             /* of a row that is compared exactly */
    char *code;                /* of it */
    float *keys;
    rv_ivf_source source; /* for the engine; source.ctx is this struct */
    uint64 pages;         /* buffers read */
} RuivfReader;

/* Reads the meta page; arrays come from the current memory context. */
extern void ruivf_reader_open(RuivfReader *reader, Relation index);
/* Finds the distances of all centres to a query, which must stay valid. */
extern void ruivf_reader_aim(RuivfReader *reader, const float *query);

/* ---- centres (centres.c) ---- */

/* Distances of all centres, as rv_ivf_list_distances has them, and the first blocks of the lists.
 * Returns the pages that were read for them. */
extern uint32 ruivf_list_distances(Relation index, const RuivfMetaData *meta,
                                   const RuivfLayout *layout, const rv_ivf_scorer *scorer,
                                   float *distances, BlockNumber *first_blocks);
/* The list that a vector belongs to, the first block of its chain, and the block that this session
 * remembered of it (InvalidBlockNumber: none). */
extern uint32 ruivf_find_list(Relation index, const RuivfMetaData *meta, const RuivfLayout *layout,
                              const float *vector, BlockNumber *first_block,
                              BlockNumber *recent_block);
/* Remembers where the session put a row, as well as it can. */
extern void ruivf_remember_block(Relation index, const RuivfMetaData *meta, uint32 list,
                                 BlockNumber block);

/* ---- callbacks ---- */

extern IndexBuildResult *ruivf_build(Relation heap, Relation index, IndexInfo *info);
extern void ruivf_build_empty(Relation index);
extern bool ruivf_insert(Relation index, Datum *values, bool *isnull, ItemPointer tid,
                         Relation heap, IndexUniqueCheck unique, bool unchanged, IndexInfo *info);
extern IndexBulkDeleteResult *ruivf_bulk_delete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats,
                                                IndexBulkDeleteCallback callback, void *state);
extern IndexBulkDeleteResult *ruivf_vacuum_cleanup(IndexVacuumInfo *info,
                                                   IndexBulkDeleteResult *stats);
extern void ruivf_cost_estimate(PlannerInfo *root, IndexPath *path, double loop_count,
                                Cost *startup_cost, Cost *total_cost, Selectivity *selectivity,
                                double *correlation, double *pages);
extern IndexScanDesc ruivf_begin_scan(Relation index, int nkeys, int norderbys);
extern void ruivf_rescan(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys,
                         int norderbys);
extern bool ruivf_get_tuple(IndexScanDesc scan, ScanDirection direction);
extern void ruivf_end_scan(IndexScanDesc scan);

#endif
