/* SPDX-License-Identifier: Apache-2.0 */
/* Views of programs whose memory is at both ends of their address space: each access goes by the view after few faults of the host. */
#include "engine_kit.h"

#include "engine/bt/bt.h"
#include "host/view.h"

/* Aliases of area 0, which has all memory of the kit. */
#define LIBRARY 254u
#define STACK 255u
#define LATER 100u
#define IN_AREA(area, at) (((uint64_t)(area) << AREA_SHIFT) + (at))
#define FAULTS_MAX 40u

/* From a library's code to data in the lower half, to the stack, and to what rsi points to; then out. */
GUEST_CODE(both_ends, 64,
           "mov ecx, 3000\n"
           "1: mov rax, [rbx]\n add rax, rcx\n mov [rbx + 8], rax\n push rax\n pop rdx\n call 2f\n"
           "mov r8, [rsi]\n mov [rsi + 16], r8\n sub ecx, 1\n jnz 1b\n hlt\n"
           "2: mov r9, [rsp]\n mov r10, [rbx + 64]\n ret");

static struct bt *begin(struct kit *k)
{
    kit_long(k, 3);
    for (unsigned area = LIBRARY; area <= STACK; area++)
        kit_put64(k, PAGES_AT + 8 * area, (PAGES_AT + 0x1000) | 7);
    kit_engine(k, &bt_engine, &translate_at_once);
    load_code(k, both_ends);
    return bt_of(k->v);
}

static void run(struct kit *k, uint64_t more)
{
    kit_long(k, 3);
    k->v->s.rip = IN_AREA(LIBRARY, CODE_AT);
    k->v->s.activity = ACTIVITY_RUN;
    k->v->s.gpr[RBX] = DATA_AT;
    k->v->s.gpr[RSI] = more;
    k->v->s.gpr[RSP] = IN_AREA(STACK, 0x52000);
    kit_put64(k, DATA_AT, 70);
    run_to_exception(k, VEC_GP);
    assert_int_equal(kit_get64(k, DATA_AT + 8), 71);
}

static bool has_area(const struct bt_view *w, unsigned area)
{
    for (unsigned side = 0; side < VIEW_SIDES; side++)
        for (unsigned i = 0; i < w->nareas[side]; i++)
            if (w->area[side][i] == area)
                return true;
    return false;
}

/* The view of a first run, which stays at both ends. */
static const struct bt_view *first_view(struct kit *k)
{
    struct bt *b = begin(k);
    run(k, IN_AREA(LIBRARY, DATA_AT));
    if (!b->views.possible)
        skip();
    assert_non_null(b->views.now);
    return b->views.now;
}

static void both_ends_are_shown(void **state)
{
    struct kit *k = *state;
    const struct bt_view *w = first_view(k);
    const struct bt *b = bt_of(k->v);
    assert_true(has_area(w, 0) && has_area(w, LIBRARY) && has_area(w, STACK));
    assert_int_equal(b->n.view_blamed, 0);
    assert_in_range(b->n.view_faults, 1, FAULTS_MAX);
}

/* What is met later has no room beside the others. */
static void areas_are_laid_out_anew(void **state)
{
    struct kit *k = *state;
    const struct bt_view *w = first_view(k);
    const struct bt *b = bt_of(k->v);
    uint64_t taken[VIEW_SIDES];
    bool took[VIEW_SIDES];
    for (unsigned side = 0; side < VIEW_SIDES; side++) {
        taken[side] = IN_AREA(LATER, 0) + w->delta[side];
        took[side] = host_view_reserve(taken[side], PAGE_SIZE);
    }
    kit_put64(k, PAGES_AT + 8 * LATER, (PAGES_AT + 0x1000) | 7);
    run(k, IN_AREA(LATER, DATA_AT));
    w = b->views.now;
    assert_non_null(w);
    assert_true(has_area(w, 0) && has_area(w, LIBRARY) && has_area(w, STACK) && has_area(w, LATER));
    assert_int_equal(b->n.view_blamed, 0);
    assert_in_range(b->n.view_faults, 1, 2 * FAULTS_MAX);
    for (unsigned side = 0; side < VIEW_SIDES; side++)
        assert_true(!took[side] || host_view_release(taken[side], PAGE_SIZE));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, engine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_ends_are_shown),
        TEST(areas_are_laid_out_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
