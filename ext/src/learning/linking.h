/*
 * linking.h - learned links in the worker: which searches ask for them, rounds, and what judges
 * them. links.c has the whole story.
 */
#ifndef RUVECTOR_LEARNING_LINKING_H
#define RUVECTOR_LEARNING_LINKING_H

#include "learning/worker.h"
#include "ruvector/links.h"

/* ---- trace.c, distil.c --------------------------------------------------------------------- */

/* What a trace of a sample shows; see RuvSample. */
typedef struct RuvTraced {
    rv_effort efforts[RV_TRAJECTORY_MAX_HITS]; /* effort_count of the sample */
    rv_work work;
    float score;
    bool far;
    uint32 nearest_count;
    uint64 nearest[8];
} RuvTraced;

/* Traces a sample on the present graph, from the descent and with the present memory, and leaves it
 * as it was. */
extern void ruv_trace_again(RuvIndexState *state, Relation table, Relation index,
                            const RuvSample *sample, RuvTraced *descent, RuvTraced *memory);
/* The sample takes over what such traces showed; graph and memory have not changed since. */
extern void ruv_keep_traces(const RuvIndexState *state, RuvSample *sample, const RuvTraced *descent,
                            const RuvTraced *memory);
/* The k that most samples have; the larger one of equals. *count (may be NULL): how many. */
extern uint32 ruv_most_common_k(const RuvIndexState *state, int *count);

/* ---- healing.c ----------------------------------------------------------------------------- */

/* Asks the healing policy whether a round may begin, and how large it may be: sets linking.due and
 * linking.answer. asked: somebody waits for everything to be learned. */
extern void ruv_links_decide(RuvIndexState *state, TimestampTz now, bool asked);
/* Asks for linking.answer alone, ahead of the searches that will ask for links. */
extern void ruv_links_ask_size(RuvIndexState *state);
/* True when a round waits that would begin if somebody waited for it. */
extern bool ruv_links_pending(const RuvIndexState *state);

/* ---- links.c, held_out.c, store_links.c ------------------------------------------------------ */

typedef enum RuvLinkRoundState {
    RUV_LINKS_APPLYING,
    RUV_LINKS_KEPT,
    RUV_LINKS_ROLLED_BACK,
    RUV_LINKS_INTERRUPTED
} RuvLinkRoundState;

extern const char *ruv_link_round_state_name(RuvLinkRoundState state);

typedef struct RuvLinkRound {
    MemoryContext context; /* of the arrays */
    int number;            /* of its row */
    RuvLinkRoundState state;
    int queries;
    rv_link *links; /* sorted by from */
    bool *done;     /* by the last write */
    int count;
    int written;
    int held_out; /* queries that judged it; 0: none did */
    double before;
    double after;
} RuvLinkRound;

/* Samples that judge a change of the graph. */
typedef struct RuvHeldOut {
    RuvSample **samples;
    int count;
    RuvTraced *descents; /* per sample, on the graph as it is */
    RuvTraced *memories;
    double before; /* mean distances at equal recall */
    double after;
} RuvHeldOut;

extern void ruv_held_out_before(RuvHeldOut *held_out, const RuvIndexState *state);
extern void ruv_held_out_after(RuvHeldOut *held_out, RuvIndexState *state, Relation table,
                               Relation index);
/* The change stays: what was traced for the judgement is what the samples say from now on. */
extern void ruv_held_out_keep(const RuvHeldOut *held_out, const RuvIndexState *state);
/* True when a sample may judge. */
extern bool ruv_held_out_judges(const RuvSample *sample);
/* True when it made them cheaper by more than this share. */
extern bool ruv_held_out_pays(const RuvHeldOut *held_out, double min_gain);

/* True when searches should ask for links: it is switched on, and the index has room for them. */
extern bool ruv_links_wanted(const RuvIndexState *state);
/* True when a query calibrates and judges, and never asks for links. */
extern bool ruv_links_held_out(const float *query, int dim);
/* While there are learned links in the graph, samples whose query is on the side that asks for them
 * speak for no others: they do not calibrate. Sets RuvSample.even of every sample, so that links
 * that come or go, and only these, change who calibrates. */
extern void ruv_links_part_samples(RuvIndexState *state);
/* True when a search that is looked at asks for links. */
extern bool ruv_links_ask(const RuvIndexState *state, const RuvSample *sample);
/* Takes the true neighbours of a search that asks for links: ids and raw distances, nearest first.
 */
extern void ruv_links_note(RuvIndexState *state, const RuvSample *sample, const uint64 *ids,
                           const float *distances, int count, bool are_nodes);
extern void ruv_links_forget(RuvIndexState *state);
/* True when the graph has other links than the samples were traced with, and they are enough to
 * calibrate with. */
extern bool ruv_links_retrace_due(const RuvIndexState *state);
/* Notices links that were taken away by hand; the store then marks their rounds. */
extern void ruv_links_follow_resets(RuvIndexState *state);
extern void ruv_links_save_reset(RuvStore *store, const RuvIndexState *state);
/* One round, in transactions of its own. Raises errors; the caller cleans up. Returns false when
 * somebody else's lock kept it from ending. */
extern bool ruv_links_round(RuvIndexState *state);
/* The oldest round that was cut short, in a transaction of its own. False: there is none. */
extern bool ruv_links_load_unfinished(const RuvIndexState *state, RuvLinkRound *round);

extern void ruv_store_load_links(RuvStore *store, RuvIndexState *state);
/* A round that is being applied gets a row and a number, one that has ended its result. */
extern void ruv_store_save_link_round(RuvStore *store, const RuvIndexState *state,
                                      RuvLinkRound *round);

#endif
