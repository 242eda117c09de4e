/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsundog: a PC as an object of your program.
 *
 *     struct sundog_config config = { .size = sizeof(config), .memory = 512 << 20, .kernel = "vmlinuz" };
 *     struct sundog_error error = { 0 };
 *     struct sundog *vm = sundog_create(&config, &error);
 *     if (!vm || sundog_start(vm, &error))
 *         puts(error.text);
 *     enum sundog_end why = sundog_wait(vm, NULL);
 *     sundog_destroy(vm);
 *
 * The library never ends the process, keeps no state outside its objects, and leaves signals to the program.
 * A function that can fail returns a negative errno, or NULL, and says why in `error` (which may be NULL) in
 * one line for people.
 */
#ifndef SUNDOG_H
#define SUNDOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sundog; /* one machine */

struct sundog_error {
    int code; /* negative errno */
    char text[480];
};

/* How a machine ended. */
enum sundog_end {
    SUNDOG_RUNNING,
    SUNDOG_POWEROFF,
    SUNDOG_RESET,      /* under no_reboot */
    SUNDOG_DEBUG_EXIT, /* the guest wrote to the debug-exit device */
    SUNDOG_CRASH,      /* triple fault under no_reboot */
    SUNDOG_ENDED,      /* by sundog_end() */
    SUNDOG_FAILED,     /* a bug of ours; the log says which */
};

/* Which translated code is proved harmless before it runs. */
enum sundog_verify { SUNDOG_VERIFY_DEFAULT, SUNDOG_VERIFY_ALL, SUNDOG_VERIFY_SAMPLE, SUNDOG_VERIFY_OFF };

enum sundog_kernel_entry { SUNDOG_ENTRY_AUTO, SUNDOG_ENTRY_BZIMAGE, SUNDOG_ENTRY_PVH };

/* What zero means is said in brackets. Strings have to outlive the machine. */
struct sundog_config {
    size_t size;                    /* sizeof(struct sundog_config): tells library and program apart in age */
    const char *engine;             /* [the best usable] "bt", "interp": what `sundog doctor` lists */
    unsigned cpus;                  /* [1] up to 8 */
    uint64_t memory;                /* bytes [512 MiB], a multiple of 4096 */
    const char *kernel;             /* path: Linux bzImage, ELF vmlinux, Multiboot */
    const char *initrd;             /* path [none] */
    const char *append;             /* kernel command line [empty] */
    enum sundog_kernel_entry entry; /* [auto] */
    bool no_reboot;                 /* a guest's reset ends the machine [it boots again] */
    bool debug_exit;                /* the debug-exit device is there [not] */
    uint16_t debug_exit_port;       /* [0xf4] */
    /* Not 0: the machine is deterministic. Time follows instructions, this many ns a thousand, and the
     * program steps it with sundog_run_until() instead of sundog_start(). */
    uint64_t ns_per_1k_instructions;
    void *context; /* handed to the callbacks */
    /* Bytes of the serial port. Called on a thread of the machine, which waits for it to return. [dropped] */
    void (*serial_output)(void *context, const uint8_t *data, size_t len);
    /* One line of diagnostics, any thread. level: 0 error, 1 warning, 2 information, 3 detail. [dropped] */
    void (*log)(void *context, int level, const char *line);
    int log_level; /* most detailed level wanted */
    /* The translator's; other engines have no use for them. */
    uint64_t code_cache;    /* bytes of translated code kept a processor, 1 MiB to 2 GiB [its own choice] */
    const char *engine_off; /* passes left out, to find which is to blame, such as "merge,chain" [none] */
    unsigned warm_plus_one; /* runs of a block before it is translated, plus one [its own choice] */
    enum sundog_verify verify_code; /* [all or a sample, as the library was built] */
    int trace_blocks_fd; /* guest code beside host code is written there; stays the program's [none] */
    bool perf_map;       /* write /tmp/perf-PID.map [not] */
    /* The processor shown: "v1" to "v4", a level of the x86-64 psABI, or "host": all that the host's has and
     * that is implemented. [host; v2 in deterministic machines, and where no code can be made] */
    const char *cpu_model;
};

const char *sundog_version(void);

/* Builds the machine and loads the kernel. */
struct sundog *sundog_create(const struct sundog_config *config, struct sundog_error *error);
/* Ends it if it still runs. */
void sundog_destroy(struct sundog *vm);

/* Runs on threads of its own. */
int sundog_start(struct sundog *vm, struct sundog_error *error);
/* All processors stand at an instruction boundary and virtual time stands still until as many resumes as
 * pauses. */
void sundog_pause(struct sundog *vm);
void sundog_resume(struct sundog *vm);
/* Ends it from outside, any thread. */
void sundog_end(struct sundog *vm);
/* Waits for the end; *debug_exit_value (may be NULL) gets what the guest wrote. */
enum sundog_end sundog_wait(struct sundog *vm, uint32_t *debug_exit_value);
/* Deterministic machines: goes on, on the caller's thread, until all processors together have retired
 * `count` instructions, it ends, or nothing can ever happen again. */
enum sundog_end sundog_run_until(struct sundog *vm, uint64_t count);

/* Bytes for the serial port; returns how many were taken. Any thread. */
size_t sundog_serial_input(struct sundog *vm, const uint8_t *data, size_t len);
/* Asks the guest to shut down (ACPI). Any thread. */
void sundog_power_button(struct sundog *vm);

/* --- to be called while paused, before the start, or after the end -------------------------------------- */

uint64_t sundog_instructions(const struct sundog *vm);
/* Counters as one JSON object; free() it. */
char *sundog_stats(struct sundog *vm);
/* Hash over the state of all processors, chips and memory. */
uint64_t sundog_state_hash(struct sundog *vm);
/* Guest-physical memory; -EFAULT when some of it is not RAM or ROM. */
int sundog_read_memory(struct sundog *vm, uint64_t address, void *data, size_t len);
/* Registers of processor `cpu`: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 RIP RFLAGS CR0 CR2 CR3 CR4. */
#define SUNDOG_REGISTERS 22
int sundog_read_registers(struct sundog *vm, unsigned cpu, uint64_t registers[SUNDOG_REGISTERS]);
/* The whole machine in one buffer (free() it) / from one, into a machine of the same configuration. */
int sundog_save(struct sundog *vm, uint8_t **data, size_t *len, struct sundog_error *error);
int sundog_load(struct sundog *vm, const uint8_t *data, size_t len, struct sundog_error *error);

#ifdef __cplusplus
}
#endif
#endif
