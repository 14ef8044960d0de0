/*
 * learning.h - what the access methods ask of the learning engine: how to search, and to remember
 * how it went. Neither call ever fails a query: whatever goes wrong, the search is static.
 */
#ifndef RUVECTOR_LEARNING_H
#define RUVECTOR_LEARNING_H

#include "ruvector.h"
#include "effort.h"
#include "access/genam.h"
#include "utils/rel.h"

/* Why a search was static, or that it was adaptive; reported by ruvector_last_search(). */
typedef enum RuvChoiceReason {
    RUV_REASON_LEARNED,     /* adaptive */
    RUV_REASON_SETTING_OFF, /* ruvector.adaptive_search = off */
    RUV_REASON_INDEX_OFF,   /* storage parameter adaptive_search = false */
    RUV_REASON_NOT_PRELOADED,
    RUV_REASON_LEARNING_DISABLED, /* ruvector.learning_enabled = off */
    RUV_REASON_NOTHING_LEARNED,
    RUV_REASON_INDEX_REBUILT, /* the bank belongs to another build of the index */
    RUV_REASON_POLICY_FAILED  /* adaptive by the built-in interpolation */
} RuvChoiceReason;

extern const char *ruv_choice_reason_name(RuvChoiceReason reason);

#define RUV_MAX_ENTRY_POINTS RV_MEMORY_MAX_NODES

/* The plan of one search. */
typedef struct RuvChoice {
    rv_search_mode mode;
    RuvChoiceReason reason;
    rv_way way;    /* adaptive: RV_WAY_STATIC if one effort for every search is known to be best */
    int ef_search; /* static, and that way: the window; else the hard ef bound */
    int window;    /* adaptive: results per window (the calibrated k) */
    float slack;
    uint64 max_distances; /* adaptive: hard bound per window; 0 = none */
    double target_recall;
    double expected_recall; /* < 0 unknown */
    int probes;
    int entry_count;         /* > 0: start at these instead of descending */
    uint32 lookup_distances; /* computed to find these and the nearest patterns; part of the
                                search's work */
    uint64 entry_points[RUV_MAX_ENTRY_POINTS];
    int patterns_used;
    double best_similarity; /* of the nearest pattern; < 0 none */
} RuvChoice;

/* What the access method tells about its index. */
typedef struct RuvIndexIdentity {
    Oid index_oid;
    uint64 epoch; /* random, drawn at each build */
    rv_metric metric;
    int dim;
    bool adaptive;    /* the storage parameter */
    RuvOwnEffort own; /* likewise */
    int link_room;    /* learned links that a node has room for; 0: no graph, or none */
} RuvIndexIdentity;

/* rows_asked.c: how many rows the running statement asks of a scan by its LIMIT; 0 when nobody
 * knows. Raises no error. */
extern uint32 ruv_rows_asked(IndexScanDesc scan);

/* optimizer.c: fills *choice; static with the settings when nothing better is known. rows: how many
 * the search is asked for, 0 when nobody knows. */
extern void ruv_choose(const RuvIndexIdentity *index, const float *query, uint32 rows,
                       RuvChoice *choice);

/* What a finished scan reports. */
typedef struct RuvSearchReport {
    const RuvIndexIdentity *index;
    const RuvChoice *choice;
    const float *query; /* as the index compares it (unit length for cosine); index->dim */
    TimestampTz started;
    double latency_us; /* time spent inside the scan's callbacks */
    rv_beam_stats stats;
    uint32 pages;
    uint32 k;         /* tuples returned */
    uint32 hit_count; /* hits kept, <= RV_TRAJECTORY_MAX_HITS */
    const rv_hit *hits;
} RuvSearchReport;

/* capture.c: at the end of a scan that returned or tried to return rows. Remembers it for
 * ruvector_last_search() and pushes it into the ring when learning is on for it. No lock, no
 * allocation, no ereport. */
extern void ruv_capture(const RuvSearchReport *report);

/* registry.c: somebody took the learned links of an index away; what was calibrated with them is
 * calibrated again. */
extern void ruv_note_links_reset(Oid index_oid);

/* shmem.c, worker.c: called from _PG_init when preloaded. */
extern void ruv_learning_init(void);

#endif
