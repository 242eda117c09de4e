/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XSAVE and its kin (SDM 1 chapter 13): a legacy area as of FXSAVE, a header, then components.
 *
 *   0      legacy area: x87, MXCSR, XMM
 *   512    XSTATE_BV: which components are not in their initial state
 *   520    XCOMP_BV: bit 63 and which components have a place, of a compacted image; else 0
 *   576    components: at places that CPUID tells, or (compacted) one behind the other
 *
 * The modified optimisation is not made: an image has all that its instruction may write and that is in use.
 */
#include "cpu/model.h"
#include "engine/interp/fpu.h"

#define XMM_OFFSET 160u
#define HEADER 512u
#define LEGACY_SIZE 576u /* with the header */
#define COMPACTED (1ull << 63)
#define X87_BIT (1ull << XSTATE_X87)
#define SSE_BIT (1ull << XSTATE_SSE)
#define AVX_BIT (1ull << XSTATE_AVX)

/* Where the components behind the header are kept. */
static const struct component {
    uint16_t offset, size; /* in struct fpu_state */
    bool per_register;     /* outside 64-bit mode the upper half does not exist */
    bool only64;           /* ... none of it does */
} components[XSTATE_COUNT] = {
    [XSTATE_AVX] = { offsetof(struct fpu_state, ymmh), 256, true, false },
    [XSTATE_OPMASK] = { offsetof(struct fpu_state, k), 64, false, false },
    [XSTATE_ZMM_HI256] = { offsetof(struct fpu_state, zmmh), 512, true, false },
    [XSTATE_HI16_ZMM] = { offsetof(struct fpu_state, zmm16), 1024, true, true },
};

static unsigned accessible(const struct vcpu *v, const struct component *c)
{
    if (vcpu_long64(v) || !c->per_register)
        return c->size;
    return c->only64 ? 0 : c->size / 2u;
}

static uint8_t *registers(struct vcpu *v, const struct component *c)
{
    return (uint8_t *)&v->s.fpu + c->offset;
}

static void check_xsave(struct vcpu *v)
{
    if (!(v->s.cr4 & CR4_OSXSAVE))
        cpu_raise(v, VEC_UD);
    if (v->s.cr0 & CR0_TS)
        cpu_raise(v, VEC_NM);
}

static void check_privileged(struct vcpu *v)
{
    check_xsave(v);
    if (vcpu_cpl(v) > 0)
        cpu_raise_gp0(v);
}

static uint64_t requested(const struct vcpu *v)
{
    return (v->s.gpr[RDX] << 32 | (uint32_t)v->s.gpr[RAX]) & v->s.fpu.xcr0;
}

/* Where component i lies in an image with `layout` in XCOMP_BV, 0 in the standard format. */
static unsigned place_of(const struct vcpu *v, unsigned i, uint64_t layout)
{
    if (!(layout & COMPACTED))
        return v->model->xsave[i].offset;
    unsigned at = LEGACY_SIZE;
    for (unsigned j = XSTATE_AVX; j < i; j++)
        if (layout >> j & 1)
            at += components[j].size;
    return at;
}

static uint64_t part(const struct vcpu *v, uint64_t lin, unsigned at) { return (lin + at) & v->lin_mask; }

/* --- saving --------------------------------------------------------------------------------------------------- */

static void probe_image(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t save, uint64_t layout)
{
    access_probe_write(v, lin, LEGACY_SIZE, v->mmu.index, op->seg);
    for (unsigned i = XSTATE_AVX; i < XSTATE_COUNT; i++) {
        unsigned size = accessible(v, &components[i]);
        if (save >> i & 1 && size)
            access_probe_write(v, part(v, lin, place_of(v, i, layout)), size, v->mmu.index, op->seg);
    }
}

static void save_legacy(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t save, bool mxcsr)
{
    uint8_t img[XMM_OFFSET];
    fpu_sync_x87(v);
    fpu_sync_mxcsr(v);
    fpu_image_put_x87(&v->s.fpu, img, op->prefixes);
    fpu_image_put_mxcsr(&v->s.fpu, img);
    if (save & X87_BIT) {
        access_write(v, lin, img, 24, v->mmu.index, op->seg);
        fpu_image_write(v, op, part(v, lin, 32), img + 32, 128);
    }
    if (mxcsr)
        access_write(v, part(v, lin, 24), img + 24, 8, v->mmu.index, op->seg);
    if (save & SSE_BIT)
        fpu_image_write(v, op, part(v, lin, XMM_OFFSET), v->s.fpu.xmm, 16 * fpu_image_registers(v));
}

static void save_components(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t save, uint64_t layout)
{
    for (unsigned i = XSTATE_AVX; i < XSTATE_COUNT; i++)
        if (save >> i & 1)
            fpu_image_write(v, op, part(v, lin, place_of(v, i, layout)), registers(v, &components[i]),
                            accessible(v, &components[i]));
}

/* XSAVE and XSAVEOPT: bits of XSTATE_BV that were not asked for stay. */
static const struct op *save_standard(struct vcpu *v, const struct op *op, bool only_in_use)
{
    check_xsave(v);
    uint64_t lin = fpu_image_address(v, op, LEGACY_SIZE, 64, ACCESS_WRITE), bv;
    uint64_t want = requested(v), save = only_in_use ? want & cpu_xinuse(v) : want;
    probe_image(v, op, lin, save, 0);
    access_read(v, part(v, lin, HEADER), &bv, 8, v->mmu.index, op->seg);
    save_legacy(v, op, lin, save, want & (SSE_BIT | AVX_BIT));
    save_components(v, op, lin, save, 0);
    bv = (bv & ~want) | (want & cpu_xinuse(v));
    access_write(v, part(v, lin, HEADER), &bv, 8, v->mmu.index, op->seg);
    return op + 1;
}

static const struct op *save_compacted(struct vcpu *v, const struct op *op)
{
    uint64_t lin = fpu_image_address(v, op, LEGACY_SIZE, 64, ACCESS_WRITE), want = requested(v);
    uint64_t header[2] = { want & cpu_xinuse(v), want | COMPACTED };
    probe_image(v, op, lin, header[0], header[1]);
    save_legacy(v, op, lin, header[0], header[0] & SSE_BIT);
    save_components(v, op, lin, header[0], header[1]);
    fpu_image_write(v, op, part(v, lin, HEADER), header, sizeof(header));
    return op + 1;
}

const struct op *run_xsave(struct vcpu *v, const struct op *op) { return save_standard(v, op, false); }

const struct op *run_xsaveopt(struct vcpu *v, const struct op *op) { return save_standard(v, op, true); }

const struct op *run_xsavec(struct vcpu *v, const struct op *op)
{
    check_xsave(v);
    return save_compacted(v, op);
}

/* There are no supervisor components: IA32_XSS is 0. */
const struct op *run_xsaves(struct vcpu *v, const struct op *op)
{
    check_privileged(v);
    return save_compacted(v, op);
}

/* --- restoring ------------------------------------------------------------------------------------------------ */

struct restored {
    uint8_t legacy[LEGACY_SIZE];
    uint8_t part[XSTATE_COUNT][1024];
};

/* XSTATE_BV and XCOMP_BV are what the processor takes (SDM 1 13.8.1, 13.8.2). */
static bool header_valid(const struct vcpu *v, const uint8_t *header, bool may_compact, bool must_compact)
{
    uint64_t bv = get_le64(header), layout = get_le64(header + 8), zero = 0;
    if (layout & COMPACTED) {
        for (unsigned i = 16; i < 64; i += 8)
            zero |= get_le64(header + i);
        return may_compact && !zero && !(layout & ~COMPACTED & ~v->s.fpu.xcr0) && !(bv & ~layout);
    }
    return !must_compact && !layout && !get_le64(header + 16) && !(bv & ~v->s.fpu.xcr0);
}

static void restore_x87(struct vcpu *v, const uint8_t *img, bool from_image, bool wide)
{
    if (from_image) {
        fpu_sync_x87(v);
        fpu_image_get_x87(&v->s.fpu, img, wide);
    } else {
        fpu_init_x87(v);
        memset(v->s.fpu.st, 0, sizeof(v->s.fpu.st));
    }
}

static void restore_sse(struct vcpu *v, const uint8_t *img, bool from_image)
{
    if (from_image)
        memcpy(v->s.fpu.xmm, img + XMM_OFFSET, 16 * fpu_image_registers(v));
    else
        memset(v->s.fpu.xmm, 0, 16 * fpu_image_registers(v));
}

static void read_components(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t load, uint64_t layout,
                            struct restored *r)
{
    for (unsigned i = XSTATE_AVX; i < XSTATE_COUNT; i++)
        if (load >> i & 1)
            fpu_image_read(v, op, part(v, lin, place_of(v, i, layout)), r->part[i],
                           accessible(v, &components[i]));
}

static void commit_components(struct vcpu *v, uint64_t want, uint64_t load, const struct restored *r)
{
    for (unsigned i = XSTATE_AVX; i < XSTATE_COUNT; i++) {
        unsigned size = accessible(v, &components[i]);
        if (load >> i & 1)
            memcpy(registers(v, &components[i]), r->part[i], size);
        else if (want >> i & 1)
            memset(registers(v, &components[i]), 0, size);
    }
}

/* MXCSR belongs to SSE; the standard format has it for AVX too, and whatever XSTATE_BV says. */
static uint32_t new_mxcsr(struct vcpu *v, const struct restored *r, uint64_t want, uint64_t load,
                          bool compacted)
{
    if (compacted)
        return !(want & SSE_BIT) ? v->s.fpu.mxcsr
               : load & SSE_BIT  ? fpu_image_get_mxcsr(v, r->legacy)
                                 : MXCSR_DEFAULT;
    return want & (SSE_BIT | AVX_BIT) ? fpu_image_get_mxcsr(v, r->legacy) : v->s.fpu.mxcsr;
}

static const struct op *restore(struct vcpu *v, const struct op *op, bool must_compact)
{
    struct restored r;
    uint64_t lin = fpu_image_address(v, op, LEGACY_SIZE, 64, ACCESS_READ), want = requested(v);
    fpu_image_read(v, op, lin, r.legacy, LEGACY_SIZE);
    const uint8_t *header = r.legacy + HEADER;
    if (!header_valid(v, header, cpu_features(v) & FEATURE_BIT(FEAT_XSAVEC), must_compact))
        cpu_raise_gp0(v);
    uint64_t layout = get_le64(header + 8), load = want & get_le64(header);
    fpu_sync_mxcsr(v);
    uint32_t mxcsr = new_mxcsr(v, &r, want, load, layout & COMPACTED);
    read_components(v, op, lin, load, layout, &r);
    if (want & X87_BIT)
        restore_x87(v, r.legacy, load & X87_BIT, op->prefixes);
    if (want & SSE_BIT)
        restore_sse(v, r.legacy, load & SSE_BIT);
    commit_components(v, want, load, &r);
    fpu_set_mxcsr(v, mxcsr);
    return op + 1;
}

const struct op *run_xrstor(struct vcpu *v, const struct op *op)
{
    check_xsave(v);
    return restore(v, op, false);
}

const struct op *run_xrstors(struct vcpu *v, const struct op *op)
{
    check_privileged(v);
    return restore(v, op, true);
}
