/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of Intel's MultiProcessor Specification 1.4, for kernels that do not read ACPI. */
#ifndef SUNDOG_BOARD_MPTABLE_H
#define SUNDOG_BOARD_MPTABLE_H

#include "base/types.h"

/* Writes floating pointer and configuration table, to lie at `at` (16-byte aligned, in the area that is
 * searched: 0xf0000-0xfffff); returns their length, 0 when `cap` is too small. */
size_t mptable_build(uint8_t *buf, size_t cap, uint64_t at, unsigned cpus);

#endif
