/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way into generated code and out of it.
 *
 *   enter(v, code, lin): C's stack pointer is put away, the guest's registers are loaded, jump to `code` (T0 = lin)
 *   exit_e / exit_s:     the guest's registers are put away (flags too, in state E), back to C; T1 exit, T2 argument
 *   fill, unlink, lookup, far: call C and return, 5 bytes further when C said false; lookup mostly without a call: lookup.c
 *   call:                C does an instruction on the guest's registers in v->s; returns, jumps to another unit, or leaves
 *   simd:                loads the guest's XMM registers
 *   syscall, sysret:     change the context and jump to the other side, or exit: turn.c
 *
 * Each switches to C's stack: the stack pointer of generated code is the vcpu.
 */
#include "engine/bt/bt.h"

/* Guest registers that live in host registers, but for RSP. */
static const uint8_t kept[] = { H_RAX, H_RCX, H_RDX, H_RBX, H_RBP, H_RSI, H_RDI, H_R8, H_R9, H_R10, H_R11 };
/* Those of them that a C function may change. */
static const uint8_t fragile[] = { H_RAX, H_RCX, H_RDX, H_RSI, H_RDI, H_R8, H_R9, H_R10, H_R11 };
static const uint8_t callee_saved[] = { H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15 };

static void push(struct emitter *e, unsigned reg) { emit_plus(e, 0, 0x50, reg); }
static void pop(struct emitter *e, unsigned reg) { emit_plus(e, 0, 0x58, reg); }

/* `below`: bytes that the stack pointer is below the vcpu. */
static struct amode shifted(struct amode m, int32_t below)
{
    m.disp += below;
    return m;
}

/* Back to C, whose stack pointer was put away. */
static void emit_return(struct emitter *e)
{
    emit_load(e, H_RSP, AT_AREA(host_sp));
    emit_alu_imm(e, 0, H_RSP, 8, true);
    for (unsigned i = array_size(callee_saved); i-- > 0;)
        pop(e, callee_saved[i]);
    emit_byte(e, 0xc3);
}

static void move_gprs(struct emitter *e, bool store, int32_t below)
{
    for (unsigned i = 0; i <= array_size(kept); i++) {
        bool sp = i == array_size(kept);
        unsigned host = sp ? GUEST_RSP : kept[i];
        struct amode at = shifted(at_gpr(sp ? RSP : kept[i]), below);
        if (store)
            emit_store(e, at, host);
        else
            emit_load(e, host, at);
    }
}

/* The guest's vector registers go to v->s.fpu, and are not live any more. */
static void put_simd_away(const struct bt *b, struct emitter *e, int32_t below)
{
    bt_vectors_store(b, e, below);
    emit_mem(e, 0, 0xc7, 0, shifted(AT_AREA(simd_live), below));
    emit_imm(e, SIMD_NONE, 4);
}

/* The guest's XMM registers from v->s.fpu, if they are wanted at once. */
static void bring_simd(const struct bt *b, struct emitter *e, int32_t below)
{
    emit_mem(e, 0, 0x83, 7, shifted(AT_AREA(simd_always), below));
    emit_byte(e, 0);
    uint8_t *over = emit_jcc(e, 4, emit_exec(e));
    emit_mem(e, 0, 0xc7, 0, shifted(AT_AREA(simd_live), below));
    emit_imm(e, SIMD_SSE, 4);
    bt_vectors_load(b, e, below);
    emit_patch(e, over, emit_exec(e));
}

static void emit_enter(const struct bt *b, struct emitter *e)
{
    for (unsigned i = 0; i < array_size(callee_saved); i++)
        push(e, callee_saved[i]);
    emit_alu_imm(e, 5, H_RSP, 8, true); /* 16-byte alignment for calls */
    emit_store(e, amode_at(H_RDI, AREA_OFF(host_sp)), H_RSP);
    emit_mov(e, H_RSP, H_RDI);
    emit_mov(e, T0, H_RDX);
    emit_mov(e, T1, H_RSI);
    move_gprs(e, false, 0);
    bring_simd(b, e, 0);
    emit_reg(e, 0, 0xff, 4, T1);
}

/* State E: MOV T2,RAX; LAHF; SETO AL; MOV [cc],AX; MOV RAX,T2 would lose T2, the exit's argument. */
static void emit_exit_e(struct emitter *e)
{
    emit_store(e, at_gpr(RAX), H_RAX);
    emit_byte(e, 0x9f);
    emit_reg(e, ENC_0F, 0x90, 0, H_RAX);
    emit_mem(e, ENC_66, 0x89, H_RAX, AT_VCPU(s.cc));
    emit_load(e, H_RAX, at_gpr(RAX));
}

/* Behind a return that met an empty place: T0 is where it goes. */
static void emit_no_return(struct emitter *e) { emit_mov_imm32(e, T1, EXIT_INFO(BT_LOOK_FAR, 0, 0)); }

static void emit_exit_s(const struct bt *b, struct emitter *e)
{
    move_gprs(e, true, 0);
    emit_store(e, AT_AREA(exit_lin), T0);
    emit_store32(e, AT_AREA(exit), T1);
    emit_store32(e, AT_AREA(exit_arg), T2);
    put_simd_away(b, e, 0);
    emit_return(e);
}

/* bt_call_out(v, T1), state S. */
static void emit_call_insn(const struct bt *b, struct emitter *e)
{
    move_gprs(e, true, 8);
    put_simd_away(b, e, 8);
    emit_lea(e, H_RDI, amode_at(H_RSP, 8));
    emit_mov32(e, H_RSI, T1);
    emit_mov(e, T2, H_RSP);
    emit_load(e, H_RSP, shifted(AT_AREA(host_sp), 8));
    emit_mov_imm(e, H_RAX, (uint64_t)(uintptr_t)bt_call_out);
    emit_reg(e, 0, 0xff, 2, H_RAX);
    emit_mov(e, H_RSP, T2);
    emit_mov(e, T1, H_RAX);
    emit_alu_imm(e, 7, T1, CALL_LEAVE, true);
    uint8_t *leave = emit_jcc(e, 4, emit_exec(e)), *jump = emit_jcc(e, 7, emit_exec(e));
    move_gprs(e, false, 8);
    bring_simd(b, e, 8);
    emit_byte(e, 0xc3);
    emit_patch(e, jump, emit_exec(e));
    emit_lea(e, H_RSP, amode_at(H_RSP, 8));
    move_gprs(e, false, 0);
    bring_simd(b, e, 0);
    emit_load(e, T0, AT_AREA(exit_lin));
    emit_reg(e, 0, 0xff, 4, T1);
    emit_patch(e, leave, emit_exec(e));
    emit_lea(e, H_RSP, amode_at(H_RSP, 8));
    emit_mem(e, 0, 0xc7, 0, AT_AREA(exit));
    emit_imm(e, EXIT_INFO(BT_LEFT, 0, 0), 4);
    emit_return(e);
}

/* C function(v, T2, T1); a false result returns 5 bytes further. */
static void emit_call_out(const struct bt *b, struct emitter *e,
                          bool (*function)(struct vcpu *v, uint64_t lin, uint32_t info))
{
    for (unsigned i = 0; i < array_size(fragile); i++)
        emit_store(e, shifted(at_gpr(fragile[i]), 8), fragile[i]);
    bt_vectors_store(b, e, 8);
    emit_lea(e, H_RDI, amode_at(H_RSP, 8));
    emit_mov(e, H_RSI, T2);
    emit_mov32(e, H_RDX, T1);
    emit_mov(e, T2, H_RSP);
    emit_load(e, H_RSP, shifted(AT_AREA(host_sp), 8));
    emit_mov_imm(e, H_RAX, (uint64_t)(uintptr_t)function);
    emit_reg(e, 0, 0xff, 2, H_RAX);
    emit_mov(e, H_RSP, T2);
    emit_mov32(e, T1, H_RAX);
    bt_vectors_load(b, e, 8);
    for (unsigned i = 0; i < array_size(fragile); i++)
        emit_load(e, fragile[i], shifted(at_gpr(fragile[i]), 8));
    emit_reg(e, ENC_BYTE, 0x84, T1, T1); /* test T1b, T1b */
    uint8_t *filled = emit_jcc(e, 5, emit_exec(e));
    emit_mem(e, ENC_W, 0x83, 0, amode_at(H_RSP, 0)); /* add qword [rsp], 5 */
    emit_byte(e, 5);
    emit_patch(e, filled, emit_exec(e));
    emit_byte(e, 0xc3);
}

void bt_jump_slot_emit(struct emitter *e, unsigned slot, unsigned lin, unsigned bits, int32_t below)
{
    emit_reg(e, 0, 0x69, slot, lin); /* imul r32, r/m32, imm32 */
    emit_imm(e, JUMP_HASH, 4);
    emit_reg(e, 0, 0xc1, 5, slot); /* shr */
    emit_byte(e, 32 - bits);
    emit_reg(e, 0, 0xc1, 4, slot); /* shl */
    emit_byte(e, (unsigned)__builtin_ctz(sizeof(struct bt_jump)));
    emit_mem(e, ENC_W, 0x03, slot, shifted(AT_AREA(jumps), below));
}

static void emit_simd(const struct bt *b, struct emitter *e)
{
    emit_mem(e, 0, 0xc7, 0, shifted(AT_AREA(simd_live), 8));
    emit_imm(e, SIMD_SSE, 4);
    bt_vectors_load(b, e, 8);
    emit_byte(e, 0xc3);
}

void bt_gates_emit(struct bt *b)
{
    struct emitter e = bt_emitter(b, b->used, b->segments[b->segment].to.code);
#define HERE ((uint32_t)(e.at - b->code.write))
    b->gate_enter = HERE;
    emit_enter(b, &e);
    struct bt_turn_gates turns = { .n = 0 };
    b->gate_syscall = HERE;
    bt_turn_gate_syscall(&turns, &e);
    b->gate_sysret = HERE;
    bt_turn_gate_sysret(b, &turns, &e);
    b->gate_exit_e = HERE;
    emit_exit_e(&e); /* goes on in exit_s */
    uint8_t *over = emit_jmp(&e, emit_exec(&e));
    b->gate_nowhere = HERE;
    emit_no_return(&e);
    emit_patch(&e, over, emit_exec(&e));
    b->gate_exit_s = HERE;
    for (unsigned i = 0; i < turns.n; i++)
        emit_patch(&e, turns.exits[i], emit_exec(&e));
    emit_exit_s(b, &e);
    b->gate_lookup = HERE;
    bt_lookup_emit(b, &e); /* goes on in lookup16 */
    const struct {
        uint32_t *gate;
        bool (*function)(struct vcpu *v, uint64_t lin, uint32_t info);
    } calls[] = {
        { &b->gate_lookup16, bt_lookup },
        { &b->gate_far, bt_far_link },
        { &b->gate_fill, bt_fill },
        { &b->gate_spot, bt_spot_fill },
        { &b->gate_spots, bt_spots_reset },
        { &b->gate_unlink, bt_unlink },
        { &b->gate_tsc, bt_tsc },
        { &b->gate_smap, bt_smap },
        { &b->gate_account, bt_account_gate },
        { &b->gate_simd_level, bt_simd_level },
        { &b->gate_x87, bt_x87_ready },
    };
    for (unsigned i = 0; i < array_size(calls); i++) {
        *calls[i].gate = HERE;
        emit_call_out(b, &e, calls[i].function);
    }
    b->gate_call = HERE;
    emit_call_insn(b, &e);
    b->gate_simd = HERE;
    emit_simd(b, &e);
    b->gates_end = (HERE + 63) & ~63u;
    bt_cache_divide(b);
#undef HERE
}
