/*
 * recertify.c - patterns that were calibrated elsewhere, checked before they serve.
 *
 * A calibration comes from another build of the index (after REINDEX, a restore, an import). The
 * shape of its curve, how effort grows with recall, carries over well; how much effort this graph
 * needs does not. So the curve is kept and one factor is fitted to searches traced here, upwards
 * only: what was measured on few searches may ask for more effort, never for less.
 */
#include "internal.h"

#include <float.h>
#include <math.h>

#include "ruvector/stats.h"

/* Neighbours that must be expected among the misses a row allows, for its quantile to say anything
 * (the rule of three). */
#define TELLING_MISSES 3.0
/* A curve that has to be made so much wider is no description of this index. */
#define MOST_STRETCH 4.0

typedef struct evidence {
    double *slacks; /* of each true neighbour; infinite: out of reach */
    double *efs;
    uint32_t neighbours;
    uint32_t searches;
} evidence;

static bool
counts_for(const rv_bank *bank, const bank_entry *prior, const rv_traced_search *search)
{
    rv_metric space = rv_bank_space(bank->metric);
    float raw;

    if (search->k != prior->pattern.k || search->count == 0)
        return false;
    if (prior->pattern.scope == RV_PATTERN_INDEX)
        return true;
    raw = rv_raw_distance(space, search->query, prior->centroid, bank->dim);
    return rv_bank_metric_distance(space, raw) <= prior->pattern.radius;
}

static void
gather(const rv_bank *bank, const bank_entry *prior, const rv_traced_search *searches,
       uint32_t count, evidence *out)
{
    out->neighbours = 0;
    out->searches = 0;
    for (uint32_t i = 0; i < count; i++) {
        const rv_traced_search *search = &searches[i];

        if (!counts_for(bank, prior, search))
            continue;
        out->searches++;
        for (uint32_t j = 0; j < search->count; j++) {
            const rv_effort *effort = &search->efforts[j];
            bool reached = effort->ef != UINT32_MAX && isfinite(effort->slack);

            out->slacks[out->neighbours] = reached ? effort->slack : (double)INFINITY;
            out->efs[out->neighbours++] = reached ? effort->ef : (double)INFINITY;
        }
    }
}

static float
share_within(const evidence *found, double slack)
{
    uint32_t within = 0;

    for (uint32_t i = 0; i < found->neighbours; i++)
        within += found->slacks[i] <= slack;
    return (float)((double)within / found->neighbours);
}

/* The least factors for which the curve reaches its recalls on the evidence, or what this index can
 * reach at all. The quantile sorts what it is given. */
static rv_status
fit_stretch(const rv_pattern *prior, evidence *found, double *slack, double *ef, rv_error *err)
{
    double reachable = share_within(found, DBL_MAX);

    *slack = *ef = 1;
    for (int i = 0; i < RV_TARGETS; i++) {
        double target = fmin(rv_target_grid()[i], fmin(prior->table_recall[i], reachable));
        double needed;
        rv_status status;

        if ((1 - target) * found->neighbours < TELLING_MISSES)
            break;
        status = rv_quantile(found->slacks, NULL, found->neighbours, target, &needed, err);
        if (status != RV_OK)
            return status;
        *slack = fmax(*slack, (1 + needed) / (1 + prior->table_slack[i]));
        status = rv_quantile(found->efs, NULL, found->neighbours, target, &needed, err);
        if (status != RV_OK)
            return status;
        *ef = fmax(*ef, needed / prior->table_ef[i]);
    }
    return RV_OK;
}

static float
stretched_slack(float slack, double stretch)
{
    return stretch > 1 ? (float)(stretch * (1 + (double)slack) - 1) : slack;
}

static uint32_t
stretched_ef(uint32_t ef, double stretch)
{
    return (uint32_t)fmin(ceil(ef * stretch), UINT32_MAX);
}

static void
widen(rv_pattern *p, double slack, double ef, const evidence *found, uint64_t epoch, int64_t now_us)
{
    double weight = (double)found->searches / (found->searches + (double)p->samples);

    for (int i = 0; i < RV_TARGETS; i++) {
        p->table_slack[i] = stretched_slack(p->table_slack[i], slack);
        p->table_ef[i] = stretched_ef(p->table_ef[i], ef);
        p->table_recall[i] = share_within(found, p->table_slack[i]);
    }
    p->slack = stretched_slack(p->slack, slack);
    p->optimal_ef_search = stretched_ef(p->optimal_ef_search, ef);
    p->expected_recall = share_within(found, p->slack);
    p->mean_distances = (float)fmin((double)p->mean_distances * ef, FLT_MAX);
    /* Never more certain than the searches that checked it, or than it was. */
    p->confidence = (float)(p->confidence * fmin(1, 2 * weight));
    p->samples = found->searches;
    p->index_epoch = epoch;
    p->updated_us = now_us;
    /* Nodes of another graph. */
    p->entry_count = 0;
}

/* *taken tells whether the evidence was enough and the curve fits at all. */
static rv_status
recertify(rv_bank *bank, const bank_entry *prior, uint64_t epoch, int64_t now_us,
          const rv_traced_search *searches, uint32_t count, evidence *found, bool *taken,
          rv_error *err)
{
    bool region = prior->pattern.scope == RV_PATTERN_REGION;
    rv_pattern pattern = prior->pattern;
    double slack, ef;
    rv_status status;

    *taken = false;
    gather(bank, prior, searches, count, found);
    if (found->searches < (region ? RV_RECERTIFY_REGION : RV_RECERTIFY_INDEX))
        return RV_OK;
    status = fit_stretch(&prior->pattern, found, &slack, &ef, err);
    if (status != RV_OK || !(slack <= MOST_STRETCH && ef <= 2 * MOST_STRETCH))
        return status;
    widen(&pattern, slack, ef, found, epoch, now_us);
    status = rv_bank_put(bank, &pattern, region ? prior->centroid : NULL, NULL, err);
    *taken = status == RV_OK;
    return status;
}

static rv_status
recertify_regions(rv_bank *bank, uint64_t epoch, int64_t now_us, const rv_traced_search *searches,
                  uint32_t count, evidence *found, rv_recertified *out, rv_error *err)
{
    rv_status status = RV_OK;

    for (uint32_t i = bank->count; status == RV_OK && i-- > 0;) {
        bool taken;

        if (bank->regions[i]->pattern.index_epoch == epoch)
            continue;
        status =
            recertify(bank, bank->regions[i], epoch, now_us, searches, count, found, &taken, err);
        if (status != RV_OK)
            break;
        if (taken) {
            out->taken++;
        } else {
            rv_bank_drop_region(bank, i);
            out->dropped++;
        }
    }
    return status;
}

static rv_status
recertify_all(rv_bank *bank, uint64_t epoch, int64_t now_us, const rv_traced_search *searches,
              uint32_t count, evidence *found, rv_recertified *out, rv_error *err)
{
    bool settled = bank->index->pattern.index_epoch == epoch;
    rv_status status = RV_OK;

    if (!settled) {
        status = recertify(bank, bank->index, epoch, now_us, searches, count, found, &settled, err);
        out->taken += settled;
    }
    /* Regions correct the index-wide pattern: without it they are of no use. */
    if (status == RV_OK && settled)
        status = recertify_regions(bank, epoch, now_us, searches, count, found, out, err);
    return status;
}

rv_status
rv_bank_recertify(rv_bank *bank, uint64_t epoch, int64_t now_us, const rv_traced_search *searches,
                  uint32_t count, rv_recertified *out, rv_error *err)
{
    evidence found = {0};
    size_t neighbours = 0;
    rv_status status;

    out->taken = out->dropped = 0;
    if (bank->index == NULL)
        return RV_OK;
    for (uint32_t i = 0; i < count; i++)
        neighbours += searches[i].count;
    if (neighbours == 0)
        return RV_OK;
    found.slacks = rv_alloc_array(bank->allocator, neighbours, sizeof(*found.slacks));
    found.efs = rv_alloc_array(bank->allocator, neighbours, sizeof(*found.efs));
    if (found.slacks == NULL || found.efs == NULL)
        status = rv_fail_nomem(err, neighbours * sizeof(*found.slacks));
    else
        status = recertify_all(bank, epoch, now_us, searches, count, &found, out, err);
    rv_free(bank->allocator, found.slacks);
    rv_free(bank->allocator, found.efs);
    return status;
}
