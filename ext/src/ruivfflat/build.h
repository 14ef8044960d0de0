/*
 * build.h - what the phases of a build share: build.c samples and clusters, build_assign.c sorts
 * the rows by list, build_write.c writes the pages.
 */
#ifndef RUIVF_BUILD_H
#define RUIVF_BUILD_H

#include "ruivfflat/ruivfflat.h"

#include "utils/tuplesort.h"

typedef struct RuivfBuild {
    Relation heap;
    Relation index;
    IndexInfo *info;
    RuivfMetaData meta;
    RuivfLayout layout;
    float *centres;     /* meta.lists x dim */
    double heap_tuples; /* seen in the table */
    double rows;        /* to be indexed */
} RuivfBuild;

/* ---- build_assign.c ---- */

/* The rows, sorted by list and then by place in the table. */
typedef struct RuivfSorted RuivfSorted;

/* Reads the table, with parallel workers where the planner would have some. Sets heap_tuples, rows
 * and meta.max_norm. */
extern RuivfSorted *ruivf_assign_rows(RuivfBuild *build);
/* The next row; vector has room for dim floats. False at the end. */
extern bool ruivf_next_sorted(RuivfSorted *sorted, uint32 *list, ItemPointer tid, float *vector);
extern void ruivf_end_sorted(RuivfSorted *sorted);

/* ---- build_write.c ---- */

/* Writes the whole index without WAL, into an empty fork. sorted NULL: no rows. */
extern void ruivf_write_index(RuivfBuild *build, ForkNumber fork, RuivfSorted *sorted);

#endif
