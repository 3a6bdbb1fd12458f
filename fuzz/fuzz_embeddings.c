/* protocol_parse of the requests for embeddings and ranks: a checked request or a refusal with a status and a sentence.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/gateway/fake.h"
#include "gateway/private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct protocol *const rows[] = {&openai_embeddings, &jina_rerank};
    struct voice voice;
    struct arena arena;
    struct ask ask;
    struct refusal why = {0};
    if (size < 1)
        return 0;
    fake.task = (enum model_task)((data[0] >> 1) % 3);
    voice_make(&voice, &fake_bundle, NULL);
    arena_init(&arena, 16 << 20);
    bool good = protocol_parse(&ask, rows[data[0] % 2], str_n(data + 1, size - 1),
                               &(struct parse_context){&fake_bundle, &voice, NULL, false}, &arena, &why);
    if (good ? fake.task == TASK_GENERATE || ask.n_prompt < 1 || ask.n_prompt > EMBED_INPUTS_MAX ||
                   ask.embed.dimensions < 0 || ask.embed.dimensions > 4 || ask.embed.truncate > 64
             : why.http < 400 || !why.message[0] || !why.type)
        abort();
    arena_free(&arena);
    return 0;
}
