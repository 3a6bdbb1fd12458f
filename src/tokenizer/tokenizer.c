#include "tokenizer/tok.h"
#include "base/file.h"
#include "base/unicode.h"

#include <stdio.h>

/* A load may take 8 bytes of memory for each byte read and SLACK beside; arrays indexed by id take 64 bytes an id.
 * Real vocabularies stay far below: tests/tokenizer/test_damage.c prints their shares. */
enum { MEMORY_SHARE = 8, MEMORY_SLACK = 16 << 20, BYTES_AN_ID = 64 };

/* ---- helpers of the loaders ---- */
struct str tok_copy(struct tokenizer *tok, struct str s)
{
    return (struct str){arena_copy(&tok->arena, s), s.len};
}

enum status tok_norm(struct tokenizer *tok, struct norm_step **step, enum norm_type type, struct error *err)
{
    if (tok->n_norm == NORM_STEPS_MAX)
        return fail(err, ST_UNSUPPORTED, "tokenizer: more than %d normalizer steps", NORM_STEPS_MAX);
    *step = &tok->norm[tok->n_norm++];
    **step = (struct norm_step){.type = type};
    return ST_OK;
}

enum status tok_pre(struct tokenizer *tok, struct pre_step step, struct error *err)
{
    if (tok->n_pre == PRE_STEPS_MAX)
        return fail(err, ST_UNSUPPORTED, "tokenizer: more than %d pre-tokenizer steps", PRE_STEPS_MAX);
    tok->pre[tok->n_pre++] = step;
    return ST_OK;
}

/* Tokens that are not special but look like markup (<think>, <tool_call>, [REF]) steer a model as special ones do, so
 * that what a user wrote must not make them either. Runs of blanks and ordinary words may be made by anyone. */
bool looks_like_markup(struct str s)
{
    return s.len > 2 && ((s.ptr[0] == '<' && s.ptr[s.len - 1] == '>') || (s.ptr[0] == '[' && s.ptr[s.len - 1] == ']'));
}

enum status tok_add(struct tokenizer *tok, const struct added *a, unsigned flags, struct error *err)
{
    struct vocab *v = &tok->vocab;
    struct added copy = *a;
    bool present = (size_t)a->id < v->size && v->flags[a->id] & TOKEN_PRESENT;
    copy.content = tok_copy(tok, a->content);
    copy.control = flags & TOKEN_SPECIAL || looks_like_markup(a->content);
    struct added *more = mem_realloc(tok->added, tok->n_added + 1, sizeof *more);
    if (more)
        tok->added = more;
    if (!more || !copy.content.ptr)
        return fail_nomem(err, "the added tokens");
    if (!present) {
        if (v->index && v->bytes != v->text)
            return fail(err, ST_CORRUPT, "tokenizer: added token \"%.*s\" has id %d, beyond the vocabulary",
                        STR_ARG(a->content), a->id);
        TRY(vocab_put(v, a->id, a->content, flags | TOKEN_ADDED, err));
    } else {
        v->flags[a->id] |= (uint8_t)flags;
    }
    tok->added[tok->n_added++] = copy;
    return ST_OK;
}

enum status tok_add_control(struct tokenizer *tok, int64_t id, struct str content, bool special, struct error *err)
{
    struct added a = {.id = (int32_t)id, .content = content};
    if (id < 0 || id > INT32_MAX || content.len == 0)
        return ST_OK;
    return tok_add(tok, &a, special ? TOKEN_SPECIAL : 0, err);
}

/* ---- after loading ---- */
static enum status index_one(struct tokenizer *tok, enum added_trie which, struct str s, size_t i, struct error *err)
{
    struct trie *t = &tok->added_tries[which];
    if ((!t->slots && !trie_init(t)) || !trie_put(t, s, (int32_t)i))
        return fail_nomem(err, "the added tokens");
    tok->added_first[which][(unsigned char)s.ptr[0]] = true;
    return ST_OK;
}

/* What the token's content is in a normalized text. */
static enum status normalized_content(const struct tokenizer *tok, struct buf text[2], struct str *s, struct error *err)
{
    for (int k = 0; k < tok->n_norm; k++) {
        buf_clear(&text[k & 1]);
        TRY(norm_apply(&tok->norm[k], &text[k & 1], *s, err));
        if (text[k & 1].failed)
            return fail_nomem(err, "the added tokens");
        *s = buf_str(&text[k & 1]);
    }
    return ST_OK;
}

static enum status index_added(struct tokenizer *tok, struct error *err)
{
    struct buf text[2] = {{0}, {0}};
    enum status st = ST_OK;
    for (size_t i = 0; st == ST_OK && i < tok->n_added; i++) {
        const struct added *a = &tok->added[i];
        struct str s = a->content;
        if (a->normalized)
            st = normalized_content(tok, text, &s, err);
        if (st == ST_OK && s.len && !a->pieces_only)
            st = index_one(tok, a->normalized ? ADDED_NORMALIZED : ADDED_RAW, s, i, err);
        if (st == ST_OK && (!a->normalized || a->control))
            st = index_one(tok, ADDED_PIECES, a->content, i, err);
        /* As the original does, it decodes to what it is found by: "\xE2\x96\x81<unk>", say. */
        if (st == ST_OK && s.len && !str_eq(s, a->content) && tok->vocab.bytes == tok->vocab.text)
            st = vocab_put(&tok->vocab, a->id, s, 0, err);
    }
    buf_free(&text[0]);
    buf_free(&text[1]);
    return st;
}

static enum status check_added_ids(const struct tokenizer *tok, const int32_t *ids, int n, struct error *err)
{
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= tok->vocab.size)
            return fail(err, ST_CORRUPT, "tokenizer: the post-processor adds id %d; ids are below %zu", ids[i],
                        tok->vocab.size);
    return ST_OK;
}

enum status tok_finish(struct tokenizer *tok, struct error *err)
{
    static const char *const bos_names[] = {"<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "[CLS]"};
    static const char *const eos_names[] = {"</s>",  "<|im_end|>",    "<|eot_id|>", "<|end_of_text|>",
                                            "<eos>", "<|endoftext|>", "[SEP]"};
    TRY(index_added(tok, err));
    TRY(check_added_ids(tok, tok->before, tok->n_before, err));
    TRY(check_added_ids(tok, tok->after, tok->n_after, err));
    TRY(check_added_ids(tok, tok->between, tok->n_between, err));
    TRY(check_added_ids(tok, tok->pair_after, tok->n_pair_after, err));
    if (tok->unknown >= 0 && (size_t)tok->unknown >= tok->vocab.size)
        return fail(err, ST_CORRUPT, "tokenizer: the unknown token's id is %d; ids are below %zu", tok->unknown,
                    tok->vocab.size);
    for (size_t i = 0; tok->bos < 0 && tok->n_before && i < sizeof bos_names / sizeof *bos_names; i++)
        tok->bos = tokenizer_find(tok, str_of(bos_names[i]));
    for (size_t i = 0; tok->eos < 0 && i < sizeof eos_names / sizeof *eos_names; i++)
        tok->eos = tokenizer_find(tok, str_of(eos_names[i]));
    for (int i = 0; i < tok->n_before; i++)
        tok->adds_bos = tok->adds_bos || tok->before[i] == tok->bos;
    return ST_OK;
}

/* bos_token: a string or {"content": ...}. */
static int32_t config_token(const struct tokenizer *tok, const struct json *config, const char *key)
{
    const struct json *v = json_get(config, key);
    struct str s = json_is(v, JSON_OBJECT) ? json_str(json_get(v, "content")) : json_str(v);
    return s.ptr ? tokenizer_find(tok, s) : NO_ID;
}

enum status load_config(struct tokenizer *tok, struct str text, struct error *err)
{
    struct arena arena;
    const struct json *doc;
    arena_init(&arena, 0);
    enum status st = json_parse(&doc, &arena, text, 0, err);
    if (st == ST_OK) {
        int32_t bos = config_token(tok, doc, "bos_token"), eos = config_token(tok, doc, "eos_token");
        const struct json *template = json_get(doc, "chat_template");
        tok->bos = bos >= 0 ? bos : tok->bos;
        tok->eos = eos >= 0 ? eos : tok->eos;
        if (json_is(template, JSON_ARRAY)) { /* several, by name: the one called default */
            const struct json *chosen = NULL;
            JSON_EACH (item, template) {
                if (!chosen || str_is(json_str(json_get(item, "name")), "default"))
                    chosen = json_get(item, "template");
            }
            template = chosen;
        }
        struct str s = json_str(template);
        if (s.ptr && !tok->chat_template.ptr) {
            tok->chat_template = tok_copy(tok, s);
            st = tok->chat_template.ptr ? ST_OK : fail_nomem(err, "the chat template");
        }
    }
    arena_free(&arena);
    return st == ST_OK ? ST_OK : fail_context(err, "tokenizer_config.json");
}

/* ---- opening ---- */
static struct tokenizer *tokenizer_new(uint64_t file_bytes)
{
    struct tokenizer *tok = mem_alloc_zero(1, sizeof *tok);
    if (!tok)
        return NULL;
    arena_init(&tok->arena, 0);
    tok->unknown = tok->bos = tok->eos = NO_ID;
    uint64_t n_id_max = MEMORY_SLACK / BYTES_AN_ID + file_bytes / (BYTES_AN_ID / MEMORY_SHARE);
    tok->vocab.n_id_max = n_id_max < INT32_MAX ? (size_t)n_id_max : INT32_MAX;
    return tok;
}

void tokenizer_close(struct tokenizer *tok)
{
    if (!tok)
        return;
    for (int i = 0; i < SCRATCH_SLOTS; i++)
        scratch_destroy(tok->spare[i]);
    vocab_free(&tok->vocab);
    mem_free(tok->pairs);
    mem_free(tok->added);
    trie_free(&tok->pieces);
    trie_free(&tok->pieces_inner);
    trie_free(&tok->symbols);
    trie_free(&tok->symbols_plain);
    for (int i = 0; i < ADDED_TRIES; i++)
        trie_free(&tok->added_tries[i]);
    arena_free(&tok->arena);
    mem_free(tok);
}

enum { SIDE_PATH = 4096 };

/* What decides the ids, for whoever wants to know whether two tokenizers are one. */
static enum status note_file(struct tokenizer *tok, const char *path, const struct mapping *m, struct error *err)
{
    for (int i = 0; i < tok->n_file; i++)
        if (!strcmp(tok->files[i].path, path))
            return ST_OK;
    const char *copy = arena_copy(&tok->arena, str_of(path));
    if (!copy || tok->n_file == TOK_FILES_MAX)
        return fail_nomem(err, "the tokenizer's files");
    tok->files[tok->n_file++] = (struct tok_file){copy, m->id};
    return ST_OK;
}

const char *tokenizer_file(struct file_id *id, const struct tokenizer *tok, int i)
{
    if (i >= tok->n_file)
        return NULL;
    *id = tok->files[i].id;
    return tok->files[i].path;
}

/* Maps folder/name when it is there, else *out is empty with data NULL. What it holds may be taken memory for, too. */
static enum status map_side(struct mapping *out, struct tokenizer *tok, const char *folder, const char *name,
                            struct error *err)
{
    char path[SIDE_PATH];
    path_join(path, sizeof path, folder, name);
    *out = (struct mapping){0};
    if (file_kind(path) != FILE_REGULAR)
        return ST_OK;
    TRY(file_map(out, path, err));
    mem_budget_grant(MEMORY_SHARE * out->size);
    enum status st = note_file(tok, path, out, err);
    if (st != ST_OK) {
        file_unmap(out);
        *out = (struct mapping){0};
    }
    return st;
}

/* What was read from it counts only if it was whole until now. */
static enum status unmap_side(struct mapping *m, const char *folder, const char *name, enum status st,
                              struct error *err)
{
    char path[SIDE_PATH];
    path_join(path, sizeof path, folder, name);
    if (m->data && st == ST_OK)
        st = file_check(m, path, err);
    if (m->data)
        file_unmap(m);
    return st;
}

static struct str side_str(const struct mapping *m) /* ptr NULL when there is no such file */
{
    return str_n(m->data, m->size);
}

static enum status load_sides(struct tokenizer *tok, const char *folder, struct error *err)
{
    struct mapping config = {0}, template = {0};
    enum status st = map_side(&template, tok, folder, "chat_template.jinja", err);
    if (st == ST_OK && template.data) {
        tok->chat_template = tok_copy(tok, side_str(&template));
        st = tok->chat_template.ptr ? ST_OK : fail_nomem(err, "the chat template");
    }
    if (st == ST_OK)
        st = map_side(&config, tok, folder, "tokenizer_config.json", err);
    if (st == ST_OK && config.data)
        st = load_config(tok, side_str(&config), err);
    st = unmap_side(&config, folder, "tokenizer_config.json", st, err);
    return unmap_side(&template, folder, "chat_template.jinja", st, err);
}

static enum status load_vocab_json(struct tokenizer *tok, const char *folder, struct str vocab, struct error *err)
{
    struct mapping merges = {0}, config = {0};
    if (!folder)
        return fail(err, ST_NOT_FOUND, "a vocab.json needs a merges.txt beside it");
    enum status st = map_side(&merges, tok, folder, "merges.txt", err);
    if (st == ST_OK)
        st = map_side(&config, tok, folder, "tokenizer_config.json", err);
    if (st == ST_OK && !merges.data)
        st = fail(err, ST_NOT_FOUND, "%s: a vocab.json without a merges.txt beside it", folder);
    if (st == ST_OK)
        st = load_vocab_merges(tok, vocab, side_str(&merges), side_str(&config), err);
    st = unmap_side(&merges, folder, "merges.txt", st, err);
    return unmap_side(&config, folder, "tokenizer_config.json", st, err);
}

static bool is_tiktoken(struct str s) /* base64, a blank, a number */
{
    struct str line = str_next_line(&s);
    size_t space = str_find(line, STR(" "), 0);
    int64_t rank;
    return space != SIZE_MAX && space > 0 && space < 400 && str_to_i64(&rank, str_from(line, space + 1));
}

static bool is_llama2c(struct str s) /* begins with the length of the longest token */
{
    int32_t longest = -1;
    if (s.len >= 16)
        memcpy(&longest, s.ptr, sizeof longest);
    return longest >= 0 && (size_t)longest < s.len;
}

/* The kind is told from the bytes. */
static enum status load_bytes(struct tokenizer *tok, struct str bytes, const char *path, const char *folder,
                              struct error *err)
{
    struct str head = str_trim(str_n(bytes.ptr, bytes.len < 64 ? bytes.len : 64));
    if (head.len && head.ptr[0] == '{') {
        if (str_find(bytes, STR("\"model\""), 0) != SIZE_MAX && str_find(bytes, STR("\"added_tokens\""), 0) != SIZE_MAX)
            return load_hf(tok, bytes, err);
        return load_vocab_json(tok, folder, bytes, err);
    }
    if (is_tiktoken(bytes))
        return load_tiktoken(tok, bytes, path_stem(str_of(path)), err);
    if (bytes.len && bytes.ptr[0] == '\n')
        return load_sentencepiece(tok, bytes, err);
    if (is_llama2c(bytes))
        return load_llama2c(tok, bytes, err);
    if (bytes.len == 0)
        return fail(err, ST_CORRUPT, "the file is empty");
    return fail(err, ST_CORRUPT,
                "no tokenizer that Ingot knows in these %zu bytes; expected tokenizer.json, vocab.json, a "
                "SentencePiece .model, tiktoken ranks, tokenizer.bin or GGUF",
                bytes.len);
}

/* Fills a new tokenizer within the memory that what is read can justify, and finishes it. */
struct source {
    struct str bytes;        /* of a file; else */
    const struct gguf *gguf; /* this */
    const char *path, *folder;
};

static enum status load_source(struct tokenizer *tok, const struct source *from, struct error *err)
{
    TRY(from->gguf ? load_gguf(tok, from->gguf, err) : load_bytes(tok, from->bytes, from->path, from->folder, err));
    if (from->folder)
        TRY(load_sides(tok, from->folder, err));
    return tok_finish(tok, err);
}

static enum status open_source(struct tokenizer **out, const struct source *from, uint64_t file_bytes,
                               struct error *err)
{
    struct mem_budget memory;
    *out = NULL;
    mem_budget_begin(&memory, MEMORY_SHARE * file_bytes + MEMORY_SLACK);
    struct tokenizer *tok = tokenizer_new(file_bytes);
    enum status st = tok ? load_source(tok, from, err) : fail_nomem(err, "the tokenizer");
    if (mem_budget_end(&memory) && st == ST_NOMEM)
        st = fail(err, ST_CORRUPT,
                  "tokenizer: a vocabulary from %llu bytes may take %zu bytes of memory, and this one needs more: the "
                  "file is damaged",
                  (unsigned long long)file_bytes, memory.limit);
    if (st != ST_OK) {
        tokenizer_close(tok);
        return fail_context(err, "%s", from->path);
    }
    *out = tok;
    return ST_OK;
}

enum status tok_open_bytes(struct tokenizer **out, struct str bytes, const char *path, const char *folder,
                           struct error *err)
{
    return open_source(out, &(struct source){.bytes = bytes, .path = path, .folder = folder}, bytes.len, err);
}

static enum status open_file(struct tokenizer **out, const char *path, struct error *err)
{
    struct mapping map;
    char folder[SIDE_PATH];
    TRY(file_map(&map, path, err));
    struct str bytes = str_n(map.data, map.size);
    if (str_starts(bytes, STR("GGUF"))) {
        struct checkpoint *ck;
        file_unmap(&map);
        TRY(checkpoint_open(&ck, path, err));
        enum status st = tokenizer_from_checkpoint(out, ck, err);
        checkpoint_close(ck);
        return st;
    }
    struct str base = path_base(str_of(path));
    size_t n = (size_t)(base.ptr - path);
    snprintf(folder, sizeof folder, "%.*s", (int)(n < SIDE_PATH ? n : SIDE_PATH - 1), n ? path : "");
    enum status st = tok_open_bytes(out, bytes, path, n ? folder : ".", err);
    if (st == ST_OK)
        st = file_check(&map, path, err);
    if (st == ST_OK)
        st = note_file(*out, path, &map, err);
    if (st != ST_OK) {
        tokenizer_close(*out);
        *out = NULL;
    }
    file_unmap(&map);
    return st;
}

static enum status open_folder(struct tokenizer **out, const char *folder, struct error *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "spiece.model",
                                        "vocab.json",     "tokenizer.bin",   "tok512.bin"};
    char path[SIDE_PATH];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        path_join(path, sizeof path, folder, names[i]);
        if (file_kind(path) == FILE_REGULAR)
            return open_file(out, path, err);
    }
    return fail(
        err, ST_NOT_FOUND,
        "%s: no tokenizer here; expected tokenizer.json, tokenizer.model, vocab.json with merges.txt, or tokenizer.bin",
        folder);
}

enum status tokenizer_open(struct tokenizer **out, const char *path, struct error *err)
{
    *out = NULL;
    return file_kind(path) == FILE_FOLDER ? open_folder(out, path, err) : open_file(out, path, err);
}

enum status tokenizer_from_checkpoint(struct tokenizer **out, const struct checkpoint *ck, struct error *err)
{
    *out = NULL;
    if (ck->kind != CHECKPOINT_GGUF || !gguf_find(ck->gguf, "tokenizer.ggml.tokens"))
        return ck->folder && *ck->folder ? open_folder(out, ck->folder, err)
                                         : fail(err, ST_NOT_FOUND, "%s: the model has no tokenizer", ck->path);
    return open_source(out, &(struct source){.gguf = ck->gguf, .path = ck->path}, ck->file_bytes, err);
}

/* ---- questions ---- */
int32_t tokenizer_vocab_size(const struct tokenizer *tok)
{
    return (int32_t)tok->vocab.size;
}

int32_t tokenizer_bos(const struct tokenizer *tok)
{
    return tok->bos;
}

int32_t tokenizer_eos(const struct tokenizer *tok)
{
    return tok->eos;
}

int32_t tokenizer_find(const struct tokenizer *tok, struct str text)
{
    const struct vocab *v = &tok->vocab;
    for (size_t i = 0; i < tok->n_added; i++)
        if (str_eq(tok->added[i].content, text))
            return tok->added[i].id;
    if (v->bytes == v->text)
        return vocab_find(v, text);
    struct buf bytes = {0};
    int32_t id = printable_to_bytes(&bytes, text) && !bytes.failed ? vocab_find(v, buf_str(&bytes)) : NO_ID;
    buf_free(&bytes);
    return id;
}

struct str tokenizer_token(const struct tokenizer *tok, int32_t id)
{
    bool present = id >= 0 && (size_t)id < tok->vocab.size && tok->vocab.flags[id] & TOKEN_PRESENT;
    return present ? vocab_text(&tok->vocab, id) : (struct str){NULL, 0};
}

bool tokenizer_is_special(const struct tokenizer *tok, int32_t id)
{
    return id >= 0 && (size_t)id < tok->vocab.size && tok->vocab.flags[id] & TOKEN_SPECIAL;
}

const char *tokenizer_kind(const struct tokenizer *tok)
{
    return tok->model == MODEL_BPE ? "bpe" : tok->model == MODEL_UNIGRAM ? "unigram" : "wordpiece";
}

bool tokenizer_adds_bos(const struct tokenizer *tok)
{
    return tok->adds_bos;
}

struct str tokenizer_chat_template(const struct tokenizer *tok)
{
    return tok->chat_template;
}
