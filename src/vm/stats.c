/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine did, as one JSON object with the same names on every engine. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/time.h"
#include "vm/vm_internal.h"

static const char *const exit_names[EXIT_CAUSE_COUNT] = {
#define X(id, name) name,
    EXIT_CAUSES(X)
#undef X
};

/* VCPU_COUNTERS by name; those called exits_* belong into the object "exits". */
static const struct {
    const char *name;
    size_t offset;
} counters[] = {
#define X(name) { #name, offsetof(struct vcpu_counters, name) },
    VCPU_COUNTERS(X)
#undef X
};

static const struct {
    const char *name;
    size_t offset;
} mmu_counters[] = {
    { "hidden_faults", offsetof(struct mmu_stats, hidden_faults) },
    { "true_faults", offsetof(struct mmu_stats, true_faults) },
    { "page_walks", offsetof(struct mmu_stats, walks) },
    { "tlb_flushes", offsetof(struct mmu_stats, flushes_all) },
    { "space_switches", offsetof(struct mmu_stats, space_switches) },
    { "space_hits", offsetof(struct mmu_stats, space_hits) },
};

/* --- text ----------------------------------------------------------------------------------------------- */

struct json {
    char *text;
    size_t len, room;
    bool failed;
    bool comma; /* something stands before in this object */
};

static void put(struct json *j, const char *fmt, ...) printf_like(2, 3);
static void put(struct json *j, const char *fmt, ...)
{
    if (j->room - j->len < 512 && !j->failed) {
        size_t room = j->room ? j->room * 2 : 8192;
        char *text = realloc(j->text, room);
        if (text) {
            j->text = text;
            j->room = room;
        }
        j->failed = !text;
    }
    if (j->failed)
        return;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(j->text + j->len, j->room - j->len, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= j->room - j->len)
        j->failed = true;
    else
        j->len += (size_t)n;
}

/* Names are ours: plain words that need no escaping. */
static void put_name(struct json *j, const char *name)
{
    put(j, "%s\"%s\": ", j->comma ? ", " : "", name);
    j->comma = true;
}

static void put_number(struct json *j, const char *name, uint64_t value)
{
    put_name(j, name);
    put(j, "%llu", (unsigned long long)value);
}

static void put_string(struct json *j, const char *name, const char *value)
{
    put_name(j, name);
    put(j, "\"%s\"", value);
}

static void put_open(struct json *j, const char *name, char bracket)
{
    put_name(j, name);
    put(j, "%c", bracket);
    j->comma = false;
}

static void put_close(struct json *j, char bracket)
{
    put(j, "%c", bracket);
    j->comma = true;
}

/* --- sums over vcpus [first, end) ----------------------------------------------------------------------- */

struct span {
    const struct vm *vm;
    unsigned first, end;
};

static uint64_t sum_exits(const struct span *s, unsigned cause)
{
    uint64_t sum = 0;
    for (unsigned i = s->first; i < s->end; i++)
        sum += s->vm->cpus[i].exits[cause];
    return sum;
}

static uint64_t sum_counter(const struct span *s, size_t offset)
{
    uint64_t sum = 0;
    for (unsigned i = s->first; i < s->end; i++)
        sum += *(const uint64_t *)((const char *)&s->vm->cpus[i].v->counters + offset);
    return sum;
}

static uint64_t sum_mmu(const struct span *s, size_t offset)
{
    uint64_t sum = 0;
    for (unsigned i = s->first; i < s->end; i++)
        sum += *(const uint64_t *)((const char *)&s->vm->cpus[i].v->mmu.stats + offset);
    return sum;
}

static uint64_t sum_instructions(const struct span *s)
{
    uint64_t sum = 0;
    for (unsigned i = s->first; i < s->end; i++)
        sum += s->vm->cpus[i].retired_before + s->vm->cpus[i].v->s.retired;
    return sum;
}

uint64_t vm_instructions(const struct vm *vm) { return sum_instructions(&(struct span){ vm, 0, vm->ncpus }); }

/* A counter's name within "exits", or NULL when it does not belong there. */
static const char *exit_part(const char *name)
{
    static const char prefix[] = "exits_";
    for (unsigned i = 0; i < sizeof(prefix) - 1; i++)
        if (name[i] != prefix[i])
            return NULL;
    return name + sizeof(prefix) - 1;
}

/* The n-th counter of the engine, summed. */
struct nth {
    unsigned n, at;
    const char *name; /* NULL: there is no such counter */
    uint64_t sum;
};

static void add_nth(void *ctx, const char *name, uint64_t value)
{
    struct nth *c = ctx;
    if (c->at++ != c->n)
        return;
    c->name = name;
    c->sum += value;
}

static struct nth sum_engine_counter(const struct span *s, unsigned n)
{
    struct nth c = { .n = n };
    for (unsigned i = s->first; i < s->end && s->vm->engine->stats; i++) {
        c.at = 0;
        s->vm->engine->stats(s->vm->cpus[i].v, add_nth, &c);
    }
    return c;
}

static void put_engine_counters(struct json *j, const struct span *s)
{
    put_open(j, "engine_counters", '{');
    for (unsigned n = 0;; n++) {
        const struct nth c = sum_engine_counter(s, n);
        if (!c.name)
            break;
        put_number(j, c.name, c.sum);
    }
    put_close(j, '}');
}

static void put_counters(struct json *j, const struct span *s)
{
    put_open(j, "exits", '{');
    for (unsigned i = 0; i < EXIT_CAUSE_COUNT; i++)
        if (i != EXIT_HLT) /* counted once, as an instruction: exits_hlt */
            put_number(j, exit_names[i], sum_exits(s, i));
    for (unsigned i = 0; i < array_size(counters); i++)
        if (exit_part(counters[i].name))
            put_number(j, exit_part(counters[i].name), sum_counter(s, counters[i].offset));
    put_close(j, '}');
    for (unsigned i = 0; i < array_size(mmu_counters); i++)
        put_number(j, mmu_counters[i].name, sum_mmu(s, mmu_counters[i].offset));
    for (unsigned i = 0; i < array_size(counters); i++)
        if (!exit_part(counters[i].name))
            put_number(j, counters[i].name, sum_counter(s, counters[i].offset));
    put_engine_counters(j, s);
}

static void put_unimplemented(void *ctx, const char *kind, uint64_t number, uint64_t count)
{
    char name[64];
    snprintf(name, sizeof(name), "%s 0x%llx", kind, (unsigned long long)number);
    put_number(ctx, name, count);
}

/* What this process holds of the host at the moment; `beside_guest_ram` is what is not the guest's. */
static void put_host_memory(struct json *j, const struct vm *vm)
{
    struct pmap_usage u;
    put_open(j, "host_memory", '{');
    if (pmap_host_usage(vm->pmap, &u)) {
        put_number(j, "rss", u.rss);
        put_number(j, "page_tables", u.page_tables);
        put_number(j, "guest_ram", u.guest);
        put_number(j, "beside_guest_ram", u.rss + u.page_tables - u.guest);
    }
    put_close(j, '}');
}

char *vm_stats_json(struct vm *vm)
{
    struct json j = { 0 };
    const struct span all = { vm, 0, vm->ncpus };
    uint64_t until = vm->ended_ns ? vm->ended_ns : host_monotonic_ns();
    double seconds = vm->started_ns ? (double)(until - vm->started_ns) / 1e9 : 0;
    uint64_t instructions = sum_instructions(&all);
    put(&j, "{");
    put_string(&j, "engine", vm->engine->name);
    put_number(&j, "cpus", vm->ncpus);
    put_number(&j, "memory", vm->cfg.memory);
    put_string(&j, "end", vm_end_name(vm->world.end));
    put_number(&j, "instructions", instructions);
    put_name(&j, "seconds");
    put(&j, "%.6f", seconds);
    put_name(&j, "start_to_first_instruction_ms");
    put(&j, "%.3f", vm->first_run_ns ? (double)(vm->first_run_ns - vm->created_ns) / 1e6 : 0);
    put_name(&j, "mips");
    put(&j, "%.3f", seconds > 0 ? (double)instructions / seconds / 1e6 : 0);
    put_host_memory(&j, vm);
    put_counters(&j, &all);
    put_open(&j, "unimplemented", '{');
    tally_each(&vm->tally, put_unimplemented, &j);
    if (atomic_load(&vm->tally.other))
        put_number(&j, "other", atomic_load(&vm->tally.other));
    put_close(&j, '}');
    put_open(&j, "vcpus", '[');
    for (unsigned i = 0; i < vm->ncpus; i++) {
        const struct span one = { vm, i, i + 1 };
        put(&j, "%s{", i ? ", " : "");
        j.comma = false;
        put_number(&j, "instructions", sum_instructions(&one));
        put_counters(&j, &one);
        put_close(&j, '}');
    }
    put_close(&j, ']');
    put(&j, "}\n");
    if (j.failed) {
        free(j.text);
        return NULL;
    }
    return j.text;
}
