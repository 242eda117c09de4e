/* SPDX-License-Identifier: Apache-2.0 */
/* One memfd, two views of it: one to write code through, one to execute it from. Or a piece of shared anonymous memory. */
#include "host/code_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

static int open_memfd(void)
{
    int fd = memfd_create("sundog-code", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (fd < 0 &&
        errno == EINVAL) /* kernels before 6.3 do not know the flag, and all their memfds may execute */
        fd = memfd_create("sundog-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd;
}

/* The size stays fixed, and nobody who gets hold of the descriptor can change these seals. F_SEAL_EXEC and
 * F_SEAL_FUTURE_WRITE would also forbid giving pages back. */
static int seal(int fd) { return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL); }

static void *map_view(const struct host_code *c, int prot)
{
    void *p = mmap(NULL, c->size, prot, MAP_SHARED | MAP_NORESERVE, c->fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Sets errno when it fails. */
static bool map_memfd(struct host_code *c)
{
    c->fd = open_memfd();
    if (c->fd < 0 || ftruncate(c->fd, (off_t)c->size) < 0 || seal(c->fd) < 0)
        return false;
    c->write = map_view(c, PROT_READ | PROT_WRITE);
    c->exec = c->write ? map_view(c, PROT_READ | PROT_EXEC) : NULL;
    return c->exec;
}

/* The same without a descriptor: a shared mapping of which 0 bytes are moved is mapped a second time (mremap(2)). */
static bool map_anonymous(struct host_code *c)
{
    void *p = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    c->write = p;
    p = mremap(c->write, 0, c->size, MREMAP_MAYMOVE);
    if (p == MAP_FAILED)
        return false;
    c->exec = p;
    return mprotect(p, c->size, PROT_READ | PROT_EXEC) == 0;
}

static int explain(int err, size_t size, struct error *e)
{
    if (err == EPERM || err == EACCES)
        return error_set(e, -err,
                         "this host forbids executable memory: %s; the cause is a seccomp policy, SELinux's "
                         "execmem or the sysctl vm.memfd_noexec=2; allow it there, or try --engine interp",
                         strerror(err));
    return error_set(
        e, -err,
        "cannot map %.1f MiB of executable memory: %s; try a smaller --code-cache or --engine interp",
        (double)size / (1u << 20), strerror(err));
}

static int map_by(bool (*map)(struct host_code *c), struct host_code *c, size_t size, struct error *e)
{
    *c = (struct host_code){ .size = (size + PAGE - 1) & ~(size_t)(PAGE - 1), .fd = -1 };
    if (!c->size)
        return error_set(e, -EINVAL, "cannot map %zu bytes of executable memory", size);
    if (map(c))
        return 0;
    int err = errno;
    host_code_unmap(c);
    return explain(err, size, e);
}

int host_code_map(struct host_code *c, size_t size, struct error *e) { return map_by(map_memfd, c, size, e); }

int host_code_map_for_perf(struct host_code *c, size_t size, struct error *e)
{
    return map_by(map_anonymous, c, size, e);
}

void host_code_unmap(struct host_code *c)
{
    if (!c->size) /* also one that is all zero, whose fd is not ours */
        return;
    if (c->exec)
        munmap((void *)(uintptr_t)c->exec, c->size);
    if (c->write)
        munmap(c->write, c->size);
    if (c->fd >= 0)
        close(c->fd);
    *c = (struct host_code){ .fd = -1 };
}

/* On whole pages of the writable view, cut off at its end. */
static void advise(const struct host_code *c, size_t off, size_t len, int advice)
{
    if (!c->exec || off >= c->size)
        return;
    if (len > c->size - off)
        len = c->size - off;
    size_t first = (off + PAGE - 1) & ~(size_t)(PAGE - 1);
    size_t end = (off + len) & ~(size_t)(PAGE - 1);
    if (first < end)
        madvise(c->write + first, end - first, advice);
}

/* Hosts before 5.14 do not know it, and make each page when it is written. */
void host_code_prepare(struct host_code *c, size_t off, size_t len)
{
    advise(c, off, len, MADV_POPULATE_WRITE);
}

/* For a shared mapping this drops page-table entries only; the memfd keeps the pages. */
void host_code_settle(struct host_code *c, size_t off, size_t len) { advise(c, off, len, MADV_DONTNEED); }

/* Frees the memfd's pages, so both views'. */
void host_code_discard(struct host_code *c, size_t off, size_t len) { advise(c, off, len, MADV_REMOVE); }
