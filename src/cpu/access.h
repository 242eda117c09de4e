/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory as the processor sees it: segment:offset and linear accesses, fast through the TLB, exact
 * faults on the slow path. */
#ifndef SUNDOG_CPU_ACCESS_H
#define SUNDOG_CPU_ACCESS_H

#include "base/bits.h"
#include "cpu/vcpu.h"

/* --- slow paths (access.c): page crossing, MMIO, TLB miss, watch points, code pages; size 1..64 --------- */
void access_read(struct vcpu *v, uint64_t lin, void *dst, unsigned size, enum mmu_index index, enum seg seg);
void access_write(struct vcpu *v, uint64_t lin, const void *src, unsigned size, enum mmu_index index,
                  enum seg seg);
/* Host address of [lin, lin + size) when the TLB has it for that access, so that nothing is left to check: it is canonical, too. Else
 * NULL. */
static inline void *access_cached(const struct vcpu *v, uint64_t lin, unsigned size, enum mmu_access access,
                                  enum mmu_index index)
{
    const struct tlb_entry *e = &v->mmu.tlbs[index][(lin >> PAGE_SHIFT) & (TLB_ENTRIES - 1)];
    if (e->tag[access] != (((lin + size - 1) & ~(uint64_t)PAGE_OFFSET_MASK) | mmu_gen(&v->mmu, index)))
        return NULL;
    return (void *)(uintptr_t)(lin + e->addend);
}
/* Faults now if a write (and read) of [lin, lin+size) would, without doing it. Any size up to 4096. After
 * the probe for writing, the write itself no longer restarts the instruction (code, watchpoints) either. */
void access_probe_write(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_index index, enum seg seg);
void access_probe_read(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_index index, enum seg seg);
/* Host pointer for a read-modify-write of an operand inside one page of plain RAM, with all rights checked
 * and the write noted; NULL for MMIO, ROM, page-crossing and code pages: then do access_read +
 * access_write under a stopped world if locked. */
void *access_rmw(struct vcpu *v, uint64_t lin, unsigned size, enum seg seg);

/* Linear address of seg:off for an access of `size` bytes; raises #GP/#SS by segment rules (SDM 3A
 * 5.3-5.5). */
uint64_t seg_linear_slow(struct vcpu *v, enum seg seg, uint64_t off, unsigned size, enum mmu_access access);

static inline uint64_t seg_linear(struct vcpu *v, enum seg seg, uint64_t off, unsigned size,
                                  enum mmu_access access)
{
    if (likely(v->sf[seg].flat[access == ACCESS_WRITE]))
        return (v->sf[seg].base + off) & v->lin_mask;
    return seg_linear_slow(v, seg, off, size, access);
}

/* --- current-privilege accesses by seg:off, as instructions make them --- */
#define SUNDOG_DEFINE_ACCESS(type, n) \
    static inline type mem_read##n(struct vcpu *v, enum seg seg, uint64_t off) \
    { \
        uint64_t lin = seg_linear(v, seg, off, n / 8, ACCESS_READ); \
        type val; \
        const void *host = tlb_find(&v->mmu, lin, n / 8, ACCESS_READ); \
        if (likely(host != NULL)) \
            memcpy(&val, host, n / 8); \
        else \
            access_read(v, lin, &val, n / 8, v->mmu.index, seg); \
        return val; \
    } \
    static inline void mem_write##n(struct vcpu *v, enum seg seg, uint64_t off, type val) \
    { \
        uint64_t lin = seg_linear(v, seg, off, n / 8, ACCESS_WRITE); \
        void *host = tlb_find(&v->mmu, lin, n / 8, ACCESS_WRITE); \
        if (likely(host != NULL)) \
            memcpy(host, &val, n / 8); \
        else \
            access_write(v, lin, &val, n / 8, v->mmu.index, seg); \
    }
SUNDOG_DEFINE_ACCESS(uint8_t, 8)
SUNDOG_DEFINE_ACCESS(uint16_t, 16)
SUNDOG_DEFINE_ACCESS(uint32_t, 32)
SUNDOG_DEFINE_ACCESS(uint64_t, 64)

/* Operand of any size 1..64 (SSE, x87, FXSAVE pieces), current privilege. */
void mem_read_bytes(struct vcpu *v, enum seg seg, uint64_t off, void *dst, unsigned size);
void mem_write_bytes(struct vcpu *v, enum seg seg, uint64_t off, const void *src, unsigned size);

/* --- implicit supervisor accesses by linear address: descriptor tables, TSS, privileged stacks ---------- */
uint64_t sys_read(struct vcpu *v, uint64_t lin, unsigned size); /* size 1, 2, 4, 8 */
void sys_write(struct vcpu *v, uint64_t lin, uint64_t val, unsigned size);

/* Effective stack pointer mask: 0xffff, 0xffffffff or ~0 by SS.B and mode. */
static inline uint64_t stack_mask(const struct vcpu *v)
{
    return vcpu_long64(v) ? ~0ull : (v->mode & MODE_SS32) ? 0xffffffffull : 0xffffull;
}

#endif
