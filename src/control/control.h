/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of the program `sundog`, its exit statuses, and how it speaks to people. */
#ifndef SUNDOG_CONTROL_CONTROL_H
#define SUNDOG_CONTROL_CONTROL_H

#include "base/error.h"
#include "base/types.h"

/* Ours are even; debug-exit's (v << 1) | 1 are odd. */
enum exit_status {
    STATUS_OK = 0,      /* the guest powered off, or rebooted under --no-reboot; or the user quit */
    STATUS_CRASH = 102, /* triple fault under --no-reboot */
    STATUS_TIMEOUT = 124,
    STATUS_FAILED = 126, /* Sundog could not do what was asked */
};

/* Each returns the exit status; argv[0] is the command's own name. */
int command_run(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_version(int argc, char **argv);
int command_help(int argc, char **argv);

/* One line on stderr, "sundog: ...", whatever bytes it is made of. */
void diag(const char *fmt, ...) printf_like(1, 2);
/* The line of a failure, and STATUS_FAILED. */
int fail(const struct error *e);
/* Writes to stdout; STATUS_OK, or STATUS_FAILED with a line when it could not be written whole. */
int say(const char *fmt, ...) printf_like(1, 2);

#endif
