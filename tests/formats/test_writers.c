/* The writers: the bytes of the official packages again, and no half-written file whatever fails. */
#include "tiny.h"

#include "base/fault.h"

static char folder[64];

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ingot-writers-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static enum status remove_entry(void *ctx, const char *name, struct error *err)
{
    char path[128];
    ++*(int *)ctx;
    return file_remove(path_join(path, sizeof path, folder, name), err);
}

static int entries_removed(void)
{
    struct error err;
    int n = 0;
    OK(file_each(folder, remove_entry, &n, &err));
    return n;
}

static int teardown(void **state)
{
    (void)state;
    entries_removed();
    return rmdir(folder);
}

static char path[128];
static const char *in_folder(const char *name)
{
    return path_join(path, sizeof path, folder, name);
}

static enum status copy_tensor(void *ctx, void *out, struct error *err)
{
    const struct tensor *t = ctx;
    (void)err;
    memcpy(out, t->data, t->bytes);
    return ST_OK;
}

static struct tensor_out *outs_of(const struct checkpoint *ck)
{
    struct tensor_out *outs = calloc(ck->n_tensor, sizeof *outs);
    for (size_t i = 0; i < ck->n_tensor; i++) {
        const struct tensor *t = &ck->tensors[i];
        outs[i] = (struct tensor_out){.name = t->name, .type = t->type, .n_dim = t->n_dim, .fill = copy_tensor};
        outs[i].ctx = (void *)(uintptr_t)t;
        memcpy(outs[i].shape, t->shape, sizeof t->shape);
    }
    return outs;
}

static void same_file(const char *a, const char *b)
{
    struct error err;
    struct buf x = {0}, y = {0};
    OK(file_read_all(&x, a, 1 << 20, &err));
    OK(file_read_all(&y, b, 1 << 20, &err));
    assert_int_equal(x.len, y.len);
    for (size_t i = 0; i < x.len; i++)
        if (x.ptr[i] != y.ptr[i])
            fail_msg("byte %zu: %02x, expected %02x", i, (uint8_t)x.ptr[i], (uint8_t)y.ptr[i]);
    buf_free(&x);
    buf_free(&y);
}

static enum status write_gguf_copy(const struct checkpoint *ck, const char *to, struct error *err)
{
    struct gguf_writer *w;
    TRY(gguf_writer_create(&w, err));
    for (size_t i = 0; i < ck->gguf->n_value; i++) {
        const struct gguf_value *v = &ck->gguf->values[i];
        char key[128];
        snprintf(key, sizeof key, "%.*s", STR_ARG(v->key));
        int64_t ints[16];
        float reals[16];
        for (uint64_t j = 0; j < v->count && j < 16; j++) {
            ints[j] = gguf_int_at(v, j, 0);
            reals[j] = (float)gguf_real_at(v, j, 0);
        }
        if (v->type == GGUF_STRING)
            gguf_put_string(w, key, gguf_string(ck->gguf, key));
        else if (v->type == GGUF_BOOL)
            gguf_put_bool(w, key, gguf_bool(ck->gguf, key, false));
        else if (v->type == GGUF_F32 || v->type == GGUF_F64)
            gguf_put_real(w, key, v->type, gguf_real(ck->gguf, key, 0));
        else if (v->type != GGUF_ARRAY)
            gguf_put_int(w, key, v->type, gguf_int(ck->gguf, key, 0));
        else if (v->strings)
            gguf_put_strings(w, key, v->strings, v->count);
        else if (v->element == GGUF_F32)
            gguf_put_reals(w, key, reals, v->count);
        else
            gguf_put_ints(w, key, v->element, ints, v->count);
    }
    struct tensor_out *outs = outs_of(ck);
    enum status st = gguf_writer_commit(w, to, outs, ck->n_tensor, err);
    free(outs);
    gguf_writer_destroy(w);
    return st;
}

static void test_gguf_comes_back_byte_for_byte(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    OK(checkpoint_open(&ck, TINY("tiny.gguf"), &err));
    OK(write_gguf_copy(ck, in_folder("copy.gguf"), &err));
    same_file(in_folder("copy.gguf"), TINY("tiny.gguf"));
    checkpoint_close(ck);
}

static void test_safetensors_come_back_byte_for_byte(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    OK(checkpoint_open(&ck, TINY("flat.pt"), &err)); /* in another order than the file it must become */
    struct tensor_out *outs = outs_of(ck);
    OK(safetensors_write(folder, outs, ck->n_tensor, 0, &err));
    same_file(in_folder("model.safetensors"), TINY("state.safetensors"));
    free(outs);
    checkpoint_close(ck);
}

static void test_shards_and_back_to_one_file(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck, *back;
    OK(checkpoint_open(&ck, TINY("state.safetensors"), &err));
    struct tensor_out *outs = outs_of(ck);
    OK(safetensors_write(folder, outs, ck->n_tensor, 0, &err));
    OK(safetensors_write(folder, outs, ck->n_tensor, 60, &err));
    assert_int_equal(file_kind(in_folder("model.safetensors")), FILE_ABSENT);
    assert_int_equal(file_kind(in_folder("model.safetensors.index.json")), FILE_REGULAR);
    OK(checkpoint_open(&back, folder, &err));
    assert_int_equal(back->n_tensor, ck->n_tensor);
    for (size_t i = 0; i < ck->n_tensor; i++) {
        const struct tensor *t = checkpoint_find(back, ck->tensors[i].name);
        assert_memory_equal(t->data, ck->tensors[i].data, t->bytes);
    }
    checkpoint_close(back);
    OK(safetensors_write(folder, outs, ck->n_tensor, 0, &err));
    assert_int_equal(file_kind(in_folder("model.safetensors.index.json")), FILE_ABSENT);
    OK(checkpoint_open(&back, folder, &err));
    assert_int_equal(back->n_tensor, ck->n_tensor);
    checkpoint_close(back);
    free(outs);
    checkpoint_close(ck);
}

static void test_types_without_a_name_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct tensor_out q = {.name = STR("w"), .type = DT_Q4_0, .n_dim = 1, .shape = {32}};
    FAILS(ST_UNSUPPORTED, safetensors_write(folder, &q, 1, 0, &err));
    struct gguf_writer *w;
    OK(gguf_writer_create(&w, &err));
    struct tensor_out u = {.name = STR("w"), .type = DT_U8, .n_dim = 1, .shape = {32}};
    FAILS(ST_UNSUPPORTED, gguf_writer_commit(w, in_folder("x.gguf"), &u, 1, &err));
    q.shape[0] = 33;
    FAILS(ST_INVALID, gguf_writer_commit(w, in_folder("x.gguf"), &q, 1, &err));
    gguf_writer_destroy(w);
    assert_int_equal(entries_removed(), 0);
}

static enum status refuse(void *ctx, void *out, struct error *err)
{
    (void)ctx, (void)out;
    return fail(err, ST_CANCELED, "stopped");
}

static void test_a_failing_tensor_leaves_nothing(void **state)
{
    (void)state;
    struct error err;
    struct tensor_out t = {.name = STR("w"), .type = DT_F32, .n_dim = 1, .shape = {2}, .fill = refuse};
    FAILS(ST_CANCELED, safetensors_write(folder, &t, 1, 0, &err));
    struct gguf_writer *w;
    OK(gguf_writer_create(&w, &err));
    FAILS(ST_CANCELED, gguf_writer_commit(w, in_folder("x.gguf"), &t, 1, &err));
    gguf_writer_destroy(w);
    assert_int_equal(entries_removed(), 0);
}

/* Whatever call fails, the old file stays whole and no temporary file stays. */
static void test_every_failure_keeps_the_old_file(void **state)
{
    (void)state;
    static const enum fault_point points[] = {FAULT_ALLOC, FAULT_OPEN, FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME};
    struct error err;
    struct checkpoint *ck, *st;
    OK(checkpoint_open(&ck, TINY("tiny.gguf"), &err));
    OK(checkpoint_open(&st, TINY("state.safetensors"), &err));
    struct tensor_out *outs = outs_of(st);
    for (size_t p = 0; p < sizeof points / sizeof *points; p++)
        for (int kind = 0; kind < 3; kind++) /* GGUF, one safetensors file, shards */
            for (uint64_t n = 1;; n++) {
                OK(file_write_all(in_folder("copy.gguf"), STR("old"), &err));
                OK(file_write_all(in_folder("model.safetensors"), STR("old"), &err));
                fault_arm(points[p], n);
                enum status got = kind == 0 ? write_gguf_copy(ck, in_folder("copy.gguf"), &err)
                                            : safetensors_write(folder, outs, st->n_tensor, kind == 2 ? 60 : 0, &err);
                bool fired = fault_fired();
                fault_disarm();
                if (!fired) {
                    assert_int_equal(got, ST_OK);
                    entries_removed();
                    break;
                }
                assert_true(got != ST_OK);
                struct buf b = {0};
                OK(file_read_all(&b, in_folder(kind ? "model.safetensors" : "copy.gguf"), 1 << 20, &err));
                /* after the rename the new file is there, and its folder's sync may still fail */
                if (strcmp(b.ptr, "old") != 0 && points[p] != FAULT_FSYNC && points[p] != FAULT_OPEN &&
                    points[p] != FAULT_ALLOC)
                    fail_msg("the old file is gone after failure %llu of point %zu", (unsigned long long)n, p);
                buf_free(&b);
                int left = entries_removed();
                assert_true(left <= (kind == 2 ? 12 : 2));
            }
    free(outs);
    checkpoint_close(st);
    checkpoint_close(ck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_gguf_comes_back_byte_for_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_safetensors_come_back_byte_for_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shards_and_back_to_one_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_types_without_a_name_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failing_tensor_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_failure_keeps_the_old_file, setup, teardown),
    };
    return RUN(tests);
}
