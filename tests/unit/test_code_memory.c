/* SPDX-License-Identifier: Apache-2.0 */
/* Code memory: what is written in one view runs in the other, and no view allows both. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/code_memory.h"
#include "host/usage.h"

#define PAGE 4096u

static struct host_code mapped(size_t size)
{
    struct host_code c;
    struct error e = { 0 };
    if (host_code_map(&c, size, &e))
        fail_msg("%s", e.text);
    return c;
}

/* mov eax, n; ret */
static void write_return(const struct host_code *c, size_t off, uint32_t n)
{
    c->write[off] = 0xb8;
    memcpy(c->write + off + 1, &n, 4);
    c->write[off + 5] = 0xc3;
}

static uint32_t call(const struct host_code *c, size_t off)
{
    return ((uint32_t(*)(void))(uintptr_t)(c->exec + off))();
}

/* Permissions of the mapping at `p`, such as "r-xs", and what it is said to be of. */
static void mapping(const void *p, char out[8], char name[512])
{
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    char line[512];
    strcpy(out, "none");
    while (fgets(line, sizeof(line), f)) {
        unsigned long first, end;
        char perm[8];
        int at = 0;
        if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %n", &first, &end, perm, &at) == 3 &&
            first <= (uintptr_t)p && (uintptr_t)p < end) {
            strcpy(out, perm);
            strcpy(name, line + at);
        }
    }
    fclose(f);
}

static void permissions(const void *p, char out[8])
{
    char name[512];
    mapping(p, out, name);
}

static void code_written_in_one_view_runs_in_the_other(void **s)
{
    (void)s;
    struct host_code c = mapped(64 * PAGE);
    write_return(&c, 0, 7);
    write_return(&c, 63 * PAGE, 1234567);
    assert_int_equal(call(&c, 0), 7);
    assert_int_equal(call(&c, 63 * PAGE), 1234567);
    write_return(&c, 0, 8); /* and again after a change */
    assert_int_equal(call(&c, 0), 8);
    host_code_unmap(&c);
}

static void no_view_is_writable_and_executable(void **s)
{
    (void)s;
    struct host_code c = mapped(PAGE);
    char perm[8];
    permissions(c.write, perm);
    assert_string_equal(perm, "rw-s");
    permissions(c.exec, perm);
    assert_string_equal(perm, "r-xs");
    host_code_unmap(&c);
}

/* perf(1) takes names of code from its map where a mapping's begins like this. */
static void perf_takes_it_for_made_code(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct host_code c;
    assert_int_equal(host_code_map_for_perf(&c, 3 * PAGE, &e), 0);
    write_return(&c, 2 * PAGE, 7);
    assert_int_equal(call(&c, 2 * PAGE), 7);
    host_code_discard(&c, 2 * PAGE, PAGE);
    assert_int_equal(c.exec[2 * PAGE], 0);
    char perm[8], name[512];
    mapping(c.exec, perm, name);
    assert_string_equal(perm, "r-xs");
    assert_memory_equal(name, "/dev/zero", 9);
    mapping(c.write, perm, name);
    assert_string_equal(perm, "rw-s");
    assert_int_equal(c.fd, -1);
    const uint8_t *exec = c.exec;
    host_code_unmap(&c);
    permissions(exec, perm);
    assert_string_equal(perm, "none");
}

static void the_size_is_sealed(void **s)
{
    (void)s;
    struct host_code c = mapped(PAGE + 1);
    assert_int_equal(c.size, 2 * PAGE);
    assert_true(fcntl(c.fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(ftruncate(c.fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(c.fd, 4 * PAGE), -1);
    assert_int_equal(fcntl(c.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    host_code_unmap(&c);
}

static unsigned long pages_held(const struct host_code *c)
{
    struct stat st;
    assert_int_equal(fstat(c->fd, &st), 0);
    return (unsigned long)st.st_blocks * 512 / PAGE;
}

static void discarded_pages_go_back_to_the_host(void **s)
{
    (void)s;
    struct host_code c = mapped(8 * PAGE);
    assert_int_equal(pages_held(&c), 0);
    memset(c.write, 0x90, c.size);
    assert_int_equal(pages_held(&c), 8);
    host_code_discard(&c, PAGE + 1, 3 * PAGE); /* whole: pages 2 and 3 */
    assert_int_equal(pages_held(&c), 6);
    host_code_discard(&c, 5 * PAGE, PAGE - 1); /* no whole page */
    assert_int_equal(pages_held(&c), 6);
    host_code_discard(&c, 7 * PAGE, SIZE_MAX); /* the end is cut off */
    assert_int_equal(pages_held(&c), 5);
    host_code_discard(&c, SIZE_MAX, 8);
    assert_int_equal(pages_held(&c), 5);
    /* Looking comes last: it makes the host fill the page again. */
    assert_int_equal(c.exec[2 * PAGE - 1], 0x90);
    assert_int_equal(c.exec[2 * PAGE], 0);
    assert_int_equal(c.exec[4 * PAGE - 1], 0);
    assert_int_equal(c.exec[4 * PAGE], 0x90);
    write_return(&c, 3 * PAGE, 5); /* they can be used again */
    assert_int_equal(call(&c, 3 * PAGE), 5);
    host_code_unmap(&c);
}

static void settled_pages_are_resident_once(void **s)
{
    (void)s;
    struct host_code c = mapped(64 * PAGE);
    struct host_usage u;
    struct host_range views[] = { { c.write, c.size, 0 }, { c.exec, c.size, 0 } };
    uint32_t sum = 0;
    memset(c.write, 0x90, c.size);
    for (size_t off = 0; off < c.size; off += PAGE)
        sum += c.exec[off];
    assert_int_equal(sum, 64 * 0x90);
    assert_true(host_usage_read(&u, views, 2));
    assert_int_equal(views[0].resident, 64 * PAGE);
    assert_int_equal(views[1].resident, 64 * PAGE);
    write_return(&c, 32 * PAGE, 77);
    host_code_settle(&c, 0, c.size - 1); /* all but the last page */
    assert_true(host_usage_read(&u, views, 2));
    assert_int_equal(views[0].resident, PAGE);
    assert_int_equal(views[1].resident, 64 * PAGE);
    assert_int_equal(call(&c, 32 * PAGE), 77); /* nothing is lost */
    write_return(&c, 32 * PAGE, 78);
    assert_int_equal(call(&c, 32 * PAGE), 78);
    host_code_unmap(&c);
}

static void prepared_pages_are_resident(void **s)
{
    (void)s;
    struct host_code c = mapped(64 * PAGE);
    struct host_usage u;
    struct host_range view = { c.write, c.size, 0 };
    host_code_prepare(&c, PAGE + 1, 9 * PAGE);  /* whole: pages 2 to 9 */
    host_code_prepare(&c, 63 * PAGE, SIZE_MAX); /* the end is cut off */
    host_code_prepare(&c, SIZE_MAX, 8);
    assert_true(host_usage_read(&u, &view, 1));
    if (!view.resident)
        skip(); /* a host that does not know it */
    assert_int_equal(view.resident, 9 * PAGE);
    write_return(&c, 2 * PAGE, 5);
    assert_int_equal(call(&c, 2 * PAGE), 5);
    host_code_unmap(&c);
}

static void unmapping_leaves_nothing(void **s)
{
    (void)s;
    struct host_code c = mapped(PAGE);
    const struct host_code old = c;
    host_code_unmap(&c);
    char perm[8];
    permissions(old.write, perm);
    assert_string_equal(perm, "none");
    permissions(old.exec, perm);
    assert_string_equal(perm, "none");
    assert_int_equal(fcntl(old.fd, F_GETFD), -1);
    assert_int_equal(c.fd, -1);
    host_code_unmap(&c);
    struct host_code zero = { 0 }; /* its fd 0 is stdin, not ours */
    host_code_unmap(&zero);
    assert_true(fcntl(0, F_GETFD) >= 0 || old.fd == 0);
}

static void senseless_sizes_are_refused(void **s)
{
    (void)s;
    static const size_t sizes[] = { 0, SIZE_MAX, (size_t)1 << 62 };
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct host_code c;
        struct error e = { 0 };
        assert_true(host_code_map(&c, sizes[i], &e) < 0);
        assert_non_null(strstr(e.text, "executable memory"));
        assert_null(strchr(e.text, '\n'));
        assert_int_equal(c.fd, -1);
        host_code_unmap(&c);
    }
}

/* From here on mmap() with PROT_EXEC fails with EPERM, as under a strict sandbox. */
static bool forbid_executable_memory(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/* 0 as it should be, 77 when this host has no seccomp, else which check failed. */
static int under_a_strict_policy(void)
{
    struct host_code c;
    struct error e = { 0 };
    if (!forbid_executable_memory())
        return 77;
    if (host_code_map(&c, PAGE, &e) != -EPERM)
        return 1;
    if (!strstr(e.text, "forbids executable memory") || !strstr(e.text, "--engine interp"))
        return 2;
    return c.fd == -1 && !c.write && !c.exec ? 0 : 3;
}

static void a_host_that_forbids_it_is_told_of(void **s)
{
    (void)s;
    pid_t child = fork();
    if (child == 0)
        _exit(under_a_strict_policy());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_written_in_one_view_runs_in_the_other),
        cmocka_unit_test(no_view_is_writable_and_executable),
        cmocka_unit_test(perf_takes_it_for_made_code),
        cmocka_unit_test(the_size_is_sealed),
        cmocka_unit_test(discarded_pages_go_back_to_the_host),
        cmocka_unit_test(settled_pages_are_resident_once),
        cmocka_unit_test(prepared_pages_are_resident),
        cmocka_unit_test(unmapping_leaves_nothing),
        cmocka_unit_test(senseless_sizes_are_refused),
        cmocka_unit_test(a_host_that_forbids_it_is_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
