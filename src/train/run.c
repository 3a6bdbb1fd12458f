/* run - a whole training run
 *
 *   open -> (resume) -> [ window of windows -> accumulate ... -> update -> log, evaluate, save ] ... -> finish
 *
 * Invariant: after update s the state on disk (a checkpoint of s) and the state in memory continue to the same bits.
 */
#include "train/train_private.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

struct run {
    const struct train_config *c;
    const struct train_watch *watch;
    char output_dir[PATH_BYTES], tokenizer_path[PATH_BYTES];
    struct pool *pool;
    struct tokenizer *tokenizer;
    struct dataset *data, *eval_data;
    struct model *model;
    struct trainer *trainer;
    struct train_state state;
    int32_t *windows;
    int metrics_fd;
    uint64_t started_ns;
    double time_before_s;
    uint64_t tokens_at_start;
    double eval_loss; /* of the newest evaluation */
};

static void phase(const struct run *r, const char *what, double done)
{
    if (r->watch && r->watch->on_phase)
        r->watch->on_phase(r->watch->ctx, what, done);
}

static bool stopped(const struct run *r)
{
    return r->watch && r->watch->stop && *r->watch->stop;
}

/* ---- opening ---- */

static enum status open_data(struct run *r, struct dataset **out, const struct train_list *files, struct error *err)
{
    struct data_source source = {
        .paths = files->items,
        .n_path = files->count,
        .tokenizer = r->tokenizer,
        .block_size = (int)r->c->block_size,
        .document_separator = r->c->document_separator,
        .progress = r->watch ? r->watch->on_phase : NULL,
        .ctx = r->watch ? r->watch->ctx : NULL,
    };
    phase(r, "tokenize", 0);
    return dataset_open(out, &source, err);
}

/* Random weights from a config.json, or a folder's own. */
static enum status open_model(struct run *r, const char *resume, struct error *err)
{
    char path[PATH_BYTES];
    train_cstr(path, sizeof path, r->c->model);
    struct model_options options = {.n_ctx = (int)r->c->block_size, .train = true, .kv = KV_F32, .pool = r->pool};
    if (!resume[0] && str_ends(r->c->model, STR(".json"))) {
        struct buf text = {0};
        struct arena a;
        const struct json *config;
        arena_init(&a, 16 << 20);
        enum status st = file_read_all(&text, path, 1 << 20, err);
        if (st == ST_OK && (st = json_parse(&config, &a, buf_str(&text), 0, err)) != ST_OK)
            fail_context(err, "%s", path);
        if (st == ST_OK)
            st = model_random(&r->model, config, DT_F32, (uint64_t)r->c->seed, &options, err);
        arena_free(&a);
        buf_free(&text);
        return st;
    }
    struct checkpoint *ck;
    TRY(checkpoint_open(&ck, resume[0] ? resume : path, err));
    enum status st = model_load(&r->model, ck, &options, err);
    checkpoint_close(ck);
    return st;
}

static enum status find_resume(struct run *r, char *resume, size_t size, struct error *err)
{
    struct str from = r->c->resume_from_checkpoint;
    resume[0] = 0;
    if (str_is(from, "true"))
        return checkpoint_newest(resume, size, r->output_dir, err);
    if (from.len) {
        train_cstr(resume, size, from);
        return ST_OK;
    }
    char newest[PATH_BYTES];
    if (!r->c->overwrite_output_dir && checkpoint_newest(newest, sizeof newest, r->output_dir, NULL) == ST_OK)
        return fail(err, ST_INVALID,
                    "output_dir: %s already holds a run (%s): give resume_from_checkpoint: true to go on with it, or "
                    "overwrite_output_dir: true",
                    r->output_dir, newest);
    return ST_OK;
}

static enum status open_tokenizer(struct run *r, struct error *err)
{
    struct str from = r->c->tokenizer.len ? r->c->tokenizer : r->c->model;
    if (!r->c->tokenizer.len && str_ends(from, STR(".json"))) { /* the config's folder */
        struct str base = path_base(from);
        from = str_n(from.ptr, (size_t)(base.ptr - from.ptr));
        if (!from.len)
            from = STR(".");
    }
    train_cstr(r->tokenizer_path, sizeof r->tokenizer_path, from);
    enum status st = tokenizer_open(&r->tokenizer, r->tokenizer_path, err);
    return st == ST_OK ? st : fail_context(err, "tokenizer");
}

static enum status check_fit(const struct run *r, struct error *err)
{
    const struct model_config *m = model_config(r->model);
    if (tokenizer_vocab_size(r->tokenizer) > m->n_vocab)
        return fail(err, ST_INVALID,
                    "the tokenizer has %d ids, the model's vocabulary only %d: set vocab_size in config.json",
                    (int)tokenizer_vocab_size(r->tokenizer), m->n_vocab);
    if (m->n_ctx_train && r->c->block_size > m->n_ctx_train)
        return fail(err, ST_INVALID, "block_size: %lld is beyond the model's max_position_embeddings, %d",
                    (long long)r->c->block_size, m->n_ctx_train);
    return ST_OK;
}

static void print_plan(const struct run *r)
{
    if (!r->watch || !r->watch->on_plan)
        return;
    const struct model_config *m = model_config(r->model);
    struct model_plan plan;
    int rows = (int)(r->c->block_size * r->c->per_device_train_batch_size);
    model_plan_of(&plan, r->model, rows);
    const double mb = 1e6, logits = (double)rows * m->n_vocab * sizeof(real);
    char text[512];
    snprintf(text, sizeof text,
             "%s, %.2f M parameters, %llu training tokens (%llu bytes of text), %lld updates of %lld tokens\n"
             "memory: parameters %.1f MB, gradients and moments %.1f MB, activations %.1f MB, logits %.1f MB",
             m->family, (double)m->n_param / 1e6, (unsigned long long)dataset_tokens(r->data),
             (unsigned long long)dataset_bytes(r->data), (long long)r->state.max_steps,
             (long long)(rows * r->c->gradient_accumulation_steps), (double)plan.weight_bytes / mb,
             3 * (double)plan.weight_bytes / mb, (double)plan.run_bytes / mb, logits / mb);
    r->watch->on_plan(r->watch->ctx, text);
}

/* Bytes of the leading lines whose step is at most `step`: updates made again after a resume are logged again. */
static enum status metrics_before(size_t *bytes, struct str text, int64_t step, struct error *err)
{
    struct arena a;
    struct str rest = text, line;
    enum status st = ST_OK;
    arena_init(&a, 0);
    *bytes = 0;
    while (st == ST_OK && (line = str_next_line(&rest)).ptr) {
        const struct json *v;
        st = json_parse(&v, &a, line, 0, err);
        if (st == ST_CORRUPT || (st == ST_OK && json_int(json_get(v, "step"), INT64_MAX) > step)) {
            st = ST_OK; /* a line cut off by a kill is the last one */
            break;
        }
        *bytes = rest.ptr ? (size_t)(rest.ptr - text.ptr) : text.len;
        arena_reset(&a);
    }
    arena_free(&a);
    return st;
}

static enum status trim_metrics(const char *path, int64_t step, struct error *err)
{
    struct buf text = {0};
    size_t keep = 0;
    if (file_kind(path) != FILE_REGULAR)
        return ST_OK;
    enum status st = file_read_all(&text, path, (size_t)1 << 30, err);
    if (st == ST_OK)
        st = metrics_before(&keep, buf_str(&text), step, err);
    if (st == ST_OK && keep < text.len)
        st = file_write_all(path, str_n(text.ptr, keep), err);
    buf_free(&text);
    return st;
}

static enum status open_metrics(struct run *r, bool resumed, struct error *err)
{
    char path[PATH_BYTES];
    path_join(path, sizeof path, r->output_dir, "metrics.jsonl");
    if (resumed)
        TRY(trim_metrics(path, r->state.step, err));
    r->metrics_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (resumed ? 0 : O_TRUNC), 0644);
    return r->metrics_fd < 0 ? fail(err, ST_IO, "%s: cannot be opened: %s", path, strerror(errno)) : ST_OK;
}

static int64_t steps_wanted(const struct run *r)
{
    if (r->c->max_steps >= 0)
        return r->c->max_steps;
    double each = (double)(r->c->per_device_train_batch_size * r->c->gradient_accumulation_steps);
    double steps = r->c->num_train_epochs * (double)dataset_windows(r->data, (uint64_t)r->c->seed, 0) / each;
    return steps < 1 ? 1 : (int64_t)steps;
}

static enum status resume_state(struct run *r, const char *resume, struct error *err)
{
    TRY(checkpoint_state(&r->state, resume, err));
    if (r->state.data_hash != dataset_hash(r->data))
        return fail(
            err, ST_INVALID,
            "%s: was trained on other data (or another tokenizer or block_size): it cannot be resumed with these files",
            resume);
    TRY(checkpoint_moments(r->trainer, resume, err));
    r->time_before_s = r->state.time_s;
    return ST_OK;
}

static enum status run_open(struct run *r, struct error *err)
{
    const struct train_config *c = r->c;
    char resume[PATH_BYTES];
    train_cstr(r->output_dir, sizeof r->output_dir, c->output_dir);
    TRY(find_resume(r, resume, sizeof resume, err));
    TRY(pool_create(&r->pool, c->threads ? (int)c->threads : cpu_count(), err));
    TRY(open_tokenizer(r, err));
    TRY(open_data(r, &r->data, &c->data, err));
    if (c->eval_data.count)
        TRY(open_data(r, &r->eval_data, &c->eval_data, err));
    phase(r, "model", 0);
    TRY(open_model(r, resume, err));
    TRY(check_fit(r, err));
    int batch = (int)(c->per_device_train_batch_size > c->per_device_eval_batch_size || !c->eval_data.count
                          ? c->per_device_train_batch_size
                          : c->per_device_eval_batch_size);
    struct trainer_options options = {
        .block_size = (int)c->block_size,
        .batch_max = batch,
        .beta1 = (real)c->adam_beta1,
        .beta2 = (real)c->adam_beta2,
        .eps = (real)c->adam_epsilon,
        .weight_decay = (real)c->weight_decay,
        .max_grad_norm = (real)c->max_grad_norm,
        .pool = r->pool,
    };
    TRY(trainer_create(&r->trainer, r->model, &options, err));
    r->windows = mem_alloc_zero((size_t)batch * ((size_t)c->block_size + 1), sizeof *r->windows);
    if (!r->windows)
        return fail_nomem(err, "train");
    r->state = (struct train_state){.data_hash = dataset_hash(r->data)};
    if (resume[0])
        TRY(resume_state(r, resume, err));
    r->state.max_steps = steps_wanted(r);
    r->tokens_at_start = r->state.tokens;
    TRY(file_make_folders(r->output_dir, err));
    TRY(checkpoints_clear(r->output_dir, !resume[0], err));
    TRY(open_metrics(r, resume[0] != 0, err));
    print_plan(r);
    return ST_OK;
}

static void run_close(struct run *r)
{
    if (r->metrics_fd >= 0)
        close(r->metrics_fd);
    mem_free(r->windows);
    trainer_free(r->trainer);
    model_free(r->model);
    dataset_close(r->data);
    dataset_close(r->eval_data);
    tokenizer_close(r->tokenizer);
    pool_destroy(r->pool);
}

/* ---- one update ---- */

/* The next window of the order; crossing an epoch's end starts the next. */
static void take_window(struct run *r, int32_t *ids)
{
    uint64_t seed = (uint64_t)r->c->seed;
    if (r->state.window >= dataset_windows(r->data, seed, r->state.epoch)) {
        r->state.epoch++;
        r->state.window = 0;
    }
    dataset_window(r->data, ids, seed, r->state.epoch, r->state.window++);
}

static void run_update(struct run *r, struct train_progress *p)
{
    const struct train_config *c = r->c;
    const int n = (int)c->per_device_train_batch_size, block = (int)c->block_size;
    const int64_t n_target = (int64_t)n * block * c->gradient_accumulation_steps;
    double loss = 0;
    for (int64_t micro = 0; micro < c->gradient_accumulation_steps; micro++) {
        for (int i = 0; i < n; i++)
            take_window(r, r->windows + (size_t)i * (size_t)(block + 1));
        loss += trainer_accumulate(r->trainer, r->windows, n, n_target);
    }
    p->lr = train_lr(c, r->state.step, r->state.max_steps);
    p->grad_norm = trainer_update(r->trainer, p->lr, r->state.step + 1);
    p->loss = loss / (double)n_target;
    r->state.step++;
    r->state.tokens += (uint64_t)n_target;
}

/* Mean NLL over the evaluation windows, in order. */
static void run_evaluate(struct run *r, struct train_progress *p)
{
    const struct train_config *c = r->c;
    const int block = (int)c->block_size;
    uint64_t n = dataset_windows_at(r->eval_data);
    if (c->eval_windows && (uint64_t)c->eval_windows < n)
        n = (uint64_t)c->eval_windows;
    double sum = 0;
    for (uint64_t at = 0; at < n;) {
        int batch = 0;
        if (stopped(r)) /* half an evaluation is no figure */
            return;
        for (; batch < c->per_device_eval_batch_size && at < n; batch++, at++)
            dataset_window_at(r->eval_data, r->windows + (size_t)batch * (size_t)(block + 1), at);
        sum += trainer_evaluate(r->trainer, r->windows, batch);
        phase(r, "evaluate", (double)at / (double)n);
    }
    p->eval_loss = sum / ((double)n * block);
    double bytes_per_token = (double)dataset_bytes(r->eval_data) / (double)dataset_tokens(r->eval_data);
    p->eval_bits_per_byte = p->eval_loss / 0.69314718055994530942 / bytes_per_token;
    r->eval_loss = p->eval_loss;
}

/* ---- reporting ---- */

static void progress_times(const struct run *r, struct train_progress *p)
{
    double here = (double)(clock_ns() - r->started_ns) / 1e9;
    p->step = r->state.step;
    p->max_steps = r->state.max_steps;
    p->tokens = r->state.tokens;
    p->epoch = (double)r->state.epoch +
               (double)r->state.window / (double)dataset_windows(r->data, (uint64_t)r->c->seed, r->state.epoch);
    p->time_s = r->time_before_s + here;
    p->tokens_per_s = here > 0 ? (double)(r->state.tokens - r->tokens_at_start) / here : 0;
    double tokens_each =
        (double)(r->c->block_size * r->c->per_device_train_batch_size * r->c->gradient_accumulation_steps);
    p->eta_s = p->tokens_per_s > 0 ? (double)(p->max_steps - p->step) * tokens_each / p->tokens_per_s
                                   : (double)__builtin_nanf("");
}

static enum status metrics_write(const struct run *r, const struct train_progress *p, struct error *err)
{
    struct buf line = {0};
    struct json_writer w;
    json_writer_init(&w, &line);
    json_begin_object(&w);
    json_put_int(&w, "step", p->step);
    json_put_real(&w, "epoch", p->epoch);
    json_put_real(&w, "loss", p->loss);
    if (p->eval_loss == p->eval_loss) {
        json_put_real(&w, "eval_loss", p->eval_loss);
        json_put_real(&w, "eval_bits_per_byte", p->eval_bits_per_byte);
    }
    json_put_real(&w, "grad_norm", p->grad_norm);
    json_put_real(&w, "learning_rate", p->lr);
    json_put_int(&w, "tokens", (int64_t)p->tokens);
    json_put_real(&w, "tokens_per_s", p->tokens_per_s);
    json_put_real(&w, "time_s", p->time_s);
    json_end_object(&w);
    buf_append_char(&line, '\n');
    enum status st = line.failed ? fail_nomem(err, "metrics.jsonl") : ST_OK;
    if (st == ST_OK && write(r->metrics_fd, line.ptr, line.len) != (ssize_t)line.len)
        st = fail(err, ST_IO, "%s/metrics.jsonl: cannot be written: %s", r->output_dir, strerror(errno));
    buf_free(&line);
    return st;
}

static bool due(int64_t step, int64_t every, int64_t last)
{
    return step == last || (every > 0 && step % every == 0);
}

static enum status run_steps(struct run *r, struct error *err)
{
    const struct train_config *c = r->c;
    const int64_t last = r->state.max_steps;
    r->started_ns = clock_ns();
    while (r->state.step < last) {
        struct train_progress p = {.eval_loss = (double)__builtin_nanf(""),
                                   .eval_bits_per_byte = (double)__builtin_nanf("")};
        run_update(r, &p);
        if (!(p.loss == p.loss))
            return fail(err, ST_INVALID,
                        "the loss is not a number after update %lld: lower learning_rate (%g) or max_grad_norm; the "
                        "newest checkpoint is intact",
                        (long long)r->state.step, c->learning_rate);
        if (r->eval_data && due(r->state.step, c->eval_steps, last))
            run_evaluate(r, &p);
        progress_times(r, &p);
        r->state.time_s = p.time_s;
        if (due(r->state.step, c->logging_steps, last) || p.eval_loss == p.eval_loss)
            TRY(metrics_write(r, &p, err));
        if (r->watch && r->watch->on_step)
            r->watch->on_step(r->watch->ctx, &p);
        bool stop = stopped(r);
        if (stop || (c->save_steps > 0 && due(r->state.step, c->save_steps, last)))
            TRY(checkpoint_save(r->trainer, c, &r->state, err));
        if (stop)
            return fail(err, ST_CANCELED,
                        "stopped after update %lld; checkpoint-%lld is saved: go on with resume_from_checkpoint: true",
                        (long long)r->state.step, (long long)r->state.step);
    }
    return ST_OK;
}

/* ---- the result: a folder that transformers and `ingot serve` load ---- */

static enum status copy_beside(const struct run *r, const char *name, struct error *err)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    struct buf bytes = {0};
    path_join(from, sizeof from, r->tokenizer_path, name);
    if (file_kind(from) != FILE_REGULAR)
        return ST_OK;
    enum status st = file_read_all(&bytes, from, (size_t)1 << 30, err);
    if (st == ST_OK)
        st = file_write_all(path_join(to, sizeof to, r->output_dir, name), buf_str(&bytes), err);
    buf_free(&bytes);
    return st;
}

static enum status run_finish(struct run *r, struct error *err)
{
    static const char *const files[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
        "merges.txt",     "tokenizer.model",       "generation_config.json",  "chat_template.jinja"};
    TRY(model_write_hf(r->model, r->output_dir, (enum dtype)dtype_find(r->c->save_dtype), err));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        TRY(copy_beside(r, files[i], err));
    return ST_OK;
}

enum status train_run(const struct train_config *c, const struct train_watch *watch, struct error *err)
{
    TRY(train_config_check(c, err));
    struct run *r = mem_alloc_zero(1, sizeof *r);
    if (!r)
        return fail_nomem(err, "train");
    r->c = c;
    r->watch = watch;
    r->metrics_fd = -1;
    enum status st = run_open(r, err);
    if (st == ST_OK)
        st = run_steps(r, err);
    if (st == ST_OK)
        st = run_finish(r, err);
    run_close(r);
    mem_free(r);
    return st;
}
