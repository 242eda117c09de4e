/* SPDX-License-Identifier: Apache-2.0 */
/* `sundog run`: one machine from its command line to its exit status. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/console.h"
#include "control/control.h"
#include "control/options.h"
#include "host/file.h"
#include "host/signals.h"
#include "host/time.h"
#include "vm/vm.h"

/* Who asked for the end, when it was not the guest. Set on the event thread, read after it is gone. */
enum asked { ASKED_NOBODY, ASKED_QUIT, ASKED_TIMEOUT, ASKED_SIGNAL, ASKED_OUTPUT };

struct session {
    struct run_options opt;
    struct log log;
    struct console *console;
    struct vm *vm;
    struct host_signals *signals;
    struct host_timer *timer;
    uint64_t deadline_ns;   /* host time of --timeout, UINT64_MAX when there is none */
    int stats_fd, trace_fd; /* -1: none */
    enum asked asked;
    int signal, output_error;
};

/* How long output may take that the user no longer waits for. */
#define LAST_WORDS_NS 1000000000u

/* What the guest said before comes before: on a terminal both go to the same place. */
static void log_sink(void *ctx, enum log_level level, const char *line)
{
    struct session *s = ctx;
    (void)level;
    if (s->console)
        console_flush(s->console);
    diag("%s", line);
}

/* --- what ends a run from outside ----------------------------------------------------------------------- */

static void ask_end(struct session *s, enum asked who)
{
    if (s->asked == ASKED_NOBODY)
        s->asked = who;
    console_give_up(s->console);
    vm_request_end(s->vm, VM_END_REQUEST);
}

static void on_quit(void *ctx) { ask_end(ctx, ASKED_QUIT); }

static void on_timeout(void *ctx) { ask_end(ctx, ASKED_TIMEOUT); }

static void on_output_failed(void *ctx, int err)
{
    struct session *s = ctx;
    s->output_error = err;
    ask_end(s, ASKED_OUTPUT);
}

static void on_signal(void *ctx, enum host_signal what, int number)
{
    struct session *s = ctx;
    switch (what) {
    case HOST_SIGNAL_STOP:
        console_suspend(s->console);
        host_signals_stop_self();
        console_continued(s->console);
        break;
    case HOST_SIGNAL_CONTINUE: console_continued(s->console); break;
    case HOST_SIGNAL_END:
    default:
        s->signal = number;
        ask_end(s, ASKED_SIGNAL);
        break;
    }
}

/* --- the steps of a run --------------------------------------------------------------------------------- */

static int prepare(struct session *s, struct error *e)
{
    const struct run_options *o = &s->opt;
    s->log = (struct log){ .level = o->verbose ? LOG_DEBUG : LOG_WARN, .sink = log_sink, .ctx = s };
    if (o->stats && o->stats_path) {
        s->stats_fd = host_file_create(o->stats_path, e);
        if (s->stats_fd < 0)
            return error_wrap(e, "--stats");
    }
    if (o->trace_blocks_path) {
        s->trace_fd = host_file_create(o->trace_blocks_path, e);
        if (s->trace_fd < 0)
            return error_wrap(e, "--trace-blocks");
        s->opt.vm.engine_config.trace_fd = s->trace_fd;
    }
    const struct console_events events = { .ctx = s, .quit = on_quit, .output_failed = on_output_failed };
    s->console = console_create(o->serial, o->serial_path, o->verbose, &events, e);
    if (!s->console)
        return -EIO;
    console_callbacks(s->console, &s->opt.vm.callbacks);
    s->vm = vm_create(&s->opt.vm, &s->log, e);
    return s->vm ? 0 : -EINVAL;
}

static int start(struct session *s, struct error *e)
{
    struct host_loop *loop = vm_loop(s->vm);
    host_signals_ignore_pipe();
    s->signals = host_signals_create(loop, on_signal, s, e);
    if (!s->signals)
        return -EIO;
    s->timer = host_timer_create(loop, on_timeout, s, e);
    if (!s->timer)
        return -EIO;
    if (s->opt.timeout_ns) {
        s->deadline_ns = host_monotonic_ns() + s->opt.timeout_ns;
        host_timer_set(s->timer, s->deadline_ns);
    }
    int err = console_attach(s->console, s->vm, e);
    return err ? err : vm_start(s->vm, e);
}

/* Whoever still reads gets all of the guest's words, but a stuck reader cannot hold up a user who wants to
 * end. */
static void finish_output(struct session *s, bool ended_by_guest)
{
    console_detach(s->console);
    uint64_t soon = host_monotonic_ns() + LAST_WORDS_NS;
    bool all = console_drain(s->console, soon);
    console_suspend(s->console);
    host_signals_destroy(s->signals); /* from here on Ctrl-C ends us at once */
    s->signals = NULL;
    if (!all && ended_by_guest)
        all = console_drain(s->console, s->deadline_ns);
    if (!all)
        diag("the reader of the console did not take the guest's last output");
}

static int write_stats(struct session *s)
{
    if (!s->opt.stats)
        return 0;
    char *json = vm_stats_json(s->vm);
    int err = json ? host_write_all(s->stats_fd >= 0 ? s->stats_fd : HOST_STDERR, json, strlen(json))
                   : -ENOMEM;
    free(json);
    if (err)
        diag("--stats: cannot write the counters: %s", strerror(-err));
    return err;
}

static int asked_status(const struct session *s)
{
    switch (s->asked) {
    case ASKED_TIMEOUT:
        diag("the guest still ran after --timeout %g seconds", (double)s->opt.timeout_ns / 1e9);
        return STATUS_TIMEOUT;
    case ASKED_OUTPUT:
        diag("cannot write the guest's console to %s: %s",
             s->opt.serial == SERIAL_FILE ? s->opt.serial_path : "stdout", strerror(s->output_error));
        return STATUS_FAILED;
    case ASKED_SIGNAL:
    case ASKED_QUIT:
    case ASKED_NOBODY:
    default: return STATUS_OK;
    }
}

static int status_of(const struct session *s, enum vm_end why, uint32_t debug_value)
{
    switch (why) {
    case VM_END_POWEROFF:
    case VM_END_RESET: return STATUS_OK;
    case VM_END_DEBUG_EXIT:
        return (int)((debug_value << 1 | 1) & 0xff); /* what the parent sees of an exit status */
    case VM_END_CRASH: return STATUS_CRASH;
    case VM_END_REQUEST: return asked_status(s);
    case VM_END_NONE:
    case VM_END_INTERNAL:
    default: return STATUS_FAILED; /* the log has said why */
    }
}

static void clean_up(struct session *s)
{
    if (s->vm)
        console_detach(s->console);
    host_signals_destroy(s->signals);
    host_timer_destroy(s->timer);
    vm_destroy(s->vm);
    console_destroy(s->console);
    host_file_close(s->stats_fd);
    host_file_close(s->trace_fd);
}

static const char *verify_name(unsigned every)
{
    const struct verify_choice *c = verify_choices;
    while (c->name && c->every != every)
        c++;
    return c->name ? c->name : "default";
}

static int describe_engine(const struct session *s)
{
    const struct engine_config *ec = &s->opt.vm.engine_config;
    char cache[32] = "default", off[200] = "none", warm[32] = "default";
    if (ec->code_cache)
        format_size(ec->code_cache, cache, sizeof(cache));
    if (ec->passes_off)
        engine_format_passes(ec->passes_off, ",", off, sizeof(off));
    if (ec->warm)
        snprintf(warm, sizeof(warm), "%u", ec->warm - 1);
    return say("engine: %s\ncode-cache: %s\nengine-off: %s\nwarm: %s\nverify-code: %s\ntrace-blocks: %s\n"
               "perf-map: %s\ncount: %s\n",
               vm_engine_name(s->vm), cache, off, warm, verify_name(ec->verify_every),
               s->opt.trace_blocks_path ? s->opt.trace_blocks_path : "none", ec->perf_map ? "yes" : "no",
               ec->count ? "yes" : "no");
}

/* What was understood, for --dry-run. */
static int describe(const struct session *s)
{
    const struct board_config *b = &s->opt.vm.board;
    static const char *const serials[] = {
        [SERIAL_STDIO] = "stdio", [SERIAL_FILE] = "file:", [SERIAL_NONE] = "none"
    };
    char memory[32], device[32] = "none";
    format_size(s->opt.vm.memory, memory, sizeof(memory));
    if (b->debug_exit)
        snprintf(device, sizeof(device), "debug-exit,port=0x%x", b->debug_exit_port);
    int status = describe_engine(s);
    if (status)
        return status;
    return say("cpus: %u\nmemory: %s\nkernel: %s\nkernel-entry: %s\ninitrd: %s\nappend: "
               "%s\nserial: %s%s\n"
               "device: %s\nno-reboot: %s\n",
               s->opt.vm.cpus, memory, b->kernel, kernel_entry_names[b->entry],
               b->initrd ? b->initrd : "none", b->append, serials[s->opt.serial],
               s->opt.serial == SERIAL_FILE ? s->opt.serial_path : "", device,
               s->opt.vm.no_reboot ? "yes" : "no");
}

/* Everything is read and built as for a run, but no file is written. */
static int dry_run(struct session *s)
{
    struct error e = { 0 };
    s->log = (struct log){ .level = s->opt.verbose ? LOG_DEBUG : LOG_WARN, .sink = log_sink, .ctx = s };
    s->vm = vm_create(&s->opt.vm, &s->log, &e);
    int status = s->vm ? describe(s) : fail(&e);
    vm_destroy(s->vm);
    return status;
}

int command_run(int argc, char **argv)
{
    struct error e = { 0 };
    struct session s = { .stats_fd = -1, .trace_fd = -1, .deadline_ns = UINT64_MAX };
    if (options_parse(&s.opt, argc, argv, &e))
        return fail(&e);
    if (s.opt.help)
        return command_help(argc, argv);
    if (s.opt.dry_run)
        return dry_run(&s);
    if (prepare(&s, &e) || start(&s, &e)) {
        clean_up(&s);
        return fail(&e);
    }
    uint32_t debug_value = 0;
    enum vm_end why = vm_wait(s.vm, &debug_value);
    finish_output(&s, why != VM_END_REQUEST);
    int status = status_of(&s, why, debug_value);
    if (write_stats(&s))
        status = STATUS_FAILED;
    int signal = why == VM_END_REQUEST && s.asked == ASKED_SIGNAL ? s.signal : 0;
    clean_up(&s);
    if (signal)
        host_signals_die(signal);
    return status;
}
