/* test_replay - a saved answer reads back as it was written, no damage is taken for one, and it comes out again */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "replay/replay.h"

static struct error err;
static const char *const path = TEST_DIR "/../models/storyteller.gguf";

static int32_t prompt_ids[2][3] = {{1, 5, 9}, {7, 2, 0}};
static const int32_t output_ids[] = {3, 4, 5, 6};
static const struct ids prompts[] = {{prompt_ids[0], 3, 0}, {prompt_ids[1], 2, 0}};
static const struct logit_bias bias[] = {{4, -1.5f}, {9, 0.1f}};

static struct answer sample_answer(struct answer_choice choices[3])
{
    struct answer a = {.model = STR("m\"odel"),
                       .request = STR("{\"prompt\":\"a\"}"),
                       .response = STR("{\"text\":[1,{\"b\":2}]}"),
                       .n_stop = 2,
                       .stops = {STR("\n\n"), STR("End")},
                       .shown = {prompt_ids[0], 2, 0},
                       .prompts = prompts,
                       .choices = choices,
                       .n_prompt = 2,
                       .n_choice = 3};
    sampling_defaults(&a.sampling);
    a.sampling.temperature = 0.7f;
    a.sampling.min_p = 0.05f;
    a.sampling.max_tokens = 17;
    a.sampling.ignore_eos = true;
    a.sampling.logit_bias = bias;
    a.sampling.n_logit_bias = 2;
    memset(a.fingerprint.text, 'a', sizeof a.fingerprint.text - 1);
    a.fingerprint.n_part = 2;
    a.fingerprint.parts[0] = (struct fingerprint_part){"kv", "f16"};
    a.fingerprint.parts[1] = (struct fingerprint_part){"exact", "no"};
    choices[0] = (struct answer_choice){0, 0, 1, FINISH_STOP, STR("eins"), output_ids, 2};
    choices[1] = (struct answer_choice){0, 1, UINT64_MAX - 3, FINISH_LENGTH, STR(""), output_ids + 2, 2};
    choices[2] = (struct answer_choice){1, 0, 1 << 20, FINISH_STOP, STR("\xc3\xa4"), output_ids, 0};
    return a;
}

static struct buf written(const struct answer *a)
{
    struct buf out = {0};
    struct json_writer w;
    json_writer_init(&w, &out);
    answer_write(&w, a);
    assert_false(out.failed);
    return out;
}

static void check_same(const struct answer *a, const struct answer *b)
{
    assert_true(str_eq(a->model, b->model));
    assert_string_equal(a->fingerprint.text, b->fingerprint.text);
    assert_string_equal(answer_part(b, "kv"), "f16");
    assert_null(answer_part(b, "numerics"));
    assert_true(a->sampling.temperature == b->sampling.temperature && a->sampling.min_p == b->sampling.min_p);
    assert_int_equal(a->sampling.max_tokens, b->sampling.max_tokens);
    assert_true(b->sampling.ignore_eos);
    assert_int_equal(b->sampling.n_logit_bias, 2);
    assert_memory_equal(b->sampling.logit_bias, bias, sizeof bias);
    assert_int_equal(b->n_stop, 2);
    assert_true(str_is(b->stops[0], "\n\n") && str_is(b->stops[1], "End"));
    assert_int_equal(b->shown.count, 2);
    assert_memory_equal(b->shown.ids, prompt_ids[0], 2 * sizeof(int32_t));
    assert_int_equal(b->n_prompt, 2);
    assert_int_equal(b->n_choice, 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(b->prompts[i].count, prompts[i].count);
        assert_memory_equal(b->prompts[i].ids, prompts[i].ids, prompts[i].count * sizeof(int32_t));
    }
    for (int i = 0; i < 3; i++) {
        const struct answer_choice *x = &a->choices[i], *y = &b->choices[i];
        assert_true(x->prompt == y->prompt && x->index == y->index && x->seed == y->seed && x->finish == y->finish);
        assert_true(str_eq(x->text, y->text));
        assert_int_equal(x->n_id, y->n_id);
        if (x->n_id)
            assert_memory_equal(x->ids, y->ids, (size_t)x->n_id * sizeof *x->ids);
    }
}

static enum status read_text(struct str text, const struct answer *same_as)
{
    struct arena arena;
    struct answer got;
    arena_init(&arena, 1 << 20);
    enum status st = answer_read(&got, &arena, text, &err);
    if (st == ST_OK && same_as)
        check_same(same_as, &got);
    arena_free(&arena);
    return st;
}

static void test_answer_reads_back(void **state)
{
    (void)state;
    struct answer_choice choices[3];
    struct answer a = sample_answer(choices);
    struct buf text = written(&a), inside = {0};
    OK(read_text(buf_str(&text), &a));
    buf_printf(&inside, "{\"id\":\"x\",\"choices\":[],\"replay\":%s}", text.ptr);
    OK(read_text(buf_str(&inside), &a));
    buf_free(&inside);
    buf_free(&text);
}

static void test_answer_truncated_or_flipped_is_refused_or_read_within_bounds(void **state)
{
    (void)state;
    struct answer_choice choices[3];
    struct answer a = sample_answer(choices);
    struct buf text = written(&a);
    for (size_t n = 0; n < text.len; n++)
        assert_int_not_equal(read_text(str_n(text.ptr, n), NULL), ST_OK);
    for (size_t i = 0; i < text.len * 8; i++) {
        text.ptr[i / 8] ^= (char)(1 << i % 8);
        (void)read_text(buf_str(&text), NULL);
        text.ptr[i / 8] ^= (char)(1 << i % 8);
    }
    OK(read_text(buf_str(&text), &a));
    buf_free(&text);
}

/* {what, instead, what the sentence says} */
static void test_answer_says_what_is_wrong(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"\"ingot_answer\":1", "\"ingot_answer\":2", "version 2"},
        {"\"ingot_answer\"", "\"other\"", "no saved answer"},
        {"\"fingerprint\":\"a", "\"fingerprint\":\"", "64 hexadecimal digits"},
        {"\"top_k\":0", "\"top_k\":\"0\"", "top_k"},
        {"\"top_k\":0", "\"top_k\":3000000000", "top_k"},
        {"[4,-1.5]", "[4]", "logit_bias"},
        {"\"shown_ids\":[1,5]", "\"shown_ids\":5", "shown_ids"},
        {"[[1,5,9],[7,2]]", "[]", "prompt_ids"},
        {"[[1,5,9],[7,2]]", "[[1,5,9],7]", "prompt_ids"},
        {"\"prompt\":1", "\"prompt\":2", "number of a prompt"},
        {"\"index\":1", "\"index\":-1", "from 0 on"},
        {"\"finish_reason\":\"length\"", "\"finish_reason\":\"error\"", "stop or length"},
        {"\"seeds\":[1,-4,1048576]", "\"seeds\":[1,-4]", "as many as"},
        {"\"seeds\":[1,-4,1048576]", "\"seeds\":[1,-4,0.5]", "seeds"},
    };
    struct answer_choice choices[3];
    struct answer a = sample_answer(choices);
    struct buf text = written(&a);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf bad = {0};
        size_t at = str_find(buf_str(&text), str_of(rows[i][0]), 0);
        assert_true(at != SIZE_MAX);
        buf_append(&bad, text.ptr, at);
        buf_append_str(&bad, str_of(rows[i][1]));
        buf_append_str(&bad, str_from(buf_str(&text), at + strlen(rows[i][0])));
        assert_int_not_equal(read_text(buf_str(&bad), NULL), ST_OK);
        if (!strstr(err.text, rows[i][2]))
            fail_msg("row %zu: %s", i, err.text);
        buf_free(&bad);
    }
    buf_free(&text);
}

static void test_answer_survives_lack_of_memory(void **state)
{
    (void)state;
    struct answer_choice choices[3];
    struct answer a = sample_answer(choices);
    struct buf text = written(&a);
    uint64_t n = 0;
    do {
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = read_text(buf_str(&text), NULL);
        bool fired = fault_fired();
        fault_disarm();
        assert_int_equal(st, fired ? ST_NOMEM : ST_OK);
        if (!fired)
            break;
    } while (n < 1000);
    assert_in_range(n, 2, 100);
    buf_free(&text);
}

/* ---- a real model ---- */
static struct ids again_ids;
static struct buf again_text;

static void on_token(void *ctx, const struct token_event *e)
{
    (void)ctx;
    if (e->id >= 0)
        assert_true(ids_push(&again_ids, e->id));
    buf_append_str(&again_text, e->text);
}

static void test_replay_of_a_model(void **state)
{
    (void)state;
    struct bundle *bundle;
    struct engine *engine;
    struct finish_event end;
    struct ids prompt = {0};
    struct fingerprint f, other;
    OK(bundle_open(&bundle, path, &(struct model_options){.kv = KV_F16}, &err));
    OK(engine_create(&engine, bundle, &(struct engine_options){.n_thread = 1}, &err));
    OK(tokenizer_encode(bundle->tokenizer, &prompt, STR("Once upon a time"), TOKENIZE_ADD, &err));
    struct request r = {.prompt = prompt.ids, .n_prompt = (int)prompt.count, .on_token = on_token};
    sampling_defaults(&r.sampling);
    r.sampling.max_tokens = 24;
    r.sampling.n_logprobs = -1;
    OK(engine_generate(engine, &r, &end, &err));
    struct answer_choice choice = {
        0, 0, end.seed, end.finish, buf_str(&again_text), again_ids.ids, (int)again_ids.count};
    struct answer a = {.model = STR("m"),
                       .sampling = r.sampling,
                       .prompts = &prompt,
                       .choices = &choice,
                       .n_prompt = 1,
                       .n_choice = 1};
    OK(bundle_fingerprint(&f, bundle, NULL, &err));
    OK(bundle_fingerprint(&other, bundle, "0123", &err));
    a.fingerprint = f;
    OK(answer_check(&a, &f, &err));
    FAILS(ST_INVALID, answer_check(&a, &other, &err));
    assert_non_null(strstr(err.text, "adapter differs"));
    OK(answer_replay(&a, engine, NULL, NULL, &err));
    again_ids.ids[11]++;
    FAILS(ST_CORRUPT, answer_replay(&a, engine, NULL, NULL, &err));
    assert_non_null(strstr(err.text, "output 0, token 11"));
    again_ids.ids[11]--;
    choice.n_id--;
    OK(answer_replay(&(struct answer){.sampling = a.sampling, .prompts = &prompt, .choices = &choice, .n_choice = 0},
                     engine, NULL, NULL, &err));
    choice.finish = FINISH_STOP;
    FAILS(ST_CORRUPT, answer_replay(&a, engine, NULL, NULL, &err)); /* it was longer */
    choice.n_id++;
    choice.finish = FINISH_LENGTH;
    choice.text.len--;
    FAILS(ST_CORRUPT, answer_replay(&a, engine, NULL, NULL, &err));
    assert_non_null(strstr(err.text, "another text"));
    choice.text.len++;
    a.sampling.temperature = 0;
    FAILS(ST_CORRUPT, answer_replay(&a, engine, NULL, NULL, &err)); /* another request */
    engine_destroy(engine);
    bundle_close(bundle);
    ids_free(&prompt);
    ids_free(&again_ids);
    buf_free(&again_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer_reads_back),
        cmocka_unit_test(test_answer_truncated_or_flipped_is_refused_or_read_within_bounds),
        cmocka_unit_test(test_answer_says_what_is_wrong),
        cmocka_unit_test(test_answer_survives_lack_of_memory),
        cmocka_unit_test(test_replay_of_a_model),
    };
    return RUN(tests);
}
