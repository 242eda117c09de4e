/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: reading them from the GDT, LDT and IDT, and the questions one asks about them (SDM 3A 3.4). */
#ifndef SUNDOG_CPU_DESCRIPTOR_H
#define SUNDOG_CPU_DESCRIPTOR_H

#include "base/bits.h"
#include "cpu/vcpu.h"

/* Types of system descriptors and gates (SDM 3A Table 3-2). */
enum {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL_GATE16 = 4,
    SYS_TASK_GATE = 5,
    SYS_INT_GATE16 = 6,
    SYS_TRAP_GATE16 = 7,
    SYS_TSS32 = 9,
    SYS_TSS32_BUSY = 11,
    SYS_CALL_GATE32 = 12,
    SYS_INT_GATE32 = 14,
    SYS_TRAP_GATE32 = 15,
};
#define SYS_32BIT 8u /* this bit of a type tells 32-bit (64-bit) TSSs and gates from 16-bit ones */
#define TSS_BUSY 2u  /* this bit of a TSS type: the task is running or on the chain of nested ones */
#define TYPE_ACCESSED 1u

/* Selectors. */
#define SEL_RPL 3u
#define SEL_LDT 4u
static inline bool sel_is_null(uint16_t sel) { return (sel & ~SEL_RPL) == 0; }
static inline unsigned sel_rpl(uint16_t sel) { return sel & SEL_RPL; }
static inline uint16_t sel_with_rpl(uint16_t sel, unsigned rpl) { return (uint16_t)((sel & ~SEL_RPL) | rpl); }

/* Questions about the attributes of a segment or descriptor (SA_* of state.h). */
static inline unsigned attr_type(uint32_t a) { return a & SA_TYPE; }
static inline unsigned attr_dpl(uint32_t a) { return (a & SA_DPL) >> SA_DPL_SHIFT; }
static inline bool attr_present(uint32_t a) { return (a & SA_P) != 0; }
static inline bool attr_system(uint32_t a) { return !(a & SA_S); }
static inline bool attr_code(uint32_t a) { return (a & (SA_S | 8)) == (SA_S | 8); }
static inline bool attr_conforming(uint32_t a) { return (a & (SA_S | 12)) == (SA_S | 12); }
static inline bool attr_readable(uint32_t a) { return (a & SA_S) && (a & 10) != 8; }
static inline bool attr_writable(uint32_t a) { return (a & (SA_S | 10)) == (SA_S | 2); }
static inline bool attr_expand_down(uint32_t a) { return (a & (SA_S | 12)) == (SA_S | 4); }

/* Attributes of segments that the processor makes up without a descriptor. */
#define ATTR_CODE (SA_P | SA_S | 0xb) /* execute, read, accessed */
#define ATTR_DATA (SA_P | SA_S | 0x3) /* read, write, accessed */
#define ATTR_VM86 (ATTR_DATA | SA_DPL)

/* A descriptor and where it was read. `high` is the second half of a 16-byte one, else 0. */
struct descriptor {
    uint64_t low, high;
    uint64_t lin;
};

static inline uint32_t desc_attr(const struct descriptor *d) { return (uint32_t)(d->low >> 40) & 0xf0ff; }

/* A gate of the IDT, GDT or LDT (SDM 3A Figures 5-8, 5-9, 6-2, 6-7). */
struct gate {
    uint32_t attr;
    uint16_t sel;
    uint64_t offset;
    unsigned params; /* call gate: words or dwords to copy; in long mode: IST in the low 3 bits */
};
struct gate gate_from_desc(const struct descriptor *d);

static inline bool is_canonical(uint64_t a) { return (uint64_t)sext(a, 48) == a; }
static inline bool vcpu_lma(const struct vcpu *v) { return (v->s.efer & EFER_LMA) != 0; }
bool vcpu_is_amd(const struct vcpu *v);

/* Raises `vec` with an error code that names a selector; EXT is added during delivery (SDM 3A 6.13). */
noreturn_fn void raise_selector(struct vcpu *v, enum vector vec, uint16_t sel);

/* Reads the descriptor of a selector; false when it lies outside its table. Raises only page faults. */
bool desc_find(struct vcpu *v, uint16_t sel, struct descriptor *d);
/* The same; raises vec(sel) when outside. */
struct descriptor desc_fetch(struct vcpu *v, uint16_t sel, enum vector vec);
/* Reads the second half of a 16-byte system descriptor; raises vec(sel) when it is outside or no such. */
void desc_fetch_high(struct vcpu *v, uint16_t sel, struct descriptor *d, enum vector vec);
/* Sets and clears bits of the type field in the table, atomically. */
void desc_change_type(struct vcpu *v, const struct descriptor *d, unsigned set, unsigned clear);
/* Sets the accessed bit of a code or data descriptor unless it is set. */
void desc_mark_accessed(struct vcpu *v, const struct descriptor *d);
/* What a segment register holds after a load of this descriptor. */
struct segment seg_from_desc(uint16_t sel, const struct descriptor *d);

/* A null selector in a segment register; `dpl` matters for SS only, where it is the CPL. */
static inline struct segment seg_null(uint16_t sel, unsigned dpl)
{
    return (struct segment){ .sel = sel, .attr = SA_UNUSABLE | dpl << SA_DPL_SHIFT };
}

/* A segment of virtual-8086 mode (SDM 3A 20.2). */
static inline struct segment seg_vm86(uint16_t sel)
{
    return (struct segment){ .sel = sel, .attr = ATTR_VM86, .limit = 0xffff, .base = (uint64_t)sel << 4 };
}

/* A selector loaded in real mode: the limit and the rights stay (SDM 3A 9.9.1). */
struct segment seg_real(const struct segment *old, uint16_t sel);

/* Segments that SYSCALL, SYSENTER and their returns make up: base 0, limit 4 GiB. */
static inline struct segment seg_flat(uint16_t sel, uint32_t attr, unsigned dpl)
{
    return (struct segment){ .sel = sel, .attr = attr | SA_G | dpl << SA_DPL_SHIFT, .limit = 0xffffffff };
}

/* Checks a stack segment for privilege level `cpl`: wrong ones raise vec(sel), absent ones #SS(sel), null
 * ones vec(0). */
struct segment seg_check_stack(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vec);
/* Checks a selector for DS, ES, FS or GS at privilege level `cpl`; null is allowed. Absent ones raise
 * #NP(sel). */
struct segment seg_check_data(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vec);

/* Reads [off, off+size) of the TSS; false when the limit excludes it. */
must_use bool tss_read(struct vcpu *v, uint32_t off, unsigned size, uint64_t *val);

#endif
