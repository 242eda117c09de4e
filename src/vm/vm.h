/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine's life: build it, run it, stop it, save it, count what it did.
 *
 *   CREATED ──vm_start──► RUNNING ◄──vm_resume/vm_stop_world──► STOPPED ──► (power-off, reset, crash) ENDED ──vm_destroy
 *
 * Threads: one a vcpu, one event thread. Lock order: world lock, device lock (bus), leaf locks (clock, queue, pmap). See docs/threads.md.
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
#include "memory/pmap.h"

struct vm_config {
    const char *engine;       /* "auto", "interp" */
    unsigned cpus;            /* 1..MAX_VCPUS */
    uint64_t memory;          /* bytes */
    struct board_config board; /* kernel, initrd, command line, devices */
    bool no_reboot;           /* a guest reset ends the VM instead */
    enum clock_mode clock_mode;
    uint64_t ns_per_1k_insns; /* deterministic mode */
};

enum vm_end { VM_END_NONE, VM_END_POWEROFF, VM_END_RESET, VM_END_DEBUG_EXIT, VM_END_CRASH, VM_END_REQUEST, VM_END_INTERNAL };

struct vm; /* opaque outside vm/ */

struct vm *vm_create(const struct vm_config *cfg, struct log *log, struct error *e);
void vm_destroy(struct vm *vm);
int vm_start(struct vm *vm, struct error *e);
/* Leaves all vcpus at an instruction boundary, clock paused, inputs drained or listed. Nests by count. Not from a vcpu thread. */
void vm_stop_world(struct vm *vm);
void vm_resume(struct vm *vm);
/* Asks the VM to end (timeout, Ctrl-A x, signal). Any thread. */
void vm_request_end(struct vm *vm, enum vm_end why);
/* Waits until the VM has ended; returns why; *debug_exit_value gets the guest's value. */
enum vm_end vm_wait(struct vm *vm, uint32_t *debug_exit_value);
/* The machine's state objects (world stopped), for save, load, hash, print. */
unsigned vm_state_objects(struct vm *vm, struct state_object *out, unsigned max);
uint64_t vm_state_hash(struct vm *vm); /* objects and RAM */
/* Deterministic stepping for tests and tools, without threads: runs vcpus in turn on the caller's thread until the total retired
 * count reaches `count` or the VM ends. */
enum vm_end vm_run_until(struct vm *vm, uint64_t count);

#endif
