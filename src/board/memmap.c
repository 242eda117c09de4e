/* SPDX-License-Identifier: Apache-2.0 */
/* Making the memory map from the memory's size. */
#include "board/memmap.h"

#include <errno.h>

#include "base/bits.h"
#include "board/pc.h"

/* Memory sizes count from 0, so the 384 KiB of holes below 1 MiB come out of the whole, as on real boards. */
static void add(struct memory_map *map, uint64_t base, uint64_t end, enum map_type type)
{
    if (end > base)
        map->range[map->count++] = (struct map_range){ base, end - base, type };
}

int memory_map_make(struct memory_map *map, uint64_t memory, struct error *e)
{
    const uint64_t most = BIT(MAXPHYADDR) - (PC_4G - PC_PCI_HOLE);
    if (memory < MEMORY_MIN)
        return error_set(e, -EINVAL, "memory: %llu bytes are too few for a PC; give --memory at least %lluM",
                         (unsigned long long)memory, MEMORY_MIN >> 20);
    if (memory > most)
        return error_set(e, -EINVAL,
                         "memory: %llu bytes do not fit %d address bits; give --memory at most %lluG",
                         (unsigned long long)memory, MAXPHYADDR, (unsigned long long)(most >> 30));
    if (memory & PAGE_OFFSET_MASK)
        return error_set(e, -EINVAL,
                         "memory: %llu bytes are no multiple of %u; round --memory to whole pages",
                         (unsigned long long)memory, PAGE_SIZE);

    *map = (struct memory_map){
        .low_end = memory < PC_PCI_HOLE ? memory : PC_PCI_HOLE,
        .high_end = memory < PC_PCI_HOLE ? PC_4G : PC_4G + (memory - PC_PCI_HOLE),
    };
    add(map, 0, PC_EBDA, MAP_RAM);
    add(map, PC_EBDA, PC_CONVENTIONAL_END, MAP_RESERVED);
    add(map, PC_FIRMWARE, PC_EXTENDED, MAP_RESERVED);
    add(map, PC_EXTENDED, map->low_end, MAP_RAM);
    add(map, PC_IOAPIC, PC_IOAPIC + PAGE_SIZE, MAP_RESERVED);
    add(map, PC_LAPIC, PC_LAPIC + PAGE_SIZE, MAP_RESERVED);
    add(map, PC_4G, map->high_end, MAP_RAM);
    return 0;
}

int memory_map_back(const struct memory_map *map, struct pmap *pmap, struct error *e)
{
    const struct {
        enum region_kind kind;
        uint64_t base, end;
    } backed[] = {
        { REGION_RAM, 0, PC_CONVENTIONAL_END },
        { REGION_ROM, PC_FIRMWARE, PC_FIRMWARE + PC_FIRMWARE_LEN },
        { REGION_RAM, PC_EXTENDED, map->low_end },
        { REGION_RAM, PC_4G, map->high_end },
    };
    for (unsigned i = 0; i < array_size(backed); i++) {
        if (backed[i].end == backed[i].base)
            continue;
        int r = pmap_add(pmap, backed[i].kind, GPA(backed[i].base), backed[i].end - backed[i].base, e);
        if (r < 0)
            return r;
    }
    return 0;
}
