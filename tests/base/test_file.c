#include "test.h"

#include "base/fault.h"
#include "base/file.h"

#include <sys/stat.h>

static struct error err;
static char folder[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ingot-file-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static char *in_folder(const char *name)
{
    static char path[4][256]; /* the last four stay valid */
    static unsigned turn;
    turn = (turn + 1) % 4;
    return path_join(path[turn], sizeof path[turn], folder, name);
}

static enum status count_one(void *ctx, const char *name, struct error *e)
{
    (void)name, (void)e;
    ++*(int *)ctx;
    return ST_OK;
}

static int count_entries(const char *path)
{
    int n = 0;
    OK(file_each(path, count_one, &n, &err));
    return n;
}

static void check_content(const char *path, const char *want)
{
    struct buf got = {0};
    OK(file_read_all(&got, path, 1 << 20, &err));
    assert_true(str_is(buf_str(&got), want));
    buf_free(&got);
}

static void test_file_writes_and_reads(void **state)
{
    (void)state;
    char *path = in_folder("a");
    struct mapping m;
    OK(file_write_all(path, STR("hello"), &err));
    check_content(path, "hello");
    OK(file_map(&m, path, &err));
    assert_int_equal(m.size, 5);
    assert_memory_equal(m.data, "hello", 5);
    file_unmap(&m);
    OK(file_write_all(path, STR(""), &err));
    OK(file_map(&m, path, &err));
    assert_true(m.size == 0 && m.data);
    file_unmap(&m);
    struct buf b = {0};
    OK(file_write_all(path, STR("0123456789"), &err));
    FAILS(ST_LIMIT, file_read_all(&b, path, 9, &err));
    buf_clear(&b);
    OK(file_read_all(&b, path, 10, &err));
    buf_free(&b);
    FAILS(ST_NOT_FOUND, file_map(&m, in_folder("absent"), &err));
    assert_non_null(strstr(err.text, "absent"));
    FAILS(ST_INVALID, file_map(&m, folder, &err));
    FAILS(ST_INVALID, file_read_all(&b, folder, 10, &err));
    assert_non_null(strstr(err.text, "found a folder"));
    buf_free(&b);
    FAILS(ST_INVALID, file_write_all(folder, STR("x"), &err));
    FAILS(ST_NOT_FOUND, file_write_all(in_folder("no/such"), STR("x"), &err));
    OK(file_remove(path, &err));
    FAILS(ST_NOT_FOUND, file_remove(path, &err));
}

static void test_file_folders_and_names(void **state)
{
    (void)state;
    OK(file_make_folders(in_folder("x/y//z/"), &err));
    OK(file_make_folders(in_folder("x/y/z"), &err));
    assert_int_equal(file_kind(in_folder("x/y/z")), FILE_FOLDER);
    OK(file_write_all(in_folder("x/f"), STR("1"), &err));
    assert_int_equal(file_kind(in_folder("x/f")), FILE_REGULAR);
    assert_int_equal(file_kind(in_folder("x/g")), FILE_ABSENT);
    assert_int_equal(file_kind("/dev/null"), FILE_OTHER);
    assert_true(file_make_folders(in_folder("x/f/g"), &err) != ST_OK);
    assert_int_equal(count_entries(in_folder("x")), 2);
    static const struct {
        const char *path, *base, *stem;
    } names[] = {{"a/b/c.gguf", "c.gguf", "c"},
                 {"a/b/", "b", "b"},
                 {"c", "c", "c"},
                 {"a/.hidden", ".hidden", ".hidden"},
                 {"/", "/", "/"},
                 {"x.tar.gz", "x.tar.gz", "x.tar"},
                 {"a//", "a", "a"},
                 {"", "", ""}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_true(str_is(path_base(str_of(names[i].path)), names[i].base));
        assert_true(str_is(path_stem(str_of(names[i].path)), names[i].stem));
    }
    char small[4];
    assert_string_equal(path_join(small, sizeof small, "ab", "cd"), "ab/");
}

/* As root, a rename would replace the device by a file. */
static void test_file_devices_are_written_in_place(void **state)
{
    (void)state;
    FAILS(ST_IO, file_write_all("/dev/full", STR("x"), &err));
    assert_non_null(strstr(err.text, "/dev/full: cannot write: No space left"));
    OK(file_write_all("/dev/null", STR("x"), &err));
    assert_int_equal(file_kind("/dev/full"), FILE_OTHER);
    assert_int_equal(file_kind("/dev/null"), FILE_OTHER);
}

static void test_file_writer_is_invisible_before_commit(void **state)
{
    (void)state;
    OK(file_make_folders(in_folder("w"), &err));
    char *path = in_folder("w/new");
    struct file_writer w;
    OK(file_writer_open(&w, path, &err));
    file_writer_write(&w, "abc", 3);
    assert_int_equal(file_kind(path), FILE_ABSENT);
    file_writer_abort(&w);
    file_writer_abort(&w); /* harmless twice */
    assert_int_equal(count_entries(in_folder("w")), 0);
    path = in_folder("w/new");
    OK(file_writer_open(&w, path, &err));
    file_writer_write(&w, "abc", 3);
    assert_int_equal(w.offset, 3);
    OK(file_writer_commit(&w, &err));
    file_writer_abort(&w);
    check_content(path, "abc");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(st.st_mode & 0777, 0666 & ~mask); /* as any file one writes, not mkstemp's 0600 */
}

/* Every failure at every point: afterwards the old bytes or the new ones, and no temporary file. */
static void test_file_write_faults_leave_old_or_new(void **state)
{
    (void)state;
    static const enum fault_point points[] = {FAULT_ALLOC, FAULT_OPEN, FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME};
    OK(file_make_folders(in_folder("f"), &err));
    char path[256];
    strcpy(path, in_folder("f/data"));
    int fired_total = 0;
    for (size_t p = 0; p < sizeof points / sizeof *points; p++)
        for (uint64_t n = 1;; n++) {
            OK(file_write_all(path, STR("old"), &err));
            fault_arm(points[p], n);
            enum status st = file_write_all(path, STR("new!"), &err);
            bool fired = fault_fired();
            fault_disarm();
            assert_int_equal(st != ST_OK, fired);
            struct buf got = {0};
            OK(file_read_all(&got, path, 100, &err));
            bool is_new = str_is(buf_str(&got), "new!");
            assert_true(is_new || str_is(buf_str(&got), "old"));
            assert_true(is_new || st != ST_OK);
            buf_free(&got);
            assert_int_equal(count_entries(in_folder("f")), 1);
            fired_total += fired;
            if (!fired)
                break;
        }
    assert_true(fired_total >= 8); /* 3 allocations, 2 opens, 1 write, 2 syncs, 1 rename */
}

static void test_file_read_faults(void **state)
{
    (void)state;
    static const enum fault_point points[] = {FAULT_ALLOC, FAULT_OPEN, FAULT_READ, FAULT_MMAP};
    char path[256];
    strcpy(path, in_folder("r"));
    OK(file_write_all(path, STR("content"), &err));
    for (size_t p = 0; p < sizeof points / sizeof *points; p++)
        for (uint64_t n = 1;; n++) {
            struct buf b = {0};
            struct mapping m;
            int seen = 0;
            fault_arm(points[p], n);
            enum status st = file_read_all(&b, path, 100, &err);
            enum status st2 = file_map(&m, path, &err);
            enum status st3 = file_each(folder, count_one, &seen, &err);
            bool fired = fault_fired();
            fault_disarm();
            assert_int_equal(st != ST_OK || st2 != ST_OK || st3 != ST_OK, fired);
            buf_free(&b);
            file_unmap(&m);
            if (!fired) {
                assert_true(n > 1);
                break;
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_writes_and_reads),
        cmocka_unit_test(test_file_folders_and_names),
        cmocka_unit_test(test_file_devices_are_written_in_place),
        cmocka_unit_test(test_file_writer_is_invisible_before_commit),
        cmocka_unit_test(test_file_write_faults_leave_old_or_new),
        cmocka_unit_test(test_file_read_faults),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
