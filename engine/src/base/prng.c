/*
 * prng.c - the deterministic generator: xoshiro256** seeded by splitmix64.
 *
 * Both are the public-domain algorithms of Blackman and Vigna ("Scrambled linear pseudorandom
 * number generators", 2018). The state is the caller's, so two users never disturb each other's
 * sequence, and a run is repeated by repeating its seed.
 */
#include "ruvector/base.h"

#include <math.h>

static uint64_t
splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline uint64_t
rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

void
rv_prng_seed(rv_prng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        rng->state[i] = splitmix64(&seed);
}

uint64_t
rv_prng_next(rv_prng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double
rv_prng_uniform(rv_prng *rng)
{
    return (double)(rv_prng_next(rng) >> 11) * 0x1p-53;
}

uint64_t
rv_prng_below(rv_prng *rng, uint64_t bound)
{
    /* 2^64 mod bound values at the bottom would be drawn once too often: draw again instead. */
    uint64_t surplus = (0 - bound) % bound;
    uint64_t value;

    do
        value = rv_prng_next(rng);
    while (value < surplus);
    return value % bound;
}

double
rv_prng_normal(rv_prng *rng)
{
    /* Marsaglia's polar method. Its second value is dropped: keeping it would put state outside
     * rv_prng. */
    double x, y, s;

    do {
        x = 2.0 * rv_prng_uniform(rng) - 1.0;
        y = 2.0 * rv_prng_uniform(rng) - 1.0;
        s = x * x + y * y;
    } while (s >= 1.0 || s == 0.0);
    return x * sqrt(-2.0 * log(s) / s);
}
