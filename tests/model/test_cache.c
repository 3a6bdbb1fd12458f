/* test_cache - panels kept on disk: the same bits with and without, no damage used, no change missed, no failure of the
 * cache a failure of the load */
#include "model/support.h"

#include "base/fault.h"
#include "base/guard.h"
#include "base/log.h"
#include "model/private.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { N_IDS = 7, N_VOCAB = 96, LOST = 99 };
static const int32_t ids[N_IDS] = {1, 5, 90, 33, 2, 7, 64};
static const char *const config =
    "{\"model_type\":\"llama\",\"vocab_size\":96,\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":64,\"max_position_embeddings\":64}";
static char folder[64], cache_folder[80], panels[96], gguf[96];
static float plain[N_IDS * N_VOCAB];
static struct error err;

static char *in_folder(const char *name)
{
    static char path[2][192];
    static int turn;
    turn = !turn;
    return path_join(path[turn], sizeof path[0], folder, name);
}

static void write_model(const char *path, uint64_t seed)
{
    struct arena arena;
    const struct json *doc;
    struct model *model;
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&model, doc, DT_Q8_0, seed, &(struct model_options){0}, &err));
    OK(model_write_gguf(model, path, DT_Q8_0, NULL, &err));
    model_free(model);
    arena_free(&arena);
}

static struct model_options with_cache(void)
{
    return (struct model_options){.cache = cache_folder, .cache_bytes_min = 1};
}

static enum status load(struct model **out, const char *path, const struct model_options *options)
{
    struct checkpoint *ck;
    TRY(checkpoint_open(&ck, path, &err));
    enum status st = model_load(out, ck, options, &err);
    checkpoint_close(ck);
    return st;
}

static void logits(float *out, struct model *model) /* frees the model */
{
    struct bench_model b;
    bench_open(&b, model, N_IDS);
    bench_logits(&b, out, ids, N_IDS, 3);
    bench_close(&b);
}

/* The panels of an earlier load. */
static bool served(const struct model *m)
{
    return m->cached.size && !m->packed;
}

/* Loads with the cache; the logits must be those without it. Whether the cache served. */
static bool check_load(void)
{
    struct model *m;
    float got[N_IDS * N_VOCAB];
    struct model_options options = with_cache();
    OK(load(&m, gguf, &options));
    bool hit = served(m);
    logits(got, m);
    assert_memory_equal(got, plain, sizeof plain);
    return hit;
}

static enum status remove_one(void *ctx, const char *name, struct error *e)
{
    char path[256];
    (void)ctx;
    return file_remove(path_join(path, sizeof path, panels, name), e);
}

static void clear(void)
{
    if (file_kind(panels) == FILE_FOLDER)
        OK(file_each(panels, remove_one, NULL, &err));
}

struct found {
    int n, litter;
    char path[256];
};
static enum status find_one(void *ctx, const char *name, struct error *e)
{
    struct found *f = ctx;
    (void)e;
    f->litter += strstr(name, ".tmp-") != NULL;
    if (str_ends(str_of(name), STR(".panels")) && ++f->n)
        path_join(f->path, sizeof f->path, panels, name);
    return ST_OK;
}
static struct found find(void)
{
    struct found f = {0};
    if (file_kind(panels) == FILE_FOLDER)
        OK(file_each(panels, find_one, &f, &err));
    return f;
}

static int set_up(void **state)
{
    (void)state;
    struct model *m;
    umask(022);
    strcpy(folder, "/tmp/ingot-cache-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    path_join(cache_folder, sizeof cache_folder, folder, "cache");
    path_join(panels, sizeof panels, cache_folder, "panels");
    path_join(gguf, sizeof gguf, folder, "model.gguf");
    write_model(gguf, 5);
    if (load(&m, gguf, &(struct model_options){0}) != ST_OK)
        return -1;
    logits(plain, m);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void test_cache_serves_the_same_bits(void **state)
{
    (void)state;
    struct stat st;
    struct model *m;
    struct model_options options = with_cache();
    clear();
    OK(load(&m, gguf, &options)); /* the first load goes on with the file it wrote: there is no second copy */
    assert_true(m->packed && m->cached.size && !m->plan.block);
    model_free(m);
    clear();
    assert_false(check_load());
    struct found f = find();
    assert_int_equal(f.n, 1);
    assert_int_equal(stat(f.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0400);
    assert_int_equal(stat(panels, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int i = 0; i < 3; i++)
        assert_true(check_load());
    assert_int_equal(find().n, 1);
    /* other uses of the same panels, and one that has no use for them */
    options.exact = true;
    OK(load(&m, gguf, &options));
    assert_true(served(m));
    model_free(m);
    options.train = true;
    OK(load(&m, gguf, &options));
    assert_false(served(m));
    model_free(m);
    options = (struct model_options){.cache = cache_folder}; /* too small to be worth it */
    OK(load(&m, gguf, &options));
    assert_false(served(m));
    model_free(m);
    /* with threads */
    struct pool *pool;
    OK(pool_create(&pool, 3, &err));
    options = with_cache();
    options.pool = pool;
    OK(load(&m, gguf, &options));
    assert_true(served(m));
    model_free(m);
    pool_destroy(pool);
}

/* Every part of the file, damaged where it lies; the lock is held, so that nothing is repaired meanwhile. */
static void test_cache_notices_damage(void **state)
{
    (void)state;
#ifdef INGOT_SANITIZED
    enum { STEP = 61, BLOCK_STEP = 4099, CUTS = 24 };
#else
    enum { STEP = 3, BLOCK_STEP = 251, CUTS = 160 };
#endif
    enum { BLOCK = 2 << 20 };
    clear();
    check_load();
    struct found f = find();
    struct buf good = {0};
    char lock_path[160];
    OK(file_read_all(&good, f.path, 64 << 20, &err));
    assert_true(good.len > BLOCK);
    int lock = file_lock(path_join(lock_path, sizeof lock_path, panels, "lock"));
    assert_true(lock >= 0);
    assert_int_equal(chmod(f.path, 0600), 0);
    int fd = open(f.path, O_RDWR);
    size_t head = BLOCK;
    while (good.ptr[head - 1] == 0)
        head--;
    for (size_t at = 0; at < good.len; at += at < head ? STEP : BLOCK_STEP) {
        if (at >= head && at < BLOCK) /* a hole: its bytes mean nothing */
            at = BLOCK;
        char bad = (char)(good.ptr[at] ^ 1 << at % 8);
        assert_int_equal(pwrite(fd, &bad, 1, (off_t)at), 1);
        if (check_load())
            fail_msg("a bit of byte %zu of %zu is wrong, and nobody noticed", at, good.len);
        assert_int_equal(pwrite(fd, good.ptr + at, 1, (off_t)at), 1);
    }
    assert_true(check_load());
    for (int i = 0; i < CUTS; i++) {
        size_t size = i == 0 ? good.len - 1 : i == 1 ? good.len + 1 : good.len / CUTS * (size_t)(i - 2);
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
        if (check_load())
            fail_msg("cut to %zu of %zu bytes, and nobody noticed", size, good.len);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, good.ptr, good.len, 0), (ssize_t)good.len);
    }
    assert_true(check_load());
    assert_int_equal(pwrite(fd, "x", 1, BLOCK + 5), 1);
    close(fd);
    file_unlock(lock);
    assert_false(check_load()); /* not used, and replaced */
    assert_true(check_load());
    buf_free(&good);
}

/* Another model's panels under this one's name. */
static void test_cache_knows_whose_panels(void **state)
{
    (void)state;
    char other[96], command[700];
    struct model *m;
    struct model_options options = with_cache();
    path_join(other, sizeof other, folder, "other.gguf");
    clear();
    check_load();
    struct found mine = find();
    snprintf(command, sizeof command, "mv '%s' '%s/mine'", mine.path, folder);
    assert_int_equal(system(command), 0);
    write_model(other, 6);
    OK(load(&m, other, &options));
    model_free(m);
    struct found others = find();
    assert_string_not_equal(mine.path, others.path);
    snprintf(command, sizeof command, "cp -p '%s' '%s'", others.path, mine.path);
    assert_int_equal(system(command), 0);
    assert_false(check_load());
    assert_true(check_load());
}

/* A change that keeps size and modification time: a weight in the middle, which no sampled page need hold. */
static void test_cache_follows_the_model(void **state)
{
    (void)state;
    struct stat st;
    struct model *m;
    float got[N_IDS * N_VOCAB], want[N_IDS * N_VOCAB];
    struct model_options options = with_cache();
    clear();
    check_load();
    assert_true(check_load());
    assert_int_equal(stat(gguf, &st), 0);
    int fd = open(gguf, O_RDWR);
    char byte;
    off_t middle = st.st_size / 2;
    assert_int_equal(pread(fd, &byte, 1, middle), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, middle), 1);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    OK(load(&m, gguf, &(struct model_options){0}));
    logits(want, m);
    assert_memory_not_equal(want, plain, sizeof plain);
    for (int i = 0; i < 2; i++) {
        OK(load(&m, gguf, &options));
        assert_int_equal(served(m), i);
        logits(got, m);
        assert_memory_equal(got, want, sizeof want);
    }
    write_model(gguf, 5);
    assert_false(check_load());
}

/* A model that changes between opening and packing: its panels are of no known content, and not kept. */
static void test_cache_keeps_nothing_of_a_changing_model(void **state)
{
    (void)state;
    struct checkpoint *ck;
    struct model *m;
    struct model_options options = with_cache();
    clear();
    OK(checkpoint_open(&ck, gguf, &err));
    int fd = open(gguf, O_RDWR);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, 0), 1);
    assert_int_equal(pwrite(fd, &byte, 1, 0), 1); /* the same byte is a write, too */
    close(fd);
    OK(model_load(&m, ck, &options, &err));
    checkpoint_close(ck);
    model_free(m);
    assert_int_equal(find().n, 0);
    assert_false(check_load());
    assert_true(check_load());
}

/* Each step of looking, of writing and of mapping fails once; the load does not, and the next one is right. */
static void sweep(enum fault_point point, bool hit)
{
    struct checkpoint *ck;
    struct model *m;
    struct model_options options = with_cache();
    for (uint64_t n = 1;; n++) {
        clear();
        if (hit)
            check_load();
        OK(checkpoint_open(&ck, gguf, &err));
        fault_arm(point, n);
        enum status st = model_load(&m, ck, &options, &err);
        bool fired = fault_fired();
        fault_disarm();
        checkpoint_close(ck);
        if (st != ST_OK && (point != FAULT_ALLOC || st != ST_NOMEM))
            fail_msg("failure %d of point %d became %s: %s", (int)n, (int)point, status_row(st)->name, err.text);
        if (st == ST_OK) {
            float got[N_IDS * N_VOCAB];
            logits(got, m);
            assert_memory_equal(got, plain, sizeof plain);
        }
        struct found f = find();
        assert_int_equal(f.litter, 0);
        check_load();
        assert_true(check_load());
        if (!fired) {
            OK(st);
            assert_true(n > 1 || point == FAULT_READ || point == FAULT_THREAD || hit || point == FAULT_MMAP);
            break;
        }
    }
}

static void test_cache_failures_fail_no_load(void **state)
{
    (void)state;
    static const enum fault_point points[] = {FAULT_ALLOC, FAULT_OPEN,   FAULT_READ, FAULT_WRITE,
                                              FAULT_FSYNC, FAULT_RENAME, FAULT_MMAP, FAULT_THREAD};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        sweep(points[i], false);
        sweep(points[i], true);
    }
}

static void test_cache_stays_within_its_bytes(void **state)
{
    (void)state;
    enum { N = 4 };
    char path[96], name[24];
    struct model *m;
    struct model_options options = with_cache();
    clear();
    check_load();
    struct stat st;
    assert_int_equal(stat(find().path, &st), 0);
    options.cache_bytes_max = 2 * (uint64_t)st.st_size + 100; /* two fit */
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "m%d.gguf", i);
        write_model(path_join(path, sizeof path, folder, name), 20 + (uint64_t)i);
        OK(load(&m, path, &options));
        assert_false(served(m));
        model_free(m);
        assert_int_equal(find().n, 2);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* file times have a grain */
        assert_true(check_load());                                /* used after each: it is never the oldest */
    }
    OK(load(&m, path, &options));
    assert_true(served(m));
    model_free(m);
    options.cache_bytes_max = 10; /* not even one */
    OK(load(&m, in_folder("m0.gguf"), &options));
    model_free(m);
    assert_int_equal(find().n, 2);
}

static void test_cache_trusts_nobody_else(void **state)
{
    (void)state;
    clear();
    check_load();
    struct found f = find();
    char lock_path[160], aside[160];
    int lock = file_lock(path_join(lock_path, sizeof lock_path, panels, "lock"));
    assert_int_equal(chmod(f.path, 0622), 0); /* others may write into it */
    assert_false(check_load());
    assert_int_equal(chmod(f.path, 0400), 0);
    assert_true(check_load());
    path_join(aside, sizeof aside, folder, "aside");
    assert_int_equal(rename(f.path, aside), 0);
    assert_int_equal(symlink(aside, f.path), 0);
    assert_false(check_load());
    file_unlock(lock);
    clear();
    assert_int_equal(chmod(panels, 0777), 0); /* the folder: nothing is kept */
    assert_false(check_load());
    assert_int_equal(find().n, 0);
    assert_int_equal(chmod(panels, 0700), 0);
    assert_false(check_load());
    assert_true(check_load());
}

/* What a killed writer left goes with the next writer. */
static void test_cache_sweeps_up(void **state)
{
    (void)state;
    char path[160];
    clear();
    OK(file_write_all(path_join(path, sizeof path, panels, "0.panels.tmp-1"), STR("x"), &err));
    assert_int_equal(find().litter, 1);
    check_load();
    assert_int_equal(find().litter, 0);
}

static void test_cache_with_several_starts_at_once(void **state)
{
    (void)state;
    enum { N = 5, ROUNDS = 6 };
    for (int round = 0; round < ROUNDS; round++) {
        pid_t children[N];
        clear();
        for (int i = 0; i < N; i++) {
            children[i] = fork();
            if (children[i] == 0) {
                struct model *m;
                float got[N_IDS * N_VOCAB];
                struct model_options options = with_cache();
                if (load(&m, gguf, &options) != ST_OK)
                    _exit(1);
                logits(got, m);
                _exit(memcmp(got, plain, sizeof plain) != 0);
            }
        }
        for (int i = 0; i < N; i++) {
            int how;
            assert_int_equal(waitpid(children[i], &how, 0), children[i]);
            assert_int_equal(how, 0);
        }
        struct found f = find();
        assert_int_equal(f.n, 1);
        assert_int_equal(f.litter, 0);
        assert_true(check_load());
    }
}

static void on_lost(void)
{
    _exit(LOST);
}

/* Another program makes a file shorter that is mapped: the model's while it is read, the cache's while it is used. */
static void test_truncated_files_are_said(void **state)
{
    (void)state;
    char path[96], command[300];
    struct checkpoint *ck;
    struct model *m;
    struct model_options options = with_cache();
    guard_install(on_lost); /* here: cmocka has handlers of its own around each test */
    snprintf(command, sizeof command, "cp '%s' '%s'", gguf, path_join(path, sizeof path, folder, "cut.gguf"));
    assert_int_equal(system(command), 0);
    OK(checkpoint_open(&ck, path, &err));
    assert_int_equal(truncate(path, 4096), 0);
    FAILS(ST_IO, model_load(&m, ck, &(struct model_options){0}, &err));
    assert_non_null(strstr(err.text, "cut.gguf"));
    assert_non_null(strstr(err.text, "shorter"));
    checkpoint_close(ck);
    assert_int_equal(system(command), 0);
    OK(checkpoint_open(&ck, path, &err));
    assert_int_equal(truncate(path, 0), 0);
    FAILS(ST_IO, model_load(&m, ck, &options, &err)); /* and nothing is kept of it */
    checkpoint_close(ck);
    clear();
    check_load();
    struct found f = find();
    pid_t child = fork();
    if (child == 0) {
        float got[N_IDS * N_VOCAB];
        if (load(&m, gguf, &options) != ST_OK || !served(m) || chmod(f.path, 0600) || truncate(f.path, 4096))
            _exit(1);
        logits(got, m);
        _exit(2); /* weights are gone, and it went on */
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), LOST);
    assert_false(check_load());
    assert_true(check_load());
}

int main(void)
{
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_serves_the_same_bits),
        cmocka_unit_test(test_cache_notices_damage),
        cmocka_unit_test(test_cache_knows_whose_panels),
        cmocka_unit_test(test_cache_follows_the_model),
        cmocka_unit_test(test_cache_keeps_nothing_of_a_changing_model),
        cmocka_unit_test(test_cache_failures_fail_no_load),
        cmocka_unit_test(test_cache_stays_within_its_bytes),
        cmocka_unit_test(test_cache_trusts_nobody_else),
        cmocka_unit_test(test_cache_sweeps_up),
        cmocka_unit_test(test_cache_with_several_starts_at_once),
        cmocka_unit_test(test_truncated_files_are_said),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
