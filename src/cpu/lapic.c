/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC: registers by page (xAPIC) and by MSR (x2APIC), acceptance, priority and end of interrupt
 * (SDM 3A 10).
 *
 *   other threads ──► irr_posted ──► IRR ──(above PPR)──► lapic_pending() ──► lapic_ack() ──► ISR ──EOI──► I/O APIC
 *
 * All registers belong to the vcpu's own thread; others only post. What an I/O APIC needs to route (ID, LDR,
 * DFR) is read from any thread, so it is stored and loaded atomically.
 */
#include "cpu/lapic.h"

#include "cpu/event.h"
#include "cpu/lapic_internal.h"

#define VERSION 0x50014u /* integrated APIC, LVT entries 0..5 */
#define X2APIC_BASE_MSR 0x800u
#define TSC_DEADLINE_MSR 0x6e0u

static uint32_t load_shared(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

static void store_shared(uint32_t *p, uint32_t val) { __atomic_store_n(p, val, __ATOMIC_RELAXED); }

static bool enabled(const struct vcpu *v) { return v->s.msr.apic_base & APIC_BASE_ENABLED; }

static bool x2apic(const struct vcpu *v)
{
    return (v->s.msr.apic_base & (APIC_BASE_ENABLED | APIC_BASE_X2APIC)) ==
           (APIC_BASE_ENABLED | APIC_BASE_X2APIC);
}

/* --- vectors in the 256-bit registers ------------------------------------------------------------------- */

static void set_vector(uint32_t reg[8], unsigned vector) { reg[vector / 32] |= 1u << vector % 32; }
static void clear_vector(uint32_t reg[8], unsigned vector) { reg[vector / 32] &= ~(1u << vector % 32); }
static bool has_vector(const uint32_t reg[8], unsigned vector) { return reg[vector / 32] >> vector % 32 & 1; }

static int highest_vector(const uint32_t reg[8])
{
    for (int i = 7; i >= 0; i--)
        if (reg[i])
            return i * 32 + 31 - __builtin_clz(reg[i]);
    return -1;
}

/* --- accepting and acknowledging ------------------------------------------------------------------------ */

static void accept(struct vcpu *v, unsigned vector, bool level)
{
    struct lapic_state *l = &v->s.lapic;
    set_vector(l->irr, vector);
    if (level)
        set_vector(l->tmr, vector);
    else
        clear_vector(l->tmr, vector);
}

/* A software-disabled APIC takes no fixed interrupts (SDM 3A 10.4.7.2). */
static void merge_posted(struct vcpu *v)
{
    struct lapic_state *l = &v->s.lapic;
    lapic_timer_poll(v);
    for (unsigned i = 0; i < 8; i++) {
        if (!atomic_load_explicit(&v->irr_posted[i], memory_order_relaxed))
            continue;
        uint32_t fresh = atomic_exchange(&v->irr_posted[i], 0);
        uint32_t level = atomic_load(&v->tmr_posted[i]);
        if (!(l->svr & SVR_ENABLED) || !enabled(v))
            continue;
        l->irr[i] |= fresh;
        l->tmr[i] = (l->tmr[i] & ~fresh) | (level & fresh);
    }
}

static uint32_t processor_priority(const struct vcpu *v)
{
    const struct lapic_state *l = &v->s.lapic;
    int serving = highest_vector(l->isr);
    uint32_t isrv = serving > 0 ? (uint32_t)serving & 0xf0 : 0;
    return (l->tpr & 0xf0) >= isrv ? l->tpr : isrv;
}

int lapic_pending(struct vcpu *v)
{
    merge_posted(v);
    int vector = highest_vector(v->s.lapic.irr);
    if (vector < 16 || !enabled(v) || ((uint32_t)vector & 0xf0) <= (processor_priority(v) & 0xf0))
        return -1;
    return vector;
}

void lapic_ack(struct vcpu *v, uint8_t vector)
{
    clear_vector(v->s.lapic.irr, vector);
    set_vector(v->s.lapic.isr, vector);
}

static void end_of_interrupt(struct vcpu *v)
{
    struct lapic_state *l = &v->s.lapic;
    int vector = highest_vector(l->isr);
    if (vector < 0)
        return;
    clear_vector(l->isr, (unsigned)vector);
    if (has_vector(l->tmr, (unsigned)vector) && v->cb.eoi)
        v->cb.eoi(v->cb.ctx, (uint8_t)vector);
    cpu_recheck_events(v);
}

void lapic_fire_lvt(struct vcpu *v, uint32_t lvt)
{
    if ((lvt & LVT_MASKED) || !enabled(v) || !(v->s.lapic.svr & SVR_ENABLED))
        return;
    switch (lvt & LVT_MODE) {
    case LVT_MODE_FIXED:
        if ((lvt & LVT_VECTOR) < 16)
            lapic_error(v, ESR_RECEIVE_ILLEGAL);
        else
            accept(v, lvt & LVT_VECTOR, false);
        break;
    case LVT_MODE_NMI: vcpu_post_nmi(v); break;
    default: /* SMI, INIT and ExtINT make no sense for these sources */ break;
    }
}

void lapic_error(struct vcpu *v, uint32_t bit)
{
    struct lapic_state *l = &v->s.lapic;
    bool fresh = !(l->esr_pending & bit);
    l->esr_pending |= bit;
    if (!fresh || (l->lvt_error & LVT_MASKED) || (l->lvt_error & LVT_VECTOR) < 16)
        return; /* an error vector that is itself illegal is not reported: no recursion */
    accept(v, l->lvt_error & LVT_VECTOR, false);
    cpu_recheck_events(v);
}

/* --- routing -------------------------------------------------------------------------------------------- */

/* x2APIC's logical ID is made from the ID; with less than 16 processors there is one cluster (SDM 3A
 * 10.12.10.2). */
static uint32_t x2apic_ldr(const struct vcpu *v) { return (v->index >> 4) << 16 | 1u << (v->index & 15); }

bool lapic_matches(const struct vcpu *v, uint8_t dest, bool logical)
{
    const struct lapic_state *l = &v->s.lapic;
    if (!enabled(v))
        return false;
    if (!logical)
        return dest == 0xff || dest == (x2apic(v) ? v->index : load_shared(&l->id) >> 24);
    if (x2apic(v))
        return dest & x2apic_ldr(v);
    uint32_t ldr = load_shared(&l->ldr) >> 24;
    if (load_shared(&l->dfr) >> 28 == 0xf) /* flat */
        return dest & ldr;
    return (dest == 0xff || dest >> 4 == ldr >> 4) && (dest & ldr & 0xf);
}

bool lapic_accepts_pic(const struct vcpu *v)
{
    if (!enabled(v))
        return v->index == 0;
    return (v->s.lapic.lvt_lint0 & (LVT_MASKED | LVT_MODE)) == LVT_MODE_EXTINT;
}

/* Writing ICR low sends. Fixed vectors below 16 are refused (SDM 3A 10.6.1, 10.5.3). */
static void send_ipi(struct vcpu *v)
{
    struct lapic_state *l = &v->s.lapic;
    uint32_t mode = l->icr_low & LVT_MODE;
    if (mode <= 0x100 && (l->icr_low & LVT_VECTOR) < 16)
        lapic_error(v, ESR_SEND_ILLEGAL);
    else if (v->cb.ipi)
        v->cb.ipi(v->cb.ctx, v->index, l->icr_low, l->icr_high);
}

/* --- registers ------------------------------------------------------------------------------------------ */

/* Plain registers: where they are kept, which bits may be written, and whether software-disabling the APIC
 * masks them. */
static const struct plain {
    uint16_t reg, offset;
    uint32_t writable;
    bool lvt;
} plain[] = {
/* clang-format off */
#define PLAIN(reg_, field, writable_, lvt_) { reg_, offsetof(struct lapic_state, field), writable_, lvt_ }
    PLAIN(REG_ID, id, 0xff000000, false),
    PLAIN(REG_LDR, ldr, 0xff000000, false),
    PLAIN(REG_DFR, dfr, 0xf0000000, false),
    PLAIN(REG_ICR_LOW, icr_low, 0x000ccfff, false),
    PLAIN(REG_ICR_HIGH, icr_high, 0xff000000, false),
    PLAIN(REG_LVT_TIMER, lvt_timer, 0x000700ff, true),
    PLAIN(REG_LVT_THERMAL, lvt_thermal, 0x000107ff, true),
    PLAIN(REG_LVT_PERF, lvt_perf, 0x000107ff, true),
    PLAIN(REG_LVT_LINT0, lvt_lint0, 0x0001a7ff, true),
    PLAIN(REG_LVT_LINT1, lvt_lint1, 0x0001a7ff, true),
    PLAIN(REG_LVT_ERROR, lvt_error, 0x000100ff, true),
    PLAIN(REG_SVR, svr, 0x000003ff, false),
    PLAIN(REG_TPR, tpr, 0x000000ff, false),
    PLAIN(REG_ESR, esr, 0, false),
    PLAIN(REG_TIMER_INITIAL, timer_initial, 0xffffffff, false),
    PLAIN(REG_TIMER_DIVIDE, timer_divide, 0x0000000b, false),
#undef PLAIN
};
/* clang-format on */

static const struct plain *find_plain(uint32_t reg)
{
    for (unsigned i = 0; i < array_size(plain); i++)
        if (plain[i].reg == reg)
            return &plain[i];
    return NULL;
}

/* Bits that software may write as it likes, without effect: delivery status, and remote IRR where there is one (SDM 3A 11.5.1). */
static uint32_t status_bits(const struct plain *p)
{
    return p->lvt ? LVT_DELIVERY_STATUS | (p->writable & LVT_LEVEL ? LVT_REMOTE_IRR : 0) : 0;
}

static uint32_t *plain_field(struct vcpu *v, const struct plain *p)
{
    return (uint32_t *)(void *)((char *)&v->s.lapic + p->offset);
}

/* While the APIC is software-disabled all LVT entries are masked and cannot be unmasked. */
static void mask_all_lvt(struct vcpu *v)
{
    for (unsigned i = 0; i < array_size(plain); i++)
        if (plain[i].lvt)
            *plain_field(v, &plain[i]) |= LVT_MASKED;
}

static void write_plain(struct vcpu *v, const struct plain *p, uint32_t val)
{
    uint32_t *field = plain_field(v, p);
    val &= p->writable;
    if (p->lvt && !(v->s.lapic.svr & SVR_ENABLED))
        val |= LVT_MASKED;
    store_shared(field, val);
}

/* ISR, TMR and IRR show their 256 bits in eight registers 16 bytes apart. */
static const uint32_t *vector_register(struct vcpu *v, uint32_t reg)
{
    if (reg < REG_ISR || reg >= REG_ESR)
        return NULL;
    if (reg >= REG_IRR)
        merge_posted(v);
    const uint32_t *banks[] = { v->s.lapic.isr, v->s.lapic.tmr, v->s.lapic.irr };
    return &banks[(reg - REG_ISR) / 0x80][(reg >> 4) & 7];
}

static bool read_register(struct vcpu *v, uint32_t reg, uint32_t *val)
{
    const uint32_t *vector = vector_register(v, reg);
    if (vector) {
        *val = *vector;
        return true;
    }
    switch (reg) {
    case REG_VERSION: *val = VERSION; return true;
    case REG_APR:
    case REG_PPR: *val = processor_priority(v); return true;
    case REG_RRD:
    case REG_EOI: *val = 0; return true;
    case REG_TIMER_CURRENT:
        lapic_timer_poll(v);
        *val = lapic_timer_current(v);
        return true;
    default: break;
    }
    const struct plain *p = find_plain(reg);
    if (p)
        *val = *plain_field(v, p);
    return p != NULL;
}

static void write_svr(struct vcpu *v, const struct plain *p, uint32_t val)
{
    write_plain(v, p, val);
    if (!(val & SVR_ENABLED))
        mask_all_lvt(v);
}

static bool write_register(struct vcpu *v, uint32_t reg, uint32_t val)
{
    struct lapic_state *l = &v->s.lapic;
    const struct plain *p = find_plain(reg);
    switch (reg) {
    case REG_EOI: end_of_interrupt(v); return true;
    case REG_SVR: write_svr(v, p, val); break;
    case REG_DFR:
        write_plain(v, p, val);
        l->dfr |= 0x0fffffff;
        return true;
    case REG_ESR: /* a write shows the errors since the last write */
        l->esr = l->esr_pending;
        l->esr_pending = 0;
        return true;
    case REG_ICR_LOW:
        write_plain(v, p, val);
        send_ipi(v);
        return true;
    case REG_LVT_TIMER:
        val &= p->writable;
        lapic_timer_set_lvt(v, l->svr & SVR_ENABLED ? val : val | LVT_MASKED);
        return true;
    case REG_TIMER_INITIAL: lapic_timer_set_initial(v, val); return true;
    case REG_TIMER_DIVIDE: lapic_timer_set_divide(v, val); return true;
    default:
        if (!p)
            return false;
        write_plain(v, p, val);
        break;
    }
    cpu_recheck_events(v); /* TPR, SVR or LINT0 may have let something through */
    return true;
}

/* --- the page ------------------------------------------------------------------------------------------- */

bool lapic_claims(const struct vcpu *v, gpa addr)
{
    uint64_t base = v->s.msr.apic_base & (BIT(MAXPHYADDR) - 1) & ~(uint64_t)PAGE_OFFSET_MASK;
    return enabled(v) && !x2apic(v) && (addr.v & ~(uint64_t)PAGE_OFFSET_MASK) == base;
}

uint32_t lapic_read(struct vcpu *v, uint32_t off)
{
    uint32_t val = 0;
    if ((off & 0xf) == 0 && !read_register(v, off, &val))
        lapic_error(v, ESR_ILLEGAL_REGISTER);
    return val;
}

void lapic_write(struct vcpu *v, uint32_t off, uint32_t val)
{
    if ((off & 0xf) == 0 && !write_register(v, off, val))
        lapic_error(v, ESR_ILLEGAL_REGISTER);
}

/* --- the MSRs ------------------------------------------------------------------------------------------- */

static uint32_t x2apic_reg(uint32_t msr) { return (msr - X2APIC_BASE_MSR) << 4; }

/* In x2APIC mode DFR and ICR high are gone, ID and LDR are read-only, ICR is one 64-bit register (SDM 3A
 * Table 10-6). */
static bool x2apic_read(struct vcpu *v, uint32_t reg, uint64_t *val)
{
    uint32_t low;
    switch (reg) {
    case REG_ID: *val = v->index; return true;
    case REG_LDR: *val = x2apic_ldr(v); return true;
    case REG_ICR_LOW: *val = v->s.lapic.icr_low | (uint64_t)v->s.lapic.icr_high << 32; return true;
    case REG_DFR:
    case REG_ICR_HIGH:
    case REG_APR:
    case REG_RRD:
    case REG_EOI: return false;
    default: break;
    }
    if (!read_register(v, reg, &low))
        return false;
    *val = low;
    return true;
}

/* Destinations are 32 bits wide here, and go to the routing callback as they are. With so few processors
 * there is nobody above 254 but the broadcast. */
static bool x2apic_send(struct vcpu *v, uint64_t val)
{
    uint32_t low = (uint32_t)val, dest = (uint32_t)(val >> 32);
    bool shorthand = low & 0xc0000;
    if (low & ~0x000ccfffu)
        return false;
    v->s.lapic.icr_low = low;
    v->s.lapic.icr_high = dest;
    if (shorthand || dest < 0xff || dest == 0xffffffff)
        send_ipi(v);
    return true;
}

static bool x2apic_write(struct vcpu *v, uint32_t reg, uint64_t val)
{
    const struct plain *p = find_plain(reg);
    switch (reg) {
    case REG_ICR_LOW: return x2apic_send(v, val);
    case REG_SELF_IPI:
        if (val > 0xff)
            return false;
        if (val < 16)
            lapic_error(v, ESR_SEND_ILLEGAL);
        else
            accept(v, (unsigned)val, false);
        cpu_recheck_events(v);
        return true;
    case REG_ID:
    case REG_LDR:
    case REG_DFR:
    case REG_ICR_HIGH: return false;
    case REG_EOI:
    case REG_ESR: return val == 0 && write_register(v, reg, 0);
    default:
        if (val >> 32 || (p && (val & ~(uint64_t)(p->writable | status_bits(p)))))
            return false;
        return write_register(v, reg, (uint32_t)val);
    }
}

bool lapic_msr_read(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    if (msr == TSC_DEADLINE_MSR) {
        lapic_timer_poll(v);
        *val = v->s.msr.tsc_deadline;
        return true;
    }
    return msr - X2APIC_BASE_MSR < 0x100 && x2apic(v) && x2apic_read(v, x2apic_reg(msr), val);
}

bool lapic_msr_write(struct vcpu *v, uint32_t msr, uint64_t val)
{
    if (msr == TSC_DEADLINE_MSR) {
        lapic_timer_set_deadline(v, val);
        return true;
    }
    return msr - X2APIC_BASE_MSR < 0x100 && x2apic(v) && x2apic_write(v, x2apic_reg(msr), val);
}

uint8_t lapic_get_cr8(const struct vcpu *v) { return (uint8_t)(v->s.lapic.tpr >> 4 & 0xf); }

void lapic_set_cr8(struct vcpu *v, uint8_t cr8)
{
    v->s.lapic.tpr = (uint32_t)(cr8 & 0xf) << 4;
    cpu_recheck_events(v);
}

/* --- life ----------------------------------------------------------------------------------------------- */

void lapic_init(struct vcpu *v) { lapic_timer_init(v); }

/* SDM 3A 10.4.7.1. LINT0 of the first processor takes the 8259's interrupts, as firmware leaves it ("virtual
 * wire", MP specification 3.6.2.2), so that kernels without APIC support hear them. */
void lapic_reset(struct vcpu *v)
{
    v->s.lapic = (struct lapic_state){
        .id = v->index << 24,
        .dfr = 0xffffffff,
        .svr = 0xff,
        .lvt_timer = LVT_MASKED,
        .lvt_thermal = LVT_MASKED,
        .lvt_perf = LVT_MASKED,
        .lvt_lint0 = v->index == 0 ? LVT_MODE_EXTINT : LVT_MASKED,
        .lvt_lint1 = LVT_MASKED,
        .lvt_error = LVT_MASKED,
    };
    lapic_timer_reset(v);
}
