/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug registers, breakpoints and single step (SDM 3B 17.2, 17.3).
 *
 * Code breakpoints are faults, raised before the instruction. All else are traps: noted in s.debug_pending
 * (as DR6 bits) while the instruction runs and delivered by cpu_take_events() after it.
 */
#include "cpu/debug.h"
#include "cpu/event.h"
#include "cpu/ops.h"

/* Kinds of breakpoint, DR7's R/W fields. */
enum { BP_CODE = 0, BP_WRITE = 1, BP_IO = 2, BP_ACCESS = 3 };

static bool bp_enabled(const struct vcpu *v, unsigned n) { return (v->s.dr[7] >> (2 * n) & 3) != 0; }
static unsigned bp_kind(const struct vcpu *v, unsigned n)
{
    return (unsigned)bits(v->s.dr[7], 16 + 4 * n, 2);
}

static unsigned bp_length(const struct vcpu *v, unsigned n)
{
    static const uint8_t length[4] = { 1, 2, 8, 4 };
    return length[bits(v->s.dr[7], 18 + 4 * n, 2)];
}

/* DR6's bits for the enabled breakpoints, of a kind in `kinds` (a bit each), that overlap [at, at+size). */
static unsigned bp_hits(const struct vcpu *v, unsigned kinds, uint64_t at, unsigned size)
{
    unsigned hits = 0;
    for (unsigned n = 0; n < 4; n++) {
        uint64_t length = bp_length(v, n), first = v->s.dr[n] & ~(length - 1);
        if (bp_enabled(v, n) && (kinds >> bp_kind(v, n) & 1) && at <= first + (length - 1) &&
            first <= at + (size - 1))
            hits |= 1u << n;
    }
    return hits;
}

void debug_raise(struct vcpu *v, uint64_t dr6_bits)
{
    v->s.dr[6] |= dr6_bits;
    cpu_raise(v, VEC_DB);
}

/* ---- MOV to and from debug registers --------------------------------------------------------- */

/* The register really meant; #UD, #GP and the general-detect fault in their order. */
static unsigned select_dr(struct vcpu *v, unsigned n)
{
    if (n > 7 || ((n == 4 || n == 5) && (v->s.cr4 & CR4_DE)))
        cpu_raise(v, VEC_UD);
    if (vcpu_cpl(v) != 0)
        cpu_raise_gp0(v);
    if (v->s.dr[7] & DR7_GD) {
        v->s.rflags |= FL_RF; /* a fault that is no code breakpoint: its frame shows RF (SDM 3B 17.3.1.1) */
        debug_raise(v, DR6_BD);
    }
    return n == 4 || n == 5 ? n + 2 : n;
}

uint64_t cpu_read_dr(struct vcpu *v, unsigned n)
{
    n = select_dr(v, n);
    switch (n) {
    case 6: return (v->s.dr[6] & DR6_WRITABLE) | DR6_FIXED;
    case 7: return (v->s.dr[7] & DR7_WRITABLE) | DR7_FIXED;
    default: return v->s.dr[n];
    }
}

void cpu_write_dr(struct vcpu *v, unsigned n, uint64_t val)
{
    n = select_dr(v, n);
    if (!vcpu_long64(v))
        val &= 0xffffffff;
    if (n >= 6 && val >> 32)
        cpu_raise_gp0(v);
    switch (n) {
    case 6: v->s.dr[6] = (val & DR6_WRITABLE) | DR6_FIXED; return;
    case 7: val = (val & DR7_WRITABLE) | DR7_FIXED; break;
    default: break;
    }
    v->s.dr[n] = val;
    /* Code breakpoints and the watched pages of data breakpoints are derived from these registers. */
    vcpu_refresh_mode(v);
}

/* ---- Breakpoints ----------------------------------------------------------------------------- */

void cpu_debug_before(struct vcpu *v)
{
    /* RF and MOV SS hold code breakpoints off for one instruction; one executed again has passed already. */
    bool off = (v->s.rflags & FL_RF) || (v->s.shadow & SHADOW_MOV_SS) || v->store_code;
    uint64_t lin = (v->sf[SEG_CS].base + v->s.rip) & v->lin_mask;
    unsigned hits = off ? 0 : bp_hits(v, 1u << BP_CODE, lin, 1);
    if (hits)
        debug_raise(v, hits);
    v->s.rflags &= ~(uint64_t)FL_RF;
}

static void note_trap(struct vcpu *v, unsigned hits)
{
    v->s.debug_pending |= (uint16_t)hits;
    atomic_fetch_or_explicit(&v->requests, REQ_EVENT, memory_order_relaxed);
}

void cpu_debug_access(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_access access)
{
    unsigned kinds = 1u << BP_ACCESS | (access == ACCESS_WRITE ? 1u << BP_WRITE : 0);
    unsigned hits = access == ACCESS_FETCH ? 0 : bp_hits(v, kinds, lin, size);
    if (!hits)
        return;
    /* The trap is due right after this instruction, so it has to end its block: nothing is committed yet,
     * run it alone. */
    if (!(v->mode & MODE_STEP) && !v->store_code && !v->in_delivery)
        cpu_restart_alone(v);
    note_trap(v, hits);
}

void cpu_debug_io(struct vcpu *v, uint16_t port, unsigned size)
{
    unsigned hits = (v->s.cr4 & CR4_DE) ? bp_hits(v, 1u << BP_IO, port, size) : 0;
    if (hits)
        note_trap(v, hits);
}

void cpu_debug_after(struct vcpu *v, bool tf_before)
{
    /* A trap of MOV SS itself is lost; data breakpoints it hit wait for the next instruction. */
    if (tf_before && !(v->s.debug_pending & DEBUG_NO_STEP) && !(v->s.shadow & SHADOW_MOV_SS)) {
        v->counters.single_steps++;
        note_trap(v, DR6_BS);
    }
    v->s.debug_pending &= (uint16_t)~DEBUG_NO_STEP;
    vcpu_refresh_mode(v); /* RF and the shadow, which held MODE_STEP, may be gone */
    cpu_recheck_events(v);
}
