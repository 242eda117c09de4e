/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware task switching (SDM 3A 7.3), by JMP, CALL, IRET, INT or an event through a task gate. Not in long
 * mode.
 *
 *   checks, pages probed (faults: old task) ──► old state saved, busy bits ──► new registers ──► its segments
 *   qualified (faults: new task, at its first instruction)
 */
#include "cpu/task.h"
#include "cpu/access.h"
#include "cpu/control.h"
#include "cpu/debug.h"
#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/flags.h"
#include "cpu/ops.h"

/* Segment registers in the order of the TSS. */
static const enum seg tss_segs[] = { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

/* Where the two kinds of TSS keep things (SDM 3A Figures 7-2, 7-10). */
struct tss_layout {
    unsigned word; /* bytes of a register */
    unsigned ip, flags, regs, segs, seg_step, seg_count, ldt;
    unsigned limit_min; /* smallest legal limit */
};
static const struct tss_layout layout16 = { .word = 2,
                                            .ip = 0x0e,
                                            .flags = 0x10,
                                            .regs = 0x12,
                                            .segs = 0x22,
                                            .seg_step = 2,
                                            .seg_count = 4,
                                            .ldt = 0x2a,
                                            .limit_min = 0x2b };
static const struct tss_layout layout32 = { .word = 4,
                                            .ip = 0x20,
                                            .flags = 0x24,
                                            .regs = 0x28,
                                            .segs = 0x48,
                                            .seg_step = 4,
                                            .seg_count = 6,
                                            .ldt = 0x60,
                                            .limit_min = 0x67 };
#define TSS32_CR3 0x1cu
#define TSS32_TRAP 0x64u

static const struct tss_layout *layout_of(uint32_t attr)
{
    return (attr & SYS_32BIT) ? &layout32 : &layout16;
}

/* What the new TSS says. */
struct task_image {
    uint64_t cr3, ip, flags, regs[8];
    uint16_t segs[SEG_COUNT], ldt;
    bool trap, is32;
};

static enum mmu_index system_index(const struct vcpu *v)
{
    return (v->s.cr4 & CR4_SMAP) ? MMU_SUPER : MMU_SUPER_AC;
}

static struct task_image read_image(struct vcpu *v, const struct segment *tr)
{
    const struct tss_layout *l = layout_of(tr->attr);
    struct task_image t = { .is32 = l == &layout32 };
    t.ip = sys_read(v, tr->base + l->ip, l->word);
    t.flags = sys_read(v, tr->base + l->flags, l->word);
    for (unsigned i = 0; i < 8; i++)
        t.regs[i] = sys_read(v, tr->base + l->regs + i * l->word, l->word);
    for (unsigned i = 0; i < l->seg_count; i++)
        t.segs[tss_segs[i]] = (uint16_t)sys_read(v, tr->base + l->segs + i * l->seg_step, 2);
    t.ldt = (uint16_t)sys_read(v, tr->base + l->ldt, 2);
    if (t.is32) {
        t.cr3 = sys_read(v, tr->base + TSS32_CR3, 4);
        t.trap = sys_read(v, tr->base + TSS32_TRAP, 2) & 1;
    }
    return t;
}

static void save_old(struct vcpu *v, uint64_t flags)
{
    const struct segment *tr = &v->s.tr;
    const struct tss_layout *l = layout_of(tr->attr);
    sys_write(v, tr->base + l->ip, v->s.rip, l->word);
    sys_write(v, tr->base + l->flags, flags, l->word);
    for (unsigned i = 0; i < 8; i++)
        sys_write(v, tr->base + l->regs + i * l->word, v->s.gpr[i], l->word);
    for (unsigned i = 0; i < l->seg_count; i++)
        sys_write(v, tr->base + l->segs + i * l->seg_step, v->s.seg[tss_segs[i]].sel, 2);
}

/* The new TSS's descriptor, checked as the reason demands (SDM 3A Table 7-1). */
static struct descriptor check_tss(struct vcpu *v, uint16_t sel, enum task_reason why)
{
    bool back = why == TASK_IRET;
    enum vector wrong = back ? VEC_TS : VEC_GP;
    if (sel_is_null(sel) || (sel & SEL_LDT))
        raise_selector(v, wrong, sel);
    struct descriptor d = desc_fetch(v, sel, wrong);
    uint32_t attr = desc_attr(&d);
    unsigned type = attr_type(attr);
    bool is_tss = attr_system(attr) && (type & ~(SYS_32BIT | TSS_BUSY)) == SYS_TSS16;
    if (!is_tss || ((type & TSS_BUSY) != 0) != back)
        raise_selector(v, wrong, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, sel);
    if (seg_from_desc(sel, &d).limit < layout_of(attr)->limit_min)
        raise_selector(v, VEC_TS, sel);
    return d;
}

static void load_ldt(struct vcpu *v, uint16_t sel)
{
    if (sel_is_null(sel))
        return;
    if (sel & SEL_LDT)
        raise_selector(v, VEC_TS, sel);
    struct descriptor d = desc_fetch(v, sel, VEC_TS);
    uint32_t attr = desc_attr(&d);
    if (!attr_system(attr) || attr_type(attr) != SYS_LDT || !attr_present(attr))
        raise_selector(v, VEC_TS, sel);
    v->s.ldtr = seg_from_desc(sel, &d);
}

static void load_code(struct vcpu *v, uint16_t sel)
{
    if (sel_is_null(sel))
        raise_selector(v, VEC_TS, 0);
    struct descriptor d = desc_fetch(v, sel, VEC_TS);
    uint32_t attr = desc_attr(&d);
    unsigned dpl = attr_dpl(attr), rpl = sel_rpl(sel);
    if (!attr_code(attr) || (attr_conforming(attr) ? dpl > rpl : dpl != rpl))
        raise_selector(v, VEC_TS, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, sel);
    desc_mark_accessed(v, &d);
    v->s.seg[SEG_CS] = seg_from_desc(sel, &d);
}

/* Loads what the selectors name, each register valid once its descriptor is found good. */
static void qualify_segments(struct vcpu *v, const struct task_image *t)
{
    load_ldt(v, t->ldt);
    if (v->s.rflags & FL_VM) {
        for (unsigned i = 0; i < SEG_COUNT; i++)
            v->s.seg[i] = seg_vm86(t->segs[i]);
    } else {
        unsigned cpl = sel_rpl(t->segs[SEG_CS]);
        v->s.seg[SEG_SS] = seg_check_stack(v, t->segs[SEG_SS], cpl, VEC_TS);
        load_code(v, t->segs[SEG_CS]);
        for (unsigned i = 0; i < array_size(tss_segs); i++)
            if (tss_segs[i] != SEG_CS && tss_segs[i] != SEG_SS)
                v->s.seg[tss_segs[i]] = seg_check_data(v, t->segs[tss_segs[i]], cpl, VEC_TS);
    }
    vcpu_refresh_mode(v);
    if (v->s.rip > v->s.seg[SEG_CS].limit)
        raise_selector(v, VEC_GP, 0);
}

/* The new task's registers, its segments still invalid: from here on it is the new task that runs. */
static void load_registers(struct vcpu *v, const struct task_image *t)
{
    unsigned cpl = (t->flags & FL_VM) ? 3 : sel_rpl(t->segs[SEG_CS]);
    for (unsigned i = 0; i < 8; i++)
        v->s.gpr[i] = t->regs[i];
    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->s.seg[i] = seg_null(t->segs[i], cpl);
    v->s.ldtr = seg_null(t->ldt, 0);
    v->s.rip = t->ip;
    flags_write(v, t->flags, FL_POP16 | FL_POP32 | FL_IF | FL_IOPL | FL_RF | FL_VM | FL_VIF | FL_VIP);
    v->s.shadow = 0;
    v->s.cr0 |= CR0_TS;
    v->s.dr[7] &= ~DR7_LOCAL;
}

/* The part of a switch whose faults belong to the new task. False: one was raised, and is in v->exception. */
static bool try_enter(struct vcpu *v, const struct task_image *t)
{
    jmp_buf here;
    v->unwind = &here;
    if (setjmp(here) != 0)
        return false;
    if (t->is32 && (v->s.cr0 & CR0_PG) && !control_set_cr3(v, t->cr3)) /* reserved bits set in a PDPTE */
        raise_selector(v, VEC_GP, 0);
    qualify_segments(v, t);
    return true;
}

static bool enter_task(struct vcpu *v, const struct task_image *t, enum task_reason why)
{
    jmp_buf *outer = v->unwind;
    bool entered = try_enter(v, t);
    v->unwind = outer;
    if (t->trap) /* after the switch, before the first instruction (SDM 3A 7.3) */
        v->s.debug_pending |= (uint16_t)DR6_BT;
    if (entered) {
        cpu_recheck_events(v);
        return true;
    }
    vcpu_refresh_mode(v);
    if (why == TASK_EVENT)
        longjmp(*outer, UNWIND_EXCEPTION);
    cpu_deliver_exception(v);
    return false;
}

bool task_switch(struct vcpu *v, uint16_t sel, enum task_reason why, uint64_t flags)
{
    bool nests = why == TASK_CALL || why == TASK_INT || why == TASK_EVENT;
    struct descriptor d = check_tss(v, sel, why);
    struct segment tr = seg_from_desc(sel, &d);
    struct segment old = v->s.tr;
    const struct tss_layout *old_layout = layout_of(old.attr);
    if (old.limit < old_layout->limit_min)
        raise_selector(v, VEC_TS, old.sel);
    access_probe_write(v, old.base, old_layout->limit_min + 1, system_index(v), SEG_DS);
    struct task_image t = read_image(v, &tr);
    if (nests)
        access_probe_write(v, tr.base, 2, system_index(v), SEG_DS);

    v->counters.task_switches++;
    bool store_code = v->store_code;
    /* Busy bits are not set twice: this instruction cannot be executed again from here on. */
    v->store_code = true;
    if (!nests) {
        struct descriptor od;
        if (desc_find(v, old.sel, &od))
            desc_change_type(v, &od, 0, TSS_BUSY);
    }
    save_old(v, why == TASK_IRET ? flags & ~(uint64_t)FL_NT : flags);
    if (nests) {
        sys_write(v, tr.base, old.sel, 2);
        t.flags |= FL_NT;
    }
    if (why != TASK_IRET)
        desc_change_type(v, &d, TSS_BUSY, 0);
    tr.attr |= TSS_BUSY;
    v->s.tr = tr;
    load_registers(v, &t);
    bool entered = enter_task(v, &t, why);
    v->store_code = store_code;
    return entered;
}

void task_direct(struct vcpu *v, uint16_t sel, uint32_t attr, enum task_reason why)
{
    if (attr_dpl(attr) < vcpu_cpl(v) || attr_dpl(attr) < sel_rpl(sel))
        raise_selector(v, VEC_GP, sel);
    task_switch(v, sel, why, state_rflags(&v->s));
}

void task_through_gate(struct vcpu *v, uint16_t sel, uint32_t attr, uint16_t tss_sel, enum task_reason why)
{
    if (attr_dpl(attr) < vcpu_cpl(v) || attr_dpl(attr) < sel_rpl(sel))
        raise_selector(v, VEC_GP, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, sel);
    task_switch(v, tss_sel, why, state_rflags(&v->s));
}

void task_return(struct vcpu *v)
{
    uint64_t link;
    if (!tss_read(v, 0, 2, &link))
        raise_selector(v, VEC_TS, v->s.tr.sel);
    task_switch(v, (uint16_t)link, TASK_IRET, state_rflags(&v->s));
}
