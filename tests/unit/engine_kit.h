/* SPDX-License-Identifier: Apache-2.0 */
/* Guest code for the engines' tests: assembled with the test program, run on the processor of cpu_kit, by the
 * interpreter or the engine that $SUNDOG_UNIT_ENGINE names. */
#ifndef SUNDOG_TESTS_ENGINE_KIT_H
#define SUNDOG_TESTS_ENGINE_KIT_H

#include "seg_kit.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "engine/interp/interp.h"

/* Position-independent code of `width` (16, 32, 64) bits named `name`. */
#define GUEST_CODE(name, width, text) \
    __asm__(".pushsection .rodata\n" #name "_start: .code" #width "\n.intel_syntax noprefix\n" text \
            "\n.att_syntax\n.code64\n" #name "_end:\n.popsection\n"); \
    extern const uint8_t name##_start[], name##_end[]

#define CODE_AT START_AT
#define DATA_AT 0x50000u

/*
 * Engines catch host traps by handlers that they set once a process; cmocka sets its own before each test. Whatever
 * stands there that is not cmocka's is kept, and set again when cmocka's is back. Called first in the first test.
 */
static inline void keep_handlers(void)
{
    static const int signals[] = { SIGFPE, SIGSEGV, SIGBUS };
    static struct sigaction cmocka[array_size(signals)], engines[array_size(signals)];
    static bool begun, known[array_size(signals)];
    for (unsigned i = 0; i < array_size(signals); i++) {
        struct sigaction now;
        sigaction(signals[i], NULL, &now);
        if (!begun)
            cmocka[i] = now;
        if (now.sa_handler != cmocka[i].sa_handler) {
            engines[i] = now;
            known[i] = true;
        } else if (known[i]) {
            sigaction(signals[i], &engines[i], NULL);
        }
    }
    begun = true;
}

/* From now on this engine runs the processor; it may keep what `cfg` (or NULL) points to. */
static inline void kit_engine(struct kit *k, const struct engine_ops *engine, const struct engine_config *cfg)
{
    struct error e = { 0 };
    keep_handlers();
    if (engine->vcpu_create(k->v, cfg, &e))
        fail_msg("%s: %s", engine->name, e.text);
    k->engine = engine;
    keep_handlers();
}

static const struct engine_config translate_at_once = { .warm = 1, .verify_every = 1 };

/* $SUNDOG_UNIT_ENGINE, or the interpreter. */
static inline const struct engine_ops *engine_under_test(void)
{
    const char *name = getenv("SUNDOG_UNIT_ENGINE");
    struct error e = { 0 };
    const struct engine_ops *engine = engine_find(name ? name : interp_engine.name, &e);
    if (!engine)
        fail_msg("%s", e.text);
    return engine;
}

static inline int engine_teardown(void **state)
{
    struct kit *k = *state;
    keep_handlers();
    if (k->engine)
        k->engine->vcpu_destroy(k->v);
    k->engine = NULL;
    return kit_teardown(state);
}

/* Loads code, makes each exception handler a HLT, and puts rip at the code. */
#define load_code(k, name) load_code_at(k, name##_start, (size_t)(name##_end - name##_start), CODE_AT)

static inline void load_code_at(struct kit *k, const uint8_t *code, size_t len, uint64_t at)
{
    static const uint8_t hlt = 0xf4;
    assert_int_equal(pmap_load(k->pmap, GPA(at), code, len), 0);
    for (unsigned vec = 0; vec < 64; vec++)
        assert_int_equal(pmap_load(k->pmap, GPA(HANDLER_AT + 16 * vec), &hlt, 1), 0);
    if (!k->engine)
        kit_engine(k, engine_under_test(), &translate_at_once);
    k->v->s.rip = at;
    k->v->s.activity = ACTIVITY_RUN;
}

/* Runs until HLT; the test fails when something else ends it. */
static inline void run_to_hlt(struct kit *k)
{
    assert_int_equal(k->engine->run(k->v, k->v->s.retired + 100000000), EXIT_HLT);
}

/* Runs until HLT in the handler of `vec`. */
static inline void run_to_exception(struct kit *k, unsigned vec)
{
    run_to_hlt(k);
    assert_int_equal(k->v->s.rip, HANDLER_AT + 16 * vec + 1);
}

#endif
