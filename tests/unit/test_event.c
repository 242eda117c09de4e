/* SPDX-License-Identifier: Apache-2.0 */
/* Between instructions: priorities, shadows, NMI blocking, INIT and SIPI, breakpoints and single step (SDM
 * 3A 6; 3B 17). */
#include "seg_kit.h"

#include "cpu/debug.h"

struct pic {
    int vector;
    unsigned acks;
};

static int ack(void *ctx)
{
    struct pic *p = ctx;
    p->acks++;
    return p->vector;
}

static void use_apic(struct kit *k)
{
    lapic_write(k->v, 0xf0, 0x1ff);
    lapic_write(k->v, 0x350, 0x700); /* LINT0: ExtINT, open */
    atomic_store(&k->v->requests, 0);
}

static bool requested(struct vcpu *v) { return atomic_load(&v->requests) & REQ_EVENT; }

static void interrupts(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    struct pic pic = { .vector = 0x28 };
    kit_protected(k, 0);
    use_apic(k);
    vcpu_post_interrupt(v, 0x31, false);
    assert_true(requested(v));
    assert_false(cpu_event_deliverable(v)); /* IF = 0 */
    assert_false(cpu_take_events(v));
    assert_false(requested(v));
    assert_fine(k, cpu_sti(v)); /* the shadow holds it for one instruction */
    assert_false(cpu_event_deliverable(v));
    v->s.shadow = 0;
    cpu_debug_after(v, false);
    assert_true(requested(v));
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * 0x31);
    assert_int_equal(kit_stack32(k, 2) & FL_IF, FL_IF);
    assert_false(v->s.rflags & FL_IF);
    assert_int_equal(v->counters.interrupts_injected, 1);
    /* a lower one waits for the EOI, then for IF */
    vcpu_post_interrupt(v, 0x30, false);
    v->s.rflags |= FL_IF;
    assert_false(cpu_take_events(v));
    lapic_write(v, 0xb0, 0);
    assert_true(cpu_event_deliverable(v));
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * 0x30);

    kit_protected(k, 0);
    v->cb.ack_pic = ack;
    v->cb.ctx = &pic;
    vcpu_set_pic_line(v, true);
    v->s.activity = ACTIVITY_HLT;
    v->s.rflags |= FL_IF;
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.activity, ACTIVITY_RUN);
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * 0x28);
    assert_int_equal(pic.acks, 1);
    lapic_write(v, 0x350, 0x10700); /* masked */
    v->s.rflags |= FL_IF;
    assert_false(cpu_event_deliverable(v));
    lapic_write(v, 0x350, 0x400); /* NMI: by the edge */
    v->s.rflags &= ~(uint64_t)FL_IF;
    assert_false(cpu_event_deliverable(v));
    vcpu_set_pic_line(v, false);
    vcpu_set_pic_line(v, true);
    cpu_take_events(v);
    assert_true(cpu_event_deliverable(v) || v->s.nmi_blocked);
    v->cb.ctx = k;
}

static void nmi_and_priorities(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 0);
    use_apic(k);
    v->s.rflags |= FL_IF;
    vcpu_post_interrupt(v, 0x31, false);
    vcpu_post_nmi(v);
    v->s.debug_pending = (uint16_t)DR6_BS;
    assert_true(cpu_take_events(v)); /* SDM 3A Table 6-2: debug traps, NMI, interrupts */
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_DB);
    assert_true(requested(v));
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_NMI);
    vcpu_post_nmi(v);
    assert_false(cpu_take_events(v)); /* blocked until IRET; IF = 0 */
    kit_push32(k, 3, (uint32_t[]){ START_AT, G_CODE0, 2 });
    assert_fine(k, cpu_iret(v, 4));
    assert_true(requested(v));
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_NMI);
    /* MOV SS holds NMIs and debug traps */
    kit_protected(k, 0);
    v->s.nmi_blocked = 0;
    vcpu_post_nmi(v);
    v->s.debug_pending = 1;
    v->s.shadow = SHADOW_MOV_SS;
    assert_false(cpu_take_events(v));
    v->s.shadow = SHADOW_STI;
    assert_true(cpu_take_events(v));
}

static void init_and_sipi(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    v->index = 1;
    kit_protected(k, 0);
    vcpu_post_sipi(v, 0x9f); /* nobody waits */
    assert_false(cpu_take_events(v));
    vcpu_post_init(v);
    vcpu_post_sipi(v, 0x9a);
    vcpu_post_nmi(v);
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.activity, ACTIVITY_WAIT_SIPI);
    assert_true(requested(v));
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.activity, ACTIVITY_RUN);
    assert_int_equal(v->s.seg[SEG_CS].base, 0x9a000);
    assert_int_equal(v->s.seg[SEG_CS].sel, 0x9a00);
    assert_int_equal(v->s.rip, 0);
    v->index = 0;
}

static void debug_registers(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_long(k, 0);
    assert_fine(k, cpu_write_dr(v, 4, 0)); /* an alias of DR6 */
    assert_int_equal(cpu_read_dr(v, 6), 0xffff0ff0);
    assert_fine(k, cpu_write_dr(v, 6, 0xffffffff));
    assert_int_equal(cpu_read_dr(v, 6), 0xffffefff);
    assert_fine(k, cpu_write_dr(v, 7, 0xffffdfff)); /* all but GD */
    assert_int_equal(cpu_read_dr(v, 7), 0xffff07ff);
    assert_raises(k, VEC_GP, 0, cpu_write_dr(v, 7, 1ull << 32));
    assert_fine(k, cpu_write_dr(v, 7, 0));
    assert_fine(k, cpu_write_dr(v, 0, 0x800000000000ull)); /* not checked (SDM 3B 17.2.6) */
    v->s.cr4 |= CR4_DE;
    assert_int_equal(RAISED(k, cpu_read_dr(v, 5)), VEC_UD);
    assert_fine(k, cpu_write_dr(v, 7, DR7_GD));
    assert_int_equal(RAISED(k, cpu_read_dr(v, 0)), VEC_DB);
    cpu_deliver_exception(v);
    assert_int_equal(v->s.dr[6] & DR6_BD, DR6_BD);
    assert_true(kit_stack64(k, 2) & FL_RF); /* a fault, but no code breakpoint */
    assert_fine(k, cpu_read_dr(v, 7));      /* GD is off in the handler */
    kit_set_cpl(k, 3);
    assert_raises(k, VEC_GP, 0, cpu_read_dr(v, 0));
}

static void code_breakpoint(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 0);
    v->s.dr[6] = DR6_FIXED;
    assert_fine(k, cpu_write_dr(v, 1, START_AT));
    assert_fine(k, cpu_write_dr(v, 7, 1u << 2));
    assert_true(v->mode & MODE_STEP);
    assert_int_equal(RAISED(k, cpu_debug_before(v)), VEC_DB);
    cpu_deliver_exception(v);
    assert_int_equal(v->s.dr[6] & 0xf, 2);
    assert_false(kit_stack32(k, 2) & FL_RF); /* SDM 3B 17.3.1.1: RF as it was */
    v->s.rip = START_AT;
    v->s.rflags |= FL_RF;
    assert_fine(k, cpu_debug_before(v));
    assert_false(v->s.rflags & FL_RF);
    v->s.shadow = SHADOW_MOV_SS;
    assert_fine(k, cpu_debug_before(v));
}

static void data_breakpoint(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    const uint64_t w4 = 1ull << 16 | 3ull << 18,
                   rw8 = 3ull << 20 | 2ull << 22; /* DR0: 4-byte write, DR1: 8-byte access */
    kit_protected(k, 0);
    mem_write32(v, SEG_DS, 0x60000, 1); /* cached */
    assert_fine(k, cpu_write_dr(v, 0, 0x60000));
    assert_fine(k, cpu_write_dr(v, 1, 0x60010));
    assert_fine(k, cpu_write_dr(v, 7, w4 | rw8 | 5));
    assert_int_equal(v->mmu.watch_count, 2);
    assert_false(v->mode & MODE_STEP);
    /* in a block: run alone first, so that the trap comes right after the instruction */
    assert_int_equal(RAISED(k, mem_write32(v, SEG_DS, 0x60000, 2)), KIT_RESTART);
    assert_int_equal(kit_get32(k, 0x60000), 1);
    v->store_code = true;
    assert_fine(k, mem_read32(v, SEG_DS, 0x60000)); /* writes only */
    assert_int_equal(v->s.debug_pending, 0);
    assert_fine(k, mem_write8(v, SEG_DS, 0x60003, 2));
    assert_int_equal(v->s.debug_pending, 1);
    assert_fine(k, mem_write8(v, SEG_DS, 0x60004, 2));
    assert_fine(k, mem_read16(v, SEG_DS, 0x6000f)); /* overlaps the first byte */
    assert_int_equal(v->s.debug_pending, 3);
    v->store_code = false;
    assert_true(requested(v));
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_DB);
    assert_int_equal(v->s.dr[6] & 0xf, 3);
    assert_int_equal(kit_stack32(k, 0), START_AT);
    assert_fine(k, cpu_write_dr(v, 7, 0));
    assert_fine(k, mem_write32(v, SEG_DS, 0x60000, 2));
    assert_int_equal(v->s.debug_pending, 0);
}

static void port_breakpoint_and_step(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 0);
    assert_fine(k, cpu_write_dr(v, 2, 0x80));
    assert_fine(k, cpu_write_dr(v, 7, 2ull << 24 | 1u << 4));
    assert_fine(k, cpu_out(v, 0x80, 0, 1));
    assert_int_equal(v->s.debug_pending, 0); /* CR4.DE */
    v->s.cr4 |= CR4_DE;
    assert_fine(k, cpu_in(v, 0x7f, 2));
    assert_int_equal(v->s.debug_pending, 4);
    v->s.debug_pending = 0;
    /* single step: BS, after the instruction; not after MOV SS */
    cpu_debug_after(v, true);
    assert_int_equal(v->s.debug_pending, DR6_BS);
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.dr[6] & DR6_BS, DR6_BS);
    assert_false(kit_stack32(k, 2) & FL_RF);
    v->s.shadow = SHADOW_MOV_SS;
    cpu_debug_after(v, true);
    assert_int_equal(v->s.debug_pending, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        T(interrupts),
        T(nmi_and_priorities),
        T(init_and_sipi),
        T(debug_registers),
        T(code_breakpoint),
        T(data_breakpoint),
        T(port_breakpoint_and_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
