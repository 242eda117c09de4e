/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verifier's way through a unit: decode all of it, see where each jump goes, then follow every way from every entry until
 * nothing new is learned. Whatever is reached by a jump is joined with what is known there from other ways.
 */
#include "engine/bt/verify.h"

#include <string.h>

#include "engine/bt/verify_rules.h"
#include "host/memory.h"

#define INSNS_MAX 8192u
#define CODE_BYTES_MAX 65536u
#define STATES_MAX 2048u
#define STEPS_MAX 400000u /* ways are finite; this is for our own mistakes */
#define SEAL_BYTES 11u    /* what bt_cache_drop_page() writes over the entry for jump tables */
#define NONE 0xffffu
#define NOWHERE UINT32_MAX

struct verifier {
    struct verify_insn insns[INSNS_MAX];
    unsigned count;
    uint16_t at[CODE_BYTES_MAX];  /* offset to number of the instruction, NONE: in the middle of one */
    uint16_t state_of[INSNS_MAX]; /* where ways meet: its state, NONE: no jump comes here */
    uint16_t link_of[INSNS_MAX];  /* the jump of which link, NONE */
    uint16_t site_of[INSNS_MAX];  /* where the host goes on after a fault: number, NONE */
    bool visited[INSNS_MAX];
    struct verify_state states[STATES_MAX];
    bool known[STATES_MAX]; /* something came here */
    unsigned nstates;
    uint16_t todo[INSNS_MAX];
    bool waits[INSNS_MAX];
    unsigned ntodo, steps;
    unsigned next; /* instruction at which the present way goes on */
    struct rules rules;
    const struct verify_unit *u;
    const char *broken;
    unsigned broken_at;
};

bool verify_available(void) { return true; }
struct verifier *verifier_create(void) { return host_pages_alloc(sizeof(struct verifier)); }
void verifier_free(struct verifier *w) { host_pages_free(w, sizeof(*w)); }

/* The first rule broken is kept. */
static bool breaks(struct verifier *w, unsigned i, const char *rule)
{
    if (rule && !w->broken) {
        w->broken = rule;
        w->broken_at = i;
    }
    return w->broken;
}

/* --- the map --------------------------------------------------------------------------------------------------- */

/* Offsets within the unit: the body's, then the stubs'. */
static uint32_t unit_bytes(const struct verify_unit *u) { return u->body.size + u->stubs.size; }

/* Of an offset in the cache; NOWHERE: outside of the unit. */
static uint32_t offset_of(const struct verify_unit *u, uint64_t at)
{
    if (at - u->body.at < u->body.size)
        return (uint32_t)(at - u->body.at);
    if (at - u->stubs.at < u->stubs.size)
        return u->body.size + (uint32_t)(at - u->stubs.at);
    return NOWHERE;
}

static uint32_t end_of(const struct verify_insn *in) { return in->off + in->len; }

static void decode_part(struct verifier *w, const struct verify_part *p, uint32_t begin)
{
    for (uint32_t off = 0; off < p->size && !w->broken;) {
        if (w->count == INSNS_MAX) {
            breaks(w, 0, "more instructions than a unit can have");
            return;
        }
        struct verify_insn *in = &w->insns[w->count];
        const char *rule = verify_decode(in, p->code + off, p->size - off, w->u->exec + p->at + off, false);
        in->off = begin + off;
        w->at[in->off] = (uint16_t)w->count;
        w->state_of[w->count] = w->site_of[w->count] = w->link_of[w->count] = NONE;
        w->visited[w->count] = w->waits[w->count] = false;
        w->count++;
        breaks(w, w->count - 1, rule);
        off += in->len;
    }
}

static void decode_all(struct verifier *w)
{
    w->count = 0;
    decode_part(w, &w->u->body, 0);
    decode_part(w, &w->u->stubs, w->u->body.size);
}

/* A way leads to this offset within the unit: gives the place a state. */
static void meet(struct verifier *w, unsigned from, uint32_t off)
{
    unsigned i = off < unit_bytes(w->u) ? w->at[off] : NONE;
    if (i == NONE) {
        breaks(w, from, "a way to where no instruction of the unit begins");
        return;
    }
    if (w->state_of[i] != NONE)
        return;
    if (w->nstates == STATES_MAX) {
        breaks(w, from, "more ways than a unit can have");
        return;
    }
    w->known[w->nstates] = false;
    w->state_of[i] = (uint16_t)w->nstates++;
}

/* Where a jump goes. */
static uint32_t target_of(const struct verifier *w, const struct verify_insn *in)
{
    return offset_of(w->u, in->target - w->u->exec);
}

/* Where a call's failure comes back; it stays within its part. */
static uint32_t failure_of(const struct verifier *w, const struct verify_insn *in)
{
    uint32_t off = end_of(in) + 5;
    return in->off < w->u->body.size && off >= w->u->body.size ? NOWHERE : off;
}

static const struct verify_gate *gate_at(const struct verifier *w, uint64_t address)
{
    for (unsigned n = 0; n < w->u->ngates; n++)
        if (w->u->gates[n].address == address)
            return &w->u->gates[n];
    return NULL;
}

/* Gates that return 5 bytes further when C says so. */
static bool can_fail(enum verify_gate_kind kind)
{
    return kind == VERIFY_FILL || kind == VERIFY_SPOT || kind == VERIFY_SPOTS || kind == VERIFY_LOOKUP ||
           kind == VERIFY_SMAP || kind == VERIFY_FAR;
}

/* A call within the unit, for the sake of its way back. */
static void map_return(struct verifier *w, unsigned i)
{
    uint32_t to = target_of(w, &w->insns[i]);
    unsigned pop = to < unit_bytes(w->u) ? w->at[to] : NONE;
    if (pop == NONE || w->insns[pop].op != OP_POP) {
        breaks(w, i, "a call of something that is no gate");
        return;
    }
    meet(w, i, end_of(&w->insns[i]));
}

static void map_branch(struct verifier *w, unsigned i)
{
    const struct verify_insn *in = &w->insns[i];
    const struct verify_gate *g = in->relative ? gate_at(w, in->target) : NULL;
    if (in->op == OP_CALL && !g && in->relative) {
        map_return(w, i);
    } else if (in->op == OP_CALL) {
        if (!g || verify_gate_is_left(g->kind))
            breaks(w, i, "a call of something that is no gate");
        else if (can_fail(g->kind))
            meet(w, i, failure_of(w, in));
    } else if (in->relative && !(in->op == OP_JMP && g)) {
        meet(w, i, target_of(w, in));
    }
}

static void map_sites(struct verifier *w)
{
    const struct verify_unit *u = w->u;
    for (unsigned n = 0; n < u->nsites; n++) {
        uint32_t at = offset_of(u, u->sites[n].at), to = offset_of(u, u->sites[n].exit);
        if (at >= u->body.size || w->at[at] == NONE || (n && u->sites[n - 1].at >= u->sites[n].at)) {
            breaks(w, 0, "a place of a host fault outside of the unit's body, or out of order");
            return;
        }
        w->site_of[w->at[at]] = (uint16_t)n;
        meet(w, w->at[at], to);
    }
    for (unsigned i = 0; i < w->count; i++)
        if (w->insns[i].may_fault && w->site_of[i] == NONE)
            breaks(w, i, "may fault on the host, and nobody waits for it");
}

static void map_links(struct verifier *w)
{
    const struct verify_unit *u = w->u;
    for (unsigned n = 0; n < u->nlinks; n++) {
        const struct bt_link *l = &u->links[n];
        if (l->far) /* by a slot, which the code names */
            continue;
        uint32_t end = offset_of(u, l->field) + 4;
        unsigned i = 0;
        while (i < w->count && end_of(&w->insns[i]) != end)
            i++;
        if (i == w->count || !w->insns[i].relative || w->insns[i].op == OP_CALL || w->insns[i].len < 5) {
            breaks(w, 0, "a link that is no jump of the unit");
            return;
        }
        if (w->insns[i].target - u->exec != l->stub)
            breaks(w, i, "a link that does not begin at its stub");
        if (w->link_of[i] != NONE)
            breaks(w, i, "two links at one jump");
        w->link_of[i] = (uint16_t)n;
    }
}

/* A dropped unit gets a jump over its entry: nothing else may lead there. */
static void map_seal(struct verifier *w)
{
    uint32_t from = offset_of(w->u, w->u->entry_jump);
    if (from >= w->u->body.size || from + SEAL_BYTES > w->u->body.size)
        breaks(w, 0, "no room for the seal");
    for (unsigned i = 0; i < w->count && !w->broken; i++)
        if (w->state_of[i] != NONE && w->insns[i].off > from && w->insns[i].off < from + SEAL_BYTES)
            breaks(w, i, "a way into what the seal overwrites");
}

/* Spots whose every filling is for writing. That each call says what stands in front of it is checked on the way. */
static void map_spots(struct verifier *w)
{
    const struct verify_unit *u = w->u;
    for (unsigned n = 0; n < u->nspots; n++)
        w->rules.spot_writes[u->first_spot + n] = true;
    for (unsigned i = 1; i < w->count; i++) {
        const struct verify_insn *in = &w->insns[i], *before = in - 1;
        const struct verify_gate *g = in->op == OP_CALL && in->relative ? gate_at(w, in->target) : NULL;
        if (!g || g->kind != VERIFY_SPOT || before->op != OP_MOV || before->o[1].kind != OPR_IMM)
            continue;
        uint32_t info = (uint32_t)before->o[1].val, spot = info >> FILL_SPOT_SHIFT & (SPOTS - 1);
        if (!(info & FILL_WRITE) && spot < SPOTS)
            w->rules.spot_writes[spot] = false;
    }
}

static void draw_map(struct verifier *w)
{
    const struct verify_unit *u = w->u;
    if (u->body.size > CODE_BYTES_MAX / 2 || u->stubs.size > CODE_BYTES_MAX / 2 ||
        u->first_spot + (uint64_t)u->nspots > SPOTS) {
        breaks(w, 0, "larger than a unit can be");
        return;
    }
    memset(w->at, 0xff, unit_bytes(u) * sizeof(w->at[0]));
    decode_all(w);
    meet(w, 0, offset_of(u, u->entry_s));
    meet(w, 0, offset_of(u, u->entry_e));
    meet(w, 0, offset_of(u, u->entry_jump));
    for (unsigned i = 0; i < w->count && !w->broken; i++)
        if (w->insns[i].op == OP_JCC || w->insns[i].op == OP_JMP || w->insns[i].op == OP_CALL)
            map_branch(w, i);
    if (!w->broken)
        map_sites(w);
    if (!w->broken)
        map_links(w);
    if (!w->broken)
        map_seal(w);
    if (!w->broken)
        map_spots(w);
}

/* --- the ways -------------------------------------------------------------------------------------------------- */

/* The state arrives at instruction i, where ways meet. */
static void arrive(struct verifier *w, unsigned i, const struct verify_state *st)
{
    unsigned n = w->state_of[i];
    bool news = true;
    if (w->known[n])
        news = state_join(&w->states[n], st, &w->rules.symbols, i);
    else
        w->states[n] = *st;
    w->known[n] = true;
    if (news && !w->waits[i]) {
        w->waits[i] = true;
        w->todo[w->ntodo++] = (uint16_t)i;
    }
}

static void arrive_at(struct verifier *w, uint32_t off, const struct verify_state *st)
{
    arrive(w, w->at[off], st);
}

/* Does the way for this fault end at an exit of that kind? It is straight, behind what saves the flags. */
static bool site_ends(const struct verifier *w, unsigned site, enum bt_exit_kind kind)
{
    int64_t info = -1;
    for (unsigned i = w->at[offset_of(w->u, w->u->sites[site].exit)]; i < w->count; i++) {
        const struct verify_insn *in = &w->insns[i];
        const struct verify_operand *o = in->o;
        if (in->op == OP_JMP || in->op == OP_JCC || in->op == OP_CALL)
            return in->op == OP_JMP && info >= 0 && EXIT_KIND((uint32_t)info) == kind;
        if (in->op == OP_MOV && o[0].kind == OPR_GPR && o[0].reg == T1)
            info = o[1].kind == OPR_IMM ? o[1].val : -1;
    }
    return false;
}

/* An access by a view may fault: then the interpreter has to see it, or the request that was polled for. */
static const char *view_site(const struct verifier *w, unsigned i)
{
    const struct view_access *x = &w->rules.view;
    if (!x->operand)
        return NULL;
    if (w->site_of[i] == NONE)
        return "an access by a view that may fault, and nobody waits for it";
    return site_ends(w, w->site_of[i], x->table && !x->inside ? BT_LOOK : BT_VIEW)
               ? NULL
               : "an access by a view whose fault leads elsewhere";
}

/* Linked, the jump tells its target these facts. */
static bool links(struct verifier *w, unsigned i, const struct verify_state *st)
{
    unsigned n = w->link_of[i];
    return n == NONE || !breaks(w, i, view_facts(&w->rules, st, &w->u->links[n].facts));
}

/* A call whose way back is noted: the way goes on behind that, and the one back with what a return brings. */
static bool predicted_call(struct verifier *w, unsigned i, struct verify_state *st)
{
    const struct verify_insn *call = &w->insns[i];
    unsigned pop = w->at[target_of(w, call)];
    struct verify_state back;
    if (breaks(w, i, return_call(&w->rules, st, &w->insns[pop])))
        return false;
    return_entry(&w->rules, &back);
    arrive_at(w, end_of(call), &back);
    w->next = pop + 1;
    return true;
}

/* PUSH of a way back. The way ends. */
static void predicted_return(struct verifier *w, unsigned i, const struct verify_state *st)
{
    bool ends = i + 1 < w->count && w->insns[i + 1].op == OP_RET && w->state_of[i + 1] == NONE &&
                end_of(&w->insns[i]) == w->insns[i + 1].off;
    breaks(w, i, ends ? return_leave(&w->rules, st, &w->insns[i]) : "a push without a return behind it");
}

/* A jump or call. True: the way goes on behind it with *st. */
static bool take_branch(struct verifier *w, unsigned i, struct verify_state *st)
{
    const struct verify_insn *in = &w->insns[i];
    if (!in->relative) {
        breaks(w, i, in->op == OP_JMP ? rules_indirect_jump(&w->rules, st, in) : "a call that is not direct");
        return false;
    }
    const struct verify_gate *g = gate_at(w, in->target);
    if (in->op == OP_JMP) {
        if (!links(w, i, st))
            return false;
        if (g)
            breaks(w, i, rules_exit(&w->rules, st, g->kind));
        else
            arrive_at(w, target_of(w, in), st);
        return false;
    }
    struct verify_state other = *st;
    if (in->op == OP_CALL && !g)
        return predicted_call(w, i, st);
    if (return_open(st)) {
        breaks(w, i, "a way out between a return address and its way back");
        return false;
    }
    if (in->op == OP_JCC) {
        rules_branch(&other, in->cond, true);
        rules_branch(st, in->cond, false);
        if (!links(w, i, &other))
            return false;
        arrive_at(w, target_of(w, in), &other);
        return true;
    }
    if (can_fail(g->kind) && !breaks(w, i, rules_call(&w->rules, &other, g->kind, true, i)))
        arrive_at(w, failure_of(w, in), &other);
    return !breaks(w, i, rules_call(&w->rules, st, g->kind, false, i));
}

/* One instruction. False: the way ends here. */
static bool step(struct verifier *w, unsigned i, struct verify_state *st)
{
    const struct verify_insn *in = &w->insns[i];
    if (w->visited[i])
        state_forget(st, &w->rules.symbols, i);
    w->visited[i] = true;
    bool leaves = w->site_of[i] != NONE || in->op == OP_JCC || in->op == OP_JMP || in->op == OP_CALL;
    bool calls = in->op == OP_CALL && w->site_of[i] == NONE;
    if (leaves && !calls && return_open(st)) {
        breaks(w, i, "a way out between a return address and its way back");
        return false;
    }
    if (in->op == OP_PUSH) {
        predicted_return(w, i, st);
        return false;
    }
    if (leaves && string_open(st)) {
        breaks(w, i, "a way out while guest registers hold host addresses");
        return false;
    }
    if (w->site_of[i] != NONE)
        arrive_at(w, offset_of(w->u, w->u->sites[w->site_of[i]].exit), st);
    if (in->op == OP_JCC || in->op == OP_JMP || in->op == OP_CALL)
        return take_branch(w, i, st);
    if (breaks(w, i, rules_apply(&w->rules, st, in, i)))
        return false;
    return !breaks(w, i, view_site(w, i));
}

static void follow(struct verifier *w, unsigned i)
{
    struct verify_state st = w->states[w->state_of[i]];
    for (;;) {
        w->next = i + 1;
        if (++w->steps > STEPS_MAX)
            breaks(w, i, "ways without end");
        if (w->broken || !step(w, i, &st))
            return;
        i = w->next;
        if (i == w->count || w->insns[i].off == w->u->body.size) {
            breaks(w, i - 1, "a way that runs off the end");
            return;
        }
        if (w->state_of[i] != NONE) {
            if (return_open(&st))
                breaks(w, i, "a way in between a return address and its way back");
            if (string_open(&st))
                breaks(w, i, "a way in while guest registers hold host addresses");
            arrive(w, i, &st);
            return;
        }
    }
}

static void enter(struct verifier *w, uint32_t entry, bool guest_flags, bool linear)
{
    struct verify_state st;
    rules_entry(&st, guest_flags, linear);
    view_entry(&w->rules, &st, linear);
    arrive_at(w, offset_of(w->u, entry), &st);
}

bool verify_unit(struct verifier *w, const struct verify_unit *u, struct verify_result *r)
{
    w->u = w->rules.u = u;
    w->broken = NULL;
    w->nstates = w->ntodo = w->steps = 0;
    w->rules.symbols.count = 0;
    w->rules.symbols.full = false;
    *r = (struct verify_result){ 0 };
    draw_map(w);
    if (!w->broken) {
        enter(w, u->entry_s, false, false);
        enter(w, u->entry_e, true, false);
        enter(w, u->entry_jump, false, true);
    }
    while (w->ntodo && !w->broken) {
        unsigned i = w->todo[--w->ntodo];
        w->waits[i] = false;
        follow(w, i);
    }
    if (!w->broken)
        return true;
    r->rule = w->broken;
    r->at = w->broken_at < w->count ? w->insns[w->broken_at].off : 0;
    const struct verify_part *p = r->at < u->body.size ? &u->body : &u->stubs;
    uint32_t off = r->at - (p == &u->body ? 0 : u->body.size);
    if (off < p->size)
        verify_format(p->code + off, p->size - off, u->exec + p->at + off, r->text, sizeof(r->text));
    return false;
}
