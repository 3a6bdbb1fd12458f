/* What a choice says, as a list of blocks: each begins, grows and closes; a stream tells each change as it happens. */
#include "gateway/private.h"

#include "base/mem.h"

static bool keeps(const struct job *j, enum block_kind kind)
{
    return !j->ask.stream || j->protocol->flags & PROTOCOL_KEEPS ||
           (kind == BLOCK_CALL && j->protocol->flags & PROTOCOL_LATE);
}

static struct block *last_block(struct choice *c)
{
    return c->n_block ? &c->blocks[c->n_block - 1] : NULL;
}

static struct block *open_block(struct choice *c, enum block_kind kind)
{
    if (!MEM_GROW(c->blocks, c->block_capacity, c->n_block)) {
        c->failed = true;
        return NULL;
    }
    struct block *b = &c->blocks[c->n_block];
    *b = (struct block){.kind = kind, .index = (int)c->n_block++, .open = true};
    return b;
}

static void close_block(struct job *j, struct choice *c)
{
    struct block *b = last_block(c);
    if (!b || !b->open)
        return;
    b->open = false;
    if (j->ask.stream && j->protocol->close)
        j->protocol->close(j, c, b);
}

static struct block *begin_block(struct job *j, struct choice *c, enum block_kind kind, struct str name)
{
    close_block(j, c);
    struct block *b = open_block(c, kind);
    if (b && kind == BLOCK_CALL) {
        int chars = j->voice->format->id_chars;
        b->call = c->n_call++;
        b->name = name;
        const char *prefix = j->protocol->call_prefix ? j->protocol->call_prefix : "call_";
        make_id(j->g, b->id, sizeof b->id, chars ? "" : prefix);
        if (chars)
            b->id[chars] = 0;
    }
    if (b && j->ask.stream && j->protocol->open)
        j->protocol->open(j, c, b);
    return b;
}

/* Behind another block, what waits begins with that one's marks: the last is the text's. */
static void take_logprobs(struct choice *c, struct block *b)
{
    struct str all = buf_str(&c->logprobs);
    if (b->index > 0 && b->text.len == 0)
        all = str_from(all, c->logprobs_last);
    if (!all.len || b->kind != BLOCK_TEXT)
        return;
    if (b->logprobs.len)
        buf_append_char(&b->logprobs, ',');
    b->logprobs_new = b->logprobs.len;
    buf_append_str(&b->logprobs, all);
    c->failed |= b->logprobs.failed;
}

void say(struct job *j, struct choice *c, enum block_kind kind, struct str text)
{
    struct block *b = last_block(c);
    if (!b || !b->open || b->kind != kind)
        b = begin_block(j, c, kind, (struct str){NULL, 0});
    if (!b)
        return;
    if (j->protocol->flags & PROTOCOL_OWN_LOGPROBS) {
        b->logprobs_new = b->logprobs.len;
        take_logprobs(c, b);
        logprobs_clear(c);
    }
    if (keeps(j, kind)) {
        buf_append_str(&b->text, text);
        c->failed |= b->text.failed;
    }
    if (j->ask.stream)
        j->protocol->delta(j, c, b, text);
}

/* ---- chats: what the model's text means ---- */

static void on_speech(void *ctx, enum speech_what what, struct str text)
{
    struct choice *c = ctx;
    struct job *j = c->job;
    if (c->enough)
        return;
    switch (what) {
    case SPEECH_TEXT:
        say(j, c, BLOCK_TEXT, text);
        break;
    case SPEECH_REASON:
        say(j, c, BLOCK_REASON, text);
        break;
    case SPEECH_CALL:
        begin_block(j, c, BLOCK_CALL, text);
        break;
    case SPEECH_ARGUMENTS:
        say(j, c, BLOCK_CALL, text);
        break;
    case SPEECH_CALL_END:
        close_block(j, c);
        if (j->ask.one_call) {
            c->enough = true; /* also when the engine has written on, or ended, meanwhile */
            engine_cancel(j->engine, c->request.id);
        }
        break;
    }
}

void say_begin(struct job *j, struct choice *c)
{
    if (j->kind != ASK_CHAT)
        return;
    c->speech = arena_alloc_zero(&j->arena, 1, sizeof *c->speech);
    if (!c->speech) {
        c->failed = true;
        return;
    }
    speech_init(c->speech,
                &(struct speech_options){.format = j->voice->format,
                                         .think = j->voice->think,
                                         .tools = j->tools.count ? &j->tools : NULL,
                                         .thinking = j->thinking,
                                         .calls_first = j->calls_first,
                                         .eager = j->ask.stream && !(j->protocol->flags & PROTOCOL_LATE)},
                on_speech, c);
}

void say_words(struct job *j, struct choice *c, struct str text)
{
    if (!c->speech) {
        say(j, c, BLOCK_TEXT, text);
        return;
    }
    bool before = speech_is_reasoning(c->speech);
    speech_feed(c->speech, text);
    c->n_reason += before || speech_is_reasoning(c->speech);
    c->failed |= c->speech->failed;
}

void say_end(struct job *j, struct choice *c)
{
    if (c->speech) {
        speech_end(c->speech);
        c->failed |= c->speech->failed;
    }
    close_block(j, c);
}

/* All blocks of a kind, joined. */
void say_join(struct buf *out, const struct choice *c, enum block_kind kind)
{
    for (size_t i = 0; i < c->n_block; i++)
        if (c->blocks[i].kind == kind)
            buf_append_str(out, buf_str(&c->blocks[i].text));
}

size_t say_bytes(const struct choice *c)
{
    size_t n = c->block_capacity * sizeof *c->blocks;
    if (c->speech)
        n += c->speech->held.capacity + c->speech->args.capacity;
    for (size_t i = 0; i < c->n_block; i++)
        n += c->blocks[i].text.capacity + c->blocks[i].logprobs.capacity;
    return n;
}

void say_free(struct choice *c)
{
    if (c->speech)
        speech_free(c->speech);
    for (size_t i = 0; i < c->n_block; i++)
        buf_free(&c->blocks[i].text), buf_free(&c->blocks[i].logprobs);
    mem_free(c->blocks);
    c->blocks = NULL;
    c->n_block = c->block_capacity = 0;
}
