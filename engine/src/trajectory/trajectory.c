/*
 * trajectory.c - packs a search into a ring record and looks at one again.
 *
 * The record is the header struct itself, the query and the hits, each part starting at a multiple
 * of 8 bytes, so that a reader can look at them in place. Pushing gathers the three parts straight
 * from where the search left them: no copy and no allocation on the query's path.
 */
#include "ruvector/trajectory.h"
#include "../base/internal.h"

#include <assert.h>

static_assert(sizeof(rv_trajectory) == 104, "the packed header has no padding");
static_assert(sizeof(rv_hit) == 24, "the packed hit has no padding");
static_assert(sizeof(float) == 4, "vectors are IEEE single precision");

static size_t
query_bytes(uint32_t dim)
{
    return ((size_t)dim * sizeof(float) + 7) / 8 * 8;
}

static bool
counts_allowed(uint32_t dim, uint32_t result_count)
{
    return dim >= 1 && dim <= RV_MAX_DIMENSIONS && result_count <= RV_TRAJECTORY_MAX_HITS;
}

size_t
rv_trajectory_size(uint32_t dim, uint32_t result_count)
{
    if (!counts_allowed(dim, result_count))
        return 0;
    return sizeof(rv_trajectory) + query_bytes(dim) + result_count * sizeof(rv_hit);
}

bool
rv_trajectory_push(rv_ring *ring, const rv_trajectory *head, const float *query, const rv_hit *hits)
{
    static const float padding = 0;
    size_t vector = (size_t)head->dim * sizeof(float);
    rv_span spans[4] = {
        {head, sizeof(*head)},
        {query, vector},
        {&padding, query_bytes(head->dim) - vector},
        {hits, head->result_count * sizeof(rv_hit)},
    };

    if (!counts_allowed(head->dim, head->result_count))
        return false;
    return rv_ring_push(ring, spans, 4);
}

rv_status
rv_trajectory_view(const void *record, size_t size, const rv_trajectory **head, const float **query,
                   const rv_hit **hits, rv_error *err)
{
    const rv_trajectory *trajectory = record;
    const char *parts;

    if (record == NULL || head == NULL || (uintptr_t)record % 8 != 0)
        return rv_fail(err, RV_ERR_INVALID,
                       "trajectory: the record must be given and aligned to 8 bytes");
    if (size < sizeof(*trajectory))
        return rv_fail(err, RV_ERR_FORMAT, "trajectory: %zu bytes; the header alone has %zu", size,
                       sizeof(*trajectory));
    if (!counts_allowed(trajectory->dim, trajectory->result_count))
        return rv_fail(err, RV_ERR_FORMAT,
                       "trajectory: dim %u and result_count %u; must be 1 to %d and at most %d",
                       trajectory->dim, trajectory->result_count, RV_MAX_DIMENSIONS,
                       RV_TRAJECTORY_MAX_HITS);
    if (size != rv_trajectory_size(trajectory->dim, trajectory->result_count))
        return rv_fail(err, RV_ERR_FORMAT,
                       "trajectory: %zu bytes; dim %u with result_count %u takes %zu", size,
                       trajectory->dim, trajectory->result_count,
                       rv_trajectory_size(trajectory->dim, trajectory->result_count));

    parts = (const char *)record + sizeof(*trajectory);
    *head = trajectory;
    if (query != NULL)
        *query = (const float *)(const void *)parts;
    if (hits != NULL)
        *hits = (const rv_hit *)(const void *)(parts + query_bytes(trajectory->dim));
    return RV_OK;
}
