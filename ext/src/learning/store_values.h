/*
 * store_values.h - arrays and vectors as the learning tables hold them, and back. Everything is
 * allocated in the current memory context. What reads an array expects one without nulls, and gives
 * how many elements there are.
 */
#ifndef RUV_STORE_VALUES_H
#define RUV_STORE_VALUES_H

#include "postgres.h"

extern Datum ruv_float_array(const float *values, int count); /* real[] */
/* int[], -1 where a neighbour was out of reach (UINT32_MAX). */
extern Datum ruv_effort_array(const uint32 *values, int count);
extern Datum ruv_node_array(const uint64 *values, int count); /* bigint[] */
extern Datum *ruv_float_items(Datum value, int *count);
extern Datum *ruv_int_items(Datum value, int *count);
extern Datum *ruv_node_items(Datum value, int *count);
extern Datum ruv_vector_datum(const float *values, int dim); /* dim elements; ruvector */

#endif
