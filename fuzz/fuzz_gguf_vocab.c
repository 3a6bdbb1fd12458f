/* fuzz_gguf_vocab - any GGUF's tokenizer: what opens encodes and decodes a text with ids that are in range */
#include "formats/loading.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "a ab  aba\n\xC3\xA9 <s><|e|>[CLS] don't 123 .A\xCC\x81 \xE2\x96\x81 \xF0\x9F\x98\x80";
    struct checkpoint *ck;
    struct tokenizer *tok;
    struct error err;
    if (container_of_bytes(data, size) != CONTAINER_GGUF || checkpoint_open_memory(&ck, data, size, &err) != ST_OK)
        return -1;
    if (gguf_find(ck->gguf, "tokenizer.ggml.tokens") && tokenizer_from_checkpoint(&tok, ck, &err) == ST_OK) {
        struct ids ids = {0};
        struct buf out = {0};
        if (tokenizer_encode(tok, &ids, str_n(text, sizeof text - 1), TOKENIZE_SPECIAL | TOKENIZE_ADD, &err) == ST_OK &&
            tokenizer_decode(tok, &out, ids.ids, ids.count, 0, &err) != ST_OK)
            abort(); /* an id out of range */
        ids_free(&ids);
        buf_free(&out);
        tokenizer_close(tok);
    }
    checkpoint_close(ck);
    return 0;
}
