/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of returns: filled by calls, and emptied when another context of the same privilege takes over, or code is evicted. */
#include "engine_kit.h"

#include "engine/bt/bt.h"

/* Three calls deep, often. */
GUEST_CODE(calls, 64,
           "mov rsp, 0x52000\n mov ecx, 100\n 1: call 2f\n sub ecx, 1\n jnz 1b\n hlt\n"
           "2: call 3f\n ret\n 3: call 4f\n ret\n 4: ret");

static unsigned filled(const struct bt *b, unsigned index)
{
    const struct bt_returns *r = &bt_area(b->v)->returns[index];
    unsigned n = 0;
    for (unsigned i = 0; i < RETURNS; i++)
        n += r->lin[i] != 0;
    return n;
}

static struct bt *run_calls(void **state)
{
    struct kit *k = *state;
    kit_engine(k, &bt_engine, &translate_at_once);
    kit_long(k, 0);
    load_code_at(k, calls_start, (size_t)(calls_end - calls_start), CODE_AT);
    run_to_hlt(k);
    return bt_of(k->v);
}

/* The same where the host can predict. */
static struct bt *run_predicted(void **state)
{
    struct bt *b = run_calls(state);
    if (!b->predicts_returns)
        skip();
    return b;
}

/* A context that differs in its id. */
static struct bt_context another(const struct bt_context *x)
{
    struct bt_context other = *x;
    other.id += 1ull << (64 - CONTEXT_ID_BITS);
    return other;
}

/* The index of the privilege that runs. */
static unsigned index_of(const struct bt *b) { return bt_area(b->v)->context->key >> KEY_INDEX_SHIFT & 3; }

static void another_context_finds_none(void **state)
{
    struct bt *b = run_predicted(state);
    unsigned index = index_of(b);
    struct bt_context *mine = bt_area(b->v)->context, other = another(mine);
    assert_int_equal(filled(b, index), 3);
    bt_context_over(b, mine);
    assert_int_equal(filled(b, index), 3);
    bt_context_over(b, &other);
    assert_int_equal(filled(b, index), 0);
    bt_context_over(b, mine);
}

/* Code that notes nothing, and another privilege, leave a table alone. */
static void others_leave_it_alone(void **state)
{
    struct bt *b = run_predicted(state);
    unsigned index = index_of(b);
    struct bt_context *mine = bt_area(b->v)->context, other = another(mine);
    other.key = (mine->key & ~(uint32_t)MODE_CODE_MASK) | MODE_CODE32;
    bt_context_over(b, &other);
    assert_int_equal(filled(b, index), 3);
    other.key = mine->key ^ KEY_SIBLING;
    bt_context_over(b, &other);
    assert_int_equal(filled(b, index), 3);
    bt_context_over(b, mine);
}

static void an_empty_place_leads_to_no_unit(void **state)
{
    struct bt *b = run_calls(state);
    const struct bt_returns *r = bt_area(b->v)->returns;
    bt_returns_forget_all(b);
    for (unsigned i = 0; i < MMU_INDEX_COUNT; i++)
        for (unsigned n = 0; n < RETURNS; n++)
            assert_ptr_equal(r[i].code[n], bt_exec(b, b->gate_nowhere));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(another_context_finds_none, kit_setup, engine_teardown),
        cmocka_unit_test_setup_teardown(others_leave_it_alone, kit_setup, engine_teardown),
        cmocka_unit_test_setup_teardown(an_empty_place_leads_to_no_unit, kit_setup, engine_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
