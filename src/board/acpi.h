/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI tables of this PC: RSDP, RSDT, XSDT, FADT, FACS, MADT, DSDT. */
#ifndef SUNDOG_BOARD_ACPI_H
#define SUNDOG_BOARD_ACPI_H

#include "base/types.h"

#define ACPI_FACS_LEN 64u

struct acpi_places {
    uint64_t tables; /* where `buf` will lie; the RSDP is its first thing, 16-byte aligned below 1 MiB */
    uint64_t facs;   /* 64 writable bytes, 64-byte aligned */
};

/* Writes the tables for `cpus` processors; returns their length, 0 when `cap` is too small. */
size_t acpi_build(uint8_t *buf, size_t cap, const struct acpi_places *at, unsigned cpus);
void acpi_build_facs(uint8_t facs[ACPI_FACS_LEN]);

#endif
