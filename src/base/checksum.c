#include "base/checksum.h"

#include <string.h>

/* Eight independent chains hide the multiplication's latency. Each step is a bijection of the word and of the state:
 * xor, multiplication by an odd number, rotation. The rotation carries high bits, which a product never moves down,
 * back to where the next product spreads them. */
enum { CHAINS = 8, STEP = CHAINS * 8 };
#define ODD_1 0x9e3779b97f4a7c15u
#define ODD_2 0xa0761d6478bd642fu

static inline uint64_t turn(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static inline uint64_t mix(uint64_t state, uint64_t word)
{
    return turn((state ^ word) * ODD_1, 29);
}

/* Every bit of x reaches every bit of the result (the finalizer of MurmurHash3). */
static uint64_t spread(uint64_t x)
{
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

uint64_t checksum64(const void *data, size_t n, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t state[CHAINS], tail[CHAINS] = {0};
    for (int j = 0; j < CHAINS; j++)
        state[j] = spread(seed + (uint64_t)(j + 1) * ODD_2);
    size_t whole = n / STEP * STEP;
    for (size_t i = 0; i < whole; i += STEP) {
        uint64_t word[CHAINS];
        memcpy(word, p + i, STEP);
        for (int j = 0; j < CHAINS; j++)
            state[j] = mix(state[j], word[j]);
    }
    if (n > whole)
        memcpy(tail, p + whole, n - whole);
    for (int j = 0; j < CHAINS; j++)
        state[j] = mix(state[j], tail[j]);
    uint64_t sum = spread(seed ^ (uint64_t)n * ODD_1);
    for (int j = 0; j < CHAINS; j++)
        sum = spread(sum ^ state[j]) * ODD_2;
    return sum;
}
