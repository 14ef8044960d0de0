/*
 * search.c - lists in the order of their centres, rows in the order of their distances.
 *
 * pgvector's ivfflat forms a tuple of every scored row and sorts them all; half of its time goes
 * there. Here a scored row is 24 bytes: it is compared with the farthest of the front, and unless
 * it is nearer it is set aside unordered (order.h). A search whose LIMIT is below the size of the
 * front never looks at the pool again.
 *
 * Which lists to visit. Rows scored per query for a mean recall of 0.95 and 0.99 at 10 rows, each
 * rule calibrated for it on the same queries (d the distance of a centre, d1 of the nearest, dk of
 * the 10th row, h of the plane halfway between two centres):
 *                               sift-photos    wordnet        debian-packages
 *   so many lists               13.7k 27.4k    30.8k 74.7k    18.1k 39.1k
 *   d / dk (as for a graph)     20.0k 69.3k    72.8k 102k     27.1k 49.0k
 *   d / d1                      12.7k 25.2k    33.8k 57.3k    16.2k 28.7k
 *   h / dk                      11.7k 22.4k    30.8k 53.7k    12.9k 25.5k
 *   d^2 - d1^2                  10.7k 19.8k    28.7k 54.7k    13.1k 25.5k
 * The last one needs neither the rows found so far nor distances between centres.
 *
 * With codes a key is a lower bound. Rows are compared exactly in the order of their bounds, and
 * one is handed out as soon as no bound of those that wait is below its distance.
 */
#include "state.h"
#include "../base/internal.h"

#include <math.h>

/* Rows kept in order in a static search: LIMITs are mostly below it, and keeping it is cheap. */
#define STATIC_FRONT 64
#define MAX_WINDOW (1u << 30)
#define PREFERENCE 0.5f

rv_status
rv_ivf_create(const rv_allocator *allocator, const rv_ivf_source *source, rv_ivf **out,
              rv_error *err)
{
    rv_ivf *ivf = rv_alloc_zero(allocator, sizeof(*ivf));

    if (ivf == NULL)
        return rv_fail_nomem(err, sizeof(*ivf));
    ivf->allocator = allocator;
    ivf->source = *source;
    *out = ivf;
    return RV_OK;
}

void
rv_ivf_destroy(rv_ivf *ivf)
{
    if (ivf == NULL)
        return;
    rv_free(ivf->allocator, ivf->lists);
    rv_free(ivf->allocator, ivf->front.items);
    rv_free(ivf->allocator, ivf->pool.items);
    rv_free(ivf->allocator, ivf->ready.items);
    rv_free(ivf->allocator, ivf->suspects.items);
    rv_free(ivf->allocator, ivf);
}

static rv_status
check_rule(const rv_ivf_rule *rule, rv_error *err)
{
    if (!rule->adaptive && rule->probes < 1)
        return rv_fail(err, RV_ERR_RANGE, "probes is 0: at least one list must be visited");
    if (rule->adaptive && (rule->window < 1 || rule->window > MAX_WINDOW))
        return rv_fail(err, RV_ERR_RANGE, "window is %u: 1 to %u is allowed", rule->window,
                       MAX_WINDOW);
    if (rule->adaptive && !(rule->slack >= 0.0f))
        return rv_fail(err, RV_ERR_RANGE, "slack is %g: it must not be negative",
                       (double)rule->slack);
    return RV_OK;
}

static rv_status
reserve_lists(rv_ivf *ivf, uint32_t lists, rv_error *err)
{
    rv_ivf_list *items;

    if (lists <= ivf->list_capacity)
        return RV_OK;
    items = rv_alloc_array(ivf->allocator, lists, sizeof(*items));
    if (items == NULL)
        return rv_fail_nomem(err, lists * sizeof(*items));
    rv_free(ivf->allocator, ivf->lists);
    ivf->lists = items;
    ivf->list_capacity = lists;
    return RV_OK;
}

/* What turns a difference of list distances into an excess. */
static double
excess_scale(const rv_ivf_scorer *scorer, float spread)
{
    double unit = (double)spread;

    /* Distances of centres are those of rows of the greatest length; the spread is of directions.
     */
    if (scorer->metric == RV_METRIC_IP)
        unit *= (double)scorer->max_norm * (double)scorer->query_norm;
    return unit > 0.0 && isfinite(1.0 / unit) ? 1.0 / unit : 1.0;
}

/* The lists as a heap, by their excess. */
static void
order_lists(rv_ivf *ivf, double scale, const float *distances, uint32_t lists)
{
    double least = INFINITY;

    for (uint32_t i = 0; i < lists; i++)
        least = (double)distances[i] < least ? (double)distances[i] : least;
    for (uint32_t i = 0; i < lists; i++) {
        double excess = ((double)distances[i] - least) * scale;

        ivf->lists[i].excess = isnan(excess) ? INFINITY : (float)excess;
        ivf->lists[i].list = i;
    }
    ivf->list_count = lists;
    rv_ivf_lists_make(ivf->lists, lists);
}

rv_status
rv_ivf_start(rv_ivf *ivf, const rv_ivf_rule *rule, const rv_ivf_scorer *scorer, float spread,
             const float *distances, uint32_t lists, rv_error *err)
{
    rv_status status = check_rule(rule, err);

    if (status == RV_OK)
        status = reserve_lists(ivf, lists, err);
    if (status != RV_OK)
        return status;
    ivf->rule = *rule;
    order_lists(ivf, excess_scale(scorer, spread), distances, lists);
    ivf->front.count = ivf->pool.count = ivf->ready.count = ivf->suspects.count = 0;
    ivf->front_at = 0;
    ivf->open = false;
    ivf->window = rule->window;
    ivf->slack = rule->slack;
    ivf->handed = 0;
    ivf->tracing = false;
    ivf->stats = (rv_beam_stats){.distances = lists, .score = -1.0f};
    ivf->rows = 0;
    return RV_OK;
}

void
rv_ivf_prefer(rv_ivf *ivf, const uint32_t *lists, uint32_t count)
{
    for (size_t i = 0; i < ivf->list_count; i++) {
        bool preferred = false;

        for (uint32_t j = 0; j < count && !preferred; j++)
            preferred = lists[j] == ivf->lists[i].list;
        if (preferred)
            ivf->lists[i].excess *= PREFERENCE;
    }
    rv_ivf_lists_make(ivf->lists, ivf->list_count);
}

rv_status
rv_ivf_set_rule(rv_ivf *ivf, const rv_ivf_rule *rule, rv_error *err)
{
    rv_status status = check_rule(rule, err);

    if (status != RV_OK)
        return status;
    if (rule->adaptive != ivf->rule.adaptive)
        return rv_fail(err, RV_ERR_STATE, "a search cannot change between static and adaptive");
    ivf->rule = *rule;
    return RV_OK;
}

rv_beam_stats
rv_ivf_get_stats(const rv_ivf *ivf)
{
    return ivf->stats;
}

uint64_t
rv_ivf_rows(const rv_ivf *ivf)
{
    return ivf->rows;
}

/* ---- scoring ---- */

rv_status
rv_ivf_push(rv_ivf *ivf, const rv_ivf_candidate *candidates, uint32_t count, rv_error *err)
{
    rv_status status = rv_ivf_array_reserve(ivf->allocator, &ivf->pool, count, err);

    if (status == RV_OK && ivf->tracing)
        status = rv_ivf_array_reserve(ivf->allocator, &ivf->suspects, count, err);
    if (status != RV_OK)
        return status;
    for (uint32_t i = 0; i < count; i++) {
        rv_ivf_candidate item = candidates[i];

        if (isnan(item.key))
            item.key = INFINITY;
        if (ivf->tracing && item.key <= ivf->bound)
            ivf->suspects.items[ivf->suspects.count++] = item;
        if (ivf->front.count < ivf->front_limit) {
            rv_ivf_heap_push(&ivf->front, item);
        } else if (rv_ivf_before(&item, &ivf->front.items[0])) {
            ivf->pool.items[ivf->pool.count++] = ivf->front.items[0];
            rv_ivf_heap_replace_top(&ivf->front, item);
        } else {
            ivf->pool.items[ivf->pool.count++] = item;
        }
    }
    return RV_OK;
}

rv_status
rv_ivf_visit_list(rv_ivf *ivf, rv_error *err)
{
    rv_ivf_list next = rv_ivf_lists_pop(ivf->lists, &ivf->list_count);
    uint64_t scored = 0;
    rv_status status = ivf->source.scan(ivf->source.ctx, next.list, ivf, &scored, err);

    ivf->stats.distances += scored;
    ivf->rows += scored;
    ivf->stats.hops++;
    return status;
}

/* ---- windows ---- */

static bool
anything_waits(const rv_ivf *ivf)
{
    return ivf->front.count > 0 || ivf->pool.count > 0;
}

/* Moves the nearest front_limit rows of the pool to the empty front, as a heap. */
static rv_status
fill_front(rv_ivf *ivf, rv_error *err)
{
    size_t want = ivf->front_limit < ivf->pool.count ? ivf->front_limit : ivf->pool.count;
    rv_status status = rv_ivf_array_reserve(ivf->allocator, &ivf->front, ivf->front_limit, err);

    if (status != RV_OK)
        return status;
    rv_ivf_select(ivf->pool.items, ivf->pool.count, want);
    for (size_t i = 0; i < want; i++) {
        ivf->front.items[i] = ivf->pool.items[i];
        /* Of those that stay, the ones in the back fill the places. */
        if (i < ivf->pool.count - want)
            ivf->pool.items[i] = ivf->pool.items[ivf->pool.count - 1 - i];
    }
    ivf->pool.count -= want;
    ivf->front.count = want;
    ivf->front_at = 0;
    rv_ivf_heap_make(&ivf->front);
    return RV_OK;
}

/* What waits goes back to the pool, what was compared exactly with its exact distance. */
static rv_status
gather(rv_ivf *ivf, rv_error *err)
{
    size_t left = ivf->front.count - ivf->front_at;
    rv_status status =
        rv_ivf_array_reserve(ivf->allocator, &ivf->pool, left + ivf->ready.count, err);

    if (status != RV_OK)
        return status;
    for (size_t i = ivf->front_at; i < ivf->front.count; i++)
        ivf->pool.items[ivf->pool.count++] = ivf->front.items[i];
    for (size_t i = 0; i < ivf->ready.count; i++)
        ivf->pool.items[ivf->pool.count++] = ivf->ready.items[i];
    ivf->front.count = ivf->front_at = ivf->ready.count = 0;
    ivf->front_limit = ivf->rule.adaptive ? ivf->window : STATIC_FRONT;
    return fill_front(ivf, err);
}

/* Why the window ends before the next list, or RV_STOP_NONE. */
static rv_stop_reason
stop_reason(const rv_ivf *ivf, uint32_t visited, uint64_t begun)
{
    const rv_ivf_rule *rule = &ivf->rule;

    if (!rule->adaptive && visited >= rule->probes)
        return RV_STOP_RULE;
    if (rule->adaptive && ivf->lists[0].excess > ivf->slack &&
        ivf->front.count == ivf->front_limit && (visited > 0 || ivf->stats.windows == 0))
        return RV_STOP_RULE;
    if (!anything_waits(ivf))
        return RV_STOP_NONE;
    if (rule->adaptive && rule->max_lists > 0 && visited >= rule->max_lists)
        return RV_STOP_EF;
    if (rule->max_rows > 0 && ivf->rows - begun >= rule->max_rows)
        return RV_STOP_DISTANCES;
    return RV_STOP_NONE;
}

static rv_status
open_window(rv_ivf *ivf, rv_error *err)
{
    rv_stop_reason reason = RV_STOP_NONE;
    uint64_t begun = ivf->rows;
    rv_status status = gather(ivf, err);

    for (uint32_t visited = 0; status == RV_OK && reason == RV_STOP_NONE; visited++) {
        reason = ivf->list_count == 0 ? RV_STOP_EXHAUSTED : stop_reason(ivf, visited, begun);
        if (reason == RV_STOP_NONE)
            status = rv_ivf_visit_list(ivf, err);
    }
    rv_ivf_heap_sort(&ivf->front);
    ivf->front_at = 0;
    ivf->open = status == RV_OK;
    ivf->handed = 0;
    ivf->stats.windows++;
    ivf->stats.reason = (uint32_t)reason;
    return status;
}

/* Compares the first of the front exactly and moves it to those that are ready. */
static rv_status
compare_first(rv_ivf *ivf, rv_error *err)
{
    rv_ivf_candidate item = ivf->front.items[ivf->front_at++];
    float distance = item.key;
    rv_status status = rv_ivf_array_reserve(ivf->allocator, &ivf->ready, 1, err);

    if (status != RV_OK)
        return status;
    if (item.ref != RV_IVF_IS_EXACT) {
        if (!ivf->source.exact(ivf->source.ctx, item.ref, &distance))
            return RV_OK;
        ivf->stats.distances++;
    }
    item.key = isnan(distance) ? INFINITY : distance;
    item.ref = RV_IVF_IS_EXACT;
    rv_ivf_near_push(&ivf->ready, item);
    return RV_OK;
}

/* The next row of the window; RV_ERR_NOTFOUND without a message when none waits. */
static rv_status
take(rv_ivf *ivf, rv_ivf_candidate *out, rv_error *err)
{
    for (;;) {
        rv_status status = RV_OK;

        if (ivf->front_at == ivf->front.count && ivf->pool.count > 0) {
            ivf->front.count = ivf->front_at = 0;
            ivf->front_limit *= 2;
            status = fill_front(ivf, err);
            rv_ivf_heap_sort(&ivf->front);
        }
        if (status != RV_OK)
            return status;
        if (ivf->front_at == ivf->front.count && ivf->ready.count == 0)
            return RV_ERR_NOTFOUND;
        if (ivf->ready.count > 0 &&
            (ivf->front_at == ivf->front.count ||
             ivf->ready.items[0].key <= ivf->front.items[ivf->front_at].key)) {
            *out = rv_ivf_near_pop(&ivf->ready);
            return RV_OK;
        }
        if (ivf->ready.count == 0 && ivf->front.items[ivf->front_at].ref == RV_IVF_IS_EXACT) {
            *out = ivf->front.items[ivf->front_at++];
            return RV_OK;
        }
        status = compare_first(ivf, err);
        if (status != RV_OK)
            return status;
    }
}

static bool
window_used_up(const rv_ivf *ivf)
{
    return ivf->rule.adaptive && ivf->handed >= ivf->window;
}

bool
rv_ivf_ready(const rv_ivf *ivf)
{
    return ivf->open && !window_used_up(ivf) &&
           (ivf->front_at < ivf->front.count || ivf->pool.count > 0 || ivf->ready.count > 0);
}

rv_status
rv_ivf_next(rv_ivf *ivf, rv_ivf_result *result, rv_error *err)
{
    for (;;) {
        rv_ivf_candidate item;
        rv_status status;

        if (ivf->open && !window_used_up(ivf)) {
            status = take(ivf, &item, err);
            if (status == RV_OK) {
                ivf->handed++;
                *result = (rv_ivf_result){item.row, item.list, item.key};
                return RV_OK;
            }
            if (status != RV_ERR_NOTFOUND)
                return status;
        }
        if (ivf->open && window_used_up(ivf) && ivf->window < MAX_WINDOW / 2) {
            ivf->window *= 2;
            ivf->slack *= 2.0f;
        }
        ivf->open = false;
        if (ivf->front_at == ivf->front.count && ivf->pool.count == 0 && ivf->ready.count == 0 &&
            ivf->list_count == 0)
            return rv_fail(err, RV_ERR_NOTFOUND, "every list was visited");
        status = open_window(ivf, err);
        if (status != RV_OK)
            return status;
    }
}
