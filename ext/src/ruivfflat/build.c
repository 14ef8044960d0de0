/*
 * build.c - CREATE INDEX and REINDEX: from a sample of the rows to the centres of the lists.
 *
 *   1  count   the rows of a few random blocks, for the default number of lists
 *   2  sample  as many random blocks as rows are wanted, since the rows of a block are often alike;
 *              of their rows a reservoir keeps an even draw (Vitter's algorithm R)
 *   3  k-means over the sample (engine), within maintenance_work_mem
 *   4  assign  every row to its nearest centre, sorted by list (build_assign.c)
 *   5  write   list by list (build_write.c)
 *
 * When the sample that k-means wants does not fit into maintenance_work_mem a smaller one is taken,
 * and a notice names the memory that would have sufficed; below RUIVF_LEAST_SAMPLE rows for each
 * list the build is refused.
 *
 * Nobody else can see the index during its build: pages are written without WAL, and the whole file
 * is logged at the end. All draws come from a fixed seed and rows are sorted by their place in the
 * table, so equal tables give equal indexes, whatever the number of workers.
 */
#include "ruivfflat/build.h"

#include "opclass.h"

#include <math.h>

#include "access/tableam.h"
#include "access/xloginsert.h"
#include "catalog/index.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/sampling.h"

#define BUILD_SEED 0x72757665
#define COUNT_BLOCKS 32
#define LEAST_SAMPLE_BLOCKS 64
#define RUIVF_LEAST_SAMPLE 2
#define KMEANS_ITERATIONS 8

typedef struct Sample {
    RuivfBuild *build;
    float *vectors; /* room for limit of them; NULL: rows are counted only */
    uint32 limit;
    uint32 count;
    uint64 seen; /* rows that could have been drawn */
    rv_prng rng;
    float *vector;
    MemoryContext row_context;
} Sample;

static void
sample_row(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool alive, void *arg)
{
    Sample *sample = arg;
    int dim = sample->build->meta.dim;
    MemoryContext former;
    bool indexed;
    uint64 place;

    if (isnull[0])
        return;
    former = MemoryContextSwitchTo(sample->row_context);
    indexed = ruv_index_vector((rv_metric)sample->build->meta.metric, dim,
                               DatumGetRuVector(values[0]), sample->vector);
    MemoryContextSwitchTo(former);
    MemoryContextReset(sample->row_context);
    if (!indexed)
        return;
    sample->seen++;
    if (sample->vectors == NULL)
        return;
    place =
        sample->count < sample->limit ? sample->count++ : rv_prng_below(&sample->rng, sample->seen);
    if (place < sample->limit)
        memcpy(sample->vectors + place * dim, sample->vector, sizeof(float) * dim);
}

/* Reads up to so many random blocks of the table; returns the rows that the whole of it may have.
 */
static double
sample_blocks(Sample *sample, BlockNumber wanted)
{
    RuivfBuild *build = sample->build;
    BlockNumber blocks = RelationGetNumberOfBlocks(build->heap);
    BlockNumber read = 0;
    BlockSamplerData sampler;

    BlockSampler_Init(&sampler, blocks, (int)Min(wanted, PG_INT32_MAX), BUILD_SEED);
    while (BlockSampler_HasMore(&sampler)) {
        BlockNumber block = BlockSampler_Next(&sampler);

        CHECK_FOR_INTERRUPTS();
        table_index_build_range_scan(build->heap, build->index, build->info, false, true, false,
                                     block, 1, sample_row, sample, NULL);
        read++;
    }
    return read > 0 ? (double)sample->seen / read * blocks : 0;
}

static bool
interrupted(void *ctx)
{
    CHECK_FOR_INTERRUPTS();
    return false;
}

/* The rows that k-means may look at. */
static uint32
sample_limit(const RuivfBuild *build, uint32 lists, double rows)
{
    uint32 wanted = (uint32)Max(Min((double)rv_ivf_sample_rows(lists), ceil(rows * 1.1)), lists);
    Size limit = (Size)maintenance_work_mem * 1024;
    Size need = rv_ivf_kmeans_bytes(lists, wanted, build->meta.dim);
    Size least = rv_ivf_kmeans_bytes(lists, lists * RUIVF_LEAST_SAMPLE, build->meta.dim);
    Size row = rv_ivf_kmeans_bytes(0, 1, build->meta.dim);
    uint32 fits;

    if (need <= limit)
        return wanted;
    if (least > limit)
        ereport(ERROR,
                (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                 errmsg("%u lists of %d dimensions do not fit into maintenance_work_mem", lists,
                        build->meta.dim),
                 errdetail("maintenance_work_mem is %d MB, at least %zu MB are needed.",
                           maintenance_work_mem / 1024, least / (1024 * 1024) + 1),
                 errhint("Raise maintenance_work_mem, to %zu MB if it can be, or use fewer lists.",
                         need / (1024 * 1024) + 1)));
    fits = (uint32)((limit - rv_ivf_kmeans_bytes(lists, 0, build->meta.dim)) / row);
    ereport(NOTICE, (errmsg("the sample for %u lists was reduced from %u to %u rows to fit into "
                            "maintenance_work_mem",
                            lists, wanted, fits),
                     errhint("%zu MB of maintenance_work_mem would be enough for all of it.",
                             need / (1024 * 1024) + 1)));
    return fits;
}

static uint32
choose_lists(RuivfBuild *build, double rows)
{
    int lists = ruivf_option_lists(build->index);

    return lists > 0 ? (uint32)lists : rv_ivf_default_lists(rows);
}

/* k-means over the sample into build->centres; a row that repeats may leave fewer lists. */
static void
cluster(RuivfBuild *build, const Sample *sample, uint32 lists)
{
    rv_kmeans_options options = {0};
    rv_kmeans_result result;
    rv_allocator allocator;
    rv_error err;

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUIVF_PHASE_KMEANS);
    ruv_context_allocator(CurrentMemoryContext, &allocator);
    options.metric = rv_ivf_cluster_metric((rv_metric)build->meta.metric);
    options.dim = build->meta.dim;
    options.clusters = lists;
    options.max_iterations = KMEANS_ITERATIONS;
    options.tolerance = 0;
    options.seed = BUILD_SEED;
    options.cancelled = interrupted;
    build->centres =
        MemoryContextAllocHuge(CurrentMemoryContext, sizeof(float) * (Size)lists * build->meta.dim);
    ruv_check(rv_kmeans(&allocator, &options, sample->vectors, sample->count, build->centres, NULL,
                        &result, &err),
              &err, "ruivfflat build");
    build->meta.lists = result.clusters;
    build->meta.spread = (float)(result.inertia / sample->count);
}

static void
tell_lists(RuivfBuild *build, uint32 lists)
{
    if (build->meta.lists == lists)
        return;
    ereport(NOTICE,
            (errmsg("ruivfflat index \"%s\" has %u of %u lists, since the table has few rows",
                    RelationGetRelationName(build->index), build->meta.lists, lists),
             errhint("REINDEX it when the table is filled.")));
}

/* One list that holds whatever comes. */
static void
make_single_list(RuivfBuild *build)
{
    build->centres = palloc0(sizeof(float) * build->meta.dim);
    build->meta.lists = 1;
}

/* A block for each row that is wanted, and enough of them where rows to be indexed are rare. */
static BlockNumber
blocks_to_sample(const RuivfBuild *build, uint32 limit, double rows)
{
    double share = Min(2.0 * limit / rows, 1.0);
    BlockNumber rare = (BlockNumber)(share * RelationGetNumberOfBlocks(build->heap));

    return Max(Max(rare, limit), LEAST_SAMPLE_BLOCKS);
}

static void
find_centres(RuivfBuild *build)
{
    Sample sample = {.build = build};
    double rows;
    uint32 lists;

    pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, RUIVF_PHASE_SAMPLE);
    rv_prng_seed(&sample.rng, BUILD_SEED);
    sample.vector = palloc(sizeof(float) * build->meta.dim);
    sample.row_context =
        AllocSetContextCreate(CurrentMemoryContext, "ruivfflat sample row", ALLOCSET_DEFAULT_SIZES);
    rows = sample_blocks(&sample, COUNT_BLOCKS);
    if (sample.seen == 0) /* they are elsewhere, or nowhere */
        rows = sample_blocks(&sample, RelationGetNumberOfBlocks(build->heap));
    lists = choose_lists(build, rows);
    if (rows > 0) {
        sample.limit = sample_limit(build, lists, rows);
        sample.seen = 0;
        sample.vectors = MemoryContextAllocHuge(
            CurrentMemoryContext, sizeof(float) * (Size)sample.limit * build->meta.dim);
        sample_blocks(&sample, blocks_to_sample(build, sample.limit, rows));
    }
    if (sample.count > 0) {
        cluster(build, &sample, lists);
        pfree(sample.vectors);
    } else {
        make_single_list(build);
    }
    tell_lists(build, lists);
    MemoryContextDelete(sample.row_context);
    pfree(sample.vector);
}

IndexBuildResult *
ruivf_build(Relation heap, Relation index, IndexInfo *info)
{
    RuivfBuild build = {.heap = heap, .index = index, .info = info};
    IndexBuildResult *result = palloc(sizeof(IndexBuildResult));
    MemoryContext context =
        AllocSetContextCreate(CurrentMemoryContext, "ruivfflat build", ALLOCSET_DEFAULT_SIZES);
    MemoryContext former = MemoryContextSwitchTo(context);
    RuivfSorted *sorted;

    if (RelationGetNumberOfBlocks(index) != 0)
        elog(ERROR, "index \"%s\" already contains data", RelationGetRelationName(index));
    ruivf_make_meta(index, &build.meta);
    ruivf_layout_init(&build.layout, build.meta.dim, (RuivfStorage)build.meta.storage);
    find_centres(&build);
    sorted = ruivf_assign_rows(&build);
    ruivf_write_index(&build, MAIN_FORKNUM, sorted);
    ruivf_end_sorted(sorted);
    if (RelationNeedsWAL(index))
        log_newpage_range(index, MAIN_FORKNUM, 0, RelationGetNumberOfBlocks(index), true);
    result->heap_tuples = build.heap_tuples;
    result->index_tuples = build.rows;
    MemoryContextSwitchTo(former);
    MemoryContextDelete(context);
    return result;
}

void
ruivf_build_empty(Relation index)
{
    RuivfBuild build = {.index = index};

    ruivf_make_meta(index, &build.meta);
    ruivf_layout_init(&build.layout, build.meta.dim, (RuivfStorage)build.meta.storage);
    make_single_list(&build);
    ruivf_write_index(&build, INIT_FORKNUM, NULL);
    pfree(build.centres);
}
