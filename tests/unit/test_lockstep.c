/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every engine against the interpreter: random programs run by the engine in slices of random length, and by the
 * interpreter one instruction at a time, must come to equal states and memory. The interpreter itself is one of the
 * engines: its blocks against its single instructions.
 *
 *   SUNDOG_LOCKSTEP=n       programs in each world (default 1000)     SUNDOG_SEED=s     another sequence
 *   SUNDOG_LOCKSTEP_WORLD=w only the worlds whose name begins so     SUNDOG_UNIT_ENGINE=e   only this engine
 *
 * What a program does with translations that are out of date is open: told apart, and no difference (stale.h).
 * A difference is told with the program, the first instruction behind which it shows, and the way to see it again.
 */
#include "engine_kit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "disasm.h"
#include "host/host_cpu.h"
#include "sequence.h"
#include "stale.h"
#include "states.h"

/* --- memory ------------------------------------------------------------------------------------------------------ */

#define CODE 0x40000u /* two pages */
#define DATA 0x48000u /* DATA_PAGES of them */
#define DATA_PAGES 6u
#define TABLE 0x4f000u   /* the page table of the low 2 (4) MiB, where the supervisor can change it */
#define TABLES 0x800000u /* those above it, out of reach */
#define BASE16 0x40000u  /* of the segments of 16-bit code: reaches code, data and table */

/* Pages that programs can see and that are compared. */
static const struct {
    uint32_t first, count;
} mapped[] = { { 0, 8 },          { 0x1f, 12 }, { 0x30, 1 }, { CODE >> 12, 2 }, { DATA >> 12, DATA_PAGES },
               { TABLE >> 12, 1 } };

/* --- machines ---------------------------------------------------------------------------------------------------- */

struct machine {
    void *state;
    struct kit *k;
    struct vcpu_state pristine;
};

/* `wide`: a processor with all extensions of the host's. */
static void machine_make(struct machine *m, const struct engine_ops *engine, const struct engine_config *cfg,
                         bool wide)
{
    assert_int_equal(kit_setup(&m->state), 0);
    m->k = m->state;
    m->pristine = m->k->v->s;
    if (wide) {
        struct host_cpu_facts facts;
        struct error e;
        host_cpu_read(&facts);
        assert_int_equal(model_init(&m->k->model, &facts, CPU_MODEL_HOST, true, 1, KIT_TSC_KHZ, &e), 0);
    }
    kit_engine(m->k, engine, cfg);
}

static void machine_end(struct machine *m) { engine_teardown(&m->state); }

static void put(struct kit *k, uint64_t at, const void *p, size_t n)
{
    assert_int_equal(pmap_load(k->pmap, GPA(at), p, n), 0);
}

/* --- handlers: what faults is stepped over byte by byte, traps and interrupts return ----------------------------- */

GUEST_CODE(skip64, 64, "inc qword ptr [rsp]\n iretq");
GUEST_CODE(skip64_error, 64, "add rsp, 8\n inc qword ptr [rsp]\n iretq");
GUEST_CODE(back64, 64, "iretq");
GUEST_CODE(skip32, 32, "inc dword ptr [esp]\n iretd");
GUEST_CODE(skip32_error, 32, "add esp, 4\n inc dword ptr [esp]\n iretd");
GUEST_CODE(back32, 32, "iretd");
GUEST_CODE(skip16, 16, "push bp\n mov bp, sp\n inc word ptr [bp + 2]\n pop bp\n iret");
GUEST_CODE(back16, 16, "iret");
GUEST_CODE(sysret, 64, "sysretq");
GUEST_CODE(sysexit, 32, "sysexit");

#define CODE_OF(name) name##_start, (size_t)(name##_end - name##_start)

#define FIRST_SOFT 32u /* vectors from here to 63 are reached by INT, also by users */
#define SYSRET_AT (HANDLER_AT + 16 * 64)
#define SYSEXIT_AT (HANDLER_AT + 16 * 65)

static void put_handlers(struct kit *k, unsigned bytes)
{
    const uint64_t errors = BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) |
                            BIT(VEC_PF) | BIT(VEC_AC);
    const uint64_t traps = BIT(VEC_DB) | BIT(VEC_NMI) | BIT(VEC_BP) | BIT(VEC_OF);
    for (unsigned vec = 0; vec < 64; vec++) {
        uint64_t at = HANDLER_AT + 16 * vec;
        bool error = bytes != 2 && errors >> vec & 1, back = vec >= FIRST_SOFT || traps >> vec & 1;
        if (bytes == 2)
            back ? put(k, at, CODE_OF(back16)) : put(k, at, CODE_OF(skip16));
        else if (bytes == 4)
            back    ? put(k, at, CODE_OF(back32))
            : error ? put(k, at, CODE_OF(skip32_error))
                    : put(k, at, CODE_OF(skip32));
        else
            back    ? put(k, at, CODE_OF(back64))
            : error ? put(k, at, CODE_OF(skip64_error))
                    : put(k, at, CODE_OF(skip64));
    }
    put(k, SYSRET_AT, CODE_OF(sysret));
    put(k, SYSEXIT_AT, CODE_OF(sysexit));
}

/* --- page tables --------------------------------------------------------------------------------------------------- */

static uint32_t rights_of(uint32_t page, bool user, struct random *r)
{
    static const uint8_t data[2][DATA_PAGES] = { { 3, 7, 1, 3, 0, 3 }, { 7, 7, 5, 3, 0, 7 } };
    uint32_t ad = (uint32_t)random_next(r) & 0x60;
    if (page >= DATA >> 12 && page < (DATA >> 12) + DATA_PAGES)
        return data[user][page - (DATA >> 12)] | ad;
    if (user && page >= CODE >> 12 && page < (CODE >> 12) + 2)
        return 7 | ad;
    return 3 | ad;
}

/* The last data page shows the second page of the code. */
static uint32_t frame_of(uint32_t page)
{
    return page == (DATA >> 12) + DATA_PAGES - 1 ? CODE + 0x1000 : page << 12;
}

static void put_table(struct kit *k, struct place *p, unsigned entry, bool user, struct random *r)
{
    uint8_t table[0x1000] = { 0 };
    for (unsigned i = 0; i < array_size(mapped); i++)
        for (uint32_t page = mapped[i].first; page < mapped[i].first + mapped[i].count; page++) {
            uint32_t e = frame_of(page) | rights_of(page, user, r);
            memcpy(table + page * entry, &e, 4);
            if (page >= DATA >> 12 && page < (DATA >> 12) + DATA_PAGES)
                p->frame[page - (DATA >> 12)] = e;
        }
    put(k, TABLE, table, sizeof(table));
    p->entry = entry;
}

static void map_long(struct kit *k, struct place *p, bool user, struct random *r)
{
    kit_put64(k, TABLES, (TABLES + 0x1000) | 7);
    kit_put64(k, TABLES + 0x1000, (TABLES + 0x2000) | 7);
    kit_put64(k, TABLES + 0x2000, TABLE | 7);
    kit_put64(k, TABLES + 0x2008, 0);
    put_table(k, p, 8, user, r);
    k->v->s.cr3 = TABLES;
}

static void map_legacy(struct kit *k, struct place *p, bool pae, bool user, struct random *r)
{
    if (pae) {
        for (unsigned i = 0; i < 4; i++)
            kit_put64(k, TABLES + 8 * i, i ? 0 : (TABLES + 0x1000) | 1);
        kit_put64(k, TABLES + 0x1000, TABLE | 7);
        kit_put64(k, TABLES + 0x1008, 0);
    } else {
        kit_put64(k, TABLES, TABLE | 7);
    }
    put_table(k, p, pae ? 8 : 4, user, r);
    k->v->s.cr3 = TABLES;
    k->v->s.cr4 |= pae ? CR4_PAE : CR4_PSE;
    k->v->s.cr0 |= CR0_PG | CR0_WP;
    if (pae)
        for (unsigned i = 0; i < 4; i++)
            k->v->s.pdpte[i] = i ? 0 : (TABLES + 0x1000) | 1;
}

/* --- worlds ---------------------------------------------------------------------------------------------------------- */

struct world {
    const char *name;
    unsigned code_bytes;
    bool supervisor;
    void (*enter)(struct kit *k, struct place *p, const struct world *w, struct random *r);
    unsigned variant;
};

/* User programs and those that return to users have their stack in the first data page. */
static void user_stack(struct kit *k) { k->v->s.gpr[RSP] = DATA + 0xc00; }

static void open_gates(struct kit *k, unsigned entry)
{
    for (unsigned vec = VEC_BP; vec < 64; vec += vec == VEC_BP   ? 1
                                                 : vec == VEC_OF ? FIRST_SOFT - VEC_OF
                                                                 : 1) {
        uint64_t at = IDT_AT + entry * vec;
        kit_put64(k, at, kit_get64(k, at) | 3ull << 45);
    }
}

static void sels(struct place *p, unsigned n, const uint16_t (*pairs)[2])
{
    p->sels = n;
    for (unsigned i = 0; i < n; i++) {
        p->code_sel[i] = pairs[i][0];
        p->stack_sel[i] = pairs[i][1];
    }
}

static void enter_long(struct kit *k, struct place *p, const struct world *w, struct random *r)
{
    static const uint16_t all[][2] = {
        { G_CODE64, 0 }, { G_CODE64_3 | 3, G_DATA3 | 3 }, { G_CODE3 | 3, G_DATA3 | 3 }, { G_CODE0, G_DATA0 }
    };
    struct vcpu_state *s = &k->v->s;
    kit_long(k, w->supervisor ? 0 : 3);
    map_long(k, p, !w->supervisor, r);
    put_handlers(k, 8);
    open_gates(k, 16);
    if (!w->supervisor)
        user_stack(k);
    else if (random_below(r, 2)) /* handlers on a stack of their own survive a lost stack pointer */
        for (unsigned vec = 0; vec < 64; vec++)
            kit_put64(k, IDT_AT + 16 * vec, kit_get64(k, IDT_AT + 16 * vec) | 1ull << 32);
    s->efer |= EFER_SCE;
    s->msr.star = (uint64_t)((G_DATA3 - 8) | 3) << 48 | (uint64_t)G_CODE64 << 32;
    s->msr.lstar = s->msr.cstar = SYSRET_AT;
    s->msr.sfmask = FL_TF | FL_IF;
    s->seg[SEG_FS].base = DATA + 0x100;
    s->seg[SEG_GS].base = DATA + 0x1000;
    s->msr.kernel_gs_base = DATA + 0x200;
    if (w->code_bytes == 4) { /* compatibility mode */
        kit_seg(k, SEG_CS, G_CODE3 | 3);
    } else {
        sels(p, w->supervisor ? 4 : 3, w->supervisor ? all : all + 1);
    }
    if (!w->supervisor)
        p->sels = 0;
}

/* Flat, or with data segments that end behind the data. Variant: 1 paging, 2 PAE, 4 segmented. */
static void enter_protected(struct kit *k, struct place *p, const struct world *w, struct random *r)
{
    static const uint16_t all[][2] = { { G_CODE0, G_DATA0 },
                                       { G_CODE3 | 3, G_DATA3 | 3 },
                                       { G_CONFORMING0, G_DATA0 } };
    struct vcpu_state *s = &k->v->s;
    kit_protected(k, w->supervisor ? 0 : 3);
    put_handlers(k, 4);
    open_gates(k, 8);
    if (w->variant & 3)
        map_legacy(k, p, w->variant & 2, !w->supervisor, r);
    if (!w->supervisor)
        user_stack(k);
    else
        sels(p, array_size(all), all);
    if (w->variant & 4) {
        unsigned dpl = w->supervisor ? 0 : 0x60;
        kit_gdt(k, G_SMALL3, kit_desc(DATA, DATA_PAGES * 0x1000 - 1, 0x93 | dpl, 4));
        kit_gdt(k, G_EXPAND_DOWN0, kit_desc(DATA, 0xfff, 0x97 | dpl, 4));
        kit_seg(k, SEG_DS, G_SMALL3 | (dpl ? 3 : 0));
        kit_seg(k, random_below(r, 2) ? SEG_ES : SEG_FS, G_EXPAND_DOWN0 | (dpl ? 3 : 0));
        p->data = 0;
        p->code = (p->code - DATA) & 0xffffffff;
    }
    s->msr.sysenter_cs = G_CODE0;
    s->msr.sysenter_eip = SYSEXIT_AT;
    s->msr.sysenter_esp = STACK0_TOP;
}

static void place16(struct kit *k, struct place *p)
{
    p->rip -= BASE16;
    p->code -= BASE16;
    p->data -= BASE16;
    k->v->s.gpr[RSP] = DATA + 0xc00 - BASE16;
}

/* --- segments that begin and end in the middle of pages, or of 64 KiB, where the program is and where its data are --- */

struct ragged {
    uint32_t code, data; /* bases */
    uint32_t code_limit, data_limit;
};

/* Handlers of real mode run under the program's limit: they need 4ffh. */
static struct ragged ragged(const struct place *p, struct random *r)
{
    static const uint32_t limits[] = { 0xffff, 0xffff, 0xffffffff, 0xcffa };
    struct ragged g = { .code = ((uint32_t)p->rip & ~15u) - 16 * (uint32_t)random_below(r, 0x180),
                        .data = DATA - (random_below(r, 2) ? 0xa000 : 0) -
                                16 * (uint32_t)random_below(r, 0x600) };
    g.code_limit = (uint32_t)p->rip - g.code + (uint32_t)random_below(r, random_below(r, 2) ? 0x80 : 0x1800);
    if (g.code_limit < 0x4ff || !random_below(r, 4))
        g.code_limit = 0xffff;
    g.data_limit = limits[random_below(r, array_size(limits))];
    return g;
}

static void place_ragged(struct kit *k, struct place *p, const struct ragged *g)
{
    p->rip -= g->code;
    p->code -= g->data;
    p->data -= g->data;
    k->v->s.gpr[RSP] = DATA + 0xc00 - g->data;
}

static void enter_real_ragged(struct kit *k, struct place *p, const struct world *w, struct random *r)
{
    struct ragged g = ragged(p, r);
    (void)w;
    kit_real(k);
    put_handlers(k, 2);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        struct segment *s = &k->v->s.seg[i];
        *s = seg_real(s, (uint16_t)((i == SEG_CS ? g.code : g.data) >> 4));
        s->limit = i == SEG_CS ? g.code_limit : i == SEG_SS ? 0xffff : g.data_limit;
    }
    place_ragged(k, p, &g);
}

/* 16- and 32-bit code; a stack of either size, upward or downward. */
static void enter_protected_ragged(struct kit *k, struct place *p, const struct world *w, struct random *r)
{
    struct ragged g = ragged(p, r);
    unsigned big = w->code_bytes == 4 ? 4 : 0, stack_big = random_below(r, 4) ? big : 4 - big;
    uint16_t rpl = w->supervisor ? 0 : 3, dpl = w->supervisor ? 0 : 0x60;
    kit_protected(k, rpl);
    put_handlers(k, 4);
    open_gates(k, 8);
    if (w->variant)
        map_legacy(k, p, w->variant & 2, !w->supervisor, r);
    if (g.data_limit > 0xfffff)
        g.data_limit = 0xfffff;
    kit_gdt(k, G_CODE16, kit_desc(g.code, g.code_limit, 0x9b | dpl, big));
    kit_gdt(k, G_DATA16, kit_desc(g.data, g.data_limit, 0x93 | dpl, stack_big));
    kit_gdt(k, G_EXPAND_DOWN0, kit_desc(g.data, random_below(r, 2) ? 0x1ff : 0xbff9, 0x97 | dpl, stack_big));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        kit_seg(k, i, (i == SEG_CS ? G_CODE16 : random_below(r, 3) ? G_DATA16 : G_EXPAND_DOWN0) | rpl);
    place_ragged(k, p, &g);
}

static void enter_real(struct kit *k, struct place *p, const struct world *w, struct random *r)
{
    (void)w, (void)r;
    kit_real(k);
    put_handlers(k, 2);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        k->v->s.seg[i] = seg_real(&k->v->s.seg[i], BASE16 >> 4);
    place16(k, p);
}

static void enter_vm86(struct kit *k, struct place *p, const struct world *w, struct random *r)
{
    kit_vm86(k, w->variant);
    put_handlers(k, 4);
    map_legacy(k, p, random_below(r, 2), true, r);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        k->v->s.seg[i] = seg_vm86(BASE16 >> 4);
    place16(k, p);
}

static void enter_protected16(struct kit *k, struct place *p, const struct world *w, struct random *r)
{
    (void)w, (void)r;
    kit_protected(k, 0);
    put_handlers(k, 4);
    kit_gdt(k, G_CODE16, kit_desc(BASE16, 0xffff, 0x9b, 0));
    kit_gdt(k, G_DATA16, kit_desc(BASE16, 0xffff, 0x93, 0));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        kit_seg(k, i, i == SEG_CS ? G_CODE16 : G_DATA16);
    place16(k, p);
}

#define WIDE 8u /* of a variant: extensions, vectors above all */

static const struct world worlds[] = {
    { "long64-user", 8, false, enter_long, 0 },
    { "long64-super", 8, true, enter_long, 0 },
    { "compat32-user", 4, false, enter_long, 0 },
    { "wide64-user", 8, false, enter_long, WIDE },
    { "wide64-super", 8, true, enter_long, WIDE },
    { "wide32-user", 4, false, enter_long, WIDE },
    { "flat32-super", 4, true, enter_protected, 0 },
    { "paging32-user", 4, false, enter_protected, 1 },
    { "paging32-super", 4, true, enter_protected, 1 },
    { "pae32-user", 4, false, enter_protected, 2 },
    { "pae32-super", 4, true, enter_protected, 2 },
    { "segmented32-user", 4, false, enter_protected, 5 },
    { "segmented32-super", 4, true, enter_protected, 6 },
    { "protected16", 2, true, enter_protected16, 0 },
    { "real16", 2, true, enter_real, 0 },
    { "vm86-iopl0", 2, false, enter_vm86, 0 },
    { "vm86-iopl3", 2, false, enter_vm86, 3 },
    { "ragged-real16", 2, true, enter_real_ragged, 0 },
    { "ragged16-super", 2, true, enter_protected_ragged, 1 },
    { "ragged16-user", 2, false, enter_protected_ragged, 2 },
    { "ragged32-super", 4, true, enter_protected_ragged, 1 },
    { "ragged32-user", 4, false, enter_protected_ragged, 2 },
};

/* --- programs -------------------------------------------------------------------------------------------------------- */

/* All that makes one program's run: the same numbers give the same run. */
struct program {
    uint64_t seed;
    struct place place;
    struct sequence seq;
    uint64_t limit; /* instructions */
    uint64_t nmi;   /* count at which one is posted; 0: none */
};

static void fill_code(struct kit *k, const struct program *g, uint8_t fill)
{
    uint8_t page[0x2000];
    memset(page, fill, sizeof(page));
    unsigned at = (unsigned)((k->v->s.seg[SEG_CS].base + g->place.rip) & 0x1fff);
    memcpy(page + at, g->seq.code, g->seq.len);
    page[at + g->seq.len] = 0xeb; /* jmp to itself: the rest of the time */
    page[at + g->seq.len + 1] = 0xfe;
    put(k, CODE, page, sizeof(page));
}

static void fill_data(struct kit *k, struct random *r)
{
    static uint8_t data[(DATA_PAGES - 1) * 0x1000];
    uint8_t piece[512];
    random_vector(r, piece, sizeof(piece));
    for (unsigned i = 0; i < sizeof(data); i += sizeof(piece))
        memcpy(data + i, piece, sizeof(piece));
    put(k, DATA, data, sizeof(data));
}

static void random_registers(struct vcpu_state *s, const struct place *p, struct random *r)
{
    for (unsigned i = 0; i < 16; i++)
        if (i != RSP && (i < 8 || p->code_bytes == 8))
            s->gpr[i] = random_below(r, 2) ? place_pointer(p, r)
                                           : random_edge(r) >> (p->code_bytes == 8 ? 0 : 32);
    for (unsigned i = 0; i < 16 && s->efer & EFER_LMA && p->code_bytes == 4; i++)
        if (i != RSP && random_below(r, 2)) /* upper halves from 64-bit code */
            s->gpr[i] |= random_edge(r) << 32;
    s->cc = flags_to_cc(random_next(r));
    random_vector(r, s->fpu.xmm[0], sizeof(s->fpu.xmm));
    for (unsigned i = 0; i < 8; i++) {
        random_vector(r, s->fpu.st[i], 8);
        uint16_t exponent = (uint16_t)(0x3fc0 + random_below(r, 128));
        memcpy(s->fpu.st[i] + 8, &exponent, 2);
    }
    s->fpu.ftw = (uint8_t)(random_below(r, 2) ? random_next(r) : 0);
    s->fpu.fcw = (uint16_t)(0x37f ^ (random_below(r, 8) ? 0 : random_next(r) & 0xc3f));
    s->fpu.mxcsr = 0x1f80 ^ (random_below(r, 8) ? 0u : (uint32_t)random_next(r) & 0xff80);
}

/* Upper parts are often zero, as VZEROUPPER leaves them. */
static void random_vectors(struct kit *k, struct random *r)
{
    struct vcpu_state *s = &k->v->s;
    s->cr4 |= CR4_OSXSAVE;
    s->fpu.xcr0 = random_below(r, 6) ? k->model.xcr0 : k->model.xcr0 & 7;
    if (random_below(r, 2))
        random_vector(r, s->fpu.ymmh[0], sizeof(s->fpu.ymmh));
    if (s->fpu.xcr0 & ~7ull && random_below(r, 2)) {
        random_vector(r, s->fpu.zmmh[0], sizeof(s->fpu.zmmh));
        random_vector(r, s->fpu.zmm16[0], sizeof(s->fpu.zmm16));
        random_vector(r, (uint8_t *)s->fpu.k, sizeof(s->fpu.k));
    }
    if (s->fpu.xcr0 & ~7ull && random_below(r, 2)) /* whole registers, and a store, under masks */
        for (unsigned i = 0; i < 8; i++)
            s->fpu.k[i] = random_below(r, 2) ? ~0ull : random_next(r);
}

/* Puts a machine at the beginning of the program. */
static void program_start(struct machine *m, const struct world *w, struct program *g)
{
    struct random r = { g->seed };
    struct kit *k = m->k;
    struct vcpu_state *s = &k->v->s;
    uint64_t retired = s->retired;
    static const uint16_t starts[] = { 0, 0x800, 0xf80, 0xff0 };
    uint64_t at = CODE + starts[random_below(&r, array_size(starts))] + random_below(&r, 16);
    g->place = (struct place){ .code_bytes = w->code_bytes,
                               .supervisor = w->supervisor,
                               .rip = at,
                               .code = at,
                               .data = DATA,
                               .data_pages = DATA_PAGES };
    *s = m->pristine;
    s->retired = retired; /* time does not run backwards */
    w->enter(k, &g->place, w, &r);
    if (g->place.entry && w->supervisor)
        g->place.table = g->place.data + (TABLE - DATA) + (uint64_t)(DATA >> 12) * g->place.entry;
    g->place.features = w->variant & WIDE ? k->model.features : 0;
    sequence_make(&g->seq, &g->place, &r);
    fill_data(k, &r);
    fill_code(k, g, random_below(&r, 2) ? 0x90 : 0xcc);
    s->cr4 |= CR4_OSFXSR | (random_below(&r, 2) ? CR4_OSXMMEXCPT : 0);
    s->rip = g->place.rip;
    random_registers(s, &g->place, &r);
    if (w->variant & WIDE)
        random_vectors(k, &r);
    g->limit = random_below(&r, 8) ? 250 : 2500;
    g->nmi = random_below(&r, 8) ? 0 : 1 + random_below(&r, 120);
    vcpu_refresh(k->v);
    mmu_flush_all(&k->v->mmu);
    atomic_store(&k->v->requests, 0);
    atomic_store(&k->v->signals, 0);
    if (k->engine->state_changed)
        k->engine->state_changed(k->v);
}

/* Runs to a count from the start of the program; `cuts` NULL: in one go. */
static enum exit_cause run_to(struct kit *k, uint64_t begin, uint64_t count, struct random *cuts)
{
    enum exit_cause cause = EXIT_COUNT;
    while (cause == EXIT_COUNT && k->v->s.retired - begin < count) {
        uint64_t until = begin + count;
        if (cuts) {
            uint64_t slice = 1 + random_below(cuts, random_below(cuts, 3) ? 400 : 6);
            until = until - k->v->s.retired < slice ? until : k->v->s.retired + slice;
        }
        cause = k->engine->run(k->v, until);
        if (cause == EXIT_COUNT && k->v->s.retired != until)
            fail_msg("%s stopped at %" PRIu64 " instructions instead of %" PRIu64, k->engine->name,
                     k->v->s.retired, until);
    }
    if (k->engine->sync)
        k->engine->sync(k->v, SYNC_ALL);
    return cause;
}

/* A program, or its beginning. */
static enum exit_cause program_run(struct machine *m, const struct program *g, uint64_t count,
                                   struct random *cuts)
{
    uint64_t begin = m->k->v->s.retired;
    if (g->nmi && g->nmi < count) {
        enum exit_cause cause = run_to(m->k, begin, g->nmi, cuts);
        if (cause != EXIT_COUNT)
            return cause;
        vcpu_post_nmi(m->k->v);
    }
    return run_to(m->k, begin, count, cuts);
}

/* --- comparing --------------------------------------------------------------------------------------------------------- */

#define FIELDS_MAX 24u
#define BYTES_MAX 8u

struct verdict {
    enum exit_cause cause[2];
    unsigned fields, bytes;
    struct difference field[FIELDS_MAX];
    struct {
        uint64_t at, a, b;
    } byte[BYTES_MAX];
    unsigned
        accessed; /* entries that differ in the accessed bit alone, which processors may set early (SDM 3A 4.8) */
    bool open; /* they differ, but the program used translations that were out of date */
};

static void compare_page(struct machine m[2], uint64_t at, struct verdict *v)
{
    uint64_t mem[2][PAGE_SIZE / 8];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(ram_read(m[i].k->pmap, GPA(at), mem[i], PAGE_SIZE), 0);
    if (!memcmp(mem[0], mem[1], PAGE_SIZE))
        return;
    for (unsigned i = 0; i < PAGE_SIZE / 8; i++) {
        uint64_t x = mem[0][i] ^ mem[1][i];
        if (!x)
            continue;
        if (at == TABLE && !(x & ~0x2000000020ull)) {
            v->accessed++;
            continue;
        }
        if (v->bytes < BYTES_MAX) {
            v->byte[v->bytes].at = at + 8 * i;
            v->byte[v->bytes].a = mem[0][i];
            v->byte[v->bytes].b = mem[1][i];
        }
        v->bytes++;
    }
}

static bool differ(struct machine m[2], struct verdict *v)
{
    const struct state_object a = { &vcpu_state_class, &m[0].k->v->s, 0 },
                              b = { &vcpu_state_class, &m[1].k->v->s, 0 };
    v->bytes = v->accessed = 0;
    v->fields = state_differences(&a, &b, v->field, FIELDS_MAX);
    for (unsigned i = 0; i < array_size(mapped); i++)
        for (uint32_t page = mapped[i].first; page < mapped[i].first + mapped[i].count; page++)
            compare_page(m, (uint64_t)page << PAGE_SHIFT, v);
    return v->fields || v->bytes || v->cause[0] != v->cause[1];
}

static void print_verdict(const struct verdict *v, const char *engine)
{
    for (unsigned i = 0; i < v->fields && i < FIELDS_MAX; i++)
        difference_print(stderr, &v->field[i], "single", engine);
    for (unsigned i = 0; i < v->bytes && i < BYTES_MAX; i++)
        fprintf(stderr, "  memory at %#" PRIx64 ": single %#018" PRIx64 ", %s %#018" PRIx64 "\n",
                v->byte[i].at, v->byte[i].a, engine, v->byte[i].b);
    if (v->bytes > BYTES_MAX)
        fprintf(stderr, "  and %u quadwords more\n", v->bytes - BYTES_MAX);
    if (v->cause[0] != v->cause[1])
        fprintf(stderr, "  exit cause: single %d, %s %d\n", v->cause[0], engine, v->cause[1]);
}

/* --- batches: programs that follow each other on one pair of machines ---------------------------------------------------- */

#define BATCH 32u

struct batch {
    const struct world *world;
    const struct engine_ops *engine;
    uint64_t seed;
    struct engine_config cfg;
};

/* Mostly everything on and everything translated; else one pass off, or the engine's own idea of what is worth while. */
static void batch_config(struct batch *b)
{
    struct random r = { b->seed ^ 0x9e3779b97f4a7c15ull };
    b->cfg = translate_at_once;
    switch (random_below(&r, 4)) {
    case 0: b->cfg.passes_off = 1u << random_below(&r, ENGINE_PASS_COUNT); break;
    case 1: b->cfg.warm = 0; break;
    default: break;
    }
}

static uint64_t program_seed(const struct batch *b, unsigned n)
{
    struct random r = { (b->seed + n + (uint64_t)(b->world - worlds) * BATCH) * 0x9e3779b97f4a7c15ull | 1 };
    random_next(&r);
    return random_next(&r) | 1;
}

/* Whoever is traced runs singly. */
static void no_trace(void *ctx, const struct vcpu *v) { (void)ctx, (void)v; }

static void pair_make(struct machine m[2], const struct batch *b)
{
    machine_make(&m[0], &interp_engine, NULL, b->world->variant & WIDE);
    machine_make(&m[1], b->engine, &b->cfg, b->world->variant & WIDE);
    interp_set_trace(m[0].k->v, no_trace, NULL);
}

static void pair_end(struct machine m[2])
{
    machine_end(&m[0]);
    machine_end(&m[1]);
}

static bool code_changed(const struct machine *m, const struct program *g)
{
    uint8_t now[SEQUENCE_BYTES];
    assert_int_equal(ram_read(m->k->pmap, GPA(CODE + (g->place.rip & 0x1fff)), now, g->seq.len), 0);
    return memcmp(now, g->seq.code, g->seq.len);
}

/* One machine runs program n of the batch, or `count` instructions of it, in one go or in slices. */
static enum exit_cause run_one(struct machine *m, const struct batch *b, uint64_t count, struct program *g,
                               bool sliced)
{
    program_start(m, b->world, g);
    struct random cuts = { g->seed ^ 0x5555555555555555ull };
    bool whole = random_below(&cuts, 4) == 0;
    return program_run(m, g, count < g->limit ? count : g->limit, sliced && !whole ? &cuts : NULL);
}

/* Is what the program does up to `count` left to the processor? */
static bool is_open(const struct batch *b, uint64_t seed, uint64_t count)
{
    static struct stale stale;
    struct program g = { .seed = seed };
    struct machine m;
    machine_make(&m, &interp_engine, NULL, b->world->variant & WIDE);
    program_start(&m, b->world, &g);
    stale = (struct stale){ .pmap = m.k->pmap, .table = TABLE, .entry = g.place.entry };
    interp_set_trace(m.k->v, stale_step, &stale);
    program_run(&m, &g, count < g.limit ? count : g.limit, NULL);
    machine_end(&m);
    return stale.open;
}

/* Both run it; false: they differ. */
static bool run_pair(struct machine m[2], const struct batch *b, unsigned n, uint64_t count,
                     struct program *g, struct verdict *v)
{
    uint64_t begin = m[0].k->v->s.retired;
    g->seed = program_seed(b, n);
    for (unsigned i = 0; i < 2; i++)
        v->cause[i] = run_one(&m[i], b, count, g, i == 1);
    v->open = false;
    if (!differ(m, v))
        return true;
    /* A repeated instruction that overwrites itself goes on as it was fetched, as on the host, unless it is cut in the
     * middle: so the other one is cut, too. */
    if (code_changed(&m[0], g)) {
        m[0].k->v->s.retired = begin;
        v->cause[0] = run_one(&m[0], b, count, g, true);
        if (!differ(m, v))
            return true;
    }
    v->open = is_open(b, g->seed, count);
    return v->open;
}

/* --- a difference ---------------------------------------------------------------------------------------------------------- */

/* Fresh machines, the programs from `first` on, the last one to `count`: do they differ? */
static bool again(const struct batch *b, unsigned first, unsigned n, uint64_t count, struct program *g,
                  struct verdict *v)
{
    struct machine m[2];
    bool same = true;
    pair_make(m, b);
    for (unsigned i = first; i <= n; i++)
        same = run_pair(m, b, i, i == n ? count : UINT64_MAX, g, v);
    pair_end(m);
    return !same;
}

static void print_step(void *ctx, const struct vcpu *v)
{
    uint8_t code[CODE_BYTES_MAX];
    char text[160];
    const uint64_t *from = ctx;
    if (v->s.retired < *from)
        return;
    unsigned n = fetch_code((struct vcpu *)(uintptr_t)v, code);
    disassemble(code, n, mode_code_bytes(v->mode), v->s.rip, text, sizeof(text));
    fprintf(stderr, "    cpl%u %04x:%" PRIx64 "  %s\n", vcpu_cpl(v), v->s.seg[SEG_CS].sel, v->s.rip, text);
}

/* More than an engine may run as one, since it then shows the difference behind the last of them. */
#define SHOWN 80u

/* The last instructions before `count`, as the interpreter goes through them. */
static void print_way(const struct batch *b, unsigned n, uint64_t count)
{
    struct machine m;
    struct program g = { .seed = program_seed(b, n) };
    machine_make(&m, &interp_engine, NULL, b->world->variant & WIDE);
    program_start(&m, b->world, &g);
    uint64_t from = m.k->v->s.retired + (count > SHOWN ? count - SHOWN : 0);
    interp_set_trace(m.k->v, print_step, &from);
    program_run(&m, &g, count, NULL);
    machine_end(&m);
}

static void tell(const struct batch *b, unsigned n)
{
    struct program g;
    struct verdict v;
    const char *name = b->engine->name;
    bool alone = again(b, n, n, UINT64_MAX, &g, &v);
    unsigned first = alone ? n : 0;
    fprintf(stderr, "%s, world %s, passes off %#x, warm %u: program %u of the batch\n", name, b->world->name,
            b->cfg.passes_off, b->cfg.warm, n);
    if (alone || again(b, 0, n, UINT64_MAX, &g, &v)) {
        uint64_t lo = 0, hi = g.limit;
        while (hi - lo > 1) {
            uint64_t mid = lo + (hi - lo) / 2;
            if (again(b, first, n, mid, &g, &v))
                hi = mid;
            else
                lo = mid;
        }
        again(b, first, n, hi, &g, &v);
        fprintf(stderr, "  %s, different after %" PRIu64 " instructions:\n",
                alone ? "alone" : "only behind those before it", hi);
        print_verdict(&v, name);
        fprintf(stderr, "  the program:\n");
        sequence_print(&g.seq, &g.place);
        fprintf(stderr, "  the last instructions:\n");
        print_way(b, n, hi);
    } else {
        fprintf(stderr, "  it does not come again\n");
    }
    fprintf(stderr,
            "  see it: SUNDOG_UNIT_ENGINE=%s SUNDOG_LOCKSTEP_WORLD=%s SUNDOG_SEED=%#" PRIx64
            " SUNDOG_LOCKSTEP=%u test_lockstep\n",
            name, b->world->name, b->seed, BATCH);
}

/* --- the test ---------------------------------------------------------------------------------------------------------------- */

#define TOLD_MAX 3u /* differences told in full, for each world and engine */

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 0) : otherwise;
}

struct tally_of {
    uint64_t programs, different, open, accessed, ended, exceptions;
};

static void run_batch(const struct batch *b, unsigned programs, struct tally_of *t)
{
    struct machine m[2];
    static struct program g;
    struct verdict v;
    pair_make(m, b);
    for (unsigned n = 0; n < programs; n++) {
        v.accessed = 0;
        bool same = run_pair(m, b, n, UINT64_MAX, &g, &v);
        t->programs++;
        t->accessed += v.accessed;
        t->ended += v.cause[0] != EXIT_COUNT;
        t->open += v.open;
        if (same && !v.open)
            continue;
        if (!same && t->different++ < TOLD_MAX)
            tell(b, n);
        t->exceptions += m[0].k->v->counters.exceptions_injected;
        pair_end(m); /* whatever is different would show again and again */
        pair_make(m, b);
    }
    t->exceptions += m[0].k->v->counters.exceptions_injected;
    pair_end(m);
}

static struct tally_of run_world(const struct world *w, const struct engine_ops *engine)
{
    struct random r = { setting("SUNDOG_SEED", 1) | 1 };
    struct tally_of t = { 0 };
    uint64_t left = setting("SUNDOG_LOCKSTEP", 1000);
    for (uint64_t seed = r.x; left; seed = random_next(&r) | 1) {
        struct batch b = { .world = w, .engine = engine, .seed = seed };
        batch_config(&b);
        unsigned n = left < BATCH ? (unsigned)left : BATCH;
        run_batch(&b, n, &t);
        left -= n;
    }
    return t;
}

/* One test for all: cmocka sets SIGFPE's handler anew before each, which the SIMD instructions need for theirs. */
static void engines_and_single_instructions_agree(void **state)
{
    (void)state;
    const char *only = getenv("SUNDOG_LOCKSTEP_WORLD"), *name = getenv("SUNDOG_UNIT_ENGINE");
    uint64_t different = 0, programs = 0;
    for (const struct engine_ops *const *e = engine_table; *e; e++) {
        if (name && strcmp(name, (*e)->name))
            continue;
        for (unsigned i = 0; i < array_size(worlds); i++) {
            if (only && strncmp(only, worlds[i].name, strlen(only)))
                continue;
            struct tally_of t = run_world(&worlds[i], *e);
            programs += t.programs;
            different += t.different;
            fprintf(stderr,
                    "%-7s %-17s %" PRIu64 " programs, %" PRIu64 " differ, %" PRIu64 " ended early, %" PRIu64
                    " exceptions, %" PRIu64 " accessed bits set early, %" PRIu64 " open\n",
                    (*e)->name, worlds[i].name, t.programs, t.different, t.ended, t.exceptions, t.accessed,
                    t.open);
        }
    }
    fprintf(stderr, "lockstep comparison: %" PRIu64 " programs, %" PRIu64 " differences\n", programs,
            different);
    assert_true(programs > 0);
    assert_int_equal(different, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(engines_and_single_instructions_agree) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
