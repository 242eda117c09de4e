/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was learnt about single instructions while they ran, and how a unit is made anew by it. Every instruction is innocent
 * until proven guilty, and is let off again:
 *
 *   its check fails, the interpreter does it ──often──► called: its handler is called, without a check
 *                                                          └── plain memory many times in a row ──► checked again
 *   a check that it shares lies across two pages ──often──► there is a unit from it on that shares none, for such times
 *                          ──very often──► alone: shares its check with no other ─────────────┐
 *   its accesses hop between pages, spots miss ────────► guilty: checked by the TLB ────────┤
 *   its view faults for what cannot be shown ──────────► blamed: without the view ──────────┴── some time ──► as before
 *
 * Each time it comes back it has to be met more often, or stays longer: so the work of translating anew is bounded by what
 * made it necessary.
 */
#include "engine/bt/bt.h"

#include "engine/interp/block.h"
#include "host/time.h"

#define STRIKES 8u         /* failed checks for the first sentence; twice as many for each further one */
#define STRIKE_ERA 256u    /* bails; who causes fewer than one in an era costs nothing that counts */
#define SPLIT_STRIKES 4u   /* shared checks that lay across two pages until there is a unit without any */
#define ALONE_STRIKES 512u /* and until it shares none wherever it is entered */
#define TERMS_MAX 5u       /* doublings */
#define INNOCENT 16u       /* plain accesses in a row that end a call */
#define FIRST_TERM_NS 500000000ull
#define FIRST_BLAME_NS 10000000ull /* without a view: to find out costs little */

static bool on(const struct bt *b) { return pass_on(b, ENGINE_PASS_ADAPT); }

static struct bt_lesson *lesson_of(struct bt *b, const uint8_t *code)
{
    return &b->lessons[bt_lesson_slot(code)];
}

static void set_verdict(struct bt *b, const uint8_t *code, enum bt_verdict verdict, bool stands)
{
    unsigned slot = bt_lesson_slot(code);
    uint64_t *word = &b->verdicts[verdict][slot / 64], bit = BIT(slot % 64);
    *word = stands ? *word | bit : *word & ~bit;
}

static void next_term(struct bt *b, const uint8_t *code)
{
    struct bt_lesson *l = lesson_of(b, code);
    if (l->terms < TERMS_MAX)
        l->terms++;
    l->strikes = l->innocent = l->guilt = 0;
    set_verdict(b, code, VERDICT_GUILTY, false);
}

void bt_adapt_strays(struct bt *b, const uint8_t *code)
{
    if (!on(b))
        return;
    set_verdict(b, code, VERDICT_STRAYS, true);
    b->n.far_strays++;
    bt_cache_drop_code(b, code);
}

/* --- sentences for a time ------------------------------------------------------------------------------------ */

/* Lets `code` off when its time is up, or earlier when the list is full. */
static void let_off(struct bt *b, struct bt_sentence *s)
{
    set_verdict(b, s->code, VERDICT_ALONE, false);
    lesson_of(b, s->code)->view_blame = 0;
    next_term(b, s->code);
    bt_cache_drop_code(b, s->code);
    b->n.let_off++;
    s->code = NULL;
}

static void sentence(struct bt *b, const uint8_t *code, uint64_t first_ns)
{
    struct bt_sentence *s = &b->sentences[b->next_sentence++ % SENTENCES];
    if (s->code)
        let_off(b, s);
    *s = (struct bt_sentence){ code, host_monotonic_ns() + (first_ns << lesson_of(b, code)->terms) };
    if (!b->next_release || s->until < b->next_release)
        b->next_release = s->until;
}

void bt_adapt_release(struct bt *b)
{
    if (!b->next_release)
        return;
    uint64_t now = host_monotonic_ns(), next = 0;
    if (now < b->next_release)
        return;
    for (struct bt_sentence *s = b->sentences; s < b->sentences + SENTENCES; s++) {
        if (s->code && s->until <= now)
            let_off(b, s);
        if (s->code && (!next || s->until < next))
            next = s->until;
    }
    b->next_release = next;
}

/* --- checks that fail ---------------------------------------------------------------------------------------- */

/* So long after the last strike that a new row begins. */
static bool is_rare(const struct bt *b, struct bt_lesson *l)
{
    uint16_t now = (uint16_t)(b->n.exits_bail / STRIKE_ERA), since = (uint16_t)(now - l->struck);
    l->struck = now;
    return since > 1;
}

void bt_adapt_failed(struct bt *b, const uint8_t *code)
{
    struct bt_lesson *l = lesson_of(b, code);
    if (is_rare(b, l))
        l->strikes = 0;
    if (!on(b) || ++l->strikes < STRIKES << l->terms)
        return;
    l->strikes = 0;
    set_verdict(b, code, VERDICT_CALLED, true);
    b->n.made_calls++;
    bt_cache_drop_code(b, code);
}

bool bt_adapt_crossed(struct bt *b, const uint8_t *code)
{
    struct bt_lesson *l = lesson_of(b, code);
    if (!on(b) || bt_adapt_is(b, code, VERDICT_ALONE))
        return false;
    if (++l->strikes < ALONE_STRIKES << l->terms)
        return l->strikes >= SPLIT_STRIKES;
    l->strikes = 0;
    set_verdict(b, code, VERDICT_ALONE, true);
    sentence(b, code, FIRST_TERM_NS);
    b->n.made_alone++;
    bt_cache_drop_code(b, code);
    return true;
}

void bt_adapt_blamed(struct bt *b, const uint8_t *code)
{
    if (on(b))
        sentence(b, code, FIRST_BLAME_NS);
    bt_cache_drop_code(b, code);
}

bool bt_adapt_called(struct bt *b, const uint8_t *code, bool plain)
{
    struct bt_lesson *l = lesson_of(b, code);
    if (!plain) {
        l->innocent = 0;
        return false;
    }
    if (++l->innocent < INNOCENT)
        return false;
    set_verdict(b, code, VERDICT_CALLED, false);
    next_term(b, code);
    bt_cache_drop_code(b, code);
    b->n.let_off++;
    return true;
}

/* --- what is worth translating ------------------------------------------------------------------------------------- */

#define REWRITTEN_WARM 10u
#define REWRITTEN_MAX 4u      /* doublings of it */
#define FORGET_REWRITES 1024u /* each so many of them count half */

unsigned bt_adapt_warm(const struct bt *b, const uint8_t *code)
{
    unsigned rewritten = b->lessons[bt_lesson_slot(code)].rewritten, runs = b->warm[vcpu_cpl(b->v) == 3];
    if (rewritten && runs)
        runs = (runs > REWRITTEN_WARM ? runs : REWRITTEN_WARM) << rewritten;
    return runs < UINT8_MAX ? runs : UINT8_MAX;
}

/* Code that is written anew all the time costs as much as the interpreter takes for it, and no translation. */
void bt_adapt_rewritten(struct bt *b, const uint8_t *code)
{
    unsigned slot = bt_lesson_slot(code);
    if (++b->n.units_rewritten % FORGET_REWRITES == 0)
        for (unsigned i = 0; i < array_size(b->lessons); i++)
            b->lessons[i].rewritten /= 2;
    *block_heat(&b->interp, code) = 0;
    if (on(b) && b->lessons[slot].rewritten < REWRITTEN_MAX)
        b->lessons[slot].rewritten++;
}

/* --- spots --------------------------------------------------------------------------------------------------- */

/* Samples after which an access is checked by the TLB. */
#define GUILTY 4u
/* Misses so close together cost more than checking by the TLB each time. */
#define DENSE_CYCLES 150u
/* After so many samples whoever is not guilty yet is innocent again. */
#define FORGIVE 32u

void bt_adapt_judge(struct bt *b, const uint8_t *code)
{
    uint64_t now = __builtin_ia32_rdtsc(), since = now - b->sampled;
    struct bt_lesson *l = lesson_of(b, code);
    b->sampled = now;
    if (++b->samples % FORGIVE == 0)
        for (unsigned i = 0; i < array_size(b->lessons); i++)
            if (b->lessons[i].guilt < GUILTY)
                b->lessons[i].guilt = 0;
    if (since > (uint64_t)SPOT_SAMPLE * DENSE_CYCLES || ++l->guilt != GUILTY)
        return;
    set_verdict(b, code, VERDICT_GUILTY, true);
    sentence(b, code, FIRST_TERM_NS);
    bt_cache_drop_code(b, code);
    b->n.spots_guilty++;
}
