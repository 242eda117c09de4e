/* SPDX-License-Identifier: Apache-2.0 */
/* Ends in a triple fault: an exception with an IDT that has no entry at all (SDM 3A 6.15, vector 8). */
#include "guest.h"

void guest_main(void)
{
    struct {
        u16 limit;
        ulong base;
    } __attribute__((packed)) none = { 0, 0 };
    print("a triple fault follows\n");
    asm volatile("lidt %0; ud2" : : "m"(none));
}
