/* SPDX-License-Identifier: Apache-2.0 */
/* A PS/2 keyboard and mouse as far as kernels ask who they are; nobody types on them (IBM PS/2 Technical
 * Reference). */
#ifndef SUNDOG_DEVICE_PS2_H
#define SUNDOG_DEVICE_PS2_H

#include "base/types.h"

#define PS2_QUEUE_SIZE 16u

/* Bytes on their way to the controller. */
struct ps2_queue {
    uint8_t bytes[PS2_QUEUE_SIZE];
    uint8_t head, count;
    uint8_t last; /* sent before, for "resend" */
};

struct ps2_keyboard {
    struct ps2_queue out;
    uint8_t command; /* awaits its parameter, 0 = none */
    uint8_t scan_set;
};

struct ps2_mouse {
    struct ps2_queue out;
    uint8_t command;
    uint8_t status, resolution, rate;
};

/* For the owner's field table; `q` is the path to a struct ps2_queue. */
#define PS2_QUEUE_FIELDS(type, q) \
    STATE_ARRAY(type, q.bytes), STATE_FIELD_MAX(type, q.head, PS2_QUEUE_SIZE - 1), \
        STATE_FIELD_MAX(type, q.count, PS2_QUEUE_SIZE), STATE_FIELD(type, q.last)

/* Adds a byte; a full queue drops it, as devices do whose bytes nobody takes. */
void ps2_put(struct ps2_queue *q, uint8_t byte);
/* Takes the oldest byte of a queue that is not empty. */
uint8_t ps2_take(struct ps2_queue *q);

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_mouse_reset(struct ps2_mouse *m);
/* A byte from the controller. `translated`: the controller will change what comes back as if it were scan
 * codes of set 2. */
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t val, bool translated);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t val);

#endif
