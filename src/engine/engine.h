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

/* Passes of the translator that can be left out, to find which one is to blame. */
/* clang-format off */
#define ENGINE_PASSES(X) \
    X(MERGE, "merge", "one check of an address for several accesses") \
    X(CHAIN, "chain", "jumps from block to block without a look-up") \
    X(INDIRECT, "indirect", "indirect jumps and returns looked up in the code itself") \
    X(STRIP, "strip", "loops whose addresses are checked once for many rounds") \
    X(SUPERBLOCK, "superblock", "blocks that go on behind a branch not taken") \
    X(SIMD, "simd", "MMX and SSE instructions copied") \
    X(STRING, "string", "string instructions done a page at a time") \
    X(SYSTEM, "system", "short paths for privileged instructions") \
    X(ADAPT, "adapt", "instructions that keep trapping translated anew") \
    X(VIEW, "view", "user memory shown at host addresses, checked by the host's paging")
/* clang-format on */
enum engine_pass {
#define X(id, name, summary) ENGINE_PASS_##id,
    ENGINE_PASSES(X)
#undef X
        ENGINE_PASS_COUNT
};

/* How an engine is to be built; read by vcpu_create, kept alive by the VM. All zero: the defaults. */
struct engine_config {
    uint64_t code_cache;   /* bytes of host code kept a vcpu; 0 = the engine's default */
    uint32_t passes_off;   /* 1 << enum engine_pass: left out */
    unsigned warm;         /* executions of a block before it is translated, plus one; 0 = the default */
    unsigned verify_every; /* verify each n-th emitted block; 0 = the build's default, 1 = all; or below */
    int trace_fd;          /* > 0: guest code beside host code is written here */
    bool perf_map;         /* write /tmp/perf-PID.map */
    bool count;            /* retired instructions are counted, always */
};

/* Values of verify_every beside 0 and 1. */
#define ENGINE_VERIFY_SAMPLE 1024u /* 2 % of the time for translating */
#define ENGINE_VERIFY_OFF (~0u)

/* "merge,chain" to the bits of passes_off. -EINVAL with a message that lists the names. */
int engine_parse_passes(const char *list, uint32_t *passes, struct error *e);
/* The opposite, separated by `between`; "" for none, cut off when `len` is too small. */
void engine_format_passes(uint32_t passes, const char *between, char *out, size_t len);

struct engine_ops {
    const char *name;
    const char *summary;
    bool owns_irqchip;   /* interrupt controllers live in the engine (KVM) */
    bool ignores_config; /* nothing in struct engine_config means anything to it */
    size_t vcpu_room;    /* bytes it wants directly behind struct vcpu: vcpu_alloc() */
    void (*probe)(struct engine_report *report);
    int (*vcpu_create)(struct vcpu *v, const struct engine_config *cfg, struct error *e);
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
    /* Bytes of this page that had been claimed as code were written (its code_version moved). Called like
     * drop_physical, but the writer does not wait for it. NULL: the engine looks at code_version itself. */
    void (*code_changed)(struct vcpu *v, uint64_t page);
    /* Hands the engine's own counters of this vcpu to `put`, always the same ones in the same order; names are
     * plain words. World stopped or VM ended. May be NULL. */
    void (*stats)(const struct vcpu *v, void (*put)(void *ctx, const char *name, uint64_t value), void *ctx);
};

/* The ordered table of engines of this build, best first; NULL-terminated. */
extern const struct engine_ops *const engine_table[];
/* By name, or the first usable for "auto"; NULL with a message. */
const struct engine_ops *engine_find(const char *name, struct error *e);

#endif
