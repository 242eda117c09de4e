/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI tables: found as an operating system finds them, checksums, fields, and the reference compiler's opinion. */
#include "boot_kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "board/acpi.h"

#define BASE 0xe0000u
#define FACS 0x9fd00u

static uint8_t rom[0x10000];
static size_t rom_len;

static const uint8_t *at(uint64_t address)
{
    assert_true(address >= BASE && address < BASE + rom_len);
    return rom + (address - BASE);
}

static void sums_to_zero(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    assert_int_equal(sum, 0);
}

/* A table with the standard header (ACPI 6.4, table 5.29). */
static const uint8_t *table(uint64_t address, const char *signature)
{
    const uint8_t *t = at(address);
    assert_memory_equal(t, signature, 4);
    assert_true(get_le32(t + 4) >= 36);
    at(address + get_le32(t + 4) - 1);
    sums_to_zero(t, get_le32(t + 4));
    return t;
}

static void build(unsigned cpus)
{
    const struct acpi_places places = { .tables = BASE, .facs = FACS };
    memset(rom, 0, sizeof(rom));
    rom_len = acpi_build(rom, sizeof(rom), &places, cpus);
    assert_true(rom_len > 0 && rom_len < sizeof(rom));
}

/* Address of the n-th table of the XSDT, which has to agree with the RSDT. */
static uint64_t root_entry(unsigned n)
{
    const uint8_t *rsdt = table(get_le32(rom + 16), "RSDT");
    const uint8_t *xsdt = table(get_le64(rom + 24), "XSDT");
    assert_true(get_le32(xsdt + 4) >= 36 + 8 * (n + 1));
    assert_int_equal((get_le32(xsdt + 4) - 36) / 8, (get_le32(rsdt + 4) - 36) / 4);
    assert_int_equal(get_le32(rsdt + 36 + 4 * n), get_le64(xsdt + 36 + 8 * n));
    return get_le64(xsdt + 36 + 8 * n);
}

static void pointers(void **state)
{
    (void)state;
    build(1);
    assert_memory_equal(rom, "RSD PTR ", 8);
    sums_to_zero(rom, 20);
    assert_int_equal(rom[15], 2);
    assert_int_equal(get_le32(rom + 20), 36);
    sums_to_zero(rom, 36);

    const uint8_t *fadt = table(root_entry(0), "FACP");
    assert_int_equal(fadt[8], 3);
    assert_int_equal(get_le32(fadt + 4), 244);
    assert_int_equal(get_le32(fadt + 36), FACS);
    assert_int_equal(get_le64(fadt + 140), get_le32(fadt + 40));
    table(get_le32(fadt + 40), "DSDT");
    uint8_t facs[64];
    acpi_build_facs(facs);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal(get_le32(facs + 4), 64);
}

/* ACPI 6.4, table 5.33. */
static void fixed_hardware(void **state)
{
    (void)state;
    build(1);
    const uint8_t *fadt = table(root_entry(0), "FACP");
    assert_int_equal(get_le16(fadt + 46), 9);     /* SCI */
    assert_int_equal(get_le32(fadt + 56), 0x600); /* PM1a event */
    assert_int_equal(get_le32(fadt + 64), 0x604); /* PM1a control */
    assert_int_equal(get_le32(fadt + 76), 0x608); /* timer */
    assert_int_equal(fadt[88], 4);
    assert_int_equal(fadt[89], 2);
    assert_int_equal(fadt[91], 4);
    assert_int_equal(get_le16(fadt + 109) & 3, 3);       /* legacy devices, 8042 */
    assert_int_equal(get_le32(fadt + 112) >> 20 & 1, 0); /* not hardware-reduced */
    assert_int_equal(get_le32(fadt + 112) >> 10 & 1, 1); /* reset register */
    assert_int_equal(get_le64(fadt + 120), 0xcf9);
    assert_int_equal(fadt[128], 6);
    /* 32- and 64-bit forms agree: offset of the address in each generic address structure is 4. */
    assert_int_equal(get_le64(fadt + 148 + 4), 0x600);
    assert_int_equal(get_le64(fadt + 172 + 4), 0x604);
    assert_int_equal(get_le64(fadt + 208 + 4), 0x608);
}

static void processors(void **state)
{
    (void)state;
    for (unsigned cpus = 1; cpus <= 8; cpus++) {
        build(cpus);
        const uint8_t *madt = table(root_entry(1), "APIC");
        uint32_t len = get_le32(madt + 4);
        unsigned lapics = 0, ioapics = 0, timer = 0, sci = 0;
        assert_int_equal(get_le32(madt + 36), 0xfee00000);
        assert_int_equal(get_le32(madt + 40), 1);
        for (uint32_t off = 44; off < len; off += madt[off + 1]) {
            const uint8_t *entry = madt + off;
            assert_true(entry[1] >= 6 && off + entry[1] <= len);
            if (entry[0] == 0) {
                assert_int_equal(entry[3], lapics++);
                assert_int_equal(get_le32(entry + 4), 1);
            } else if (entry[0] == 1) {
                ioapics++;
                assert_int_equal(get_le32(entry + 4), 0xfec00000);
                assert_int_equal(get_le32(entry + 8), 0);
            } else if (entry[0] == 2) {
                assert_int_equal(entry[2], 0); /* the ISA bus */
                timer += entry[3] == 0 && get_le32(entry + 4) == 2;
                sci += entry[3] == 9 && get_le32(entry + 4) == 9 && (get_le16(entry + 8) & 0xc) == 0xc;
            }
        }
        assert_int_equal(lapics, cpus);
        assert_int_equal(ioapics, 1);
        assert_int_equal(timer, 1);
        assert_int_equal(sci, 1);
    }
}

static void too_small_a_buffer(void **state)
{
    const struct acpi_places places = { .tables = BASE, .facs = FACS };
    (void)state;
    build(8);
    size_t whole = rom_len;
    for (size_t cap = 0; cap < whole; cap += 13) {
        uint8_t *small = malloc(cap ? cap : 1);
        assert_int_equal(acpi_build(small, cap, &places, 8), 0);
        free(small);
    }
}

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

/* ACPICA's own disassembler takes every table, and its compiler takes what came out of the DSDT, without a warning. */
static void reference_compiler(void **state)
{
    char dir[] = "/tmp/sundog-acpi-XXXXXX", command[512];
    (void)state;
    if (system("command -v iasl >/dev/null 2>&1")) {
        print_message("iasl is not installed (package acpica-tools)\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    build(4);
    const uint8_t *fadt = table(root_entry(0), "FACP");
    const uint64_t tables[] = { root_entry(0), root_entry(1), get_le32(fadt + 40), get_le32(rom + 16),
                                get_le64(rom + 24) };
    for (unsigned i = 0; i < array_size(tables); i++) {
        char path[64];
        snprintf(path, sizeof(path), "%s/t%u.dat", dir, i);
        write_file(path, at(tables[i]), get_le32(at(tables[i]) + 4));
        snprintf(command, sizeof(command),
                 "cd %s && iasl -d t%u.dat >out.%u 2>&1 && ! grep -qiE 'error|invalid|warning' t%u.dsl", dir,
                 i, i, i);
        if (system(command))
            fail_msg("iasl -d does not like table %u, see %s", i, dir);
    }
    snprintf(command, sizeof(command),
             "cd %s && iasl -p again t2.dsl >out.again 2>&1 && grep -q '0 Errors, 0 Warnings' out.again",
             dir);
    if (system(command))
        fail_msg("iasl does not compile the DSDT again, see %s/out.again", dir);
    const char *const words[] = { "Device (PCI0)",        "EisaId (\"PNP0A03\")", "EisaId (\"PNP0501\")",
                                  "EisaId (\"PNP0B00\")", "EisaId (\"PNP0303\")", "Name (\\_S5",
                                  "Package (0x80)" };
    for (unsigned i = 0; i < array_size(words); i++) {
        snprintf(command, sizeof(command), "grep -qF '%s' %s/t2.dsl", words[i], dir);
        if (system(command))
            fail_msg("no %s in the disassembly, see %s", words[i], dir);
    }
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pointers),           cmocka_unit_test(fixed_hardware),
        cmocka_unit_test(processors),         cmocka_unit_test(too_small_a_buffer),
        cmocka_unit_test(reference_compiler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
