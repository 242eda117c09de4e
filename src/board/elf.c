/* SPDX-License-Identifier: Apache-2.0 */
/* Reading ELF files: headers are copied out once, widened to their 64-bit form, then checked and used. */
#include "board/elf.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/checked.h"
#include "board/boot.h"

/* Xen's public/elfnote.h: the physical address of the 32-bit entry for PVH guests. */
#define NOTE_PHYS32_ENTRY 18u

/* Many more than a linker makes of a kernel. */
#define PROGRAM_HEADERS_MAX 256

bool elf_is(const uint8_t *head, size_t len) { return len >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG); }

static int bad(struct error *e, const char *why) { return error_set(e, -ENOEXEC, "the ELF file %s", why); }

static int read_header(const uint8_t *data, size_t len, Elf64_Ehdr *h, struct error *e)
{
    if (len < EI_NIDENT || !elf_is(data, len))
        return bad(e, "does not begin as one");
    if (data[EI_DATA] != ELFDATA2LSB)
        return bad(e, "is big-endian; build the kernel for x86");
    if (data[EI_CLASS] == ELFCLASS64) {
        if (len < sizeof(*h))
            return bad(e, "ends within its header");
        memcpy(h, data, sizeof(*h));
    } else if (data[EI_CLASS] == ELFCLASS32) {
        Elf32_Ehdr h32;
        if (len < sizeof(h32))
            return bad(e, "ends within its header");
        memcpy(&h32, data, sizeof(h32));
        *h = (Elf64_Ehdr){ .e_type = h32.e_type,
                           .e_machine = h32.e_machine,
                           .e_entry = h32.e_entry,
                           .e_phoff = h32.e_phoff,
                           .e_phentsize = h32.e_phentsize,
                           .e_phnum = h32.e_phnum };
    } else {
        return bad(e, "is neither 32- nor 64-bit");
    }
    return 0;
}

static int check_header(const Elf64_Ehdr *h, bool is64, size_t len, struct error *e)
{
    if (h->e_machine != EM_386 && h->e_machine != EM_X86_64)
        return bad(e, "is for another processor; build the kernel for x86");
    if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
        return bad(e, "is no executable (an object file or a core dump?)");
    if (h->e_phnum == 0)
        return bad(e, "has no program headers, so there is nothing to load");
    if (h->e_phnum > PROGRAM_HEADERS_MAX)
        return bad(e, "has too many program headers");
    if (h->e_phentsize != (is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
        return bad(e, "has program headers of an unknown size");
    if (!ck_range(h->e_phoff, (uint64_t)h->e_phnum * h->e_phentsize, len))
        return bad(e, "is cut off before the end of its program headers");
    return 0;
}

/* The range of the table was checked. */
static Elf64_Phdr read_program_header(const uint8_t *data, const Elf64_Ehdr *h, bool is64, unsigned i)
{
    const uint8_t *at = data + h->e_phoff + (size_t)i * h->e_phentsize;
    Elf64_Phdr p;
    if (is64) {
        memcpy(&p, at, sizeof(p));
        return p;
    }
    Elf32_Phdr p32;
    memcpy(&p32, at, sizeof(p32));
    return (Elf64_Phdr){ .p_type = p32.p_type,
                         .p_flags = p32.p_flags,
                         .p_offset = p32.p_offset,
                         .p_vaddr = p32.p_vaddr,
                         .p_paddr = p32.p_paddr,
                         .p_filesz = p32.p_filesz,
                         .p_memsz = p32.p_memsz,
                         .p_align = p32.p_align };
}

static int add_segment(struct elf_info *info, const Elf64_Phdr *p, size_t len, struct error *e)
{
    uint64_t end;
    if (p->p_memsz == 0)
        return 0;
    if (!ck_range(p->p_offset, p->p_filesz, len))
        return bad(e, "is cut off: a segment lies beyond its end; try a fresh copy");
    if (p->p_filesz > p->p_memsz)
        return bad(e, "has a segment larger in the file than in memory");
    if (ck_add(p->p_paddr, p->p_memsz, &end))
        return bad(e, "has a segment that wraps around the address space");
    if (info->segments == ELF_SEGMENTS_MAX)
        return bad(e, "has too many segments to load");
    info->segment[info->segments++] = (struct elf_segment){ p->p_offset, p->p_filesz, p->p_paddr,
                                                            p->p_memsz };
    info->low = p->p_paddr < info->low ? p->p_paddr : info->low;
    info->high = end > info->high ? end : info->high;
    return 0;
}

/* Notes: (name length, description length, type), name and description each padded to 4 bytes. Each round takes
 * at least 12 bytes of a range within the file. */
static void scan_notes(struct elf_info *info, const uint8_t *notes, uint64_t len)
{
    uint64_t at = 0;
    while (ck_range(at, sizeof(Elf64_Nhdr), len)) {
        Elf64_Nhdr n;
        memcpy(&n, notes + at, sizeof(n));
        uint64_t name = at + sizeof(n);
        uint64_t desc = name + (((uint64_t)n.n_namesz + 3) & ~3ull);
        if (!ck_range(desc, n.n_descsz, len))
            return;
        bool xen = n.n_namesz == 4 && !memcmp(notes + name, "Xen", 4);
        if (xen && n.n_type == NOTE_PHYS32_ENTRY && n.n_descsz >= 4) {
            uint64_t entry = n.n_descsz >= 8 ? get_le64(notes + desc) : get_le32(notes + desc);
            info->has_pvh = entry <= UINT32_MAX;
            info->pvh_entry = (uint32_t)entry;
        }
        at = desc + (((uint64_t)n.n_descsz + 3) & ~3ull);
    }
}

/* True when the entry is a linear address inside this segment; it is meant relative to where the segment is
 * loaded. */
static bool fix_entry(struct elf_info *info, const Elf64_Phdr *p)
{
    if (info->entry < p->p_vaddr || info->entry - p->p_vaddr >= p->p_memsz)
        return false;
    info->entry = info->entry - p->p_vaddr + p->p_paddr;
    return true;
}

int elf_parse(const uint8_t *data, size_t len, struct elf_info *info, struct error *e)
{
    Elf64_Ehdr h = { 0 };
    *info = (struct elf_info){ .low = UINT64_MAX };
    int r = read_header(data, len, &h, e);
    if (r)
        return r;
    info->is64 = data[EI_CLASS] == ELFCLASS64;
    r = check_header(&h, info->is64, len, e);
    if (r)
        return r;
    info->entry = h.e_entry;
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p = read_program_header(data, &h, info->is64, i);
        if (p.p_type == PT_NOTE && ck_range(p.p_offset, p.p_filesz, len))
            scan_notes(info, data + p.p_offset, p.p_filesz);
        if (p.p_type != PT_LOAD)
            continue;
        r = add_segment(info, &p, len, e);
        if (r)
            return r;
        info->entry_inside = info->entry_inside || fix_entry(info, &p);
    }
    if (info->segments == 0)
        return bad(e, "has no segment to load");
    for (unsigned i = 0; i < info->segments; i++) /* an entry given as a physical address */
        info->entry_inside |= info->entry - info->segment[i].at < info->segment[i].mem_len;
    return 0;
}

int elf_load(struct boot *b, const uint8_t *data, const struct elf_info *info, struct error *e)
{
    static const char what[] = "the kernel";
    for (unsigned i = 0; i < info->segments; i++) {
        const struct elf_segment *s = &info->segment[i];
        int r = place_fixed(&b->place, s->at, s->mem_len, what, e);
        if (r) {
            error_wrap(e, "kernel %s", b->kernel.path);
            return r;
        }
        r = boot_put(b, s->at, data + s->offset, s->file_len, e);
        if (!r)
            r = boot_zero(b, s->at + s->file_len, s->mem_len - s->file_len, e);
        if (r)
            return r;
    }
    return 0;
}
