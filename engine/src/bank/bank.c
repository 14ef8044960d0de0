/*
 * bank.c - the store: patterns by id, at most one index-wide, at most max_patterns in all.
 */
#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

rv_status
rv_bank_create(const rv_allocator *allocator, rv_metric metric, uint32_t dim, uint32_t max_patterns,
               rv_bank **out, rv_error *err)
{
    rv_bank *bank;

    if (metric < RV_METRIC_L2 || metric > RV_METRIC_L1)
        return rv_fail(err, RV_ERR_INVALID, "bank: there is no metric %d", (int)metric);
    if (dim < 1 || dim > RV_MAX_DIMENSIONS)
        return rv_fail(err, RV_ERR_DIMENSION, "bank: %u dimensions; must be 1 to %d", dim,
                       RV_MAX_DIMENSIONS);
    if (max_patterns < 1 || max_patterns > RV_BANK_MAX_PATTERNS)
        return rv_fail(err, RV_ERR_RANGE, "bank: max_patterns is %u; must be 1 to %d", max_patterns,
                       RV_BANK_MAX_PATTERNS);
    bank = rv_alloc_zero(allocator, sizeof(*bank));
    if (bank == NULL)
        return rv_fail_nomem(err, sizeof(*bank));
    bank->allocator = allocator;
    bank->metric = metric;
    bank->dim = dim;
    bank->max_patterns = max_patterns;
    *out = bank;
    return RV_OK;
}

void
rv_bank_destroy(rv_bank *bank)
{
    if (bank == NULL)
        return;
    rv_bank_drop_graph(bank);
    for (uint32_t i = 0; i < bank->count; i++)
        rv_free(bank->allocator, bank->regions[i]);
    rv_free(bank->allocator, bank->index);
    rv_free(bank->allocator, bank->regions);
    rv_free(bank->allocator, bank->rows);
    rv_free(bank->allocator, bank->scratch);
    rv_free(bank->allocator, bank);
}

uint32_t
rv_bank_count(const rv_bank *bank)
{
    return bank->count + (bank->index != NULL);
}

uint32_t
rv_bank_dim(const rv_bank *bank)
{
    return bank->dim;
}

rv_metric
rv_bank_metric(const rv_bank *bank)
{
    return bank->metric;
}

const rv_pattern *
rv_bank_get(const rv_bank *bank, uint32_t i, const float **centroid)
{
    const rv_pattern *pattern = NULL;
    const float *row = NULL;

    if (bank->index != NULL && i == 0) {
        pattern = &bank->index->pattern;
    } else {
        i -= bank->index != NULL;
        if (i < bank->count) {
            pattern = &bank->regions[i]->pattern;
            row = bank->regions[i]->centroid;
        }
    }
    if (centroid != NULL)
        *centroid = row;
    return pattern;
}

const rv_pattern *
rv_bank_index_pattern(const rv_bank *bank)
{
    return bank->index != NULL ? &bank->index->pattern : NULL;
}

rv_status
rv_bank_check_vector(const float *vector, uint32_t dim, const char *what, rv_error *err)
{
    for (uint32_t i = 0; i < dim; i++)
        if (!isfinite(vector[i]))
            return rv_fail(err, RV_ERR_RANGE, "%s[%u] is %g; must be finite", what, i, vector[i]);
    return RV_OK;
}

/* The position of id among the regions, or where it belongs; *found tells which. */
static uint32_t
find_region(const rv_bank *bank, uint64_t id, bool *found)
{
    uint32_t low = 0, high = bank->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (bank->regions[middle]->pattern.id < id)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < bank->count && bank->regions[low]->pattern.id == id;
    return low;
}

/* Makes room for one more region; the bank is unchanged on failure. */
static rv_status
reserve_region(rv_bank *bank, rv_error *err)
{
    uint32_t capacity = bank->capacity > 0 ? bank->capacity * 2 : 16;
    bank_entry **regions;
    const float **rows;
    float *scratch;

    if (bank->count < bank->capacity)
        return RV_OK;
    regions = rv_alloc_array(bank->allocator, capacity, sizeof(*regions));
    rows = rv_alloc_array(bank->allocator, capacity, sizeof(*rows));
    scratch = rv_alloc_array(bank->allocator, capacity, sizeof(*scratch));
    if (regions == NULL || rows == NULL || scratch == NULL) {
        rv_free(bank->allocator, regions);
        rv_free(bank->allocator, rows);
        rv_free(bank->allocator, scratch);
        return rv_fail_nomem(err, capacity * sizeof(*regions));
    }
    if (bank->count > 0) {
        memcpy(regions, bank->regions, bank->count * sizeof(*regions));
        memcpy(rows, bank->rows, bank->count * sizeof(*rows));
    }
    rv_free(bank->allocator, bank->regions);
    rv_free(bank->allocator, bank->rows);
    rv_free(bank->allocator, bank->scratch);
    bank->regions = regions;
    bank->rows = rows;
    bank->scratch = scratch;
    bank->capacity = capacity;
    return RV_OK;
}

bank_entry *
rv_bank_new_entry(const rv_bank *bank, uint32_t scope, rv_error *err)
{
    size_t size = sizeof(bank_entry);
    bank_entry *entry;

    if (scope == RV_PATTERN_REGION)
        size += bank->dim * sizeof(float);
    entry = rv_alloc(bank->allocator, size);
    if (entry == NULL)
        rv_fail_nomem(err, size);
    else
        entry->marked = false;
    return entry;
}

void
rv_bank_replace_region(rv_bank *bank, uint32_t i, bank_entry *entry)
{
    rv_bank_drop_graph(bank);
    rv_free(bank->allocator, bank->regions[i]);
    bank->regions[i] = entry;
    bank->rows[i] = entry->centroid;
}

void
rv_bank_drop_region(rv_bank *bank, uint32_t i)
{
    uint32_t after = bank->count - i - 1;

    rv_bank_drop_graph(bank);
    rv_free(bank->allocator, bank->regions[i]);
    memmove(&bank->regions[i], &bank->regions[i + 1], after * sizeof(*bank->regions));
    memmove(&bank->rows[i], &bank->rows[i + 1], after * sizeof(*bank->rows));
    bank->count--;
}

/* Room for it was reserved. */
static void
insert_region(rv_bank *bank, uint32_t i, bank_entry *entry)
{
    uint32_t after = bank->count - i;

    rv_bank_drop_graph(bank);
    memmove(&bank->regions[i + 1], &bank->regions[i], after * sizeof(*bank->regions));
    memmove(&bank->rows[i + 1], &bank->rows[i], after * sizeof(*bank->rows));
    bank->regions[i] = entry;
    bank->rows[i] = entry->centroid;
    bank->count++;
}

static void
drop_index_pattern(rv_bank *bank)
{
    rv_free(bank->allocator, bank->index);
    bank->index = NULL;
}

static rv_status
check_put(const rv_bank *bank, const rv_pattern *pattern, const float *centroid, rv_error *err)
{
    rv_status status = rv_pattern_check(pattern, err);

    if (status != RV_OK)
        return status;
    if (pattern->scope == RV_PATTERN_INDEX && centroid != NULL)
        return rv_fail(err, RV_ERR_INVALID, "bank: an index-wide pattern has no centroid");
    if (pattern->scope == RV_PATTERN_REGION && centroid == NULL)
        return rv_fail(err, RV_ERR_INVALID, "bank: a region pattern needs its centroid");
    if (pattern->id == 0 && bank->last_id == UINT64_MAX)
        return rv_fail(err, RV_ERR_FULL, "bank: no pattern id is left after %llu",
                       (unsigned long long)bank->last_id);
    if (centroid != NULL)
        return rv_bank_check_vector(centroid, bank->dim, "centroid", err);
    return RV_OK;
}

rv_status
rv_bank_put(rv_bank *bank, const rv_pattern *pattern, const float *centroid, uint64_t *id,
            rv_error *err)
{
    bool region = pattern->scope == RV_PATTERN_REGION;
    bool taken, index_goes;
    uint64_t new_id;
    uint32_t at, remaining;
    bank_entry *entry;
    rv_status status = check_put(bank, pattern, centroid, err);

    if (status != RV_OK)
        return status;
    new_id = pattern->id != 0 ? pattern->id : bank->last_id + 1;
    at = find_region(bank, new_id, &taken);
    index_goes = bank->index != NULL && (!region || bank->index->pattern.id == new_id);
    remaining = rv_bank_count(bank) - taken - index_goes;
    if (remaining >= bank->max_patterns)
        return rv_fail(err, RV_ERR_FULL,
                       "bank: it holds its limit of %u patterns; prune or consolidate it, or raise "
                       "the limit",
                       bank->max_patterns);

    entry = rv_bank_new_entry(bank, pattern->scope, err);
    if (entry == NULL)
        return RV_ERR_NOMEM;
    if (region && !taken && (status = reserve_region(bank, err)) != RV_OK) {
        rv_free(bank->allocator, entry);
        return status;
    }
    entry->pattern = *pattern;
    entry->pattern.id = new_id;
    for (uint32_t i = pattern->entry_count; i < RV_PATTERN_ENTRY_POINTS; i++)
        entry->pattern.entry_points[i] = 0;
    if (region)
        memcpy(entry->centroid, centroid, bank->dim * sizeof(float));

    /* Nothing can fail from here on. */
    if (index_goes)
        drop_index_pattern(bank);
    if (region && taken)
        rv_bank_replace_region(bank, at, entry);
    else if (region)
        insert_region(bank, at, entry);
    else {
        if (taken)
            rv_bank_drop_region(bank, at);
        bank->index = entry;
    }
    if (new_id > bank->last_id)
        bank->last_id = new_id;
    if (id != NULL)
        *id = new_id;
    return RV_OK;
}

static int
by_usage(const void *a, const void *b)
{
    const bank_entry *x = *(const bank_entry *const *)a, *y = *(const bank_entry *const *)b;

    if (x->pattern.usage != y->pattern.usage)
        return x->pattern.usage > y->pattern.usage ? -1 : 1;
    if (x->pattern.updated_us != y->pattern.updated_us)
        return x->pattern.updated_us > y->pattern.updated_us ? -1 : 1;
    return x->pattern.id < y->pattern.id ? -1 : 1;
}

static rv_status
put_most_used(const rv_bank *bank, uint32_t regions, rv_bank *out, rv_error *err)
{
    uint32_t wanted = regions < bank->count ? regions : bank->count;
    bank_entry **order;
    rv_status status = RV_OK;

    if (bank->index != NULL)
        status = rv_bank_put(out, &bank->index->pattern, NULL, NULL, err);
    if (status != RV_OK || wanted == 0)
        return status;
    order = rv_alloc_array(out->allocator, bank->count, sizeof(*order));
    if (order == NULL)
        return rv_fail_nomem(err, bank->count * sizeof(*order));
    memcpy(order, bank->regions, bank->count * sizeof(*order));
    qsort(order, bank->count, sizeof(*order), by_usage);
    for (uint32_t i = 0; status == RV_OK && i < wanted; i++)
        status = rv_bank_put(out, &order[i]->pattern, order[i]->centroid, NULL, err);
    rv_free(out->allocator, order);
    return status;
}

rv_status
rv_bank_most_used(const rv_bank *bank, const rv_allocator *allocator, uint32_t regions,
                  rv_bank **out, rv_error *err)
{
    rv_bank *reduced;
    rv_status status =
        rv_bank_create(allocator, bank->metric, bank->dim, bank->max_patterns, &reduced, err);

    if (status != RV_OK)
        return status;
    status = put_most_used(bank, regions, reduced, err);
    if (status != RV_OK) {
        rv_bank_destroy(reduced);
        return status;
    }
    reduced->last_id = bank->last_id;
    *out = reduced;
    return RV_OK;
}

rv_status
rv_bank_remove(rv_bank *bank, uint64_t id, rv_error *err)
{
    bool found;
    uint32_t at = find_region(bank, id, &found);

    if (found)
        rv_bank_drop_region(bank, at);
    else if (bank->index != NULL && bank->index->pattern.id == id)
        drop_index_pattern(bank);
    else
        return rv_fail(err, RV_ERR_NOTFOUND, "bank: there is no pattern %llu",
                       (unsigned long long)id);
    return RV_OK;
}
