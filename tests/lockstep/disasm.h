/* SPDX-License-Identifier: Apache-2.0 */
/* Guest instructions as text, for reports. Zydis does it: a judge that shares nothing with our decoder. */
#ifndef SUNDOG_TESTS_LOCKSTEP_DISASM_H
#define SUNDOG_TESTS_LOCKSTEP_DISASM_H

#include "cpu/vcpu.h"

/* Bytes in one instruction at most. */
#define CODE_BYTES_MAX 15u

/* The bytes at the vcpu's CS:rip, without any effect on the guest; returns how many could be read. */
unsigned fetch_code(struct vcpu *v, uint8_t out[CODE_BYTES_MAX]);

/* "48 89 d8      mov rax, rbx" into `out`; `code_bytes` 2, 4 or 8. Returns the instruction's length, 1 when
 * it is none. */
unsigned disassemble(const uint8_t *bytes, unsigned avail, unsigned code_bytes, uint64_t rip, char *out,
                     size_t len);

#endif
