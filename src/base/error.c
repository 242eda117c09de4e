/* SPDX-License-Identifier: Apache-2.0 */
/* Recording failures for people. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list args;
    va_start(args, fmt);
    e->code = code;
    vsnprintf(e->text, sizeof(e->text), fmt, args);
    va_end(args);
    return code;
}

int error_wrap(struct error *e, const char *fmt, ...)
{
    if (!e)
        return -1;
    char old[sizeof(e->text)];
    memcpy(old, e->text, sizeof(old));
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(e->text, sizeof(e->text), fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof(e->text))
        snprintf(e->text + n, sizeof(e->text) - (size_t)n, ": %.*s", (int)(sizeof(e->text) - 3 - (size_t)n),
                 old);
    return e->code;
}
