#include "base/siphash.h"

#include <string.h>

struct lanes {
    uint64_t v0, v1, v2, v3;
};

static uint64_t turn(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void rounds(struct lanes *l, int n)
{
    for (int i = 0; i < n; i++) {
        l->v0 += l->v1;
        l->v2 += l->v3;
        l->v1 = turn(l->v1, 13) ^ l->v0;
        l->v3 = turn(l->v3, 16) ^ l->v2;
        l->v0 = turn(l->v0, 32);
        l->v2 += l->v1;
        l->v0 += l->v3;
        l->v1 = turn(l->v1, 17) ^ l->v2;
        l->v3 = turn(l->v3, 21) ^ l->v0;
        l->v2 = turn(l->v2, 32);
    }
}

static void absorb(struct lanes *l, uint64_t word)
{
    l->v3 ^= word;
    rounds(l, 2);
    l->v0 ^= word;
}

struct hash128 siphash128(const struct siphash_key *key, const void *data, size_t n)
{
    const unsigned char *at = data;
    struct lanes l = {key->word[0] ^ 0x736f6d6570736575u, key->word[1] ^ 0x646f72616e646f6du ^ 0xee,
                      key->word[0] ^ 0x6c7967656e657261u, key->word[1] ^ 0x7465646279746573u};
    uint64_t word;
    struct hash128 out;
    size_t left = n;
    for (; left >= 8; left -= 8, at += 8) {
        memcpy(&word, at, 8);
        absorb(&l, word);
    }
    word = (uint64_t)n << 56;
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)at[i] << 8 * i;
    absorb(&l, word);
    l.v2 ^= 0xee;
    rounds(&l, 4);
    out.word[0] = l.v0 ^ l.v1 ^ l.v2 ^ l.v3;
    l.v1 ^= 0xdd;
    rounds(&l, 4);
    out.word[1] = l.v0 ^ l.v1 ^ l.v2 ^ l.v3;
    return out;
}
