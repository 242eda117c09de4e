/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded accessors: how devices, firmware tables and page walks move bytes to and from guest memory. */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "host/memory.h"
#include "memory/pmap_internal.h"

static size_t page_part(gpa addr, size_t len)
{
    size_t room = PAGE_SIZE - (addr.v & PAGE_OFFSET_MASK);
    return len < room ? len : room;
}

/* All pages of the range are backed, and none of them forbids what is asked: nothing is moved before that is
 * sure. */
static int check_backed(struct pmap *pm, gpa addr, size_t len, uint32_t forbidden)
{
    if (!ck_range(addr.v, len, 1ull << MAXPHYADDR))
        return -EFAULT;
    while (len) {
        const struct page *pg = pmap_page(pm, addr);
        if (!pg || atomic_load_explicit(&pg->state, memory_order_relaxed) & forbidden)
            return -EFAULT;
        size_t n = page_part(addr, len);
        addr.v += n;
        len -= n;
    }
    return 0;
}

/* Copies page by page; A20 may change under us, so each page is looked up, and checked, again. */
static int copy(struct pmap *pm, gpa addr, void *read_to, const void *write_from, size_t len)
{
    for (size_t done = 0; done < len;) {
        gpa at = GPA(addr.v + done);
        struct page *pg = pmap_page(pm, at);
        if (!pg)
            return -EFAULT;
        unsigned off = at.v & PAGE_OFFSET_MASK;
        size_t n = page_part(at, len - done);
        if (read_to) {
            memcpy((uint8_t *)read_to + done, pg->host + off, n);
        } else {
            memcpy(pg->host + off, (const uint8_t *)write_from + done, n);
            pmap_written(pm, pg, off, (unsigned)n);
        }
        done += n;
    }
    return 0;
}

int ram_read(struct pmap *pm, gpa addr, void *dst, size_t len)
{
    int err = check_backed(pm, addr, len, 0);
    return err ? err : copy(pm, addr, dst, NULL, len);
}

int ram_write(struct pmap *pm, gpa addr, const void *src, size_t len)
{
    int err = check_backed(pm, addr, len, PAGE_ROM);
    return err ? err : copy(pm, addr, NULL, src, len);
}

/* So little is copied faster than the host is asked to write it. */
#define BULK 65536u

/* Bytes from `addr` on that lie in one object of the host and can be written there at once; 0 when few or none. */
static size_t bulk_len(struct pmap *pm, gpa addr, size_t len, const struct region **r)
{
    *r = pmap_region_of(pm, addr.v >> PAGE_SHIFT);
    if (!*r || (*r)->kind == REGION_ALIAS || !pmap_get_a20(pm))
        return 0;
    uint64_t room = (((*r)->first + (*r)->count) << PAGE_SHIFT) - addr.v;
    size_t n = len < room ? len : (size_t)room;
    return n < BULK ? 0 : n;
}

static int load_bulk(struct pmap *pm, const struct region *r, gpa addr, const void *src, size_t len)
{
    int err = host_memory_write(r->fd, addr.v - (r->first << PAGE_SHIFT), src, len);
    for (size_t done = 0, n; done < len && !err; done += n) {
        gpa at = GPA(addr.v + done);
        n = page_part(at, len - done);
        struct page *pg = pmap_page(pm, at);
        if (pg)
            pmap_written(pm, pg, at.v & PAGE_OFFSET_MASK, (unsigned)n);
    }
    return err;
}

int pmap_load(struct pmap *pm, gpa addr, const void *src, size_t len)
{
    int err = check_backed(pm, addr, len, 0);
    const struct region *r;
    size_t bulk = err ? 0 : bulk_len(pm, addr, len, &r);
    if (bulk && !load_bulk(pm, r, addr, src, bulk)) {
        addr.v += bulk;
        src = (const uint8_t *)src + bulk;
        len -= bulk;
    }
    return err ? err : copy(pm, addr, NULL, src, len);
}

/* The span at an address that A20 has been applied to already, or that does not pass it. */
static uint8_t *span(struct pmap *pm, gpa addr, size_t len, size_t *got)
{
    *got = 0;
    struct page *pg = pmap_page_number(pm, addr.v >> PAGE_SHIFT);
    if (!pg || !ck_range(addr.v, len, 1ull << MAXPHYADDR))
        return NULL;
    uint8_t *host = pg->host + (addr.v & PAGE_OFFSET_MASK);
    *got = page_part(addr, len);
    while (*got < len) {
        gpa next = GPA(addr.v + *got);
        pg = pmap_page_number(pm, next.v >> PAGE_SHIFT);
        if (!pg || pg->host != host + *got)
            break;
        *got += page_part(next, len - *got);
    }
    return host;
}

uint8_t *ram_span(struct pmap *pm, gpa addr, size_t len, size_t *got)
{
    size_t megabyte_left = (1u << 20) - (addr.v & ((1u << 20) - 1));
    if (!pmap_get_a20(pm) && len > megabyte_left)
        len = megabyte_left;
    return span(pm, pmap_a20(pm, addr), len, got);
}

/* Pins do not pass A20: it is the processor's gate, and may change before the transfer ends. */
static struct page *pinned_page(struct pmap *pm, gpa addr)
{
    return pmap_page_number(pm, addr.v >> PAGE_SHIFT);
}

uint8_t *ram_pin(struct pmap *pm, gpa addr, size_t len, size_t *got)
{
    uint8_t *host = span(pm, addr, len, got);
    for (size_t done = 0; done < *got;) {
        gpa at = GPA(addr.v + done);
        struct page *pg = pinned_page(pm, at);
        host_mutex_lock(&pm->lock);
        pg->pins++;
        atomic_fetch_or(&pg->state, PAGE_PINNED);
        host_mutex_unlock(&pm->lock);
        done += page_part(at, *got - done);
    }
    return host;
}

void ram_unpin(struct pmap *pm, gpa addr, size_t len, bool dirty)
{
    if (!ck_range(addr.v, len, 1ull << MAXPHYADDR))
        return;
    for (size_t done = 0; done < len;) {
        gpa at = GPA(addr.v + done);
        size_t n = page_part(at, len - done);
        struct page *pg = pinned_page(pm, at);
        if (pg && dirty)
            pmap_written(pm, pg, at.v & PAGE_OFFSET_MASK, (unsigned)n);
        host_mutex_lock(&pm->lock);
        if (pg && pg->pins && --pg->pins == 0)
            atomic_fetch_and(&pg->state, ~(uint32_t)PAGE_PINNED);
        host_mutex_unlock(&pm->lock);
        done += n;
    }
}
