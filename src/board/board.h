/* SPDX-License-Identifier: Apache-2.0 */
/* A PC put together: memory map, firmware tables, boot protocols, chip wiring. */
#ifndef SUNDOG_BOARD_BOARD_H
#define SUNDOG_BOARD_BOARD_H

#include "base/error.h"
#include "base/log.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"
#include "clock/clock.h"
#include "clock/input.h"
#include "memory/pmap.h"

enum kernel_entry { KERNEL_ENTRY_AUTO, KERNEL_ENTRY_BZIMAGE, KERNEL_ENTRY_PVH };

/* Configuration that was parsed and validated; the strings outlive the VM. */
struct board_config {
    const char *kernel; /* path: bzImage, ELF vmlinux (PVH), Multiboot v1 */
    const char *initrd; /* path, or NULL; for Multiboot: modules "path args,path args" as in QEMU */
    const char *append; /* kernel command line, never NULL */
    enum kernel_entry entry;
    bool debug_exit;
    uint16_t debug_exit_port; /* default 0xf4 */
    bool serial;              /* COM1 has a back end (it exists always) */
};

/* What the board asks of the VM above it. */
struct board_callbacks {
    void *ctx;
    void (*power_off)(void *ctx);
    void (*reset)(void *ctx); /* reset register, 8042, port 0xcf9, triple fault policy is the VM's */
    void (*debug_exit)(void *ctx, uint32_t value);
    /* COM1's transmitter; device lock held; must not block long. */
    void (*serial_output)(void *ctx, const uint8_t *data, size_t len);
    void (*serial_room)(void *ctx); /* may be NULL: COM1's receiver was full and takes bytes again */
    void (*debug_output)(void *ctx, uint8_t byte); /* debug console port 0xe9 */
    void (*pic_line)(void *ctx, bool level);       /* 8259 INTR to the processors */
    /* I/O APIC and MSI messages to the local APICs. */
    void (*deliver_msi)(void *ctx, uint64_t addr, uint32_t data);
    void (*nmi)(void *ctx);
};

/* How the first processor starts; the VM copies it into vcpu 0 (board/ does not know cpu/ internals: a
 * plain description). */
enum boot_mode { BOOT_REAL, BOOT_PROTECTED32, BOOT_LONG64 };
struct boot_cpu_state {
    enum boot_mode mode;
    uint64_t rip, rsp, rsi, rbx, rax, cr3; /* cr3: page tables the board built, BOOT_LONG64 */
    uint64_t gdt_base;
    uint16_t gdt_limit, code_sel, data_sel; /* flat segments of that GDT */
};

struct board; /* one per VM */

struct board *board_create(const struct board_config *cfg, unsigned cpus, uint64_t memory, struct pmap *pmap,
                           struct bus *bus, struct clock *clk, struct input_queue *inputs,
                           struct tally *tally, struct log *log, const struct board_callbacks *cb,
                           struct error *e);
void board_destroy(struct board *b);
/* Lays out firmware tables and loads the kernel (files are read here, each time: a reset loads again). */
int board_boot(struct board *b, struct boot_cpu_state *start, struct error *e);
/* Every chip to its power-on state. World stopped, device lock held. */
void board_reset(struct board *b);
/* INTA cycle: the 8259 pair's vector, -1 when spurious is impossible to tell. Takes the device lock. */
int board_ack_pic(struct board *b);
/* EOI of a level-triggered vector, from a local APIC. Takes the device lock. */
void board_eoi(struct board *b, uint8_t vector);
/* One byte from the terminal to COM1, by way of the input queue. False: no room, keep it. Any thread. */
must_use bool board_serial_input(struct board *b, uint8_t byte);
/* The chips' state objects. */
unsigned board_state_objects(struct board *b, struct state_object *out, unsigned max);
/* After a load: re-arm deadlines, lines and mappings from the state. World stopped, device lock held. */
void board_state_loaded(struct board *b);
/* ACPI power button (graceful shutdown request), by way of the input queue. Any thread. */
void board_power_button(struct board *b);

#endif
