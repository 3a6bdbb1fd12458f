/* test_families - small models of every family against transformers (tools/golden/model_families.py)
 *
 * The goldens hold configurations, tensor lists and logits; the weights come from the same formula as there. Each model
 * is written as a Hugging Face folder and as a GGUF (with its own turned rows, written here from the formats' own
 * rules) and read back through the ordinary door.
 */
#include "model/made.h"

static char gguf_path[160];

/* Rows of `width` floats: row i of the result is row source(i) of the old. */
static void reorder(struct made *m, int64_t width, int64_t (*source)(int64_t i, int64_t d, int64_t n_head), int64_t d,
                    int64_t n_head)
{
    float *old = m->data;
    int64_t rows = m->count / width;
    m->data = malloc((size_t)m->count * sizeof *old);
    for (int64_t i = 0; i < rows; i++)
        memcpy(m->data + i * width, old + source(i, d, n_head) * width, (size_t)width * sizeof *old);
    free(old);
}
/* llama.cpp rotates neighbours: its row 2j + half of a head is Hugging Face's row half * d/2 + j. */
static int64_t source_pairs(int64_t i, int64_t d, int64_t n_head)
{
    (void)n_head;
    return i / d * d + i % d % 2 * (d / 2) + i % d / 2;
}
/* GPT-NeoX: [head][q, k, v][d] becomes [q, k, v][head][d]. */
static int64_t source_qkv(int64_t i, int64_t d, int64_t n_head)
{
    int64_t part = i / (n_head * d), head = i / d % n_head;
    return (head * 3 + part) * d + i % d;
}

static void transpose(struct made *m)
{
    int64_t rows = m->shape[0], columns = m->shape[1];
    float *old = m->data;
    m->data = malloc((size_t)m->count * sizeof *old);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            m->data[j * rows + i] = old[i * columns + j];
    m->shape[0] = columns;
    m->shape[1] = rows;
    free(old);
}

/* Tensors that share a GGUF name are experts, in the order of the expert's number in their name. */
static void stack_experts(struct made_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        size_t same = 0, kept = i + 1;
        size_t at = str_find(l->items[i].name, STR(".experts."), 0);
        if (at == SIZE_MAX)
            continue;
        struct made all = l->items[i];
        for (size_t j = i; j < l->n; j++)
            same += str_eq(l->items[j].gguf, all.gguf);
        all.data = malloc((size_t)all.count * same * sizeof *all.data);
        for (size_t j = i; j < l->n; j++) {
            if (!str_eq(l->items[j].gguf, all.gguf)) {
                l->items[kept++] = l->items[j];
                continue;
            }
            int expert = atoi(l->items[j].name.ptr + str_find(l->items[j].name, STR(".experts."), 0) + 9);
            memcpy(all.data + (size_t)all.count * (size_t)expert, l->items[j].data, (size_t)all.count * sizeof(float));
            free(l->items[j].data);
        }
        memmove(all.shape + 1, all.shape, 2 * sizeof *all.shape);
        all.shape[0] = (int64_t)same;
        all.n_dim = 3;
        all.count *= (int64_t)same;
        l->items[i] = all;
        l->n = kept;
    }
}

static void turn_for_gguf(struct made_list *l, const struct json *config)
{
    struct str type = json_str(json_get(config, "model_type"));
    int64_t n_head = get(config, "num_attention_heads", "n_head", 0);
    int64_t d = get(config, "head_dim", "?", get(config, "hidden_size", "n_embd", 0) / n_head);
    bool pairs = str_is(type, "llama") || str_is(type, "mistral") || str_is(type, "mixtral");
    for (size_t i = 0; i < l->n; i++) {
        struct made *m = &l->items[i];
        int64_t width = m->n_dim > 1 ? m->shape[1] : 1;
        bool qk = str_find(m->name, STR("q_proj"), 0) != SIZE_MAX || str_find(m->name, STR("k_proj"), 0) != SIZE_MAX;
        if (pairs && qk)
            reorder(m, width, source_pairs, d, n_head);
        if (str_find(m->name, STR("query_key_value"), 0) != SIZE_MAX)
            reorder(m, width, source_qkv, d, n_head);
        if (str_is(type, "gpt2") && m->n_dim == 2 && str_find(m->name, STR(".c_"), 0) != SIZE_MAX)
            transpose(m);
        if (str_find(m->name, STR("shared_expert_gate"), 0) != SIZE_MAX) {
            m->n_dim = 1; /* squeezed by the converter */
            m->shape[0] = m->count;
        }
    }
    stack_experts(l);
}

static void write_gguf(struct made_list *l, const struct json *config, enum dtype type)
{
    struct error err;
    struct gguf_writer *w;
    OK(gguf_writer_create(&w, &err));
    put_metadata(w, config);
    list_out(l, true, type);
    OK(gguf_writer_commit(w, gguf_path, l->out, l->n, &err));
    gguf_writer_destroy(w);
}

static void check_case(const struct json *c)
{
    static const struct {
        enum dtype type;
        const char *name, *rounding;
    } types[] = {{DT_F32, "f32", NULL},     {DT_F16, "f16", NULL},     {DT_BF16, "bf16", "bf16"},
                 {DT_Q8_0, "q8_0", "int8"}, {DT_Q4_0, "q4_0", "int8"}, {DT_Q4_1, "q4_1", "int8"}};
    const struct json *config = json_get(c, "config");
    struct made_list l;
    bool q4 = str_is(json_str(json_get(c, "grid")), "q4"), blocks = json_get(c, "rounding") != NULL;
    worst = 0;
    make_tensors(&l, c);
    for (int t = 0; t < 3; t++) {
        write_hf(&l, config, types[t].type);
        check_logits(c, folder, types[t].name);
    }
    if (json_get(c, "rounding"))
        check_rounding(c, folder, "bf16", "bf16");
    /* GGUF names no windows for llama, no llama3 or longrope scaling in numbers, no dense layers between sparse ones */
    struct str name = json_str(json_get(c, "name"));
    bool can = l.items[0].gguf.ptr && !json_get(config, "sliding_window") && !str_is(name, "llama-llama3") &&
               str_find(name, STR("longrope"), 0) == SIZE_MAX && !str_is(name, "llama-dynamic") &&
               !str_is(name, "llama-yarn-all") && !str_is(name, "llama-yarn-attention") &&
               !str_is(name, "gpt2-untied") && !str_is(name, "llama-parameters");
    if (can)
        turn_for_gguf(&l, config);
    for (size_t t = 0; can && t < sizeof types / sizeof *types; t++) {
        bool q8_type = types[t].type == DT_Q8_0, q4_type = types[t].type == DT_Q4_0 || types[t].type == DT_Q4_1;
        if ((q8_type && (q4 || !blocks)) || (q4_type && !q4))
            continue;
        write_gguf(&l, config, types[t].type);
        check_logits(c, gguf_path, types[t].name);
        if (q8_type || q4_type)
            check_rounding(c, gguf_path, types[t].name, types[t].rounding);
    }
    print_message("%.*s%s: largest error %.2e of the deviation\n", STR_ARG(name), can ? " (and GGUF)" : "", worst);
    free_tensors(&l);
}

static const struct json *cases;
static struct arena arena;
static struct buf text;

static void test_every_family(void **state)
{
    (void)state;
    assert_true(json_count(cases) >= 30);
    JSON_EACH (c, cases) {
        check_case(c);
    }
}

/* ---- gradients of the f32 build against torch's ---- */
static const struct model_param *find_param(const struct model *m, struct str name, const char *part)
{
    const struct model_param *params;
    int n = model_params(m, &params);
    char wanted[192];
    snprintf(wanted, sizeof wanted, "%.*s%s", STR_ARG(name), part);
    for (int i = 0; i < n; i++)
        if (strcmp(params[i].name, wanted) == 0)
            return &params[i];
    return NULL;
}

/* The gradient of number `index` of the tensor as saved: GPT-2's are transposed, and Q, K, V lie in one. */
static double gradient_at(const struct model *m, struct str name, int64_t index, bool gpt2)
{
    static const char *const parts[] = {"[attn_q]", "[attn_k]", "[attn_v]"};
    const struct model_param *p = find_param(m, name, "");
    bool fused = !p, turned = gpt2 && str_ends(name, STR(".weight")) && str_find(name, STR(".c_"), 0) != SIZE_MAX;
    if (fused)
        p = find_param(m, name, parts[0]);
    if (!p)
        fail_msg("no parameter %.*s", STR_ARG(name));
    int64_t n_out = p->weight ? p->n_out : p->n_in, n_in = p->weight ? p->n_in : 1;
    int64_t row = turned ? index % (fused ? 3 * n_out : n_out) : index / n_in;
    int64_t column = turned ? index / (fused ? 3 * n_out : n_out) : index % n_in;
    if (fused)
        p = find_param(m, name, parts[row / n_out]);
    row %= n_out;
    return p->grad[p->weight ? (row / 16 * n_in + column) * 16 + row % 16 : row];
}

static void check_gradients(const struct json *c)
{
    const struct json *g = json_get(c, "gradients");
    struct made_list l;
    struct bench_model b;
    int32_t ids[N_IDS], targets[N_IDS];
    real *logits = malloc(sizeof(real) * N_IDS * 257), loss[N_IDS];
    double largest = json_real(json_get(g, "largest"), 0), error = 0;
    int n = 0;
    make_tensors(&l, c);
    write_hf(&l, json_get(c, "config"), DT_F32);
    bench_load_with(&b, folder, &(struct model_options){.train = true}, N_IDS);
    ids_of(ids, 7, N_IDS);
    for (int i = 0; i < N_IDS; i++)
        targets[i] = i + 1 < N_IDS ? ids[i + 1] : -1;
    struct attend_span span = {0, N_IDS, 0, b.blocks};
    struct model_batch batch = {.n_row = N_IDS, .ids = ids, .spans = &span, .n_span = 1};
    model_grads_zero(b.model, NULL);
    model_forward(b.run, &batch, logits);
    cross_entropy(loss, logits, logits, targets, (real)1 / (N_IDS - 1), N_IDS, 257, NULL);
    model_backward(b.run, &batch, logits);
    bool gpt2 = str_is(json_str(json_get(json_get(c, "config"), "model_type")), "gpt2");
    JSON_EACH_MEMBER (name, samples, json_get(g, "samples")) {
        JSON_EACH (s, samples) {
            double got = gradient_at(b.model, name, json_int(json_at(s, 0), 0), gpt2);
            double want = json_real(json_at(s, 1), 0);
            error = fmax(error, fabs(got - want) / largest);
            n++;
            if (fabs(got - want) > 1e-4 * largest)
                fail_msg("%.*s [%lld]: gradient %.6g, torch %.6g (largest %.3g)", STR_ARG(name),
                         (long long)json_int(json_at(s, 0), 0), got, want, largest);
        }
    }
    print_message("%.*s: %d gradients within %.1e of the largest\n", STR_ARG(json_str(json_get(c, "name"))), n, error);
    assert_true(n > 200);
    free(logits);
    free_tensors(&l);
    bench_close(&b);
}

static void test_gradients_against_torch(void **state)
{
    (void)state;
    int n = 0;
    JSON_EACH (c, cases) {
        if (json_get(c, "gradients")) {
            check_gradients(c);
            n++;
        }
    }
    assert_int_equal(n, 4);
}

int main(void)
{
    struct error err;
    char command[160];
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    snprintf(folder, sizeof folder, "/tmp/ingot-families-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    snprintf(gguf_path, sizeof gguf_path, "%s/model.gguf", folder);
    arena_init(&arena, 0);
    cases = json_get(read_json(&arena, &text, GOLDEN("model/families.json")), "cases");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family),
        cmocka_unit_test(test_gradients_against_torch),
    };
    int failed = RUN(tests);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    buf_free(&text);
    arena_free(&arena);
    return system(command) == 0 ? failed : 1;
}
