/* SPDX-License-Identifier: Apache-2.0 */
/* State images in guest memory: FXSAVE, the x87 environment, and MXCSR (SDM 1 8.1.10, 10.5). XSAVE is in xsave.c. */
#include "engine/interp/fpu.h"

#define FXSAVE_SIZE 512u
#define FXSAVE_WRITTEN 416u /* the rest belongs to software */
#define XMM_OFFSET 160u

/* The control word's bit 6 reads as one, its other reserved bits as zero. */
static uint16_t fcw_as_kept(uint16_t fcw) { return (fcw & 0x1f3f) | 0x40; }

/* Status word with ES and B as the flags and masks make them. */
static uint16_t with_summary(uint16_t fsw, uint16_t fcw)
{
    bool pending = fsw & ~fcw & 0x3f;
    return (uint16_t)((fsw & ~0x8080u) | (pending ? 0x8080u : 0));
}

/* At once where the whole lies on one page whose translation is cached. Images are aligned to 16, so 16-byte pieces never cross a
 * page. */
void fpu_image_read(struct vcpu *v, const struct op *op, uint64_t lin, void *dst, unsigned len)
{
    const void *host = tlb_find(&v->mmu, lin, len, ACCESS_READ);
    if (host) {
        memcpy(dst, host, len);
        return;
    }
    for (unsigned i = 0; i < len; i += 16)
        access_read(v, (lin + i) & v->lin_mask, (uint8_t *)dst + i, len - i < 16 ? len - i : 16, v->mmu.index,
                    op->seg);
}

void fpu_image_write(struct vcpu *v, const struct op *op, uint64_t lin, const void *src, unsigned len)
{
    void *host = tlb_find(&v->mmu, lin, len, ACCESS_WRITE);
    if (host) {
        memcpy(host, src, len);
        return;
    }
    for (unsigned i = 0; i < len; i += 16)
        access_write(v, (lin + i) & v->lin_mask, (const uint8_t *)src + i, len - i < 16 ? len - i : 16,
                     v->mmu.index, op->seg);
}

uint64_t fpu_image_address(struct vcpu *v, const struct op *op, unsigned size, unsigned align,
                           enum mmu_access access)
{
    uint64_t lin = fpu_operand_linear(v, op, size, access);
    if (lin & (align - 1))
        cpu_raise_gp0(v);
    return lin;
}

static void check_not_available(struct vcpu *v)
{
    if (v->s.cr0 & (CR0_EM | CR0_TS))
        cpu_raise(v, VEC_NM);
}

/* --- FXSAVE layout (SDM 1 Table 10-2) ------------------------------------------------------------------------------------- */

void fpu_image_put_x87(const struct fpu_state *f, uint8_t *img, bool wide)
{
    put_le16(img, f->fcw);
    put_le16(img + 2, f->fsw);
    img[4] = f->ftw;
    img[5] = 0;
    put_le16(img + 6, f->fop);
    put_le64(img + 8, f->fip);
    put_le64(img + 16, f->fdp);
    if (!wide) {
        put_le32(img + 12, f->fcs);
        put_le32(img + 20, f->fds);
    }
    for (unsigned i = 0; i < 8; i++) {
        memset(img + 32 + 16 * i, 0, 16);
        memcpy(img + 32 + 16 * i, f->st[i], 10);
    }
}

void fpu_image_get_x87(struct fpu_state *f, const uint8_t *img, bool wide)
{
    f->fcw = fcw_as_kept(get_le16(img));
    f->fsw = with_summary(get_le16(img + 2), f->fcw);
    f->ftw = img[4];
    f->fop = get_le16(img + 6) & 0x7ff;
    f->fip = wide ? get_le64(img + 8) : get_le32(img + 8);
    f->fcs = wide ? 0 : get_le16(img + 12);
    f->fdp = wide ? get_le64(img + 16) : get_le32(img + 16);
    f->fds = wide ? 0 : get_le16(img + 20);
    for (unsigned i = 0; i < 8; i++)
        memcpy(f->st[i], img + 32 + 16 * i, 10);
}

void fpu_image_put_mxcsr(const struct fpu_state *f, uint8_t *img)
{
    put_le32(img + 24, f->mxcsr);
    put_le32(img + 28, MXCSR_VALID);
}

uint32_t fpu_image_get_mxcsr(struct vcpu *v, const uint8_t *img)
{
    uint32_t mxcsr = get_le32(img + 24);
    if (mxcsr & ~MXCSR_VALID)
        cpu_raise_gp0(v);
    return mxcsr;
}

const struct op *run_fxsave(struct vcpu *v, const struct op *op)
{
    uint8_t img[FXSAVE_WRITTEN];
    bool wide = op->prefixes;
    check_not_available(v);
    unsigned len = XMM_OFFSET + 16 * fpu_image_registers(v);
    uint64_t lin = fpu_image_address(v, op, FXSAVE_SIZE, 16, ACCESS_WRITE);
    access_probe_write(v, lin, FXSAVE_SIZE, v->mmu.index, op->seg);
    fpu_sync_x87(v);
    fpu_sync_mxcsr(v);
    fpu_image_put_x87(&v->s.fpu, img, wide);
    fpu_image_put_mxcsr(&v->s.fpu, img);
    memcpy(img + XMM_OFFSET, v->s.fpu.xmm, 16 * fpu_image_registers(v));
    fpu_image_write(v, op, lin, img, len);
    return op + 1;
}

const struct op *run_fxrstor(struct vcpu *v, const struct op *op)
{
    uint8_t img[FXSAVE_WRITTEN];
    bool wide = op->prefixes;
    check_not_available(v);
    uint64_t lin = fpu_image_address(v, op, FXSAVE_SIZE, 16, ACCESS_READ);
    fpu_image_read(v, op, lin, img, XMM_OFFSET + 16 * fpu_image_registers(v));
    uint32_t mxcsr = fpu_image_get_mxcsr(v, img);
    fpu_sync_x87(v);
    fpu_image_get_x87(&v->s.fpu, img, wide);
    memcpy(v->s.fpu.xmm, img + XMM_OFFSET, 16 * fpu_image_registers(v));
    fpu_set_mxcsr(v, mxcsr);
    return op + 1;
}

/* --- MXCSR ---------------------------------------------------------------------------------------------------------------- */

static const struct op *load_mxcsr(struct vcpu *v, const struct op *op)
{
    uint32_t val = mem_read32(v, op->seg, op_offset(v, op));
    if (val & ~MXCSR_VALID)
        cpu_raise_gp0(v);
    fpu_set_mxcsr(v, val);
    return op + 1;
}

static const struct op *store_mxcsr(struct vcpu *v, const struct op *op)
{
    fpu_sync_mxcsr(v);
    mem_write32(v, op->seg, op_offset(v, op), v->s.fpu.mxcsr);
    return op + 1;
}

const struct op *run_ldmxcsr(struct vcpu *v, const struct op *op)
{
    cpu_check_sse(v);
    return load_mxcsr(v, op);
}

const struct op *run_stmxcsr(struct vcpu *v, const struct op *op)
{
    cpu_check_sse(v);
    return store_mxcsr(v, op);
}

const struct op *run_vldmxcsr(struct vcpu *v, const struct op *op)
{
    cpu_check_avx(v);
    return load_mxcsr(v, op);
}

const struct op *run_vstmxcsr(struct vcpu *v, const struct op *op)
{
    cpu_check_avx(v);
    return store_mxcsr(v, op);
}

/* --- x87 environment (SDM 1 Figures 8-9 to 8-12) -------------------------------------------------------------------------- */

/* Two bits a physical register: valid, zero, special, empty. */
static uint16_t tag_word(const struct fpu_state *f)
{
    unsigned top = f->fsw >> FSW_TOP_SHIFT & 7;
    uint16_t tags = 0;
    for (unsigned phys = 0; phys < 8; phys++) {
        const uint8_t *st = f->st[(phys - top) & 7];
        uint64_t mantissa = get_le64(st);
        unsigned exponent = get_le16(st + 8) & 0x7fff, tag = 0;
        if (!(f->ftw >> phys & 1))
            tag = 3;
        else if (exponent == 0 && mantissa == 0)
            tag = 1;
        else if (exponent == 0 || exponent == 0x7fff || !(mantissa >> 63))
            tag = 2;
        tags |= (uint16_t)(tag << (2 * phys));
    }
    return tags;
}

static bool real_format(const struct vcpu *v) { return !vcpu_protected(v); }

static unsigned env_size(const struct op *op) { return op->opsize == 2 ? 14 : 28; }

static void put_env(struct vcpu *v, const struct op *op, uint8_t *img)
{
    const struct fpu_state *f = &v->s.fpu;
    bool real = real_format(v);
    uint32_t ip = (uint32_t)f->fip, dp = (uint32_t)f->fdp;
    if (real) { /* a linear address of 20 (32) bits is kept instead of selector and offset */
        ip += (uint32_t)f->fcs << 4;
        dp += (uint32_t)f->fds << 4;
    }
    if (op->opsize == 2) {
        put_le16(img, f->fcw);
        put_le16(img + 2, f->fsw);
        put_le16(img + 4, tag_word(f));
        put_le16(img + 6, (uint16_t)ip);
        put_le16(img + 8, real ? (uint16_t)(ip >> 4 & 0xf000) | f->fop : f->fcs);
        put_le16(img + 10, (uint16_t)dp);
        put_le16(img + 12, real ? (uint16_t)(dp >> 4 & 0xf000) : f->fds);
        return;
    }
    put_le32(img, f->fcw | 0xffff0000u);
    put_le32(img + 4, f->fsw | 0xffff0000u);
    put_le32(img + 8, tag_word(f) | 0xffff0000u);
    put_le32(img + 12, real ? (ip & 0xffff) | 0xffff0000u : ip);
    put_le32(img + 16, real ? (ip >> 4 & 0x0ffff000) | f->fop : f->fcs | (uint32_t)f->fop << 16);
    put_le32(img + 20, real ? (dp & 0xffff) | 0xffff0000u : dp);
    put_le32(img + 24, real ? dp >> 4 & 0x0ffff000 : f->fds | 0xffff0000u);
}

static void get_env(struct vcpu *v, const struct op *op, const uint8_t *img)
{
    struct fpu_state *f = &v->s.fpu;
    bool real = real_format(v);
    unsigned w = op->opsize == 2 ? 2 : 4;
    uint16_t tags = get_le16(img + 2 * w), fsw = get_le16(img + w);
    fpu_set_top(f, fsw >> FSW_TOP_SHIFT & 7);
    f->fcw = fcw_as_kept(get_le16(img));
    f->fsw = with_summary(fsw, f->fcw);
    f->ftw = 0;
    for (unsigned phys = 0; phys < 8; phys++)
        if ((tags >> (2 * phys) & 3) != 3)
            f->ftw |= (uint8_t)(1u << phys);
    if (w == 2) {
        f->fip = get_le16(img + 6) | (real ? (get_le16(img + 8) & 0xf000u) << 4 : 0);
        f->fcs = real ? 0 : get_le16(img + 8);
        f->fop = real ? get_le16(img + 8) & 0x7ff : f->fop;
        f->fdp = get_le16(img + 10) | (real ? (get_le16(img + 12) & 0xf000u) << 4 : 0);
        f->fds = real ? 0 : get_le16(img + 12);
        return;
    }
    f->fip = real ? get_le16(img + 12) | (get_le32(img + 16) & 0x0ffff000u) << 4 : get_le32(img + 12);
    f->fcs = real ? 0 : get_le16(img + 16);
    f->fop = real ? get_le16(img + 16) & 0x7ff : get_le16(img + 18) & 0x7ff;
    f->fdp = real ? get_le16(img + 20) | (get_le32(img + 24) & 0x0ffff000u) << 4 : get_le32(img + 20);
    f->fds = real ? 0 : get_le16(img + 24);
}

static void env_write(struct vcpu *v, const struct op *op, uint64_t lin, const uint8_t *img, unsigned len)
{
    for (unsigned i = 0; i < len; i += 32)
        access_write(v, (lin + i) & v->lin_mask, img + i, len - i < 32 ? len - i : 32, v->mmu.index, op->seg);
}

static void env_read(struct vcpu *v, const struct op *op, uint64_t lin, uint8_t *img, unsigned len)
{
    for (unsigned i = 0; i < len; i += 32)
        access_read(v, (lin + i) & v->lin_mask, img + i, len - i < 32 ? len - i : 32, v->mmu.index, op->seg);
}

const struct op *run_fnstenv(struct vcpu *v, const struct op *op)
{
    uint8_t img[28];
    cpu_check_fpu(v);
    uint64_t lin = fpu_operand_linear(v, op, env_size(op), ACCESS_WRITE);
    access_probe_write(v, lin, env_size(op), v->mmu.index, op->seg);
    fpu_sync_x87(v);
    put_env(v, op, img);
    env_write(v, op, lin, img, env_size(op));
    v->s.fpu.fcw |= 0x3f;
    v->s.fpu.fsw = with_summary(v->s.fpu.fsw, v->s.fpu.fcw);
    return op + 1;
}

const struct op *run_fldenv(struct vcpu *v, const struct op *op)
{
    uint8_t img[28];
    cpu_check_fpu(v);
    cpu_check_mf(v);
    uint64_t lin = fpu_operand_linear(v, op, env_size(op), ACCESS_READ);
    env_read(v, op, lin, img, env_size(op));
    fpu_sync_x87(v);
    get_env(v, op, img);
    return op + 1;
}

const struct op *run_fnsave(struct vcpu *v, const struct op *op)
{
    uint8_t img[108];
    unsigned env = env_size(op), size = env + 80;
    cpu_check_fpu(v);
    uint64_t lin = fpu_operand_linear(v, op, size, ACCESS_WRITE);
    access_probe_write(v, lin, size, v->mmu.index, op->seg);
    fpu_sync_x87(v);
    put_env(v, op, img);
    for (unsigned i = 0; i < 8; i++)
        memcpy(img + env + 10 * i, v->s.fpu.st[i], 10);
    env_write(v, op, lin, img, size);
    fpu_init_x87(v);
    return op + 1;
}

const struct op *run_frstor(struct vcpu *v, const struct op *op)
{
    uint8_t img[108];
    unsigned env = env_size(op), size = env + 80;
    cpu_check_fpu(v);
    cpu_check_mf(v);
    uint64_t lin = fpu_operand_linear(v, op, size, ACCESS_READ);
    env_read(v, op, lin, img, size);
    fpu_sync_x87(v);
    get_env(v, op, img);
    for (unsigned i = 0; i < 8; i++)
        memcpy(v->s.fpu.st[i], img + env + 10 * i, 10);
    return op + 1;
}
