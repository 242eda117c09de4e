/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of the comparison: one vcpu at CPL 3 in long mode (64-bit or compatibility code), whose page tables show the same
 * pages at the same linear addresses as the native child has. Each exception ends in a HLT of its own, so rip tells the vector.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "engine/interp/interp.h"
#include "host/host_cpu.h"
#include "native.h"

/* Guest-physical layout. */
enum {
    PML4 = 0x1000,
    PDPT = 0x2000,
    PD = 0x3000,
    PT_CODE = 0x4000,
    PT_DATA = 0x5000,
    PT_KERNEL = 0x6000,
    GDT = 0x7000,
    IDT = 0x8000,
    TSS = 0x9000,
    STUBS = 0xa000,
    STACK = 0xc000,
    CODE_PA = 0x10000,
    DATA_PA = 0x14000
};
#define KERNEL_BASE \
    0x3fe00000ull /* linear address of guest-physical 0 for the handlers and tables; no edge value points there */
#define RAM_SIZE (1u << 20)

enum { SEL_KCODE = 0x10, SEL_UCODE32 = 0x23, SEL_UDATA = 0x2b, SEL_UCODE64 = 0x33, SEL_TSS = 0x40 };

struct guest {
    struct pmap *pmap;
    struct bus *bus;
    struct clock *clock;
    struct tally tally;
    struct vm_cpu_shared model;
    const struct engine_ops *engine;
    struct vcpu *v;
};

static void store(struct guest *g, uint64_t at, const void *p, size_t n)
{
    if (ram_write(g->pmap, GPA(at), p, n) < 0)
        abort();
}

static void store64(struct guest *g, uint64_t at, uint64_t val) { store(g, at, &val, 8); }

static void map_page(struct guest *g, uint64_t table, uint64_t lin, uint64_t pa, uint64_t flags)
{
    store64(g, table + (lin >> 12 & 511) * 8, pa | flags);
}

static void build_tables(struct guest *g)
{
    const uint64_t p = 1, w = 2, u = 4, nx = 1ull << 63;
    store64(g, PML4, PDPT | p | w | u);
    store64(g, PDPT, PD | p | w | u);
    store64(g, PD + (CODE_BASE >> 21) * 8, PT_CODE | p | w | u);
    store64(g, PD + (DATA_BASE >> 21) * 8, PT_DATA | p | w | u);
    store64(g, PD + (KERNEL_BASE >> 21) * 8, PT_KERNEL | p | w);
    for (unsigned i = 0; i < CODE_SIZE; i += 0x1000)
        map_page(g, PT_CODE, CODE_BASE + i, CODE_PA + i, p | u | w);
    for (unsigned i = 0; i < DATA_SIZE; i += 0x1000)
        map_page(g, PT_DATA, DATA_BASE + i, DATA_PA + i, p | u | nx | (i < DATA_WRITABLE ? w : 0));
    for (unsigned i = 0; i < 0x10000; i += 0x1000)
        map_page(g, PT_KERNEL, KERNEL_BASE + i, i, p | w);

    store64(g, GDT + SEL_KCODE, 0x00209b0000000000ull);
    store64(g, GDT + (SEL_UCODE32 & ~7), 0x00cffb000000ffffull);
    store64(g, GDT + (SEL_UDATA & ~7), 0x00cff3000000ffffull);
    store64(g, GDT + (SEL_UCODE64 & ~7), 0x0020fb0000000000ull);
    for (unsigned vec = 0; vec < 32; vec++) {
        uint64_t handler = KERNEL_BASE + STUBS + vec * 16;
        uint64_t dpl = vec == 3 ? 3 : 0;
        store64(g, IDT + vec * 16,
                (handler & 0xffff) | (uint64_t)SEL_KCODE << 16 | 0x8e00ull << 32 | dpl << 45 |
                    (handler >> 16 & 0xffff) << 48);
        store64(g, IDT + vec * 16 + 8, handler >> 32);
        store(g, STUBS + vec * 16, "\xf4\xeb\xfd", 3); /* hlt; jmp -3 */
    }
    store64(g, TSS + 4, KERNEL_BASE + STACK);
    uint8_t fill[0x1000];
    memset(fill, 0xcc, sizeof(fill));
    for (unsigned i = 0; i < CODE_SIZE; i += 0x1000)
        store(g, CODE_PA + i, fill, sizeof(fill));
}

static int no_pic(void *ctx)
{
    (void)ctx;
    return -1;
}
static void no_eoi(void *ctx, uint8_t vec)
{
    (void)ctx;
    (void)vec;
}
static void no_ipi(void *ctx, unsigned from, uint32_t lo, uint32_t hi)
{
    (void)ctx;
    (void)from;
    (void)lo;
    (void)hi;
}
static void no_vcpu(void *ctx, unsigned n)
{
    (void)ctx;
    (void)n;
}

static void drop(void *ctx, uint64_t first, uint64_t count, unsigned rights)
{
    struct guest *g = ctx;
    mmu_drop_physical(&g->v->mmu, first, count, rights);
    if (g->engine->drop_physical)
        g->engine->drop_physical(g->v, first, count, rights);
}

static void code_changed(void *ctx, uint64_t page)
{
    struct guest *g = ctx;
    if (g->engine->code_changed)
        g->engine->code_changed(g->v, page);
}

struct guest *guest_create(const char *engine)
{
    static const struct engine_config translate_at_once = { .warm = 1, .verify_every = 1 };
    struct error e = { 0 };
    struct guest *g = calloc(1, sizeof(*g));
    struct host_cpu_facts facts;
    g->pmap = pmap_create(&e);
    g->bus = bus_create(&g->tally, &e);
    g->clock = clock_create(CLOCK_DETERMINISTIC, 1000, &e);
    g->engine = engine_find(engine ? engine : interp_engine.name, &e);
    if (!g->engine)
        goto fail;
    g->v = vcpu_alloc(g->engine->vcpu_room);
    if (!g->v || !g->pmap || !g->bus || !g->clock || pmap_add(g->pmap, REGION_RAM, GPA(0), RAM_SIZE, &e) < 0)
        goto fail;
    host_cpu_read(&facts);
    if (model_init(&g->model, &facts, CPU_MODEL_HOST, true, 1, 1000000, &e) < 0)
        goto fail;
    struct vcpu *v = g->v;
    v->bus = g->bus;
    v->clock = g->clock;
    v->pmap = g->pmap;
    v->tally = &g->tally;
    v->model = &g->model;
    v->cb = (struct vcpu_callbacks){ g, no_pic, no_eoi, no_ipi, no_vcpu, no_vcpu, no_vcpu, no_vcpu };
    struct pmap_consumer consumer = { .revoke = drop, .ctx = g, .code_changed = code_changed };
    v->mmu.consumer = pmap_add_consumer(g->pmap, &consumer);
    if (vcpu_init(v, 0, &e) < 0 || g->engine->vcpu_create(v, &translate_at_once, &e) < 0)
        goto fail;
    build_tables(g);
    return g;
fail:
    fprintf(stderr, "cannot make the guest: %s\n", e.text);
    exit(1);
}

uint64_t guest_features(const struct guest *g) { return g->model.features; }

void guest_destroy(struct guest *g)
{
    g->engine->vcpu_destroy(g->v);
    vcpu_free(g->v, g->engine->vcpu_room);
    clock_destroy(g->clock);
    bus_destroy(g->bus);
    pmap_destroy(g->pmap);
    free(g);
}

static struct segment flat(uint16_t sel, uint32_t attr)
{
    return (struct segment){ .sel = sel, .attr = attr, .limit = 0xffffffff, .base = 0 };
}

static void set_user_state(struct guest *g, const struct cpu_image *in, unsigned code_bytes)
{
    struct vcpu_state *s = &g->v->s;
    bool long64 = code_bytes == 8;
    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    s->cr3 = PML4;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PGE | CR4_OSXSAVE;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->seg[SEG_CS] = flat(long64 ? SEL_UCODE64 : SEL_UCODE32, long64 ? 0xa0fb : 0xc0fb);
    s->seg[SEG_SS] = s->seg[SEG_DS] = s->seg[SEG_ES] = flat(SEL_UDATA, 0xc0f3);
    s->seg[SEG_FS] = (struct segment){ .attr = SA_UNUSABLE };
    s->seg[SEG_GS] = (struct segment){ .attr = SA_UNUSABLE, .base = long64 ? DATA_BASE : 0 };
    s->tr = (struct segment){ .sel = SEL_TSS, .attr = 0x8b, .limit = 0x67, .base = KERNEL_BASE + TSS };
    s->ldtr = (struct segment){ .attr = SA_UNUSABLE };
    s->gdtr = (struct table_reg){ KERNEL_BASE + GDT, 0xfff };
    s->idtr = (struct table_reg){ KERNEL_BASE + IDT, 0x1ff };
    s->activity = ACTIVITY_RUN;
    s->shadow = 0;
    memcpy(s->gpr, in->gpr, sizeof(s->gpr));
    s->rip = in->rip;
    s->rflags = (in->rflags & ~(uint64_t)FL_STATUS) | FL_IF | 2;
    s->cc = flags_to_cc(in->rflags);
    struct fpu_state *f = &s->fpu;
    f->fcw = in->fp.fcw;
    f->fsw = in->fp.fsw;
    f->ftw = in->fp.ftw;
    f->mxcsr = in->fp.mxcsr;
    for (unsigned i = 0; i < 8; i++)
        memcpy(f->st[i], in->fp.st[i], 10);
    memcpy(f->xmm, in->fp.xmm, 256);
    f->xcr0 = g->model.xcr0;
    memcpy(f->ymmh, in->fp.ymmh, sizeof(f->ymmh));
    memcpy(f->zmmh, in->fp.zmmh, sizeof(f->zmmh));
    memcpy(f->zmm16, in->fp.zmm16, sizeof(f->zmm16));
    memcpy(f->k, in->fp.k, sizeof(f->k));
}

static void take_state(struct guest *g, struct test_result *r)
{
    const struct vcpu_state *s = &g->v->s;
    const struct fpu_state *f = &s->fpu;
    memcpy(r->out.gpr, s->gpr, sizeof(s->gpr));
    r->out.fp.fcw = f->fcw;
    r->out.fp.fsw = f->fsw;
    r->out.fp.ftw = f->ftw;
    r->out.fp.mxcsr = f->mxcsr;
    for (unsigned i = 0; i < 8; i++)
        memcpy(r->out.fp.st[i], f->st[i], 10);
    memcpy(r->out.fp.xmm, f->xmm, 256);
    memcpy(r->out.fp.ymmh, f->ymmh, sizeof(f->ymmh));
    memcpy(r->out.fp.zmmh, f->zmmh, sizeof(f->zmmh));
    memcpy(r->out.fp.zmm16, f->zmm16, sizeof(f->zmm16));
    memcpy(r->out.fp.k, f->k, sizeof(f->k));
}

/* What the delivered exception pushed: [error,] rip, cs, rflags, rsp, ss. */
static void take_frame(struct guest *g, struct test_result *r)
{
    static const uint32_t with_error = 1u << 8 | 0x7c00u | 1u << 17;
    uint64_t frame[6], rsp = g->v->s.gpr[RSP] - KERNEL_BASE;
    uint64_t stub = g->v->s.rip - (KERNEL_BASE + STUBS);
    r->vector = (uint32_t)(stub / 16);
    unsigned skip = r->vector < 32 && with_error >> r->vector & 1;
    if (rsp > RAM_SIZE - 64 || ram_read(g->pmap, GPA(rsp), frame, 8 * (5 + skip)) < 0) {
        r->vector = 0xff; /* a HLT that no exception led to: SYSCALL with no handler */
        r->error = 0;
        r->out.rip = g->v->s.rip;
        r->out.rflags = state_rflags(&g->v->s);
        return;
    }
    r->error = skip ? (uint32_t)frame[0] : 0;
    r->out.rip = frame[skip];
    r->out.rflags = frame[skip + 2];
    r->out.gpr[RSP] = frame[skip + 3];
}

/* From the state in the vcpu to the HLT of a handler; at most `limit` instructions. */
static enum exit_cause run(struct guest *g, unsigned limit)
{
    struct vcpu *v = g->v;
    enum exit_cause cause = EXIT_COUNT;
    uint64_t until = v->s.retired + limit;
    vcpu_refresh(v);
    if (g->engine->state_changed)
        g->engine->state_changed(v);
    while (v->s.retired < until) {
        cause = g->engine->run(v, until);
        if (cause != EXIT_REQUEST)
            break;
    }
    g->engine->sync(v, SYNC_ALL);
    return cause;
}

static void take_end(struct guest *g, enum exit_cause cause, struct test_result *r)
{
    take_state(g, r);
    r->cr2 = g->v->s.cr2;
    if (cause == EXIT_HLT) {
        take_frame(g, r);
        return;
    }
    r->vector = 0x100u + cause;
    r->error = 0;
    r->out.rip = g->v->s.rip;
    r->out.rflags = state_rflags(&g->v->s);
}

void guest_run(struct guest *g, const struct test_case *c, struct test_result *r)
{
    store(g, CODE_PA + (c->in.rip - CODE_BASE), c->code, c->code_len);
    store(g, DATA_PA + c->window, c->memory, WINDOW_SIZE);
    set_user_state(g, &c->in, c->code_bytes);
    take_end(g, run(g, 100), r);
    if (ram_read(g->pmap, GPA(DATA_PA + c->window), r->memory, WINDOW_SIZE) < 0)
        abort();
    uint8_t fill[16];
    memset(fill, 0xcc, sizeof(fill));
    store(g, CODE_PA + (c->in.rip - CODE_BASE), fill, c->code_len);
}

const char *guest_engine(const struct guest *g) { return g->engine->name; }

static void put_program(struct guest *g, const struct program_case *c)
{
    static uint8_t code[CODE_SIZE], data[DATA_SIZE];
    memset(code, 0xcc, sizeof(code));
    memcpy(code + (c->in.rip - CODE_BASE), c->code, c->code_len);
    for (unsigned i = 0; i < DATA_SIZE; i += PATTERN_SIZE)
        memcpy(data + i, c->pattern, PATTERN_SIZE);
    store(g, CODE_PA, code, sizeof(code));
    store(g, DATA_PA, data, sizeof(data));
}

bool guest_run_program(struct guest *g, const struct program_case *c, struct program_result *r,
                       guest_watch *watch, void *ctx)
{
    put_program(g, c);
    set_user_state(g, &c->in, c->code_bytes);
    if (g->engine == &interp_engine)
        interp_set_trace(g->v, watch, ctx);
    enum exit_cause cause = run(g, PROGRAM_LIMIT);
    take_end(g, cause, &r->end);
    for (unsigned i = 0; i < PROGRAM_PIECES; i++) {
        uint8_t piece[PIECE];
        uint64_t at = i < CODE_SIZE / PIECE ? CODE_PA + i * PIECE : DATA_PA + i * PIECE - CODE_SIZE;
        if (ram_read(g->pmap, GPA(at), piece, PIECE) < 0)
            abort();
        r->piece[i] = piece_sum(piece);
    }
    return cause == EXIT_HLT;
}
