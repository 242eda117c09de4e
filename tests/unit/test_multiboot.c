/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot kernels: finding the header, both ways of loading, modules, and the information handed over. */
#include "boot_kit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "board/multiboot.h"

static uint8_t file[65536];

static void put_header(uint8_t *at, uint32_t flags)
{
    put_le32(at, 0x1badb002);
    put_le32(at + 4, flags);
    put_le32(at + 8, -(0x1badb002u + flags));
}

/* An ELF kernel whose header lies `at` bytes into its one segment (which is at 4096 of the file). */
static size_t make(bool is64, uint32_t at, uint32_t flags)
{
    static uint8_t code[8192];
    kit_fill(code, sizeof(code), 5);
    put_header(code + at, flags);
    const struct kit_segment segment = { 0xc0100000, 0x100000, 0x4000, code, sizeof(code) };
    const struct kit_elf elf = { .is64 = is64, .entry = 0xc010000c, .segment = &segment, .segments = 1 };
    return kit_make_elf(file, &elf);
}

static void finds_header(void **state)
{
    uint8_t head[8300] = { 0 };
    (void)state;
    const struct {
        uint32_t at;
        size_t len;
        bool found;
    } cases[] = {
        { 0, 8300, true },     { 4096, 8300, true }, { 8180, 8300, true },
        { 8184, 8300, false }, { 2, 8300, false },   { 0, 12, true },
        { 0, 11, false },      { 100, 112, true },   { 8200, 8300, false },
    };
    for (unsigned i = 0; i < array_size(cases); i++) {
        memset(head, 0, sizeof(head));
        put_header(head + cases[i].at, 3);
        if (multiboot_is(head, cases[i].len) != cases[i].found)
            fail_msg("case %u", i);
    }
    memset(head, 0, sizeof(head));
    put_header(head, 3);
    head[8]++;
    assert_false(multiboot_is(head, sizeof(head)));
}

/* Multiboot Specification 0.6.96, 3.3. */
enum {
    MBI_LOWER = 4,
    MBI_UPPER = 8,
    MBI_CMDLINE = 16,
    MBI_MODS_COUNT = 20,
    MBI_MODS = 24,
    MBI_MMAP_LEN = 44,
    MBI_MMAP = 48,
    MBI_LOADER = 64
};

static void check_info(struct boot_kit *k, const char *cmdline)
{
    uint64_t info = k->start.rbx;
    assert_int_equal(k->start.rax, 0x2badb002);
    assert_int_equal(k->start.mode, BOOT_PROTECTED32);
    kit_flat_segments(k, false);
    assert_int_equal(kit_u32(k, info), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_int_equal(kit_u32(k, info + MBI_LOWER), 639);
    assert_int_equal(kit_u32(k, info + MBI_UPPER), (k->map.low_end - MIB) >> 10);
    kit_string_is(k, kit_u32(k, info + MBI_CMDLINE), cmdline);
    assert_int_not_equal(kit_u32(k, info + MBI_LOADER), 0);

    uint64_t at = kit_u32(k, info + MBI_MMAP), end = at + kit_u32(k, info + MBI_MMAP_LEN);
    unsigned n = 0;
    for (; at < end; n++) {
        assert_int_equal(kit_u64(k, at + 4), k->map.range[n].base);
        assert_int_equal(kit_u64(k, at + 12), k->map.range[n].len);
        assert_int_equal(kit_u32(k, at + 20), k->map.range[n].type);
        at += kit_u32(k, at) + 4;
    }
    assert_int_equal(n, k->map.count);
}

static void boots_elf(void **state)
{
    (void)state;
    for (int is64 = 0; is64 < 2; is64++) {
        struct boot_kit k;
        uint8_t dirty[64], zeros[64] = { 0 };
        kit_open(&k, 64 * MIB);
        memset(dirty, 0xee, sizeof(dirty));
        assert_int_equal(ram_write(k.pmap, GPA(0x103000), dirty, sizeof(dirty)), 0);
        size_t len = make(is64, 16, 3);
        k.cfg.append = "test=1";
        assert_int_equal(kit_boot(&k, file, len), 0);
        assert_int_equal(k.start.rip, 0x10000c);
        check_info(&k, "test.kernel test=1");
        assert_int_equal(kit_u32(&k, k.start.rbx + MBI_MODS_COUNT), 0);
        kit_bytes_are(&k, 0x100000, file + 4096, 8192);
        kit_bytes_are(&k, 0x103000, zeros, sizeof(zeros));
        /* Without command line the file's name stands alone. */
        k.cfg.append = "";
        assert_int_equal(kit_boot(&k, file, len), 0);
        check_info(&k, "test.kernel");
        kit_close(&k);
    }
}

static void boots_by_addresses(void **state)
{
    struct boot_kit k;
    uint8_t zeros[4096] = { 0 };
    (void)state;
    kit_open(&k, 64 * MIB);
    kit_fill(file, 8192, 6);
    put_header(file + 64, 0x10003);
    const uint32_t addresses[] = { 0x200040, 0x200000, 0x201000, 0x202000, 0x200080 };
    memcpy(file + 64 + 12, addresses, sizeof(addresses));
    assert_int_equal(kit_boot(&k, file, 8192), 0);
    assert_int_equal(k.start.rip, 0x200080);
    kit_bytes_are(&k, 0x200000, file, 4096);
    kit_bytes_are(&k, 0x201000, zeros, 4096);
    /* End 0: the whole file; bss end 0: none. */
    put_le32(file + 64 + 20, 0);
    put_le32(file + 64 + 24, 0);
    assert_int_equal(kit_boot(&k, file, 8192), 0);
    kit_bytes_are(&k, 0x200000, file, 8192);

    const struct {
        unsigned field;
        uint32_t value;
        const char *words;
    } bad[] = {
        { 0, 0x1fffff, "not in the file" },     { 0, 0x200041, "not in the file" },
        { 2, 0x200000, "before its load" },     { 2, 0x202001, "cut off" },
        { 3, 0xffffffff, "try more --memory" }, { 1, 0, "not in the file" },
    };
    for (unsigned i = 0; i < array_size(bad); i++) {
        memcpy(file + 64 + 12, addresses, sizeof(addresses));
        put_le32(file + 64 + 12 + bad[i].field * 4, bad[i].value);
        kit_refuses(&k, file, 8192, bad[i].words);
    }
    kit_close(&k);
}

static void loads_modules(void **state)
{
    struct boot_kit k;
    uint8_t one[5000], two[10];
    char list[200], first[100], second[100];
    (void)state;
    kit_open(&k, 64 * MIB);
    kit_fill(one, sizeof(one), 1);
    kit_fill(two, sizeof(two), 2);
    char *a = kit_file(one, sizeof(one)), *b = kit_file(two, sizeof(two));
    snprintf(first, sizeof(first), "%s first,module x=1", a);
    snprintf(second, sizeof(second), "%s", b);
    snprintf(list, sizeof(list), "%s first,,module x=1,%s", a, b);
    k.cfg.initrd = list;
    assert_int_equal(kit_boot(&k, file, make(false, 16, 3)), 0);
    check_info(&k, "test.kernel");
    assert_int_equal(kit_u32(&k, k.start.rbx + MBI_MODS_COUNT), 2);
    uint64_t mods = kit_u32(&k, k.start.rbx + MBI_MODS);
    /* They follow the kernel, each on a page of its own. */
    assert_int_equal(kit_u32(&k, mods), 0x104000);
    assert_int_equal(kit_u32(&k, mods + 4), 0x104000 + sizeof(one));
    kit_string_is(&k, kit_u32(&k, mods + 8), first);
    kit_bytes_are(&k, 0x104000, one, sizeof(one));
    assert_int_equal(kit_u32(&k, mods + 16), 0x106000);
    assert_int_equal(kit_u32(&k, mods + 20), 0x106000 + sizeof(two));
    kit_string_is(&k, kit_u32(&k, mods + 24), second);
    kit_bytes_are(&k, 0x106000, two, sizeof(two));

    k.cfg.initrd = "/nonexistent/module with arguments";
    kit_refuses(&k, file, make(false, 16, 3), "module /nonexistent/module: cannot be opened");
    snprintf(list, sizeof(list), "%s,", b);
    k.cfg.initrd = list;
    kit_refuses(&k, file, make(false, 16, 3), "module : cannot be opened");
    kit_close_file(a);
    kit_close_file(b);
    kit_close(&k);
}

static void refuses(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 64 * MIB);
    kit_refuses(&k, file, make(false, 16, 0x23), "demands features 0x20");
    size_t len = make(false, 16, 3);
    kit_refuses(&k, file, len - 1, "cut off");
    k.cfg.entry = KERNEL_ENTRY_BZIMAGE;
    kit_refuses(&k, file, len, "no entry 'bzimage'");
    k.cfg.entry = KERNEL_ENTRY_PVH;
    kit_refuses(&k, file, len, "PVH");
    k.cfg.entry = KERNEL_ENTRY_AUTO;
    memset(file, 0, 4096);
    kit_refuses(&k, file, len, "no ELF file");
    /* A video mode is a wish that cannot be had, told and passed over. */
    assert_int_equal(kit_boot(&k, file, make(false, 16, 7)), 0);
    assert_non_null(strstr(k.warning, "video mode"));
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_header),  cmocka_unit_test(boots_elf), cmocka_unit_test(boots_by_addresses),
        cmocka_unit_test(loads_modules), cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
