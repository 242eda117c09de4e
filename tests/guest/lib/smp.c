/* SPDX-License-Identifier: Apache-2.0 */
/* Other processors: how many the firmware tables name, their start by INIT and SIPI, work for them. */
#include "guest.h"

extern u8 trampoline[], trampoline_end[];

u32 smp_count(void)
{
    const u8 *madt = (const u8 *)acpi_table("APIC");
    u32 n = 0;
    for (u32 i = 44; madt && i + 2 <= get32((ulong)madt + 4) && madt[i + 1] >= 2; i += madt[i + 1])
        n += madt[i] == 0 && (madt[i + 4] & 1);
    return n;
}

u32 smp_start(u32 wanted)
{
    copy((void *)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
    apic_enable();
    apic_icr(0, APIC_OTHERS | 0x4500); /* INIT, SDM 3A 8.4.4.1 */
    delay_us(10000);
    for (int i = 0; i < 2; i++) {
        apic_icr(0, APIC_OTHERS | 0x4600 | TRAMPOLINE >> 12);
        delay_us(200);
    }
    for (int i = 0; i < 300 && smp_running < wanted; i++)
        delay_us(10000);
    return smp_running;
}

void smp_run(u32 cpu, void (*work)(void)) { cpus[cpu].work = work; }

void smp_wait(u32 cpu)
{
    while (cpus[cpu].work)
        cpu_pause();
}

void smp_all(void (*work)(void))
{
    for (u32 i = 1; i < smp_running; i++)
        smp_run(i, work);
    work();
    for (u32 i = 1; i < smp_running; i++)
        smp_wait(i);
}

void smp_meet(void)
{
    static volatile u32 arrived, phase;
    u32 now = phase;
    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == smp_running) {
        arrived = 0;
        __atomic_store_n(&phase, now + 1, __ATOMIC_SEQ_CST);
    }
    while (phase == now)
        cpu_pause();
    cpuid(0, 0);
}
