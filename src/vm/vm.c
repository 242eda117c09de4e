/* SPDX-License-Identifier: Apache-2.0 */
/* Building a machine from its configuration, and taking it apart in reverse order. */
#include <errno.h>
#include <stdlib.h>

#include "host/code_memory.h"
#include "host/host_cpu.h"
#include "host/memory.h"
#include "host/time.h"
#include "vm/vm_internal.h"

/* --- validation ----------------------------------------------------------------------------------------- */

static int validate(const struct vm_config *cfg, struct error *e)
{
    if (cfg->cpus < 1 || cfg->cpus > MAX_VCPUS)
        return error_set(e, -EINVAL, "%u processors: choose 1 to %d", cfg->cpus, MAX_VCPUS);
    if (cfg->memory < VM_MEMORY_MIN || cfg->memory > VM_MEMORY_MAX)
        return error_set(e, -EINVAL, "%llu bytes of memory: choose from 2M to 512G",
                         (unsigned long long)cfg->memory);
    if (cfg->memory % PAGE_SIZE)
        return error_set(e, -EINVAL, "%llu bytes of memory: choose a multiple of 4K",
                         (unsigned long long)cfg->memory);
    const struct engine_config *ec = &cfg->engine_config;
    if (ec->code_cache && (ec->code_cache < VM_CODE_CACHE_MIN || ec->code_cache > VM_CODE_CACHE_MAX))
        return error_set(e, -EINVAL, "%llu bytes of code cache: choose from 1M to 2G",
                         (unsigned long long)ec->code_cache);
    if (!cfg->board.kernel)
        return error_set(e, -EINVAL, "no kernel given");
    return 0;
}

/* --- processors ----------------------------------------------------------------------------------------- */

static int ack_pic(void *ctx) { return board_ack_pic(((struct vm *)ctx)->board); }

static void eoi(void *ctx, uint8_t vector) { board_eoi(((struct vm *)ctx)->board, vector); }

static void kick(void *ctx, unsigned vcpu) { host_event_set(&((struct vm *)ctx)->cpus[vcpu].wake); }

static void revoke_wait(void *ctx, unsigned vcpu)
{
    /* Nothing to do: whoever waits as a vcpu is quiet, and a revoker drops a quiet vcpu's translations
     * itself. */
    (void)ctx;
    (void)vcpu;
}

static void link_vcpu(struct vm *vm, struct vcpu *v)
{
    v->bus = vm->bus;
    v->clock = vm->clock;
    v->pmap = vm->pmap;
    v->tally = &vm->tally;
    v->log = vm->log;
    v->model = &vm->model;
    v->cb = (struct vcpu_callbacks){
        .ctx = vm,
        .ack_pic = ack_pic,
        .eoi = eoi,
        .ipi = deliver_ipi,
        .kick = kick,
        .stop_others = world_stop_others,
        .resume_others = world_resume_others,
        .revoke_wait = revoke_wait,
    };
}

static int create_cpu(struct vm *vm, unsigned index, struct error *e)
{
    struct vm_cpu *c = &vm->cpus[index];
    c->vm = vm;
    c->v = vcpu_alloc(vm->engine->vcpu_room);
    if (!c->v)
        return error_set(e, -ENOMEM, "cannot allocate processor %u: out of memory", index);
    vm->ncpus = index + 1;
    link_vcpu(vm, c->v);
    c->v->mmu.consumer = world_add_consumer(c);
    int err = vcpu_init(c->v, index, e);
    return err ? err : vm->engine->vcpu_create(c->v, &vm->cfg.engine_config, e);
}

static void destroy_cpu(struct vm *vm, struct vm_cpu *c)
{
    if (c->v->engine_data)
        vm->engine->vcpu_destroy(c->v);
    deadline_cancel(vm->clock, &c->v->lapic_timer);
    vcpu_free(c->v, vm->engine->vcpu_room);
}

/* --- the machine ---------------------------------------------------------------------------------------- */

#define YEAR_2000_NS 946684800000000000ull

/* A deterministic machine's clock must not depend on what was measured on this host today. */
static uint64_t tsc_khz(const struct vm_config *cfg)
{
    if (cfg->tsc_khz)
        return cfg->tsc_khz;
    return cfg->clock_mode == CLOCK_DETERMINISTIC ? 1000000 : host_tsc_khz();
}

/* Vector extensions are executed by code made at run time. */
static int check_code_memory(const char *model, struct error *e)
{
    struct host_code code;
    struct error why = { 0 };
    int err = host_code_map(&code, PAGE_SIZE, &why);
    if (err)
        return error_set(e, err, "the CPU model %s: %s; or try --cpu-model v2", model, why.text);
    host_code_unmap(&code);
    return 0;
}

/* What the host has, if it can be executed here. A deterministic machine does not depend on this host's age. */
static const char *default_model(const struct vm_config *cfg)
{
    struct error none;
    bool plain = cfg->clock_mode == CLOCK_DETERMINISTIC || check_code_memory("host", &none);
    return cpu_model_names[plain ? CPU_MODEL_V2 : CPU_MODEL_HOST];
}

/* In deterministic mode the processor has no random numbers. */
static int choose_model(struct vm *vm, struct error *e)
{
    const struct vm_config *cfg = &vm->cfg;
    const char *name = cfg->cpu_model ? cfg->cpu_model : default_model(cfg);
    struct host_cpu_facts host;
    int model = model_parse(name, e);
    if (model < 0)
        return model;
    host_cpu_read(&host);
    int err = model_init(&vm->model, &host, (enum cpu_model)model, cfg->clock_mode == CLOCK_DETERMINISTIC,
                         cfg->cpus, tsc_khz(cfg), e);
    return err || model <= CPU_MODEL_V2 ? err : check_code_memory(name, e);
}

static int create_parts(struct vm *vm, struct error *e)
{
    const struct vm_config *cfg = &vm->cfg;
    vm->engine = engine_find(cfg->engine ? cfg->engine : "auto", e);
    if (!vm->engine)
        return -ENODEV;
    vm->pmap = pmap_create(e);
    vm->bus = vm->pmap ? bus_create(&vm->tally, e) : NULL;
    vm->clock = vm->bus ? clock_create(cfg->clock_mode, cfg->ns_per_1k_insns, e) : NULL;
    vm->inputs = vm->clock ? input_create(e) : NULL;
    if (!vm->inputs)
        return -ENOMEM;
    if (cfg->wall_base_ns || cfg->clock_mode == CLOCK_DETERMINISTIC)
        clock_set_wall_base_ns(vm->clock, cfg->wall_base_ns ? cfg->wall_base_ns : YEAR_2000_NS);
    int err = events_init(vm, e);
    if (err)
        return err;
    err = choose_model(vm, e);
    if (err)
        return err;
    for (unsigned i = 0; i < cfg->cpus; i++) {
        err = create_cpu(vm, i, e);
        if (err)
            return err;
    }
    struct board_callbacks callbacks;
    life_callbacks(vm, &callbacks);
    vm->board = board_create(&cfg->board, cfg->cpus, cfg->memory, vm->pmap, vm->bus, vm->clock, vm->inputs,
                             &vm->tally, vm->log, &callbacks, e);
    return vm->board ? vm_reset_machine(vm, e) : -EINVAL;
}

struct vm *vm_create(const struct vm_config *cfg, struct log *log, struct error *e)
{
    const uint64_t now = host_monotonic_ns();
    if (validate(cfg, e))
        return NULL;
    struct vm *vm = calloc(1, sizeof(*vm));
    if (!vm) {
        error_set(e, -ENOMEM, "cannot allocate the machine: out of memory");
        return NULL;
    }
    vm->created_ns = now;
    vm->cfg = *cfg;
    if (!vm->cfg.board.append)
        vm->cfg.board.append = "";
    vm->log = log;
    vm->tally.log = log;
    vm->state.cpus = cfg->cpus;
    vm->state.memory = cfg->memory;
    world_init(vm);
    vm->world.stops = 1; /* built standing still; vm_start() lets it go */
    vm->world.clock_paused = true;
    if (create_parts(vm, e)) {
        vm_destroy(vm);
        return NULL;
    }
    return vm;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    if (vm->threaded) {
        vm_request_end(vm, VM_END_REQUEST);
        vm_wait(vm, NULL);
    }
    board_destroy(vm->board);
    for (unsigned i = vm->ncpus; i-- > 0;)
        destroy_cpu(vm, &vm->cpus[i]);
    events_destroy(vm);
    input_destroy(vm->inputs);
    clock_destroy(vm->clock);
    bus_destroy(vm->bus);
    pmap_destroy(vm->pmap);
    world_destroy(vm);
    free(vm);
}

/* --- small views ---------------------------------------------------------------------------------------- */

struct host_loop *vm_loop(struct vm *vm) { return vm->loop; }

const char *vm_engine_name(const struct vm *vm) { return vm->engine->name; }

bool vm_serial_input(struct vm *vm, uint8_t byte) { return board_serial_input(vm->board, byte); }

void vm_power_button(struct vm *vm) { board_power_button(vm->board); }
