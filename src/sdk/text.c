/* Statuses, sizes of structs, and text to tokens and back. */
#include "sdk/sdk.h"

#include "base/mem.h"

#include <stdio.h>

_Static_assert((int)INGOT_DEVICE == (int)ST_DEVICE && (int)INGOT_LIMIT == (int)ST_LIMIT, "statuses are the rooms'");
_Static_assert((int)INGOT_FINISH_ERROR == (int)FINISH_ERROR, "ends are the engine's");
_Static_assert((int)INGOT_TASK_SCORE == (int)TASK_SCORE, "tasks are the model's");
_Static_assert((int)INGOT_SPECIAL == (int)TOKENIZE_SPECIAL && (int)INGOT_ADD == (int)TOKENIZE_ADD, "flags likewise");

/* A field that came into bytes which pad a struct's end would not change its size. */
#define ENDS_WITH(type, field) (offsetof(type, field) + sizeof(((type *)0)->field) == sizeof(type))
_Static_assert(ENDS_WITH(ingot_sampling, n_stop) && ENDS_WITH(ingot_model_options, pooling) &&
                   ENDS_WITH(ingot_model_info, n_out) && ENDS_WITH(ingot_token, text_len) &&
                   ENDS_WITH(ingot_result, decode_s) && ENDS_WITH(ingot_request, adapter) &&
                   ENDS_WITH(ingot_embedding, interrupt),
               "structs end with a field");

const char *ingot_version(void)
{
    return INGOT_VERSION;
}

int ingot_abi(void)
{
    return INGOT_ABI;
}

const char *ingot_status_name(int status)
{
    return status >= 0 && status < ST_COUNT ? status_row((enum status)status)->name : "unknown";
}

void ingot_free(void *text)
{
    mem_free(text);
}

int sdk_fail(ingot_error *out, const struct error *err)
{
    if (out) {
        out->status = (int)err->status;
        snprintf(out->text, sizeof out->text, "%s", err->text);
    }
    return (int)err->status;
}

int sdk_refuse(ingot_error *out, enum status st, const char *text)
{
    struct error err;
    fail(&err, st, "%s", text);
    return sdk_fail(out, &err);
}

bool sized_read(void *own, size_t own_size, const void *given)
{
    size_t size, n;
    if (!given)
        return true;
    memcpy(&size, given, sizeof size);
    if (size < sizeof size || size > 65536)
        return false;
    for (n = own_size; n < size; n++)
        if (((const char *)given)[n])
            return false;
    memcpy(own, given, size < own_size ? size : own_size);
    return true;
}

void sized_write(void *given, const void *own, size_t own_size)
{
    size_t size;
    if (!given)
        return;
    memcpy(&size, given, sizeof size);
    if (size > sizeof size)
        memcpy((char *)given + sizeof size, (const char *)own + sizeof size,
               (size < own_size ? size : own_size) - sizeof size);
}

/* ---- tokens ---- */
static int hand_over(struct ids *ids, enum status st, struct error *err, int32_t *out, size_t room, size_t *n,
                     ingot_error *error)
{
    int result = INGOT_OK;
    *n = ids->count;
    if (st != ST_OK)
        result = sdk_fail(error, err);
    else if (ids->count > room)
        result = sdk_refuse(error, ST_LIMIT, "there is not enough room for the tokens: *n says how much is needed");
    else if (ids->count)
        memcpy(out, ids->ids, ids->count * sizeof *out);
    ids_free(ids);
    return result;
}

static int no_tokenizer(const struct bundle *b, ingot_error *error)
{
    struct error err;
    if (b->tokenizer)
        return INGOT_OK;
    fail(&err, ST_UNSUPPORTED, "%s has no tokenizer: it takes token ids only", b->id);
    return sdk_fail(error, &err);
}

int ingot_tokenize(const ingot_model *model, const char *text, size_t text_len, int flags, int32_t *ids, size_t room,
                   size_t *n, ingot_error *error)
{
    struct ids list = {0};
    struct error err;
    int bad = no_tokenizer(model->bundle, error);
    *n = 0;
    if (bad)
        return bad;
    enum status st =
        flags & ~(INGOT_SPECIAL | INGOT_ADD)
            ? fail(&err, ST_INVALID, "flags %d: expected INGOT_SPECIAL, INGOT_ADD, or both", flags)
            : tokenizer_encode(model->bundle->tokenizer, &list, str_n(text, text_len), (unsigned)flags, &err);
    return hand_over(&list, st, &err, ids, room, n, error);
}

int ingot_chat_tokenize(const ingot_model *model, const char *messages, int32_t *ids, size_t room, size_t *n,
                        ingot_error *error)
{
    struct ids list = {0};
    struct error err;
    int bad = no_tokenizer(model->bundle, error);
    *n = 0;
    if (bad)
        return bad;
    enum status st = bundle_messages_ids(&list, model->bundle, str_of(messages), &err);
    return hand_over(&list, st, &err, ids, room, n, error);
}

int ingot_detokenize(const ingot_model *model, const int32_t *ids, size_t n_id, char *text, size_t room, size_t *n,
                     ingot_error *error)
{
    struct buf out = {0};
    struct error err;
    int result = no_tokenizer(model->bundle, error);
    *n = 0;
    if (result)
        return result;
    enum status st = tokenizer_decode(model->bundle->tokenizer, &out, ids, n_id, 0, &err);
    if (st == ST_OK && out.failed)
        st = fail_nomem(&err, "detokenize");
    *n = out.len;
    if (st != ST_OK)
        result = sdk_fail(error, &err);
    else if (out.len >= room)
        result = sdk_refuse(error, ST_LIMIT, "there is not enough room for the text: *n and one byte are needed");
    else
        memcpy(text, buf_str(&out).ptr, out.len), text[out.len] = 0;
    buf_free(&out);
    return result;
}
