/* What a choice says, as a list of blocks: each begins, grows and closes; a stream tells each change as it happens. */
#include "gateway/private.h"

#include "base/mem.h"

static bool keeps(const struct job *j)
{
    return !j->ask.stream || j->protocol->flags & PROTOCOL_KEEPS;
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

void say_close(struct job *j, struct choice *c)
{
    struct block *b = last_block(c);
    if (!b || !b->open)
        return;
    b->open = false;
    if (j->ask.stream && j->protocol->close)
        j->protocol->close(j, c, b);
}

void say(struct job *j, struct choice *c, enum block_kind kind, struct str text)
{
    struct block *b = last_block(c);
    if (!b || !b->open || b->kind != kind) {
        say_close(j, c);
        b = open_block(c, kind);
        if (b && j->ask.stream && j->protocol->open)
            j->protocol->open(j, c, b);
    }
    if (!b)
        return;
    if (keeps(j)) {
        buf_append_str(&b->text, text);
        c->failed |= b->text.failed;
    }
    if (j->ask.stream)
        j->protocol->delta(j, c, b, text);
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
    for (size_t i = 0; i < c->n_block; i++)
        n += c->blocks[i].text.capacity;
    return n;
}

void say_free(struct choice *c)
{
    for (size_t i = 0; i < c->n_block; i++)
        buf_free(&c->blocks[i].text);
    mem_free(c->blocks);
    c->blocks = NULL;
    c->n_block = c->block_capacity = 0;
}
