/* The load generator: its arithmetic against known values, its readers against damage, and its account of a scripted
 * server that stalls, cuts, refuses and talks nonsense. */
#include "test.h"

#include "base/fault.h"
#include "load/load.h"

#include "net/stub.h"

#include <limits.h>
#include <math.h>
#include <poll.h>

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b) + 1);
}

/* ---- arithmetic ---- */

static void test_quantiles_are_numpys(void **state)
{
    double v[] = {15, 20, 35, 40, 50, 3, 8, 100, 1, 60}; /* numpy.percentile(v, [50, 90, 95, 99]) */
    (void)state;
    struct load_quantiles q = load_quantiles_of(v, 10);
    assert_true(near(q.p50, 27.5) && near(q.p90, 64) && near(q.p95, 82) && near(q.p99, 96.4));
    assert_true(near(q.mean, 33.2) && near(q.max, 100) && q.n == 10);
    q = load_quantiles_of((double[]){7}, 1);
    assert_true(near(q.p50, 7) && near(q.p99, 7));
    q = load_quantiles_of(NULL, 0);
    assert_true(q.n == 0 && near(q.p99, 0));
}

static void test_slo_is_parsed_and_judged(void **state)
{
    struct error err;
    struct load_slo slo;
    (void)state;
    OK(load_slo_parse(&slo, "ttft=500ms, itl=0.1s,tpot=250us,e2e=1000", &err));
    assert_true(near(slo.ttft, 0.5) && near(slo.itl, 0.1) && near(slo.tpot, 250e-6) && near(slo.e2e, 1));
    static const char *const wrong[] = {"ttft",    "ttft=",      "ttft=-1ms", "tft=5ms",
                                        "ttft=5m", "ttft=1ms,,", "=5ms",      "itl=nan"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        FAILS(ST_INVALID, load_slo_parse(&slo, wrong[i], &err));

    struct load_sample samples[] = {
        {0, 0, 0.1, 0.5, 0.6, LOAD_OK, 10, 5, 0.2f}, /* tpot 0.1 */
        {1, 1, 1.3, 1.5, 1.6, LOAD_OK, 10, 3, 0.1f}, /* ttft 0.3 */
        {2, 2.001, -1, -1, 2.004, 503, 0, 0, 0},     /* refused after 4 ms */
        {3, 3, -1, -1, 4, LOAD_TIMEOUT, 0, 0, 0},
    };
    struct load_result r = {.rate = 1, .n = 4, .samples = samples, .seconds = 4, .server_cpu_s = -1};
    struct load_summary s;
    static const struct {
        const char *slo;
        size_t good;
    } rows[] = {{"", 2},           {"ttft=200ms", 1}, {"itl=150ms", 1},       {"tpot=90ms", 0},
                {"tpot=101ms", 2}, {"e2e=595ms", 0},  {"ttft=99ms,itl=1s", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        OK(load_slo_parse(&slo, rows[i].slo, &err));
        assert_true(load_summarize(&s, &r, &slo));
        assert_int_equal(s.n_good, rows[i].good);
    }
    assert_int_equal(s.n_ok, 2);
    assert_int_equal(s.by_kind[LOAD_TIMEOUT], 1);
    assert_true(s.n_status == 1 && s.statuses[0].status == 503 && s.statuses[0].n == 1);
    assert_true(near(s.refused.p50, 0.004) && near(s.tokens_out, 8) && near(s.late.max, 0.001));
    assert_null(s.void_reason);
    r.client_cpu_s = 3.3;
    assert_true(load_summarize(&s, &r, &slo));
    assert_non_null(s.void_reason); /* more than 80 % of a core */
    r.client_cpu_s = 0;
    samples[2].sent = 2.2;
    assert_true(load_summarize(&s, &r, &slo));
    assert_non_null(s.void_reason); /* sent late */
}

/* ---- plans ---- */

static void test_plan_uniform(void **state)
{
    struct error err;
    struct load_plan p;
    struct load_shape s = {
        .in_min = 100, .in_max = 1024, .out_min = 10, .out_max = 12, .rate = 50, .n_request = 4000, .seed = 3};
    (void)state;
    OK(load_plan_make(&p, &s, &err));
    assert_int_equal(p.n, 4000);
    double sum = 0, square = 0, in = 0;
    for (size_t i = 0; i < p.n; i++) {
        assert_in_range(p.items[i].n_in, 100, 1024);
        assert_in_range(p.items[i].n_out, 10, 12);
        in += p.items[i].n_in;
        double gap = i ? p.items[i].at_s - p.items[i - 1].at_s : 1 / s.rate;
        assert_true(gap > 0);
        sum += gap;
        square += gap * gap;
    }
    double mean = sum / 4000, variance = square / 4000 - mean * mean;
    assert_true(fabs(mean * s.rate - 1) < 0.06);             /* 4 standard errors */
    assert_true(fabs(variance * s.rate * s.rate - 1) < 0.2); /* Poisson: the gaps' variance is their mean's square */
    assert_true(fabs(in / 4000 - 562) < 20);
    load_plan_free(&p);
    s.scale = 0.1;
    s.duration_s = 2;
    OK(load_plan_make(&p, &s, &err));
    assert_true(p.n < 200 && p.items[p.n - 1].at_s < 2);
    assert_in_range(p.items[0].n_in, 10, 102);
    load_plan_free(&p);
    s = (struct load_shape){.in_min = 5, .in_max = 5, .out_min = 1, .out_max = 1, .clients = 3, .n_request = 7};
    OK(load_plan_make(&p, &s, &err));
    assert_true(p.n == 7 && p.clients == 3 && near(p.rate, 0));
    load_plan_free(&p);
    s = (struct load_shape){.in_min = 5, .in_max = 5, .out_min = 1, .out_max = 1};
    FAILS(ST_INVALID, load_plan_make(&p, &s, &err));
}

static const char azure[] = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.5000000,4808,10\n"
                            "2023-11-17 00:00:00.2500000,3180,8\r\n2023-11-17 00:00:00.1000000,110,27\n";
static const char mooncake[] =
    "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}\n"
    "{\"timestamp\": 1500, \"input_length\": 700, \"output_length\": 6, \"hash_ids\": [0, 3]}\n";
static const char aibrix[] =
    "{\"timestamp\": 6011, \"requests\": [{\"Prompt Length\": 178, \"Output Length\": 8, "
    "\"prompt\": \"one \\\"two\\\"\"}, {\"Prompt Length\": 3, \"Output Length\": 2, \"prompt\": \"x\"}]}\n";

static void test_traces(void **state)
{
    struct error err;
    struct load_plan p = {0};
    (void)state;
    arena_init(&p.arena, 0);
    OK(load_trace_read(&p, str_of(azure), &err));
    assert_int_equal(p.n, 3);
    assert_true(fabs(p.items[1].at_s - 0.6) < 1e-6 && p.items[1].n_in == 110 && p.items[1].n_out == 27);
    assert_true(fabs(p.items[2].at_s - 0.75) < 1e-6);
    load_plan_free(&p);
    arena_init(&p.arena, 0);
    OK(load_trace_read(&p, str_of(mooncake), &err));
    assert_true(p.n == 2 && near(p.items[1].at_s, 1.5) && p.items[1].n_block == 2 && p.items[1].blocks[1] == 3);
    load_plan_free(&p);
    arena_init(&p.arena, 0);
    OK(load_trace_read(&p, str_of(aibrix), &err));
    assert_true(p.n == 2 && str_is(p.items[0].text, "one \"two\"") && p.items[0].n_out == 8);
    load_plan_free(&p);
    static const char *const wrong[] = {"",
                                        "a,b,c\n",
                                        "2023-11-16,1,2\n",
                                        "1,2\n",
                                        "1,-2,3\n",
                                        "{\"timestamp\": 1}",
                                        "{\"timestamp\": \"x\", \"input_length\": 1, \"output_length\": 1}",
                                        "{",
                                        "nan,1,1\n",
                                        "1,1e99,1\n",
                                        "{\"timestamp\":1,\"requests\":[{\"Prompt Length\":-3}]}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        arena_init(&p.arena, 0);
        FAILS(ST_CORRUPT, load_trace_read(&p, str_of(wrong[i]), &err));
        load_plan_free(&p);
    }
    arena_init(&p.arena, 0);
    FAILS(ST_UNSUPPORTED, load_trace_read(&p,
                                          STR("\xfd"
                                              "7zXZ\0rest"),
                                          &err));
    assert_non_null(strstr(err.text, "xz -dc"));
    load_plan_free(&p);
}

static void test_traces_damaged(void **state)
{
    static const char *const texts[] = {azure, mooncake, aibrix};
    struct error err;
    (void)state;
    for (size_t t = 0; t < 3; t++) {
        char copy[512];
        size_t n = strlen(texts[t]);
        for (size_t cut = 0; cut <= n; cut++) {
            struct load_plan p = {0};
            memcpy(copy, texts[t], n);
            arena_init(&p.arena, 0);
            if (load_trace_read(&p, str_n(copy, cut), &err) == ST_OK)
                assert_true(p.n > 0);
            load_plan_free(&p);
            for (int bit = 0; bit < 8 && cut < n; bit++) {
                copy[cut] = (char)(texts[t][cut] ^ (1 << bit));
                arena_init(&p.arena, 0);
                if (load_trace_read(&p, str_n(copy, n), &err) == ST_OK)
                    assert_true(p.n > 0 && p.items[0].n_in >= 0);
                load_plan_free(&p);
            }
        }
        bool fired = true;
        for (uint64_t k = 1; fired; k++) {
            struct load_plan p = {0};
            arena_init(&p.arena, 0);
            fault_arm(FAULT_ALLOC, k);
            enum status st = load_trace_read(&p, str_of(texts[t]), &err);
            fired = fault_fired();
            fault_disarm();
            assert_true(fired ? st != ST_OK : st == ST_OK);
            load_plan_free(&p);
        }
    }
}

static void test_real_trace(void **state)
{
    static const char path[] = SHARED("data/traces/AzureLLMInferenceTrace_code.csv");
    struct error err;
    struct load_plan p;
    (void)state;
    NEED(path);
    struct load_shape s = {.trace = path, .speed = 2, .for_s = 600, .scale = 0.5, .in_most = 1000};
    OK(load_plan_make(&p, &s, &err));
    assert_true(p.n > 100 && p.items[0].n_in == 1000 && p.items[0].n_out == 5);
    for (size_t i = 1; i < p.n; i++)
        assert_true(p.items[i].at_s >= p.items[i - 1].at_s && p.items[i].at_s < 300);
    load_plan_free(&p);
}

/* ---- against a server that misbehaves ---- */

enum { FIRST_MS = 40, GAP_MS = 15, TOKENS = 4, TIMEOUT_MS = 1500 };
static int streams;            /* streaming requests so far */
static int asked, stall_until; /* asked: streams requested; the first one waits for that many. Atomic */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int stall_for(void)
{
    return __atomic_load_n(&stall_until, __ATOMIC_SEQ_CST);
}

/* Until the client gives up, or ten seconds are over. */
static void wait_for_leaving(const struct stub_call *c)
{
    poll(&(struct pollfd){.fd = c->fd, .events = POLLRDHUP}, 1, 10000);
}

static void say_head(struct stub_call *c)
{
    stub_say(c, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
}

static void say_tokens(struct stub_call *c, int n, int gap_ms)
{
    for (int i = 0; i < n; i++) {
        if (i)
            usleep((useconds_t)gap_ms * 1000);
        stub_chunk(c, i % 2 ? ": ping\n\ndata: {\"choices\":[{\"text\":\"a\"}],\"usage\":null}\n\n"
                            : "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
    }
}

static void say_end(struct stub_call *c)
{
    stub_chunk(c, "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n");
    stub_chunk(c,
               "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n");
    stub_say(c, "0\r\n\r\n");
}

static void behave(struct stub_call *c, int which)
{
    switch (which) {
    case 0: /* good */
        usleep(FIRST_MS * 1000);
        say_head(c);
        say_tokens(c, TOKENS, GAP_MS);
        say_end(c);
        break;
    case 1:
        stub_say(
            c,
            "HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 31\r\n\r\n{\"error\":{\"message\":\"too full\"}}");
        break;
    case 2: /* cut inside the stream */
        say_head(c);
        say_tokens(c, 2, 1);
        c->close = true;
        break;
    case 3: /* a clean end that never said finish */
        say_head(c);
        say_tokens(c, 2, 1);
        stub_say(c, "0\r\n\r\n");
        break;
    case 4: /* no JSON */
        say_head(c);
        stub_chunk(c, "data: {\"choices\":[{\"text\":\n\n");
        break;
    case 5: /* no HTTP */
        stub_say(c, "SSH-2.0-OpenSSH\r\n\r\n");
        c->close = true;
        break;
    case 6: /* an error as an event */
        say_head(c);
        say_tokens(c, 1, 0);
        stub_chunk(c, "data: {\"error\":{\"message\":\"on fire\"}}\n\n");
        stub_say(c, "0\r\n\r\n");
        break;
    case 7: /* nothing said */
        say_head(c);
        say_end(c);
        break;
    case 8: /* too slow */
        say_head(c);
        say_tokens(c, 1, 0);
        wait_for_leaving(c);
        c->close = true;
        break;
    case 9:
        stub_answer(c, 429, "application/json", "{\"error\":{\"message\":\"slower\"}}");
        break;
    default: /* no answer at all */
        c->reset = true;
    }
}

static void common(struct stub_call *c, int tokenizer)
{
    if (!strcmp(c->path, "/v1/models"))
        stub_answer(c, 200, "application/json", "{\"data\":[{\"id\":\"stub\"}]}");
    else if (!strcmp(c->path, "/tokenize") && tokenizer)
        stub_answer(c, 200, "application/json", "{\"tokens\":[1,2,3,4,5,6,7,8]}");
    else
        stub_answer(c, str_find(c->body, STR("\"stream\":false"), 0) == SIZE_MAX ? 404 : 200, "application/json",
                    "{\"usage\":{\"prompt_tokens\":9}}");
}

static bool is_stream(const struct stub_call *c)
{
    return str_find(c->body, STR("\"stream\":true"), 0) != SIZE_MAX;
}

static void misbehave(struct stub_call *c)
{
    if (is_stream(c))
        behave(c, __atomic_fetch_add(&streams, 1, __ATOMIC_SEQ_CST));
    else
        common(c, 1);
}

static void serve_one_at_a_time(struct stub_call *c)
{
    if (!is_stream(c)) {
        common(c, 0);
        return;
    }
    __atomic_fetch_add(&asked, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&one_at_a_time);
    if (__atomic_fetch_add(&streams, 1, __ATOMIC_SEQ_CST) == 0)
        for (int i = 0; i < 10000 && __atomic_load_n(&asked, __ATOMIC_SEQ_CST) < stall_for(); i++)
            usleep(1000);
    pthread_mutex_unlock(&one_at_a_time);
    say_head(c);
    say_tokens(c, 2, 0);
    say_end(c);
}

static void open_at(struct load **l, struct stub *stub, struct load_target *t)
{
    static char url[64];
    struct error err;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", stub->port);
    t->url = url;
    streams = asked = 0;
    OK(load_open(l, t, &err));
    assert_string_equal(load_model(*l), "stub");
}

static void test_run_accounts_for_every_misbehaviour(void **state)
{
    struct stub stub;
    struct load *l;
    struct load_plan p;
    struct load_result r;
    struct load_summary s;
    struct error err;
    struct load_target t = {.timeout_ms = TIMEOUT_MS};
    struct load_shape shape = {.in_min = 20, .in_max = 20, .out_min = 5, .out_max = 5, .clients = 1, .n_request = 11};
    (void)state;
    stub_start(&stub, misbehave);
    open_at(&l, &stub, &t);
    OK(load_plan_make(&p, &shape, &err));
    OK(load_run(l, &p, &r, &err));
    static const int wanted[] = {LOAD_OK,          503,        LOAD_CUT,     LOAD_CUT, LOAD_MALFORMED, LOAD_MALFORMED,
                                 LOAD_ERROR_EVENT, LOAD_EMPTY, LOAD_TIMEOUT, 429,      LOAD_CUT};
    assert_int_equal(r.n, 11);
    for (int i = 0; i < 11; i++)
        if (r.samples[i].outcome != wanted[i])
            fail_msg("request %d: outcome %d, expected %d", i, r.samples[i].outcome, wanted[i]);
    const struct load_sample *good = &r.samples[0];
    /* What holds on however busy a machine: nothing comes before it was sent, and the longest gap is not below the
     * mean. */
    assert_true(good->first - good->intended >= FIRST_MS * 1e-3);
    assert_true(good->last - good->intended >= (FIRST_MS + GAP_MS * (TOKENS - 1)) * 1e-3);
    assert_true(good->first <= good->last && good->last <= good->end);
    assert_true(good->longest_gap <= (good->last - good->first) * 1.0001);
    assert_true(good->longest_gap * (TOKENS - 1) >= (good->last - good->first) * 0.9999);
    assert_true(good->n_in == 12 && good->n_out == 5); /* the server's count, not the chunks' */
    assert_true(r.n_gap >= TOKENS - 1);
    assert_non_null(strstr(r.complaint, "too full"));
    assert_true(load_summarize(&s, &r, NULL));
    assert_true(s.n_ok == 1 && s.n_status == 2 && s.by_kind[LOAD_CUT] == 3);
    assert_true(r.samples[8].end - r.samples[8].sent >= TIMEOUT_MS * 1e-3);

    struct load_report report = {&t, &shape, NULL, "stub", "cpu", &r, &s, 1};
    struct buf text = {0}, json = {0}, svg = {0};
    load_report_text(&report, &text);
    load_report_json(&report, &json);
    load_chart(&report, &svg);
    assert_non_null(
        strstr(text.ptr, "1 ok, 3 cut, 2 malformed, 1 timeout, 1 error_event, 1 empty, 1 http_503, 1 http_429"));
    struct arena arena;
    const struct json *doc;
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, buf_str(&json), JSON_UNIQUE, &err));
    const struct json *errors = json_get(json_at(json_get(doc, "runs"), 0), "errors");
    assert_int_equal(json_int(json_get(errors, "cut"), 0), 3);
    assert_int_equal(json_int(json_get(errors, "http_503"), 0), 1);
    assert_true(str_starts(buf_str(&svg), STR("<svg ")) && str_ends(buf_str(&svg), STR("</svg>\n")));
    assert_null(strstr(svg.ptr, "nan"));
    arena_free(&arena);
    buf_free(&text);
    buf_free(&json);
    buf_free(&svg);
    load_result_free(&r);
    load_plan_free(&p);
    load_close(l);
    stub_stop(&stub);
}

/* A server that answers the first request when all have come: everybody waits, and it is seen. Sent as answers come,
 * the others would never have been sent. */
static void test_open_loop_counts_from_the_intended_time(void **state)
{
    struct stub stub;
    struct load *l;
    struct load_plan p;
    struct load_result r;
    struct error err;
    struct load_target t = {.api = LOAD_CHAT};
    struct load_shape shape = {.in_min = 20, .in_max = 20, .out_min = 5, .out_max = 5, .rate = 60, .n_request = 20};
    (void)state;
    stall_until = (int)shape.n_request;
    stub_start(&stub, serve_one_at_a_time);
    open_at(&l, &stub, &t);
    OK(load_plan_make(&p, &shape, &err));
    OK(load_run(l, &p, &r, &err));
    double last_sent = 0;
    for (size_t i = 0; i < r.n; i++)
        last_sent = fmax(last_sent, r.samples[i].sent);
    for (size_t i = 0; i < r.n; i++) {
        const struct load_sample *s = &r.samples[i];
        assert_int_equal(s->outcome, LOAD_OK);
        assert_true(near(s->intended, p.items[i].at_s) && s->sent >= s->intended);
        assert_true(s->first >= last_sent); /* the wait is counted */
    }
    load_result_free(&r);
    load_plan_free(&p);
    load_close(l);
    stub_stop(&stub);
}

static bool stop_at_once(void *ctx, size_t done, size_t total)
{
    (void)done, (void)total;
    return ++*(int *)ctx >= 2;
}

static void test_run_can_be_interrupted(void **state)
{
    struct stub stub;
    struct load *l;
    struct load_plan p;
    struct load_result r;
    struct error err;
    int looks = 0;
    struct load_target t = {.progress = stop_at_once, .ctx = &looks};
    struct load_shape shape = {.in_min = 20, .in_max = 20, .out_min = 5, .out_max = 5, .clients = 4, .n_request = 50};
    (void)state;
    stall_until = INT_MAX;
    stub_start(&stub, serve_one_at_a_time);
    open_at(&l, &stub, &t);
    OK(load_plan_make(&p, &shape, &err));
    OK(load_run(l, &p, &r, &err));
    __atomic_store_n(&stall_until, 0, __ATOMIC_SEQ_CST);
    assert_true(r.interrupted && r.n == 4 && r.seconds < 10);
    for (size_t i = 0; i < r.n; i++)
        assert_int_equal(r.samples[i].outcome, LOAD_UNSENT);
    load_result_free(&r);
    load_plan_free(&p);
    load_close(l);
    stub_stop(&stub);
}

static void refuse_all(struct stub_call *c)
{
    if (!strcmp(c->path, "/v1/models"))
        common(c, 0);
    else
        stub_answer(c, 400, "application/json", "{\"error\":{\"message\":\"no such field: ignore_eos\"}}");
}

static void test_targets_that_cannot_be_used(void **state)
{
    struct stub stub;
    struct load *l;
    struct error err;
    char url[64];
    (void)state;
    static const char *const wrong[] = {"ftp://x",    "http://",     "127.0.0.1:80", "http://h:0",
                                        "http://h:x", "http://a b/", "http://[::1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        FAILS(ST_INVALID, load_open(&l, &(struct load_target){.url = wrong[i]}, &err));
    stub_start(&stub, refuse_all);
    snprintf(url, sizeof url, "http://localhost:%d/v1/", stub.port);
    FAILS(ST_IO, load_open(&l, &(struct load_target){.url = url}, &err));
    assert_non_null(strstr(err.text, "--honor-eos"));
    FAILS(ST_INVALID, load_open(&l, &(struct load_target){.url = url, .extra = "[1]"}, &err));
    FAILS(ST_CORRUPT, load_open(&l, &(struct load_target){.url = url, .extra = "{"}, &err));
    FAILS(ST_INVALID, load_open(&l, &(struct load_target){.url = url, .api_key = "a\r\nb"}, &err));
    stub_stop(&stub);
    FAILS(ST_IO, load_open(&l, &(struct load_target){.url = url}, &err));
}

static void test_open_and_run_survive_failing_memory(void **state)
{
    struct stub stub;
    struct error err;
    char url[64];
    bool fired = true;
    (void)state;
    stall_until = 0;
    stub_start(&stub, serve_one_at_a_time);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", stub.port);
    for (uint64_t n = 1; fired && n < 5000; n += n < 150 ? 1 : 7) {
        struct load *l;
        struct load_plan p;
        struct load_result r;
        struct load_shape shape = {
            .in_min = 20, .in_max = 20, .out_min = 5, .out_max = 5, .clients = 2, .n_request = 3};
        struct load_target t = {.url = url, .timeout_ms = 300, .extra = "{\"top_p\":1}"};
        OK(load_plan_make(&p, &shape, &err));
        fault_arm(FAULT_ALLOC, n);
        if (load_open(&l, &t, &err) == ST_OK) {
            if (load_run(l, &p, &r, &err) == ST_OK)
                load_result_free(&r);
            load_close(l);
        }
        fired = fault_fired();
        fault_disarm();
        load_plan_free(&p);
    }
    assert_false(fired);
    stub_stop(&stub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_are_numpys),
        cmocka_unit_test(test_slo_is_parsed_and_judged),
        cmocka_unit_test(test_plan_uniform),
        cmocka_unit_test(test_traces),
        cmocka_unit_test(test_traces_damaged),
        cmocka_unit_test(test_real_trace),
        cmocka_unit_test(test_run_accounts_for_every_misbehaviour),
        cmocka_unit_test(test_open_loop_counts_from_the_intended_time),
        cmocka_unit_test(test_run_can_be_interrupted),
        cmocka_unit_test(test_targets_that_cannot_be_used),
        cmocka_unit_test(test_open_and_run_survive_failing_memory),
    };
    return RUN(tests);
}
