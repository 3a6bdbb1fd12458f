/* gateway - the HTTP face of an engine: OpenAI's protocol, health, metrics and the chat page
 *
 *   TRY(gateway_create(&g, engine, &options, err));   // listens already: gateway_url(g) is the ready line's
 *   TRY(gateway_run(g, err));                         // until SIGTERM, SIGINT or gateway_drain, then the streams' ends
 *   engine_destroy(engine); gateway_destroy(g);       // in this order: the engine calls back into the gateway
 *
 * Requests are parsed, rendered and tokenized on worker threads and generated on the engine's: the loop thread, which
 * runs inside gateway_run, only moves bytes. Routes are rows of routes.def; without a key only loopback is served.
 *
 * Threads  gateway_drain: any; all else: one owner
 * Errors   ST_DENIED for a public address without a key; ST_INVALID for host, port or TLS files; ST_IO
 */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "engine/engine.h"

struct gateway;
struct hosting; /* hosting/hosting.h */

/* Clients by API key, from a YAML file (docs/server.md): each a tenant. */
struct gateway_keys;
MUST_USE enum status gateway_keys_open(struct gateway_keys **out, const char *path, struct error *err);
void gateway_keys_close(struct gateway_keys *k);        /* after gateway and engines */
double gateway_keys_weight(void *ctx, uint64_t tenant); /* for engine_options.weight; ctx: the keys */

struct gateway_options {            /* 0 or NULL = the default in brackets */
    const char *host;               /* [127.0.0.1] */
    int port;                       /* 0 = any free one */
    const char *api_key;            /* NULL = none: loopback only, and only for pages of this host */
    struct gateway_keys *keys;      /* the same, many of them [none]; read again at SIGHUP, with `signals` */
    const char *tls_cert, *tls_key; /* PEM files; both or neither */
    size_t request_bytes; /* memory of all requests and answers together [1 GiB, or a quarter of what is free] */
    int n_worker;         /* threads that parse and tokenize [2] */
    int write_stall_ms;   /* a reader who takes no byte so long is dropped [30,000] */
    int answer_ms;        /* an answer is complete so long after its request came, or ends with 504 [no limit] */
    int drain_ms;         /* streams still running after it are cut when draining [120,000] */
    /* Work waits and the engine, or the loop, does not move for so long: /health fails, the watchdog logs the state
     * [60,000] */
    int health_ms;
    bool legacy_metrics;     /* the names that vLLM has dropped, too */
    const char *tool_format; /* how the model writes calls: a name of speech_names() [told by its template] */
    struct hosting *hosting; /* other models and adapters, beside the engine's [none]; outlives the gateway */
    bool runtime_loading;    /* clients may load and unload them, by paths of this machine */
    bool by_priority;        /* requests may name a priority; else only 0, so that nobody jumps the queue */
    bool signals;            /* SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reads the keys again */
};

MUST_USE enum status gateway_create(struct gateway **out, struct engine *engine, const struct gateway_options *options,
                                    struct error *err);
const char *gateway_url(const struct gateway *g); /* "http://127.0.0.1:8080" */
int gateway_port(const struct gateway *g);
MUST_USE enum status gateway_run(struct gateway *g, struct error *err);
void gateway_drain(
    struct gateway *g); /* not ready any more, no new connections; gateway_run returns when all is said */
void gateway_destroy(struct gateway *g);

#endif
