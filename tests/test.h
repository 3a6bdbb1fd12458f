/* test - what every test program includes: cmocka, and where the data lies
 *
 *   static void test_buf_grows(void **state) { ... }
 *   int main(void) { const struct CMUnitTest tests[] = {cmocka_unit_test(test_buf_grows)}; return RUN(tests); }
 *
 * Golden files: tests/golden (TEST_DIR "/golden/..."). Larger data: SHARED("data/..."), which may be absent: such a
 * test calls NEED(path), which skips and says so.
 */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* cmocka's macro fail() would swallow ours; fail_msg is the one tests use. */
#undef fail
#undef fail_msg
#define fail_msg(msg, ...)                                                                                             \
    do {                                                                                                               \
        print_error("ERROR: " msg "\n", ##__VA_ARGS__);                                                                \
        _fail(__FILE__, __LINE__);                                                                                     \
    } while (0)

#include "base/status.h"

#define SHARED(path) SHARED_DIR "/" path
#define GOLDEN(path) TEST_DIR "/golden/" path
#define NEED(path)                                                                                                     \
    do {                                                                                                               \
        if (access(path, R_OK) != 0) {                                                                                 \
            print_message("skipped: %s is not here\n", path);                                                          \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)
#define RUN(tests) cmocka_run_group_tests(tests, NULL, NULL)

/* The call must succeed; prints the error's sentence when not. Wants a `struct error err` in scope. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        enum status ok_ = (call);                                                                                      \
        if (ok_ != ST_OK)                                                                                              \
            fail_msg("%s: %s: %s", #call, status_row(ok_)->name, err.text);                                            \
    } while (0)
/* The call must fail with this status. */
#define FAILS(expected, call)                                                                                          \
    do {                                                                                                               \
        enum status got_ = (call);                                                                                     \
        if (got_ != (expected))                                                                                        \
            fail_msg("%s: got %s (%s), expected %s", #call, status_row(got_)->name, got_ ? err.text : "",              \
                     status_row(expected)->name);                                                                      \
    } while (0)

#endif
