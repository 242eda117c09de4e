/* SPDX-License-Identifier: Apache-2.0 */
/* Follows the entries of a page table through a program: changed and not dropped is out of date. */
#include "stale.h"

#include <string.h>

#define PRESENT 1u
#define USED 0x60u /* accessed, dirty: the processor's own */

static uint64_t entry_at(const struct stale *s, const uint8_t *table, unsigned i)
{
    uint64_t e = 0;
    memcpy(&e, table + (size_t)i * s->entry, s->entry);
    return e & ~(uint64_t)USED;
}

static uint64_t flushes(const struct mmu *m) { return m->stats.flushes_all + m->stats.space_switches; }

/* What the instruction before dropped from the TLB. */
static void note_drops(struct stale *s, const struct mmu *m)
{
    const struct mmu_drop *d;
    if (flushes(m) != s->flushes)
        memset(s->old, 0, sizeof(s->old));
    for (; s->stamp != m->stamp && (d = mmu_dropped(m, s->stamp)); s->stamp = d->to)
        if (!d->host && d->page >> PAGE_SHIFT < PAGE_SIZE / s->entry)
            s->old[d->page >> PAGE_SHIFT] = 0;
    s->flushes = flushes(m);
    s->stamp = m->stamp;
}

static void note_changes(struct stale *s)
{
    uint8_t now[PAGE_SIZE];
    if (ram_read(s->pmap, GPA(s->table), now, PAGE_SIZE))
        return;
    for (unsigned i = 0; s->begun && i < PAGE_SIZE / s->entry; i++) {
        uint64_t before = entry_at(s, s->known, i);
        if (before & PRESENT && before != entry_at(s, now, i))
            s->old[i] = true;
    }
    memcpy(s->known, now, PAGE_SIZE);
}

void stale_step(void *ctx, const struct vcpu *v)
{
    struct stale *s = ctx;
    if (!s->entry)
        return;
    if (!s->begun) { /* machines start with an empty TLB */
        s->stamp = v->mmu.stamp;
        s->flushes = flushes(&v->mmu);
    }
    note_drops(s, &v->mmu);
    for (unsigned i = 0; i < PAGE_SIZE / s->entry; i++)
        s->open |= s->old[i]; /* the instruction behind the change was not its INVLPG */
    note_changes(s);
    s->begun = true;
}
