/* SPDX-License-Identifier: Apache-2.0 */
/* Guest instructions as text. */
#include "disasm.h"

#include <stdio.h>

#include <Zydis/Zydis.h>

unsigned fetch_code(struct vcpu *v, uint8_t out[CODE_BYTES_MAX])
{
    for (unsigned i = 0; i < CODE_BYTES_MAX; i++) {
        uint64_t lin = (v->sf[SEG_CS].base + v->s.rip + i) & v->lin_mask;
        struct mmu_result r = mmu_peek(&v->mmu, GVA(lin), ACCESS_FETCH, v->mmu.index);
        if (r.fault || !r.page || ram_read(v->pmap, r.addr, &out[i], 1))
            return i;
    }
    return CODE_BYTES_MAX;
}

static ZydisMachineMode machine_mode(unsigned code_bytes)
{
    return code_bytes == 8   ? ZYDIS_MACHINE_MODE_LONG_64
           : code_bytes == 4 ? ZYDIS_MACHINE_MODE_LEGACY_32
                             : ZYDIS_MACHINE_MODE_LEGACY_16;
}

static ZydisStackWidth stack_width(unsigned code_bytes)
{
    return code_bytes == 8   ? ZYDIS_STACK_WIDTH_64
           : code_bytes == 4 ? ZYDIS_STACK_WIDTH_32
                             : ZYDIS_STACK_WIDTH_16;
}

unsigned disassemble(const uint8_t *bytes, unsigned avail, unsigned code_bytes, uint64_t rip, char *out,
                     size_t len)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction in;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    char text[96] = "(no instruction)";
    ZydisDecoderInit(&decoder, machine_mode(code_bytes), stack_width(code_bytes));
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    unsigned size = avail ? 1 : 0;
    if (!avail) {
        snprintf(text, sizeof(text), "(cannot be fetched)");
    } else if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, avail, &in, ops))) {
        size = in.length;
        ZydisFormatterFormatInstruction(&formatter, &in, ops, in.operand_count_visible, text, sizeof(text),
                                        rip, NULL);
    }
    size_t at = 0;
    for (unsigned i = 0; i < size && at < len; i++)
        at += (size_t)snprintf(out + at, len - at, "%02x ", bytes[i]);
    for (; at < 31 && at + 1 < len; at++)
        out[at] = ' ';
    if (at < len)
        snprintf(out + at, len - at, "%s", text);
    return size ? size : 1;
}
