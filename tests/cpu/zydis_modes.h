/* SPDX-License-Identifier: Apache-2.0 */
/* What Zydis calls the three widths of code. */
#ifndef SUNDOG_TESTS_CPU_ZYDIS_MODES_H
#define SUNDOG_TESTS_CPU_ZYDIS_MODES_H

#include <Zydis/Zydis.h>

static const struct {
    unsigned code_bytes;
    ZydisMachineMode mode;
    ZydisStackWidth stack;
} modes[] = {
    { 8, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
    { 4, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
    { 2, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
};

#endif
