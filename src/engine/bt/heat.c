/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of user code are hot. Where user code is when some slices of time are over, the page gets the heat of them all; heat
 * makes it
 *
 *   warm ──HEAT_FULL──► translated anew, by superblocks ──HEAT_VIEW──► and once more, by views
 *
 * Code that is merely warm is translated by short units: most of it never gets hot, and what a unit goes on with after a branch
 * is there once more where that branch's own target is met.
 */
#include "engine/bt/bt.h"

#include "host/time.h"

#define SLICE (1ull << 21) /* time stamp counts */
#define SLICE_NS 600000u   /* of this thread's time: a slice that the host gave to others is none */
#define SLICES_MAX 8u      /* that count at once */
#define COOLING 256u       /* slices after which those before them count half */

static void cool(struct bt_heat *h)
{
    for (unsigned i = 0; i < array_size(h->page); i++)
        h->page[i].slices /= 2;
}

/* Where it gets hot its units are left, wherever they are. */
static void sample(struct bt *b, unsigned slices)
{
    struct vcpu *v = b->v;
    uint64_t lin = (v->sf[SEG_CS].base + v->s.rip) & v->lin_mask;
    const uint8_t *host = tlb_find_code(&v->mmu, lin);
    if (!host)
        return;
    struct bt_page_heat *h = bt_heat_of(b, host);
    unsigned now = h->slices + slices < UINT8_MAX ? h->slices + slices : UINT8_MAX;
    h->slices = b->heat.last = (uint8_t)now;
    enum bt_form form = now >= HEAT_VIEW ? FORM_VIEW : now >= HEAT_FULL ? FORM_FULL : FORM_SHORT;
    if (form > h->form) {
        h->form = (uint8_t)form;
        bt_cache_drop_page(b, host);
        bt_cache_forget_found(b, host);
        b->n.hot_pages++;
    }
}

void bt_heat_look(struct bt *b)
{
    struct bt_heat *h = &b->heat;
    uint64_t now = __builtin_ia32_rdtsc();
    if (now - h->since < SLICE)
        return;
    uint64_t cpu_ns = host_thread_cpu_ns(), slices = (cpu_ns - h->cpu_ns) / SLICE_NS;
    h->since = now;
    if (slices == 0)
        return;
    h->cpu_ns = cpu_ns;
    bool user = vcpu_cpl(b->v) == 3;
    if (!user && b->views.user_met)
        return;
    slices = slices < SLICES_MAX ? slices : SLICES_MAX;
    if (h->slices % COOLING + slices >= COOLING)
        cool(h);
    h->slices += (uint32_t)slices;
    if (user)
        sample(b, (unsigned)slices);
}
