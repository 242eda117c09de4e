/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a view's areas lie in this process. One delta for all of them where the host has room; a program that uses both ends of its
 * address space needs two, and then the upper end is near: there are stack and libraries, whose code serves programs of either kind.
 *
 * What there will be is looked up in the guest's page tables when the view is laid out. An area that is met later gets a place beside
 * the others of its end; if there is none, all are laid out anew.
 */
#include "engine/bt/areas.h"

#include "host/view.h"

#define AREA_BYTES (1ull << AREA_SHIFT)
#define NARROW_BYTES (4ull << 30)

static uint64_t area_bytes(const struct bt_view *w) { return w->narrow ? NARROW_BYTES : AREA_BYTES; }
static uint64_t area_at(const struct bt_view *w, unsigned side, unsigned i)
{
    return ((uint64_t)w->area[side][i] << AREA_SHIFT) + w->delta[side];
}

int bt_areas_side(const struct bt_view *w, uint64_t lin)
{
    for (unsigned side = 0; side < VIEW_SIDES; side++)
        for (unsigned i = 0; i < w->nareas[side]; i++)
            if (lin - ((uint64_t)w->area[side][i] << AREA_SHIFT) < area_bytes(w))
                return (int)side;
    return -1;
}

void bt_areas_must(struct bt *b, bool taken_away)
{
    if (unlikely(!taken_away))
        b->v->internal_error = "the host did not take a mapping away";
}

/* One that could not be opened only costs time. */
void bt_areas_open(struct bt *b, const struct bt_view *w, bool open)
{
    for (unsigned side = 0; side < VIEW_SIDES && !w->narrow; side++)
        for (unsigned i = 0; i < w->nareas[side]; i++)
            bt_areas_must(b, host_view_readable(bt_areas_table(b) + side * SIDE_TABLE +
                                                    (uintptr_t)w->area[side][i] * PAGE_SIZE,
                                                PAGE_SIZE, open) ||
                                 open);
}

void bt_areas_empty(struct bt *b, const struct bt_view *w)
{
    for (unsigned side = 0; side < VIEW_SIDES; side++)
        for (unsigned i = 0; i < w->nareas[side]; i++)
            bt_areas_must(b, host_view_clear(area_at(w, side, i), area_bytes(w)));
}

/* --- one side ------------------------------------------------------------------------------------------------- */

/* What area i takes of the host's address space beside what those before it have taken: neighbours share their guards. */
static uint64_t range_of(const struct bt_view *w, unsigned side, unsigned i, uint64_t *len)
{
    const uint16_t *area = w->area[side];
    uint64_t from = area_at(w, side, i), to = from + area_bytes(w) + VIEW_GUARD;
    from -= VIEW_GUARD;
    for (unsigned k = 0; k < i; k++) {
        if (area[k] + 1 == area[i])
            from += 2 * VIEW_GUARD;
        if (area[k] == area[i] + 1)
            to -= 2 * VIEW_GUARD;
    }
    *len = to - from;
    return from;
}

static bool reserve(const struct bt_view *w, unsigned side, unsigned i)
{
    uint64_t len, from = range_of(w, side, i, &len);
    return from > VIEW_GUARD && from < HOST_END && from + len < HOST_END && host_view_reserve(from, len);
}

static void release_side(struct bt *b, struct bt_view *w, unsigned side)
{
    while (w->nareas[side] > 0) {
        uint64_t len, from = range_of(w, side, --w->nareas[side], &len);
        bt_areas_must(b, host_view_release(from, len));
    }
}

void bt_areas_release(struct bt *b, struct bt_view *w)
{
    for (unsigned side = 0; side < VIEW_SIDES; side++)
        release_side(b, w, side);
}

static bool add_to_side(struct bt_view *w, unsigned side, unsigned area)
{
    unsigned n = w->nareas[side];
    if (n == VIEW_AREAS)
        return false;
    w->area[side][n] = (uint16_t)area;
    if (!reserve(w, side, n))
        return false;
    w->nareas[side]++;
    return true;
}

/* Would all of an ascending row be in the host's user space under this delta? */
static bool in_range(const uint16_t *area, unsigned n, int64_t shift)
{
    return area[0] + shift > 0 && area[n - 1] + shift + 1 < (int64_t)USER_AREAS;
}

/* Finds a delta under which there is room for an ascending row. */
static bool place(struct bt *b, struct bt_view *w, unsigned side, const uint16_t *area, unsigned n)
{
    for (int64_t step = 1; step < 2 * (int64_t)USER_AREAS; step++) {
        int64_t shift = (step & 1 ? -1 : 1) * (step / 2 + 1);
        if (!in_range(area, n, shift))
            continue;
        w->delta[side] = (uint64_t)shift << AREA_SHIFT;
        while (w->nareas[side] < n && add_to_side(w, side, area[w->nareas[side]]))
            ;
        if (w->nareas[side] == n)
            return true;
        release_side(b, w, side);
    }
    return false;
}

/* --- all of them ---------------------------------------------------------------------------------------------- */

/* The areas that the page tables have anything in, and `area`: as an ascending row; 0: too many. */
static unsigned wanted(struct bt *b, uint64_t area, uint16_t row[VIEW_AREAS])
{
    uint64_t parts[USER_AREAS / 64];
    unsigned n = 0;
    mmu_user_parts(&b->v->mmu, parts);
    parts[area / 64] |= BIT(area % 64);
    for (unsigned i = 0; i < USER_AREAS / 64; i++)
        for (uint64_t left = parts[i]; left; left &= left - 1) {
            if (n == VIEW_AREAS)
                return 0;
            row[n++] = (uint16_t)(64 * i + lowest_bit(left));
        }
    return n;
}

/* The upper ones near, the lower ones far. */
static bool place_parted(struct bt *b, struct bt_view *w, const uint16_t *row, unsigned n)
{
    for (unsigned low = 1; low < n; low++) {
        if (place(b, w, SIDE_NEAR, row + low, n - low) && place(b, w, SIDE_FAR, row, low))
            return true;
        release_side(b, w, SIDE_NEAR);
    }
    return false;
}

bool bt_areas_lay_out(struct bt *b, struct bt_view *w, uint64_t area)
{
    uint16_t row[VIEW_AREAS];
    unsigned n = w->narrow ? 0 : wanted(b, area, row);
    if (n == 0) { /* of too many the one that is asked for; others as they are met */
        row[0] = w->narrow ? 0 : (uint16_t)area;
        n = 1;
    }
    w->delta[SIDE_FAR] = 0;
    return place(b, w, SIDE_NEAR, row, n) || place_parted(b, w, row, n);
}

bool bt_areas_add(struct bt_view *w, uint64_t area)
{
    bool low = w->nareas[SIDE_FAR] && area < w->area[SIDE_NEAR][0];
    return add_to_side(w, low ? SIDE_FAR : SIDE_NEAR, (unsigned)area);
}
