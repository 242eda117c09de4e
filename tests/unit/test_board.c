/* SPDX-License-Identifier: Apache-2.0 */
/* The wiring: what a guest does at one chip's ports comes out at the right line, callback or address. */
#include "boot_kit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

struct machine {
    struct boot_kit kit; /* its configuration and log; the memory is the board's own here */
    struct pmap *pmap;
    struct bus *bus;
    struct clock *clk;
    struct input_queue *inputs;
    struct tally tally;
    struct board *b;
    unsigned power_offs, resets, exits, nmis, messages, rooms;
    uint32_t exit_value, message;
    bool intr;
    char serial[64], debug[64];
    size_t serial_len, debug_len;
};

static void on_power_off(void *ctx) { ((struct machine *)ctx)->power_offs++; }
static void on_reset(void *ctx) { ((struct machine *)ctx)->resets++; }
static void on_pic(void *ctx, bool level) { ((struct machine *)ctx)->intr = level; }
static void on_nmi(void *ctx) { ((struct machine *)ctx)->nmis++; }
static void on_room(void *ctx) { ((struct machine *)ctx)->rooms++; }

static void on_exit_value(void *ctx, uint32_t value)
{
    struct machine *m = ctx;
    m->exits++;
    m->exit_value = value;
}

static void on_serial(void *ctx, const uint8_t *data, size_t len)
{
    struct machine *m = ctx;
    for (size_t i = 0; i < len && m->serial_len < sizeof(m->serial) - 1; i++)
        m->serial[m->serial_len++] = (char)data[i];
}

static void on_debug(void *ctx, uint8_t byte)
{
    struct machine *m = ctx;
    if (m->debug_len < sizeof(m->debug) - 1)
        m->debug[m->debug_len++] = (char)byte;
}

static void on_message(void *ctx, uint64_t addr, uint32_t data)
{
    struct machine *m = ctx;
    (void)addr;
    m->messages++;
    m->message = data;
}

static struct board *make(struct machine *m, unsigned cpus)
{
    const struct board_callbacks cb = { .ctx = m,
                                        .power_off = on_power_off,
                                        .reset = on_reset,
                                        .debug_exit = on_exit_value,
                                        .serial_output = on_serial,
                                        .serial_room = on_room,
                                        .debug_output = on_debug,
                                        .pic_line = on_pic,
                                        .deliver_msi = on_message,
                                        .nmi = on_nmi };
    return board_create(&m->kit.cfg, cpus, 64 * MIB, m->pmap, m->bus, m->clk, m->inputs, &m->tally,
                        &m->kit.log, &cb, &m->kit.e);
}

/* All but the board. */
static void open_parts(struct machine *m)
{
    *m = (struct machine){ .kit.cfg = {
                               .append = "", .serial = true, .debug_exit = true, .debug_exit_port = 0xf4 } };
    m->tally.log = &m->kit.log;
    m->pmap = pmap_create(NULL);
    m->bus = bus_create(&m->tally, NULL);
    m->clk = clock_create(CLOCK_DETERMINISTIC, 1000, NULL);
    m->inputs = input_create(NULL);
}

static void open_machine(struct machine *m)
{
    open_parts(m);
    m->b = make(m, 2);
    if (!m->b)
        fail_msg("%s", m->kit.e.text);
    bus_lock(m->bus);
    board_reset(m->b);
    bus_unlock(m->bus);
}

static void close_machine(struct machine *m)
{
    board_destroy(m->b);
    input_destroy(m->inputs);
    clock_destroy(m->clk);
    bus_destroy(m->bus);
    pmap_destroy(m->pmap);
}

static void out(struct machine *m, uint16_t port, uint32_t value) { bus_port_write(m->bus, port, value, 1); }
static uint8_t in(struct machine *m, uint16_t port) { return (uint8_t)bus_port_read(m->bus, port, 1); }

static void drain(struct machine *m)
{
    bus_lock(m->bus);
    input_drain(m->inputs, (struct input_stamp){ 0, 0 });
    bus_unlock(m->bus);
}

static void run_due(struct machine *m, uint64_t ns)
{
    clock_skip_to(m->clk, ns);
    bus_lock(m->bus);
    clock_run_due(m->clk);
    bus_unlock(m->bus);
}

/* Vectors 0x20 and 0x28, all masked but `mask`'s zeros (Intel 8259A data sheet). */
static void init_pic(struct machine *m, uint8_t mask1, uint8_t mask2)
{
    const uint8_t words[][2] = { { 0x11, 0x11 }, { 0x20, 0x28 }, { 0x04, 0x02 }, { 0x01, 0x01 } };
    for (unsigned i = 0; i < 4; i++) {
        out(m, i ? 0x21 : 0x20, words[i][0]);
        out(m, i ? 0xa1 : 0xa0, words[i][1]);
    }
    out(m, 0x21, mask1);
    out(m, 0xa1, mask2);
}

static void ioapic_write(struct machine *m, uint32_t reg, uint32_t value)
{
    bus_mmio_write(m->bus, GPA(0xfec00000), reg, 4);
    bus_mmio_write(m->bus, GPA(0xfec00010), value, 4);
}

/* Channel 0, rate generator, 1000 Hz (Intel 8254 data sheet). */
static void start_pit(struct machine *m)
{
    out(m, 0x43, 0x34);
    out(m, 0x40, 1193 & 0xff);
    out(m, 0x40, 1193 >> 8);
}

static void timer_reaches_both_controllers(void **state)
{
    struct machine m;
    (void)state;
    open_machine(&m);
    init_pic(&m, 0xfe, 0xff);
    start_pit(&m);
    assert_false(m.intr);
    run_due(&m, 1500000);
    assert_true(m.intr);
    assert_int_equal(board_ack_pic(m.b), 0x20);
    assert_int_equal(m.messages, 0);
    out(&m, 0x20, 0x20);
    /* IRQ 0 is on pin 2, edge, vector 0x30. */
    out(&m, 0x21, 0xff);
    ioapic_write(&m, 0x10 + 2 * 2, 0x30);
    for (unsigned i = 0; i < 4; i++)
        run_due(&m, 3000000 + i * 1000000);
    assert_true(m.messages > 0);
    assert_int_equal(m.message & 0xff, 0x30);
    assert_false(m.intr);
    close_machine(&m);
}

static void serial_port(void **state)
{
    struct machine m;
    (void)state;
    open_machine(&m);
    init_pic(&m, 0xef, 0xff);
    out(&m, 0x3fc, 0x08);
    out(&m, 0x3f9, 0x01);
    for (const char *s = "hello"; *s; s++)
        out(&m, 0x3f8, (uint8_t)*s);
    assert_string_equal(m.serial, "hello");
    /* Input comes by the queue, then IRQ 4. */
    unsigned taken = 0;
    while (taken < 100 && board_serial_input(m.b, (uint8_t)('a' + taken)))
        taken++;
    assert_true(taken >= 1 && taken < 100);
    assert_false(in(&m, 0x3fd) & 1);
    drain(&m);
    assert_true(m.intr);
    assert_int_equal(board_ack_pic(m.b), 0x24);
    for (unsigned i = 0; i < taken; i++)
        assert_int_equal(in(&m, 0x3f8), 'a' + i);
    assert_false(in(&m, 0x3fd) & 1);
    assert_true(m.rooms > 0);
    assert_true(board_serial_input(m.b, 'z'));
    close_machine(&m);
}

static void exits(void **state)
{
    struct machine m;
    (void)state;
    open_machine(&m);
    out(&m, 0xf4, 0x21);
    assert_int_equal(m.exits, 1);
    assert_int_equal(m.exit_value, 0x21);
    out(&m, 0xe9, 'x');
    assert_string_equal(m.debug, "x");
    assert_int_equal(m.resets, 0);
    out(&m, 0xcf9, 0x02);
    out(&m, 0xcf9, 0x06);
    assert_int_equal(m.resets, 1);
    out(&m, 0x64, 0xfe);
    assert_int_equal(m.resets, 2);
    assert_int_equal(m.power_offs, 0);
    /* SLP_TYP 5 and SLP_EN in PM1 control. */
    bus_port_write(m.bus, 0x604, 5 << 10 | 1 << 13, 2);
    assert_int_equal(m.power_offs, 1);
    close_machine(&m);
}

static void power_button(void **state)
{
    struct machine m;
    (void)state;
    open_machine(&m);
    init_pic(&m, 0xfb, 0xfd);
    out(&m, 0xb2, 0xf1);                     /* ACPI on */
    bus_port_write(m.bus, 0x602, 1 << 8, 2); /* PWRBTN_EN */
    board_power_button(m.b);
    assert_false(m.intr);
    drain(&m);
    assert_true(m.intr);
    assert_int_equal(board_ack_pic(m.b), 0x29);
    close_machine(&m);
}

static void a20(void **state)
{
    struct machine m;
    (void)state;
    open_machine(&m);
    assert_true(pmap_get_a20(m.pmap));
    out(&m, 0x92, in(&m, 0x92) & ~2u & ~1u);
    assert_false(pmap_get_a20(m.pmap));
    /* The keyboard controller's output port is the other way. */
    out(&m, 0x64, 0xd1);
    out(&m, 0x60, 0xdf);
    assert_true(pmap_get_a20(m.pmap));
    out(&m, 0x92, 0);
    bus_lock(m.bus);
    board_reset(m.b);
    bus_unlock(m.bus);
    assert_true(pmap_get_a20(m.pmap));
    close_machine(&m);
}

/* Saved, loaded into another machine, and the same there. */
static void state_goes_over(void **state)
{
    struct machine a, b;
    struct state_object objects[16], others[16];
    (void)state;
    open_machine(&a);
    open_machine(&b);
    init_pic(&a, 0xee, 0xff);
    start_pit(&a);
    out(&a, 0x3f9, 0x01);
    out(&a, 0x3fc, 0x08);
    assert_true(board_serial_input(a.b, 'q'));
    drain(&a);
    unsigned n = board_state_objects(a.b, objects, array_size(objects));
    assert_int_equal(n, 10);
    assert_int_equal(board_state_objects(b.b, others, array_size(others)), n);
    for (unsigned i = 0; i < n; i++) {
        size_t len = state_saved_size(objects[i].cls);
        uint8_t *buf = malloc(len);
        assert_int_equal(state_save(&objects[i], buf), len);
        assert_true(state_load(&others[i], buf, len, NULL) > 0);
        free(buf);
    }
    bus_lock(b.bus);
    board_state_loaded(b.b);
    bus_unlock(b.bus);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(state_hash(&objects[i], 1), state_hash(&others[i], 1));
    assert_true(b.intr);
    assert_int_equal(board_ack_pic(b.b), 0x24);
    assert_int_equal(in(&b, 0x3f8), 'q');
    out(&b, 0x20, 0x20);
    run_due(&b, 2500000);
    assert_int_equal(board_ack_pic(b.b), 0x20);
    close_machine(&a);
    close_machine(&b);
}

static void tables_are_there_after_boot(void **state)
{
    struct machine m;
    struct boot_cpu_state start;
    uint8_t file[8192], bytes[8];
    static const uint8_t code[64];
    (void)state;
    open_parts(&m);
    const struct kit_segment segment = { MIB, MIB, 64, code, sizeof(code) };
    const struct kit_elf elf = { .segment = &segment, .segments = 1, .pvh = true, .pvh_entry = MIB };
    char *path = kit_file(file, kit_make_elf(file, &elf));
    m.kit.cfg.kernel = path;
    m.b = make(&m, 2);
    assert_non_null(m.b);
    /* Twice, as after a reset. */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(board_boot(m.b, &start, &m.kit.e), 0);
        assert_int_equal(ram_read(m.pmap, GPA(0xe0000), bytes, 8), 0);
        assert_memory_equal(bytes, "RSD PTR ", 8);
        assert_int_equal(ram_read(m.pmap, GPA(0xf0000), bytes, 4), 0);
        assert_memory_equal(bytes, "_MP_", 4);
        assert_int_equal(ram_read(m.pmap, GPA(0x9fd00), bytes, 4), 0);
        assert_memory_equal(bytes, "FACS", 4);
        assert_int_equal(ram_read(m.pmap, GPA(0x40e), bytes, 2), 0);
        assert_int_equal(get_le16(bytes), 0x9fc0);
        assert_int_equal(start.rip, MIB);
    }
    kit_close_file(path);
    close_machine(&m);
}

static void refuses_processors(void **state)
{
    struct machine m;
    (void)state;
    open_parts(&m);
    assert_null(make(&m, 0));
    assert_null(make(&m, 9));
    assert_non_null(strstr(m.kit.e.text, "--cpus"));
    close_machine(&m);
}

static void refuses_a_taken_port(void **state)
{
    struct machine m;
    (void)state;
    open_parts(&m);
    m.kit.cfg.debug_exit_port = 0x3f8;
    assert_null(make(&m, 1));
    assert_non_null(strstr(m.kit.e.text, "debug-exit,port=0x3f8"));
    close_machine(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timer_reaches_both_controllers),
        cmocka_unit_test(serial_port),
        cmocka_unit_test(exits),
        cmocka_unit_test(power_button),
        cmocka_unit_test(a20),
        cmocka_unit_test(state_goes_over),
        cmocka_unit_test(tables_are_there_after_boot),
        cmocka_unit_test(refuses_processors),
        cmocka_unit_test(refuses_a_taken_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
