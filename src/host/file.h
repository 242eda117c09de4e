/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors done right: EINTR, short counts, output that never blocks unasked. */
#ifndef SUNDOG_HOST_FILE_H
#define SUNDOG_HOST_FILE_H

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"

enum { HOST_STDIN = 0, HOST_STDOUT = 1, HOST_STDERR = 2 };

/* Opens /dev/null in place of a closed standard descriptor, so that no later file gets its number. */
void host_file_guard_std(void);

/* Bytes read, 0 at the end, or -errno (-EAGAIN: nothing now). */
must_use long host_read(int fd, void *buf, size_t len);
/* Writes everything, however long it takes; 0 or -errno. */
must_use int host_write_all(int fd, const void *buf, size_t len);
/* Creates or empties a file for writing; the descriptor, or -errno with a message. */
must_use int host_file_create(const char *path, struct error *e);
void host_file_close(int fd);
/* A stream that adds to what `fd` writes; closing it leaves `fd` open. NULL without memory. */
FILE *host_file_stream(int fd);
/* /tmp/perf-PID.map, where `perf` looks for names of generated code; NULL when it cannot be written. */
FILE *host_perf_map_open(void);

/* An output that is written without blocking, whoever else shares the descriptor. */
struct host_output {
    int fd;
    enum { HOST_OUTPUT_FILE, HOST_OUTPUT_OWN, HOST_OUTPUT_SOCKET, HOST_OUTPUT_SHARED } kind;
};

/* Takes a reference to `fd` (which stays the caller's). 0 or -errno. */
must_use int host_output_open(struct host_output *out, int fd, struct error *e);
void host_output_close(struct host_output *out);
/* Bytes taken (at least 1), -EAGAIN when it would block, or another -errno. Never raises SIGPIPE where
 * SIGPIPE is ignored. */
must_use long host_output_write(struct host_output *out, const void *buf, size_t len);
/* Sleeps until it can be written again, at most `ms`; false when the time is over. */
bool host_output_wait(struct host_output *out, int ms);

/* One line about /dev/kvm: usable, absent, forbidden, ... */
void host_kvm_state(char *out, size_t len);
/* Host facts for people: kernel, processors this process may use, memory in bytes. */
struct host_facts {
    char kernel[160];
    unsigned cpus;
    uint64_t memory;
};
void host_facts_read(struct host_facts *f);

#endif
