/*
 * base.h - what every engine module stands on: status codes, error messages, the injected
 * allocator and the deterministic generator.
 *
 * The engine never prints, aborts, or calls malloc on its own: memory comes from the allocator
 * that the caller hands in, failures come back as an rv_status with a message in the caller's
 * buffer. Only the PostgreSQL layer turns a status into an SQLSTATE.
 *
 * A callback handed to the engine (rv_graph.expand and the like) may leave by longjmp, as
 * PostgreSQL's ereport does: the engine owns nothing but memory from the given allocator, so a
 * host whose allocator belongs to a memory context loses nothing.
 *
 * Public headers hold plain C declarations and integer #defines only: the LuaJIT binding reads
 * them through the preprocessor, so the binding cannot drift from the code.
 */
#ifndef RUVECTOR_BASE_H
#define RUVECTOR_BASE_H

#ifndef RV_CDEF
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define RV_MAX_DIMENSIONS 16000

typedef enum rv_status {
    RV_OK = 0,
    RV_ERR_NOMEM = 1,     /* the allocator returned NULL */
    RV_ERR_INVALID = 2,   /* an argument that no caller should send */
    RV_ERR_DIMENSION = 3, /* vectors of unequal or unsupported length */
    RV_ERR_RANGE = 4,     /* a value outside its documented range */
    RV_ERR_FORMAT = 5,    /* malformed external input: JSON, flat buffer */
    RV_ERR_VERSION = 6,   /* well-formed input of a version this code does not read */
    RV_ERR_FULL = 7,      /* a stated limit was reached */
    RV_ERR_NOTFOUND = 8,
    RV_ERR_CANCELLED = 9, /* the caller's cancel hook asked to stop */
    RV_ERR_CORRUPT = 10,  /* an internal invariant of stored data does not hold */
    RV_ERR_STATE = 11     /* the call does not fit the object's current state */
} rv_status;

#define RV_ERROR_MESSAGE_SIZE 256

/* Filled on failure only; owned by the caller; every rv_error * parameter may be NULL. */
typedef struct rv_error {
    rv_status status;
    char message[RV_ERROR_MESSAGE_SIZE];
} rv_error;

/* The name of a status, for example "dimension"; never NULL. */
const char *rv_status_name(rv_status status);

/*
 * Memory. alloc returns NULL on failure and need not zero; size is never 0. free accepts what
 * alloc returned and never NULL. Both get ctx.
 */
typedef struct rv_allocator {
    void *(*alloc)(void *ctx, size_t size);
    void (*free)(void *ctx, void *pointer);
    void *ctx;
} rv_allocator;

/* libc's malloc and free: for tools and specs, never used inside the extension. */
const rv_allocator *rv_malloc_allocator(void);

/*
 * An allocator over malloc that fails the call number fail_at (counted from 1; 0 = never), counts
 * calls and live blocks: the fault injection of the specs. Storage is the caller's.
 */
typedef struct rv_test_allocator {
    rv_allocator allocator;
    uint64_t calls;
    uint64_t fail_at;
    int64_t live;
} rv_test_allocator;

void rv_test_allocator_init(rv_test_allocator *a, uint64_t fail_at);

/* xoshiro256**, seeded by splitmix64 (Blackman and Vigna): equal seeds give equal sequences. */
typedef struct rv_prng {
    uint64_t state[4];
} rv_prng;

void rv_prng_seed(rv_prng *rng, uint64_t seed);
uint64_t rv_prng_next(rv_prng *rng);
double rv_prng_uniform(rv_prng *rng);                 /* [0, 1), 53 bits */
uint64_t rv_prng_below(rv_prng *rng, uint64_t bound); /* [0, bound), unbiased; bound > 0 */
double rv_prng_normal(rv_prng *rng);                  /* mean 0, variance 1 */

#endif
