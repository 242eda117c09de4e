/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stubs made at run time, and how they are called. See wide.h.
 *
 * A vcpu's stubs lie in one piece of code memory, 16 bytes each, found by a hash of the encoding. Nothing is taken out alone:
 * when all is used, all is forgotten, with the decoded blocks that point there.
 */
#include "base/error.h"
#include "engine/interp/wide.h"
#include "host/code_memory.h"
#include "host/host_cpu.h"
#include "host/traps.h"

#include <stdlib.h>

#define STUB_BYTES 16u
#define STUBS_MAX 12288u
#define SLOTS 16384u /* of the hash: a power of two, a third more than stubs */

struct wide_stubs {
    struct host_code code;
    bool zmm; /* the host has AVX-512: the frame goes through ZMM registers */
    unsigned used;
    struct {
        uint64_t key; /* 0: free */
        uint32_t at;
    } slot[SLOTS];
};

/* --- encoding ----------------------------------------------------------------------------------------------- */

/* Host registers by operand, in wide.h's table. */
enum {
    V_REG = 0,
    V_VVVV = 1,
    V_RM = 2,
    V_IS4 = 3,
    OLD_REG = 1,
    K_MASK = 1,
    K_REG = 2,
    K_VVVV = 3,
    K_RM = 4,
    G_REG = 0,
    G_RM = 1
};
#define MODRM_MEMORY 7u /* [rdi] */

static bool has(const struct insn_row *row, uint8_t spec)
{
    return row->op[0] == spec || row->op[1] == spec || row->op[2] == spec || row->op4 == spec;
}

static unsigned host_reg(const struct insn_row *row)
{
    if (row->reg >= 0)
        return (unsigned)row->reg;
    if (has(row, Kg))
        return K_REG;
    if (has(row, Gy) || has(row, Gd) || has(row, Gq))
        return G_REG;
    return row->map <= MAP_0F3A ? OLD_REG : V_REG;
}

static unsigned host_rm(const struct insn_row *row)
{
    if (has(row, Ke) || has(row, Kb) || has(row, Kw) || has(row, Kd) || has(row, Kq))
        return K_RM;
    if (has(row, Ey) || has(row, Ed) || has(row, Eq) || has(row, Ed_Mb) || has(row, Ed_Mw))
        return G_RM;
    return V_RM;
}

static unsigned host_vvvv(const struct insn_row *row)
{
    return has(row, Hx) ? V_VVVV : has(row, Kh) ? K_VVVV : 0;
}

static unsigned put_prefix(uint8_t *p, const struct insn_row *row, const struct wide_fields *f)
{
    static const uint8_t pp[] = { [PN] = 0, [P66] = 1, [PF3] = 2, [PF2] = 3 };
    unsigned n = 0, wvp = (unsigned)f->w << 7 | (~host_vvvv(row) & 15) << 3 | pp[row->pfx];
    if (row->map >= MAP_E0F) {
        p[n++] = 0x62;
        p[n++] = (uint8_t)(0xf0 | (row->map - MAP_E0F + 1));
        p[n++] = (uint8_t)(wvp | 4);
        p[n++] = (uint8_t)(f->z << 7 | f->ll << 5 | f->b << 4 | 8 | (f->mask ? K_MASK : 0));
    } else if (row->map >= MAP_V0F) {
        p[n++] = 0xc4;
        p[n++] = (uint8_t)(0xe0 | (row->map - MAP_V0F + 1));
        p[n++] = (uint8_t)(wvp | (f->ll & 1) << 2);
    } else {
        if (row->pfx == P66)
            p[n++] = 0x66;
        p[n++] = 0x0f;
        if (row->map != MAP_0F)
            p[n++] = row->map == MAP_0F38 ? 0x38 : 0x3a;
    }
    return n;
}

static void encode(uint8_t *p, const struct insn_row *row, const struct wide_fields *f)
{
    unsigned n = put_prefix(p, row, f);
    unsigned rm = f->memory ? MODRM_MEMORY : 0xc0 | host_rm(row);
    p[n++] = row->opcode;
    p[n++] = (uint8_t)(rm | host_reg(row) << 3);
    if (has(row, Lx))
        p[n++] = (uint8_t)(V_IS4 << 4 | (f->imm8 & 15));
    else if (has(row, Ib))
        p[n++] = (uint8_t)f->imm8;
    p[n++] = 0xc3;
}

/* What tells encodings apart; never 0. */
static uint64_t key_of(const struct wide_fields *f)
{
    return 1 | (uint64_t)f->row << 1 | (uint64_t)f->imm8 << 12 | (uint64_t)f->w << 20 |
           (uint64_t)f->ll << 21 | (uint64_t)f->b << 23 | (uint64_t)f->z << 24 | (uint64_t)f->memory << 25 |
           (uint64_t)(f->mask != 0) << 26;
}

/* --- the cache ---------------------------------------------------------------------------------------------- */

static struct wide_stubs *stubs_new(struct vcpu *v)
{
    struct error e;
    struct host_cpu_facts host;
    struct wide_stubs *s = calloc(1, sizeof(*s));
    if (!s || host_code_map(&s->code, STUBS_MAX * STUB_BYTES, &e)) {
        free(s);
        cpu_raise_unimplemented(v, 0xc4);
    }
    host_cpu_read(&host);
    s->zmm = (host.xcr0 & 0xe6) == 0xe6;
    return s;
}

void wide_stubs_free(struct wide_stubs *s)
{
    if (s)
        host_code_unmap(&s->code);
    free(s);
}

void wide_stubs_reset(struct wide_stubs *s)
{
    s->used = 0;
    memset(s->slot, 0, sizeof(s->slot));
}

/* The memory was written under another address: the processor is told to fetch anew (SDM 3A 8.1.3). */
static void serialise(void)
{
    uint32_t out[4];
    host_cpuid(0, 0, out);
}

static const void *make(struct wide_stubs *s, const struct wide_fields *f, unsigned slot, uint64_t key)
{
    if (s->used == STUBS_MAX)
        return NULL;
    uint32_t at = s->used++ * STUB_BYTES;
    encode(s->code.write + at, &insn_ext_rows[f->row], f);
    serialise();
    s->slot[slot].key = key;
    s->slot[slot].at = at;
    return s->code.exec + at;
}

const void *wide_stub(struct vcpu *v, const struct op *op)
{
    struct interp *c = interp_of(v);
    struct wide_fields f = wide_fields(op);
    uint64_t key = key_of(&f);
    if (!c->stubs)
        c->stubs = stubs_new(v);
    struct wide_stubs *s = c->stubs;
    unsigned slot = (unsigned)((key * 0x9e3779b97f4a7c15ull) >> 50);
    for (; s->slot[slot].key; slot = (slot + 1) & (SLOTS - 1))
        if (s->slot[slot].key == key)
            return s->code.exec + s->slot[slot].at;
    return make(s, &f, slot, key);
}

/* --- calling ------------------------------------------------------------------------------------------------ */

#define FRAME_OFFSETS(X) \
    X(v, 0) X(mem, 256) X(k, 320) X(rax, 352) X(rcx, 360) X(rdx, 368) X(cc, 376) X(trapped, 380)
#define X(field, at) _Static_assert(offsetof(struct wide_frame, field) == at, "the layout below");
FRAME_OFFSETS(X)
#undef X

void wide_call_ymm(struct wide_frame *f, const void *stub) __attribute__((visibility("hidden")));
void wide_call_zmm(struct wide_frame *f, const void *stub) __attribute__((visibility("hidden")));
extern const char wide_trap_return[] __attribute__((visibility("hidden")));

/* rdi = frame, rsi = stub; flags go in by SAHF and the overflow trick, and out by LAHF and SETO. The upper halves are left
 * clean for the SSE code that follows. */
#define WIDE_CALL(name, load, store) \
    __asm__(".text\n .globl " name "\n .hidden " name "\n .type " name ", @function\n .p2align 4\n" name \
            ":\n" \
            "  push %rbx\n" \
            "  mov %rdi, %rbx\n" load "  lea 256(%rbx), %rdi\n" \
            "  mov 360(%rbx), %rcx\n" \
            "  mov 368(%rbx), %rdx\n" \
            "  mov $0, %r11d\n" \
            "  movzwl 376(%rbx), %eax\n" \
            "  add $0x7f, %al\n" \
            "  sahf\n" \
            "  mov 352(%rbx), %rax\n" \
            "  call *%rsi\n" \
            "  mov %rax, 352(%rbx)\n" \
            "  lahf\n" \
            "  seto %al\n" \
            "  mov %ax, 376(%rbx)\n" \
            "  mov %r11d, 380(%rbx)\n" \
            "  mov %rcx, 360(%rbx)\n" store "  vzeroupper\n" \
            "  pop %rbx\n" \
            "  ret\n" \
            ".size " name ", . - " name "\n")

WIDE_CALL("wide_call_ymm",
          "  vmovups (%rbx), %ymm0\n  vmovups 64(%rbx), %ymm1\n  vmovups 128(%rbx), %ymm2\n  vmovups "
          "192(%rbx), %ymm3\n",
          "  vmovups %ymm0, (%rbx)\n  vmovups %ymm1, 64(%rbx)\n  vmovups %ymm2, 128(%rbx)\n");
WIDE_CALL("wide_call_zmm",
          "  vmovups (%rbx), %zmm0\n  vmovups 64(%rbx), %zmm1\n  vmovups 128(%rbx), %zmm2\n  vmovups "
          "192(%rbx), %zmm3\n"
          "  kmovq 320(%rbx), %k1\n  kmovq 328(%rbx), %k2\n  kmovq 336(%rbx), %k3\n  kmovq 344(%rbx), %k4\n",
          "  vmovups %zmm0, (%rbx)\n  vmovups %zmm1, 64(%rbx)\n  vmovups %zmm2, 128(%rbx)\n"
          "  kmovq %k2, 328(%rbx)\n  kmovq %k3, 336(%rbx)\n  kmovq %k4, 344(%rbx)\n");

/* Where a trapped stub goes on: back to its caller. */
__asm__(".text\nwide_trap_return:\n  ret\n");

static void call(const struct wide_stubs *s, struct wide_frame *f, const void *stub)
{
    if (s->zmm)
        wide_call_zmm(f, stub);
    else
        wide_call_ymm(f, stub);
}

void wide_call(struct vcpu *v, struct wide_frame *f, const void *stub, bool unmasked)
{
    const struct wide_stubs *s = interp_of(v)->stubs;
    uint32_t mxcsr;
    f->cc = v->s.cc;
    if (likely(!unmasked)) {
        call(s, f, stub);
        return;
    }
    fpu_sync_mxcsr(v);
    host_catch_simd_traps_here(s->code.exec, s->code.exec + s->code.size, wide_trap_return);
    __asm__ volatile("ldmxcsr %0" : : "m"(v->s.fpu.mxcsr));
    call(s, f, stub);
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    fpu_set_mxcsr(v, f->trapped ? f->trapped : mxcsr);
    if (f->trapped)
        cpu_raise(v, v->s.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}
