/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A target that is not in its slot of the jump table, looked for by generated code:
 *
 *   neighbours of the slot ──no──► TLB: fetched in this address space? ──► bt.found: host address, key of the context ──► the slot
 *                                   │ no                                    │ no
 *                                   ▼                                       ▼
 *                                  bt_lookup(), in C
 *
 * What it compares is what bt_lookup() would: a fetch tag of the present generation stands for an address that may be fetched and was
 * noted, and what is in bt.found was entered by bt_cache_entry() and has not been sealed or taken out since.
 */
#include "engine/bt/unit.h"

enum { COND_EQUAL = 4, COND_NOT_EQUAL = 5, COND_BELOW_OR_EQUAL = 6 };
enum { ALU_OR = 0x0b, ALU_ADD = 0x03, ALU_XOR = 0x33, ALU_SUB = 0x2b, ALU_CMP = 0x3b };
enum { SHIFT_LEFT = 4, SHIFT_RIGHT = 5 };

/* The guest's registers that are used besides T1 and T2: their places in the vcpu are free while generated code runs. */
static const uint8_t borrowed[] = { H_RAX, H_RCX, H_RDX, H_RSI };

/* The stack pointer is a return address below the vcpu. */
#define BELOW 8
#define AT_VCPU_BELOW(field) amode_at(H_RSP, VCPU_OFF(field) + BELOW)
#define AT_AREA_BELOW(field) amode_at(H_RSP, AREA_OFF(field) + BELOW)

static struct amode slot_lin(void) { return amode_at(T1, offsetof(struct bt_jump, lin)); }
static struct amode slot_code(void) { return amode_at(T1, offsetof(struct bt_jump, code)); }

/* T1 = the neighbour n further, of a set, or back: flags change. */
static void neighbour(struct emitter *e, unsigned n)
{
    emit_alu_imm(e, 6, T1, (int32_t)(n * sizeof(struct bt_jump)), true); /* xor */
}

static void shift(struct emitter *e, unsigned how, unsigned reg, unsigned by)
{
    emit_reg(e, 0, 0xc1, how, reg);
    emit_byte(e, by);
}

static void times_hash(struct emitter *e, unsigned reg)
{
    emit_reg(e, 0, 0x69, reg, reg); /* imul r32, r/m32, imm32 */
    emit_imm(e, JUMP_HASH, 4);
}

/* Target T0 = T2 is perhaps in a neighbour of its slot T1: the two change places, and it returns. */
static void fetch_back(struct emitter *e)
{
    for (unsigned n = 1; n < JUMP_SET; n++) {
        neighbour(e, n);
        emit_mem(e, ENC_W, ALU_CMP, T2, slot_lin());
        uint8_t *elsewhere = emit_jcc(e, COND_NOT_EQUAL, emit_exec(e));
        emit_store(e, AT_AREA_BELOW(exit_lin), H_RAX);
        emit_load(e, H_RAX, slot_code());
        neighbour(e, n);
        emit_load(e, T2, slot_code());
        emit_store(e, slot_code(), H_RAX);
        emit_load(e, H_RAX, slot_lin());
        emit_store(e, slot_lin(), T0);
        neighbour(e, n);
        emit_store(e, slot_lin(), H_RAX);
        emit_store(e, slot_code(), T2);
        emit_load(e, H_RAX, AT_AREA_BELOW(exit_lin));
        emit_byte(e, 0xc3);
        emit_patch(e, elsewhere, emit_exec(e));
        neighbour(e, n);
    }
}

/* tlb_find_code(): RCX = the host address of T2. Returns the jump taken when it is not there. */
static uint8_t *host_of_target(struct emitter *e)
{
    _Static_assert(sizeof(struct tlb_entry) == 1 << 5, "scaled by the shift");
    emit_mov32(e, H_RAX, T2);
    shift(e, SHIFT_RIGHT, H_RAX, PAGE_SHIFT - 5);
    emit_alu_imm(e, 4, H_RAX, (int32_t)((TLB_ENTRIES - 1) * sizeof(struct tlb_entry)), false); /* and */
    emit_mem(e, ENC_W, ALU_ADD, H_RAX, AT_VCPU_BELOW(mmu.tlb));
    emit_mov(e, H_RCX, T2);
    emit_alu_imm(e, 4, H_RCX, -(int32_t)PAGE_SIZE, true);
    emit_mem(e, ENC_W, ALU_OR, H_RCX, AT_VCPU_BELOW(mmu.gen));
    emit_mem(e, ENC_W, ALU_CMP, H_RCX, amode_at(H_RAX, offsetof(struct tlb_entry, tag_x)));
    uint8_t *miss = emit_jcc(e, COND_NOT_EQUAL, emit_exec(e));
    emit_mov(e, H_RCX, T2);
    emit_mem(e, ENC_W, ALU_ADD, H_RCX, amode_at(H_RAX, offsetof(struct tlb_entry, addend)));
    return miss;
}

/* RDX = the present context's key, RAX = its slot of bt.found for host address RCX: bt_found_slot(). Destroys T2. */
static void slot_of_host(struct emitter *e)
{
    emit_load(e, H_RAX, AT_AREA_BELOW(context));
    emit_load32(e, H_RDX, amode_at(H_RAX, offsetof(struct bt_context, key)));
    emit_mov32(e, H_RAX, H_RDX);
    emit_reg(e, 0, ALU_XOR, H_RAX, H_RCX);
    times_hash(e, H_RAX);
    shift(e, SHIFT_RIGHT, H_RAX, 32 - FOUND_PAGE_BITS);
    emit_mov(e, T2, H_RCX);
    emit_reg(e, ENC_W, 0xc1, SHIFT_RIGHT, T2);
    emit_byte(e, PAGE_SHIFT);
    times_hash(e, T2);
    shift(e, SHIFT_RIGHT, T2, 32 - FOUND_PAGES_BITS);
    shift(e, SHIFT_LEFT, T2, FOUND_PAGE_BITS);
    emit_reg(e, 0, ALU_OR, H_RAX, T2);
    shift(e, SHIFT_LEFT, H_RAX, (unsigned)__builtin_ctz(sizeof(struct bt_found)));
    emit_mem(e, ENC_W, ALU_ADD, H_RAX, AT_AREA_BELOW(found));
}

/* RDX = the entry of the unit at host address RCX. Returns the jumps taken when it is not there. */
static void entry_of_host(const struct bt *b, struct emitter *e, uint8_t *misses[2])
{
    slot_of_host(e);
    emit_mem(e, ENC_W, ALU_CMP, H_RCX, amode_at(H_RAX, offsetof(struct bt_found, host)));
    misses[0] = emit_jcc(e, COND_NOT_EQUAL, emit_exec(e));
    emit_mem(e, 0, ALU_CMP, H_RDX, amode_at(H_RAX, offsetof(struct bt_found, key)));
    misses[1] = emit_jcc(e, COND_NOT_EQUAL, emit_exec(e));
    emit_load32(e, H_RDX, amode_at(H_RAX, offsetof(struct bt_found, entry_jump)));
    emit_mov_imm(e, H_RAX, bt_exec_addr(b, 0));
    emit_reg(e, ENC_W, ALU_ADD, H_RDX, H_RAX);
}

/* bt_jump_put() of T0 and RDX in slot T1: who was there goes to a neighbour that is not at home, which an empty one never is. */
static void put(struct emitter *e)
{
    uint8_t *placed[JUMP_SET];
    emit_load(e, H_RCX, slot_lin());
    emit_load(e, H_RSI, slot_code());
    emit_alu_imm(e, 7, H_RCX, 1, true);
    placed[0] = emit_jcc(e, COND_BELOW_OR_EQUAL, emit_exec(e)); /* jump_none(), or as good as that */
    for (unsigned n = 1; n < JUMP_SET; n++) {
        neighbour(e, n);
        emit_load(e, H_RAX, slot_lin());
        bt_jump_slot_emit(e, T2, H_RAX, JUMPS_BITS, BELOW);
        emit_reg(e, ENC_W, ALU_CMP, T2, T1);
        uint8_t *at_home = emit_jcc(e, COND_EQUAL, emit_exec(e));
        emit_store(e, slot_lin(), H_RCX);
        emit_store(e, slot_code(), H_RSI);
        neighbour(e, n);
        placed[n] = emit_jmp(e, emit_exec(e));
        emit_patch(e, at_home, emit_exec(e));
        neighbour(e, n);
    }
    for (unsigned n = 0; n < JUMP_SET; n++)
        emit_patch(e, placed[n], emit_exec(e));
    emit_store(e, slot_lin(), T0);
    emit_store(e, slot_code(), H_RDX);
    emit_mov(e, H_RAX, T1); /* jump_used() */
    emit_mem(e, ENC_W, ALU_SUB, H_RAX, AT_AREA_BELOW(jumps));
    shift(e, SHIFT_RIGHT, H_RAX, (unsigned)__builtin_ctz(JUMP_SET * sizeof(struct bt_jump)));
    emit_mem(e, ENC_W, ALU_ADD, H_RAX, AT_AREA_BELOW(jumps));
    emit_mem(e, 0, 0xc6, 0,
             amode_at(H_RAX, (int32_t)(JUMPS_MAX * sizeof(struct bt_jump)))); /* mov m8, imm8 */
    emit_byte(e, 1);
}

static void give_back(struct emitter *e)
{
    for (unsigned i = 0; i < array_size(borrowed); i++)
        emit_load(e, borrowed[i], amode_at(H_RSP, at_gpr(borrowed[i]).disp + BELOW));
}

void bt_lookup_emit(const struct bt *b, struct emitter *e)
{
    uint8_t *misses[3];
    bt_jump_slot_emit(e, T1, T2, JUMPS_BITS, BELOW);
    fetch_back(e);
    for (unsigned i = 0; i < array_size(borrowed); i++)
        emit_store(e, amode_at(H_RSP, at_gpr(borrowed[i]).disp + BELOW), borrowed[i]);
    misses[0] = host_of_target(e);
    entry_of_host(b, e, misses + 1);
    put(e);
    emit_mem(e, ENC_W, 0xff, 0, AT_AREA_BELOW(found_here)); /* inc */
    give_back(e);
    emit_byte(e, 0xc3);
    for (unsigned i = 0; i < array_size(misses); i++)
        emit_patch(e, misses[i], emit_exec(e));
    give_back(e);
    emit_mov(e, T2, T0);
}
