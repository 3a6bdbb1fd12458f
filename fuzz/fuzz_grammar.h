/* fuzz_grammar - compiles, then walks at random: every bit of a mask is tried; where nothing may come, the end may */
#ifndef FUZZ_FUZZ_GRAMMAR_H
#define FUZZ_FUZZ_GRAMMAR_H

#include "base/rng.h"
#include "grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

static struct grammar_vocab *fuzz_vocab(void)
{
    static struct grammar_vocab *v;
    static char text[512][3];
    static struct str tokens[512];
    int32_t eos = 511;
    for (int i = 0; !v && i < 511; i++) {
        static const char second[] = "\"\\u0a{}[],:1 ";
        text[i][0] = (char)i;
        text[i][1] = i < 256 ? 0 : second[i % (int)(sizeof second - 1)];
        text[i][2] = second[i * 7 % (int)(sizeof second - 1)];
        tokens[i] = str_n(text[i], i < 256 ? 1 : 3);
    }
    if (!v && grammar_vocab_create_of(&v, tokens, 512, &eos, 1, NULL) != ST_OK)
        abort();
    return v;
}

static void fuzz_walk(struct grammar *g, uint64_t seed)
{
    struct grammar_state *s;
    struct rng rng;
    uint64_t bits[8];
    rng_init(&rng, seed);
    if (grammar_state_create(&s, g, NULL) != ST_OK)
        abort();
    for (int step = 0; step < 24; step++) {
        if (grammar_mask(s, bits, NULL) != ST_OK)
            break;
        int n = 0, chosen = -1;
        for (int id = 0; id < 512; id++) {
            bool bit = bits[id / 64] >> id % 64 & 1;
            enum status st = grammar_accept(s, id, NULL);
            if (st == ST_OK)
                grammar_rollback(s, 1);
            if (st != ST_LIMIT && bit != (st == ST_OK))
                abort();
            if (bit && rng_below(&rng, (uint64_t)++n) == 0)
                chosen = id;
        }
        if (chosen < 0)
            abort(); /* a dead end */
        if (chosen == 511 || grammar_accept(s, chosen, NULL) != ST_OK)
            break;
    }
    grammar_state_destroy(s);
}

static void fuzz_grammar(enum grammar_kind kind, const uint8_t *data, size_t size)
{
    struct grammar *g;
    struct grammar_part part = {.kind = kind, .text = str_n(data, size)};
    if (grammar_compile(&g, fuzz_vocab(), &part, NULL) == ST_OK) {
        fuzz_walk(g, size);
        grammar_release(g);
    }
}

#endif
