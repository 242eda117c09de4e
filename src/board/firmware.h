/* SPDX-License-Identifier: Apache-2.0 */
/* What firmware leaves behind below 1 MiB before a kernel starts: tables in read-only memory, BIOS data
 * areas. */
#ifndef SUNDOG_BOARD_FIRMWARE_H
#define SUNDOG_BOARD_FIRMWARE_H

#include "base/error.h"
#include "base/types.h"
#include "memory/pmap.h"

/* Writes all of it; *rsdp is where ACPI's tables begin. */
int firmware_load(struct pmap *pmap, unsigned cpus, uint64_t *rsdp, struct error *e);

#endif
