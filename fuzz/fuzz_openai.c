/* protocol_parse: whatever body comes, either a checked request or a refusal with a status and a sentence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/gateway/fake.h"
#include "gateway/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct protocol *const rows[] = {&openai_chat,      &openai_completion,  &openai_tokenize,
                                                  &openai_responses, &anthropic_messages, &anthropic_count,
                                                  &ollama_chat,      &ollama_generate,    &openai_detokenize};
    static struct store *store;
    struct voice voice;
    struct arena arena;
    struct ask ask;
    struct refusal why = {0};
    if (size < 1)
        return 0;
    voice_make(&voice, &fake_bundle, data[0] & 64 ? "hermes" : NULL);
    if (!store && store_create(&store, 1 << 20, NULL) != ST_OK)
        return 0;
    arena_init(&arena, 16 << 20);
    bool good = protocol_parse(&ask, rows[data[0] % 9], str_n(data + 1, size - 1),
                               &(struct parse_context){&fake_bundle, &voice, store}, &arena, &why);
    if (good ? ask.n < 1 || ask.n > ASK_CHOICES_MAX || ask.n * ask.n_prompt > ASK_SEQUENCES_MAX ||
                   ask.n_stop > REQUEST_STOPS_MAX || ask.sampling.n_logprobs > REQUEST_LOGPROBS_MAX ||
                   (!ask.messages && !ask.n_prompt && !ask.immediate)
             : why.http < 400 || !why.message[0] || !why.type)
        abort();
    arena_free(&arena);
    return 0;
}
