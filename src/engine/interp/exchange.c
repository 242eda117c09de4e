/* SPDX-License-Identifier: Apache-2.0 */
/* XCHG, XADD, CMPXCHG, CMPXCHG8B/16B: in memory always by the host's locked instruction, LOCK prefix or
 * not. */
#include "engine/interp/operand.h"

/* --- XCHG ----------------------------------------------------------------------------------------------- */

#define XCHG(n, T, S) \
    HANDLER(xchg##n##_r) \
    { \
        T a = get##n(v, op->r1), b = get##n(v, op->r2); \
        set##n(v, op->r1, b); \
        set##n(v, op->r2, a); \
        return NEXT(v, op); \
    } \
    HANDLER(xchg##n##_m) \
    { \
        uint64_t val, lin = address_gen(v, op, n / 8, ACCESS_WRITE); \
        any##n *p = locked_begin(v, op, lin, n / 8, &val); \
        T x = get##n(v, op->r2); \
        if (likely(p != NULL)) { \
            __asm__ volatile("xchg" S " %0, %1" : "+r"(x), "+m"(*p) : : "memory"); \
        } else { \
            locked_end(v, op, lin, x, n / 8, true); \
            x = (T)val; \
        } \
        set##n(v, op->r2, x); \
        return NEXT(v, op); \
    }
FOR_SIZES(XCHG)

/* --- XADD ----------------------------------------------------------------------------------------------- */

/* The sum goes to operand 1 last: it wins when both are one register. */
#define XADD(n, T, S) \
    HANDLER(xadd##n##_r) \
    { \
        T a = get##n(v, op->r1), b = get##n(v, op->r2); \
        uint16_t cc; \
        __asm__("xadd" S " %[b], %[a]" CC_SAVE : [a] "+r"(a), [b] "+r"(b), "=&a"(cc)); \
        v->s.cc = cc; \
        set##n(v, op->r2, b); \
        set##n(v, op->r1, a); \
        return NEXT(v, op); \
    } \
    HANDLER(xadd##n##_m) \
    { \
        uint64_t val, lin = address_gen(v, op, n / 8, ACCESS_WRITE); \
        any##n *p = locked_begin(v, op, lin, n / 8, &val); \
        T x = get##n(v, op->r2); \
        uint16_t cc; \
        if (likely(p != NULL)) { \
            __asm__ volatile("lock xadd" S " %[x], %[p]" CC_SAVE \
                             : [x] "+r"(x), [p] "+m"(*p), "=&a"(cc) \
                             : \
                             : "memory"); \
        } else { \
            T sum = (T)val; \
            __asm__("xadd" S " %[b], %[a]" CC_SAVE : [a] "+r"(sum), [b] "+r"(x), "=&a"(cc)); \
            locked_end(v, op, lin, sum, n / 8, true); \
        } \
        v->s.cc = cc; \
        set##n(v, op->r2, x); \
        return NEXT(v, op); \
    }
FOR_SIZES(XADD)

/* --- CMPXCHG -------------------------------------------------------------------------------------------- */

/* Whole registers go through the host's instruction, so that it decides about their upper halves. */
#define KEEP8 set8
#define KEEP16 set16
#define KEEP32 set64
#define KEEP64 set64
#define WHOLE8(v, r) get8(v, r)
#define WHOLE16(v, r) get16(v, r)
#define WHOLE32(v, r) get64(v, r)
#define WHOLE64(v, r) get64(v, r)

#define CMPXCHG(n, T, S, mod) \
    static inline void cmpxchg##n(uint64_t *acc, uint64_t *d, T s, uint16_t *cc) \
    { \
        __asm__("mov %[acc], %%rax\n\tcmpxchg" S " %[s], %" #mod "[d]\n\tmov %%rax, %[acc]" CC_SAVE \
                : [acc] "+r"(*acc), [d] "+r"(*d), "=&a"(*cc) \
                : [s] "r"(s)); \
    } \
    HANDLER(cmpxchg##n##_r) \
    { \
        uint64_t acc = v->s.gpr[RAX], d = WHOLE##n(v, op->r1); \
        uint16_t cc; \
        cmpxchg##n(&acc, &d, get##n(v, op->r2), &cc); \
        v->s.cc = cc; \
        v->s.gpr[RAX] = acc; \
        if (op->r1 != RAX || (cc & CC_ZF)) \
            KEEP##n(v, op->r1, (uint##n##_keep)d); \
        return NEXT(v, op); \
    } \
    HANDLER(cmpxchg##n##_m) \
    { \
        uint64_t val, lin = address_gen(v, op, n / 8, ACCESS_WRITE); \
        any##n *p = locked_begin(v, op, lin, n / 8, &val); \
        uint64_t acc = v->s.gpr[RAX]; \
        uint16_t cc; \
        if (likely(p != NULL)) { \
            __asm__ volatile("mov %[acc], %%rax\n\tlock cmpxchg" S \
                             " %[s], %[p]\n\tmov %%rax, %[acc]" CC_SAVE \
                             : [acc] "+r"(acc), [p] "+m"(*p), "=&a"(cc) \
                             : [s] "r"(get##n(v, op->r2)) \
                             : "memory"); \
        } else { \
            cmpxchg##n(&acc, &val, get##n(v, op->r2), &cc); \
            locked_end(v, op, lin, val, n / 8, true); \
        } \
        v->s.cc = cc; \
        v->s.gpr[RAX] = acc; \
        return NEXT(v, op); \
    }
/* clang-format off */
typedef uint8_t uint8_keep;
typedef uint16_t uint16_keep;
typedef uint64_t uint32_keep;
typedef uint64_t uint64_keep;
CMPXCHG(8, uint8_t, "b", b)
CMPXCHG(16, uint16_t, "w", w)
CMPXCHG(32, uint32_t, "l", k)
CMPXCHG(64, uint64_t, "q", q)
/* clang-format on */

/* --- CMPXCHG8B, CMPXCHG16B ------------------------------------------------------------------------------ */

/* Both as 16 bytes of values in registers; only ZF changes. */
struct pair {
    uint64_t low, high;
};

static bool compare_pair(struct pair *mem, struct pair *expect, const struct pair *wanted)
{
    bool same = mem->low == expect->low && mem->high == expect->high;
    if (same)
        *mem = *wanted;
    else
        *expect = *mem;
    return same;
}

static bool host_cmpxchg8b(void *p, struct pair *expect, const struct pair *wanted)
{
    bool same;
    uint32_t low = (uint32_t)expect->low, high = (uint32_t)(expect->low >> 32);
    __asm__ volatile("lock cmpxchg8b %[p]"
                     : [p] "+m"(*(any64 *)p), "=@ccz"(same), "+a"(low), "+d"(high)
                     : "b"((uint32_t)wanted->low), "c"((uint32_t)(wanted->low >> 32))
                     : "memory");
    expect->low = (uint64_t)high << 32 | low;
    return same;
}

static bool host_cmpxchg16b(void *p, struct pair *expect, const struct pair *wanted)
{
    bool same;
    __asm__ volatile("lock cmpxchg16b %[p]"
                     : [p] "+m"(*(struct pair *)p), "=@ccz"(same), "+a"(expect->low), "+d"(expect->high)
                     : "b"(wanted->low), "c"(wanted->high)
                     : "memory");
    return same;
}

static struct pair pair_of(const struct vcpu *v, unsigned high, unsigned low, bool wide)
{
    if (wide)
        return (struct pair){ v->s.gpr[low], v->s.gpr[high] };
    return (struct pair){ v->s.gpr[high] << 32 | (uint32_t)v->s.gpr[low], 0 };
}

HANDLER(cmpxchg_pair)
{
    bool wide = op->opsize == 16, same;
    uint64_t lin = address_gen(v, op, op->opsize, ACCESS_WRITE);
    if (wide && lin & 15)
        cpu_raise_gp0(v);
    struct pair expect = pair_of(v, RDX, RAX, wide), wanted = pair_of(v, RCX, RBX, wide), mem = { 0, 0 };
    void *p = locked_begin(v, op, lin, op->opsize, &mem.low);
    if (likely(p != NULL)) {
        same = wide ? host_cmpxchg16b(p, &expect, &wanted) : host_cmpxchg8b(p, &expect, &wanted);
    } else {
        same = compare_pair(&mem, &expect, &wanted);
        exact(v, op);
        access_write(v, lin, &mem, op->opsize, v->mmu.index, op->seg);
        inexact(v);
        unlock_world(v);
    }
    if (!same) {
        v->s.gpr[RAX] = wide ? expect.low : (uint32_t)expect.low;
        v->s.gpr[RDX] = wide ? expect.high : expect.low >> 32;
    }
    v->s.cc = (uint16_t)((v->s.cc & ~CC_ZF) | (same ? CC_ZF : 0));
    return NEXT(v, op);
}

/* --- tables --------------------------------------------------------------------------------------------- */

/* clang-format off */
#define EXCHANGE_ROWS(name) \
    { { name##8_r, name##8_m }, { name##16_r, name##16_m }, \
      { name##32_r, name##32_m }, { name##64_r, name##64_m } }
static const op_handler exchange_handlers[][4][2] = {
    [INSN_XCHG] = EXCHANGE_ROWS(xchg),
    [INSN_XADD] = EXCHANGE_ROWS(xadd),
    [INSN_CMPXCHG] = EXCHANGE_ROWS(cmpxchg),
};
/* clang-format on */

bool lower_exchange(struct op *op, const struct insn *in, uint32_t mode)
{
    bool mem = !is_reg(&in->op[0]);
    if (mem)
        lower_mem(op, in, mode);
    if (in->id == INSN_CMPXCHG8B) {
        op->opsize = in->op[0].size;
        op->run = cmpxchg_pair;
        return true;
    }
    op->r1 = reg_number(&in->op[0]);
    op->r2 = reg_number(&in->op[1]);
    op->run = exchange_handlers[in->id][size_index(in->opsize)][mem];
    return true;
}
