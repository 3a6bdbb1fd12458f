/* Every model and vocabulary file of the shared data opens, and holds what its neighbours say. */
#include "test.h"

#include "base/file.h"
#include "formats/formats.h"

static struct checkpoint *open_shared(const char *path)
{
    struct error err;
    struct checkpoint *ck;
    OK(checkpoint_open(&ck, path, &err));
    for (size_t i = 0; i < ck->n_tensor; i++) { /* every access in bounds: the sanitizers look on */
        const struct tensor *t = &ck->tensors[i];
        size_t block = (size_t)dtype_row(t->type)->block, n = (size_t)tensor_count(t);
        float first[256], last[256];
        if (n == 0)
            continue;
        dtype_to_f32(first, t->type, t->data, block);
        dtype_to_f32(last, t->type, (const uint8_t *)t->data + t->bytes - (size_t)dtype_row(t->type)->bytes, block);
        assert_ptr_equal(checkpoint_find(ck, t->name), t);
    }
    return ck;
}

static void test_stories_in_four_layouts_agree(void **state)
{
    (void)state;
    NEED(SHARED("data/models/stories260K/stories260K.gguf"));
    struct checkpoint *legacy = open_shared(SHARED("data/models/stories260K/stories260K.bin"));
    struct checkpoint *v1 = open_shared(SHARED("data/models/stories260K/stories260K-v1.bin"));
    struct checkpoint *v2 = open_shared(SHARED("data/models/stories260K/stories260K-q8.bin"));
    struct checkpoint *gguf = open_shared(SHARED("data/models/stories260K/stories260K.gguf"));
    assert_int_equal(legacy->kind, CHECKPOINT_LLAMA2C);
    assert_int_equal(gguf->kind, CHECKPOINT_GGUF);
    assert_int_equal(v1->llama2c.version, 1);
    assert_int_equal(v2->llama2c.version, 2);
    assert_int_equal(legacy->n_tensor, 9 * 5 + 2);
    assert_int_equal(v2->n_tensor, legacy->n_tensor);
    for (size_t i = 0; i < legacy->n_tensor; i++) {
        const struct tensor *a = &legacy->tensors[i], *b = checkpoint_find(v1, a->name),
                            *q = checkpoint_find(v2, a->name);
        assert_non_null(b);
        assert_non_null(q);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
        float most = 0, worst = 0;
        for (size_t j = 0; j < a->bytes / 4; j++) {
            float x, y;
            memcpy(&x, (const char *)a->data + 4 * j, 4);
            memcpy(&y, (const char *)q->data + 4 * j, 4);
            most = x > most ? x : -x > most ? -x : most;
            worst = x - y > worst ? x - y : y - x > worst ? y - x : worst;
        }
        assert_true(worst <= most / 127);
    }
    assert_int_equal(gguf_int(gguf->gguf, "llama.embedding_length", 0), 64);
    assert_int_equal(gguf_int(gguf->gguf, "llama.block_count", 0), 5);
    const struct gguf_value *tokens = gguf_find(gguf->gguf, "tokenizer.ggml.tokens");
    assert_int_equal(tokens->count, 512);
    assert_true(str_is(tokens->strings[1], "\n<s>\n") || tokens->strings[1].len > 0);
    const struct tensor *e = checkpoint_find(gguf, STR("token_embd.weight"));
    assert_int_equal(e->shape[0], 512);
    assert_int_equal(e->shape[1], 64);
    assert_memory_equal(e->data, checkpoint_find(legacy, STR("tok_embeddings.weight"))->data, e->bytes);
    checkpoint_close(legacy);
    checkpoint_close(v1);
    checkpoint_close(v2);
    checkpoint_close(gguf);
}

static void test_hugging_face_folders(void **state)
{
    (void)state;
    NEED(SHARED("data/models/tinystories-656k/model.safetensors"));
    struct checkpoint *ck = open_shared(SHARED("data/models/tinystories-656k"));
    assert_int_equal(ck->kind, CHECKPOINT_HF);
    assert_non_null(json_get(ck->config, "hidden_size"));
    assert_true(ck->n_tensor > 10);
    assert_int_equal(ck->file_bytes, 2626168);
    checkpoint_close(ck);
    ck = open_shared(SHARED("data/models/tinystories-656k/model.safetensors")); /* the file finds the folder's config */
    assert_non_null(json_get(ck->config, "hidden_size"));
    checkpoint_close(ck);
    checkpoint_close(open_shared(SHARED("data/models/char-gpt-shakespeare")));
    checkpoint_close(open_shared(SHARED("data/models/retsim-v1")));
    checkpoint_close(open_shared(SHARED("data/models/lora-gpt2-clm"))); /* adapter_model.safetensors */
    checkpoint_close(open_shared(SHARED("data/models/lora-bert-cls")));
    checkpoint_close(open_shared(SHARED("data/models/llama-2-tiny-random"))); /* a folder with one GGUF file */
}

static void test_a_pytorch_checkpoint(void **state)
{
    (void)state;
    NEED(SHARED("data/models/slm4096-pt/ckpt.pt"));
    struct checkpoint *ck = open_shared(SHARED("data/models/slm4096-pt/ckpt.pt"));
    assert_int_equal(ck->kind, CHECKPOINT_TORCH);
    const struct tensor *t = checkpoint_find(ck, STR("tok_emb.weight"));
    assert_int_equal(t->shape[0], 54);
    assert_int_equal(t->shape[1], 64);
    assert_int_equal(json_int(json_get(ck->config, "n_params"), 0), 211712);
    assert_int_equal(json_int(json_get(ck->config, "corpus_bytes"), 0), 4096);
    checkpoint_close(ck);
}

static enum status open_vocabulary(void *ctx, const char *name, struct error *error)
{
    struct error err;
    char path[512];
    (void)error;
    if (!str_ends(str_of(name), STR(".gguf")))
        return ST_OK;
    snprintf(path, sizeof path, "%s/%s", SHARED("data/tokenizers/ggml-vocab"), name);
    struct checkpoint *ck;
    OK(checkpoint_open(&ck, path, &err));
    assert_int_equal(ck->n_tensor, 0);
    assert_true(gguf_string(ck->gguf, "tokenizer.ggml.model").len > 0);
    assert_true(gguf_find(ck->gguf, "tokenizer.ggml.tokens")->count > 1000);
    checkpoint_close(ck);
    ++*(int *)ctx;
    return ST_OK;
}

static void test_ggml_vocabularies(void **state)
{
    (void)state;
    struct error err;
    NEED(SHARED("data/tokenizers/ggml-vocab"));
    int n = 0;
    OK(file_each(SHARED("data/tokenizers/ggml-vocab"), open_vocabulary, &n, &err));
    assert_true(n >= 5);
}

static void test_others_are_refused_by_name(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    NEED(SHARED("data/models/tiny-rwkv/tiny-rwkv-4v0-660K-FP32.bin"));
    FAILS(ST_UNSUPPORTED, checkpoint_open(&ck, SHARED("data/models/tiny-rwkv/tiny-rwkv-4v0-660K-FP32.bin"), &err));
    assert_non_null(strstr(err.text, "RWKV"));
    FAILS(ST_CORRUPT, checkpoint_open(&ck, SHARED("data/models/gpt-nano-sort/gpt-nano-sort-model.json"), &err));
    FAILS(ST_NOT_FOUND, checkpoint_open(&ck, SHARED("data/models/gpt-nano-sort"), &err));
    FAILS(ST_NOT_FOUND, checkpoint_open(&ck, "/no/such/model", &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories_in_four_layouts_agree), cmocka_unit_test(test_hugging_face_folders),
        cmocka_unit_test(test_a_pytorch_checkpoint),          cmocka_unit_test(test_ggml_vocabularies),
        cmocka_unit_test(test_others_are_refused_by_name),
    };
    return RUN(tests);
}
