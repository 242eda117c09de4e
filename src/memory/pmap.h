/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory. The pmap is our page table from guest-physical page to (object, offset, host
 * pointer, state).
 *
 *   gpa ──► regions (RAM, ROM, alias, hole) ──► struct page { host, state, code_map, code_version, writers }
 *
 * Invariants:
 * - `state` is a set of reasons; what anyone may do with a page is what all of its reasons allow
 *   (page_rights()).
 * - Consumers (soft TLBs, code caches) may cache a page's host pointer with the rights it had; pmap_revoke()
 *   takes rights back and returns when every consumer has acknowledged.
 * - Bytes are read for decoding only after pmap_claim_code() took write rights away; whoever then writes such
 *   a page goes through pmap_written(), which moves the page's code_version after the store has landed. A
 *   decoded block is valid only while the version it was decoded under is current.
 */
#ifndef SUNDOG_MEMORY_PMAP_H
#define SUNDOG_MEMORY_PMAP_H

#include <stdatomic.h>

#include "base/error.h"
#include "base/types.h"

/* Why a page's rights are limited or watched. */
enum page_reason {
    PAGE_CODE = 1u << 0,      /* instructions of it are cached: writes must be seen */
    PAGE_DIRTY_LOG = 1u << 1, /* first write must be logged */
    PAGE_ROM = 1u << 2,       /* guest writes are dropped */
    PAGE_SHARED = 1u << 3,    /* copy on write */
    PAGE_TRACED = 1u << 4,    /* accesses are watched */
    PAGE_BALLOONED = 1u << 5, /* given back to the host */
    PAGE_SWAPPED = 1u << 6,   /* contents elsewhere */
    PAGE_PINNED = 1u << 7,    /* asynchronous I/O under way */
};

enum page_right { RIGHT_READ = 1, RIGHT_WRITE = 2, RIGHT_EXEC = 4 };

struct page {
    uint8_t *host;          /* NULL: not RAM or ROM */
    _Atomic uint32_t state; /* enum page_reason */
    _Atomic uint32_t code_version;
    _Atomic uint64_t code_map; /* bit n: bytes [64n, 64n+64) hold decoded code */
    _Atomic uint32_t writers;  /* bit n: consumer n may hold a cached write right */
    uint32_t pins;
};

struct pmap; /* one per VM */

/* Max guest-physical address width shown to guests (CPUID 0x80000008). */
#define MAXPHYADDR 40

enum region_kind { REGION_RAM, REGION_ROM, REGION_ALIAS };

struct pmap *pmap_create(struct error *e);
void pmap_destroy(struct pmap *pm);

/* Backs [base, base+len) with fresh zeroed memory from a memfd (page multiples). -EINVAL overlap, -ENOMEM.
 * Before the VM runs. */
int pmap_add(struct pmap *pm, enum region_kind kind, gpa base, uint64_t len, struct error *e);
/* Makes [base, base+len) show what [target, ...) shows (an alias region). */
int pmap_add_alias(struct pmap *pm, gpa base, uint64_t len, gpa target, struct error *e);
/* Bytes of RAM added so far. */
uint64_t pmap_ram_size(const struct pmap *pm);

/* How much host memory this process uses, in bytes: all of it, its page tables, and what of it is the guest's RAM
 * and ROM. False when the host does not tell. Takes some milliseconds. */
struct pmap_usage {
    uint64_t rss, page_tables, guest;
};
bool pmap_host_usage(const struct pmap *pm, struct pmap_usage *u);

/* The page at this address, with A20 applied, or NULL when nothing backs it. Any thread; never blocks. */
struct page *pmap_page(struct pmap *pm, gpa addr);
/* The memfd and the offset in it where a page's bytes are, by their host address; false: not RAM. Any thread. */
bool pmap_object(const struct pmap *pm, const uint8_t *host, int *fd, uint64_t *off);
/* Rights that all of the page's reasons allow to a cached translation. */
unsigned page_rights(const struct page *pg);

/* A20: when masked, bit 20 of every guest-physical address reads as 0 (8086 wrap). Revokes all cached
 * translations. */
void pmap_set_a20(struct pmap *pm, bool enabled);
bool pmap_get_a20(const struct pmap *pm);
/* `addr` as the memory sees it: bit 20 cleared while A20 is masked. */
gpa pmap_a20(const struct pmap *pm, gpa addr);

/* Bounded copies for devices, firmware tables and page walks. RAM and ROM only: -EFAULT if any byte is not
 * backed (nothing is written then). ram_write() to ROM is -EFAULT; pmap_load() writes ROM too (boot). Both
 * note dirty pages and code. Any thread. */
must_use int ram_read(struct pmap *pm, gpa addr, void *dst, size_t len);
must_use int ram_write(struct pmap *pm, gpa addr, const void *src, size_t len);
must_use int pmap_load(struct pmap *pm, gpa addr, const void *src, size_t len);

/* Contiguous host span at addr, at most len bytes, not across a page of another object; NULL if unbacked.
 * For iterating. */
uint8_t *ram_span(struct pmap *pm, gpa addr, size_t len, size_t *got);
/* Pin for asynchronous I/O: the span stays where it is. Unpin says whether it was written (dirty and code
 * are noted then). */
uint8_t *ram_pin(struct pmap *pm, gpa addr, size_t len, size_t *got);
void ram_unpin(struct pmap *pm, gpa addr, size_t len, bool dirty);

/* --- consumers of cached translations ------------------------------------------------------------------- */

struct pmap_consumer {
    /* Drop cached translations of the pages [first, first+count) that carry any of `rights`; count 0 =
     * everything. Must return only when no thread of this consumer uses them any more. Called on the
     * revoker's thread. */
    void (*revoke)(void *ctx, uint64_t first_page, uint64_t count, unsigned rights);
    void *ctx;
    /* Decoded bytes of this page were written: its code_version has moved. Called once for every address at
     * which the page can be seen (aliases, A20), on the writer's thread, with no lock of the pmap held; the
     * writer waits for nobody. May be NULL. */
    void (*code_changed)(void *ctx, uint64_t page);
};
/* Returns the consumer's number (0..31) or -ENOSPC. */
int pmap_add_consumer(struct pmap *pm, const struct pmap_consumer *c);

/* Takes `rights` on [first, first+count) pages away from all consumers and adds `reason` to those pages. */
void pmap_revoke(struct pmap *pm, uint64_t first_page, uint64_t count, unsigned rights, uint32_t reason);
/* Consumer `n` asks for a write right it wants to cache: notes the writer and returns true, or false if
 * none may be cached: each store is then made through `host` and told to pmap_written(). Either way the
 * page counts as dirty for the log. */
bool pmap_claim_write(struct pmap *pm, struct page *pg, int n);
/* Would pmap_claim_write() say yes and change nothing? */
bool pmap_holds_write(const struct page *pg, int n);
/* Prepares decoding of [off, off+len) of a page: marks the bytes as code, takes write rights away, returns
 * the version to keep. */
uint32_t pmap_claim_code(struct pmap *pm, gpa addr, unsigned len);
/* True when a write of [off, off+len) of this page would change decoded bytes. */
static inline bool page_has_code(const struct page *pg, unsigned off, unsigned len)
{
    if (!(atomic_load_explicit(&pg->state, memory_order_relaxed) & PAGE_CODE))
        return false;
    uint64_t map = atomic_load_explicit(&pg->code_map, memory_order_relaxed);
    unsigned a = off >> 6, b = (off + len - 1) >> 6;
    return (map >> a) & (~0ull >> (63 - (b - a)));
}
/* To be called after bytes of a page were changed by other means than a cached write right: invalidates
 * code decoded from those bytes and logs the page dirty. */
void pmap_written(struct pmap *pm, struct page *pg, unsigned off, unsigned len);

/* Dirty log: bit per page, since the last call; copies and clears. -ENOSPC if the buffer is short. */
void pmap_dirty_log_start(struct pmap *pm);
int pmap_dirty_log_fetch(struct pmap *pm, uint64_t *bitmap, size_t pages);

/* Visits every RAM/ROM region in address order (save, hash, e820). */
struct region_info {
    enum region_kind kind;
    gpa base;
    uint64_t len;
};
void pmap_each_region(struct pmap *pm, void (*visit)(void *ctx, const struct region_info *r), void *ctx);

#endif
