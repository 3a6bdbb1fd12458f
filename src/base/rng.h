/* rng - counter-based random numbers: the same (key, counter) gives the same bits for ever
 *
 * Source   Salmon et al. 2011, Philox4x32-10 (constants and test vectors of Random123)
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);
/* Uniform in [0, 1) with 24 bits from one word. */
static inline float rng_unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

/* A stream for places that draw many: seed names the stream. */
struct rng {
    uint32_t key[2], counter[4], words[4];
    int left;
};
void rng_init(struct rng *r, uint64_t seed);
uint32_t rng_u32(struct rng *r);
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* uniform in [0, n), n > 0, without bias */
float rng_normal(struct rng *r); /* sum-free: Box-Muller is avoided (libm); inverse-CDF by rational approximation */
/* From the operating system; for seeds and salts. */
uint64_t rng_entropy(void);

#endif
