/* test_hosting - states, budget, eviction, turns, swap, adapters and waits, with models that are counters; and a storm
 * of threads that keeps the rules: nothing in use is closed, every request is served, the budget is never exceeded,
 * everything is closed at the end
 */
#include "test.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "hosting/hosting.h"

#include <pthread.h>

/* Longer than a test takes: turns change when a test moves the clock. */
enum { PATIENCE_MS = 3600000 };
static int64_t shift_ns;
static void patience_ends(void)
{
    clock_jump(shift_ns += 2 * (int64_t)PATIENCE_MS * 1000000, 0);
}

/* ---- a maker of stand-ins: the path says what happens: bytes, "fail", "later" (patience ends when it is measured) */
struct stand_in {
    int alive; /* 1 while open */
};
static struct {
    int opens, closes, now, most, loras;
    uint64_t bytes, bytes_most;
    int hold, hold_lora; /* opening waits */
    int lora_opens;      /* begun */
    int measures;
} made;

static enum status fake_measure(void *ctx, uint64_t *bytes, const struct hosting_model *m, struct error *err)
{
    (void)ctx;
    __atomic_add_fetch(&made.measures, 1, __ATOMIC_SEQ_CST);
    if (strstr(m->path, "gone"))
        return fail(err, ST_NOT_FOUND, "%s is not there", m->path);
    if (strstr(m->path, "later"))
        patience_ends();
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

static int n_called;

static void start_with(const struct hosting_options *o)
{
    memset(&made, 0, sizeof made);
    n_called = 0;
    OK(hosting_create(&h, o, &err));
}

static void start(uint64_t bytes_max, int keep_alive_s)
{
    start_with(&(struct hosting_options){bytes_max, keep_alive_s, &maker, .patience_ms = -1});
}

static void start_patient(uint64_t bytes_max)
{
    start_with(&(struct hosting_options){bytes_max, 0, &maker, .patience_ms = PATIENCE_MS});
}

static void stop(void)
{
    hosting_destroy(h);
    clock_jump(shift_ns = 0, 0);
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

/* Patience is over, and the loader looks again. */
static void later(void)
{
    patience_ends();
    OK(hosting_alias(h, "now", hosting_default(h), &err));
}

struct asked {
    struct hosting_wait wait;
    struct hosting_lease lease;
};
static void ask(struct asked *r, const char *name)
{
    r->wait = (struct hosting_wait){.fn = called};
    assert_int_equal(hosting_acquire(h, str_of(name), &r->lease, &r->wait, &err), ST_CANCELED);
}
static void served(struct asked *r)
{
    OK(r->wait.status);
    assert_int_equal(((struct stand_in *)r->lease.engine)->alive, 1);
    hosting_release(h, &r->lease);
}
/* The loader has measured n times, and found no room for this one. */
static void waits_for_room(const char *name, int n)
{
    await(&made.measures, n);
    assert_true(becomes(name, HOSTED_WANTED));
}
/* Used all the time, until it is leased no more: r waits then. */
static void use_until_it_yields(struct asked *r, const char *name)
{
    r->wait = (struct hosting_wait){.fn = called};
    for (int i = 0; i < 5000; i++, usleep(1000)) {
        if (hosting_acquire(h, str_of(name), &r->lease, &r->wait, &err) == ST_CANCELED)
            return;
        hosting_release(h, &r->lease);
    }
    fail_msg("%s does not yield", name);
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
    struct asked r;
    ask(&r, "b"); /* both in use: it waits */
    waits_for_room("b", 4);
    assert_int_equal(n_called, 0);
    hosting_release(h, &a); /* room for b at once: no patience is needed */
    await(&n_called, 1);
    assert_int_equal(look("a").row.state, HOSTED_ABSENT);
    served(&r);
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

static void test_waits_are_called_once_and_nobody_blocks(void **state)
{
    (void)state;
    struct hosting_wait w[3] = {{.fn = called}, {.fn = called}, {.fn = called}};
    struct hosting_lease l[3];
    start(0, 0);
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
    struct asked a, b;
    start(100, 0);
    add("a", "60");
    add("b", "60");
    ask(&a, "a");
    await(&n_called, 1); /* and does nothing yet: others come first */
    ask(&b, "b");
    waits_for_room("b", 2);
    served(&a); /* now it may go */
    await(&n_called, 2);
    assert_int_equal(look("a").row.state, HOSTED_ABSENT);
    served(&b);
    stop();
}

static void test_models_in_constant_use_take_turns(void **state)
{
    (void)state;
    struct asked a[2], b[3], c;
    start_patient(100);
    add("a", "60");
    add("b", "60");
    add("c", "60");
    struct hosting_lease first = take("a"), second;
    later();
    ask(&b[0], "b");
    waits_for_room("b", 2);
    OK(hosting_acquire(h, STR("a"), &second, NULL, &err)); /* b must have waited first */
    hosting_release(h, &first);
    later();
    use_until_it_yields(&a[0], "a");
    assert_int_equal(((struct stand_in *)second.engine)->alive, 1);
    assert_int_equal(look("a").row.state, HOSTED_READY);
    assert_int_equal(look("b").row.state, HOSTED_WANTED);
    ask(&b[1], "b");
    __atomic_store_n(&made.hold, 1, __ATOMIC_SEQ_CST);
    hosting_release(h, &second); /* the last one */
    assert_true(becomes("b", HOSTED_LOADING));
    later(); /* now a has waited as long, but b has not served so long */
    __atomic_store_n(&made.hold, 0, __ATOMIC_SEQ_CST);
    await(&n_called, 2);
    waits_for_room("a", 3);
    OK(hosting_acquire(h, STR("b"), &first, NULL, &err));
    hosting_release(h, &first);
    served(&b[0]);
    later();
    use_until_it_yields(&b[2], "b");
    ask(&c, "c");
    ask(&a[1], "a");
    assert_int_equal(n_called, 2);
    served(&b[1]);
    await(&n_called, 4);
    waits_for_room("c", 4);
    served(&a[0]);
    served(&a[1]);
    later(); /* who was wanted first has the next turn */
    await(&n_called, 5);
    served(&c);
    later();
    await(&n_called, 6);
    served(&b[2]);
    assert_int_equal(made.opens, 5);
    assert_int_equal(made.most, 1);
    stop();
}

static void test_as_many_yield_as_are_needed(void **state)
{
    (void)state;
    struct asked a, b, big;
    struct hosting_lease l;
    start_patient(100);
    OK(hosting_add(h, &(struct hosting_model){.name = "p", .path = "10", .pinned = true}, &err));
    add("a", "30");
    add("b", "30");
    add("c", "30");
    add("big", "55later");
    add("never", "91");
    struct hosting_lease p = take("p"), use_c = take("c"), use_a = take("a"), use_b = take("b");
    struct hosting_lease again = take("c"); /* the most recently used, though it was there first */
    ask(&big, "big");
    waits_for_room("big", 5);
    ask(&a, "a");
    ask(&b, "b");
    OK(hosting_acquire(h, STR("c"), &l, NULL, &err));
    hosting_release(h, &l);
    OK(hosting_acquire(h, STR("p"), &l, NULL, &err));
    hosting_release(h, &l);
    hosting_release(h, &use_a);
    hosting_release(h, &use_b);
    await(&n_called, 1);
    waits_for_room("a", 6); /* and b behind it */
    FAILS(ST_CANCELED, hosting_acquire(h, STR("never"), &l, NULL, &err));
    served(&big);
    later();
    await(&n_called, 3);
    served(&a);
    served(&b);
    FAILS(ST_NOMEM, hosting_acquire_wait(h, STR("never"), &l, &err)); /* with all others gone, too */
    assert_int_equal(((struct stand_in *)p.engine)->alive, 1);
    hosting_release(h, &p);
    hosting_release(h, &use_c);
    hosting_release(h, &again);
    stop();
}

/* Room came from elsewhere: it is leased again, and was never gone. */
static void test_who_need_not_go_any_more_stays(void **state)
{
    (void)state;
    struct asked a, b;
    start_patient(100);
    add("a", "50");
    add("b", "40later");
    add("c", "40");
    struct hosting_lease use_a = take("a"), use_c = take("c");
    ask(&b, "b");
    waits_for_room("b", 3);
    ask(&a, "a");
    hosting_release(h, &use_c);
    await(&n_called, 2);
    assert_ptr_equal(a.lease.engine, use_a.engine);
    served(&a);
    served(&b);
    hosting_release(h, &use_a);
    assert_int_equal(made.opens, 3);
    stop();
}

static void test_between_two_requests_a_model_is_not_free(void **state)
{
    (void)state;
    struct asked b, a;
    start_patient(100);
    add("a", "60");
    add("b", "60");
    struct hosting_lease l = take("a");
    hosting_release(h, &l);
    ask(&b, "b");
    waits_for_room("b", 2);
    OK(hosting_acquire(h, STR("a"), &l, NULL, &err));
    hosting_release(h, &l);
    clock_jump(shift_ns += (int64_t)PATIENCE_MS * 1000000 / 8, 0); /* nobody comes for it */
    OK(hosting_alias(h, "now", "a", &err));
    await(&n_called, 1);
    ask(&a, "a");
    served(&b);
    waits_for_room("a", 3);
    clock_jump(shift_ns += (int64_t)PATIENCE_MS * 1000000 / 8, 0);
    OK(hosting_alias(h, "now", "a", &err));
    await(&n_called, 2);
    served(&a);
    stop();
}

/* In real time: the loader wakes when a turn is over, nothing else happens. */
static void test_turns_change_by_themselves(void **state)
{
    (void)state;
    struct asked a, b;
    start_with(&(struct hosting_options){100, 0, &maker, .patience_ms = 20});
    add("a", "60");
    add("b", "60");
    struct hosting_lease l = take("a");
    hosting_release(h, &l);
    l = take("b");
    ask(&a, "a");
    use_until_it_yields(&b, "b");
    hosting_release(h, &l);
    await(&n_called, 1);
    served(&a);
    await(&n_called, 2);
    served(&b);
    stop();
}

static void test_quiet_calls_nobody_and_leases_nothing(void **state)
{
    (void)state;
    struct hosting_wait w = {.fn = called};
    struct hosting_lease l;
    start(0, 0);
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

static void *load_b(void *arg)
{
    (void)arg;
    struct error e;
    return (void *)(uintptr_t)hosting_load(h, &(struct hosting_model){.name = "b"}, &e);
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

/* What is in use under the name makes room for what will be: in between, who asks for it waits. */
static void test_a_swap_has_its_turn_as_well(void **state)
{
    (void)state;
    struct asked r;
    pthread_t swapping;
    start_patient(2);
    add("chat", "1");
    add("b", "1");
    add("c", "1");
    struct hosting_lease old = take("chat"), b = take("b");
    pthread_create(&swapping, NULL, swap_chat, NULL); /* takes all there is */
    await(&made.measures, 3);
    hosting_release(h, &b);
    later();
    use_until_it_yields(&r, "chat");
    hosting_release(h, &old);
    joined(swapping);
    await(&n_called, 1);
    assert_string_equal(look("chat").row.path, "2");
    served(&r);
    later();
    struct hosting_lease c = take("c"); /* it came after the old one, which nobody can name any more */
    assert_int_equal(made.opens, 4);
    hosting_release(h, &c);
    stop();
}

static void test_quiet_ends_what_waits_in_a_call(void **state)
{
    (void)state;
    pthread_t waiting[2];
    start_patient(2);
    add("chat", "1");
    add("b", "2");
    struct hosting_lease old = take("chat");
    pthread_create(&waiting[0], NULL, swap_chat, NULL);
    pthread_create(&waiting[1], NULL, load_b, NULL);
    await(&made.measures, 2);
    hosting_quiet(h);
    for (int i = 0; i < 2; i++) {
        void *st;
        pthread_join(waiting[i], &st);
        assert_int_equal((enum status)(uintptr_t)st, ST_CANCELED);
    }
    assert_string_equal(look("chat").row.path, "1");
    hosting_release(h, &old);
    stop();
}

/* The lock is free while a swap reads adapters; who asks for one meanwhile waits, and gets the new base's. */
static void test_adapters_follow_a_swap(void **state)
{
    (void)state;
    struct hosting_wait w = {.fn = called}, gone = {.fn = called};
    struct hosting_lease l, lost;
    pthread_t swapping;
    start(0, 0);
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

static void set(void *ctx)
{
    __atomic_store_n((int *)ctx, 1, __ATOMIC_SEQ_CST);
}

/* What was asked for is there, or has come while nothing was held. */
static const char *renew(struct hosting_lease *l, const char *name)
{
    int come = 0;
    struct hosting_lease next;
    struct hosting_wait wait = {.fn = set, .ctx = &come};
    struct error e;
    enum status st = hosting_acquire(h, str_of(name), &next, &wait, &e);
    hosting_release(h, l);
    if (st == ST_CANCELED) {
        while (!__atomic_load_n(&come, __ATOMIC_SEQ_CST))
            usleep(100);
        st = wait.status;
    }
    *l = next;
    return st == ST_OK ? NULL : "a request that was not served";
}

/* As long as it is used it is never free: it takes the next lease before the last is given back. */
static const char *use(struct rng *rng, struct hosting_lease *l, const char *name, bool adapter)
{
    for (uint64_t n = rng_below(rng, 6);; n--) {
        if (!l->lora == adapter)
            return "another adapter than was asked for";
        if (((struct stand_in *)l->engine)->alive != 1)
            return "a lease of a closed model";
        if (rng_below(rng, 4) == 0)
            usleep((useconds_t)rng_below(rng, 300));
        if (((struct stand_in *)l->engine)->alive != 1)
            return "closed while it was used";
        if (!n)
            break;
        const char *why = renew(l, name);
        if (why)
            return why;
    }
    hosting_release(h, l);
    return NULL;
}

static void *storm(void *arg)
{
    struct rng rng;
    rng_init(&rng, (uint64_t)(uintptr_t)arg);
    for (int i = 0; i < TURNS; i++) {
        struct hosting_lease l;
        struct error e;
        uint64_t model = rng_below(&rng, MODELS);
        bool adapter = rng_below(&rng, 3) == 0;
        const char *name = adapter ? adapters[model] : names[model], *why = NULL;
        int what = (int)rng_below(&rng, 20);
        if (what == 0)
            what = (int)hosting_unload(h, names[model], &e);
        else if (what == 1)
            what = (int)hosting_load(h, &(struct hosting_model){.name = names[model], .path = "30"}, &e);
        else if (what == 2 && hosting_acquire_wait(h, STR("p"), &l, &e) == ST_OK)
            why = use(&rng, &l, "p", false);
        else if (hosting_acquire_wait(h, str_of(name), &l, &e) == ST_OK)
            why = use(&rng, &l, name, adapter);
        else
            why = "a failure";
        if (why)
            return (void *)(uintptr_t)why;
    }
    return NULL;
}

static void test_storm(void **state)
{
    (void)state;
    start_with(&(struct hosting_options){100, 1, &maker, .patience_ms = 1});
    OK(hosting_add(h, &(struct hosting_model){.name = "p", .path = "5", .pinned = true}, &err));
    struct hosting_lease p = take("p");
    const struct engine *pinned = p.engine;
    hosting_release(h, &p);
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
    assert_in_range(made.bytes_most, 95, 100);
    p = take("p");
    assert_ptr_equal(p.engine, pinned);
    hosting_release(h, &p);
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
        cmocka_unit_test(test_models_in_constant_use_take_turns),
        cmocka_unit_test(test_as_many_yield_as_are_needed),
        cmocka_unit_test(test_who_need_not_go_any_more_stays),
        cmocka_unit_test(test_between_two_requests_a_model_is_not_free),
        cmocka_unit_test(test_turns_change_by_themselves),
        cmocka_unit_test(test_quiet_calls_nobody_and_leases_nothing),
        cmocka_unit_test(test_quiet_ends_what_waits_in_a_call),
        cmocka_unit_test(test_idle_models_go_and_pinned_ones_stay),
        cmocka_unit_test(test_a_request_says_how_long_its_model_stays),
        cmocka_unit_test(test_unload_waits_for_the_last_lease),
        cmocka_unit_test(test_another_model_takes_over_a_name),
        cmocka_unit_test(test_a_swap_has_its_turn_as_well),
        cmocka_unit_test(test_adapters_live_with_their_base),
        cmocka_unit_test(test_adapters_follow_a_swap),
        cmocka_unit_test(test_an_adapter_is_never_stuck_between_bases),
        cmocka_unit_test(test_one_that_is_there_already_is_never_closed),
        cmocka_unit_test(test_storm),
    };
    return RUN(tests);
}
