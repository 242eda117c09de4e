/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory that other processes may map: memfd objects. */
#ifndef SUNDOG_HOST_MEMORY_H
#define SUNDOG_HOST_MEMORY_H

#include "base/error.h"
#include "base/types.h"

/* Maps `len` zeroed bytes of a new memfd (sealed against shrinking, not executable), page-aligned, no swap
 * reserved. -ENOMEM etc. */
int host_memory_map(const char *name, uint64_t len, uint8_t **host, int *fd, struct error *e);
void host_memory_unmap(uint8_t *host, uint64_t len, int fd);
/* Writes to the memfd behind such a mapping, seen through it at once: for much data this costs half of a copy
 * into pages that were never touched. 0 or -errno. */
must_use int host_memory_write(int fd, uint64_t off, const void *src, size_t len);
/* Anonymous zeroed private pages (tables), lazily backed. NULL on failure. */
void *host_pages_alloc(size_t len);
/* The same, with `reserve` bytes of address space behind it where every access faults. */
void *host_pages_alloc_before(size_t len, uint64_t reserve);
void host_pages_free(void *p, size_t len);
/* Zeroes a part of such pages; the host gets back what was in use of it. */
void host_pages_clear(void *p, size_t len);
/* A hint that this large buffer is about to be filled: in huge pages, where the host has them, that saves
 * thousands of page faults. */
void host_memory_will_fill(void *p, size_t len);

#endif
