/*
 * opclass.h - what the operator classes of both access methods have in common.
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

#endif
