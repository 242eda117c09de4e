/* SPDX-License-Identifier: Apache-2.0 */
/* Laying out the firmware area and the BIOS data areas. */
#include "board/firmware.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "board/acpi.h"
#include "board/mptable.h"
#include "board/pc.h"

/* Offsets in the firmware area. ACPI's pointer is looked for from 0xe0000 on, MP's from 0xf0000 on. */
#define ACPI_AT 0x0u
#define MP_AT 0x10000u
#define SERVICE_AT 0x1ffc0u
#define RESET_VECTOR 0x1fff0u
#define MODEL_BYTE 0x1fffeu

/* The FACS is written to by the guest (its lock), so it lies in the extended BIOS data area. */
#define FACS_AT (PC_EBDA + 0x100)

/* BIOS data area fields (offsets), and the first byte of the extended one: its length in KiB. */
enum { BDA_COM1 = 0x00, BDA_EBDA_SEGMENT = 0x0e, BDA_MEMORY_KB = 0x13, BDA_LEN = 0x100 };
enum { REAL_VECTORS = 256 };

/* The interrupt table for those who go to real mode and call the firmware: nothing is offered. */
static int put_vectors(struct pmap *pmap)
{
    uint8_t ivt[REAL_VECTORS * 4];
    for (unsigned i = 0; i < REAL_VECTORS; i++) {
        put_le16(ivt + i * 4, (PC_FIRMWARE + SERVICE_AT) & 0xffff);
        put_le16(ivt + i * 4 + 2, ((PC_FIRMWARE + SERVICE_AT) & 0xf0000) >> 4);
    }
    return pmap_load(pmap, GPA(0), ivt, sizeof(ivt));
}

static int put_data_areas(struct pmap *pmap)
{
    uint8_t bda[BDA_LEN] = { 0 }, facs[ACPI_FACS_LEN];
    const uint8_t ebda_kb = (PC_CONVENTIONAL_END - PC_EBDA) >> 10;
    put_le16(bda + BDA_COM1, PC_PORT_COM1);
    put_le16(bda + BDA_EBDA_SEGMENT, PC_EBDA >> 4);
    put_le16(bda + BDA_MEMORY_KB, PC_EBDA >> 10);
    acpi_build_facs(facs);
    int r = pmap_load(pmap, GPA(PC_BDA), bda, sizeof(bda));
    if (!r)
        r = pmap_load(pmap, GPA(PC_EBDA), &ebda_kb, 1);
    return r ? r : pmap_load(pmap, GPA(FACS_AT), facs, sizeof(facs));
}

static int build(uint8_t *rom, unsigned cpus)
{
    static const uint8_t halt_forever[] = { 0xf4, 0xeb,
                                            0xfd }; /* hlt; jmp to it: there is no firmware to run */
    /* push bp; mov bp, sp; or byte [bp + 6], 1; pop bp; mov ah, 0x86; iret: CF and AH say "no such function" */
    static const uint8_t no_service[] = { 0x55, 0x89, 0xe5, 0x80, 0x4e, 0x06, 0x01, 0x5d, 0xb4, 0x86, 0xcf };
    const uint8_t at_model = 0xfc;
    const struct acpi_places places = { .tables = PC_FIRMWARE + ACPI_AT, .facs = FACS_AT };
    if (!acpi_build(rom + ACPI_AT, MP_AT - ACPI_AT, &places, cpus) ||
        !mptable_build(rom + MP_AT, SERVICE_AT - MP_AT, PC_FIRMWARE + MP_AT, cpus))
        return -ENOSPC;
    memcpy(rom + SERVICE_AT, no_service, sizeof(no_service));
    memcpy(rom + RESET_VECTOR, halt_forever, sizeof(halt_forever));
    rom[MODEL_BYTE] = at_model;
    return 0;
}

int firmware_load(struct pmap *pmap, unsigned cpus, uint64_t *rsdp, struct error *e)
{
    uint8_t *rom = calloc(1, PC_FIRMWARE_LEN);
    int r = rom ? build(rom, cpus) : -ENOMEM;
    if (!r)
        r = pmap_load(pmap, GPA(PC_FIRMWARE), rom, PC_FIRMWARE_LEN);
    if (!r)
        r = put_vectors(pmap);
    if (!r)
        r = put_data_areas(pmap);
    free(rom);
    *rsdp = PC_FIRMWARE + ACPI_AT;
    return r ? error_set(e, r, "the firmware tables could not be laid out") : 0;
}
