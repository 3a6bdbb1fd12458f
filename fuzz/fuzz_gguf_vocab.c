/* fuzz_gguf_vocab - any GGUF's tokenizer: what opens encodes and decodes a text with ids that are in range */
#include "formats/loading.h"
#include "tokenizer/tokenizer.h"
#include "fuzz_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint *ck;
    struct tokenizer *tok;
    struct error err;
    if (container_of_bytes(data, size) != CONTAINER_GGUF || checkpoint_open_memory(&ck, data, size, &err) != ST_OK)
        return -1;
    if (gguf_find(ck->gguf, "tokenizer.ggml.tokens") && tokenizer_from_checkpoint(&tok, ck, &err) == ST_OK) {
        fuzz_round_trip(tok);
        tokenizer_close(tok);
    }
    checkpoint_close(ck);
    return 0;
}
