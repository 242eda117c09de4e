/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine's life: build it, run it, stop it, save it, count what it did.
 *
 *              vm_start            vm_stop_world
 *   CREATED ─────────────► RUNNING ─────────────► STOPPED
 *      │                     │  ▲ ◄───────────────  │
 *      │                     │  └── reset            │        vm_wait
 *      └──── vm_request_end ─┴───────────────────────┴► ENDED ────────► (threads gone) ── vm_destroy
 *
 * ENDED keeps the first reason: power-off, reset under no_reboot, debug-exit, crash, request, our own bug. A
 * guest's reset without no_reboot stops the world, puts every chip and processor to power-on, loads the
 * kernel again and goes on.
 *
 * Threads: one a vcpu, one event thread. Locks and their order: docs/threads.md.
 */
#ifndef SUNDOG_VM_VM_H
#define SUNDOG_VM_VM_H

#include "base/error.h"
#include "base/log.h"
#include "base/state.h"
#include "base/tally.h"
#include "board/board.h"
#include "bus/bus.h"
#include "clock/clock.h"
#include "clock/input.h"
#include "cpu/model.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "host/loop.h"
#include "memory/pmap.h"

enum vm_end {
    VM_END_NONE,
    VM_END_POWEROFF,
    VM_END_RESET,
    VM_END_DEBUG_EXIT,
    VM_END_CRASH,
    VM_END_REQUEST,
    VM_END_INTERNAL
};

/* What the VM tells its owner. Each may be NULL; called from a vcpu thread with the device lock held. */
struct vm_callbacks {
    void *ctx;
    void (*serial_output)(void *ctx, const uint8_t *data, size_t len); /* COM1 */
    void (*serial_room)(void *ctx);                /* COM1's receiver was full and takes bytes again */
    void (*debug_output)(void *ctx, uint8_t byte); /* debug console port */
};

struct vm_config {
    const char *engine; /* "auto", "bt", "interp" */
    struct engine_config engine_config;
    unsigned cpus;             /* 1..MAX_VCPUS */
    const char *cpu_model;     /* of cpu_model_names[]; NULL: host, in deterministic mode v2 */
    uint64_t memory;           /* bytes */
    struct board_config board; /* kernel, initrd, command line, devices */
    bool no_reboot;            /* a guest reset ends the VM instead */
    enum clock_mode clock_mode;
    uint64_t ns_per_1k_insns; /* deterministic mode */
    uint64_t wall_base_ns; /* wall clock at power-on; 0: the host's, or the year 2000 in deterministic mode */
    uint64_t tsc_khz;      /* 0: the host's, or 1 GHz in deterministic mode */
    struct vm_callbacks callbacks;
};

/* Bounds of vm_config.memory, and of engine_config.code_cache where it is not 0. */
#define VM_MEMORY_MIN (2ull << 20)
#define VM_MEMORY_MAX (512ull << 30)
#define VM_CODE_CACHE_MIN (1ull << 20)
#define VM_CODE_CACHE_MAX (2ull << 30)

struct vm; /* opaque outside vm/ */

/* Validates, builds and loads the kernel: what can fail fails here. The strings of `cfg` outlive the VM. */
struct vm *vm_create(const struct vm_config *cfg, struct log *log, struct error *e);
void vm_destroy(struct vm *vm);
int vm_start(struct vm *vm, struct error *e);
/* Leaves all vcpus at an instruction boundary, clock paused, inputs drained or listed. Nests by count. Not
 * from a vcpu thread. */
void vm_stop_world(struct vm *vm);
void vm_resume(struct vm *vm);
/* Asks the VM to end (timeout, Ctrl-A x, signal). Any thread. */
void vm_request_end(struct vm *vm, enum vm_end why);
/* Waits until the VM has ended and its threads are gone; returns why; *debug_exit_value gets the guest's
 * value. */
enum vm_end vm_wait(struct vm *vm, uint32_t *debug_exit_value);
const char *vm_end_name(enum vm_end why);

/* The VM's event loop. Watches are added before vm_start(), or by callbacks of the loop. */
struct host_loop *vm_loop(struct vm *vm);
/* One byte for COM1. False: no room now, try again later. Any thread. */
must_use bool vm_serial_input(struct vm *vm, uint8_t byte);
/* ACPI power button: asks the guest to shut down. Any thread. */
void vm_power_button(struct vm *vm);
const char *vm_engine_name(const struct vm *vm);
/* Instructions retired by all vcpus since power-on. Exact when the world is stopped or the VM ended. */
uint64_t vm_instructions(const struct vm *vm);

/* The counters as one JSON object; malloc'ed, NULL when memory is short. World stopped or VM ended. */
char *vm_stats_json(struct vm *vm);

/* The machine's state objects (world stopped), for save, load, hash, print. */
unsigned vm_state_objects(struct vm *vm, struct state_object *out, unsigned max);
uint64_t vm_state_hash(struct vm *vm); /* objects and RAM */
/* The whole machine in one malloc'ed buffer / from one, into a VM of the same configuration. World stopped
 * or not started. A load that fails leaves the machine as it was. */
int vm_save(struct vm *vm, uint8_t **buf, size_t *len, struct error *e);
int vm_load(struct vm *vm, const uint8_t *buf, size_t len, struct error *e);

/* Deterministic stepping for tests and tools, without threads: runs vcpus in turn on the caller's thread
 * until the total retired count reaches `count`, the VM ends, or nothing can ever happen again (all
 * halted, no deadline, no input). */
enum vm_end vm_run_until(struct vm *vm, uint64_t count);

#endif
