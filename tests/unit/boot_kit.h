/* SPDX-License-Identifier: Apache-2.0 */
/* A bare machine to boot into, small ELF files made to order, and files on disk: what the boot tests share. */
#ifndef SUNDOG_TESTS_BOOT_KIT_H
#define SUNDOG_TESTS_BOOT_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "board/boot.h"

#define MIB (1ull << 20)

struct boot_kit {
    struct pmap *pmap;
    struct memory_map map;
    struct board_config cfg;
    struct boot_cpu_state start;
    struct log log;
    struct error e;
    char warning[256]; /* last line logged */
};

void kit_open(struct boot_kit *k, uint64_t memory);
void kit_close(struct boot_kit *k);
/* Boots a kernel that lies in memory; its file is called "test.kernel". */
int kit_boot(struct boot_kit *k, const void *kernel, size_t len);
/* The same, by way of a file. */
int kit_boot_file(struct boot_kit *k, const char *path);
/* It has to fail, with these words in the message. */
void kit_refuses(struct boot_kit *k, const void *kernel, size_t len, const char *words);

void kit_read(struct boot_kit *k, uint64_t at, void *to, size_t len);
uint32_t kit_u32(struct boot_kit *k, uint64_t at);
uint64_t kit_u64(struct boot_kit *k, uint64_t at);
/* A string in guest memory equals this one. */
void kit_string_is(struct boot_kit *k, uint64_t at, const char *s);
/* Guest memory equals these bytes. */
void kit_bytes_are(struct boot_kit *k, uint64_t at, const void *bytes, size_t len);
/* The GDT entry of a selector is a flat, present ring-0 segment of the right kind. */
void kit_flat_segments(struct boot_kit *k, bool long_mode);

/* A file of these bytes in a temporary place; removed by kit_close_file(), which frees the name. */
char *kit_file(const void *bytes, size_t len);
void kit_close_file(char *path);
/* A kernel from the cache of guests ("amd64", "i386"); NULL when it was not fetched. To be freed. */
char *kit_guest(const char *arch);

/* Reproducible bytes that compress to about half. */
void kit_fill(uint8_t *to, size_t len, uint32_t seed);

struct kit_segment {
    uint64_t vaddr, paddr, mem_len;
    const void *bytes;
    size_t len;
};

struct kit_elf {
    bool is64;
    uint64_t entry;
    const struct kit_segment *segment;
    unsigned segments;
    bool pvh; /* with a note of the entry */
    uint32_t pvh_entry;
};
/* Writes the file to `out` of at least 8 KiB plus the segments' bytes; returns its length. Segments' bytes are within
 * the first 8192 if they are small. */
size_t kit_make_elf(uint8_t *out, const struct kit_elf *elf);

#endif
