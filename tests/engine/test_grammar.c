/* Requests with a grammar: every answer is in its language, the same alone, in company, preempted, and with proposals
 * of whatever worth; the sampler draws only what a mask allows, and reports the model's own log-probabilities. */
#include "test.h"

#include "base/mem.h"
#include "fake.h"

static struct error err;
enum { REQUESTS = 10, DRAFTS = 3 };

static const char *const texts[FAKE_VOCAB] = {"a",  "b",  "c", "",  "(",  ")",  "ab", "ba", "((", "))", "x",  "y",
                                              "xy", "yx", "1", "2", "12", "21", ",",  "1,", ",2", "a(", ")b", "()"};
static const char *const sources[] = {
    "root ::= e\ne ::= [ab]* | \"(\" e \")\" e",
    "root ::= [xy]{3,9}",
    "root ::= n (\",\" n)*\nn ::= [12]+",
};

struct all {
    struct core core;
    struct record records[REQUESTS];
    int left;
    int draft_kind; /* 0: none; 1: what was said last; 2: nonsense */
};

static void on_end(void *ctx, struct seq *s, const struct finish_event *end)
{
    struct all *a = ctx;
    s->r->on_finish(s->r->ctx, end);
    seq_free(s);
    a->left--;
}

static void draft(void *ctx, const struct seq_list *running)
{
    struct all *a = ctx;
    for (struct seq *s = running->first; s && a->draft_kind; s = s->next) {
        int most = s->n_limit - s->n_ids - 1;
        if (s->n_done != s->n_ids - 1 || s->n_ids == s->n_prompt)
            continue;
        s->n_draft = most < DRAFTS ? (most > 0 ? most : 0) : DRAFTS;
        for (int k = 0; k < s->n_draft; k++)
            s->ids[s->n_ids + k] = a->draft_kind == 1 ? s->ids[s->n_ids - 1] : (s->n_ids * 7 + k * 5) % FAKE_VOCAB;
    }
}

/* Requests first .. last at once. */
static void run(struct all *a, struct grammar *const *grammars, int first, int last, int n_block, int draft_kind)
{
    static struct fake fake;
    static int32_t prompts[REQUESTS][8];
    static struct request requests[REQUESTS];
    struct engine_options o = {.max_sequences = 16, .prefill_chunk = 16};
    memset(&fake, 0, sizeof fake);
    memset(a, 0, sizeof *a);
    struct executor x = fake_executor(&fake, &o, n_block, NULL);
    OK(core_init(&a->core, &x, &o, &err));
    a->core.ctx = a;
    a->core.on_end = on_end;
    a->core.draft = draft;
    a->draft_kind = draft_kind;

    for (int i = first; i <= last; i++) {
        struct seq *s;
        struct request *r = &requests[i];
        *r = (struct request){.prompt = prompts[i], .n_prompt = 1 + i % 8, .grammar = grammars[i % 3]};
        for (int k = 0; k < r->n_prompt; k++)
            prompts[i][k] = (i * 3 + k) % FAKE_VOCAB;
        sampling_defaults(&r->sampling);
        r->sampling.seed = (uint64_t)i;
        r->sampling.has_seed = true;
        r->sampling.temperature = i % 4 == 3 ? 0 : 1;
        r->sampling.max_tokens = 90;
        r->sampling.min_tokens = i % 2 ? 4 : 0;
        r->sampling.n_logprobs = 0;
        r->ctx = &a->records[i];
        r->on_token = record_token;
        r->on_finish = record_finish;
        OK(seq_create(&s, r, &a->core.x, &err));
        s->order = (uint64_t)i;
        sched_add(&a->core.sched, s);
        a->left++;
    }
    while (a->left)
        core_step(&a->core);
    core_free(&a->core);
}

static struct grammar_vocab *make_vocab(void)
{
    struct grammar_vocab *v;
    struct str tokens[FAKE_VOCAB];
    int32_t eos = FAKE_EOS;
    for (int i = 0; i < FAKE_VOCAB; i++)
        tokens[i] = str_of(texts[i]);
    OK(grammar_vocab_create_of(&v, tokens, FAKE_VOCAB, &eos, 1, &err));
    return v;
}

static void test_answers_are_in_their_language(void **state)
{
    (void)state;
    static struct all company, other;
    struct grammar_vocab *v = make_vocab();
    struct grammar *grammars[3];
    int n_whole = 0;
    for (int i = 0; i < 3; i++) {
        struct grammar_part part = {.kind = GRAMMAR_GBNF, .text = str_of(sources[i])};
        OK(grammar_compile(&grammars[i], v, &part, &err));
    }
    run(&company, grammars, 0, REQUESTS - 1, 40, 0);
    for (int i = 0; i < REQUESTS; i++) {
        const struct record *r = &company.records[i];
        struct buf text = {0};
        struct grammar_state *s;
        for (int k = 0; k < r->n; k++)
            if (r->ids[k] >= 0)
                buf_append_str(&text, str_of(texts[r->ids[k]]));
        OK(grammar_state_create(&s, grammars[i % 3], &err));
        assert_true(r->finish == FINISH_STOP || r->finish == FINISH_LENGTH);
        assert_true(grammar_accepts_bytes(s, buf_str(&text), r->finish == FINISH_STOP));
        n_whole += r->finish == FINISH_STOP;
        grammar_state_destroy(s);
        buf_free(&text);
    }
    assert_true(n_whole >= 4);
    for (int way = 0; way < 4; way++) { /* alone; few blocks; proposals, good and bad */
        for (int i = 0; i < REQUESTS; i += way ? REQUESTS : 1) {
            int last = way ? REQUESTS - 1 : i;
            run(&other, grammars, i, last, way == 1 ? 6 : 40, way < 2 ? 0 : way - 1);
            for (int k = i; k <= last; k++) {
                if (other.records[k].n != company.records[k].n)
                    fail_msg("way %d, request %d: %d tokens, not %d, finish %d %d", way, k, other.records[k].n,
                             company.records[k].n, other.records[k].finish, company.records[k].finish);
                assert_int_equal(other.records[k].n, company.records[k].n);
                assert_memory_equal(other.records[k].ids, company.records[k].ids,
                                    (size_t)other.records[k].n * sizeof(int32_t));
                assert_memory_equal(other.records[k].logprobs, company.records[k].logprobs,
                                    (size_t)other.records[k].n * sizeof(float));
            }
        }
    }
    for (int i = 0; i < 3; i++)
        grammar_release(grammars[i]);
    grammar_vocab_destroy(v);
}

static void test_sampler_draws_what_the_mask_allows(void **state)
{
    (void)state;
    enum { N = 200 };
    real logits[N];
    struct sampler_scratch scratch;
    struct sampling how;
    struct rng rng;
    int32_t ids[2] = {1, 2}, eos = 7;
    rng_init(&rng, 4);
    sampling_defaults(&how);
    how.has_seed = true;
    how.n_logprobs = 0;
    OK(sampler_scratch_init(&scratch, N, &err));
    for (int round = 0; round < 2000; round++) {
        uint64_t mask[4] = {0};
        struct sample drawn, same;
        int n = 1 + (int)rng_below(&rng, round % 2 ? 3 : N);
        for (int i = 0; i < N; i++)
            logits[i] = (real)(rng_unit(rng_u32(&rng)) * 20 - 10);
        for (int i = 0; i < n; i++) {
            uint64_t id = rng_below(&rng, N);
            mask[id / 64] |= (uint64_t)1 << id % 64;
        }
        how.seed = (uint64_t)round;
        how.temperature = round % 5 ? 1.3f : 0;
        how.top_k = round % 3 ? 0 : 10;
        how.top_p = round % 4 ? 1 : 0.7f;
        how.min_tokens = round % 7 ? 0 : 5;
        struct sampler_in in = {.how = &how,
                                .logits = logits,
                                .n_vocab = N,
                                .ids = ids,
                                .n_prompt = 2,
                                .n_ids = 2,
                                .eos = &eos,
                                .n_eos = 1,
                                .mask = mask,
                                .given = -1};
        sampler_pick(&drawn, &in, &scratch);
        assert_true(drawn.id >= 0 && mask[drawn.id / 64] >> drawn.id % 64 & 1);
        in.mask = NULL;
        in.given = drawn.id;
        sampler_pick(&same, &in, &scratch);
        assert_memory_equal(&same.logprob, &drawn.logprob, sizeof(float));
    }
    sampler_scratch_free(&scratch);
}

static void test_a_grammar_of_another_vocabulary_is_refused(void **state)
{
    (void)state;
    static struct fake fake;
    struct engine_options o = {.max_sequences = 2, .prefill_chunk = 16};
    struct executor x = fake_executor(&fake, &o, 8, NULL);
    struct grammar_vocab *v;
    struct grammar *g;
    struct seq *s;
    struct str tokens[100] = {{"a", 1}};
    int32_t eos = 99, prompt = 1;
    OK(grammar_vocab_create_of(&v, tokens, 100, &eos, 1, &err));
    OK(grammar_compile(&g, v, &(struct grammar_part){.kind = GRAMMAR_TEXT, .text = STR("a")}, &err));
    struct request r = {.prompt = &prompt, .n_prompt = 1, .grammar = g};
    sampling_defaults(&r.sampling);
    FAILS(ST_INVALID, seq_create(&s, &r, &x, &err));
    grammar_release(g);
    grammar_vocab_destroy(v);
}

struct told {
    char message[200];
    enum status status;
};

static void told_finish(void *ctx, const struct finish_event *end)
{
    struct told *t = ctx;
    snprintf(t->message, sizeof t->message, "%s", end->message);
    t->status = end->status;
}

static void test_a_grammar_that_cannot_go_on_says_so(void **state)
{
    (void)state;
    static struct fake fake;
    struct engine_options o = {.max_sequences = 2, .prefill_chunk = 16};
    struct executor x = fake_executor(&fake, &o, 8, NULL);
    struct grammar_vocab *v = make_vocab();
    struct grammar *g;
    struct engine *e;
    struct told told = {.message = ""};
    int32_t prompt = 1;
    OK(grammar_compile(&g, v, &(struct grammar_part){.kind = GRAMMAR_TEXT, .text = STR("q")}, &err)); /* no token */
    OK(engine_create_on(&e, &x, &o, &err));
    struct request r = {.prompt = &prompt, .n_prompt = 1, .grammar = g, .ctx = &told, .on_finish = told_finish};
    sampling_defaults(&r.sampling);
    OK(engine_submit(e, &r, &err));
    engine_drain(e);
    engine_destroy(e);
    assert_int_equal(told.status, ST_INVALID);
    assert_non_null(strstr(told.message, "the grammar cannot go on"));
    grammar_release(g);
    grammar_vocab_destroy(v);
}

/* A proposed id is right, and no mask stands behind it: the answer fails with that reason. */
static void test_a_grammar_that_cannot_go_on_behind_a_proposal_says_so(void **state)
{
    (void)state;
    static struct fake fake;
    static struct all all = {.draft_kind = 1, .left = 1};
    struct engine_options o = {.max_sequences = 2, .prefill_chunk = 16};
    struct executor x = fake_executor(&fake, &o, 8, NULL);
    struct grammar_vocab *v = make_vocab();
    struct grammar *g;
    struct seq *s;
    struct told told = {.message = ""};
    int32_t prompt = 1;
    OK(grammar_compile(&g, v, &(struct grammar_part){.kind = GRAMMAR_TEXT, .text = STR("xxq")}, &err));
    OK(core_init(&all.core, &x, &o, &err));
    all.core.ctx = &all;
    all.core.on_end = on_end;
    all.core.draft = draft; /* behind the first x another */
    struct request r = {.prompt = &prompt, .n_prompt = 1, .grammar = g, .ctx = &told, .on_finish = told_finish};
    sampling_defaults(&r.sampling);
    OK(seq_create(&s, &r, &all.core.x, &err));
    sched_add(&all.core.sched, s);
    while (all.left)
        core_step(&all.core);
    assert_int_equal(all.core.accepted, 1);
    assert_int_equal(told.status, ST_INVALID);
    assert_non_null(strstr(told.message, "the grammar cannot go on"));
    core_free(&all.core);
    grammar_release(g);
    grammar_vocab_destroy(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_in_their_language),
        cmocka_unit_test(test_sampler_draws_what_the_mask_allows),
        cmocka_unit_test(test_a_grammar_of_another_vocabulary_is_refused),
        cmocka_unit_test(test_a_grammar_that_cannot_go_on_says_so),
        cmocka_unit_test(test_a_grammar_that_cannot_go_on_behind_a_proposal_says_so),
    };
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    return RUN(tests);
}
