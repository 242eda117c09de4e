/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC's wiring: which chips there are, which lines lead from one to another, and what they do together.
 *
 *   8254, 8042, 16550, RTC, PM ──IRQ n──┬──► 8259 pair input n ──INTR──► processors
 *                                       └──► I/O APIC pin n (the timer: 2) ──messages──► local APICs
 */
#include "board/board.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "board/boot.h"
#include "board/firmware.h"
#include "board/memmap.h"
#include "board/pc.h"
#include "device/acpi_pm.h"
#include "device/debug_console.h"
#include "device/debug_exit.h"
#include "device/i8042.h"
#include "device/i8254.h"
#include "device/i8259.h"
#include "device/ioapic.h"
#include "device/pci_host.h"
#include "device/port92.h"
#include "device/postcode.h"
#include "device/rtc.h"
#include "device/uart16550.h"

/* In the order of creation: a chip is made after those that its construction needs. */
enum chip {
    CHIP_PIC,
    CHIP_IOAPIC,
    CHIP_PIT,
    CHIP_RTC,
    CHIP_PORT92,
    CHIP_KBC,
    CHIP_COM1,
    CHIP_PM,
    CHIP_PCI,
    CHIP_POST,
    CHIP_DEBUG_CONSOLE,
    CHIP_DEBUG_EXIT,
    CHIP_COUNT,
};

struct board {
    struct board_config cfg;
    struct board_callbacks cb;
    unsigned cpus;
    struct memory_map map;
    struct pmap *pmap;
    struct bus *bus;
    struct clock *clk;
    struct input_queue *inputs;
    struct log *log;
    void *chip[CHIP_COUNT]; /* NULL: not there */
    int serial_source, power_button_source;
    /* Places reserved in COM1's receiver for bytes that then found no room in the queue. */
    atomic_uint serial_places;
};

/* --- lines ---------------------------------------------------------------------------------------------- */

static unsigned ioapic_pin(unsigned irq) { return irq == PC_IRQ_TIMER ? PC_TIMER_PIN : irq; }

static void set_isa_irq(void *ctx, unsigned irq, bool level)
{
    struct board *b = ctx;
    i8259_set_irq(b->chip[CHIP_PIC], irq, level);
    ioapic_set_irq(b->chip[CHIP_IOAPIC], ioapic_pin(irq), level);
}

static struct line isa_irq(struct board *b, unsigned irq) { return (struct line){ set_isa_irq, b, irq }; }

static void set_intr(void *ctx, unsigned n, bool level)
{
    struct board *b = ctx;
    (void)n;
    b->cb.pic_line(b->cb.ctx, level);
}

static void set_a20(void *ctx, unsigned n, bool level)
{
    struct board *b = ctx;
    (void)n;
    if (pmap_get_a20(b->pmap) != level)
        pmap_set_a20(b->pmap, level);
}

static void set_reset(void *ctx, unsigned n, bool level)
{
    struct board *b = ctx;
    (void)n;
    if (level)
        b->cb.reset(b->cb.ctx);
}

static struct line reset_line(struct board *b) { return (struct line){ set_reset, b, 0 }; }

/* A source may sleep while both controllers mask its line and IRR has latched an edge already; unmasking wakes it. */
static bool irq_observed(void *ctx, unsigned irq)
{
    const struct board *b = ctx;
    const struct i8259 *pic = b->chip[CHIP_PIC];
    return i8259_unmasked(pic, irq) || !i8259_remembers(pic, irq) ||
           ioapic_unmasked(b->chip[CHIP_IOAPIC], ioapic_pin(irq));
}

static void inputs_observed(void *ctx)
{
    const struct board *b = ctx;
    if (b->chip[CHIP_PIT])
        i8254_irq_observed(b->chip[CHIP_PIT]);
}

/* --- what chips tell the machine ------------------------------------------------------------------------ */

static void send_message(void *ctx, uint64_t addr, uint32_t data)
{
    const struct board *b = ctx;
    b->cb.deliver_msi(b->cb.ctx, addr, data);
}

static void power_off(void *ctx)
{
    const struct board *b = ctx;
    b->cb.power_off(b->cb.ctx);
}

static void transmit(void *ctx, uint8_t byte)
{
    const struct board *b = ctx;
    b->cb.serial_output(b->cb.ctx, &byte, 1);
}

static void serial_room(void *ctx)
{
    const struct board *b = ctx;
    if (b->cb.serial_room)
        b->cb.serial_room(b->cb.ctx);
}

/* --- the chips ------------------------------------------------------------------------------------------ */

static void *make_pic(struct board *b, struct error *e)
{
    const struct i8259_config cfg = { .intr = { set_intr, b, 0 },
                                      .inputs_observed = inputs_observed,
                                      .ctx = b };
    return i8259_create(b->bus, &cfg, e);
}

static void *make_ioapic(struct board *b, struct error *e)
{
    const struct ioapic_config cfg = { .base = GPA(PC_IOAPIC),
                                       .id = PC_IOAPIC_ID,
                                       .ctx = b,
                                       .send = send_message,
                                       .inputs_observed = inputs_observed };
    return ioapic_create(b->bus, &cfg, e);
}

static void *make_pit(struct board *b, struct error *e)
{
    const struct irq_watch watch = { irq_observed, b, PC_IRQ_TIMER };
    return i8254_create(b->bus, b->clk, isa_irq(b, PC_IRQ_TIMER), watch, e);
}

static void *make_rtc(struct board *b, struct error *e)
{
    return rtc_create(b->bus, b->clk, isa_irq(b, PC_IRQ_RTC), b->map.low_end, b->map.high_end - PC_4G, e);
}

static void *make_port92(struct board *b, struct error *e)
{
    return port92_create(b->bus, (struct line){ set_a20, b, 0 }, reset_line(b), e);
}

static void *make_kbc(struct board *b, struct error *e)
{
    const struct line a20 = { port92_set_a20, b->chip[CHIP_PORT92], 0 };
    return i8042_create(b->bus, isa_irq(b, PC_IRQ_KEYBOARD), isa_irq(b, PC_IRQ_MOUSE), a20, reset_line(b), e);
}

static void *make_com1(struct board *b, struct error *e)
{
    const struct uart16550_config cfg = { .base = PC_PORT_COM1,
                                          .irq = isa_irq(b, PC_IRQ_COM1),
                                          .ctx = b,
                                          .transmit = b->cfg.serial ? transmit : NULL,
                                          .room = serial_room };
    return uart16550_create(b->bus, &cfg, 0, e);
}

static void *make_pm(struct board *b, struct error *e)
{
    const struct acpi_pm_config cfg = { .base = PC_PORT_PM,
                                        .s5_sleep_type = PC_S5_SLEEP_TYPE,
                                        .sci = isa_irq(b, PC_IRQ_SCI),
                                        .ctx = b,
                                        .power_off = power_off };
    return acpi_pm_create(b->bus, b->clk, &cfg, e);
}

static void *make_pci(struct board *b, struct error *e) { return pci_host_create(b->bus, reset_line(b), e); }

static void *make_post(struct board *b, struct error *e) { return postcode_create(b->bus, e); }

static void *make_debug_console(struct board *b, struct error *e)
{
    return debug_console_create(b->bus, PC_PORT_DEBUG_CONSOLE, b->cb.debug_output, b->cb.ctx, e);
}

static void *make_debug_exit(struct board *b, struct error *e)
{
    void *chip = debug_exit_create(b->bus, b->cfg.debug_exit_port, b->cb.debug_exit, b->cb.ctx, e);
    if (!chip)
        error_wrap(e, "--device debug-exit,port=0x%x", b->cfg.debug_exit_port);
    return chip;
}

struct chip_hooks {
    void *(*create)(struct board *b, struct error *e);
    void (*destroy)(void *chip);
    void (*reset)(void *chip); /* NULL: it has no state */
    struct state_object (*state)(void *chip);
    void (*loaded)(void *chip); /* may be NULL: nothing outside follows from its state */
};

/* The chips' own functions, seen through one type. */
/* clang-format off */
#define DESTROY(chip) static void chip##_destroy_any(void *p) { chip##_destroy(p); }
#define STATEFUL(chip) \
    DESTROY(chip) \
    static void chip##_reset_any(void *p) { chip##_reset(p); } \
    static struct state_object chip##_state_any(void *p) { return chip##_state_object(p); }
#define LOADED(chip) static void chip##_loaded_any(void *p) { chip##_loaded(p); }

STATEFUL(i8259) LOADED(i8259)
STATEFUL(ioapic)
STATEFUL(i8254) LOADED(i8254)
STATEFUL(rtc) LOADED(rtc)
STATEFUL(port92) LOADED(port92)
STATEFUL(i8042) LOADED(i8042)
STATEFUL(uart16550) LOADED(uart16550)
STATEFUL(acpi_pm) LOADED(acpi_pm)
STATEFUL(pci_host)
STATEFUL(postcode)
DESTROY(debug_console)
DESTROY(debug_exit)

#define HOOKS(chip) .destroy = chip##_destroy_any, .reset = chip##_reset_any, .state = chip##_state_any
#define HOOKS_LOADED(chip) HOOKS(chip), .loaded = chip##_loaded_any

static const struct chip_hooks chips[CHIP_COUNT] = {
    [CHIP_PIC] = { make_pic, HOOKS_LOADED(i8259) },
    [CHIP_IOAPIC] = { make_ioapic, HOOKS(ioapic) },
    [CHIP_PIT] = { make_pit, HOOKS_LOADED(i8254) },
    [CHIP_RTC] = { make_rtc, HOOKS_LOADED(rtc) },
    [CHIP_PORT92] = { make_port92, HOOKS_LOADED(port92) },
    [CHIP_KBC] = { make_kbc, HOOKS_LOADED(i8042) },
    [CHIP_COM1] = { make_com1, HOOKS_LOADED(uart16550) },
    [CHIP_PM] = { make_pm, HOOKS_LOADED(acpi_pm) },
    [CHIP_PCI] = { make_pci, HOOKS(pci_host) },
    [CHIP_POST] = { make_post, HOOKS(postcode) },
    [CHIP_DEBUG_CONSOLE] = { make_debug_console, .destroy = debug_console_destroy_any },
    [CHIP_DEBUG_EXIT] = { make_debug_exit, .destroy = debug_exit_destroy_any },
};
/* clang-format on */

/* --- input ---------------------------------------------------------------------------------------------- */

static void serial_byte_arrived(void *ctx, uint64_t value, const struct input_stamp *stamp)
{
    struct board *b = ctx;
    (void)stamp;
    uart16550_receive(b->chip[CHIP_COM1], (uint8_t)value);
}

static void power_button_pressed(void *ctx, uint64_t value, const struct input_stamp *stamp)
{
    struct board *b = ctx;
    (void)value;
    (void)stamp;
    acpi_pm_power_button(b->chip[CHIP_PM]);
}

static int add_inputs(struct board *b, struct error *e)
{
    b->serial_source = input_add_source(b->inputs, "serial", serial_byte_arrived, b);
    b->power_button_source = input_add_source(b->inputs, "power-button", power_button_pressed, b);
    if (b->serial_source < 0 || b->power_button_source < 0)
        return error_set(e, -ENOSPC, "the input queue has no number left for the board's sources");
    return 0;
}

/* A place kept from an earlier try, or a fresh one. */
static bool take_serial_place(struct board *b)
{
    unsigned kept = atomic_load(&b->serial_places);
    while (kept)
        if (atomic_compare_exchange_weak(&b->serial_places, &kept, kept - 1))
            return true;
    return uart16550_reserve(b->chip[CHIP_COM1]);
}

bool board_serial_input(struct board *b, uint8_t byte)
{
    if (!take_serial_place(b))
        return false;
    if (input_post(b->inputs, b->serial_source, byte))
        return true;
    atomic_fetch_add(&b->serial_places, 1);
    return false;
}

void board_power_button(struct board *b)
{
    if (!input_post(b->inputs, b->power_button_source, 1))
        log_line(b->log, LOG_WARN,
                 "the power button was pressed while the input queue was full: press it again");
}

/* --- life ----------------------------------------------------------------------------------------------- */

static int make_chips(struct board *b, struct error *e)
{
    for (unsigned i = 0; i < CHIP_COUNT; i++) {
        if (i == CHIP_DEBUG_EXIT && !b->cfg.debug_exit)
            continue;
        b->chip[i] = chips[i].create(b, e);
        if (!b->chip[i])
            return -EINVAL;
    }
    return 0;
}

struct board *board_create(const struct board_config *cfg, unsigned cpus, uint64_t memory, struct pmap *pmap,
                           struct bus *bus, struct clock *clk, struct input_queue *inputs,
                           struct tally *tally, struct log *log, const struct board_callbacks *cb,
                           struct error *e)
{
    (void)tally;
    if (cpus < 1 || cpus > MAX_VCPUS) {
        error_set(e, -EINVAL, "--cpus %u: give 1 to %d", cpus, MAX_VCPUS);
        return NULL;
    }
    struct board *b = calloc(1, sizeof(*b));
    if (!b) {
        error_set(e, -ENOMEM, "no memory on the host for the board");
        return NULL;
    }
    b->cfg = *cfg;
    b->cb = *cb;
    b->cpus = cpus;
    b->pmap = pmap;
    b->bus = bus;
    b->clk = clk;
    b->inputs = inputs;
    b->log = log;
    if (memory_map_make(&b->map, memory, e) || memory_map_back(&b->map, pmap, e) || make_chips(b, e) ||
        add_inputs(b, e)) {
        board_destroy(b);
        return NULL;
    }
    return b;
}

void board_destroy(struct board *b)
{
    if (!b)
        return;
    for (unsigned i = CHIP_COUNT; i-- > 0;)
        if (b->chip[i])
            chips[i].destroy(b->chip[i]);
    free(b);
}

int board_boot(struct board *b, struct boot_cpu_state *start, struct error *e)
{
    uint64_t rsdp;
    int r = firmware_load(b->pmap, b->cpus, &rsdp, e);
    return r ? r : boot_kernel(&b->cfg, &b->map, b->pmap, rsdp, b->log, start, e);
}

void board_reset(struct board *b)
{
    for (unsigned i = 0; i < CHIP_COUNT; i++)
        if (b->chip[i] && chips[i].reset)
            chips[i].reset(b->chip[i]);
}

int board_ack_pic(struct board *b)
{
    bus_lock(b->bus);
    int vector = i8259_ack(b->chip[CHIP_PIC]);
    bus_unlock(b->bus);
    return vector;
}

void board_eoi(struct board *b, uint8_t vector)
{
    bus_lock(b->bus);
    ioapic_eoi(b->chip[CHIP_IOAPIC], vector);
    bus_unlock(b->bus);
}

unsigned board_state_objects(struct board *b, struct state_object *out, unsigned max)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CHIP_COUNT && n < max; i++)
        if (b->chip[i] && chips[i].state)
            out[n++] = chips[i].state(b->chip[i]);
    return n;
}

void board_state_loaded(struct board *b)
{
    atomic_store(&b->serial_places, 0);
    for (unsigned i = 0; i < CHIP_COUNT; i++)
        if (b->chip[i] && chips[i].loaded)
            chips[i].loaded(b->chip[i]);
}
