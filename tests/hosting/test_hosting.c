/* test_hosting - states, budget, eviction, swap, adapters and waits, with models that are counters; and a storm of
 * threads that keeps the rules: nothing in use is closed, the budget is never exceeded, everything is closed at the end
 */
#include "test.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "hosting/hosting.h"

#include <pthread.h>

/* ---- a maker of stand-ins: the path says what happens: "bytes[:fail][:slow]" ---- */
struct stand_in {
    int alive; /* 1 while open */
};
static struct {
    int opens, closes, now, most, loras;
    uint64_t bytes, bytes_most;
    int hold, hold_lora; /* opening waits */
    int lora_opens;      /* begun */
} made;

static enum status fake_measure(void *ctx, uint64_t *bytes, const struct hosting_model *m, struct error *err)
{
    (void)ctx;
    if (strstr(m->path, "gone"))
        return fail(err, ST_NOT_FOUND, "%s is not there", m->path);
    *bytes = strtoull(m->path, NULL, 10);
    return ST_OK;
}

static enum status fake_open(void *ctx, struct hosted_parts *out, const struct hosting_model *m, struct error *err)
{
    (void)ctx;
    while (__atomic_load_n(&made.hold, __ATOMIC_SEQ_CST))
        usleep(1000);
    *out = (struct hosted_parts){0};
    if (strstr(m->path, "fail"))
        return fail(err, ST_CORRUPT, "%s is broken", m->path);
    struct stand_in *s = calloc(1, sizeof *s);
    s->alive = 1;
    out->engine = (struct engine *)s;
    out->bytes = strtoull(m->path, NULL, 10);
    made.opens++;
    made.most = ++made.now > made.most ? made.now : made.most;
    made.bytes += out->bytes;
    made.bytes_most = made.bytes > made.bytes_most ? made.bytes : made.bytes_most;
    return ST_OK;
}

static void fake_close(void *ctx, struct hosted_parts *p)
{
    (void)ctx;
    struct stand_in *s = (struct stand_in *)p->engine;
    s->alive = 0;
    free(s);
    made.bytes -= p->bytes;
    made.now--;
    __atomic_add_fetch(&made.closes, 1, __ATOMIC_SEQ_CST);
}

static enum status fake_open_lora(void *ctx, struct lora **out, const struct hosted_parts *base, const char *path,
                                  struct error *err)
{
    (void)ctx, (void)base;
    __atomic_add_fetch(&made.lora_opens, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&made.hold_lora, __ATOMIC_SEQ_CST))
        usleep(1000);
    if (strstr(path, "bad"))
        return fail(err, ST_UNSUPPORTED, "%s is no adapter", path);
    *out = (struct lora *)calloc(1, sizeof(int));
    *(int *)(void *)*out = 1;
    __atomic_add_fetch(&made.loras, 1, __ATOMIC_SEQ_CST);
    return ST_OK;
}

static void fake_hold_lora(void *ctx, struct lora *l)
{
    (void)ctx;
    __atomic_add_fetch((int *)(void *)l, 1, __ATOMIC_SEQ_CST);
}

static void fake_close_lora(void *ctx, struct lora *l)
{
    (void)ctx;
    if (__atomic_sub_fetch((int *)(void *)l, 1, __ATOMIC_SEQ_CST))
        return;
    __atomic_sub_fetch(&made.loras, 1, __ATOMIC_SEQ_CST);
    free(l);
}

static const char *fake_digest(void *ctx, const struct lora *l)
{
    (void)ctx, (void)l;
    return "d1";
}

static const struct hosting_maker maker = {NULL,           fake_measure,   fake_open,       fake_close,
                                           fake_open_lora, fake_hold_lora, fake_close_lora, fake_digest};

static struct hosting *h;
static struct error err;

static void start(uint64_t bytes_max, int keep_alive_s)
{
    memset(&made, 0, sizeof made);
    OK(hosting_create(&h, &(struct hosting_options){bytes_max, keep_alive_s, &maker}, &err));
}

static void stop(void)
{
    hosting_destroy(h);
    assert_int_equal(made.opens, made.closes);
    assert_int_equal(made.now, 0);
    assert_int_equal(made.loras, 0);
}

static void hold_loras(int held)
{
    __atomic_store_n(&made.hold_lora, held, __ATOMIC_SEQ_CST);
}

static void add(const char *name, const char *path)
{
    OK(hosting_add(h, &(struct hosting_model){.name = name, .path = path}, &err));
}

static struct hosting_lease take(const char *name)
{
    struct hosting_lease l;
    OK(hosting_acquire_wait(h, str_of(name), &l, &err));
    assert_int_equal(((struct stand_in *)l.engine)->alive, 1);
    return l;
}

struct seen {
    const char *name;
    struct hosting_row row;
    char failure[200];
    int n;
};
static void see(void *ctx, const struct hosting_row *row)
{
    struct seen *s = ctx;
    s->n++;
    if (!strcmp(row->name, s->name)) {
        s->row = *row;
        snprintf(s->failure, sizeof s->failure, "%s", row->failure ? row->failure : "");
    }
}
static struct seen look(const char *name)
{
    struct seen s = {.name = name, .row.state = (enum hosted_state)99};
    hosting_each(h, see, &s);
    return s;
}
static bool becomes(const char *name, enum hosted_state state)
{
    for (int i = 0; i < 5000; i++, usleep(1000))
        if (look(name).row.state == state)
            return true;
    return false;
}

static void test_loads_when_asked_for_and_evicts_the_least_recently_used(void **state)
{
    (void)state;
    start(100, 0);
    add("a", "40");
    add("b", "40");
    add("c", "40");
    assert_string_equal(hosting_default(h), "a");
    assert_int_equal(look("a").row.state, HOSTED_ABSENT);
    struct hosting_lease a = take("a"), b = take("b");
    hosting_release(h, &a);
    hosting_release(h, &b);
    a = take("a"); /* b is now the older */
    hosting_release(h, &a);
    struct hosting_lease c = take("c");
    assert_int_equal(look("a").row.state, HOSTED_READY);
    assert_int_equal(look("b").row.state, HOSTED_ABSENT);
    assert_int_equal(made.bytes_most, 80);
    a = take("a");
    FAILS(ST_LIMIT, hosting_acquire_wait(h, STR("b"), &b, &err)); /* both in use */
    assert_non_null(strstr(err.text, "in use"));
    FAILS(ST_LIMIT, hosting_acquire(h, STR("b"), &b, NULL, &err)); /* not tried again at once */
    hosting_release(h, &a);
    hosting_release(h, &c);
    hosting_release(h, &c); /* an empty one */
    stop();
}

static void test_what_can_never_fit_is_refused_with_sizes(void **state)
{
    (void)state;
    struct hosting_lease l;
    start(2000000000, 0);
    OK(hosting_add(h, &(struct hosting_model){.name = "p", .path = "1500000000", .pinned = true}, &err));
    add("big", "3000000000");
    add("mid", "600000000");
    add("gone", "gone");
    add("broken", "5fail");
    add("small", "100000000");
    assert_true(becomes("p", HOSTED_READY)); /* pinned: without being asked for */
    FAILS(ST_NOMEM, hosting_acquire_wait(h, STR("big"), &l, &err));
    assert_non_null(
        strstr(err.text, "big needs 3.00 GB of memory; of the budget of 2.00 GB, models that stay have 1.50"));
    FAILS(ST_NOMEM, hosting_acquire_wait(h, STR("mid"), &l, &err));
    FAILS(ST_NOT_FOUND, hosting_acquire_wait(h, STR("gone"), &l, &err));
    FAILS(ST_CORRUPT, hosting_acquire_wait(h, STR("broken"), &l, &err));
    FAILS(ST_NOT_FOUND, hosting_acquire_wait(h, STR("nobody"), &l, &err));
    struct seen s = look("broken");
    assert_int_equal(s.row.state, HOSTED_FAILED);
    assert_string_equal(s.failure, "5fail is broken");
    l = take("small"); /* the others took it not down */
    hosting_release(h, &l);
    l = take("p");
    hosting_release(h, &l);
    stop();
}

static int n_called;
static void called(void *ctx)
{
    (void)ctx;
    __atomic_add_fetch(&n_called, 1, __ATOMIC_SEQ_CST);
}

static void await(int *count, int n)
{
    for (int i = 0; i < 5000 && __atomic_load_n(count, __ATOMIC_SEQ_CST) < n; i++)
        usleep(1000);
    assert_int_equal(__atomic_load_n(count, __ATOMIC_SEQ_CST), n);
}

static void test_waits_are_called_once_and_nobody_blocks(void **state)
{
    (void)state;
    struct hosting_wait w[3] = {{.fn = called}, {.fn = called}, {.fn = called}};
    struct hosting_lease l[3];
    start(0, 0);
    n_called = 0;
    add("a", "1");
    add("bad", "1fail");
    made.hold = 1;
    for (int i = 0; i < 3; i++)
        assert_int_equal(hosting_acquire(h, STR("a"), &l[i], &w[i], &err), ST_CANCELED);
    assert_true(becomes("a", HOSTED_LOADING));
    assert_true(hosting_forget(h, &w[1]));
    assert_false(hosting_forget(h, &w[1]));
    __atomic_store_n(&made.hold, 0, __ATOMIC_SEQ_CST);
    assert_true(becomes("a", HOSTED_READY));
    await(&n_called, 2);
    assert_int_equal(look("a").row.n_lease, 2); /* with the call: the one that was forgotten has none */
    for (int i = 0; i < 3; i += 2) {
        OK(w[i].status);
        assert_string_equal(l[i].name, "a");
        hosting_release(h, &l[i]);
    }
    OK(hosting_acquire(h, STR("a"), &l[0], &w[0], &err));
    hosting_release(h, &l[0]);
    assert_int_equal(hosting_acquire(h, STR("bad"), &l[0], &w[0], &err), ST_CANCELED);
    await(&n_called, 3);
    assert_int_equal(w[0].status, ST_CORRUPT);
    assert_string_equal(w[0].why.text, "1fail is broken");
    FAILS(ST_CORRUPT, hosting_acquire(h, STR("bad"), &l[0], &w[0], &err));
    stop();
}

static void test_who_waited_has_the_lease_with_the_load(void **state)
{
    (void)state;
    struct hosting_wait w = {.fn = called};
    struct hosting_lease a, b;
    start(100, 0);
    n_called = 0;
    add("a", "60");
    add("b", "60");
    assert_int_equal(hosting_acquire(h, STR("a"), &a, &w, &err), ST_CANCELED);
    await(&n_called, 1); /* and does nothing yet: others come first */
    FAILS(ST_LIMIT, hosting_acquire_wait(h, STR("b"), &b, &err));
    OK(w.status);
    assert_int_equal(((struct stand_in *)a.engine)->alive, 1);
    hosting_release(h, &a);
    OK(hosting_load(h, &(struct hosting_model){.name = "b"}, &err)); /* now it may go */
    assert_int_equal(look("a").row.state, HOSTED_ABSENT);
    stop();
}

static void test_quiet_calls_nobody_and_leases_nothing(void **state)
{
    (void)state;
    struct hosting_wait w = {.fn = called};
    struct hosting_lease l;
    start(0, 0);
    n_called = 0;
    add("a", "1");
    made.hold = 1;
    assert_int_equal(hosting_acquire(h, STR("a"), &l, &w, &err), ST_CANCELED);
    hosting_quiet(h);
    assert_int_equal(hosting_acquire(h, STR("a"), &l, &w, &err), ST_CANCELED);
    assert_false(hosting_forget(h, &w));
    __atomic_store_n(&made.hold, 0, __ATOMIC_SEQ_CST);
    assert_true(becomes("a", HOSTED_READY));
    assert_int_equal(look("a").row.n_lease, 0);
    assert_int_equal(n_called, 0);
    stop();
}

static void test_idle_models_go_and_pinned_ones_stay(void **state)
{
    (void)state;
    start(0, 0);
    OK(hosting_add(h, &(struct hosting_model){.name = "a", .path = "1", .keep_alive_s = 1}, &err));
    add("b", "1");
    struct hosting_lease a = take("a"), b = take("b");
    hosting_release(h, &b);
    usleep(1200000);
    assert_int_equal(look("a").row.state, HOSTED_READY); /* in use */
    assert_int_equal(look("a").row.n_lease, 1);
    hosting_release(h, &a);
    assert_true(look("a").row.expires_ns != 0);
    assert_true(becomes("a", HOSTED_ABSENT));
    assert_int_equal(look("b").row.state, HOSTED_READY); /* no bound of its own, none of the hosting */
    stop();
}

/* What a request asks for holds until the next one. */
static void test_a_request_says_how_long_its_model_stays(void **state)
{
    (void)state;
    start(0, 0);
    OK(hosting_add(h, &(struct hosting_model){.name = "a", .path = "1", .keep_alive_s = 1000}, &err));
    OK(hosting_add(h, &(struct hosting_model){.name = "p", .path = "1", .pinned = true}, &err));
    struct hosting_lease a = take("a"), p = take("p"), none = {0};
    assert_true(hosting_keep(h, &a, -1));
    hosting_release(h, &a);
    assert_int_equal(look("a").row.expires_ns, 0);
    a = take("a");
    hosting_release(h, &a);
    assert_true(look("a").row.expires_ns > clock_ns() + 900 * 1000000000ull);
    a = take("a");
    assert_true(hosting_keep(h, &a, 100));
    hosting_release(h, &a);
    assert_true(look("a").row.expires_ns < clock_ns() + 200 * 1000000000ull);
    a = take("a");
    assert_true(hosting_keep(h, &a, 0));
    assert_int_equal(look("a").row.state, HOSTED_READY); /* in use */
    hosting_release(h, &a);
    assert_true(becomes("a", HOSTED_ABSENT));
    assert_false(hosting_keep(h, &p, 0));
    hosting_release(h, &p);
    usleep(20000);
    assert_int_equal(look("p").row.state, HOSTED_READY);
    assert_false(hosting_keep(h, &none, 0));
    stop();
}

static void test_unload_waits_for_the_last_lease(void **state)
{
    (void)state;
    start(0, 0);
    add("a", "1");
    struct hosting_lease a = take("a");
    OK(hosting_unload(h, "a", &err));
    usleep(20000);
    assert_int_equal(((struct stand_in *)a.engine)->alive, 1);
    hosting_release(h, &a);
    assert_true(becomes("a", HOSTED_ABSENT));
    a = take("a"); /* the name stayed */
    hosting_release(h, &a);
    FAILS(ST_NOT_FOUND, hosting_unload(h, "x", &err));
    stop();
}

static void test_another_model_takes_over_a_name(void **state)
{
    (void)state;
    start(0, 0);
    add("chat", "1");
    OK(hosting_alias(h, "gpt-4", "chat", &err));
    struct hosting_lease old = take("gpt-4"), new;
    assert_string_equal(old.name, "gpt-4");
    FAILS(ST_CORRUPT, hosting_load(h, &(struct hosting_model){.name = "chat", .path = "2fail"}, &err));
    new = take("chat"); /* a broken one changes nothing */
    assert_ptr_equal(new.engine, old.engine);
    hosting_release(h, &new);
    OK(hosting_load(h, &(struct hosting_model){.name = "chat", .path = "2"}, &err));
    new = take("gpt-4");
    assert_ptr_not_equal(new.engine, old.engine);
    assert_int_equal(((struct stand_in *)old.engine)->alive, 1); /* drains */
    hosting_release(h, &old);
    for (int i = 0; i < 2000 && !__atomic_load_n(&made.closes, __ATOMIC_SEQ_CST); i++)
        usleep(1000);
    assert_int_equal(__atomic_load_n(&made.closes, __ATOMIC_SEQ_CST), 1);
    assert_string_equal(look("gpt-4").row.parent, "chat");
    assert_string_equal(look("gpt-4").row.path, "2");
    hosting_release(h, &new);
    FAILS(ST_INVALID, hosting_alias(h, "chat", "gpt-4", &err));
    FAILS(ST_NOT_FOUND, hosting_alias(h, "x", "nobody", &err));
    FAILS(ST_INVALID, hosting_unalias(h, "chat", &err));
    FAILS(ST_NOT_FOUND, hosting_unalias(h, "x", &err));
    OK(hosting_alias(h, "x", "chat", &err));
    OK(hosting_unalias(h, "x", &err));
    assert_false(hosting_knows(h, STR("x")));
    FAILS(ST_INVALID, hosting_add(h, &(struct hosting_model){.name = "chat", .path = "1"}, &err));
    OK(hosting_load(h, &(struct hosting_model){.name = "new", .path = "3"}, &err)); /* a name nobody had */
    OK(hosting_alias(h, "gpt-4", "new", &err));
    new = take("gpt-4");
    hosting_release(h, &new);
    assert_string_equal(look("gpt-4").row.path, "3");
    FAILS(ST_CORRUPT, hosting_load(h, &(struct hosting_model){.name = "never", .path = "3fail"}, &err));
    assert_false(hosting_knows(h, STR("never")));
    stop();
}

static void test_adapters_live_with_their_base(void **state)
{
    (void)state;
    struct hosting_lease l;
    start(0, 0);
    add("base", "1");
    OK(hosting_lora_add(h, "poet", "base", "poet/", &err));
    OK(hosting_lora_add(h, "odd", "base", "bad/", &err)); /* not looked at before its base is there */
    assert_int_equal(made.loras, 0);
    hold_loras(1);
    OK(hosting_acquire_wait(h, STR("base"), &l, &err)); /* nobody else waits while an adapter is read */
    hosting_release(h, &l);
    await(&made.lora_opens, 1);
    assert_int_equal(look("base").row.state, HOSTED_READY);
    assert_int_equal(look("poet").row.state, HOSTED_LOADING);
    FAILS(ST_CANCELED, hosting_acquire(h, STR("poet"), &l, NULL, &err));
    hold_loras(0);
    OK(hosting_acquire_wait(h, STR("poet"), &l, &err));
    assert_non_null(l.lora);
    hosting_release(h, &l);
    OK(hosting_acquire_wait(h, STR("base"), &l, &err));
    assert_null(l.lora);
    hosting_release(h, &l);
    assert_true(becomes("odd", HOSTED_FAILED));
    assert_int_equal(made.loras, 1);
    assert_true(look("poet").row.is_lora);
    assert_string_equal(look("poet").row.parent, "base");
    assert_int_equal(look("odd").row.state, HOSTED_FAILED);
    FAILS(ST_UNSUPPORTED, hosting_acquire_wait(h, STR("odd"), &l, &err));
    FAILS(ST_UNSUPPORTED, hosting_lora_load(h, "worse", NULL, "bad/", &err));
    FAILS(ST_INVALID, hosting_lora_load(h, "poet", NULL, "x", &err));
    FAILS(ST_NOT_FOUND, hosting_lora_load(h, "x", "nobody", "x", &err));
    OK(hosting_lora_load(h, "late", NULL, "late/", &err));
    assert_int_equal(made.loras, 2);
    OK(hosting_acquire_wait(h, STR("late"), &l, &err));
    assert_string_equal(l.adapter, "d1");
    OK(hosting_lora_unload(h, "late", &err));
    assert_int_equal(made.loras, 2); /* the lease holds it */
    hosting_release(h, &l);
    FAILS(ST_NOT_FOUND, hosting_lora_unload(h, "late", &err));
    FAILS(ST_NOT_FOUND, hosting_lora_unload(h, "base", &err));
    assert_int_equal(made.loras, 1);
    OK(hosting_unload(h, "base", &err));
    assert_true(becomes("base", HOSTED_ABSENT));
    assert_int_equal(made.loras, 0);
    OK(hosting_acquire_wait(h, STR("poet"), &l, &err));
    hosting_release(h, &l);
    assert_int_equal(made.loras, 1);
    stop();
}

static void *swap_chat(void *arg)
{
    (void)arg;
    struct error e;
    return (void *)(uintptr_t)hosting_load(h, &(struct hosting_model){.name = "chat", .path = "2"}, &e);
}

static void *load_late(void *arg)
{
    (void)arg;
    struct error e;
    return (void *)(uintptr_t)hosting_lora_load(h, "late", "chat", "late/", &e);
}

static void joined(pthread_t thread)
{
    void *st;
    pthread_join(thread, &st);
    assert_int_equal((enum status)(uintptr_t)st, ST_OK);
}

/* The lock is free while a swap reads adapters; who asks for one meanwhile waits, and gets the new base's. */
static void test_adapters_follow_a_swap(void **state)
{
    (void)state;
    struct hosting_wait w = {.fn = called}, gone = {.fn = called};
    struct hosting_lease l, lost;
    pthread_t swapping;
    start(0, 0);
    n_called = 0;
    add("chat", "1");
    OK(hosting_lora_add(h, "poet", "chat", "poet/", &err));
    struct hosting_lease old = take("poet");
    made.lora_opens = 0;
    hold_loras(1);
    pthread_create(&swapping, NULL, swap_chat, NULL);
    await(&made.lora_opens, 1);
    struct hosting_lease new = take("chat"); /* would hang if the lock were held */
    assert_ptr_not_equal(new.engine, old.engine);
    assert_int_equal(look("poet").row.state, HOSTED_LOADING);
    assert_int_equal(hosting_acquire(h, STR("poet"), &l, &w, &err), ST_CANCELED);
    OK(hosting_alias(h, "other", "poet", &err));
    assert_int_equal(hosting_acquire(h, STR("other"), &lost, &gone, &err), ST_CANCELED);
    hold_loras(0);
    joined(swapping);
    await(&n_called, 2);
    OK(w.status);
    OK(gone.status);
    assert_ptr_equal(l.engine, new.engine);
    assert_ptr_not_equal(l.lora, old.lora);
    hosting_release(h, &l);
    hosting_release(h, &lost);
    hosting_release(h, &new);
    hosting_release(h, &old);
    stop();
}

static void test_an_adapter_is_never_stuck_between_bases(void **state)
{
    (void)state;
    struct hosting_wait w = {.fn = called};
    struct hosting_lease l;
    pthread_t swapping, loading;
    start(0, 0);
    n_called = 0;
    add("chat", "1");
    add("b", "3");
    struct hosting_lease old = take("chat"), b = take("b");
    hold_loras(1);
    pthread_create(&loading, NULL, load_late, NULL); /* reads for the old base */
    await(&made.lora_opens, 1);
    pthread_create(&swapping, NULL, swap_chat, NULL);
    usleep(20000);
    hold_loras(0);
    joined(loading);
    joined(swapping);
    l = take("late");
    assert_ptr_not_equal(l.engine, old.engine);
    hosting_release(h, &l);
    OK(hosting_alias(h, "x", "chat", &err)); /* an adapter of an alias that moves */
    OK(hosting_lora_add(h, "poet", "x", "poet/", &err));
    OK(hosting_alias(h, "x", "b", &err));
    l = take("poet");
    assert_ptr_equal(l.engine, b.engine);
    hosting_release(h, &l);
    hold_loras(1);
    OK(hosting_alias(h, "x", "chat", &err));
    assert_int_equal(hosting_acquire(h, STR("poet"), &l, &w, &err), ST_CANCELED);
    OK(hosting_lora_unload(h, "poet", &err)); /* and one that goes while it is waited for */
    hold_loras(0);
    await(&n_called, 1);
    assert_int_equal(w.status, ST_NOT_FOUND);
    hosting_release(h, &old);
    hosting_release(h, &b);
    stop();
}

static void test_one_that_is_there_already_is_never_closed(void **state)
{
    (void)state;
    struct stand_in own = {1};
    struct hosting_lease l;
    start(10, 0);
    OK(hosting_add_ready(h, "own", &(struct hosted_parts){.engine = (struct engine *)&own, .bytes = 9}, &err));
    l = take("own");
    hosting_release(h, &l);
    FAILS(ST_INVALID, hosting_unload(h, "own", &err));
    add("b", "2");
    FAILS(ST_NOMEM, hosting_acquire_wait(h, STR("b"), &l, &err));
    stop();
    assert_int_equal(own.alive, 1);
}

/* ---- a storm ---- */
enum { THREADS = 6, TURNS = 400, MODELS = 5 };
static const char *const names[MODELS] = {"m0", "m1", "m2", "m3", "m4"};
static const char *const adapters[MODELS] = {"l0", "l1", "l2", "l3", "l4"};

static void *storm(void *arg)
{
    struct rng rng;
    rng_init(&rng, (uint64_t)(uintptr_t)arg);
    for (int i = 0; i < TURNS; i++) {
        struct hosting_lease l;
        struct error e;
        uint64_t model = rng_below(&rng, MODELS);
        bool adapter = rng_below(&rng, 3) == 0;
        const char *name = names[model];
        int what = (int)rng_below(&rng, 20);
        if (what == 0)
            what = (int)hosting_unload(h, name, &e);
        else if (what == 1)
            what = (int)hosting_load(h, &(struct hosting_model){.name = name, .path = "30"}, &e);
        else if (hosting_acquire_wait(h, str_of(adapter ? adapters[model] : name), &l, &e) == ST_OK) {
            if (!l.lora == adapter)
                return (void *)"another adapter than was asked for";
            if (((struct stand_in *)l.engine)->alive != 1)
                return (void *)"a lease of a closed model";
            if (rng_below(&rng, 4) == 0)
                usleep((useconds_t)rng_below(&rng, 300));
            if (((struct stand_in *)l.engine)->alive != 1)
                return (void *)"closed while it was used";
            hosting_release(h, &l);
        } else if (e.status != ST_LIMIT) {
            return (void *)"another failure";
        }
    }
    return NULL;
}

static void test_storm(void **state)
{
    (void)state;
    start(100, 1);
    for (int i = 0; i < MODELS; i++)
        add(names[i], "30");
    for (int i = 0; i < MODELS; i++)
        OK(hosting_lora_add(h, adapters[i], names[i], "l/", &err));
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++) {
        void *why;
        pthread_join(threads[i], &why);
        if (why)
            fail_msg("%s", (char *)why);
    }
    assert_true(made.opens > MODELS);
    assert_in_range(made.bytes_most, 90, 100);
    uint64_t max;
    assert_true(hosting_bytes(h, &max) <= 100);
    stop();
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads_when_asked_for_and_evicts_the_least_recently_used),
        cmocka_unit_test(test_what_can_never_fit_is_refused_with_sizes),
        cmocka_unit_test(test_waits_are_called_once_and_nobody_blocks),
        cmocka_unit_test(test_who_waited_has_the_lease_with_the_load),
        cmocka_unit_test(test_quiet_calls_nobody_and_leases_nothing),
        cmocka_unit_test(test_idle_models_go_and_pinned_ones_stay),
        cmocka_unit_test(test_a_request_says_how_long_its_model_stays),
        cmocka_unit_test(test_unload_waits_for_the_last_lease),
        cmocka_unit_test(test_another_model_takes_over_a_name),
        cmocka_unit_test(test_adapters_live_with_their_base),
        cmocka_unit_test(test_adapters_follow_a_swap),
        cmocka_unit_test(test_an_adapter_is_never_stuck_between_bases),
        cmocka_unit_test(test_one_that_is_there_already_is_never_closed),
        cmocka_unit_test(test_storm),
    };
    return RUN(tests);
}
