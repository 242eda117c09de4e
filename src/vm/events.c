/* SPDX-License-Identifier: Apache-2.0 */
/* The event thread: host files, the timer behind virtual deadlines, and resets. It wakes vcpus; it never
 * runs device code. */
#include <errno.h>

#include "vm/vm_internal.h"

/* Any vcpu may take inputs and deadlines in; the first one does. */
static void ask_for_service(struct vm *vm) { vcpu_request(vm->cpus[0].v, REQ_STOP); }

static void on_input(void *ctx) { ask_for_service(ctx); }

/* --- the timer ------------------------------------------------------------------------------------------ */

/* The host timer is only ever moved to an earlier time: a guest that pushes its next tick into the future
 * over and over costs nothing but one vain expiry. */
void events_update_timer(struct vm *vm)
{
    if (vm->cfg.clock_mode != CLOCK_REAL_TIME)
        return;
    host_mutex_lock(&vm->timer_lock);
    uint64_t next = clock_next_deadline(vm->clock);
    if (next < vm->timer_armed) {
        uint64_t host = clock_host_time_of(vm->clock, next);
        host_timer_set(vm->timer, host);
        vm->timer_armed = host == UINT64_MAX ? UINT64_MAX
                                             : next; /* paused: vm_resume() will come back to it */
    }
    host_mutex_unlock(&vm->timer_lock);
}

static void on_deadline_moved(void *ctx) { events_update_timer(ctx); }

static void on_timer(void *ctx)
{
    struct vm *vm = ctx;
    host_mutex_lock(&vm->timer_lock);
    vm->timer_armed = UINT64_MAX;
    host_mutex_unlock(&vm->timer_lock);
    if (clock_next_deadline(vm->clock) <= clock_now(vm->clock))
        ask_for_service(vm); /* which arms the timer again */
    else
        events_update_timer(vm);
}

/* --- resets --------------------------------------------------------------------------------------------- */

static void on_bell(void *ctx)
{
    struct vm *vm = ctx;
    host_mutex_lock(&vm->world.lock);
    /* The last vcpu that comes out rings again: this thread, which timeouts and signals need, does not wait. */
    bool wanted = vm->world.reset_pending && vm->world.end == VM_END_NONE && world_all_out(vm);
    host_mutex_unlock(&vm->world.lock);
    if (!wanted)
        return;
    struct error e = { 0 };
    vm_stop_world(vm);
    log_line(vm->log, LOG_INFO, "machine reset");
    int err = vm_reset_machine(vm, &e);
    if (err) {
        log_line(vm->log, LOG_ERROR, "cannot restart the machine: %s", e.text);
        vm_end_now(vm, VM_END_INTERNAL, 0);
    }
    host_mutex_lock(&vm->world.lock);
    vm->world.reset_pending = false;
    host_mutex_unlock(&vm->world.lock);
    vm_resume(vm);
}

/* --- life ----------------------------------------------------------------------------------------------- */

int events_init(struct vm *vm, struct error *e)
{
    host_mutex_init(&vm->timer_lock);
    vm->timer_armed = UINT64_MAX;
    int err = host_loop_create(&vm->loop, e);
    if (err)
        return err;
    vm->bell = host_bell_create(vm->loop, on_bell, vm, e);
    vm->timer = vm->bell ? host_timer_create(vm->loop, on_timer, vm, e) : NULL;
    if (!vm->timer)
        return -EMFILE;
    input_set_notify(vm->inputs, on_input, vm);
    clock_set_notify(vm->clock, on_deadline_moved, vm);
    return 0;
}

void events_destroy(struct vm *vm)
{
    host_timer_destroy(vm->timer);
    host_bell_destroy(vm->bell);
    host_loop_destroy(vm->loop);
    host_mutex_destroy(&vm->timer_lock);
}

static void *event_thread(void *arg)
{
    host_loop_run(((struct vm *)arg)->loop);
    return NULL;
}

int events_start(struct vm *vm, struct error *e)
{
    return host_thread_start(&vm->event_thread, "events", event_thread, vm, e);
}

void events_stop(struct vm *vm)
{
    if (!vm->event_thread.started)
        return;
    host_loop_quit(vm->loop);
    host_thread_join(&vm->event_thread);
}
