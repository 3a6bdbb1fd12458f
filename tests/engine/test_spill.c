/* KV blocks on disk: what is read is what was written or nothing, the oldest go first, and a restart finds them. */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/fake.h"

#include <time.h>

static struct error err;
static char folder[] = "/tmp/ingot-spill-XXXXXX";
enum { BLOCK = 256 };

static enum status remove_entry(void *ctx, const char *name, struct error *e)
{
    char path[512];
    (void)ctx;
    return file_remove(path_join(path, sizeof path, folder, name), e);
}

static int clean(void **state)
{
    (void)state;
    return file_kind(folder) == FILE_FOLDER ? (int)file_each(folder, remove_entry, NULL, &err) : 0;
}

static int set_up(void **state)
{
    (void)state;
    return kernels_init(NULL, &err) != ST_OK || !mkdtemp(folder);
}

static int tear_down(void **state)
{
    clean(state);
    return rmdir(folder);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

static struct spill *open_spill(struct siphash_key *secret, uint64_t bytes_max)
{
    struct spill *s;
    struct spill_options o = {
        .folder = folder, .bytes_max = bytes_max, .block_bytes = BLOCK, .identify = fake_identify, .on_room = nothing};
    OK(spill_open(&s, secret, &o, &err));
    for (int i = 0; i < 20000 && !spill_stage(s); i++)
        nap();
    assert_non_null(spill_stage(s));
    return s;
}

static struct spill_head head_of(int i)
{
    struct spill_head h = {.key = {{(uint64_t)i * 7919, (uint64_t)i}}, .parent = {{1, (uint64_t)i}}};
    for (int k = 0; k < KV_BLOCK; k++)
        h.ids[k] = i + k;
    return h;
}

static void put(struct spill *s, int i)
{
    struct spill_head head = head_of(i);
    unsigned char *to;
    for (int k = 0; k < 20000 && !(to = spill_stage(s)); k++)
        nap();
    memset(to, i, BLOCK);
    spill_put(s, &head);
    for (int k = 0; k < 20000 && !spill_has(s, &head.key); k++)
        nap();
}

static bool get(struct spill *s, int i)
{
    struct spill_head want = head_of(i), head;
    unsigned char block[BLOCK], same[BLOCK];
    memset(same, i, BLOCK);
    if (!spill_has(s, &want.key) || !spill_get(s, &head, block, &want.key))
        return false;
    assert_memory_equal(&head, &want, sizeof head);
    assert_memory_equal(block, same, BLOCK);
    return true;
}

static void test_spill_survives_a_restart(void **state)
{
    (void)state;
    struct siphash_key first, second;
    struct spill *s = open_spill(&first, 0);
    for (int i = 1; i <= 20; i++)
        put(s, i);
    assert_true(get(s, 7) && !get(s, 21));
    spill_close(s);
    s = open_spill(&second, 0);
    assert_memory_equal(&first, &second, sizeof first);
    for (int i = 1; i <= 20; i++)
        assert_true(get(s, i));
    struct spill_stats stats;
    spill_stats(s, &stats);
    assert_int_equal(stats.read, 20);
    assert_int_equal(stats.damaged, 0);
    spill_close(s);
}

static void test_spill_drops_the_least_recently_used(void **state)
{
    (void)state;
    enum { FILE_BYTES = BLOCK + 376 };
    struct siphash_key secret;
    struct spill *s = open_spill(&secret, 5 * FILE_BYTES);
    struct spill_stats stats;
    for (int i = 1; i <= 5; i++)
        put(s, i);
    assert_true(get(s, 1)); /* used: 2 is the oldest now */
    put(s, 6);
    assert_true(get(s, 1) && !get(s, 2) && get(s, 3));
    spill_stats(s, &stats);
    assert_int_equal(stats.bytes, 5 * FILE_BYTES);
    spill_close(s);
    s = open_spill(&secret, 2 * FILE_BYTES); /* less than there is */
    spill_stats(s, &stats);
    assert_int_equal(stats.bytes, 2 * FILE_BYTES);
    spill_close(s);
}

static char damaged_path[512];

static enum status damage(void *ctx, const char *name, struct error *e)
{
    int at = *(int *)ctx;
    struct buf bytes = {0};
    path_join(damaged_path, sizeof damaged_path, folder, name);
    if (strncmp(name, "kv-", 3) != 0)
        return ST_OK;
    TRY(file_read_all(&bytes, damaged_path, 1 << 20, e));
    if (at < 0)
        bytes.len /= 2;
    else
        bytes.ptr[at] ^= 1;
    enum status st = file_write_all(damaged_path, buf_str(&bytes), e);
    buf_free(&bytes);
    return st == ST_OK ? ST_LIMIT : st; /* one is enough */
}

static void test_spill_damaged_files_are_dropped(void **state)
{
    (void)state;
    static const int where[] = {-1, 0, 80, 100, 200, 400, 376 + BLOCK - 1};
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        struct siphash_key secret;
        struct spill_stats stats;
        clean(NULL);
        struct spill *s = open_spill(&secret, 0);
        put(s, 5);
        assert_int_equal(file_each(folder, damage, (void *)(uintptr_t)&where[i], &err), ST_LIMIT);
        assert_false(get(s, 5));
        spill_stats(s, &stats);
        assert_int_equal(stats.damaged, 1);
        assert_int_equal(file_kind(damaged_path), FILE_ABSENT);
        assert_false(get(s, 5)); /* it is gone */
        put(s, 5);
        assert_true(get(s, 5));
        spill_close(s);
    }
}

static void test_spill_every_bit_counts(void **state)
{
    (void)state;
    struct siphash_key secret;
    clean(NULL);
    struct spill *s = open_spill(&secret, 0);
    put(s, 5);
    spill_close(s);
    struct buf bytes = {0};
    char model[SHA256_TEXT], path[512];
    struct spill_head head, want = head_of(5);
    const uint8_t *block;
    OK(fake_identify(NULL, model, NULL, &err));
    snprintf(path, sizeof path, "%s/kv-aaaaaaaaaaaaaaaa-%016llx%016llx", folder, 5ull * 7919, 5ull);
    OK(file_read_all(&bytes, path, 1 << 20, &err));
    OK(spill_parse(&head, &block, buf_str(&bytes), model, BLOCK, &err));
    assert_memory_equal(&head, &want, sizeof head);
    for (size_t n = 0; n < bytes.len; n++) {
        char *copy = malloc(n + !n); /* its own block: a read beyond shows under a sanitizer */
        memcpy(copy, bytes.ptr, n);
        FAILS(ST_CORRUPT, spill_parse(&head, &block, str_n(copy, n), model, BLOCK, &err));
        free(copy);
    }
    for (size_t bit = 0; bit < 8 * bytes.len; bit++) {
        bytes.ptr[bit / 8] ^= (char)(1 << bit % 8);
        FAILS(ST_CORRUPT, spill_parse(&head, &block, buf_str(&bytes), model, BLOCK, &err));
        bytes.ptr[bit / 8] ^= (char)(1 << bit % 8);
    }
    model[3] = 'b';
    FAILS(ST_CORRUPT, spill_parse(&head, &block, buf_str(&bytes), model, BLOCK, &err));
    buf_free(&bytes);
}

static void test_spill_failures(void **state)
{
    (void)state;
    struct siphash_key secret;
    struct spill *s;
    struct spill_options o = {.folder = folder, .block_bytes = BLOCK, .identify = fake_identify, .on_room = nothing};
    bool fired = true;
    for (uint64_t n = 1; fired; n++) { /* what the thread fails at is logged and leaves it without files */
        fault_arm(FAULT_ALLOC, n);
        enum status st = spill_open(&s, &secret, &o, &err);
        if (st == ST_OK)
            spill_close(s);
        fired = fault_fired();
        fault_disarm();
        assert_true(st == ST_OK || st == ST_NOMEM);
    }
    fault_arm(FAULT_THREAD, 1);
    FAILS(ST_LIMIT, spill_open(&s, &secret, &o, &err));
    fault_disarm();
    o.folder = "/proc/no-such-folder";
    assert_int_not_equal(spill_open(&s, &secret, &o, &err), ST_OK);
    s = open_spill(&secret, 0);
    struct spill_head head = head_of(9);
    memset(spill_stage(s), 9, BLOCK);
    fault_arm(FAULT_WRITE, 1); /* the disk is full */
    spill_put(s, &head);
    for (int i = 0; i < 20000 && !fault_fired(); i++)
        nap();
    fault_disarm();
    put(s, 10);
    assert_true(!get(s, 9) && get(s, 10));
    spill_close(s);
}

/* The hash of a large model takes minutes; a stop does not wait for it. */
static enum status identify_slowly(void *ctx, char text[SHA256_TEXT], const bool *stop, struct error *e)
{
    for (int i = 0; !__atomic_load_n(stop, __ATOMIC_RELAXED); i++) {
        __atomic_store_n((int *)ctx, i + 1, __ATOMIC_SEQ_CST);
        if (i > 20000)
            return fake_identify(NULL, text, stop, e);
        nap();
    }
    __atomic_store_n((int *)ctx, -1, __ATOMIC_SEQ_CST);
    return fail(e, ST_CANCELED, "stopped");
}

static void test_spill_close_waits_for_no_hash(void **state)
{
    (void)state;
    struct siphash_key secret;
    struct spill *s;
    int at = 0;
    struct spill_options o = {
        .folder = folder, .block_bytes = BLOCK, .identify = identify_slowly, .identify_ctx = &at, .on_room = nothing};
    OK(spill_open(&s, &secret, &o, &err));
    while (!__atomic_load_n(&at, __ATOMIC_SEQ_CST))
        nap();
    assert_null(spill_stage(s));
    spill_close(s);
    assert_int_equal(at, -1);
}

/* ---- under the core: few blocks, prompts that come again, restarts ---- */

enum { TEXTS = 6, JOBS = 12 };

struct run {
    struct fake fake;
    struct core core;
    struct request requests[JOBS];
    struct record got[JOBS], want[JOBS];
    int32_t prompts[JOBS][FAKE_CTX];
    int ended;
};

static void on_end(void *ctx, struct seq *q, const struct finish_event *end)
{
    struct run *r = ctx;
    struct request *request = q->r;
    r->ended++;
    seq_free(q);
    request->on_finish(request->ctx, end);
}

/* One start of an engine: some requests, then the end. Returns blocks read; *agree: all answers as alone. */
static uint64_t run_once(struct run *r, uint64_t seed, enum fake_mutation mutation, bool *agree)
{
    struct rng rng;
    struct sampler_scratch scratch;
    struct engine_options o = {.max_sequences = 3, .prefill_chunk = 128, .kv_spill = folder};
    rng_init(&rng, seed);
    memset(r, 0, sizeof *r);
    struct executor x = fake_executor(&r->fake, &o, 9, NULL);
    r->fake.mutation = mutation;
    OK(sampler_scratch_init(&scratch, FAKE_VOCAB, &err));
    OK(core_init(&r->core, &x, &o, &err));
    OK(core_keep_on_disk(&r->core, &o, nothing, NULL, &err));
    r->core.ctx = r;
    r->core.on_end = on_end;
    struct kv_pool *kv = &r->core.sched.kv;
    for (int i = 0; i < 20000 && !spill_stage(kv->spill); i++)
        nap();
    for (int i = 0; i < JOBS; i++) {
        struct seq *q;
        random_request(&r->requests[i], &r->got[i], r->prompts[i], &rng, FAKE_CTX);
        int text = (int)rng_below(&rng, TEXTS), n = 100 + (int)rng_below(&rng, 180);
        for (int k = 0; k < n; k++)
            r->prompts[i][k] = (k * (text + 3) + k / 9) % FAKE_VOCAB;
        r->requests[i].n_prompt = n;
        r->requests[i].sampling.max_tokens = 1 + (int)rng_below(&rng, 30);
        OK(seq_create(&q, &r->requests[i], &r->core.x, &err));
        q->order = (uint64_t)i;
        sched_add(&r->core.sched, q);
        while (r->ended < i - 2) {
            core_step(&r->core);
            for (int k = 0; k < 1000 && kv->n_unkept; k++)
                if (!prefix_keep(kv))
                    nap();
        }
    }
    while (core_step(&r->core)) {
    }
    *agree = true;
    for (int i = 0; i < JOBS; i++) {
        expect(&r->want[i], &r->requests[i], FAKE_CTX, 0, &scratch);
        *agree &= records_agree(&r->got[i], &r->want[i]);
    }
    struct spill_stats stats;
    spill_stats(kv->spill, &stats);
    assert_int_equal(kv->n_free, kv->n_block);
    core_free(&r->core);
    sampler_scratch_free(&scratch);
    return stats.read;
}

static void test_spill_same_answers(void **state)
{
    (void)state;
    struct run *r = malloc(sizeof *r);
    uint64_t read = 0;
    bool agree;
    for (uint64_t i = 0; i < 30; i++) {
        read += run_once(r, i, FAKE_HONEST, &agree);
        if (!agree)
            fail_msg("start %d: a request did not report what it does alone", (int)i);
    }
    print_message("%d blocks were read from disk\n", (int)read);
    assert_true(read > 100);
    int noticed = 0;
    for (uint64_t i = 0; i < 5; i++) {
        run_once(r, i, FAKE_LOADS_WRONG, &agree);
        noticed += !agree;
    }
    assert_true(noticed > 0);
    free(r);
}

/* ---- under the engine with its thread: what was computed is written while it rests, and read by the next ---- */

static void test_spill_engine_restarts(void **state)
{
    (void)state;
    struct fake *f = malloc(sizeof *f);
    struct sampler_scratch scratch;
    OK(sampler_scratch_init(&scratch, FAKE_VOCAB, &err));
    for (int start = 0; start < 4; start++) {
        struct engine_options o = {.max_sequences = 2, .prefill_chunk = 128, .kv_spill = folder};
        struct engine *e;
        struct engine_stats stats;
        struct record got = {0}, want;
        struct finish_event end;
        int32_t prompt[200];
        memset(f, 0, sizeof *f);
        struct executor x = fake_executor(f, &o, 12, NULL);
        OK(engine_create_on(&e, &x, &o, &err));
        for (int k = 0; k < 200; k++)
            prompt[k] = k * k % FAKE_VOCAB;
        struct request r = {
            .prompt = prompt, .n_prompt = 200, .ctx = &got, .on_token = record_token, .on_finish = record_finish};
        sampling_defaults(&r.sampling);
        r.sampling.max_tokens = 30;
        r.sampling.has_seed = true;
        for (int i = 0; start && i < 1000; i++) /* the folder is read meanwhile */
            nap();
        OK(engine_generate(e, &r, &end, &err));
        expect(&want, &r, FAKE_CTX, 0, &scratch);
        assert_true(records_agree(&got, &want));
        for (int i = 0; i < 20000; i++) {
            engine_stats(e, &stats);
            if (stats.spill_written + stats.spill_read >= 3)
                break;
            nap();
        }
        assert_true(stats.spill_written + stats.spill_read >= 3);
        if (start == 3)
            print_message("the last start read %d blocks; %d tokens were cached\n", (int)stats.spill_read,
                          end.n_cached);
        engine_destroy(e);
    }
    sampler_scratch_free(&scratch);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_spill_survives_a_restart, clean),
        cmocka_unit_test_setup(test_spill_drops_the_least_recently_used, clean),
        cmocka_unit_test_setup(test_spill_damaged_files_are_dropped, clean),
        cmocka_unit_test_setup(test_spill_every_bit_counts, clean),
        cmocka_unit_test_setup(test_spill_failures, clean),
        cmocka_unit_test_setup(test_spill_close_waits_for_no_hash, clean),
        cmocka_unit_test_setup(test_spill_same_answers, clean),
        cmocka_unit_test_setup(test_spill_engine_restarts, clean),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
