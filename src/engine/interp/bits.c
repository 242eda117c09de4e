/* SPDX-License-Identifier: Apache-2.0 */
/* BT BTS BTR BTC, BSF BSR POPCNT, CRC32. */
#include "engine/interp/operand.h"

/* --- bit test ------------------------------------------------------------------------------------------- */

#define BIT_IMMEDIATE 0xff /* op->r2: the bit number is imm */

/* A bit number in a register may reach beyond the operand in memory: signed, in units of the operand size
 * (SDM 2A BT). */
static inline uint64_t bit_address(struct vcpu *v, const struct op *op, unsigned size, int64_t bit,
                                   enum mmu_access access)
{
    int64_t units = bit >> (3 + size_index(size));
    uint64_t off = (op_offset(v, op) + (uint64_t)units * size) & mask_bytes(op->addrsize);
    return seg_linear(v, op->seg, off, size, access);
}

#define BIT_NUMBER(n) \
    (op->r2 == BIT_IMMEDIATE ? (int64_t)(op->imm & (n - 1)) : (int64_t)(int##n##_t)get##n(v, op->r2))

/* Only CF is defined, ZF kept. */
#define BIT_VALUE(name, n, T, S) \
    static inline T name##n(struct vcpu *v, T d, T bit) \
    { \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD #name S " %[b], %[d]" CC_SAVE : [d] "+r"(d), "+a"(cc) : [b] "r"(bit)); \
        v->s.cc = cc; \
        return d; \
    }

#define BIT_TEST(n, T, S) \
    BIT_VALUE(bt, n, T, S) \
    HANDLER(bt##n##_r) \
    { \
        bt##n(v, get##n(v, op->r1), (T)BIT_NUMBER(n)); \
        return NEXT(v, op); \
    } \
    HANDLER(bt##n##_m) \
    { \
        int64_t bit = BIT_NUMBER(n); \
        uint64_t lin = bit_address(v, op, n / 8, bit, ACCESS_READ); \
        bt##n(v, (T)read_linear(v, op, lin, n / 8, op->seg), (T)bit &(n - 1)); \
        return NEXT(v, op); \
    }

/* In memory with or without LOCK: the locked way is right for both, and nearly as fast. */
#define BIT_CHANGE(name, n, T, S) \
    BIT_VALUE(name, n, T, S) \
    HANDLER(name##n##_r) \
    { \
        set##n(v, op->r1, name##n(v, get##n(v, op->r1), (T)BIT_NUMBER(n))); \
        return NEXT(v, op); \
    } \
    HANDLER(name##n##_m) \
    { \
        int64_t bit = BIT_NUMBER(n); \
        uint64_t val, lin = bit_address(v, op, n / 8, bit, ACCESS_WRITE); \
        any##n *p = locked_begin(v, op, lin, n / 8, &val); \
        uint16_t cc = v->s.cc; \
        T at = (T)bit & (n - 1); \
        if (likely(p != NULL)) { \
            __asm__ volatile(CC_LOAD "lock " #name S " %[b], %[d]" CC_SAVE \
                             : [d] "+m"(*p), "+a"(cc) \
                             : [b] "r"(at) \
                             : "memory"); \
            v->s.cc = cc; \
            return NEXT(v, op); \
        } \
        T now = name##n(v, (T)val, at); \
        uint16_t after = v->s.cc; \
        v->s.cc = cc; \
        locked_end(v, op, lin, now, n / 8, true); \
        v->s.cc = after; \
        return NEXT(v, op); \
    }

#define ALL_BTS(n, T, S) BIT_CHANGE(bts, n, T, S)
#define ALL_BTR(n, T, S) BIT_CHANGE(btr, n, T, S)
#define ALL_BTC(n, T, S) BIT_CHANGE(btc, n, T, S)
FOR_WIDE_SIZES(BIT_TEST)
FOR_WIDE_SIZES(ALL_BTS)
FOR_WIDE_SIZES(ALL_BTR)
FOR_WIDE_SIZES(ALL_BTC)

/* clang-format off */
#define BIT_ROWS(name) { { name##16_r, name##16_m }, { name##32_r, name##32_m }, { name##64_r, name##64_m } }
static const op_handler bit_handlers[][3][2] = {
    [INSN_BT] = BIT_ROWS(bt), [INSN_BTS] = BIT_ROWS(bts), [INSN_BTR] = BIT_ROWS(btr),
    [INSN_BTC] = BIT_ROWS(btc),
};
/* clang-format on */

bool lower_bit_test(struct op *op, const struct insn *in, uint32_t mode)
{
    bool mem = !is_reg(&in->op[0]);
    if (mem)
        lower_mem(op, in, mode);
    op->r1 = in->op[0].reg;
    op->r2 = is_reg(&in->op[1]) ? in->op[1].reg : BIT_IMMEDIATE;
    op->run = bit_handlers[in->id][size_index(in->opsize) - 1][mem];
    return true;
}

/* --- bit scan, population count ------------------------------------------------------------------------- */

/* On the whole 64-bit register, so that a zero source leaves of the destination what the host leaves. */
#define SCAN_VALUE(name, n, S, mod) \
    static inline void name##n(struct vcpu *v, unsigned r, uint##n##_t s) \
    { \
        uint64_t d = v->s.gpr[r]; \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD #name S " %[s], %" #mod "[d]" CC_SAVE : [d] "+r"(d), "+a"(cc) : [s] "r"(s)); \
        v->s.cc = cc; \
        v->s.gpr[r] = d; \
    } \
    SOURCE_HANDLERS(name, n)
/* clang-format off */
#define SCAN(name) SCAN_VALUE(name, 16, "w", w) SCAN_VALUE(name, 32, "l", k) SCAN_VALUE(name, 64, "q", q)
SCAN(bsf)
SCAN(bsr)
SCAN(popcnt)
/* clang-format on */

/* CRC32 touches no flags; the destination is 32 bits wide and zero-extended in every form. */
#define CRC(n, T, S) \
    static inline void crc##n(struct vcpu *v, unsigned r, T s) \
    { \
        uint64_t d = (uint32_t)v->s.gpr[r]; \
        CRC_INSN(n, S); \
        v->s.gpr[r] = d; \
    } \
    HANDLER(crc##n##_r) \
    { \
        crc##n(v, op->r1, get##n(v, op->r2)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(crc##n##_m, n, crc##n(v, op->r1, x))
#define CRC_INSN(n, S) __asm__("crc32" S " %1, %q0" : "+r"(d) : "rm"(s))
CRC(8, uint8_t, "b")
CRC(64, uint64_t, "q")
#undef CRC_INSN
#define CRC_INSN(n, S) __asm__("crc32" S " %1, %k0" : "+r"(d) : "rm"(s))
CRC(16, uint16_t, "w")
CRC(32, uint32_t, "l")

struct scan_handlers {
    op_handler r, m[FORM_COUNT];
};
/* clang-format off */
#define SCAN_ROW(name, n) { name##n##_r, FORMS(name##n##_m) }
#define SCAN_ROWS(name) { { 0 }, SCAN_ROW(name, 16), SCAN_ROW(name, 32), SCAN_ROW(name, 64) }
static const struct scan_handlers scan_handlers[][4] = {
    [INSN_BSF] = SCAN_ROWS(bsf),
    [INSN_BSR] = SCAN_ROWS(bsr),
    [INSN_POPCNT] = SCAN_ROWS(popcnt),
    [INSN_CRC32] = { SCAN_ROW(crc, 8), SCAN_ROW(crc, 16), SCAN_ROW(crc, 32), SCAN_ROW(crc, 64) },
};
/* clang-format on */

bool lower_bit_scan(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct operand *source = &in->op[1];
    const struct scan_handlers *h = &scan_handlers[in->id][size_index(source->size)];
    op->r1 = in->op[0].reg;
    op->r2 = reg_number(source);
    op->run = is_reg(source) ? h->r : h->m[lower_mem(op, in, mode)];
    return op->run != NULL;
}
