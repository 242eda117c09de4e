/* SPDX-License-Identifier: Apache-2.0 */
/* memfd-backed and anonymous host memory. */
#include "host/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int open_memfd(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* kernels before 6.3 do not know the flag */
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd;
}

int host_memory_map(const char *name, uint64_t len, uint8_t **host, int *fd, struct error *e)
{
    *fd = open_memfd(name);
    if (*fd < 0)
        return error_set(e, -errno, "cannot create guest memory: %s", strerror(errno));
    int err = 0;
    void *p = MAP_FAILED;
    if (ftruncate(*fd, (off_t)len) < 0)
        err = errno;
    if (!err) {
        p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *fd, 0);
        if (p == MAP_FAILED)
            err = errno;
    }
    if (err) {
        close(*fd);
        *fd = -1;
        return error_set(e, -err, "cannot map %llu MiB of guest memory: %s; try a smaller --memory",
                         (unsigned long long)(len >> 20), strerror(err));
    }
    fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    *host = p;
    return 0;
}

void host_memory_unmap(uint8_t *host, uint64_t len, int fd)
{
    if (host)
        munmap(host, len);
    if (fd >= 0)
        close(fd);
}

int host_memory_write(int fd, uint64_t off, const void *src, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, (const uint8_t *)src + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

void *host_pages_alloc(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *host_pages_alloc_before(size_t len, uint64_t reserve)
{
    void *p = mmap(NULL, len + reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (mprotect(p, len, PROT_READ | PROT_WRITE) == 0)
        return p;
    munmap(p, len + reserve);
    return NULL;
}

void host_pages_clear(void *p, size_t len)
{
    const uintptr_t mask = PAGE_SIZE - 1;
    uint8_t *at = p, *end = at + len;
    uint8_t *first = at + (-(uintptr_t)at & mask), *last = end - ((uintptr_t)end & mask);
    if (first >= last || madvise(first, (size_t)(last - first), MADV_DONTNEED) < 0) {
        memset(at, 0, len);
        return;
    }
    memset(at, 0, (size_t)(first - at));
    memset(last, 0, (size_t)(end - last));
}

#define HUGE_PAGE ((uintptr_t)2 << 20)

void host_memory_will_fill(void *p, size_t len)
{
    uintptr_t first = ((uintptr_t)p + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1),
              end = ((uintptr_t)p + len) & ~(HUGE_PAGE - 1);
    if (first < end)
        madvise((uint8_t *)p + (first - (uintptr_t)p), end - first, MADV_HUGEPAGE);
}

void host_pages_free(void *p, size_t len)
{
    if (p)
        munmap(p, len);
}
