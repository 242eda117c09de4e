/* SPDX-License-Identifier: Apache-2.0 */
/* Every row of the instruction table can be decoded and lowered, in every mode it is valid in, in its register and memory forms. */
#include "cpu_kit.h"

#include "engine/interp/op.h"

/* The shortest encoding of a row; returns its length. The bytes behind it are zero: immediates and displacements. */
static unsigned encode(const struct insn_row *row, uint8_t *out, bool mem, bool long64)
{
    static const uint8_t prefix[] = {
        [PX] = 0, [PN] = 0, [P66] = 0x66, [PF3] = 0xf3, [PF2] = 0xf2, [PNR] = 0
    };
    unsigned n = 0;
    memset(out, 0, 16);
    if (prefix[row->pfx])
        out[n++] = prefix[row->pfx];
    if (row->op[0] == Eq || row->op[1] == Eq || row->op[0] == Gq)
        if (long64)
            out[n++] = 0x48;
    if (row->map != MAP_1)
        out[n++] = 0x0f;
    if (row->map == MAP_0F38)
        out[n++] = 0x38;
    if (row->map == MAP_0F3A)
        out[n++] = 0x3a;
    out[n++] = row->opcode;
    if (!(row->flags & IF_NOMODRM)) {
        unsigned rm = IF_RM_GET(row->flags) & 8 ? IF_RM_GET(row->flags) & 7 : mem ? 0 : 1;
        out[n++] = (uint8_t)((mem ? 0 : 0xc0) | (row->reg < 0 ? 0 : row->reg) << 3 | rm);
    }
    return n;
}

static bool valid_in(const struct insn_row *row, unsigned code_bytes)
{
    return !(row->flags & (code_bytes == 8 ? IF_NO64 : IF_ONLY64));
}

static const struct {
    unsigned code_bytes;
    uint32_t mode;
} modes[] = {
    { 2, MODE_CODE16 },
    { 4, MODE_CODE32 | MODE_SS32 | MODE_PE | MODE_FLAT },
    { 8, MODE_CODE64 | MODE_PE | MODE_LMA | MODE_FLAT },
};

/* One form of one row: 1 when this row was decoded and lowered, 0 when the encoding means another row. */
static int lower_one(const struct insn_row *row, unsigned m, bool mem)
{
    uint8_t bytes[16];
    struct insn in;
    struct op op;
    encode(row, bytes, mem, modes[m].code_bytes == 8);
    if (insn_decode(&in, bytes, 15, modes[m].code_bytes) != DECODE_OK || in.row != row)
        return 0;
    if (!lower(&op, &in, in.len, modes[m].mode) || !op.run) {
        print_error("%s (opcode %02x, map %u, %s, %u-byte code) has no handler\n", insn_names[row->id],
                    row->opcode, row->map, mem ? "memory" : "register", modes[m].code_bytes);
        fail();
    }
    return 1;
}

static void every_row_has_a_handler(void **state)
{
    (void)state;
    for (unsigned r = 0; r < insn_row_count; r++) {
        const struct insn_row *row = &insn_rows[r];
        for (unsigned m = 0; m < array_size(modes); m++) {
            int seen = 0;
            if (!valid_in(row, modes[m].code_bytes))
                continue;
            if (row->mod != MM)
                seen += lower_one(row, m, false);
            if (row->mod != MR && !(row->flags & IF_NOMODRM))
                seen += lower_one(row, m, true);
            if (!seen) {
                print_error("%s (opcode %02x, map %u) cannot be reached in %u-byte code\n",
                            insn_names[row->id], row->opcode, row->map, modes[m].code_bytes);
                fail();
            }
        }
    }
}

/* --- extensions ------------------------------------------------------------------------------------------ */

static bool names(const struct insn_row *row, uint8_t spec)
{
    return row->op[0] == spec || row->op[1] == spec || row->op[2] == spec;
}

/* An encoding of an extension's row with the shortest vector length it has. Opmasks and vectors are told apart by number,
 * so that no two of a gather's are one. */
static void encode_extension(const struct insn_row *row, uint8_t *out, bool mem, bool long64)
{
    static const uint8_t pp[] = { [PN] = 0, [P66] = 1, [PF3] = 2, [PF2] = 3, [PNR] = 0 };
    static const uint8_t lengths[] = { [L0] = 0, [L1] = 1, [L2] = 2, [LX] = 0, [L12] = 1, [LIG] = 0 };
    bool third = names(row, Hx) || names(row, By) || names(row, Kh);
    bool vsib = names(row, Xx) || names(row, Xh);
    uint8_t wvp = (uint8_t)((row->w == W1) << 7 | (third ? 0xc : 0xf) << 3 | pp[row->pfx]);
    unsigned n = 0;
    memset(out, 0, 16);
    if (row->map >= MAP_E0F) {
        out[n++] = 0x62;
        out[n++] = (uint8_t)(0xf0 | (row->map - MAP_E0F + 1));
        out[n++] = wvp | 4;
        out[n++] = (uint8_t)(lengths[row->vl] << 5 | 8 | (row->xflags & XF_KN ? 1 : 0));
    } else if (row->map >= MAP_V0F) {
        out[n++] = 0xc4;
        out[n++] = (uint8_t)(0xe0 | (row->map - MAP_V0F + 1));
        out[n++] = (uint8_t)(wvp | lengths[row->vl] << 2);
    } else {
        encode(row, out, mem, long64);
        return;
    }
    out[n++] = row->opcode;
    if (row->flags & IF_NOMODRM)
        return;
    out[n++] = (uint8_t)((mem ? 0 : 0xc0) | (row->reg < 0 ? 1 : row->reg) << 3 | (vsib ? 4 : 2));
    out[n] = vsib ? 0x13 : 0; /* index 2, base 3 */
}

static int lower_extension(const struct insn_row *row, unsigned m, bool mem)
{
    uint8_t bytes[16];
    struct insn in;
    struct op op;
    encode_extension(row, bytes, mem, modes[m].code_bytes == 8);
    if (insn_decode_for(&in, bytes, 15, modes[m].code_bytes, FEATURES_ALL) != DECODE_OK || in.row != row)
        return 0;
    assert_true(insn_is_extension(&in));
    if (!lower(&op, &in, in.len, modes[m].mode) || !op.run) {
        print_error("%s (opcode %02x, map %u, %s, %u-byte code) has no handler\n", insn_names[row->id],
                    row->opcode, row->map, mem ? "memory" : "register", modes[m].code_bytes);
        fail();
    }
    return 1;
}

static void every_extension_has_a_handler(void **state)
{
    (void)state;
    for (unsigned r = 0; r < insn_ext_row_count; r++) {
        const struct insn_row *row = &insn_ext_rows[r];
        for (unsigned m = 0; m < array_size(modes); m++) {
            int seen = 0;
            /* What needs a SIB byte has no 16-bit form. */
            if (!valid_in(row, modes[m].code_bytes) ||
                (modes[m].code_bytes == 2 && (names(row, Xx) || names(row, Xh))))
                continue;
            if (row->mod != MM)
                seen += lower_extension(row, m, false);
            if (row->mod != MR && !(row->flags & IF_NOMODRM))
                seen += lower_extension(row, m, true);
            if (!seen) {
                print_error("%s (opcode %02x, map %u) cannot be reached in %u-byte code\n",
                            insn_names[row->id], row->opcode, row->map, modes[m].code_bytes);
                fail();
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_has_a_handler),
        cmocka_unit_test(every_extension_has_a_handler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
