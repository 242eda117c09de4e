/* SPDX-License-Identifier: Apache-2.0 */
/* Reading, writing and creating files; outputs shared with other processes. */
#include "host/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

void host_file_guard_std(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        /* The lowest free number is taken: this one, as the lower ones are open. */
        int got = open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
        if (got > 2)
            close(got);
    }
}

long host_read(int fd, void *buf, size_t len)
{
    ssize_t n;
    do
        n = read(fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -(long)errno : n;
}

int host_write_all(int fd, const void *buf, size_t len)
{
    const uint8_t *p = buf;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = { .fd = fd, .events = POLLOUT };
            poll(&wait, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int host_file_create(const char *path, struct error *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0)
        return error_set(e, -errno, "cannot write %s: %s", path, strerror(errno));
    return fd;
}

void host_file_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* --- outputs -------------------------------------------------------------------------------------------- */

/* O_NONBLOCK belongs to the open file description, which the shell and others share: setting it would
 * break them. A terminal or pipe opened a second time by its name in /proc is a description of our own. */
static int reopen_nonblocking(int fd)
{
    char name[40];
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    return open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

int host_output_open(struct host_output *out, int fd, struct error *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(e, -errno, "cannot use file descriptor %d for output: %s", fd, strerror(errno));
    out->kind = S_ISREG(st.st_mode)    ? HOST_OUTPUT_FILE
                : S_ISSOCK(st.st_mode) ? HOST_OUTPUT_SOCKET
                                       : HOST_OUTPUT_SHARED;
    out->fd = -1;
    if (out->kind == HOST_OUTPUT_SHARED) {
        out->fd = reopen_nonblocking(fd);
        if (out->fd >= 0)
            out->kind = HOST_OUTPUT_OWN;
    }
    if (out->fd < 0)
        out->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (out->fd < 0)
        return error_set(e, -errno, "cannot use file descriptor %d for output: %s", fd, strerror(errno));
    return 0;
}

void host_output_close(struct host_output *out)
{
    if (out->fd >= 0)
        close(out->fd);
    out->fd = -1;
}

/* A write of this size to a pipe or terminal that polls writable does not block (PIPE_BUF; a tty's room
 * mark is smaller). */
#define SHARED_PIECE 128

long host_output_write(struct host_output *out, const void *buf, size_t len)
{
    if (out->kind == HOST_OUTPUT_SHARED) {
        if (!host_output_wait(out, 0))
            return -EAGAIN;
        if (len > SHARED_PIECE)
            len = SHARED_PIECE;
    }
    ssize_t n;
    do
        n = out->kind == HOST_OUTPUT_SOCKET ? send(out->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL)
                                            : write(out->fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -(long)errno : n;
}

bool host_output_wait(struct host_output *out, int ms)
{
    struct pollfd wait = { .fd = out->fd, .events = POLLOUT };
    /* An error or hang-up counts as writable: the write will tell which. */
    return poll(&wait, 1, ms) > 0;
}

FILE *host_file_stream(int fd)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *out = own < 0 ? NULL : fdopen(own, "a");
    if (!out && own >= 0)
        close(own);
    return out;
}

FILE *host_perf_map_open(void)
{
    char name[64];
    snprintf(name, sizeof(name), "/tmp/perf-%d.map", (int)getpid());
    return fopen(name, "ae");
}
