/* SPDX-License-Identifier: Apache-2.0 */
/* Claiming ranges of guest RAM for what is loaded at boot. */
#include "board/place.h"

#include <errno.h>

#include "base/checked.h"

/* Interrupt vectors and the BIOS data area are nobody's to choose. */
#define FLOOR PAGE_SIZE

static const struct place *hit(const struct placement *p, uint64_t base, uint64_t len)
{
    for (unsigned i = 0; i < p->count; i++) {
        const struct place *u = &p->used[i];
        if (base < u->base + u->len && u->base < base + len)
            return u;
    }
    return NULL;
}

static bool all_ram(const struct memory_map *map, uint64_t base, uint64_t len)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct map_range *r = &map->range[i];
        if (r->type == MAP_RAM && base >= r->base && ck_range(base - r->base, len, r->len))
            return true;
    }
    return false;
}

static int claim(struct placement *p, uint64_t base, uint64_t len, const char *what, struct error *e)
{
    if (p->count == PLACES_MAX)
        return error_set(e, -ENOSPC, "%s is one of more than %d loaded parts; give fewer modules or segments",
                         what, PLACES_MAX);
    p->used[p->count++] = (struct place){ base, len, what };
    return 0;
}

static int no_room(const struct placement *p, uint64_t len, const char *what, struct error *e)
{
    return error_set(e, -ENOMEM,
                     "no room for %s (%llu bytes) in the %llu MiB below the PCI hole; try more --memory",
                     what, (unsigned long long)len, (unsigned long long)(p->map->low_end >> 20));
}

int place_fixed(struct placement *p, uint64_t base, uint64_t len, const char *what, struct error *e)
{
    if (!all_ram(p->map, base, len))
        return error_set(e, -ENOMEM,
                         "%s wants %llu bytes at 0x%llx, which is not all RAM (RAM ends at 0x%llx); "
                         "try more --memory",
                         what, (unsigned long long)len, (unsigned long long)base,
                         (unsigned long long)p->map->low_end);
    const struct place *u = hit(p, base, len);
    if (u && u->what != what)
        return error_set(e, -EEXIST, "%s at 0x%llx overlaps %s at 0x%llx", what, (unsigned long long)base,
                         u->what, (unsigned long long)u->base);
    return claim(p, base, len, what, e);
}

int place_below(struct placement *p, uint64_t len, uint64_t align, uint64_t top, const char *what,
                uint64_t *base, struct error *e)
{
    for (unsigned i = p->map->count; i-- > 0;) {
        const struct map_range *r = &p->map->range[i];
        uint64_t floor = r->base < FLOOR ? FLOOR : r->base;
        uint64_t end = r->base + r->len < top ? r->base + r->len : top;
        /* Each round ends below one more claimed range, so there are at most count + 1. */
        while (r->type == MAP_RAM && end >= floor && end - floor >= len) {
            uint64_t at = (end - len) & ~(align - 1);
            if (at < floor)
                break;
            const struct place *u = hit(p, at, len);
            if (!u) {
                *base = at;
                return claim(p, at, len, what, e);
            }
            end = u->base;
        }
    }
    return no_room(p, len, what, e);
}

int place_above(struct placement *p, uint64_t len, uint64_t align, uint64_t bottom, const char *what,
                uint64_t *base, struct error *e)
{
    for (unsigned i = 0; i < p->map->count; i++) {
        const struct map_range *r = &p->map->range[i];
        uint64_t end = r->base + r->len;
        uint64_t at = r->base < FLOOR ? FLOOR : r->base;
        if (at < bottom)
            at = bottom;
        while (r->type == MAP_RAM && at < end) {
            at = (at + align - 1) & ~(align - 1);
            if (at >= end || end - at < len)
                break;
            const struct place *u = hit(p, at, len);
            if (!u) {
                *base = at;
                return claim(p, at, len, what, e);
            }
            at = u->base + u->len;
        }
    }
    return no_room(p, len, what, e);
}
