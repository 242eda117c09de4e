/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Booting a Linux bzImage the way boot loaders do: the protected-mode part is loaded and entered directly, with
 * the zero page (struct boot_params) telling memory, initrd and command line. Source: Linux,
 * Documentation/arch/x86/boot.rst and zero-page.rst.
 *
 *   file:  │ setup: boot sector, header at 0x1f1, real-mode code │ protected-mode code, in it the packed kernel │
 */
#include "board/bzimage.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/checked.h"
#include "board/boot.h"
#include "board/pc.h"
#include "board/unpack.h"

/* The setup header; offsets are the same in the file and in the zero page. */
enum {
    SETUP_SECTS = 0x1f1, /* first byte of the header */
    SYSSIZE = 0x1f4,     /* in 16-byte units */
    BOOT_FLAG = 0x1fe,
    HEADER_JUMP = 0x201, /* its operand: the header's end, counted from 0x202 */
    HEADER_MAGIC = 0x202,
    VERSION = 0x206,
    TYPE_OF_LOADER = 0x210,
    LOADFLAGS = 0x211,
    CODE32_START = 0x214,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    CMD_LINE_PTR = 0x228,
    INITRD_ADDR_MAX = 0x22c,
    KERNEL_ALIGNMENT = 0x230,
    RELOCATABLE_KERNEL = 0x234,
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PAYLOAD_OFFSET = 0x248,
    PAYLOAD_LENGTH = 0x24c,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END_MAX = 0x290, /* the e820 buffer for EDD begins here */
};

/* Fields of the zero page outside the header. */
enum {
    EXT_MEM_K = 0x002,
    OLD_CMDLINE_MAGIC = 0x020,
    OLD_CMDLINE_OFFSET = 0x022,
    ACPI_RSDP_ADDR = 0x070,
    ALT_MEM_K = 0x1e0,
    E820_ENTRIES = 0x1e8,
    E820_TABLE = 0x2d0,
    E820_ENTRY_LEN = 20,
};

enum {
    LOADED_HIGH = 1,
    XLF_KERNEL_64 = 1,
    LOADER_UNDEFINED = 0xff, /* "no registered loader id" */
    SECTOR = 512,
    ENTRY64_OFFSET = 0x200,
    OLD_CMDLINE_VALUE = 0xa33f,
    OLD_CMDLINE_BASE = 0x90000,
};

bool bzimage_is(const uint8_t *head, size_t len)
{
    return len >= SECTOR * 2 && get_le16(head + BOOT_FLAG) == 0xaa55 &&
           !memcmp(head + HEADER_MAGIC, "HdrS", 4);
}

static int bad(const struct image *im, struct error *e, const char *why)
{
    return error_set(e, -ENOEXEC, "kernel %s: the bzImage %s", im->path, why);
}

/* Where the two parts of the file end. */
static int measure_parts(const struct image *im, struct bzimage *bz, struct error *e)
{
    const uint8_t *h = im->data;
    unsigned sectors = h[SETUP_SECTS] ? h[SETUP_SECTS] : 4;
    bz->setup_len = (sectors + 1) * SECTOR;
    if (image_size(im) <= bz->setup_len)
        return bad(im, e, "ends within its setup code; try a fresh copy");
    uint64_t rest = image_size(im) - bz->setup_len;
    uint64_t told = get_le32(h + SYSSIZE) * 16ull;
    /* Before 2.04 the field has 16 bits that count; the file's length is what remains to go by. */
    if (bz->version < 0x204)
        told = rest;
    /* The size is rounded up to 16 bytes; what follows (a signature) is not loaded. */
    if (told > rest + 15)
        return bad(im, e, "is cut off before the end its header tells; try a fresh copy");
    bz->code_len = (uint32_t)(told < rest ? told : rest);
    return bz->code_len ? 0 : bad(im, e, "has no kernel after its setup code");
}

/* Fields that came with later versions of the protocol. */
static void read_optional(const uint8_t *h, struct bzimage *bz)
{
    uint16_t v = bz->version;
    uint64_t code_end = (uint64_t)bz->setup_len + bz->code_len;
    bz->initrd_max = v >= 0x203 ? get_le32(h + INITRD_ADDR_MAX) : 0x37ffffff;
    bz->relocatable = v >= 0x205 && h[RELOCATABLE_KERNEL];
    bz->alignment = v >= 0x205 ? get_le32(h + KERNEL_ALIGNMENT) : 0;
    bz->cmdline_max = v >= 0x206 ? get_le32(h + CMDLINE_SIZE) : 255;
    bz->preferred = v >= 0x20a ? get_le64(h + PREF_ADDRESS) : PC_EXTENDED;
    bz->memory_len = v >= 0x20a ? get_le32(h + INIT_SIZE) : 0;
    bz->entry64 = v >= 0x20c && (get_le16(h + XLOADFLAGS) & XLF_KERNEL_64) && bz->code_len > ENTRY64_OFFSET;
    if (v >= 0x208) {
        uint64_t at = (uint64_t)bz->setup_len + get_le32(h + PAYLOAD_OFFSET),
                 len = get_le32(h + PAYLOAD_LENGTH);
        if (len && ck_range(at, len, code_end)) {
            bz->payload = (uint32_t)at;
            bz->payload_len = (uint32_t)len;
        }
    }
    if (bz->memory_len < bz->code_len)
        bz->memory_len = bz->code_len;
    if (bz->alignment & (bz->alignment - 1) || bz->alignment < PAGE_SIZE)
        bz->alignment = 1u << 21;
}

int bzimage_parse(const struct image *im, struct bzimage *bz, struct error *e)
{
    const uint8_t *h = im->data;
    *bz = (struct bzimage){ 0 };
    if (!bzimage_is(h, im->len))
        return bad(im, e, "ends within its header; try a fresh copy");
    bz->version = get_le16(h + VERSION);
    if (bz->version < 0x200)
        return bad(im, e, "speaks a boot protocol older than 2.00 (Linux 1.3.73); try a newer kernel");
    if (!(h[LOADFLAGS] & LOADED_HIGH))
        return bad(im, e, "is a zImage, made to be loaded below 1 MiB; build it as bzImage");
    int r = measure_parts(im, bz, e);
    if (r)
        return r;
    read_optional(h, bz);
    return 0;
}

int bzimage_unpack(const struct image *im, uint64_t limit, uint8_t **elf, size_t *len, struct error *e)
{
    struct bzimage bz;
    *elf = NULL;
    int r = bzimage_parse(im, &bz, e);
    if (r)
        return r;
    if (!bz.payload_len)
        return bad(im, e,
                   "does not tell where the packed kernel is (boot protocol 2.08 does); "
                   "try --kernel-entry bzimage");
    r = unpack(im->data + bz.payload, bz.payload_len, limit, elf, len, e);
    if (r)
        error_wrap(e, "kernel %s", im->path);
    return r;
}

/* --- booting -------------------------------------------------------------------------------------------- */

/* The preferred place if it is free RAM, else for a relocatable kernel the lowest that is. */
static int place_code(struct boot *b, const struct bzimage *bz, uint64_t *at, struct error *e)
{
    static const char what[] = "the kernel";
    int r = -ENOMEM;
    *at = bz->preferred;
    /* Entered below 4 GiB in any case. */
    if (bz->preferred < PC_PCI_HOLE)
        r = place_fixed(&b->place, bz->preferred, bz->memory_len, what, NULL);
    if (r && bz->relocatable)
        r = place_above(&b->place, bz->memory_len, bz->alignment, PC_EXTENDED, what, at, NULL);
    if (!r && *at >= PC_PCI_HOLE)
        r = -ENOMEM;
    if (r)
        return error_set(e, r,
                         "kernel %s: needs %llu MiB of memory from 0x%llx while it starts, but RAM ends at "
                         "0x%llx; try more --memory",
                         b->kernel.path, (unsigned long long)(bz->memory_len >> 20),
                         (unsigned long long)bz->preferred, (unsigned long long)b->map->low_end);
    return 0;
}

static int put_cmdline(struct boot *b, const struct bzimage *bz, uint64_t *at, struct error *e)
{
    size_t len = strlen(b->cfg->append);
    if (len > bz->cmdline_max)
        return error_set(e, -E2BIG,
                         "--append: the command line has %zu characters, but kernel %s takes %u; "
                         "shorten it",
                         len, b->kernel.path, bz->cmdline_max);
    /* The high end of conventional memory is in the segment where kernels before protocol 2.02 look for it. */
    return boot_put_string(b, b->cfg->append, "the command line", at, e);
}

static void fill_e820(const struct memory_map *map, uint8_t *zero)
{
    zero[E820_ENTRIES] = (uint8_t)map->count;
    for (unsigned i = 0; i < map->count; i++) {
        uint8_t *entry = zero + E820_TABLE + (size_t)i * E820_ENTRY_LEN;
        put_le64(entry, map->range[i].base);
        put_le64(entry + 8, map->range[i].len);
        put_le32(entry + 16, map->range[i].type);
    }
    /* Where kernels without e820 look: KiB above 1 MiB. */
    uint64_t extended = (map->low_end - PC_EXTENDED) >> 10;
    put_le16(zero + EXT_MEM_K, (uint16_t)(extended < 0xfc00 ? extended : 0xfc00));
    put_le32(zero + ALT_MEM_K, (uint32_t)extended);
}

struct loaded {
    uint64_t code, cmdline, initrd, initrd_len;
};

static void fill_zero_page(const struct boot *b, const struct bzimage *bz, const struct loaded *at,
                           uint8_t *zero)
{
    const uint8_t *h = b->kernel.data;
    unsigned end = HEADER_MAGIC + h[HEADER_JUMP];
    if (end > HEADER_END_MAX)
        end = HEADER_END_MAX;
    memset(zero, 0, PAGE_SIZE);
    memcpy(zero + SETUP_SECTS, h + SETUP_SECTS, end - SETUP_SECTS);
    zero[TYPE_OF_LOADER] = LOADER_UNDEFINED;
    put_le32(zero + CODE32_START, (uint32_t)at->code);
    put_le32(zero + RAMDISK_IMAGE, (uint32_t)at->initrd);
    put_le32(zero + RAMDISK_SIZE, (uint32_t)at->initrd_len);
    if (bz->version >= 0x202) {
        put_le32(zero + CMD_LINE_PTR, (uint32_t)at->cmdline);
    } else {
        put_le16(zero + OLD_CMDLINE_MAGIC, OLD_CMDLINE_VALUE);
        put_le16(zero + OLD_CMDLINE_OFFSET, (uint16_t)(at->cmdline - OLD_CMDLINE_BASE));
    }
    if (bz->version >= 0x20e)
        put_le64(zero + ACPI_RSDP_ADDR, b->rsdp);
    fill_e820(b->map, zero);
}

int bzimage_boot(struct boot *b, struct error *e)
{
    struct bzimage bz;
    struct loaded at;
    uint64_t zero_at;
    uint8_t zero[PAGE_SIZE];

    int r = bzimage_parse(&b->kernel, &bz, e);
    if (!r)
        r = place_code(b, &bz, &at.code, e);
    if (!r)
        r = boot_put_file(b, at.code, &b->kernel, bz.setup_len, bz.code_len, e);
    if (!r)
        r = put_cmdline(b, &bz, &at.cmdline, e);
    if (!r)
        r = boot_load_initrd(b, bz.initrd_max < PC_PCI_HOLE ? bz.initrd_max + 1ull : PC_PCI_HOLE, &at.initrd,
                             &at.initrd_len, e);
    if (!r)
        r = boot_place_low(b, PAGE_SIZE, PAGE_SIZE, "the zero page", &zero_at, e);
    if (r)
        return r;
    fill_zero_page(b, &bz, &at, zero);
    r = boot_put(b, zero_at, zero, sizeof(zero), e);
    if (r)
        return r;
    b->start->rsi = zero_at;
    return bz.entry64 ? boot_enter_long64(b, at.code + ENTRY64_OFFSET, e)
                      : boot_enter_protected32(b, (uint32_t)at.code, e);
}
