/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions: operands fetched here, the operation itself in cpu/ops.h.
 *
 * cpu/ wants rip and the retired count exact: STAY brackets a call with exact()/inexact() and goes on in the
 * block; LEAVE ends the block and has the run loop look at mode, events and activity.
 */
#include "engine/interp/stack.h"

#define STAY(v, op, ...) \
    do { \
        exact(v, op); \
        __VA_ARGS__; \
        inexact(v); \
        return NEXT(v, op); \
    } while (0)

#define LEAVE(v, op, ...) \
    do { \
        exact(v, op); \
        __VA_ARGS__; \
        return leave_exact(v); \
    } while (0)

/* op->prefixes: the r/m operand is memory. */
static inline bool in_memory(const struct op *op) { return op->prefixes; }

/* The r/m operand of 16 bits. */
static uint16_t read_selector(struct vcpu *v, const struct op *op, unsigned reg)
{
    return (uint16_t)(in_memory(op) ? read_operand(v, op, 2) : v->s.gpr[reg]);
}

/* Selectors and status words: 16 bits to memory, the operand size to a register. */
static void write_selector(struct vcpu *v, const struct op *op, uint64_t val)
{
    if (in_memory(op))
        write_operand(v, op, val, 2);
    else
        set_sized(v, op->r1, val, op->opsize);
}

/* Checks that come before an operand is read. */
static inline void privileged(struct vcpu *v)
{
    if (vcpu_cpl(v) != 0)
        cpu_raise_gp0(v);
}

static inline void protected_only(struct vcpu *v)
{
    if (!vcpu_protected(v))
        cpu_raise(v, VEC_UD);
}

static inline void set_zf(struct vcpu *v, bool set)
{
    v->s.cc = (uint16_t)((v->s.cc & ~CC_ZF) | (set ? CC_ZF : 0));
}

/* --- flags ---------------------------------------------------------------------------------------------- */

HANDLER(pushf) { return push_and_next(v, op, cpu_pushf_value(v, op->opsize), op->opsize); }

/* RSP moves after POPF can no longer fault, by the old stack size: POPF does not change it. */
HANDLER(popf)
{
    uint64_t val = stack_peek(v, op, op->opsize);
    LEAVE(v, op, cpu_popf(v, val, op->opsize); stack_drop(v, op->opsize));
}

HANDLER(cli) { STAY(v, op, cpu_cli(v)); }
HANDLER(sti) { LEAVE(v, op, cpu_sti(v)); }
HANDLER(clac) { LEAVE(v, op, cpu_clac(v)); }
HANDLER(stac) { LEAVE(v, op, cpu_stac(v)); }

/* --- segment registers ---------------------------------------------------------------------------------- */

HANDLER(push_seg) { return push_and_next(v, op, v->s.seg[op->r1].sel, op->opsize); }

/* The new RSP is formed by the old stack size. */
HANDLER(pop_seg)
{
    uint16_t sel = (uint16_t)stack_peek(v, op, op->opsize);
    uint64_t mask = stack_mask(v), sp = v->s.gpr[RSP] + op->opsize;
    exact(v, op);
    cpu_load_seg(v, op->r1, sel);
    v->s.gpr[RSP] = mask == 0xffff ? (v->s.gpr[RSP] & ~mask) | (sp & mask) : sp & mask;
    return leave_exact(v);
}

HANDLER(mov_from_seg)
{
    write_selector(v, op, v->s.seg[op->r2].sel);
    return NEXT(v, op);
}

HANDLER(mov_to_seg)
{
    uint16_t sel = read_selector(v, op, op->r2);
    LEAVE(v, op, cpu_load_seg(v, op->r1, sel));
}

/* A far pointer in memory: offset of the operand size, then the selector. */
static uint64_t read_far(struct vcpu *v, const struct op *op, uint16_t *sel)
{
    uint8_t raw[10];
    mem_read_bytes(v, op->seg, op_offset(v, op), raw, op->opsize + 2u);
    uint64_t off = get_le64(raw) & mask_bytes(op->opsize);
    *sel = get_le16(raw + op->opsize);
    return off;
}

/* LES and the like; r2: the segment register. */
HANDLER(load_far)
{
    uint16_t sel;
    uint64_t off = read_far(v, op, &sel);
    LEAVE(v, op, cpu_load_seg(v, op->r2, sel); set_sized(v, op->r1, off, op->opsize));
}

HANDLER(sldt)
{
    exact(v, op);
    uint16_t sel = cpu_sldt(v);
    inexact(v);
    write_selector(v, op, sel);
    return NEXT(v, op);
}

HANDLER(str)
{
    exact(v, op);
    uint16_t sel = cpu_str(v);
    inexact(v);
    write_selector(v, op, sel);
    return NEXT(v, op);
}

HANDLER(lldt)
{
    protected_only(v);
    privileged(v);
    uint16_t sel = read_selector(v, op, op->r1);
    STAY(v, op, cpu_lldt(v, sel));
}

HANDLER(ltr)
{
    protected_only(v);
    privileged(v);
    uint16_t sel = read_selector(v, op, op->r1);
    STAY(v, op, cpu_ltr(v, sel));
}

HANDLER(verr)
{
    protected_only(v);
    uint16_t sel = read_selector(v, op, op->r1);
    STAY(v, op, set_zf(v, cpu_verr(v, sel)));
}

HANDLER(verw)
{
    protected_only(v);
    uint16_t sel = read_selector(v, op, op->r1);
    STAY(v, op, set_zf(v, cpu_verw(v, sel)));
}

HANDLER(lar)
{
    uint32_t rights = 0;
    protected_only(v);
    uint16_t sel = read_selector(v, op, op->r2);
    exact(v, op);
    bool ok = cpu_lar(v, sel, &rights);
    inexact(v);
    set_zf(v, ok);
    if (ok)
        set_sized(v, op->r1, rights, op->opsize);
    return NEXT(v, op);
}

HANDLER(lsl)
{
    uint32_t limit = 0;
    protected_only(v);
    uint16_t sel = read_selector(v, op, op->r2);
    exact(v, op);
    bool ok = cpu_lsl(v, sel, &limit);
    inexact(v);
    set_zf(v, ok);
    if (ok)
        set_sized(v, op->r1, limit, op->opsize);
    return NEXT(v, op);
}

/* The destination's RPL is raised to the source's (SDM 2A ARPL). A memory destination is written only
 * then. */
HANDLER(arpl)
{
    cpu_check_arpl(v);
    uint16_t dst = read_selector(v, op, op->r1), rpl = (uint16_t)v->s.gpr[op->r2] & 3;
    bool raise = (dst & 3) < rpl;
    if (raise && in_memory(op))
        write_operand(v, op, (dst & ~3u) | rpl, 2);
    else if (raise)
        set16(v, op->r1, (uint16_t)((dst & ~3u) | rpl));
    set_zf(v, raise);
    return NEXT(v, op);
}

HANDLER(bound)
{
    uint8_t raw[8];
    unsigned size = op->opsize;
    mem_read_bytes(v, op->seg, op_offset(v, op), raw, size * 2);
    int64_t index = sext(v->s.gpr[op->r1], size * 8);
    int64_t low = sext(get_le32(raw), size * 8),
            high = sext(size == 2 ? get_le16(raw + 2) : get_le32(raw + 4), size * 8);
    if (index < low || index > high)
        cpu_raise(v, VEC_BR);
    return NEXT(v, op);
}

/* --- descriptor tables ---------------------------------------------------------------------------------- */

static unsigned table_base_size(const struct vcpu *v) { return vcpu_long64(v) ? 8 : 4; }

static void store_table(struct vcpu *v, const struct op *op, uint16_t limit, uint64_t base)
{
    uint8_t raw[10];
    put_le16(raw, limit);
    put_le64(raw + 2, base);
    mem_write_bytes(v, op->seg, op_offset(v, op), raw, 2 + table_base_size(v));
}

HANDLER(sgdt)
{
    uint16_t limit;
    uint64_t base;
    exact(v, op);
    cpu_sgdt(v, &limit, &base);
    inexact(v);
    store_table(v, op, limit, base);
    return NEXT(v, op);
}

HANDLER(sidt)
{
    uint16_t limit;
    uint64_t base;
    exact(v, op);
    cpu_sidt(v, &limit, &base);
    inexact(v);
    store_table(v, op, limit, base);
    return NEXT(v, op);
}

/* With a 16-bit operand size the base has 24 bits (SDM 2A LGDT). */
static uint64_t load_table(struct vcpu *v, const struct op *op, uint16_t *limit)
{
    uint8_t raw[10] = { 0 };
    privileged(v);
    mem_read_bytes(v, op->seg, op_offset(v, op), raw, 2 + table_base_size(v));
    *limit = get_le16(raw);
    uint64_t base = get_le64(raw + 2);
    return op->opsize == 2 && !vcpu_long64(v) ? base & 0xffffff : base;
}

HANDLER(lgdt)
{
    uint16_t limit;
    uint64_t base = load_table(v, op, &limit);
    STAY(v, op, cpu_lgdt(v, limit, base));
}

HANDLER(lidt)
{
    uint16_t limit;
    uint64_t base = load_table(v, op, &limit);
    STAY(v, op, cpu_lidt(v, limit, base));
}

/* --- control, debug and model-specific registers -------------------------------------------------------- */

HANDLER(smsw)
{
    exact(v, op);
    uint64_t word = cpu_smsw(v);
    inexact(v);
    write_selector(v, op, word);
    return NEXT(v, op);
}

HANDLER(lmsw)
{
    privileged(v);
    uint16_t word = read_selector(v, op, op->r1);
    LEAVE(v, op, cpu_lmsw(v, word));
}

HANDLER(mov_from_cr) { STAY(v, op, set_sized(v, op->r1, cpu_read_cr(v, op->r2), op->opsize)); }
HANDLER(mov_to_cr) { LEAVE(v, op, cpu_write_cr(v, op->r1, get_sized(v, op->r2, op->opsize))); }
HANDLER(mov_from_dr) { STAY(v, op, set_sized(v, op->r1, cpu_read_dr(v, op->r2), op->opsize)); }
HANDLER(mov_to_dr) { LEAVE(v, op, cpu_write_dr(v, op->r1, get_sized(v, op->r2, op->opsize))); }
HANDLER(clts) { LEAVE(v, op, cpu_clts(v)); }
HANDLER(rdmsr) { STAY(v, op, cpu_rdmsr(v)); }
HANDLER(wrmsr) { LEAVE(v, op, cpu_wrmsr(v)); }
HANDLER(rdtsc) { STAY(v, op, cpu_rdtsc(v)); }
HANDLER(rdtscp) { STAY(v, op, cpu_rdtscp(v)); }
HANDLER(rdpmc) { STAY(v, op, cpu_rdpmc(v)); }
HANDLER(cpuid) { STAY(v, op, cpu_cpuid(v)); }
HANDLER(xgetbv) { STAY(v, op, cpu_xgetbv(v)); }
HANDLER(xsetbv) { LEAVE(v, op, cpu_xsetbv(v)); }
HANDLER(swapgs) { STAY(v, op, cpu_swapgs(v)); }
HANDLER(rdfsbase) { STAY(v, op, set_sized(v, op->r1, cpu_rdfsgsbase(v, SEG_FS), op->opsize)); }
HANDLER(rdgsbase) { STAY(v, op, set_sized(v, op->r1, cpu_rdfsgsbase(v, SEG_GS), op->opsize)); }
HANDLER(wrfsbase) { STAY(v, op, cpu_wrfsgsbase(v, SEG_FS, get_sized(v, op->r1, op->opsize))); }
HANDLER(wrgsbase) { STAY(v, op, cpu_wrfsgsbase(v, SEG_GS, get_sized(v, op->r1, op->opsize))); }

/* No segment check is made: INVLPG of any address is allowed. */
HANDLER(invlpg)
{
    uint64_t lin = (v->sf[op->seg].base + op_offset(v, op)) & v->lin_mask;
    LEAVE(v, op, cpu_invlpg(v, lin));
}

HANDLER(invpcid)
{
    uint64_t off = op_offset(v, op);
    LEAVE(v, op, cpu_invpcid(v, get_sized(v, op->r1, vcpu_long64(v) ? 8 : 4), op->seg, off));
}

HANDLER(hlt) { LEAVE(v, op, cpu_hlt(v)); }
HANDLER(wbinvd) { STAY(v, op, cpu_wbinvd(v)); }
HANDLER(vmcall) { LEAVE(v, op, cpu_vmcall(v)); }
HANDLER(undefined)
{
    (void)op;
    cpu_raise(v, VEC_UD);
}

/* --- far transfers -------------------------------------------------------------------------------------- */

/* imm: offset; disp: selector. */
HANDLER(jmp_far) { LEAVE(v, op, cpu_jmp_far(v, (uint16_t)op->disp, op->imm, op->opsize)); }
HANDLER(call_far) { LEAVE(v, op, cpu_call_far(v, (uint16_t)op->disp, op->imm, op->opsize)); }

HANDLER(jmp_far_m)
{
    uint16_t sel;
    uint64_t off = read_far(v, op, &sel);
    LEAVE(v, op, cpu_jmp_far(v, sel, off, op->opsize));
}

HANDLER(call_far_m)
{
    uint16_t sel;
    uint64_t off = read_far(v, op, &sel);
    LEAVE(v, op, cpu_call_far(v, sel, off, op->opsize));
}

HANDLER(ret_far) { LEAVE(v, op, cpu_ret_far(v, op->opsize, (uint16_t)op->imm)); }
HANDLER(iret) { LEAVE(v, op, cpu_iret(v, op->opsize)); }
HANDLER(int3) { LEAVE(v, op, cpu_int3(v)); }
HANDLER(int1) { LEAVE(v, op, cpu_int1(v)); }
HANDLER(int_n) { LEAVE(v, op, cpu_int(v, (uint8_t)op->imm)); }
HANDLER(into) { LEAVE(v, op, if (v->s.cc & CC_OF) cpu_into(v)); }
HANDLER(syscall) { LEAVE(v, op, cpu_syscall(v)); }
HANDLER(sysret) { LEAVE(v, op, cpu_sysret(v, op->opsize)); }
HANDLER(sysenter) { LEAVE(v, op, cpu_sysenter(v)); }
HANDLER(sysexit) { LEAVE(v, op, cpu_sysexit(v, op->opsize)); }

/* --- ports; imm: the port, or DX when r2 says so -------------------------------------------------------- */

static inline uint16_t port_of(const struct vcpu *v, const struct op *op)
{
    return (uint16_t)(op->r2 ? v->s.gpr[RDX] : op->imm & 0xff);
}

HANDLER(in) { LEAVE(v, op, set_sized(v, RAX, cpu_in(v, port_of(v, op), op->opsize), op->opsize)); }
HANDLER(out)
{
    LEAVE(v, op, cpu_out(v, port_of(v, op), (uint32_t)get_sized(v, RAX, op->opsize), op->opsize));
}

/* --- lowering ------------------------------------------------------------------------------------------- */

/* clang-format off */
static const op_handler system_handlers[INSN_ID_COUNT] = {
    [INSN_PUSHF] = pushf, [INSN_POPF] = popf, [INSN_CLI] = cli, [INSN_STI] = sti, [INSN_CLAC] = clac,
    [INSN_STAC] = stac, [INSN_PUSH_SEG] = push_seg, [INSN_POP_SEG] = pop_seg,
    [INSN_MOV_FROM_SEG] = mov_from_seg, [INSN_MOV_TO_SEG] = mov_to_seg, [INSN_LES] = load_far,
    [INSN_LDS] = load_far, [INSN_LSS] = load_far, [INSN_LFS] = load_far, [INSN_LGS] = load_far,
    [INSN_SLDT] = sldt, [INSN_STR] = str, [INSN_LLDT] = lldt, [INSN_LTR] = ltr, [INSN_VERR] = verr,
    [INSN_VERW] = verw, [INSN_LAR] = lar, [INSN_LSL] = lsl, [INSN_ARPL] = arpl, [INSN_BOUND] = bound,
    [INSN_SGDT] = sgdt, [INSN_SIDT] = sidt, [INSN_LGDT] = lgdt, [INSN_LIDT] = lidt, [INSN_SMSW] = smsw,
    [INSN_LMSW] = lmsw, [INSN_MOV_FROM_CR] = mov_from_cr, [INSN_MOV_TO_CR] = mov_to_cr,
    [INSN_MOV_FROM_DR] = mov_from_dr, [INSN_MOV_TO_DR] = mov_to_dr, [INSN_CLTS] = clts,
    [INSN_RDMSR] = rdmsr, [INSN_WRMSR] = wrmsr, [INSN_RDTSC] = rdtsc, [INSN_RDTSCP] = rdtscp,
    [INSN_RDPMC] = rdpmc, [INSN_CPUID] = cpuid, [INSN_XGETBV] = xgetbv, [INSN_XSETBV] = xsetbv,
    [INSN_SWAPGS] = swapgs, [INSN_RDFSBASE] = rdfsbase, [INSN_RDGSBASE] = rdgsbase,
    [INSN_WRFSBASE] = wrfsbase, [INSN_WRGSBASE] = wrgsbase, [INSN_INVLPG] = invlpg,
    [INSN_INVPCID] = invpcid, [INSN_HLT] = hlt, [INSN_INVD] = wbinvd, [INSN_WBINVD] = wbinvd,
    [INSN_VMCALL] = vmcall, [INSN_VMMCALL] = vmcall, [INSN_UD] = undefined, [INSN_RET_FAR] = ret_far,
    [INSN_IRET] = iret, [INSN_INT3] = int3, [INSN_INT1] = int1, [INSN_INT] = int_n, [INSN_INTO] = into,
    [INSN_SYSCALL] = syscall, [INSN_SYSRET] = sysret, [INSN_SYSENTER] = sysenter, [INSN_SYSEXIT] = sysexit,
    [INSN_JMP_FAR] = jmp_far, [INSN_CALL_FAR] = call_far, [INSN_JMP_FAR_IND] = jmp_far_m,
    [INSN_CALL_FAR_IND] = call_far_m, [INSN_IN] = in, [INSN_OUT] = out,
};
/* clang-format on */

static enum seg far_segment(unsigned id)
{
    return id == INSN_LES   ? SEG_ES
           : id == INSN_LDS ? SEG_DS
           : id == INSN_LSS ? SEG_SS
           : id == INSN_LFS ? SEG_FS
                            : SEG_GS;
}

/* Control and debug registers and the bases of FS and GS have their own sizes. */
static unsigned operation_size(const struct insn *in, uint32_t mode)
{
    switch (in->id) {
    case INSN_MOV_FROM_CR:
    case INSN_MOV_TO_CR:
    case INSN_MOV_FROM_DR:
    case INSN_MOV_TO_DR: return (mode & MODE_CODE_MASK) == MODE_CODE64 ? 8 : 4;
    case INSN_RDFSBASE:
    case INSN_RDGSBASE:
    case INSN_WRFSBASE:
    case INSN_WRGSBASE: return in->op[0].size;
    case INSN_SYSRET:
    case INSN_SYSEXIT: return in->rex & 8 ? 8 : 4;
    case INSN_IN:
    case INSN_OUT: return in->opsize == 8 ? 4 : in->opsize;
    default: return in->opsize;
    }
}

bool lower_system(struct op *op, const struct insn *in, uint32_t mode)
{
    bool mem = in->op[0].kind == OPND_MEM || in->op[1].kind == OPND_MEM;
    op->run = system_handlers[in->id];
    op->r1 = in->op[0].reg;
    op->r2 = in->op[1].reg;
    op->opsize = (uint8_t)operation_size(in, mode);
    if (mem)
        op_set_mem(op, in);
    op->prefixes = mem;
    switch (in->id) {
    case INSN_LES:
    case INSN_LDS:
    case INSN_LSS:
    case INSN_LFS:
    case INSN_LGS: op->r2 = (uint8_t)far_segment(in->id); break;
    case INSN_JMP_FAR:
    case INSN_CALL_FAR: op->disp = (int32_t)in->imm2; break;
    case INSN_RET_FAR: op->imm = in->op[0].kind == OPND_IMM ? in->imm : 0; break;
    case INSN_IN: op->r2 = is_reg(&in->op[1]); break;
    case INSN_OUT: op->r2 = is_reg(&in->op[0]); break;
    default: break;
    }
    return op->run != NULL;
}

/* --- what could not be decoded -------------------------------------------------------------------------- */

HANDLER(not_implemented) { cpu_raise_unimplemented(v, op->imm); }
HANDLER(too_long)
{
    (void)op;
    cpu_raise_gp0(v);
}

void lower_undefined(struct op *op, uint64_t bytes, unsigned off, bool long_)
{
    *op = (struct op){ .run = long_ ? too_long : not_implemented, .off = (uint16_t)off, .imm = bytes };
}
