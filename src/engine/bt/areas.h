/* SPDX-License-Identifier: Apache-2.0 */
/* The areas of a view, of 512 GiB each (bt.h, AREA_SHIFT): where they lie on the host, and the tables by which code knows them. */
#ifndef SUNDOG_ENGINE_BT_AREAS_H
#define SUNDOG_ENGINE_BT_AREAS_H

#include "engine/bt/bt.h"

#define HOST_END (1ull << 47) /* of the host's user space, and of the guest's */

/* The tables, whose pages are open for the areas of the view in force. */
static inline uintptr_t bt_areas_table(const struct bt *b) { return (uintptr_t)b->v + (uintptr_t)AREA_TABLE; }

/* Reserves address space for all areas that the page tables have anything in, and for this one. The view has none before, and none
 * if it fails: the host has no room. */
bool bt_areas_lay_out(struct bt *b, struct bt_view *w, uint64_t area);
/* One more beside those that there are. False: there is no room for it that way. */
bool bt_areas_add(struct bt_view *w, uint64_t area);
/* All address space is given back, with what was shown there. */
void bt_areas_release(struct bt *b, struct bt_view *w);
/* Nothing is shown there any more. */
void bt_areas_empty(struct bt *b, const struct bt_view *w);
/* The tables' pages of this view's areas may be read, or not any more. */
void bt_areas_open(struct bt *b, const struct bt_view *w, bool open);
/* The side of this guest address, or -1: in no area. */
int bt_areas_side(const struct bt_view *w, uint64_t lin);
/* What the host goes on showing could be reached by a view that it is not for: the machine stops, and no view is used any more. */
void bt_areas_must(struct bt *b, bool taken_away);

#endif
