/* SPDX-License-Identifier: Apache-2.0 */
/* The open-addressed table behind tally.h. */
#include "base/tally.h"

#include <stdatomic.h>

static const char *const kind_names[TALLY_KIND_COUNT] = {
#define X(id, name) name,
    TALLY_KINDS(X)
#undef X
};

void tally_add(struct tally *t, enum tally_kind kind, uint64_t number)
{
    uint64_t key = ((uint64_t)kind + 1) << 56 | (number & 0x00ffffffffffffffull);
    unsigned start = (unsigned)((key * 0x9e3779b97f4a7c15ull) >> 56);
    for (unsigned i = 0; i < TALLY_SLOTS; i++) {
        struct tally_slot *slot = &t->slots[(start + i) % TALLY_SLOTS];
        uint64_t seen = atomic_load(&slot->key);
        if (seen == 0 && atomic_compare_exchange_strong(&slot->key, &seen, key)) {
            log_line(t->log, LOG_INFO, "not implemented: %s 0x%llx", kind_names[kind],
                     (unsigned long long)number);
            seen = key;
        }
        if (seen == key) {
            atomic_fetch_add_explicit(&slot->count, 1, memory_order_relaxed);
            return;
        }
    }
    atomic_fetch_add(&t->other, 1);
}

void tally_each(struct tally *t, void (*visit)(void *ctx, const char *kind, uint64_t number, uint64_t count),
                void *ctx)
{
    for (unsigned i = 0; i < TALLY_SLOTS; i++) {
        uint64_t key = atomic_load(&t->slots[i].key);
        if (key)
            visit(ctx, kind_names[(key >> 56) - 1], key & 0x00ffffffffffffffull,
                  atomic_load(&t->slots[i].count));
    }
}
