/* golden - models that tools/golden/model_families.py and model_blocks.py describe: their formula, their metadata, and
 * comparing with their logits */
#ifndef TESTS_MODEL_GOLDEN_H
#define TESTS_MODEL_GOLDEN_H

#include "model/support.h"

#include "base/str.h"

enum { N_IDS = 40, PROMPT = 17 };

/* ---- the formula ---- */
static inline uint64_t splitmix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static inline uint64_t name_hash(struct str name)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < name.len; i++)
        h = (h ^ (unsigned char)name.ptr[i]) * 0x100000001B3u;
    return h;
}

static inline void fill_formula(float *out, struct str name, int64_t count, int64_t width, bool matrix, bool q4, int k)
{
    uint64_t h = name_hash(name);
    for (int64_t i = 0; i < count; i++) {
        uint64_t w = splitmix(h + (uint64_t)i * 0x9E3779B97F4A7C15u);
        int64_t column = i % width % 32;
        if (!matrix)
            out[i] = str_ends(name, STR(".bias")) ? (float)((int)(w & 255) - 128) / 1024
                                                  : 1 + (float)((int)(w & 31) - 16) / 64;
        else if (q4)
            out[i] = (float)(column == 0 ? -8 : column == 1 ? 7 : (int)(w % 16) - 8) * ldexpf(1, -k);
        else
            out[i] = (float)(column == 0 ? -127 : (int)(w % 255) - 127) * ldexpf(1, -k);
    }
}

static inline void ids_of(int32_t *out, int64_t seed, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = (int32_t)(splitmix(((uint64_t)seed << 32) + (uint64_t)i) % 257);
}

/* ---- metadata of a GGUF ---- */
static inline int64_t get(const struct json *config, const char *a, const char *b, int64_t otherwise)
{
    return json_int(json_get(config, a), json_int(json_get(config, b), otherwise));
}

static inline void put(struct gguf_writer *w, const char *arch, const char *key, int64_t value)
{
    char text[128];
    snprintf(text, sizeof text, "%s.%s", arch, key);
    if (value)
        gguf_put_int(w, text, GGUF_U32, value);
}
static inline void put_real(struct gguf_writer *w, const char *arch, const char *key, double value)
{
    char text[128];
    snprintf(text, sizeof text, "%s.%s", arch, key);
    gguf_put_real(w, text, GGUF_F32, value);
}

static inline void put_metadata(struct gguf_writer *w, const struct json *c)
{
    static const char *const archs[][2] = {
        {"llama", "llama"},      {"mistral", "llama"},      {"mixtral", "llama"},
        {"qwen2", "qwen2"},      {"qwen3", "qwen3"},        {"gpt2", "gpt2"},
        {"gpt_neox", "gptneox"}, {"qwen2_moe", "qwen2moe"}, {"qwen3_moe", "qwen3moe"}};
    struct str type = json_str(json_get(c, "model_type"));
    const char *a = NULL;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (str_is(type, archs[i][0]))
            a = archs[i][1];
    assert_non_null(a);
    int64_t n_embd = get(c, "hidden_size", "n_embd", 0), n_head = get(c, "num_attention_heads", "n_head", 0);
    int64_t d = get(c, "head_dim", "?", n_embd / n_head);
    gguf_put_string(w, "general.architecture", str_of(a));
    put(w, a, "block_count", get(c, "num_hidden_layers", "n_layer", 0));
    put(w, a, "embedding_length", n_embd);
    put(w, a, "attention.head_count", n_head);
    put(w, a, "attention.head_count_kv", get(c, "num_key_value_heads", "?", n_head));
    put(w, a, "attention.key_length", d);
    put(w, a, "feed_forward_length", get(c, "intermediate_size", "n_inner", 4 * n_embd));
    put(w, a, "context_length", get(c, "max_position_embeddings", "n_positions", 0));
    put(w, a, "expert_count", get(c, "num_experts", "num_local_experts", 0));
    put(w, a, "expert_used_count", get(c, "num_experts_per_tok", "?", 0));
    put(w, a, "expert_feed_forward_length", get(c, "moe_intermediate_size", "?", 0));
    if (str_is(type, "gpt2"))
        put_real(w, a, "attention.layer_norm_epsilon", 1e-5);
    if (str_is(type, "gpt_neox")) {
        put_real(w, a, "attention.layer_norm_epsilon", 1e-5);
        put(w, a, "rope.dimension_count", (int64_t)((double)d * json_real(json_get(c, "rotary_pct"), 0.25)));
        put_real(w, a, "rope.freq_base", json_real(json_get(c, "rotary_emb_base"), 10000));
        gguf_put_bool(w, "gptneox.use_parallel_residual", json_bool(json_get(c, "use_parallel_residual"), true));
    }
    if (str_is(type, "mixtral"))
        put_real(w, a, "rope.freq_base", 1000000);
    bool eps5 = str_is(type, "mixtral");
    if (!str_starts(type, STR("gpt")))
        put_real(w, a, "attention.layer_norm_rms_epsilon", eps5 ? 1e-5 : 1e-6);
    if (json_get(c, "rope_theta"))
        put_real(w, a, "rope.freq_base", json_real(json_get(c, "rope_theta"), 0));
    const struct json *s = json_get(c, "rope_scaling");
    if (s) {
        gguf_put_string(w, "llama.rope.scaling.type",
                        json_str(json_get(s, "rope_type") ? json_get(s, "rope_type") : json_get(s, "type")));
        put_real(w, a, "rope.scaling.factor", json_real(json_get(s, "factor"), 0));
        put(w, a, "rope.scaling.original_context_length", json_int(json_get(s, "original_max_position_embeddings"), 0));
    }
}

/* ---- comparing ---- */
static double worst;

static inline void check_logits(const struct json *c, const char *path, const char *what)
{
    struct bench_model b;
    struct model_options options = {.exact = true, .n_ctx = (int)json_int(json_get(c, "n_ctx"), 0)};
    int32_t ids[N_IDS];
    real *logits = malloc(sizeof(real) * N_IDS * 257);
    size_t n, at = 0;
    float *want = decode_floats(json_str(json_get(c, "logits")), &n);
    double dev = json_real(json_get(c, "deviation"), 0), error = 0;
    ids_of(ids, 7, N_IDS);
    bench_load_with(&b, path, &options, N_IDS);
    assert_int_equal(model_config(b.model)->n_vocab, 257);
    bench_logits(&b, logits, ids, N_IDS, 16);
    JSON_EACH (p, json_get(c, "positions")) {
        for (int i = 0; i < 257; i++)
            error = fmax(error, fabs((double)(logits[json_int(p, 0) * 257 + i] - want[at++])) / dev);
    }
    assert_int_equal(at, n);
    worst = fmax(worst, error);
    if (error > 1e-4)
        fail_msg("%.*s %s: error %.2e of the deviation", STR_ARG(json_str(json_get(c, "name"))), what, error);
    free(want);
    free(logits);
    bench_close(&b);
}

/* Rounded activations: as far from --exact as the simulation in the generator, or nearer; at most half as far again. */
static inline void check_rounding(const struct json *c, const char *path, const char *what, const char *kind)
{
    double sim = json_real(json_get(json_get(c, "rounding"), kind), 0), squares = 0;
    if (sim == 0)
        return;
    struct bench_model exact, rounded;
    size_t n = 0;
    real *x = malloc(sizeof(real) * PROMPT * 257), *y = malloc(sizeof(real) * PROMPT * 257);
    bench_load(&exact, path, PROMPT);
    bench_load_with(&rounded, path, &(struct model_options){0}, PROMPT);
    JSON_EACH (seed, json_get(c, "seeds")) {
        int32_t ids[PROMPT];
        ids_of(ids, json_int(seed, 0), PROMPT);
        bench_logits(&exact, x, ids, PROMPT, PROMPT);
        bench_logits(&rounded, y, ids, PROMPT, PROMPT);
        for (int i = 0; i < PROMPT * 257; i++)
            squares += (double)(x[i] - y[i]) * (double)(x[i] - y[i]);
        n += PROMPT;
    }
    assert_true(n >= 1000);
    double rms = sqrt(squares / (double)(n * 257)) / json_real(json_get(c, "deviation"), 0);
    print_message("  %.*s %s: rounded activations %.2e of the deviation, simulated %.2e\n",
                  STR_ARG(json_str(json_get(c, "name"))), what, rms, sim);
    assert_true(rms > 0.2 * sim); /* a mode that rounds nothing is not the mode asked for */
    if (rms > 1.5 * sim)
        fail_msg("%.*s %s: %.3e, simulated %.3e", STR_ARG(json_str(json_get(c, "name"))), what, rms, sim);
    free(x);
    free(y);
    bench_close(&exact);
    bench_close(&rounded);
}

#endif
