/*
 * ring_threads.c - the trajectory ring under concurrency: several writers, one reader, and a writer
 * that stops in the middle of a push.
 *
 * Compiled from the repository's root, without and with ThreadSanitizer (which must stay silent):
 *   cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -Iengine/include [-fsanitize=thread] \
 *      spec/engine/ring_threads.c engine/src/ring/ring.c engine/src/base/base.c \
 *      -o ring_threads -lcmocka -lpthread
 * It takes no arguments and exits with 0 when every test has passed. Alone among the specs it is C:
 * LuaJIT has no threads.
 *
 * Every record names its writer, its number and its size, and all its bytes follow from these, so
 * the reader can tell at once whether what it was handed was ever pushed. Numbers of one writer
 * must rise, which also rules out a record that comes twice.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ruvector/ring.h"

#define WRITERS 4
#define MAX_RECORD 12000

#ifdef __SANITIZE_THREAD__
#define RECORDS 5000 /* ThreadSanitizer is about 30 times slower */
#else
#define RECORDS 30000
#endif

typedef struct record_head {
    uint64_t writer;
    uint64_t number;
    uint64_t size; /* of the whole record */
    uint64_t key;  /* the bytes that follow are drawn from it */
} record_head;

static uint64_t
next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static void
fill(unsigned char *bytes, size_t size, uint64_t key)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i % 8 == 0 ? next_random(&key) : key >> (i % 8 * 8));
}

static rv_ring *
create_ring(uint32_t cells)
{
    size_t size = rv_ring_size(cells);
    void *memory = aligned_alloc(64, size);
    rv_ring *ring;

    assert_non_null(memory);
    assert_int_equal(rv_ring_init(memory, size, cells, &ring, NULL), RV_OK);
    return ring;
}

/* ---- several writers and one reader --------------------------------------------------------- */

typedef struct job {
    rv_ring *ring;
    uint64_t writer;
    uint64_t records;
    size_t largest;
    _Atomic unsigned *running;
    uint64_t stored; /* result */
} job;

static void *
write_records(void *argument)
{
    job *work = argument;
    unsigned char body[MAX_RECORD];
    uint64_t random = work->writer * 977 + 1;

    for (uint64_t number = 1; number <= work->records; number++) {
        record_head head = {.writer = work->writer, .number = number, .key = next_random(&random)};
        size_t body_size = next_random(&random) % (work->largest - sizeof(head));
        size_t cut = body_size / 3;
        rv_span spans[3] = {{&head, sizeof(head)}, {body, cut}, {body + cut, body_size - cut}};

        head.size = sizeof(head) + body_size;
        fill(body, body_size, head.key);
        if (rv_ring_push(work->ring, spans, 3))
            work->stored++;
        if (next_random(&random) % 64 == 0)
            sched_yield();
    }
    atomic_fetch_sub(work->running, 1);
    return NULL;
}

static void
check_record(const unsigned char *record, size_t size, uint64_t *last_number)
{
    static unsigned char expected[MAX_RECORD];
    record_head head;

    assert_true(size >= sizeof(head));
    memcpy(&head, record, sizeof(head));
    assert_int_equal(head.size, size);
    assert_in_range(head.writer, 0, WRITERS - 1);
    assert_true(head.number > last_number[head.writer]);
    last_number[head.writer] = head.number;
    fill(expected, size - sizeof(head), head.key);
    assert_memory_equal(record + sizeof(head), expected, size - sizeof(head));
}

/* Runs the writers against one reader that pauses every pause records (0 = never), then drains. */
static rv_ring_counters
run(uint32_t cells, size_t largest, uint64_t records, unsigned pause)
{
    static unsigned char record[MAX_RECORD];
    rv_ring *ring = create_ring(cells);
    uint64_t last_number[WRITERS] = {0};
    uint64_t read = 0, stored = 0;
    _Atomic unsigned running = WRITERS;
    pthread_t threads[WRITERS];
    job jobs[WRITERS];
    rv_ring_counters counters;
    bool done = false;

    for (unsigned i = 0; i < WRITERS; i++) {
        jobs[i] = (job){.ring = ring, .writer = i, .records = records, .largest = largest};
        jobs[i].running = &running;
        assert_int_equal(pthread_create(&threads[i], NULL, write_records, &jobs[i]), 0);
    }
    for (;;) {
        size_t size;
        rv_status status;

        done = atomic_load(&running) == 0; /* before pop: what is left then is all there is */
        status = rv_ring_pop(ring, record, sizeof(record), &size);
        if (status == RV_OK) {
            check_record(record, size, last_number);
            if (++read % (pause > 0 ? pause : UINT32_MAX) == 0)
                for (int i = 0; i < 50; i++)
                    sched_yield();
        } else {
            assert_int_equal(status, RV_ERR_NOTFOUND);
            if (done)
                break;
            sched_yield();
        }
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        stored += jobs[i].stored;
    }

    counters = rv_ring_read_counters(ring);
    assert_int_equal(counters.read, read);
    assert_int_equal(counters.written, stored);
    assert_int_equal(counters.written + counters.dropped + counters.stalled, WRITERS * records);
    assert_int_equal(counters.written,
                     counters.read + counters.lost + counters.torn - counters.stalled);
    assert_int_equal(rv_ring_backlog(ring), 0);
    free(ring);
    return counters;
}

static void
keeps_every_record_when_the_window_holds_them_all(void **state)
{
    rv_ring_counters counters = run(1u << 14, 3000, 1000, 0);
    (void)state;
    assert_int_equal(counters.read, WRITERS * 1000);
}

static void
accounts_for_every_record_when_a_small_window_is_overrun(void **state)
{
    rv_ring_counters counters = run(16, 3900, RECORDS, 0);
    (void)state;
    assert_true(counters.lost > 0);
    assert_true(counters.read > 0);
}

static void
accounts_for_every_record_of_many_cells(void **state)
{
    rv_ring_counters counters = run(61, MAX_RECORD, RECORDS / 3, 3);
    (void)state;
    assert_true(counters.lost > 0);
}

static void
accounts_for_every_record_when_the_reader_pauses(void **state)
{
    rv_ring_counters counters = run(257, 1500, RECORDS, 40);
    (void)state;
    assert_true(counters.lost > 0);
}

/* ---- looking back while others write and read ----------------------------------------------- */

typedef struct looker {
    rv_ring *ring;
    _Atomic unsigned *running;
    uint64_t found;
} looker;

/* Looks for records of every writer; whatever it is shown must have been pushed just so. */
static void *
look_back(void *argument)
{
    looker *work = argument;
    static unsigned char record[MAX_RECORD];
    uint64_t random = 5;

    while (atomic_load(work->running) > 0) {
        uint64_t key[2] = {next_random(&random) % WRITERS, 1 + next_random(&random) % RECORDS};
        uint64_t nothing[WRITERS] = {0};
        size_t size;

        if (rv_ring_find(work->ring, key, 1 + next_random(&random) % 2, record, sizeof(record),
                         &size) == RV_OK) {
            check_record(record, size, nothing);
            work->found++;
        }
    }
    return NULL;
}

static void
shows_whole_records_to_who_looks_back_meanwhile(void **state)
{
    unsigned char record[MAX_RECORD];
    rv_ring *ring = create_ring(64);
    _Atomic unsigned running = WRITERS;
    pthread_t threads[WRITERS], looking;
    job jobs[WRITERS];
    looker looks = {.ring = ring, .running = &running};
    size_t size;

    (void)state;
    assert_int_equal(pthread_create(&looking, NULL, look_back, &looks), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        jobs[i] = (job){.ring = ring, .writer = i, .records = RECORDS / 3, .largest = 3000};
        jobs[i].running = &running;
        assert_int_equal(pthread_create(&threads[i], NULL, write_records, &jobs[i]), 0);
    }
    while (atomic_load(&running) > 0)
        if (rv_ring_pop(ring, record, sizeof(record), &size) != RV_OK)
            sched_yield();
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(looking, NULL);
    assert_true(looks.found > 0);
    free(ring);
}

/* ---- a writer that stops in the middle of a push ------------------------------------------------
 */

/*
 * The record lies half on a page that may not be read. The writer faults there, in the middle of
 * rv_ring_push, and the handler holds it until the test lets it go on.
 */
static _Atomic int sleeper_holds, sleeper_may_go;

static void
hold(int signal_number)
{
    (void)signal_number;
    atomic_store(&sleeper_holds, 1);
    while (!atomic_load(&sleeper_may_go))
        sched_yield();
}

typedef struct sleeper {
    rv_ring *ring;
    unsigned char *area; /* two pages */
    size_t page;
    rv_span span;
    pthread_t thread;
    bool stored;
} sleeper;

static void *
sleep_in_push(void *argument)
{
    sleeper *s = argument;
    s->stored = rv_ring_push(s->ring, &s->span, 1);
    return NULL;
}

/* Starts a push of size bytes and returns when it has copied the first before of them. */
static void
start_sleeper(sleeper *s, rv_ring *ring, size_t before, size_t size)
{
    struct sigaction action = {.sa_handler = hold};

    s->ring = ring;
    s->page = (size_t)sysconf(_SC_PAGESIZE);
    s->area = mmap(NULL, 2 * s->page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(s->area != MAP_FAILED);
    memset(s->area, 'z', 2 * s->page);
    assert_int_equal(mprotect(s->area + s->page, s->page, PROT_NONE), 0);
    s->span = (rv_span){s->area + s->page - before, size};
    atomic_store(&sleeper_holds, 0);
    atomic_store(&sleeper_may_go, 0);
    sigaction(SIGSEGV, &action, NULL);
    assert_int_equal(pthread_create(&s->thread, NULL, sleep_in_push, s), 0);
    while (!atomic_load(&sleeper_holds))
        sched_yield();
}

static bool
wake_sleeper(sleeper *s)
{
    assert_int_equal(mprotect(s->area + s->page, s->page, PROT_READ), 0);
    atomic_store(&sleeper_may_go, 1);
    pthread_join(s->thread, NULL);
    signal(SIGSEGV, SIG_DFL);
    munmap(s->area, 2 * s->page);
    return s->stored;
}

static bool
push_text(rv_ring *ring, const char *text)
{
    rv_span span = {text, strlen(text)};
    return rv_ring_push(ring, &span, 1);
}

static void
expect_text(rv_ring *ring, const char *text)
{
    char buffer[MAX_RECORD] = {0};
    size_t size;

    assert_int_equal(rv_ring_pop(ring, buffer, sizeof(buffer) - 1, &size), RV_OK);
    buffer[size] = '\0';
    assert_string_equal(buffer, text);
}

static void
expect_nothing(rv_ring *ring)
{
    char buffer[MAX_RECORD];
    size_t size;
    assert_int_equal(rv_ring_pop(ring, buffer, sizeof(buffer), &size), RV_ERR_NOTFOUND);
}

static void
waits_for_a_writer_that_is_late_within_the_window(void **state)
{
    rv_ring *ring = create_ring(16);
    sleeper s;
    char expected[2001] = {0};

    (void)state;
    start_sleeper(&s, ring, 1500, 2000);
    assert_true(push_text(ring, "newer"));
    expect_nothing(ring);
    assert_true(wake_sleeper(&s));
    memset(expected, 'z', 2000);
    expect_text(ring, expected);
    expect_text(ring, "newer");
    free(ring);
}

static void
steps_over_a_push_that_gave_up_behind_a_late_writer(void **state)
{
    rv_ring *ring = create_ring(16);
    sleeper s;
    char expected[101] = {0};

    (void)state;
    start_sleeper(&s, ring, 50, 100);
    for (int i = 0; i < 15; i++)
        assert_true(push_text(ring, "newer"));
    expect_nothing(ring);
    assert_false(push_text(ring, "blocked: its cell is the late writer's"));
    assert_true(wake_sleeper(&s));
    memset(expected, 'z', 100);
    expect_text(ring, expected);
    for (int i = 0; i < 15; i++)
        expect_text(ring, "newer");
    assert_true(push_text(ring, "after"));
    expect_text(ring, "after"); /* at once, not a window later */
    assert_int_equal(rv_ring_read_counters(ring).dropped, 1);
    free(ring);
}

/* Fills the window past a sleeper and lets the reader free its cells and read all there is. */
static void
leave_sleeper_behind(rv_ring *ring)
{
    char buffer[100];
    size_t size;

    for (int i = 0; i < 17 + 3; i++)
        push_text(ring, "a window of others");
    while (rv_ring_pop(ring, buffer, sizeof(buffer), &size) == RV_OK)
        continue;
    assert_int_equal(rv_ring_read_counters(ring).stalled, 1);
}

static void
refuses_a_writer_that_wakes_after_its_cells_were_freed(void **state)
{
    rv_ring *ring = create_ring(16);
    rv_ring_counters counters;
    sleeper s;

    (void)state;
    start_sleeper(&s, ring, 500, 2000);
    leave_sleeper_behind(ring);
    assert_false(wake_sleeper(&s));
    expect_nothing(ring);
    assert_true(push_text(ring, "after"));
    expect_text(ring, "after");
    counters = rv_ring_read_counters(ring);
    assert_int_equal(counters.torn, 1);
    assert_int_equal(counters.stalled, 1);
    assert_int_equal(counters.written, counters.read + counters.lost);
    free(ring);
}

static void
never_hands_out_a_record_that_a_woken_writer_scribbled_on(void **state)
{
    /* 500 bytes: the woken writer still owns part of its only cell, header included. 2,000: it goes
     * on to claim the next ones. */
    static const size_t sizes[] = {500, 2000};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        rv_ring *ring = create_ring(16);
        rv_ring_counters counters;
        char text[900] = {0};
        char buffer[MAX_RECORD];
        size_t size, handed_out = 0;
        sleeper s;

        memset(text, 'n', sizeof(text) - 1);
        start_sleeper(&s, ring, 300, sizes[i]);
        leave_sleeper_behind(ring);
        for (int n = 0; n < 16; n++) /* each cell of the window, the freed ones included */
            assert_true(push_text(ring, text));
        assert_false(wake_sleeper(&s));
        while (rv_ring_pop(ring, buffer, sizeof(buffer), &size) == RV_OK) {
            assert_int_equal(size, sizeof(text) - 1);
            assert_memory_equal(buffer, text, size);
            handed_out++;
        }
        counters = rv_ring_read_counters(ring);
        assert_int_equal(handed_out, 15);
        assert_int_equal(counters.torn, 2); /* the sleeper's own, and the one it damaged */
        assert_int_equal(counters.written,
                         counters.read + counters.lost + counters.torn - counters.stalled);
        free(ring);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_every_record_when_the_window_holds_them_all),
        cmocka_unit_test(accounts_for_every_record_when_a_small_window_is_overrun),
        cmocka_unit_test(accounts_for_every_record_of_many_cells),
        cmocka_unit_test(accounts_for_every_record_when_the_reader_pauses),
        cmocka_unit_test(shows_whole_records_to_who_looks_back_meanwhile),
        cmocka_unit_test(waits_for_a_writer_that_is_late_within_the_window),
        cmocka_unit_test(steps_over_a_push_that_gave_up_behind_a_late_writer),
        cmocka_unit_test(refuses_a_writer_that_wakes_after_its_cells_were_freed),
        cmocka_unit_test(never_hands_out_a_record_that_a_woken_writer_scribbled_on),
    };
    return cmocka_run_group_tests_name("the trajectory ring under concurrency", tests, NULL, NULL);
}
