/*
 * opclass.h - what the operator classes and indexed columns of both access methods have in
 * common.
 */
#ifndef RUVECTOR_OPCLASS_H
#define RUVECTOR_OPCLASS_H

#include "ruvector.h"

#include "utils/rel.h"

/* Number of the support function ..._metric_*(internal), which returns int4, the rv_metric code. */
#define RUV_METRIC_PROC 1

/* amvalidate: true when the operator class can be used, else INFO says what is wrong. */
extern bool ruv_validate_opclass(Oid opclass);

/* The metric of an index's operator class. */
extern rv_metric ruv_index_metric(Relation index);

/* The dimensions that the index's column is declared with; none are an error. */
extern int ruv_column_dimensions(Relation index);

/* A random number for a new index, never 0. */
extern uint64 ruv_draw_epoch(void);

/* A value as an index compares it: dim floats into out (any memory), of unit length under cosine;
 * false when the value is not indexed. A wrong dimension is an error. */
extern bool ruv_index_vector(rv_metric metric, int dim, const RuVector *value, float *out);

#endif
