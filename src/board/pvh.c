/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Booting an ELF kernel by the PVH protocol: 32-bit protected mode, paging off, EBX -> struct hvm_start_info.
 * Source: Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "board/boot.h"
#include "board/elf.h"
#include "board/pc.h"

#define START_MAGIC 0x336ec578u
/* No kernel takes a longer one; it bounds what is put into conventional memory. */
#define CMDLINE_MAX 16384u

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp;
    uint64_t memmap; /* from version 1 */
    uint32_t memmap_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "layout is the protocol's");

struct module_entry {
    uint64_t base, len, cmdline, reserved;
};

struct memmap_entry {
    uint64_t base, len;
    uint32_t type, reserved;
};

/* The three structures lie together. */
struct handover {
    struct start_info info;
    struct module_entry module;
    struct memmap_entry memmap[MAP_RANGES_MAX];
};

static void fill_handover(const struct boot *b, struct handover *h, uint64_t at, uint64_t cmdline)
{
    h->info = (struct start_info){
        .magic = START_MAGIC,
        .version = 1,
        .nr_modules = h->module.len ? 1 : 0,
        .modlist = h->module.len ? at + offsetof(struct handover, module) : 0,
        .cmdline = cmdline,
        .rsdp = b->rsdp,
        .memmap = at + offsetof(struct handover, memmap),
        .memmap_entries = b->map->count,
    };
    for (unsigned i = 0; i < b->map->count; i++)
        h->memmap[i] = (struct memmap_entry){ b->map->range[i].base, b->map->range[i].len,
                                              b->map->range[i].type, 0 };
}

static int load_kernel(struct boot *b, const uint8_t *elf, size_t len, uint32_t *entry, struct error *e)
{
    struct elf_info info;
    int r = elf_parse(elf, len, &info, e);
    if (r) {
        error_wrap(e, "kernel %s", b->kernel.path);
        return r;
    }
    if (!info.has_pvh)
        return error_set(e, -ENOEXEC,
                         "kernel %s: the ELF file has neither a PVH entry (Linux's CONFIG_PVH) nor a "
                         "Multiboot header; try the bzImage with --kernel-entry bzimage",
                         b->kernel.path);
    *entry = info.pvh_entry;
    return elf_load(b, elf, &info, e);
}

int pvh_boot(struct boot *b, const uint8_t *elf, size_t len, struct error *e)
{
    struct handover h = { 0 };
    uint64_t at, cmdline;
    uint32_t entry = 0;

    if (strlen(b->cfg->append) > CMDLINE_MAX)
        return error_set(e, -E2BIG, "--append: the command line has more than %u characters; shorten it",
                         CMDLINE_MAX);
    int r = load_kernel(b, elf, len, &entry, e);
    if (!r)
        r = boot_put_string(b, b->cfg->append, "the command line", &cmdline, e);
    if (!r)
        r = boot_load_initrd(b, PC_PCI_HOLE, &h.module.base, &h.module.len, e);
    if (!r)
        r = boot_place_low(b, sizeof(h), 16, "the start information", &at, e);
    if (r)
        return r;
    fill_handover(b, &h, at, cmdline);
    r = boot_put(b, at, &h, sizeof(h), e);
    if (r)
        return r;
    b->start->rbx = at;
    return boot_enter_protected32(b, entry, e);
}
