/*
 * ring.c - the trajectory ring: an infinite sequence of cells, and a window over it.
 *
 * Positions count cells from the beginning of time; position p lies in slot p modulo the number of
 * cells. A record reserves n consecutive positions with one atomic addition to head, and is then
 * alone responsible for them. Cells are small (1 KiB) so that a trajectory of 128 dimensions takes
 * one and one of 16,000 dimensions takes 66: nobody pays for the largest record.
 *
 * Every cell carries a label, one 64-bit word that says which position the cell holds and in which
 * state: position * 8 + state, odd while it is written. A label changes by compare-and-swap only,
 * its position never falls, and no value ever comes back, so an unchanged label proves an unchanged
 * cell. For one position p:
 *
 *     any settled state of an earlier position           settled: EMPTY, READY, REST (even)
 *        |                          |
 *        | writer claims            | writer gives up here; or the reader skips a position
 *        |                          | that nobody claimed while a whole window went past
 *        v                          v
 *     WRITING_FIRST -- done -----> READY ---- reader consumes or rejects -----> EMPTY
 *        |                          |
 *        |                          +---- a writer one or more windows on claims the cell: lost
 *        +-- writer gives up, or the reader frees it (below) ------------------> EMPTY
 *
 *     WRITING_REST --- done -----> REST           the second and later cells of a record
 *        +-- writer gives up, or the reader frees it --------------------------> EMPTY
 *
 * The first cell is published last, so READY means that the whole record is there.
 *
 * A writer gives up when a cell of its reservation is still being written for an earlier position
 * (it wrapped onto a slower writer), or already belongs to a later one (it was slow itself). It
 * labels what it can of its positions EMPTY, so the reader steps over them. On a cell whose earlier
 * writer is still at work it leaves its position in the cell's second word, abandoned, instead.
 *
 * The reader at position r looks at the label of r's slot:
 *     a later position     overwritten: go on at r + 1, or at the start of the window
 *     r, READY             copy, verify, consume
 *     r, EMPTY or REST     r + 1
 *     r, WRITING           "not yet", unless head is more than a window past r: free it, r + 1
 *     earlier, WRITING     a whole window was reserved past that writer: free it, r + 1
 *     earlier, settled     not claimed yet: "not yet", unless r was abandoned, or head is more than
 *                          a window past r: r + 1
 * To free a cell is to label it (r, EMPTY). A writer that died, or sleeps, in the middle of a push
 * therefore delays the reader by at most one window of newer records, and never blocks it. If the
 * sleeper wakes, its next label change fails and it gives up; until then it may write into data
 * words that are not its own any more. They are atomics, so that is harmless in itself, and the
 * checksum over data, size and position unmasks the record it may have damaged (counted as torn).
 *
 * Counters. Each is a total since rv_ring_init, exact whenever no push is running:
 *     written   labels set to READY
 *     dropped   pushes that gave up: too large, blocked, or overtaken
 *     lost      READY records that were overwritten, or passed over, unread. The one that replaces
 *               the READY label counts it, so each is counted once, in records
 *     torn      READY records that the reader rejected (a later cell overwritten, or a wrong
 *               checksum), and half-written ones that it freed
 *     stalled   of torn, the half-written ones: their push never counts itself
 *     read      READY records handed to the reader
 * Hence  pushes  = written + dropped + stalled
 *        written = read + lost + (torn - stalled) + those still waiting in the window.
 * A writer that dies between its reservation and its first claim is counted nowhere.
 *
 * Shared words and who may change them (there are no locks):
 *     head                      writers, fetch-add
 *     labels                    writers and the reader, compare-and-swap
 *     abandoned                 writers, raised by compare-and-swap
 *     data words                the writer whose label is on the cell, atomic stores
 *     written, dropped          writers, fetch-add
 *     lost                      writers and the reader, fetch-add
 *     tail, read, torn, stalled the reader alone
 * Data words are stored with release and loaded with acquire order instead of relaxed order plus
 * fences: on x86 both cost nothing, and ThreadSanitizer understands them. A reader that loads a
 * word of a later writer thereby sees that writer's claim when it looks at the label again.
 */
#include "ruvector/ring.h"
#include "../base/checksum.h"
#include "../base/internal.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#define RING_MAGIC UINT64_C(0x31676e6972767572) /* "ruvring1" */
#define MIN_CELLS 16u
#define MAX_CELLS (1u << 24)
#define DATA_WORDS (RV_RING_CELL_BYTES / 8 - 2)
#define HEADER_WORDS 2 /* in the first cell: size, checksum */

typedef enum cell_state {
    CELL_EMPTY = 0,
    CELL_WRITING_FIRST = 1,
    CELL_READY = 2,
    CELL_WRITING_REST = 3,
    CELL_REST = 4
} cell_state;

typedef struct ring_cell {
    _Atomic uint64_t label;
    _Atomic uint64_t abandoned; /* the latest position given up while the label was odd */
    _Atomic uint64_t data[DATA_WORDS];
} ring_cell;

struct rv_ring {
    uint64_t magic;
    uint32_t cells;
    uint32_t reserved;
    alignas(64) _Atomic uint64_t head;
    alignas(64) _Atomic uint64_t written;
    _Atomic uint64_t dropped;
    _Atomic uint64_t lost;
    alignas(64) _Atomic uint64_t tail;
    _Atomic uint64_t read;
    _Atomic uint64_t torn;
    _Atomic uint64_t stalled;
};

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "the ring needs lock-free 64-bit atomics");
static_assert(sizeof(_Atomic uint64_t) == 8, "an atomic word is a plain word in shared memory");
static_assert(sizeof(ring_cell) == RV_RING_CELL_BYTES, "a cell is its label and its data");
static_assert(sizeof(rv_ring) == 256, "four cache lines lead the cells");

static inline uint64_t
make_label(uint64_t position, cell_state state)
{
    return position << 3 | (uint64_t)state;
}

static inline uint64_t
label_position(uint64_t label)
{
    return label >> 3;
}

static inline cell_state
label_state(uint64_t label)
{
    return (cell_state)(label & 7);
}

static inline bool
label_writing(uint64_t label)
{
    return (label & 1) != 0;
}

static inline ring_cell *
cell_at(rv_ring *ring, uint64_t position)
{
    ring_cell *cells = (ring_cell *)(void *)((char *)ring + sizeof(*ring));
    return &cells[position % ring->cells];
}

static inline void
count_one(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline bool
replace_label(ring_cell *cell, uint64_t expected, uint64_t label)
{
    return atomic_compare_exchange_strong_explicit(&cell->label, &expected, label,
                                                   memory_order_acq_rel, memory_order_acquire);
}

static inline size_t
words_for(size_t bytes)
{
    return (bytes + 7) / 8;
}

static inline uint64_t
cells_for(size_t bytes)
{
    return (words_for(bytes) + HEADER_WORDS + DATA_WORDS - 1) / DATA_WORDS;
}

size_t
rv_ring_size(uint32_t cells)
{
    if (cells < MIN_CELLS || cells > MAX_CELLS)
        return 0;
    return sizeof(rv_ring) + (size_t)cells * sizeof(ring_cell);
}

rv_status
rv_ring_init(void *memory, size_t size, uint32_t cells, rv_ring **out, rv_error *err)
{
    rv_ring *ring = memory;
    size_t need = rv_ring_size(cells);

    if (memory == NULL || out == NULL)
        return rv_fail(err, RV_ERR_INVALID, "ring: memory and out must not be NULL");
    if (need == 0)
        return rv_fail(err, RV_ERR_RANGE, "ring: %u cells; must be %u to %u", cells, MIN_CELLS,
                       MAX_CELLS);
    if (size < need)
        return rv_fail(err, RV_ERR_INVALID, "ring: %u cells need %zu bytes, %zu were given", cells,
                       need, size);
    if ((uintptr_t)memory % 64 != 0)
        return rv_fail(err, RV_ERR_INVALID, "ring: memory must be aligned to 64 bytes");

    /* Position 0 to cells - 1 is a lap before the first one, so that a fresh label needs no case of
     * its own: it is simply an earlier, settled position. */
    ring->magic = RING_MAGIC;
    ring->cells = cells;
    ring->reserved = 0;
    atomic_init(&ring->head, cells);
    atomic_init(&ring->tail, cells);
    atomic_init(&ring->written, 0);
    atomic_init(&ring->dropped, 0);
    atomic_init(&ring->lost, 0);
    atomic_init(&ring->read, 0);
    atomic_init(&ring->torn, 0);
    atomic_init(&ring->stalled, 0);
    for (uint64_t p = 0; p < cells; p++) {
        ring_cell *cell = cell_at(ring, p);
        atomic_init(&cell->label, make_label(p, CELL_EMPTY));
        atomic_init(&cell->abandoned, 0);
        for (size_t i = 0; i < DATA_WORDS; i++)
            atomic_init(&cell->data[i], 0);
    }
    *out = ring;
    return RV_OK;
}

size_t
rv_ring_max_record(const rv_ring *ring)
{
    return ((size_t)(ring->cells / 4) * DATA_WORDS - HEADER_WORDS) * 8;
}

/* ---- writers ------------------------------------------------------------------------------ */

/* Reads the spans of a push as one sequence of 8-byte words, the last one padded with zeros. */
typedef struct span_reader {
    const rv_span *spans;
    uint32_t count;
    uint32_t index;
    size_t offset; /* within spans[index] */
    size_t words_left;
    rv_checksum checksum;
} span_reader;

static uint64_t
next_word(span_reader *reader)
{
    uint64_t word = 0;
    size_t filled = 0;

    while (filled < 8 && reader->index < reader->count) {
        const rv_span *span = &reader->spans[reader->index];
        size_t left = span->size - reader->offset;
        size_t take = left < 8 - filled ? left : 8 - filled;

        if (take == 8)
            memcpy(&word, (const char *)span->data + reader->offset, 8);
        else if (take > 0)
            memcpy((char *)&word + filled, (const char *)span->data + reader->offset, take);
        filled += take;
        reader->offset += take;
        if (reader->offset == span->size) {
            reader->index++;
            reader->offset = 0;
        }
    }
    reader->words_left--;
    rv_checksum_add(&reader->checksum, word);
    return word;
}

/* Labels the cell of position with state, taking it from an earlier settled position. False when
 * an earlier writer is still at it, or position has been passed over already. */
static bool
claim(rv_ring *ring, uint64_t position, cell_state state)
{
    ring_cell *cell = cell_at(ring, position);
    uint64_t label = atomic_load_explicit(&cell->label, memory_order_acquire);

    do {
        if (label_writing(label) || label_position(label) >= position)
            return false;
    } while (!atomic_compare_exchange_strong_explicit(&cell->label, &label,
                                                      make_label(position, state),
                                                      memory_order_acq_rel, memory_order_acquire));
    if (label_state(label) == CELL_READY)
        count_one(&ring->lost);
    return true;
}

/* Tells the reader not to wait for position. */
static void
abandon(rv_ring *ring, uint64_t position)
{
    ring_cell *cell = cell_at(ring, position);
    uint64_t latest;

    if (claim(ring, position, CELL_EMPTY))
        return;
    latest = atomic_load_explicit(&cell->abandoned, memory_order_relaxed);
    while (latest < position &&
           !atomic_compare_exchange_weak_explicit(&cell->abandoned, &latest, position,
                                                  memory_order_release, memory_order_relaxed))
        continue;
}

/* The words that lie in the span at hand whole. */
static size_t
whole_words(const span_reader *reader)
{
    if (reader->index >= reader->count)
        return 0;
    return (reader->spans[reader->index].size - reader->offset) / 8;
}

/* Stores so many words of the span at hand; all but the joints of spans go this way. */
static void
store_words(_Atomic uint64_t *to, size_t count, span_reader *reader)
{
    const rv_span *span = &reader->spans[reader->index];
    const char *from = (const char *)span->data + reader->offset;
    rv_checksum checksum = reader->checksum;

    for (size_t i = 0; i < count; i++) {
        uint64_t word;

        memcpy(&word, from + i * 8, 8);
        rv_checksum_add(&checksum, word);
        atomic_store_explicit(&to[i], word, memory_order_release);
    }
    reader->checksum = checksum;
    reader->words_left -= count;
    reader->offset += count * 8;
    if (reader->offset == span->size) {
        reader->index++;
        reader->offset = 0;
    }
}

static void
fill_cell(ring_cell *cell, size_t from, span_reader *reader)
{
    while (from < DATA_WORDS && reader->words_left > 0) {
        size_t whole = whole_words(reader);

        if (whole > DATA_WORDS - from)
            whole = DATA_WORDS - from;
        if (whole > 0) {
            store_words(&cell->data[from], whole, reader);
            from += whole;
        } else {
            atomic_store_explicit(&cell->data[from++], next_word(reader), memory_order_release);
        }
    }
}

/* Ends a push that failed at its cell number failed. */
static bool
give_up(rv_ring *ring, uint64_t start, uint64_t cells, uint64_t failed)
{
    for (uint64_t i = failed; i < cells; i++)
        abandon(ring, start + i);
    if (failed == 0 || replace_label(cell_at(ring, start), make_label(start, CELL_WRITING_FIRST),
                                     make_label(start, CELL_EMPTY)))
        count_one(&ring->dropped);
    /* Otherwise the reader has freed the first cell, and counted this push as stalled. */
    return false;
}

static bool
write_record(rv_ring *ring, uint64_t start, uint64_t cells, size_t size, span_reader *reader)
{
    ring_cell *first = cell_at(ring, start);

    if (!claim(ring, start, CELL_WRITING_FIRST))
        return give_up(ring, start, cells, 0);
    fill_cell(first, HEADER_WORDS, reader);

    for (uint64_t i = 1; i < cells; i++) {
        ring_cell *cell = cell_at(ring, start + i);

        if (!claim(ring, start + i, CELL_WRITING_REST))
            return give_up(ring, start, cells, i);
        fill_cell(cell, 0, reader);
        if (!replace_label(cell, make_label(start + i, CELL_WRITING_REST),
                           make_label(start + i, CELL_REST)))
            return give_up(ring, start, cells, i);
    }

    atomic_store_explicit(&first->data[0], size, memory_order_release);
    atomic_store_explicit(&first->data[1], rv_checksum_end(&reader->checksum, size),
                          memory_order_release);
    if (!replace_label(first, make_label(start, CELL_WRITING_FIRST), make_label(start, CELL_READY)))
        return false;
    count_one(&ring->written);
    return true;
}

bool
rv_ring_push(rv_ring *ring, const rv_span *spans, uint32_t count)
{
    size_t limit = rv_ring_max_record(ring);
    size_t size = 0;
    uint64_t cells, start;
    span_reader reader = {.spans = spans, .count = count};

    for (uint32_t i = 0; i < count; i++) {
        if (spans[i].size > limit - size) {
            count_one(&ring->dropped);
            return false;
        }
        size += spans[i].size;
    }
    cells = cells_for(size);
    start = atomic_fetch_add_explicit(&ring->head, cells, memory_order_relaxed);
    reader.words_left = words_for(size);
    rv_checksum_start(&reader.checksum, start);
    return write_record(ring, start, cells, size, &reader);
}

/* ---- the reader --------------------------------------------------------------------------- */

static inline uint64_t
load_data(const ring_cell *cell, size_t i)
{
    return atomic_load_explicit(&cell->data[i], memory_order_acquire);
}

static inline bool
label_is(const ring_cell *cell, uint64_t label)
{
    return atomic_load_explicit(&cell->label, memory_order_acquire) == label;
}

/* Copies the words of one cell to buffer + *done, up to size bytes in all. */
static void
copy_cell(const ring_cell *cell, size_t from, char *buffer, size_t *done, size_t size,
          rv_checksum *checksum)
{
    for (size_t i = from; i < DATA_WORDS && *done < size; i++) {
        uint64_t word = load_data(cell, i);
        size_t take = size - *done < 8 ? size - *done : 8;

        rv_checksum_add(checksum, word);
        if (take == 8)
            memcpy(buffer + *done, &word, 8);
        else
            memcpy(buffer + *done, &word, take);
        *done += take;
    }
}

/*
 * Copies the record at position, whose first cell carries label. RV_OK, or RV_ERR_FULL with the
 * need in *size, or RV_ERR_CORRUPT when it was overwritten meanwhile or its checksum is wrong.
 */
static rv_status
copy_record(rv_ring *ring, uint64_t position, uint64_t label, void *buffer, size_t capacity,
            size_t *size)
{
    ring_cell *first = cell_at(ring, position);
    uint64_t length = load_data(first, 0);
    uint64_t expected = load_data(first, 1);
    size_t done = 0;
    uint64_t cells;
    rv_checksum checksum;

    if (!label_is(first, label) || length > rv_ring_max_record(ring))
        return RV_ERR_CORRUPT;
    *size = length;
    if (length > capacity)
        return RV_ERR_FULL;
    cells = cells_for(length);
    rv_checksum_start(&checksum, position);
    copy_cell(first, HEADER_WORDS, buffer, &done, length, &checksum);
    for (uint64_t i = 1; i < cells; i++) {
        ring_cell *cell = cell_at(ring, position + i);
        uint64_t rest = make_label(position + i, CELL_REST);

        if (!label_is(cell, rest))
            return RV_ERR_CORRUPT;
        copy_cell(cell, 0, buffer, &done, length, &checksum);
        if (!label_is(cell, rest))
            return RV_ERR_CORRUPT;
    }
    return rv_checksum_end(&checksum, length) == expected ? RV_OK : RV_ERR_CORRUPT;
}

/*
 * Deals with the READY record at *position. RV_OK and RV_ERR_FULL are for the caller of pop;
 * RV_ERR_NOTFOUND: there is nothing to be had from it, and *position is the one to look at next.
 */
static rv_status
consume(rv_ring *ring, uint64_t *position, void *buffer, size_t capacity, size_t *size)
{
    rv_status status =
        copy_record(ring, *position, make_label(*position, CELL_READY), buffer, capacity, size);

    if (status == RV_ERR_FULL)
        return status;
    /* Whoever replaces the READY label decides the record's fate: we, or a writer (lost). */
    if (!replace_label(cell_at(ring, *position), make_label(*position, CELL_READY),
                       make_label(*position, CELL_EMPTY))) {
        *position += 1;
        return RV_ERR_NOTFOUND;
    }
    if (status != RV_OK) {
        count_one(&ring->torn);
        *position += 1; /* its size is not to be trusted; its other cells are labelled REST */
        return RV_ERR_NOTFOUND;
    }
    count_one(&ring->read);
    *position += cells_for(*size);
    return RV_OK;
}

/* True when the reader need not wait any longer for the record at position, whose cell carries
 * label: another position's, or an odd one. */
static bool
hopeless(rv_ring *ring, uint64_t position, uint64_t label, uint64_t head)
{
    if (head - position > ring->cells)
        return true;
    if (label_position(label) == position)
        return false;
    return label_writing(label) || atomic_load_explicit(&cell_at(ring, position)->abandoned,
                                                        memory_order_acquire) >= position;
}

/* Makes position EMPTY if its cell still carries label; false when it does not. */
static bool
skip_position(rv_ring *ring, uint64_t position, uint64_t label)
{
    if (!replace_label(cell_at(ring, position), label, make_label(position, CELL_EMPTY)))
        return false;
    if (label_state(label) == CELL_READY) {
        count_one(&ring->lost);
    } else if (label_state(label) == CELL_WRITING_FIRST) {
        count_one(&ring->torn);
        count_one(&ring->stalled);
    }
    return true;
}

rv_status
rv_ring_pop(rv_ring *ring, void *buffer, size_t capacity, size_t *size)
{
    uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    rv_status status = RV_ERR_NOTFOUND;

    /* Two windows of steps are more than one call can need unless writers lap it all the time; then
     * the caller gets a chance to do something else. */
    for (uint64_t steps = 2 * (uint64_t)ring->cells; steps > 0; steps--) {
        uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
        uint64_t label, held;

        if (position == head)
            break;
        label = atomic_load_explicit(&cell_at(ring, position)->label, memory_order_acquire);
        held = label_position(label);
        if (held > position) {
            uint64_t window = head - ring->cells;
            position = window > position + 1 ? window : position + 1;
        } else if (held == position && label_state(label) == CELL_READY) {
            status = consume(ring, &position, buffer, capacity, size);
            if (status != RV_ERR_NOTFOUND)
                break;
        } else if (held == position && !label_writing(label)) {
            position++;
        } else if (!hopeless(ring, position, label, head)) {
            break; /* not yet */
        } else if (skip_position(ring, position, label)) {
            position++;
        }
    }
    atomic_store_explicit(&ring->tail, position, memory_order_relaxed);
    return status;
}

/* ---- looking back ------------------------------------------------------------------------- */

static bool
begins_with(const ring_cell *cell, const uint64_t *words, uint32_t word_count)
{
    for (uint32_t i = 0; i < word_count; i++)
        if (load_data(cell, HEADER_WORDS + i) != words[i])
            return false;
    return true;
}

/*
 * Copies the record that begins at position, if there is one and it begins with the words. A cell
 * that is EMPTY may hold a record that was read, or nothing that ever was whole: the checksum,
 * which is seeded with the position, tells. What a writer does meanwhile shows in the labels.
 */
static rv_status
look_at(rv_ring *ring, uint64_t position, const uint64_t *words, uint32_t word_count, void *buffer,
        size_t capacity, size_t *size)
{
    ring_cell *cell = cell_at(ring, position);

    /* Once more when the reader consumes it in between: that changes the label, and no data. */
    for (int attempt = 0; attempt < 2; attempt++) {
        uint64_t label = atomic_load_explicit(&cell->label, memory_order_acquire);
        cell_state state = label_state(label);
        rv_status status;

        if (label_position(label) != position || (state != CELL_READY && state != CELL_EMPTY) ||
            !begins_with(cell, words, word_count))
            break;
        status = copy_record(ring, position, label, buffer, capacity, size);
        if (status != RV_ERR_CORRUPT && label_is(cell, label))
            return status;
    }
    return RV_ERR_NOTFOUND;
}

rv_status
rv_ring_find(rv_ring *ring, const uint64_t *words, uint32_t word_count, void *buffer,
             size_t capacity, size_t *size)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

    if (word_count == 0 || word_count > DATA_WORDS - HEADER_WORDS)
        return RV_ERR_NOTFOUND;
    for (uint64_t back = 1; back <= ring->cells; back++) {
        rv_status status = look_at(ring, head - back, words, word_count, buffer, capacity, size);

        if (status != RV_ERR_NOTFOUND)
            return status;
    }
    return RV_ERR_NOTFOUND;
}

rv_ring_counters
rv_ring_read_counters(const rv_ring *ring)
{
    rv_ring_counters counters;

    counters.written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    counters.dropped = atomic_load_explicit(&ring->dropped, memory_order_relaxed);
    counters.lost = atomic_load_explicit(&ring->lost, memory_order_relaxed);
    counters.torn = atomic_load_explicit(&ring->torn, memory_order_relaxed);
    counters.read = atomic_load_explicit(&ring->read, memory_order_relaxed);
    counters.stalled = atomic_load_explicit(&ring->stalled, memory_order_relaxed);
    return counters;
}

uint64_t
rv_ring_backlog(const rv_ring *ring)
{
    return atomic_load_explicit(&ring->head, memory_order_relaxed) -
           atomic_load_explicit(&ring->tail, memory_order_relaxed);
}
