#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "engine/engine_private.h"

#include <math.h>

static struct error err;

static int set_up(void **state)
{
    (void)state;
    return kernels_init(NULL, &err);
}

static int read_ids(int32_t *out, const struct json *list)
{
    int n = 0;
    JSON_EACH (item, list)
        out[n++] = (int32_t)json_int(item, -1);
    return n;
}

/* transformers says which tokens remain and how likely each is; 4,000 draws must show just that. */
static void check_case(const struct json *c, int index, struct sampler_scratch *scratch)
{
    enum { VOCAB = 40, DRAWS = 4000 };
    real logits[VOCAB];
    int32_t ids[32];
    int n = 0, counts[VOCAB] = {0};
    JSON_EACH (item, json_get(c, "logits"))
        logits[n++] = (real)json_real(item, 0);
    struct sampling how;
    sampling_defaults(&how);
    how.temperature = (float)json_real(json_get(c, "temperature"), 0);
    how.top_k = (int)json_int(json_get(c, "top_k"), -1);
    how.top_p = (float)json_real(json_get(c, "top_p"), 0);
    how.min_p = (float)json_real(json_get(c, "min_p"), 0);
    how.typical_p = (float)json_real(json_get(c, "typical_p"), 1);
    how.repetition_penalty = (float)json_real(json_get(c, "repetition_penalty"), 0);
    how.presence_penalty = (float)json_real(json_get(c, "presence_penalty"), 0);
    how.frequency_penalty = (float)json_real(json_get(c, "frequency_penalty"), 0);
    struct sampler_in in = {.how = &how, .logits = logits, .n_vocab = VOCAB, .ids = ids, .given = -1};
    in.n_prompt = read_ids(ids, json_get(c, "prompt"));
    in.n_ids = in.n_prompt + read_ids(ids + in.n_prompt, json_get(c, "output"));
    for (int i = 0; i < DRAWS; i++) {
        struct sample s;
        how.seed = (uint64_t)i * 77 + (uint64_t)index;
        sampler_pick(&s, &in, scratch);
        assert_true(s.id >= 0 && s.id < VOCAB);
        counts[s.id]++;
    }
    const struct json *kept = json_get(c, "kept");
    int seen = 0;
    JSON_EACH_MEMBER (key, value, kept) {
        int64_t id;
        assert_true(str_to_i64(&id, key));
        double p = json_real(value, 0), sigma = sqrt(DRAWS * p * (1 - p)) + 1;
        seen += counts[id];
        if (fabs(counts[id] - DRAWS * p) > 5 * sigma)
            fail_msg("case %d: token %d drawn %d times of %d, expected %.1f", index, (int)id, counts[id], DRAWS,
                     DRAWS * p);
    }
    if (seen != DRAWS)
        fail_msg("case %d: %d draws outside the kept set", index, DRAWS - seen);
}

static void test_sampler_keeps_what_transformers_keeps(void **state)
{
    (void)state;
    struct buf text = {0};
    struct arena a;
    const struct json *cases;
    struct sampler_scratch scratch;
    arena_init(&a, 0);
    OK(file_read_all(&text, GOLDEN("engine/sampling.json"), 1 << 20, &err));
    OK(json_parse(&cases, &a, buf_str(&text), 0, &err));
    OK(sampler_scratch_init(&scratch, 40, &err));
    int n = 0;
    JSON_EACH (c, cases)
        check_case(c, n++, &scratch);
    assert_int_equal(n, 100);
    for (int i = 0; i < 40; i++)
        assert_int_equal(scratch.counts[i], 0);
    sampler_scratch_free(&scratch);
    arena_free(&a);
    buf_free(&text);
}

/* The definition in doubles, everything sorted: the drawn id must be its id, unless the draw fell within rounding of a
 * border between two tokens. A large vocabulary makes the sampler sort in several steps. */
struct rank {
    int id;
    double x;
};

static int compare_rank(const void *a, const void *b)
{
    const struct rank *p = a, *q = b;
    return p->x != q->x ? (p->x < q->x) - (p->x > q->x) : p->id - q->id;
}

static int naive_draw(const struct sampler_in *in, bool *border)
{
    static struct rank ranks[5000];
    const struct sampling *how = in->how;
    double sum = 0, most = -1e300, kept_mass = 0;
    int n = in->n_vocab;
    for (int i = 0; i < n; i++) {
        ranks[i] = (struct rank){i, (double)(in->logits[i] / (real)how->temperature)};
        most = fmax(most, ranks[i].x);
    }
    qsort(ranks, (size_t)n, sizeof *ranks, compare_rank);
    if (how->top_k && how->top_k < n)
        n = how->top_k;
    for (int i = 0; i < n; i++)
        sum += exp(ranks[i].x - most);
    int kept = 0;
    *border = false;
    while (kept < n) {
        double p = exp(ranks[kept].x - most) / sum;
        if (kept && how->top_p < 1 && fabs(kept_mass - (double)how->top_p) < 1e-5)
            *border = true;
        if (kept &&
            ((how->top_p < 1 && kept_mass >= (double)how->top_p) || exp(ranks[kept].x - most) < (double)how->min_p))
            break;
        kept_mass += p;
        kept++;
    }
    uint32_t key[2] = {(uint32_t)how->seed, (uint32_t)(how->seed >> 32)}, words[4];
    uint32_t counter[4] = {(uint32_t)in->n_ids, (uint32_t)in->choice, 0, 0};
    philox4x32(words, counter, key);
    double target = (double)(words[0] >> 8) / 16777216 * kept_mass, at = 0;
    for (int i = 0; i < kept; i++) {
        at += exp(ranks[i].x - most) / sum;
        if (fabs(at - target) < 1e-5)
            *border = true;
        if (at > target)
            return ranks[i].id;
    }
    return ranks[kept - 1].id;
}

static void test_sampler_equals_naive_twin(void **state)
{
    (void)state;
    enum { VOCAB = 5000 };
    static real logits[VOCAB];
    struct sampler_scratch scratch;
    struct rng r;
    int compared = 0;
    OK(sampler_scratch_init(&scratch, VOCAB, &err));
    rng_init(&r, 8);
    for (int round = 0; round < 600; round++) {
        int32_t ids[3] = {1, 2, 3};
        struct sampling how;
        float spread = (float)(1 + round % 4);
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (real)(floorf(rng_normal(&r) * spread * 64) / 64); /* ties are common */
        sampling_defaults(&how);
        how.temperature = 0.25f + (float)rng_below(&r, 8) / 4;
        how.top_k = rng_below(&r, 2) ? (int)rng_below(&r, 300) : 0;
        how.top_p = rng_below(&r, 2) ? 0.05f + (float)rng_below(&r, 90) / 100 : 1;
        how.min_p = rng_below(&r, 3) ? 0 : 0.013f;
        how.seed = rng_u64(&r);
        struct sampler_in in = {.how = &how,
                                .logits = logits,
                                .n_vocab = VOCAB,
                                .ids = ids,
                                .n_prompt = 3,
                                .n_ids = 3,
                                .choice = round % 5,
                                .given = -1};
        struct sample s;
        bool border;
        sampler_pick(&s, &in, &scratch);
        int want = naive_draw(&in, &border);
        if (border)
            continue;
        compared++;
        assert_int_equal(s.id, want);
    }
    assert_true(compared > 400);
    sampler_scratch_free(&scratch);
}

/* ---- the simple cases, one by one ---- */

struct small {
    struct sampling how;
    struct sampler_scratch scratch;
    real logits[8];
    int32_t ids[16];
    struct sampler_in in;
    struct sample out;
};

static void small_init(struct small *s)
{
    static const float row[8] = {1, 3, -2, 3, 0.5f, 2, -1, 0};
    sampling_defaults(&s->how);
    for (int i = 0; i < 8; i++)
        s->logits[i] = (real)row[i];
    s->ids[0] = 0;
    s->in = (struct sampler_in){
        .how = &s->how, .logits = s->logits, .n_vocab = 8, .ids = s->ids, .n_prompt = 1, .n_ids = 1, .given = -1};
    OK(sampler_scratch_init(&s->scratch, 8, &err));
}

static int32_t small_pick(struct small *s)
{
    sampler_pick(&s->out, &s->in, &s->scratch);
    return s->out.id;
}

static void test_sampler_greedy_and_ties(void **state)
{
    (void)state;
    struct small s;
    small_init(&s);
    s.how.temperature = 0;
    assert_int_equal(small_pick(&s), 1); /* 1 and 3 are equal: the lower id */
    s.how.temperature = 1;
    s.how.top_k = 1;
    for (s.how.seed = 0; s.how.seed < 50; s.how.seed++)
        assert_int_equal(small_pick(&s), 1);
    s.how.top_k = 0;
    s.how.top_p = 1e-6f;
    assert_int_equal(small_pick(&s), 1);
    struct logit_bias bias[] = {{5, 1.5f}, {1, -100}};
    s.how =
        (struct sampling){.top_p = 1, .repetition_penalty = 1, .n_logprobs = -1, .logit_bias = bias, .n_logit_bias = 2};
    assert_int_equal(small_pick(&s), 5);
    sampler_scratch_free(&s.scratch);
}

/* Of the three ids that a mask leaves, the most likely is the least typical. */
static void test_sampler_typical_with_a_mask(void **state)
{
    (void)state;
    struct small s;
    uint64_t mask = 7;
    small_init(&s);
    for (int i = 0; i < 8; i++)
        s.logits[i] = (real)log(i == 0 ? 0.4 : 0.3);
    s.how.typical_p = 0.4f;
    s.in.mask = &mask;
    for (int i = 0; i < 100; i++) { /* entropy 1.09: 1.20 is nearer to it than 0.92 */
        s.how.seed = (uint64_t)i;
        assert_int_not_equal(small_pick(&s), 0);
    }
    sampler_scratch_free(&s.scratch);
}

static void test_sampler_penalties(void **state)
{
    (void)state;
    struct small s;
    small_init(&s);
    s.how.temperature = 0;
    s.ids[0] = 1; /* in the prompt: only the repetition penalty sees it */
    s.how.presence_penalty = 2;
    assert_int_equal(small_pick(&s), 1);
    s.how.presence_penalty = 0;
    s.how.repetition_penalty = 1.1f;
    assert_int_equal(small_pick(&s), 3);
    s.how.repetition_penalty = 1;
    s.ids[1] = 1, s.ids[2] = 3, s.ids[3] = 1; /* output: 1 twice, 3 once */
    s.in.n_ids = 4;
    s.how.presence_penalty = 0.75f; /* both lose the same: 2.25 is still more than 2 */
    assert_int_equal(small_pick(&s), 1);
    s.how.presence_penalty = 0;
    s.how.frequency_penalty = 0.25f;
    assert_int_equal(small_pick(&s), 3);
    s.how.frequency_penalty = 1.5f;
    assert_int_equal(small_pick(&s), 5);
    sampler_scratch_free(&s.scratch);
}

static void test_sampler_min_tokens_forbids_eos(void **state)
{
    (void)state;
    struct small s;
    int32_t eos[] = {1, 3};
    small_init(&s);
    s.in.eos = eos;
    s.in.n_eos = 2;
    s.how.min_tokens = 1;
    s.how.temperature = 0;
    assert_int_equal(small_pick(&s), 5);
    s.how.temperature = 2;
    for (s.how.seed = 0; s.how.seed < 500; s.how.seed++) {
        int32_t id = small_pick(&s);
        assert_true(id != 1 && id != 3);
    }
    s.in.n_ids = 2;
    s.how.temperature = 0;
    assert_int_equal(small_pick(&s), 1);
    sampler_scratch_free(&s.scratch);
}

static void test_sampler_logprobs_are_of_the_raw_row(void **state)
{
    (void)state;
    struct small s;
    small_init(&s);
    double sum = 0;
    for (int i = 0; i < 8; i++)
        sum += exp((double)s.logits[i]);
    struct logit_bias bias = {6, 50};
    s.how.temperature = 0.3f;
    s.how.logit_bias = &bias;
    s.how.n_logit_bias = 1;
    s.how.n_logprobs = 3;
    assert_int_equal(small_pick(&s), 6);
    assert_true(fabs((double)s.out.logprob - (-1 - log(sum))) < 1e-6);
    assert_int_equal(s.out.n_top, 3);
    static const int top[] = {1, 3, 5};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(s.out.top[i].id, top[i]);
        assert_true(fabs((double)s.out.top[i].logit - ((double)s.logits[top[i]] - log(sum))) < 1e-6);
    }
    s.how.n_logprobs = 0;
    small_pick(&s);
    assert_int_equal(s.out.n_top, 0);
    s.in.given = 2; /* a prompt id: nothing is drawn */
    assert_int_equal(small_pick(&s), 2);
    assert_true(fabs((double)s.out.logprob - (-2 - log(sum))) < 1e-6);
    sampler_scratch_free(&s.scratch);
}

static void test_sampler_reports_nan_and_infinity(void **state)
{
    (void)state;
    struct small s;
    small_init(&s);
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 3; k++)
            for (int greedy = 0; greedy < 2; greedy++) {
                real old = s.logits[i];
                s.logits[i] = (real)bad[k];
                s.how.temperature = greedy ? 0 : 1;
                assert_int_equal(small_pick(&s), -1);
                s.logits[i] = old;
                assert_true(small_pick(&s) >= 0);
            }
    sampler_scratch_free(&s.scratch);
}

static void test_sampling_check_names_the_field(void **state)
{
    (void)state;
    struct sampling good, s;
    const char *param;
    struct logit_bias bias = {1, 101};
    sampling_defaults(&good);
    OK(sampling_check(&good, &param, &err));
    assert_null(param);
#define REFUSED(field, value, name)                                                                                    \
    do {                                                                                                               \
        s = good;                                                                                                      \
        s.field = value;                                                                                               \
        FAILS(ST_INVALID, sampling_check(&s, &param, &err));                                                           \
        assert_string_equal(param, name);                                                                              \
        assert_non_null(strstr(err.text, name));                                                                       \
    } while (0)
    REFUSED(temperature, -0.1f, "temperature");
    REFUSED(temperature, NAN, "temperature");
    REFUSED(temperature, INFINITY, "temperature");
    REFUSED(top_k, -1, "top_k");
    REFUSED(top_p, 0, "top_p");
    REFUSED(top_p, 1.01f, "top_p");
    REFUSED(min_p, 1.5f, "min_p");
    REFUSED(repetition_penalty, 0, "repetition_penalty");
    REFUSED(presence_penalty, 2.5f, "presence_penalty");
    REFUSED(frequency_penalty, -3, "frequency_penalty");
    REFUSED(max_tokens, -2, "max_tokens");
    REFUSED(min_tokens, -1, "min_tokens");
    REFUSED(n_logprobs, 21, "logprobs");
    good.logit_bias = &bias;
    REFUSED(n_logit_bias, 1, "logit_bias");
}

static void test_sampler_allocation_failures(void **state)
{
    (void)state;
    struct sampler_scratch s;
    uint64_t n = 0;
    for (bool fired = true; fired; fired = fault_fired()) {
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = sampler_scratch_init(&s, 100, &err);
        fault_disarm();
        assert_int_equal(st, fault_fired() ? ST_NOMEM : ST_OK);
        sampler_scratch_free(&s);
    }
    assert_int_equal(n, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_keeps_what_transformers_keeps),
        cmocka_unit_test(test_sampler_equals_naive_twin),
        cmocka_unit_test(test_sampler_greedy_and_ties),
        cmocka_unit_test(test_sampler_typical_with_a_mask),
        cmocka_unit_test(test_sampler_penalties),
        cmocka_unit_test(test_sampler_min_tokens_forbids_eos),
        cmocka_unit_test(test_sampler_logprobs_are_of_the_raw_row),
        cmocka_unit_test(test_sampler_reports_nan_and_infinity),
        cmocka_unit_test(test_sampling_check_names_the_field),
        cmocka_unit_test(test_sampler_allocation_failures),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
