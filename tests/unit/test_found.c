/* SPDX-License-Identifier: Apache-2.0 */
/*
 * More targets in one set of the jump table than it has slots: generated code finds most of them without a call of C. Between the
 * rounds they are changed, or others come to lie at their addresses.
 */
#include "engine_kit.h"

#include "engine/bt/bt.h"

#define FUNCTIONS 12u
#define ROUNDS 400u
#define TABLE_AT DATA_AT
#define WINDOW 0x400000u /* a large page that is mapped to either of two */
#define OTHER 0x800000u
#define WINDOW_ENTRY (PAGES_AT + 0x2010)

/* Each round calls all functions by the table at RBX, EBP rounds. */
#define ROUND "1: mov ecx, 12\n 2: call [rbx + rcx * 8 - 8]\n sub ecx, 1\n jnz 2b\n"
GUEST_CODE(plain, 64, ROUND "sub ebp, 1\n jnz 1b\n hlt");
/* Function EDI's constant grows. */
GUEST_CODE(patched, 64,
           ROUND "mov rsi, [rbx + rdi * 8]\n add dword ptr [rsi + 2], 1\n add edi, 1\n cmp edi, 12\n jb 3f\n"
                 "xor edi, edi\n 3: sub ebp, 1\n jnz 1b\n hlt");
/* The window shows the other page, once by CR3 and once by INVLPG. */
GUEST_CODE(remapped, 64,
           ROUND
           "xor qword ptr [rdi], 0xc00000\n test ebp, 1\n jz 3f\n mov rdx, cr3\n mov cr3, rdx\n jmp 4f\n"
           "3: invlpg [rsi]\n 4: sub ebp, 1\n jnz 1b\n hlt");

/* Offsets in the window whose addresses meet in one set of the jump table. */
static void choose(uint32_t offset[FUNCTIONS])
{
    unsigned n = 0, set = jump_slot(WINDOW + 0x100, MODE_CODE64) / JUMP_SET;
    for (uint32_t at = 0x100; n < FUNCTIONS; at += 8)
        if (jump_slot(WINDOW + at, MODE_CODE64) / JUMP_SET == set)
            offset[n++] = at;
    assert_true(offset[FUNCTIONS - 1] < 0x200000);
}

/* add rax, value; ret */
static void put_function(struct kit *k, uint32_t at, uint32_t value)
{
    uint8_t code[7] = { 0x48, 0x05, 0, 0, 0, 0, 0xc3 };
    put_le32(code + 2, value);
    assert_int_equal(pmap_load(k->pmap, GPA(at), code, sizeof(code)), 0);
}

static uint32_t value_of(unsigned function, bool other) { return (function + 1) * (other ? 1000 : 1); }

static void begin(struct kit *k, const uint8_t *code, const uint8_t *end)
{
    uint32_t offset[FUNCTIONS];
    kit_engine(k, &bt_engine, &translate_at_once);
    kit_long(k, 0);
    kit_put64(k, WINDOW_ENTRY, WINDOW | 0x87);
    choose(offset);
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        kit_put64(k, TABLE_AT + 8 * i, WINDOW + offset[i]);
        put_function(k, WINDOW + offset[i], value_of(i, false));
        put_function(k, OTHER + offset[i], value_of(i, true));
    }
    load_code_at(k, code, (size_t)(end - code), CODE_AT);
    k->v->s.gpr[RAX] = k->v->s.gpr[RDI] = 0;
    k->v->s.gpr[RBX] = TABLE_AT;
    k->v->s.gpr[RBP] = ROUNDS;
    k->v->s.gpr[RSP] = 0x52000;
}

static uint64_t found_here(struct kit *k) { return bt_area(k->v)->found_here; }

static void are_found_without_c(void **state)
{
    struct kit *k = *state;
    begin(k, plain_start, plain_end);
    run_to_hlt(k);
    assert_int_equal(k->v->s.gpr[RAX], ROUNDS * FUNCTIONS * (FUNCTIONS + 1) / 2);
    assert_true(found_here(k) > ROUNDS);
    assert_true(bt_of(k->v)->n.lookups < ROUNDS);
}

static void changed_code_is_not_found(void **state)
{
    struct kit *k = *state;
    begin(k, patched_start, patched_end);
    run_to_hlt(k);
    uint64_t sum = 0, more = 0;
    for (unsigned round = 0; round < ROUNDS; round++, more++)
        sum += FUNCTIONS * (FUNCTIONS + 1) / 2 + more;
    assert_int_equal(k->v->s.gpr[RAX], sum);
    assert_true(found_here(k) > 0);
}

static void other_pages_at_the_same_addresses(void **state)
{
    struct kit *k = *state;
    begin(k, remapped_start, remapped_end);
    k->v->s.gpr[RDI] = WINDOW_ENTRY;
    k->v->s.gpr[RSI] = WINDOW;
    run_to_hlt(k);
    assert_int_equal(k->v->s.gpr[RAX], ROUNDS / 2 * 1001 * FUNCTIONS * (FUNCTIONS + 1) / 2);
    assert_true(found_here(k) > 0);
}

/* What a context with a view has found is forgotten with its unit, which has no view. */
static void taken_out_is_not_found(void **state)
{
    struct kit *k = *state;
    begin(k, plain_start, plain_end);
    run_to_hlt(k);
    struct bt *b = bt_of(k->v);
    unsigned left = 0, before = 0;
    for (unsigned i = 0; i < 1u << FOUND_BITS; i++)
        before += b->found[i].host != NULL;
    for (unsigned i = 0; i < b->nunits; i++)
        b->found[bt_found_slot(b->units[i].host, b->units[i].key | KEY_VIEW)] =
            (struct bt_found){ b->units[i].host, b->units[i].key | KEY_VIEW, b->units[i].entry_jump };
    for (unsigned i = 0; i < b->nunits; i++)
        bt_cache_drop_page(b, b->units[i].host);
    for (unsigned i = 0; i < 1u << FOUND_BITS; i++)
        left += b->found[i].host != NULL;
    assert_true(before >= FUNCTIONS);
    assert_int_equal(left, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(are_found_without_c, kit_setup, engine_teardown),
        cmocka_unit_test_setup_teardown(changed_code_is_not_found, kit_setup, engine_teardown),
        cmocka_unit_test_setup_teardown(other_pages_at_the_same_addresses, kit_setup, engine_teardown),
        cmocka_unit_test_setup_teardown(taken_out_is_not_found, kit_setup, engine_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
