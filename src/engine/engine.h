/* SPDX-License-Identifier: Apache-2.0 */
/* The one interface behind which virtual processors' instructions get executed. */
#ifndef SUNDOG_ENGINE_ENGINE_H
#define SUNDOG_ENGINE_ENGINE_H

#include "base/error.h"
#include "cpu/vcpu.h"

/* What a probe measured. */
struct engine_report {
    bool usable;
    double mips;      /* measured million guest instructions per second of a small loop, 0 = not measured */
    char why[160];    /* why not usable / what was found */
    char advice[160]; /* what to do */
};

/* Which parts of the state an engine keeps elsewhere while running (KVM, translator): written back by
 * sync(). */
/* clang-format off */
enum engine_sync {
    SYNC_GPR = 1, SYNC_SEGMENTS = 2, SYNC_SYSTEM = 4, SYNC_FPU = 8, SYNC_LAPIC = 16, SYNC_ALL = 31
};
/* clang-format on */

struct engine_ops {
    const char *name;
    const char *summary;
    bool owns_irqchip; /* interrupt controllers live in the engine (KVM) */
    void (*probe)(struct engine_report *report);
    int (*vcpu_create)(struct vcpu *v, struct error *e);
    void (*vcpu_destroy)(struct vcpu *v);
    /* Runs until v->s.retired == until_count exactly, or a request, HLT, shutdown; the state in v->s is
     * precise at an instruction boundary on return (general registers always; the rest after sync()).
     * Exits that need completion (KVM I/O) are completed at re-entry. Delivers events itself through
     * cpu_take_events(). */
    enum exit_cause (*run)(struct vcpu *v, uint64_t until_count);
    /* Makes v->s complete for the given parts / tells that v->s was changed from outside. */
    void (*sync)(struct vcpu *v, unsigned parts);
    void (*state_changed)(struct vcpu *v);
    /* REQ_REVOKE arrived or the world is stopped: cached translations of these physical pages are void. On
     * the vcpu's thread. */
    void (*drop_physical)(struct vcpu *v, uint64_t first_page, uint64_t count, unsigned rights);
};

/* The ordered table of engines of this build, best first; NULL-terminated. */
extern const struct engine_ops *const engine_table[];
/* By name, or the first usable for "auto"; NULL with a message. */
const struct engine_ops *engine_find(const char *name, struct error *e);

#endif
