/* SPDX-License-Identifier: Apache-2.0 */
/* Keys to the guest, its words to the user, and the escape key Ctrl-A. */
#include "control/console.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/control.h"
#include "control/writer.h"
#include "host/file.h"
#include "host/terminal.h"

#define ESCAPE 0x01 /* Ctrl-A */
#define HELD_MAX 4096u
#define DEBUG_LINE_MAX 200u

struct console {
    enum serial_kind kind;
    struct console_events events;
    struct writer *writer; /* NULL: serial port unconnected */
    int file;              /* --serial file: */
    bool terminal;         /* stdin is one */
    struct vm *vm;
    /* Input; the event thread's. Bytes wait in `held` until the guest's receiver has room. */
    int watch; /* -1: nothing is read */
    struct host_bell *room_bell;
    uint8_t held[HELD_MAX];
    unsigned held_head, held_used;
    bool escaped; /* the last byte was the escape key */
    /* The debug port's line so far; device lock. */
    bool debug_lines;
    char debug_line[DEBUG_LINE_MAX + 1];
    unsigned debug_len;
};

/* --- output --------------------------------------------------------------------------------------------- */

static void serial_output(void *ctx, const uint8_t *data, size_t len)
{
    writer_put(((struct console *)ctx)->writer, data, len);
}

/* The debug port speaks on stderr, by lines, and only when asked for: stdout is the console's alone. */
static void debug_output(void *ctx, uint8_t byte)
{
    struct console *c = ctx;
    if (byte != '\n' && byte != '\r')
        c->debug_line[c->debug_len++] = (char)byte;
    if ((byte == '\n' || c->debug_len == DEBUG_LINE_MAX) && c->debug_len) {
        c->debug_line[c->debug_len] = 0;
        console_flush(c);
        diag("debug port: %s", c->debug_line);
        c->debug_len = 0;
    }
}

static void output_failed(void *ctx, int err)
{
    struct console *c = ctx;
    c->events.output_failed(c->events.ctx, err);
}

void console_flush(struct console *c)
{
    if (c->writer)
        writer_flush(c->writer);
}

void console_give_up(struct console *c)
{
    if (c->writer)
        writer_give_up(c->writer);
}

bool console_drain(struct console *c, uint64_t deadline_ns)
{
    return !c->writer || writer_drain(c->writer, deadline_ns);
}

/* --- input ---------------------------------------------------------------------------------------------- */

static void help(void)
{
    diag("Ctrl-A x  end the machine");
    diag("Ctrl-A h  this help");
    diag("Ctrl-A Ctrl-A  send one Ctrl-A to the guest");
}

static void hold(struct console *c, uint8_t byte)
{
    /* Only a terminal can bring more than there is room for: it is read on for the escape key's sake, and
     * what is typed blindly beyond 4096 bytes is lost, as on a serial line. */
    if (c->held_used < HELD_MAX)
        c->held[(c->held_head + c->held_used++) % HELD_MAX] = byte;
}

static void key(struct console *c, uint8_t byte)
{
    if (!c->escaped) {
        c->escaped = byte == ESCAPE;
        if (!c->escaped)
            hold(c, byte);
        return;
    }
    c->escaped = false;
    if (byte == ESCAPE)
        hold(c, byte);
    else if (byte == 'x' || byte == 'X')
        c->events.quit(c->events.ctx);
    else
        help();
}

/* A pipe is not read faster than the guest takes it. */
static void choose_watching(struct console *c)
{
    if (c->watch >= 0)
        host_loop_change(vm_loop(c->vm), c->watch, c->terminal || !c->held_used ? HOST_READABLE : 0);
}

static void pass_on(struct console *c)
{
    while (c->held_used && vm_serial_input(c->vm, c->held[c->held_head])) {
        c->held_head = (c->held_head + 1) % HELD_MAX;
        c->held_used--;
    }
    choose_watching(c);
}

static void stop_reading(struct console *c)
{
    if (c->watch >= 0)
        host_loop_remove(vm_loop(c->vm), c->watch);
    c->watch = -1;
}

static void on_stdin(void *ctx, unsigned events)
{
    struct console *c = ctx;
    uint8_t bytes[512];
    (void)events;
    long n = host_read(HOST_STDIN, bytes, sizeof(bytes));
    if (n == -EAGAIN)
        return;
    if (n <= 0) { /* the end of a pipe or file; the machine goes on without a keyboard */
        stop_reading(c);
        return;
    }
    for (long i = 0; i < n; i++)
        key(c, bytes[i]);
    pass_on(c);
}

static void on_room(void *ctx) { pass_on(ctx); }

static void serial_room(void *ctx)
{
    struct console *c = ctx;
    if (c->room_bell)
        host_bell_ring(c->room_bell);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static int open_backend(struct console *c, const char *path, struct error *e)
{
    if (c->kind == SERIAL_NONE)
        return 0;
    if (c->kind == SERIAL_FILE) {
        c->file = host_file_create(path, e);
        if (c->file < 0)
            return error_wrap(e, "--serial");
    }
    c->writer = writer_create(c->kind == SERIAL_FILE ? c->file : HOST_STDOUT, output_failed, c, e);
    return c->writer ? 0 : -EIO;
}

struct console *console_create(enum serial_kind kind, const char *path, bool debug_lines,
                               const struct console_events *events, struct error *e)
{
    struct console *c = calloc(1, sizeof(*c));
    if (!c) {
        error_set(e, -ENOMEM, "cannot create the console: out of memory");
        return NULL;
    }
    c->kind = kind;
    c->events = *events;
    c->debug_lines = debug_lines;
    c->file = c->watch = -1;
    /* Hooks the crash signals now, before an engine hooks its own: those chain to ours. */
    c->terminal = kind == SERIAL_STDIO && host_is_terminal(HOST_STDIN);
    int err = open_backend(c, path, e);
    if (!err && c->terminal)
        err = host_terminal_open(HOST_STDIN, e);
    if (err) {
        console_destroy(c);
        return NULL;
    }
    return c;
}

void console_callbacks(struct console *c, struct vm_callbacks *cb)
{
    *cb = (struct vm_callbacks){
        .ctx = c,
        .serial_output = c->writer ? serial_output : NULL,
        .serial_room = serial_room,
        .debug_output = c->debug_lines ? debug_output : NULL,
    };
}

static int attach_input(struct console *c, struct error *e)
{
    c->room_bell = host_bell_create(vm_loop(c->vm), on_room, c, e);
    if (!c->room_bell)
        return -EMFILE;
    c->watch = host_loop_add(vm_loop(c->vm), HOST_STDIN, HOST_READABLE, on_stdin, c, e);
    return c->watch < 0 ? c->watch : 0;
}

int console_attach(struct console *c, struct vm *vm, struct error *e)
{
    c->vm = vm;
    int err = c->writer ? writer_attach(c->writer, vm_loop(vm), e) : 0;
    if (!err && c->kind == SERIAL_STDIO)
        err = attach_input(c, e);
    if (!err && c->terminal)
        err = host_terminal_raw(e);
    return err;
}

void console_suspend(struct console *c)
{
    if (c->terminal)
        host_terminal_restore();
}

void console_continued(struct console *c)
{
    struct error e = { 0 };
    if (c->terminal && host_terminal_raw(&e))
        diag("%s", e.text);
}

void console_detach(struct console *c)
{
    if (!c->vm)
        return;
    stop_reading(c);
    host_bell_destroy(c->room_bell);
    c->room_bell = NULL;
    if (c->writer)
        writer_detach(c->writer);
}

void console_destroy(struct console *c)
{
    if (!c)
        return;
    if (c->terminal)
        host_terminal_close();
    writer_destroy(c->writer);
    host_file_close(c->file);
    free(c);
}
