/* ingot serve MODEL - the OpenAI-compatible server and its chat page */
#include "base/file.h"
#include "base/log.h"
#include "cli/hosted.h"
#include "gateway/gateway.h"

#include <stdio.h>

static enum status serve(struct bundle *bundle, struct pool *pool, const struct cli_model *m,
                         struct gateway_options *options, struct cli_hosted *hosted, struct error *err)
{
    struct engine_options engine_options;
    struct model_options model_options;
    struct engine *engine;
    struct gateway *gateway = NULL;
    TRY(cli_model_numbers(&model_options, m, err));
    TRY(cli_engine_options(&engine_options, m, pool, err));
    model_options.pool = pool;
    if (options->keys) {
        engine_options.weight = gateway_keys_weight;
        engine_options.weight_ctx = options->keys;
    }
    TRY(engine_create(&engine, bundle, &engine_options, err));
    hosted->bundle = bundle;
    hosted->first = engine;
    hosted->model = &model_options;
    hosted->engine = &engine_options;
    if (bundle->template_error.status != ST_OK)
        log_warnf("serve", "chats will be refused, completions work: the chat template cannot be used: %s",
                  bundle->template_error.text);
    enum status st = cli_hosting(&options->hosting, hosted, err);
    if (st == ST_OK)
        st = gateway_create(&gateway, engine, options, err);
    if (st == ST_OK) {
        fprintf(stderr, "ingot: ready %s model=%s\n", gateway_url(gateway), bundle->id);
        fflush(stderr);
        st = gateway_run(gateway, err);
    }
    engine_destroy(engine); /* before the gateway, which it calls back */
    gateway_destroy(gateway);
    hosting_destroy(options->hosting);
    return st;
}

enum { TEMPLATE_BYTES_MAX = 1 << 20 };

/* Another chat template than the model's own. text: keeps it, as long as the bundle lives. */
static enum status set_template(struct bundle *b, struct buf *text, const char *path, struct error *err)
{
    struct template *t;
    TRY(file_read_all(text, path, TEMPLATE_BYTES_MAX, err));
    if (template_parse(&t, buf_str(text), err) != ST_OK)
        return fail_context(err, "--chat-template %s", path);
    template_free(b->template);
    b->template = t;
    b->template_source = buf_str(text);
    b->template_error = (struct error){0};
    return ST_OK;
}

enum status cmd_serve(int argc, char **argv, struct error *err)
{
    struct cli_model m = {.draft_tokens = CLI_DRAFT_TOKENS, .any_task = true};
    struct gateway_options g = {.signals = true};
    int64_t port = 8080, drain_s = 0, stall_s = 60;
    uint64_t request_bytes = 0;
    double temperature = (double)__builtin_nanf(""), top_p = temperature, answer_s = 0;
    const char *level = "info", *policy = "fcfs", *template_path = NULL, *keys_path = NULL;
    struct cli_hosted hosted = {0};
    int64_t keep_alive_s = 0;
    const struct cli_option options[] = {
        {"host", 'H', CLI_TEXT, &g.host, "H", "address to listen at (default 127.0.0.1; others need a key)"},
        {"port", 'p', CLI_INT, &port, "N", "port (default 8080; 0 takes a free one)"},
        {"api-key", 'k', CLI_TEXT, &g.api_key, "K",
         "clients must send it; better set as INGOT_API_KEY, which ps does not show"},
        {"api-keys", 0, CLI_TEXT, &keys_path, "FILE",
         "many keys, as YAML: keys: [{name, key or sha256, weight, priority, admin}, ...]; read again at SIGHUP"},
        {"tls-cert", 0, CLI_TEXT, &g.tls_cert, "FILE", "certificate chain (PEM): serve TLS 1.3"},
        {"tls-key", 0, CLI_TEXT, &g.tls_key, "FILE", "its private key (PEM)"},
        {"temperature", 0, CLI_REAL, &temperature, "T",
         "for requests that name none (default: the model's own, else 1)"},
        {"top-p", 0, CLI_REAL, &top_p, "P", "likewise"},
        {"answer-timeout", 0, CLI_REAL, &answer_s, "S",
         "an answer that takes longer ends with 504 (default: no limit)"},
        {"drain-timeout", 0, CLI_INT, &drain_s, "S", "seconds that running answers get after SIGTERM (default 120)"},
        {"request-bytes", 0, CLI_BYTES, &request_bytes, "B",
         "memory for all requests and their answers together (default 1G, or a quarter of what is free)"},
        {"scheduling-policy", 0, CLI_TEXT, &policy, "P",
         "fcfs: as requests come (default); priority: smaller \"priority\" first, for clients that trust each other"},
        {"chat-template", 0, CLI_TEXT, &template_path, "FILE", "Jinja template for chats (default: the model's own)"},
        {"tool-format", 0, CLI_TEXT, &g.tool_format, "F",
         "how the model writes tool calls: hermes, qwen-xml, llama, mistral, deepseek, harmony or plain (default auto: "
         "told by its chat template)"},
        {"stall-timeout", 0, CLI_INT, &stall_s, "S",
         "seconds without a step, while work waits, after which /health fails and the log says why (default 60)"},
        {"legacy-metrics", 0, CLI_FLAG, &g.legacy_metrics, NULL, "metrics under the names that vLLM has dropped, too"},
        {"models", 0, CLI_TEXT, &hosted.file, "FILE",
         "more models, as YAML: models: [{name, path, pinned, keep_alive, aliases, loras, ctx, kv_bytes}, ...]"},
        {"lora", 0, CLI_TEXT, &hosted.loras, "NAME=DIR,..",
         "PEFT adapters of the first model, each a model by its name"},
        {"memory-budget", 0, CLI_BYTES, &hosted.bytes_max, "B",
         "of all models together: those that nobody uses go, the least recently used first (default: no bound)"},
        {"keep-alive", 0, CLI_INT, &keep_alive_s, "S",
         "seconds after which a model that nobody asks for goes (default: never; the first stays)"},
        {"allow-runtime-loading", 0, CLI_FLAG, &g.runtime_loading, NULL,
         "clients may load and unload models and adapters by paths of this machine; with --api-keys, only admins"},
        {"log-level", 0, CLI_TEXT, &level, "L", "debug, info, warn, error or off (default info)"},
        CLI_SERVING_OPTIONS(m),
        CLI_DRAFT_OPTIONS(m),
        CLI_POOLING_OPTION(m),
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot serve MODEL [MODEL ...] [--port 8080] [options]",
        "Serves a model over HTTP: OpenAI's chat and completions, tokenize, metrics, and a "
        "chat page at /. Stops gently at SIGTERM.",
        "  ingot serve model.gguf\n"
        "  ingot serve model.gguf other.gguf --memory-budget 8G --keep-alive 600\n"
        "  INGOT_API_KEY=secret ingot serve model/ --host 0.0.0.0 --tls-cert c.pem --tls-key k.pem\n"
        "  curl http://127.0.0.1:8080/v1/chat/completions -d "
        "'{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}'",
        CLI_TAKES(options, 1, 64)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (port < 0 || port > 65535)
        return fail(err, ST_INVALID, "--port %lld: expected 0 to 65535", (long long)port);
    if (temperature < 0 || temperature > 2)
        return fail(err, ST_INVALID, "--temperature %g: expected 0 to 2", temperature);
    if (top_p <= 0 || top_p > 1)
        return fail(err, ST_INVALID, "--top-p %g: expected more than 0, at most 1", top_p);
    if (!(answer_s >= 0 && answer_s <= 86400))
        return fail(err, ST_INVALID, "--answer-timeout %g: expected seconds, 0 to 86400", answer_s);
    if (drain_s < 0 || drain_s > 86400)
        return fail(err, ST_INVALID, "--drain-timeout %lld: expected seconds, 0 to 86400", (long long)drain_s);
    if (stall_s < 1 || stall_s > 86400)
        return fail(err, ST_INVALID, "--stall-timeout %lld: expected seconds, 1 to 86400", (long long)stall_s);
    if (keep_alive_s < 0 || keep_alive_s > INT32_MAX)
        return fail(err, ST_INVALID, "--keep-alive %lld: expected seconds", (long long)keep_alive_s);
    hosted.keep_alive_s = (int)keep_alive_s;
    hosted.more = args.positional + 1;
    hosted.n_more = args.n_positional - 1;
    g.health_ms = (int)stall_s * 1000;
    g.by_priority = !strcmp(policy, "priority");
    if (!g.by_priority && strcmp(policy, "fcfs") != 0)
        return fail(err, ST_INVALID, "--scheduling-policy %s: expected fcfs or priority", policy);
    if (log_level_parse(level) < 0)
        return fail(err, ST_INVALID, "--log-level %s: expected debug, info, warn, error or off", level);
    log_set_level((enum log_level)log_level_parse(level));
    if (request_bytes && request_bytes < 1 << 20)
        return fail(err, ST_INVALID, "--request-bytes %llu: expected at least 1M", (unsigned long long)request_bytes);
    g.request_bytes = request_bytes;
    g.port = (int)port;
    g.drain_ms = (int)drain_s * 1000;
    g.answer_ms = (int)(answer_s * 1000);
    struct bundle *bundle;
    struct pool *pool;
    TRY(cli_bundle_open(&bundle, &pool, args.positional[0], &m, err));
    if (temperature == temperature)
        bundle->temperature = temperature;
    if (top_p == top_p)
        bundle->top_p = top_p;
    struct buf chat_template = {0};
    enum status st = template_path ? set_template(bundle, &chat_template, template_path, err) : ST_OK;
    if (st == ST_OK && keys_path)
        st = gateway_keys_open(&g.keys, keys_path, err);
    if (st == ST_OK)
        st = serve(bundle, pool, &m, &g, &hosted, err);
    gateway_keys_close(g.keys);
    bundle_close(bundle);
    buf_free(&chat_template);
    pool_destroy(pool);
    return st;
}
