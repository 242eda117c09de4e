/* SPDX-License-Identifier: Apache-2.0 */
/* ELF executables, 32- and 64-bit: checking one and loading its segments at their physical addresses. */
#ifndef SUNDOG_BOARD_ELF_H
#define SUNDOG_BOARD_ELF_H

#include "base/error.h"
#include "base/types.h"

struct boot;

#define ELF_SEGMENTS_MAX 64

struct elf_segment {
    uint64_t offset, file_len; /* in the file */
    uint64_t at, mem_len;      /* in guest-physical memory; the rest is zeros */
};

struct elf_info {
    bool is64;
    uint64_t entry;     /* physical */
    bool entry_inside;  /* it lies in a segment */
    uint64_t low, high; /* physical range that the segments span */
    bool has_pvh;       /* there is a note XEN_ELFNOTE_PHYS32_ENTRY */
    uint32_t pvh_entry;
    unsigned segments;
    struct elf_segment segment[ELF_SEGMENTS_MAX]; /* those with memory to load */
};

bool elf_is(const uint8_t *head, size_t len);

/* Checks the whole of what elf_load() will use: an x86 executable, every segment and note within the file.
 * -ENOEXEC with a reason that names no file. */
int elf_parse(const uint8_t *data, size_t len, struct elf_info *info, struct error *e);

/* Claims and fills the segments' memory. */
int elf_load(struct boot *b, const uint8_t *data, const struct elf_info *info, struct error *e);

#endif
