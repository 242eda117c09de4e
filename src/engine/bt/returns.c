/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Returns that the host predicts. A host predicts its own RET by its own CALL, so calls and returns of the guest are made by such:
 *
 *   call    the return address goes to the guest's stack, and to a place in bt_area.returns
 *           call over ──► the host notes what is behind it, the way back
 *     back: page = that of the return address; jump to the unit behind the guest's call   (a link)
 *     over: pop the way back into the same place; jump to the callee
 *   return  the address on the guest's stack is what its place says? push the way back; ret
 *                │ no: by the jump table, as other indirect jumps
 *
 * The host's stack is even again behind the POP: all that the CALL leaves is what the host predicts by. A place is found by the guest's
 * stack pointer, so that calls find other places than those that they are called in. What a place says holds for one context
 * (bt_returns_claim()), as a jump table does, and as long as no code memory is used again (bt_returns_forget()).
 */
#include "engine/bt/unit.h"

#include "host/host_cpu.h"

#define LEAF7_EBX_BMI2 BIT(8)
#define PLACE_SHIFT 3 /* of the guest's stack pointer, the 8 bits from here on */

bool bt_returns_possible(const struct bt *b)
{
    uint32_t r[4];
    host_cpuid(7, 0, r);
    return r[1] & LEAF7_EBX_BMI2 && pass_on(b, ENGINE_PASS_CHAIN) && pass_on(b, ENGINE_PASS_INDIRECT);
}

bool returns_predicted(const struct translation *t)
{
    return t->b->predicts_returns && t->plan.code64 && !t->plan.crossing && !(t->key & KEY_ONCE);
}

/* Its way back lies on its own page. */
static bool call_predicted(const struct translation *t, const struct planned *call)
{
    return returns_predicted(t) && in_window(&t->plan, call->end);
}

static struct amode returns_at(const struct translation *t, unsigned place, size_t field)
{
    unsigned index = t->key >> KEY_INDEX_SHIFT & 3;
    return amode_indexed(H_RSP, place, 3,
                         AREA_OFF(returns) + (int32_t)(index * sizeof(struct bt_returns) + field));
}

/* dst = the place for the present stack pointer; flags stay. */
static void place_emit(struct translation *t, unsigned dst)
{
    emit_rorx32_reg(&t->e, dst, GUEST_RSP, PLACE_SHIFT);
    emit_reg(&t->e, ENC_0F | ENC_BYTE, 0xb6, dst, dst); /* movzx r32, r8 */
}

void call_note_emit(struct translation *t, const struct planned *call, unsigned place, unsigned lin)
{
    if (!call_predicted(t, call))
        return;
    place_emit(t, place);
    emit_store(&t->e, returns_at(t, place, offsetof(struct bt_returns, lin)), lin);
}

void call_back_emit(struct translation *t, const struct planned *call, unsigned place)
{
    struct emitter *e = &t->e;
    if (!call_predicted(t, call))
        return;
    uint8_t *over = emit_call(e, emit_exec(e));
    bt_entry_emit(e);
    struct stub *s = stub_new(t, STUB_LINK, emit_jmp(e, emit_exec(e)));
    s->state = FLAGS_S; /* whatever they are here, behind a return they are saved */
    s->recipe.kind = RECIPE_NONE;
    s->x87 = (struct x87_note){ 0 };
    s->target = (uint16_t)call->end;
    s->fill = t->key & ~(uint32_t)KEY_OF_UNIT;
    emit_patch(e, over, emit_exec(e));
    emit_mem(e, 0, 0x8f, 0, returns_at(t, place, offsetof(struct bt_returns, code))); /* pop */
}

uint8_t *return_check_emit(struct translation *t, unsigned place, unsigned lin)
{
    place_emit(t, place);
    emit_mem(&t->e, ENC_W, 0x3b, lin, returns_at(t, place, offsetof(struct bt_returns, lin)));
    return emit_jcc(&t->e, 5, emit_exec(&t->e));
}

void return_go_emit(struct translation *t, unsigned place)
{
    emit_mem(&t->e, 0, 0xff, 6, returns_at(t, place, offsetof(struct bt_returns, code))); /* push */
    emit_byte(&t->e, 0xc3);
}

/* --- what C has to do with them ------------------------------------------------------------------------------------- */

void bt_returns_forget(struct bt *b, enum mmu_index index)
{
    struct bt_returns *r = &bt_area(b->v)->returns[index];
    const void *nowhere = bt_exec(b, b->gate_nowhere);
    for (unsigned i = 0; i < RETURNS; i++) {
        r->lin[i] = 0;
        r->code[i] = nowhere;
    }
    b->returns_of[index] = 0;
}

void bt_returns_forget_all(struct bt *b)
{
    for (unsigned i = 0; i < MMU_INDEX_COUNT; i++)
        bt_returns_forget(b, i);
}

void bt_returns_claim(struct bt *b, const struct bt_context *x)
{
    enum mmu_index index = x->key >> KEY_INDEX_SHIFT & 3;
    bool notes = (x->key & MODE_CODE_MASK) == MODE_CODE64;
    if (!notes || b->returns_of[index] == x->id)
        return;
    bt_returns_forget(b, index);
    b->returns_of[index] = x->id;
}
