/* SPDX-License-Identifier: Apache-2.0 */
/* What the two devices answer. */
#include "device/ps2.h"

#define ACK 0xfau
#define RESEND 0xfeu
#define SELF_TEST_PASSED 0xaau

void ps2_put(struct ps2_queue *q, uint8_t byte)
{
    q->last = byte;
    if (q->count == PS2_QUEUE_SIZE)
        return;
    q->bytes[(q->head + q->count) % PS2_QUEUE_SIZE] = byte;
    q->count++;
}

uint8_t ps2_take(struct ps2_queue *q)
{
    uint8_t byte = q->bytes[q->head];
    q->head = (q->head + 1) % PS2_QUEUE_SIZE;
    q->count--;
    return byte;
}

/* --- keyboard ----------------------------------------------------------------------------------------- */

static void keyboard_defaults(struct ps2_keyboard *k)
{
    k->scan_set = 2;
    k->command = 0;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    *k = (struct ps2_keyboard){ 0 };
    keyboard_defaults(k);
}

static void keyboard_parameter(struct ps2_keyboard *k, uint8_t command, uint8_t val)
{
    ps2_put(&k->out, ACK);
    if (command != 0xf0)
        return; /* LEDs (0xed) and typematic rate (0xf3): nobody would see them */
    if (val == 0)
        ps2_put(&k->out, k->scan_set);
    else if (val <= 3)
        k->scan_set = val;
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t val, bool translated)
{
    uint8_t awaiting = k->command;
    k->command = 0;
    if (awaiting && val < 0xed) {
        keyboard_parameter(k, awaiting, val);
        return;
    }
    switch (val) {
    case 0xed: /* set LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
        ps2_put(&k->out, ACK);
        k->command = val;
        break;
    case 0xee: ps2_put(&k->out, 0xee); break; /* echo */
    case 0xf2: /* identify: an MF2 keyboard; translation changes the second byte as it would a scan code */
        ps2_put(&k->out, ACK);
        ps2_put(&k->out, 0xab);
        ps2_put(&k->out, translated ? 0x41 : 0x83);
        break;
    case 0xf4: /* scanning on; there are no keys to scan, so it is the same as off */
    case 0xf7:
    case 0xf8:
    case 0xf9:
    case 0xfa: ps2_put(&k->out, ACK); break;
    case 0xf5: /* scanning off, defaults */
    case 0xf6: /* defaults */
        keyboard_defaults(k);
        ps2_put(&k->out, ACK);
        break;
    case 0xfe: ps2_put(&k->out, k->out.last); break;
    case 0xff:
        keyboard_defaults(k);
        k->out.count = 0;
        ps2_put(&k->out, ACK);
        ps2_put(&k->out, SELF_TEST_PASSED);
        break;
    default: ps2_put(&k->out, RESEND); break;
    }
}

/* --- mouse -------------------------------------------------------------------------------------------- */

/* Status byte of the mouse. */
#define MOUSE_SCALING 0x10u
#define MOUSE_ENABLED 0x20u
#define MOUSE_REMOTE 0x40u

static void mouse_defaults(struct ps2_mouse *m)
{
    m->status = 0;
    m->resolution = 2;
    m->rate = 100;
    m->command = 0;
}

static bool mouse_knows(uint8_t command)
{
    return command == 0xff ||
           (command >= 0xe6 && command <= 0xf6 && command != 0xed && command != 0xef && command != 0xf1);
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    *m = (struct ps2_mouse){ 0 };
    mouse_defaults(m);
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t val)
{
    uint8_t awaiting = m->command;
    m->command = 0;
    if (awaiting) {
        *(awaiting == 0xe8 ? &m->resolution : &m->rate) = val;
        ps2_put(&m->out, ACK);
        return;
    }
    if (val != 0xfe)
        ps2_put(&m->out, mouse_knows(val) ? ACK : RESEND);
    switch (val) {
    case 0xe6: m->status &= ~MOUSE_SCALING; break;
    case 0xe7: m->status |= MOUSE_SCALING; break;
    case 0xe8: /* resolution */
    case 0xf3: /* sample rate */ m->command = val; break;
    case 0xe9: /* status */
        ps2_put(&m->out, m->status);
        ps2_put(&m->out, m->resolution);
        ps2_put(&m->out, m->rate);
        break;
    case 0xea: m->status &= ~MOUSE_REMOTE; break;
    case 0xeb: /* read data: it does not move */
        ps2_put(&m->out, 0x08);
        ps2_put(&m->out, 0);
        ps2_put(&m->out, 0);
        break;
    case 0xf0: m->status |= MOUSE_REMOTE; break;
    case 0xf2: ps2_put(&m->out, 0); break; /* a standard mouse */
    case 0xf4: m->status |= MOUSE_ENABLED; break;
    case 0xf5: m->status &= ~MOUSE_ENABLED; break;
    case 0xf6: mouse_defaults(m); break;
    case 0xfe: ps2_put(&m->out, m->out.last); break;
    case 0xff:
        mouse_defaults(m);
        ps2_put(&m->out, SELF_TEST_PASSED);
        ps2_put(&m->out, 0);
        break;
    default: break;
    }
}
