/* SPDX-License-Identifier: Apache-2.0 */
/* Formatting and bounding of diagnostic lines. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static void log_emit(struct log *log, enum log_level level, const char *fmt, va_list args)
{
    char line[512];
    vsnprintf(line, sizeof(line), fmt, args);
    log->sink(log->ctx, level, line);
}

void log_line(struct log *log, enum log_level level, const char *fmt, ...)
{
    if (!log || !log->sink || level > log->level)
        return;
    va_list args;
    va_start(args, fmt);
    log_emit(log, level, fmt, args);
    va_end(args);
}

void log_guest(struct log *log, const char *fmt, ...)
{
    if (!log || !log->sink || log->level < LOG_DEBUG)
        return;
    if (atomic_fetch_add_explicit(&log->guest_lines, 1, memory_order_relaxed) >= LOG_GUEST_LINES_MAX)
        return;
    va_list args;
    va_start(args, fmt);
    log_emit(log, LOG_DEBUG, fmt, args);
    va_end(args);
}
