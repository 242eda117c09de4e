/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing where two processors ended. */
#include "agree.h"

#include <stdio.h>
#include <string.h>

/* The host's own kernel is mapped in the upper half, so its page faults there say "present"; the guest has nothing there. */
static bool same_page_fault(const struct test_result *h, const struct test_result *o)
{
    uint32_t present = h->cr2 >> 63 ? 1 : 0;
    return h->cr2 == o->cr2 && ((h->error ^ o->error) & ~present) == 0;
}

/* Linux reports a fetch or access outside the canonical range as a #GP with error 0 and keeps the old CR2. */
static bool same_fault(const struct test_result *h, const struct test_result *o)
{
    if (h->vector != o->vector)
        return false;
    if (h->vector == VECTOR_DONE)
        return true;
    return h->vector == 14 ? same_page_fault(h, o) : h->error == o->error;
}

static bool same_fp(const struct fp_image *h, const struct fp_image *o)
{
    return h->fcw == o->fcw && h->fsw == o->fsw && h->ftw == o->ftw && h->mxcsr == o->mxcsr &&
           !memcmp(h->st, o->st, sizeof(h->st)) && !memcmp(h->xmm, o->xmm, sizeof(h->xmm)) &&
           !memcmp(h->ymmh, o->ymmh, sizeof(h->ymmh)) && !memcmp(h->zmmh, o->zmmh, sizeof(h->zmmh)) &&
           !memcmp(h->zmm16, o->zmm16, sizeof(h->zmm16)) && !memcmp(h->k, o->k, sizeof(h->k));
}

const char *ends_differ(const struct test_result *host, const struct test_result *ours, uint32_t masked)
{
    const uint64_t status = 0x8d5, system = 0x40400; /* AC, DF */
    if (!same_fault(host, ours))
        return "fault";
    if (host->out.rip != ours->out.rip)
        return "rip";
    if (memcmp(host->out.gpr, ours->out.gpr, sizeof(host->out.gpr)))
        return "registers";
    if ((host->out.rflags ^ ours->out.rflags) & ((status & ~(uint64_t)masked) | system))
        return "flags";
    return same_fp(&host->out.fp, &ours->out.fp) ? NULL : "fpu";
}

static void print_end(const char *who, const struct test_result *r)
{
    fprintf(stderr,
            "    %s: vector %u error %#x cr2 %#llx rip %#llx flags %#llx fcw %#x fsw %#x ftw %#x mxcsr %#x\n",
            who, r->vector, r->error, (unsigned long long)r->cr2, (unsigned long long)r->out.rip,
            (unsigned long long)r->out.rflags, r->out.fp.fcw, r->out.fp.fsw, r->out.fp.ftw, r->out.fp.mxcsr);
}

static void print_vector(const char *name, unsigned n, const uint8_t *before, const uint8_t *host,
                         const uint8_t *ours, unsigned size)
{
    const uint8_t *row[3] = { before, host, ours };
    static const char *const what[3] = { "before", "then", "but" };
    if (!memcmp(host, ours, size))
        return;
    fprintf(stderr, "    %s%u:", name, n);
    for (unsigned i = 0; i < 3; i++) {
        fprintf(stderr, " %s ", what[i]);
        for (unsigned k = size; k-- > 0;)
            fprintf(stderr, "%02x", row[i][k]);
    }
    fputc('\n', stderr);
}

void ends_print(const struct cpu_image *in, const struct test_result *host, const struct test_result *ours,
                const char *host_name, const char *our_name)
{
    print_end(host_name, host);
    print_end(our_name, ours);
    for (unsigned i = 0; i < 16; i++)
        if (host->out.gpr[i] != ours->out.gpr[i])
            fprintf(stderr, "    r%u: %#llx -> %s %#llx, %s %#llx\n", i, (unsigned long long)in->gpr[i],
                    host_name, (unsigned long long)host->out.gpr[i], our_name,
                    (unsigned long long)ours->out.gpr[i]);
    for (unsigned i = 0; i < 16; i++)
        print_vector("xmm", i, in->fp.xmm[i], host->out.fp.xmm[i], ours->out.fp.xmm[i], 16);
    for (unsigned i = 0; i < 16; i++) {
        print_vector("ymm-high", i, in->fp.ymmh[i], host->out.fp.ymmh[i], ours->out.fp.ymmh[i], 16);
        print_vector("zmm-high", i, in->fp.zmmh[i], host->out.fp.zmmh[i], ours->out.fp.zmmh[i], 32);
        print_vector("zmm", 16 + i, in->fp.zmm16[i], host->out.fp.zmm16[i], ours->out.fp.zmm16[i], 64);
    }
    for (unsigned i = 0; i < 8; i++)
        print_vector("k", i, (const uint8_t *)&in->fp.k[i], (const uint8_t *)&host->out.fp.k[i],
                     (const uint8_t *)&ours->out.fp.k[i], 8);
    for (unsigned i = 0; i < 8; i++)
        print_vector("st", i, in->fp.st[i], host->out.fp.st[i], ours->out.fp.st[i], 10);
}

void memory_print(const struct test_case *c, const struct test_result *host, const struct test_result *ours)
{
    for (unsigned i = 0; i < WINDOW_SIZE; i++)
        if (host->memory[i] != ours->memory[i]) {
            fprintf(stderr, "    memory at %#llx: %02x -> host %02x ours %02x\n", DATA_BASE + c->window + i,
                    c->memory[i], host->memory[i], ours->memory[i]);
            return;
        }
}
