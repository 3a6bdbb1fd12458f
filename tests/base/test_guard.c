/* test_guard - mapped files that lose their bytes; checksums; what tells that a file is unchanged */
#include "test.h"

#include "base/checksum.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/rng.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { BYTES = 64 << 10, LOST = 99 };
static struct error err;
static char folder[64], path[96];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ingot-guard-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    path_join(path, sizeof path, folder, "file");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static void write_file(void)
{
    static char bytes[BYTES];
    memset(bytes, 'x', sizeof bytes);
    OK(file_write_all(path, str_n(bytes, sizeof bytes), &err));
}

static void on_lost(void)
{
    _exit(LOST);
}

static void test_lost_bytes_read_as_zeros_and_are_told(void **state)
{
    (void)state;
    struct mapping m, whole;
    guard_install(on_lost);
    write_file();
    OK(file_map(&m, path, &err));
    OK(file_map(&whole, path, &err));
    assert_int_equal(truncate(path, 5000), 0); /* the second page stays, up to the new end */
    int zeros = 0;
    for (size_t i = 0; i < m.size; i++)
        zeros += m.data[i] == 0;
    assert_int_equal(zeros, BYTES - 5000);
    FAILS(ST_IO, file_check(&m, path, &err));
    assert_non_null(strstr(err.text, path));
    assert_true(whole.data[4999] == 'x');
    OK(file_check(&whole, path, &err)); /* it has not been noticed there */
    file_unmap(&m);
    file_unmap(&whole);
    write_file();
    OK(file_map(&m, path, &err)); /* a new mapping, perhaps at the same address, begins anew */
    OK(file_check(&m, path, &err));
    file_unmap(&m);
}

static int exit_of(void (*child_main)(void))
{
    int how;
    pid_t child = fork();
    if (child == 0) {
        child_main();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -WTERMSIG(how);
}

static void read_essential(void)
{
    struct mapping m;
    write_file();
    if (file_map(&m, path, &err) != ST_OK)
        _exit(1);
    guard_essential(m.data);
    if (truncate(path, 0) != 0 || *(volatile const uint8_t *)m.data == 'x')
        _exit(2);
}

static void read_unguarded(void)
{
    write_file();
    int fd = open(path, O_RDONLY);
    volatile const char *p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (truncate(path, 0) != 0 || p[0] == 'x')
        _exit(2);
}

static void test_what_cannot_be_undone_ends_the_program(void **state)
{
    (void)state;
    guard_install(on_lost);
    assert_int_equal(exit_of(read_essential), LOST);
    assert_int_equal(exit_of(read_unguarded), -SIGBUS); /* not ours: as without a guard */
}

static void test_more_mappings_than_guards(void **state)
{
    (void)state;
    enum { N = GUARD_MAX + 20 };
    static struct mapping m[N];
    write_file();
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++)
            OK(file_map(&m[i], path, &err));
        for (int i = 0; i < N; i++)
            file_unmap(&m[i]);
    }
}

/* Every length's every bit counts, and so do pairs of the same bit in neighbouring words, which cancel in weak sums. */
static void test_checksum_notices(void **state)
{
    (void)state;
    enum { N = 300 };
    uint8_t bytes[N], copy[N];
    struct rng r;
    rng_init(&r, 3);
    for (int i = 0; i < N; i++)
        bytes[i] = (uint8_t)rng_below(&r, 256);
    for (size_t n = 0; n < N; n += n < 20 ? 1 : 37) {
        uint64_t sum = checksum64(bytes, n, 7);
        assert_true(sum == checksum64(bytes, n, 7));
        assert_true(sum != checksum64(bytes, n, 8));
        assert_true(sum != checksum64(bytes, n + 1, 7));
        for (size_t bit = 0; bit < n * 8; bit++) {
            memcpy(copy, bytes, n);
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_true(sum != checksum64(copy, n, 7));
            for (size_t step = 8; step <= 64; step += 56)
                if (bit / 8 + step < n) {
                    copy[bit / 8 + step] ^= (uint8_t)(1 << bit % 8);
                    assert_true(sum != checksum64(copy, n, 7));
                    copy[bit / 8 + step] ^= (uint8_t)(1 << bit % 8);
                }
        }
    }
    memset(copy, 0, sizeof copy);
    assert_true(checksum64(copy, 64, 0) != checksum64(copy, 128, 0));
}

/* After file_settle any write shows, one through a mapping that was dirty before as well. */
static void test_settled_files_show_every_write(void **state)
{
    (void)state;
    struct file_id a, b;
    write_file();
    int fd = open(path, O_RDWR);
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    p[100] = 'y'; /* dirty, and its change time is now */
    OK(file_settle(&a, path, &err));
    assert_true(file_identify(&b, path) && file_id_equal(&a, &b));
    p[101] = 'z';
    assert_true(file_identify(&b, path));
    assert_false(file_id_equal(&a, &b));
    OK(file_settle(&a, path, &err));
    assert_true(file_id_equal(&a, &b) || a.changed_ns > b.changed_ns);
    struct timespec times[2] = {{a.modified_ns / 1000000000, a.modified_ns % 1000000000}};
    times[1] = times[0];
    assert_int_equal(pwrite(fd, "w", 1, 5), 1);
    assert_int_equal(futimens(fd, times), 0); /* the modification time can be set back, the change time cannot */
    assert_true(file_identify(&b, path));
    assert_true(b.modified_ns == a.modified_ns && b.changed_ns != a.changed_ns);
    munmap(p, BYTES);
    close(fd);
    clock_jump(0, -(int64_t)3600 * 1000000000); /* as if it came from the future */
    FAILS(ST_UNSUPPORTED, file_settle(&a, path, &err));
    clock_jump(0, (int64_t)3600 * 1000000000);
    assert_false(file_identify(&a, folder));
    FAILS(ST_NOT_FOUND, file_settle(&a, "/no/such/file", &err));
    fault_arm(FAULT_FSYNC, 1);
    FAILS(ST_IO, file_settle(&a, path, &err));
    fault_disarm();
}

static void test_own_files(void **state)
{
    (void)state;
    char own[160], link[160], sub[128];
    struct file_writer w;
    struct mapping m;
    struct stat st;
    path_join(sub, sizeof sub, folder, "a/b");
    OK(file_make_own_folder(sub, &err));
    OK(file_make_own_folder(sub, &err));
    path_join(own, sizeof own, sub, "own");
    OK(file_writer_open_own(&w, own, &err));
    file_writer_seek(&w, 3 << 20);
    file_writer_write(&w, "end", 3);
    file_writer_seek(&w, 0);
    file_writer_write(&w, "start", 5);
    OK(file_writer_commit(&w, &err));
    assert_int_equal(stat(own, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0400);
    OK(file_map_own(&m, own, &err));
    assert_int_equal(m.size, (3 << 20) + 3);
    assert_int_equal((uintptr_t)m.data % (2 << 20), 0);
    assert_memory_equal(m.data, "start", 5);
    assert_memory_equal(m.data + (3 << 20), "end", 3);
    file_unmap(&m);
    path_join(link, sizeof link, sub, "link");
    assert_int_equal(symlink(own, link), 0);
    assert_true(file_map_own(&m, link, &err) != ST_OK);
    assert_int_equal(chmod(own, 0620), 0);
    FAILS(ST_DENIED, file_map_own(&m, own, &err));
    for (int fault = 0; fault < 2; fault++) {
        assert_int_equal(chmod(own, 0600), 0);
        fault_arm(fault ? FAULT_MMAP : FAULT_OPEN, 1);
        assert_true(file_map_own(&m, own, &err) != ST_OK);
        fault_disarm();
    }
    assert_int_equal(chmod(sub, 0770), 0);
    FAILS(ST_DENIED, file_make_own_folder(sub, &err));
    FAILS(ST_DENIED, file_make_own_folder(own, &err));
    int lock = file_lock(link); /* never through a link */
    assert_int_equal(lock, -1);
    assert_int_equal(unlink(link), 0);
    lock = file_lock(link);
    assert_true(lock >= 0);
    assert_int_equal(file_lock(link), -1);
    file_unlock(lock);
    lock = file_lock(link);
    assert_true(lock >= 0);
    file_unlock(lock);
    uint64_t available, total;
    assert_true(file_space(&available, &total, folder) && available <= total && total > 0);
    assert_false(file_space(&available, &total, "/no/such/file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_bytes_read_as_zeros_and_are_told),
        cmocka_unit_test(test_what_cannot_be_undone_ends_the_program),
        cmocka_unit_test(test_more_mappings_than_guards),
        cmocka_unit_test(test_checksum_notices),
        cmocka_unit_test(test_settled_files_show_every_write),
        cmocka_unit_test(test_own_files),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
