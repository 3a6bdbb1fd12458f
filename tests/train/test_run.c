/* Whole runs: interrupted and resumed ones end in the same bits, whatever failed or was killed in between. */
#include "train_test.h"

#include "base/fault.h"

#include <signal.h>
#include <sys/wait.h>

static char root[64];

/* ---- files ---- */

static void remove_tree(const char *path);

static enum status remove_entry(void *ctx, const char *name, struct error *err)
{
    char path[512];
    (void)err;
    path_join(path, sizeof path, ctx, name);
    remove_tree(path);
    return ST_OK;
}

static void remove_tree(const char *path)
{
    struct error err;
    if (file_kind(path) == FILE_FOLDER) {
        OK(file_each(path, remove_entry, (void *)(uintptr_t)path, &err));
        rmdir(path);
    } else
        unlink(path);
}

static char *in_root(char path[512], const char *name)
{
    return path_join(path, 512, root, name);
}

static struct buf bytes_of(const char *folder, const char *name)
{
    struct error err;
    struct buf b = {0};
    char path[512], whole[512];
    in_root(path, folder);
    OK(file_read_all(&b, path_join(whole, sizeof whole, path, name), 1 << 24, &err));
    return b;
}

static bool same_file(const char *folder_a, const char *folder_b, const char *name)
{
    struct buf a = bytes_of(folder_a, name), b = bytes_of(folder_b, name);
    bool same = a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
    buf_free(&a);
    buf_free(&b);
    return same;
}

static int setup(void **state)
{
    (void)state;
    struct error err;
    char path[512];
    struct buf text = {0};
    strcpy(root, access("/dev/shm", W_OK) == 0 ? "/dev/shm/ingot-train-XXXXXX" : "/tmp/ingot-train-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    for (int i = 0; i < 40; i++)
        buf_printf(&text, "the cat sat on the %s and then the %s sat there too. ", i % 3 ? "mat" : "hat",
                   i % 4 ? "dog" : "bird");
    int rc = file_write_all(in_root(path, "text"), buf_str(&text), &err) ||
             file_write_all(in_root(path, "other"), STR("something else was written here, much longer than a window."),
                            &err);
    buf_free(&text);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    fault_disarm(); /* of a test that failed */
    remove_tree(root);
    return 0;
}

/* ---- runs ---- */

enum { LAST = 9 };

static struct train_config config_of(const char *folder, const char *more)
{
    struct error err;
    struct train_config c;
    char text[1024], extra[700];
    OK(train_config_init(&c, &err));
    snprintf(text, sizeof text,
             "{model: %s, data: %s/text, eval_data: %s/text, output_dir: %s/%s, block_size: 12, eval_windows: 3, "
             "per_device_train_batch_size: 2, gradient_accumulation_steps: 2, max_steps: %d, warmup_steps: 2, "
             "learning_rate: 0.01, weight_decay: 0.1, save_steps: 3, save_total_limit: 5, logging_steps: 1, "
             "eval_steps: 4, threads: 1}",
             GOLDEN("train/tiny"), root, root, root, folder, LAST);
    OK(train_config_read(&c, str_of(text), &err));
    snprintf(extra, sizeof extra, "{%s}", more);
    OK(train_config_read(&c, str_of(extra), &err));
    return c;
}

struct stopper {
    int64_t at;
    volatile int stop;
    int steps;
};

static void stop_at(void *ctx, const struct train_progress *p)
{
    struct stopper *s = ctx;
    s->steps++;
    if (p->step == s->at)
        s->stop = 1;
}

static struct {
    enum fault_point point;
    uint64_t nth; /* 0: none */
    bool fired;
} fault;

static enum status run_until(const char *folder, const char *more, int64_t stop, struct error *err)
{
    struct train_config c = config_of(folder, more);
    struct stopper stopper = {.at = stop};
    struct train_watch watch = {.ctx = &stopper, .on_step = stop_at, .stop = &stopper.stop};
    if (fault.nth)
        fault_arm(fault.point, fault.nth);
    enum status st = train_run(&c, &watch, err);
    fault.fired = fault.nth && fault_fired();
    fault_disarm();
    train_config_free(&c);
    return st;
}

static void reference_run(void)
{
    struct error err;
    char path[512];
    if (file_kind(in_root(path, "whole/model.safetensors")) == FILE_ABSENT)
        OK(run_until("whole", "", 0, &err));
}

static bool ended_as_the_whole_run(const char *folder)
{
    char a[64], b[64];
    snprintf(a, sizeof a, "whole/checkpoint-%d", LAST);
    snprintf(b, sizeof b, "%s/checkpoint-%d", folder, LAST);
    return same_file("whole", folder, "model.safetensors") && same_file(a, b, "model.safetensors") &&
           same_file(a, b, "optimizer/model.safetensors");
}

static void test_a_run_leaves_what_it_says(void **state)
{
    (void)state;
    struct error err;
    char path[512];
    reference_run();
    static const char *const files[] = {"config.json",
                                        "model.safetensors",
                                        "tokenizer.json",
                                        "metrics.jsonl",
                                        "tokenizer_config.json",
                                        "checkpoint-3/state.json",
                                        "checkpoint-6/state.json",
                                        "checkpoint-9/optimizer/model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char name[128];
        snprintf(name, sizeof name, "whole/%s", files[i]);
        if (file_kind(in_root(path, name)) != FILE_REGULAR)
            fail_msg("%s is missing", files[i]);
    }
    struct buf metrics = bytes_of("whole", "metrics.jsonl");
    struct str rest = buf_str(&metrics), line;
    struct arena a;
    arena_init(&a, 0);
    double first = 0, last = 0;
    for (int step = 1; (line = str_next_line(&rest)).ptr; step++) {
        const struct json *v;
        OK(json_parse(&v, &a, line, JSON_UNIQUE, &err));
        assert_int_equal(json_int(json_get(v, "step"), 0), step);
        assert_int_equal(json_int(json_get(v, "tokens"), 0), step * 48);
        static const char *const fields[] = {"epoch", "loss", "grad_norm", "learning_rate", "tokens_per_s", "time_s"};
        for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
            assert_true(json_real(json_get(v, fields[f]), -1) >= 0);
        assert_true((json_get(v, "eval_loss") != NULL) == (step == 4 || step == 8 || step == LAST));
        last = json_real(json_get(v, "loss"), 0);
        first = step == 1 ? last : first;
    }
    assert_true(first > 3 && last < first - 0.5); /* it learns */
    arena_free(&a);
    buf_free(&metrics);
}

static void test_a_resumed_run_ends_in_the_same_bits(void **state)
{
    (void)state;
    struct error err;
    reference_run();
    for (int stop = 1; stop < LAST; stop += 3) {
        char folder[32];
        snprintf(folder, sizeof folder, "stopped-%d", stop);
        FAILS(ST_CANCELED, run_until(folder, "", stop, &err));
        FAILS(ST_INVALID, run_until(folder, "", 0, &err)); /* not by accident */
        assert_non_null(strstr(err.text, "resume_from_checkpoint"));
        OK(run_until(folder, "resume_from_checkpoint: true", 0, &err));
        assert_true(ended_as_the_whole_run(folder));
    }
    /* Each update is logged once, also those made twice. */
    char path[512], from[600];
    OK(run_until("again", "", 0, &err));
    in_root(path, "again");
    snprintf(from, sizeof from, "resume_from_checkpoint: %s/checkpoint-3", path);
    OK(run_until("again", from, 0, &err));
    assert_true(ended_as_the_whole_run("again"));
    struct buf metrics = bytes_of("again", "metrics.jsonl");
    int lines = 0;
    for (size_t i = 0; i < metrics.len; i++)
        lines += metrics.ptr[i] == '\n';
    buf_free(&metrics);
    assert_int_equal(lines, LAST);
}

/* Mutation: a resume that loses its moments, or its place in the data, must not end in the same bits. */
static void test_a_resume_without_its_state_is_noticed(void **state)
{
    (void)state;
    struct error err;
    char path[512];
    reference_run();
    for (int what = 0; what < 2; what++) {
        const char *folder = what ? "lost-place" : "lost-moments";
        FAILS(ST_CANCELED, run_until(folder, "", 4, &err));
        char sub[128];
        snprintf(sub, sizeof sub, "%s/checkpoint-4", folder);
        struct buf b = bytes_of(sub, what ? "state.json" : "optimizer/model.safetensors");
        if (what) {
            char *at = strstr(b.ptr, "\"window\":");
            assert_non_null(at);
            at = strpbrk(at, ",") - 1; /* the last digit */
            *at = *at == '1' ? '2' : '1';
        } else
            memset(b.ptr + b.len - 400, 0, 400);
        snprintf(sub, sizeof sub, "%s/checkpoint-4/%s", folder, what ? "state.json" : "optimizer/model.safetensors");
        OK(file_write_all(in_root(path, sub), buf_str(&b), &err));
        buf_free(&b);
        OK(run_until(folder, "resume_from_checkpoint: true", 0, &err));
        assert_false(ended_as_the_whole_run(folder));
    }
}

static void test_threads_and_splits_end_in_the_same_bits(void **state)
{
    (void)state;
    struct error err;
    reference_run();
    OK(run_until("threads", "threads: 2", 0, &err));
    assert_true(ended_as_the_whole_run("threads"));
    OK(run_until("split", "per_device_train_batch_size: 1, gradient_accumulation_steps: 4", 0, &err));
    assert_true(ended_as_the_whole_run("split"));
    OK(run_until("seed", "seed: 43", 0, &err)); /* mutation: another order of the data */
    assert_false(ended_as_the_whole_run("seed"));
}

static void test_what_cannot_go_on_is_refused(void **state)
{
    (void)state;
    struct error err;
    char more[600], path[512];
    reference_run();
    snprintf(more, sizeof more, "resume_from_checkpoint: true, data: %s/other", root);
    FAILS(ST_INVALID, run_until("whole", more, 0, &err));
    assert_non_null(strstr(err.text, "other data"));
    FAILS(ST_NOT_FOUND, run_until("nothing", "resume_from_checkpoint: true", 0, &err));
    FAILS(ST_INVALID, run_until("long", "block_size: 64", 0, &err));
    assert_non_null(strstr(err.text, "max_position_embeddings"));
    FAILS(ST_NOT_FOUND, run_until("no-model", "model: /no/such/model", 0, &err));
    OK(file_make_folders(in_root(path, "broken"), &err));
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"};
    for (int i = 0; i < 4; i++) {
        struct buf b = {0};
        char from[512], to[512];
        OK(file_read_all(&b, path_join(from, sizeof from, GOLDEN("train/tiny"), files[i]), 1 << 20, &err));
        if (i == 3)
            memset(b.ptr + b.len - 4, 0xff, 4); /* not a number */
        OK(file_write_all(path_join(to, sizeof to, path, files[i]), buf_str(&b), &err));
        buf_free(&b);
    }
    snprintf(more, sizeof more, "model: %s", path);
    FAILS(ST_INVALID, run_until("nan", more, 0, &err));
    assert_non_null(strstr(err.text, "not a number"));
}

static void test_starting_anew_forgets_the_old_run(void **state)
{
    (void)state;
    struct error err;
    char path[512];
    OK(run_until("anew", "max_steps: 12", 0, &err));
    assert_int_equal(file_kind(in_root(path, "anew/checkpoint-12")), FILE_FOLDER);
    OK(run_until("anew", "overwrite_output_dir: true", 0, &err));
    assert_int_equal(file_kind(in_root(path, "anew/checkpoint-12")), FILE_ABSENT);
    reference_run();
    assert_true(ended_as_the_whole_run("anew"));
}

static void test_old_checkpoints_are_removed(void **state)
{
    (void)state;
    struct error err;
    char path[512];
    OK(run_until("rotate", "save_steps: 1, save_total_limit: 2", 0, &err));
    assert_int_equal(file_kind(in_root(path, "rotate/checkpoint-7")), FILE_ABSENT);
    assert_int_equal(file_kind(in_root(path, "rotate/checkpoint-8")), FILE_FOLDER);
    assert_int_equal(file_kind(in_root(path, "rotate/checkpoint-9")), FILE_FOLDER);
}

/* ---- the written folder ---- */

static void test_the_written_folder_gives_the_trainers_logits(void **state)
{
    (void)state;
    struct error err;
    struct golden g;
    char folder[512], narrow[512];
    golden_open(&g);
    struct model *m = tiny_model(GOLDEN("train/tiny"), true, NULL);
    struct trainer *t = tiny_trainer(m, WINDOWS, NULL);
    for (int s = 0; s < 3; s++)
        tiny_update(t, g.windows[s], WINDOWS, WINDOWS, 1e-2, s + 1, NULL);
    trainer_evaluate(t, g.windows[3], WINDOWS); /* leaves the logits */
    OK(model_write_hf(m, in_root(folder, "written"), DT_F32, &err));
    OK(model_write_hf(m, in_root(narrow, "narrow"), DT_BF16, &err));
    for (int mutated = 0; mutated < 2; mutated++) {
        struct model *served = tiny_model(mutated ? narrow : folder, false, NULL);
        void *kv = mem_alloc_aligned(WINDOWS * model_kv_block_bytes(served));
        struct model_run *run;
        OK(model_run_create(&run, served, 7, 7, kv, WINDOWS, NULL, &err));
        bool same = true;
        for (int w = 0; w < WINDOWS; w++)
            for (int at = 0; at < BLOCK; at += 5) { /* chunks, as a server would */
                real logits[7 * VOCAB];
                int n = BLOCK - at < 5 ? BLOCK - at : 5;
                struct attend_span span = {0, n, at, (int32_t[]){w}};
                struct model_batch batch = {
                    .n_row = n, .ids = g.windows[3] + w * (BLOCK + 1) + at, .spans = &span, .n_span = 1, .n_logit = n};
                model_forward(run, &batch, logits);
                same = same && memcmp(logits, t->logits + (size_t)(w * BLOCK + at) * VOCAB,
                                      (size_t)n * VOCAB * sizeof *logits) == 0;
            }
        assert_int_equal(same, !mutated); /* mutation: weights rounded to bf16 on the way */
        model_run_free(run);
        model_free(served);
        mem_free(kv);
    }
    trainer_free(t);
    model_free(m);
    checkpoint_close(g.ck);
}

/* ---- failures and kills ---- */

static void test_after_any_failure_a_resume_ends_in_the_same_bits(void **state)
{
    (void)state;
    static const enum fault_point points[] = {FAULT_OPEN, FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME, FAULT_ALLOC};
    char path[512];
    reference_run();
    int failures = 0;
    for (size_t p = 0; p < sizeof points / sizeof *points; p++)
        for (uint64_t n = 1;; n += n / 4 + (points[p] == FAULT_ALLOC ? 7 : 1)) {
            struct error err = {0};
            remove_tree(in_root(path, "faulty"));
            fault.point = points[p];
            fault.nth = n;
            enum status st = run_until("faulty", "save_steps: 2", 0, &err);
            fault.nth = 0;
            if (!fault.fired) {
                assert_int_equal(st, ST_OK);
                break;
            }
            assert_true(st != ST_OK && err.text[0]);
            failures++;
            st = run_until("faulty", "save_steps: 2, resume_from_checkpoint: true", 0, &err);
            if (st == ST_NOT_FOUND) /* it failed before the first checkpoint */
                st = run_until("faulty", "save_steps: 2, overwrite_output_dir: true", 0, &err);
            if (st != ST_OK || !ended_as_the_whole_run("faulty"))
                fail_msg("failure %llu of point %zu: %s", (unsigned long long)n, p, err.text);
        }
    print_message("%d failures, each followed by a resume\n", failures);
    assert_true(failures > 30);
}

static void test_after_kill_a_resume_ends_in_the_same_bits(void **state)
{
    (void)state;
    char path[512];
    struct error err;
    reference_run();
    int killed = 0;
    for (int round = 0; round < 12; round++) {
        remove_tree(in_root(path, "killed"));
        pid_t child = fork();
        if (child == 0) {
            _exit(run_until("killed", "save_steps: 1", 0, &err) == ST_OK ? 0 : 1);
        }
        usleep((useconds_t)(500 + 2000 * round));
        kill(child, SIGKILL);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        killed += WIFSIGNALED(how);
        enum status st = run_until("killed", "save_steps: 1, resume_from_checkpoint: true", 0, &err);
        if (st == ST_NOT_FOUND)
            st = run_until("killed", "save_steps: 1", 0, &err);
        if (st != ST_OK)
            fail_msg("round %d: %s", round, err.text);
        assert_true(ended_as_the_whole_run("killed"));
    }
    print_message("%d runs killed\n", killed);
    assert_true(killed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_leaves_what_it_says),
        cmocka_unit_test(test_a_resumed_run_ends_in_the_same_bits),
        cmocka_unit_test(test_a_resume_without_its_state_is_noticed),
        cmocka_unit_test(test_threads_and_splits_end_in_the_same_bits),
        cmocka_unit_test(test_what_cannot_go_on_is_refused),
        cmocka_unit_test(test_starting_anew_forgets_the_old_run),
        cmocka_unit_test(test_old_checkpoints_are_removed),
        cmocka_unit_test(test_the_written_folder_gives_the_trainers_logits),
        cmocka_unit_test(test_after_any_failure_a_resume_ends_in_the_same_bits),
        cmocka_unit_test(test_after_kill_a_resume_ends_in_the_same_bits),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
