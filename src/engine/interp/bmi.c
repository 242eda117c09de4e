/* SPDX-License-Identifier: Apache-2.0 */
/* LZCNT TZCNT, MOVBE, ADCX ADOX, BMI1 and BMI2: the host's own instruction on the guest's operands where flags are left.
 * They run only where the host has them: the CPU model says so. */
#include "engine/interp/operand.h"

/* --- counts of zeros -------------------------------------------------------------------------------------- */

#define COUNT(name, n, S) \
    static inline void name##n(struct vcpu *v, unsigned r, uint##n##_t s) \
    { \
        uint##n##_t d; \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD #name S " %[s], %[d]" CC_SAVE : [d] "=&r"(d), "+&a"(cc) : [s] "r"(s)); \
        v->s.cc = cc; \
        set##n(v, r, d); \
    } \
    SOURCE_HANDLERS(name, n)
/* clang-format off */
#define COUNTS(name) COUNT(name, 16, "w") COUNT(name, 32, "l") COUNT(name, 64, "q")
COUNTS(lzcnt)
COUNTS(tzcnt)
/* clang-format on */

/* --- MOVBE ------------------------------------------------------------------------------------------------ */

#define MOVBE(n) \
    LOAD_HANDLERS(movbe##n##_load, n, set##n(v, op->r1, __builtin_bswap##n(x))) \
    STORE_HANDLERS(movbe##n##_store, n, __builtin_bswap##n(get##n(v, op->r1)))
MOVBE(16)
MOVBE(32)
MOVBE(64)

/* --- additions with one carry, bit operations: name(destination, vvvv, r/m) --------------------------------- */

/* r1: destination, prefixes: the register in vvvv, r2: the one in r/m. */
#define FORMS_OF(name, n) \
    HANDLER(name##n##_r) \
    { \
        name##n(v, op, get##n(v, op->r2)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(name##n##_m, n, name##n(v, op, x))

#define CARRY(name, n, S) \
    static inline void name##n(struct vcpu *v, const struct op *op, uint##n##_t s) \
    { \
        uint##n##_t d = get##n(v, op->r1); \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD #name S " %[s], %[d]" CC_SAVE : [d] "+&r"(d), "+&a"(cc) : [s] "r"(s)); \
        v->s.cc = cc; \
        set##n(v, op->r1, d); \
    } \
    FORMS_OF(name, n)

/* Operands of the assembler's text, last to first: %[d] is the destination, %[s] r/m, %[h] vvvv. */
#define WITH_FLAGS(name, n, text) \
    static inline void name##n(struct vcpu *v, const struct op *op, uint##n##_t s) \
    { \
        uint##n##_t d, h = get##n(v, op->prefixes); \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD text CC_SAVE : [d] "=&r"(d), "+&a"(cc) : [s] "r"(s), [h] "r"(h)); \
        v->s.cc = cc; \
        set##n(v, op->r1, d); \
    } \
    FORMS_OF(name, n)

#define WITHOUT_FLAGS(name, n, ...) \
    static inline void name##n(struct vcpu *v, const struct op *op, uint##n##_t s) \
    { \
        uint##n##_t d, h = get##n(v, op->prefixes); \
        __VA_ARGS__; \
        set##n(v, op->r1, d); \
        (void)h; \
    } \
    FORMS_OF(name, n)

/* The low half is written first: the high one wins when both go to one register. */
#define WIDE_PRODUCT(n, T) \
    static inline void mulx##n(struct vcpu *v, const struct op *op, uint##n##_t s) \
    { \
        T product = (T)get##n(v, RDX) * s; \
        set##n(v, op->prefixes, (uint##n##_t)product); \
        set##n(v, op->r1, (uint##n##_t)(product >> n)); \
    } \
    FORMS_OF(mulx, n)

typedef unsigned __int128 u128;

/* clang-format off */
#define BMI(n, T, T2, S) \
    CARRY(adcx, n, S) CARRY(adox, n, S) \
    WITH_FLAGS(andn, n, "andn" S " %[s], %[h], %[d]") WITH_FLAGS(blsr, n, "blsr" S " %[s], %[d]") \
    WITH_FLAGS(blsmsk, n, "blsmsk" S " %[s], %[d]") WITH_FLAGS(blsi, n, "blsi" S " %[s], %[d]") \
    WITH_FLAGS(bextr, n, "bextr" S " %[h], %[s], %[d]") WITH_FLAGS(bzhi, n, "bzhi" S " %[h], %[s], %[d]") \
    WITHOUT_FLAGS(pext, n, __asm__("pext" S " %[s], %[h], %[d]" : [d] "=r"(d) : [s] "r"(s), [h] "r"(h))) \
    WITHOUT_FLAGS(pdep, n, __asm__("pdep" S " %[s], %[h], %[d]" : [d] "=r"(d) : [s] "r"(s), [h] "r"(h))) \
    WITHOUT_FLAGS(shlx, n, d = s << (h & (n - 1))) WITHOUT_FLAGS(shrx, n, d = s >> (h & (n - 1))) \
    WITHOUT_FLAGS(sarx, n, d = (T)((int##n##_t)s >> (h & (n - 1)))) \
    WITHOUT_FLAGS(rorx, n, d = s >> (op->imm & (n - 1)) | s << (-op->imm & (n - 1))) \
    WIDE_PRODUCT(n, T2)
BMI(32, uint32_t, uint64_t, "l")
BMI(64, uint64_t, u128, "q")

/* --- lowering ----------------------------------------------------------------------------------------------- */

/* By operand size 2, 4, 8; a row has registers only in r, or memory only in m. */
struct bmi_handlers {
    struct {
        op_handler r, m[FORM_COUNT];
    } of[3];
};
#define ROW(name, n) { name##n##_r, FORMS(name##n##_m) }
#define BOTH(name) { { { NULL, { NULL } }, ROW(name, 32), ROW(name, 64) } }
#define THREE(name) { { ROW(name, 16), ROW(name, 32), ROW(name, 64) } }
#define MEMORY(n, way) { NULL, FORMS(movbe##n##_##way) }
static const struct bmi_handlers movbe[2] = {
    { { MEMORY(16, load), MEMORY(32, load), MEMORY(64, load) } },
    { { MEMORY(16, store), MEMORY(32, store), MEMORY(64, store) } },
};
#define AT(id) (INSN_##id - INSN_LZCNT)
static const struct bmi_handlers bmi_handlers[] = {
    [AT(LZCNT)] = THREE(lzcnt), [AT(TZCNT)] = THREE(tzcnt), [AT(ADCX)] = BOTH(adcx), [AT(ADOX)] = BOTH(adox),
    [AT(ANDN)] = BOTH(andn), [AT(BLSR)] = BOTH(blsr), [AT(BLSMSK)] = BOTH(blsmsk), [AT(BLSI)] = BOTH(blsi),
    [AT(BEXTR)] = BOTH(bextr), [AT(BZHI)] = BOTH(bzhi), [AT(PEXT)] = BOTH(pext), [AT(PDEP)] = BOTH(pdep),
    [AT(MULX)] = BOTH(mulx), [AT(SHLX)] = BOTH(shlx), [AT(SARX)] = BOTH(sarx), [AT(SHRX)] = BOTH(shrx),
    [AT(RORX)] = BOTH(rorx),
};
/* clang-format on */

/* The operand that ModRM.r/m names. */
static const struct operand *rm_operand(const struct insn *in)
{
    const struct insn_row *row = in->row;
    for (unsigned i = 0; i < 2; i++)
        if (row->op[i] == Ev || row->op[i] == Ey)
            return &in->op[i];
    return &in->op[2];
}

bool lower_bmi(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct operand *rm = rm_operand(in);
    const struct bmi_handlers *h = in->id == INSN_MOVBE ? &movbe[rm == &in->op[0]]
                                                        : &bmi_handlers[in->id - INSN_LZCNT];
    unsigned size = size_index(rm->size) - 1;
    op->r1 = in->op[in->id == INSN_MOVBE && rm == &in->op[0]].reg;
    op->r2 = rm->reg;
    op->prefixes = in->vvvv;
    op->run = rm->kind == OPND_MEM ? h->of[size].m[lower_mem(op, in, mode)] : h->of[size].r;
    return op->run != NULL;
}
