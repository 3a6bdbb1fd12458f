/* Real clients from PyPI against the stand-in engine: clients.py, by the Python of INGOT_TEST_PYTHON [python3]. */
#include "test.h"

#include "gateway/harness.h"

#include <sys/wait.h>

static void test_clients(void **state)
{
    const char *python = getenv("INGOT_TEST_PYTHON") ? getenv("INGOT_TEST_PYTHON") : "python3";
    int status = 0;
    (void)state;
    fake_bundle.template_source = STR("{{ tools }} <tool_call> </think> enable_thinking");
    start_with(&(struct gateway_options){.host = "127.0.0.1"});
    pid_t pid = fork();
    if (pid == 0) {
        execlp(python, python, TEST_DIR "/gateway/clients.py", gateway_url(gateway), (char *)NULL);
        _exit(77);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    stop(NULL);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_clients)};
    return RUN(tests);
}
