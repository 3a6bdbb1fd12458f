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

/* fn(0), fn(1) ... on threads of their own; each returns what went wrong, or NULL. */
static void run_threads(int n, void *(*fn)(void *))
{
    pthread_t threads[8];
    assert_in_range(n, 1, 8);
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fn, (void *)(intptr_t)i), 0);
    for (int i = 0; i < n; i++) {
        void *why;
        pthread_join(threads[i], &why);
        if (why)
            fail_msg("%s", (const char *)why);
    }
}

#endif
