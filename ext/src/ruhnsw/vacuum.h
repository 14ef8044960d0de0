/*
 * vacuum.h - what the files of a vacuum share: its state, and looks at the pages that it goes over.
 * vacuum.c has the phases and their locks.
 */
#ifndef RUHNSW_VACUUM_H
#define RUHNSW_VACUUM_H

#include "ruhnsw/ruhnsw.h"

#include "commands/vacuum.h"
#include "utils/hsearch.h"

/* The transactions that may stand on what was unlinked. */
typedef struct RuhnswWitnesses {
    VirtualTransactionId *ids;
    int count;
} RuhnswWitnesses;

typedef struct RuhnswVacuum {
    IndexVacuumInfo *info;
    Relation index;
    IndexBulkDeleteResult *stats;
    IndexBulkDeleteCallback callback;
    void *callback_state;
    RuhnswWriter writer;
    HTAB *dead; /* references of this round */
    long dead_limit;

    uint64 unlinked;        /* nodes that stay unlinked */
    bool no_witness;        /* nobody can stand on an unlinked node any more */
    bool chains;            /* rows were removed from chains: nodes may have lost their last one */
    BlockNumber side_block; /* a SIDE page with room */
    Size side_room;
} RuhnswVacuum;

/* Reads and locks a block, at the pace of vacuum. */
static inline Buffer
vacuum_block(RuhnswVacuum *vacuum, BlockNumber block, int lock_mode)
{
    Buffer buffer;

    vacuum_delay_point();
    buffer =
        ReadBufferExtended(vacuum->index, MAIN_FORKNUM, block, RBM_NORMAL, vacuum->info->strategy);
    LockBuffer(buffer, lock_mode);
    return buffer;
}

static inline const RuhnswGeometry *
vacuum_geometry(const RuhnswVacuum *vacuum)
{
    return &vacuum->writer.graph.geometry;
}

/* Slots of a NODES page, 0 for others. */
static inline OffsetNumber
vacuum_slot_count(RuhnswVacuum *vacuum, Page page)
{
    return ruhnsw_slot_count(vacuum_geometry(vacuum), page);
}

static inline RuhnswNode *
vacuum_node_at(RuhnswVacuum *vacuum, Page page, BlockNumber block, OffsetNumber offset)
{
    return ruhnsw_node_at(vacuum->index, vacuum_geometry(vacuum), page, block, offset);
}

static inline bool
vacuum_is_side(Page page)
{
    return !PageIsNew(page) && ruhnsw_trailer(page)->kind == RUHNSW_PAGE_SIDE;
}

/* Whether a node is among the dead of this round. */
static inline bool
vacuum_is_dead(RuhnswVacuum *vacuum, uint64 ref)
{
    return hash_search(vacuum->dead, &ref, HASH_FIND, NULL) != NULL;
}

/* ---- the dead nodes, and the links to them (vacuum_repair.c) ---- */

/* Collects the nodes that are DEAD and not unlinked, as many as memory allows; false: none. */
extern bool ruhnsw_vacuum_collect(RuhnswVacuum *vacuum);
/* Waits for the inserts that are under way. */
extern void ruhnsw_vacuum_wait_for_inserts(RuhnswVacuum *vacuum);
/* Replaces an entry point that is dead. Returns what is to be the root: the present one, or the
 * entry point when that is dead. It stays the root until everything is reached from the new one. */
extern uint64 ruhnsw_vacuum_replace_entry(RuhnswVacuum *vacuum);
/* Replaces every link from a live node to a dead one of this round. Every live node must be reached
 * over live nodes (ruhnsw_connect), and stays so. */
extern void ruhnsw_vacuum_repair(RuhnswVacuum *vacuum);

/* ---- unlinked nodes, and their room (vacuum_free.c) ---- */

/* Stamps the dead nodes of this round, to which nothing links any more, as unlinked. */
extern void ruhnsw_vacuum_unlink(RuhnswVacuum *vacuum);
/* Every transaction of this database that has a snapshot. */
extern RuhnswWitnesses ruhnsw_vacuum_witnesses(void);
/*
 * Frees the nodes that this vacuum unlinked, if the witnesses of that have gone. Scans that began
 * later cannot have met them, nor can inserts, once those that were under way have ended.
 */
extern void ruhnsw_vacuum_free_at_once(RuhnswVacuum *vacuum, const RuhnswWitnesses *witnesses);
/* Frees the unlinked nodes of the exclusively locked page that nobody can stand on, and remembers
 * where there is room: of NODES pages in the free space map, of SIDE pages the one with the most.
 */
extern void ruhnsw_vacuum_free_nodes(RuhnswVacuum *vacuum, Buffer buffer);
/* The same for all pages. */
extern void ruhnsw_vacuum_free_all(RuhnswVacuum *vacuum);

#endif
