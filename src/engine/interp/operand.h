/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What integer handlers are made of: registers by size, memory operands by address form, host flags.
 *
 * Families describe an operation once and get a handler for each size and form:
 *   LOAD_HANDLERS(name, 32, body using `x`)      the memory operand is read
 *   STORE_HANDLERS(name, 32, value)              ... is written
 *   RMW_HANDLERS(name, 32, body using `*p`)      ... is read and written in place, rights checked first
 * each in three address forms (FORM_*) and with the TLB-miss path in a cold twin, so that the fast path needs
 * no stack frame.
 */
#ifndef SUNDOG_ENGINE_INTERP_OPERAND_H
#define SUNDOG_ENGINE_INTERP_OPERAND_H

#include "cpu/access.h"
#include "cpu/ops.h"
#include "engine/interp/op.h"

#define cold_fn __attribute__((cold, noinline))

#define HANDLER(name) static const struct op *name(struct vcpu *v, const struct op *op)

/* Sizes: X(bits, type, AT&T suffix). */
#define FOR_SIZES(X) X(8, uint8_t, "b") X(16, uint16_t, "w") X(32, uint32_t, "l") X(64, uint64_t, "q")
#define FOR_WIDE_SIZES(X) X(16, uint16_t, "w") X(32, uint32_t, "l") X(64, uint64_t, "q")

/* Guest memory: any alignment. */
typedef uint8_t any8;
typedef uint16_t any16 __attribute__((aligned(1), may_alias));
typedef uint32_t any32 __attribute__((aligned(1), may_alias));
typedef uint64_t any64 __attribute__((aligned(1), may_alias));

/* Index of an operand size in handler tables: 1, 2, 4, 8 -> 0..3. */
static inline unsigned size_index(unsigned size) { return (unsigned)__builtin_ctz(size); }

/* --- registers: stores are always 64 bits wide, so that any later load is forwarded --------------------- */

static inline uint8_t get8(const struct vcpu *v, unsigned r) { return ((const uint8_t *)v->s.gpr)[r]; }
static inline uint16_t get16(const struct vcpu *v, unsigned r) { return (uint16_t)v->s.gpr[r]; }
static inline uint32_t get32(const struct vcpu *v, unsigned r) { return (uint32_t)v->s.gpr[r]; }
static inline uint64_t get64(const struct vcpu *v, unsigned r) { return v->s.gpr[r]; }

static inline void set8(struct vcpu *v, unsigned r, uint8_t val)
{
    uint64_t *g = &v->s.gpr[r >> 3];
    unsigned shift = (r & 1) * 8;
    *g = (*g & ~(0xffull << shift)) | (uint64_t)val << shift;
}

static inline void set16(struct vcpu *v, unsigned r, uint16_t val)
{
    v->s.gpr[r] = (v->s.gpr[r] & ~0xffffull) | val;
}

static inline void set32(struct vcpu *v, unsigned r, uint32_t val) { v->s.gpr[r] = val; }
static inline void set64(struct vcpu *v, unsigned r, uint64_t val) { v->s.gpr[r] = val; }

/* By a size known at run time, for what is rare. 1 means the low byte of register r. */
static inline uint64_t get_sized(const struct vcpu *v, unsigned r, unsigned size)
{
    return v->s.gpr[r] & mask_bytes(size);
}

static inline void set_sized(struct vcpu *v, unsigned r, uint64_t val, unsigned size)
{
    if (size >= 4)
        v->s.gpr[r] = val & mask_bytes(size);
    else
        v->s.gpr[r] = (v->s.gpr[r] & ~mask_bytes(size)) | (val & mask_bytes(size));
}

/* The number by which handlers name a register operand. */
static inline uint8_t reg_number(const struct operand *o)
{
    if (o->kind == OPND_REGH)
        return (uint8_t)(o->reg * 8 + 1);
    return o->size == 1 ? (uint8_t)(o->reg * 8) : o->reg;
}

/* What lower_alu() leaves in op->prefixes: the operands, memory in form B; anything else is ALU_OTHER. */
enum alu_form { ALU_RR, ALU_RI, ALU_MI, ALU_MR, ALU_RM, ALU_FORM_COUNT, ALU_OTHER = ALU_FORM_COUNT };

static inline bool is_reg(const struct operand *o) { return o->kind == OPND_REG || o->kind == OPND_REGH; }

/* --- address forms -------------------------------------------------------------------------------------- */

/* clang-format off */
/* B: flat, base + displacement. BI: flat, base + scaled index + displacement. GEN: anything. */
enum { FORM_B, FORM_BI, FORM_GEN, FORM_COUNT };

#define FORMS(name) { name##_b, name##_bi, name##_gen }
/* clang-format on */

/* The form of the memory operand; also fills op's fields. */
unsigned lower_mem(struct op *op, const struct insn *in, uint32_t mode);

static inline uint64_t address_b(struct vcpu *v, const struct op *op, unsigned size, enum mmu_access access)
{
    (void)size, (void)access;
    return (op_reg(v, op->base) + (uint64_t)(int64_t)op->disp) & v->lin_mask;
}

static inline uint64_t address_bi(struct vcpu *v, const struct op *op, unsigned size, enum mmu_access access)
{
    (void)size, (void)access;
    return (op_reg(v, op->base) + (v->s.gpr[op->index] << op->scale) + (uint64_t)(int64_t)op->disp) &
           v->lin_mask;
}

/* Linear address of any operand, segment checks made. */
uint64_t address_gen(struct vcpu *v, const struct op *op, unsigned size, enum mmu_access access);

/* --- memory: the paths of a TLB miss (operand.c) -------------------------------------------------------- */

uint64_t slow_read(struct vcpu *v, const struct op *op, uint64_t lin, unsigned size, enum seg seg);
void slow_write(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t val, unsigned size, enum seg seg);
/* Place for a read-modify-write: host memory, or NULL with the old value (rights checked) in *val. */
void *slow_rmw(struct vcpu *v, const struct op *op, uint64_t lin, unsigned size, uint64_t *val);

/* Reads and writes at a linear address in `seg`, fast when cached. */
static inline uint64_t read_linear(struct vcpu *v, const struct op *op, uint64_t lin, unsigned size,
                                   enum seg seg)
{
    const void *host = tlb_find(&v->mmu, lin, size, ACCESS_READ);
    if (unlikely(!host))
        return slow_read(v, op, lin, size, seg);
    switch (size) {
    case 1: return *(const any8 *)host;
    case 2: return *(const any16 *)host;
    case 4: return *(const any32 *)host;
    default: return *(const any64 *)host;
    }
}

static inline void write_linear(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t val,
                                unsigned size, enum seg seg)
{
    void *host = tlb_find(&v->mmu, lin, size, ACCESS_WRITE);
    if (unlikely(!host)) {
        slow_write(v, op, lin, val, size, seg);
        return;
    }
    switch (size) {
    case 1: *(any8 *)host = (uint8_t)val; break;
    case 2: *(any16 *)host = (uint16_t)val; break;
    case 4: *(any32 *)host = (uint32_t)val; break;
    default: *(any64 *)host = val; break;
    }
}

/* The memory operand by a size known at run time, for what is rare. */
static inline uint64_t read_operand(struct vcpu *v, const struct op *op, unsigned size)
{
    return read_linear(v, op, address_gen(v, op, size, ACCESS_READ), size, op->seg);
}

static inline void write_operand(struct vcpu *v, const struct op *op, uint64_t val, unsigned size)
{
    write_linear(v, op, address_gen(v, op, size, ACCESS_WRITE), val, size, op->seg);
}

#define FOR_FORMS(X, ...) X(b, __VA_ARGS__) X(bi, __VA_ARGS__) X(gen, __VA_ARGS__)

#define LOAD_HANDLERS(name, n, ...) \
    static cold_fn const struct op *name##_slow(struct vcpu *v, const struct op *op, uint64_t lin) \
    { \
        any##n x = (any##n)slow_read(v, op, lin, n / 8, op->seg); \
        __VA_ARGS__; \
        return NEXT(v, op); \
    } \
    FOR_FORMS(LOAD_FORM, name, n, __VA_ARGS__)
#define LOAD_FORM(form, name, n, ...) \
    HANDLER(name##_##form) \
    { \
        uint64_t lin = address_##form(v, op, n / 8, ACCESS_READ); \
        const void *host = tlb_find(&v->mmu, lin, n / 8, ACCESS_READ); \
        if (unlikely(!host)) \
            return name##_slow(v, op, lin); \
        any##n x = *(const any##n *)host; \
        __VA_ARGS__; \
        return NEXT(v, op); \
    }

/* name##n(v, r1, value of the source), from a register or from memory. */
#define SOURCE_HANDLERS(name, n) \
    HANDLER(name##n##_r) \
    { \
        name##n(v, op->r1, get##n(v, op->r2)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(name##n##_m, n, name##n(v, op->r1, x))

#define STORE_HANDLERS(name, n, val) \
    static cold_fn const struct op *name##_slow(struct vcpu *v, const struct op *op, uint64_t lin) \
    { \
        slow_write(v, op, lin, (any##n)(val), n / 8, op->seg); \
        return NEXT(v, op); \
    } \
    FOR_FORMS(STORE_FORM, name, n, val)
#define STORE_FORM(form, name, n, val) \
    HANDLER(name##_##form) \
    { \
        uint64_t lin = address_##form(v, op, n / 8, ACCESS_WRITE); \
        void *host = tlb_find(&v->mmu, lin, n / 8, ACCESS_WRITE); \
        if (unlikely(!host)) \
            return name##_slow(v, op, lin); \
        *(any##n *)host = (any##n)(val); \
        return NEXT(v, op); \
    }

/* The body may change *p and v->s.cc, nothing else: where the store may still unwind, the flags are taken
 * back until it is made. */
#define RMW_HANDLERS(name, n, ...) \
    static cold_fn const struct op *name##_slow(struct vcpu *v, const struct op *op, uint64_t lin) \
    { \
        uint64_t val; \
        any##n *p = slow_rmw(v, op, lin, n / 8, &val); \
        if (p) { \
            __VA_ARGS__; \
            return NEXT(v, op); \
        } \
        uint16_t before = v->s.cc; \
        any##n tmp = (any##n)val; \
        p = &tmp; \
        __VA_ARGS__; \
        uint16_t after = v->s.cc; \
        v->s.cc = before; \
        slow_write(v, op, lin, tmp, n / 8, op->seg); \
        v->s.cc = after; \
        return NEXT(v, op); \
    } \
    FOR_FORMS(RMW_FORM, name, n, __VA_ARGS__)
#define RMW_FORM(form, name, n, ...) \
    HANDLER(name##_##form) \
    { \
        uint64_t lin = address_##form(v, op, n / 8, ACCESS_WRITE); \
        any##n *p = tlb_find(&v->mmu, lin, n / 8, ACCESS_WRITE); \
        if (unlikely(!p)) \
            return name##_slow(v, op, lin); \
        __VA_ARGS__; \
        return NEXT(v, op); \
    }

/* --- LOCK: one handler for all address forms ------------------------------------------------------------ */

/* Begins a locked read-modify-write at `lin`: host memory to use a locked instruction on; or NULL, with
 * the old value in *val and all other vcpus stopped until locked_end(). */
void *locked_begin(struct vcpu *v, const struct op *op, uint64_t lin, unsigned size, uint64_t *val);
/* Stores `val` (when `store`) and lets the others go. May unwind: what the instruction writes besides is
 * committed after it. */
void locked_end(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t val, unsigned size, bool store);

/* Lets the other vcpus go, if they are stopped. Unwinding does it too. */
void unlock_world(struct vcpu *v);

/* --- host flags ----------------------------------------------------------------------------------------- */

/* After the instruction whose flags are wanted: AX = flags in the form of struct vcpu_state's cc. */
#define CC_SAVE "\n\tlahf\n\tseto %%al"
/* Before it: the host's flags = those of AX. Clobbers AX. */
#define CC_LOAD "addb $0x7f, %%al\n\tsahf\n\t"

#define CC_CF 0x0100u
#define CC_PF 0x0400u
#define CC_AF 0x1000u
#define CC_ZF 0x4000u
#define CC_SF 0x8000u
#define CC_OF 0x0001u

/* Condition n of Jcc, SETcc, CMOVcc (SDM 1 Appendix B). */
static inline bool cc_test(uint16_t cc, unsigned n)
{
    bool less = ((cc >> 15) ^ cc) & 1, yes;
    switch (n >> 1) {
    case 0: yes = cc & CC_OF; break;
    case 1: yes = cc & CC_CF; break;
    case 2: yes = cc & CC_ZF; break;
    case 3: yes = cc & (CC_CF | CC_ZF); break;
    case 4: yes = cc & CC_SF; break;
    case 5: yes = cc & CC_PF; break;
    case 6: yes = less; break;
    default: yes = less || cc & CC_ZF; break;
    }
    return yes != (n & 1);
}

/* clang-format off */
#define FOR_CONDITIONS(X) \
    X(0, o) X(1, no) X(2, b) X(3, nb) X(4, z) X(5, nz) X(6, be) X(7, nbe) X(8, s) X(9, ns) X(10, p) X(11, np) \
    X(12, l) X(13, nl) X(14, le) X(15, nle)
/* clang-format on */

static inline bool is_canonical48(uint64_t lin) { return (uint64_t)sext(lin, 48) == lin; }

/* --- families ------------------------------------------------------------------------------------------- */

/* One instruction's lowering; op is filled as by lower(). */
typedef bool (*lower_fn)(struct op *op, const struct insn *in, uint32_t mode);

bool lower_alu(struct op *op, const struct insn *in, uint32_t mode);
bool lower_unary(struct op *op, const struct insn *in, uint32_t mode);
bool lower_shift(struct op *op, const struct insn *in, uint32_t mode);
bool lower_double_shift(struct op *op, const struct insn *in, uint32_t mode);
bool lower_muldiv(struct op *op, const struct insn *in, uint32_t mode);
bool lower_move(struct op *op, const struct insn *in, uint32_t mode);
bool lower_extend(struct op *op, const struct insn *in, uint32_t mode);
bool lower_lea(struct op *op, const struct insn *in, uint32_t mode);
bool lower_cmov(struct op *op, const struct insn *in, uint32_t mode);
bool lower_setcc(struct op *op, const struct insn *in, uint32_t mode);
bool lower_accumulator(struct op *op, const struct insn *in, uint32_t mode);
bool lower_flag(struct op *op, const struct insn *in, uint32_t mode);
bool lower_bcd(struct op *op, const struct insn *in, uint32_t mode);
bool lower_bit_test(struct op *op, const struct insn *in, uint32_t mode);
bool lower_bit_scan(struct op *op, const struct insn *in, uint32_t mode);
bool lower_exchange(struct op *op, const struct insn *in, uint32_t mode);
bool lower_stack(struct op *op, const struct insn *in, uint32_t mode);
bool lower_branch(struct op *op, const struct insn *in, uint32_t mode);
bool lower_string(struct op *op, const struct insn *in, uint32_t mode);
bool lower_nop(struct op *op, const struct insn *in, uint32_t mode);
bool lower_extra(struct op *op, const struct insn *in, uint32_t mode);
bool lower_bmi(struct op *op, const struct insn *in, uint32_t mode);

/* The op that ends a block which no control transfer ends. */
void lower_block_end(struct op *op, unsigned off, uint32_t mode);
/* Raises #UD (counted by the bytes in imm) or #GP(0) for what could not be decoded. */
void lower_undefined(struct op *op, uint64_t bytes, unsigned off, bool too_long);
/* Makes one handler of a comparison and the conditional jump that follows it, where there is one. */
void fuse(struct op *first, const struct op *second);
/* True for ops whose aux is their block, as the successors are remembered there. */
bool op_links(const struct op *op);

#endif
