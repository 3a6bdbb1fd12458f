/* ingot.h - libingot: language models inside your program, in three grades
 *
 *   1. One call    ingot_generate(&text, "model.gguf", "Once upon a time", NULL, &error);
 *   2. Sessions    a loaded model, tokens, chats that remember: ingot_session_say(session, "Hi", ...)
 *   3. Streams     many requests at once, told by callbacks, batched together: ingot_stream_start(...)
 *
 * Models that embed or score texts: ingot_embed. Adapters over one model, chosen by each stream: ingot_adapter_load.
 *
 * Same request, same bits: whatever else runs, on any number of threads and any supported processor.
 *
 * Memory     opaque handles are made by open or start and freed by close; text the library allocates is freed by
 *            ingot_free. Strings are UTF-8 and end in NUL unless a length stands beside them.
 * Errors     functions return INGOT_OK (0) or another status; *error, where one is given (it may be NULL), then holds
 *            the status and one sentence: what, where, found, expected. Nothing is printed, nothing exits.
 * Threads    there is no state but in handles. Each function says which calls may run at the same time; "any" means
 *            from any thread at any time, also with the same handle.
 * Growth     structs begin with their size: INGOT_INIT(s) sets it, ingot_sampling_init does too. A program built for an
 *            older header keeps working; fields of a newer one that this library does not know must be zero. So fields
 *            come at a struct's end alone, never into a gap.
 * Signals    none are caught: a model file that is cut while in use ends the program with SIGBUS.
 * Settings   INGOT_ISA in the environment chooses the instruction set when the first model is opened.
 */
#ifndef INGOT_H
#define INGOT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INGOT_VERSION_MAJOR 0
#define INGOT_VERSION_MINOR 1
#define INGOT_VERSION_PATCH 0
#define INGOT_VERSION       "0.1.0"
#define INGOT_ABI           0 /* the shared library's number: libingot.so.0 */
#define INGOT_API           __attribute__((visibility("default")))
#define INGOT_INIT(s)       (memset(&(s), 0, sizeof(s)), (s).size = sizeof(s))

/* ---- statuses ---- */
enum {
    INGOT_OK,
    INGOT_INVALID,     /* an argument */
    INGOT_CORRUPT,     /* a damaged file */
    INGOT_UNSUPPORTED, /* understood, not offered */
    INGOT_NOT_FOUND,
    INGOT_DENIED,
    INGOT_LIMIT, /* a full queue, or room that was too small */
    INGOT_NOMEM,
    INGOT_IO,
    INGOT_CANCELED,
    INGOT_TIMEOUT,
    INGOT_DEVICE
};
typedef struct ingot_error {
    int status;
    char text[512];
} ingot_error;

/* Threads: any, for all of these. */
INGOT_API const char *ingot_version(void);           /* of the library: compare with INGOT_VERSION */
INGOT_API int ingot_abi(void);                       /* likewise with INGOT_ABI */
INGOT_API const char *ingot_status_name(int status); /* "not_found" */
INGOT_API void ingot_free(void *text);               /* takes NULL */

/* ---- how to choose tokens ---- */
typedef struct ingot_logit_bias {
    int32_t id;
    float bias;
} ingot_logit_bias;
typedef struct ingot_sampling {
    size_t size;
    float temperature;                         /* 0: always the likeliest; below 0: the model's own default, else 0.7 */
    float top_p;                               /* 1: all; below 0: the model's own, else 1 */
    int32_t top_k;                             /* 0: all; below 0: the model's own, else 0 */
    float min_p;                               /* 0: off */
    float repetition_penalty;                  /* 1: off; below 0: the model's own, else 1 */
    float presence_penalty, frequency_penalty; /* 0: off */
    int32_t max_tokens;                        /* 0: until the answer ends or the context is full */
    int32_t min_tokens;
    int32_t ignore_eos; /* 1: the end token ends nothing */
    int32_t has_seed;   /* 0: one is drawn, and reported */
    uint64_t seed;
    const ingot_logit_bias *logit_bias;
    size_t n_logit_bias;
    const char *const *stops; /* the answer ends before any of these, at most 16 */
    size_t n_stop;
} ingot_sampling;
static inline void ingot_sampling_init(ingot_sampling *s) /* the model's own defaults */
{
    INGOT_INIT(*s);
    s->temperature = s->top_p = s->repetition_penalty = -1;
    s->top_k = -1;
}

/* ---- grade 1: one call ---- */
/* Loads the model, answers the prompt (through the model's chat template when it has one), unloads it. *text is freed
 * by ingot_free. sampling: NULL means the model's own defaults. Threads: any. */
INGOT_API int ingot_generate(char **text, const char *model_path, const char *prompt, const ingot_sampling *sampling,
                             ingot_error *error);

/* ---- a model ---- */
typedef struct ingot_model ingot_model;
enum { INGOT_KV_DEFAULT, INGOT_KV_F32, INGOT_KV_F16, INGOT_KV_INT8 }; /* default: f16; f32 with exact */
typedef struct ingot_model_options {
    size_t size;
    int32_t threads;     /* 0: all CPUs */
    int32_t context;     /* tokens; 0: the model's own, at most 32768 */
    int32_t kv;          /* INGOT_KV_... */
    int32_t exact;       /* 1: activations and KV cache in f32 whatever the weights */
    uint64_t kv_bytes;   /* memory for keys and values; 0: four full contexts, or a quarter of what is free */
    int32_t streams;     /* that run at once; 0: 64 */
    int32_t streams_max; /* running and waiting; more are INGOT_LIMIT. 0: 1024 beside those that run */
    const char *cache;   /* folder for packed panels, so that large models start sooner; NULL: none */
    void (*progress)(void *ctx, const char *phase, double done); /* on the caller's thread; may be NULL */
    void *ctx;
    const char *pooling; /* "mean", "cls", "last" ...: it embeds, whatever it was made for; NULL: as it says */
} ingot_model_options;
enum {
    INGOT_TASK_GENERATE,
    INGOT_TASK_EMBED,
    INGOT_TASK_SCORE
}; /* what a model is for; score: texts against a query */
typedef struct ingot_model_info {
    size_t size;
    const char *name;   /* the folder's or file's, lent by the model, like the next */
    const char *family; /* "llama", "qwen3" ... */
    int32_t context;    /* tokens one request may have in all */
    int32_t n_vocab, n_embd, n_layer;
    int32_t bos, eos; /* ids; -1: none */
    int32_t has_tokenizer, has_template;
    int64_t n_param;
    int32_t task;  /* INGOT_TASK_...; sessions and streams are for models that generate */
    int32_t n_out; /* numbers ingot_embed gives for a text: of its vector, or scores; 0: none, it generates */
} ingot_model_info;

/* path: a Hugging Face folder, or a safetensors, GGUF, llama2.c or PyTorch file. options: NULL means all defaults. The
 * model runs its own threads. Threads: any. */
INGOT_API int ingot_model_open(ingot_model **out, const char *path, const ingot_model_options *options,
                               ingot_error *error);
/* Sessions and streams keep what they need of it: the last one to be closed frees it. NULL is nothing. Threads: once a
 * model, after every other call with this handle returned; not from a callback. */
INGOT_API void ingot_model_close(ingot_model *model);
INGOT_API int ingot_model_describe(const ingot_model *model, ingot_model_info *info, ingot_error *error); /* any */
/* 64 hexadecimal digits over everything that decides the bits of an answer. Reads the model's files the first time.
 * Threads: any. */
INGOT_API int ingot_model_fingerprint(const ingot_model *model, char text[65], ingot_error *error);

/* ---- adapters ---- low-rank additions (LoRA) to a model that generates, as PEFT writes them: many over one model, in
 * one batch, each stream with its own or none. Threads: any, for all of these.
 *
 * folder: with adapter_config.json and adapter_model.safetensors; read once, then not needed. name: yours, up to 255
 * bytes; INGOT_INVALID when one of this name is loaded. */
INGOT_API int ingot_adapter_load(ingot_model *model, const char *name, const char *folder, ingot_error *error);
/* Streams that have begun keep it until they end; its memory is freed with the last. INGOT_NOT_FOUND. */
INGOT_API int ingot_adapter_unload(ingot_model *model, const char *name, ingot_error *error);
/* As ingot_model_fingerprint, of the answers given with this adapter. */
INGOT_API int ingot_adapter_fingerprint(const ingot_model *model, const char *name, char text[65], ingot_error *error);

/* ---- tokens ---- Threads: any, for all of these. */
enum {
    INGOT_SPECIAL = 1, /* the text's special-token strings become their ids */
    INGOT_ADD = 2      /* add what the model expects around a text: BOS ... */
};
/* *n: how many there are. INGOT_LIMIT, with *n set and nothing written, when `room` is less: call again. */
INGOT_API int ingot_tokenize(const ingot_model *model, const char *text, size_t text_len, int flags, int32_t *ids,
                             size_t room, size_t *n, ingot_error *error);
/* Likewise, in bytes; a NUL follows them and needs room too. */
INGOT_API int ingot_detokenize(const ingot_model *model, const int32_t *ids, size_t n_id, char *text, size_t room,
                               size_t *n, ingot_error *error);
/* messages: JSON, [{"role": "user", "content": "Hi"}, ...], through the model's chat template: what users wrote never
 * becomes a special token. */
INGOT_API int ingot_chat_tokenize(const ingot_model *model, const char *messages, int32_t *ids, size_t room, size_t *n,
                                  ingot_error *error);

/* ---- what an answer tells ---- */
typedef struct ingot_token {
    size_t size;
    int32_t id;       /* -1: only text that was held back */
    float logprob;    /* of the token, from the raw logits */
    const char *text; /* whole characters that are certain now, not NUL-terminated, lent; may be empty */
    size_t text_len;
} ingot_token;
enum { INGOT_FINISH_NONE, INGOT_FINISH_STOP, INGOT_FINISH_LENGTH, INGOT_FINISH_CANCELED, INGOT_FINISH_ERROR };
typedef struct ingot_result {
    size_t size;
    int32_t finish;                                      /* INGOT_FINISH_... */
    int32_t status;                                      /* INGOT_OK, or why it failed */
    int32_t prompt_tokens, output_tokens, cached_tokens; /* cached: of the prompt, computed before */
    uint64_t seed;
    double queue_s, prefill_s, decode_s;
} ingot_result;
/* Called on a thread of the model, never on yours: it must not wait, nor call anything of this library but
 * ingot_stream_cancel. Not 0 ends the answer. */
typedef int ingot_on_token(void *ctx, const ingot_token *token);

/* ---- grade 2: sessions ---- a conversation: one thread at a time each; different sessions at the same time */
typedef struct ingot_session ingot_session;
/* system: the system message, or NULL. */
INGOT_API int ingot_session_open(ingot_session **out, ingot_model *model, const char *system, ingot_error *error);
INGOT_API void ingot_session_close(ingot_session *session); /* NULL is nothing */
/* Says `text` and waits for the answer: told piece by piece (on_token may be NULL), and kept. A turn that fails is not
 * remembered; one that on_token ended is, as far as it went. result may be NULL. */
INGOT_API int ingot_session_say(ingot_session *session, const char *text, const ingot_sampling *sampling,
                                ingot_on_token *on_token, void *ctx, ingot_result *result, ingot_error *error);
INGOT_API const char *ingot_session_answer(const ingot_session *session); /* the last one, lent until the next call */
INGOT_API void ingot_session_reset(ingot_session *session);               /* forgets all but the system message */
/* The adapter of the turns from here on, by name; NULL: none. INGOT_NOT_FOUND changes nothing. The session keeps it
 * until it is closed or given another, even when it is unloaded. */
INGOT_API int ingot_session_adapter(ingot_session *session, const char *name, ingot_error *error);

/* ---- grade 3: streams ---- */
typedef struct ingot_stream ingot_stream;
enum { INGOT_RAW = 1 }; /* the prompt is continued as it stands, no chat template; special tokens are recognised */
typedef struct ingot_request {
    size_t size;
    const char *prompt;   /* text; or */
    const char *messages; /* a chat as JSON; or */
    const int32_t *ids;   /* tokens */
    size_t n_id;
    int32_t flags;                  /* INGOT_RAW, with a prompt */
    int32_t priority;               /* larger goes first; 0 is usual */
    int32_t choice;                 /* several answers to one prompt with one seed: 0, 1, 2 ... */
    int32_t timeout_ms;             /* INGOT_TIMEOUT after it; 0: none */
    const ingot_sampling *sampling; /* NULL: the model's own defaults */
    ingot_on_token *on_token;       /* may be NULL */
    void (*on_finish)(void *ctx, const ingot_result *result); /* once, as on_token; may be NULL */
    void *ctx;
    const char *adapter; /* by name; NULL: none */
} ingot_request;
/* Nothing of the request is needed after it returned. Threads: any; streams of one model share its batches. */
INGOT_API int ingot_stream_start(ingot_stream **out, ingot_model *model, const ingot_request *request,
                                 ingot_error *error);
INGOT_API void ingot_stream_cancel(ingot_stream *stream); /* takes effect within one step. Threads: any */
/* Waits for the end; a stream that failed gives its status. result may be NULL. Threads: any, not from a callback. */
INGOT_API int ingot_stream_wait(ingot_stream *stream, ingot_result *result, ingot_error *error);
/* Cancels what still runs and waits for its end. NULL is nothing. Threads: once a stream, after every other call with
 * it returned; not from a callback. */
INGOT_API void ingot_stream_close(ingot_stream *stream);

/* ---- texts as vectors, or as scores ---- */
enum {
    INGOT_EMBED_RAW =
        1,              /* as the model gives them: vectors not divided by their length, scores not 0 to 1 but logits */
    INGOT_EMBED_CUT = 2 /* a text that is too long loses its end; else it is INGOT_INVALID */
};
typedef struct ingot_embedding {
    size_t size;
    const char *const *texts;  /* [n_text]; or */
    const int32_t *const *ids; /* [n_text] tokens, as they stand */
    const size_t *n_ids;       /* [n_text] of them */
    size_t n_text;             /* 1 to 65536 */
    const char *query;         /* of a model that scores: what the texts are compared with; not with ids */
    const char *prompt; /* the model's own words before a text, by their name ("query"); NULL: its default, or none */
    int32_t dimensions; /* only the first so many numbers of a vector; 0: all */
    int32_t flags;      /* INGOT_EMBED_... */
    float *out;         /* [n_text, dimensions or n_out] */
    size_t room;        /* numbers it has room for */
    int32_t *n_token;   /* [n_text], filled: each text's tokens; may be NULL */
    const volatile int *interrupt; /* not 0: INGOT_CANCELED, within one step; may be NULL */
} ingot_embedding;
/* Waits for all of them. out and n_token are the caller's and filled when this returns INGOT_OK; INGOT_LIMIT says how
 * much room is needed. A text's numbers do not depend on the others'. Of the result (may be NULL) count finish,
 * prompt_tokens (of all texts) and the times. Threads: any; calls of several threads share the model's batches. */
INGOT_API int ingot_embed(ingot_model *model, const ingot_embedding *request, ingot_result *result, ingot_error *error);

#ifdef __cplusplus
}
#endif
#endif
