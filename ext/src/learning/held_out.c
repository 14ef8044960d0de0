/*
 * held_out.c - whether a change of the graph pays, measured on searches that took no part in it.
 *
 * The latest held-out samples have been traced on the graph as it was, and are traced on the graph
 * as it is. A trace tells the slack at which each true neighbour is found, and the distances that
 * any slack costs (work.h). So both graphs are compared at equal recall: over all samples, the
 * slack that reaches a recall, and what it costs on average; at each of a few recalls, for
 * searches from the descent and for searches from remembered entry points, of which the better
 * counts, since searches take it too. Where the change stays, these traces are what the samples say
 * from then on.
 */
#include "learning/linking.h"

#include <math.h>

#define RUV_HELD_OUT_MOST 256

static const double held_out_recalls[] = {0.95, 0.98, 0.99};

bool
ruv_held_out_judges(const RuvSample *sample)
{
    return sample->held_out && sample->even && !sample->stale && sample->descent_efforts != NULL &&
           !isnan(sample->truth_bound);
}

/* The latest samples that may judge, those of the commonest k among them: calibrations are for one
 * k. */
static void
choose_samples(RuvHeldOut *held_out, const RuvIndexState *state)
{
    uint32 k = ruv_most_common_k(state, NULL);

    held_out->samples = palloc(sizeof(RuvSample *) * RUV_HELD_OUT_MOST);
    held_out->descents = palloc(sizeof(RuvTraced) * RUV_HELD_OUT_MOST);
    held_out->memories = palloc(sizeof(RuvTraced) * RUV_HELD_OUT_MOST);
    held_out->count = 0;
    for (int i = list_length(state->samples) - 1; i >= 0; i--) {
        RuvSample *sample = list_nth(state->samples, i);

        if (held_out->count == RUV_HELD_OUT_MOST)
            return;
        if (sample->head.k == k && ruv_held_out_judges(sample))
            held_out->samples[held_out->count++] = sample;
    }
}

/* One way to search, over all samples. */
typedef struct Way {
    float *slacks; /* that their true neighbours need */
    int slack_count;
    rv_work *work; /* per sample */
} Way;

static Way
make_way(int samples)
{
    Way way;

    way.slacks = MemoryContextAllocHuge(
        CurrentMemoryContext, sizeof(float) * RV_TRAJECTORY_MAX_HITS * (Size)Max(samples, 1));
    way.slack_count = 0;
    way.work = palloc(sizeof(rv_work) * Max(samples, 1));
    return way;
}

static void
add_sample(Way *way, int at, const RuvSample *sample, const rv_effort *efforts, const rv_work *work)
{
    for (uint32 i = 0; i < sample->effort_count; i++)
        way->slacks[way->slack_count++] = efforts[i].slack;
    way->work[at] = *work;
}

static int
compare_slacks(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;

    return x < y ? -1 : x > y ? 1 : 0;
}

/* costs[i] gets the mean distances at recall number i. What no traced effort reached counts as the
 * limit of the trace. */
static void
find_costs(const Way *way, int samples, double *costs)
{
    qsort(way->slacks, way->slack_count, sizeof(float), compare_slacks);
    for (int i = 0; i < lengthof(held_out_recalls); i++) {
        int at = (int)ceil(held_out_recalls[i] * way->slack_count) - 1;
        float slack = Min(way->slacks[Max(at, 0)], RUV_TRACE_SLACK);
        double sum = 0;

        for (int j = 0; j < samples; j++)
            sum += Max(rv_work_at_slack(&way->work[j], slack), 0);
        costs[i] = sum / samples;
    }
}

/* Mean over the recalls of what the better way costs. */
static double
cost(const RuvHeldOut *held_out, const Way *descent, const Way *memory)
{
    double by_descent[lengthof(held_out_recalls)];
    double by_memory[lengthof(held_out_recalls)];
    double sum = 0;

    if (held_out->count == 0)
        return 0;
    find_costs(descent, held_out->count, by_descent);
    find_costs(memory, held_out->count, by_memory);
    for (int i = 0; i < lengthof(held_out_recalls); i++)
        sum += Min(by_descent[i], by_memory[i]);
    return sum / lengthof(held_out_recalls);
}

void
ruv_held_out_before(RuvHeldOut *held_out, const RuvIndexState *state)
{
    Way descent;
    Way memory;

    choose_samples(held_out, state);
    descent = make_way(held_out->count);
    memory = make_way(held_out->count);
    for (int i = 0; i < held_out->count; i++) {
        const RuvSample *sample = held_out->samples[i];

        add_sample(&descent, i, sample, sample->descent_efforts, &sample->descent_work);
        add_sample(&memory, i, sample, sample->efforts, &sample->work);
    }
    held_out->before = cost(held_out, &descent, &memory);
}

void
ruv_held_out_after(RuvHeldOut *held_out, RuvIndexState *state, Relation table, Relation index)
{
    Way descent = make_way(held_out->count);
    Way memory = make_way(held_out->count);
    for (int i = 0; i < held_out->count; i++) {
        const RuvSample *sample = held_out->samples[i];
        RuvTraced *by_descent = &held_out->descents[i];
        RuvTraced *by_memory = &held_out->memories[i];

        ruv_trace_again(state, table, index, sample, by_descent, by_memory);
        add_sample(&descent, i, sample, by_descent->efforts, &by_descent->work);
        add_sample(&memory, i, sample, by_memory->efforts, &by_memory->work);
        ruv_worker_breathe();
    }
    held_out->after = cost(held_out, &descent, &memory);
}

void
ruv_held_out_keep(const RuvHeldOut *held_out, const RuvIndexState *state)
{
    for (int i = 0; i < held_out->count; i++)
        ruv_keep_traces(state, held_out->samples[i], &held_out->descents[i],
                        &held_out->memories[i]);
}

bool
ruv_held_out_pays(const RuvHeldOut *held_out, double min_gain)
{
    return held_out->count > 0 && held_out->after < held_out->before * (1 - min_gain);
}
