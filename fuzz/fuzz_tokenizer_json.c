#include "tokenizer/tok.h"

#include <stdlib.h>

/* Opens the bytes as tokenizer.json; what opens encodes and decodes a text with ids that are in range. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "a ab  aba\n\xC3\xA9 <s><|e|>[CLS] don't 123 .A\xCC\x81 \xE2\x96\x81 \xF0\x9F\x98\x80 \xE4\xB8\xAD\xE6\x96\x87";
    struct tokenizer *tok;
    struct error err;
    if (tok_open_bytes(&tok, str_n(data, size), "fuzz.json", NULL, &err) != ST_OK)
        return 0;
    struct ids ids = {0};
    struct buf out = {0};
    if (tokenizer_encode(tok, &ids, str_n(text, sizeof text - 1), TOKENIZE_SPECIAL | TOKENIZE_ADD, &err) == ST_OK &&
        tokenizer_decode(tok, &out, ids.ids, ids.count, 0, &err) != ST_OK)
        abort(); /* an id out of range */
    ids_free(&ids);
    buf_free(&out);
    tokenizer_close(tok);
    return 0;
}
