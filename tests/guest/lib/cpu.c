/* SPDX-License-Identifier: Apache-2.0 */
/* One processor's tables (GDT, IDT, TSS) and the capture of traps that snippets run into. */
#include "guest.h"

struct cpu ALIGNED(4096) cpus[MAX_CPUS];
u64 ALIGNED(16) gdt[GDT_ENTRIES];
u64 ALIGNED(16) idt[256 * (WIDE ? 2 : 1)];
static handler_fn *handlers[256];

u8 ALIGNED(4096) snippet_stack[8192], user_stack[8192];
asm(".globl snippet_stack_top, user_stack_top\n"
    "snippet_stack_top = snippet_stack + 8192 - 64\n"
    "user_stack_top = user_stack + 8192 - 64\n");

void snippet_enter(const struct regs *in, ulong *resume_sp);
void snippet_leave(ulong resume_sp) __attribute__((noreturn));
void trap_entry(struct frame *frame);
void guest_start(ulong index);

struct table_pointer {
    u16 limit;
    ulong base;
} __attribute__((packed));

u64 descriptor(u32 base, u32 limit, u8 access, u8 flags)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
           (u64)(limit >> 16 & 15) << 48 | (u64)(flags & 15) << 52 | (u64)(base >> 24) << 56;
}

void set_gdt(u16 selector, u64 word)
{
    gdt[selector / 8] = word;
    barrier();
}

static void put_gate(u64 *slot, u16 selector, ulong target, u8 access, u8 low)
{
    slot[0] = (target & 0xffff) | (u64)selector << 16 | (u64)low << 32 | (u64)access << 40 |
              (u64)(target >> 16 & 0xffff) << 48;
#if WIDE
    slot[1] = target >> 32;
#endif
    barrier();
}

void set_gate_full(u8 vector, u16 selector, ulong target, u8 access, u8 ist)
{
    put_gate(&idt[vector * (WIDE ? 2 : 1)], selector, target, access, ist);
}

void set_gate(u8 vector, ulong target, u8 type, u8 dpl)
{
    set_gate_full(vector, SEL_CODE, target, (u8)(D_PRESENT | dpl << 5 | type), 0);
}

void set_call_gate(u16 selector, u16 target_selector, ulong target, u8 access, u8 params)
{
    put_gate(&gdt[selector / 8], target_selector, target, access, params);
}

void reset_gate(u8 vector)
{
    bool open = vector == BP || vector == OF || vector == VECTOR_DONE;
    set_gate(vector, (ulong)trap_stubs[vector], GATE_INT, open ? 3 : 0);
}

handler_fn *set_handler(u8 vector, handler_fn *handler)
{
    handler_fn *before = handlers[vector];
    handlers[vector] = handler;
    barrier();
    return before;
}

void set_kernel_stack(ulong top)
{
    struct cpu *cpu = this_cpu();
#if WIDE
    cpu->tss.rsp[0] = (u32)top;
    cpu->tss.rsp[1] = (u32)(top >> 32);
#else
    cpu->tss.esp0 = top;
#endif
    barrier();
}

#if WIDE
void set_ist(int n, ulong top)
{
    this_cpu()->tss.ist[2 * n - 2] = (u32)top;
    this_cpu()->tss.ist[2 * n - 1] = (u32)(top >> 32);
    barrier();
}
#endif

struct cpu *this_cpu(void)
{
    u32 n = (u32)(read_tr() - SEL_TSS) / 16;
    return &cpus[n < MAX_CPUS ? n : 0];
}

static void tables_init(void)
{
    const u8 code = D_XCODE | D_ACCESSED, data = D_DATA | D_ACCESSED;
    gdt[SEL_CODE / 8] = descriptor(0, 0xfffff, code, WIDE ? D_GRANULAR | D_LONG : D_GRANULAR | D_BIG);
    gdt[SEL_DATA / 8] = descriptor(0, 0xfffff, data, D_GRANULAR | D_BIG);
    gdt[SEL_CODE32 / 8] = descriptor(0, 0xfffff, code, D_GRANULAR | D_BIG);
    gdt[SEL_USER_CODE32 / 8] = descriptor(0, 0xfffff, code | D_DPL3, D_GRANULAR | D_BIG);
    gdt[SEL_USER_DATA / 8] = descriptor(0, 0xfffff, data | D_DPL3, D_GRANULAR | D_BIG);
    gdt[SEL_USER_CODE64 / 8] = descriptor(0, 0xfffff, code | D_DPL3, D_GRANULAR | D_LONG);
    for (int v = 0; v < 256; v++)
        reset_gate((u8)v);
    for (u32 i = 0; i < MAX_CPUS; i++) {
        struct cpu *cpu = &cpus[i];
        u16 sel = (u16)(SEL_TSS + i * 16);
        fill(cpu->redirection, 0xff, sizeof(cpu->redirection) + sizeof(cpu->iomap));
        cpu->index = i;
        cpu->tss.iomap = (u16)(cpu->iomap - (u8 *)&cpu->tss);
        ulong base = (ulong)&cpu->tss, top = (ulong)cpu->stack + sizeof(cpu->stack);
        gdt[sel / 8] = descriptor((u32)base, sizeof(cpu->tss) + 32 + 8192, 0x89, 0);
#if WIDE
        gdt[sel / 8 + 1] = base >> 32;
        cpu->tss.rsp[0] = (u32)top;
#else
        cpu->tss.esp0 = top;
        cpu->tss.ss0 = SEL_DATA;
#endif
    }
}

static void tables_load(u32 index)
{
    struct table_pointer g = { sizeof(gdt) - 1, (ulong)gdt }, i = { sizeof(idt) - 1, (ulong)idt };
    u16 tr = (u16)(SEL_TSS + index * 16);
    asm volatile("lgdt %0\n lidt %1\n ltr %2\n lldt %3" : : "m"(g), "m"(i), "r"(tr), "r"((u16)0) : "memory");
#if WIDE
    asm volatile("push %0; push $1f; lretq; 1:" : : "i"(SEL_CODE) : "memory");
#else
    asm volatile("ljmp %0, $1f; 1:" : : "i"(SEL_CODE) : "memory");
#endif
    asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %0, %%fs; mov %0, %%gs"
                 :
                 : "r"(SEL_DATA)
                 : "memory");
}

volatile u32 smp_running = 1;
extern volatile u32 ap_gate;

static void ap_loop(struct cpu *cpu)
{
    __atomic_fetch_add(&smp_running, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        void (*work)(void) = cpu->work;
        if (work) {
            work();
            barrier();
            cpu->work = NULL;
        }
        cpu_pause();
    }
}

void guest_start(ulong index)
{
    if (index == 0) {
        console_init();
        tables_init();
        tables_load(0);
        pic_init(); /* a loader may have left it open, on the vectors of exceptions */
        guest_main();
        finish();
    }
    ap_gate = 0;
    tables_load((u32)index);
    ap_loop(&cpus[index]);
}

/* ---- traps ---- */

static void capture(struct cpu *cpu, struct frame *f, ulong cr2)
{
    struct trap *t = &cpu->trap;
    struct regs *r = &t->regs;
    *t = (struct trap){ .vector = f->vector, .error = f->error, .cr2 = cr2, .frame = (ulong)&f->error };
    t->dr6 = f->vector == DB ? read_dr6() : 0;
    t->off = (long)(f->ip - cpu->code.mark);
    t->after = (long)(f->ip - cpu->code.end);
    r->ax = f->ax, r->cx = f->cx, r->dx = f->dx, r->bx = f->bx, r->bp = f->bp, r->si = f->si, r->di = f->di;
    r->ip = f->ip, r->cs = f->cs & 0xffff, r->flags = f->flags;
#if WIDE
    r->r8 = f->r8, r->r9 = f->r9, r->r10 = f->r10, r->r11 = f->r11;
    r->r12 = f->r12, r->r13 = f->r13, r->r14 = f->r14, r->r15 = f->r15;
    r->sp = f->sp, r->ss = f->ss;
    asm volatile("mov %%ds, %0" : "=r"(r->ds));
    asm volatile("mov %%es, %0" : "=r"(r->es));
    asm volatile("mov %%fs, %0" : "=r"(r->fs));
    asm volatile("mov %%gs, %0" : "=r"(r->gs));
#else
    r->ds = f->ds & 0xffff, r->es = f->es & 0xffff, r->fs = f->fs & 0xffff, r->gs = f->gs & 0xffff;
    if (f->flags & FLAG_VM) {
        r->ds = f->vm_ds, r->es = f->vm_es, r->fs = f->vm_fs, r->gs = f->vm_gs;
        r->sp = f->sp, r->ss = f->ss & 0xffff;
    } else if ((f->cs & 3) > 0) {
        r->sp = f->sp, r->ss = f->ss & 0xffff;
    } else {
        r->sp = (ulong)&f->sp;
        asm volatile("mov %%ss, %0" : "=r"(r->ss));
    }
#endif
}

void trap_entry(struct frame *f)
{
    ulong cr2 = read_cr2();
    struct cpu *cpu = this_cpu();
    handler_fn *handler = handlers[f->vector & 0xff];
    if (handler) {
        handler(f);
        return;
    }
    if (!cpu->capturing)
        panic("cpu %u: unexpected vector %lu error 0x%lx at 0x%lx:0x%lx flags 0x%lx cr2 0x%lx", cpu->index,
              f->vector, f->error, f->cs, f->ip, f->flags, cr2);
    cpu->capturing = false;
    capture(cpu, f, cr2);
    snippet_leave(cpu->resume_sp);
}

ulong on_stack(ulong value)
{
    ulong *slot = (ulong *)(snippet_stack + sizeof(snippet_stack) - 512);
    *slot = value;
    return (ulong)slot;
}

struct trap run_code(struct code code, struct regs in)
{
    struct cpu *cpu = this_cpu();
    bool user = (in.cs & 3) || (in.flags & FLAG_VM);
    in.cs = in.cs ? in.cs : SEL_CODE;
    in.ip = in.ip ? in.ip : code.start;
    in.flags |= 2;
    in.ss = in.ss ? in.ss : user ? SEL_USER_DATA : SEL_DATA;
    in.sp = in.sp ? in.sp : (ulong)(user ? user_stack_top : snippet_stack_top) - cpu->index * 1024;
    if (!WIDE && !(in.flags & FLAG_VM)) {
        ulong data = user ? SEL_USER_DATA : SEL_DATA;
        in.ds = in.ds ? in.ds : data;
        in.es = in.es ? in.es : data;
        in.fs = in.fs ? in.fs : data;
        in.gs = in.gs ? in.gs : data;
    }
    cpu->code = code;
    cpu->capturing = true;
    barrier();
    snippet_enter(&in, &cpu->resume_sp);
    barrier();
    return cpu->trap;
}

/* ---- CPUID, command line, memory ---- */

bool has(enum feature feature)
{
    /* leaf, register (0 = a ... 3 = d), bit; in the order of the enumeration */
    static const struct {
        u32 leaf;
        u8 reg, bit;
    } where[] = {
        { 1, 3, 1 },           { 1, 3, 2 },           { 1, 3, 3 },           { 1, 3, 4 },
        { 1, 3, 5 },           { 1, 3, 6 },           { 1, 3, 8 },           { 1, 3, 9 },
        { 1, 3, 11 },          { 1, 3, 12 },          { 1, 3, 13 },          { 1, 3, 16 },
        { 1, 3, 24 },          { 1, 3, 25 },          { 1, 3, 26 },          { 1, 2, 17 },
        { 1, 2, 13 },          { 1, 2, 21 },          { 1, 2, 24 },          { 1, 2, 26 },
        { 1, 2, 3 },           { 1, 2, 31 },          { 7, 1, 0 },           { 7, 1, 7 },
        { 7, 1, 10 },          { 7, 1, 20 },          { 7, 2, 2 },           { 0x80000001, 3, 11 },
        { 0x80000001, 3, 20 }, { 0x80000001, 3, 26 }, { 0x80000001, 3, 27 }, { 0x80000001, 3, 29 },
        { 0x80000007, 3, 8 },
    };
    u32 leaf = where[feature].leaf;
    if (cpuid(leaf & 0x80000000, 0).a < leaf)
        return false;
    struct cpuid c = cpuid(leaf, 0);
    u32 r[4] = { c.a, c.b, c.c, c.d };
    return r[where[feature].reg] >> where[feature].bit & 1;
}

bool is_amd(void)
{
    u32 b = cpuid(0, 0).b;
    return b == 0x68747541 || b == 0x6f677948; /* Auth, Hygo */
}

bool is_sundog(void)
{
    struct cpuid c = cpuid(0x40000000, 0);
    return has(F_HYPERVISOR) && c.b == 0x446e7553 && (c.c & 0xffff) == 0x676f; /* SunDog */
}

bool is_tcg(void) { return has(F_HYPERVISOR) && cpuid(0x40000000, 0).b == 0x54474354; /* TCGT */ }

const char *command_line(void)
{
    const u32 *info = (const u32 *)(ulong)boot_info;
    return boot_magic == 0x2BADB002 && (info[0] & 4) ? (const char *)(ulong)info[4] : "";
}

ulong option(const char *name, ulong otherwise)
{
    for (const char *s = command_line(); *s; s++) {
        const char *a = s, *b = name;
        while (*b && *a == *b)
            a++, b++;
        if (*b || *a != '=')
            continue;
        ulong v = 0;
        for (a++; *a >= '0' && *a <= '9'; a++)
            v = v * 10 + (ulong)(*a - '0');
        return v;
    }
    return otherwise;
}

void copy(void *to, const void *from, size_t n)
{
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

void fill(void *to, int byte, size_t n)
{
    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
}

bool equal(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;
    while (n && *x == *y)
        x++, y++, n--;
    return n == 0;
}

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
void *memcpy(void *to, const void *from, size_t n)
{
    copy(to, from, n);
    return to;
}
void *memset(void *to, int byte, size_t n)
{
    fill(to, byte, n);
    return to;
}
