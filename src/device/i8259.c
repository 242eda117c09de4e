/* SPDX-License-Identifier: Apache-2.0 */
/* The 8259A pair: initialisation words, operation words, priorities, acknowledge. */
#include "device/i8259.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

#define MASTER 0
#define SLAVE 1
#define CASCADE 2 /* the master's input that the slave drives */

/* ICW1, OCW2 and OCW3 share port A0 = 0 (data sheet, figures 7 and 8). */
#define ICW1_ICW4 0x01u
#define ICW1_SINGLE 0x02u
#define ICW1_LEVEL 0x08u
#define ICW1 0x10u
#define ICW4_AEOI 0x02u
#define ICW4_SFNM 0x10u
#define OCW3 0x08u
#define OCW3_READ_ISR 0x01u
#define OCW3_READ 0x02u
#define OCW3_POLL 0x04u
#define OCW3_SMM 0x20u
#define OCW3_SET_SMM 0x40u

enum ocw2 {
    ROTATE_AEOI_OFF,
    EOI,
    NO_OPERATION,
    EOI_SPECIFIC,
    ROTATE_AEOI_ON,
    ROTATE_EOI,
    SET_PRIORITY,
    ROTATE_EOI_SPECIFIC
};

/* Inputs that may be level-triggered by ELCR: not the timer, keyboard, cascade, clock and coprocessor. */
static const uint8_t elcr_writable[2] = { 0xf8, 0xde };

struct i8259_state {
    uint8_t irr[2]; /* edge requests latched; level inputs are taken from `lines` */
    uint8_t isr[2];
    uint8_t imr[2];
    uint8_t lines[2];
    uint8_t elcr[2];
    uint8_t vector_base[2];
    uint8_t init_step[2]; /* next initialisation word: 2, 3, 4; 0 = done */
    uint8_t icw1[2];
    uint8_t icw4[2];
    uint8_t top[2]; /* input of highest priority */
    uint8_t rotate_aeoi[2];
    uint8_t special_mask[2];
    uint8_t poll[2];
    uint8_t read_isr[2];
};

struct i8259 {
    struct i8259_state s;
    struct i8259_config cfg;
    bool intr;
};

static const struct state_field fields[] = {
    STATE_ARRAY(struct i8259_state, irr),
    STATE_ARRAY(struct i8259_state, isr),
    STATE_ARRAY(struct i8259_state, imr),
    STATE_ARRAY(struct i8259_state, lines),
    STATE_ARRAY(struct i8259_state, elcr),
    STATE_ARRAY(struct i8259_state, vector_base),
    STATE_ARRAY_MAX(struct i8259_state, init_step, 4),
    STATE_ARRAY(struct i8259_state, icw1),
    STATE_ARRAY(struct i8259_state, icw4),
    STATE_ARRAY_MAX(struct i8259_state, top, 7),
    STATE_ARRAY_MAX(struct i8259_state, rotate_aeoi, 1),
    STATE_ARRAY_MAX(struct i8259_state, special_mask, 1),
    STATE_ARRAY_MAX(struct i8259_state, poll, 1),
    STATE_ARRAY_MAX(struct i8259_state, read_isr, 1),
};

static const struct state_class class = { "i8259", 1, sizeof(struct i8259_state), fields, array_size(fields),
                                          NULL };

/* --- priorities --------------------------------------------------------------------------------------- */

static int pending(const struct i8259_state *s, unsigned chip);

static uint8_t level_inputs(const struct i8259_state *s, unsigned chip)
{
    return s->icw1[chip] & ICW1_LEVEL ? 0xff : s->elcr[chip];
}

/* What the request register shows. */
static uint8_t requests(const struct i8259_state *s, unsigned chip)
{
    uint8_t level = level_inputs(s, chip);
    uint8_t irr = (s->irr[chip] & ~level) | (s->lines[chip] & level);
    if (chip == MASTER && pending(s, SLAVE) >= 0)
        irr |= BIT(CASCADE);
    return irr;
}

/* The set input that comes first in the order of priority, or 8. */
static unsigned first_rank(const struct i8259_state *s, unsigned chip, uint8_t inputs)
{
    for (unsigned rank = 0; rank < 8; rank++)
        if (inputs & BIT((s->top[chip] + rank) & 7))
            return rank;
    return 8;
}

/* The input to be acknowledged next, or -1. */
static int pending(const struct i8259_state *s, unsigned chip)
{
    unsigned rank = first_rank(s, chip, requests(s, chip) & ~s->imr[chip]);
    uint8_t busy = s->isr[chip];
    if (s->special_mask[chip])
        busy &= ~s->imr[chip];
    /* Special fully nested: the slave may interrupt its own service again. */
    if (chip == MASTER && s->icw4[chip] & ICW4_SFNM)
        busy &= ~BIT(CASCADE);
    return rank < first_rank(s, chip, busy) ? (int)((s->top[chip] + rank) & 7) : -1;
}

static void update(struct i8259 *pic)
{
    bool intr = pending(&pic->s, MASTER) >= 0;
    if (intr == pic->intr)
        return;
    pic->intr = intr;
    line_set(&pic->cfg.intr, intr);
}

void i8259_set_irq(void *dev, unsigned irq, bool level)
{
    struct i8259 *pic = dev;
    if (irq >= 16 || irq == CASCADE)
        return;
    unsigned chip = irq >> 3;
    uint8_t bit = (uint8_t)BIT(irq & 7);
    if (level && !(pic->s.lines[chip] & bit))
        pic->s.irr[chip] |= bit;
    pic->s.lines[chip] = level ? pic->s.lines[chip] | bit : pic->s.lines[chip] & ~bit;
    update(pic);
}

bool i8259_unmasked(const struct i8259 *pic, unsigned irq)
{
    const struct i8259_state *s = &pic->s;
    if (irq < 8)
        return !(s->imr[MASTER] & BIT(irq));
    return irq < 16 && !(s->imr[SLAVE] & BIT(irq - 8)) && !(s->imr[MASTER] & BIT(CASCADE));
}

bool i8259_remembers(const struct i8259 *pic, unsigned irq)
{
    return irq < 16 && pic->s.irr[irq / 8] & BIT(irq % 8);
}

static void observe(struct i8259 *pic)
{
    if (pic->cfg.inputs_observed)
        pic->cfg.inputs_observed(pic->cfg.ctx);
}

/* --- acknowledge and end ------------------------------------------------------------------------------ */

static void acknowledge(struct i8259_state *s, unsigned chip, unsigned input)
{
    s->irr[chip] &= ~BIT(input);
    if (!(s->icw4[chip] & ICW4_AEOI))
        s->isr[chip] |= BIT(input);
    else if (s->rotate_aeoi[chip])
        s->top[chip] = (input + 1) & 7;
}

/* INTA or poll of one chip: its input, 7 with *spurious when none asks. */
static unsigned take(struct i8259_state *s, unsigned chip, bool *spurious)
{
    int input = pending(s, chip);
    *spurious = input < 0;
    if (input < 0)
        return 7;
    acknowledge(s, chip, (unsigned)input);
    return (unsigned)input;
}

uint8_t i8259_ack(struct i8259 *pic)
{
    struct i8259_state *s = &pic->s;
    bool spurious;
    /* Both chips decide in the same INTA cycle: the slave's answer is taken before the master's acknowledge
     * changes anything. */
    unsigned chip = pending(s, MASTER) == CASCADE ? SLAVE : MASTER;
    unsigned input = take(s, chip, &spurious);
    if (chip == SLAVE)
        acknowledge(s, MASTER, CASCADE);
    update(pic);
    return s->vector_base[chip] + (uint8_t)input;
}

static void end_of_interrupt(struct i8259_state *s, unsigned chip, unsigned ocw2_, unsigned input)
{
    bool specific = ocw2_ == EOI_SPECIFIC || ocw2_ == ROTATE_EOI_SPECIFIC;
    if (!specific) {
        /* Non-specific: the highest priority; in special mask mode masked ones are out of its sight. */
        uint8_t seen = s->isr[chip] & (s->special_mask[chip] ? ~s->imr[chip] : 0xff);
        unsigned rank = first_rank(s, chip, seen);
        if (rank == 8)
            return;
        input = (s->top[chip] + rank) & 7;
    }
    s->isr[chip] &= ~BIT(input);
    if (ocw2_ == ROTATE_EOI || ocw2_ == ROTATE_EOI_SPECIFIC)
        s->top[chip] = (input + 1) & 7;
}

/* --- registers ---------------------------------------------------------------------------------------- */

static void write_icw1(struct i8259_state *s, unsigned chip, uint8_t val)
{
    s->icw1[chip] = val;
    s->irr[chip] = 0; /* edges are sensed anew */
    s->isr[chip] = 0;
    s->imr[chip] = 0;
    s->top[chip] = 0;
    s->special_mask[chip] = 0;
    s->rotate_aeoi[chip] = 0;
    s->poll[chip] = 0;
    s->read_isr[chip] = 0;
    if (!(val & ICW1_ICW4))
        s->icw4[chip] = 0;
    s->init_step[chip] = 2;
}

static void write_icw(struct i8259_state *s, unsigned chip, uint8_t val)
{
    unsigned step = s->init_step[chip];
    if (step == 2)
        s->vector_base[chip] = val & 0xf8;
    else if (step == 4)
        s->icw4[chip] = val;
    /* Step 3, the cascade's wiring, is fixed on a PC. */
    if (step == 2 && !(s->icw1[chip] & ICW1_SINGLE))
        s->init_step[chip] = 3;
    else if (step < 4 && s->icw1[chip] & ICW1_ICW4)
        s->init_step[chip] = 4;
    else
        s->init_step[chip] = 0;
}

static void write_ocw2(struct i8259_state *s, unsigned chip, uint8_t val)
{
    unsigned command = val >> 5, input = val & 7;
    switch ((enum ocw2)command) {
    case ROTATE_AEOI_OFF:
    case ROTATE_AEOI_ON: s->rotate_aeoi[chip] = command == ROTATE_AEOI_ON; break;
    case SET_PRIORITY: s->top[chip] = (input + 1) & 7; break;
    case NO_OPERATION: break;
    case EOI:
    case EOI_SPECIFIC:
    case ROTATE_EOI:
    case ROTATE_EOI_SPECIFIC: end_of_interrupt(s, chip, command, input); break;
    }
}

static void write_ocw3(struct i8259_state *s, unsigned chip, uint8_t val)
{
    if (val & OCW3_POLL)
        s->poll[chip] = 1;
    else if (val & OCW3_READ)
        s->read_isr[chip] = val & OCW3_READ_ISR;
    if (val & OCW3_SET_SMM)
        s->special_mask[chip] = (val & OCW3_SMM) != 0;
}

static void write_port(struct i8259 *pic, unsigned chip, uint32_t a0, uint8_t val)
{
    struct i8259_state *s = &pic->s;
    if (!a0 && val & ICW1)
        write_icw1(s, chip, val);
    else if (!a0 && val & OCW3)
        write_ocw3(s, chip, val);
    else if (!a0)
        write_ocw2(s, chip, val);
    else if (s->init_step[chip])
        write_icw(s, chip, val);
    else
        s->imr[chip] = val;
    update(pic);
    observe(pic);
}

static uint8_t read_port(struct i8259 *pic, unsigned chip, uint32_t a0)
{
    struct i8259_state *s = &pic->s;
    if (s->poll[chip]) {
        observe(pic);
        s->poll[chip] = 0;
        bool none;
        unsigned input = take(s, chip, &none);
        update(pic);
        return none ? 0 : (uint8_t)(0x80 | input);
    }
    if (a0)
        return s->imr[chip];
    if (s->read_isr[chip])
        return s->isr[chip];
    observe(pic);
    return requests(s, chip);
}

static uint64_t master_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    return read_port(dev, MASTER, off);
}
static uint64_t slave_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    return read_port(dev, SLAVE, off);
}

static void master_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)width;
    write_port(dev, MASTER, off, (uint8_t)val);
}

static void slave_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)width;
    write_port(dev, SLAVE, off, (uint8_t)val);
}

static uint64_t elcr_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    return ((struct i8259 *)dev)->s.elcr[off];
}

static void elcr_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)width;
    struct i8259 *pic = dev;
    pic->s.elcr[off] = (uint8_t)val & elcr_writable[off];
    update(pic);
}

static const struct bus_ops master_ops = { .read = master_read, .write = master_write, .max_width = 1 };
static const struct bus_ops slave_ops = { .read = slave_read, .write = slave_write, .max_width = 1 };
static const struct bus_ops elcr_ops = { .read = elcr_read, .write = elcr_write, .max_width = 1 };

/* --- life --------------------------------------------------------------------------------------------- */

struct i8259 *i8259_create(struct bus *bus, const struct i8259_config *cfg, struct error *e)
{
    struct i8259 *pic = calloc(1, sizeof(*pic));
    if (!pic) {
        error_set(e, -ENOMEM, "cannot allocate the interrupt controllers");
        return NULL;
    }
    pic->cfg = *cfg;
    i8259_reset(pic);
    if (bus_map_port(bus, 0x20, 2, &master_ops, pic, e) || bus_map_port(bus, 0xa0, 2, &slave_ops, pic, e) ||
        bus_map_port(bus, 0x4d0, 2, &elcr_ops, pic, e)) {
        free(pic);
        return NULL;
    }
    return pic;
}

void i8259_destroy(struct i8259 *pic) { free(pic); }

void i8259_reset(struct i8259 *pic)
{
    /* As firmware leaves them, all masked. Input levels belong to the devices, not to the chip. */
    pic->s = (struct i8259_state){
        .imr = { 0xff, 0xff },
        .vector_base = { 0x08, 0x70 },
        .lines = { pic->s.lines[0], pic->s.lines[1] },
    };
    update(pic);
}

struct state_object i8259_state_object(struct i8259 *pic)
{
    return (struct state_object){ &class, &pic->s, 0 };
}

void i8259_loaded(struct i8259 *pic)
{
    pic->intr = pending(&pic->s, MASTER) >= 0;
    line_set(&pic->cfg.intr, pic->intr);
}
