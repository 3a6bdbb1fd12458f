/* A draft model as an executor: the rows it gives are its model's, cut or padded to the target's width; what has other
 * tokens is refused, with the place. */
#include "test.h"

#include "base/fault.h"
#include "base/mem.h"
#include "engine/draft_model.h"
#include "kernels/kernels.h"

enum { OWN = 64, WIDEST = 80, IDS = 5, BLOCKS = 2 }; /* OWN: the golden model's vocabulary */
static struct error err;
static struct bundle *small;

static int set_up(void **state)
{
    (void)state;
    struct model_options options = {.kv = KV_F32};
    OK(kernels_init(NULL, &err));
    OK(bundle_open(&small, GOLDEN("lora/qwen2"), &options, &err));
    assert_int_equal(model_config(small->model)->n_vocab, OWN);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    bundle_close(small);
    return 0;
}

static struct model_batch batch_of(const int32_t *ids, struct attend_span *span)
{
    static const int32_t block;
    static const int32_t wanted[] = {1, IDS - 1};
    *span = (struct attend_span){.n_row = IDS, .blocks = &block};
    return (struct model_batch){
        .n_row = IDS, .ids = ids, .spans = span, .n_span = 1, .logit_rows = wanted, .n_logit = 2};
}

static void own_rows(real *out, const int32_t *ids)
{
    struct attend_span span;
    struct model_batch b = batch_of(ids, &span);
    struct model_run *run;
    void *kv = mem_alloc_aligned(BLOCKS * model_kv_block_bytes(small->model));
    OK(model_run_create(&run, small->model, IDS, 2, kv, BLOCKS, NULL, &err));
    model_forward(run, &b, out);
    model_run_free(run);
    mem_free(kv);
}

static void check_width(int n_target)
{
    static const int32_t plain[IDS] = {3, 60, 7, 0, 33}, padding[IDS] = {3, 60, 7, OWN + 1, 33};
    const struct executor target = {.n_vocab = n_target, .n_block = BLOCKS, .n_ctx = 999};
    real want[2 * OWN], got[2 * WIDEST];
    struct attend_span span;
    struct model_batch b = batch_of(n_target > OWN ? padding : plain, &span);
    struct draft_model *m;
    own_rows(want, plain); /* an id that only the target has counts as 0 */
    OK(draft_model_create(&m, small, &target, NULL, 2, &err));
    assert_int_equal(m->x.n_vocab, n_target);
    assert_int_equal(m->x.n_ctx, model_config(small->model)->n_ctx);
    m->x.forward(m->x.ctx, &b, got);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < n_target; j++)
            if (j < OWN ? memcmp(&got[i * n_target + j], &want[i * OWN + j], sizeof(real)) != 0
                        : got[i * n_target + j] > -(real)1e29)
                fail_msg("width %d: logit %d of row %d is %g", n_target, j, i, (double)got[i * n_target + j]);
    draft_model_destroy(m);
}

static void test_draft_model_rows_have_the_targets_width(void **state)
{
    (void)state;
    check_width(OWN);
    check_width(OWN - 9); /* the draft model's table is the wider one */
    check_width(WIDEST);
}

/* `n` characters from `first` on, each a token. */
static struct tokenizer *tokenizer_of(int first, int n)
{
    char path[] = "/tmp/ingot-draft-XXXXXX.json";
    struct tokenizer *t;
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    fprintf(f, "{\"added_tokens\": [], \"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {");
    for (int i = 0; i < n; i++)
        fprintf(f, "%s\"%c\": %d", i ? ", " : "", first + i, i);
    fprintf(f, "}}}");
    fclose(f);
    enum status st = tokenizer_open(&t, path, &err);
    unlink(path);
    OK(st);
    return t;
}

static void test_draft_model_wants_the_same_vocabulary(void **state)
{
    (void)state;
    const struct executor target = {.n_vocab = OWN, .n_block = BLOCKS};
    struct tokenizer *letters = tokenizer_of('a', 20), *fewer = tokenizer_of('a', 19), *others = tokenizer_of('b', 20);
    struct bundle b = *small;
    struct draft_model *m;
    FAILS(ST_INVALID, draft_model_create(&m, &b, &target, letters, 1, &err));
    assert_non_null(strstr(err.text, "one of the two has no tokenizer"));
    b.tokenizer = letters;
    FAILS(ST_INVALID, draft_model_create(&m, &b, &target, NULL, 1, &err));
    FAILS(ST_INVALID, draft_model_create(&m, &b, &target, others, 1, &err));
    assert_non_null(strstr(err.text, "its token 0 is not the model's"));
    FAILS(ST_INVALID, draft_model_create(&m, &b, &target, fewer, 1, &err));
    assert_non_null(strstr(err.text, "20 tokens, the model has 19"));
    OK(draft_model_create(&m, &b, &target, letters, 1, &err));
    draft_model_destroy(m);
    tokenizer_close(letters), tokenizer_close(fewer), tokenizer_close(others);
}

static void test_draft_model_survives_allocation_failures(void **state)
{
    (void)state;
    const struct executor target = {.n_vocab = OWN - 1, .n_block = BLOCKS};
    bool fired = true;
    int n = 0;
    while (fired) {
        struct draft_model *m;
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = draft_model_create(&m, small, &target, NULL, 1, &err);
        fired = fault_fired();
        fault_disarm();
        assert_int_equal(st, fired ? ST_NOMEM : ST_OK);
        if (st == ST_OK)
            draft_model_destroy(m);
        else
            assert_null(m);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_draft_model_rows_have_the_targets_width),
                                       cmocka_unit_test(test_draft_model_wants_the_same_vocabulary),
                                       cmocka_unit_test(test_draft_model_survives_allocation_failures)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
