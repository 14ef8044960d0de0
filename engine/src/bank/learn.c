/*
 * learn.c - how the bank changes by itself: learning a pattern, consolidating, pruning.
 *
 * Patterns merge only with patterns of the same k and index epoch: a calibration says nothing about
 * another window or another build of the index. Distances are exact here at any size; this is the
 * background worker's time, and a merge into the wrong pattern would stay.
 */
#include "internal.h"

static bool
comparable(const rv_pattern *a, const rv_pattern *b)
{
    return a->k == b->k && a->index_epoch == b->index_epoch;
}

static float
pair_similarity(const rv_bank *bank, const rv_pattern *a, const rv_pattern *b, float raw)
{
    float radius = a->radius > b->radius ? a->radius : b->radius;
    return rv_bank_similarity(rv_bank_space(bank->metric), raw, radius);
}

static double
sample_share(const rv_pattern *a, const rv_pattern *b)
{
    double total = (double)a->samples + b->samples;
    return total > 0 ? b->samples / total : 0;
}

/* A new entry with a and b merged, id, scope, k and epoch those of a; NULL and *status on failure.
 */
static bank_entry *
merge_aside(const rv_bank *bank, const bank_entry *a, const rv_pattern *b, const float *b_centroid,
            double weight, rv_merge_fn merge, void *merge_ctx, rv_status *status, rv_error *err)
{
    bool region = a->pattern.scope == RV_PATTERN_REGION;
    bank_entry *merged = rv_bank_new_entry(bank, a->pattern.scope, err);
    rv_pattern *pattern;

    *status = RV_ERR_NOMEM;
    if (merged == NULL)
        return NULL;
    pattern = &merged->pattern;
    *status = (merge != NULL ? merge : rv_pattern_merge)(
        merge_ctx, &a->pattern, region ? a->centroid : NULL, b, b_centroid, bank->dim, weight,
        pattern, region ? merged->centroid : NULL, err);
    if (*status == RV_OK) {
        pattern->id = a->pattern.id;
        pattern->scope = a->pattern.scope;
        pattern->k = a->pattern.k;
        pattern->index_epoch = a->pattern.index_epoch;
        *status = rv_pattern_check(pattern, err);
    }
    if (*status == RV_OK && region)
        *status = rv_bank_check_vector(merged->centroid, bank->dim, "merged centroid", err);
    if (*status != RV_OK) {
        rv_free(bank->allocator, merged);
        return NULL;
    }
    for (uint32_t i = pattern->entry_count; i < RV_PATTERN_ENTRY_POINTS; i++)
        pattern->entry_points[i] = 0;
    return merged;
}

/* The nearest region that pattern may merge into; bank->count when there is none. */
static uint32_t
find_merge_partner(rv_bank *bank, const rv_pattern *pattern, const float *centroid,
                   double similarity)
{
    uint32_t best = bank->count;

    rv_bank_scan(bank, centroid);
    for (uint32_t i = 0; i < bank->count; i++) {
        const rv_pattern *other = &bank->regions[i]->pattern;

        if (comparable(pattern, other) &&
            pair_similarity(bank, pattern, other, bank->scratch[i]) >= similarity &&
            (best == bank->count || bank->scratch[i] < bank->scratch[best]))
            best = i;
    }
    return best;
}

rv_status
rv_bank_learn(rv_bank *bank, const rv_pattern *pattern, const float *centroid, double learning_rate,
              double similarity, rv_merge_fn merge, void *merge_ctx, uint64_t *id, rv_error *err)
{
    bank_entry *old = bank->index, *merged;
    uint32_t partner = 0;
    double weight;
    rv_status status = rv_pattern_check(pattern, err);

    if (status != RV_OK)
        return status;
    if (!(learning_rate >= 0 && learning_rate <= 1) || !(similarity >= 0 && similarity <= 1))
        return rv_fail(err, RV_ERR_RANGE,
                       "bank: learning_rate is %g and similarity %g; both must be 0 to 1",
                       learning_rate, similarity);
    if (pattern->scope == RV_PATTERN_REGION && centroid != NULL) {
        status = rv_bank_check_vector(centroid, bank->dim, "centroid", err);
        if (status != RV_OK)
            return status;
        partner = find_merge_partner(bank, pattern, centroid, similarity);
        old = partner < bank->count ? bank->regions[partner] : NULL;
    }
    if (old == NULL || old->pattern.scope != pattern->scope ||
        (centroid == NULL) != (pattern->scope == RV_PATTERN_INDEX) ||
        !comparable(&old->pattern, pattern))
        return rv_bank_put(bank, pattern, centroid, id, err);

    weight = sample_share(&old->pattern, pattern);
    if (learning_rate > weight)
        weight = learning_rate;
    merged = merge_aside(bank, old, pattern, centroid, weight, merge, merge_ctx, &status, err);
    if (merged == NULL)
        return status;
    if (id != NULL)
        *id = merged->pattern.id;
    if (old == bank->index) {
        rv_free(bank->allocator, bank->index);
        bank->index = merged;
    } else {
        rv_bank_replace_region(bank, partner, merged);
    }
    return RV_OK;
}

/* ---- consolidation -------------------------------------------------------------------------- */

/* The region most like regions[i] and at least similarity alike; bank->count when there is none. */
static uint32_t
most_alike(rv_bank *bank, uint32_t i, double similarity)
{
    const rv_pattern *pattern = &bank->regions[i]->pattern;
    uint32_t best = bank->count;
    float highest = 0;

    rv_bank_scan(bank, bank->rows[i]);
    for (uint32_t j = 0; j < bank->count; j++) {
        const rv_pattern *other = &bank->regions[j]->pattern;
        float alike;

        if (j == i || !comparable(pattern, other))
            continue;
        alike = pair_similarity(bank, pattern, other, bank->scratch[j]);
        if (alike >= similarity && (best == bank->count || alike > highest)) {
            best = j;
            highest = alike;
        }
    }
    return best;
}

static bool
is_older(const rv_pattern *a, const rv_pattern *b)
{
    return a->created_us != b->created_us ? a->created_us < b->created_us : a->id < b->id;
}

/* Merges regions i and j; *at is where the result now is. */
static rv_status
merge_regions(rv_bank *bank, uint32_t i, uint32_t j, rv_merge_fn merge, void *merge_ctx,
              uint32_t *at, rv_error *err)
{
    bool i_first = is_older(&bank->regions[i]->pattern, &bank->regions[j]->pattern);
    uint32_t older = i_first ? i : j, newer = i_first ? j : i;
    const bank_entry *a = bank->regions[older], *b = bank->regions[newer];
    bool counted = a->pattern.samples > 0 || b->pattern.samples > 0;
    double weight = counted ? sample_share(&a->pattern, &b->pattern) : 0.5;
    rv_status status;
    bank_entry *merged =
        merge_aside(bank, a, &b->pattern, b->centroid, weight, merge, merge_ctx, &status, err);

    if (merged == NULL)
        return status;
    merged->marked = true;
    rv_bank_replace_region(bank, older, merged);
    rv_bank_drop_region(bank, newer);
    *at = older - (newer < older);
    return RV_OK;
}

rv_status
rv_bank_consolidate(rv_bank *bank, double similarity, rv_merge_fn merge, void *merge_ctx,
                    uint32_t *merged, rv_error *err)
{
    *merged = 0;
    if (!(similarity >= 0 && similarity <= 1))
        return rv_fail(err, RV_ERR_RANGE, "bank: similarity is %g; must be 0 to 1", similarity);

    /* A region is marked until nobody is alike enough to it. A merged one has moved, so it is
     * compared with all again, the ones before it included; every merge leaves one region less, so
     * this ends. */
    for (uint32_t i = 0; i < bank->count; i++)
        bank->regions[i]->marked = true;
    for (uint32_t i = 0; i < bank->count;) {
        uint32_t other, at = i;
        rv_status status;

        if (!bank->regions[i]->marked) {
            i++;
            continue;
        }
        other = most_alike(bank, i, similarity);
        if (other == bank->count) {
            bank->regions[i]->marked = false;
            continue;
        }
        status = merge_regions(bank, i, other, merge, merge_ctx, &at, err);
        if (status != RV_OK)
            return status;
        *merged += 1;
        i = at < i ? at : i; /* all before the merged one are settled */
    }
    return RV_OK;
}

rv_status
rv_bank_prune(rv_bank *bank, rv_keep_fn keep, void *ctx, uint32_t *pruned, rv_error *err)
{
    (void)err;
    *pruned = 0;
    for (uint32_t i = 0; i < bank->count; i++)
        bank->regions[i]->marked = !keep(ctx, &bank->regions[i]->pattern);
    for (uint32_t i = bank->count; i-- > 0;)
        if (bank->regions[i]->marked) {
            rv_bank_drop_region(bank, i);
            *pruned += 1;
        }
    return RV_OK;
}
