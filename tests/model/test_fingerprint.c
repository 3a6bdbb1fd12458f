/* test_fingerprint - equal where the bits are, another for each thing that decides them; digests are kept, and a file
 * that changed is never taken for the one that was opened */
#include "model/support.h"

#include "base/fault.h"
#include "base/sha256.h"
#include "model/private.h"

#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

static char folder[64], cache[96], digests[112], model_path[96];
static struct error err;

static char *in_folder(const char *name)
{
    static char path[2][192];
    static int turn;
    turn = !turn;
    return path_join(path[turn], sizeof path[0], folder, name);
}

static void copy(const char *to, const char *from)
{
    struct buf bytes = {0};
    OK(file_read_all(&bytes, from, 64 << 20, &err));
    OK(file_write_all(to, buf_str(&bytes), &err));
    buf_free(&bytes);
}

static struct fingerprint of(const char *path, struct model_options o, const char *adapter, double temperature)
{
    struct bundle *b;
    struct fingerprint f;
    OK(bundle_open(&b, path, &o, &err));
    if (temperature >= 0)
        b->temperature = temperature;
    OK(bundle_fingerprint(&f, b, adapter, &err));
    assert_true(bundle_fingerprint_known(&f, b, adapter));
    bundle_close(b);
    return f;
}

static int set_up(void **state)
{
    (void)state;
    umask(022);
    strcpy(folder, "/tmp/ingot-print-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    snprintf(cache, sizeof cache, "%s/cache", folder);
    snprintf(digests, sizeof digests, "%s/digests", cache);
    snprintf(model_path, sizeof model_path, "%s/m.gguf", folder);
    copy(model_path, TEST_DIR "/../models/storyteller.gguf");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void test_sha256_is_the_standard_one(void **state)
{
    (void)state;
    uint8_t digest[SHA256_BYTES];
    char text[SHA256_TEXT];
    assert_true(sha256_of(digest, STR("abc"))); /* FIPS 180-4's example */
    sha256_text(text, digest);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    uint8_t again[SHA256_BYTES];
    assert_true(sha256_read(again, str_of(text)));
    assert_memory_equal(again, digest, sizeof digest);
    assert_false(sha256_read(again, str_n(text, 63)));
    for (int i = 0; i < 64; i++) {
        char kept = text[i];
        text[i] = 'g';
        assert_false(sha256_read(again, str_of(text)));
        text[i] = kept;
    }
    fault_arm(FAULT_ALLOC, 1);
    assert_false(sha256_of(digest, STR("abc")));
    fault_disarm();
}

static void test_fingerprint_differs_with_each_thing_that_decides_the_bits(void **state)
{
    (void)state;
    const char *renamed = in_folder("renamed.gguf");
    copy(renamed, model_path);
    struct fingerprint all[16];
    int n = 0;
    all[n++] = of(model_path, (struct model_options){.kv = KV_F16}, NULL, -1);
    struct fingerprint same = of(renamed, (struct model_options){.kv = KV_F16, .n_ctx = 100}, NULL, -1);
    assert_string_equal(same.text, all[0].text);
    char brief[FINGERPRINT_BRIEF];
    assert_true(fingerprint_brief(brief, same.text));
    assert_memory_equal(brief, "fp_", 3);
    assert_memory_equal(brief + 3, same.text, 10);
    assert_false(fingerprint_brief(brief, ""));
    all[n++] = of(model_path, (struct model_options){.kv = KV_F32}, NULL, -1);
    all[n++] = of(model_path, (struct model_options){.kv = KV_F32, .exact = true}, NULL, -1);
    all[n++] = of(model_path, (struct model_options){.kv = KV_INT8}, NULL, -1);
    all[n++] = of(model_path, (struct model_options){.kv = KV_F16}, "ab", -1);
    all[n++] = of(model_path, (struct model_options){.kv = KV_F16}, NULL, 0.25);
    for (enum pooling p = POOL_MEAN; p <= POOL_LAST; p++)
        all[n++] = of(model_path, (struct model_options){.kv = KV_F16, .pooling = p, .any_task = true}, NULL, -1);
    struct buf bytes = {0};
    OK(file_read_all(&bytes, model_path, 64 << 20, &err));
    bytes.ptr[bytes.len - 1] ^= 1; /* one bit of one weight */
    OK(file_write_all(renamed, buf_str(&bytes), &err));
    buf_free(&bytes);
    all[n++] = of(renamed, (struct model_options){.kv = KV_F16}, NULL, -1);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(all[i].text, all[k].text);
    OK(file_remove(renamed, &err));
}

static void *stop_soon(void *stop)
{
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    __atomic_store_n((bool *)stop, true, __ATOMIC_RELAXED);
    return NULL;
}

/* Who waits for the hash of a large file can stop waiting; the hash itself stops when the bundle closes. */
static void test_fingerprint_is_waited_for_only_as_long_as_wanted(void **state)
{
    (void)state;
    const char *large = in_folder("large");
    struct bundle b = {.id = "large"};
    struct file_id id;
    struct fingerprint f;
    pthread_t thread;
    bool stop = false;
    OK(file_write_all(large, STR("x"), &err));
    assert_int_equal(truncate(large, (off_t)1 << 36), 0); /* a hole: half a minute to hash, no room on disk */
    assert_true(file_identify(&id, large));
    OK(digests_create(&b.digests, NULL, &err));
    OK(digests_add(b.digests, large, &id, false, &err));
    pthread_create(&thread, NULL, stop_soon, &stop);
    FAILS(ST_CANCELED, bundle_fingerprint_unless(&f, &b, NULL, &stop, &err));
    pthread_join(thread, NULL);
    digests_destroy(b.digests);
    OK(file_remove(large, &err));
}

static int n_kept;
static enum status count(void *ctx, const char *name, struct error *e)
{
    (void)ctx;
    (void)e;
    n_kept += str_ends(str_of(name), STR(".sha256"));
    return ST_OK;
}
static char kept_name[256];
static enum status find(void *ctx, const char *name, struct error *e)
{
    (void)ctx;
    (void)e;
    path_join(kept_name, sizeof kept_name, digests, name);
    return ST_OK;
}

static void test_digests_are_kept_and_never_believed_when_damaged(void **state)
{
    (void)state;
    struct model_options o = {.cache = cache};
    struct fingerprint plain = of(model_path, (struct model_options){0}, NULL, -1), f;
    assert_int_equal(file_kind(digests), FILE_ABSENT);
    f = of(model_path, o, NULL, -1);
    assert_string_equal(f.text, plain.text);
    OK(file_each(digests, count, NULL, &err));
    if (!n_kept)
        skip(); /* a file system whose change times cannot be trusted */
    assert_int_equal(n_kept, 1);
    OK(file_each(digests, find, NULL, &err));
    struct buf good = {0};
    OK(file_read_all(&good, kept_name, 4096, &err));
    /* It is what counts: a kept digest, consistently forged by its owner, is believed ... */
    char *digit = good.ptr + good.len - 2, was = *digit;
    *digit = was == '0' ? '1' : '0';
    OK(file_write_all(kept_name, buf_str(&good), &err));
    chmod(kept_name, 0600);
    assert_string_not_equal(of(model_path, o, NULL, -1).text, plain.text);
    *digit = was;
    /* ... but none of another file, or cut, or writable by others. */
    for (size_t i = 0; i < good.len - SHA256_TEXT; i++) {
        char c = good.ptr[i];
        good.ptr[i] ^= 1;
        OK(file_write_all(kept_name, buf_str(&good), &err));
        chmod(kept_name, 0600);
        assert_string_equal(of(model_path, o, NULL, -1).text, plain.text);
        good.ptr[i] = c;
    }
    for (size_t n = 0; n < good.len; n += 7) {
        OK(file_write_all(kept_name, str_n(good.ptr, n), &err));
        chmod(kept_name, 0600);
        assert_string_equal(of(model_path, o, NULL, -1).text, plain.text);
    }
    buf_free(&good);
}

static void test_a_file_that_changed_has_no_fingerprint(void **state)
{
    (void)state;
    struct bundle *b;
    struct fingerprint f;
    struct buf bytes = {0};
    const char *path = in_folder("changing.gguf");
    copy(path, model_path);
    OK(bundle_open(&b, path, &(struct model_options){0}, &err));
    OK(file_read_all(&bytes, path, 64 << 20, &err));
    bytes.ptr[bytes.len - 1] ^= 1;
    OK(file_write_all(path, buf_str(&bytes), &err));
    FAILS(ST_INVALID, bundle_fingerprint(&f, b, NULL, &err));
    assert_non_null(strstr(err.text, "changed after it was opened"));
    assert_false(bundle_fingerprint_known(&f, b, NULL));
    bundle_close(b);
    OK(bundle_open(&b, path, &(struct model_options){0}, &err));
    OK(file_remove(path, &err));
    FAILS(ST_NOT_FOUND, bundle_fingerprint(&f, b, NULL, &err));
    bundle_close(b);
    OK(bundle_open(&b, model_path, &(struct model_options){0}, &err));
    fault_arm(FAULT_THREAD, 1);
    FAILS(ST_LIMIT, bundle_fingerprint(&f, b, NULL, &err));
    fault_disarm();
    bundle_close(b);
    buf_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_is_the_standard_one),
        cmocka_unit_test(test_fingerprint_differs_with_each_thing_that_decides_the_bits),
        cmocka_unit_test(test_fingerprint_is_waited_for_only_as_long_as_wanted),
        cmocka_unit_test(test_digests_are_kept_and_never_believed_when_damaged),
        cmocka_unit_test(test_a_file_that_changed_has_no_fingerprint),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
