/*
 * feedback.h - what the files of relevance feedback share.
 *
 *   feedback_find.c   the search that an id names, and who may judge it
 *   feedback_rows.c   rows by the table's own ids, looked up with the caller's rights
 *   feedback_store.c  ruvector_feedback: limits, and one row per search and role
 *   sql_feedback.c    ruvector_record_feedback, ruvector_refine_query
 *   feedback_join.c   the worker: from rows to samples, verdicts and weights
 */
#ifndef RUVECTOR_LEARNING_FEEDBACK_H
#define RUVECTOR_LEARNING_FEEDBACK_H

#include "learning/worker.h"

/* A search that somebody wants to judge, in the current memory context. */
typedef struct RuvJudgedSearch {
    uint64 query_id[2];
    Oid index_oid;
    Oid table_oid;
    Oid user_oid; /* who searched */
    uint32 k;
    int dim;
    const float *query; /* as the index compares it; NULL: only its hash was kept */
    rv_hit *hits;       /* id and distance */
    uint32 hit_count;
} RuvJudgedSearch;

/* Finds the search, in the ring or among the stored ones, if the caller may judge it: the role that
 * searched and its members, the table's owner, superusers; each with SELECT on the table. Raises an
 * error that says what is the matter; one and the same for a search that is not there and for one
 * that is somebody else's. */
extern void ruv_find_judged_search(const uint64 *query_id, RuvJudgedSearch *search);

/* Copies the record of a search of this database that is still in the window of the ring. */
extern bool ruv_find_recorded(const uint64 *query_id, char *record, size_t capacity, size_t *size);

/* The query id as users see it. */
extern const char *ruv_query_id_text(const uint64 *query_id);

/* One id that was given, and what was found for it. */
typedef struct RuvJudgedRow {
    int64 id;
    bool relevant;
    bool found;          /* the caller sees such a row, and the index holds it */
    rv_row_place place;  /* the best of all rows of this id */
    double distance;     /* of the nearest of them */
    const float *vector; /* its vector; NULL unless asked for */
} RuvJudgedRow;

/* Looks the ids up in the table of the search. rows is sorted by id, without duplicates. place and
 * distance are filled when the query is known; the vectors are kept when asked for. */
extern void ruv_look_up_rows(const RuvJudgedSearch *search, RuvJudgedRow *rows, int count,
                             bool keep_vectors);

typedef enum RuvFeedbackStatus {
    RUV_FEEDBACK_RECORDED,
    RUV_FEEDBACK_REPLACED,
    RUV_FEEDBACK_UNCHANGED,
    RUV_FEEDBACK_WITHDRAWN
} RuvFeedbackStatus;

/* Stores what the current user says of a search; without any row found it takes back what they said
 * before. Raises an error beyond the limits. */
extern RuvFeedbackStatus ruv_store_feedback(const RuvJudgedSearch *search, const RuvJudgedRow *rows,
                                            int count);
/* What the current user has said of it: rows with id and relevant set, sorted; NULL: nothing. */
extern RuvJudgedRow *ruv_load_feedback(const RuvJudgedSearch *search, int *count);

#endif
