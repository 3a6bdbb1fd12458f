/* replay - an answer as a file, and the proof that a model gives it again
 *
 *   answer_write(&w, &answer);                               // {request, response, prompt_ids, output_ids, seeds ...}
 *   TRY(answer_read(&answer, &arena, text, err));            // such a file, or a server's answer that holds one
 *   TRY(answer_check(&answer, &fingerprint, err));           // is it this model? Says which part differs
 *   TRY(answer_replay(&answer, engine, lora, &interrupted, err));  // ST_CORRUPT names the first difference
 *
 * The format is in docs/replay.md. What counts is what the model saw (ids, sampling, seeds): the request is kept for
 * people, templates and clocks need not be asked again.
 *
 * Memory   answer_read: from the arena; strings borrow from the text
 * Errors   ST_CORRUPT: no saved answer, or it does not come out again; ST_INVALID: another model
 * Threads  one owner; answer_replay as engine_generate
 */
#ifndef REPLAY_REPLAY_H
#define REPLAY_REPLAY_H

#include "engine/engine.h"

enum { ANSWER_VERSION = 1, ANSWER_CHOICES_MAX = 4096 };

struct answer_choice {
    int prompt;         /* which of the prompts it continues */
    int index;          /* of the choices of one prompt: part of the random counter */
    uint64_t seed;      /* that was used */
    enum finish finish; /* FINISH_STOP or FINISH_LENGTH */
    struct str text;
    const int32_t *ids; /* without the end token */
    int n_id;
};
struct answer {
    struct str model;             /* its name, for people */
    struct str request, response; /* JSON as it went over the wire; ptr NULL: none */
    struct fingerprint fingerprint;
    struct sampling sampling; /* as the request was understood */
    struct str stops[REQUEST_STOPS_MAX];
    int n_stop;
    struct ids shown; /* special tokens whose text is part of the outputs */
    const struct ids *prompts;
    const struct answer_choice *choices;
    int n_prompt, n_choice;
};

void answer_write(struct json_writer *w, const struct answer *a); /* one object */
MUST_USE enum status answer_read(struct answer *out, struct arena *arena, struct str text, struct error *err);
/* A part of the fingerprint ("kv", "exact" ...), or NULL. */
const char *answer_part(const struct answer *a, const char *name);
MUST_USE enum status answer_check(const struct answer *a, const struct fingerprint *now, struct error *err);
MUST_USE enum status answer_replay(const struct answer *a, struct engine *e, const struct lora *lora,
                                   const volatile int *interrupt, struct error *err);

#endif
