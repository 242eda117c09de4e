/* SPDX-License-Identifier: Apache-2.0 */
/* Engines where little is said: what a fault leaves of registers, addresses at the far end, modes on the way to others. */
#include "engine_kit.h"

static uint64_t *gpr(struct kit *k) { return k->v->s.gpr; }

/* --- upper halves of registers in compatibility mode ------------------------------------------------------------------------- */

GUEST_CODE(lods, 32, "lodsd\n hlt");
GUEST_CODE(stos, 32, "stosd\n hlt");
GUEST_CODE(movs, 32, "movsd\n hlt");
GUEST_CODE(cmps, 32, "cmpsd\n hlt");
GUEST_CODE(scas, 32, "scasd\n hlt");
GUEST_CODE(rep_stos, 32, "rep stosd\n hlt");
GUEST_CODE(rep_move, 32, "rep movsd\n hlt");
GUEST_CODE(repne_scas, 32, "repne scasd\n hlt");

#define UPPER (0x1234567ull << 32)
#define HOLE 0x500000u /* behind what kit_long() maps */

static const struct {
    const uint8_t *start, *end;
} strings[] = {
    { lods_start, lods_end },         { stos_start, stos_end },
    { movs_start, movs_end },         { cmps_start, cmps_end },
    { scas_start, scas_end },         { rep_stos_start, rep_stos_end },
    { rep_move_start, rep_move_end }, { repne_scas_start, repne_scas_end },
};

static void begin_compatible(struct kit *k, unsigned string, uint32_t source, uint32_t dest, uint32_t count)
{
    kit_long(k, 3);
    kit_seg(k, SEG_CS, G_CODE3 | 3);
    vcpu_refresh(k->v);
    load_code_at(k, strings[string].start, (size_t)(strings[string].end - strings[string].start),
                 CODE_AT + 64 * string);
    gpr(k)[RAX] = 1;
    gpr(k)[RSI] = UPPER | source;
    gpr(k)[RDI] = UPPER | dest;
    gpr(k)[RCX] = UPPER | count;
}

/* The SDM leaves them open (1, 3.4.1.1), but processors keep what no instruction has written, and one that faults writes nothing. */
static void strings_that_fault_keep_upper_halves(void **state)
{
    struct kit *k = *state;
    for (unsigned i = 0; i < array_size(strings); i++)
        for (unsigned dest_only = 0; dest_only < 2; dest_only++) {
            uint32_t source = dest_only ? DATA_AT : HOLE;
            if (dest_only && strings[i].start == lods_start)
                continue;
            begin_compatible(k, i, source, HOLE, 5);
            run_to_exception(k, VEC_PF);
            assert_int_equal(gpr(k)[RSI], UPPER | source);
            assert_int_equal(gpr(k)[RDI], UPPER | HOLE);
            assert_int_equal(gpr(k)[RCX], UPPER | 5);
        }
}

/* Nothing of REP is done when ECX is 0; one iteration cuts the pointers that it steps. */
static void strings_cut_what_they_step(void **state)
{
    struct kit *k = *state;
    for (unsigned i = 0; i < array_size(strings); i++)
        for (unsigned count = 0; count < 6; count += 5) {
            const uint8_t *start = strings[i].start;
            bool rep = i >= 5, works = count || !rep;
            bool from = start == lods_start || start == movs_start || start == cmps_start ||
                        start == rep_move_start;
            begin_compatible(k, i, DATA_AT, DATA_AT + 0x100, count);
            run_to_exception(k, VEC_GP); /* HLT is not for users */
            unsigned step = works ? rep ? 20 : 4 : 0;
            assert_int_equal(gpr(k)[RSI], from && works ? DATA_AT + step : UPPER | DATA_AT);
            assert_int_equal(gpr(k)[RDI], start != lods_start && works ? DATA_AT + 0x100 + step
                                                                       : UPPER | (DATA_AT + 0x100));
            assert_int_equal(gpr(k)[RCX], !rep || !count ? UPPER | count : 0);
        }
}

/* --- addresses ------------------------------------------------------------------------------------------------------------- */

/* Addresses 2^63 apart: no distance between them fits 64 bits with a sign. */
GUEST_CODE(far_apart, 64,
           "movabs eax, [0x50000]\n movabs [0x50008], eax\n movabs eax, [0x8000000000050000]\n hlt");

static void absolute_addresses_far_apart(void **state)
{
    static const struct engine_config no_view = { .warm = 1,
                                                  .verify_every = 1,
                                                  .passes_off = BIT(ENGINE_PASS_VIEW) };
    struct kit *k = *state;
    kit_long(k, 0);
    kit_engine(k, engine_under_test(), &no_view);
    load_code(k, far_apart);
    kit_put64(k, DATA_AT, 77);
    run_to_exception(k, VEC_GP);
    assert_int_equal(kit_get32(k, DATA_AT + 8), 77);
    assert_int_equal(kit_stack64(k, 1), CODE_AT + 18);
}

/* --- modes ----------------------------------------------------------------------------------------------------------------- */

/* Real mode with the segments of protected mode, as loaders leave them: STAC and CLAC are for privilege 0, of which it is. */
GUEST_CODE(flat_real, 32, "stac\n mov eax, [0x50000]\n clac\n mov [0x50008], eax\n hlt");

static void access_check_flag_in_real_mode(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    k->v->s.cr0 &= ~CR0_PE;
    vcpu_refresh(k->v);
    load_code(k, flat_real);
    kit_put64(k, DATA_AT, 77);
    run_to_hlt(k);
    assert_int_equal(kit_get32(k, DATA_AT + 8), 77);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, kit_setup, engine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(strings_that_fault_keep_upper_halves),
        TEST(strings_cut_what_they_step),
        TEST(absolute_addresses_far_apart),
        TEST(access_check_flag_in_real_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
