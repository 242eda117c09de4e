/* SPDX-License-Identifier: Apache-2.0 */
/* The machine around one processor, as small as it gets. */
#include "cpu_kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/host_cpu.h"

/* What is wrong with the engine itself is told; the rest is what the tests provoke. */
static void errors_alone(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    if (level == LOG_ERROR)
        fprintf(stderr, "%s\n", line);
}

static uint64_t file_read(void *dev, uint32_t off, unsigned width)
{
    struct kit *k = dev;
    uint64_t val = 0;
    k->mmio_reads++;
    memcpy(&val, k->mmio + off, width);
    return val;
}

static void file_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    struct kit *k = dev;
    k->mmio_writes++;
    memcpy(k->mmio + off, &val, width);
}

static const struct bus_ops file_ops = { .read = file_read, .write = file_write };

static void note_eoi(void *ctx, uint8_t vector)
{
    struct kit *k = ctx;
    k->eois++;
    k->eoi_vector = vector;
}

static void note_ipi(void *ctx, unsigned from, uint32_t low, uint32_t high)
{
    struct kit *k = ctx;
    (void)from;
    k->ipis++;
    k->ipi_low = low;
    k->ipi_high = high;
}

static void revoke(void *ctx, uint64_t first, uint64_t count, unsigned rights)
{
    struct kit *k = ctx;
    mmu_drop_physical(&k->v->mmu, first, count, rights);
    if (k->engine && k->engine->drop_physical)
        k->engine->drop_physical(k->v, first, count, rights);
}

static void code_changed(void *ctx, uint64_t page)
{
    struct kit *k = ctx;
    if (k->engine && k->engine->code_changed)
        k->engine->code_changed(k->v, page);
}

static size_t largest_room(void)
{
    size_t room = 0;
    for (const struct engine_ops *const *e = engine_table; *e; e++)
        room = (*e)->vcpu_room > room ? (*e)->vcpu_room : room;
    return room;
}

static int setup(void **state, const char *vendor)
{
    struct kit *k = calloc(1, sizeof(*k));
    struct error e = { 0 };
    assert_non_null(k);
    k->room = largest_room();
    k->v = vcpu_alloc(k->room);
    assert_non_null(k->v);
    k->log.sink = errors_alone;
    k->tally.log = &k->log;
    k->pmap = pmap_create(&e);
    assert_non_null(k->pmap);
    assert_int_equal(pmap_add(k->pmap, REGION_RAM, GPA(0), KIT_ROM, &e), 0);
    assert_int_equal(pmap_add(k->pmap, REGION_ROM, GPA(KIT_ROM), 0x10000, &e), 0);
    assert_int_equal(pmap_add(k->pmap, REGION_RAM, GPA(0x100000), KIT_RAM - 0x100000, &e), 0);
    assert_int_equal(pmap_add(k->pmap, REGION_RAM, GPA(KIT_HIGH), 4 << 20, &e), 0);
    pmap_set_a20(k->pmap, true);
    k->bus = bus_create(&k->tally, &e);
    assert_int_equal(bus_map_mmio(k->bus, GPA(KIT_MMIO), 4096, &file_ops, k, &e), 0);
    k->clock = clock_create(CLOCK_DETERMINISTIC, 1000, &e);
    assert_non_null(k->clock);
    clock_resume(k->clock);

    struct host_cpu_facts facts = { .signature = 0x00a20f10, .leaf1_ecx = ~0u };
    memcpy(facts.vendor, vendor, 12);
    facts.cache[0][0] = 0x121; /* L1 data */
    facts.cache[1][0] = 0x163; /* L3 unified */
    model_init_v2(&k->model, &facts, 1, KIT_TSC_KHZ);

    struct vcpu *v = k->v;
    v->pmap = k->pmap;
    v->bus = k->bus;
    v->clock = k->clock;
    v->tally = &k->tally;
    v->log = &k->log;
    v->model = &k->model;
    v->cb.ctx = k;
    v->cb.eoi = note_eoi;
    v->cb.ipi = note_ipi;
    v->mmu.consumer = pmap_add_consumer(
        k->pmap, &(struct pmap_consumer){ .revoke = revoke, .ctx = k, .code_changed = code_changed });
    assert_int_equal(vcpu_init(v, 0, &e), 0);
    *state = k;
    return 0;
}

int kit_setup(void **state) { return setup(state, "GenuineIntel"); }

int kit_setup_amd(void **state) { return setup(state, "AuthenticAMD"); }

int kit_teardown(void **state)
{
    struct kit *k = *state;
    deadline_cancel(k->clock, &k->v->lapic_timer);
    clock_destroy(k->clock);
    bus_destroy(k->bus);
    pmap_destroy(k->pmap);
    vcpu_free(k->v, k->room);
    free(k);
    return 0;
}

void kit_put64(struct kit *k, uint64_t addr, uint64_t val)
{
    assert_int_equal(pmap_load(k->pmap, GPA(addr), &val, 8), 0);
}

void kit_put32(struct kit *k, uint64_t addr, uint32_t val)
{
    assert_int_equal(pmap_load(k->pmap, GPA(addr), &val, 4), 0);
}

uint64_t kit_get64(struct kit *k, uint64_t addr)
{
    uint64_t val;
    assert_int_equal(ram_read(k->pmap, GPA(addr), &val, 8), 0);
    return val;
}

uint32_t kit_get32(struct kit *k, uint64_t addr) { return (uint32_t)kit_get64(k, addr); }

/* One instruction is one nanosecond. */
void kit_pass_ns(struct kit *k, uint64_t ns)
{
    k->v->s.retired += ns;
    vcpu_now(k->v);
    bus_lock(k->bus);
    clock_run_due(k->clock);
    bus_unlock(k->bus);
}

void kit_set_cpl(struct kit *k, unsigned cpl)
{
    uint32_t *ss = &k->v->s.seg[SEG_SS].attr, *cs = &k->v->s.seg[SEG_CS].attr;
    *ss = (*ss & ~SA_DPL) | cpl << SA_DPL_SHIFT;
    *cs = (*cs & ~SA_DPL) | cpl << SA_DPL_SHIFT;
    vcpu_refresh_mode(k->v);
}

void kit_long_mode(struct kit *k, uint64_t cr3)
{
    struct vcpu_state *s = &k->v->s;
    s->cr0 = CR0_PE | CR0_ET | CR0_PG | CR0_WP;
    s->cr3 = cr3;
    s->cr4 = CR4_PAE;
    s->efer = EFER_LME | EFER_LMA | EFER_NXE;
    s->seg[SEG_CS].attr = SA_P | SA_S | SA_L | 0xb;
    vcpu_refresh(k->v);
}
