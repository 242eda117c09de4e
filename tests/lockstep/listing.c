/* SPDX-License-Identifier: Apache-2.0 */
/* Listing the last instructions of a run: a ring that the interpreter's trace fills, printed when it is full. */
#include "listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disasm.h"
#include "engine/interp/interp.h"
#include "vm/vm_internal.h"

/* The parts of the state that are followed from line to line. */
struct moment {
    unsigned cpu;
    uint64_t count; /* retired by this processor */
    uint32_t mode;
    uint16_t cs;
    uint64_t rip, rflags, gpr[16];
    uint64_t cr0, cr2, cr3;
    uint8_t code[CODE_BYTES_MAX];
    unsigned code_len;
};

struct listing {
    struct moment *ring;
    unsigned room;
    uint64_t seen;
};

static void take(struct moment *m, const struct vcpu *v)
{
    const struct vcpu_state *s = &v->s;
    *m = (struct moment){ .cpu = v->index,
                          .count = s->retired,
                          .mode = v->mode,
                          .cs = s->seg[SEG_CS].sel,
                          .rip = s->rip,
                          .rflags = state_rflags(s),
                          .cr0 = s->cr0,
                          .cr2 = s->cr2,
                          .cr3 = s->cr3 };
    memcpy(m->gpr, s->gpr, sizeof(m->gpr));
}

static void on_instruction(void *ctx, const struct vcpu *v)
{
    struct listing *l = ctx;
    struct moment *m = &l->ring[l->seen++ % l->room];
    take(m, v);
    m->code_len = fetch_code((struct vcpu *)(uintptr_t)v, m->code);
}

static void print_changes(FILE *f, const struct moment *from, const struct moment *to)
{
    for (unsigned i = 0; i < 16; i++)
        if (from->gpr[i] != to->gpr[i])
            fprintf(f, " %s=%llx", register_names[i], (unsigned long long)to->gpr[i]);
    if (from->rflags != to->rflags) {
        char text[80];
        flags_text(to->rflags, text, sizeof(text));
        fprintf(f, " flags=%llx(%s)", (unsigned long long)to->rflags, text);
    }
    if (from->cr0 != to->cr0)
        fprintf(f, " cr0=%llx", (unsigned long long)to->cr0);
    if (from->cr2 != to->cr2)
        fprintf(f, " cr2=%llx", (unsigned long long)to->cr2);
    if (from->cr3 != to->cr3)
        fprintf(f, " cr3=%llx", (unsigned long long)to->cr3);
    if (from->count == to->count)
        fprintf(f, " (an exception or interrupt)");
}

static void print_moment(FILE *f, const struct moment *m, const struct moment *after)
{
    char text[160];
    unsigned bytes = mode_code_bytes(m->mode);
    disassemble(m->code, m->code_len, bytes, m->rip, text, sizeof(text));
    fprintf(f, "  %u:%llu %u-bit cpl%u %04x:%llx  %-72s ;", m->cpu, (unsigned long long)m->count, bytes * 8,
            mode_cpl(m->mode), m->cs, (unsigned long long)m->rip, text);
    if (after)
        print_changes(f, m, after);
    fputc('\n', f);
}

/* What the same processor looked like next. */
static const struct moment *next_of(const struct listing *l, uint64_t at, const struct moment *last)
{
    const struct moment *m = &l->ring[at % l->room];
    for (uint64_t i = at + 1; i < l->seen; i++)
        if (l->ring[i % l->room].cpu == m->cpu)
            return &l->ring[i % l->room];
    return &last[m->cpu];
}

static void print_ring(FILE *f, struct vm *vm, const struct listing *l)
{
    struct moment last[MAX_VCPUS];
    for (unsigned i = 0; i < vm->ncpus; i++)
        take(&last[i], vm->cpus[i].v);
    for (uint64_t i = l->seen > l->room ? l->seen - l->room : 0; i < l->seen; i++)
        print_moment(f, &l->ring[i % l->room], next_of(l, i, last));
}

int listing_print(FILE *f, const struct pair_config *cfg, const struct checkpoint *from, uint64_t until,
                  unsigned show, struct error *e)
{
    /* A pair of interpreters of which one stands idle: rare and simple. */
    struct pair_config alone = *cfg;
    alone.engine[SIDE_A] = alone.engine[SIDE_B] = interp_engine.name;
    alone.whole = true;
    alone.echo = false;
    struct pair *p = pair_create(&alone, from, e);
    if (!p)
        return e->code ? e->code : -ENOMEM;
    struct vm *vm = p->side[SIDE_A].vm;
    struct listing l = { .ring = calloc(show, sizeof(struct moment)), .room = show };
    if (l.ring && show) {
        vm_run_until(vm, until > 2ull * show ? until - 2ull * show : 0);
        for (unsigned i = 0; i < vm->ncpus; i++)
            interp_set_trace(vm->cpus[i].v, on_instruction, &l);
        vm_run_until(vm, until);
        print_ring(f, vm, &l);
    }
    free(l.ring);
    pair_destroy(p);
    return 0;
}
