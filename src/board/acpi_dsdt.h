/* SPDX-License-Identifier: Apache-2.0 */
/* The DSDT's contents: the devices that no bus can enumerate, described in AML. */
#ifndef SUNDOG_BOARD_ACPI_DSDT_H
#define SUNDOG_BOARD_ACPI_DSDT_H

#include "board/aml.h"

void acpi_dsdt(struct aml *a);

#endif
