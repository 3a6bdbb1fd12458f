/* loading - inside the room: a checkpoint while it is being opened, and the readers of each container
 *
 * Memory   one budget for everything a load allocates, so that it stays below 8x the mapped bytes plus 16 MiB.
 *          Structures come from `arena`, tensors and names through loading_reserve; both count against it
 */
#ifndef FORMATS_LOADING_H
#define FORMATS_LOADING_H

#include "base/file.h"
#include "base/map.h"
#include "formats/formats.h"

enum { NAME_BYTES_MAX = 65535 }; /* of a tensor or a GGUF key */

struct loading {
    struct checkpoint pub; /* first: a struct checkpoint * of this room is a struct loading * */
    struct arena arena;
    uint64_t mapped_bytes;         /* of all files, on which the budget depends */
    struct checkpoint_file *files; /* [pub.n_file] */
    size_t file_capacity;
    struct tensor *tensors; /* [reserved] */
    size_t reserved;
    struct map names;   /* tensor name to index */
    const char *prefix; /* of the names of tensors that are added; NULL: none */
};

/* Room for n more tensors, counted against the budget. */
MUST_USE enum status loading_reserve(struct loading *l, uint64_t n, struct error *err);
/* Adds a tensor (reserved before); ST_CORRUPT when the name is taken. `format` begins the sentence. */
MUST_USE enum status loading_add(struct loading *l, const struct tensor *t, const char *format, struct error *err);
/* From the arena; ST_LIMIT when the budget is used up, ST_NOMEM when memory is. */
MUST_USE enum status loading_alloc(void **out, struct loading *l, uint64_t count, size_t size, const char *what,
                                   struct error *err);
/* `text` must outlive the checkpoint; `what` begins the sentence of a failure. */
MUST_USE enum status loading_parse_json(const struct json **out, struct loading *l, struct str text, unsigned flags,
                                        const char *what, struct error *err);

/* Checks dimensions and sets t->bytes: each in 0..2^48, product and bytes without overflow, rows of whole blocks. */
MUST_USE enum status tensor_measure(struct tensor *t, const char *format, struct error *err);

enum container { CONTAINER_UNKNOWN, CONTAINER_SAFETENSORS, CONTAINER_GGUF, CONTAINER_LLAMA2C, CONTAINER_ZIP };
enum container container_of_bytes(const uint8_t *data, size_t size);

MUST_USE enum status gguf_read(struct loading *l, const uint8_t *data, size_t size, struct error *err);
MUST_USE enum status safetensors_read(struct loading *l, const uint8_t *data, size_t size, struct error *err);
MUST_USE enum status llama2c_read(struct loading *l, const uint8_t *data, size_t size, struct error *err);
bool llama2c_matches(const uint8_t *data, size_t size);
/* When `config` is true the tree without its tensors becomes pub.config. */
MUST_USE enum status torch_read(struct loading *l, const uint8_t *data, size_t size, bool config, struct error *err);

/* AWQ and GPTQ (config's quantization_config): adds X.weight for each X.qweight. */
MUST_USE enum status packed_read(struct loading *l, const struct json *config, struct error *err);

/* checkpoint_open_memory with the text of the config.json beside the file; it must outlive the checkpoint, too. */
MUST_USE enum status checkpoint_open_memory_with(struct checkpoint **out, const void *data, size_t size,
                                                 struct str config, struct error *err);

#endif
