/* Ollama's routes that change which models there are. Here the operator decides that, and nothing is fetched or
 * deleted: pull finds what is served already, copy and create give it one more name, delete takes such a name away.
 * What cannot be is said in Ollama's own form.
 */
#include "gateway/private.h"

#include <stdio.h>

static bool read_name(char *out, size_t size, const struct json *body, const char *key)
{
    bool good = admin_text(out, size, body, key) ||
                (!strcmp(key, "model") && admin_text(out, size, body, "name")); /* older clients */
    if (good)
        out[without_tag(str_of(out)).len] = 0;
    return good;
}

enum status ollama_model(char *out, size_t size, const struct json *body, struct error *err)
{
    return read_name(out, size, body, "model") ? ST_OK : fail(err, ST_INVALID, "model: missing, or too long");
}

static bool is_served(const struct gateway *g, const char *name)
{
    return !strcmp(name, g->bundle->id) || (g->hosting && hosting_knows(g->hosting, str_of(name)));
}

static void say_status(struct buf *said, const char *status)
{
    buf_printf(said, "{\"status\":\"%s\"}\n", status);
}

static enum status pull(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char name[HOSTED_NAME_MAX];
    TRY(ollama_model(name, sizeof name, body, err));
    say_status(said, "pulling manifest");
    if (!is_served(g, name))
        return fail(err, ST_NOT_FOUND,
                    "pull model manifest: %.100s is not served here, and this server fetches nothing: start it with "
                    "the model's path (ingot serve PATH), or load it from one (POST /v1/models/load)",
                    name);
    say_status(said, "success");
    return ST_OK;
}

static enum status push(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    (void)g, (void)body, (void)said;
    return fail(err, ST_UNSUPPORTED, "push: this server sends models nowhere");
}

static enum status give_name(struct gateway *g, const char *alias, const char *name, struct error *err)
{
    if (!is_served(g, name))
        return fail(err, ST_NOT_FOUND, "model '%.100s' not found", name);
    return hosting_alias(g->hosting, alias, name, err);
}

static enum status copy(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char from[HOSTED_NAME_MAX], to[HOSTED_NAME_MAX];
    (void)said;
    if (!read_name(from, sizeof from, body, "source") || !read_name(to, sizeof to, body, "destination"))
        return fail(err, ST_INVALID, "source and destination: missing, or too long");
    return give_name(g, to, from, err);
}

static enum status create(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    static const char *const known[] = {"model", "name", "from", "stream", "license"};
    char name[HOSTED_NAME_MAX], from[HOSTED_NAME_MAX];
    JSON_EACH_MEMBER (key, value, body) {
        bool is_known = json_type(value) == JSON_NULL;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            is_known |= str_is(key, known[i]);
        if (!is_known)
            return fail(err, ST_UNSUPPORTED,
                        "%.*s: a name has nothing of its own here: send it with each request, or start the server "
                        "with a model that has it",
                        key.len > 60 ? 60 : (int)key.len, key.ptr);
    }
    if (!read_name(name, sizeof name, body, "model") || !read_name(from, sizeof from, body, "from"))
        return fail(err, ST_INVALID, "model and from (the name of a served model): missing, or too long");
    TRY(give_name(g, name, from, err));
    say_status(said, "success");
    return ST_OK;
}

static enum status delete_name(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char name[HOSTED_NAME_MAX];
    (void)said;
    TRY(ollama_model(name, sizeof name, body, err));
    if (!is_served(g, name))
        return fail(err, ST_NOT_FOUND, "model '%.100s' not found", name);
    if (hosting_unalias(g->hosting, name, err) != ST_OK)
        return fail(err, ST_INVALID,
                    "%.100s is a model, not a second name of one: its file is not deleted; \"keep_alive\": 0 "
                    "unloads it",
                    name);
    return ST_OK;
}

#define JSON_TYPE .type = "application/json"
const struct admin_call ollama_pull = {pull, JSON_TYPE, .free = true, .lines = true},
                        ollama_push = {push, JSON_TYPE, .free = true, .lines = true},
                        ollama_create = {create, JSON_TYPE, .lines = true}, ollama_copy = {copy, JSON_TYPE},
                        ollama_delete = {delete_name, JSON_TYPE};
