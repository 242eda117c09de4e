/* SPDX-License-Identifier: Apache-2.0 */
/* Ports, commands and the output buffer of the controller; the attached devices are in ps2.c. */
#include "device/i8042.h"

#include <errno.h>
#include <stdlib.h>

#include "device/ps2.h"

/* Status register, port 0x64. */
#define ST_OBF 0x01u
#define ST_SYSTEM 0x04u
#define ST_COMMAND 0x08u /* the last write went to port 0x64 */
#define ST_UNLOCKED 0x10u
#define ST_AUX_OBF 0x20u

/* Command byte: byte 0 of the controller's memory. */
#define CB_IRQ1 0x01u
#define CB_IRQ12 0x02u
#define CB_SYSTEM 0x04u
#define CB_NO_KEYBOARD 0x10u
#define CB_NO_MOUSE 0x20u
#define CB_TRANSLATE 0x40u

/* Output port. */
#define OUT_RUN 0x01u /* low holds the processor in reset */
#define OUT_A20 0x02u
#define OUT_OBF 0x10u
#define OUT_AUX_OBF 0x20u

/* Controller commands that take a data byte. */
#define CMD_WRITE_OUTPUT 0xd1u
#define CMD_WRITE_KEYBOARD_BUFFER 0xd2u
#define CMD_WRITE_MOUSE_BUFFER 0xd3u
#define CMD_WRITE_MOUSE 0xd4u

struct i8042_state {
    uint8_t ram[32]; /* [0]: command byte */
    uint8_t out_port;
    uint8_t command; /* awaits its data byte, 0 = none */
    uint8_t last_was_command;
    uint8_t full; /* OBF */
    uint8_t data; /* output buffer */
    uint8_t data_is_mouse;
    uint8_t answer; /* the controller's own, not yet in the output buffer */
    uint8_t answer_waits;
    uint8_t answer_is_mouse; /* it pretends to come from the mouse */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
};

struct i8042 {
    struct i8042_state s;
    struct line irq[2]; /* keyboard, mouse */
    bool irq_level[2];
    struct line a20, reset;
};

static const struct state_field fields[] = {
    STATE_ARRAY(struct i8042_state, ram),
    STATE_FIELD(struct i8042_state, out_port),
    STATE_FIELD(struct i8042_state, command),
    STATE_FIELD_MAX(struct i8042_state, last_was_command, 1),
    STATE_FIELD_MAX(struct i8042_state, full, 1),
    STATE_FIELD(struct i8042_state, data),
    STATE_FIELD_MAX(struct i8042_state, data_is_mouse, 1),
    STATE_FIELD(struct i8042_state, answer),
    STATE_FIELD_MAX(struct i8042_state, answer_waits, 1),
    STATE_FIELD_MAX(struct i8042_state, answer_is_mouse, 1),
    PS2_QUEUE_FIELDS(struct i8042_state, keyboard.out),
    STATE_FIELD(struct i8042_state, keyboard.command),
    STATE_FIELD_MAX(struct i8042_state, keyboard.scan_set, 3),
    PS2_QUEUE_FIELDS(struct i8042_state, mouse.out),
    STATE_FIELD(struct i8042_state, mouse.command),
    STATE_FIELD(struct i8042_state, mouse.status),
    STATE_FIELD(struct i8042_state, mouse.resolution),
    STATE_FIELD(struct i8042_state, mouse.rate),
};

static const struct state_class class = { "i8042", 1, sizeof(struct i8042_state), fields, array_size(fields),
                                          NULL };

/* --- the output buffer -------------------------------------------------------------------------------- */

static void set_irq(struct i8042 *kbc, unsigned n, bool level)
{
    if (level == kbc->irq_level[n])
        return;
    kbc->irq_level[n] = level;
    line_set(&kbc->irq[n], level);
}

static void update_irqs(struct i8042 *kbc)
{
    const struct i8042_state *s = &kbc->s;
    set_irq(kbc, 0, s->full && !s->data_is_mouse && s->ram[0] & CB_IRQ1);
    set_irq(kbc, 1, s->full && s->data_is_mouse && s->ram[0] & CB_IRQ12);
}

static void fill(struct i8042_state *s, uint8_t byte, bool is_mouse)
{
    s->data = byte;
    s->data_is_mouse = is_mouse;
    s->full = 1;
}

/* Puts the next waiting byte into the empty output buffer, the controller's own first; a disabled device
 * keeps its own. */
static void refill(struct i8042 *kbc)
{
    struct i8042_state *s = &kbc->s;
    if (s->full) {
        /* Taken first. */
    } else if (s->answer_waits) {
        fill(s, s->answer, s->answer_is_mouse);
        s->answer_waits = 0;
    } else if (s->keyboard.out.count && !(s->ram[0] & CB_NO_KEYBOARD)) {
        fill(s, ps2_take(&s->keyboard.out), false);
    } else if (s->mouse.out.count && !(s->ram[0] & CB_NO_MOUSE)) {
        fill(s, ps2_take(&s->mouse.out), true);
    }
    update_irqs(kbc);
}

/* Replaces an answer that did not reach the output buffer yet, as the controller's single register does. */
static void answer(struct i8042 *kbc, uint8_t byte, bool as_mouse)
{
    kbc->s.answer = byte;
    kbc->s.answer_is_mouse = as_mouse;
    kbc->s.answer_waits = 1;
}

/* --- controller --------------------------------------------------------------------------------------- */

static void write_output_port(struct i8042 *kbc, uint8_t val)
{
    kbc->s.out_port = val;
    line_set(&kbc->a20, val & OUT_A20);
    if (!(val & OUT_RUN))
        line_pulse(&kbc->reset);
}

static void set_a20(struct i8042 *kbc, bool on)
{
    write_output_port(kbc, (uint8_t)(on ? kbc->s.out_port | OUT_A20 : kbc->s.out_port & ~OUT_A20));
}

static uint8_t read_output_port(const struct i8042_state *s)
{
    uint8_t obf = s->full ? (s->data_is_mouse ? OUT_AUX_OBF : OUT_OBF) : 0;
    return (s->out_port & ~(OUT_OBF | OUT_AUX_OBF)) | obf;
}

static void command_write(struct i8042 *kbc, uint8_t val)
{
    struct i8042_state *s = &kbc->s;
    s->command = 0;
    switch (val) {
    case 0x20 ... 0x3f: answer(kbc, s->ram[val & 31], false); break;
    case 0x60 ... 0x7f:
    case CMD_WRITE_OUTPUT ... CMD_WRITE_MOUSE: s->command = val; break;
    case 0xa4: answer(kbc, 0xf1, false); break; /* no password */
    case 0xa7: s->ram[0] |= CB_NO_MOUSE; break;
    case 0xa8: s->ram[0] &= ~CB_NO_MOUSE; break;
    case 0xa9:                                  /* test of the mouse's wires */
    case 0xab: answer(kbc, 0x00, false); break; /* and of the keyboard's */
    case 0xaa:
        s->ram[0] |= CB_SYSTEM;
        answer(kbc, 0x55, false);
        break;
    case 0xad: s->ram[0] |= CB_NO_KEYBOARD; break;
    case 0xae: s->ram[0] &= ~CB_NO_KEYBOARD; break;
    case 0xc0: answer(kbc, 0x80, false); break; /* input port: keyboard not locked */
    case 0xd0: answer(kbc, read_output_port(s), false); break;
    case 0xdd: set_a20(kbc, false); break;
    case 0xdf: set_a20(kbc, true); break;
    case 0xe0: answer(kbc, 0x00, false); break; /* test inputs */
    case 0xf0 ... 0xff: /* pulses the output lines whose bit is 0; only the reset line is wired */
        if (!(val & OUT_RUN))
            line_pulse(&kbc->reset);
        break;
    default: break;
    }
}

static void data_write(struct i8042 *kbc, uint8_t val)
{
    struct i8042_state *s = &kbc->s;
    uint8_t command = s->command;
    s->command = 0;
    switch (command) {
    case 0:
        s->ram[0] &= ~CB_NO_KEYBOARD; /* talking to the keyboard turns its clock on */
        ps2_keyboard_write(&s->keyboard, val, s->ram[0] & CB_TRANSLATE);
        break;
    case CMD_WRITE_OUTPUT: write_output_port(kbc, val); break;
    case CMD_WRITE_KEYBOARD_BUFFER: answer(kbc, val, false); break;
    case CMD_WRITE_MOUSE_BUFFER: answer(kbc, val, true); break;
    case CMD_WRITE_MOUSE:
        s->ram[0] &= ~CB_NO_MOUSE;
        ps2_mouse_write(&s->mouse, val);
        break;
    default: s->ram[command & 31] = val; break; /* 0x60 and following: memory */
    }
}

static uint8_t status(const struct i8042_state *s)
{
    return (uint8_t)((s->full ? ST_OBF | (s->data_is_mouse ? ST_AUX_OBF : 0) : 0) |
                     (s->ram[0] & CB_SYSTEM ? ST_SYSTEM : 0) | (s->last_was_command ? ST_COMMAND : 0) |
                     ST_UNLOCKED);
}

static uint64_t data_port_read(void *dev, uint32_t off, unsigned width)
{
    (void)off, (void)width;
    struct i8042 *kbc = dev;
    uint8_t val = kbc->s.data;
    kbc->s.full = 0;
    update_irqs(kbc); /* down before it may go up again: an edge each byte */
    refill(kbc);
    return val;
}

static void data_port_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)off, (void)width;
    struct i8042 *kbc = dev;
    kbc->s.last_was_command = 0;
    data_write(kbc, (uint8_t)val);
    refill(kbc);
}

static uint64_t command_port_read(void *dev, uint32_t off, unsigned width)
{
    (void)off, (void)width;
    return status(&((struct i8042 *)dev)->s);
}

static void command_port_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)off, (void)width;
    struct i8042 *kbc = dev;
    kbc->s.last_was_command = 1;
    command_write(kbc, (uint8_t)val);
    refill(kbc);
}

static const struct bus_ops data_ops = { .read = data_port_read, .write = data_port_write, .max_width = 1 };
static const struct bus_ops command_ops = { .read = command_port_read,
                                            .write = command_port_write,
                                            .max_width = 1 };

/* --- life --------------------------------------------------------------------------------------------- */

struct i8042 *i8042_create(struct bus *bus, struct line keyboard_irq, struct line mouse_irq, struct line a20,
                           struct line reset, struct error *e)
{
    struct i8042 *kbc = calloc(1, sizeof(*kbc));
    if (!kbc) {
        error_set(e, -ENOMEM, "cannot allocate the keyboard controller");
        return NULL;
    }
    kbc->irq[0] = keyboard_irq;
    kbc->irq[1] = mouse_irq;
    kbc->a20 = a20;
    kbc->reset = reset;
    i8042_reset(kbc);
    if (bus_map_port(bus, 0x60, 1, &data_ops, kbc, e) || bus_map_port(bus, 0x64, 1, &command_ops, kbc, e)) {
        free(kbc);
        return NULL;
    }
    return kbc;
}

void i8042_destroy(struct i8042 *kbc) { free(kbc); }

void i8042_reset(struct i8042 *kbc)
{
    /* As firmware leaves it: self test passed, keyboard interrupt and translation on, mouse off. */
    kbc->s = (struct i8042_state){ .ram = { CB_IRQ1 | CB_SYSTEM | CB_NO_MOUSE | CB_TRANSLATE },
                                   .out_port = 0xcf };
    ps2_keyboard_reset(&kbc->s.keyboard);
    ps2_mouse_reset(&kbc->s.mouse);
    update_irqs(kbc);
}

struct state_object i8042_state_object(struct i8042 *kbc)
{
    return (struct state_object){ &class, &kbc->s, 0 };
}

void i8042_loaded(struct i8042 *kbc)
{
    update_irqs(kbc);
    for (unsigned n = 0; n < 2; n++)
        line_set(&kbc->irq[n], kbc->irq_level[n]);
}
