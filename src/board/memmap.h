/* SPDX-License-Identifier: Apache-2.0 */
/* The memory map: where RAM is for a given size, as the pmap backs it and as the guest is told (e820). */
#ifndef SUNDOG_BOARD_MEMMAP_H
#define SUNDOG_BOARD_MEMMAP_H

#include "base/error.h"
#include "base/types.h"
#include "memory/pmap.h"

/* Range types of ACPI's address map interfaces (ACPI 6.4, table 15.374), which e820, PVH and Multiboot
 * share. */
enum map_type { MAP_RAM = 1, MAP_RESERVED = 2, MAP_ACPI = 3, MAP_NVS = 4 };

struct map_range {
    uint64_t base, len;
    enum map_type type;
};

#define MAP_RANGES_MAX 8

/* Sorted by address, no overlaps. */
struct memory_map {
    struct map_range range[MAP_RANGES_MAX];
    unsigned count;
    uint64_t low_end;  /* end of RAM below the PCI hole */
    uint64_t high_end; /* end of RAM above 4 GiB, or 4 GiB */
};

#define MEMORY_MIN (2ull << 20)

/*
 *   0         9fc00   a0000      e0000    100000         c0000000      100000000
 *   ├── RAM ──┤ EBDA ├─ hole ────┤ tables ┤── RAM ... ────┤ PCI hole ──┤── RAM ...
 *
 * -EINVAL when `memory` is no multiple of a page, too small, or more than the physical address width reaches.
 */
int memory_map_make(struct memory_map *map, uint64_t memory, struct error *e);

/* Gives the pmap the RAM and the firmware's read-only memory. Once, at creation. */
int memory_map_back(const struct memory_map *map, struct pmap *pmap, struct error *e);

#endif
