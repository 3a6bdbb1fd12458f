/* The store of responses: found, forgotten when full, deleted; nothing is lost when memory fails. */
#include "test.h"

#include "base/fault.h"
#include "gateway/store.h"

static void put(struct store *s, int n, size_t size)
{
    char id[32];
    struct buf body = {0}, talk = {0};
    snprintf(id, sizeof id, "resp_%d", n);
    for (size_t i = 0; i < size; i++)
        buf_append_char(&body, (char)('a' + n % 26));
    buf_printf(&talk, "talk %d", n);
    store_put(s, 1, str_of(id), &body, &talk);
}

static bool has(struct store *s, int n)
{
    char id[32], want[32];
    struct buf out = {0};
    snprintf(id, sizeof id, "resp_%d", n);
    snprintf(want, sizeof want, "talk %d", n);
    bool found = store_conversation(s, 1, str_of(id), &out);
    assert_true(!found || str_is(buf_str(&out), want));
    buf_free(&out);
    return found;
}

static void test_store_keeps_events(void **state)
{
    struct store *s;
    struct error err;
    struct buf events = {0}, out = {0};
    (void)state;
    OK(store_create(&s, 10000, &err));
    put(s, 1, 100);
    assert_true(store_has(s, 1, STR("resp_1")) && !store_has(s, 1, STR("resp_2")));
    assert_false(store_events(s, 1, STR("resp_1"), &out));
    buf_append_str(&events, STR("data: 1\n\n"));
    store_add_events(s, 1, STR("resp_1"), &events);
    assert_false(store_events(s, 2, STR("resp_1"), &out) || store_has(s, 2, STR("resp_1"))); /* another tenant */
    assert_true(store_events(s, 1, STR("resp_1"), &out) && str_is(buf_str(&out), "data: 1\n\n"));
    buf_append_str(&events, STR("lost"));
    store_add_events(s, 1, STR("resp_2"), &events); /* nobody's: freed */
    assert_null(events.ptr);
    for (int i = 0; i < 20000; i++) /* what does not fit takes its response with it */
        buf_append_char(&events, 'e');
    store_add_events(s, 1, STR("resp_1"), &events);
    assert_false(store_has(s, 1, STR("resp_1")));
    buf_free(&out);
    store_destroy(s);
}

static void test_store_forgets_the_least_used(void **state)
{
    struct store *s;
    struct error err;
    (void)state;
    OK(store_create(&s, 100000, &err));
    for (int n = 0; n < 50; n++) {
        put(s, n, 8000);
        assert_true(has(s, n));
        assert_true(n < 1 || has(s, 1) || n == 0);
    }
    assert_true(has(s, 1)); /* asked for each time */
    assert_false(has(s, 2));
    assert_true(has(s, 49));
    put(s, 99, 200000); /* more than all of it: not kept, and neither is anything else */
    assert_false(has(s, 99));
    put(s, 7, 10);
    put(s, 7, 20); /* the same id again: the new one */
    assert_true(has(s, 7));
    assert_false(store_delete(s, 2, STR("resp_7"))); /* another tenant's */
    struct buf other = {0};
    assert_false(store_body(s, 2, STR("resp_7"), &other));
    assert_true(store_delete(s, 1, STR("resp_7")));
    assert_false(store_delete(s, 1, STR("resp_7")));
    for (int n = 1000; n < 1000 + 2 * STORE_ENTRIES_MAX; n++)
        put(s, n, 0);
    assert_true(has(s, 1000 + 2 * STORE_ENTRIES_MAX - 1));
    assert_false(has(s, 1000));
    store_destroy(s);
    store_destroy(NULL);
}

/* Who fills it loses what is its own; others lose only what is older than all of that. */
static void test_store_keeps_what_others_put(void **state)
{
    struct store *s;
    struct error err;
    (void)state;
    OK(store_create(&s, 4 << 20, &err));
    for (uint64_t tenant = 2; tenant < 4; tenant++) {
        struct buf body = {0}, talk = {0};
        buf_append_str(&talk, STR("kept"));
        store_put(s, tenant, STR("resp_other"), &body, &talk);
    }
    for (int n = 0; n < 2 * STORE_ENTRIES_MAX; n++)
        put(s, n, 0);
    put(s, 9999, 3000000); /* at once in the place of many */
    assert_true(store_has(s, 2, STR("resp_other")) && store_has(s, 3, STR("resp_other")));
    assert_true(has(s, 9999) && has(s, 2 * STORE_ENTRIES_MAX - 1));
    assert_false(has(s, STORE_ENTRIES_MAX));
    store_destroy(s);
}

static void test_store_survives_failing_memory(void **state)
{
    struct store *s;
    struct error err;
    (void)state;
    for (uint64_t n = 1;; n++) {
        fault_arm(FAULT_ALLOC, n);
        enum status st = store_create(&s, 1000, &err);
        if (st == ST_OK) {
            put(s, 1, 10);
            has(s, 1);
            store_destroy(s);
        }
        bool fired = fault_fired();
        fault_disarm();
        if (!fired)
            break;
        assert_true(n < 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_keeps_events),
        cmocka_unit_test(test_store_forgets_the_least_used),
        cmocka_unit_test(test_store_keeps_what_others_put),
        cmocka_unit_test(test_store_survives_failing_memory),
    };
    return RUN(tests);
}
