/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostics: levelled lines to a sink chosen by the embedder, bounded per source so that a guest cannot
 * flood. */
#ifndef SUNDOG_BASE_LOG_H
#define SUNDOG_BASE_LOG_H

#include "base/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* One per VM. The sink gets one line without a newline; it may be called from any thread. */
struct log {
    enum log_level level;
    void (*sink)(void *ctx, enum log_level level, const char *line);
    void *ctx;
    _Atomic uint32_t guest_lines; /* lines caused by the guest so far, see log_guest() */
};

/* Guest-caused lines printed per VM before they are only counted. */
#define LOG_GUEST_LINES_MAX 200

void log_line(struct log *log, enum log_level level, const char *fmt, ...) printf_like(3, 4);

/* A line that the guest can cause at will: printed at LOG_DEBUG, and only LOG_GUEST_LINES_MAX times a VM. */
void log_guest(struct log *log, const char *fmt, ...) printf_like(2, 3);

#endif
