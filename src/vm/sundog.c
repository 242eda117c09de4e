/* SPDX-License-Identifier: Apache-2.0 */
/* The public embedding interface, thin over vm.h. */
#include "sundog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/vm_internal.h"

struct sundog {
    struct sundog_config config;
    struct log log;
    struct vm *vm;
};

_Static_assert(sizeof(struct sundog_error) == sizeof(struct error), "one is handed out as the other");
_Static_assert((int)SUNDOG_FAILED == (int)VM_END_INTERNAL && (int)SUNDOG_ENDED == (int)VM_END_REQUEST &&
                   (int)SUNDOG_CRASH == (int)VM_END_CRASH &&
                   (int)SUNDOG_DEBUG_EXIT == (int)VM_END_DEBUG_EXIT &&
                   (int)SUNDOG_RESET == (int)VM_END_RESET && (int)SUNDOG_POWEROFF == (int)VM_END_POWEROFF,
               "same numbers");
_Static_assert((int)SUNDOG_ENTRY_PVH == (int)KERNEL_ENTRY_PVH &&
                   (int)SUNDOG_ENTRY_BZIMAGE == (int)KERNEL_ENTRY_BZIMAGE,
               "same numbers");

const char *sundog_version(void) { return SUNDOG_VERSION; }

static void hand_error(struct sundog_error *to, const struct error *from)
{
    if (to)
        memcpy(to, from, sizeof(*to));
}

/* --- building ------------------------------------------------------------------------------------------- */

static void serial_output(void *ctx, const uint8_t *data, size_t len)
{
    const struct sundog_config *c = &((struct sundog *)ctx)->config;
    if (c->serial_output)
        c->serial_output(c->context, data, len);
}

static void log_sink(void *ctx, enum log_level level, const char *line)
{
    const struct sundog_config *c = &((struct sundog *)ctx)->config;
    c->log(c->context, (int)level, line);
}

static int to_engine_config(const struct sundog_config *c, struct engine_config *ec, struct error *e)
{
    static const unsigned verify[] = {
        [SUNDOG_VERIFY_ALL] = 1,
        [SUNDOG_VERIFY_SAMPLE] = ENGINE_VERIFY_SAMPLE,
        [SUNDOG_VERIFY_OFF] = ENGINE_VERIFY_OFF,
    };
    *ec = (struct engine_config){
        .code_cache = c->code_cache,
        .warm = c->warm_plus_one,
        .verify_every = (unsigned)c->verify_code < array_size(verify) ? verify[c->verify_code] : 1,
        .trace_fd = c->trace_blocks_fd,
        .perf_map = c->perf_map,
    };
    int err = c->engine_off ? engine_parse_passes(c->engine_off, &ec->passes_off, e) : 0;
    return err ? error_wrap(e, "engine_off") : 0;
}

static struct vm_config to_vm_config(struct sundog *s, const struct engine_config *ec)
{
    const struct sundog_config *c = &s->config;
    return (struct vm_config){
        .engine = c->engine ? c->engine : "auto",
        .engine_config = *ec,
        .cpus = c->cpus ? c->cpus : 1,
        .cpu_model = c->cpu_model,
        .memory = c->memory ? c->memory : 512ull << 20,
        .board = { .kernel = c->kernel,
                   .initrd = c->initrd,
                   .append = c->append ? c->append : "",
                   .entry = (enum kernel_entry)c->entry,
                   .debug_exit = c->debug_exit,
                   .debug_exit_port = c->debug_exit_port ? c->debug_exit_port : 0xf4,
                   .serial = true },
        .no_reboot = c->no_reboot,
        .clock_mode = c->ns_per_1k_instructions ? CLOCK_DETERMINISTIC : CLOCK_REAL_TIME,
        .ns_per_1k_insns = c->ns_per_1k_instructions,
        .callbacks = { .ctx = s, .serial_output = serial_output },
    };
}

static struct sundog *create(const struct sundog_config *config, struct error *e)
{
    struct sundog *s = NULL;
    if (config->size > sizeof(s->config)) {
        error_set(e, -EINVAL, "the program was built for a newer libsundog than %s", SUNDOG_VERSION);
        return NULL;
    }
    s = calloc(1, sizeof(*s));
    if (!s) {
        error_set(e, -ENOMEM, "cannot create the machine: out of memory");
        return NULL;
    }
    memcpy(&s->config, config,
           config->size); /* an older program's is shorter: what it does not know is zero */
    if (s->config.log)
        s->log = (struct log){ .level = (enum log_level)s->config.log_level, .sink = log_sink, .ctx = s };
    struct engine_config ec;
    if (!to_engine_config(&s->config, &ec, e)) {
        const struct vm_config vc = to_vm_config(s, &ec);
        s->vm = vm_create(&vc, &s->log, e);
    }
    if (!s->vm) {
        free(s);
        return NULL;
    }
    return s;
}

struct sundog *sundog_create(const struct sundog_config *config, struct sundog_error *error)
{
    struct error e = { 0 };
    struct sundog *s = create(config, &e);
    if (!s)
        hand_error(error, &e);
    return s;
}

void sundog_destroy(struct sundog *s)
{
    if (!s)
        return;
    vm_destroy(s->vm);
    free(s);
}

/* --- running -------------------------------------------------------------------------------------------- */

int sundog_start(struct sundog *s, struct sundog_error *error)
{
    struct error e = { 0 };
    int err = vm_start(s->vm, &e);
    if (err)
        hand_error(error, &e);
    return err;
}

void sundog_pause(struct sundog *s) { vm_stop_world(s->vm); }

void sundog_resume(struct sundog *s) { vm_resume(s->vm); }

void sundog_end(struct sundog *s) { vm_request_end(s->vm, VM_END_REQUEST); }

enum sundog_end sundog_wait(struct sundog *s, uint32_t *debug_exit_value)
{
    return (enum sundog_end)vm_wait(s->vm, debug_exit_value);
}

enum sundog_end sundog_run_until(struct sundog *s, uint64_t count)
{
    return (enum sundog_end)vm_run_until(s->vm, count);
}

size_t sundog_serial_input(struct sundog *s, const uint8_t *data, size_t len)
{
    size_t n = 0;
    while (n < len && vm_serial_input(s->vm, data[n]))
        n++;
    return n;
}

void sundog_power_button(struct sundog *s) { vm_power_button(s->vm); }

/* --- inspecting ----------------------------------------------------------------------------------------- */

uint64_t sundog_instructions(const struct sundog *s) { return vm_instructions(s->vm); }

char *sundog_stats(struct sundog *s) { return vm_stats_json(s->vm); }

uint64_t sundog_state_hash(struct sundog *s) { return vm_state_hash(s->vm); }

int sundog_read_memory(struct sundog *s, uint64_t address, void *data, size_t len)
{
    return ram_read(s->vm->pmap, GPA(address), data, len);
}

int sundog_read_registers(struct sundog *s, unsigned cpu, uint64_t registers[SUNDOG_REGISTERS])
{
    if (cpu >= s->vm->ncpus)
        return -EINVAL;
    struct vcpu *v = s->vm->cpus[cpu].v;
    if (s->vm->engine->sync)
        s->vm->engine->sync(v, SYNC_ALL);
    memcpy(registers, v->s.gpr, sizeof(v->s.gpr));
    const uint64_t rest[] = { v->s.rip, state_rflags(&v->s), v->s.cr0, v->s.cr2, v->s.cr3, v->s.cr4 };
    memcpy(registers + 16, rest, sizeof(rest));
    return 0;
}

int sundog_save(struct sundog *s, uint8_t **data, size_t *len, struct sundog_error *error)
{
    struct error e = { 0 };
    int err = vm_save(s->vm, data, len, &e);
    if (err)
        hand_error(error, &e);
    return err;
}

int sundog_load(struct sundog *s, const uint8_t *data, size_t len, struct sundog_error *error)
{
    struct error e = { 0 };
    int err = vm_load(s->vm, data, len, &e);
    if (err)
        hand_error(error, &e);
    return err;
}
