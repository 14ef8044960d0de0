/*
 * json.h - the JSON form of a bank, version 1, as the writer and the reader share it.
 *
 *   {"format": "ruvector-bank", "version": 1, "metric": "cosine", "dimensions": 128,
 *    "max_patterns": 1000, "targets": [0.5, ... 0.999],
 *    "patterns": [{"id": "7", "scope": "region", ..., "centroid": [0.25, ...]}, ...]}
 *
 * A pattern has exactly the fields of rv_json_fields, an index-wide one no centroid. 64-bit
 * integers are strings, since JSON readers keep 53 bits; floats have 9 significant digits, which is
 * enough to get every float32 back. targets repeats the grid that the tables are made for, so that
 * a reader with another grid notices.
 */
#ifndef RUVECTOR_BANK_JSON_H
#define RUVECTOR_BANK_JSON_H

#include "internal.h"

#define JSON_FORMAT "ruvector-bank"

typedef enum json_kind {
    JSON_UINT64, /* a string of digits */
    JSON_INT64,  /* the same, maybe with a minus */
    JSON_SCOPE,  /* "index" or "region" */
    JSON_UINT32,
    JSON_FLOAT,
    JSON_FLOATS, /* RV_TARGETS of them */
    JSON_UINTS,  /* RV_TARGETS of them */
    JSON_POINTS, /* entry points: up to RV_PATTERN_ENTRY_POINTS strings of digits */
    JSON_CENTROID
} json_kind;

typedef struct json_field {
    const char *name;
    json_kind kind;
    size_t offset; /* in rv_pattern */
} json_field;

#define JSON_PATTERN_FIELDS 21
#define JSON_CENTROID_FIELD (JSON_PATTERN_FIELDS - 1) /* the last */

extern const json_field rv_json_fields[JSON_PATTERN_FIELDS];

/*
 * Whether text is JSON at all, by RFC 8259 and within the limits of bank.h, with the place and the
 * reason if not. Stricter than the standard: no \u0000 and no surrogate escapes, numbers of at most
 * 60 characters. What passes is safe for a recursive parser that allocates per value.
 */
rv_status rv_json_scan(const char *text, size_t size, rv_error *err);

#endif
