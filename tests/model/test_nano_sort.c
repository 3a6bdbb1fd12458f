/* test_nano_sort - every intermediate activation of a trained GPT-2-style model (gpt-nano-sort: it sorts six letters)
 *
 * Its weights are base64 inside JSON, with linear weights [out, in]: the converter below writes them as the Hugging
 * Face folder they would be ([in, out]); the product reads only that.
 */
#include "model/support.h"

enum { BATCH = 3, LENGTH = 11, N_ROW = BATCH * LENGTH, N_HEAD = 3, D_HEAD = 16, N_EMBD = 48 };

struct source {
    struct tensor_out out;
    float *data;
    int64_t count;
};

static enum status fill(void *ctx, void *out, struct error *err)
{
    (void)err;
    const struct source *s = ctx;
    memcpy(out, s->data, (size_t)s->count * sizeof(float));
    return ST_OK;
}

static void transpose(struct source *s)
{
    int64_t rows = s->out.shape[0], columns = s->out.shape[1];
    float *old = s->data;
    s->data = malloc((size_t)s->count * sizeof *old);
    for (int64_t i = 0; i < rows * columns; i++)
        s->data[i % columns * rows + i / columns] = old[i];
    s->out.shape[0] = columns;
    s->out.shape[1] = rows;
    free(old);
}

#define CONFIG                                                                                                         \
    "{\"model_type\":\"gpt2\",\"n_layer\":3,\"n_head\":3,\"n_embd\":48,\"vocab_size\":3,"                              \
    "\"n_positions\":11,\"activation_function\":\"gelu_new\",\"layer_norm_epsilon\":1e-5,"                             \
    "\"tie_word_embeddings\":false}"

/* ---- the converter ---- */
static void convert(const char *folder, const struct json *doc)
{
    struct error err;
    struct source sources[64] = {0};
    struct tensor_out tensors[64];
    char path[160];
    size_t n = 0, got;
    JSON_EACH_MEMBER (name, t, doc) {
        if (!json_get(t, "shape") || str_ends(name, STR(".attn.bias"))) /* the causal mask */
            continue;
        struct source *s = &sources[n++];
        s->out = (struct tensor_out){.name = name, .type = DT_F32, .fill = fill, .ctx = s};
        JSON_EACH (d, json_get(t, "shape")) {
            s->out.shape[s->out.n_dim++] = json_int(d, 0);
        }
        s->data = decode_floats(json_str(json_get(t, "data")), &got);
        s->count = (int64_t)got;
        bool linear = str_find(name, STR(".c_"), 0) != SIZE_MAX && s->out.n_dim == 2;
        if (linear)
            transpose(s);
    }
    assert_int_equal(n, 2 + 3 * 12 + 3);
    for (size_t i = 0; i < n; i++)
        tensors[i] = sources[i].out;
    OK(file_write_all(path_join(path, sizeof path, folder, "config.json"), STR(CONFIG), &err));
    OK(safetensors_write(folder, tensors, n, 0, &err));
    for (size_t i = 0; i < n; i++)
        free(sources[i].data);
}

/* ---- comparing ---- */
static const struct json *partials;
static double worst;
static int n_compared;

static void compare(const char *name, const real *got, size_t count)
{
    size_t n;
    float *want = decode_floats(json_str(json_get(json_get(partials, name), "data")), &n);
    double dev = 0, error = 0;
    assert_int_equal(n, count);
    for (size_t i = 0; i < n; i++)
        dev += isfinite(want[i]) ? (double)want[i] * want[i] / (double)n : 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(want[i])) /* masked scores are minus infinity */
            error = fmax(error, fabs((double)(got[i] - want[i])) / sqrt(dev));
    free(want);
    if (error > 1e-4)
        fail_msg("%s: error %.2e of the root mean square", name, error);
    worst = fmax(worst, error);
    n_compared++;
}

static const real *value(const struct model_run *r, const char *name, int64_t width)
{
    int64_t rows, n;
    const real *x = model_run_value(r, name, &rows, &n);
    if (!x)
        fail_msg("no value %s", name);
    assert_int_equal(rows, N_ROW);
    assert_int_equal(n, width);
    return x;
}

/* Ours are [row][head][d], theirs [batch][head][position][d]. */
static void compare_heads(const struct model_run *r, const char *name, const char *ours)
{
    static real turned[N_ROW * N_EMBD];
    const real *x = value(r, ours, N_EMBD);
    for (int b = 0; b < BATCH; b++)
        for (int h = 0; h < N_HEAD; h++)
            for (int p = 0; p < LENGTH; p++)
                memcpy(turned + ((b * N_HEAD + h) * LENGTH + p) * D_HEAD, x + ((b * LENGTH + p) * N_HEAD + h) * D_HEAD,
                       D_HEAD * sizeof(real));
    compare(name, turned, N_ROW * N_EMBD);
}

/* Scores and their softmax are inside our attention: from its Q and K they are recomputed here. */
static void compare_scores(const struct model_run *r, int layer)
{
    enum { N = BATCH * N_HEAD * LENGTH * LENGTH };
    static real scores[N], soft[N], qkv[N_ROW * 3 * N_EMBD];
    char name[64];
    const real *x[3];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "blk.%d.attn_%c", layer, "qkv"[i]);
        x[i] = value(r, name, N_EMBD);
        for (int row = 0; row < N_ROW; row++)
            memcpy(qkv + (row * 3 + i) * N_EMBD, x[i] + row * N_EMBD, N_EMBD * sizeof(real));
    }
    compare("qkv", qkv, N_ROW * 3 * N_EMBD);
    for (int i = 0; i < BATCH * N_HEAD * LENGTH; i++) {
        int p = i % LENGTH, h = i / LENGTH % N_HEAD, b = i / LENGTH / N_HEAD;
        double sum = 0;
        for (int k = 0; k < LENGTH; k++) {
            double dot = 0;
            for (int d = 0; d < D_HEAD; d++)
                dot += x[0][((b * LENGTH + p) * N_HEAD + h) * D_HEAD + d] *
                       x[1][((b * LENGTH + k) * N_HEAD + h) * D_HEAD + d];
            scores[i * LENGTH + k] = (real)(dot / 4);
            soft[i * LENGTH + k] = k <= p ? (real)exp(dot / 4) : 0;
            sum += soft[i * LENGTH + k];
        }
        for (int k = 0; k < LENGTH; k++)
            soft[i * LENGTH + k] = (real)(soft[i * LENGTH + k] / sum);
    }
    compare("att", scores, N);
    compare("attSm", soft, N);
}

static void compare_layer(const struct model_run *r, int layer)
{
    static const struct {
        const char *theirs, *ours;
        int width;
    } values[] = {{"ln1", "attn_norm", N_EMBD},      {"y", "attn_heads", N_EMBD}, {"yProj", "attn_output", N_EMBD},
                  {"attnResid", "attn_sum", N_EMBD}, {"ln2", "ffn_norm", N_EMBD}, {"fc", "ffn_up", 4 * N_EMBD},
                  {"gelu", "ffn_act", 4 * N_EMBD},   {"mlp", "ffn_down", N_EMBD}, {"mlpResid", "layer", N_EMBD}};
    char name[64];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        snprintf(name, sizeof name, "blk.%d.%s", layer, values[i].ours);
        compare(values[i].theirs, value(r, name, values[i].width), (size_t)N_ROW * (size_t)values[i].width);
    }
    for (int i = 0; i < 3; i++) {
        char theirs[2] = {"qkv"[i], 0};
        snprintf(name, sizeof name, "blk.%d.attn_%s", layer, theirs);
        compare_heads(r, theirs, name);
    }
    compare_scores(r, layer);
}

static void test_every_activation(void **state)
{
    (void)state;
    NEED(SHARED("data/models/gpt-nano-sort/gpt-nano-sort-model.json"));
    struct error err;
    struct arena arena;
    struct buf text = {0}, text2 = {0};
    char folder[] = "/tmp/ingot-nano-XXXXXX", command[64];
    arena_init(&arena, 0);
    assert_non_null(mkdtemp(folder));
    convert(folder, read_json(&arena, &text, SHARED("data/models/gpt-nano-sort/gpt-nano-sort-model.json")));
    partials = read_json(&arena, &text2, SHARED("data/models/gpt-nano-sort/gpt-nano-sort-t0-partials.json"));
    struct checkpoint *ck;
    struct model *m;
    struct model_run *r;
    OK(checkpoint_open(&ck, folder, &err));
    OK(model_load(&m, ck, &(struct model_options){.exact = true, .keep = true}, &err));
    checkpoint_close(ck);
    void *kv = mem_alloc_aligned(BATCH * model_kv_block_bytes(m));
    OK(model_run_create(&r, m, N_ROW, N_ROW, kv, BATCH, NULL, &err));
    int32_t ids[N_ROW], blocks[BATCH] = {2, 0, 1};
    size_t n;
    float *idx = decode_floats(json_str(json_get(json_get(partials, "idx"), "data")), &n);
    assert_int_equal(n, N_ROW);
    for (int i = 0; i < N_ROW; i++)
        ids[i] = (int32_t)idx[i];
    struct attend_span spans[BATCH];
    for (int b = 0; b < BATCH; b++)
        spans[b] = (struct attend_span){b * LENGTH, LENGTH, 0, &blocks[b]};
    struct model_batch batch = {.n_row = N_ROW, .ids = ids, .spans = spans, .n_span = BATCH};
    real logits[N_ROW * 3], probs[N_ROW * 3], positions[LENGTH * N_EMBD];
    model_forward(r, &batch, logits);
    compare("tok_emb", value(r, "token_embd", N_EMBD), N_ROW * N_EMBD);
    compare("x", value(r, "position_embd", N_EMBD), N_ROW * N_EMBD);
    for (int i = 0; i < LENGTH * N_EMBD; i++)
        positions[i] = value(r, "position_embd", N_EMBD)[i] - value(r, "token_embd", N_EMBD)[i];
    compare("pos_emb", positions, LENGTH * N_EMBD);
    compare_layer(r, 0);
    compare("block0", value(r, "blk.0.layer", N_EMBD), N_ROW * N_EMBD);
    compare("block1", value(r, "blk.1.layer", N_EMBD), N_ROW * N_EMBD);
    compare("block2", value(r, "blk.2.layer", N_EMBD), N_ROW * N_EMBD);
    compare("ln_f", value(r, "output_norm", N_EMBD), N_ROW * N_EMBD);
    compare("lm_head", logits, N_ROW * 3);
    for (int i = 0; i < N_ROW; i++) {
        double sum = exp(logits[3 * i]) + exp(logits[3 * i + 1]) + exp(logits[3 * i + 2]);
        for (int k = 0; k < 3; k++)
            probs[3 * i + k] = (real)(exp(logits[3 * i + k]) / sum);
    }
    compare("probs", probs, N_ROW * 3);
    print_message("%d activations, largest error %.1e of the root mean square\n", n_compared, worst);
    assert_int_equal(n_compared, (int)json_count(partials) - 2); /* all but "config" and "idx" */
    ;
    free(idx);
    model_run_free(r);
    model_free(m);
    mem_free(kv);
    buf_free(&text);
    buf_free(&text2);
    arena_free(&arena);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_activation)};
    return RUN(tests);
}
