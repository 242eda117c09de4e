/* SPDX-License-Identifier: Apache-2.0 */
/* Guest code for the interpreter's tests: assembled with the test program, run on the processor of cpu_kit. */
#ifndef SUNDOG_TESTS_INTERP_KIT_H
#define SUNDOG_TESTS_INTERP_KIT_H

#include "seg_kit.h"

#include "engine/interp/interp.h"

/* Position-independent code of `width` (16, 32, 64) bits named `name`. */
#define GUEST_CODE(name, width, text) \
    __asm__(".pushsection .rodata\n" #name "_start: .code" #width "\n.intel_syntax noprefix\n" text \
            "\n.att_syntax\n.code64\n" #name "_end:\n.popsection\n"); \
    extern const uint8_t name##_start[], name##_end[]

#define CODE_AT START_AT
#define DATA_AT 0x50000u

/* Loads code, makes each exception handler a HLT, and puts rip at the code. */
#define load_code(k, name) load_code_at(k, name##_start, (size_t)(name##_end - name##_start), CODE_AT)

static inline void load_code_at(struct kit *k, const uint8_t *code, size_t len, uint64_t at)
{
    static const uint8_t hlt = 0xf4;
    struct error e = { 0 };
    assert_int_equal(pmap_load(k->pmap, GPA(at), code, len), 0);
    for (unsigned vec = 0; vec < 64; vec++)
        assert_int_equal(pmap_load(k->pmap, GPA(HANDLER_AT + 16 * vec), &hlt, 1), 0);
    if (!k->v->engine_data)
        assert_int_equal(interp_engine.vcpu_create(k->v, NULL, &e), 0);
    k->v->s.rip = at;
    k->v->s.activity = ACTIVITY_RUN;
}

static inline int interp_teardown(void **state)
{
    struct kit *k = *state;
    interp_engine.vcpu_destroy(k->v);
    return kit_teardown(state);
}

/* Runs until HLT; the test fails when something else ends it. */
static inline void run_to_hlt(struct kit *k)
{
    assert_int_equal(interp_engine.run(k->v, k->v->s.retired + 100000000), EXIT_HLT);
}

/* Runs until HLT in the handler of `vec`. */
static inline void run_to_exception(struct kit *k, unsigned vec)
{
    run_to_hlt(k);
    assert_int_equal(k->v->s.rip, HANDLER_AT + 16 * vec + 1);
}

#endif
