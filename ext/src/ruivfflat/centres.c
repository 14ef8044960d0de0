/*
 * centres.c - the centres of an index, kept by a session.
 *
 * Every search and every insert compares its vector with all centres. They never change after the
 * build, so a session reads them once into one piece of memory, the relation's rd_amcache: it
 * vanishes with a relcache invalidation, and is read again when the epoch on the meta page is
 * another one. Centres that would take more than work_mem are read from their pages every time.
 *
 * Beside the first block of each list there is the one that took the session's last row: the next
 * one most likely fits there too (insert.c).
 *
 * An invalidation message frees the memory, so no pointer to it leaves this file.
 */
#include "ruivfflat/ruivfflat.h"

#include <math.h>

#include "miscadmin.h"

typedef struct RuivfCentres {
    uint64 epoch; /* of the build; 0: not read to the end */
    uint32 lists;
    BlockNumber *first_blocks;  /* of the lists */
    BlockNumber *recent_blocks; /* of the session's last row of each; InvalidBlockNumber: none */
    float *vectors;             /* lists x dim */
} RuivfCentres;

static Size
centres_bytes(const RuivfMetaData *meta)
{
    return MAXALIGN(sizeof(RuivfCentres)) + 2 * MAXALIGN(sizeof(BlockNumber) * meta->lists) +
           sizeof(float) * meta->lists * (Size)meta->dim;
}

static RuivfCentres *
allocate(Relation index, const RuivfMetaData *meta)
{
    char *place = MemoryContextAllocHuge(index->rd_indexcxt, centres_bytes(meta));
    RuivfCentres *centres = (RuivfCentres *)place;

    centres->epoch = 0;
    centres->lists = meta->lists;
    place += MAXALIGN(sizeof(RuivfCentres));
    centres->first_blocks = (BlockNumber *)place;
    place += MAXALIGN(sizeof(BlockNumber) * meta->lists);
    centres->recent_blocks = (BlockNumber *)place;
    place += MAXALIGN(sizeof(BlockNumber) * meta->lists);
    centres->vectors = (float *)place;
    return centres;
}

static void
read_all(RuivfCentres *centres, Relation index, const RuivfLayout *layout)
{
    BlockNumber block = RUIVF_FIRST_CENTRE_BLOCK;

    for (uint32 list = 0; list < centres->lists; block++) {
        Buffer buffer = ruivf_read_centres(index, block, layout, centres->lists);
        Page page = BufferGetPage(buffer);
        uint32 count = ((RuivfCentreHeader *)PageGetContents(page))->count;

        for (uint32 i = 0; i < count; i++, list++) {
            const RuivfCentre *centre = ruivf_centre_at(page, layout, (int)i);

            centres->first_blocks[list] = centre->first_block;
            centres->recent_blocks[list] = InvalidBlockNumber;
            memcpy(centres->vectors + (Size)list * layout->dim, centre->centre,
                   sizeof(float) * layout->dim);
        }
        ReleaseBuffer(buffer);
    }
}

/* The index's centres, read if they must be. NULL: they would take more than work_mem. */
static RuivfCentres *
get_centres(Relation index, const RuivfMetaData *meta, const RuivfLayout *layout)
{
    RuivfCentres *centres = index->rd_amcache;

    if (centres != NULL && centres->epoch == meta->epoch)
        return centres;
    if (centres_bytes(meta) > (Size)work_mem * 1024)
        return NULL;
    index->rd_amcache = NULL;
    if (centres != NULL)
        pfree(centres);
    /* Of no epoch until it is whole: an error on the way leaves it to the next call. */
    index->rd_amcache = centres = allocate(index, meta);
    read_all(centres, index, layout);
    centres->epoch = meta->epoch;
    return centres;
}

uint32
ruivf_list_distances(Relation index, const RuivfMetaData *meta, const RuivfLayout *layout,
                     const rv_ivf_scorer *scorer, float *distances, BlockNumber *first_blocks)
{
    const RuivfCentres *centres = get_centres(index, meta, layout);
    BlockNumber block = RUIVF_FIRST_CENTRE_BLOCK;

    if (centres != NULL) {
        rv_ivf_list_distances(scorer, centres->vectors, sizeof(float) * layout->dim, meta->lists,
                              distances);
        memcpy(first_blocks, centres->first_blocks, sizeof(BlockNumber) * meta->lists);
        return 0;
    }
    for (uint32 list = 0; list < meta->lists; block++) {
        Buffer buffer = ruivf_read_centres(index, block, layout, meta->lists);
        Page page = BufferGetPage(buffer);
        uint32 count = ((RuivfCentreHeader *)PageGetContents(page))->count;

        rv_ivf_list_distances(scorer, ruivf_centre_at(page, layout, 0)->centre, layout->centre_size,
                              count, distances + list);
        for (uint32 i = 0; i < count; i++)
            first_blocks[list + i] = ruivf_centre_at(page, layout, (int)i)->first_block;
        ReleaseBuffer(buffer);
        list += count;
    }
    return block - RUIVF_FIRST_CENTRE_BLOCK;
}

uint32
ruivf_find_list(Relation index, const RuivfMetaData *meta, const RuivfLayout *layout,
                const float *vector, BlockNumber *first_block, BlockNumber *recent_block)
{
    const RuivfCentres *centres = get_centres(index, meta, layout);
    BlockNumber block = RUIVF_FIRST_CENTRE_BLOCK;
    float distance = INFINITY;
    uint32 nearest = 0;

    if (centres != NULL) {
        rv_ivf_nearest((rv_metric)meta->metric, vector, layout->dim, centres->vectors,
                       sizeof(float) * layout->dim, meta->lists, 0, &nearest, &distance);
        *first_block = centres->first_blocks[nearest];
        *recent_block = centres->recent_blocks[nearest];
        return nearest;
    }
    *first_block = *recent_block = InvalidBlockNumber;
    for (uint32 list = 0; list < meta->lists; block++) {
        Buffer buffer = ruivf_read_centres(index, block, layout, meta->lists);
        Page page = BufferGetPage(buffer);
        uint32 count = ((RuivfCentreHeader *)PageGetContents(page))->count;
        float former = distance;

        rv_ivf_nearest((rv_metric)meta->metric, vector, layout->dim,
                       ruivf_centre_at(page, layout, 0)->centre, layout->centre_size, count, list,
                       &nearest, &distance);
        if (*first_block == InvalidBlockNumber || distance < former)
            *first_block = ruivf_centre_at(page, layout, (int)(nearest - list))->first_block;
        ReleaseBuffer(buffer);
        list += count;
    }
    return nearest;
}

void
ruivf_remember_block(Relation index, const RuivfMetaData *meta, uint32 list, BlockNumber block)
{
    RuivfCentres *centres = index->rd_amcache;

    if (centres != NULL && centres->epoch == meta->epoch)
        centres->recent_blocks[list] = block;
}
