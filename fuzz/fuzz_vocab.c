/* fuzz_vocab - vocab.json, merges.txt and tokenizer_config.json, divided by NUL bytes; what opens encodes and decodes a
 * text with ids that are in range. */
#include "tokenizer/tok.h"
#include "fuzz_tokenizer.h"

#include <stdlib.h>

static struct str next_part(struct str *rest)
{
    size_t end = str_find(*rest, str_n("", 1), 0);
    struct str part = end == SIZE_MAX ? *rest : str_n(rest->ptr, end);
    *rest = end == SIZE_MAX ? str_n("", 0) : str_from(*rest, end + 1);
    return part;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_n(data, size), vocab = next_part(&rest), merges = next_part(&rest);
    struct tokenizer *tok = mem_alloc_zero(1, sizeof *tok);
    struct error err;
    if (!tok)
        abort();
    arena_init(&tok->arena, 0);
    tok->unknown = tok->bos = tok->eos = NO_ID;
    tok->vocab.n_id_max = 1 << 16;
    if (load_vocab_merges(tok, vocab, merges, rest, &err) == ST_OK && load_config(tok, rest, &err) == ST_OK &&
        tok_finish(tok, &err) == ST_OK) {
        fuzz_round_trip(tok);
    }
    tokenizer_close(tok);
    return 0;
}
