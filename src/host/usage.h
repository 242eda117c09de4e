/* SPDX-License-Identifier: Apache-2.0 */
/* What of this process's memory the host holds at the moment. */
#ifndef SUNDOG_HOST_USAGE_H
#define SUNDOG_HOST_USAGE_H

#include "base/types.h"

struct host_usage {
    uint64_t rss; /* bytes resident; a page mapped twice counts twice, as in all of the host's figures */
    uint64_t page_tables; /* bytes of page tables that map them */
};

/* Part of the address space, whole mappings. */
struct host_range {
    const void *start;
    size_t len;        /* bytes */
    uint64_t resident; /* out: bytes of it that are resident */
};

/* Fills `u` and each range's `resident`. False, with all of them 0, where /proc cannot be read. Takes some
 * milliseconds. */
bool host_usage_read(struct host_usage *u, struct host_range *ranges, unsigned count);

#endif
