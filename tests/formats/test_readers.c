/* What the readers say of files written by the official packages. */
#include "tiny.h"

static struct checkpoint *open_tiny(const char *name)
{
    struct error err;
    struct checkpoint *ck;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", GOLDEN("formats"), name);
    OK(checkpoint_open(&ck, path, &err));
    return ck;
}

static void holds_all_of(const struct checkpoint *ck, const struct checkpoint *other)
{
    for (size_t i = 0; i < other->n_tensor; i++) {
        const struct tensor *a = &other->tensors[i], *b = checkpoint_find(ck, a->name);
        assert_non_null(b);
        assert_int_equal(a->type, b->type);
        assert_int_equal(a->n_dim, b->n_dim);
        assert_memory_equal(a->shape, b->shape, (size_t)a->n_dim * sizeof *a->shape);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
}

static void test_pytorch_files_hold_what_safetensors_holds(void **state)
{
    (void)state;
    struct checkpoint *st = open_tiny("state.safetensors");
    assert_int_equal(st->kind, CHECKPOINT_HF);
    assert_int_equal(st->n_tensor, 7);
    assert_null(st->config);
    const struct tensor *scalar = checkpoint_find(st, STR("scalar"));
    assert_int_equal(scalar->n_dim, 0);
    assert_int_equal(scalar->type, DT_F64);
    static const char *const names[] = {"flat.pt", "deflated.pt", "tree.pt"};
    for (int i = 0; i < 3; i++) {
        struct checkpoint *pt = open_tiny(names[i]);
        assert_int_equal(pt->kind, CHECKPOINT_TORCH);
        holds_all_of(pt, st);
        if (i < 2)
            assert_int_equal(pt->n_tensor, 7);
        checkpoint_close(pt);
    }
    checkpoint_close(st);
}

static void test_a_tree_becomes_names_and_json(void **state)
{
    (void)state;
    struct checkpoint *pt = open_tiny("tree.pt");
    static const struct {
        const char *name;
        float first;
        int64_t n;
    } expected[] = {
        {"param", 1, 2}, {"whole", 0, 6}, {"part", 2, 3}, {"again", 0, 6}, {"optimizer.state.0.exp_avg", 0, 2}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct tensor *t = checkpoint_find(pt, str_of(expected[i].name));
        assert_non_null(t);
        assert_int_equal(tensor_count(t), expected[i].n);
        float first;
        memcpy(&first, t->data, 4);
        assert_true(first == expected[i].first);
    }
    assert_ptr_equal((const char *)checkpoint_find(pt, STR("part"))->data,
                     (const char *)checkpoint_find(pt, STR("whole"))->data + 8);
    struct buf b = {0};
    struct json_writer w;
    json_writer_init(&w, &b);
    json_write_value(&w, json_get(pt->config, "config"));
    assert_string_equal(b.ptr, "{\"n_layer\":4,\"rate\":0.25,\"name\":\"tiny \u00fc\\\"\",\"tied\":true,\"none\":null,"
                               "\"big\":1099511627776,\"minus\":-7,\"shape\":[1,2],\"list\":[1,[2.5,\"x\"],{}],"
                               "\"size\":[3,4]}");
    buf_free(&b);
    const struct json *group = json_at(json_get(json_get(pt->config, "optimizer"), "param_groups"), 0);
    assert_true(json_real(json_get(group, "lr"), 0) == 1e-3);
    checkpoint_close(pt);
}

static void test_pickles_that_want_more_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    FAILS(ST_UNSUPPORTED, checkpoint_open(&ck, TINY("evil.pt"), &err));
    assert_non_null(strstr(err.text, "posix.system"));
    FAILS(ST_UNSUPPORTED, checkpoint_open(&ck, TINY("strided.pt"), &err));
    assert_non_null(strstr(err.text, "tensor t is not contiguous"));
}

static void test_gguf_values(void **state)
{
    (void)state;
    struct checkpoint *ck = open_tiny("tiny.gguf");
    const struct gguf *g = ck->gguf;
    static const char *const unsigneds[] = {"n.uint8", "n.uint16", "n.uint32", "n.uint64"};
    static const char *const signeds[] = {"n.int8", "n.int16", "n.int32", "n.int64"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(gguf_int(g, unsigneds[i], 0), 200);
        assert_int_equal(gguf_int(g, signeds[i], 0), -100);
        assert_true(gguf_real(g, signeds[i], 0) == -100);
    }
    assert_true(gguf_real(g, "n.float32", 0) == (double)0.1f);
    assert_true(gguf_real(g, "n.float64", 0) == 0.1);
    assert_int_equal(gguf_int(g, "n.float64", 5), 5);
    assert_true(gguf_bool(g, "n.yes", false));
    assert_true(gguf_bool(g, "absent", true));
    assert_true(str_is(gguf_string(g, "n.text"), "gr\u00fc\u00df"));
    assert_null(gguf_string(g, "n.yes").ptr);
    const struct gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    assert_int_equal(tokens->count, 3);
    assert_true(str_is(tokens->strings[0], "<unk>") && tokens->strings[1].len == 0);
    assert_true(str_is(tokens->strings[2], "\u2581the"));
    const struct gguf_value *ints = gguf_find(g, "a.ints"), *reals = gguf_find(g, "a.reals");
    assert_int_equal(gguf_int_at(ints, 1, 0), -2);
    assert_int_equal(gguf_int_at(ints, 3, 9), 9);
    assert_true(gguf_real_at(reals, 1, 0) == -1.5);
    const struct tensor *t = checkpoint_find(ck, STR("token_embd.weight"));
    assert_int_equal(t->shape[0], 3);
    assert_int_equal(t->shape[1], 4);
    assert_int_equal(checkpoint_find(ck, STR("q4_0"))->type, DT_Q4_0);
    assert_int_equal(checkpoint_find(ck, STR("q6_k"))->shape[0], 1);
    assert_int_equal(checkpoint_find(ck, STR("q6_k"))->shape[1], 256);
    checkpoint_close(ck);
}

static void test_gguf_versions(void **state)
{
    (void)state;
    struct error err;
    size_t size;
    uint8_t *bytes = tiny_load("tiny.gguf", &size);
    static const struct {
        uint8_t version[4];
        enum status st;
        const char *says;
    } cases[] = {{{2}, ST_OK, ""},
                 {{1}, ST_UNSUPPORTED, "version 1"},
                 {{4}, ST_UNSUPPORTED, "version 4"},
                 {{0, 0, 0, 3}, ST_UNSUPPORTED, "big-endian"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct checkpoint *ck;
        memcpy(bytes + 4, cases[i].version, 4);
        FAILS(cases[i].st, checkpoint_open_memory(&ck, bytes, size, &err));
        if (cases[i].st == ST_OK)
            assert_int_equal(ck->n_tensor, 4);
        else
            assert_non_null(strstr(err.text, cases[i].says));
        checkpoint_close(ck);
    }
    free(bytes);
}

static void test_llama2c_versions_agree(void **state)
{
    (void)state;
    struct checkpoint *legacy = open_tiny("legacy.bin"), *v1 = open_tiny("v1.bin"), *v2 = open_tiny("v2.bin");
    assert_false(legacy->llama2c.shared_output);
    assert_true(v1->llama2c.shared_output);
    assert_int_equal(legacy->llama2c.vocab, 6);
    assert_int_equal(v2->llama2c.group_size, 4);
    assert_int_equal(legacy->n_tensor, 9 * 2 + 3);
    assert_int_equal(v1->n_tensor, 9 * 2 + 2);
    holds_all_of(legacy, v1);
    holds_all_of(legacy, v2);
    holds_all_of(v2, legacy);
    assert_int_equal(checkpoint_find(v1, STR("layers.1.attention.wk.weight"))->shape[0], 4);
    checkpoint_close(legacy);
    checkpoint_close(v1);
    checkpoint_close(v2);
}

/* ---- folders ---- */

static char folder[64];

static void put(const char *name, const void *bytes, size_t n)
{
    struct error err;
    char path[128];
    OK(file_write_all(path_join(path, sizeof path, folder, name), str_n(bytes, n), &err));
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/ingot-formats-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static enum status remove_entry(void *ctx, const char *name, struct error *err)
{
    char path[128];
    (void)ctx;
    return file_remove(path_join(path, sizeof path, folder, name), err);
}

static void remove_folder(void)
{
    struct error err;
    OK(file_each(folder, remove_entry, NULL, &err));
    rmdir(folder);
}

/* A safetensors file with one u8 tensor of one value. */
static void put_shard(const char *file, const char *tensor, uint8_t value)
{
    char text[160];
    int n =
        snprintf(text + 8, sizeof text - 9, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", tensor);
    uint64_t len = (uint64_t)n;
    memcpy(text, &len, 8);
    text[8 + n] = (char)value;
    put(file, text, 9 + (size_t)n);
}

static void test_sharded_folders(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    make_folder();
    FAILS(ST_NOT_FOUND, checkpoint_open(&ck, folder, &err));
    put_shard("m-1.safetensors", "a", 1);
    put_shard("m-2.safetensors", "b", 2);
    const char *index = "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}";
    put("model.safetensors.index.json", index, strlen(index));
    put("config.json", "{\"model_type\":\"x\"}", 18);
    OK(checkpoint_open(&ck, folder, &err));
    assert_int_equal(ck->n_tensor, 2);
    assert_int_equal(*(const uint8_t *)checkpoint_find(ck, STR("b"))->data, 2);
    assert_true(str_is(json_str(json_get(ck->config, "model_type")), "x"));
    checkpoint_close(ck);

    static const struct {
        const char *index, *says;
        enum status st;
    } bad[] = {
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\"}}", "lists tensor a", ST_CORRUPT},
        {"{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", "m-3.safetensors", ST_NOT_FOUND},
        {"{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", "plain file", ST_CORRUPT},
        {"{\"weight_map\":{\"a\":7}}", "plain file", ST_CORRUPT},
        {"{\"weight_map\":[]}", "weight_map", ST_CORRUPT},
        {"{\"weight_map\":", "line 1", ST_CORRUPT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put("model.safetensors.index.json", bad[i].index, strlen(bad[i].index));
        FAILS(bad[i].st, checkpoint_open(&ck, folder, &err));
        assert_non_null(strstr(err.text, bad[i].says));
    }
    put_shard("m-2.safetensors", "a", 2);
    put("model.safetensors.index.json", index, strlen(index));
    FAILS(ST_CORRUPT, checkpoint_open(&ck, folder, &err));
    assert_non_null(strstr(err.text, "occurs twice"));
    remove_folder();
}

static void test_pytorch_folder_and_index(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    size_t size;
    uint8_t *bytes = tiny_load("flat.pt", &size);
    make_folder();
    put("pytorch_model-00001-of-00001.bin", bytes, size);
    const char *index = "{\"weight_map\":{\"half\":\"pytorch_model-00001-of-00001.bin\"}}";
    put("pytorch_model.bin.index.json", index, strlen(index));
    put("config.json", "{\"model_type\":\"x\"}", 18);
    OK(checkpoint_open(&ck, folder, &err));
    assert_int_equal(ck->kind, CHECKPOINT_HF);
    assert_int_equal(ck->n_tensor, 7);
    assert_non_null(json_get(ck->config, "model_type"));
    checkpoint_close(ck);
    remove_folder();
    make_folder();
    put("pytorch_model.bin", bytes, size);
    OK(checkpoint_open(&ck, folder, &err));
    assert_int_equal(ck->n_tensor, 7);
    checkpoint_close(ck);
    remove_folder();
    free(bytes);
}

static void test_other_files_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *says;
    } cases[] = {{"version https://git-lfs.github.com/spec/v1\n", "Git LFS"},
                 {"<!DOCTYPE html>", "web page"},
                 {"\x80\x02}q\x01.", "pickle without a zip"},
                 {"\x1f\x8b\x08", "gzip"},
                 {"hello", "68 65 6c 6c 6f"},
                 {"", "empty"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err;
        struct checkpoint *ck;
        assert_true(checkpoint_open_memory(&ck, cases[i].bytes, strlen(cases[i].bytes), &err) != ST_OK);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
    }
}

/* ---- GGUF tensors of other types, of rows that hold no whole blocks, at odd places ---- */
static void put_text(struct buf *b, const char *text)
{
    uint64_t n = strlen(text);
    buf_append(b, &n, 8);
    buf_append_str(b, str_of(text));
}

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, 4);
}

/* One tensor "blk.7.ffn_up.weight" [2, row] with its first byte `offset` into the data. */
static void one_tensor(struct buf *b, uint32_t type, uint64_t row, uint32_t alignment, uint64_t offset, size_t data)
{
    uint64_t counts[2] = {1, 1}, dims[2] = {row, 2};
    buf_append_str(b, STR("GGUF"));
    put_u32(b, 3);
    buf_append(b, counts, sizeof counts);
    put_text(b, "general.alignment");
    put_u32(b, GGUF_U32);
    put_u32(b, alignment);
    put_text(b, "blk.7.ffn_up.weight");
    put_u32(b, 2);
    buf_append(b, dims, sizeof dims);
    put_u32(b, type);
    buf_append(b, &offset, 8);
    while (b->len % alignment)
        buf_append_char(b, 0);
    for (size_t i = 0; i < offset + data; i++)
        buf_append_char(b, (char)(i * 37 % 61));
}

static void check_tensor(enum status want, uint32_t type, uint64_t row, uint32_t alignment, uint64_t offset,
                         const char *says)
{
    struct error err;
    struct checkpoint *ck;
    struct buf b = {0};
    one_tensor(&b, type, row, alignment, offset, 4096);
    enum status st = checkpoint_open_memory(&ck, b.ptr, b.len, &err);
    if (st != want || !strstr(err.text, "tensor blk.7.ffn_up.weight") || !strstr(err.text, says))
        fail_msg("type %u, row %d: \"%s\" does not name the tensor and say \"%s\"", type, (int)row, err.text, says);
    checkpoint_close(ck);
    buf_free(&b);
}

static void test_types_that_are_not_read_are_named(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        const char *name;
    } types[] = {{16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
                 {21, "IQ3_S"},   {22, "IQ2_S"},  {29, "IQ1_M"},   {34, "TQ1_0"},
                 {35, "TQ2_0"},   {4, "4"},       {99, "99"},      {0xffffffff, "4294967295"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        check_tensor(ST_UNSUPPORTED, types[i].type, 256, 32, 0, types[i].name);
}

static void test_rows_without_whole_blocks_are_named(void **state)
{
    (void)state;
    static const uint32_t small[] = {2, 3, 6, 7, 8, 20, 39}, large[] = {10, 11, 12, 13, 14, 23};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        for (uint64_t row = 31; row < 97; row += row % 32 == 31 ? 2 : 30)
            check_tensor(ST_CORRUPT, small[i], row, 32, 0, "multiples of 32");
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        for (uint64_t row = 32; row < 512; row += row == 224 ? 64 : 32)
            check_tensor(ST_CORRUPT, large[i], row, 32, 0, "multiples of 256");
}

static void test_tensors_at_odd_places(void **state)
{
    (void)state;
    enum { BYTES = 2 * 64 / 32 * 34 };
    float aligned[128], odd[128];
    check_tensor(ST_CORRUPT, 8, 64, 32, 1, "no multiple of 32");
    for (uint64_t offset = 0; offset < 9; offset++) {
        struct error err;
        struct checkpoint *ck;
        struct buf b = {0};
        one_tensor(&b, 8, 64, 1, offset, BYTES);
        for (size_t i = 0; i < BYTES; i++) /* the same numbers, wherever they lie */
            b.ptr[b.len - BYTES + i] = (char)(i * 37 % 61);
        OK(checkpoint_open_memory(&ck, b.ptr, b.len, &err));
        dtype_to_f32(offset ? odd : aligned, DT_Q8_0, ck->tensors[0].data, 128);
        if (offset)
            assert_memory_equal(aligned, odd, sizeof odd);
        checkpoint_close(ck);
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pytorch_files_hold_what_safetensors_holds),
        cmocka_unit_test(test_a_tree_becomes_names_and_json),
        cmocka_unit_test(test_pickles_that_want_more_are_refused),
        cmocka_unit_test(test_gguf_values),
        cmocka_unit_test(test_gguf_versions),
        cmocka_unit_test(test_llama2c_versions_agree),
        cmocka_unit_test(test_sharded_folders),
        cmocka_unit_test(test_pytorch_folder_and_index),
        cmocka_unit_test(test_other_files_are_named),
        cmocka_unit_test(test_types_that_are_not_read_are_named),
        cmocka_unit_test(test_rows_without_whole_blocks_are_named),
        cmocka_unit_test(test_tensors_at_odd_places),
    };
    return RUN(tests);
}
