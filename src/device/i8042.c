/* SPDX-License-Identifier: Apache-2.0 */
/* Controller commands, and two attached devices that answer the commands by which kernels identify them. */
#include "device/i8042.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

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

#define ACK 0xfau
#define RESEND 0xfeu
#define SELF_TEST_PASSED 0xaau

#define QUEUE_SIZE 16u

enum source { KEYBOARD, MOUSE, CONTROLLER };

/* Answers on their way: of the keyboard, of the mouse, and of the controller itself (which go first). */
struct i8042_state {
    uint8_t ram[32];        /* [0]: command byte */
    uint8_t out_port;
    uint8_t command;        /* awaits its data byte, 0 = none */
    uint8_t last_was_command;
    uint8_t full;           /* OBF */
    uint8_t data;           /* output buffer */
    uint8_t data_is_mouse;
    uint8_t queue[3][QUEUE_SIZE];
    uint8_t queue_mouse;    /* the controller's queued bytes pretend to come from the mouse */
    uint8_t head[3], count[3];
    uint8_t device_command[2]; /* keyboard's and mouse's command that awaits its parameter */
    uint8_t last_sent[2];
    uint8_t scan_set;
    uint8_t mouse_status, mouse_resolution, mouse_rate;
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
    STATE_ARRAY(struct i8042_state, queue[KEYBOARD]),
    STATE_ARRAY(struct i8042_state, queue[MOUSE]),
    STATE_ARRAY(struct i8042_state, queue[CONTROLLER]),
    STATE_FIELD_MAX(struct i8042_state, queue_mouse, 1),
    STATE_ARRAY_MAX(struct i8042_state, head, QUEUE_SIZE - 1),
    STATE_ARRAY_MAX(struct i8042_state, count, QUEUE_SIZE),
    STATE_ARRAY(struct i8042_state, device_command),
    STATE_ARRAY(struct i8042_state, last_sent),
    STATE_FIELD_MAX(struct i8042_state, scan_set, 3),
    STATE_FIELD(struct i8042_state, mouse_status),
    STATE_FIELD(struct i8042_state, mouse_resolution),
    STATE_FIELD(struct i8042_state, mouse_rate),
};

static const struct state_class class = { "i8042", 1, sizeof(struct i8042_state), fields, array_size(fields), NULL };

/* --- the output buffer ---------------------------------------------------------------------------------------------------- */

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

/* Puts the next waiting byte into the empty output buffer; a disabled device keeps its own. */
static void refill(struct i8042 *kbc)
{
    static const struct {
        enum source source;
        uint8_t disable;
    } order[] = { { CONTROLLER, 0 }, { KEYBOARD, CB_NO_KEYBOARD }, { MOUSE, CB_NO_MOUSE } };
    struct i8042_state *s = &kbc->s;
    for (unsigned i = 0; i < array_size(order) && !s->full; i++) {
        enum source from = order[i].source;
        if (!s->count[from] || s->ram[0] & order[i].disable)
            continue;
        s->data = s->queue[from][s->head[from]];
        s->head[from] = (s->head[from] + 1) % QUEUE_SIZE;
        s->count[from]--;
        s->data_is_mouse = from == MOUSE || (from == CONTROLLER && s->queue_mouse);
        s->full = 1;
    }
    update_irqs(kbc);
}

static void answer(struct i8042 *kbc, enum source from, uint8_t byte)
{
    struct i8042_state *s = &kbc->s;
    if (from != CONTROLLER)
        s->last_sent[from] = byte;
    if (s->count[from] == QUEUE_SIZE)
        return; /* nobody reads: devices drop what they cannot hold */
    s->queue[from][(s->head[from] + s->count[from]) % QUEUE_SIZE] = byte;
    s->count[from]++;
}

/* The controller's own answer replaces one that was not read yet, as its single register does. */
static void controller_answer(struct i8042 *kbc, uint8_t byte, bool as_mouse)
{
    kbc->s.count[CONTROLLER] = 0;
    kbc->s.queue_mouse = as_mouse;
    answer(kbc, CONTROLLER, byte);
}

/* --- keyboard ------------------------------------------------------------------------------------------------------------- */

static void keyboard_defaults(struct i8042_state *s)
{
    s->scan_set = 2;
    s->device_command[KEYBOARD] = 0;
}

static void keyboard_parameter(struct i8042 *kbc, uint8_t command, uint8_t val)
{
    struct i8042_state *s = &kbc->s;
    answer(kbc, KEYBOARD, ACK);
    if (command != 0xf0)
        return; /* LEDs (0xed) and typematic rate (0xf3): nobody would see them */
    if (val == 0)
        answer(kbc, KEYBOARD, s->scan_set);
    else if (val <= 3)
        s->scan_set = val;
}

static void keyboard_write(struct i8042 *kbc, uint8_t val)
{
    struct i8042_state *s = &kbc->s;
    uint8_t awaiting = s->device_command[KEYBOARD];
    s->device_command[KEYBOARD] = 0;
    if (awaiting && val < 0xed) {
        keyboard_parameter(kbc, awaiting, val);
        return;
    }
    switch (val) {
    case 0xed: /* set LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
        answer(kbc, KEYBOARD, ACK);
        s->device_command[KEYBOARD] = val;
        break;
    case 0xee: answer(kbc, KEYBOARD, 0xee); break; /* echo */
    case 0xf2: /* identify: an MF2 keyboard; translation changes the second byte as it would a scan code */
        answer(kbc, KEYBOARD, ACK);
        answer(kbc, KEYBOARD, 0xab);
        answer(kbc, KEYBOARD, s->ram[0] & CB_TRANSLATE ? 0x41 : 0x83);
        break;
    case 0xf4: /* scanning on; there are no keys to scan, so it is the same as off */
    case 0xf7: case 0xf8: case 0xf9: case 0xfa: answer(kbc, KEYBOARD, ACK); break;
    case 0xf5: /* scanning off, defaults */
    case 0xf6: /* defaults */
        keyboard_defaults(s);
        answer(kbc, KEYBOARD, ACK);
        break;
    case 0xfe: answer(kbc, KEYBOARD, s->last_sent[KEYBOARD]); break;
    case 0xff:
        keyboard_defaults(s);
        s->count[KEYBOARD] = 0;
        answer(kbc, KEYBOARD, ACK);
        answer(kbc, KEYBOARD, SELF_TEST_PASSED);
        break;
    default: answer(kbc, KEYBOARD, RESEND); break;
    }
}

/* --- mouse ---------------------------------------------------------------------------------------------------------------- */

/* Status byte of the mouse. */
#define MOUSE_SCALING 0x10u
#define MOUSE_ENABLED 0x20u
#define MOUSE_REMOTE 0x40u

static void mouse_defaults(struct i8042_state *s)
{
    s->mouse_status = 0;
    s->mouse_resolution = 2;
    s->mouse_rate = 100;
    s->device_command[MOUSE] = 0;
}

static void mouse_write(struct i8042 *kbc, uint8_t val)
{
    struct i8042_state *s = &kbc->s;
    uint8_t awaiting = s->device_command[MOUSE];
    s->device_command[MOUSE] = 0;
    if (awaiting) {
        *(awaiting == 0xe8 ? &s->mouse_resolution : &s->mouse_rate) = val;
        answer(kbc, MOUSE, ACK);
        return;
    }
    if (val != 0xfe)
        answer(kbc, MOUSE, val == 0xff || (val >= 0xe6 && val <= 0xf6 && val != 0xed && val != 0xef && val != 0xf1)
                               ? ACK : RESEND);
    switch (val) {
    case 0xe6: s->mouse_status &= ~MOUSE_SCALING; break;
    case 0xe7: s->mouse_status |= MOUSE_SCALING; break;
    case 0xe8: /* resolution */
    case 0xf3: /* sample rate */
        s->device_command[MOUSE] = val;
        break;
    case 0xe9: /* status */
        answer(kbc, MOUSE, s->mouse_status);
        answer(kbc, MOUSE, s->mouse_resolution);
        answer(kbc, MOUSE, s->mouse_rate);
        break;
    case 0xea: s->mouse_status &= ~MOUSE_REMOTE; break;
    case 0xeb: /* read data: it does not move */
        answer(kbc, MOUSE, 0x08);
        answer(kbc, MOUSE, 0);
        answer(kbc, MOUSE, 0);
        break;
    case 0xf0: s->mouse_status |= MOUSE_REMOTE; break;
    case 0xf2: answer(kbc, MOUSE, 0); break; /* a standard mouse */
    case 0xf4: s->mouse_status |= MOUSE_ENABLED; break;
    case 0xf5: s->mouse_status &= ~MOUSE_ENABLED; break;
    case 0xf6: mouse_defaults(s); break;
    case 0xfe: answer(kbc, MOUSE, s->last_sent[MOUSE]); break;
    case 0xff:
        mouse_defaults(s);
        answer(kbc, MOUSE, SELF_TEST_PASSED);
        answer(kbc, MOUSE, 0);
        break;
    default: break;
    }
}

/* --- controller ----------------------------------------------------------------------------------------------------------- */

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
    case 0x20 ... 0x3f: controller_answer(kbc, s->ram[val & 31], false); break;
    case 0x60 ... 0x7f:
    case CMD_WRITE_OUTPUT ... CMD_WRITE_MOUSE: s->command = val; break;
    case 0xa4: controller_answer(kbc, 0xf1, false); break; /* no password */
    case 0xa7: s->ram[0] |= CB_NO_MOUSE; break;
    case 0xa8: s->ram[0] &= ~CB_NO_MOUSE; break;
    case 0xa9: /* test of the mouse's wires */
    case 0xab: controller_answer(kbc, 0x00, false); break; /* and of the keyboard's */
    case 0xaa:
        s->ram[0] |= CB_SYSTEM;
        controller_answer(kbc, 0x55, false);
        break;
    case 0xad: s->ram[0] |= CB_NO_KEYBOARD; break;
    case 0xae: s->ram[0] &= ~CB_NO_KEYBOARD; break;
    case 0xc0: controller_answer(kbc, 0x80, false); break; /* input port: keyboard not locked */
    case 0xd0: controller_answer(kbc, read_output_port(s), false); break;
    case 0xdd: set_a20(kbc, false); break;
    case 0xdf: set_a20(kbc, true); break;
    case 0xe0: controller_answer(kbc, 0x00, false); break; /* test inputs */
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
        keyboard_write(kbc, val);
        break;
    case CMD_WRITE_OUTPUT: write_output_port(kbc, val); break;
    case CMD_WRITE_KEYBOARD_BUFFER: controller_answer(kbc, val, false); break;
    case CMD_WRITE_MOUSE_BUFFER: controller_answer(kbc, val, true); break;
    case CMD_WRITE_MOUSE:
        s->ram[0] &= ~CB_NO_MOUSE;
        mouse_write(kbc, val);
        break;
    default: s->ram[command & 31] = val; break; /* 0x60 and following: memory */
    }
}

static uint8_t status(const struct i8042_state *s)
{
    return (uint8_t)((s->full ? ST_OBF | (s->data_is_mouse ? ST_AUX_OBF : 0) : 0) |
                     (s->ram[0] & CB_SYSTEM ? ST_SYSTEM : 0) | (s->last_was_command ? ST_COMMAND : 0) | ST_UNLOCKED);
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
static const struct bus_ops command_ops = { .read = command_port_read, .write = command_port_write, .max_width = 1 };

/* --- life ----------------------------------------------------------------------------------------------------------------- */

struct i8042 *i8042_create(struct bus *bus, struct line keyboard_irq, struct line mouse_irq, struct line a20, struct line reset,
                           struct error *e)
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

void i8042_destroy(struct i8042 *kbc)
{
    free(kbc);
}

void i8042_reset(struct i8042 *kbc)
{
    /* As firmware leaves it: self test passed, keyboard interrupt and translation on, mouse off. */
    kbc->s = (struct i8042_state){ .ram = { CB_IRQ1 | CB_SYSTEM | CB_NO_MOUSE | CB_TRANSLATE }, .out_port = 0xcf };
    keyboard_defaults(&kbc->s);
    mouse_defaults(&kbc->s);
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
