/* fuzz_tokenizer - what opens encodes and decodes a text with ids that are in range */
#ifndef FUZZ_TOKENIZER_H
#define FUZZ_TOKENIZER_H

#include <stdlib.h>

#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void fuzz_round_trip(const struct tokenizer *tok)
{
    static const char text[] =
        "a ab  aba\n\xC3\xA9 <s><|e|>[CLS] don't 123 .A\xCC\x81 \xE2\x96\x81 \xF0\x9F\x98\x80 \xE4\xB8\xAD\xE6\x96\x87";
    struct error err;
    struct ids ids = {0};
    struct buf out = {0};
    if (tokenizer_encode(tok, &ids, str_n(text, sizeof text - 1), TOKENIZE_SPECIAL | TOKENIZE_ADD, &err) == ST_OK &&
        tokenizer_decode(tok, &out, ids.ids, ids.count, 0, &err) != ST_OK)
        abort(); /* an id out of range */
    ids_free(&ids);
    buf_free(&out);
}

#endif
