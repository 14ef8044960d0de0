/*
 * ruhnsw.h - what the files of the access method share: the state structs of its phases and the
 * callbacks. The on-disk format is page.h's.
 *
 * Heavyweight locks (LockPage on the meta block), the protocol between inserts and vacuum:
 *   insert             share while it searches and links
 *   insert that may    exclusive instead, so that entry points are promoted one at a time
 *   move the entry
 *   vacuum, barrier    exclusive, released at once: waits out the inserts that may have chosen a
 *                      node as a neighbour before it was marked dead
 *   vacuum, entry      exclusive while it replaces a dead entry point
 *   scan, trace        none: see scan.c
 */
#ifndef RUHNSW_H
#define RUHNSW_H

#include "peek.h"
#include "ruhnsw/page.h"
#include "ruhnsw/ruhnsw_api.h"

#include "access/amapi.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"

#define RUHNSW_DEFAULT_M 16
#define RUHNSW_DEFAULT_EF_CONSTRUCTION 64
#define RUHNSW_DEFAULT_LEARNED 8
#define RUHNSW_MIN_EF_CONSTRUCTION 4
#define RUHNSW_MAX_EF_CONSTRUCTION 1000

/* Build phases of pg_stat_progress_create_index; 1 is PROGRESS_CREATEIDX_SUBPHASE_INITIALIZE. */
#define RUHNSW_PHASE_LOAD 2
#define RUHNSW_PHASE_WRITE 3
#define RUHNSW_PHASE_INSERT 4
#define RUHNSW_PHASE_CONNECT 5

typedef struct RuhnswOptions {
    int32 vl_len_;
    int m;
    int ef_construction;
    int storage; /* RuhnswStorage */
    int learned_links;
    bool adaptive_search;
    int ef_search; /* 0: the setting's */
    double target_recall;
} RuhnswOptions;

/* ---- options and operator class (handler.c) ---- */

extern int ruhnsw_option_m(Relation index);
extern int ruhnsw_option_ef_construction(Relation index);
extern RuhnswStorage ruhnsw_option_storage(Relation index); /* AUTO included */
extern const char *ruhnsw_storage_name(RuhnswStorage storage);
extern int ruhnsw_option_learned(Relation index);
extern bool ruhnsw_option_adaptive(Relation index);
extern RuvOwnEffort ruhnsw_option_effort(Relation index);

/* ---- meta page (meta.c) ---- */

extern void ruhnsw_read_meta(Relation index, RuhnswMetaData *meta); /* checked */
/* What is wrong with a meta page's content, or NULL. */
extern const char *ruhnsw_check_meta(const RuhnswMetaData *meta);
/* Content of the meta page of an empty index; checks the column and the options. */
extern void ruhnsw_make_meta(Relation index, RuhnswMetaData *meta);
/* Writes block 0 of a new fork: unlogged unless it is the init fork. */
extern void ruhnsw_create_meta(Relation index, ForkNumber fork, const RuhnswMetaData *meta);
/* first: of a graph without other live nodes; it becomes the root as well. */
extern void ruhnsw_set_entry(Relation index, uint64 entry, int level, bool first, bool building);
extern void ruhnsw_set_root(Relation index, uint64 root);
extern void ruhnsw_set_unlinked(Relation index, uint64 unlinked);
extern void ruhnsw_set_side_block(Relation index, BlockNumber block, bool building);
/* Raise the bounds of the meta page to at least these. */
extern void ruhnsw_raise_bounds(Relation index, float norm, float error, bool building);
extern void ruhnsw_identity(Relation index, const RuhnswMetaData *meta, RuvIndexIdentity *out);

/* ---- the graph over pages (graph.c) ---- */

typedef struct RuhnswGraph {
    rv_graph graph; /* for the beam; graph.ctx is this struct */
    Relation index;
    RuvReader reader;
    RuhnswMetaData meta;
    RuhnswGeometry geometry;
    ruhnsw_measure measure;
    rv_metric metric;
    bool unit;                  /* indexed vectors have unit length */
    const float *query;         /* meta.dim floats, the caller's */
    bool entry_vanished;        /* the entry node of meta was freed by vacuum meanwhile */
    float *vector;              /* meta.dim floats */
    uint32 *links;              /* room for one level's links */
    struct RuhnswVisit *visits; /* likewise: nodes that are about to be compared */
} RuhnswGraph;

/* Reads the meta page; arrays come from the current memory context. */
extern void ruhnsw_graph_open(RuhnswGraph *graph, Relation index);
extern void ruhnsw_graph_refresh(RuhnswGraph *graph); /* reads the meta page again */
/* True when the reference can be looked at: a block of the file, a slot of a page. */
extern bool ruhnsw_ref_in_file(const RuhnswGraph *graph, uint64 ref);

/* Pins, locks and checks the page of a reference. */
extern Page ruhnsw_lock_page(RuhnswGraph *graph, BlockNumber block, RuvPeek *peek);
/* Raises the error that something refers to a block past the end of the file. */
extern void ruhnsw_no_such_block(const RuhnswGraph *graph, BlockNumber block);

/* Asks the memory for what comparing these nodes will read. */
extern void ruhnsw_graph_prefetch(const RuhnswGraph *graph, const rv_node *nodes, uint32 count);

/* ---- links (links.c) ---- */

/*
 * Copies the numbers of the nodes that a node links to at a level into out (room for max_degree),
 * on layer 0 with the learned ones if asked for. Returns how many; -1 when the node vanished or has
 * no such level. position (where they are: the node itself on layer 0, its links tuple above) and
 * node_flags may be NULL.
 */
extern int ruhnsw_graph_links(RuhnswGraph *graph, uint64 ref, int level, bool learned, uint32 *out,
                              uint64 *position, uint16 *node_flags);
/* The same as references, learned ones not among them. */
extern int ruhnsw_load_links(RuhnswGraph *graph, uint64 ref, int level, uint64 *links,
                             uint64 *position, uint16 *node_flags);
/* The learned links of a node (room for meta.learned); -1 when it vanished. */
extern int ruhnsw_load_learned(RuhnswGraph *graph, uint64 ref, uint64 *links);

/* ---- nodes (graph.c) ---- */

/* Copies a node's vector as its code has it (out may be NULL), flags and level; false when it
 * vanished. */
extern bool ruhnsw_load_node(RuhnswGraph *graph, uint64 ref, float *out, uint16 *flags, int *level);
/* The same in a peek, for those who hold off vacuum by the heavyweight lock, so that the node
 * cannot be freed under their eyes. */
extern bool ruhnsw_peek_node(RuhnswGraph *graph, uint64 ref, float *out, uint16 *flags);

/* A node that a search found, as it is handed out. */
typedef struct RuhnswResult {
    uint64 node;
    float distance;  /* raw, with the vector as exactly as it is stored */
    int tid_count;   /* the first rows */
    uint64 position; /* of further ones, for ruhnsw_next_rows */
    ItemPointerData tids[RUHNSW_NODE_TIDS];
} RuhnswResult;

/*
 * The window of a search for k results by slack: a few more, since the k nearest by their codes are
 * not quite those by their vectors. Traces use it as well, so slacks are calibrated for it.
 */
static inline uint32
ruhnsw_window_over(RuhnswStorage storage, uint32 k)
{
    return ruhnsw_has_rest(storage) ? k + Max(k / 2, 4) : k;
}

static inline uint32
ruhnsw_window(const RuhnswGraph *graph, uint32 k)
{
    return ruhnsw_window_over(graph->geometry.storage, k);
}

/* Reads a node with all checks; false when it vanished or died. */
extern bool ruhnsw_load_result(RuhnswGraph *graph, uint64 ref, RuhnswResult *result);
/* The least that the distance of a RuhnswResult can be whose distance in the search was this. */
extern float ruhnsw_lower_bound(const RuhnswGraph *graph, float query_norm, float distance);

/*
 * The rows of a node, piece by piece. *position is 0 at the start and RUHNSW_ROWS_END after the
 * last piece; tids has room for RUHNSW_CHAIN_TIDS. Returns how many, which can be 0 before the end.
 */
#define RUHNSW_ROWS_END UINT64_MAX
extern int ruhnsw_next_rows(RuhnswGraph *graph, uint64 ref, uint64 *position,
                            ItemPointerData *tids);
extern float ruhnsw_distance(const RuhnswGraph *graph, const float *a, const float *b);

/* ---- construction on pages (insert.c, link.c) ---- */

/* A link that was dropped from a list on layer 0. */
typedef struct RuhnswDropped {
    uint64 from;
    uint64 to;
} RuhnswDropped;

/* A writer: the graph, a beam and workspace, in its own memory context. */
typedef struct RuhnswWriter {
    RuhnswGraph graph;
    rv_allocator allocator;
    MemoryContext context;
    rv_beam *beam;
    uint32 ef_construction;
    bool building;            /* write without WAL: see RuhnswChange */
    bool may_cut;             /* a link to a dead node may go although nothing else leads there */
    rv_neighbour *found;      /* ef_construction of them: the result of a search */
    rv_neighbour *entries;    /* likewise: where the next level starts */
    rv_candidate *candidates; /* candidate_room of them, each with room for a vector */
    float *vectors;
    int candidate_room;
    float *vector;     /* of the row that is added */
    float *anchor;     /* of the node whose links are chosen anew */
    uint64 *old_links; /* link lists: room for 2m + 1 each */
    uint64 *new_links;
    uint64 *back_links;
    uint64 *far_links;
    float *distances;       /* candidate_room of them */
    RuhnswDropped *dropped; /* since the last attach_dropped */
    int dropped_count;
    int dropped_room;
    RuhnswNode *node; /* a slot and a tuple being made, a page each */
    RuhnswLinks *links;
} RuhnswWriter;

/* Everything is allocated in a child of the current memory context. */
extern void ruhnsw_writer_open(RuhnswWriter *writer, Relation index, bool building);
extern void ruhnsw_writer_close(RuhnswWriter *writer);

/* Adds one row; the caller holds the heavyweight lock (see above) unless building, and has read the
 * meta page under it (ruhnsw_graph_refresh). level <= ruhnsw_max_level(m). alone: nobody else adds
 * rows meanwhile. False: no live node is in reach, and nothing was done; such a row is added alone.
 */
extern bool ruhnsw_add(RuhnswWriter *writer, const float *vector, ItemPointer tid, int level,
                       bool alone);

/*
 * Searches for vector from the entry point down, and calls use for each level from top to 0 with
 * the ef_construction nearest live nodes of that level in writer->found, nearest first. top is at
 * most the level of the entry point.
 */
typedef void (*ruhnsw_use_found)(RuhnswWriter *writer, int level, uint32 count, void *arg);
extern void ruhnsw_search_levels(RuhnswWriter *writer, const float *vector, int top,
                                 ruhnsw_use_found use, void *arg);

/* Appends the node to the candidates with its vector and its distance to from; *count of them are
 * there. Left out: self, vanished and dead nodes, and what is there already. */
extern void ruhnsw_add_candidate(RuhnswWriter *writer, const float *from, uint64 self, uint64 ref,
                                 int *count);
/* Replaces the links of a node at a level if they still are the old ones; false when not. */
extern bool ruhnsw_replace_links(RuhnswWriter *writer, uint64 ref, uint64 position, int level,
                                 const uint64 *old_links, int old_count, const uint64 *new_links,
                                 int new_count);
/*
 * Adds the link from -> to at a level; a full list is chosen anew by the heuristic. With force the
 * new link is kept whatever the heuristic says. On layer 0 nobody, dead or alive, is dropped from a
 * list unless another live node of the list links to it. True when from links to to afterwards.
 */
extern bool ruhnsw_link(RuhnswWriter *writer, uint64 from, uint64 to, int level, bool force);
/* Gives a new node, to which nothing links yet, a link from one of the nodes that it links to, or
 * else from one that a search finds. Raises an error when all of them refuse. */
extern void ruhnsw_attach(RuhnswWriter *writer, uint64 fresh);
/* reach.c: links ref in from a node within reach of the root, unless a search from there finds it.
 * Uses writer->vector. False when no node could make room. */
extern bool ruhnsw_reconnect(RuhnswWriter *writer, uint64 ref);
/* Makes up for links that concurrent writers dropped, each relying on the other's. */
extern void ruhnsw_attach_dropped(RuhnswWriter *writer);

/* ---- learned links (heal.c) ---- */

/* Gives from a learned link to to; the caller holds the heavyweight lock in share mode. False when
 * it is linked already, has no room, or either node is not live. */
extern bool ruhnsw_learn_link(RuhnswWriter *writer, uint64 from, uint64 to);

/* ---- reachability (reach.c) ---- */

typedef struct RuhnswReach RuhnswReach;
/* Marks what can be reached from root over layer 0, by sweeps in page order; with through_dead
 * also by way of dead nodes. */
extern RuhnswReach *ruhnsw_reach_compute(Relation index, const RuhnswMetaData *meta, uint64 root,
                                         bool through_dead, BufferAccessStrategy strategy);
extern bool ruhnsw_reached(const RuhnswReach *reach, uint64 ref);
extern void ruhnsw_reach_free(RuhnswReach *reach);
/* Links in every live node that cannot be reached from the live node root over live nodes; returns
 * how many there were. From then on that holds for all: inserts and repairs keep it. */
extern uint64 ruhnsw_connect(RuhnswWriter *writer, uint64 root, BufferAccessStrategy strategy);

/* ---- callbacks ---- */

extern IndexBuildResult *ruhnsw_build(Relation heap, Relation index, IndexInfo *info);
extern void ruhnsw_build_empty(Relation index);
extern bool ruhnsw_insert(Relation index, Datum *values, bool *isnull, ItemPointer tid,
                          Relation heap, IndexUniqueCheck unique, bool unchanged, IndexInfo *info);
extern IndexBulkDeleteResult *ruhnsw_bulk_delete(IndexVacuumInfo *info,
                                                 IndexBulkDeleteResult *stats,
                                                 IndexBulkDeleteCallback callback, void *state);
extern IndexBulkDeleteResult *ruhnsw_vacuum_cleanup(IndexVacuumInfo *info,
                                                    IndexBulkDeleteResult *stats);
extern void ruhnsw_cost_estimate(PlannerInfo *root, IndexPath *path, double loop_count,
                                 Cost *startup_cost, Cost *total_cost, Selectivity *selectivity,
                                 double *correlation, double *pages);
extern IndexScanDesc ruhnsw_begin_scan(Relation index, int nkeys, int norderbys);
extern void ruhnsw_rescan(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys,
                          int norderbys);
extern bool ruhnsw_get_tuple(IndexScanDesc scan, ScanDirection direction);
extern void ruhnsw_end_scan(IndexScanDesc scan);

#endif
