/* SPDX-License-Identifier: Apache-2.0 */
/* The ways a guest can end, or not end, chosen on the command line: end=N. */
#include "guest.h"

void guest_main(void)
{
    print("ending %lu\n", option("end", 0));
    switch (option("end", 0)) {
    case 1: /* any value at debug-exit: status (v << 1) | 1, its low 8 bits */ out8(0xf4, 0x2a); break;
    case 2: /* 32-bit write: the low 8 bits of the status count */ out32(0xf4, 0x100 + 3); break;
    case 3: /* halted for ever */ asm volatile("cli; hlt"); break;
    case 4: /* reset by the keyboard controller */
        for (u32 i = 0; i < 100000 && (in8(0x64) & 2); i++)
            ;
        out8(0x64, 0xfe);
        delay_us(1000000);
        break;
    case 5: /* reset by port CF9h */
        out8(0xcf9, 2);
        out8(0xcf9, 6);
        delay_us(1000000);
        break;
    case 6: /* a loop without end */
        for (;;)
            barrier();
    case 7: /* reset by port 92h */
        out8(0x92, (u8)(in8(0x92) | 1));
        delay_us(1000000);
        break;
    case 8: /* ACPI S5 */
        acpi_power_off();
        delay_us(1000000);
        break;
    default: break;
    }
    out8(0xf4, 0x77);
}
