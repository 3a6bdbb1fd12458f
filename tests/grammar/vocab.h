/* vocab - a vocabulary of all single bytes, EOS being 256, and what a grammar says about a text */
#ifndef TESTS_GRAMMAR_VOCAB_H
#define TESTS_GRAMMAR_VOCAB_H

#include "test.h"

#include "base/fault.h"
#include "grammar/grammar.h"

static inline struct grammar_vocab *bytes_vocab(void)
{
    static struct str tokens[257];
    static char bytes[256];
    struct grammar_vocab *v;
    struct error err;
    int32_t eos = 256;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = str_n(&bytes[i], 1);
    }
    OK(grammar_vocab_create_of(&v, tokens, 257, &eos, 1, &err));
    return v;
}

static inline struct grammar *compile(struct grammar_vocab *v, enum grammar_kind kind, const char *text)
{
    struct grammar *g;
    struct error err;
    struct grammar_part part = {.kind = kind, .text = str_of(text)};
    if (grammar_compile(&g, v, &part, &err) != ST_OK)
        fail_msg("%s: %s", text, err.text);
    return g;
}

/* By bytes at once, and by tokens of one byte through masks: both must say the same. */
static inline bool accepts(struct grammar *g, struct str text)
{
    struct grammar_state *s;
    struct error err;
    uint64_t bits[8];
    OK(grammar_state_create(&s, g, &err));
    bool whole = grammar_accepts_bytes(s, text, true), ok = true;
    for (size_t i = 0; i < text.len && ok; i++) {
        OK(grammar_mask(s, bits, &err));
        unsigned char c = (unsigned char)text.ptr[i];
        ok = bits[c / 64] >> c % 64 & 1;
        if (ok != (grammar_accept(s, c, &err) == ST_OK))
            fail_msg("byte %zu of %.*s: the mask says %d", i, STR_ARG(text), ok);
    }
    if (ok) {
        OK(grammar_mask(s, bits, &err));
        ok = bits[4] & 1;
        assert_int_equal(ok, grammar_may_end(s));
    }
    assert_int_equal(ok, whole);
    grammar_state_destroy(s);
    return ok;
}

/* Compiles a part and follows a text through masks, every allocation failing once: nothing leaks, nothing else fails.
 */
static inline void check_allocation_failures(const struct grammar_part *part, const char *text)
{
    struct grammar_vocab *v = bytes_vocab();
    bool fired = true;
    for (uint64_t n = 1; n < 100000 && fired; n++) {
        struct grammar *g = NULL;
        struct grammar_state *s = NULL;
        struct error err;
        uint64_t bits[5];
        fault_arm(FAULT_ALLOC, n);
        enum status st = grammar_compile(&g, v, part, &err);
        if (st == ST_OK)
            st = grammar_state_create(&s, g, &err);
        for (const char *c = text; *c && st == ST_OK; c++) {
            st = grammar_mask(s, bits, &err);
            if (st == ST_OK)
                st = grammar_accept(s, *c, &err);
        }
        fired = fault_fired();
        fault_disarm();
        assert_true(fired || st == ST_OK);
        assert_true(st == ST_OK || st == ST_NOMEM);
        grammar_state_destroy(s);
        grammar_release(g);
    }
    assert_false(fired);
    grammar_vocab_destroy(v);
}

#endif
