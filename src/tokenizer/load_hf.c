/* load_hf - tokenizer.json
 *
 * Each component's "type" is looked up; one that is not known is refused by name, for a guess would give wrong ids.
 */
#include "tokenizer/tok.h"

#include <stdio.h>

static enum status refuse(struct error *err, const char *part, struct str type)
{
    return fail(err, ST_UNSUPPORTED, "tokenizer.json: %s \"%.*s\" is not supported", part, STR_ARG(type));
}

static struct str type_of(const struct json *v)
{
    struct str type = json_str(json_get(v, "type"));
    return type.ptr ? type : STR("");
}

/* A member that must be a string; the copy lives as long as the tokenizer. */
static enum status text_member(struct tokenizer *tok, struct str *out, const struct json *v, const char *key,
                               struct error *err)
{
    struct str s = json_str(json_get(v, key));
    if (!s.ptr)
        return fail(err, ST_CORRUPT, "tokenizer.json: \"%.*s\" needs a string \"%s\"", STR_ARG(type_of(v)), key);
    *out = tok_copy(tok, s);
    return out->ptr ? ST_OK : fail_nomem(err, "the tokenizer");
}

/* ---- normalizer ---- */
static enum status load_charsmap(struct tokenizer *tok, struct norm_step *step, const struct json *v, struct error *err)
{
    struct buf bytes = {0};
    struct str text = json_str(json_get(v, "precompiled_charsmap"));
    if (!base64_append(&bytes, text)) {
        buf_free(&bytes);
        return fail(err, ST_CORRUPT, "tokenizer.json: \"precompiled_charsmap\" is not base64");
    }
    struct str blob = tok_copy(tok, buf_str(&bytes));
    bool failed = bytes.failed || !blob.ptr;
    buf_free(&bytes);
    return failed ? fail_nomem(err, "the character map") : charsmap_open(&step->map, blob, err);
}

static enum status load_replace(struct tokenizer *tok, struct norm_step *step, const struct json *v, struct error *err)
{
    const struct json *pattern = json_get(v, "pattern");
    struct str regex = json_str(json_get(pattern, "Regex"));
    TRY(text_member(tok, &step->to, v, "content", err));
    if (!regex.ptr)
        return text_member(tok, &step->from, pattern, "String", err);
    step->type = NORM_REPLACE_SPACES;
    step->left = str_is(regex, " {2,}");
    return step->left || str_is(regex, "\\s+") ? ST_OK : refuse(err, "normalizer Replace with the pattern", regex);
}

static enum status load_normalizer(struct tokenizer *tok, const struct json *v, int depth, struct error *err)
{
    static const struct {
        const char *name;
        enum norm_type type;
    } names[] = {{"NFC", NORM_NFC},
                 {"NFD", NORM_NFD},
                 {"NFKC", NORM_NFKC},
                 {"NFKD", NORM_NFKD},
                 {"Lowercase", NORM_LOWERCASE},
                 {"StripAccents", NORM_STRIP_ACCENTS},
                 {"Replace", NORM_REPLACE},
                 {"Prepend", NORM_PREPEND},
                 {"Strip", NORM_STRIP},
                 {"BertNormalizer", NORM_BERT},
                 {"Precompiled", NORM_PRECOMPILED},
                 {"Nmt", NORM_NMT}};
    struct str type = type_of(v);
    if (json_type(v) == JSON_NULL)
        return ST_OK;
    if (str_is(type, "Sequence") && depth < 4) {
        JSON_EACH (item, json_get(v, "normalizers"))
            TRY(load_normalizer(tok, item, depth + 1, err));
        return ST_OK;
    }
    size_t i = 0;
    while (i < sizeof names / sizeof *names && !str_is(type, names[i].name))
        i++;
    if (i == sizeof names / sizeof *names)
        return refuse(err, "normalizer", type);
    struct norm_step *step;
    TRY(tok_norm(tok, &step, names[i].type, err));
    switch (step->type) {
    case NORM_REPLACE:
        return load_replace(tok, step, v, err);
    case NORM_PREPEND:
        return text_member(tok, &step->to, v, "prepend", err);
    case NORM_PRECOMPILED:
        return load_charsmap(tok, step, v, err);
    case NORM_STRIP:
        step->left = json_bool(json_get(v, "strip_left"), true);
        step->right = json_bool(json_get(v, "strip_right"), true);
        return ST_OK;
    case NORM_BERT:
        step->clean = json_bool(json_get(v, "clean_text"), true);
        step->cjk = json_bool(json_get(v, "handle_chinese_chars"), true);
        step->lowercase = json_bool(json_get(v, "lowercase"), true);
        step->strip_accents = json_bool(json_get(v, "strip_accents"), step->lowercase);
        return ST_OK;
    default:
        return ST_OK;
    }
}

/* ---- pre-tokenizer ---- */
const char *const metaspace_prefixes[] = {"always", "first", "never"};

static enum prefix_when prefix_of(const struct json *v)
{
    struct str scheme = json_str(json_get(v, "prepend_scheme"));
    if (scheme.ptr)
        return str_is(scheme, "first") ? PREFIX_FIRST : str_is(scheme, "never") ? PREFIX_NEVER : PREFIX_ALWAYS;
    return json_bool(json_get(v, "add_prefix_space"), true) ? PREFIX_ALWAYS : PREFIX_NEVER;
}

static enum status load_split(struct tokenizer *tok, const struct json *v, struct error *err)
{
    struct pre_step step = {.type = PRE_SPLIT};
    struct str regex = json_str(json_get(json_get(v, "pattern"), "Regex"));
    struct str behavior = json_str(json_get(v, "behavior"));
    bool invert = json_bool(json_get(v, "invert"), false);
    if (!regex.ptr)
        return refuse(err, "pre-tokenizer Split with the literal pattern",
                      json_str(json_get(json_get(v, "pattern"), "String")));
    step.split = split_find_regex(regex);
    if (!step.split)
        return refuse(err, "pre-tokenizer Split with the regular expression", regex);
    if (str_is(behavior, "Removed"))
        (*(invert ? &step.drop_gaps : &step.drop_matches)) = true;
    else if (!str_is(behavior, "Isolated"))
        return refuse(err, "pre-tokenizer Split with the behavior", behavior);
    return tok_pre(tok, step, err);
}

static enum status load_byte_level(struct tokenizer *tok, const struct json *v, struct error *err)
{
    tok->by_bytes = true;
    if (json_bool(json_get(v, "add_prefix_space"), true))
        TRY(tok_pre(tok, (struct pre_step){.type = PRE_PREFIX_SPACE}, err));
    if (json_bool(json_get(v, "use_regex"), true))
        TRY(tok_pre(tok, (struct pre_step){.type = PRE_SPLIT, .split = split_gpt2}, err));
    return ST_OK;
}

static enum status load_pretokenizer(struct tokenizer *tok, const struct json *v, int depth, struct error *err)
{
    static const struct {
        const char *name;
        struct pre_step step;
    } simple[] = {{"BertPreTokenizer", {.split = split_bert, .drop_gaps = true}},
                  {"WhitespaceSplit", {.split = split_nonspace, .drop_gaps = true}},
                  {"Whitespace", {.split = split_words, .drop_gaps = true}},
                  {"Punctuation", {.split = split_punctuation}}};
    struct str type = type_of(v);
    if (json_type(v) == JSON_NULL)
        return ST_OK;
    if (tok->by_bytes && !str_is(type, "ByteLevel")) /* it would see the printable bytes, not the text */
        return refuse(err, "after ByteLevel the pre-tokenizer", type);
    if (str_is(type, "Sequence") && depth < 4) {
        JSON_EACH (item, json_get(v, "pretokenizers"))
            TRY(load_pretokenizer(tok, item, depth + 1, err));
        return ST_OK;
    }
    if (str_is(type, "ByteLevel"))
        return load_byte_level(tok, v, err);
    if (str_is(type, "Split"))
        return load_split(tok, v, err);
    if (str_is(type, "Digits")) {
        bool each = json_bool(json_get(v, "individual_digits"), false);
        return tok_pre(tok, (struct pre_step){.type = PRE_SPLIT, .split = each ? split_digit : split_digits}, err);
    }
    if (str_is(type, "Metaspace")) {
        struct pre_step step = {
            .type = PRE_METASPACE, .prefix = prefix_of(v), .cut = json_bool(json_get(v, "split"), true)};
        if (!str_is(json_str(json_get(v, "replacement")), METASPACE))
            return refuse(err, "pre-tokenizer Metaspace with the replacement", json_str(json_get(v, "replacement")));
        return tok_pre(tok, step, err);
    }
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (str_is(type, simple[i].name) &&
            (i < 3 || !json_str(json_get(v, "behavior")).ptr || str_is(json_str(json_get(v, "behavior")), "Isolated")))
            return tok_pre(tok, simple[i].step, err);
    return refuse(err, "pre-tokenizer", type);
}

/* ---- post-processor: what "single" puts before and after the text ---- */
enum template_part { BEFORE, AFTER, BETWEEN, PAIR_AFTER };
static enum status template_put(struct tokenizer *tok, enum template_part part, int64_t id, struct error *err)
{
    int *counts[] = {&tok->n_before, &tok->n_after, &tok->n_between, &tok->n_pair_after}, *n = counts[part];
    int32_t *ids[] = {tok->before, tok->after, tok->between, tok->pair_after};
    if (*n >= TEMPLATE_MAX || id < 0 || id > INT32_MAX)
        return fail(err, ST_CORRUPT,
                    "tokenizer.json: the post-processor adds id %lld as number %d; at most %d are allowed",
                    (long long)id, *n + 1, TEMPLATE_MAX);
    ids[part][(*n)++] = (int32_t)id;
    return ST_OK;
}

static enum status load_special(struct tokenizer *tok, const struct json *v, const struct json *item,
                                enum template_part part, struct error *err)
{
    struct str name = json_str(json_get(json_get(item, "SpecialToken"), "id"));
    const struct json *token = name.ptr ? json_get_str(json_get(v, "special_tokens"), name) : NULL;
    if (!token)
        return fail(err, ST_CORRUPT, "tokenizer.json: the template names \"%.*s\", which \"special_tokens\" lacks",
                    STR_ARG(name));
    JSON_EACH (id, json_get(token, "ids"))
        TRY(template_put(tok, part, json_int(id, -1), err));
    return ST_OK;
}

/* What the template for two texts puts before the first is taken to be what the one for one text does. */
static enum status load_pair(struct tokenizer *tok, const struct json *v, struct error *err)
{
    int n_sequence = 0;
    JSON_EACH (item, json_get(v, "pair")) {
        const struct json *sequence = json_get(item, "Sequence");
        if (sequence) {
            tok->second_type |= json_int(json_get(sequence, "type_id"), 0) == 1;
            tok->has_pair |= ++n_sequence == 2;
        } else if (n_sequence) {
            TRY(load_special(tok, v, item, n_sequence == 1 ? BETWEEN : PAIR_AFTER, err));
        }
    }
    return ST_OK;
}

static enum status load_template(struct tokenizer *tok, const struct json *v, struct error *err)
{
    enum template_part part = BEFORE;
    JSON_EACH (item, json_get(v, "single")) {
        if (json_get(item, "Sequence"))
            part = AFTER;
        else
            TRY(load_special(tok, v, item, part, err));
    }
    return load_pair(tok, v, err);
}

static enum status load_post(struct tokenizer *tok, const struct json *v, int depth, struct error *err)
{
    struct str type = type_of(v);
    if (json_type(v) == JSON_NULL || str_is(type, "ByteLevel"))
        return ST_OK;
    if (str_is(type, "Sequence") && depth < 4) {
        JSON_EACH (item, json_get(v, "processors"))
            TRY(load_post(tok, item, depth + 1, err));
        return ST_OK;
    }
    if (str_is(type, "TemplateProcessing"))
        return load_template(tok, v, err);
    bool roberta = str_is(type, "RobertaProcessing");
    if (!roberta && !str_is(type, "BertProcessing"))
        return refuse(err, "post-processor", type);
    int64_t sep = json_int(json_at(json_get(v, "sep"), 1), -1);
    TRY(template_put(tok, BEFORE, json_int(json_at(json_get(v, "cls"), 1), -1), err));
    TRY(template_put(tok, AFTER, sep, err));
    TRY(template_put(tok, PAIR_AFTER, sep, err));
    tok->has_pair = true;
    tok->second_type = !roberta;
    for (int i = 0; i < 1 + roberta; i++)
        TRY(template_put(tok, BETWEEN, sep, err));
    return ST_OK;
}

/* ---- decoder ---- */
static bool is_metaspace_replace(const struct json *v)
{
    return str_is(type_of(v), "Replace") && str_is(json_str(json_get(json_get(v, "pattern"), "String")), METASPACE) &&
           str_is(json_str(json_get(v, "content")), " ");
}

/* Replace U+2581, ByteFallback, Fuse, and perhaps Strip of one leading blank. */
static enum status load_decoder_sequence(struct tokenizer *tok, const struct json *v, struct error *err)
{
    const struct json *list = json_get(v, "decoders");
    size_t n = json_count(list);
    const struct json *strip = json_at(list, 3);
    bool known = (n == 3 || n == 4) && is_metaspace_replace(json_at(list, 0)) &&
                 str_is(type_of(json_at(list, 1)), "ByteFallback") && str_is(type_of(json_at(list, 2)), "Fuse");
    if (known && n == 4)
        known = str_is(type_of(strip), "Strip") && str_is(json_str(json_get(strip, "content")), " ") &&
                json_int(json_get(strip, "start"), 0) == 1 && json_int(json_get(strip, "stop"), 0) == 0;
    if (!known)
        return refuse(err, "decoder Sequence whose first step is", type_of(json_at(list, 0)));
    tok->decode = DECODE_FALLBACK;
    tok->decode_strip_first = n == 4;
    return ST_OK;
}

static enum status load_decoder(struct tokenizer *tok, const struct json *v, struct error *err)
{
    struct str type = type_of(v);
    tok->decode = DECODE_SPACED;
    if (str_is(type, "ByteLevel") && !tok->by_bytes)
        return refuse(err, "without the pre-tokenizer ByteLevel the decoder", type);
    if (json_type(v) == JSON_NULL)
        return ST_OK;
    if (str_is(type, "Sequence"))
        return load_decoder_sequence(tok, v, err);
    if (str_is(type, "ByteLevel")) {
        tok->decode = DECODE_BYTES;
    } else if (str_is(type, "Metaspace")) {
        tok->decode = DECODE_METASPACE;
        tok->decode_strip_first = prefix_of(v) != PREFIX_NEVER;
    } else if (str_is(type, "WordPiece")) {
        tok->decode = DECODE_WORDPIECE;
        tok->decode_cleanup = json_bool(json_get(v, "cleanup"), true);
        return text_member(tok, &tok->inner_prefix, v, "prefix", err);
    } else {
        return refuse(err, "decoder", type);
    }
    return ST_OK;
}

/* ---- model ---- */
enum status load_vocab_object(struct tokenizer *tok, const struct json *vocab, struct error *err)
{
    if (!json_is(vocab, JSON_OBJECT))
        return fail(err, ST_CORRUPT, "tokenizer: the vocabulary is not an object of token and id");
    TRY(vocab_reserve(&tok->vocab, json_count(vocab), err));
    JSON_EACH_MEMBER (token, id, vocab)
        TRY(vocab_put(&tok->vocab, json_int(id, -1), token, 0, err));
    return ST_OK;
}

/* tokenizers reads a number as all its digits, an integer, divided by a power of ten, which can be off in the last bit;
 * which of two paths of nearly equal score wins hangs on that bit. Its JSON is written with the shortest digits. */
static double score_as_read(double score, struct buf *digits)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    struct json_writer w;
    uint64_t whole = 0;
    size_t decimals = 0;
    bool point = false;
    buf_clear(digits);
    json_writer_init(&w, digits);
    json_write_real(&w, score);
    for (size_t i = 0; i < digits->len; i++) {
        char c = digits->ptr[i];
        if (c == 'e' || c == 'E' || whole > UINT64_MAX / 10 - 1)
            return score; /* so small or so long that no vocabulary has it */
        point = point || c == '.';
        if (c < '0' || c > '9')
            continue;
        whole = whole * 10 + (uint64_t)(c - '0');
        decimals += point;
    }
    if (digits->failed || decimals >= sizeof powers / sizeof *powers)
        return score;
    double value = (double)whole / powers[decimals];
    return score < 0 ? -value : value;
}

static enum status load_unigram(struct tokenizer *tok, const struct json *model, struct error *err)
{
    const struct json *vocab = json_get(model, "vocab");
    int64_t id = 0;
    tok->model = MODEL_UNIGRAM;
    tok->unknown = (int32_t)json_int(json_get(model, "unk_id"), NO_ID);
    tok->byte_fallback = json_bool(json_get(model, "byte_fallback"), false);
    struct buf digits = {0};
    enum status st = vocab_reserve(&tok->vocab, json_count(vocab), err);
    JSON_EACH (row, vocab) {
        struct str piece = json_str(json_at(row, 0));
        const struct json *score = json_at(row, 1);
        if (st == ST_OK && (!piece.ptr || (!json_is(score, JSON_REAL) && !json_is(score, JSON_INT))))
            st = fail(err, ST_CORRUPT, "tokenizer.json: unigram entry %lld is not [text, score]", (long long)id);
        if (st == ST_OK)
            st = vocab_put(&tok->vocab, id, piece, 0, err);
        if (st != ST_OK)
            break;
        tok->vocab.score[id] = score_as_read(json_real(score, 0), &digits);
        if (id == 0 || tok->vocab.score[id] < tok->min_score)
            tok->min_score = tok->vocab.score[id];
        id++;
    }
    if (st == ST_OK && digits.failed)
        st = fail_nomem(err, "the vocabulary");
    buf_free(&digits);
    TRY(st);
    if (tok->unknown >= id)
        return fail(err, ST_CORRUPT, "tokenizer.json: \"unk_id\" is %d, but there are %lld pieces", tok->unknown,
                    (long long)id);
    return ST_OK;
}

/* The unknown token's id, once the vocabulary can be searched. */
static enum status find_unknown(struct tokenizer *tok, const struct json *model, struct error *err)
{
    struct str name = json_str(json_get(model, "unk_token"));
    if (!name.ptr)
        return ST_OK;
    struct buf bytes = {0};
    if (!tok->by_bytes || !printable_to_bytes(&bytes, name)) {
        buf_clear(&bytes);
        buf_append_str(&bytes, name);
    }
    tok->unknown = bytes.failed ? NO_ID : vocab_find(&tok->vocab, buf_str(&bytes));
    bool failed = bytes.failed;
    buf_free(&bytes);
    if (failed)
        return fail_nomem(err, "the vocabulary");
    if (tok->unknown < 0 && name.len && tok->model == MODEL_WORDPIECE)
        return fail(err, ST_CORRUPT, "tokenizer.json: \"unk_token\" is \"%.*s\", which is not in the vocabulary",
                    STR_ARG(name));
    return ST_OK;
}

static enum status load_merge_list(struct tokenizer *tok, const struct json *merges, struct error *err)
{
    struct buf joined = {0};
    uint32_t rank = 0;
    enum status st = bpe_pairs_init(tok, json_count(merges), err);
    for (const struct json *m = json_at(merges, 0); st == ST_OK && rank < json_count(merges);
         m = json_next(m), rank++) {
        struct str left, right, both = json_str(m);
        if (both.ptr) {
            size_t space = str_find(both, STR(" "), 0);
            left = str_n(both.ptr, space == SIZE_MAX ? 0 : space);
            right = str_from(both, space == SIZE_MAX ? both.len : space + 1);
        } else {
            left = json_str(json_at(m, 0));
            right = json_str(json_at(m, 1));
        }
        if (!left.ptr || !right.ptr || !left.len || !right.len)
            st = fail(err, ST_CORRUPT, "tokenizer.json: merge %u is neither \"a b\" nor [\"a\", \"b\"]", rank);
        else
            st = bpe_pair_parse(tok, left, right, rank, &joined, err);
    }
    buf_free(&joined);
    return st;
}

static enum status load_bpe(struct tokenizer *tok, const struct json *model, struct error *err)
{
    struct str suffix = json_str(json_get(model, "end_of_word_suffix"));
    struct str prefix = json_str(json_get(model, "continuing_subword_prefix"));
    if (json_real(json_get(model, "dropout"), 0) > 0)
        return fail(err, ST_UNSUPPORTED, "tokenizer.json: BPE with dropout gives other ids each time; set it to null");
    tok->model = MODEL_BPE;
    tok->byte_fallback = json_bool(json_get(model, "byte_fallback"), false);
    tok->fuse_unknown = json_bool(json_get(model, "fuse_unk"), false);
    tok->ignore_merges = json_bool(json_get(model, "ignore_merges"), false);
    tok->word_suffix = tok_copy(tok, suffix.ptr ? suffix : STR(""));
    tok->word_prefix = tok_copy(tok, prefix.ptr ? prefix : STR(""));
    if (!tok->word_suffix.ptr || !tok->word_prefix.ptr)
        return fail_nomem(err, "the tokenizer");
    if (tok->word_suffix.len > 32 || tok->word_prefix.len > 16)
        return fail(err, ST_UNSUPPORTED, "tokenizer.json: an \"end_of_word_suffix\" of %zu bytes; at most 32",
                    suffix.len);
    return load_vocab_object(tok, json_get(model, "vocab"), err);
}

static enum status load_model(struct tokenizer *tok, const struct json *model, struct error *err)
{
    struct str type = type_of(model);
    bool list = json_is(json_get(model, "vocab"), JSON_ARRAY);
    if (str_is(type, "Unigram") || (type.len == 0 && list))
        return load_unigram(tok, model, err);
    if (str_is(type, "WordPiece") || (type.len == 0 && json_get(model, "max_input_chars_per_word"))) {
        struct str prefix = json_str(json_get(model, "continuing_subword_prefix"));
        tok->model = MODEL_WORDPIECE;
        tok->word_chars_max = (size_t)json_int(json_get(model, "max_input_chars_per_word"), 100);
        tok->inner_prefix = tok_copy(tok, prefix.ptr ? prefix : STR("##"));
        if (!tok->inner_prefix.ptr)
            return fail_nomem(err, "the tokenizer");
        return load_vocab_object(tok, json_get(model, "vocab"), err);
    }
    if (str_is(type, "BPE") || (type.len == 0 && json_get(model, "merges")))
        return load_bpe(tok, model, err);
    return refuse(err, "model", type);
}

/* One added token as both files write it; `id` stands in it, or is its key. */
enum status load_added_token(struct tokenizer *tok, const struct json *v, int64_t id, const char *file,
                             struct error *err)
{
    bool special = json_bool(json_get(v, "special"), false);
    struct added a = {.id = (int32_t)id,
                      .content = json_str(json_get(v, "content")),
                      .single_word = json_bool(json_get(v, "single_word"), false),
                      .left_strip = json_bool(json_get(v, "lstrip"), false),
                      .right_strip = json_bool(json_get(v, "rstrip"), false),
                      .normalized = json_bool(json_get(v, "normalized"), !special)};
    if (!a.content.ptr || id < 0 || id > INT32_MAX)
        return fail(err, ST_CORRUPT, "%s: an added token without \"content\" or with a bad \"id\"", file);
    return a.content.len ? tok_add(tok, &a, special ? TOKEN_SPECIAL : 0, err) : ST_OK;
}

static enum status load_added(struct tokenizer *tok, const struct json *list, struct error *err)
{
    JSON_EACH (v, list)
        TRY(load_added_token(tok, v, json_int(json_get(v, "id"), -1), "tokenizer.json", err));
    return ST_OK;
}

static enum status build(struct tokenizer *tok, const struct json *model, const struct json *merges, struct error *err)
{
    struct vocab *v = &tok->vocab;
    if (tok->by_bytes || tok->decode == DECODE_BYTES)
        TRY(vocab_unprintable(v, err));
    TRY(vocab_index(v, err));
    if (tok->model != MODEL_UNIGRAM)
        TRY(find_unknown(tok, model, err));
    if (tok->model != MODEL_BPE)
        return pieces_finish(tok, err);
    for (int b = 0; tok->byte_fallback && b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        int32_t id = vocab_find(v, str_of(name));
        if (id >= 0)
            v->flags[id] |= TOKEN_BYTE;
    }
    TRY(load_merge_list(tok, merges, err));
    return bpe_finish(tok, err);
}

enum status load_hf(struct tokenizer *tok, struct str text, struct error *err)
{
    struct arena arena;
    const struct json *doc;
    arena_init(&arena, 0);
    enum status st = json_parse(&doc, &arena, text, 0, err);
    const struct json *model = st == ST_OK ? json_get(doc, "model") : NULL;
    if (st == ST_OK && !json_is(model, JSON_OBJECT))
        st = fail(err, ST_CORRUPT, "tokenizer.json: no object \"model\"");
    if (st == ST_OK)
        st = load_normalizer(tok, json_get(doc, "normalizer"), 0, err);
    if (st == ST_OK)
        st = load_pretokenizer(tok, json_get(doc, "pre_tokenizer"), 0, err);
    if (st == ST_OK)
        st = load_post(tok, json_get(doc, "post_processor"), 0, err);
    if (st == ST_OK)
        st = load_decoder(tok, json_get(doc, "decoder"), err);
    if (st == ST_OK)
        st = load_model(tok, model, err);
    if (st == ST_OK)
        st = load_added(tok, json_get(doc, "added_tokens"), err);
    if (st == ST_OK)
        st = build(tok, model, json_get(model, "merges"), err);
    arena_free(&arena);
    return st;
}
