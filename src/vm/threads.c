/* SPDX-License-Identifier: Apache-2.0 */
/* A vcpu's thread: run the engine, do what its exit asks, sleep while the processor has nothing to do. */
#include <errno.h>
#include <stdio.h>

#include "host/time.h"
#include "vm/vm_internal.h"

void vm_service(struct vm *vm, struct vcpu *v)
{
    const struct input_stamp stamp = { v->index, v->s.retired };
    if (input_pending(vm->inputs) || clock_next_deadline(vm->clock) <= clock_now(vm->clock)) {
        bus_lock(vm->bus);
        input_drain(vm->inputs, stamp);
        clock_run_due(vm->clock);
        bus_unlock(vm->bus);
    }
    /* Also when nothing was due any more: the deadline that fired the host timer may have been moved meanwhile,
     * and a move to a later time notifies nobody. */
    events_update_timer(vm);
}

/* Sleeps until someone asks for something: interrupts come with REQ_EVENT, all else with REQ_STOP or
 * REQ_REVOKE. */
static void sleep_halted(struct vm_cpu *c)
{
    while (!atomic_load(&c->v->requests))
        host_event_wait(&c->wake);
}

static void note_first_run(struct vm *vm)
{
    if (unlikely(!vm->first_run_ns))
        vm->first_run_ns = host_monotonic_ns();
}

void *vcpu_thread(void *arg)
{
    struct vm_cpu *c = arg;
    struct vm *vm = c->vm;
    struct vcpu *v = c->v;
    while (world_enter(c)) {
        if (c->service) {
            c->service = false;
            vm_service(vm, v);
        }
        if (v->index == 0)
            note_first_run(vm);
        enum exit_cause cause = vm->engine->run(v, UINT64_MAX);
        c->exits[cause]++;
        world_leave(c);
        switch (cause) {
        case EXIT_COUNT:
        case EXIT_REQUEST: break;
        case EXIT_HLT:
        case EXIT_WAIT_SIPI: sleep_halted(c); break;
        case EXIT_SHUTDOWN: vm_handle_shutdown(vm, v); break;
        case EXIT_INTERNAL:
        case EXIT_CAUSE_COUNT:
        default: vm_handle_internal(vm, v); break;
        }
    }
    return NULL;
}

int vm_start(struct vm *vm, struct error *e)
{
    if (vm->cfg.clock_mode != CLOCK_REAL_TIME)
        return error_set(e, -EINVAL, "a deterministic machine has no threads: step it with vm_run_until()");
    if (vm->threaded)
        return error_set(e, -EBUSY, "the machine is already running");
    vm->threaded = true;
    vm->started_ns = host_monotonic_ns();
    int err = events_start(vm, e);
    /* The world is still stopped: the threads come up and wait. */
    for (unsigned i = 0; i < vm->ncpus && !err; i++) {
        char name[16];
        snprintf(name, sizeof(name), "vcpu%u", i);
        err = host_thread_start(&vm->cpus[i].thread, name, vcpu_thread, &vm->cpus[i], e);
    }
    if (err) {
        vm_end_now(vm, VM_END_INTERNAL, 0);
        vm_wait(vm, NULL);
        return err;
    }
    vm_resume(vm);
    return 0;
}

enum vm_end vm_wait(struct vm *vm, uint32_t *debug_exit_value)
{
    struct world *w = &vm->world;
    host_mutex_lock(&w->lock);
    while (w->end == VM_END_NONE)
        host_cond_wait(&w->ended, &w->lock);
    enum vm_end why = w->end;
    if (debug_exit_value)
        *debug_exit_value = w->debug_value;
    host_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < vm->ncpus; i++)
        host_thread_join(&vm->cpus[i].thread);
    events_stop(vm);
    if (!vm->ended_ns)
        vm->ended_ns = host_monotonic_ns();
    return why;
}

/* --- deterministic stepping ----------------------------------------------------------------------------- */

/*
 * Inputs are taken in, deadlines fire and turns end only at multiples of GRID instructions, counted over all
 * vcpus since power-on, or when all vcpus sleep. So what the guest sees depends on its own instructions
 * alone, never on where vm_run_until() was told to stop.
 */
#define GRID 1024u
#define IDLE_SKIPS_MAX 1000000u
#define TURN 16u /* grid steps until the next vcpu has its turn */

static bool is_runnable(struct vm_cpu *c)
{
    return c->v->s.activity == ACTIVITY_RUN || (atomic_load(&c->v->requests) & REQ_EVENT);
}

/* Makes vm->state.turn a runnable vcpu: the present one while its turn lasts, else the next in the ring. */
static bool pick_turn(struct vm *vm)
{
    struct vm_state *s = &vm->state;
    if (!is_runnable(&vm->cpus[s->turn]))
        s->slice_left = 0; /* a turn ends with HLT, also when the run was cut right behind it */
    if (s->slice_left)
        return true;
    for (unsigned i = 1; i <= vm->ncpus; i++) {
        unsigned next = (s->turn + i) % vm->ncpus;
        if (is_runnable(&vm->cpus[next])) {
            s->turn = next;
            s->slice_left = TURN * GRID - (uint32_t)(s->executed % GRID);
            return true;
        }
    }
    return false;
}

static void handle_exit(struct vm *vm, struct vm_cpu *c, enum exit_cause cause)
{
    c->exits[cause]++;
    atomic_fetch_and(&c->v->requests, ~(uint32_t)(REQ_STOP | REQ_REVOKE));
    if (cause == EXIT_HLT || cause == EXIT_WAIT_SIPI)
        vm->state.slice_left = 0;
    else if (cause == EXIT_SHUTDOWN)
        vm_handle_shutdown(vm, c->v);
    else if (cause == EXIT_INTERNAL)
        vm_handle_internal(vm, c->v);
}

/* One vcpu up to the next grid point, the end of its turn or `count`. */
static void run_step(struct vm *vm, uint64_t count)
{
    struct vm_state *s = &vm->state;
    struct vm_cpu *c = &vm->cpus[s->turn];
    uint64_t n = GRID - s->executed % GRID;
    if (n > count - s->executed)
        n = count - s->executed;
    if (n > s->slice_left)
        n = s->slice_left;
    uint64_t before = c->v->s.retired;
    c->v->count_base = s->executed - before;
    note_first_run(vm);
    enum exit_cause cause = vm->engine->run(c->v, before + n);
    uint64_t ran = c->v->s.retired - before;
    s->executed += ran;
    s->slice_left -= (uint32_t)(ran < s->slice_left ? ran : s->slice_left);
    if (s->executed % GRID == 0)
        clock_set_count(vm->clock, s->executed);
    handle_exit(vm, c, cause);
}

/* Nobody has anything to do: time jumps to the next deadline. False when there is none, nor an input. */
static bool skip_idle(struct vm *vm)
{
    uint64_t next = clock_next_deadline(vm->clock);
    if (next == UINT64_MAX && !input_pending(vm->inputs))
        return false;
    if (input_pending(vm->inputs))
        next = 0; /* no need to jump */
    clock_skip_to(vm->clock, next);
    vm_service(vm, vm->cpus[vm->state.turn].v);
    return true;
}

static void reset_if_wanted(struct vm *vm)
{
    if (!vm->world.reset_pending)
        return;
    struct error e = { 0 };
    vm->world.reset_pending = false;
    vm->state.slice_left = 0;
    vm->state.turn = 0;
    if (vm_reset_machine(vm, &e)) {
        log_line(vm->log, LOG_ERROR, "cannot restart the machine: %s", e.text);
        vm_end_now(vm, VM_END_INTERNAL, 0);
    }
}

enum vm_end vm_run_until(struct vm *vm, uint64_t count)
{
    if (!vm->started_ns)
        vm->started_ns = host_monotonic_ns();
    clock_resume(vm->clock);
    unsigned idle = 0;
    while (vm->state.executed < count && vm->world.end == VM_END_NONE) {
        reset_if_wanted(vm);
        if (vm->state.executed % GRID == 0)
            vm_service(vm, vm->cpus[vm->state.turn].v);
        if (pick_turn(vm)) {
            run_step(vm, count);
            idle = 0;
        } else if (++idle > IDLE_SKIPS_MAX || !skip_idle(vm)) {
            break; /* a chip may tick on for ever though no processor listens */
        }
    }
    clock_pause(vm->clock);
    vm->ended_ns = host_monotonic_ns();
    return vm->world.end;
}
