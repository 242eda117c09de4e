/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SSE, AVX and AVX-512: which instructions are copied, and where the guest's vector registers are meanwhile.
 *
 *   level      in the host's registers          asked for by
 *   SSE        XMM0 to 15                       old encodings
 *   AVX        YMM0 to 15                       VEX
 *   AVX-512    ZMM0 to 31, opmasks              EVEX, opmask instructions
 *
 * A unit's first instruction of a level loads what is missing; SSE code never pays for the upper parts. All are written to
 * v->s.fpu where generated code is left, and the upper parts are cleared, since C's own SSE code would be slow with them.
 *
 * A VEX instruction clears its destination up to the longest register. At level AVX bits 256 and up are in v->s.fpu, so they have
 * to be zero already: else the level is AVX-512.
 */
#include <string.h>

#include "cpu/model.h"
#include "engine/bt/unit.h"
#include "engine/interp/fpu.h"

/* --- which -------------------------------------------------------------------------------------------------------- */

uint32_t bt_vector_key(const struct vcpu *v)
{
    uint64_t xcr0 = v->s.cr4 & CR4_OSXSAVE && !(v->s.cr0 & CR0_TS) ? v->s.fpu.xcr0 : 0;
    uint32_t key = 0;
    if (!(v->s.cr0 & (CR0_EM | CR0_TS)) && v->s.cr4 & CR4_OSFXSR)
        key |= KEY_SSE;
    if ((v->s.fpu.mxcsr & MXCSR_MASKS) == MXCSR_MASKS)
        key |= KEY_FPX;
    if ((xcr0 & 0x6) == 0x6)
        key |= KEY_AVX;
    if ((xcr0 & 0xe6) == 0xe6)
        key |= KEY_AVX512;
    return key;
}

static bool has_mem(const struct insn *in)
{
    return in->op[0].kind == OPND_MEM || in->op[1].kind == OPND_MEM || in->op[2].kind == OPND_MEM;
}

static bool is_maskmov(unsigned id)
{
    return id == INSN_VMASKMOVPS || id == INSN_VMASKMOVPD || id == INSN_VPMASKMOVD || id == INSN_VPMASKMOVQ;
}

bool vector_partial(const struct insn *in)
{
    bool store = in->op[0].kind == OPND_MEM;
    return has_mem(in) && (is_maskmov(in->id) || (in->mask && (store || !(in->row->xflags & XF_NF))));
}

enum simd_level vector_level(const struct insn *in)
{
    if (in->enc == ENCODING_LEGACY)
        return SIMD_SSE;
    for (unsigned i = 0; i < 3; i++)
        if (in->op[i].kind == OPND_K)
            return SIMD_AVX512;
    return in->enc == ENCODING_EVEX ? SIMD_AVX512 : SIMD_AVX;
}

/* Rows of extensions that work on general registers. */
static bool is_general(const struct insn *in)
{
    switch (in->id) {
    case INSN_LZCNT:
    case INSN_TZCNT:
    case INSN_MOVBE:
    case INSN_ADCX:
    case INSN_ADOX: return true;
    default: return in->enc == ENCODING_VEX && in->row->xflags & XF_GPR;
    }
}

/* Left to the interpreter's handlers: MXCSR, state images, cache lines; operands that are packed in memory. */
static bool is_called(const struct insn *in, uint32_t key)
{
    switch (in->id) {
    case INSN_LDMXCSR:
    case INSN_STMXCSR:
    case INSN_FXSAVE:
    case INSN_FXRSTOR:
    case INSN_XSAVE:
    case INSN_XRSTOR:
    case INSN_VLDMXCSR:
    case INSN_VSTMXCSR:
    case INSN_VMASKMOVDQU:
    case INSN_CLFLUSHOPT:
    case INSN_CLWB: return true;
    case INSN_VZEROUPPER:
    case INSN_VZEROALL: return !key_code64(key); /* YMM8 to 15 stay */
    default: return in->vsib || (in->row->xflags & XF_T1 && has_mem(in));
    }
}

enum how vector_how(const struct bt *b, const struct insn *in, uint32_t key)
{
    static const uint32_t needed[] = {
        [SIMD_SSE] = KEY_SSE, [SIMD_AVX] = KEY_AVX, [SIMD_AVX512] = KEY_AVX512
    };
    const struct insn_row *row = in->row;
    if (row->flags & (IF_SYS | IF_MMX | IF_X87) || is_called(in, key) || !pass_on(b, ENGINE_PASS_SIMD))
        return HOW_BAIL;
    if (insn_is_extension(in) && is_general(in))
        return copy_possible(in, key) ? HOW_COPY : HOW_BAIL;
    if (!in->enc && !(row->flags & IF_SSE))
        return HOW_BAIL;
    if (!(key & needed[vector_level(in)]) || (row->flags & IF_FPX && !(key & KEY_FPX)))
        return HOW_BAIL;
    return copy_possible(in, key) ? HOW_SIMD : HOW_BAIL;
}

/* --- loading ------------------------------------------------------------------------------------------------------- */

/* cmp dword [simd_live], level; jb load */
void vector_ready(struct translation *t, const struct insn *in)
{
    enum simd_level level = vector_level(in);
    if (t->simd_ready >= level)
        return;
    flags_away(t);
    emit_mem(&t->e, 0, 0x83, 7, AT_AREA(simd_live));
    emit_byte(&t->e, level);
    struct stub *s = stub_new(t, STUB_SIMD, emit_jcc(&t->e, 2, emit_exec(&t->e)));
    s->retry = emit_exec(&t->e);
    s->level = level;
    if (level > SIMD_SSE)
        t->delta_group = NO_GROUP; /* the gate uses T1 */
    t->simd_ready = level;
}

void vector_stub(struct translation *t, const struct stub *s)
{
    if (s->level == SIMD_SSE) {
        emit_call(&t->e, bt_exec_addr(t->b, t->b->gate_simd));
    } else {
        emit_mov_imm32(&t->e, T1, s->level);
        emit_call(&t->e, bt_exec_addr(t->b, t->b->gate_simd_level));
    }
    emit_jmp(&t->e, s->retry);
}

static bool zmm_clean(const struct fpu_state *f)
{
    static const uint8_t zero[sizeof(f->zmmh)];
    return !memcmp(f->zmmh, zero, sizeof(zero));
}

bool bt_simd_level(struct vcpu *v, uint64_t unused, uint32_t level)
{
    (void)unused;
    bool more = level == SIMD_AVX && v->model->features & FEATURE_BIT(FEAT_AVX512F) && !zmm_clean(&v->s.fpu);
    bt_area(v)->simd_live = more ? SIMD_AVX512 : level;
    return true;
}

/* --- the gates' part -------------------------------------------------------------------------------------------------- */

static bool has(const struct bt *b, enum insn_feature f)
{
    return b->v->model && b->v->model->features & FEATURE_BIT(f);
}

/* Piece i, of `size` bytes, of the array at `off` in the vcpu. */
static struct amode piece(int32_t off, unsigned i, unsigned size, int32_t below)
{
    return amode_at(H_RSP, off + (int32_t)(i * size) + below);
}

#define FPU_OFF(field) VCPU_OFF(s.fpu.field)

/* MOVUPS 0F 10 load, 0F 11 store. */
static void move_xmm(struct emitter *e, unsigned opcode, int32_t below)
{
    for (unsigned i = 0; i < 16; i++)
        emit_mem(e, ENC_0F, opcode, i, piece(FPU_OFF(xmm), i, 16, below));
}

static void move_xmm_vex(struct emitter *e, unsigned opcode, int32_t below)
{
    static const struct vex x = { .map = 1 };
    for (unsigned i = 0; i < 16; i++)
        emit_vex_mem(e, &x, opcode, i, piece(FPU_OFF(xmm), i, 16, below));
}

/* VINSERTF128 (VEX.256.66.0F3A 18) ymm, ymm, [m], 1; VEXTRACTF128 (19) [m], ymm, 1 */
static void move_ymm_upper(struct emitter *e, bool load, int32_t below)
{
    for (unsigned i = 0; i < 16; i++) {
        struct vex x = { .map = 3, .pp = 1, .l = 1, .vvvv = load ? (uint8_t)i : 0 };
        emit_vex_mem(e, &x, load ? 0x18 : 0x19, i, piece(FPU_OFF(ymmh), i, 16, below));
        emit_byte(e, 1);
    }
}

/* VINSERTF64X4 (EVEX.512.66.0F3A.W1 1A), VEXTRACTF64X4 (1B); VMOVUPS ZMM16-31; KMOVQ or KMOVW */
static void move_avx512(const struct bt *b, struct emitter *e, bool load, int32_t below)
{
    static const struct vex whole = { .evex = true, .map = 1, .l = 2 };
    const struct vex opmask = { .map = 1, .w = has(b, FEAT_AVX512BW) };
    for (unsigned i = 0; i < 16; i++) {
        struct vex x = { .evex = true, .map = 3, .pp = 1, .w = 1, .l = 2, .vvvv = load ? (uint8_t)i : 0 };
        emit_vex_mem(e, &x, load ? 0x1a : 0x1b, i, piece(FPU_OFF(zmmh), i, 32, below));
        emit_byte(e, 1);
    }
    for (unsigned i = 0; i < 16; i++)
        emit_vex_mem(e, &whole, load ? 0x10 : 0x11, 16 + i, piece(FPU_OFF(zmm16), i, 64, below));
    for (unsigned i = 0; i < 8; i++)
        emit_vex_mem(e, &opmask, load ? 0x90 : 0x91, i, piece(FPU_OFF(k), i, 8, below));
}

/* cmp dword [simd_live], level; jcc */
static uint8_t *by_level(struct emitter *e, enum simd_level level, unsigned cond, int32_t below)
{
    emit_mem(e, 0, 0x83, 7, amode_at(H_RSP, AREA_OFF(simd_live) + below));
    emit_byte(e, level);
    return emit_jcc(e, cond, emit_exec(e));
}

#define CC_BELOW 2u
#define CC_ABOVE 7u

/* To or from memory, up to the level that is live. */
static void move(const struct bt *b, struct emitter *e, bool load, int32_t below)
{
    static const struct vex x = { .map = 1 };
    unsigned opcode = load ? 0x10 : 0x11;
    uint8_t *none = by_level(e, SIMD_SSE, CC_BELOW, below), *done[3] = { NULL };
    if (!has(b, FEAT_AVX)) {
        move_xmm(e, opcode, below);
        emit_patch(e, none, emit_exec(e));
        return;
    }
    uint8_t *wide = by_level(e, SIMD_SSE, CC_ABOVE, below);
    move_xmm(e, opcode, below);
    done[0] = emit_jmp(e, emit_exec(e));
    emit_patch(e, wide, emit_exec(e));
    move_xmm_vex(e, opcode, below);
    move_ymm_upper(e, load, below);
    if (has(b, FEAT_AVX512F)) {
        done[1] = by_level(e, SIMD_AVX512, CC_BELOW, below);
        move_avx512(b, e, load, below);
        emit_patch(e, done[1], emit_exec(e));
    }
    if (!load)
        emit_vex_plain(e, &x, 0x77); /* vzeroupper */
    emit_patch(e, done[0], emit_exec(e));
    emit_patch(e, none, emit_exec(e));
}

void bt_vectors_store(const struct bt *b, struct emitter *e, int32_t below) { move(b, e, false, below); }
void bt_vectors_load(const struct bt *b, struct emitter *e, int32_t below) { move(b, e, true, below); }
