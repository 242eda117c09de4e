/* SPDX-License-Identifier: Apache-2.0 */
/* Registers, FIFO and interrupt priorities of one serial port. */
#include "device/uart16550.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bits.h"

/* Registers (data sheet, table II). With LCR_DLAB the first two are the divisor. */
enum reg { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RDA 0x01u
#define IER_THRE 0x02u
#define IER_RLS 0x04u
#define IER_MS 0x08u
#define IER_MASK 0x0fu

/* Interrupt identification, in falling priority. */
#define IIR_NONE 0x01u
#define IIR_RLS 0x06u
#define IIR_RDA 0x04u
#define IIR_TIMEOUT 0x0cu
#define IIR_THRE 0x02u
#define IIR_MS 0x00u
#define IIR_FIFO 0xc0u

#define FCR_ENABLE 0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_KEPT 0xc9u /* enable, DMA mode, trigger level */
#define FCR_TRIGGER_SHIFT 6

#define LCR_BREAK 0x40u
#define LCR_DLAB 0x80u

#define MCR_DTR 0x01u
#define MCR_RTS 0x02u
#define MCR_LOOP 0x10u
#define MCR_MASK 0x1fu

#define LSR_DR 0x01u
#define LSR_OE 0x02u
#define LSR_BI 0x10u
#define LSR_THRE 0x20u
#define LSR_TEMT 0x40u
#define LSR_ERRORS 0x1eu

#define MSR_DCTS 0x01u
#define MSR_TERI 0x04u
#define MSR_DELTAS 0x0fu
#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI 0x40u
#define MSR_DCD 0x80u

#define FIFO_SIZE 16u
#define POLLS 2u /* reads of LSR in a row that find nothing: somebody waits for input */

struct uart16550_state {
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint8_t errors;       /* LSR's error bits */
    uint8_t thre_pending; /* the transmitter ran empty and nobody has been told */
    uint8_t dll, dlm;
    uint8_t rx[FIFO_SIZE];
    uint8_t rx_head, rx_count;
    uint8_t polls; /* fruitless reads of LSR in a row, up to POLLS */
};

struct uart16550 {
    struct uart16550_state s;
    struct uart16550_config cfg;
    uint32_t instance;
    bool irq;
    /* Free places in the receiver that nobody has reserved: the one thing that other threads look at. */
    _Atomic uint32_t room;
    atomic_bool open; /* ... and whether the other end may send at all */
};

static const struct state_field fields[] = {
    STATE_FIELD_MAX(struct uart16550_state, ier, IER_MASK),
    STATE_FIELD(struct uart16550_state, fcr),
    STATE_FIELD(struct uart16550_state, lcr),
    STATE_FIELD_MAX(struct uart16550_state, mcr, MCR_MASK),
    STATE_FIELD(struct uart16550_state, msr),
    STATE_FIELD(struct uart16550_state, scr),
    STATE_FIELD_MAX(struct uart16550_state, errors, LSR_ERRORS),
    STATE_FIELD_MAX(struct uart16550_state, thre_pending, 1),
    STATE_FIELD(struct uart16550_state, dll),
    STATE_FIELD(struct uart16550_state, dlm),
    STATE_ARRAY(struct uart16550_state, rx),
    STATE_FIELD_MAX(struct uart16550_state, rx_head, FIFO_SIZE - 1),
    STATE_FIELD_MAX(struct uart16550_state, rx_count, FIFO_SIZE),
    STATE_FIELD_MAX(struct uart16550_state, polls, POLLS),
};

static bool valid(const void *state)
{
    const struct uart16550_state *s = state;
    return !(s->errors & ~LSR_ERRORS) && !(s->fcr & ~FCR_KEPT);
}

static const struct state_class class = { "uart16550",        1,    sizeof(struct uart16550_state), fields,
                                          array_size(fields), valid };

/* --- interrupts --------------------------------------------------------------------------------------- */

static unsigned trigger_level(const struct uart16550_state *s)
{
    static const uint8_t levels[4] = { 1, 4, 8, 14 };
    return s->fcr & FCR_ENABLE ? levels[s->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

static uint8_t interrupt_id(const struct uart16550_state *s)
{
    if (s->ier & IER_RLS && s->errors)
        return IIR_RLS;
    if (s->ier & IER_RDA && s->rx_count >= trigger_level(s))
        return IIR_RDA;
    /* The four character times that the timeout waits for have always passed: input takes no time. */
    if (s->ier & IER_RDA && s->rx_count)
        return IIR_TIMEOUT;
    if (s->ier & IER_THRE && s->thre_pending)
        return IIR_THRE;
    if (s->ier & IER_MS && s->msr & MSR_DELTAS)
        return IIR_MS;
    return IIR_NONE;
}

/* INTR itself: the gate by OUT2 is outside the chip, and kernels exist that never open it. */
static void update(struct uart16550 *u)
{
    bool irq = interrupt_id(&u->s) != IIR_NONE;
    if (irq == u->irq)
        return;
    u->irq = irq;
    line_set(&u->cfg.irq, irq);
}

/* --- receiver ----------------------------------------------------------------------------------------- */

static bool take_room(struct uart16550 *u)
{
    uint32_t room = atomic_load(&u->room);
    while (room && !atomic_compare_exchange_weak(&u->room, &room, room - 1))
        ;
    return room != 0;
}

static void give_room(struct uart16550 *u, uint32_t n)
{
    if (n && atomic_fetch_add(&u->room, n) == 0 && u->cfg.room)
        u->cfg.room(u->cfg.ctx);
}

/*
 * The other end heeds RTS, as with hardware handshake: what is sent before a driver listens would be lost when the
 * driver empties the FIFO. A program without modem control (DTR down, too) listens by its interrupt or by polling.
 */
static bool listens(const struct uart16550_state *s)
{
    if (s->mcr & MCR_LOOP)
        return false;
    return s->mcr & MCR_RTS || (!(s->mcr & MCR_DTR) && (s->ier & IER_RDA || s->polls == POLLS));
}

static void update_open(struct uart16550 *u)
{
    bool open = listens(&u->s);
    if (open && !atomic_exchange(&u->open, true)) {
        if (u->cfg.room)
            u->cfg.room(u->cfg.ctx);
    } else {
        atomic_store(&u->open, open);
    }
}

bool uart16550_reserve(struct uart16550 *u) { return atomic_load(&u->open) && take_room(u); }

static void push(struct uart16550 *u, uint8_t byte)
{
    struct uart16550_state *s = &u->s;
    if (s->rx_count == FIFO_SIZE) {
        s->errors |= LSR_OE;
        return;
    }
    s->rx[(s->rx_head + s->rx_count) % FIFO_SIZE] = byte;
    s->rx_count++;
}

void uart16550_receive(struct uart16550 *u, uint8_t byte)
{
    push(u, byte);
    update(u);
}

/* A byte that comes round inside the chip has no reservation; without room it is lost as by any overrun. */
static void push_looped(struct uart16550 *u, uint8_t byte)
{
    if (take_room(u))
        push(u, byte);
    else
        u->s.errors |= LSR_OE;
}

static uint8_t pop(struct uart16550 *u)
{
    struct uart16550_state *s = &u->s;
    if (!s->rx_count)
        return 0;
    uint8_t byte = s->rx[s->rx_head];
    s->rx_head = (s->rx_head + 1) % FIFO_SIZE;
    s->rx_count--;
    give_room(u, 1);
    return byte;
}

static void clear_receiver(struct uart16550 *u)
{
    uint32_t n = u->s.rx_count;
    u->s.rx_count = 0;
    u->s.errors = 0;
    give_room(u, n);
}

/* --- registers ---------------------------------------------------------------------------------------- */

static void transmit(struct uart16550 *u, uint8_t byte)
{
    if (u->s.mcr & MCR_LOOP)
        push_looped(u, byte);
    else if (u->cfg.transmit)
        u->cfg.transmit(u->cfg.ctx, byte);
    u->s.thre_pending = 1; /* gone already */
}

/* Modem inputs: a terminal that is always ready, or our own outputs in loopback (data sheet 8.6). */
static void update_modem(struct uart16550 *u)
{
    struct uart16550_state *s = &u->s;
    uint8_t now = MSR_CTS | MSR_DSR | MSR_DCD;
    if (s->mcr & MCR_LOOP) /* RTS, DTR, OUT1, OUT2 come back as CTS, DSR, RI, DCD */
        now = (uint8_t)((s->mcr & 2 ? MSR_CTS : 0) | (s->mcr & 1 ? MSR_DSR : 0) | (s->mcr & 4 ? MSR_RI : 0) |
                        (s->mcr & 8 ? MSR_DCD : 0));
    uint8_t changed = (now ^ s->msr) >> 4;
    if (now & MSR_RI)
        changed &= ~MSR_TERI; /* only the trailing edge of RI counts */
    s->msr = now | (s->msr & MSR_DELTAS) | changed;
}

static void count_polls(struct uart16550_state *s, bool fruitless)
{
    if (s->polls < POLLS)
        s->polls = fruitless ? s->polls + 1 : 0;
}

static void write_fcr(struct uart16550 *u, uint8_t val)
{
    if ((val ^ u->s.fcr) & FCR_ENABLE || (val & FCR_ENABLE && val & FCR_CLEAR_RX))
        clear_receiver(u);
    u->s.fcr = val & FCR_ENABLE ? val & FCR_KEPT : 0;
}

static void write_ier(struct uart16550_state *s, uint8_t val)
{
    if (val & ~s->ier & IER_THRE)
        s->thre_pending = 1;
    s->ier = val & IER_MASK;
}

static void write_lcr(struct uart16550 *u, uint8_t val)
{
    if (val & ~u->s.lcr & LCR_BREAK && u->s.mcr & MCR_LOOP) {
        push_looped(u, 0);
        u->s.errors |= LSR_BI;
    }
    u->s.lcr = val;
}

static uint64_t uart_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    struct uart16550 *u = dev;
    struct uart16550_state *s = &u->s;
    uint8_t v = 0;
    count_polls(s, off == LSR && !s->rx_count);
    switch ((enum reg)off) {
    case RBR_THR: v = s->lcr & LCR_DLAB ? s->dll : pop(u); break;
    case IER: v = s->lcr & LCR_DLAB ? s->dlm : s->ier; break;
    case IIR_FCR:
        v = interrupt_id(s);
        if (v == IIR_THRE)
            s->thre_pending = 0;
        v |= s->fcr & FCR_ENABLE ? IIR_FIFO : 0;
        break;
    case LCR: v = s->lcr; break;
    case MCR: v = s->mcr; break;
    case LSR:
        v = (uint8_t)(LSR_THRE | LSR_TEMT | s->errors | (s->rx_count ? LSR_DR : 0));
        s->errors = 0;
        break;
    case MSR:
        v = s->msr;
        s->msr &= ~MSR_DELTAS;
        break;
    case SCR: v = s->scr; break;
    }
    update(u);
    update_open(u);
    return v;
}

static void uart_write(void *dev, uint32_t off, uint64_t val64, unsigned width)
{
    (void)width;
    struct uart16550 *u = dev;
    struct uart16550_state *s = &u->s;
    uint8_t val = (uint8_t)val64;
    count_polls(s, false);
    switch ((enum reg)off) {
    case RBR_THR:
        if (s->lcr & LCR_DLAB)
            s->dll = val;
        else
            transmit(u, val);
        break;
    case IER:
        if (s->lcr & LCR_DLAB)
            s->dlm = val;
        else
            write_ier(s, val);
        break;
    case IIR_FCR: write_fcr(u, val); break;
    case LCR: write_lcr(u, val); break;
    case MCR:
        s->mcr = val & MCR_MASK;
        update_modem(u);
        break;
    case LSR:
    case MSR: break; /* factory test only */
    case SCR: s->scr = val; break;
    }
    update(u);
    update_open(u);
}

static const struct bus_ops ops = { .read = uart_read, .write = uart_write, .max_width = 1 };

/* --- life --------------------------------------------------------------------------------------------- */

struct uart16550 *uart16550_create(struct bus *bus, const struct uart16550_config *cfg, uint32_t instance,
                                   struct error *e)
{
    struct uart16550 *u = calloc(1, sizeof(*u));
    if (!u) {
        error_set(e, -ENOMEM, "cannot allocate a serial port");
        return NULL;
    }
    u->cfg = *cfg;
    u->instance = instance;
    atomic_init(&u->room, FIFO_SIZE);
    uart16550_reset(u);
    if (bus_map_port(bus, cfg->base, 8, &ops, u, e)) {
        free(u);
        return NULL;
    }
    return u;
}

void uart16550_destroy(struct uart16550 *u) { free(u); }

void uart16550_reset(struct uart16550 *u)
{
    clear_receiver(u); /* reservations stay: their bytes are still on the way */
    u->s = (struct uart16550_state){ .msr = MSR_CTS | MSR_DSR | MSR_DCD, .thre_pending = 1, .dll = 1 };
    atomic_store(&u->open, false);
    update(u);
}

struct state_object uart16550_state_object(struct uart16550 *u)
{
    return (struct state_object){ &class, &u->s, u->instance };
}

void uart16550_loaded(struct uart16550 *u)
{
    atomic_store(&u->room, FIFO_SIZE - u->s.rx_count);
    atomic_store(&u->open, listens(&u->s));
    u->irq = interrupt_id(&u->s) != IIR_NONE;
    line_set(&u->cfg.irq, u->irq);
}
