/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Booting a Multiboot kernel: 32-bit protected mode, paging off, EAX the magic number, EBX -> the information
 * structure.
 * Source: Multiboot Specification version 0.6.96, chapter 3.
 */
#include "board/multiboot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/checked.h"
#include "board/boot.h"
#include "board/elf.h"
#include "board/pc.h"

enum {
    SEARCH_LEN = 8192,
    HEADER_MAGIC = 0x1badb002,
    LOADER_MAGIC = 0x2badb002,
    MODULES_MAX = 64,
    STRING_MAX = 16384,
};

/* Header flags: bits 0-15 must be understood or the kernel refused, the rest may be ignored. */
enum {
    WANTS_PAGE_ALIGNED_MODULES = 1 << 0,
    WANTS_MEMORY_INFO = 1 << 1,
    WANTS_VIDEO_MODE = 1 << 2,
    HAS_ADDRESSES = 1 << 16,
    MUST_UNDERSTAND = 0xffff,
    UNDERSTOOD = WANTS_PAGE_ALIGNED_MODULES | WANTS_MEMORY_INFO | WANTS_VIDEO_MODE,
};

struct header {
    uint32_t magic, flags, checksum;
    /* valid with HAS_ADDRESSES */
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

/* Which fields of the information structure are valid. */
enum {
    INFO_MEMORY = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MAP = 1 << 6,
    INFO_LOADER = 1 << 9
};

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name, apm_table;
    uint32_t vbe[4];
};
_Static_assert(sizeof(struct info) == 88, "layout is the specification's");

struct module {
    uint32_t start, end, string, reserved;
};

struct mmap_entry {
    uint32_t size; /* of the rest */
    uint32_t base[2], len[2], type;
};

/* The structures that lie together in conventional memory. */
struct handover {
    struct info info;
    struct module module[MODULES_MAX];
    struct mmap_entry mmap[MAP_RANGES_MAX];
};

/* --- the kernel ----------------------------------------------------------------------------------------- */

/* Offset of the header, or -1. */
static long find_header(const uint8_t *data, size_t len, struct header *h)
{
    size_t end = len < SEARCH_LEN ? len : SEARCH_LEN;
    for (size_t at = 0; ck_range(at, 12, end); at += 4) {
        if (get_le32(data + at) != HEADER_MAGIC)
            continue;
        uint32_t flags = get_le32(data + at + 4);
        if (HEADER_MAGIC + flags + get_le32(data + at + 8) != 0)
            continue;
        *h = (struct header){ 0 };
        size_t want = flags & HAS_ADDRESSES ? sizeof(*h) : 12;
        if (!ck_range(at, want, len))
            continue;
        memcpy(h, data + at, want);
        return (long)at;
    }
    return -1;
}

bool multiboot_is(const uint8_t *head, size_t len)
{
    struct header h;
    return find_header(head, len, &h) >= 0;
}

static int bad(const struct boot *b, struct error *e, const char *why)
{
    return error_set(e, -ENOEXEC, "kernel %s: the Multiboot kernel %s", b->kernel.path, why);
}

/* A kernel of any format that gives its load addresses in the header. */
static int load_by_addresses(struct boot *b, const struct header *h, uint32_t header_at, uint32_t *entry,
                             uint64_t *end, struct error *e)
{
    static const char what[] = "the kernel";
    if (h->header_addr < h->load_addr || h->header_addr - h->load_addr > header_at)
        return bad(b, e, "gives a load address that is not in the file");
    uint64_t from = header_at - (h->header_addr - h->load_addr);
    uint64_t len = b->kernel.len - from;
    if (h->load_end_addr) {
        if (h->load_end_addr <= h->load_addr)
            return bad(b, e, "gives an end address before its load address");
        if (h->load_end_addr - h->load_addr > len)
            return bad(b, e, "is cut off: its end address lies beyond the file; try a fresh copy");
        len = h->load_end_addr - h->load_addr;
    }
    uint64_t loaded = h->load_addr + len;
    *end = h->bss_end_addr > loaded ? h->bss_end_addr : loaded;
    *entry = h->entry_addr;
    int r = place_fixed(&b->place, h->load_addr, *end - h->load_addr, what, e);
    if (r) {
        error_wrap(e, "kernel %s", b->kernel.path);
        return r;
    }
    r = boot_put(b, h->load_addr, b->kernel.data + from, len, e);
    return r ? r : boot_zero(b, loaded, *end - loaded, e);
}

static int load_elf(struct boot *b, uint32_t *entry, uint64_t *end, struct error *e)
{
    struct elf_info info;
    if (!elf_is(b->kernel.data, b->kernel.len))
        return bad(b, e, "is no ELF file and its header gives no addresses (flag 16)");
    int r = elf_parse(b->kernel.data, b->kernel.len, &info, e);
    if (r) {
        error_wrap(e, "kernel %s", b->kernel.path);
        return r;
    }
    if (info.entry > UINT32_MAX)
        return bad(b, e, "has its entry above 4 GiB, where 32-bit mode does not reach");
    if (!info.entry_inside)
        return bad(b, e, "has its entry outside of everything it loads");
    *entry = (uint32_t)info.entry;
    *end = info.high;
    return elf_load(b, b->kernel.data, &info, e);
}

/* --- its modules ---------------------------------------------------------------------------------------- */

static int load_module(struct boot *b, char *spec, uint64_t bottom, struct module *m, struct error *e)
{
    struct image im;
    uint64_t at, string;
    int r = boot_put_string(b, spec, "a module's command line", &string, e);
    if (r)
        return r;
    spec[strcspn(spec, " ")] = '\0';
    r = image_read(&im, "module", spec, b->map->low_end, e);
    if (r)
        return r;
    r = place_above(&b->place, im.len, PAGE_SIZE, bottom, "a module", &at, e);
    if (!r && at + im.len > PC_PCI_HOLE)
        r = error_set(e, -ENOMEM, "no room for it below the PCI hole; try more --memory");
    if (r)
        error_wrap(e, "module %s", im.path);
    else
        r = boot_put(b, at, im.data, im.len, e);
    if (!r)
        *m = (struct module){ (uint32_t)at, (uint32_t)(at + im.len), (uint32_t)string, 0 };
    image_close(&im);
    return r;
}

/* Splits the next "path args" off a list at commas; two commas are one that does not split. */
static char *next_spec(char **list)
{
    char *spec = *list, *to = spec;
    for (char *from = spec;; from++) {
        if (*from == ',' && from[1] != ',') {
            *to = '\0';
            *list = from + 1;
            return spec;
        }
        if (*from == ',')
            from++;
        *to++ = *from;
        if (!*from) {
            *list = NULL;
            return spec;
        }
    }
}

/* Modules follow the kernel in memory, each on a page of its own. */
static int load_modules(struct boot *b, uint64_t bottom, struct handover *h, struct error *e)
{
    if (!b->cfg->initrd)
        return 0;
    if (strlen(b->cfg->initrd) > STRING_MAX)
        return error_set(e, -E2BIG, "--initrd: the list of modules has more than %d characters; shorten it",
                         STRING_MAX);
    char *copy = strdup(b->cfg->initrd);
    if (!copy)
        return error_set(e, -ENOMEM, "no memory on the host for the list of modules");
    int r = 0;
    for (char *list = copy; list && !r;) {
        char *spec = next_spec(&list);
        if (h->info.mods_count == MODULES_MAX)
            r = error_set(e, -E2BIG, "--initrd: more than %d modules; give fewer", MODULES_MAX);
        else
            r = load_module(b, spec, bottom, &h->module[h->info.mods_count++], e);
    }
    free(copy);
    return r;
}

/* --- the information structure -------------------------------------------------------------------------- */

static void fill_info(const struct boot *b, struct handover *h, uint64_t at)
{
    struct info *i = &h->info;
    i->flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER;
    i->mem_lower = PC_EBDA >> 10;
    i->mem_upper = (uint32_t)((b->map->low_end - PC_EXTENDED) >> 10);
    i->mods_addr = (uint32_t)(at + offsetof(struct handover, module));
    i->mmap_addr = (uint32_t)(at + offsetof(struct handover, mmap));
    i->mmap_length = b->map->count * (uint32_t)sizeof(struct mmap_entry);
    for (unsigned n = 0; n < b->map->count; n++) {
        const struct map_range *m = &b->map->range[n];
        h->mmap[n] = (struct mmap_entry){ .size = sizeof(struct mmap_entry) - 4, .type = m->type };
        memcpy(h->mmap[n].base, &m->base, 8);
        memcpy(h->mmap[n].len, &m->len, 8);
    }
}

/* As other loaders do: the kernel's file name is the command line's first word. */
static int put_cmdline(struct boot *b, uint64_t *at, struct error *e)
{
    size_t path = strlen(b->kernel.path), args = strlen(b->cfg->append);
    if (path + args > STRING_MAX)
        return error_set(e, -E2BIG,
                         "--append: path and command line have more than %d characters; shorten them",
                         STRING_MAX);
    char *line = malloc(path + args + 2);
    if (!line)
        return error_set(e, -ENOMEM, "no memory on the host for the command line");
    memcpy(line, b->kernel.path, path);
    line[path] = args ? ' ' : '\0';
    memcpy(line + path + 1, b->cfg->append, args + 1);
    int r = boot_put_string(b, line, "the command line", at, e);
    free(line);
    return r;
}

static int load_kernel(struct boot *b, uint32_t *entry, uint64_t *end, struct error *e)
{
    struct header h;
    long at = find_header(b->kernel.data, b->kernel.len, &h);
    if (at < 0)
        return bad(b, e, "lost its header");
    if (h.flags & MUST_UNDERSTAND & ~UNDERSTOOD)
        return error_set(e, -ENOTSUP,
                         "kernel %s: the Multiboot header demands features 0x%x that nobody has defined; "
                         "is the file damaged?",
                         b->kernel.path, h.flags & MUST_UNDERSTAND & ~UNDERSTOOD);
    if (h.flags & WANTS_VIDEO_MODE)
        log_line(b->log, LOG_WARN, "kernel %s asks for a video mode, which this machine has not",
                 b->kernel.path);
    return h.flags & HAS_ADDRESSES ? load_by_addresses(b, &h, (uint32_t)at, entry, end, e)
                                   : load_elf(b, entry, end, e);
}

int multiboot_boot(struct boot *b, struct error *e)
{
    struct handover h = { 0 };
    uint64_t at = 0, end = 0, cmdline = 0, loader = 0;
    uint32_t entry = 0;

    int r = load_kernel(b, &entry, &end, e);
    if (!r)
        r = load_modules(b, end > PC_EXTENDED ? end : PC_EXTENDED, &h, e);
    if (!r)
        r = put_cmdline(b, &cmdline, e);
    if (!r)
        r = boot_put_string(b, "Sundog", "the loader's name", &loader, e);
    if (!r)
        r = boot_place_low(b, sizeof(h), 16, "the boot information", &at, e);
    if (r)
        return r;
    h.info.cmdline = (uint32_t)cmdline;
    h.info.boot_loader_name = (uint32_t)loader;
    fill_info(b, &h, at);
    r = boot_put(b, at, &h, sizeof(h), e);
    if (r)
        return r;
    b->start->rax = LOADER_MAGIC;
    b->start->rbx = at;
    return boot_enter_protected32(b, entry, e);
}
