/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for code made at run time: mapped twice, never writable and executable at once. */
#ifndef SUNDOG_HOST_CODE_MEMORY_H
#define SUNDOG_HOST_CODE_MEMORY_H

#include "base/error.h"
#include "base/types.h"

/* One piece of memory under two addresses. What is written at write[n] is executed at exec[n]; the writer
 * sees to it that other processors do not execute half of a change (SDM 3A 9.1.3). */
struct host_code {
    uint8_t *write;      /* read and write */
    const uint8_t *exec; /* read and execute */
    size_t size;         /* bytes, whole pages */
    int fd;              /* the sealed memfd behind both; closed at exec; -1 when unmapped */
};

/* Maps `size` zeroed bytes (rounded up to whole pages), backed page by page as they are first touched.
 * -EINVAL for a size of 0, -EPERM or -EACCES with a line that names what to try where the host forbids
 * executable memory, -ENOMEM, ... A failure leaves `c` unmapped. Any thread. */
int host_code_map(struct host_code *c, size_t size, struct error *e);
/* The same in memory that no file is behind, fd -1: only there does perf(1) look names up in /tmp/perf-PID.map. */
int host_code_map_for_perf(struct host_code *c, size_t size, struct error *e);
/* Undoes either; does nothing for a `c` that is unmapped or all zero. Nobody executes there any
 * more. */
void host_code_unmap(struct host_code *c);
/* The whole pages within [off, off+len) will be written soon: the host makes them at once, and maps several at once to whoever
 * executes there. Best effort. Any thread. */
void host_code_prepare(struct host_code *c, size_t off, size_t len);
/* The whole pages within [off, off+len) are written seldom from now on: the writable view lets go of them
 * until the next write, which then costs a page fault. Otherwise the host counts each page twice as
 * resident. What they hold stays. Best effort. Any thread, also while others execute there. */
void host_code_settle(struct host_code *c, size_t off, size_t len);
/* Gives the whole pages within [off, off+len) back to the host; they read as zeroes until written again.
 * What lies outside `c` is left out. Nobody executes in the range. Best effort. Any thread. */
void host_code_discard(struct host_code *c, size_t off, size_t len);

#endif
