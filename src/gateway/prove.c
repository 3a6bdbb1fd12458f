/* prove - the member "replay" of an answer: what `ingot replay` needs to get it again */
#include "gateway/private.h"

#include "replay/replay.h"

void replay_keep(struct choice *c, int32_t id, struct str text)
{
    if (id >= 0)
        buf_append(&c->replay_ids, &id, sizeof id);
    buf_append_str(&c->replay_text, text);
    c->failed |= c->replay_ids.failed | c->replay_text.failed;
}

static void fill_choice(struct answer_choice *out, const struct choice *c)
{
    *out = (struct answer_choice){.prompt = c->prompt,
                                  .index = c->request.choice,
                                  .seed = c->end.seed,
                                  .finish = c->end.finish,
                                  .text = buf_str(&c->replay_text),
                                  .ids = (const int32_t *)(const void *)c->replay_ids.ptr,
                                  .n_id = (int)(c->replay_ids.len / sizeof(int32_t))};
}

void replay_put(struct json_writer *w, const struct job *j)
{
    struct answer_choice choices[ASK_SEQUENCES_MAX];
    if (!j->ask.return_replay)
        return;
    const struct request *first = &j->choices[0].request;
    struct answer a = {.model = str_of(j->name),
                       .request = buf_str(&j->request),
                       .sampling = j->choices[0].request.sampling,
                       .n_stop = j->ask.n_stop,
                       .shown = {(int32_t *)(uintptr_t)first->shown, (size_t)first->n_shown, 0},
                       .prompts = j->prompts,
                       .choices = choices,
                       .n_prompt = j->n_prompt,
                       .n_choice = j->n_answer};
    memcpy(a.stops, j->ask.stops, sizeof a.stops);
    for (int i = 0; i < j->n_answer; i++)
        fill_choice(&choices[i], &j->choices[i]);
    if (!bundle_fingerprint_known(&a.fingerprint, j->bundle, j->lease.adapter[0] ? j->lease.adapter : NULL))
        return; /* it was known when the request was read */
    json_key(w, "replay");
    answer_write(w, &a);
}
