/*
 * advice.h - which parameters an index should be built and searched with, from what is known of its
 * table, its searches and the machine.
 *
 * Every piece of advice names its reason and the figures it rests on. Where nothing speaks against
 * the present value, that is the advice.
 */
#ifndef RUVECTOR_ADVICE_H
#define RUVECTOR_ADVICE_H

#include "ruvector/base.h"

typedef enum rv_index_kind {
    RV_INDEX_NONE = 0, /* the table has none yet */
    RV_INDEX_GRAPH = 1,
    RV_INDEX_LISTS = 2
} rv_index_kind;

/* Figures that are not known are -1. */
typedef struct rv_index_facts {
    rv_index_kind kind;
    double rows;
    double dim;
    double memory_bytes; /* for pages of tables and indexes */
    double index_bytes;
    bool learning;             /* enabled for the table */
    const char *storage;       /* as built: "float32" ...; NULL: unknown */
    double m, ef_construction; /* a graph's, as built */
    double lists, probes;      /* of lists: as built, and a static search's */
    double target_recall;      /* declared */
    double judged;             /* recorded searches that were measured */
    double mean_recall;        /* of these */
    double out_of_reach;       /* share of these whose target no traced effort reached */
} rv_index_facts;

#define RV_ADVICE_MAX 8
#define RV_ADVICE_VALUE 32
#define RV_ADVICE_TEXT 200

typedef struct rv_advice {
    const char *parameter;
    char current[RV_ADVICE_VALUE]; /* "": there is none */
    char recommended[RV_ADVICE_VALUE];
    char reason[RV_ADVICE_TEXT];
    char evidence[RV_ADVICE_TEXT];
} rv_advice;

/* Fills out (room for RV_ADVICE_MAX); returns how many. */
uint32_t rv_advise(const rv_index_facts *facts, rv_advice *out);

/* The number of lists for so many rows: rows / 1000 up to a million rows, their square root above.
 */
double rv_advised_lists(double rows);

#endif
