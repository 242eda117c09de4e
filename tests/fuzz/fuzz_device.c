/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile guests at the chips: all behind one bus, driven by bytes. What must hold, whatever the bytes are:
 *
 * - no crash, no endless loop, no storm of deadlines;
 * - each chip's state stays inside its own ranges (it can be saved and loaded again);
 * - a machine copied by save and load goes on exactly as the one it was copied from.
 *
 * With -fsanitize=fuzzer and -DSUNDOG_LIBFUZZER the fuzzer drives; else main() does:
 *     fuzz_device [-runs=N] [-seed=N] [FILE...]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/state.h"
#include "base/tally.h"
#include "bus/bus.h"
#include "clock/clock.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define IOAPIC 0xfec00000u
#define CHIPS 10
#define STATE_MAX 4096
#define LOAD_BYTES 64 /* of the input, that a loaded state consumes; long ones read on and share the rest */

struct machine {
    struct log log;
    struct tally tally;
    struct bus *bus;
    struct clock *clk;
    struct i8259 *pic;
    struct ioapic *ioapic;
    struct i8254 *pit;
    struct rtc *rtc;
    struct uart16550 *uart;
    struct port92 *port92;
    struct i8042 *kbc;
    struct acpi_pm *pm;
    struct pci_host *pci;
    struct postcode *post;
    struct debug_exit *exit;
    struct debug_console *console;
    uint64_t said; /* hash of all that came out of the chips */
};

static noreturn_fn void fail(const char *what, const char *detail)
{
    fprintf(stderr, "fuzz_device: %s: %s\n", what, detail);
    abort();
}

/* --- the machine -------------------------------------------------------------------------------------- */

static void say(struct machine *m, uint64_t what) { m->said = (m->said ^ what) * 0x9e3779b97f4a7c15ull; }

static void set_line(void *ctx, unsigned n, bool level) { say(ctx, (uint64_t)n << 1 | level); }
static void said_byte(void *ctx, uint8_t byte) { say(ctx, 0x100u | byte); }
static void said_exit(void *ctx, uint32_t value) { say(ctx, 1ull << 40 | value); }
static void said_power_off(void *ctx) { say(ctx, 0x200); }
static void said_message(void *ctx, uint64_t addr, uint32_t data) { say(ctx, addr << 32 ^ data); }

static unsigned pin_of(unsigned irq) { return irq ? irq : 2; }

static void set_isa(void *ctx, unsigned irq, bool level)
{
    struct machine *m = ctx;
    i8259_set_irq(m->pic, irq, level);
    ioapic_set_irq(m->ioapic, pin_of(irq), level);
}

static bool timer_observed(void *ctx, unsigned irq)
{
    const struct machine *m = ctx;
    return i8259_unmasked(m->pic, irq) || ioapic_unmasked(m->ioapic, pin_of(irq));
}

static void inputs_observed(void *ctx)
{
    struct machine *m = ctx;
    if (m->pit)
        i8254_irq_observed(m->pit);
}

static void quiet(void *ctx, enum log_level level, const char *line) { (void)ctx, (void)level, (void)line; }

static struct machine *machine_create(void)
{
    struct error e = { 0 };
    struct machine *m = calloc(1, sizeof(*m));
    if (!m)
        fail("no memory", "");
    m->log.sink = quiet;
    m->tally.log = &m->log;
    m->bus = bus_create(&m->tally, &e);
    m->clk = clock_create(CLOCK_DETERMINISTIC, 1000, &e);
    clock_set_wall_base_ns(m->clk, 1700000000ull * 1000000000);
    const struct i8259_config pic = { { set_line, m, 1 }, inputs_observed, m };
    const struct ioapic_config ioapic = { GPA(IOAPIC), 0, m, said_message, inputs_observed };
    const struct uart16550_config uart = { 0x3f8, { set_isa, m, 4 }, m, said_byte, NULL };
    const struct acpi_pm_config pm = { 0x600, 5, { set_isa, m, 9 }, m, said_power_off };
    m->pic = i8259_create(m->bus, &pic, &e);
    m->ioapic = ioapic_create(m->bus, &ioapic, &e);
    m->pit = i8254_create(m->bus, m->clk, (struct line){ set_isa, m, 0 },
                          (struct irq_watch){ timer_observed, m, 0 }, &e);
    m->rtc = rtc_create(m->bus, m->clk, (struct line){ set_isa, m, 8 }, 512u << 20, 0, &e);
    m->uart = uart16550_create(m->bus, &uart, 0, &e);
    m->port92 = port92_create(m->bus, (struct line){ set_line, m, 2 }, (struct line){ set_line, m, 3 }, &e);
    m->kbc = i8042_create(m->bus, (struct line){ set_isa, m, 1 }, (struct line){ set_isa, m, 12 },
                          (struct line){ port92_set_a20, m->port92, 0 }, (struct line){ set_line, m, 4 }, &e);
    m->pm = acpi_pm_create(m->bus, m->clk, &pm, &e);
    m->pci = pci_host_create(m->bus, (struct line){ set_line, m, 5 }, &e);
    m->post = postcode_create(m->bus, &e);
    m->exit = debug_exit_create(m->bus, 0xf4, said_exit, m, &e);
    m->console = debug_console_create(m->bus, 0xe9, said_byte, m, &e);
    if (e.code)
        fail("cannot build the machine", e.text);
    clock_resume(m->clk);
    return m;
}

static void machine_destroy(struct machine *m)
{
    i8254_destroy(m->pit);
    rtc_destroy(m->rtc);
    acpi_pm_destroy(m->pm);
    if (clock_next_deadline(m->clk) != UINT64_MAX)
        fail("a deadline outlived its chip", "");
    i8259_destroy(m->pic);
    ioapic_destroy(m->ioapic);
    uart16550_destroy(m->uart);
    i8042_destroy(m->kbc);
    port92_destroy(m->port92);
    pci_host_destroy(m->pci);
    postcode_destroy(m->post);
    debug_exit_destroy(m->exit);
    debug_console_destroy(m->console);
    clock_destroy(m->clk);
    bus_destroy(m->bus);
    free(m);
}

static void state_objects(struct machine *m, struct state_object out[CHIPS])
{
    const struct state_object all[CHIPS] = {
        i8259_state_object(m->pic),     ioapic_state_object(m->ioapic),  i8254_state_object(m->pit),
        rtc_state_object(m->rtc),       uart16550_state_object(m->uart), port92_state_object(m->port92),
        i8042_state_object(m->kbc),     acpi_pm_state_object(m->pm),     pci_host_state_object(m->pci),
        postcode_state_object(m->post),
    };
    memcpy(out, all, sizeof(all));
}

static void state_loaded(struct machine *m)
{
    i8259_loaded(m->pic);
    i8254_loaded(m->pit);
    rtc_loaded(m->rtc);
    uart16550_loaded(m->uart);
    port92_loaded(m->port92);
    i8042_loaded(m->kbc);
    acpi_pm_loaded(m->pm);
}

static void reset(struct machine *m)
{
    i8259_reset(m->pic);
    ioapic_reset(m->ioapic);
    i8254_reset(m->pit);
    rtc_reset(m->rtc);
    uart16550_reset(m->uart);
    port92_reset(m->port92);
    i8042_reset(m->kbc);
    acpi_pm_reset(m->pm);
    pci_host_reset(m->pci);
    postcode_reset(m->post);
}

/* --- what must hold ----------------------------------------------------------------------------------- */

static void copy_object(const struct state_object *from, const struct state_object *to)
{
    uint8_t buf[STATE_MAX];
    struct error e = { 0 };
    if (state_saved_size(from->cls) > sizeof(buf))
        fail("state too large for this test", from->cls->name);
    size_t len = state_save(from, buf);
    if (state_load(to, buf, len, &e) != (long)len)
        fail("a chip left its own ranges", e.text);
}

static void check_ranges(struct machine *m)
{
    struct state_object objs[CHIPS];
    state_objects(m, objs);
    for (unsigned i = 0; i < CHIPS; i++)
        copy_object(&objs[i], &objs[i]);
}

static struct machine *copy_machine(struct machine *m)
{
    struct machine *c = machine_create();
    struct state_object from[CHIPS], to[CHIPS];
    clock_pause(c->clk);
    clock_set(c->clk, clock_now(m->clk));
    clock_resume(c->clk);
    state_objects(m, from);
    state_objects(c, to);
    for (unsigned i = 0; i < CHIPS; i++)
        copy_object(&from[i], &to[i]);
    bus_lock(c->bus);
    state_loaded(c);
    bus_unlock(c->bus);
    c->said = m->said;
    return c;
}

static void check_equal(struct machine *a, struct machine *b)
{
    struct state_object oa[CHIPS], ob[CHIPS];
    char where[200], line[300];
    state_objects(a, oa);
    state_objects(b, ob);
    for (unsigned i = 0; i < CHIPS; i++)
        if (state_diff(oa[i].cls, oa[i].data, ob[i].data, where, sizeof(where))) {
            snprintf(line, sizeof(line), "%s.%s", oa[i].cls->name, where);
            fail("a copied machine went another way", line);
        }
    if (clock_next_deadline(a->clk) != clock_next_deadline(b->clk))
        fail("a copied machine waits for another time", "");
    if (a->said != b->said)
        fail("a copied machine said something else", "");
}

/* --- one step ----------------------------------------------------------------------------------------- */

struct input {
    const uint8_t *p, *end;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes && in->p < in->end; i++)
        v |= (uint64_t)*in->p++ << i * 8;
    return v;
}

enum step_kind {
    PORT_READ,
    PORT_WRITE,
    MMIO_READ,
    MMIO_WRITE,
    PASS,
    OVERSLEEP,
    TYPE,
    ACK,
    END,
    LINE,
    BUTTON,
    RESET,
    LOAD,
    STEP_KINDS
};

struct step {
    enum step_kind kind;
    uint64_t addr, value;
    unsigned width;
    struct input state; /* LOAD: where the field values come from */
};

static const uint16_t ports[] = {
    0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40,  0x41,  0x42,  0x43,  0x61,  0x70,
    0x71,  0x92,  0x80,  0xed,  0x60,  0x64,  0xb2,  0xb3,  0x3f8, 0x3f9, 0x3fa, 0x3fb,
    0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x600, 0x602, 0x604, 0x608, 0xcf8, 0xcf9, 0xcfc, 0xcfe,
    0xf4,  0xe9,  0x601, 0x605, 0x60a, 0xcfb, 0x21,  0x43,  0x40,  0x71,  0x70,  0x64,
};

/* Inputs that no chip here drives. */
static const uint8_t free_lines[] = { 3, 5, 6, 7, 10, 11, 13, 14, 15, 16, 19, 23, 24, 255 };

static struct step decode(struct input *in)
{
    /* Port accesses are the commonest thing guests do. */
    static const uint8_t kinds[32] = { PORT_READ,  PORT_READ,  PORT_READ,  PORT_READ,  PORT_READ,  PORT_WRITE,
                                       PORT_WRITE, PORT_WRITE, PORT_WRITE, PORT_WRITE, PORT_WRITE, PORT_WRITE,
                                       PORT_WRITE, PORT_WRITE, MMIO_READ,  MMIO_READ,  MMIO_WRITE, MMIO_WRITE,
                                       MMIO_WRITE, PASS,       PASS,       PASS,       OVERSLEEP,  TYPE,
                                       TYPE,       ACK,        ACK,        END,        LINE,       BUTTON,
                                       RESET,      LOAD };
    struct step s = { .kind = kinds[take(in, 1) & 31] };
    uint8_t how = (uint8_t)take(in, 1);
    switch (s.kind) {
    case PORT_READ:
    case PORT_WRITE:
        s.addr = how & 0x80 && !(how & 0x40) ? take(in, 2) : ports[how % array_size(ports)];
        s.width = how >= 0xc0 ? 1u << (how & 3 ? (how & 3) - 1 : 0) : 1;
        s.value = take(in, s.width);
        break;
    case MMIO_READ:
    case MMIO_WRITE:
        s.addr = IOAPIC + (how & 0x80 ? take(in, 2) : (how & 3u) << 4);
        s.width = how & 0x40 ? (how & 7) + 1 : 4;
        s.value = take(in, how & 0x20 ? 1 : s.width);
        break;
    case PASS:
    case OVERSLEEP: s.value = take(in, 2) << how % 40; break;
    case LINE: s.addr = free_lines[how % array_size(free_lines)], s.value = how >> 7; break;
    case LOAD:
        s.addr = how % CHIPS;
        s.state = *in;
        in->p += in->end - in->p < LOAD_BYTES ? in->end - in->p : LOAD_BYTES;
        break;
    default: s.value = how; break;
    }
    return s;
}

static void run_due(struct machine *m)
{
    bus_lock(m->bus);
    clock_run_due(m->clk);
    bus_unlock(m->bus);
}

/* Time passes; of very many deadlines only the first are served in time. */
static void pass(struct machine *m, uint64_t ns)
{
    uint64_t end = clock_now(m->clk) + ns, next;
    for (unsigned i = 0; i < 100 && (next = clock_next_deadline(m->clk)) <= end; i++) {
        uint64_t before = clock_now(m->clk);
        clock_skip_to(m->clk, next);
        run_due(m);
        if (clock_next_deadline(m->clk) <= before)
            fail("a deadline fires again and again at one time", "");
    }
    clock_skip_to(m->clk, end);
}

/* A saved state from an enemy: the present one, some fields changed to any values that the table admits. */
static void load(struct machine *m, const struct step *s)
{
    struct state_object objs[CHIPS];
    struct input in = s->state;
    uint8_t fresh[STATE_MAX], buf[STATE_MAX];
    struct error e = { 0 };
    state_objects(m, objs);
    struct state_object *obj = &objs[s->addr];
    if (obj->cls->size > sizeof(fresh) || state_saved_size(obj->cls) > sizeof(buf))
        fail("state too large for this test", obj->cls->name);
    memcpy(fresh, obj->data, obj->cls->size);
    for (uint32_t i = 0; i < obj->cls->nfields; i++) {
        const struct state_field *f = &obj->cls->fields[i];
        if (take(&in, 1) & 3)
            continue;
        for (uint32_t k = 0; k < f->count; k++) {
            uint64_t v = take(&in, f->width);
            v = f->max == ~0ull ? v : v % (f->max + 1);
            memcpy(fresh + f->offset + k * f->width, &v, f->width);
        }
    }
    const struct state_object enemy = { obj->cls, fresh, obj->instance };
    size_t len = state_save(&enemy, buf);
    if (state_load(obj, buf, len, &e) > 0)
        state_loaded(m);
}

/* Does one step; what the guest would see of it. */
static uint64_t run(struct machine *m, const struct step *s)
{
    uint64_t seen = 0;
    switch (s->kind) {
    case PORT_READ: return bus_port_read(m->bus, (uint16_t)s->addr, s->width);
    case PORT_WRITE: bus_port_write(m->bus, (uint16_t)s->addr, (uint32_t)s->value, s->width); return 0;
    case MMIO_READ: return bus_mmio_read(m->bus, GPA(s->addr), s->width);
    case MMIO_WRITE: bus_mmio_write(m->bus, GPA(s->addr), s->value, s->width); return 0;
    case PASS: pass(m, s->value); return 0;
    case OVERSLEEP:
        clock_skip_to(m->clk, clock_now(m->clk) + s->value);
        run_due(m);
        return 0;
    default: break;
    }
    bus_lock(m->bus);
    switch (s->kind) {
    case TYPE:
        seen = uart16550_reserve(m->uart);
        if (seen)
            uart16550_receive(m->uart, (uint8_t)s->value);
        break;
    case ACK: seen = i8259_ack(m->pic); break;
    case END: ioapic_eoi(m->ioapic, (uint8_t)s->value); break;
    case LINE:
        i8259_set_irq(m->pic, (unsigned)s->addr, s->value);
        ioapic_set_irq(m->ioapic, (unsigned)s->addr, s->value);
        break;
    case BUTTON: acpi_pm_power_button(m->pm); break;
    case RESET: reset(m); break;
    case LOAD: load(m, s); break;
    default: break;
    }
    bus_unlock(m->bus);
    return seen;
}

/* The first byte says when the machine is copied; from then on both do the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = { data, data + len };
    unsigned copy_at = (unsigned)take(&in, 1);
    struct machine *m = machine_create(), *c = NULL;
    for (unsigned n = 0; in.p < in.end; n++) {
        if (n == copy_at)
            c = copy_machine(m);
        struct step s = decode(&in);
        uint64_t seen = run(m, &s);
        if (c && run(c, &s) != seen)
            fail("a copied machine shows something else", "");
        if (n % 8 == 0)
            check_ranges(m);
    }
    check_ranges(m);
    if (c) {
        check_equal(m, c);
        machine_destroy(c);
    }
    machine_destroy(m);
    return 0;
}

#ifndef SUNDOG_LIBFUZZER

#define LEN_MAX 1200u
#define FILE_MAX (1u << 20)

/* xorshift64* */
static uint64_t next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(FILE_MAX);
    if (!f || !data)
        fail("cannot read", path);
    size_t len = fread(data, 1, FILE_MAX, f);
    fclose(f);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
}

static void run_random(uint64_t runs, uint64_t seed)
{
    uint8_t data[LEN_MAX];
    for (uint64_t i = 0; i < runs; i++) {
        uint64_t rng = (seed + i) * 0x9e3779b97f4a7c15ull | 1;
        size_t len = next(&rng) % LEN_MAX;
        for (size_t k = 0; k < len; k++)
            data[k] = (uint8_t)(next(&rng) >> 32);
        if (i % 2048 == 0) { /* what to run again should this one end badly */
            fprintf(stderr, "\rfuzz_device: -runs=2048 -seed=%" PRIu64 " ", seed + i);
            fflush(stderr);
        }
        LLVMFuzzerTestOneInput(data, len);
    }
    fprintf(stderr, "\n");
    printf("fuzz_device: %" PRIu64 " runs from seed %" PRIu64 ", all well\n", runs, seed);
}

int main(int argc, char **argv)
{
    uint64_t runs = 10000, seed = 1;
    bool files = false;
    for (int i = 1; i < argc; i++) {
        if (sscanf(argv[i], "-runs=%" SCNu64, &runs) == 1 || sscanf(argv[i], "-seed=%" SCNu64, &seed) == 1)
            continue;
        run_file(argv[i]);
        files = true;
    }
    if (!files)
        run_random(runs, seed);
    return 0;
}

#endif
