/* SPDX-License-Identifier: Apache-2.0 */
/* The bench that chips are tested on. */
#include "chip_kit.h"

#include <stdlib.h>
#include <string.h>

static void quiet(void *ctx, enum log_level level, const char *line) { (void)ctx, (void)level, (void)line; }

void chip_kit_open(struct chip_kit *k)
{
    struct error e = { 0 };
    memset(k, 0, sizeof(*k));
    k->log.sink = quiet;
    k->tally.log = &k->log;
    k->bus = bus_create(&k->tally, &e);
    k->clk = clock_create(CLOCK_DETERMINISTIC, 1000, &e);
    assert_non_null(k->bus);
    assert_non_null(k->clk);
    clock_set_wall_base_ns(k->clk, 951782399 * SEC); /* 2000-02-28 23:59:59, a Monday */
    clock_resume(k->clk);
}

void chip_kit_close(struct chip_kit *k)
{
    bus_destroy(k->bus);
    clock_destroy(k->clk);
}

static void probe_set(void *ctx, unsigned n, bool level)
{
    struct probe *p = ctx;
    (void)n;
    p->rises += level && !p->level;
    p->level = level;
}

struct line probe_line(struct probe *p) { return (struct line){ probe_set, p, 0 }; }

uint8_t in8(struct chip_kit *k, uint16_t port) { return (uint8_t)bus_port_read(k->bus, port, 1); }
void out8(struct chip_kit *k, uint16_t port, uint8_t val) { bus_port_write(k->bus, port, val, 1); }
uint32_t in32(struct chip_kit *k, uint16_t port) { return bus_port_read(k->bus, port, 4); }
void out32(struct chip_kit *k, uint16_t port, uint32_t val) { bus_port_write(k->bus, port, val, 4); }

static void run_due(struct chip_kit *k)
{
    bus_lock(k->bus);
    clock_run_due(k->clk);
    bus_unlock(k->bus);
}

void pass(struct chip_kit *k, uint64_t ns)
{
    uint64_t end = clock_now(k->clk) + ns, next;
    while ((next = clock_next_deadline(k->clk)) <= end) {
        clock_skip_to(k->clk, next);
        run_due(k);
    }
    clock_skip_to(k->clk, end);
}

void oversleep(struct chip_kit *k, uint64_t ns)
{
    clock_skip_to(k->clk, clock_now(k->clk) + ns);
    run_due(k);
}

static void add(void *ctx, const char *kind, uint64_t number, uint64_t count)
{
    (void)kind, (void)number;
    *(uint64_t *)ctx += count;
}

uint64_t tally_total(struct chip_kit *k)
{
    uint64_t sum = 0;
    tally_each(&k->tally, add, &sum);
    return sum;
}

void copy_state(const struct state_object *from, const struct state_object *to)
{
    struct error e = { 0 };
    size_t len = state_saved_size(from->cls);
    uint8_t *buf = malloc(len);
    assert_int_equal(state_save(from, buf), len);
    assert_int_equal(state_load(to, buf, len, &e), len);
    free(buf);
    assert_true(state_hash(from, 1) == state_hash(to, 1));
}
