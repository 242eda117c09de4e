/* SPDX-License-Identifier: Apache-2.0 */
/* Moving the guest's x87 registers and MXCSR between the vcpu's state and the host's registers. */
#include "engine/interp/fpu.h"

/* FNSAVE/FRSTOR image in 32-bit protected format (SDM 1 Figure 8-9). */
struct x87_image {
    uint32_t fcw, fsw, ftw, fip, fcs_fop, fdp, fds;
    uint8_t st[8][10];
} __attribute__((packed));

static uint32_t full_tags(const struct fpu_state *f)
{
    uint32_t tags = 0;
    for (unsigned phys = 0; phys < 8; phys++)
        if (!(f->ftw >> phys & 1))
            tags |= 3u << (2 * phys);
    return tags;
}

static uint8_t abridged_tags(uint32_t tags)
{
    uint8_t out = 0;
    for (unsigned phys = 0; phys < 8; phys++)
        if ((tags >> (2 * phys) & 3) != 3)
            out |= (uint8_t)(1u << phys);
    return out;
}

void fpu_load_x87(struct vcpu *v)
{
    const struct fpu_state *f = &v->s.fpu;
    struct x87_image img = { .fcw = f->fcw, .fsw = f->fsw, .ftw = full_tags(f) };
    for (unsigned i = 0; i < 8; i++)
        memcpy(img.st[i], f->st[i], 10);
    __asm__ volatile("frstor %0" : : "m"(img));
    v->x87_live = true;
}

void fpu_sync_x87(struct vcpu *v)
{
    if (!v->x87_live)
        return;
    struct x87_image img;
    struct fpu_state *f = &v->s.fpu;
    __asm__ volatile("fnsave %0"
                     : "=m"(img)); /* does not wait, and leaves the host's x87 in its initial state */
    f->fcw = (uint16_t)img.fcw;
    f->fsw = (uint16_t)img.fsw;
    f->ftw = abridged_tags(img.ftw);
    for (unsigned i = 0; i < 8; i++)
        memcpy(f->st[i], img.st[i], 10);
    v->x87_live = false;
}

void fpu_set_top(struct fpu_state *f, unsigned top)
{
    unsigned old = f->fsw >> FSW_TOP_SHIFT & 7;
    if (old == top)
        return;
    uint8_t st[8][16];
    memcpy(st, f->st, sizeof(st));
    for (unsigned i = 0; i < 8; i++)
        memcpy(f->st[i], st[(top + i - old) & 7], 16);
    f->fsw = (uint16_t)((f->fsw & ~(7u << FSW_TOP_SHIFT)) | top << FSW_TOP_SHIFT);
}

void fpu_init_x87(struct vcpu *v)
{
    fpu_sync_x87(v);
    struct fpu_state *f = &v->s.fpu;
    fpu_set_top(f, 0);
    f->fcw = 0x37f;
    f->fsw = 0;
    f->ftw = 0;
    f->fop = 0;
    f->fip = f->fdp = 0;
    f->fcs = f->fds = 0;
}

void fpu_begin_mmx(struct vcpu *v)
{
    fpu_sync_x87(v);
    struct fpu_state *f = &v->s.fpu;
    fpu_set_top(f, 0);
    f->ftw = 0xff;
}

static void load_host_mxcsr(uint32_t val) { __asm__ volatile("ldmxcsr %0" : : "m"(val)); }

void fpu_sync_mxcsr(struct vcpu *v)
{
    uint32_t host;
    if (!v->sse_live)
        return;
    __asm__ volatile("stmxcsr %0" : "=m"(host));
    v->s.fpu.mxcsr |= host & MXCSR_FLAGS;
}

void fpu_set_mxcsr(struct vcpu *v, uint32_t val)
{
    v->s.fpu.mxcsr = val;
    if (v->sse_live)
        load_host_mxcsr(val | MXCSR_MASKS);
}

void fpu_enter(struct vcpu *v)
{
    v->sse_live = true;
    load_host_mxcsr(v->s.fpu.mxcsr | MXCSR_MASKS);
}

void fpu_leave(struct vcpu *v)
{
    fpu_sync_x87(v);
    fpu_sync_mxcsr(v);
    v->sse_live = false;
    load_host_mxcsr(MXCSR_DEFAULT);
}
