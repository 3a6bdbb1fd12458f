/* fuzz_train_config - any bytes as the YAML of a training run, then as one flag: an error of one line, or a
 * configuration whose schedule is a number. */
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct error *err)
{
    if (!err->text[0] || strchr(err->text, '\n'))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = str_n(data, size);
    struct train_config c;
    struct error err = {0};
    if (train_config_init(&c, &err) != ST_OK)
        abort();
    size_t equal = str_find(text, STR("="), 0);
    enum status st = equal == SIZE_MAX ? train_config_read(&c, text, &err)
                                       : train_config_set(&c, str_n(text.ptr, equal), str_from(text, equal + 1), &err);
    if (st == ST_OK)
        st = train_config_check(&c, &err);
    if (st != ST_OK)
        check(&err);
    for (int64_t done = 0; st == ST_OK && done <= 100; done += 10)
        if (!isfinite(train_lr(&c, done, 100)))
            abort();
    train_config_free(&c);
    return 0;
}
