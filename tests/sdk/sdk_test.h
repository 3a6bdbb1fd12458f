/* What the tests of the library share. */
#ifndef SDK_TEST_H
#define SDK_TEST_H

#include "test.h"

#include "base/fault.h"

#include <ingot.h>
#include <pthread.h>

static const char *const storyteller = TEST_DIR "/../models/storyteller.gguf";
static ingot_error error;

#define GOOD(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) != INGOT_OK)                                                                                        \
            fail_msg("%s: %s", #call, error.text);                                                                     \
    } while (0)
#define BAD(expected, says, call)                                                                                      \
    do {                                                                                                               \
        assert_int_equal(call, expected);                                                                              \
        assert_int_equal(error.status, expected);                                                                      \
        if (!strstr(error.text, says))                                                                                 \
            fail_msg("%s: %s", #call, error.text);                                                                     \
    } while (0)

#endif
