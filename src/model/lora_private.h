/* lora_private - an adapter's matrices, and a run's memory for meeting them: lora.c, lora_run.c */
#ifndef MODEL_LORA_PRIVATE_H
#define MODEL_LORA_PRIVATE_H

#include "model/private.h"

struct lora_pair {      /* panels NULL: this matrix has none */
    struct weight a, b; /* [rank, n_in]; [n_out, rank], scaled */
};
struct lora {
    struct lora_pair *pairs; /* [n_pair], by parameter */
    struct lora_pair head;   /* of the output product, where the embedding's matrix serves for it */
    int n_pair;
    void *block;
    char digest[SHA256_TEXT];
    uint64_t key;
    int users; /* atomic */
};

#endif
