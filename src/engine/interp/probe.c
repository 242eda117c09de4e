/* SPDX-License-Identifier: Apache-2.0 */
/* What the interpreter's speed is on this host: a small loop on a processor made for the purpose. */
#include "engine/interp/interp.h"

#include "host/time.h"
#include "memory/pmap.h"

#include <stdio.h>
#include <stdlib.h>

#define PROBE_RAM (64u << 10)
#define PROBE_INSNS 400000u

void interp_probe(struct engine_report *report);

/* 32-bit code: sum and hash of a small array, over and over. */
static const uint8_t probe_code[] = {
    0xbe, 0x00, 0x20, 0x00, 0x00, /* 0: mov esi, 0x2000 */
    0xb9, 0x00, 0x04, 0x00, 0x00, /*    mov ecx, 0x400 */
    0x8b, 0x06,                   /* 1: mov eax, [esi] */
    0x01, 0xc3,                   /*    add ebx, eax */
    0x31, 0xda,                   /*    xor edx, ebx */
    0xc1, 0xc2, 0x05,             /*    rol edx, 5 */
    0x89, 0x56, 0x04,             /*    mov [esi + 4], edx */
    0x83, 0xc6, 0x04,             /*    add esi, 4 */
    0x49,                         /*    dec ecx */
    0x75, 0xee,                   /*    jnz 1b */
    0xeb, 0xe2,                   /*    jmp 0b */
};

/* Flat 32-bit protected mode without paging, at address 0. */
static void probe_state(struct vcpu *v)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->s.seg[i] =
            (struct segment){ .sel = 8, .attr = SA_P | SA_S | SA_DB | SA_G | 3, .limit = 0xffffffff };
    v->s.seg[SEG_CS].attr |= 8;
    v->s.cr0 |= CR0_PE;
    v->s.rip = 0;
    vcpu_refresh(v);
}

static int measure(struct vcpu *v, struct engine_report *report, struct error *e)
{
    int err = vcpu_init(v, 0, e);
    if (err || (err = interp_engine.vcpu_create(v, NULL, e)))
        return err;
    probe_state(v);
    interp_engine.run(v, PROBE_INSNS / 8); /* decoded and warm */
    uint64_t count = v->s.retired, start = host_monotonic_ns();
    enum exit_cause cause = interp_engine.run(v, count + PROBE_INSNS);
    uint64_t ns = host_monotonic_ns() - start;
    interp_engine.vcpu_destroy(v);
    if (cause != EXIT_COUNT || v->s.retired != count + PROBE_INSNS)
        return error_set(e, -1, "its test loop did not run as it should");
    report->mips = ns ? PROBE_INSNS * 1000.0 / (double)ns : 0;
    return 0;
}

void interp_probe(struct engine_report *report)
{
    struct error e = { 0 };
    struct vcpu *v = calloc(1, sizeof(*v));
    struct pmap *pm = pmap_create(&e);
    struct clock *clk = clock_create(CLOCK_REAL_TIME, 0, &e);
    *report = (struct engine_report){ 0 };
    if (v && pm && clk && pmap_add(pm, REGION_RAM, GPA(0), PROBE_RAM, &e) == 0 &&
        pmap_load(pm, GPA(0), probe_code, sizeof(probe_code)) == 0) {
        v->pmap = pm;
        v->clock = clk;
        report->usable = measure(v, report, &e) == 0;
    }
    if (report->usable)
        snprintf(report->why, sizeof(report->why), "runs everywhere");
    else
        snprintf(report->why, sizeof(report->why), "%.150s", e.text[0] ? e.text : "no memory");
    if (clk)
        clock_destroy(clk);
    if (pm)
        pmap_destroy(pm);
    free(v);
}
