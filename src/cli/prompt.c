/* The tokenizer of what people call a model. */
#include "base/file.h"
#include "cli/cli.h"

enum status cli_tokenizer_open(struct tokenizer **out, const char *path, struct error *err)
{
    struct error ignored;
    struct checkpoint *ck;
    enum status st = tokenizer_open(out, path, err);
    if (st == ST_OK || st == ST_NOMEM || file_kind(path) != FILE_REGULAR || checkpoint_open(&ck, path, &ignored))
        return st;
    st = tokenizer_from_checkpoint(out, ck, err); /* a model file with a tokenizer beside it */
    checkpoint_close(ck);
    return st;
}
