/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bugs planted in translated code: the verifier has to refuse each. The translator makes the units of a program, at privilege 0
 * and 3; copies of them are changed and verified again. None of the changed code ever runs.
 *
 *   SUNDOG_MUTATIONS=n   random changes of each unit (default 300)     SUNDOG_SEED=s   another sequence
 */
#include "engine_kit.h"

#include <stdio.h>

#include "engine/bt/verify.h"
#include "engine/bt/verify_insn.h"
#include "sequence.h"

/* Accesses alone and in groups, of both kinds; aligned ones; strings; flags kept over checks; stack, calls, jumps. */
GUEST_CODE(
    program, 64,
    "mov rbx, 0x50000\n mov r12, 0x50800\n mov rsp, 0x52000\n mov ecx, 40\n"
    "again: mov rax, [rbx]\n add [rbx + 8], rax\n mov [rbx + 24], cl\n movzx edx, word ptr [r12 + rcx * 2]\n"
    "cmp rax, rdx\n mov r13, [r12 + 64]\n lock xadd [r12 + 128], r13\n jb 1f\n inc qword ptr [rbx + 16]\n"
    "1: push rax\n call 3f\n pop rax\n movaps xmm0, [rbx + 32]\n addps xmm0, xmm1\n movups [rbx + 51], xmm0\n"
    "mov r8, rcx\n lea rsi, [rbx + 256]\n lea rdi, [rbx + 1024]\n mov ecx, 9\n rep movsq\n lodsd\n stosb\n"
    "mov rcx, r8\n mov eax, 77\n xor edx, edx\n mov esi, 5\n div esi\n lea r9, [rip + 2f]\n jmp r9\n"
    "2: sub ecx, 1\n jnz again\n hlt\n"
    "3: mov r10, [rsp]\n mov [rsp - 16], r10\n ret");
GUEST_CODE(strips, 64,
           "mov edi, 20\n"
           "1: mov esi, 0x50000\n mov edx, 0x51000\n mov ecx, 64\n xor eax, eax\n"
           "2: add eax, [rsi]\n mov [rdx], eax\n add rsi, 4\n add rdx, 4\n sub ecx, 1\n jnz 2b\n"
           "sub edi, 1\n jnz 1b\n hlt");

/* 32-bit code behind FS, at privilege 3 with ES not flat either: then all its segments are looked at. */
#define FS_BASE 0x40000u
GUEST_CODE(
    segments, 32,
    "mov ebx, 0x2000\n mov esp, 0x52000\n mov ecx, 40\n"
    "1: mov eax, fs:[ebx]\n add fs:[ebx + 8], eax\n mov fs:[ebx + 24], cl\n lea esi, [ebx + 0x100]\n"
    "movzx edx, word ptr fs:[esi + ecx * 2]\n lock xadd fs:[0x2040], edx\n mov edx, fs:[0x2044]\n"
    /* flags by a comparison like that of an address of 16 bits; a group around offset 0, whose check fails */
    "sub eax, 0xffff\n mov fs:[0x2048], cl\n jb 5f\n 5: mov edi, 16\n mov edx, fs:[edi]\n test edi, edi\n "
    "jnz 4f\n mov edx, fs:[edi - 32]\n 4:"
    "mov edi, [ebx + 0x50000]\n mov [ebx + 0x50010], edi\n push eax\n call 3f\n pop eax\n sub ecx, 1\n"
    "jnz 1b\n hlt\n"
    "3: mov edx, [esp]\n mov [esp - 16], edx\n ret");

/* 16-bit code, in real and in virtual-8086 mode with IOPL 3. Between accesses at fixed distances stands an STI whose handler is
 * called. */
#define REAL_CS (CODE_AT >> 4)
GUEST_CODE(
    old, 16,
    "mov ax, 0x5000\n mov ds, ax\n mov es, ax\n mov sp, 0x8000\n mov bx, 0x100\n mov cx, 40\n"
    "1: mov ax, [bx]\n add [bx + 8], ax\n mov [bx + 24], cl\n mov si, bx\n add si, 0x40\n mov dl, [si]\n"
    "mov [si + 2], ax\n pop ax\n sti\n jc 2f\n 2: push ax\n push ax\n call 3f\n pop ax\n mov es:[bx + 4], "
    "ax\n xadd [bx + si], ax\n mov di, bx\n"
    "inc di\n mov eax, [di]\n mov [bx + 0x20], eax\n sub cx, 1\n jnz 1b\n hlt\n"
    "3: mov bp, sp\n mov dx, [bp]\n mov [bp - 16], dx\n ret");

/* User code, which a view shows its memory where the host can: accesses near, at the upper end, and far; indices, a stack; a look at what was
 * stored before makes the index. */
#define FAR_ENTRY 253u
GUEST_CODE(
    viewed, 64,
    "movabs rbx, 0x7e8000050000\n mov esi, 0x50000\n movabs rsp, 0x7e8000052000\n mov edi, 60\n fninit\n"
    "jmp 1f\n 1: mov ecx, 20\n jmp 2f\n"
    "2: mov rax, [rbx]\n add [rbx + 8], rax\n and dword ptr [rbx + 24], 63\n mov r9d, [rbx + 24]\n"
    "mov [rbx + r9 * 8 + 0x200], eax\n movzx edx, word ptr [rbx + rcx * 2 + 512]\n"
    "mov r8, [rsi]\n mov [rsi + 64], r8\n mov r10d, [rsi + rcx * 4 + 0x400]\n"
    "push rax\n call 3f\n pop rdx\n movups xmm0, [rbx + 51]\n lea r12, [rbx + 0x200000]\n sub ecx, 1\n"
    "jnz 2b\n"
    "sub edi, 1\n jnz 1b\n hlt\n"
    "3: mov [rbx + 0x140], rbx\n mov r8, [rbx + 0x140]\n mov r9d, 5\n fild dword ptr [r8 + r9 * 4 + "
    "0x200000]\n"
    "fstp st\n mov r10, [rsp]\n mov [rsp - 16], r10\n cmp r10, [rsi + 8]\n jz 4f\n inc dword ptr [rsi + 16]\n"
    /* a scale without an index; a loop that is written out, with a displacement for its index */
    "4: .byte 0x4c, 0x8b, 0x5c, 0xe6, 0x08\n xor eax, eax\n 5: mov r11, [rsi + rax * 8 + 0x100]\n add "
    "rax, 1\n cmp rax, 3\n jnz 5b\n ret");

/* The guest's own masks and products look like steps of a check; by a view their flags are kept over accesses. */
GUEST_CODE(alike, 64,
           "mov rbx, 0x50000\n mov rsp, 0x52000\n mov edi, 60\n"
           "1: mov r15, [rbx]\n and r15d, 4095\n mov [rbx + 8], rdi\n jz 2f\n inc qword ptr [rbx + 32]\n"
           "2: mov r15, [rbx]\n and r15, -4096\n mov [rbx + 16], rdi\n jz 3f\n inc qword ptr [rbx + 40]\n"
           "3: imul r15d, edi, 0x9e3779b1\n mov [rbx + 24], rdi\n jo 4f\n inc qword ptr [rbx + 48]\n"
           "4: sub edi, 1\n jnz 1b\n hlt");

/* Calls, jumps and branches to another page, which are linked. */
GUEST_CODE(farther, 64,
           "mov rsp, 0x52000\n mov ecx, 60\n"
           "1: call 3f\n cmp ecx, 30\n jb 4f\n jmp 5f\n 2: sub ecx, 1\n jnz 1b\n hlt\n"
           ".skip 4200\n"
           "3: lea rax, [rax + 1]\n ret\n 4: jmp 2b\n 5: test ecx, 1\n jz 2b\n jmp 2b");

/* --- units of a program ---------------------------------------------------------------------------------------------- */

static void enter_segments(struct kit *k, unsigned cpl)
{
    const unsigned data = G_DATA1_3 | 3;
    kit_protected(k, cpl);
    kit_gdt(k, G_DATA1_3, kit_desc(FS_BASE, 0x1ffff, 0xf2, 4)); /* 32 bits */
    kit_seg(k, SEG_FS, data);
    if (cpl)
        kit_seg(k, SEG_ES, data);
}

static void enter_old(struct kit *k, unsigned cpl)
{
    struct segment *cs = &k->v->s.seg[SEG_CS];
    if (cpl)
        kit_vm86(k, 0);
    else
        kit_real(k);
    *cs = seg_vm86(REAL_CS);
    if (!cpl)
        cs->attr &= ~(uint32_t)SA_DPL;
}

static struct bt *translated(struct kit *k, unsigned cpl, unsigned bits, const uint8_t *code, size_t len)
{
    if (bits == 64) {
        kit_long(k, cpl);
        kit_put64(k, PAGES_AT + 8 * FAR_ENTRY, (PAGES_AT + 0x1000) | 7);
    } else if (bits == 32) {
        enter_segments(k, cpl);
    } else {
        enter_old(k, cpl);
    }
    load_code_at(k, code, len, CODE_AT);
    if (bits == 16)
        k->v->s.rip = 0;
    k->v->s.gpr[RSP] = 0x52000;
    k->v->s.rflags |= FL_IOPL;
    k->v->s.cr0 |= CR0_NE;
    k->v->s.cr4 |= CR4_OSFXSR;
    vcpu_refresh(k->v);
    run_to_hlt(k);
    struct bt *b = bt_of(k->v);
    assert_true(b->nunits > 2);
    return b;
}

static uint32_t begin_of(const struct bt_unit *u)
{
    uint32_t at = u->entry_s < u->entry_e ? u->entry_s : u->entry_e;
    return at < u->entry_jump ? at : u->entry_jump;
}

/* What the tables held in front of unit n, and behind it with the next number. */
static struct verify_before before_unit(const struct bt *b, uint32_t n)
{
    struct verify_before p = { .used = n < b->nunits ? begin_of(&b->units[n]) : b->used,
                               .nlinks = b->nlinks };
    if (n < b->nunits)
        p.nlinks = b->units[n].first_link;
    p.used_stubs = b->segments[b->segment].from.stubs;
    for (uint32_t i = 0; i < n && i < b->nunits; i++)
        p.used_stubs += b->units[i].stub_bytes;
    while (p.nsites < b->nsites && b->sites[p.nsites].at < p.used)
        p.nsites++;
    while (p.ncalls < b->ncalls && ((struct bt_call *)(void *)(b->calls + p.ncalls * CALL_STRIDE))->unit < n)
        p.ncalls++;
    return p;
}

#define CODE_MAX 16384u
struct subject {
    struct verifier *w;
    struct verify_gate gates[VERIFY_GATES];
    struct verify_unit x;
    uint8_t code[CODE_MAX]; /* its body, then its stubs */
    unsigned tried, refused;
};

static uint32_t bytes_of(const struct subject *s) { return s->x.body.size + s->x.stubs.size; }

/* Of an offset in the cache. */
static uint32_t offset_of(const struct subject *s, uint32_t at)
{
    return at - s->x.body.at < s->x.body.size ? at - s->x.body.at : at - s->x.stubs.at + s->x.body.size;
}

/* Of the instruction there; false: none. */
static bool decode_at(const struct subject *s, uint32_t off, struct verify_insn *in)
{
    const struct verify_part *p = off < s->x.body.size ? &s->x.body : &s->x.stubs;
    uint32_t begin = p == &s->x.body ? 0 : s->x.body.size;
    return !verify_decode(in, s->code + off, begin + p->size - off, s->x.exec + p->at + off - begin, false);
}

static void take_unit(struct subject *s, const struct bt *b, uint32_t n)
{
    struct verify_before before = before_unit(b, n), behind = before_unit(b, n + 1);
    bt_verify_describe(b, &b->units[n], &before, &behind, s->gates, &s->x);
    assert_true(bytes_of(s) <= CODE_MAX);
    memcpy(s->code, s->x.body.code, s->x.body.size);
    memcpy(s->code + s->x.body.size, s->x.stubs.code, s->x.stubs.size);
    /* Links that were made go to their stubs again, as when the unit was verified. */
    for (uint32_t i = 0; i < s->x.nlinks; i++) {
        const struct bt_link *l = &s->x.links[i];
        if (l->far)
            continue;
        uint32_t rel = l->stub - (l->field + 4);
        memcpy(s->code + offset_of(s, l->field), &rel, 4);
    }
    s->x.body.code = s->code;
    s->x.stubs.code = s->code + s->x.body.size;
}

static bool accepted(struct subject *s)
{
    struct verify_result r;
    return verify_unit(s->w, &s->x, &r);
}

/* --- planted bugs ------------------------------------------------------------------------------------------------------ */

static bool is_slot(const struct verify_operand *o)
{
    return o->kind == OPR_MEM && o->base == H_RSP && o->index == NO_REG;
}

/* A memory operand of the guest's. */
static const struct verify_operand *guest_access(const struct verify_insn *in)
{
    for (unsigned i = 0; i < in->noperands; i++)
        if (in->o[i].kind == OPR_MEM && in->o[i].base != H_RSP && in->o[i].index == T1)
            return &in->o[i];
    return NULL;
}

/* A look into the TLB. */
static const struct verify_operand *tlb_access(const struct verify_insn *in)
{
    for (unsigned i = 0; i < in->noperands; i++)
        if (in->o[i].kind == OPR_MEM && in->o[i].base == H_RSP && in->o[i].index != NO_REG)
            return &in->o[i];
    return NULL;
}

static bool change_field(uint8_t *at, unsigned len, int32_t from, int32_t to)
{
    for (unsigned i = len >= 4 ? len - 4 : 0; i > 1; i--)
        if (!memcmp(at + i, &from, 4)) {
            memcpy(at + i, &to, 4);
            return true;
        }
    return false;
}

/* Each changes instruction `in`, which stands at `at`, behind `before`; false: it is none that it is for. */
static bool check_dropped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || !tlb_access(before) || before->op != OP_CMP)
        return false;
    memset(at + 2, 0, 4); /* both ways go on */
    return true;
}

static bool check_reversed(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || !tlb_access(before) || before->op != OP_CMP)
        return false;
    at[1] ^= 1;
    return true;
}

static bool right_exchanged(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    const struct verify_operand *o = tlb_access(in);
    (void)before;
    int32_t read = (int32_t)((o ? o->val : 0) - 8);
    /* the tag for writing stands behind that for reading */
    if (!o || in->op != OP_CMP || (o->val - VCPU_OFF(mmu.tlbs)) % (int32_t)sizeof(struct tlb_entry) != 8)
        return false;
    return change_field(at, in->len, (int32_t)o->val, read);
}

static bool mode_exchanged(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    const struct verify_operand *o = tlb_access(in);
    (void)before;
    const int32_t table = (int32_t)(sizeof(struct tlb_entry) * TLB_ENTRIES);
    return o && change_field(at, in->len, (int32_t)o->val,
                             (int32_t)o->val + (o->val >= VCPU_OFF(mmu.tlbs) + table ? -table : table));
}

static bool check_skipped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_JCC || !in->relative || in->len != 6)
        return false;
    uint32_t rel; /* the poll of requests and the like: to behind the check that follows */
    memcpy(&rel, at + 2, 4);
    for (uint8_t *p = at + 6; p < at + 100; p++)
        if (p[0] == 0x0f && p[1] == 0x85 && p[6] == 0x4e &&
            p[7] == 0x8b) { /* jne fill; mov r13, [rsp + r13 + ...] */
            rel = (uint32_t)(p + 6 + 8 - (at + 6));
            memcpy(at + 2, &rel, 4);
            return true;
        }
    return false;
}

static bool displacement_widened(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    const struct verify_operand *o = guest_access(in);
    return o && o->val && o->val != (int8_t)o->val
               ? change_field(at, in->len, (int32_t)o->val, (int32_t)o->val + 4096)
               : false;
}

static bool displacement_moved(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    const struct verify_operand *o = guest_access(in);
    if (!o || !o->val || o->val != (int8_t)o->val)
        return false;
    for (unsigned i = in->len; i-- > 2;)
        if (at[i] == (uint8_t)o->val) {
            at[i] = 0x80;
            return true;
        }
    return false;
}

/* REX.X, REX.B: the address is made of another register. */
static bool register_swapped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (!guest_access(in) || (at[0] & 0xf0) != 0x40)
        return false;
    at[0] ^= 1;
    return true;
}

static bool index_swapped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (!guest_access(in) || (at[0] & 0xf0) != 0x40)
        return false;
    at[0] ^= 2;
    return true;
}

static bool overwrite(uint8_t *at, const struct verify_insn *in, const void *bytes, unsigned len)
{
    if (in->len != len)
        return false;
    memcpy(at, bytes, len);
    return true;
}

static bool stack_moved(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return overwrite(at, in, "\x48\x89\xc4", 3); /* mov rsp, rax */
}

static bool secret_told(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    return tlb_access(before) && before->op == OP_MOV && guest_access(in) &&
           overwrite(at, in, "\x4c\x89\x68\x08", 4);
}

static bool secret_kept(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_JCC || in->len != 6)
        return false;
    memcpy(at, "\x48\x89\xe0\x48\x89\xe3", 6); /* mov rax, rsp; mov rbx, rsp */
    return true;
}

static bool system_call(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->len < 2)
        return false;
    memcpy(at, "\x0f\x05", 2);
    return true;
}

static bool slot_moved(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    for (unsigned i = 0; i < in->noperands; i++)
        if (is_slot(&in->o[i]) && in->o[i].val != (int8_t)in->o[i].val)
            return change_field(at, in->len, (int32_t)in->o[i].val, (int32_t)in->o[i].val + 0x1000);
    return false;
}

static bool jump_moved(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (!in->relative || in->len < 5)
        return false;
    at[in->len - 2] ^= 0x40; /* 4 MiB away */
    return true;
}

static bool table_jumped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_JMP || in->relative)
        return false;
    at[in->len - 1] += 16; /* another slot than the one that was compared */
    return true;
}

/* --- in code with segments */

static bool is_seg_fast(const struct verify_operand *o, size_t field)
{
    int64_t off = o->val - VCPU_OFF(sf);
    return is_slot(o) && off >= 0 && off < (int64_t)(SEG_COUNT * sizeof(struct seg_fast)) &&
           off % (int64_t)sizeof(struct seg_fast) == (int64_t)field;
}

static bool limit_dropped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || in->cond != 8 || before->op != OP_OR)
        return false;
    memset(at + 2, 0, 4); /* both ways go on */
    return true;
}

/* An address of 16 bits may go round. */
static bool wrap_dropped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || in->cond != 7 || before->op != OP_CMP || before->o[1].kind != OPR_IMM ||
        before->o[1].val < 0xf000)
        return false;
    memset(at + 2, 0, 4); /* both ways go on */
    return true;
}

static bool segment_exchanged(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    const struct verify_operand *o = &in->o[1];
    const int32_t next = (int32_t)sizeof(struct seg_fast);
    bool part = is_seg_fast(o, offsetof(struct seg_fast, base)) ||
                is_seg_fast(o, offsetof(struct seg_fast, low)) ||
                is_seg_fast(o, offsetof(struct seg_fast, end)) ||
                is_seg_fast(o, offsetof(struct seg_fast, end) + sizeof(int64_t));
    /* CS also makes instruction pointers of addresses, where any number may stand. */
    bool used = (in->op == OP_ADD || in->op == OP_SUB || in->op == OP_MOV) &&
                (o->val - VCPU_OFF(sf)) / (int64_t)sizeof(struct seg_fast) != SEG_CS;
    bool last = o->val >= VCPU_OFF(sf) + (int32_t)((SEG_COUNT - 1) * sizeof(struct seg_fast));
    return part && used &&
           change_field(at, in->len, (int32_t)o->val, (int32_t)o->val + (last ? -next : next));
}

static bool base_kept(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_SUB || !is_seg_fast(&in->o[1], offsetof(struct seg_fast, base)))
        return false;
    memset(at, 0x90, in->len);
    return true;
}

static bool span_shortened(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_SUB || in->o[1].kind != OPR_IMM || before->op != OP_SUB ||
        !is_seg_fast(&before->o[1], offsetof(struct seg_fast, low)))
        return false;
    at[in->len == 4 ? 3 : in->len - 4]--;
    return true;
}

/* --- in code that uses a view */

/* A look into the table of areas, or of requests. */
static const struct verify_operand *table_access(const struct verify_insn *in)
{
    const struct verify_operand *o = tlb_access(in);
    return o && o->size == 4 && o->val >= POLL_TABLE ? o : NULL;
}

static bool area_unchecked(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    const struct verify_operand *o = table_access(in);
    (void)before;
    if (!o || o->scale != 8 || in->op != OP_MOV || at[1] != 0x8b)
        return false;
    at[1] = 0x8d; /* LEA: reads nothing */
    return true;
}

static bool side_exchanged(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    const struct verify_operand *o = table_access(in);
    (void)before;
    return o && o->scale == 8 &&
           change_field(at, in->len, (int32_t)o->val,
                        o->val == AREA_TABLE ? AREA_TABLE + SIDE_TABLE : AREA_TABLE);
}

static bool table_missed(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    const struct verify_operand *o = table_access(in);
    (void)before;
    return o && change_field(at, in->len, (int32_t)o->val, (int32_t)o->val + 4096);
}

/* mov T2, 30 in front of the shift */
static bool entry_changed(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_SHRX || before->op != OP_MOV || before->o[1].kind != OPR_IMM)
        return false;
    at[-4]++;
    return true;
}

static bool view_left(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    for (unsigned i = 0; i < in->noperands; i++)
        if (in->o[i].kind == OPR_MEM && in->o[i].gs && at[0] == 0x65) {
            at[0] = 0x3e; /* DS: the VMM's own memory */
            return true;
        }
    return false;
}

static bool delta_exchanged(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_MOV && in->noperands == 2 && is_slot(&in->o[1]) &&
           in->o[1].val == AREA_OFF(far_delta) &&
           change_field(at, in->len, AREA_OFF(far_delta), AREA_OFF(page));
}

/* mov r9d, gs:[...], which is an index then */
static bool index_widened(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_MOV || in->o[0].kind != OPR_GPR || in->o[0].reg != R9 || in->o[0].size != 4 ||
        !in->o[1].gs || at[0] != 0x65 || (at[1] & 0xf8) != 0x40)
        return false;
    at[1] |= 8;
    return true;
}

static bool far_scaled(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    const struct verify_operand *o = guest_access(in);
    struct verify_insn now;
    (void)before;
    for (unsigned i = 1; o && !o->gs && i < in->len; i++) {
        at[i] ^= 0xc0; /* in the SIB byte: times 8 */
        bool scaled = !verify_decode(&now, at, in->len, 0, false) && now.len == in->len && now.op == in->op &&
                      guest_access(&now) && guest_access(&now)->scale == 8;
        if (scaled)
            return true;
        at[i] ^= 0xc0;
    }
    return false;
}

static bool is_far(const struct verify_operand *o, size_t field)
{
    return is_slot(o) && o->val >= AREA_OFF(fars) &&
           (o->val - AREA_OFF(fars)) % sizeof(struct bt_far) == field;
}

/* The comparison of a far link's page. */
static bool is_guard(const struct verify_insn *in)
{
    return in->op == OP_CMP && in->o[0].kind == OPR_GPR && in->o[0].reg == T2 && is_slot(&in->o[1]) &&
           in->o[1].val == AREA_OFF(page);
}

static bool guard_dropped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || !is_guard(before))
        return false;
    memset(at + 2, 0, 4);
    return true;
}

static bool guard_reversed(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || !is_guard(before))
        return false;
    at[1] ^= 1;
    return true;
}

static bool context_unasked(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    return in->op == OP_SUB && before->op == OP_MOV && is_far(&before->o[1], 0) &&
           overwrite(at, in, "\x0f\x1f\x84\x00\x00\x00\x00\x00", 8); /* nop */
}

static bool other_guard(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_MOV && is_far(&in->o[1], 0) &&
           change_field(at, in->len, (int32_t)in->o[1].val, (int32_t)(in->o[1].val + sizeof(struct bt_far)));
}

static bool other_link(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_JMP && is_far(&in->o[0], offsetof(struct bt_far, code)) &&
           change_field(at, in->len, (int32_t)in->o[0].val, (int32_t)(in->o[0].val + sizeof(struct bt_far)));
}

/* In front of the jump: where it goes. */
static bool other_target(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    struct verify_insn next;
    (void)before;
    return in->op == OP_LEA && in->o[0].kind == OPR_GPR && in->o[0].reg == T0 &&
           !verify_decode(&next, at + in->len, 16, 0, false) && next.op == OP_JMP &&
           is_far(&next.o[0], offsetof(struct bt_far, code)) &&
           change_field(at, in->len, (int32_t)in->o[1].val, (int32_t)in->o[1].val + 4096);
}

/* A word of the table of returns. */
static bool is_return(const struct verify_operand *o, size_t field)
{
    int64_t off = o->val - AREA_OFF(returns);
    return o->kind == OPR_MEM && o->base == H_RSP && o->index != NO_REG && off >= 0 &&
           off < (int64_t)(MMU_INDEX_COUNT * sizeof(struct bt_returns)) &&
           (size_t)off % sizeof(struct bt_returns) == field;
}
#define NOTED offsetof(struct bt_returns, lin)
#define WAY_BACK offsetof(struct bt_returns, code)

static bool move_return(uint8_t *at, const struct verify_insn *in, const struct verify_operand *o, int32_t by)
{
    return change_field(at, in->len, (int32_t)o->val, (int32_t)o->val + by);
}

static bool is_return_check(const struct verify_insn *in)
{
    return in->op == OP_CMP && in->o[0].kind == OPR_GPR && is_return(&in->o[1], NOTED);
}

static bool return_unchecked(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || !is_return_check(before))
        return false;
    memset(at + 2, 0, 4);
    return true;
}

static bool return_reversed(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    if (in->op != OP_JCC || !is_return_check(before))
        return false;
    at[1] ^= 1;
    return true;
}

static bool return_elsewhere(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_PUSH && is_return(&in->o[0], WAY_BACK) && move_return(at, in, &in->o[0], 8);
}

static bool return_of_others(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_PUSH && is_return(&in->o[0], WAY_BACK) &&
           move_return(at, in, &in->o[0], sizeof(struct bt_returns));
}

/* The RET behind the PUSH. */
static bool return_dropped(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    return in->op == OP_RET && before->op == OP_PUSH && overwrite(at, in, "\x90", 1);
}

static bool back_elsewhere(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_POP && is_return(&in->o[0], WAY_BACK) && move_return(at, in, &in->o[0], 8);
}

static bool back_of_others(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_POP && is_return(&in->o[0], WAY_BACK) &&
           move_return(at, in, &in->o[0], sizeof(struct bt_returns));
}

/* A number of the guest's where code is expected. */
static bool note_as_code(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    return in->op == OP_MOV && is_return(&in->o[0], NOTED) &&
           move_return(at, in, &in->o[0], (int32_t)WAY_BACK);
}

/* movzx r32, r16 */
static bool place_widened(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    struct verify_insn next;
    (void)before;
    if (in->op != OP_MOVZX || verify_decode(&next, at + in->len, 16, 0, false) || next.noperands < 2 ||
        !(is_return(&next.o[0], NOTED) || is_return(&next.o[1], NOTED)))
        return false;
    at[in->len - 2] |= 1;
    return true;
}

/* Over the POP, so that the host's stack is left uneven. */
static bool over_too_far(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    struct verify_insn pop;
    (void)before;
    if (in->op != OP_CALL || !in->relative || at[4] || at[3] || at[2] || /* a gate is far away */
        verify_decode(&pop, at + in->len + at[1], 16, 0, false) || pop.op != OP_POP)
        return false;
    at[1] = (uint8_t)(at[1] + pop.len);
    return true;
}

enum { ANYWHERE, LOOKED_UP, VIEWED };
static const struct {
    const char *name;
    bool (*plant)(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before);
    unsigned where;
} bugs[] = {
    { "check dropped", check_dropped, LOOKED_UP },
    { "check reversed", check_reversed, LOOKED_UP },
    { "right exchanged", right_exchanged, LOOKED_UP },
    { "mode exchanged", mode_exchanged, LOOKED_UP },
    { "check skipped", check_skipped, LOOKED_UP },
    { "displacement widened", displacement_widened, LOOKED_UP },
    { "displacement moved", displacement_moved, LOOKED_UP },
    { "register swapped", register_swapped, LOOKED_UP },
    { "index swapped", index_swapped, LOOKED_UP },
    { "stack pointer moved", stack_moved, ANYWHERE },
    { "secret told", secret_told, LOOKED_UP },
    { "secret kept", secret_kept, LOOKED_UP },
    { "system call", system_call, ANYWHERE },
    { "slot moved", slot_moved, ANYWHERE },
    { "jump moved", jump_moved, ANYWHERE },
    { "other slot jumped through", table_jumped, ANYWHERE },
    { "limit dropped", limit_dropped, LOOKED_UP },
    { "wrap dropped", wrap_dropped, LOOKED_UP },
    { "segment exchanged", segment_exchanged, LOOKED_UP },
    { "base kept", base_kept, LOOKED_UP },
    { "span shortened", span_shortened, LOOKED_UP },
    { "area unchecked", area_unchecked, VIEWED },
    { "side exchanged", side_exchanged, VIEWED },
    { "table of areas missed", table_missed, VIEWED },
    { "other entry looked at", entry_changed, VIEWED },
    { "view left", view_left, VIEWED },
    { "other delta", delta_exchanged, VIEWED },
    { "index widened", index_widened, VIEWED },
    { "far delta scaled", far_scaled, VIEWED },
    { "page and context unchecked", guard_dropped, ANYWHERE },
    { "their check reversed", guard_reversed, ANYWHERE },
    { "context not asked for", context_unasked, ANYWHERE },
    { "guard of another link", other_guard, ANYWHERE },
    { "another far link", other_link, ANYWHERE },
    { "another far target", other_target, ANYWHERE },
    { "return unchecked", return_unchecked, ANYWHERE },
    { "its check reversed", return_reversed, ANYWHERE },
    { "return by another place", return_elsewhere, ANYWHERE },
    { "return by another table", return_of_others, ANYWHERE },
    { "return dropped", return_dropped, ANYWHERE },
    { "way back to another place", back_elsewhere, ANYWHERE },
    { "way back to another table", back_of_others, ANYWHERE },
    { "number for a way back", note_as_code, ANYWHERE },
    { "place beyond the table", place_widened, ANYWHERE },
    { "call over the POP", over_too_far, ANYWHERE },
};

/* Wherever a bug can be planted in the unit. */
static unsigned plant_everywhere(struct subject *s, unsigned bug, unsigned *missed)
{
    struct verify_insn in, before = { .op = OP_FORBIDDEN };
    unsigned planted = 0;
    for (uint32_t off = 0; off < bytes_of(s); off += in.len, before = in) {
        uint8_t kept[CODE_MAX];
        if (!decode_at(s, off, &in))
            fail_msg("a unit that cannot be decoded");
        memcpy(kept, s->code, bytes_of(s));
        if (bugs[bug].plant(s->code + off, &in, &before)) {
            planted++;
            if (accepted(s)) {
                fprintf(stderr, "accepted: %s at +%#x\n", bugs[bug].name, off);
                ++*missed;
            }
        }
        memcpy(s->code, kept, bytes_of(s));
    }
    return planted;
}

static bool expect_refused(struct subject *s, const char *what, unsigned *missed)
{
    if (!accepted(s))
        return true;
    fprintf(stderr, "accepted: %s\n", what);
    ++*missed;
    return false;
}

/* The kind of the exit that a fault leads to: behind what saves the flags, mov T1, info. */
static int exit_kind(const struct subject *s, uint32_t exit)
{
    struct verify_insn in;
    for (uint32_t off = offset_of(s, exit); off < bytes_of(s); off += in.len) {
        if (!decode_at(s, off, &in))
            return -1;
        if (in.op == OP_MOV && in.o[0].kind == OPR_GPR && in.o[0].reg == T1 && in.o[1].kind == OPR_IMM)
            return EXIT_KIND((uint32_t)in.o[1].val);
    }
    return -1;
}

/* A fault that nobody waits for; a link that tells what does not hold. Returns how many were planted. */
static unsigned change_tables(struct subject *s, unsigned *missed)
{
    static struct bt_site sites[1024];
    static struct bt_link links[256];
    const struct verify_unit kept = s->x;
    unsigned planted = 0;
    assert_true(kept.nsites <= array_size(sites) && kept.nlinks <= array_size(links));
    s->x.sites = sites;
    for (unsigned n = 0; n < kept.nsites; n++) {
        memcpy(sites, kept.sites, n * sizeof(sites[0]));
        memcpy(sites + n, kept.sites + n + 1, (kept.nsites - n - 1) * sizeof(sites[0]));
        s->x.nsites = kept.nsites - 1;
        planted += expect_refused(s, "a site missing", missed);
    }
    /* Those of requests lead to another kind of exit than those of accesses. */
    for (unsigned n = 1; n < kept.nsites; n++) {
        memcpy(sites, kept.sites, kept.nsites * sizeof(sites[0]));
        s->x.nsites = kept.nsites;
        sites[n].exit = sites[0].exit;
        if (exit_kind(s, kept.sites[n].exit) != exit_kind(s, kept.sites[0].exit))
            planted += expect_refused(s, "a site that leads elsewhere", missed);
    }
    s->x = kept;
    s->x.links = links;
    static const uint64_t facts[] = { FACT_IN_REACH(SIDE_NEAR, R14),
                                      FACT_IN_REACH(SIDE_NEAR, R12), /* more than VIEW_REACH away */
                                      FACT_IN_REACH(SIDE_FAR, RBX),
                                      FACT_IN_REACH(SIDE_NEAR, RSI),
                                      FACT_SMALL(RSI),
                                      FACT_SMALL(R13),
                                      FACT_AVX512 };
    for (unsigned n = 0; n < kept.nlinks; n++)
        for (unsigned f = 0; f < array_size(facts); f++) {
            memcpy(links, kept.links, kept.nlinks * sizeof(links[0]));
            if (links[n].far || links[n].facts.bits & facts[f]) /* far ones tell nothing */
                continue;
            links[n].facts.bits |= facts[f];
            planted += expect_refused(s, "a fact that does not hold", missed);
        }
    for (unsigned n = 0; n < kept.nlinks; n++) {
        memcpy(links, kept.links, kept.nlinks * sizeof(links[0]));
        if (links[n].far)
            continue;
        facts_add_pair(&links[n].facts, FACT_PAIR(SIDE_NEAR, R12, R13, 3));
        planted += expect_refused(s, "a pair that does not hold", missed);
    }
    s->x = kept;
    return planted;
}

/* The body ends early, so that its last instruction runs on into the stubs, or the stubs are others. */
static unsigned change_parts(struct subject *s, unsigned *missed)
{
    const struct verify_unit kept = s->x;
    struct verify_insn in;
    uint32_t last = 0;
    unsigned planted = 0;
    for (uint32_t off = 0; off < kept.body.size && decode_at(s, off, &in); off += in.len)
        last = off;
    s->x.body.size = last;
    planted += expect_refused(s, "a body without its end", missed);
    s->x = kept;
    if (kept.stubs.size) {
        s->x.stubs.size = 0;
        planted += expect_refused(s, "a unit without its stubs", missed);
        s->x = kept;
        s->x.stubs.at += 1;
        planted += expect_refused(s, "stubs that lie elsewhere", missed);
        s->x = kept;
    }
    return planted;
}

static void random_changes(struct subject *s, struct random *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t at = (uint32_t)(random_next(r) % bytes_of(s));
        uint8_t kept = s->code[at];
        s->code[at] ^= (uint8_t)(1u << random_next(r) % 8);
        s->tried++;
        s->refused += !accepted(s);
        s->code[at] = kept;
    }
}

static unsigned setting(const char *name, unsigned otherwise)
{
    const char *s = getenv(name);
    return s ? (unsigned)strtoul(s, NULL, 0) : otherwise;
}

/* --- gates -------------------------------------------------------------------------------------------------------------- */

/* Of the gate for targets that are not in the jump table, each changes instruction `in`; false: it is none that it is for. */
static const struct verify_operand *looked_at(const struct verify_insn *in, int64_t off, unsigned size)
{
    for (unsigned i = 0; i < in->noperands; i++)
        if (in->o[i].kind == OPR_MEM && in->o[i].base == H_RAX && in->o[i].val == off &&
            in->o[i].size == size)
            return &in->o[i];
    return NULL;
}

static bool found_unasked(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    bool asked = before->op == OP_CMP && before->noperands > 1 && before->o[1].kind == OPR_MEM &&
                 before->o[1].base == H_RAX;
    if (in->op != OP_JCC || !asked)
        return false;
    memset(at + 2, 0, 4);
    return true;
}

static bool found_reversed(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    uint8_t none[8] = { 0 };
    if (!found_unasked(none, in, before))
        return false;
    at[1] ^= 1;
    return true;
}

static bool index_larger(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if ((in->op != OP_SHR && in->op != OP_SHL) || in->o[1].kind != OPR_IMM || in->o[0].size != 4)
        return false;
    /* a mask follows; what is larger by one bit still lies inside */
    if (in->op == OP_SHR && (in->o[1].val == PAGE_SHIFT - 5 || in->o[1].val == 32 - FOUND_PAGE_BITS))
        return false;
    /* of a slot that is only compared */
    if (in->o[0].reg == T2 && (in->o[1].val == 32 - JUMPS_BITS || in->o[1].val == 4))
        return false;
    at[in->len - 1] = (uint8_t)(at[in->len - 1] + (in->op == OP_SHR ? -1 : 1));
    return true;
}

static bool index_ragged(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_SHL || in->o[1].kind != OPR_IMM || in->o[1].val != 4 || in->o[0].reg == T2)
        return false;
    at[in->len - 1] = 3;
    return true;
}

static bool mask_larger(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_AND || in->o[1].kind != OPR_IMM || in->o[0].size != 4)
        return false;
    at[in->len - 2] |= 2; /* bit 17 */
    return true;
}

static bool other_tag(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_CMP || !looked_at(in, offsetof(struct tlb_entry, tag_x), 8))
        return false;
    at[in->len - 1] = offsetof(struct tlb_entry, tag);
    return true;
}

static bool other_entry(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_MOV || !looked_at(in, offsetof(struct bt_found, entry_jump), 4))
        return false;
    at[in->len - 1] = offsetof(struct bt_found, key);
    return true;
}

static bool other_code(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before; /* mov [T1 + 8], RDX becomes RBX */
    if (in->op != OP_MOV || in->o[0].kind != OPR_MEM || in->o[0].base != T1 || in->o[1].reg != H_RDX)
        return false;
    at[2] |= H_RBX << 3;
    return true;
}

static bool elsewhere_in_slot(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before)
{
    (void)before;
    if (in->op != OP_MOV || in->o[0].kind != OPR_MEM || in->o[0].base != T1 || in->o[0].val == 0)
        return false;
    at[in->len - 1] = sizeof(struct bt_jump);
    return true;
}

static const struct {
    const char *name;
    bool (*plant)(uint8_t *at, const struct verify_insn *in, const struct verify_insn *before);
} gate_bugs[] = {
    { "found, not asked", found_unasked }, { "found, reversed", found_reversed },
    { "larger index", index_larger },      { "ragged index", index_ragged },
    { "larger mask", mask_larger },        { "tag for reading", other_tag },
    { "key as an entry", other_entry },    { "code from elsewhere", other_code },
    { "another slot", elsewhere_in_slot },
};

static void bugs_in_looking_up_are_refused(void **state)
{
    static uint8_t code[65536];
    struct kit *k = *state;
    struct verify_gate gates[VERIFY_GATES];
    uint64_t functions[VERIFY_FUNCTIONS];
    struct verify_gates g;
    struct verify_result r;
    struct verify_insn in, before = { 0 };
    unsigned planted[array_size(gate_bugs)] = { 0 };
    if (!verify_available())
        skip();
    kit_engine(k, &bt_engine, &translate_at_once);
    const struct bt *b = bt_of(k->v);
    struct verifier *w = verifier_create();
    bt_verify_describe_gates(b, gates, functions, &g);
    assert_true(g.size <= sizeof(code));
    memcpy(code, g.code, g.size);
    g.code = code;
    assert_true(verify_gates(w, &g, &r));
    for (uint32_t at = b->gate_lookup; at < b->gate_lookup16; at += in.len, before = in) {
        assert_null(verify_decode(&in, code + at, g.size - at, g.exec + at, true));
        for (unsigned i = 0; i < array_size(gate_bugs); i++) {
            uint8_t kept[INSN_MAX];
            memcpy(kept, code + at, sizeof(kept));
            if (!gate_bugs[i].plant(code + at, &in, &before))
                continue;
            planted[i]++;
            if (verify_gates(w, &g, &r))
                fail_msg("%s at +%#x is not refused", gate_bugs[i].name, at);
            memcpy(code + at, kept, sizeof(kept));
        }
    }
    for (unsigned i = 0; i < array_size(gate_bugs); i++)
        assert_true(planted[i] > 0);
    verifier_free(w);
}

/* --- tests -------------------------------------------------------------------------------------------------------------- */

static struct subject subject;
static bool can_view; /* the host has what a view takes */

static void attack(struct kit *k, unsigned cpl, unsigned bits, const uint8_t *code, size_t len,
                   unsigned planted[], unsigned *missed)
{
    struct random sequence = { setting("SUNDOG_SEED", 1) };
    struct bt *b = translated(k, cpl, bits, code, len);
    unsigned viewed = 0, with_facts = 0, tables = 0, parts = 0;
    for (uint32_t n = 0; n < b->nunits; n++) {
        if (!b->units[n].listed || b->units[n].sealed) /* its entry was overwritten */
            continue;
        take_unit(&subject, b, n);
        struct verify_result r;
        if (!verify_unit(subject.w, &subject.x, &r))
            fail_msg("unit %u as it was made is refused: %s at +%#x: %s", n, r.rule, r.at, r.text);
        for (unsigned bug = 0; bug < array_size(bugs); bug++)
            if (!bugs[bug].where || bugs[bug].where == (subject.x.view ? VIEWED : LOOKED_UP))
                planted[bug] += plant_everywhere(&subject, bug, missed);
        parts += change_parts(&subject, missed);
        viewed += subject.x.view;
        with_facts += facts_any(&subject.x.facts);
        if (subject.x.view)
            tables += change_tables(&subject, missed);
        random_changes(&subject, &sequence, setting("SUNDOG_MUTATIONS", 300));
    }
    fprintf(stderr, "%u units, %u by a view, %u of them with facts; %u changes of tables, %u of parts\n",
            b->nunits, viewed, with_facts, tables, parts);
    can_view |= viewed;
}

static void planted_bugs_are_refused(void **state)
{
    static const struct {
        const uint8_t *code, *end;
        unsigned bits;
        bool viewed;
    } programs[] = { { program_start, program_end, 64, false },   { strips_start, strips_end, 64, false },
                     { segments_start, segments_end, 32, false }, { old_start, old_end, 16, false },
                     { viewed_start, viewed_end, 64, true },      { alike_start, alike_end, 64, true },
                     { farther_start, farther_end, 64, false },   { farther_start, farther_end, 64, true } };
    static const struct engine_config without = { .warm = 1,
                                                  .verify_every = 1,
                                                  .passes_off = BIT(ENGINE_PASS_VIEW) };
    unsigned planted[array_size(bugs)] = { 0 }, missed = 0;
    if (!verify_available())
        skip();
    subject.w = verifier_create();
    subject.tried = subject.refused = 0;
    engine_teardown(state);
    for (unsigned i = 0; i < 2 * array_size(programs); i++) {
        assert_int_equal(kit_setup(state), 0);
        struct kit *k = *state;
        kit_engine(k, &bt_engine, programs[i / 2].viewed ? &translate_at_once : &without);
        attack(k, i & 1 ? 3 : 0, programs[i / 2].bits, programs[i / 2].code,
               (size_t)(programs[i / 2].end - programs[i / 2].code), planted, &missed);
        if (i + 1 < 2 * array_size(programs))
            engine_teardown(state);
    }
    for (unsigned bug = 0; bug < array_size(bugs); bug++) {
        fprintf(stderr, "%-26s planted %u times\n", bugs[bug].name, planted[bug]);
        assert_true(planted[bug] > 0 || (bugs[bug].where == VIEWED && !can_view));
    }
    assert_int_equal(missed, 0);
    fprintf(stderr, "random changes of one bit: %u of %u refused\n", subject.refused, subject.tried);
    assert_true(subject.refused > subject.tried / 2);
    verifier_free(subject.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(planted_bugs_are_refused, kit_setup, engine_teardown),
        cmocka_unit_test_setup_teardown(bugs_in_looking_up_are_refused, kit_setup, engine_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
