/*
 * hnsw_threads.c - a shared graph under concurrency: several handles insert at once, each through a
 * mapping of the memory at an address of its own.
 *
 * Compiled without and with ThreadSanitizer, which must stay silent (see the Makefile). It takes no
 * arguments and exits with 0 when every test has passed. ThreadSanitizer knows memory by address,
 * so under it the handles share one mapping.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ruvector/hnsw.h"

#define THREADS 4
#define DIM 16
#define K 10

#ifdef __SANITIZE_THREAD__
#define ROWS 3000 /* ThreadSanitizer is about 30 times slower */
#define OWN_MAPPINGS false
#else
#define ROWS 20000
#define OWN_MAPPINGS true
#endif

static const rv_hnsw_options options = {
    .metric = RV_METRIC_L2, .dim = DIM, .m = 8, .ef_construction = 64, .seed = 1};

typedef struct region {
    int file;
    size_t size;
    void *first;
} region;

static void *
map_region(const region *r)
{
    void *memory = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->file, 0);

    assert_true(memory != MAP_FAILED);
    return memory;
}

static region
make_region(size_t size)
{
    region r = {memfd_create("hnsw_threads", 0), size, NULL};

    assert_true(r.file >= 0);
    assert_int_equal(ftruncate(r.file, (off_t)size), 0);
    r.first = map_region(&r);
    return r;
}

static void
drop_region(region *r)
{
    munmap(r->first, r->size);
    close(r->file);
}

static float *
make_rows(uint32_t count)
{
    float *rows = malloc(sizeof(float) * DIM * count);
    rv_prng rng;

    assert_non_null(rows);
    rv_prng_seed(&rng, 7);
    for (size_t i = 0; i < (size_t)DIM * count; i++)
        rows[i] = (float)rv_prng_normal(&rng);
    return rows;
}

typedef struct job {
    const region *memory;
    const float *rows;
    uint32_t count;
    uint32_t number;
    bool find;
    /* results */
    uint32_t inserted;
    uint32_t duplicates;
    rv_status status;
} job;

static void *
insert_rows(void *argument)
{
    job *work = argument;
    void *memory = OWN_MAPPINGS ? map_region(work->memory) : work->memory->first;
    rv_hnsw *graph;

    work->status = rv_hnsw_attach(rv_malloc_allocator(), memory, work->number + 1, &graph, NULL);
    for (uint32_t i = work->number; i < work->count && work->status == RV_OK; i += THREADS) {
        const float *row = work->rows + (size_t)i * DIM;
        bool duplicate = false;
        rv_node node;

        work->status = work->find ? rv_hnsw_insert_or_find(graph, row, &node, &duplicate, NULL)
                                  : rv_hnsw_insert(graph, row, &node, NULL);
        if (work->status == RV_OK && !duplicate) {
            work->inserted++;
            if (memcmp(rv_hnsw_vector(graph, node), row, sizeof(float) * DIM) != 0)
                work->status = RV_ERR_CORRUPT;
        }
        work->duplicates += duplicate;
    }
    rv_hnsw_destroy(graph);
    if (OWN_MAPPINGS)
        munmap(memory, work->memory->size);
    return NULL;
}

static void
run_jobs(job *jobs, const region *memory, const float *rows, uint32_t count, bool find)
{
    pthread_t threads[THREADS];

    for (uint32_t i = 0; i < THREADS; i++) {
        jobs[i] = (job){.memory = memory, .rows = rows, .count = count, .number = i, .find = find};
        assert_int_equal(pthread_create(&threads[i], NULL, insert_rows, &jobs[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* Bounds of every list: numbers of nodes that have the level, none twice, none itself, sorted. */
static void
check_lists(const rv_hnsw *graph)
{
    uint64_t count = rv_hnsw_count(graph);
    uint64_t *seen = calloc(count, sizeof *seen);
    uint64_t stamp = 0;
    int highest = -1;
    rv_node entry;

    assert_non_null(seen);
    for (rv_node node = 0; node < count; node++) {
        int level = rv_hnsw_level(graph, node);

        highest = level > highest ? level : highest;
        for (int l = 0; l <= level; l++) {
            uint32_t degree;
            const uint32_t *links = rv_hnsw_links(graph, node, l, &degree);
            float before = -1.0f;

            assert_in_range(degree, 0, l == 0 ? 2 * options.m : options.m);
            stamp++;
            for (uint32_t i = 0; i < degree; i++) {
                float distance;

                assert_in_range(links[i], 0, count - 1);
                assert_int_not_equal(links[i], node);
                assert_true(rv_hnsw_level(graph, links[i]) >= l);
                assert_int_not_equal(seen[links[i]], stamp);
                seen[links[i]] = stamp;
                distance = rv_raw_distance(options.metric, rv_hnsw_vector(graph, node),
                                           rv_hnsw_vector(graph, links[i]), DIM);
                assert_true(distance >= before * 0.99999f);
                before = distance;
            }
        }
    }
    assert_int_equal(rv_hnsw_entry(graph, &entry), highest);
    assert_int_equal(rv_hnsw_level(graph, entry), highest);
    free(seen);
}

static uint64_t
count_reached(const rv_hnsw *graph)
{
    uint64_t count = rv_hnsw_count(graph);
    bool *reached = calloc(count, sizeof *reached);
    uint32_t *queue = malloc(count * sizeof *queue);
    uint64_t tail = 0;
    rv_node entry;

    assert_true(reached != NULL && queue != NULL);
    rv_hnsw_entry(graph, &entry);
    reached[entry] = true;
    queue[tail++] = (uint32_t)entry;
    for (uint64_t head = 0; head < tail; head++) {
        uint32_t degree;
        const uint32_t *links = rv_hnsw_links(graph, queue[head], 0, &degree);

        for (uint32_t i = 0; i < degree; i++) {
            if (!reached[links[i]])
                queue[tail++] = links[i];
            reached[links[i]] = true;
        }
    }
    free(reached);
    free(queue);
    return tail;
}

static int
compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* Mean recall of searches for rows moved a little, against all rows of the graph. */
static double
recall(const rv_hnsw *graph, const float *rows, uint32_t queries)
{
    uint64_t count = rv_hnsw_count(graph);
    float *distances = malloc(count * sizeof *distances);
    uint64_t hits = 0;

    assert_non_null(distances);
    for (uint32_t q = 0; q < queries; q++) {
        rv_beam_result results[K];
        float query[DIM];
        uint32_t found;

        for (uint32_t j = 0; j < DIM; j++)
            query[j] = rows[(size_t)q * DIM + j] + 0.3f * rows[(size_t)(q + 1) * DIM + j];
        for (rv_node node = 0; node < count; node++)
            distances[node] =
                rv_raw_distance(options.metric, query, rv_hnsw_vector(graph, node), DIM);
        qsort(distances, count, sizeof *distances, compare_floats);
        assert_int_equal(rv_hnsw_search(graph, rv_malloc_allocator(), query, K, 100, results,
                                        &found, NULL, NULL),
                         RV_OK);
        for (uint32_t i = 0; i < found; i++)
            hits += results[i].distance <= distances[K - 1];
    }
    free(distances);
    return (double)hits / (double)(queries * K);
}

static void
builds_a_sound_graph_that_finds_what_is_near(void **state)
{
    region memory = make_region(rv_hnsw_shared_size(&options, ROWS));
    float *rows = make_rows(ROWS);
    uint64_t connected;
    job jobs[THREADS];
    rv_hnsw *graph;

    (void)state;
    assert_int_equal(rv_hnsw_create_shared(rv_malloc_allocator(), &options, memory.first,
                                           memory.size, &graph, NULL),
                     RV_OK);
    run_jobs(jobs, &memory, rows, ROWS, false);
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(jobs[i].status, RV_OK);
    assert_int_equal(rv_hnsw_count(graph), ROWS);
    check_lists(graph);
    assert_int_equal(rv_hnsw_connect(graph, &connected, NULL), RV_OK);
    check_lists(graph);
    assert_int_equal(count_reached(graph), ROWS);
    assert_true(recall(graph, rows, 50) >= 0.95);
    rv_hnsw_destroy(graph);
    free(rows);
    drop_region(&memory);
}

static void
accounts_for_every_duplicate(void **state)
{
    enum { DISTINCT = 50 };
    region memory = make_region(rv_hnsw_shared_size(&options, ROWS));
    float *rows = make_rows(ROWS);
    uint32_t inserted = 0, duplicates = 0;
    job jobs[THREADS];
    rv_hnsw *graph;

    (void)state;
    for (uint32_t i = DISTINCT; i < ROWS; i++)
        memcpy(rows + (size_t)i * DIM, rows + (size_t)(i % DISTINCT) * DIM, sizeof(float) * DIM);
    assert_int_equal(rv_hnsw_create_shared(rv_malloc_allocator(), &options, memory.first,
                                           memory.size, &graph, NULL),
                     RV_OK);
    run_jobs(jobs, &memory, rows, ROWS, true);
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(jobs[i].status, RV_OK);
        inserted += jobs[i].inserted;
        duplicates += jobs[i].duplicates;
    }
    assert_int_equal(inserted + duplicates, ROWS);
    assert_int_equal(rv_hnsw_count(graph), inserted);
    assert_in_range(inserted, DISTINCT, DISTINCT * THREADS); /* at most one each at one time */
    check_lists(graph);
    rv_hnsw_destroy(graph);
    free(rows);
    drop_region(&memory);
}

static void
stays_sound_when_the_memory_is_full(void **state)
{
    region memory = make_region(rv_hnsw_shared_size(&options, ROWS / 3));
    float *rows = make_rows(ROWS);
    uint32_t inserted = 0;
    uint64_t connected;
    job jobs[THREADS];
    rv_hnsw *graph;

    (void)state;
    assert_int_equal(rv_hnsw_create_shared(rv_malloc_allocator(), &options, memory.first,
                                           memory.size, &graph, NULL),
                     RV_OK);
    run_jobs(jobs, &memory, rows, ROWS, false);
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(jobs[i].status, RV_ERR_FULL);
        inserted += jobs[i].inserted;
    }
    assert_int_equal(inserted, ROWS / 3);
    assert_int_equal(rv_hnsw_count(graph), inserted);
    assert_int_equal(rv_hnsw_connect(graph, &connected, NULL), RV_OK);
    check_lists(graph);
    assert_int_equal(count_reached(graph), inserted);
    rv_hnsw_destroy(graph);
    free(rows);
    drop_region(&memory);
}

static void
is_what_one_process_builds_alone_when_only_one_inserts(void **state)
{
    enum { COUNT = 2000 };
    region memory = make_region(rv_hnsw_shared_size(&options, COUNT));
    float *rows = make_rows(COUNT);
    rv_hnsw *graph, *alone;

    (void)state;
    assert_int_equal(rv_hnsw_create_shared(rv_malloc_allocator(), &options, memory.first,
                                           memory.size, &graph, NULL),
                     RV_OK);
    assert_int_equal(rv_hnsw_create(rv_malloc_allocator(), &options, &alone, NULL), RV_OK);
    for (uint32_t i = 0; i < COUNT; i++) {
        rv_node node;

        assert_int_equal(rv_hnsw_insert(graph, rows + (size_t)i * DIM, &node, NULL), RV_OK);
        assert_int_equal(rv_hnsw_insert(alone, rows + (size_t)i * DIM, &node, NULL), RV_OK);
    }
    for (rv_node node = 0; node < COUNT; node++) {
        assert_int_equal(rv_hnsw_level(graph, node), rv_hnsw_level(alone, node));
        for (int l = 0; l <= rv_hnsw_level(alone, node); l++) {
            uint32_t degree, expected;
            const uint32_t *links = rv_hnsw_links(graph, node, l, &degree);
            const uint32_t *others = rv_hnsw_links(alone, node, l, &expected);

            assert_int_equal(degree, expected);
            assert_memory_equal(links, others, degree * sizeof *links);
        }
    }
    rv_hnsw_destroy(graph);
    rv_hnsw_destroy(alone);
    free(rows);
    drop_region(&memory);
}

static void
survives_a_failed_allocation_anywhere(void **state)
{
    enum { COUNT = 300 };
    region memory = make_region(rv_hnsw_shared_size(&options, COUNT));
    float *rows = make_rows(COUNT);
    uint64_t fail_at = 1;
    bool failed;

    (void)state;
    do {
        rv_test_allocator tester;
        rv_hnsw *graph;

        rv_test_allocator_init(&tester, fail_at++);
        failed = rv_hnsw_create_shared(&tester.allocator, &options, memory.first, memory.size,
                                       &graph, NULL) != RV_OK;
        for (uint32_t i = 0; i < COUNT && graph != NULL; i++) {
            rv_node node;
            rv_status status = rv_hnsw_insert(graph, rows + (size_t)i * DIM, &node, NULL);

            if (status != RV_OK) {
                assert_int_equal(status, RV_ERR_NOMEM);
                assert_int_equal(rv_hnsw_count(graph), i);
                failed = true;
                assert_int_equal(rv_hnsw_insert(graph, rows + (size_t)i * DIM, &node, NULL), RV_OK);
            }
        }
        if (graph != NULL)
            check_lists(graph);
        rv_hnsw_destroy(graph);
        assert_int_equal(tester.live, 0);
    } while (failed);
    assert_true(fail_at > 6);
    free(rows);
    drop_region(&memory);
}

static void
refuses_memory_that_will_not_do(void **state)
{
    static _Alignas(64) unsigned char small[256];
    rv_hnsw *graph;
    rv_error err;

    (void)state;
    assert_int_equal(
        rv_hnsw_create_shared(rv_malloc_allocator(), &options, small, sizeof(small), &graph, &err),
        RV_ERR_FULL);
    assert_null(graph);
    assert_int_equal(rv_hnsw_create_shared(rv_malloc_allocator(), &options, small + 8,
                                           sizeof(small) - 8, &graph, &err),
                     RV_ERR_INVALID);
    assert_int_equal(rv_hnsw_attach(rv_malloc_allocator(), small, 1, &graph, &err), RV_ERR_INVALID);
    assert_null(graph);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builds_a_sound_graph_that_finds_what_is_near),
        cmocka_unit_test(accounts_for_every_duplicate),
        cmocka_unit_test(stays_sound_when_the_memory_is_full),
        cmocka_unit_test(is_what_one_process_builds_alone_when_only_one_inserts),
        cmocka_unit_test(survives_a_failed_allocation_anywhere),
        cmocka_unit_test(refuses_memory_that_will_not_do),
    };
    return cmocka_run_group_tests_name("a shared graph under concurrency", tests, NULL, NULL);
}
