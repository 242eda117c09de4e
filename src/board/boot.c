/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing the boot protocol for a kernel file, and the steps that the protocols share. */
#include "board/boot.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "board/bzimage.h"
#include "board/elf.h"
#include "board/multiboot.h"
#include "board/pc.h"
#include "board/unpack.h"

/* With debugging information a kernel's file is far larger than what is loaded of it. */
#define KERNEL_FILE_MAX (1ull << 30)

/* --- shared steps --------------------------------------------------------------------------------------- */

int boot_put(struct boot *b, uint64_t at, const void *src, size_t len, struct error *e)
{
    int r = pmap_load(b->pmap, GPA(at), src, len);
    return r ? error_set(e, r, "%s %s: cannot write %zu bytes at 0x%llx of guest memory", b->kernel.role,
                         b->kernel.path, len, (unsigned long long)at)
             : 0;
}

struct destination {
    struct boot *b;
    uint64_t at;
};

static int put_part(void *ctx, uint64_t done, const uint8_t *data, size_t n, struct error *e)
{
    const struct destination *d = ctx;
    return boot_put(d->b, d->at + done, data, n, e);
}

int boot_put_file(struct boot *b, uint64_t at, const struct image *im, uint64_t off, uint64_t len,
                  struct error *e)
{
    struct destination d = { b, at };
    return image_each_part(im, off, len, put_part, &d, e);
}

int boot_zero(struct boot *b, uint64_t at, uint64_t len, struct error *e)
{
    static const uint8_t zeros[65536];
    int r = 0;
    for (uint64_t done = 0, n; done < len && !r; done += n) {
        n = len - done < sizeof(zeros) ? len - done : sizeof(zeros);
        r = boot_put(b, at + done, zeros, n, e);
    }
    return r;
}

int boot_place_low(struct boot *b, uint64_t len, uint64_t align, const char *what, uint64_t *at,
                   struct error *e)
{
    return place_below(&b->place, len, align, PC_CONVENTIONAL_END, what, at, e);
}

int boot_put_string(struct boot *b, const char *s, const char *what, uint64_t *at, struct error *e)
{
    size_t len = strlen(s) + 1;
    int r = boot_place_low(b, len, 16, what, at, e);
    return r ? r : boot_put(b, *at, s, len, e);
}

int boot_load_initrd(struct boot *b, uint64_t top, uint64_t *at, uint64_t *len, struct error *e)
{
    *at = *len = 0;
    if (!b->cfg->initrd)
        return 0;
    struct image im;
    int r = image_open(&im, "initrd", b->cfg->initrd, e);
    if (r)
        return r;
    if (!image_measure(&im, b->map->low_end))
        r = image_read_rest(&im, b->map->low_end, e);
    *len = image_size(&im);
    if (!r) {
        r = place_below(&b->place, *len, PAGE_SIZE, top, "the initrd", at, e);
        if (r)
            error_wrap(e, "initrd %s", im.path);
    }
    if (!r)
        r = boot_put_file(b, *at, &im, 0, *len, e);
    image_close(&im);
    return r;
}

/* A flat segment's descriptor (SDM 3A 3.4.5): base 0, limit 4 GiB, present, ring 0. */
enum { FLAT_CODE32 = 0x9b, FLAT_DATA = 0x93 };
static uint64_t flat_descriptor(unsigned type, bool long_mode)
{
    uint64_t granular = BIT(55), size = long_mode ? BIT(53) : BIT(54);
    return 0x000f00000000ffffull | (uint64_t)type << 40 | granular | size;
}

static int put_gdt(struct boot *b, bool long_mode, struct error *e)
{
    uint64_t at,
        gdt[4] = { 0, 0, flat_descriptor(FLAT_CODE32, long_mode), flat_descriptor(FLAT_DATA, false) };
    int r = boot_place_low(b, sizeof(gdt), 16, "the boot descriptor table", &at, e);
    if (r)
        return r;
    b->start->gdt_base = at;
    b->start->gdt_limit = sizeof(gdt) - 1;
    b->start->code_sel = BOOT_CODE;
    b->start->data_sel = BOOT_DATA;
    return boot_put(b, at, gdt, sizeof(gdt), e);
}

int boot_enter_protected32(struct boot *b, uint32_t entry, struct error *e)
{
    b->start->mode = BOOT_PROTECTED32;
    b->start->rip = entry;
    return put_gdt(b, false, e);
}

/* Page tables of 2 MiB pages: one PML4, one PDPT, four directories, one after another. */
enum { IDENTITY_TABLES = 6, PTE_PRESENT_WRITE = 3, PTE_LARGE = 0x80 };
static int put_identity_map(struct boot *b, struct error *e)
{
    uint64_t at, table[512] = { 0 };
    int r = boot_place_low(b, IDENTITY_TABLES * PAGE_SIZE, PAGE_SIZE, "the boot page tables", &at, e);
    if (r)
        return r;
    table[0] = (at + PAGE_SIZE) | PTE_PRESENT_WRITE;
    r = boot_put(b, at, table, sizeof(table), e);
    for (unsigned i = 0; i < 4; i++)
        table[i] = (at + (2 + i) * PAGE_SIZE) | PTE_PRESENT_WRITE;
    if (!r)
        r = boot_put(b, at + PAGE_SIZE, table, sizeof(table), e);
    for (unsigned d = 0; d < 4 && !r; d++) {
        for (unsigned i = 0; i < 512; i++)
            table[i] = ((uint64_t)d << 30 | (uint64_t)i << 21) | PTE_PRESENT_WRITE | PTE_LARGE;
        r = boot_put(b, at + (2 + d) * PAGE_SIZE, table, sizeof(table), e);
    }
    b->start->cr3 = at;
    return r;
}

int boot_enter_long64(struct boot *b, uint64_t entry, struct error *e)
{
    b->start->mode = BOOT_LONG64;
    b->start->rip = entry;
    int r = put_gdt(b, true, e);
    return r ? r : put_identity_map(b, e);
}

/* --- choosing ------------------------------------------------------------------------------------------- */

/* The ELF kernel packed inside a bzImage, entered by PVH. */
static int boot_packed_pvh(struct boot *b, struct error *e)
{
    uint8_t *elf = NULL;
    size_t len = 0;
    int r = bzimage_unpack(&b->kernel, b->map->low_end, &elf, &len, e);
    if (!r)
        r = pvh_boot(b, elf, len, e);
    unpack_free(elf);
    return r;
}

/* PVH skips the kernel's own decompressor, most of the way to init; what it cannot enter starts the classic
 * way. */
static int boot_bzimage_auto(struct boot *b, struct error *e)
{
    struct error why = { 0 };
    uint8_t *elf = NULL;
    size_t len = 0;
    struct elf_info info;
    int r = bzimage_unpack(&b->kernel, b->map->low_end, &elf, &len, &why);
    if (!r)
        r = elf_parse(elf, len, &info, &why);
    if (!r && !info.has_pvh)
        r = error_set(&why, -ENOEXEC, "the packed kernel has no PVH entry");
    if (r) {
        log_line(b->log, LOG_INFO, "entering as bzImage: %s", why.text);
        r = bzimage_boot(b, e);
    } else {
        r = pvh_boot(b, elf, len, e);
    }
    unpack_free(elf);
    return r;
}

static int boot_bzimage_choose(struct boot *b, struct error *e)
{
    /* What is unpacked here is needed whole; the rest goes from the file into the guest. */
    if (b->kernel.stream && b->cfg->entry != KERNEL_ENTRY_BZIMAGE) {
        int r = image_read_rest(&b->kernel, KERNEL_FILE_MAX, e);
        if (r)
            return r;
    }
    switch (b->cfg->entry) {
    case KERNEL_ENTRY_BZIMAGE: return bzimage_boot(b, e);
    case KERNEL_ENTRY_PVH: return boot_packed_pvh(b, e);
    default: return boot_bzimage_auto(b, e);
    }
}

static int boot_elf(struct boot *b, struct error *e) { return pvh_boot(b, b->kernel.data, b->kernel.len, e); }

/* What a file is, by its first bytes, most telling first; and which entries it has. */
static const struct kernel_kind {
    const char *name;
    bool (*is)(const uint8_t *head, size_t len);
    int (*boot)(struct boot *b, struct error *e);
    unsigned entries; /* bit n: --kernel-entry n */
    bool in_parts;    /* its boot takes a file that was only measured */
} kernel_kinds[] = {
    { "bzImage", bzimage_is, boot_bzimage_choose,
      1u << KERNEL_ENTRY_AUTO | 1u << KERNEL_ENTRY_BZIMAGE | 1u << KERNEL_ENTRY_PVH, true },
    { "Multiboot kernel", multiboot_is, multiboot_boot, 1u << KERNEL_ENTRY_AUTO, false },
    { "ELF file", elf_is, boot_elf, 1u << KERNEL_ENTRY_AUTO | 1u << KERNEL_ENTRY_PVH, false },
};

static const char *const entry_names[] = {
    [KERNEL_ENTRY_AUTO] = "auto",
    [KERNEL_ENTRY_BZIMAGE] = "bzimage",
    [KERNEL_ENTRY_PVH] = "pvh",
};

/* The first kind that fits the file and the entry asked for; NULL with a message when there is none. */
static const struct kernel_kind *find_kind(const struct boot *b, struct error *e)
{
    size_t len = b->kernel.len < IMAGE_HEAD ? b->kernel.len : IMAGE_HEAD;
    const struct kernel_kind *other = NULL;
    for (unsigned i = 0; i < array_size(kernel_kinds); i++) {
        if (!kernel_kinds[i].is(b->kernel.data, len))
            continue;
        other = &kernel_kinds[i];
        if (other->entries & (1u << b->cfg->entry))
            return other;
    }
    if (other)
        error_set(e, -ENOEXEC, "kernel %s: a %s has no entry '%s'; try --kernel-entry auto", b->kernel.path,
                  other->name, entry_names[b->cfg->entry]);
    else
        error_set(e, -ENOEXEC,
                  "kernel %s: neither a Linux bzImage, a Multiboot kernel nor an ELF file; "
                  "give the file that a boot loader would load (such as /boot/vmlinuz)",
                  b->kernel.path);
    return NULL;
}

int boot_image(struct boot *b, struct error *e)
{
    b->place = (struct placement){ .map = b->map };
    *b->start = (struct boot_cpu_state){ 0 };
    const struct kernel_kind *kind = find_kind(b, e);
    return kind ? kind->boot(b, e) : -ENOEXEC;
}

int boot_kernel(const struct board_config *cfg, const struct memory_map *map, struct pmap *pmap,
                uint64_t rsdp, struct log *log, struct boot_cpu_state *start, struct error *e)
{
    struct boot b = { .cfg = cfg, .map = map, .pmap = pmap, .log = log, .rsdp = rsdp, .start = start };
    int r = image_open(&b.kernel, "kernel", cfg->kernel, e);
    if (r)
        return r;
    /* What is no kernel is refused before all of it is read. */
    const struct kernel_kind *kind = find_kind(&b, e);
    r = kind ? 0 : -ENOEXEC;
    if (!r && !(kind->in_parts && image_measure(&b.kernel, KERNEL_FILE_MAX)))
        r = image_read_rest(&b.kernel, KERNEL_FILE_MAX, e);
    if (!r)
        r = boot_image(&b, e);
    image_close(&b.kernel);
    return r;
}
