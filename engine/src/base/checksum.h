/*
 * checksum.h - a fast 64-bit checksum over 8-byte words, against accidents, not attackers.
 *
 * Two lanes of multiply and rotate (alternate words go to alternate lanes, which hides the latency
 * of the multiplication), folded by the finishing steps of splitmix64. Any single changed word
 * changes the sum; so does a changed order, length or seed. The ring seeds it with the record's
 * position, the bank's flat form with its version.
 */
#ifndef RUVECTOR_BASE_CHECKSUM_H
#define RUVECTOR_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#define RV_CHECKSUM_MULTIPLIER UINT64_C(0x9E3779B97F4A7C15)

typedef struct rv_checksum {
    uint64_t next; /* the lane that takes the next word */
    uint64_t other;
} rv_checksum;

static inline void
rv_checksum_start(rv_checksum *checksum, uint64_t seed)
{
    checksum->next = seed * RV_CHECKSUM_MULTIPLIER + 1;
    checksum->other = ~checksum->next;
}

static inline void
rv_checksum_add(rv_checksum *checksum, uint64_t word)
{
    uint64_t mixed = (checksum->next ^ word) * RV_CHECKSUM_MULTIPLIER;

    checksum->next = checksum->other;
    checksum->other = mixed << 29 | mixed >> 35;
}

static inline uint64_t
rv_checksum_end(const rv_checksum *checksum, uint64_t length)
{
    uint64_t z = (checksum->next * RV_CHECKSUM_MULTIPLIER) ^ (checksum->other + length);

    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

#endif
