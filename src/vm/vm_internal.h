/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of vm/ share: struct vm and the few steps that one file does for another. */
#ifndef SUNDOG_VM_VM_INTERNAL_H
#define SUNDOG_VM_VM_INTERNAL_H

#include "host/thread.h"
#include "vm/vm.h"

/* Where a vcpu is, as others may rely on it. Guarded by world.lock. */
enum presence {
    PRESENCE_OUT,   /* at an instruction boundary, state complete; others may drop its translations */
    PRESENCE_IN,    /* may touch guest memory at any moment */
    PRESENCE_QUIET, /* asleep inside an instruction, touching nothing; others may drop its translations */
};

/* Rights taken back from one vcpu and not yet acknowledged; or a page whose code was written. */
struct revocation {
    uint64_t first_page, count;
    unsigned rights;
    bool code_changed; /* first_page only; nobody waits for it */
};
#define REVOCATIONS_MAX 16

/* One virtual processor's part of the VM. */
struct vm_cpu {
    struct vm *vm;
    struct vcpu *v;
    struct host_thread thread;
    struct host_event wake; /* set by every kick */
    /* guarded by world.lock */
    enum presence presence;
    struct revocation pending[REVOCATIONS_MAX];
    unsigned npending;
    uint64_t revoke_posted, revoke_done;
    /* its own thread's */
    bool service; /* a stop request came: look at inputs and deadlines */
    uint64_t exits[EXIT_CAUSE_COUNT];
    uint64_t retired_before; /* by earlier lives of a VM that was reset */
};

/* What the VM itself adds to the saved state. */
struct vm_state {
    uint64_t memory;
    uint64_t virtual_ns, wall_base_ns;
    uint64_t clock_count; /* deterministic mode: the instruction count that virtual_ns belongs to */
    uint32_t cpus;
    uint32_t timers_due; /* bit n: vcpu n's LAPIC deadline passed and it has not looked yet */
    /* of vm_run_until(): */
    uint64_t executed; /* instructions by all vcpus since power-on */
    uint32_t turn, slice_left;
};

struct world {
    struct host_mutex lock;   /* a leaf: nothing of a device is called under it */
    struct host_cond changed; /* presence, stops, exclusive, reset, acknowledgements */
    struct host_cond ended;   /* apart, so that who waits for the end sleeps through all else */
    unsigned stops; /* vm_stop_world() without vm_resume(); a machine is built with one for vm_start() */
    bool clock_paused;
    bool reset_pending; /* holds the vcpus like a stop until the reset is done */
    int exclusive;      /* the vcpu that does a locked access across pages, or -1 */
    enum vm_end end;    /* first reason; NONE while alive */
    uint32_t debug_value;
};

struct vm {
    struct vm_config cfg;
    struct log *log;
    struct tally tally;
    struct vm_cpu_shared model;
    struct pmap *pmap;
    struct bus *bus;
    struct clock *clock;
    struct input_queue *inputs;
    struct board *board;
    const struct engine_ops *engine;
    struct vm_cpu cpus[MAX_VCPUS];
    unsigned ncpus;
    struct world world;
    struct vm_state state;
    /* events.c */
    struct host_loop *loop;
    struct host_thread event_thread;
    struct host_bell *bell;   /* something for the event thread: a reset */
    struct host_timer *timer; /* earliest virtual deadline */
    struct host_mutex timer_lock;
    uint64_t timer_armed; /* virtual ns the timer was last set for, UINT64_MAX when it is off */
    bool threaded;        /* vm_start() was called */
    uint64_t created_ns, started_ns, ended_ns; /* host time */
    uint64_t first_run_ns; /* host time at which the first instruction was due; the first vcpu's */
};

/* --- life.c --- */
void vm_end_now(struct vm *vm, enum vm_end why, uint32_t debug_value);
bool vm_ended(struct vm *vm);
/* The guest or its triple fault asks for a reset; done by the event thread, or by vm_run_until(). */
void vm_want_reset(struct vm *vm);
/* All chips and processors to power-on, kernel loaded again. World stopped. */
int vm_reset_machine(struct vm *vm, struct error *e);
/* What an exit that ends a processor's run means for the VM. */
void vm_handle_shutdown(struct vm *vm, struct vcpu *v);
void vm_handle_internal(struct vm *vm, struct vcpu *v);
void life_callbacks(struct vm *vm, struct board_callbacks *cb);

/* --- world.c --- */
void world_init(struct vm *vm);
void world_destroy(struct vm *vm);
/* Around engine.run on a vcpu thread. enter waits while the world is stopped; false: the VM has ended. */
bool world_enter(struct vm_cpu *c);
void world_leave(struct vm_cpu *c);
void world_kick_all(struct vm *vm);
/* world.lock held: no vcpu thread is inside the engine. */
bool world_all_out(const struct vm *vm);
/* Lets the memory tell this processor of rights taken back and code changed; returns the consumer's number or
 * -ENOSPC. */
int world_add_consumer(struct vm_cpu *c);
/* vcpu callbacks */
void world_stop_others(void *ctx, unsigned vcpu);
void world_resume_others(void *ctx, unsigned vcpu);

/* --- threads.c --- */
void *vcpu_thread(void *arg);
/* Drains inputs and fires due deadlines, device lock taken inside. */
void vm_service(struct vm *vm, struct vcpu *v);

/* --- events.c --- */
int events_init(struct vm *vm, struct error *e);
void events_destroy(struct vm *vm);
int events_start(struct vm *vm, struct error *e);
void events_stop(struct vm *vm);
/* The earliest deadline may have moved: sets the host timer if it has to fire earlier. Any thread. */
void events_update_timer(struct vm *vm);

/* --- deliver.c --- */
void deliver_ipi(void *ctx, unsigned from, uint32_t icr_low, uint32_t icr_high);
void deliver_msi(void *ctx, uint64_t addr, uint32_t data);

/* --- start.c --- */
/* Puts the first processor where the boot protocol wants it; the others wait for SIPI. */
void start_apply(struct vcpu *v, const struct boot_cpu_state *start);

extern const struct state_class vm_state_class;

#endif
