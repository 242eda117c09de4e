/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every test guest is written with: checks and their report, snippets of code that are run and whose
 * trap is captured, descriptor tables, page tables, the PC's interrupt and timer chips, other processors.
 *
 * A guest defines guest_main(). Each CHECK is one test; its name is unique within the guest. The number of
 * the manual's section behind an expected value stands beside the check.
 */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include "layout.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
typedef unsigned long ulong;

#ifdef __x86_64__
#define WIDE 1
#else
#define WIDE 0
#endif

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define ALIGNED(n) __attribute__((aligned(n)))
#define PAGE 4096ul

void guest_main(void);

/* ---- report (console.c) ---- */

void console_init(void); /* COM1: 115200 8n1 */
void print(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* %s %c %d %u %x, with l or ll; 0 and width */
void check_true(const char *name, bool ok, const char *text);
void check_eq(const char *name, u64 got, u64 want);
void check_skip(const char *name, const char *why);
void finish(void)
    __attribute__((noreturn)); /* last line, then out to debug-exit: 0x10 all passed, 0x11 not */
void panic(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#define CHECK(name, cond) check_true(name, cond, #cond)
#define CHECK_EQ(name, got, want) check_eq(name, (u64)(got), (u64)(want))

/* ---- instructions ---- */

static inline void out8(u16 port, u8 value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void out16(u16 port, u16 value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void out32(u16 port, u32 value)
{
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline u8 in8(u16 port)
{
    u8 v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}
static inline u16 in16(u16 port)
{
    u16 v;
    asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}
static inline u32 in32(u16 port)
{
    u32 v;
    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

#define REGISTER_ACCESS(reg) \
    static inline ulong read_##reg(void) \
    { \
        ulong v; \
        asm volatile("mov %%" #reg ", %0" : "=r"(v) : : "memory"); \
        return v; \
    } \
    static inline void write_##reg(ulong v) { asm volatile("mov %0, %%" #reg : : "r"(v) : "memory"); }
REGISTER_ACCESS(cr0)
REGISTER_ACCESS(cr2)
REGISTER_ACCESS(cr3)
REGISTER_ACCESS(cr4)
REGISTER_ACCESS(dr0)
REGISTER_ACCESS(dr1)
REGISTER_ACCESS(dr2)
REGISTER_ACCESS(dr3)
REGISTER_ACCESS(dr6)
REGISTER_ACCESS(dr7)
#undef REGISTER_ACCESS

static inline ulong read_flags(void)
{
    ulong v;
    asm volatile("pushf; pop %0" : "=r"(v) : : "memory");
    return v;
}
static inline void write_flags(ulong v) { asm volatile("push %0; popf" : : "r"(v) : "memory", "cc"); }

static inline u64 rdmsr(u32 index)
{
    u32 low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (u64)high << 32 | low;
}

static inline void wrmsr(u32 index, u64 value)
{
    asm volatile("wrmsr" : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

struct cpuid {
    u32 a, b, c, d;
};

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
    struct cpuid r;
    asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
    return r;
}

static inline void invlpg(const volatile void *p) { asm volatile("invlpg (%0)" : : "r"(p) : "memory"); }
static inline void enable_interrupts(void) { asm volatile("sti" : : : "memory"); }
static inline void disable_interrupts(void) { asm volatile("cli" : : : "memory"); }
static inline void cpu_pause(void) { asm volatile("pause" : : : "memory"); }
static inline void barrier(void) { asm volatile("" : : : "memory"); }

enum {
    CR0_PE = 1 << 0,
    CR0_MP = 1 << 1,
    CR0_EM = 1 << 2,
    CR0_TS = 1 << 3,
    CR0_ET = 1 << 4,
    CR0_NE = 1 << 5,
    CR0_WP = 1 << 16,
    CR0_AM = 1 << 18,
    CR0_NW = 1 << 29,
    CR0_CD = 1 << 30,
    CR4_VME = 1 << 0,
    CR4_PVI = 1 << 1,
    CR4_TSD = 1 << 2,
    CR4_DE = 1 << 3,
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    CR4_MCE = 1 << 6,
    CR4_PGE = 1 << 7,
    CR4_PCE = 1 << 8,
    CR4_OSFXSR = 1 << 9,
    CR4_OSXMMEXCPT = 1 << 10,
    CR4_UMIP = 1 << 11,
    CR4_FSGSBASE = 1 << 16,
    CR4_PCIDE = 1 << 17,
    CR4_OSXSAVE = 1 << 18,
    CR4_SMEP = 1 << 20,
    CR4_SMAP = 1 << 21,
    FLAG_CF = 1 << 0,
    FLAG_PF = 1 << 2,
    FLAG_AF = 1 << 4,
    FLAG_ZF = 1 << 6,
    FLAG_SF = 1 << 7,
    FLAG_TF = 1 << 8,
    FLAG_IF = 1 << 9,
    FLAG_DF = 1 << 10,
    FLAG_OF = 1 << 11,
    FLAG_IOPL = 3 << 12,
    FLAG_NT = 1 << 14,
    FLAG_RF = 1 << 16,
    FLAG_VM = 1 << 17,
    FLAG_AC = 1 << 18,
    FLAG_VIF = 1 << 19,
    FLAG_VIP = 1 << 20,
    FLAG_ID = 1 << 21,
};
#define CR0_PG 0x80000000ul

enum {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF = 0x2ff,
    MSR_TSC_DEADLINE = 0x6e0,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
enum { EFER_SCE = 1 << 0, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11 };

enum {
    DE = 0,
    DB = 1,
    NMI = 2,
    BP = 3,
    OF = 4,
    BR = 5,
    UD = 6,
    NM = 7,
    DF = 8,
    TS = 10,
    NP = 11,
    SS = 12,
    GP = 13,
    PF = 14,
    MF = 16,
    AC = 17,
    MC = 18,
    XM = 19,
};

/* ---- snippets and their traps (cpu.c, trap.S) ---- */

/* Registers a snippet starts with, and those a trap found. Unset selectors, flags and stack get usual
 * values. */
struct regs {
    ulong ax, cx, dx, bx, bp, si, di, sp;
#if WIDE
    ulong r8, r9, r10, r11, r12, r13, r14, r15;
#endif
    ulong ip, flags, ss, cs, ds, es, fs, gs;
};

struct trap {
    struct regs regs;
    ulong vector, error, cr2, dr6;
    long off;    /* saved ip - mark: 0 = exactly at the marked instruction */
    long after;  /* saved ip - end of the snippet's text */
    ulong frame; /* address of the pushed frame (its error code or vector slot) */
};

/* A piece of code outside the flow of C. */
struct code {
    ulong start, mark, end;
};

/*
 * Intel syntax. Label 8: in the text marks the instruction of interest (by default the first).
 * After the text follows INT VECTOR_DONE.
 */
#define CODE(text) CODE_WITH("", text)
#define CODE16(text) CODE_WITH(".code16\n", text)
#define CODE32(text) CODE_WITH(".code32\n", text)
#define CODE_WITH(before, text) \
    ({ \
        struct code c_; \
        asm volatile(".pushsection .text.snippets, \"ax\"\n" \
                     ".intel_syntax noprefix\n" before "7: 8:\n" text "\n" \
                     "9: int 0x81\n" \
                     ".att_syntax prefix\n" CODE_NATIVE ".popsection\n" \
                     "movl $7b, %k0\n movl $8b, %k1\n movl $9b, %k2" \
                     : "=&r"(c_.start), "=&r"(c_.mark), "=&r"(c_.end)); \
        c_; \
    })
/* Names of the native-width registers, to be spliced into a snippet's text */
#if WIDE
#define CODE_NATIVE ".code64\n"
#define R(name) "r" #name
#else
#define CODE_NATIVE ".code32\n"
#define R(name) "e" #name
#endif

struct trap run_code(struct code code, struct regs in);
#define TRY_CODE(code, ...) run_code(code, (struct regs){ __VA_ARGS__ })
#define TRY(text, ...) run_code(CODE(text), (struct regs){ __VA_ARGS__ })
#define TRY_USER(text, ...) run_code(CODE(text), (struct regs){ .cs = SEL_USER_CODE, __VA_ARGS__ })

/* Vector, error code and position (the marked instruction) of a fault in one check. */
void check_fault(const char *name, const struct trap *t, ulong vector, ulong error);
/* The same for traps: the saved ip is behind the text. */
void check_trap(const char *name, const struct trap *t, ulong vector);
void check_done(const char *name, const struct trap *t); /* ran to its end */
void check_page_fault(const char *name, const struct trap *t, ulong error, ulong address);
#define FAULT(name, t, vector, error) \
    ({ \
        struct trap t_ = (t); \
        check_fault(name, &t_, vector, error); \
        t_; \
    })
#define TRAP(name, t, vector) \
    ({ \
        struct trap t_ = (t); \
        check_trap(name, &t_, vector); \
        t_; \
    })
#define DONE(name, t) \
    ({ \
        struct trap t_ = (t); \
        check_done(name, &t_); \
        t_; \
    })
#define PAGE_FAULT(name, t, error, address) \
    ({ \
        struct trap t_ = (t); \
        check_page_fault(name, &t_, error, address); \
        t_; \
    })

ulong on_stack(ulong value);                     /* a stack for .sp with this value on top */
extern u8 snippet_stack_top[], user_stack_top[]; /* where snippets' stacks start */

/* What the stubs push; a handler may change it. */
struct frame {
#if WIDE
    ulong r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
    ulong vector, error, ip, cs, flags, sp, ss;
#else
    ulong gs, fs, es, ds, di, si, bp, sp_dummy, bx, dx, cx, ax;
    ulong vector, error, ip, cs, flags, sp, ss, vm_es, vm_ds, vm_fs,
        vm_gs; /* from sp on only after a change of privilege */
#endif
};

typedef void handler_fn(struct frame *frame);
handler_fn *set_handler(u8 vector, handler_fn *handler); /* instead of capture; returns the one before */

/* ---- descriptors (cpu.c) ---- */

#define GATE_TASK 5
#define GATE_INT16 6
#define GATE_TRAP16 7
#define GATE_CALL16 4
#define GATE_CALL 12
#define GATE_INT 14
#define GATE_TRAP 15

struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    u32 es, cs, ss, ds, fs, gs, ldt;
    u16 trap, iomap;
};
struct tss64 {
    u32 reserved0, rsp[6], reserved1[2], ist[14], reserved2[2];
    u16 reserved3, iomap;
} __attribute__((packed));

struct cpu {
#if WIDE
    struct tss64 tss;
#else
    struct tss32 tss;
#endif
    u8 redirection[32]; /* of INT n in virtual-8086 mode with CR4.VME; all ones */
    u8 iomap[8192 + 1]; /* all ones */
    u32 index;
    bool capturing;
    ulong resume_sp;
    struct code code;
    struct trap trap;
    void (*volatile work)(void);
    u8 ALIGNED(16) stack[8192];
};
extern struct cpu cpus[MAX_CPUS];
struct cpu *this_cpu(void);

extern u64 gdt[GDT_ENTRIES];
extern u64 idt[256 * (WIDE ? 2 : 1)];
extern u8 trap_stubs[256][16], trap_stubs_plain[256][16];

/* Descriptor words: access = P,DPL,S,type; flags = G,D,L,AVL as the high nibble. limit in units of G. */
u64 descriptor(u32 base, u32 limit, u8 access, u8 flags);
void set_gdt(u16 selector, u64 word);
void set_gate(u8 vector, ulong target, u8 type, u8 dpl); /* IDT entry with SEL_CODE */
void set_gate_full(u8 vector, u16 selector, ulong target, u8 type_and_dpl, u8 ist);
void set_call_gate(u16 selector, u16 target_selector, ulong target, u8 access, u8 params);
void reset_gate(u8 vector); /* back to the stub */
void set_kernel_stack(ulong top);
#if WIDE
void set_ist(int n, ulong top);
#endif
static inline u16 read_tr(void)
{
    u16 v;
    asm volatile("str %0" : "=r"(v));
    return v;
}

/* The access byte */
enum {
    D_ACCESSED = 1,
    D_WRITE = 2,
    D_READ = 2,
    D_DOWN = 4,
    D_CONFORMING = 4,
    D_CODE = 8,
    D_USER = 0x10 /* S */,
    D_DPL3 = 0x60,
    D_DPL2 = 0x40,
    D_DPL1 = 0x20,
    D_PRESENT = 0x80,
    D_DATA = 0x92,
    D_XCODE = 0x9a
};
enum { D_GRANULAR = 8, D_BIG = 4, D_LONG = 2 };

/* CPUID's answers that tests ask for */
enum feature {
    F_VME,
    F_DE,
    F_PSE,
    F_TSC,
    F_MSR,
    F_PAE,
    F_CX8,
    F_APIC,
    F_SEP,
    F_MTRR,
    F_PGE,
    F_PAT,
    F_FXSR,
    F_SSE,
    F_SSE2,
    F_PCID,
    F_CX16,
    F_X2APIC,
    F_TSC_DEADLINE,
    F_XSAVE,
    F_MONITOR,
    F_HYPERVISOR,
    F_FSGSBASE,
    F_SMEP,
    F_INVPCID,
    F_SMAP,
    F_UMIP,
    F_SYSCALL,
    F_NX,
    F_PAGE1G,
    F_RDTSCP,
    F_LM,
    F_INVARIANT_TSC
};
bool has(enum feature feature);
bool is_amd(void);    /* AMD's rules where the vendors differ */
bool is_sundog(void); /* CPUID leaf 0x40000000 */
bool is_tcg(void);    /* QEMU, to be spared what makes it abort */
extern u32 boot_magic, boot_info;
extern u32 boot_state[6]; /* at the entry: cr0, eflags, ds, ss, cs, cr4 */
const char *command_line(void);
ulong option(const char *name, ulong otherwise); /* name=NUMBER on the command line */

void copy(void *to, const void *from, size_t n);
void fill(void *to, int byte, size_t n);
bool equal(const void *a, const void *b, size_t n);

/* ---- page tables (paging.c) ---- */

enum paging_mode { PAGING_32 = 2, PAGING_PAE = 3, PAGING_LONG = 4 };
struct space {
    enum paging_mode mode;
    ulong root;
};

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_PWT 8ull
#define PTE_PCD 0x10ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_RWU (PTE_P | PTE_W | PTE_U)

ulong page_alloc(void); /* a zeroed page out of a fixed pool */
struct space space_new(enum paging_mode mode);
/* Maps one page; level 1 = 4 KiB, 2 = 2 or 4 MiB, 3 = 1 GiB. Tables on the way are P|W|U. */
void map(struct space *space, u64 va, u64 pa, u64 flags, int level);
void map_range(struct space *space, u64 va, u64 pa, u64 size, u64 flags, int level);
void *entry(struct space *space, u64 va,
            int level); /* the entry itself, NULL if a table on the way is missing */
u64 entry_get(struct space *space, u64 va, int level);
void entry_set(struct space *space, u64 va, int level, u64 value); /* no TLB flush */
void space_use(struct space *space); /* CR3 and, if need be, CR4.PAE and CR0.PG */
void paging_off(void);               /* 32-bit guests */
static inline void flush_tlb(void) { write_cr3(read_cr3()); }

/* ---- the PC's chips (chips.c) ---- */

#define IRQ_BASE 0x20 /* the 8259 pair's vectors 0x20-0x2f */
void pic_init(void);  /* every line masked */
void pic_mask(u16 mask);
void pic_eoi(int irq);
u16 pic_irr(void);
u16 pic_isr(void);
void pit_periodic(u32 hz);
void pit_one_shot(u16 count);
void pit_stop(void);
void delay_us(u32 us); /* by PIT channel 2 */
u64 tsc_hz(void);

#define APIC_BASE 0xfee00000ul
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR2 = 0x310,
    APIC_LVTT = 0x320,
    APIC_LVT0 = 0x350,
    APIC_LVT1 = 0x360,
    APIC_LVTERR = 0x370,
    APIC_TMICT = 0x380,
    APIC_TMCCT = 0x390,
    APIC_TDCR = 0x3e0
};
static inline u32 apic_read(u32 reg) { return *(volatile u32 *)(APIC_BASE + reg); }
static inline void apic_write(u32 reg, u32 value) { *(volatile u32 *)(APIC_BASE + reg) = value; }
void apic_enable(void); /* spurious vector 0xff, LVTs masked, TPR 0 */
bool apic_bit(u32 reg, u8 vector);
void apic_icr(u32 destination, u32 low); /* and waits until it is sent */
#define APIC_SELF 0x40000u
#define APIC_ALL 0x80000u
#define APIC_OTHERS 0xc0000u

u32 ioapic_read(u32 reg);
void ioapic_write(u32 reg, u32 value);
void ioapic_route(int pin, u8 vector, u32 low_flags, u8 destination);
#define IOAPIC_MASKED 0x10000u
#define IOAPIC_LEVEL 0x8000u

/* ---- firmware tables (acpi.c) ---- */

ulong find_signature(const char *signature, ulong from, ulong to); /* every 16 bytes; 0: not there */
ulong acpi_table(const char *signature);                           /* through the RSDT; 0: none */
u32 get32(ulong address);                                          /* at any alignment */
void acpi_power_off(void);                                         /* S5; returns if nothing happens */

/* ---- other processors (smp.c) ---- */

u32 smp_count(void);       /* enabled processors in the ACPI MADT; 0: no tables found */
u32 smp_start(u32 wanted); /* INIT, SIPI, SIPI to all others; how many processors run, this one included */
void smp_run(u32 cpu, void (*work)(void)); /* hand work to a waiting processor */
void smp_wait(u32 cpu);                    /* until it is done */
void smp_all(void (*work)(void));          /* on all started processors, this one included */
void smp_meet(
    void); /* in work of all started processors: each waits for the others, and has seen what they stored before */
extern volatile u32 smp_running;

#endif
