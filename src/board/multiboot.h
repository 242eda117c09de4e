/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot version 0.6.96 ("v1"): recognising a kernel by its header. */
#ifndef SUNDOG_BOARD_MULTIBOOT_H
#define SUNDOG_BOARD_MULTIBOOT_H

#include "base/types.h"

/* A header with a right checksum lies, 4-byte aligned, in the first 8192 bytes. */
bool multiboot_is(const uint8_t *head, size_t len);

#endif
