/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter's engine: counts, faults, code that changes, strings, modes, requests. (Instructions: tests/cpu, against the host.) */
#include "engine_kit.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static uint64_t *gpr(struct kit *k) { return k->v->s.gpr; }

/* --- counting -------------------------------------------------------------------------------------------------------------- */

GUEST_CODE(loop64, 64,
           "mov ecx, 1000\n xor eax, eax\n"
           "1: lea rax, [rax + rcx*2 + 3]\n add rax, rcx\n test cl, 1\n jz 2f\n xor rax, 0x55\n"
           "2: dec rcx\n jnz 1b\n"
           "call 3f\n push rax\n pop rbx\n hlt\n"
           "3: imul rax, rax, 7\n ret");

static uint64_t loop64_result(void)
{
    uint64_t rax = 0;
    for (uint64_t rcx = 1000; rcx; rcx--) {
        rax += rcx * 2 + 3 + rcx;
        if (rcx & 1)
            rax ^= 0x55;
    }
    return rax * 7;
}

#define LOOP64_COUNT (2 + 1000 * 6 + 500 + 1 + 2 + 3)

static void a_loop_computes(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, loop64);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], loop64_result());
    assert_int_equal(gpr(k)[RBX], loop64_result());
    assert_int_equal(k->v->s.retired, LOOP64_COUNT);
}

static void until_count_is_exact(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, loop64);
    for (uint64_t at = 0, step = 1; at < LOOP64_COUNT - 1; step = step * 5 % 97) {
        at = at + step < LOOP64_COUNT ? at + step : LOOP64_COUNT - 1;
        assert_int_equal(k->engine->run(k->v, at), EXIT_COUNT);
        assert_int_equal(k->v->s.retired, at);
    }
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], loop64_result());
    assert_int_equal(k->v->s.retired, LOOP64_COUNT);
}

struct trace {
    unsigned calls;
    uint64_t last_rip;
};

static void note_trace(void *ctx, const struct vcpu *v)
{
    struct trace *t = ctx;
    t->calls++;
    t->last_rip = v->s.rip;
}

static void tracing_sees_every_instruction(void **state)
{
    struct kit *k = *state;
    struct trace t = { 0 };
    kit_long(k, 0);
    load_code(k, loop64);
    interp_set_trace(k->v, note_trace, &t);
    run_to_hlt(k);
    assert_int_equal(t.calls, LOOP64_COUNT);
    assert_int_equal(t.last_rip, k->v->s.rip - 1);
    assert_int_equal(gpr(k)[RAX], loop64_result());
}

/* If handlers were calls instead of jumps, this would need gigabytes of stack. */
GUEST_CODE(long_run, 64,
           "mov ecx, 3000000\n"
           "1: lea rdx, [rip + 3f]\n call rdx\n cmp eax, 5\n jz 2f\n jmp 2f\n"
           "2: dec ecx\n jnz 1b\n hlt\n"
           "3: add eax, 1\n ret");

static void long_runs_need_no_stack(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, long_run);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], 3000000);
}

/* --- faults ---------------------------------------------------------------------------------------------------------------- */

GUEST_CODE(fault_inside, 64, "mov eax, 1\n inc eax\n add eax, [0x10000000]\n inc eax\n hlt");

static void a_fault_inside_a_block_is_precise(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, fault_inside);
    uint64_t rsp = gpr(k)[RSP];
    run_to_exception(k, VEC_PF);
    assert_int_equal(k->v->s.cr2, 0x10000000);
    assert_int_equal(gpr(k)[RAX], 2);
    assert_int_equal(k->v->s.retired, 2 + 1); /* and the handler's HLT */
    assert_int_equal(kit_stack64(k, 0), 0);   /* supervisor, read, not present */
    assert_int_equal(kit_stack64(k, 1), CODE_AT + 5 + 2);
    assert_int_equal(kit_stack64(k, 4), rsp);
    assert_true(kit_stack64(k, 3) & FL_RF);
}

GUEST_CODE(push_fault, 64, "mov rsp, 0x10000008\n push rax\n push rbx\n hlt");

static void a_faulting_push_leaves_rsp(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, push_fault);
    kit_idt64(k, VEC_PF, G_CODE64, HANDLER_AT + 16 * VEC_PF, SYS_INT_GATE32, 0, 1); /* a stack that works */
    run_to_exception(k, VEC_PF);
    assert_int_equal(k->v->s.cr2, 0x10000000);
    assert_int_equal(kit_stack64(k, 0), 2); /* write */
    assert_int_equal(kit_stack64(k, 4), 0x10000008);
}

GUEST_CODE(rmw_fault, 64, "stc\n adc dword ptr [0x10000000], 1\n hlt");

static void a_faulting_read_modify_write_keeps_flags(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, rmw_fault);
    run_to_exception(k, VEC_PF);
    assert_int_equal(kit_stack64(k, 0), 2);
    assert_true(kit_stack64(k, 3) & FL_CF);
}

GUEST_CODE(divide, 64, "xor edx, edx\n mov eax, 7\n xor ecx, ecx\n div ecx\n hlt");

static void division_by_zero(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, divide);
    run_to_exception(k, VEC_DE);
    assert_int_equal(kit_stack64(k, 0), CODE_AT + 2 + 5 + 2);
    assert_int_equal(gpr(k)[RAX], 7);
}

GUEST_CODE(overflowing, 64, "mov rax, 0x8000000000000000\n cqo\n mov rcx, -1\n idiv rcx\n hlt");

static void signed_division_overflows(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, overflowing);
    run_to_exception(k, VEC_DE);
}

GUEST_CODE(undefined_insn, 64, "mov eax, 3\n .byte 0x0f, 0xff, 0xc0\n hlt");
GUEST_CODE(not_an_insn, 64, "mov eax, 3\n .byte 0x06\n hlt");

static void undefined_instructions(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, undefined_insn);
    run_to_exception(k, VEC_UD);
    assert_int_equal(kit_stack64(k, 0), CODE_AT + 5);
    kit_long(k, 0);
    load_code(k, not_an_insn);
    run_to_exception(k, VEC_UD);
    assert_int_equal(kit_stack64(k, 0), CODE_AT + 5);
}

static void an_instruction_longer_than_15_bytes(void **state)
{
    struct kit *k = *state;
    static const uint8_t code[] = { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                    0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90 };
    kit_long(k, 0);
    load_code_at(k, code, sizeof(code), CODE_AT);
    run_to_exception(k, VEC_GP);
    assert_int_equal(kit_stack64(k, 0), 0);
    assert_int_equal(kit_stack64(k, 1), CODE_AT);
}

GUEST_CODE(jump_far_away, 64, "mov rax, 0x0000800000000000\n jmp rax");

static void a_jump_to_a_non_canonical_address(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, jump_far_away);
    run_to_exception(k, VEC_GP);
    assert_int_equal(kit_stack64(k, 1), CODE_AT + 10);
}

/* --- fetching ---------------------------------------------------------------------------------------------------------------- */

static void fetching_from_where_nothing_is(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    load_code_at(k, (const uint8_t[]){ 0x90 }, 1, CODE_AT);
    k->v->s.rip = 0xc0000000;
    run_to_exception(k, VEC_UD);
    assert_int_equal(kit_stack32(k, 0), 0xc0000000);
    k->v->s.rip = KIT_MMIO + 0xff8;
    k->v->s.activity = ACTIVITY_RUN;
    run_to_exception(k, VEC_UD);
    assert_int_equal(k->mmio_reads, 0);
}

/* mov eax, imm32 with its opcode on one page and the rest on the next. */
static void an_instruction_across_pages(void **state)
{
    struct kit *k = *state;
    static const uint8_t code[] = { 0xb8, 0x11, 0x22, 0x33, 0x44, 0xf4 };
    kit_long(k, 0);
    load_code_at(k, code, sizeof(code), 0x41ffe);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], 0x44332211);
    /* Its second part changes. */
    assert_int_equal(pmap_load(k->pmap, GPA(0x42001), &(uint8_t){ 0x99 }, 1), 0);
    k->v->s.rip = 0x41ffe;
    k->v->s.activity = ACTIVITY_RUN;
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], 0x44992211);
}

/* The low 4 MiB are mapped; the page after is not. */
static void a_fetch_fault_on_the_second_page(void **state)
{
    struct kit *k = *state;
    static const uint8_t code[] = { 0x90, 0xb8 };
    kit_long(k, 0);
    load_code_at(k, code, sizeof(code), 0x3ffffe);
    run_to_exception(k, VEC_PF);
    assert_int_equal(k->v->s.cr2, 0x400000);
    assert_int_equal(kit_stack64(k, 1), 0x3fffff);
    assert_int_equal(k->v->s.retired, 2);
}

/* --- code that changes ----------------------------------------------------------------------------------------------------------- */

/* The store changes the immediate of the instruction right after it. */
GUEST_CODE(patch_next, 64,
           "lea rdi, [rip + 1f]\n mov ecx, 3\n2: mov byte ptr [rdi + 1], cl\n1: mov al, 0x77\n add ebx, "
           "eax\n loop 2b\n hlt");

static void code_that_patches_the_next_instruction(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    gpr(k)[RAX] = gpr(k)[RBX] = 0;
    load_code(k, patch_next);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RBX], 3 + 2 + 1);
    assert_int_equal(k->v->s.retired, 2 + 3 * 4 + 1);
    if (k->engine == &interp_engine) /* others may do without */
        assert_true(k->v->counters.code_write_aborts >= 1);
}

/* A counter in the line of the code that counts. */
GUEST_CODE(
    data_beside_code, 64,
    "mov ecx, 100\n1: inc dword ptr [rip + 2f]\n dec ecx\n jnz 1b\n mov eax, [rip + 2f]\n hlt\n2: .long 0");

static void data_beside_code_is_stored(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, data_beside_code);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], 100);
    assert_int_equal(k->v->s.retired, 1 + 3 * 100 + 2);
}

/* Code written by someone else between two runs. */
static void code_written_from_outside(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code_at(k, (const uint8_t[]){ 0xb0, 0x01, 0xf4 }, 3, CODE_AT);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX] & 0xff, 1);
    assert_int_equal(ram_write(k->pmap, GPA(CODE_AT + 1), &(uint8_t){ 9 }, 1), 0);
    k->v->s.rip = CODE_AT;
    k->v->s.activity = ACTIVITY_RUN;
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX] & 0xff, 9);
}

/* More code than the arena holds: everything is forgotten and made anew. */
static void a_full_cache_starts_over(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    load_code_at(k, (const uint8_t[]){ 0x90 }, 1, CODE_AT);
    const uint64_t at = 0x100000, len = 8 << 20;
    uint8_t *nops = malloc(len);
    memset(nops, 0x90, len);
    nops[len - 1] = 0xf4;
    assert_int_equal(pmap_load(k->pmap, GPA(at), nops, len), 0);
    free(nops);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t before = k->v->s.retired;
        k->v->s.rip = at + i; /* other blocks each time */
        k->v->s.activity = ACTIVITY_RUN;
        run_to_hlt(k);
        assert_int_equal(k->v->s.retired - before, len - i);
    }
}

/* --- strings --------------------------------------------------------------------------------------------------------------------- */

GUEST_CODE(rep_movs, 64, "rep movsb\n hlt");
GUEST_CODE(rep_stosq, 64, "rep stosq\n hlt");
GUEST_CODE(repne_scasb, 64, "repne scasb\n hlt");

static void string_at(struct kit *k, uint64_t rsi, uint64_t rdi, uint64_t rcx)
{
    gpr(k)[RSI] = rsi;
    gpr(k)[RDI] = rdi;
    gpr(k)[RCX] = rcx;
    k->v->s.rip = CODE_AT;
    k->v->s.activity = ACTIVITY_RUN;
}

static void a_repeated_move_counts_iterations(void **state)
{
    struct kit *k = *state;
    uint8_t src[10000], dst[10000];
    kit_long(k, 0);
    load_code(k, rep_movs);
    for (unsigned i = 0; i < sizeof(src); i++)
        src[i] = (uint8_t)(i * 7 + i / 256);
    assert_int_equal(pmap_load(k->pmap, GPA(0x100123), src, sizeof(src)), 0);
    string_at(k, 0x100123, 0x110007, sizeof(src));
    uint64_t before = k->v->s.retired;
    assert_int_equal(k->engine->run(k->v, before + 777), EXIT_COUNT);
    assert_int_equal(gpr(k)[RCX], sizeof(src) - 777);
    assert_int_equal(gpr(k)[RSI], 0x100123 + 777);
    assert_int_equal(k->v->s.rip, CODE_AT);
    run_to_hlt(k);
    assert_int_equal(k->v->s.retired, before + sizeof(src) + 1);
    assert_int_equal(gpr(k)[RDI], 0x110007 + sizeof(src));
    assert_int_equal(ram_read(k->pmap, GPA(0x110007), dst, sizeof(dst)), 0);
    assert_memory_equal(src, dst, sizeof(dst));
    string_at(k, 0, 0, 0); /* none at all is one instruction */
    before = k->v->s.retired;
    run_to_hlt(k);
    assert_int_equal(k->v->s.retired, before + 2);
}

static void an_overlapping_move_propagates(void **state)
{
    struct kit *k = *state;
    uint8_t out[64];
    kit_long(k, 0);
    load_code(k, rep_movs);
    assert_int_equal(pmap_load(k->pmap, GPA(DATA_AT), "ab", 2), 0);
    string_at(k, DATA_AT, DATA_AT + 2, 62);
    run_to_hlt(k);
    assert_int_equal(ram_read(k->pmap, GPA(DATA_AT), out, sizeof(out)), 0);
    for (unsigned i = 0; i < sizeof(out); i++)
        assert_int_equal(out[i], i & 1 ? 'b' : 'a');
}

static void a_backward_move(void **state)
{
    struct kit *k = *state;
    char out[6] = { 0 };
    kit_long(k, 0);
    load_code(k, rep_movs);
    assert_int_equal(pmap_load(k->pmap, GPA(DATA_AT), "hello", 5), 0);
    k->v->s.rflags |= FL_DF;
    string_at(k, DATA_AT + 4, DATA_AT + 6, 5);
    run_to_hlt(k);
    assert_int_equal(ram_read(k->pmap, GPA(DATA_AT + 2), out, 5), 0);
    assert_string_equal(out, "hello");
    assert_int_equal(gpr(k)[RSI], DATA_AT - 1);
}

static void a_fault_in_the_middle_of_a_repeated_store(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, rep_stosq);
    string_at(k, 0, 0x400000 - 8 * 5 - 4, 100); /* the sixth crosses into the page that is not there */
    uint64_t before = k->v->s.retired;
    run_to_exception(k, VEC_PF);
    assert_int_equal(k->v->s.cr2, 0x400000);
    assert_int_equal(gpr(k)[RCX], 95);
    assert_int_equal(gpr(k)[RDI], 0x400000 - 4);
    assert_int_equal(k->v->s.retired, before + 5 + 1);
    assert_int_equal(kit_stack64(k, 1), CODE_AT);
}

static void a_scan_stops_at_the_match(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, repne_scasb);
    assert_int_equal(pmap_load(k->pmap, GPA(DATA_AT), "hello, world", 13), 0);
    gpr(k)[RAX] = 'w';
    string_at(k, 0, DATA_AT, 100);
    uint64_t before = k->v->s.retired;
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RDI], DATA_AT + 8);
    assert_int_equal(gpr(k)[RCX], 92);
    assert_int_equal(k->v->s.retired, before + 8 + 1);
    assert_true(state_rflags(&k->v->s) & FL_ZF);
}

/* --- memory operands ---------------------------------------------------------------------------------------------------------------- */

GUEST_CODE(locked, 64,
           "lock add dword ptr [rdi], 5\n lock xadd [rdi], eax\n mov ebx, 77\n xchg [rdi + 61], ebx\n"
           "mov edx, 0\n mov eax, 0\n mov ecx, 2\n mov ebx, 1\n lock cmpxchg16b [rsi]\n hlt");

static void locked_operations(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, locked);
    kit_put32(k, DATA_AT + 4093, 10); /* across two pages */
    kit_put64(k, DATA_AT + 8192, 0);
    kit_put64(k, DATA_AT + 8200, 0);
    gpr(k)[RDI] = DATA_AT + 4093;
    gpr(k)[RSI] = DATA_AT + 8192;
    gpr(k)[RAX] = 1;
    run_to_hlt(k);
    assert_int_equal(kit_get32(k, DATA_AT + 4093), 16);
    assert_int_equal(kit_get32(k, DATA_AT + 4093 + 61), 77);
    assert_int_equal(kit_get64(k, DATA_AT + 8192), 1);
    assert_int_equal(kit_get64(k, DATA_AT + 8200), 2);
    assert_true(state_rflags(&k->v->s) & FL_ZF);
}

GUEST_CODE(device, 32,
           "mov edi, 0xd0000000\n mov dword ptr [edi], 3\n add dword ptr [edi], 4\n lock inc dword ptr "
           "[edi]\n mov eax, [edi]\n hlt");

static void memory_mapped_registers(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    load_code(k, device);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], 8);
    assert_int_equal(k->mmio_writes, 3);
    assert_int_equal(k->mmio_reads, 3);
}

/* Straight on behind the store: nothing but the store itself ends the block in front of INC. */
GUEST_CODE(
    own_nmi, 32,
    "mov edi, 0xfee00300\n xor eax, eax\n mov dword ptr [edi], 0x4400\n inc eax\n inc eax\n inc eax\n hlt");

static void ipi_to_oneself(void *ctx, unsigned from, uint32_t low, uint32_t high)
{
    struct kit *k = ctx;
    (void)from, (void)low, (void)high;
    vcpu_post_nmi(k->v);
}

/* What a store to a device brings upon the processor comes before the next instruction. */
static void a_processor_interrupts_itself(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    load_code(k, own_nmi);
    k->v->cb.ipi = ipi_to_oneself;
    run_to_exception(k, VEC_NMI);
    assert_int_equal(gpr(k)[RAX], 0);
    assert_int_equal(kit_stack32(k, 0), CODE_AT + 13);
}

GUEST_CODE(high_bytes, 64,
           "mov eax, 0x11223344\n mov ah, 0x99\n add al, ah\n mov cl, ah\n movzx edx, ah\n sub ah, al\n xchg "
           "al, ah\n hlt");

static void high_byte_registers(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    gpr(k)[RAX] = ~0ull;
    gpr(k)[RCX] = 0;
    load_code(k, high_bytes);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RDX], 0x99);
    assert_int_equal(gpr(k)[RCX], 0x99);
    assert_int_equal(gpr(k)[RAX], 0x1122ddbc); /* al = 44 + 99 = dd; ah = 99 - dd = bc; exchanged */
}

GUEST_CODE(segments, 32, "mov eax, fs:[8]\n mov ebx, [esp]\n pop ecx\n pop word ptr [esp + 4]\n hlt");

static void segment_bases_and_stack_operands(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    load_code(k, segments);
    k->v->s.seg[SEG_FS].base = DATA_AT;
    vcpu_refresh(k->v);
    kit_put32(k, DATA_AT + 8, 0xabcd);
    kit_push32(k, 4, (const uint32_t[]){ 0x1111, 0x2222, 0x3333, 0x4444 });
    uint64_t esp = gpr(k)[RSP];
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RAX], 0xabcd);
    assert_int_equal(gpr(k)[RBX], 0x1111);
    assert_int_equal(gpr(k)[RCX], 0x1111);
    assert_int_equal(gpr(k)[RSP], esp + 6);
    assert_int_equal(kit_get32(k, esp + 8) >> 16, 0x2222);
}

/* --- older modes ---------------------------------------------------------------------------------------------------------------------- */

GUEST_CODE(real_mode, 16,
           "mov ax, 0x5000\n mov ds, ax\n mov bx, 4\n mov si, 6\n mov word ptr [bx + si], 0x1234\n mov cx, "
           "3\n xor dx, dx\n"
           "1: add dx, [bx + si]\n loop 1b\n push dx\n pop di\n hlt");

static void real_mode_code(void **state)
{
    struct kit *k = *state;
    kit_real(k);
    load_code_at(k, real_mode_start, (size_t)(real_mode_end - real_mode_start), 0x7c00);
    k->v->s.seg[SEG_CS].sel = 0;
    k->v->s.seg[SEG_CS].base = 0;
    vcpu_refresh(k->v);
    run_to_hlt(k);
    assert_int_equal(gpr(k)[RDX] & 0xffff, 0x369c);
    assert_int_equal(gpr(k)[RDI] & 0xffff, 0x369c);
    assert_int_equal(kit_get32(k, 0x5000a) & 0xffff, 0x1234);
}

/* A jump beyond the limit, and running off its end, raise #GP (SDM 3A 5.3). */
GUEST_CODE(beyond, 32, "nop\n jmp 1f\n .skip 0x200\n1: nop");

static void the_limit_of_the_code_segment(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    load_code(k, beyond);
    k->v->s.seg[SEG_CS].limit = CODE_AT + 0x100;
    k->v->s.seg[SEG_CS].attr &= ~SA_G;
    vcpu_refresh(k->v);
    run_to_exception(k, VEC_GP);
    assert_int_equal(kit_stack32(k, 1), CODE_AT + 1);
    kit_protected(k, 0);
    k->v->s.activity = ACTIVITY_RUN;
    k->v->s.seg[SEG_CS].limit = CODE_AT + 3; /* ends inside the jump */
    vcpu_refresh(k->v);
    k->v->s.rip = CODE_AT;
    run_to_exception(k, VEC_GP);
    assert_int_equal(kit_stack32(k, 1), CODE_AT + 1);
}

/* --- between instructions --------------------------------------------------------------------------------------------------------------- */

GUEST_CODE(for_ever, 64, "1: jmp 1b");

static void *stop_soon(void *arg)
{
    usleep(20000);
    vcpu_request(arg, REQ_STOP);
    return NULL;
}

static void a_request_stops_an_endless_loop(void **state)
{
    struct kit *k = *state;
    pthread_t thread;
    kit_long(k, 0);
    load_code(k, for_ever);
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, k->v), 0);
    assert_int_equal(k->engine->run(k->v, ~0ull), EXIT_REQUEST);
    pthread_join(thread, NULL);
    assert_int_equal(k->v->s.rip, CODE_AT);
}

GUEST_CODE(undefined, 64, "ud2");

/* Nothing is ever retired, and yet the run ends: the same faults count for every engine. */
static void a_handler_that_faults_for_ever(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, undefined);
    kit_put64(k, HANDLER_AT + 16 * VEC_UD, kit_get64(k, CODE_AT));
    kit_idt64(k, VEC_UD, G_CODE64, HANDLER_AT + 16 * VEC_UD, SYS_INT_GATE32, 0,
              1); /* on a stack of its own */
    for (uint64_t at = 1; at < 5000; at += 499) {
        assert_int_equal(k->engine->run(k->v, at), EXIT_COUNT);
        assert_int_equal(k->v->s.retired, at);
    }
    assert_int_equal(k->v->counters.exceptions_injected, 4991 + FAULT_ROW_MAX);
}

GUEST_CODE(stepping, 64, "mov eax, 1\n inc eax\n inc eax\n hlt");

static void single_step_traps_after_each_instruction(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, stepping);
    k->v->s.rflags |= FL_TF;
    vcpu_refresh(k->v);
    run_to_exception(k, VEC_DB);
    assert_int_equal(kit_stack64(k, 0), CODE_AT + 5);
    assert_true(k->v->s.dr[6] & 0x4000);
    assert_int_equal(gpr(k)[RAX], 1);
}

GUEST_CODE(shadow, 64, "sti\n inc eax\n inc eax\n hlt");

static void sti_holds_interrupts_for_one_instruction(void **state)
{
    struct kit *k = *state;
    kit_long(k, 0);
    load_code(k, shadow);
    gpr(k)[RAX] = 0;
    k->v->s.rflags &= ~(uint64_t)FL_IF;
    k->v->s.lapic.svr |= 0x100;
    vcpu_refresh(k->v);
    vcpu_post_interrupt(k->v, 40, false);
    run_to_exception(k, 40);
    assert_int_equal(gpr(k)[RAX], 1);
    assert_int_equal(kit_stack64(k, 0), CODE_AT + 3);
}

GUEST_CODE(probe_like, 32, "int3");

static void a_software_interrupt_returns_behind_itself(void **state)
{
    struct kit *k = *state;
    kit_protected(k, 0);
    load_code(k, probe_like);
    run_to_exception(k, VEC_BP);
    assert_int_equal(kit_stack32(k, 0), CODE_AT + 1);
}

static void the_probe_measures(void **state)
{
    struct engine_report report;
    (void)state;
    interp_engine.probe(&report);
    assert_true(report.usable);
    assert_true(report.mips > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, kit_setup, engine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_loop_computes),
        TEST(until_count_is_exact),
        TEST(tracing_sees_every_instruction),
        TEST(long_runs_need_no_stack),
        TEST(a_fault_inside_a_block_is_precise),
        TEST(a_faulting_push_leaves_rsp),
        TEST(a_faulting_read_modify_write_keeps_flags),
        TEST(division_by_zero),
        TEST(signed_division_overflows),
        TEST(undefined_instructions),
        TEST(an_instruction_longer_than_15_bytes),
        TEST(a_jump_to_a_non_canonical_address),
        TEST(fetching_from_where_nothing_is),
        TEST(an_instruction_across_pages),
        TEST(a_fetch_fault_on_the_second_page),
        TEST(code_that_patches_the_next_instruction),
        TEST(data_beside_code_is_stored),
        TEST(code_written_from_outside),
        TEST(a_full_cache_starts_over),
        TEST(a_repeated_move_counts_iterations),
        TEST(an_overlapping_move_propagates),
        TEST(a_backward_move),
        TEST(a_fault_in_the_middle_of_a_repeated_store),
        TEST(a_scan_stops_at_the_match),
        TEST(locked_operations),
        TEST(memory_mapped_registers),
        TEST(a_processor_interrupts_itself),
        TEST(high_byte_registers),
        TEST(segment_bases_and_stack_operands),
        TEST(real_mode_code),
        TEST(the_limit_of_the_code_segment),
        TEST(a_request_stops_an_endless_loop),
        TEST(a_handler_that_faults_for_ever),
        TEST(single_step_traps_after_each_instruction),
        TEST(sti_holds_interrupts_for_one_instruction),
        TEST(a_software_interrupt_returns_behind_itself),
        cmocka_unit_test(the_probe_measures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
