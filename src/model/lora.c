/* lora - reading PEFT's adapters: every tensor finds its matrix, or the adapter is refused by that tensor's name
 *
 * The scale (alpha / r, or alpha / sqrt(r)) is multiplied into B at load, once and rounded: docs/numerics.md. Where a
 * model stores Q, K and V as one matrix (GPT-2), an adapter of it becomes three that share A and split B by rows.
 *
 * Source: PEFT 0.21's LoraConfig and saved files.
 */
#include "model/lora_private.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>

enum { CONFIG_MAX = 4 << 20, LINE = 64, NAME_MAX_ = 256 };

struct reading {
    struct lora *l;
    const struct model *m;
    const struct checkpoint *ck;
    const struct json *config;
    const char *folder;
    bool *used; /* [n_tensor] */
    double alpha;
    int64_t rank;
    bool rslora;
    size_t bytes; /* of all panels; then the next free byte */
};

/* ---- adapter_config.json ---- */

/* What would change the answers and is not offered: each with the values that wish for nothing. */
static const struct {
    const char *name, *neutral; /* "false", "none", or "" (null and empty lists and objects are always neutral) */
} refused[] = {
    {"modules_to_save", ""},         {"use_dora", "false"},     {"bias", "none"},
    {"lora_bias", "false"},          {"layer_replication", ""}, {"target_parameters", ""},
    {"trainable_token_indices", ""}, {"use_qalora", "false"},   {"alora_invocation_tokens", ""},
    {"use_bdlora", "false"},         {"arrow_config", ""},
};

static bool is_neutral(const struct json *v, const char *neutral)
{
    if (json_type(v) == JSON_NULL || (json_type(v) >= JSON_ARRAY && json_count(v) == 0))
        return true;
    if (json_is(v, JSON_FALSE))
        return !strcmp(neutral, "false");
    return json_is(v, JSON_STRING) && str_is(json_str(v), neutral);
}

/* Starts that change the base's weights: such an adapter, saved as it is, belongs to a base nobody has. */
static bool changes_base(struct str start)
{
    static const char *const starts[] = {"pissa", "olora", "corda", "loftq"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (start.ptr && str_starts(start, str_of(starts[i])))
            return true;
    return false;
}

static enum status check_config(struct reading *g, struct error *err)
{
    const struct json *c = g->config;
    struct str type = json_str(json_get(c, "peft_type")), start = json_str(json_get(c, "init_lora_weights"));
    if (!str_is(type, "LORA"))
        return fail(err, ST_UNSUPPORTED, "peft_type is \"%.*s\", expected LORA", STR_ARG(type));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const struct json *v = json_get(c, refused[i].name);
        if (!is_neutral(v, refused[i].neutral))
            return fail(err, ST_UNSUPPORTED, "its %s is set, which is not offered", refused[i].name);
    }
    if (changes_base(start))
        return fail(err, ST_UNSUPPORTED,
                    "init_lora_weights \"%.*s\" changed the base model too: save it again with "
                    "path_initial_model_for_weight_conversion",
                    STR_ARG(start));
    g->rank = json_int(json_get(c, "r"), 8);
    g->alpha = json_real(json_get(c, "lora_alpha"), 8);
    g->rslora = json_bool(json_get(c, "use_rslora"), false);
    if (g->rank < 1 || g->rank > LORA_RANK_MAX)
        return fail(err, g->rank < 1 ? ST_CORRUPT : ST_UNSUPPORTED, "r is %lld, expected 1 to %d", (long long)g->rank,
                    LORA_RANK_MAX);
    return isfinite(g->alpha) ? ST_OK : fail(err, ST_CORRUPT, "lora_alpha is no number");
}

/* PEFT: re.match(rf"(.*\.)?({key})$", module), or, with a leading ^, the same without what may precede. Of regular
 * expressions only the dot is read: any one character. */
static enum status pattern_matches(bool *out, struct str key, struct str module, struct error *err)
{
    bool whole = key.len && key.ptr[0] == '^';
    key = str_from(key, whole);
    for (size_t i = 0; i < key.len; i++)
        if (strchr("*+?[](){}|\\^$", key.ptr[i]))
            return fail(err, ST_UNSUPPORTED, "the pattern \"%.*s\" is a regular expression, which is not offered",
                        STR_ARG(key));
    *out = false;
    if (key.len > module.len || (whole && key.len != module.len))
        return ST_OK;
    struct str end = str_from(module, module.len - key.len);
    for (size_t i = 0; i < key.len; i++)
        if (key.ptr[i] != '.' && key.ptr[i] != end.ptr[i])
            return ST_OK;
    *out = key.len == module.len || end.ptr[-1] == '.';
    return ST_OK;
}

/* The value for a module: its own in rank_pattern or alpha_pattern, else the adapter's. */
static enum status of_module(double *out, const struct reading *g, const char *patterns, const char *module,
                             struct error *err)
{
    bool found = false;
    JSON_EACH_MEMBER (key, value, json_get(g->config, patterns)) {
        bool match;
        TRY(pattern_matches(&match, key, str_of(module), err));
        if (match && !found) { /* as PEFT: the first */
            *out = json_real(value, NAN);
            found = true;
        }
    }
    return ST_OK;
}

/* ---- tensors ---- */
static const struct tensor *find_tensor(struct reading *g, const char *module, const char *part)
{
    char name[NAME_MAX_ * 2];
    for (int form = 0; form < 3; form++) {
        int n = snprintf(name, sizeof name, "%s%s.%s%s.weight", form < 2 ? "base_model.model." : "", module, part,
                         form == 1 ? ".default" : "");
        const struct tensor *t = n > 0 && (size_t)n < sizeof name ? checkpoint_find(g->ck, str_of(name)) : NULL;
        if (t) {
            g->used[t - g->ck->tensors] = true;
            return t;
        }
    }
    return NULL;
}

static enum status check_shape(const struct tensor *t, int64_t rows, int64_t columns, const char *why,
                               struct error *err)
{
    char shape[96];
    if (t->n_dim == 2 && t->shape[0] == rows && t->shape[1] == columns && dtype_is_float(t->type))
        return ST_OK;
    return fail(err, ST_INVALID, "tensor %.*s is %s %s, expected floats [%lld, %lld] (%s)", STR_ARG(t->name),
                dtype_row(t->type)->name, tensor_shape_text(shape, sizeof shape, t), (long long)rows,
                (long long)columns, why);
}

/* What will lie where: filled in two passes, first without memory. */
static void place(struct weight *w, struct reading *g, int64_t n_out, int64_t n_in)
{
    *w = (struct weight){.type = DT_F32, .n_out = n_out, .n_in = n_in, .bytes = weight_bytes(DT_F32, n_out, n_in)};
    w->panel_bytes = w->bytes / (size_t)((n_out + 15) / 16);
    if (g->l->block)
        w->panels = (char *)g->l->block + g->bytes;
    g->bytes += (w->bytes + LINE - 1) / LINE * LINE;
}

/* Rows scaled, each rounded to f32 once; row_of as in weight_pack. */
static enum status pack(struct weight *w, const struct tensor *t, const int32_t *row_of, float scale, struct error *err)
{
    size_t n = (size_t)tensor_count(t);
    float *wide = mem_alloc(n * sizeof *wide);
    if (!wide)
        return fail_nomem(err, "adapter");
    dtype_to_f32(wide, t->type, t->data, n);
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        wide[i] *= scale;
        finite &= isfinite(wide[i]) != 0;
    }
    if (finite)
        weight_pack(w, wide, DT_F32, row_of, NULL);
    mem_free(wide);
    return finite ? ST_OK : fail(err, ST_CORRUPT, "tensor %.*s holds NaN or infinity", STR_ARG(t->name));
}

static enum status pair_fill(struct lora_pair *out, struct reading *g, const struct param *p,
                             const struct name_row *row, const char *module, const struct tensor *a,
                             const struct tensor *b, struct error *err)
{
    double rank = (double)g->rank, alpha = g->alpha;
    int32_t *row_of = NULL;
    TRY(of_module(&rank, g, "rank_pattern", module, err));
    TRY(of_module(&alpha, g, "alpha_pattern", module, err));
    if (!(rank >= 1 && rank <= LORA_RANK_MAX) || !isfinite(alpha))
        return fail(err, ST_UNSUPPORTED, "%s has the rank %g, expected 1 to %d", module, rank, LORA_RANK_MAX);
    TRY(check_shape(a, (int64_t)rank, p->n_in, "rank and the layer's inputs", err));
    TRY(check_shape(b, p->n_out * (row->n_part ? row->n_part : 1), (int64_t)rank, "the layer's outputs and rank", err));
    place(&out->a, g, (int64_t)rank, p->n_in);
    place(&out->b, g, p->n_out, (int64_t)rank);
    if (!g->l->block)
        return ST_OK;
    float scale = (float)(alpha / (g->rslora ? sqrt(rank) : rank));
    if (row->n_part && !(row_of = mem_alloc((size_t)p->n_out * sizeof *row_of)))
        return fail_nomem(err, "adapter");
    for (int32_t i = 0; row_of && i < p->n_out; i++)
        row_of[i] = param_stored_row(&g->m->arch, row, p, false, i);
    enum status st = pack(&out->a, a, NULL, 1, err);
    if (st == ST_OK)
        st = pack(&out->b, b, row_of, scale, err);
    mem_free(row_of);
    return st;
}

/* PEFT saves the base's own matrix too where an embedding or the head has an adapter. It may only be a copy: another
 * one would change the answers of everybody. */
static enum status check_copy(struct reading *g, const struct param *p, const char *module, struct error *err)
{
    const struct tensor *t = find_tensor(g, module, "base_layer");
    enum status st = ST_OK;
    if (!t)
        return ST_OK;
    TRY(check_shape(t, p->n_out, p->n_in, "the layer's own", err));
    float *wide = mem_alloc((size_t)p->n_in * sizeof *wide);
    real *own = mem_alloc((size_t)p->n_in * sizeof *own);
    if (!wide || !own)
        st = fail_nomem(err, "adapter");
    size_t row_bytes = t->bytes / (size_t)p->n_out;
    for (int64_t i = 0; st == ST_OK && i < p->n_out; i++) {
        dtype_to_f32(wide, t->type, (const char *)t->data + (size_t)i * row_bytes, (size_t)p->n_in);
        weight_get_row(own, &p->weight, i);
        for (int64_t k = 0; k < p->n_in && st == ST_OK; k++)
            if ((float)own[k] != wide[k])
                st = fail(err, ST_UNSUPPORTED,
                          "tensor %.*s is not the base's own matrix (or that is quantized): save the adapter with "
                          "save_embedding_layers=False",
                          STR_ARG(t->name));
    }
    mem_free(wide);
    mem_free(own);
    return st;
}

/* The adapter's part for one matrix, under any of the names its family gives it. */
static enum status pair_read(struct lora_pair *out, struct reading *g, const struct param *p, enum role role,
                             struct error *err)
{
    char module[NAME_MAX_];
    for (const struct name_row *row = g->m->arch.family->names; row->role; row++) {
        if (row->role != role)
            continue;
        name_format(module, sizeof module, row, p->layer, p->expert, false);
        size_t n = strlen(module), suffix = row->flags & NAME_NO_SUFFIX ? 0 : strlen(".weight");
        module[n > suffix ? n - suffix : 0] = 0;
        const struct tensor *a = find_tensor(g, module, "lora_A"), *b = find_tensor(g, module, "lora_B");
        if (!a && !b)
            continue;
        if (!a || !b)
            return fail(err, ST_CORRUPT, "%s has a lora_%c and no lora_%c", module, a ? 'A' : 'B', a ? 'B' : 'A');
        if (role_rows[role].expert)
            return fail(err, ST_UNSUPPORTED, "%s: adapters of experts are not offered", module);
        TRY(check_copy(g, p, module, err));
        return pair_fill(out, g, p, row, module, a, b, err);
    }
    return ST_OK;
}

static enum status read_pairs(struct reading *g, struct error *err)
{
    const struct plan *plan = &g->m->plan;
    g->bytes = 0;
    for (int i = 0; i < plan->n_param; i++) {
        const struct param *p = &plan->params[i];
        bool tied = p->role == W_EMBED && g->m->arch.config.tied;
        bool looked_up = p->role == W_POSITION || p->role == W_TYPE || (p->role == W_EMBED && !tied);
        if (p->bias || role_rows[p->role].in == DIM_1 || looked_up) /* what stands there for them is refused below */
            continue;
        if (tied)
            TRY(pair_read(&g->l->head, g, p, W_HEAD, err)); /* of the product alone, as PEFT: rows looked up stay */
        else
            TRY(pair_read(&g->l->pairs[i], g, p, p->role, err));
    }
    for (size_t i = 0; i < g->ck->n_tensor; i++)
        if (!g->used[i])
            return fail(err, ST_UNSUPPORTED, "tensor %.*s is no lora_A or lora_B of a linear layer of this model (%s)",
                        STR_ARG(g->ck->tensors[i].name), g->m->arch.config.family);
    return ST_OK;
}

/* ---- opening ---- */
static enum status make_digest(struct lora *l, struct str config, const struct checkpoint *ck, struct error *err)
{
    struct sha256 s;
    uint8_t digest[SHA256_BYTES];
    uint64_t sizes[2] = {config.len, ck->file_bytes};
    sha256_begin(&s);
    sha256_add(&s, sizes, sizeof sizes);
    sha256_add(&s, config.ptr, config.len);
    for (size_t i = 0; i < ck->n_file; i++)
        sha256_add(&s, ck->files[i].map.data, ck->files[i].map.size);
    if (!sha256_end(digest, &s))
        return fail_nomem(err, "adapter");
    sha256_text(l->digest, digest);
    memcpy(&l->key, digest, sizeof l->key);
    l->key |= 1; /* never 0 */
    return ST_OK;
}

static enum status read_all(struct reading *g, struct error *err)
{
    struct lora *l = g->l;
    l->n_pair = g->m->plan.n_param;
    l->pairs = mem_alloc_zero((size_t)l->n_pair, sizeof *l->pairs);
    g->used = mem_alloc_zero(g->ck->n_tensor + 1, sizeof *g->used);
    if (!l->pairs || !g->used)
        return fail_nomem(err, "adapter");
    TRY(check_config(g, err));
    TRY(read_pairs(g, err));
    if (!(l->block = mem_alloc_aligned(g->bytes + LINE)))
        return fail(err, ST_NOMEM, "out of memory for %.1f MB", (double)g->bytes / (1 << 20));
    TRY(read_pairs(g, err));
    return checkpoint_check(g->ck, err);
}

static enum status open_weights(struct checkpoint **out, const char *folder, struct error *err)
{
    char path[4096];
    path_join(path, sizeof path, folder, "adapter_model.safetensors");
    if (file_kind(path) == FILE_ABSENT)
        path_join(path, sizeof path, folder, "adapter_model.bin");
    if (file_kind(path) == FILE_ABSENT)
        return fail(err, ST_NOT_FOUND,
                    "%s: no adapter here; expected adapter_config.json and adapter_model.safetensors", folder);
    return checkpoint_open(out, path, err);
}

enum status lora_open(struct lora **out, const struct model *m, const char *folder, struct pool *pool,
                      struct error *err)
{
    char path[4096];
    struct buf config = {0};
    struct arena arena;
    struct checkpoint *ck = NULL;
    (void)pool;
    *out = NULL;
    if (m->plan.train)
        return fail(err, ST_INVALID, "a model that is trained takes no adapters");
    struct lora *l = mem_alloc_zero(1, sizeof *l);
    if (!l)
        return fail_nomem(err, "adapter");
    l->users = 1;
    arena_init(&arena, 16 * (size_t)CONFIG_MAX);
    struct reading g = {.l = l, .m = m, .folder = folder};
    enum status st =
        file_read_all(&config, path_join(path, sizeof path, folder, "adapter_config.json"), CONFIG_MAX, err);
    if (st == ST_OK && (st = json_parse(&g.config, &arena, buf_str(&config), 0, err)) != ST_OK)
        fail_context(err, "%s", path);
    if (st == ST_OK)
        st = open_weights(&ck, folder, err);
    g.ck = ck;
    if (st == ST_OK && (st = read_all(&g, err)) != ST_OK)
        fail_context(err, "the adapter %s", folder);
    if (st == ST_OK)
        st = make_digest(l, buf_str(&config), ck, err);
    mem_free(g.used);
    checkpoint_close(ck);
    arena_free(&arena);
    buf_free(&config);
    if (st != ST_OK) {
        lora_drop(l);
        return st;
    }
    *out = l;
    return ST_OK;
}

struct lora *lora_hold(struct lora *l)
{
    if (l)
        __atomic_add_fetch(&l->users, 1, __ATOMIC_RELAXED);
    return l;
}

void lora_drop(struct lora *l)
{
    if (!l || __atomic_sub_fetch(&l->users, 1, __ATOMIC_ACQ_REL))
        return;
    mem_free(l->pairs);
    mem_free(l->block);
    mem_free(l);
}

const char *lora_digest(const struct lora *l)
{
    return l ? l->digest : NULL;
}

uint64_t lora_key(const struct lora *l)
{
    return l ? l->key : 0;
}
