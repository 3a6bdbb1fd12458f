/* convert - what writing a model beside another takes, for the commands convert and quantize (cmd_convert.c) */
#ifndef CLI_CONVERT_H
#define CLI_CONVERT_H

#include "cli/cli.h"

/* The files beside a model that make it speak: they go along as they are. */
MUST_USE enum status cli_side_files_copy(const char *from, const char *to, struct error *err);
/* ST_INVALID when `out` is the model that is read. */
MUST_USE enum status cli_check_apart(const struct checkpoint *ck, const char *out, bool gguf, struct error *err);

#endif
