/* From a body to a checked ask: what every protocol has in common. */
#include "gateway/protocol.h"

static void set_defaults(struct ask *a, enum ask_kind kind, const struct bundle *b)
{
    *a = (struct ask){.kind = kind, .n = 1, .length_penalty = 1, .add_special = true};
    sampling_defaults(&a->sampling);
    a->sampling.n_logprobs = -1;
    a->sampling.max_tokens = 0;
    if (b->temperature >= 0)
        a->sampling.temperature = (float)b->temperature;
    if (b->top_p > 0)
        a->sampling.top_p = (float)b->top_p;
    if (b->repetition_penalty > 0)
        a->sampling.repetition_penalty = (float)b->repetition_penalty;
    if (b->top_k > 0)
        a->sampling.top_k = b->top_k;
}

static bool check(struct parse *p)
{
    struct ask *a = p->out;
    struct error err;
    const char *param = NULL;
    if (!read_check_model(p))
        return false;
    if (!(a->kind & (ASK_EMBED | ASK_RERANK)) && a->n * a->n_prompt > ASK_SEQUENCES_MAX)
        return refuse(p->why, 400, "invalid_value", "n", "n times the number of prompts is more than %d",
                      ASK_SEQUENCES_MAX);
    if (a->sampling.top_k < 0)
        a->sampling.top_k = 0;
    if ((a->kind & (ASK_CHAT | ASK_COMPLETION)) && sampling_check(&a->sampling, &param, &err) != ST_OK)
        return refuse(p->why, 400, "invalid_value", param, "%s", err.text);
    return tools_check(p) && calls_shape(p) && structured_check(p) && thinking_apply(p);
}

bool protocol_parse(struct ask *out, const struct protocol *protocol, struct str body, const struct parse_context *with,
                    struct arena *arena, struct refusal *why)
{
    struct parse p = {.out = out,
                      .bundle = with->bundle,
                      .voice = with->voice,
                      .store = with->store,
                      .tenant = with->tenant,
                      .arena = arena,
                      .why = why};
    struct error err;
    *out = (struct ask){.protocol = protocol, .kind = protocol->kind};
    enum status st = json_parse(&p.body, arena, body, JSON_UNIQUE, &err);
    if (st == ST_NOMEM)
        return field_no_memory(&p);
    if (st != ST_OK)
        return refuse(why, 400, "invalid_json", NULL, "the body is not JSON: %s", err.text);
    if (!json_is(p.body, JSON_OBJECT))
        return refuse(why, 400, "invalid_json", NULL, "the body is not a JSON object");
    if (protocol->choose)
        protocol = protocol->choose(p.body);
    set_defaults(out, protocol->kind, with->bundle);
    if (protocol->defaults)
        protocol->defaults(out);
    out->protocol = protocol;
    p.streams = with->streams;
    return fields_read(&p, protocol->fields, p.body) && (!protocol->check || protocol->check(&p)) && check(&p);
}
