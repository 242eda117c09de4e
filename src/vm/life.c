/* SPDX-License-Identifier: Apache-2.0 */
/* How a machine ends or begins anew: power-off, reset, debug-exit, crash. */
#include "base/bits.h"
#include "cpu/event.h"
#include "vm/vm_internal.h"

static const char *const end_names[] = {
    [VM_END_NONE] = "none",         [VM_END_POWEROFF] = "poweroff",
    [VM_END_RESET] = "reset",       [VM_END_DEBUG_EXIT] = "debug-exit",
    [VM_END_CRASH] = "crash",       [VM_END_REQUEST] = "request",
    [VM_END_INTERNAL] = "internal",
};

const char *vm_end_name(enum vm_end why)
{
    return (unsigned)why < array_size(end_names) ? end_names[why] : "unknown";
}

void vm_end_now(struct vm *vm, enum vm_end why, uint32_t debug_value)
{
    struct world *w = &vm->world;
    host_mutex_lock(&w->lock);
    if (w->end == VM_END_NONE) {
        w->end = why;
        w->debug_value = debug_value;
    }
    host_cond_broadcast(&w->changed);
    host_cond_broadcast(&w->ended);
    host_mutex_unlock(&w->lock);
    world_kick_all(vm);
}

void vm_request_end(struct vm *vm, enum vm_end why) { vm_end_now(vm, why, 0); }

bool vm_ended(struct vm *vm)
{
    host_mutex_lock(&vm->world.lock);
    bool ended = vm->world.end != VM_END_NONE;
    host_mutex_unlock(&vm->world.lock);
    return ended;
}

/* --- reset ---------------------------------------------------------------------------------------------- */

void vm_want_reset(struct vm *vm)
{
    if (vm->cfg.no_reboot) {
        vm_end_now(vm, VM_END_RESET, 0);
        return;
    }
    host_mutex_lock(&vm->world.lock);
    vm->world.reset_pending = true;
    host_mutex_unlock(&vm->world.lock);
    world_kick_all(vm);
    host_bell_ring(vm->bell);
}

static void reset_processor(struct vm_cpu *c)
{
    struct vcpu *v = c->v;
    c->retired_before += v->s.retired;
    v->s.retired = 0;
    atomic_store(&v->pic_line, false);
    vcpu_reset(v, false);
}

int vm_reset_machine(struct vm *vm, struct error *e)
{
    bus_lock(vm->bus);
    for (unsigned i = 0; i < vm->ncpus; i++)
        reset_processor(&vm->cpus[i]);
    bus_unlock(vm->bus);
    board_reset(vm->board);
    struct boot_cpu_state start;
    int err = board_boot(vm->board, &start, e);
    if (err)
        return err;
    start_apply(vm->cpus[0].v, &start);
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (vm->engine->state_changed)
            vm->engine->state_changed(vm->cpus[i].v);
    return 0;
}

/* --- what processors report ----------------------------------------------------------------------------- */

void vm_handle_shutdown(struct vm *vm, struct vcpu *v)
{
    const struct vcpu_state *s = &v->s;
    log_line(vm->log, vm->cfg.no_reboot ? LOG_WARN : LOG_INFO,
             "guest crashed: triple fault on vcpu %u at cs:rip %04x:%llx, cr0 %llx cr2 %llx cr3 %llx",
             v->index, s->seg[SEG_CS].sel, (unsigned long long)s->rip, (unsigned long long)s->cr0,
             (unsigned long long)s->cr2, (unsigned long long)s->cr3);
    if (vm->cfg.no_reboot)
        vm_end_now(vm, VM_END_CRASH, 0);
    else
        vm_want_reset(vm);
}

void vm_handle_internal(struct vm *vm, struct vcpu *v)
{
    log_line(vm->log, LOG_ERROR, "internal error in engine %s on vcpu %u at %04x:%llx: %s; please report it",
             vm->engine->name, v->index, v->s.seg[SEG_CS].sel, (unsigned long long)v->s.rip,
             v->internal_error ? v->internal_error : "unknown");
    vm_end_now(vm, VM_END_INTERNAL, 0);
}

/* --- what the board reports ----------------------------------------------------------------------------- */

static void on_power_off(void *ctx) { vm_end_now(ctx, VM_END_POWEROFF, 0); }

static void on_reset(void *ctx) { vm_want_reset(ctx); }

static void on_debug_exit(void *ctx, uint32_t value) { vm_end_now(ctx, VM_END_DEBUG_EXIT, value); }

static void on_serial_output(void *ctx, const uint8_t *data, size_t len)
{
    const struct vm_callbacks *cb = &((struct vm *)ctx)->cfg.callbacks;
    if (cb->serial_output)
        cb->serial_output(cb->ctx, data, len);
}

static void on_serial_room(void *ctx)
{
    const struct vm_callbacks *cb = &((struct vm *)ctx)->cfg.callbacks;
    if (cb->serial_room)
        cb->serial_room(cb->ctx);
}

static void on_debug_output(void *ctx, uint8_t byte)
{
    const struct vm_callbacks *cb = &((struct vm *)ctx)->cfg.callbacks;
    if (cb->debug_output)
        cb->debug_output(cb->ctx, byte);
}

static void on_pic_line(void *ctx, bool level) { vcpu_set_pic_line(((struct vm *)ctx)->cpus[0].v, level); }

static void on_nmi(void *ctx) { vcpu_post_nmi(((struct vm *)ctx)->cpus[0].v); }

void life_callbacks(struct vm *vm, struct board_callbacks *cb)
{
    *cb = (struct board_callbacks){
        .ctx = vm,
        .power_off = on_power_off,
        .reset = on_reset,
        .debug_exit = on_debug_exit,
        .serial_output = on_serial_output,
        .serial_room = on_serial_room,
        .debug_output = on_debug_output,
        .pic_line = on_pic_line,
        .deliver_msi = deliver_msi,
        .nmi = on_nmi,
    };
}
