/* SPDX-License-Identifier: Apache-2.0 */
/* Port I/O: permission by IOPL and the TSS's I/O bitmap (SDM 1 19.5), then the bus. */
#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/flags.h"
#include "cpu/ops.h"

#define TSS_IO_MAP_BASE 0x66u

/* Do the bitmap's bits of all ports of the access read 0? Two bytes are always read (SDM 1 19.5.2). */
static bool bitmap_allows(struct vcpu *v, uint16_t port, unsigned size)
{
    uint64_t base, map;
    if ((v->s.tr.attr & SA_UNUSABLE) || !(v->s.tr.attr & SYS_32BIT) ||
        !tss_read(v, TSS_IO_MAP_BASE, 2, &base))
        return false;
    if (!tss_read(v, (uint32_t)base + port / 8u, 2, &map))
        return false;
    return ((map >> (port & 7)) & (BIT(size) - 1)) == 0;
}

void cpu_check_io(struct vcpu *v, uint16_t port, unsigned size)
{
    if (!(v->s.cr0 & CR0_PE))
        return;
    bool by_bitmap = (v->s.rflags & FL_VM) || vcpu_cpl(v) > flags_iopl(v);
    if (by_bitmap && !bitmap_allows(v, port, size))
        cpu_raise_gp0(v);
}

uint32_t cpu_in(struct vcpu *v, uint16_t port, unsigned size)
{
    cpu_check_io(v, port, size);
    v->counters.exits_io++;
    uint32_t val = bus_port_read(v->bus, port, size);
    cpu_debug_io(v, port, size);
    return val;
}

void cpu_out(struct vcpu *v, uint16_t port, uint32_t val, unsigned size)
{
    cpu_check_io(v, port, size);
    v->counters.exits_io++;
    bus_port_write(v->bus, port, val, size);
    cpu_debug_io(v, port, size);
}
