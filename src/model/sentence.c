/* sentence - the files that sentence-transformers puts beside a model: modules.json, the pooling's config.json,
 * sentence_bert_config.json, config_sentence_transformers.json
 *
 * A module that would change the vectors and is not offered is refused by name; Normalize is not a step of the model:
 * whoever hands vectors out normalizes them. The weights of Dense modules come with the checkpoint.
 */
#include "base/file.h"
#include "base/json.h"
#include "model/private.h"

#include <stdio.h>

enum { FILE_MAX = 4 << 20, PATH_BYTES = 4096 };

/* A JSON file of the folder; *doc NULL when there is none. Its strings live in the arena. */
static enum status read_file(const struct json **doc, struct arena *arena, const char *folder, const char *name,
                             struct error *err)
{
    char path[PATH_BYTES];
    struct buf text = {0};
    *doc = NULL;
    if (file_kind(path_join(path, sizeof path, folder, name)) == FILE_ABSENT)
        return ST_OK;
    enum status st = file_read_all(&text, path, FILE_MAX, err);
    char *kept = st == ST_OK ? arena_alloc(arena, text.len + 1) : NULL;
    if (st == ST_OK && !kept)
        st = fail_nomem(err, "config");
    if (st == ST_OK) {
        memcpy(kept, text.ptr ? text.ptr : "", text.len);
        st = json_parse(doc, arena, str_n(kept, text.len), 0, err);
    }
    buf_free(&text);
    return st == ST_OK ? ST_OK : fail(err, st, "%.300s: %.180s", path, err ? err->text : "");
}

/* Old files have a switch for each way, new ones the name of the way. */
static enum status read_pooling(struct sentence *s, const struct json *config, const char *name, struct error *err)
{
    static const struct {
        const char *key, *name;
        enum pooling pooling;
    } ways[] = {{"pooling_mode_cls_token", "cls", POOL_FIRST}, /* in the order in which several are joined */
                {"pooling_mode_max_tokens", "max", POOL_MAX},
                {"pooling_mode_mean_tokens", "mean", POOL_MEAN},
                {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", POOL_MEAN_SQRT},
                {"pooling_mode_weightedmean_tokens", "weightedmean", POOL_WEIGHTED},
                {"pooling_mode_lasttoken", "lasttoken", POOL_LAST}};
    enum { N_WAY = sizeof ways / sizeof *ways };
    const struct json *mode = json_get(config, "pooling_mode");
    int n = 0;
    if (!json_bool(json_get(config, "include_prompt"), true))
        return fail(err, ST_UNSUPPORTED, "%s: include_prompt: false is not offered", name);
    for (size_t i = 0; i < N_WAY && !mode; i++)
        if (json_bool(json_get(config, ways[i].key), false))
            s->pooling |= (unsigned)ways[i].pooling << POOL_BITS * n++;
    for (size_t k = 0; mode && k < (json_is(mode, JSON_ARRAY) ? json_count(mode) : 1); k++) {
        struct str one = json_str(json_is(mode, JSON_ARRAY) ? json_at(mode, k) : mode);
        size_t i = 0;
        while (i < N_WAY && !str_is(one, ways[i].name))
            i++;
        if (i == N_WAY || n == POOL_WAYS_MAX)
            return fail(err, ST_UNSUPPORTED,
                        "%s: pooling_mode \"%.*s\" is not offered; at most %d of cls, max, mean, mean_sqrt_len_tokens, "
                        "weightedmean and lasttoken are",
                        name, STR_ARG(one), POOL_WAYS_MAX);
        s->pooling |= (unsigned)ways[i].pooling << POOL_BITS * n++;
    }
    s->pooling = n ? s->pooling : POOL_MEAN;
    return ST_OK;
}

static enum status read_words(struct sentence *s, const struct json *config, const char *name, struct error *err)
{
    int64_t yes = json_int(json_get(config, "true_token_id"), -1),
            no = json_int(json_get(config, "false_token_id"), -1);
    if (yes < 0 || yes > INT32_MAX || no < -1 || no > INT32_MAX)
        return fail(err, ST_CORRUPT, "%s: true_token_id %lld, false_token_id %lld", name, (long long)yes,
                    (long long)no);
    s->words = (struct words){true, (int32_t)yes, (int32_t)no};
    return ST_OK;
}

enum status words_find(struct words *w, const struct checkpoint *ck, struct error *err)
{
    struct tokenizer *tok;
    struct ids ids = {0};
    TRY(tokenizer_from_checkpoint(&tok, ck, err));
    enum status st = tokenizer_encode(tok, &ids, STR("yes"), 0, err);
    if (st == ST_OK)
        st = tokenizer_encode(tok, &ids, STR("no"), 0, err);
    if (st == ST_OK && (ids.count != 2 || ids.ids[0] == ids.ids[1]))
        st = fail(err, ST_UNSUPPORTED, "pooling rank: \"yes\" and \"no\" are no single tokens of this vocabulary");
    if (st == ST_OK)
        *w = (struct words){true, ids.ids[0], ids.ids[1]};
    ids_free(&ids);
    tokenizer_close(tok);
    return st;
}

static enum status read_dense(struct sentence *s, const struct json *config, const char *name, struct error *err)
{
    struct str fn = json_str(json_get(config, "activation_function")),
               input = json_str(json_get(config, "module_input_name"));
    int64_t n_in = json_int(json_get(config, "in_features"), 0), n_out = json_int(json_get(config, "out_features"), 0);
    struct sentence_dense *d = &s->dense[s->n_dense];
    bool tanh = !fn.ptr || str_ends(fn, STR(".Tanh")), identity = str_ends(fn, STR(".Identity"));
    if (s->n_dense == DENSE_MAX || !s->pooling || s->normalized)
        return fail(err, ST_UNSUPPORTED, "%s: Dense is offered behind the Pooling, before Normalize, at most %d times",
                    name, DENSE_MAX);
    if (!tanh && !identity)
        return fail(err, ST_UNSUPPORTED, "%s: activation_function \"%.*s\" is not offered; Tanh and Identity are", name,
                    STR_ARG(fn));
    if (json_bool(json_get(config, "use_residual"), false) || (input.ptr && !str_is(input, "sentence_embedding")))
        return fail(err, ST_UNSUPPORTED, "%s: use_residual and other inputs than sentence_embedding are not offered",
                    name);
    if (n_in < 1 || n_in > DIM_MAX || n_out < 1 || n_out > 1 << 20)
        return fail(err, ST_CORRUPT, "%s: in_features %lld, out_features %lld", name, (long long)n_in,
                    (long long)n_out);
    *d = (struct sentence_dense){(int)n_in, (int)n_out, json_bool(json_get(config, "bias"), true), tanh};
    s->n_dense++;
    return ST_OK;
}

/* The last word of "sentence_transformers.models.Pooling". */
static struct str last_word(struct str type)
{
    size_t at = type.len;
    while (at > 0 && type.ptr[at - 1] != '.')
        at--;
    return str_from(type, at);
}

static enum status read_module(struct sentence *s, const struct json *module, struct arena *arena, const char *folder,
                               struct error *err)
{
    struct str type = last_word(json_str(json_get(module, "type"))), path = json_str(json_get(module, "path"));
    const struct json *config;
    char name[PATH_BYTES / 8];
    if (str_is(type, "Transformer") && path.len == 0)
        return ST_OK;
    bool pooling = str_is(type, "Pooling");
    s->normalized |= str_is(type, "Normalize");
    if (str_is(type, "Normalize") || str_is(type, "Dropout"))
        return ST_OK;
    bool words = str_is(type, "LogitScore");
    if (!str_is(type, "Dense") && !(words && !s->pooling) && (!pooling || s->pooling || s->words.found))
        return fail(err, ST_UNSUPPORTED,
                    "modules.json: the module \"%.*s\"%s is not offered; Transformer, Pooling, Dense, Normalize and "
                    "LogitScore are",
                    STR_ARG(type),
                    str_is(type, "Transformer") ? " in a folder of its own"
                    : pooling                   ? " once more"
                                                : "");
    bool plain = path.len < 200 && str_find(path, STR(".."), 0) == SIZE_MAX && !str_starts(path, STR("/"));
    snprintf(name, sizeof name, "%.*s/config.json", plain ? (int)path.len : 0, plain ? path.ptr : "");
    TRY(read_file(&config, arena, folder, name, err));
    if (!config)
        return fail(err, ST_NOT_FOUND, "modules.json names %.200s, which is not there", name);
    return pooling ? read_pooling(s, config, name, err)
           : words ? read_words(s, config, name, err)
                   : read_dense(s, config, name, err);
}

static void read_prompts(struct sentence *s, const struct json *config)
{
    struct str chosen = json_str(json_get(config, "default_prompt_name"));
    JSON_EACH_MEMBER (name, text, json_get(config, "prompts"))
        if (s->n_prompt < PROMPTS_MAX && json_is(text, JSON_STRING)) {
            if (chosen.ptr && str_eq(name, chosen))
                s->default_prompt = s->n_prompt;
            s->prompts[s->n_prompt++] = (struct sentence_prompt){name, json_str(text)};
        }
}

enum status sentence_read(struct sentence *s, struct arena *arena, const char *folder, struct error *err)
{
    const struct json *modules, *config;
    *s = (struct sentence){.default_prompt = -1};
    TRY(read_file(&modules, arena, folder, "modules.json", err));
    if (!modules)
        return ST_OK;
    JSON_EACH (module, modules) {
        TRY(read_module(s, module, arena, folder, err));
    }
    s->found = s->pooling != 0;
    TRY(read_file(&config, arena, folder, "sentence_bert_config.json", err));
    int64_t n = json_int(json_get(config, "max_seq_length"), 0);
    s->n_ctx = n > 0 && n <= 1 << 20 ? (int)n : 0;
    TRY(read_file(&config, arena, folder, "config_sentence_transformers.json", err));
    read_prompts(s, config);
    return ST_OK;
}

static const char *const pooling_names[POOL_COUNT] = {"none", "mean", "cls", "last", "max", "sqrt", "weighted"};

unsigned pooling_parse(struct str names)
{
    unsigned ways = 0;
    if (str_is(names, "rank"))
        return POOLING_RANK;
    for (int n = 0; n < POOL_WAYS_MAX; n++) {
        size_t end = str_find(names, STR("+"), 0);
        struct str one = end == SIZE_MAX ? names : str_n(names.ptr, end);
        enum pooling p = POOL_MEAN;
        while (p < POOL_COUNT && !str_is(one, pooling_names[p]))
            p++;
        if (p == POOL_COUNT)
            return 0;
        ways |= (unsigned)p << POOL_BITS * n;
        if (end == SIZE_MAX)
            return ways;
        names = str_from(names, end + 1);
    }
    return 0;
}

bool model_by_words(const struct model *m)
{
    return m->arch.sentence.words.found;
}

struct str model_prompt(const struct model *m, struct str name)
{
    const struct sentence *s = &m->arch.sentence;
    for (int i = 0; i < s->n_prompt; i++)
        if (name.ptr ? str_eq(s->prompts[i].name, name) : i == s->default_prompt)
            return s->prompts[i].text;
    return name.ptr ? (struct str){0} : STR("");
}
