/* SPDX-License-Identifier: Apache-2.0 */
/* A failure told for people: what was being done, to which thing, why it failed, what to try. */
#ifndef SUNDOG_BASE_ERROR_H
#define SUNDOG_BASE_ERROR_H

#include "base/types.h"

struct error {
    int code; /* negative errno, 0 when nothing failed */
    char text[480];
};

/* Records the first failure in `e` (may be NULL) and returns `code`, a negative errno, so that callers write
 * `return error_set(e, -ENOENT, "kernel %s: ...")`. The text is one line without a newline. */
int error_set(struct error *e, int code, const char *fmt, ...) printf_like(3, 4);

/* Puts "what: " before the recorded text, to say which larger step failed. Returns e->code. */
int error_wrap(struct error *e, const char *fmt, ...) printf_like(2, 3);

#endif
