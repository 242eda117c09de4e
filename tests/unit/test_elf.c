/* SPDX-License-Identifier: Apache-2.0 */
/* ELF files: parsing, refusing, loading, and the PVH entry with what it hands over. */
#include "boot_kit.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "board/elf.h"

static uint8_t file[65536];

static size_t make(bool is64, bool pvh)
{
    static uint8_t code[600], data[100];
    kit_fill(code, sizeof(code), 1);
    kit_fill(data, sizeof(data), 2);
    const struct kit_segment segments[] = {
        { is64 ? 0xffffffff81000000ull : 0xc1000000, 0x1000000, 600, code, sizeof(code) },
        { is64 ? 0xffffffff81200000ull : 0xc1200000, 0x1200000, 5000, data, sizeof(data) },
    };
    const struct kit_elf elf = { .is64 = is64,
                                 .entry = segments[0].vaddr + 0x20,
                                 .segment = segments,
                                 .segments = 2,
                                 .pvh = pvh,
                                 .pvh_entry = 0x1000040 };
    return kit_make_elf(file, &elf);
}

static void parses(void **state)
{
    struct elf_info info;
    (void)state;
    for (int is64 = 0; is64 < 2; is64++) {
        size_t len = make(is64, true);
        assert_int_equal(elf_parse(file, len, &info, NULL), 0);
        assert_int_equal(info.is64, is64);
        assert_int_equal(info.segments, 2);
        assert_int_equal(info.low, 0x1000000);
        assert_int_equal(info.high, 0x1200000 + 5000);
        assert_int_equal(info.entry, 0x1000020);
        assert_true(info.has_pvh);
        assert_int_equal(info.pvh_entry, 0x1000040);
    }
}

/* A field of the header set to a value has to be refused. */
static void refuses_header(void **state)
{
    const struct {
        size_t at, width;
        uint64_t value;
    } bad[] = {
        { EI_CLASS, 1, 3 },
        { EI_DATA, 1, ELFDATA2MSB },
        { offsetof(Elf64_Ehdr, e_type), 2, ET_REL },
        { offsetof(Elf64_Ehdr, e_type), 2, ET_CORE },
        { offsetof(Elf64_Ehdr, e_machine), 2, EM_AARCH64 },
        { offsetof(Elf64_Ehdr, e_phnum), 2, 0 },
        { offsetof(Elf64_Ehdr, e_phnum), 2, 0xffff },
        { offsetof(Elf64_Ehdr, e_phentsize), 2, 32 },
        { offsetof(Elf64_Ehdr, e_phoff), 8, 1 << 20 },
        { offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX - 10 },
        { 64 + offsetof(Elf64_Phdr, p_offset), 8, 1 << 20 },
        { 64 + offsetof(Elf64_Phdr, p_offset), 8, UINT64_MAX - 100 },
        { 64 + offsetof(Elf64_Phdr, p_filesz), 8, 601 },
        { 64 + offsetof(Elf64_Phdr, p_filesz), 8, UINT64_MAX },
        { 64 + offsetof(Elf64_Phdr, p_paddr), 8, UINT64_MAX - 10 },
        { 64 + offsetof(Elf64_Phdr, p_memsz), 8, UINT64_MAX },
    };
    (void)state;
    for (unsigned i = 0; i < array_size(bad); i++) {
        struct elf_info info;
        struct error e = { 0 };
        size_t len = make(true, true);
        memcpy(file + bad[i].at, &bad[i].value, bad[i].width);
        if (elf_parse(file, len, &info, &e) != -ENOEXEC)
            fail_msg("case %u was taken", i);
        assert_true(strlen(e.text) > 10);
    }
}

/* However short the file is cut, it is refused or complete. */
static void refuses_truncated(void **state)
{
    (void)state;
    for (int is64 = 0; is64 < 2; is64++) {
        size_t len = make(is64, true);
        for (size_t n = 0; n < len; n++) {
            struct elf_info info;
            uint8_t *cut = malloc(n ? n : 1);
            memcpy(cut, file, n);
            assert_int_equal(elf_parse(cut, n, &info, NULL), -ENOEXEC);
            free(cut);
        }
    }
}

static void damaged_notes_are_passed_over(void **state)
{
    struct elf_info info;
    (void)state;
    size_t len = make(true, true);
    /* The first note's name, then its description, longer than all notes. */
    for (unsigned at = 2048; at <= 2052; at += 4) {
        make(true, true);
        put_le32(file + at, UINT32_MAX);
        assert_int_equal(elf_parse(file, len, &info, NULL), 0);
        assert_false(info.has_pvh);
    }
    /* An entry above 4 GiB cannot be one. */
    make(true, true);
    put_le64(file + 2048 + 52, 1ull << 32);
    assert_int_equal(elf_parse(file, len, &info, NULL), 0);
    assert_false(info.has_pvh);
}

/* Xen, public/arch-x86/hvm/start_info.h. */
enum {
    INFO_VERSION = 4,
    INFO_MODULES = 12,
    INFO_MODLIST = 16,
    INFO_CMDLINE = 24,
    INFO_RSDP = 32,
    INFO_MEMMAP = 40,
    INFO_MEMMAP_ENTRIES = 48
};

static void boots_by_pvh(void **state)
{
    (void)state;
    for (int is64 = 0; is64 < 2; is64++) {
        struct boot_kit k;
        uint8_t initrd[5000], zeros[4900] = { 0 };
        kit_open(&k, 64 * MIB);
        /* What an earlier boot left is cleared. */
        memset(initrd, 0xff, sizeof(initrd));
        assert_int_equal(ram_write(k.pmap, GPA(0x1200000), initrd, sizeof(initrd)), 0);
        kit_fill(initrd, sizeof(initrd), 9);
        char *path = kit_file(initrd, sizeof(initrd));
        k.cfg.initrd = path;
        k.cfg.append = "console=ttyS0 quiet";
        size_t len = make(is64, true);
        assert_int_equal(kit_boot(&k, file, len), 0);

        assert_int_equal(k.start.mode, BOOT_PROTECTED32);
        assert_int_equal(k.start.rip, 0x1000040);
        kit_flat_segments(&k, false);
        kit_bytes_are(&k, 0x1000000, file + 4096, 600);
        kit_bytes_are(&k, 0x1200000, file + 4096 + 600, 100);
        kit_bytes_are(&k, 0x1200000 + 100, zeros, sizeof(zeros));

        uint64_t info = k.start.rbx;
        assert_true(info && info < 0xa0000);
        assert_int_equal(kit_u32(&k, info), 0x336ec578);
        assert_int_equal(kit_u32(&k, info + INFO_VERSION), 1);
        assert_int_equal(kit_u32(&k, info + INFO_MODULES), 1);
        kit_string_is(&k, kit_u64(&k, info + INFO_CMDLINE), k.cfg.append);
        assert_int_equal(kit_u64(&k, info + INFO_RSDP), 0xe0000);

        uint64_t module = kit_u64(&k, info + INFO_MODLIST);
        assert_int_equal(kit_u64(&k, module + 8), sizeof(initrd));
        kit_bytes_are(&k, kit_u64(&k, module), initrd, sizeof(initrd));
        assert_true(kit_u64(&k, module) >= 62 * MIB);

        uint64_t map = kit_u64(&k, info + INFO_MEMMAP);
        assert_int_equal(kit_u32(&k, info + INFO_MEMMAP_ENTRIES), k.map.count);
        for (unsigned i = 0; i < k.map.count; i++) {
            assert_int_equal(kit_u64(&k, map + i * 24), k.map.range[i].base);
            assert_int_equal(kit_u64(&k, map + i * 24 + 8), k.map.range[i].len);
            assert_int_equal(kit_u32(&k, map + i * 24 + 16), k.map.range[i].type);
        }
        kit_close_file(path);
        kit_close(&k);
    }
}

static void says_what_is_wrong(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 64 * MIB);
    size_t len = make(true, false);
    kit_refuses(&k, file, len, "PVH");
    make(true, true);
    kit_refuses(&k, file, len - 1, "cut off");
    k.cfg.entry = KERNEL_ENTRY_BZIMAGE;
    kit_refuses(&k, file, len, "no entry 'bzimage'");
    k.cfg.entry = KERNEL_ENTRY_AUTO;
    k.cfg.initrd = "/nonexistent/initrd";
    kit_refuses(&k, file, len, "initrd /nonexistent/initrd: cannot be opened");
    k.cfg.initrd = "/dev/null";
    kit_refuses(&k, file, len, "initrd /dev/null: the file is empty");
    k.cfg.initrd = "/tmp";
    kit_refuses(&k, file, len, "initrd /tmp: cannot be read");
    k.cfg.initrd = "/dev/zero";
    kit_refuses(&k, file, len, "initrd /dev/zero: the file is larger");
    k.cfg.initrd = NULL;
    char *line = calloc(1, 20000);
    memset(line, 'a', 19999);
    k.cfg.append = line;
    kit_refuses(&k, file, len, "--append");
    free(line);
    kit_close(&k);

    kit_open(&k, 16 * MIB);
    kit_refuses(&k, file, len, "try more --memory");
    static const char text[] = "#!/bin/sh\necho this is no kernel\n";
    kit_refuses(&k, text, sizeof(text), "neither a Linux bzImage");
    assert_true(kit_boot_file(&k, "/dev/zero") < 0);
    assert_true(kit_boot_file(&k, "/dev/null") < 0);
    assert_true(kit_boot_file(&k, "/tmp") < 0);
    assert_true(kit_boot_file(&k, "/nonexistent/kernel") < 0);
    assert_non_null(strstr(k.e.text, "kernel /nonexistent/kernel: cannot be opened"));
    kit_close(&k);
}

/* A segment in the way of what the loader needs low in memory moves the latter. */
static void low_segments(void **state)
{
    struct boot_kit k;
    uint8_t low[0x1000];
    (void)state;
    kit_open(&k, 64 * MIB);
    kit_fill(low, sizeof(low), 3);
    const struct kit_segment segment = { 0x1000, 0x1000, 0x9e000, low, sizeof(low) };
    const struct kit_elf elf = {
        .entry = 0x1000, .segment = &segment, .segments = 1, .pvh = true, .pvh_entry = 0x1000
    };
    k.cfg.append = "x";
    assert_int_equal(kit_boot(&k, file, kit_make_elf(file, &elf)), 0);
    kit_bytes_are(&k, 0x1000, low, sizeof(low));
    assert_true(k.start.rbx >= 0x9f000 && k.start.gdt_base >= 0x9f000);
    kit_string_is(&k, kit_u64(&k, k.start.rbx + INFO_CMDLINE), "x");
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(refuses_header),
        cmocka_unit_test(low_segments),
        cmocka_unit_test(refuses_truncated),
        cmocka_unit_test(boots_by_pvh),
        cmocka_unit_test(damaged_notes_are_passed_over),
        cmocka_unit_test(says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
