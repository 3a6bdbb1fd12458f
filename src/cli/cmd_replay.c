/* ingot replay ANSWER.json MODEL - runs a saved answer again and compares every token */
#include "base/file.h"
#include "cli/cli.h"
#include "replay/replay.h"

#include <stdio.h>

enum { FILE_BYTES_MAX = 256 << 20 };

static enum status run_again(const struct answer *a, struct bundle *bundle, struct pool *pool,
                             const struct cli_model *m, const char *adapter, struct error *err)
{
    struct engine *engine = NULL;
    struct fingerprint now;
    struct lora *lora = NULL;
    if (adapter)
        TRY(lora_open(&lora, bundle->model, adapter, pool, err));
    enum status st = bundle_fingerprint(&now, bundle, lora_digest(lora), err);
    if (st == ST_OK)
        st = answer_check(a, &now, err);
    if (st == ST_OK)
        st = cli_engine_start(&engine, bundle, m, pool, err);
    cli_catch_interrupt();
    if (st == ST_OK)
        st = answer_replay(a, engine, lora, &cli_interrupted, err);
    engine_destroy(engine);
    lora_drop(lora);
    return st;
}

static enum status report(const struct answer *a, bool json, struct error *err)
{
    struct buf out = {0};
    int64_t n = 0;
    for (int i = 0; i < a->n_choice; i++)
        n += a->choices[i].n_id;
    if (json)
        buf_printf(&out, "{\"same\":true,\"outputs\":%d,\"tokens\":%lld,\"fingerprint\":\"%s\"}\n", a->n_choice,
                   (long long)n, a->fingerprint.text);
    else
        buf_printf(&out, "same: %d output%s, %lld tokens, fingerprint %s\n", a->n_choice, a->n_choice == 1 ? "" : "s",
                   (long long)n, a->fingerprint.text);
    enum status st = cli_print(&out, err);
    buf_free(&out);
    return st;
}

/* KV type and --exact are the answer's own, unless the command line says otherwise. */
static void take_numbers(struct cli_model *m, const struct answer *a)
{
    const char *exact = answer_part(a, "exact");
    if (!m->kv)
        m->kv = answer_part(a, "kv");
    m->exact |= exact && !strcmp(exact, "yes");
}

enum status cmd_replay(int argc, char **argv, struct error *err)
{
    struct cli_model m = {0};
    bool json = false;
    const char *lora = NULL;
    const struct cli_option options[] = {
        {"json", 0, CLI_FLAG, &json, NULL, "one object: same, outputs, tokens, fingerprint"},
        {"lora", 0, CLI_TEXT, &lora, "DIR", "the PEFT adapter that gave the answer"},
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot replay ANSWER.json MODEL [options]",
        "Runs a saved answer again and compares every token: any processor, any number of threads. Exits with 65 when "
        "it does not come out again, with 2 when the model is another.",
        "  ingot replay answer.json model.gguf", CLI_TAKES(options, 2, 2)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    struct buf text = {0};
    struct arena arena;
    struct answer answer;
    struct bundle *bundle = NULL;
    struct pool *pool = NULL;
    arena_init(&arena, (size_t)4 * FILE_BYTES_MAX);
    enum status st = file_read_all(&text, args.positional[0], FILE_BYTES_MAX, err);
    if (st == ST_OK && (st = answer_read(&answer, &arena, buf_str(&text), err)) != ST_OK)
        fail_context(err, "%s", args.positional[0]);
    if (st == ST_OK) {
        take_numbers(&m, &answer);
        st = cli_bundle_open(&bundle, &pool, args.positional[1], &m, err);
    }
    if (st == ST_OK)
        st = run_again(&answer, bundle, pool, &m, lora, err);
    if (st == ST_OK)
        st = report(&answer, json, err);
    bundle_close(bundle);
    pool_destroy(pool);
    arena_free(&arena);
    buf_free(&text);
    return st;
}
