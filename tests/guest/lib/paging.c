/* SPDX-License-Identifier: Apache-2.0 */
/* Page tables of every kind, built entry by entry (SDM 3A 4.3-4.5). */
#include "guest.h"

#define POOL_PAGES 192
static u8 ALIGNED(4096) pool[POOL_PAGES][4096];
static u32 pool_used;

ulong page_alloc(void)
{
    if (pool_used == POOL_PAGES)
        panic("page pool is empty");
    u8 *page = pool[pool_used++];
    fill(page, 0, PAGE);
    return (ulong)page;
}

struct space space_new(enum paging_mode mode) { return (struct space){ .mode = mode, .root = page_alloc() }; }

static u32 table_index(const struct space *space, u64 va, int level)
{
    if (space->mode == PAGING_32)
        return (u32)va >> (level == 2 ? 22 : 12) & 1023;
    u32 index = (u32)(va >> (12 + 9 * (level - 1))) & 511;
    return space->mode == PAGING_PAE && level == 3 ? index & 3 : index;
}

static u64 load(const struct space *space, const void *slot)
{
    return space->mode == PAGING_32 ? *(const volatile u32 *)slot : *(const volatile u64 *)slot;
}

static void store(const struct space *space, void *slot, u64 value)
{
    if (space->mode == PAGING_32)
        *(volatile u32 *)slot = (u32)value;
    else
        *(volatile u64 *)slot = value;
}

static void *walk(struct space *space, u64 va, int level, bool make)
{
    u64 table = space->root;
    for (int at = space->mode;; at--) {
        void *slot = (void *)(ulong)(table + table_index(space, va, at) * (space->mode == PAGING_32 ? 4 : 8));
        if (at == level)
            return slot;
        u64 value = load(space, slot);
        if (!(value & PTE_P)) {
            if (!make)
                return NULL;
            /* A PDPTE of PAE paging has no W and U bits: they are reserved there (4.4.1). */
            value = page_alloc() | (space->mode == PAGING_PAE && at == 3 ? PTE_P : PTE_RWU);
            store(space, slot, value);
        }
        table = value & 0xfffffffff000ull;
    }
}

void map(struct space *space, u64 va, u64 pa, u64 flags, int level)
{
    store(space, walk(space, va, level, true), pa | flags | (level > 1 ? PTE_PS : 0));
}

void map_range(struct space *space, u64 va, u64 pa, u64 size, u64 flags, int level)
{
    u64 step = level == 1                 ? PAGE
               : level == 3               ? 1ull << 30
               : space->mode == PAGING_32 ? 1ull << 22
                                          : 1ull << 21;
    for (u64 done = 0; done < size; done += step)
        map(space, va + done, pa + done, flags, level);
}

void *entry(struct space *space, u64 va, int level) { return walk(space, va, level, false); }
u64 entry_get(struct space *space, u64 va, int level) { return load(space, walk(space, va, level, false)); }
void entry_set(struct space *space, u64 va, int level, u64 value)
{
    store(space, walk(space, va, level, false), value);
}

void space_use(struct space *space)
{
#if WIDE
    write_cr3(space->root);
#else
    paging_off();
    write_cr4((read_cr4() & ~(ulong)CR4_PAE) | (space->mode == PAGING_PAE ? CR4_PAE : 0));
    write_cr3(space->root);
    write_cr0(read_cr0() | CR0_PG);
#endif
}

#if !WIDE
void paging_off(void) { write_cr0(read_cr0() & ~CR0_PG); }
#endif
