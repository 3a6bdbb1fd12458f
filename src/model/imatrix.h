/* imatrix - how much each input of each matrix matters: the mean square of what flows into its columns
 *
 * Files    llama.cpp's, in GGUF: NAME.in_sum2 [n_expert, n_in] and NAME.counts [n_expert, 1], f32; NAME as in a GGUF
 *          model ("blk.0.attn_q.weight"). The .dat files of before are read, too; both are recognised by their bytes
 */
#ifndef MODEL_IMATRIX_H
#define MODEL_IMATRIX_H

#include "model/model.h"

struct imatrix;
MUST_USE enum status imatrix_open(struct imatrix **out, const char *path, struct error *err);
/* The same of a file's bytes, which need not outlive the call. */
MUST_USE enum status imatrix_open_memory(struct imatrix **out, const void *data, size_t size, struct error *err);
void imatrix_close(struct imatrix *m);
/* Mean squares of the columns of `name`'s matrix (of an expert's), or NULL; ST_INVALID when n_in or n_expert is not the
 * file's. */
MUST_USE enum status imatrix_find(const float **out, const struct imatrix *m, struct str name, int64_t n_in,
                                  int n_expert, int expert, struct error *err);
int imatrix_count(const struct imatrix *m); /* matrices it knows */

/* ---- collecting: from a model loaded with `keep` and `exact` ---- */
struct imatrix_sums;
MUST_USE enum status imatrix_sums_create(struct imatrix_sums **out, const struct model *m, struct error *err);
/* Adds what flowed through the matrices of the layers in the last forward of `r`. */
void imatrix_sums_add(struct imatrix_sums *s, const struct model_run *r);
/* `dataset` names the text, `chunk_size` its chunks' tokens: kept in the file for people. */
MUST_USE enum status imatrix_sums_write(const struct imatrix_sums *s, const char *path, const char *dataset,
                                        int n_chunk, int chunk_size, struct error *err);
void imatrix_sums_free(struct imatrix_sums *s);

#endif
