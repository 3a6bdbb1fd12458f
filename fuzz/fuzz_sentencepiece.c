#include "tokenizer/tok.h"
#include "fuzz_tokenizer.h"

/* Opens the bytes as SentencePiece, tiktoken or llama2.c, as they look; what opens encodes and decodes a text with ids
 * that are in range. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokenizer *tok;
    struct error err;
    if (tok_open_bytes(&tok, str_n(data, size), "gpt2.tiktoken", NULL, &err) != ST_OK)
        return 0;
    fuzz_round_trip(tok);
    tokenizer_close(tok);
    return 0;
}
