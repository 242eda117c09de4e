/* SPDX-License-Identifier: Apache-2.0 */
/* bzImages: the setup header's fields, the zero page, both entries, and Debian's own kernels. */
#include "boot_kit.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "board/bzimage.h"
#include "board/unpack.h"

/* Linux, Documentation/arch/x86/boot.rst. */
enum { SETUP_LEN = 1024 + 512, CODE_LEN = 8192 };

static uint8_t image[SETUP_LEN + CODE_LEN + 65536];

/* A kernel of a version of the protocol, with nothing packed in it. */
static size_t make(uint16_t version)
{
    memset(image, 0, sizeof(image));
    kit_fill(image + SETUP_LEN, CODE_LEN, version);
    image[0x1f1] = SETUP_LEN / 512 - 1;
    put_le32(image + 0x1f4, CODE_LEN / 16);
    put_le16(image + 0x1fe, 0xaa55);
    image[0x200] = 0xeb;
    image[0x201] = 0x66;
    memcpy(image + 0x202, "HdrS", 4);
    put_le16(image + 0x206, version);
    image[0x211] = 1;                    /* loaded high */
    put_le32(image + 0x22c, 0x7fffffff); /* initrd_addr_max */
    put_le32(image + 0x230, 0x200000);   /* alignment */
    image[0x234] = 1;                    /* relocatable */
    put_le16(image + 0x236, 1);          /* 64-bit entry */
    put_le32(image + 0x238, 2047);       /* cmdline_size */
    put_le64(image + 0x258, 0x1000000);  /* pref_address */
    put_le32(image + 0x260, 0x800000);   /* init_size */
    return SETUP_LEN + CODE_LEN;
}

/* Puts a PVH-capable ELF file, packed as lz4, where the header says. */
static size_t add_payload(bool pvh)
{
    static uint8_t elf[16384];
    static const uint8_t code[64] = { 0x90, 0x90, 0xf4 };
    const struct kit_segment segment = { 0x1000000, 0x1000000, 4096, code, sizeof(code) };
    const struct kit_elf spec = { .is64 = true,
                                  .entry = 0x1000000,
                                  .segment = &segment,
                                  .segments = 1,
                                  .pvh = pvh,
                                  .pvh_entry = 0x1000002 };
    size_t len = kit_make_elf(elf, &spec);
    uint8_t *at = image + SETUP_LEN + 0x1000;
    put_le32(at, 0x184c2102);
    int n = LZ4_compress_default((char *)elf, (char *)at + 8, (int)len, 16384);
    assert_true(n > 0 && n < CODE_LEN);
    put_le32(at + 4, (uint32_t)n);
    put_le32(at + 8 + n, (uint32_t)len);
    put_le32(image + 0x248, 0x1000);
    put_le32(image + 0x24c, (uint32_t)n + 12);
    return len;
}

static void boots_64(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 64 * MIB);
    k.cfg.append = "console=ttyS0";
    size_t len = make(0x20f);
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.mode, BOOT_LONG64);
    assert_int_equal(k.start.rip, 0x1000200);
    kit_flat_segments(&k, true);
    kit_bytes_are(&k, 0x1000000, image + SETUP_LEN, CODE_LEN);

    uint64_t zero = k.start.rsi;
    assert_int_equal(zero & 0xfff, 0);
    assert_true(zero && zero < 0xa0000);
    kit_bytes_are(&k, zero + 0x202, "HdrS", 4);
    assert_int_equal(kit_u32(&k, zero + 0x210) & 0xff, 0xff);
    assert_int_equal(kit_u32(&k, zero + 0x214), 0x1000000);
    kit_string_is(&k, kit_u32(&k, zero + 0x228), "console=ttyS0");
    assert_int_equal(kit_u32(&k, zero + 0x21c), 0);
    assert_int_equal(kit_u64(&k, zero + 0x70), 0xe0000);
    /* The sentinel says that the rest of the page was cleared. */
    assert_int_equal(kit_u32(&k, zero + 0x1ec) >> 24, 0);
    assert_int_equal(kit_u32(&k, zero + 0x1e8) & 0xff, k.map.count);
    for (unsigned i = 0; i < k.map.count; i++) {
        assert_int_equal(kit_u64(&k, zero + 0x2d0 + i * 20), k.map.range[i].base);
        assert_int_equal(kit_u64(&k, zero + 0x2d0 + i * 20 + 8), k.map.range[i].len);
        assert_int_equal(kit_u32(&k, zero + 0x2d0 + i * 20 + 16), k.map.range[i].type);
    }
    kit_close(&k);
}

/* Walks the boot page tables as SDM 3A 4.5 says. */
static void maps_identity(void **state)
{
    struct boot_kit k;
    const uint64_t probes[] = { 0, 0x9fc00, 0x1000000, 0x3fffffff, 0x40000000, 0xfee00000, 0xffffffff };
    (void)state;
    kit_open(&k, 64 * MIB);
    assert_int_equal(kit_boot(&k, image, make(0x20f)), 0);
    for (unsigned i = 0; i < array_size(probes); i++) {
        uint64_t v = probes[i], mask = 0x000ffffffffff000ull;
        uint64_t e = kit_u64(&k, k.start.cr3 + 0);
        assert_int_equal(e & 3, 3);
        e = kit_u64(&k, (e & mask) + (v >> 30) * 8);
        assert_int_equal(e & 0x83, 3);
        e = kit_u64(&k, (e & mask) + (v >> 21 & 511) * 8);
        assert_int_equal(e & 0x83, 0x83);
        assert_int_equal((e & mask & ~0x1fffffull) | (v & 0x1fffff), v);
    }
    kit_close(&k);
}

static void boots_32(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 64 * MIB);
    size_t len = make(0x20f);
    put_le16(image + 0x236, 0);
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.mode, BOOT_PROTECTED32);
    assert_int_equal(k.start.rip, 0x1000000);
    kit_flat_segments(&k, false);
    /* A protocol without preferred address: loaded at 1 MiB. */
    len = make(0x205);
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.rip, 0x100000);
    assert_int_equal(k.start.mode, BOOT_PROTECTED32);
    kit_bytes_are(&k, 0x100000, image + SETUP_LEN, CODE_LEN);
    kit_close(&k);
}

/* Before protocol 2.02 the command line is found by a magic number and an offset from 0x90000. */
static void boots_ancient(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 64 * MIB);
    k.cfg.append = "root=/dev/ram0";
    assert_int_equal(kit_boot(&k, image, make(0x200)), 0);
    uint64_t zero = k.start.rsi;
    assert_int_equal(kit_u32(&k, zero + 0x20) & 0xffff, 0xa33f);
    kit_string_is(&k, 0x90000 + (kit_u32(&k, zero + 0x20) >> 16), k.cfg.append);
    assert_int_equal(kit_u32(&k, zero + 0x1e0), (64 << 10) - 1024);
    kit_close(&k);
}

static void small_memory(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 20 * MIB);
    size_t len = make(0x20f);
    /* 8 MiB from 16 MiB do not fit: a relocatable kernel goes to the lowest place that is aligned as it asks. */
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.rip, 0x200200);
    assert_int_equal(kit_u32(&k, k.start.rsi + 0x214), 0x200000);
    image[0x234] = 0;
    kit_refuses(&k, image, len, "try more --memory");
    kit_close(&k);
    kit_open(&k, 8 * MIB);
    make(0x20f);
    kit_refuses(&k, image, len, "try more --memory");
    kit_close(&k);
}

static void initrd(void **state)
{
    struct boot_kit k;
    uint8_t bytes[10000];
    (void)state;
    kit_fill(bytes, sizeof(bytes), 4);
    char *path = kit_file(bytes, sizeof(bytes));
    kit_open(&k, 64 * MIB);
    k.cfg.initrd = path;
    size_t len = make(0x20f);
    assert_int_equal(kit_boot(&k, image, len), 0);
    uint64_t at = kit_u32(&k, k.start.rsi + 0x218);
    assert_int_equal(kit_u32(&k, k.start.rsi + 0x21c), sizeof(bytes));
    assert_int_equal(at, 64 * MIB - 3 * 4096);
    kit_bytes_are(&k, at, bytes, sizeof(bytes));
    /* Below the highest address that the kernel allows: its last byte is at most there. */
    put_le32(image + 0x22c, 0x2003fff);
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(kit_u32(&k, k.start.rsi + 0x218), 0x2001000);
    /* An initrd that would have to lie where the kernel starts. */
    put_le32(image + 0x22c, 0xfff);
    kit_refuses(&k, image, len, "initrd");
    kit_close_file(path);
    kit_close(&k);
}

static void refuses(void **state)
{
    struct boot_kit k;
    char line[2049];
    (void)state;
    kit_open(&k, 64 * MIB);
    size_t len = make(0x20f);
    kit_refuses(&k, image, len - 16, "cut off");
    kit_refuses(&k, image, SETUP_LEN, "ends within its setup");
    make(0x1ff);
    kit_refuses(&k, image, len, "older than 2.00");
    make(0x20f);
    image[0x211] = 0;
    kit_refuses(&k, image, len, "zImage");
    make(0x20f);
    put_le32(image + 0x1f4, 0);
    kit_refuses(&k, image, len, "has no kernel");
    make(0x20f);
    put_le32(image + 0x1f4, UINT32_MAX);
    kit_refuses(&k, image, len, "cut off");
    make(0x20f);
    put_le32(image + 0x260, UINT32_MAX);
    kit_refuses(&k, image, len, "try more --memory");
    make(0x20f);
    image[0x234] = 0;
    put_le64(image + 0x258, UINT64_MAX - 4096);
    kit_refuses(&k, image, len, "try more --memory");
    make(0x20f);
    memset(line, 'a', sizeof(line) - 1);
    line[2048] = '\0';
    k.cfg.append = line;
    kit_refuses(&k, image, len, "takes 2047");
    line[2047] = '\0';
    assert_int_equal(kit_boot(&k, image, len), 0);
    kit_close(&k);
}

static void chooses_entry(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 64 * MIB);
    size_t len = make(0x20f);
    /* Nothing packed that we know: classic entry, and why is told. */
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.mode, BOOT_LONG64);
    assert_non_null(strstr(k.warning, "entering as bzImage"));
    k.cfg.entry = KERNEL_ENTRY_PVH;
    kit_refuses(&k, image, len, "--kernel-entry bzimage");

    add_payload(true);
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.mode, BOOT_PROTECTED32);
    assert_int_equal(k.start.rip, 0x1000002);
    assert_int_equal(kit_u32(&k, 0x1000000), 0x00f49090);
    k.cfg.entry = KERNEL_ENTRY_AUTO;
    k.start.rip = 0;
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.rip, 0x1000002);
    k.cfg.entry = KERNEL_ENTRY_BZIMAGE;
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.mode, BOOT_LONG64);

    make(0x20f);
    add_payload(false);
    k.cfg.entry = KERNEL_ENTRY_AUTO;
    assert_int_equal(kit_boot(&k, image, len), 0);
    assert_int_equal(k.start.mode, BOOT_LONG64);
    k.cfg.entry = KERNEL_ENTRY_PVH;
    kit_refuses(&k, image, len, "PVH");
    /* A payload outside the file is none. */
    put_le32(image + 0x24c, UINT32_MAX);
    kit_refuses(&k, image, len, "--kernel-entry bzimage");
    kit_close(&k);
}

static void check_debian(const char *arch, enum boot_mode classic)
{
    char *path = kit_guest(arch);
    if (!path) {
        print_message("no kernel of %s in the cache: run tools/fetch-guests\n", arch);
        skip();
    }
    struct boot_kit k;
    kit_open(&k, 512 * MIB);
    k.cfg.entry = KERNEL_ENTRY_PVH;
    if (kit_boot_file(&k, path))
        fail_msg("%s", k.e.text);
    assert_int_equal(k.start.mode, BOOT_PROTECTED32);
    assert_true(k.start.rip >= 0x1000000 && k.start.rip < 0x8000000);
    /* pvh_start_xen begins with cld. */
    assert_int_equal(kit_u32(&k, k.start.rip) & 0xff, 0xfc);
    k.cfg.entry = KERNEL_ENTRY_BZIMAGE;
    assert_int_equal(kit_boot_file(&k, path), 0);
    assert_int_equal(k.start.mode, classic);
    /* Both entries of the decompressor begin with cld, too. */
    assert_int_equal(kit_u32(&k, k.start.rip) & 0xff, 0xfc);
    k.cfg.entry = KERNEL_ENTRY_AUTO;
    assert_int_equal(kit_boot_file(&k, path), 0);
    assert_int_equal(k.start.mode, BOOT_PROTECTED32);
    assert_int_equal(kit_u32(&k, k.start.rbx), 0x336ec578);
    kit_close(&k);
    free(path);
}

static void debian_64(void **state)
{
    (void)state;
    check_debian("amd64", BOOT_LONG64);
}

static void debian_32(void **state)
{
    (void)state;
    check_debian("i386", BOOT_PROTECTED32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boots_64),      cmocka_unit_test(maps_identity), cmocka_unit_test(boots_32),
        cmocka_unit_test(boots_ancient), cmocka_unit_test(small_memory),  cmocka_unit_test(initrd),
        cmocka_unit_test(refuses),       cmocka_unit_test(chooses_entry), cmocka_unit_test(debian_64),
        cmocka_unit_test(debian_32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
