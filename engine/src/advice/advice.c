/*
 * advice.c - see advice.h. The thresholds stand at the top; what they rest on is in the reasons.
 */
#include "ruvector/advice.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* An exact scan compares this many elements in about a millisecond per ten. */
#define FEW_ELEMENTS 1e6
/* Measured searches below which their figures say little. */
#define ENOUGH_JUDGED 100
/* Share of searches out of reach that a denser graph is worth building for. */
#define OUT_OF_REACH 0.05
#define DENSE_M 32
#define DEFAULT_M 16
#define MOST_M 64
#define CANDIDATES_PER_LINK 4
/* Recall that is short of its target by more than this is short. */
#define SHORTFALL 0.01
/* Between half and twice the advised number of lists nothing is gained by another. */
#define LISTS_TOLERANCE 2.0
/* Dimensions up to which each storage fits into a page at the default m. */
#define FIXED32_DIMENSIONS 1973
#define FIXED24_DIMENSIONS 2632
#define FLOAT16_DIMENSIONS 3948

typedef struct Advisor {
    const rv_index_facts *facts;
    rv_advice *out;
    uint32_t count;
} Advisor;

static void print(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void
print(char *out, size_t size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(out, size, format, arguments);
    va_end(arguments);
}

static rv_advice *
add(Advisor *advisor, const char *parameter)
{
    rv_advice *advice = &advisor->out[advisor->count++];

    memset(advice, 0, sizeof *advice);
    advice->parameter = parameter;
    return advice;
}

static bool
judged_enough(const rv_index_facts *facts)
{
    return facts->judged >= ENOUGH_JUDGED;
}

static bool
targets_out_of_reach(const rv_index_facts *facts)
{
    return judged_enough(facts) && facts->out_of_reach >= OUT_OF_REACH;
}

static bool
short_of_target(const rv_index_facts *facts)
{
    return judged_enough(facts) && facts->mean_recall >= 0 &&
           facts->mean_recall < facts->target_recall - SHORTFALL;
}

/* What was measured, or that nothing was. */
static void
cite_searches(const rv_index_facts *facts, rv_advice *advice)
{
    if (facts->judged > 0 && facts->mean_recall >= 0)
        print(advice->evidence, sizeof advice->evidence,
              "%.0f measured searches: mean recall %.4f of %g declared, %.1f%% out of reach",
              facts->judged, facts->mean_recall, facts->target_recall,
              100 * fmax(facts->out_of_reach, 0));
    else
        print(advice->evidence, sizeof advice->evidence, "no measured searches");
}

/* ---- the parameters ------------------------------------------------------------------------- */

static double
graph_bytes(const rv_index_facts *facts)
{
    double m = facts->m > 0 ? facts->m : DEFAULT_M;

    return facts->rows * (5 * facts->dim + 8 * (2 * m + 8));
}

static void
advise_kind(Advisor *advisor)
{
    static const char *const names[] = {"", "ruhnsw", "ruivfflat"};
    const rv_index_facts *facts = advisor->facts;
    rv_advice *advice = add(advisor, "index type");
    double needed = graph_bytes(facts);

    print(advice->current, sizeof advice->current, "%s", names[facts->kind]);
    if (facts->rows * facts->dim < FEW_ELEMENTS) {
        print(advice->recommended, sizeof advice->recommended, "none");
        print(advice->reason, sizeof advice->reason,
              "so few rows are compared one by one within milliseconds, exactly");
        print(advice->evidence, sizeof advice->evidence, "%.0f rows of %.0f dimensions",
              facts->rows, facts->dim);
    } else if (facts->memory_bytes > 0 && needed > 4 * facts->memory_bytes) {
        print(advice->recommended, sizeof advice->recommended, "ruivfflat");
        print(advice->reason, sizeof advice->reason,
              "a graph that is not in memory reads pages at random; lists are read in sequence");
        print(advice->evidence, sizeof advice->evidence,
              "a graph would take about %.0f MB, shared_buffers has %.0f", needed / 1048576,
              facts->memory_bytes / 1048576);
    } else {
        print(advice->recommended, sizeof advice->recommended, "ruhnsw");
        print(advice->reason, sizeof advice->reason,
              "a graph needs the least work for a high recall");
        print(advice->evidence, sizeof advice->evidence,
              "a graph takes about %.0f MB, shared_buffers has %.0f", needed / 1048576,
              facts->memory_bytes / 1048576);
    }
}

static double
advised_m(const rv_index_facts *facts)
{
    if (facts->kind != RV_INDEX_GRAPH)
        return DEFAULT_M;
    if (!targets_out_of_reach(facts))
        return facts->m;
    return fmin(fmax(DENSE_M, 2 * facts->m), fmax(MOST_M, facts->m));
}

static void
advise_graph(Advisor *advisor)
{
    const rv_index_facts *facts = advisor->facts;
    rv_advice *advice = add(advisor, "m");
    double m = advised_m(facts);
    double candidates = fmax(CANDIDATES_PER_LINK * m, facts->ef_construction);

    if (facts->m > 0)
        print(advice->current, sizeof advice->current, "%.0f", facts->m);
    print(advice->recommended, sizeof advice->recommended, "%.0f", m);
    print(advice->reason, sizeof advice->reason, "%s",
          m > facts->m && facts->m > 0
              ? "many searches cannot reach their target at any effort: the graph is too sparse"
              : "denser graphs cost memory and work; nothing shows that one is needed");
    cite_searches(facts, advice);
    advice = add(advisor, "ef_construction");
    if (facts->ef_construction > 0)
        print(advice->current, sizeof advice->current, "%.0f", facts->ef_construction);
    print(advice->recommended, sizeof advice->recommended, "%.0f", candidates);
    print(advice->reason, sizeof advice->reason,
          "links are chosen among at least %d candidates for each", CANDIDATES_PER_LINK);
    print(advice->evidence, sizeof advice->evidence, "m = %.0f", m);
}

static const char *
widest_storage(double dim)
{
    if (dim <= FIXED32_DIMENSIONS)
        return "fixed32";
    if (dim <= FIXED24_DIMENSIONS)
        return "fixed24";
    return dim <= FLOAT16_DIMENSIONS ? "float16" : "int8";
}

static void
advise_storage(Advisor *advisor)
{
    const rv_index_facts *facts = advisor->facts;
    rv_advice *advice = add(advisor, "storage");
    bool coarse = facts->storage != NULL &&
                  (strcmp(facts->storage, "int8") == 0 || strcmp(facts->storage, "float16") == 0);
    bool large = facts->kind == RV_INDEX_GRAPH && facts->memory_bytes > 0 &&
                 facts->index_bytes > facts->memory_bytes && !coarse;

    print(advice->current, sizeof advice->current, "%s", facts->storage ? facts->storage : "");
    if (facts->kind == RV_INDEX_LISTS) {
        print(advice->recommended, sizeof advice->recommended, "auto");
        print(advice->reason, sizeof advice->reason,
              "codes of lists cost no recall; they are used from 64 dimensions on");
        print(advice->evidence, sizeof advice->evidence, "%.0f dimensions", facts->dim);
    } else if (large) {
        print(advice->recommended, sizeof advice->recommended, "float16");
        print(advice->reason, sizeof advice->reason,
              "the index is larger than the memory for pages; half precision is less than half");
        print(advice->evidence, sizeof advice->evidence, "%.0f MB of index, %.0f MB of memory",
              facts->index_bytes / 1048576, facts->memory_bytes / 1048576);
    } else if (coarse && short_of_target(facts)) {
        print(advice->recommended, sizeof advice->recommended, "%s", widest_storage(facts->dim));
        print(advice->reason, sizeof advice->reason,
              "recall is short of its target, and coarse codes cost recall");
        cite_searches(facts, advice);
    } else {
        print(advice->recommended, sizeof advice->recommended, "%s",
              facts->storage ? facts->storage : "auto");
        print(advice->reason, sizeof advice->reason, "it fits the dimensions and the memory");
        print(advice->evidence, sizeof advice->evidence, "%.0f dimensions, %.0f MB of index",
              facts->dim, fmax(facts->index_bytes, 0) / 1048576);
    }
}

double
rv_advised_lists(double rows)
{
    return fmax(rows <= 1e6 ? floor(rows / 1000) : floor(sqrt(rows)), 1);
}

static void
advise_lists(Advisor *advisor)
{
    const rv_index_facts *facts = advisor->facts;
    rv_advice *advice = add(advisor, "lists");
    double lists = rv_advised_lists(facts->rows);
    bool fits = facts->lists > 0 && facts->lists <= lists * LISTS_TOLERANCE &&
                facts->lists >= lists / LISTS_TOLERANCE;

    if (facts->lists > 0)
        print(advice->current, sizeof advice->current, "%.0f", facts->lists);
    if (fits)
        lists = facts->lists;
    print(advice->recommended, sizeof advice->recommended, "%.0f", lists);
    print(advice->reason, sizeof advice->reason, "%s",
          fits ? "the number of lists fits the rows"
               : "one list for a thousand rows, their square root above a million");
    print(advice->evidence, sizeof advice->evidence, "%.0f rows", facts->rows);
    if (facts->kind != RV_INDEX_LISTS)
        return;
    advice = add(advisor, "probes");
    print(advice->current, sizeof advice->current, "%.0f", facts->probes);
    /* A static search with one probe is the default, which nobody chose. */
    print(advice->recommended, sizeof advice->recommended, "%.0f",
          facts->probes > 1 ? facts->probes : fmax(ceil(sqrt(lists)), 1));
    print(advice->reason, sizeof advice->reason, "%s",
          facts->probes > 1
              ? "somebody chose it; ruvector_auto_tune() measures what is right"
              : "a start for static searches; ruvector_auto_tune() measures what is right");
    print(advice->evidence, sizeof advice->evidence, "%.0f lists", lists);
}

static void
advise_target(Advisor *advisor)
{
    const rv_index_facts *facts = advisor->facts;
    rv_advice *advice = add(advisor, "target_recall");
    double target = facts->target_recall;

    print(advice->current, sizeof advice->current, "%g", target);
    if (targets_out_of_reach(facts) && facts->kind == RV_INDEX_GRAPH && facts->m >= MOST_M) {
        target = fmax(floor(facts->mean_recall * 100) / 100, 0.5);
        print(advice->reason, sizeof advice->reason,
              "no graph that is worth building reaches more");
    } else if (targets_out_of_reach(facts)) {
        print(advice->reason, sizeof advice->reason, "first rebuild the index as advised above");
    } else if (short_of_target(facts)) {
        print(advice->reason, sizeof advice->reason, "%s",
              facts->learning ? "searches are short of it for now; effort is being learned"
                              : "searches are short of it; enable learning, or tune the index");
    } else {
        print(advice->reason, sizeof advice->reason, "nothing speaks against it");
    }
    print(advice->recommended, sizeof advice->recommended, "%g", target);
    cite_searches(facts, advice);
}

static void
advise_learning(Advisor *advisor)
{
    const rv_index_facts *facts = advisor->facts;
    rv_advice *advice = add(advisor, "learning");

    print(advice->current, sizeof advice->current, "%s", facts->learning ? "on" : "off");
    print(advice->recommended, sizeof advice->recommended, "on");
    print(advice->reason, sizeof advice->reason,
          "with learning every search takes the effort that its target needs");
    cite_searches(facts, advice);
}

uint32_t
rv_advise(const rv_index_facts *facts, rv_advice *out)
{
    Advisor advisor = {facts, out, 0};

    advise_kind(&advisor);
    if (facts->kind != RV_INDEX_LISTS)
        advise_graph(&advisor);
    advise_storage(&advisor);
    if (facts->kind != RV_INDEX_GRAPH)
        advise_lists(&advisor);
    if (facts->kind == RV_INDEX_NONE)
        return advisor.count;
    advise_target(&advisor);
    advise_learning(&advisor);
    return advisor.count;
}
