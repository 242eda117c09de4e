/* SPDX-License-Identifier: Apache-2.0 */
/* The user's terminal: raw while a guest has it, and given back as it was whatever happens. */
#ifndef SUNDOG_HOST_TERMINAL_H
#define SUNDOG_HOST_TERMINAL_H

#include "base/error.h"
#include "base/types.h"

bool host_is_terminal(int fd);

/* Notes the terminal's settings and hooks the crash signals (SIGSEGV, SIGABRT, ...): they restore it, then
 * go on to whatever handler was there before. At most one terminal a process; to be called before engines
 * hook their own handlers. */
must_use int host_terminal_open(int fd, struct error *e);
/* Raw: each byte as typed, nothing echoed, output untouched. Again after host_terminal_restore() or a stop
 * of the process. */
must_use int host_terminal_raw(struct error *e);
/* As it was. Does nothing when there is nothing to restore. */
void host_terminal_restore(void);
/* True between raw and restore: lines need a carriage return of their own. */
bool host_terminal_is_raw(void);
/* Restores and unhooks. */
void host_terminal_close(void);

#endif
