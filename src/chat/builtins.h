/* builtins - how filters, tests and functions are written, and the tables that list them */
#ifndef CHAT_BUILTINS_H
#define CHAT_BUILTINS_H

#include "chat/strings.h"

#define BUILTIN(name)                                                                                                  \
    static enum status name(struct run *r, struct value *out, const struct value *self, const struct value *a,         \
                            const struct args *raw)
#define UNUSED (void)r, (void)out, (void)self, (void)a, (void)raw

extern const struct builtin text_filters[], list_filters[];
extern const size_t n_text_filter, n_list_filter;
extern const struct builtin string_methods[];
extern const size_t n_string_method;

#endif
