/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the descriptor tables and modes of seg_kit.h. */
#include "seg_kit.h"

#include <string.h>

#define PG4K 0x8u /* G */
#define D32 0x4u  /* D or B */
#define L64 0x2u

uint64_t kit_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

uint64_t kit_gate(uint16_t sel, uint32_t offset, unsigned type, unsigned dpl, bool present, unsigned params)
{
    return (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 |
           (uint64_t)(type | dpl << 5 | (present ? 0x80u : 0)) << 40 | (uint64_t)(offset >> 16) << 48;
}

void kit_gdt(struct kit *k, uint16_t sel, uint64_t low) { kit_put64(k, GDT_AT + (sel & ~7u), low); }

void kit_idt(struct kit *k, unsigned vector, uint64_t low) { kit_put64(k, IDT_AT + 8 * vector, low); }

void kit_idt64(struct kit *k, unsigned vector, uint16_t sel, uint64_t offset, unsigned type, unsigned dpl,
               unsigned ist)
{
    kit_put64(k, IDT_AT + 16 * vector, kit_gate(sel, (uint32_t)offset, type, dpl, true, ist));
    kit_put64(k, IDT_AT + 16 * vector + 8, offset >> 32);
}

void kit_seg(struct kit *k, enum seg seg, uint16_t sel)
{
    struct descriptor d = { .low = kit_get64(k, GDT_AT + (sel & ~7u)) };
    k->v->s.seg[seg] = seg_from_desc(sel, &d);
}

static void build_gdt(struct kit *k)
{
    const uint64_t flat = 0xfffff;
    const struct {
        uint16_t sel;
        uint32_t base, limit;
        uint8_t access, flags;
    } d[] = {
        { G_CODE0, 0, flat, 0x9b, PG4K | D32 },
        { G_DATA0, 0, flat, 0x93, PG4K | D32 },
        { G_CODE3, 0, flat, 0xfb, PG4K | D32 },
        { G_DATA3, 0, flat, 0xf3, PG4K | D32 },
        { G_CONFORMING0, 0, flat, 0x9f, PG4K | D32 },
        { G_READONLY0, 0, flat, 0x91, PG4K | D32 },
        { G_EXECONLY0, 0, flat, 0x99, PG4K | D32 },
        { G_ABSENT_DATA0, 0, flat, 0x13, PG4K | D32 },
        { G_ABSENT_CODE0, 0, flat, 0x1b, PG4K | D32 },
        { G_CODE16, 0, 0xffff, 0x9b, 0 },
        { G_DATA16, 0, 0xffff, 0x93, 0 },
        { G_EXPAND_DOWN0, 0, 0x10, 0x97, PG4K | D32 },
        { G_CODE1, 0, flat, 0xbb, PG4K | D32 },
        { G_DATA1, 0, flat, 0xb3, PG4K | D32 },
        { G_LDT, LDT_AT, 0x1f, 0x82, 0 },
        { G_TSS, TSS_AT, 0x2068, 0x8b, 0 },
        { G_TSS2, TSS2_AT, 0x67, 0x89, 0 },
        { G_TSS16, TSS16_AT, 0x2b, 0x81, 0 },
        { G_CODE64, 0, flat, 0x9b, PG4K | L64 },
        { G_CODE64_3, 0, flat, 0xfb, PG4K | L64 },
        { G_DATA1_3, 0x12345678, 0x100, 0xf2, D32 },
        { G_SMALL3, 0, 0x0f, 0xf3, D32 },
        { G_TSS_ABSENT, TSS2_AT, 0x67, 0x09, 0 },
        { G_TSS_SHORT, TSS2_AT, 0x66, 0x89, 0 },
        { G_CODE_LD, 0, flat, 0x9b, PG4K | D32 | L64 },
        { G_CONFORMING3, 0, flat, 0xff, PG4K | D32 },
    };
    for (unsigned i = 0; i < array_size(d); i++)
        kit_gdt(k, d[i].sel, kit_desc(d[i].base, d[i].limit, d[i].access, d[i].flags));
    kit_gdt(k, G_TASK_GATE, kit_gate(G_TSS2, 0, SYS_TASK_GATE, 3, true, 0));
    k->v->s.gdtr = (struct table_reg){ .base = GDT_AT, .limit = G_LIMIT };
}

static void build_tss(struct kit *k)
{
    uint8_t zero[0x80] = { 0 };
    struct descriptor d = { .low = kit_get64(k, GDT_AT + G_TSS) };
    assert_int_equal(pmap_load(k->pmap, GPA(TSS_AT), zero, sizeof(zero)), 0);
    kit_put32(k, TSS_AT + 4, STACK0_TOP);
    kit_put32(k, TSS_AT + 8, G_DATA0);
    kit_put32(k, TSS_AT + 12, STACK1_TOP);
    kit_put32(k, TSS_AT + 16, G_DATA1 | 1);
    kit_put32(k, TSS_AT + 0x64, 0x68u << 16); /* I/O map */
    k->v->s.tr = seg_from_desc(G_TSS, &d);
}

static void start(struct kit *k, uint16_t code, uint16_t data, unsigned cpl)
{
    struct vcpu_state *s = &k->v->s;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        kit_seg(k, i, (uint16_t)((i == SEG_CS ? code : data) | cpl));
    s->gpr[RSP] = STACK_TOP;
    s->rip = START_AT;
    s->rflags = 2;
    s->cc = flags_to_cc(0);
    vcpu_refresh(k->v);
    atomic_store(&k->v->requests, 0);
}

void kit_protected(struct kit *k, unsigned cpl)
{
    build_gdt(k);
    build_tss(k);
    for (unsigned i = 0; i < 64; i++)
        kit_idt(k, i, kit_gate(G_CODE0, HANDLER_AT + 16 * i, SYS_INT_GATE32, 0, true, 0));
    k->v->s.idtr = (struct table_reg){ .base = IDT_AT, .limit = 64 * 8 - 1 };
    k->v->s.cr0 = CR0_PE | CR0_ET;
    k->v->s.cr4 = k->v->s.efer = 0;
    start(k, cpl ? G_CODE3 : G_CODE0, cpl ? G_DATA3 : G_DATA0, cpl);
}

void kit_long(struct kit *k, unsigned cpl)
{
    build_gdt(k);
    build_tss(k);
    kit_put64(k, PAGES_AT, (PAGES_AT + 0x1000) | 7);
    kit_put64(k, PAGES_AT + 0x1000, (PAGES_AT + 0x2000) | 7);
    kit_put64(k, PAGES_AT + 0x2000, 0x87);
    kit_put64(k, PAGES_AT + 0x2008, 0x200087);
    kit_put64(k, TSS_AT + 4, STACK0_TOP);
    kit_put64(k, TSS_AT + 0x24, IST_TOP);
    for (unsigned i = 0; i < 64; i++)
        kit_idt64(k, i, G_CODE64, HANDLER_AT + 16 * i, SYS_INT_GATE32, 0, 0);
    k->v->s.idtr = (struct table_reg){ .base = IDT_AT, .limit = 64 * 16 - 1 };
    kit_long_mode(k, PAGES_AT);
    start(k, cpl ? G_CODE64_3 : G_CODE64, cpl ? G_DATA3 : G_DATA0, cpl);
}

void kit_vm86(struct kit *k, unsigned iopl)
{
    struct vcpu_state *s = &k->v->s;
    kit_protected(k, 0);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = seg_vm86(0x1000);
    s->gpr[RSP] = 0x8000;
    s->rip = 0x100;
    s->rflags = 2 | FL_VM | iopl << 12;
    vcpu_refresh(k->v);
    atomic_store(&k->v->requests, 0);
}

void kit_real(struct kit *k)
{
    struct vcpu_state *s = &k->v->s;
    vcpu_reset(k->v, false);
    for (unsigned i = 0; i < 64; i++)
        kit_put32(k, 4 * i, 0x3000u << 16 | 16 * i);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = seg_real(&s->seg[i], 0x2000);
    s->idtr = (struct table_reg){ .base = 0, .limit = 0xff };
    s->gpr[RSP] = 0x8000;
    s->rip = 0x100;
    vcpu_refresh(k->v);
    atomic_store(&k->v->requests, 0);
}

static uint64_t stack_at(const struct kit *k)
{
    return k->v->sf[SEG_SS].base + (k->v->s.gpr[RSP] & stack_mask(k->v));
}

uint32_t kit_stack32(struct kit *k, unsigned n) { return kit_get32(k, stack_at(k) + 4 * n); }

uint64_t kit_stack64(struct kit *k, unsigned n) { return kit_get64(k, stack_at(k) + 8 * n); }

uint16_t kit_stack16(struct kit *k, unsigned n) { return (uint16_t)kit_get32(k, stack_at(k) + 2 * n); }

void kit_push32(struct kit *k, unsigned count, const uint32_t *vals)
{
    k->v->s.gpr[RSP] -= 4 * count;
    for (unsigned i = 0; i < count; i++)
        kit_put32(k, stack_at(k) + 4 * i, vals[i]);
}

void kit_push64(struct kit *k, unsigned count, const uint64_t *vals)
{
    k->v->s.gpr[RSP] -= 8 * count;
    for (unsigned i = 0; i < count; i++)
        kit_put64(k, stack_at(k) + 8 * i, vals[i]);
}
