/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest addresses to host addresses, and the flags that this costs.
 *
 *   T1 = slot of the address in the TLB; T2 = page of its last byte | generation; compare with the slot's tag; T1 = addend
 *
 * So an access that crosses into another page, one that is not canonical and one whose translation is not cached
 * take the same way: the stub calls the fill gate; when that cannot help, the interpreter does the instruction.
 *
 * Outside 64-bit mode, where the segment is not plain, the address is an offset until it is checked:
 *
 *   T0 = offset, 16 or 32 bits; inside [low, end)? T0 += base; as above; T1 += T0, T0 -= base, T1 -= T0
 *
 * so that the distance is that between offset and host address, and later accesses of the group need no base.
 */
#include "engine/bt/unit.h"

_Static_assert(sizeof(struct tlb_entry) == 32, "the slot's offset is the page number << 5");
#define TLB_SLOT_SHIFT (PAGE_SHIFT - 5)
#define TLB_SLOT_MASK ((TLB_ENTRIES - 1) << 5)

struct stub *stub_new(struct translation *t, enum stub_kind kind, uint8_t *from)
{
    if (t->nstubs == STUBS) {
        t->failed = true;
        t->nstubs--;
    }
    struct stub *s = &t->stubs[t->nstubs++];
    *s = (struct stub){ .kind = kind,
                        .from = from,
                        .state = t->state,
                        .recipe = t->recipe,
                        .x87 = t->x87,
                        .site = -1,
                        .index = (uint16_t)t->index };
    return s;
}

uint32_t exit_at(const struct translation *t, enum bt_exit_kind kind, unsigned i)
{
    return EXIT_INFO(kind, t->plan.insns[i].off, t->unit->insns - i) |
           (t->shadowed == i + 1 ? EXIT_SHADOW : 0);
}

void site_add(struct translation *t, uint32_t at)
{
    struct bt *b = t->b;
    struct stub *s = stub_new(t, STUB_EXIT, NULL);
    s->info = exit_at(t, BT_BAIL, t->index);
    s->site = (int32_t)b->nsites;
    s->sites = 1;
    b->sites[b->nsites++] = (struct bt_site){ .at = at };
}

/* --- requests ----------------------------------------------------------------------------------------------- */

/* cmp dword [requests], 0; jne out */
void poll_emit(struct translation *t)
{
    emit_mem(&t->e, 0, 0x83, 7, AT_VCPU(requests));
    emit_byte(&t->e, 0);
    uint8_t *from = emit_jcc(&t->e, 5, emit_exec(&t->e));
    struct stub *s = stub_new(t, STUB_EXIT, from);
    s->info = exit_at(t, BT_LOOK, t->index);
    t->polled = true;
}

/* --- effective addresses ------------------------------------------------------------------------------------- */

unsigned value_of(struct translation *t, unsigned guest, unsigned temp)
{
    unsigned h = host_of(guest);
    if (h != H_NONE)
        return h;
    emit_load(&t->e, temp, at_gpr(guest));
    if (temp == T1)
        t->delta_group = NO_GROUP;
    return temp;
}

static struct amode segment_field(unsigned seg, size_t field)
{
    return amode_at(H_RSP, VCPU_OFF(sf) + (int32_t)(seg * sizeof(struct seg_fast) + field));
}

struct amode segment_base(unsigned seg) { return segment_field(seg, offsetof(struct seg_fast, base)); }

/* A check names the first and the last byte of a group of accesses by displacements from the same register: none of them may
 * leave 32 bits. */
static bool disp_is_far(int64_t disp)
{
    const int64_t room = INT32_MAX - (int64_t)PAGE_SIZE;
    return disp > room || disp < -room;
}

/* T0 = a without index, plus the segment's base; 64-bit code. */
static void add_segment(struct translation *t, struct amode a, unsigned seg)
{
    emit_load(&t->e, T1, segment_base(seg));
    t->delta_group = NO_GROUP;
    a.index = T1;
    a.scale = 0;
    emit_lea(&t->e, T0, a);
}

void low_word(struct translation *t, unsigned reg) { emit_reg(&t->e, ENC_0F, 0xb7, reg, reg); }

/* Base, index and displacement as a host operand, without a segment's base. */
static struct amode plain_ea(struct translation *t, const struct mem_operand *m, unsigned end)
{
    /* Without an index there may be a scale: whoever puts a distance there must not get it. */
    struct amode a = amode_indexed(H_NONE, H_NONE, m->index < 16 ? m->scale : 0, (int32_t)m->disp);
    if (m->base == MEM_RIP) {
        emit_load(&t->e, T0, AT_AREA(page));
        a.base = T0;
        if (disp_is_far(m->disp))
            emit_lea(&t->e, T0, amode_at(T0, (int32_t)end));
        else
            a.disp += (int32_t)end;
    } else if (m->base < 16) {
        a.base = (uint8_t)value_of(t, m->base, T0);
    }
    if (m->index < 16)
        a.index = (uint8_t)value_of(t, m->index, T1);
    if (a.base == H_NONE && a.index == H_NONE) {
        emit_mov_imm(&t->e, T0, (uint64_t)(int64_t)a.disp);
        return amode_at(T0, 0);
    }
    if (a.base == H_NONE) { /* [index << scale + disp32] needs a base in this encoder */
        emit_mov_imm(&t->e, T0, (uint64_t)(int64_t)a.disp);
        a.base = T0;
        a.disp = 0;
    }
    if (disp_is_far(a.disp)) {
        emit_lea(&t->e, T0, a);
        return amode_at(T0, 0);
    }
    return a;
}

struct amode lea_amode(struct translation *t, const struct mem_operand *m, unsigned end)
{
    return plain_ea(t, m, end);
}

struct amode moffs_ea(struct translation *t, const struct insn *in)
{
    emit_mov_imm(&t->e, T0, (uint64_t)in->mem.disp & mask_bytes(in->addrsize));
    if (t->plan.code64 && in->mem.seg >= SEG_FS)
        add_segment(t, amode_at(T0, 0), in->mem.seg);
    return amode_at(T0, 0);
}

static struct amode without_index(struct translation *t, struct amode ea)
{
    if (ea.index == H_NONE)
        return ea;
    emit_lea(&t->e, T0, ea);
    return amode_at(T0, 0);
}

struct amode ea_emit(struct translation *t, const struct insn *in, const struct mem_operand *m, unsigned end)
{
    struct emitter *e = &t->e;
    struct amode a = plain_ea(t, m, end);
    if (in->addrsize < 8) {
        emit_lea32(e, T0, a);
        if (in->addrsize == 2)
            low_word(t, T0);
        a = amode_at(T0, 0);
    }
    a = without_index(t, a);
    if (!t->plan.code64 || (m->seg != SEG_FS && m->seg != SEG_GS))
        return a;
    add_segment(t, a, m->seg);
    return amode_at(T0, 0);
}

/* --- views ------------------------------------------------------------------------------------------------- */

static void leave_on_fault(struct translation *t, uint32_t info)
{
    struct bt *b = t->b;
    struct emitter *e = &t->e;
    struct stub *s = t->nstubs ? &t->stubs[t->nstubs - 1] : NULL;
    if (!e->nview)
        return;
    bool same = s && s->kind == STUB_EXIT && s->site >= 0 && s->info == info && s->state == t->state &&
                recipe_equal(&s->recipe, &t->recipe) && (uint32_t)s->site + s->sites == b->nsites &&
                x87_note_equal(&s->x87, &t->x87);
    if (!same) {
        s = stub_new(t, STUB_EXIT, NULL);
        s->info = info;
        s->site = (int32_t)b->nsites;
    }
    for (unsigned i = 0; i < e->nview; i++)
        b->sites[b->nsites++] = (struct bt_site){ .at = (uint32_t)(e->view[i] - b->code.write) };
    s->sites = (uint16_t)(s->sites + e->nview);
    e->nview = 0;
}

void view_sites(struct translation *t) { leave_on_fault(t, exit_at(t, BT_VIEW, t->index)); }

static void faults_here(struct emitter *e) { e->view[e->nview++] = e->at; }

void view_poll(struct translation *t)
{
    emit_rorx32(&t->e, T2, AT_VCPU(requests), POLL_ROTATE);
    faults_here(&t->e);
    emit_load32(&t->e, T2, amode_indexed(H_RSP, T2, 0, POLL_TABLE));
    leave_on_fault(t, exit_at(t, BT_LOOK, t->index));
    t->polled = true;
}

/* Is the address in an area of the view? */
static void area_check(struct translation *t, unsigned reg, unsigned side)
{
    emit_mov_imm32(&t->e, T2, ENTRY_SHIFT);
    emit_shrx(&t->e, T2, reg, T2);
    faults_here(&t->e);
    emit_load32(&t->e, T2, amode_indexed(H_RSP, T2, 3, AREA_TABLE + (int32_t)side * SIDE_TABLE));
    view_sites(t);
    t->b->n.view_checks++;
}

/* ea + T1, which is the far side's delta. */
static struct amode far_access(struct translation *t, const struct access *a, struct amode ea)
{
    if (a->first && a->loose)
        area_check(t, ea.base, SIDE_FAR);
    ea = without_index(t, ea);
    if (a->first && !a->loose)
        area_check(t, ea.base, SIDE_FAR);
    if (t->delta_group != FAR_SIDE)
        emit_load(&t->e, T1, AT_AREA(far_delta));
    t->delta_group = FAR_SIDE;
    ea.index = T1;
    ea.view = true;
    return ea;
}

static struct amode view_access(struct translation *t, const struct access *a, struct amode ea)
{
    t->b->n.view_accesses++;
    if (a->side == SIDE_FAR)
        return far_access(t, a, ea);
    bool narrow = !t->plan.code64;
    /* Of addresses of 32 bits the view has all. */
    if (a->first && !narrow && a->loose) {
        area_check(t, ea.base, SIDE_NEAR);
    } else if (a->first && !narrow) {
        struct amode whole = without_index(t, ea);
        area_check(t, whole.base, SIDE_NEAR);
        if (ea.base == T0)
            ea = whole;
    }
    ea.view = ea.gs = true;
    ea.narrow = narrow;
    return ea;
}

static struct amode view_operand(struct translation *t, struct planned *p)
{
    const struct mem_operand *m = &p->in.mem;
    if (t->plan.code64 && (p->in.addrsize == 4 || m->seg == SEG_FS || m->seg == SEG_GS))
        return view_access(t, &p->mem, ea_emit(t, &p->in, m, p->end));
    return view_access(t, &p->mem, plain_ea(t, m, p->end));
}

struct amode mem_emit(struct translation *t, struct planned *p)
{
    if (p->mem.view)
        return view_operand(t, p);
    return access_emit(t, &p->mem, ea_emit(t, &p->in, &p->in.mem, p->end));
}

/* --- checks -------------------------------------------------------------------------------------------------- */

static int32_t tlb_offset(const struct translation *t, size_t field)
{
    unsigned index = t->key >> KEY_INDEX_SHIFT & 3;
    return VCPU_OFF(mmu.tlbs) + (int32_t)(index * sizeof(struct tlb_entry) * TLB_ENTRIES + field);
}

static struct stub *fill_at(struct translation *t, enum stub_kind kind, uint8_t *from, uint64_t retry,
                            struct amode low)
{
    struct stub *s = stub_new(t, kind, from);
    s->retry = retry;
    s->base = low.base;
    s->disp = low.disp;
    s->info = exit_at(t, BT_BAIL, t->index);
    return s;
}

uint8_t *probe_emit(struct translation *t, struct amode low, unsigned span, bool write)
{
    struct emitter *e = &t->e;
    struct amode last = low;
    last.disp += (int32_t)span - 1;
    emit_lea32(e, T1, low);
    emit_reg(e, 0, 0xc1, 5, T1); /* shr */
    emit_byte(e, TLB_SLOT_SHIFT);
    emit_alu_imm(e, 4, T1, (int32_t)TLB_SLOT_MASK, false);
    emit_lea(e, T2, last);
    emit_alu_imm(e, 4, T2, -(int32_t)PAGE_SIZE, true);
    emit_mem(e, ENC_W, 0x0b, T2, AT_VCPU(mmu.gen));
    size_t tag = offsetof(struct tlb_entry, tag) + (write ? sizeof(uint64_t) : 0);
    emit_mem(e, ENC_W, 0x3b, T2, amode_indexed(H_RSP, T1, 0, tlb_offset(t, tag)));
    uint8_t *miss = emit_jcc(e, 5, emit_exec(e));
    emit_load(e, T1, amode_indexed(H_RSP, T1, 0, tlb_offset(t, offsetof(struct tlb_entry, addend))));
    return miss;
}

/* The general form: by the TLB. */
static void check_tlb(struct translation *t, struct amode low, unsigned span, uint32_t fill)
{
    uint64_t retry = emit_exec(&t->e);
    uint8_t *miss = probe_emit(t, low, span, fill & FILL_WRITE);
    fill_at(t, STUB_FILL, miss, retry, low)->fill = fill;
}

/* --- spots --- */

static struct amode spot_at(unsigned spot, size_t field)
{
    return amode_at(H_RSP, AREA_OFF(spots) + (int32_t)(spot * sizeof(struct bt_spot) + field));
}

static const uint8_t *guest_code(const struct translation *t)
{
    return t->unit->host + (t->plan.insns[t->index].off - t->plan.start);
}

static bool spot_wanted(struct translation *t, struct access *a)
{
    struct bt *b = t->b;
    if (a->spot)
        return true;
    if (mode_cpl(t->key) != 3 || !bt_heat_full(b, t->unit->host, t->key) || !pass_on(b, ENGINE_PASS_ADAPT) ||
        b->nspots + 2 > b->segments[b->segment].to.spots || bt_adapt_is(b, guest_code(t), VERDICT_GUILTY))
        return false;
    if (!t->unit->spots) {
        t->unit->first_spot = (uint16_t)b->nspots++;
        t->unit->spots = 1;
        bt_area(b->v)->spots[t->unit->first_spot].page = 0; /* no stamp is 0 */
    }
    a->spot = (uint16_t)b->nspots++;
    b->spot_code[a->spot] = guest_code(t);
    t->unit->spots++;
    return true;
}

/* mov T1, [stamp]; cmp T1, [the spots' stamp]; jne reset */
static void spots_fresh(struct translation *t)
{
    if (t->spots_fresh)
        return;
    emit_load(&t->e, T1, AT_VCPU(mmu.stamp));
    emit_mem(&t->e, ENC_W, 0x3b, T1, spot_at(t->unit->first_spot, 0));
    struct stub *s = stub_new(t, STUB_SPOTS, emit_jcc(&t->e, 5, emit_exec(&t->e)));
    s->retry = emit_exec(&t->e);
    s->info = exit_at(t, BT_BAIL, t->index);
    t->spots_fresh = true;
}

/* T2 = address ^ page is the offset, if it is that page; it must leave room for the whole span. */
static void check_spot(struct translation *t, unsigned spot, struct amode low, unsigned span, uint32_t fill)
{
    struct emitter *e = &t->e;
    spots_fresh(t);
    uint64_t retry = emit_exec(e);
    emit_lea(e, T2, low);
    emit_mem(e, ENC_W, 0x33, T2, spot_at(spot, offsetof(struct bt_spot, page)));
    emit_alu_imm(e, 7, T2, (int32_t)(PAGE_SIZE - span), true);
    fill_at(t, STUB_SPOT, emit_jcc(e, 7, emit_exec(e)), retry, low)->fill = fill | spot << FILL_SPOT_SHIFT;
    emit_load(e, T1, spot_at(spot, offsetof(struct bt_spot, delta)));
    t->b->n.spot_checks++;
}

static void check(struct translation *t, struct access *a, struct amode low, unsigned span, uint32_t fill)
{
    flags_away(t);
    if (!t->polled)
        poll_emit(t);
    if (spot_wanted(t, a))
        check_spot(t, a->spot, low, span, FILL_OFFSET(fill) ? fill & (BIT(FILL_SPOT_SHIFT) - 1) : fill);
    else
        check_tlb(t, low, span, fill);
    t->b->n.checks++;
}

static void bail_if(struct translation *t, unsigned cond)
{
    stub_new(t, STUB_EXIT, emit_jcc(&t->e, cond, emit_exec(&t->e)))->info = exit_at(t, BT_BAIL, t->index);
}

/* T2 = off, of which 16 bits count: no byte of the span may wrap to the segment's start. */
static void wrap_check(struct translation *t, struct amode off, unsigned span)
{
    if (span == 1 && !off.disp)
        return;
    emit_lea32(&t->e, T2, off);
    emit_alu_imm(&t->e, 7, T2, 0x10000 - (int32_t)span, false);
    bail_if(t, 7); /* ja */
}

/* Is [off, off + span) in the segment, and its type right? seg_linear_slow() in cpu/ says the same; beyond it the
 * interpreter tells. */
static void segment_check(struct translation *t, const struct access *a, struct amode off, unsigned span,
                          bool write)
{
    struct emitter *e = &t->e;
    flags_away(t);
    if (a->narrow) {
        wrap_check(t, off, span);
        if (t->key & MODE_64K && a->seg != SEG_CS)
            return;
    }
    emit_lea(e, T2, off);
    emit_load(e, T1, segment_field(a->seg, offsetof(struct seg_fast, end) + (write ? sizeof(int64_t) : 0)));
    emit_reg(e, ENC_W, 0x2b, T1, T2); /* sub T1, T2 */
    emit_mem(e, ENC_W, 0x2b, T2, segment_field(a->seg, offsetof(struct seg_fast, low)));
    emit_alu_imm(e, 5, T1, (int32_t)span, true);
    emit_reg(e, ENC_W, 0x0b, T1, T2); /* or T1, T2 */
    bail_if(t, 8);                    /* js */
}

/* op r32, [the segment's base] */
static void with_base(struct translation *t, unsigned opcode, unsigned reg, unsigned seg)
{
    emit_mem(&t->e, 0, opcode, reg, segment_base(seg));
}

/* FILL_EXACT and the offset, if a page fault of [low, low + span) is what the instruction raises: it has this access alone, of
 * the same kind, and nothing of it can fault before. */
static uint32_t exact_fill(const struct translation *t, const struct access *a, unsigned off, bool write)
{
    const struct planned *p = &t->plan.insns[t->index];
    bool plain = p->how == HOW_COPY || p->how == HOW_SIMD || p->how == HOW_PUSH || p->how == HOW_POP ||
                 p->how == HOW_MOFFS;
    bool one = p->mem.used != p->stack.used;
    if (!plain || !one || a->write != write || a->doubtful || a->aligned || a->probe || off > 0xff)
        return 0;
    return FILL_EXACT | off << FILL_OFFSET_SHIFT;
}

struct amode group_slot(int group) { return amode_at(H_RSP, AREA_OFF(group) + 8 * group); }

struct amode access_emit(struct translation *t, struct access *a, struct amode ea)
{
    struct amode host = amode_indexed(ea.base, T1, 0, ea.disp);
    if (a->view)
        return view_access(t, a, ea);
    if (!a->first || (t->strip && a->group != NO_GROUP && t->plan.groups[a->group].hoisted)) {
        if (t->strip && a->group == t->kept_group) {
            host.index = T0;
            t->b->n.checks_merged++;
            return host;
        }
        if (t->delta_group != a->group)
            emit_load(&t->e, T1, group_slot(a->group));
        t->delta_group = a->group;
        t->b->n.checks_merged++;
        return host;
    }
    struct amode low = ea;
    unsigned span = a->size;
    bool write = a->write, read_first = a->doubtful, slot = false;
    if (a->group != NO_GROUP) {
        const struct group *g = &t->plan.groups[a->group];
        low.disp += (int32_t)(g->low - a->at);
        span = (unsigned)(g->high - g->low);
        write = g->write;
        read_first = g->read_first;
        slot = g->slot;
    }
    bool checked = seg_checked(&t->plan, a->seg);
    if (checked) {
        segment_check(t, a, low, span, write);
        with_base(t, 0x03, T0, a->seg); /* add */
    }
    bool aligned = a->aligned;
    if (aligned && a->group != NO_GROUP && (a->at - t->plan.groups[a->group].low) % 16) {
        aligned =
            false; /* cannot be told from the group's lowest address: then nothing is marked written yet */
        read_first = true;
    }
    check(t, a, low, span,
          span | (write ? FILL_WRITE : 0) | (write && read_first ? FILL_READ_FIRST : 0) |
              (aligned ? FILL_ALIGNED : 0) | (a->probe ? FILL_PROBE : 0) |
              exact_fill(t, a, (unsigned)(ea.disp - low.disp), write));
    if (checked) {
        emit_reg(&t->e, ENC_W, 0x03, T1, T0);
        with_base(t, 0x2b, T0, a->seg); /* sub */
        emit_reg(&t->e, ENC_W, 0x2b, T1, T0);
    }
    if (slot)
        emit_store(&t->e, group_slot(a->group), T1);
    t->delta_group = a->group;
    return host;
}

/* --- stubs ----------------------------------------------------------------------------------------------------- */

static uint32_t unit_index(const struct translation *t) { return (uint32_t)(t->unit - t->b->units); }

void exit_emit(struct translation *t, const struct stub *s, uint32_t info, uint32_t arg)
{
    t->state = s->state;
    t->recipe = s->recipe;
    if (t->state == FLAGS_R)
        flags_to_e(t);
    struct x87_note x87 = s->x87;
    x87_flush(t, &x87);
    emit_mov_imm32(&t->e, T1, info);
    if (EXIT_KIND(info) == BT_LINK)
        emit_mov_imm32(&t->e, T2, arg);
    emit_jmp(&t->e, bt_exec_addr(t->b, t->state == FLAGS_E ? t->b->gate_exit_e : t->b->gate_exit_s));
}

static void fill_from(struct translation *t, const struct stub *s, uint32_t gate)
{
    emit_lea(&t->e, T2, amode_at(s->base, s->disp));
    emit_mov_imm32(&t->e, T1, s->fill);
    emit_call(&t->e, bt_exec_addr(t->b, gate));
    emit_jmp(&t->e, s->retry);
    exit_emit(t, s, s->info, unit_index(t));
}

static void fill_stub(struct translation *t, const struct stub *s) { fill_from(t, s, t->b->gate_fill); }
static void spot_stub(struct translation *t, const struct stub *s) { fill_from(t, s, t->b->gate_spot); }

static void spots_stub(struct translation *t, const struct stub *s)
{
    emit_mov_imm32(&t->e, T1, unit_index(t));
    emit_call(&t->e, bt_exec_addr(t->b, t->b->gate_spots));
    emit_jmp(&t->e, s->retry);
    exit_emit(t, s, s->info, unit_index(t));
}

static void lookup_stub(struct translation *t, const struct stub *s)
{
    emit_mov(&t->e, T2, T0);
    bool code16 = jump_bits(t->key) == CODE16_JUMPS_BITS;
    emit_call(&t->e, bt_exec_addr(t->b, code16 ? t->b->gate_lookup16 : t->b->gate_lookup));
    emit_jmp(&t->e, s->retry);
    exit_emit(t, s, s->info, unit_index(t));
}

static void exit_stub(struct translation *t, const struct stub *s)
{
    for (int32_t i = s->site; i >= 0 && i < s->site + s->sites; i++)
        t->b->sites[i].exit = (uint32_t)(emit_exec(&t->e) - bt_exec_addr(t->b, 0));
    exit_emit(t, s, s->info, unit_index(t));
}

/* What was counted at the unit's entry and is not executed. LEA keeps the flags. */
static void uncount(struct translation *t, uint32_t rest)
{
    emit_load(&t->e, T1, AT_AREA(left));
    emit_lea(&t->e, T1, amode_at(T1, (int32_t)rest));
    emit_store(&t->e, AT_AREA(left), T1);
}

static void link_stub(struct translation *t, const struct stub *s)
{
    struct bt *b = t->b;
    uint8_t *field = s->from;
    if (counting(t) && s->rest) {
        uncount(t, s->rest);
        field = emit_jmp(&t->e, emit_exec(&t->e) + 5);
    }
    uint32_t stub = (uint32_t)(emit_exec(&t->e) - bt_exec_addr(b, 0));
    b->links[b->nlinks] = (struct bt_link){
        .field = (uint32_t)(field - b->code.write),
        .target = s->target,
        .key = s->fill,
        .state_s = s->state == FLAGS_S,
        .stub = stub,
        .facts = by_view(t) ? s->facts : (struct facts){ 0 },
        .passes = s->passes,
        .from = t->unit,
    };
    exit_emit(t, s, EXIT_INFO(BT_LINK, s->target, 0), b->nlinks++);
    t->unit->links++;
}

static void far_stub(struct translation *t, const struct stub *s)
{
    t->state = s->state;
    t->recipe = s->recipe;
    t->index = s->index;
    flags_to_s(t);
    if (counting(t) && s->rest)
        uncount(t, s->rest);
    /* The branch itself is left to the interpreter then; all behind it is uncounted already. */
    far_jump_emit(t, s->far_target, t->plan.insns[s->index].in.opsize, 0,
                  EXIT_INFO(BT_BAIL, t->plan.insns[s->index].off, 1));
}

static void count_stub(struct translation *t, const struct stub *s)
{
    emit_mem(&t->e, ENC_W, 0x81, 0, AT_AREA(left)); /* add qword [left], insns */
    emit_imm(&t->e, t->unit->insns, 4);
    exit_emit(t, s, s->info, unit_index(t));
}

static void unlink_stub(struct translation *t, const struct stub *s)
{
    emit_mov_imm32(&t->e, T1, unit_index(t));
    emit_call(&t->e, bt_exec_addr(t->b, t->b->gate_unlink));
    emit_jmp(&t->e, s->retry);
}

static void strip_failed(struct translation *t, const struct stub *s)
{
    (void)s;
    strip_stub(t);
}

/* In front of the instruction, nothing of it done, or a string instruction between two iterations. */
static void call_stub(struct translation *t, const struct stub *s)
{
    t->state = s->state;
    t->recipe = s->recipe;
    t->index = s->index;
    call_out_emit(t, &t->plan.insns[s->index]);
    if (s->flags_e)
        flags_to_e(t);
    emit_jmp(&t->e, s->retry);
}

static void loop_stub(struct translation *t, const struct stub *s)
{
    uint64_t to = s->retry ? s->retry : bt_exec_addr(t->b, t->loop_at);
    bool from_first = !s->retry, save = t->loop_state == FLAGS_S || (t->loop_state == FLAGS_E && from_first);
    if (!save && !(counting(t) && s->rest)) {
        emit_patch(&t->e, s->from, to);
        return;
    }
    t->state = s->state;
    t->recipe = s->recipe;
    if (save)
        flags_to_s(t);
    if (counting(t) && s->rest)
        uncount(t, s->rest);
    if (t->loop_state == FLAGS_E) { /* a request leaves here */
        emit_mem(&t->e, 0, 0x83, 7, AT_VCPU(requests));
        emit_byte(&t->e, 0);
        emit_jcc(&t->e, 4, to);
        struct stub leave = { .state = FLAGS_S };
        exit_emit(t, &leave, EXIT_INFO(BT_LOOK, t->plan.start, 0), 0);
        return;
    }
    emit_jmp(&t->e, to);
}

void stubs_emit(struct translation *t)
{
    static void (*const emit[])(struct translation * t, const struct stub *s) = {
        [STUB_LOOKUP] = lookup_stub,     [STUB_FILL] = fill_stub,   [STUB_EXIT] = exit_stub,
        [STUB_LINK] = link_stub,         [STUB_FAR] = far_stub,     [STUB_COUNT] = count_stub,
        [STUB_UNLINK] = unlink_stub,     [STUB_SIMD] = vector_stub, [STUB_STRIP] = strip_failed,
        [STUB_LOOP] = loop_stub,         [STUB_CALL] = call_stub,   [STUB_SPOT] = spot_stub,
        [STUB_RETURN] = return_stub,     [STUB_SPOTS] = spots_stub, [STUB_X87] = x87_stub,
        [STUB_FAR_LINK] = far_link_stub,
    };
    for (unsigned i = 0; i < t->nstubs && !t->e.full; i++) { /* a stub may add stubs */
        const struct stub *s = &t->stubs[i];
        if (s->from)
            emit_patch(&t->e, s->from, emit_exec(&t->e));
        if (s->from2)
            emit_patch(&t->e, s->from2, emit_exec(&t->e));
        emit[s->kind](t, s);
    }
}
