/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of this process's address space in which pages of shared memory are shown at chosen addresses. */
#ifndef SUNDOG_HOST_VIEW_H
#define SUNDOG_HOST_VIEW_H

#include "base/types.h"

/* May this host's processes set the base of GS, and does its processor have SHRX and RORX? */
bool host_view_possible(void);
/* Base of the calling thread's GS, which nothing else here uses. */
void host_set_gs_base(uint64_t base);

/* Address space without memory at [at, at+len), whole pages: false when something else is there, or there is none. Any access
 * faults. */
bool host_view_reserve(uintptr_t at, uint64_t len);
/* The same anywhere: where, or NULL. */
uint8_t *host_view_room(uint64_t len);
/* This and what follows: false: the host refused, and all is as it was. It does so when a mapping would be divided and there are too
 * many, or without memory for its own. */
must_use bool host_view_release(uintptr_t at, uint64_t len);
/* A host lets a process have some 65,000 mappings of all kinds; all machines and processors in it share them. Before something is
 * shown, so many are taken, and given back when it is shown no more. False: there are not so many left. Any thread. */
bool host_view_take(unsigned mappings);
void host_view_give(unsigned mappings);
/* Shows `len` bytes of a memfd from `off` on at `at`, in a reserved range. False: the host has no room for more. */
bool host_view_show(uintptr_t at, int fd, uint64_t off, uint64_t len, bool write);
/* Nothing is shown there any more. */
must_use bool host_view_clear(uintptr_t at, uint64_t len);
/* May the pages [at, at+len) of a private reservation be read? They read as zeroes. */
must_use bool host_view_readable(uintptr_t at, uint64_t len, bool yes);

#endif
