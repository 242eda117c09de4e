/* SPDX-License-Identifier: Apache-2.0 */
/* Boot protocols: what each of them needs, and the steps they share. Inside board/ only. */
#ifndef SUNDOG_BOARD_BOOT_H
#define SUNDOG_BOARD_BOOT_H

#include "base/error.h"
#include "base/log.h"
#include "board/board.h"
#include "board/image.h"
#include "board/memmap.h"
#include "board/place.h"
#include "memory/pmap.h"

/* One boot under way: lives from board_boot()'s begin to its end. */
struct boot {
    const struct board_config *cfg;
    const struct memory_map *map;
    struct pmap *pmap;
    struct log *log;
    uint64_t rsdp;       /* where the firmware tables begin */
    struct image kernel; /* the file named by --kernel: whole, or for a bzImage measured */
    struct placement place;
    struct boot_cpu_state *start;
};

/* Finds out what the kernel is, loads it and what belongs to it, and says how the first processor starts. */
int boot_kernel(const struct board_config *cfg, const struct memory_map *map, struct pmap *pmap,
                uint64_t rsdp, struct log *log, struct boot_cpu_state *start, struct error *e);
/* The same with the file already read (tests, fuzzing). Takes no ownership. */
int boot_image(struct boot *b, struct error *e);

/* The protocols. The kernel is known to be of the kind; all else about it is still to be checked. */
int bzimage_boot(struct boot *b, struct error *e);
int pvh_boot(struct boot *b, const uint8_t *elf, size_t len,
             struct error *e); /* elf: the file or what it unpacked to */
int multiboot_boot(struct boot *b, struct error *e);

/* --- shared steps --------------------------------------------------------------------------------------- */

/* Copies to a range that was claimed. */
int boot_put(struct boot *b, uint64_t at, const void *src, size_t len, struct error *e);
/* The same with a part of a file that was measured or read. */
int boot_put_file(struct boot *b, uint64_t at, const struct image *im, uint64_t off, uint64_t len,
                  struct error *e);
int boot_zero(struct boot *b, uint64_t at, uint64_t len, struct error *e);
/* Claims a place in conventional memory, high end first, where few kernels load anything. */
int boot_place_low(struct boot *b, uint64_t len, uint64_t align, const char *what, uint64_t *at,
                   struct error *e);
/* Puts a string there, with its terminator. */
int boot_put_string(struct boot *b, const char *s, const char *what, uint64_t *at, struct error *e);
/* Loads --initrd as one file, as high as possible below `top`; length 0 when there is none. */
int boot_load_initrd(struct boot *b, uint64_t top, uint64_t *at, uint64_t *len, struct error *e);

/* Flat segments and a descriptor table for them; the selectors are what Linux's boot protocol asks. */
#define BOOT_CODE 0x10
#define BOOT_DATA 0x18
int boot_enter_protected32(struct boot *b, uint32_t entry, struct error *e);
/* The same in long mode, with the first 4 GiB mapped to themselves. */
int boot_enter_long64(struct boot *b, uint64_t entry, struct error *e);

#endif
