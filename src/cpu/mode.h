/* SPDX-License-Identifier: Apache-2.0 */
/* The packed mode key: the only mode input of decoding and translation. Built by vcpu_mode_key() alone. */
#ifndef SUNDOG_CPU_MODE_H
#define SUNDOG_CPU_MODE_H

#include "base/types.h"

#define MODE_CODE_MASK 0x3u /* code size: */
#define MODE_CODE16 0u
#define MODE_CODE32 1u
#define MODE_CODE64 2u
#define MODE_SS32 0x4u /* stack pointer is 32 bits (SS.B); in 64-bit mode it is 64 */
#define MODE_PE 0x8u   /* protected mode (vm86 included) */
#define MODE_VM86 0x10u
#define MODE_CPL_SHIFT 5
#define MODE_CPL_MASK 0x60u
#define MODE_LMA 0x80u /* EFER.LMA: compatibility mode when code is not 64-bit */
/* DS, ES, SS usable for reads and writes, base 0, limit 4 GiB: no segment checks needed. */
#define MODE_FLAT 0x100u
#define MODE_STEP 0x200u /* TF, code breakpoints or a shadow: one instruction a block, with checks */
/* 16-bit code, not flat: DS, ES, SS, FS, GS may be read and written at any 16-bit offset. */
#define MODE_64K 0x400u
#define MODE_KEY_MASK 0xfffu /* all of it */

static inline unsigned mode_code_bytes(uint32_t mode) { return 2u << (mode & MODE_CODE_MASK); }
static inline unsigned mode_cpl(uint32_t mode) { return (mode & MODE_CPL_MASK) >> MODE_CPL_SHIFT; }

#endif
