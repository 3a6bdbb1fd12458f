/* test_sdk - the library's functions as its header promises them: sizes, errors, room, threads, ends, lack of memory */
#include "sdk/sdk_test.h"

static ingot_model *model;

static int set_up(void **state)
{
    (void)state;
    ingot_model_options o;
    INGOT_INIT(o);
    o.threads = 2;
    o.streams = 8;
    GOOD(ingot_model_open(&model, storyteller, &o, &error));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ingot_model_close(model);
    ingot_model_close(NULL);
    return 0;
}

struct text {
    char bytes[8192];
    size_t len;
    int n_token, n_finish, stop_after;
    ingot_result result;
    ingot_stream *stream;
};

static int on_token(void *ctx, const ingot_token *t)
{
    struct text *out = ctx;
    assert_true(t->size >= sizeof *t);
    memcpy(out->bytes + out->len, t->text, t->text_len);
    out->bytes[out->len += t->text_len] = 0;
    return ++out->n_token == out->stop_after;
}

static void on_finish(void *ctx, const ingot_result *r)
{
    struct text *out = ctx;
    out->result = *r;
    out->n_finish++;
}

static ingot_request request_of(const char *prompt, const ingot_sampling *s, struct text *out)
{
    ingot_request r;
    INGOT_INIT(r);
    r.prompt = prompt;
    r.sampling = s;
    r.on_token = on_token;
    r.on_finish = on_finish;
    r.ctx = out;
    return r;
}

static ingot_sampling sampling_of(int max_tokens, uint64_t seed)
{
    ingot_sampling s;
    ingot_sampling_init(&s);
    s.max_tokens = max_tokens;
    s.temperature = 0.9f;
    s.has_seed = 1;
    s.seed = seed;
    return s;
}

static void test_describes_itself(void **state)
{
    (void)state;
    ingot_model_info i;
    struct { /* of an older header: three fields */
        size_t size;
        const char *name, *family;
        int32_t context, after;
    } old = {.size = offsetof(ingot_model_info, n_vocab), .after = 77};
    char print[65];
    INGOT_INIT(i);
    GOOD(ingot_model_describe(model, &i, &error));
    assert_string_equal(i.name, "storyteller");
    assert_true(i.n_vocab > 256 && i.n_layer > 0 && i.n_param > 1000000 && i.has_tokenizer);
    GOOD(ingot_model_describe(model, (ingot_model_info *)&old, &error));
    assert_string_equal(old.name, "storyteller");
    assert_int_equal(old.context, i.context);
    assert_int_equal(old.after, 77);
    i.size = 0;
    BAD(INGOT_INVALID, "size", ingot_model_describe(model, &i, &error));
    GOOD(ingot_model_fingerprint(model, print, &error));
    assert_int_equal(strlen(print), 64);
    assert_string_equal(ingot_version(), INGOT_VERSION);
    assert_int_equal(ingot_abi(), INGOT_ABI);
    assert_string_equal(ingot_status_name(INGOT_NOT_FOUND), "not_found");
    assert_string_equal(ingot_status_name(99), "unknown");
}

static void test_opening_says_what_is_wrong(void **state)
{
    (void)state;
    ingot_model *m;
    ingot_model_options o = {0};
    BAD(INGOT_NOT_FOUND, "nothing.gguf", ingot_model_open(&m, "nothing.gguf", NULL, &error));
    assert_null(m);
    assert_int_equal(ingot_model_open(&m, "nothing.gguf", NULL, NULL), INGOT_NOT_FOUND);
    BAD(INGOT_INVALID, "size is not set", ingot_model_open(&m, storyteller, &o, &error));
    INGOT_INIT(o);
    o.kv = 9;
    BAD(INGOT_INVALID, "kv 9", ingot_model_open(&m, storyteller, &o, &error));
    struct {
        ingot_model_options o;
        int newer[4];
    } longer = {0};
    INGOT_INIT(longer.o);
    longer.o.size = sizeof longer;
    longer.o.threads = 1;
    GOOD(ingot_model_open(&m, storyteller, &longer.o, &error)); /* of a newer header, but nothing new is set */
    ingot_model_close(m);
    longer.newer[1] = 1;
    BAD(INGOT_INVALID, "newer library", ingot_model_open(&m, storyteller, &longer.o, &error));
}

static void test_tokens_and_room(void **state)
{
    (void)state;
    int32_t ids[64];
    char text[64];
    size_t n, len;
    GOOD(ingot_tokenize(model, "Once upon", 9, 0, ids, 64, &n, &error));
    assert_in_range(n, 2, 9);
    BAD(INGOT_LIMIT, "room", ingot_tokenize(model, "Once upon", 9, 0, ids, n - 1, &len, &error));
    assert_int_equal(len, n);
    BAD(INGOT_INVALID, "flags", ingot_tokenize(model, "a", 1, 8, ids, 64, &len, &error));
    GOOD(ingot_tokenize(model, "", 0, 0, NULL, 0, &len, &error));
    assert_int_equal(len, 0);
    GOOD(ingot_detokenize(model, ids, n, text, sizeof text, &len, &error));
    assert_string_equal(text, "Once upon");
    assert_int_equal(len, 9);
    BAD(INGOT_LIMIT, "room", ingot_detokenize(model, ids, n, text, 9, &len, &error));
    ids[0] = 1 << 30;
    BAD(INGOT_INVALID, "", ingot_detokenize(model, ids, 1, text, sizeof text, &len, &error));
    GOOD(ingot_chat_tokenize(model, "[{\"role\":\"user\",\"content\":\"Hi\"}]", ids, 64, &n, &error));
    assert_true(n > 1);
    BAD(INGOT_CORRUPT, "line 1", ingot_chat_tokenize(model, "[", ids, 64, &n, &error));
}

static void test_stream_and_its_ends(void **state)
{
    (void)state;
    struct text a = {0}, b = {0}, c = {0}, d = {0};
    ingot_sampling s = sampling_of(20, 5);
    ingot_request r = request_of("Once upon a time", &s, &a);
    ingot_stream *stream;
    GOOD(ingot_stream_start(&stream, model, &r, &error));
    ingot_result result;
    INGOT_INIT(result);
    GOOD(ingot_stream_wait(stream, &result, &error));
    ingot_stream_close(stream);
    assert_int_equal(a.n_finish, 1);
    assert_int_equal(result.finish, INGOT_FINISH_LENGTH);
    assert_int_equal(result.output_tokens, 20);
    assert_int_equal(result.seed, 5);
    assert_true(a.len > 20);
    r.ctx = &b;
    b.stop_after = 3; /* the callback ends it */
    GOOD(ingot_stream_start(&stream, model, &r, &error));
    GOOD(ingot_stream_wait(stream, &result, &error));
    assert_int_equal(result.finish, INGOT_FINISH_CANCELED);
    ingot_stream_close(stream);
    assert_memory_equal(a.bytes, b.bytes, b.len);
    r.ctx = &c;
    s.max_tokens = 0;
    s.ignore_eos = 1;
    GOOD(ingot_stream_start(&stream, model, &r, &error));
    ingot_stream_close(stream); /* cancels */
    assert_int_equal(c.n_finish, 1);
    r.ctx = &d;
    r.timeout_ms = 30;
    GOOD(ingot_stream_start(&stream, model, &r, &error));
    int status = ingot_stream_wait(stream, &result, &error);
    if (result.finish != INGOT_FINISH_LENGTH) /* a machine that filled the context in 30 ms */
        assert_int_equal(status, INGOT_TIMEOUT);
    ingot_stream_close(stream);
    ingot_stream_close(NULL);
}

static void test_requests_that_make_no_sense(void **state)
{
    (void)state;
    static const char *const stops[17] = {"a", ""};
    ingot_sampling s = sampling_of(4, 1);
    ingot_stream *stream;
    ingot_request r = request_of("a", &s, NULL);
    ingot_logit_bias bias = {1 << 30, 1};
    BAD(INGOT_INVALID, "size", ingot_stream_start(&stream, model, NULL, &error));
    r.messages = "[]";
    BAD(INGOT_INVALID, "one of prompt", ingot_stream_start(&stream, model, &r, &error));
    assert_null(stream);
    r.messages = NULL;
    r.flags = 6;
    BAD(INGOT_INVALID, "flags", ingot_stream_start(&stream, model, &r, &error));
    r.flags = INGOT_RAW;
    s.stops = stops;
    s.n_stop = 2;
    BAD(INGOT_INVALID, "stop 1 is empty", ingot_stream_start(&stream, model, &r, &error));
    s.n_stop = 17;
    BAD(INGOT_INVALID, "17 stops", ingot_stream_start(&stream, model, &r, &error));
    s.n_stop = 0;
    s.temperature = 1e9f;
    assert_int_equal(ingot_stream_start(&stream, model, &r, &error), INGOT_INVALID);
    s.temperature = 1;
    s.logit_bias = &bias;
    s.n_logit_bias = 1;
    assert_int_equal(ingot_stream_start(&stream, model, &r, &error), INGOT_INVALID);
    s.n_logit_bias = 0;
    r.prompt = NULL;
    r.ids = &bias.id;
    r.n_id = 1;
    BAD(INGOT_INVALID, "vocabulary", ingot_stream_start(&stream, model, &r, &error));
    s.size = 3;
    BAD(INGOT_INVALID, "size", ingot_stream_start(&stream, model, &r, &error));
}

/* ---- many threads, many streams: the bits of one alone ---- */
enum { THREADS = 6, EACH = 8, PROMPTS = 3 };
static const char *const prompts[PROMPTS] = {"Once upon a time", "The count of", "In the evening the men"};
static char alone[PROMPTS][4096];

static void *many(void *arg)
{
    static struct text texts[THREADS][EACH];
    int me = (int)(intptr_t)arg;
    for (int i = 0; i < EACH; i++) {
        ingot_sampling s = sampling_of(16, (uint64_t)(i % PROMPTS));
        ingot_request r = request_of(prompts[i % PROMPTS], &s, &texts[me][i]);
        if (ingot_stream_start(&texts[me][i].stream, model, &r, NULL) != INGOT_OK)
            return (void *)"start";
    }
    for (int i = 0; i < EACH; i++) {
        if (ingot_stream_wait(texts[me][i].stream, NULL, NULL) != INGOT_OK ||
            strcmp(texts[me][i].bytes, alone[i % PROMPTS]) != 0)
            return (void *)"other bits";
        ingot_stream_close(texts[me][i].stream);
    }
    return NULL;
}

static void test_many_streams_of_many_threads_have_the_bits_of_one_alone(void **state)
{
    (void)state;
    for (int i = 0; i < PROMPTS; i++) {
        struct text t = {0};
        ingot_sampling s = sampling_of(16, (uint64_t)i);
        ingot_request r = request_of(prompts[i], &s, &t);
        GOOD(ingot_stream_start(&t.stream, model, &r, &error));
        GOOD(ingot_stream_wait(t.stream, NULL, &error));
        ingot_stream_close(t.stream);
        strcpy(alone[i], t.bytes);
    }
    run_threads(THREADS, many);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static int gated(void *ctx, const ingot_token *t) /* nothing ends while the gate is held */
{
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return on_token(ctx, t);
}

/* Who waited for an end may start again at once. */
static void test_a_place_is_free_when_its_stream_has_ended(void **state)
{
    (void)state;
    ingot_model *small;
    ingot_model_options o;
    INGOT_INIT(o);
    o.threads = 1;
    o.streams_max = 1;
    GOOD(ingot_model_open(&small, storyteller, &o, &error));
    for (int i = 0; i < 300; i++) {
        struct text t = {0};
        ingot_sampling s = sampling_of(1, 1);
        ingot_request r = request_of("Once", &s, &t);
        GOOD(ingot_stream_start(&t.stream, small, &r, &error));
        GOOD(ingot_stream_wait(t.stream, NULL, &error));
        ingot_stream_close(t.stream);
    }
    ingot_model_close(small);
}

/* Be streams_max as many as run or fewer. */
static void test_no_more_streams_than_were_asked_for(void **state)
{
    (void)state;
    for (int streams = 0; streams <= 2; streams += 2) {
        ingot_model *small;
        ingot_model_options o;
        INGOT_INIT(o);
        o.threads = 1;
        o.streams = streams;
        o.streams_max = 2;
        GOOD(ingot_model_open(&small, storyteller, &o, &error));
        struct text t[3] = {0};
        ingot_sampling s = sampling_of(4, 1);
        pthread_mutex_lock(&gate);
        for (int i = 0; i < 3; i++) {
            ingot_request r = request_of("Once", &s, &t[i]);
            r.on_token = gated;
            if (i < 2)
                GOOD(ingot_stream_start(&t[i].stream, small, &r, &error));
            else
                BAD(INGOT_LIMIT, "2 requests", ingot_stream_start(&t[i].stream, small, &r, &error));
        }
        assert_null(t[2].stream);
        pthread_mutex_unlock(&gate);
        for (int i = 0; i < 2; i++) {
            GOOD(ingot_stream_wait(t[i].stream, NULL, &error));
            ingot_stream_close(t[i].stream);
        }
        ingot_request r = request_of("Once", &s, &t[2]);
        GOOD(ingot_stream_start(&t[2].stream, small, &r, &error));
        ingot_stream_close(t[2].stream);
        ingot_model_close(small);
    }
}

static void test_session_remembers_and_forgets(void **state)
{
    (void)state;
    ingot_session *session;
    ingot_sampling s = sampling_of(12, 3);
    ingot_result r;
    char first[1024], second[1024];
    struct text t = {.stop_after = 2};
    INGOT_INIT(r);
    GOOD(ingot_session_open(&session, model, "Be brief.", &error));
    assert_string_equal(ingot_session_answer(session), "");
    GOOD(ingot_session_say(session, "Hello there", &s, NULL, NULL, &r, &error));
    strcpy(first, ingot_session_answer(session));
    int32_t n_first = r.prompt_tokens;
    GOOD(ingot_session_say(session, "Hello there", &s, NULL, NULL, &r, &error));
    strcpy(second, ingot_session_answer(session));
    assert_true(r.prompt_tokens > n_first + 10); /* the first turn is part of the prompt */
    s.max_tokens = -3;
    BAD(INGOT_INVALID, "max_tokens", ingot_session_say(session, "x", &s, NULL, NULL, &r, &error));
    s.max_tokens = 12;
    ingot_session_reset(session);
    GOOD(ingot_session_say(session, "Hello there", &s, NULL, NULL, &r, &error));
    assert_int_equal(r.prompt_tokens, n_first);
    assert_string_equal(ingot_session_answer(session), first);
    GOOD(ingot_session_say(session, "Hello there", &s, NULL, NULL, &r, &error));
    assert_string_equal(ingot_session_answer(session), second);
    GOOD(ingot_session_say(session, "More", &s, on_token, &t, &r, &error));
    assert_int_equal(r.finish, INGOT_FINISH_CANCELED);
    assert_string_equal(ingot_session_answer(session), t.bytes);
    ingot_session_close(session);
    ingot_session_close(NULL);
}

static void test_model_lives_until_its_last_user(void **state)
{
    (void)state;
    ingot_model *m;
    ingot_session *session;
    ingot_sampling s = sampling_of(4, 3);
    GOOD(ingot_model_open(&m, storyteller, NULL, &error));
    GOOD(ingot_session_open(&session, m, NULL, &error));
    ingot_model_close(m);
    GOOD(ingot_session_say(session, "Hi", &s, NULL, NULL, NULL, &error));
    ingot_session_close(session);
}

static void test_lack_of_memory_is_told(void **state)
{
    (void)state;
    int n = 0;
    for (bool fired = true; fired;) {
        struct text t = {0};
        static const char *const stops[] = {"zz"};
        ingot_logit_bias bias = {3, -1};
        ingot_sampling s = sampling_of(2, 1);
        ingot_request r = request_of("Once", &s, &t);
        s.stops = stops;
        s.n_stop = 1;
        s.logit_bias = &bias;
        s.n_logit_bias = 1;
        fault_arm(FAULT_ALLOC, (uint64_t)++n);
        int status = ingot_stream_start(&t.stream, model, &r, &error);
        if (status == INGOT_OK) {
            status = ingot_stream_wait(t.stream, NULL, &error);
            ingot_stream_close(t.stream);
        }
        fired = fault_fired();
        fault_disarm();
        if (status != INGOT_OK)
            assert_int_equal(status, INGOT_NOMEM);
        assert_in_range(n, 1, 200);
        if (!fired)
            assert_int_equal(status, INGOT_OK);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describes_itself),
        cmocka_unit_test(test_opening_says_what_is_wrong),
        cmocka_unit_test(test_tokens_and_room),
        cmocka_unit_test(test_stream_and_its_ends),
        cmocka_unit_test(test_requests_that_make_no_sense),
        cmocka_unit_test(test_many_streams_of_many_threads_have_the_bits_of_one_alone),
        cmocka_unit_test(test_no_more_streams_than_were_asked_for),
        cmocka_unit_test(test_a_place_is_free_when_its_stream_has_ended),
        cmocka_unit_test(test_session_remembers_and_forgets),
        cmocka_unit_test(test_model_lives_until_its_last_user),
        cmocka_unit_test(test_lack_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
