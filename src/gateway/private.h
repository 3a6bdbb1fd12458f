/* What the files of the gateway share. Life of a POST (job.c):
 *
 *   JOB_CONTENT  a worker parses, renders, tokenizes        (content.c, protocol.c)
 *   JOB_GENERATE the engine calls back, the loop writes     (generate.c, say.c, the protocol's writers, wire.c)
 *   JOB_WRITE    of embeddings: a worker writes the answer (embed.c)
 *   JOB_DONE     answered or abandoned: freed on the loop
 */
#ifndef GATEWAY_PRIVATE_H
#define GATEWAY_PRIVATE_H

#include "gateway/gateway.h"
#include "gateway/protocol.h"
#include "gateway/store.h"

#include "base/budget.h"
#include "base/json.h"
#include "hosting/hosting.h"
#include "net/server.h"
#include "observe/metrics.h"

#include <pthread.h>

enum { REQUEST_ID_MAX = 132, CLIENT_NAME_MAX = 128, STREAM_QUEUE_MAX = 64 * 1024 };
struct worker_queue;
struct job;
struct socket;

struct gateway {
    struct gateway_options options;
    uint8_t key_digest[SHA256_BYTES]; /* of options.api_key */
    struct engine *engine;
    const struct bundle *bundle;
    struct voice voice;      /* the bundle's */
    struct hosting *hosting; /* other models and adapters; NULL: this one alone */
    struct admin *admins;    /* calls that change what is hosted; loop thread only */
    struct store *store;
    struct loop *loop;
    struct tls *tls;
    struct http_server *server;
    struct worker_queue *workers;
    struct metrics *metrics;
    struct served *served; /* served.c; under the lock */
    pthread_mutex_t served_lock;
    struct budget memory; /* bodies, parsed requests, prompts, answers, unsent bytes */
    size_t intake_max;    /* how far new requests may fill it: the rest is for the answers to those that run */
    char url[160];
    int port;
    int64_t created; /* wall clock, seconds */
    uint64_t counted_refused;
    uint64_t id_key, id_next; /* ids are a counter under a random key */
    bool draining;
    uint64_t drain_until_ns;
    struct loop_task drain_task;
    struct socket *sockets;
    struct job *jobs; /* alive; loop thread only */
    int n_job;
    pthread_mutex_t mail_lock; /* every choice's mailbox */
    struct watchdog *watchdog;
    uint64_t beat_ns; /* atomic: clock_ns of the loop's last tick; 0 = it does not run */
    bool tell_jobs;   /* atomic: the watchdog wants to know what the requests are at */
};

/* ---- one POST ---- */
enum job_phase { JOB_CONTENT, JOB_GENERATE, JOB_WRITE, JOB_DONE };

struct mail { /* a token event as it travels from the engine to the loop; then n_text bytes, n_top candidates */
    int32_t id;
    float logprob;
    uint32_t n_text, n_top;
    bool is_prompt;
};

enum block_kind { BLOCK_TEXT, BLOCK_REASON, BLOCK_CALL };
struct block { /* a stretch of one choice's answer */
    enum block_kind kind;
    int index; /* among its choice's */
    bool open;
    int call; /* BLOCK_CALL: its number among the calls, id and function */
    char id[40];
    struct str name;
    struct buf text;     /* so far, where the protocol or the whole answer needs it */
    struct buf logprobs; /* PROTOCOL_OWN_LOGPROBS: JSON objects separated by commas */
    size_t logprobs_new; /* the newest text's begin here */
};

struct choice { /* one sequence */
    struct job *job;
    int index; /* in the answer */
    int prompt;
    struct request request;
    /* engine thread writes, under mail_lock */
    struct buf inbox;
    bool finished, overflowed;
    struct finish_event end;
    char end_message[200];
    uint64_t first_ns, last_ns;
    /* loop thread */
    size_t n_inbox;    /* the mailbox's size when it was last looked at */
    struct buf outbox; /* taken mail; `at` of it is written already */
    size_t at;
    struct block *blocks;
    size_t n_block, block_capacity;
    int n_call, n_reason;  /* calls; tokens of reasoning */
    struct speech *speech; /* of chats: tells reasoning and calls from words */
    bool enough;           /* one call was wanted, and is said */
    bool failed;           /* out of memory */
    struct buf logprobs;   /* not written yet: JSON objects separated by commas */
    size_t logprobs_last;  /* where the last one of them begins */
    struct buf tops;       /* completions keep four arrays: these are token_logprobs, top_logprobs, text_offset */
    struct buf values, offsets;
    size_t n_char; /* characters of text before the next token (text_offset) */
    int n_echoed;  /* prompt tokens whose log-probabilities are kept */
    bool said_echo, said_end;
    struct buf replay_ids, replay_text; /* ask.return_replay */
};

struct job {
    struct gateway *g;
    struct http_exchange *x;     /* NULL once the client is gone, or was told to ask again; loop thread only */
    const struct client *client; /* whose key it came with; NULL: the one key's, or nobody's */
    enum job_phase phase;
    const struct protocol *protocol;
    const struct wire *wire;
    enum ask_kind kind;
    const char *path; /* of the route, for metrics: a worker may be changing `protocol` */
    bool over_socket;
    /* the model it is for, from the content's beginning to job_free: model.c */
    struct hosting_lease lease; /* empty: the gateway's own */
    const struct bundle *bundle;
    struct engine *engine;
    const struct voice *voice;
    const char *name; /* as answers call it */
    struct hosting_wait wait;
    bool parked; /* the wait was called back */
    struct loop_task task;
    struct job *prev, *next; /* of g->jobs */
    struct job *queue_next;  /* of the workers' queue */
    uint64_t begin_ns, write_ns;
    size_t held;        /* of g->memory: body, prompts, echo, answers; the arena holds its own */
    bool outgrown;      /* the answers do not fit into g->memory */
    struct buf body;    /* until it is parsed, like what the parser made of it */
    struct arena arena; /* what lives as long as the job */
    struct ask ask;
    struct refusal why;
    struct buf out; /* a stream's events not sent yet; the newest begins at event_at */
    struct buf log; /* all of them, of a stream that goes on without its client */
    size_t event_at;
    struct json_writer writer;
    struct str chunk_head; /* what every chunk of OpenAI's streams begins with, and the writer behind it */
    struct json_writer chunk_writer;
    struct speech_tools tools; /* count 0: none */
    struct grammar *grammar;   /* what the answers must be, or NULL */
    bool thinking;             /* the prompt opens reasoning */
    bool calls_first;          /* the answer is calls or has a shape: that is no place to look for them */
    int64_t sequence;          /* events written (Responses numbers them) */
    struct socket *socket;     /* the answer goes over it; NULL: over HTTP */
    bool begun;                /* its stream */
    bool cancelled;            /* by a request of its own */
    bool answered;             /* by the worker: in answer */
    struct embed_work *embed;  /* of ASK_EMBED and ASK_RERANK, else NULL */
    struct buf answer;         /* of tokenize and detokenize */
    struct ids *prompts;       /* [n_prompt] tokenized */
    struct buf echo;           /* text of the prompts, ends in echo_end */
    size_t *echo_end;
    int32_t **echo_offsets; /* [n_prompt][its tokens] characters of echo before a token; with logprobs only */
    int n_prompt, n_choice, n_submitted;
    int n_answer;                  /* the first so many choices are the answer */
    struct choice *choices;        /* prompt-major */
    char fingerprint[SHA256_TEXT]; /* empty: the model has none */
    struct buf request;            /* the body as it came; ask.return_replay */
    char id[48], request_id[REQUEST_ID_MAX];
    struct str model; /* as the client named it */
    int64_t created;
    uint64_t parse_ns; /* clock when content was ready */
};

/* answer.c */
struct str query_get(struct str query, const char *key);                  /* as it is written; ptr NULL: not there */
void request_id(char out[REQUEST_ID_MAX], const struct http_exchange *x); /* as the answer's headers tell it */
void answer_refusal(struct gateway *g, struct http_exchange *x, const struct refusal *why);
/* These free body; one that failed is answered with 503. */
void answer_body(struct gateway *g, struct http_exchange *x, int status, const char *type, struct buf *body);
void answer_json(struct gateway *g, struct http_exchange *x, int status, struct buf *body);
/* job.c */
void job_start(struct gateway *g, struct http_exchange *x, const struct protocol *protocol);
/* Takes the body over; the socket is told by socket_adopt, or socket_refuse. */
void job_start_on(struct gateway *g, struct http_exchange *x, const struct protocol *protocol, struct buf *body,
                  struct socket *socket);
void job_gone(struct job *j); /* the client has left */
void job_writable(struct job *j);
void job_attach(struct job *j, struct http_exchange *x); /* what it writes goes there from now on */
/* socket.c */
void socket_start(struct gateway *g, struct http_exchange *x);
void socket_tick(struct gateway *g, uint64_t now_ns);
void socket_adopt(struct socket *s, struct job *j);
void socket_refuse(struct socket *s, const struct refusal *why);
void socket_over(struct socket *s, bool good); /* the job's answer is written */
void job_free(struct job *j);
/* The answer is an error: as a whole, or, once a stream has begun, as its last event. */
void job_fail(struct job *j, const struct refusal *why);
void jobs_expire(struct gateway *g, uint64_t now_ns); /* those older than options.answer_ms end with 504 */
bool job_hold(struct job *j, size_t limit);           /* tells g->memory what the job keeps; false: over the limit */
/* structured.c */
bool structured_make(struct job *j); /* on a worker */
/* served.c: the loaded models */
struct served {
    struct served *next;
    const struct engine *engine;
    struct engine_stats
        counted; /* what of its totals the counters already hold: under the hosting's lock, or while it is closed */
    bool begun;  /* it was counted before */
    uint64_t stalled_ns;  /* of a stall that was told; 0 = it moves: the watchdog's */
    pthread_mutex_t lock; /* of these two, made when first needed */
    struct grammar_vocab *vocab;
    struct grammar_cache *grammars;
};
void served_begin(struct gateway *g);
void served_end(struct gateway *g);
struct served *served_of(struct gateway *g, const struct engine *engine); /* NULL: no memory */
typedef void served_fn(void *ctx, struct served *s, const struct hosting_row *row);
/* Every loaded model, under the hosting's lock: fn may look, not call. */
void served_each(struct gateway *g, served_fn *fn, void *ctx);
/* Every name that can be asked for, likewise. */
void served_names(const struct gateway *g, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx);
/* content.c, on a worker: fills prompts or answer, or why */
bool content_make(struct job *j); /* false: it waits for its model, and will be put back */
/* generate.c, on the loop */
void generate_start(struct job *j);
void generate_pump(struct job *j);
void generate_cancel(struct job *j);
void generate_ping(struct job *j, uint64_t now_ns);
bool generate_over(struct job *j); /* the engine will not call back any more */
/* job.c */
void make_id(struct gateway *g, char *out, size_t size, const char *prefix); /* hard to guess, hex */
extern const struct protocol openai_embeddings, jina_rerank;
/* embed.c: an ASK_EMBED or ASK_RERANK of any protocol, whose `answer` writes what was computed */
bool embed_content(struct job *j); /* on a worker: texts to ids */
bool embed_leaves(struct job *j);  /* on a worker: whether the model can do something else, as is asked */
void embed_start(struct job *j);   /* these on the loop */
void embed_pump(struct job *j);
void embed_cancel(struct job *j);
bool embed_over(const struct job *j);
void embed_write(struct job *j); /* on a worker: calls `answer` */
size_t embed_bytes(const struct job *j);
void embed_free(struct job *j);
/* For `answer`: text i's vector as asked for (shortened, divided by its length); returns its length. */
int embed_row(const real **out, const struct job *j, int i);
int embed_tokens(const struct job *j);
void openai_answer_embeddings(struct job *j, struct buf *out);
void openai_answer_rerank(struct job *j, struct buf *out);
/* model.c: which model a request is for */
enum found { FOUND, PARKED, REFUSED };
enum found model_find(struct job *j, struct arena *parsed);
bool model_keep(struct job *j);  /* keep_alive, if its key may; false: refused */
void model_leave(struct job *j); /* gives the lease back */
/* On the loop: true when it waited for its model, and does no more: no thread has it. */
bool model_forget(struct job *j);
/* admin.c: calls that change what is hosted, or take their time; each on a thread of its own */
struct admin_call {
    enum status (*fn)(struct gateway *g, const struct json *body, struct buf *said, struct error *err);
    const char *type; /* of what is said */
    bool free;        /* changes nothing: needs no --allow-runtime-loading, nor a key that may */
    bool lines;       /* Ollama's progress: an error is its last line, unless "stream" is false */
};
void admin_start(struct gateway *g, struct http_exchange *x, const struct admin_call *call);
extern const struct admin_call admin_load_lora, admin_unload_lora, admin_load_model, admin_unload_model;
extern const struct admin_call ollama_show, ollama_pull, ollama_push, ollama_create, ollama_copy, ollama_delete;
/* The body's name of a model, without its tag ":latest". */
MUST_USE enum status ollama_model(char *out, size_t size, const struct json *body, struct error *err);
bool admin_text(char *out, size_t size, const struct json *body, const char *key); /* false: missing, or too long */
void admin_end_all(struct gateway *g);                                             /* waits for those that run */
/* worker.c */
void workers_put_back(struct worker_queue *w, struct job *j); /* one that was taken before: there is always room */
MUST_USE enum status workers_create(struct worker_queue **out, int n_thread, struct error *err);
bool workers_put(struct worker_queue *w, struct job *j); /* false when full */
void workers_destroy(struct worker_queue *w);            /* finishes what is queued */
/* wire.c */
struct wire {
    const char *content_type;
    void (*begin)(struct buf *out, const char *event); /* before the payload; the event's name, or NULL */
    void (*end)(struct buf *out, size_t at);           /* after it; it began at `at` */
    const char *ping;                                  /* bytes that say "still here" and nothing else; or NULL */
    size_t n_ping;
};
extern const struct wire wire_sse, wire_lines, wire_socket;
struct json_writer *event_begin(struct job *j, const char *event); /* event: its name, or NULL */
void event_end(struct job *j);
void wire_begin(struct job *j);
void wire_flush(struct job *j);
bool wire_full(const struct job *j); /* the client reads slower than we write */
void wire_end(struct job *j, struct http_exchange *x);
/* prove.c: the member "replay" of an answer */
void replay_keep(struct choice *c, int32_t id, struct str text);
void replay_put(struct json_writer *w, const struct job *j);
/* say.c */
void say(struct job *j, struct choice *c, enum block_kind kind, struct str text);
void say_begin(struct job *j, struct choice *c); /* before the first word */
void say_words(struct job *j, struct choice *c, struct str text);
void say_end(struct job *j, struct choice *c);
void say_join(struct buf *out, const struct choice *c, enum block_kind kind);
size_t say_bytes(const struct choice *c);
void say_free(struct choice *c);
/* openai_write.c */
#define OPENAI_WRITES                                                                                                  \
    .open = openai_chunk_open, .delta = openai_chunk_text, .end_choice = openai_chunk_end, .end = openai_chunk_usage,  \
    .refuse = openai_chunk_fail, .answer = openai_write_answer
void openai_chunk_role(struct job *j, struct choice *c);
void openai_chunk_open(struct job *j, struct choice *c, const struct block *b);
void openai_chunk_text(struct job *j, struct choice *c, const struct block *b, struct str text);
void openai_chunk_end(struct job *j, struct choice *c);
void openai_chunk_usage(struct job *j);
void openai_chunk_fail(struct job *j, const struct refusal *why);
void openai_write_answer(struct job *j, struct buf *out);
void openai_put_error(struct json_writer *w, const struct refusal *why); /* {"message", "type", "param", "code"} */
void openai_write_models(const struct gateway *g, struct buf *out);
bool openai_write_named(const struct gateway *g, struct str name, struct buf *out); /* false: there is none */
struct str job_echo(const struct job *j, const struct choice *c);
/* content.c */
void openai_answer_tokenize(struct job *j, struct buf *out);
void openai_answer_detokenize(struct job *j, struct buf *out);
/* anthropic_write.c */
void anthropic_begin(struct job *j);
void anthropic_open(struct job *j, struct choice *c, const struct block *b);
void anthropic_delta(struct job *j, struct choice *c, const struct block *b, struct str text);
void anthropic_close(struct job *j, struct choice *c, const struct block *b);
void anthropic_end(struct job *j);
void anthropic_fail(struct job *j, const struct refusal *why);
void anthropic_ping(struct job *j);
void anthropic_answer(struct job *j, struct buf *out);
void anthropic_answer_count(struct job *j, struct buf *out);
/* responses_write.c, responses_routes.c */
void responses_begin(struct job *j);
void responses_open(struct job *j, struct choice *c, const struct block *b);
void responses_delta(struct job *j, struct choice *c, const struct block *b, struct str text);
void responses_close(struct job *j, struct choice *c, const struct block *b);
void responses_end(struct job *j);
void responses_fail(struct job *j, const struct refusal *why);
void responses_ping(struct job *j);
void responses_answer(struct job *j, struct buf *out);
void responses_put_call(struct buf *calls, struct str id, struct str name, struct str arguments);
void responses_put(struct json_writer *w, const struct job *j, const struct refusal *why);
void responses_keep(struct job *j, const struct refusal *why); /* in the store; why: what it ended with, or NULL */
/* responses_background.c */
struct job *responses_live(struct gateway *g, const struct client *client,
                           struct str id); /* NULL: it is not being made */
/* Appends the messages, without brackets; *answered: the last of them is the answer. False: not kept. */
bool responses_conversation(struct gateway *g, const struct client *client, struct str id, struct buf *out,
                            bool *answered);
void responses_detach(struct job *j); /* answers the client; the job goes on */
void responses_follow(struct gateway *g, struct http_exchange *x, struct str id, int64_t after);
void responses_items(struct gateway *g, struct http_exchange *x, struct str id); /* responses_items.c */
bool responses_not_kept(struct refusal *why, struct str id);                     /* always false */
void responses_get(struct gateway *g, struct http_exchange *x);
void responses_delete(struct gateway *g, struct http_exchange *x);
void responses_cancel(struct gateway *g, struct http_exchange *x);
/* ollama_write.c */
void ollama_delta(struct job *j, struct choice *c, const struct block *b, struct str text);
void ollama_close(struct job *j, struct choice *c, const struct block *b);
void ollama_end(struct job *j);
void ollama_fail(struct job *j, const struct refusal *why);
void ollama_ping(struct job *j);
void ollama_answer(struct job *j, struct buf *out);
void ollama_answer_embed(struct job *j, struct buf *out);
void ollama_answer_embeddings(struct job *j, struct buf *out);
void ollama_put_time(struct json_writer *w, const char *key, uint64_t wall_ns);
/* ollama_models.c, ollama_names.c */
void ollama_answer_tags(struct gateway *g, struct http_exchange *x);
void ollama_answer_ps(struct gateway *g, struct http_exchange *x);
void ollama_answer_version(struct gateway *g, struct http_exchange *x);
/* logprobs.c: those of a choice that are not written yet */
void logprobs_keep(struct job *j, struct choice *c, const struct mail *m, struct str text, const struct candidate *top);
void logprobs_put(struct json_writer *w, const struct job *j, const struct choice *c); /* the member "logprobs" */
void logprobs_clear(struct choice *c);
size_t text_chars(struct str s);
/* telemetry.c */
MUST_USE enum status telemetry_create(struct gateway *g, struct error *err);
void telemetry_write(struct gateway *g, struct buf *out);
void telemetry_http(struct gateway *g, const char *handler, int status);
void telemetry_token(struct gateway *g, struct choice *c, uint64_t now_ns); /* engine thread */
void telemetry_stall(struct gateway *g, const char *model, const char *thread, int n);
void telemetry_close(struct gateway *g, struct served *s, const struct hosting_row *row); /* counts it a last time */
void telemetry_finish(struct gateway *g, const struct choice *c, uint64_t now_ns);
/* watchdog.c: a thread that says what it finds when the engine or the loop does not move for options.health_ms */
MUST_USE enum status watchdog_create(struct gateway *g, struct error *err);
MUST_USE enum status watchdog_start(struct gateway *g, struct error *err);
void watchdog_stop(struct gateway *g); /* and frees it */
void watchdog_jobs(struct gateway *g); /* on the loop: says what each request is at, once a stall */
/* Whether it has work and does not move. now_ns: read before the call, or a stop of the machine in between counts. */
bool engine_stalled(const struct gateway *g, const struct engine *e, uint64_t now_ns, struct engine_stats *out);
/* health.c; state NULL: whether every engine that has work moves */
void health_answer(struct gateway *g, struct http_exchange *x, const char *state);
/* keys.c */
struct client { /* of a name in the file of keys: a tenant */
    char name[CLIENT_NAME_MAX];
    uint64_t id;
    double weight; /* under the keys' lock */
    int priority;  /* atomic; smaller goes first */
    bool admin;    /* atomic; may change what is served */
};
MUST_USE enum status keys_reload(struct gateway_keys *k, size_t *n, struct error *err); /* else all is as before */
const struct client *keys_find(struct gateway_keys *k, const uint8_t digest[SHA256_BYTES]);
bool keys_hold(struct gateway_keys *k, const struct client *c);                  /* whether it has any key left */
bool digest_equal(const uint8_t a[SHA256_BYTES], const uint8_t b[SHA256_BYTES]); /* in constant time */
static inline uint64_t client_id(const struct client *c)
{
    return c ? c->id : 0;
}
/* access.c */
bool access_needs_key(const struct gateway *g);
bool access_key(const struct gateway *g, struct http_exchange *x, struct refusal *why); /* sets x->client */
/* Whether a key may change what is served: all may, or, where a file names them, those it says. */
bool access_admin(const struct gateway *g, const struct client *client, struct refusal *why);
bool access_origin(const struct gateway *g, const struct http1 *r, struct refusal *why);
/* pages.c */
void page_answer(struct gateway *g, struct http_exchange *x);

#endif
