/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's serial port at the user's terminal, pipes or a file. */
#ifndef SUNDOG_CONTROL_CONSOLE_H
#define SUNDOG_CONTROL_CONSOLE_H

#include "base/error.h"
#include "control/options.h"

/* What the console reports; on the event thread. */
struct console_events {
    void *ctx;
    void (*quit)(void *ctx);                   /* Ctrl-A x */
    void (*output_failed)(void *ctx, int err); /* the reader is gone, the disk is full, ... */
};

struct console;

/* Opens the back end: before the machine is made, so that the machine can be given console_callbacks(). */
struct console *console_create(enum serial_kind kind, const char *path, bool debug_lines,
                               const struct console_events *events, struct error *e);
void console_callbacks(struct console *c, struct vm_callbacks *cb);
/* Connects it to the machine and sets the terminal raw. Before vm_start(). */
int console_attach(struct console *c, struct vm *vm, struct error *e);
/* Writes out what it can now: a diagnostic line on the same terminal is to come after it. Any thread. */
void console_flush(struct console *c);
/* The machine has to end: output that the reader does not take is dropped from now on. Any thread. */
void console_give_up(struct console *c);
/* After vm_wait(): nothing more is read. */
void console_detach(struct console *c);
/* Writes what is left until this host time; true when all is out. */
bool console_drain(struct console *c, uint64_t deadline_ns);
void console_destroy(struct console *c);
/* The process was stopped and goes on: the shell may have changed the terminal. */
void console_continued(struct console *c);
/* Gives the terminal back for a while. */
void console_suspend(struct console *c);

#endif
