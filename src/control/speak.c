/* SPDX-License-Identifier: Apache-2.0 */
/* Lines for people: diagnostics on stderr, answers on stdout. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "control/control.h"
#include "host/file.h"
#include "host/terminal.h"

/* File names and guests may put anything into a line; the terminal gets text. UTF-8 passes. */
static void make_printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

void diag(const char *fmt, ...)
{
    char line[640] = "sundog: ";
    size_t at = strlen(line);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + at, sizeof(line) - at - 3, fmt, args);
    va_end(args);
    make_printable(line);
    at = strlen(line);
    snprintf(line + at, sizeof(line) - at, "%s", host_terminal_is_raw() ? "\r\n" : "\n");
    /* One write, so that lines of several threads do not mix. Nobody is left to be told of a failure. */
    int ignored = host_write_all(HOST_STDERR, line, strlen(line));
    (void)ignored;
}

int fail(const struct error *e)
{
    diag("%s", e->text[0] ? e->text : "failed for an unknown reason; please report it");
    return STATUS_FAILED;
}

int say(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vprintf(fmt, args);
    va_end(args);
    if (n >= 0 && fflush(stdout) == 0)
        return STATUS_OK;
    diag("cannot write to stdout");
    return STATUS_FAILED;
}
