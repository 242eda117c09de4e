/* SPDX-License-Identifier: Apache-2.0 */
/* Stubs assembled from the table rows, and the four ways to call one. See simd_stubs.h. */
#include "engine/interp/simd_stubs.h"

#include "host/traps.h"

#define TEXT(x) #x
#define STR(x) TEXT(x)

/*
 * For each row: its stubs in .text and, in row order, their offsets in simd_stub_offsets (plain, REX.W).
 * Mandatory prefix, REX.W, 0F, map, opcode, ModRM, immediate. ModRM is C1 (register 0, register 1); group shifts are C0 | n << 3;
 * rows with an implicit XMM0 use D1 (register 2, register 1).
 */
__asm__(".set PN, 0\n .set P66, 0x66\n .set PF3, 0xf3\n .set PF2, 0xf2\n"
        ".set MAP_0F, 0\n .set MAP_0F38, 0x38\n .set MAP_0F3A, 0x3a\n"
        ".macro simd_insn pfx, rexw, map, opcode, modrm\n"
        "  .if \\pfx\n .byte \\pfx\n .endif\n"
        "  .if \\rexw\n .byte 0x48\n .endif\n"
        "  .byte 0x0f\n"
        "  .if \\map\n .byte \\map\n .endif\n"
        "  .byte \\opcode\n"
        "  .if \\opcode != 0x77\n .byte \\modrm\n .endif\n"
        ".endm\n"
        ".macro simd_form pfx, rexw, map, opcode, modrm, imm\n"
        "  .p2align 4\n"
        "9:\n"
        "  .if \\imm\n"
        "    .set simd_i, 0\n"
        "    .rept 256\n"
        "      .p2align 4\n"
        "      simd_insn \\pfx, \\rexw, \\map, \\opcode, \\modrm\n"
        "      .byte simd_i\n"
        "      ret\n"
        "      .set simd_i, simd_i + 1\n"
        "    .endr\n"
        "  .else\n"
        "    simd_insn \\pfx, \\rexw, \\map, \\opcode, \\modrm\n"
        "    ret\n"
        "  .endif\n"
        "  .pushsection .rodata.simd_offsets, \"a\"\n"
        "  .long 9b - simd_stub_base\n"
        "  .popsection\n"
        ".endm\n"
        /* Memory-only, state and move rows have no stub: the operation is done in C. */
        ".macro simd_row pfx, map, opcode, reg, mem_only, b, c, wide\n"
        "  .set simd_modrm, 0xc1\n"
        "  .set simd_imm, 0\n"
        "  .ifc \\b,Ib\n .set simd_imm, 1\n .set simd_modrm, 0xc0 | (\\reg << 3)\n .endif\n"
        "  .ifc \\c,Ib\n .set simd_imm, 1\n .endif\n"
        "  .if \\map == 0x38\n .if \\opcode == 0x10 || \\opcode == 0x14 || \\opcode == 0x15\n .set "
        "simd_modrm, 0xd1\n .endif\n .endif\n"
        "  .if \\mem_only\n"
        "    .pushsection .rodata.simd_offsets, \"a\"\n .long 0, 0\n .popsection\n"
        "  .else\n"
        "    simd_form \\pfx, 0, \\map, \\opcode, simd_modrm, simd_imm\n"
        "    .if \\wide\n"
        "      simd_form \\pfx, 1, \\map, \\opcode, simd_modrm, simd_imm\n"
        "    .else\n"
        "      .pushsection .rodata.simd_offsets, \"a\"\n .long 0\n .popsection\n"
        "    .endif\n"
        "  .endif\n"
        ".endm\n"
        ".pushsection .rodata.simd_offsets, \"a\"\n"
        ".p2align 2\n"
        "simd_stub_offsets:\n"
        ".popsection\n"
        ".text\n"
        ".p2align 4\n"
        "simd_stub_base:\n"
        "  ud2\n");

#define MEM_MA 0
#define MEM_MR 0
#define MEM_MM 1

#define I(id, map, pfx, opcode, reg, mod, a, b, c, flags) \
    __asm__("simd_row " #pfx ", " #map \
            ", " STR(opcode) ", " STR(reg) ", " STR(MEM_##mod) ", " #b ", " #c ", " \
                                                               "SIMD_WIDE_" #a " | SIMD_WIDE_" #b "\n");

__asm__(".set SIMD_WIDE_Ey, 1\n .set SIMD_WIDE_Gy, 1\n"
        ".irp name, Vx, Wb, Ww, Wd, Wq, Wdq, Ux, Pq, Qd, Qq, Nq, Mw, Md, Mq, Mdq, Mstate, Ib, Ed, Ed_Mb, "
        "Ed_Mw, __\n"
        ".set SIMD_WIDE_\\name, 0\n"
        ".endr\n");
#include "isa/insn_simd.def"
#undef I

extern const uint32_t simd_stub_offsets[] __attribute__((visibility("hidden")));
extern const char simd_stub_base[] __attribute__((visibility("hidden")));

/* First row of insn_simd.def in insn_rows: rows of insn_int.def come before it. */
enum {
#define I(...) +1
    INT_ROWS = 0
#include "isa/insn_int.def"
    ,
    SIMD_ROWS = 0
#include "isa/insn_simd.def"
#undef I
};

bool simd_row_has_imm(const struct insn_row *row) { return row->op[1] == Ib || row->op[2] == Ib; }

const void *simd_stub(const struct insn_row *row, bool wide, uint8_t imm)
{
    unsigned n = (unsigned)(row - insn_rows) - INT_ROWS;
    if (n >= SIMD_ROWS || !simd_stub_offsets[2 * n + wide])
        return NULL;
    return simd_stub_base + simd_stub_offsets[2 * n + wide] +
           (simd_row_has_imm(row) ? imm * SIMD_IMM_STRIDE : 0);
}

/* Where a trapped stub goes on: back to its caller, who finds MXCSR in r11d. */
extern const char simd_stub_end[] __attribute__((visibility("hidden")));
extern const char simd_trap_return[] __attribute__((visibility("hidden")));
__asm__(".text\n"
        "simd_stub_end:\n"
        "simd_trap_return:\n"
        "  ret\n");

void simd_catch_traps(void) { host_catch_simd_traps(simd_stub_base, simd_stub_end, simd_trap_return); }

/* void simd_call_xmm(void *dst, const void *src, const void *stub) */
__asm__(".text\n .globl simd_call_xmm\n .hidden simd_call_xmm\n .type simd_call_xmm, @function\n .p2align 4\n"
        "simd_call_xmm:\n"
        "  movups (%rdi), %xmm0\n"
        "  movups (%rsi), %xmm1\n"
        "  call *%rdx\n"
        "  movups %xmm0, (%rdi)\n"
        "  ret\n"
        ".size simd_call_xmm, . - simd_call_xmm\n");

__asm__(".globl simd_call_mmx\n .hidden simd_call_mmx\n .type simd_call_mmx, @function\n .p2align 4\n"
        "simd_call_mmx:\n"
        "  movq (%rdi), %mm0\n"
        "  movq (%rsi), %mm1\n"
        "  call *%rdx\n"
        "  movq %mm0, (%rdi)\n"
        "  emms\n"
        "  ret\n"
        ".size simd_call_mmx, . - simd_call_mmx\n");

#define FRAME_OFFSETS(X) \
    X(xmm0, 0) \
    X(xmm1, 16) X(xmm2, 32) X(mm0, 48) X(mm1, 56) X(rax, 64) X(rcx, 72) X(rdx, 80) X(cc, 88) X(trapped, 92)
#define X(field, at) _Static_assert(offsetof(struct simd_frame, field) == at, "simd_call_frame's layout");
FRAME_OFFSETS(X)
#undef X

/* rdi = frame, rsi = stub; flags go in by SAHF and the overflow trick, and out by LAHF and SETO. */
#define FRAME_CALL(name, mmx_in, mmx_out) \
    __asm__(".globl " name "\n .hidden " name "\n .type " name ", @function\n .p2align 4\n" name ":\n" \
            "  push %rbx\n" \
            "  mov %rdi, %rbx\n" \
            "  movups (%rbx), %xmm0\n" \
            "  movups 16(%rbx), %xmm1\n" \
            "  movups 32(%rbx), %xmm2\n" mmx_in "  mov 72(%rbx), %rcx\n" \
            "  mov 80(%rbx), %rdx\n" \
            "  mov $0, %r11d\n" \
            "  movzwl 88(%rbx), %eax\n" \
            "  add $0x7f, %al\n" \
            "  sahf\n" \
            "  mov 64(%rbx), %rax\n" \
            "  call *%rsi\n" \
            "  mov %rax, 64(%rbx)\n" \
            "  lahf\n" \
            "  seto %al\n" \
            "  mov %ax, 88(%rbx)\n" \
            "  mov %r11d, 92(%rbx)\n" \
            "  mov %rcx, 72(%rbx)\n" \
            "  movups %xmm0, (%rbx)\n" \
            "  movups %xmm2, 32(%rbx)\n" mmx_out "  pop %rbx\n" \
            "  ret\n" \
            ".size " name ", . - " name "\n");

FRAME_CALL("simd_call_frame", "", "")
FRAME_CALL("simd_call_frame_mmx", "movq 48(%rbx), %mm0\n movq 56(%rbx), %mm1\n",
           "movq %mm0, 48(%rbx)\n emms\n")
