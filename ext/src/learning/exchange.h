/*
 * exchange.h - the document of ruvector_export_patterns() and ruvector_import_patterns(), read.
 * sql_exchange.c shows its form.
 */
#ifndef RUVECTOR_LEARNING_EXCHANGE_H
#define RUVECTOR_LEARNING_EXCHANGE_H

#include "ruvector.h"
#include "utils/jsonb.h"

#define RUV_EXCHANGE_FORMAT "ruvector-patterns"
#define RUV_EXCHANGE_VERSION 1

typedef struct RuvExchangeEntry {
    char *index_name;
    char *method; /* "ruhnsw" or "ruivfflat" */
    char *memory; /* NULL: calibrated without remembered queries */
    rv_bank *bank;
} RuvExchangeEntry;

typedef struct RuvExchange {
    RuvExchangeEntry *entries;
    int count;
} RuvExchange;

/* Reads a document into the current memory context. Everything is checked; raises an error that
 * begins with the path of what is wrong. */
extern void ruv_exchange_read(Jsonb *document, RuvExchange *out);

#endif
