/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: dependent loads in working sets of L1, L2 and RAM size. */
#include "bench.h"

#include <stdlib.h>

enum { LINE = 64, LOADS = 1024 };

struct line {
    struct line *next;
    uint8_t rest[LINE - sizeof(void *)];
};

static struct line *head;

/* One ring through all lines in random order (Sattolo), so that no prefetcher sees a pattern. */
static void ring(size_t bytes)
{
    size_t count = bytes / LINE;
    uint64_t seed = 19;
    struct line *lines = aligned_alloc(4096, bytes);
    need(lines != NULL, "memory for the pointer chase");
    for (size_t i = 0; i < count; i++)
        lines[i].next = &lines[i];
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = (size_t)((unsigned __int128)rng_next(&seed) * i >> 64);
        struct line *t = lines[i].next;
        lines[i].next = lines[j].next;
        lines[j].next = t;
    }
    head = lines;
}

static void setup_l1(void) { ring(16 << 10); }
static void setup_l2(void) { ring(256 << 10); }
static void setup_ram(void) { ring(64 << 20); }

static uint64_t run_chase(uint64_t n)
{
    struct line *p = head;
    while (n--) {
        for (int i = 0; i < LOADS; i += 4) {
            p = p->next;
            p = p->next;
            p = p->next;
            p = p->next;
        }
    }
    opaque(p);
    return 0;
}

const struct workload memory_workloads[] = {
    { "chase_l1", "int", "load", LOADS, .setup = setup_l1, .run = run_chase },
    { "chase_l2", "int", "load", LOADS, .setup = setup_l2, .run = run_chase },
    { "chase_ram", "ram", "load", LOADS, .setup = setup_ram, .run = run_chase },
    { 0 },
};
