/* siphash - a keyed 128-bit hash: without the key nobody can make two inputs collide, or tell inputs by their hashes
 *
 * Source   Aumasson, Bernstein 2012, SipHash-2-4 with 128 bits of output (vectors of the authors' implementation)
 */
#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
    uint64_t word[2];
};
struct hash128 {
    uint64_t word[2]; /* little endian: word[0] holds the first eight bytes of the authors' output */
};
struct hash128 siphash128(const struct siphash_key *key, const void *data, size_t n);

static inline int hash128_equal(const struct hash128 *a, const struct hash128 *b)
{
    return ((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1])) == 0;
}

#endif
