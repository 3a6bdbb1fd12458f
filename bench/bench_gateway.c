/* What the server itself costs: CPU of the loop and worker threads per request and per streamed token, over the
 * stand-in engine of the tests, which gives words for nothing. The clients' threads and the engine's are not counted;
 * the engine's callbacks (a token into a mailbox) are timed apart.
 *
 *   bench_gateway [streams [tokens]]
 */
#include "../tests/gateway/fake.h"

#include "base/clock.h"
#include "base/log.h"
#include "gateway/gateway.h"
#include "net/client.h"

#include <stdio.h>
#include <sys/syscall.h>

static struct gateway *gateway;
static int loop_tid;

static void *run(void *arg)
{
    struct error err;
    (void)arg;
    loop_tid = (int)syscall(SYS_gettid);
    if (gateway_run(gateway, &err) != ST_OK)
        fprintf(stderr, "%s\n", err.text);
    return NULL;
}

struct client {
    pthread_t thread;
    const char *path;
    char body[256];
    int n_call;
    uint64_t cpu_ns, bytes;
};

static bool on_body(void *ctx, struct str bytes)
{
    struct client *c = ctx;
    c->bytes += bytes.len;
    return true;
}

static void *call(void *arg)
{
    struct client *c = arg;
    struct error err;
    uint64_t begin = clock_thread_cpu_ns();
    for (int i = 0; i < c->n_call; i++) {
        struct http1 a;
        struct http_call http = {.host = "127.0.0.1",
                                 .port = gateway_port(gateway),
                                 .method = "POST",
                                 .path = c->path,
                                 .body = str_of(c->body),
                                 .timeout_ms = 600000,
                                 .on_body = on_body,
                                 .ctx = c};
        if (http_call(&a, &http, &err) != ST_OK || a.status != 200) {
            fprintf(stderr, "bench_gateway: %s\n", err.text);
            exit(1);
        }
        http1_free(&a);
    }
    c->cpu_ns = clock_thread_cpu_ns() - begin;
    return NULL;
}

/* CPU of the loop's thread while these clients run. */
static double measure(const char *path, const char *body, int n_client, int n_call)
{
    struct client *clients = calloc((size_t)n_client, sizeof *clients);
    uint64_t begin = clock_thread_cpu_ns_of(loop_tid);
    for (int i = 0; i < n_client; i++) {
        clients[i] = (struct client){.path = path, .n_call = n_call};
        snprintf(clients[i].body, sizeof clients[i].body, "%s", body);
        pthread_create(&clients[i].thread, NULL, call, &clients[i]);
    }
    for (int i = 0; i < n_client; i++)
        pthread_join(clients[i].thread, NULL);
    uint64_t end = clock_thread_cpu_ns_of(loop_tid);
    free(clients);
    return (double)(end - begin) * 1e-3;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *path, *body;
    } rows[] = {
        {"chat", "/v1/chat/completions", "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"max_tokens\":%d"},
        {"completion", "/v1/completions", "\"prompt\":\"hello\",\"max_tokens\":%d"},
        {"responses", "/v1/responses", "\"input\":\"hello\",\"store\":false,\"max_output_tokens\":%d"},
        {"messages", "/v1/messages", "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"max_tokens\":%d"},
        {"ollama", "/api/chat",
         "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"options\":{\"num_predict\":%d}"},
    };
    int streams = argc > 1 ? atoi(argv[1]) : 32, tokens = argc > 2 ? atoi(argv[2]) : 1000;
    struct engine *engine;
    struct error err;
    pthread_t thread;
    log_set_level(LOG_OFF);
    if (engine_create(&engine, &fake_bundle, NULL, &err) != ST_OK ||
        gateway_create(&gateway, engine, &(struct gateway_options){.host = "127.0.0.1"}, &err) != ST_OK) {
        fprintf(stderr, "bench_gateway: %s\n", err.text);
        return 1;
    }
    pthread_create(&thread, NULL, run, NULL);
    while (!__atomic_load_n(&loop_tid, __ATOMIC_SEQ_CST))
        usleep(1000);
    printf("%-12s %18s %18s\n", "", "us CPU a token", "us CPU a request");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[256], fields[200];
        snprintf(fields, sizeof fields, rows[i].body, tokens);
        snprintf(body, sizeof body, "{\"stream\":true,%s}", fields);
        double stream = measure(rows[i].path, body, streams, 1);
        snprintf(fields, sizeof fields, rows[i].body, 1);
        snprintf(body, sizeof body, "{\"stream\":false,%s}", fields);
        double whole = measure(rows[i].path, body, 4, 200) / 800;
        printf("%-12s %18.2f %18.1f\n", rows[i].name, (stream - streams * whole) / ((double)streams * tokens), whole);
    }
    gateway_drain(gateway);
    pthread_join(thread, NULL);
    engine_destroy(engine);
    gateway_destroy(gateway);
    return 0;
}
