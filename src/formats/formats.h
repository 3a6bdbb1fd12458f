/* formats - the one door to stored models: what the container holds, checked, with nothing interpreted or executed
 *
 *   TRY(checkpoint_open(&ck, "model/", err));   folder with config.json + *.safetensors (or pytorch_model*.bin), or one
 *   t = checkpoint_find(ck, STR("..."));        file: .safetensors .gguf .bin (llama2.c) .pt/.pth/.bin (PyTorch zip)
 *
 * The kind is found from the bytes, not from the name. Every header number is checked before use. Names are those of
 * the container; the model room maps them to roles.
 *
 * Memory   tensors are views of read-only mappings that live until checkpoint_close; total allocation is bounded by
 *          8x the file plus 16 MiB
 * Errors   ST_NOT_FOUND, ST_CORRUPT (offset and expectation in the text), ST_UNSUPPORTED (tensor and type named)
 * Threads  immutable after open
 */
#ifndef FORMATS_FORMATS_H
#define FORMATS_FORMATS_H

#include "base/file.h"
#include "base/json.h"
#include "tensor/tensor.h"

enum checkpoint_kind { CHECKPOINT_HF, CHECKPOINT_GGUF, CHECKPOINT_LLAMA2C, CHECKPOINT_TORCH };

/* llama2.c header, versions 0 to 2. Tensor names given: tok_embeddings.weight, layers.N.attention.wq.weight,
 * layers.N.attention_norm.weight, layers.N.feed_forward.w1.weight, layers.N.ffn_norm.weight, norm.weight,
 * output.weight (absent when shared). Version 2 tensors are dequantized to F32 (owned by the checkpoint). */
struct llama2c_header {
    int version, dim, hidden_dim, n_layer, n_head, n_kv_head, vocab, seq_len;
    bool shared_output;
    int group_size; /* version 2 */
};

struct checkpoint {
    enum checkpoint_kind kind;
    const char *path;   /* as given */
    const char *folder; /* where side files (tokenizer ...) lie: the folder, or the file's folder */
    const struct tensor *tensors;
    size_t n_tensor;
    const struct json *config; /* HF: config.json; TORCH: the pickled tree without tensors as JSON; else NULL */
    const struct gguf *gguf;   /* GGUF: metadata; else NULL */
    struct llama2c_header llama2c;
    uint64_t file_bytes; /* of all weight files */
    const struct checkpoint_file {
        const char *path;
        struct mapping map;
    } * files; /* all that were read, config.json included */
    size_t n_file;
};

MUST_USE enum status checkpoint_open(struct checkpoint **out, const char *path, struct error *err);
/* The same for one file's bytes, which must outlive the checkpoint. */
MUST_USE enum status checkpoint_open_memory(struct checkpoint **out, const void *data, size_t size, struct error *err);
void checkpoint_close(struct checkpoint *ck);
/* After everything was read from the tensors: ST_IO when a file lost bytes meanwhile, so that zeros were read. */
MUST_USE enum status checkpoint_check(const struct checkpoint *ck, struct error *err);
/* Numbers of a tensor, or a part of them, that were read and will not be soon: their pages may go. */
void checkpoint_forget(const struct checkpoint *ck, const void *data, size_t bytes);
const struct tensor *checkpoint_find(const struct checkpoint *ck, struct str name); /* NULL when absent */

/* ---- GGUF metadata: typed values read in place ---- */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};
struct gguf_value {
    struct str key;
    enum gguf_type type;       /* GGUF_ARRAY: see element */
    enum gguf_type element;    /* of an array (arrays of arrays are refused) */
    uint64_t count;            /* elements of an array, else 1 */
    const uint8_t *data;       /* first value, unaligned; strings: u64 length + bytes */
    const struct str *strings; /* array of strings: decoded views, [count]; else NULL */
};
struct gguf {
    uint32_t version;
    const struct gguf_value *values;
    size_t n_value;
    uint64_t alignment;
};
const struct gguf_value *gguf_find(const struct gguf *g, const char *key); /* NULL when absent */
/* Typed reads with a fallback for absent keys or other types; any integer type widens. */
int64_t gguf_int(const struct gguf *g, const char *key, int64_t otherwise);
double gguf_real(const struct gguf *g, const char *key, double otherwise);
bool gguf_bool(const struct gguf *g, const char *key, bool otherwise);
struct str gguf_string(const struct gguf *g, const char *key); /* ptr NULL when absent */
int64_t gguf_int_at(const struct gguf_value *array, uint64_t i, int64_t otherwise);
double gguf_real_at(const struct gguf_value *array, uint64_t i, double otherwise);

/* ---- writing ---- */
/* Rows of a tensor are produced on demand, so that a large model is never held twice: fill(ctx, out) writes t->bytes.
 */
struct tensor_out {
    struct str name;
    enum dtype type;
    int n_dim;
    int64_t shape[TENSOR_DIMS];
    enum status (*fill)(void *ctx, void *out, struct error *err);
    void *ctx;
};
/* model.safetensors (one file; sharded with an index beyond shard_bytes when that is not 0), metadata {"format":"pt"}.
 */
MUST_USE enum status safetensors_write(const char *folder, const struct tensor_out *tensors, size_t n,
                                       uint64_t shard_bytes, struct error *err);
/* A GGUF v3 writer: declare key-values, then tensors, then write all atomically. */
struct gguf_writer;
MUST_USE enum status gguf_writer_create(struct gguf_writer **out, struct error *err);
void gguf_put_int(struct gguf_writer *w, const char *key, enum gguf_type type, int64_t value); /* sticky failure */
void gguf_put_real(struct gguf_writer *w, const char *key, enum gguf_type type, double value);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_put_string(struct gguf_writer *w, const char *key, struct str value);
void gguf_put_strings(struct gguf_writer *w, const char *key, const struct str *values, size_t n);
void gguf_put_ints(struct gguf_writer *w, const char *key, enum gguf_type element, const int64_t *values, size_t n);
void gguf_put_reals(struct gguf_writer *w, const char *key, const float *values, size_t n);
MUST_USE enum status gguf_writer_commit(struct gguf_writer *w, const char *path, const struct tensor_out *tensors,
                                        size_t n, struct error *err); /* shapes as in struct tensor */
void gguf_writer_destroy(struct gguf_writer *w);

#endif
