/* SPDX-License-Identifier: Apache-2.0 */
/* Between the translator and the verifier: which units are verified, with what, and what happens to one that is refused. */
#include "engine/bt/verify.h"

#include <errno.h>
#include <stdio.h>

#include "base/bits.h"
#include "engine/interp/block.h"

#ifdef VERIFY_ALL_CODE
#define DEFAULT_EVERY 1u
#else
#define DEFAULT_EVERY ENGINE_VERIFY_SAMPLE
#endif

#define BYTES_PER_LINE 128u
#define LINES_MAX 16u

static struct verify_result failure(const char *rule) { return (struct verify_result){ .rule = rule }; }

/* A line says what is wrong, the next ones show the bytes: with the gates' and the code's addresses they can be decoded anew. */
static void report(struct bt *b, const char *what, const struct verify_result *r, const uint8_t *code,
                   uint32_t size)
{
    struct log *log = b->v->log;
    log_line(log, LOG_ERROR, "the translator's own code was refused: %s: %s at +%#x: %s", what, r->rule,
             r->at, r->text);
    uint32_t room = LINES_MAX * BYTES_PER_LINE,
             from = r->at > room / 2 ? (r->at - room / 2) & ~(BYTES_PER_LINE - 1) : 0;
    for (uint32_t off = from; off < size && off < from + room; off += BYTES_PER_LINE) {
        char hex[2 * BYTES_PER_LINE + 1] = "";
        for (uint32_t i = 0; i < BYTES_PER_LINE && off + i < size; i++)
            snprintf(hex + 2 * i, 3, "%02x", code[off + i]);
        log_line(log, LOG_ERROR, "  +0x%04x %s", off, hex);
    }
}

/* Refused code never runs. Where every unit was to be verified the machine stops, too: somebody is looking for this. A sample leaves
 * the code to the interpreter. */
static void refused(struct bt *b)
{
    if (b->verify_every == 1)
        b->v->internal_error = "the verifier refused code that the translator made";
}

/* --- what there is to go to -------------------------------------------------------------------------------------- */

static unsigned gates_of(const struct bt *b, struct verify_gate out[VERIFY_GATES])
{
    const struct {
        uint32_t at;
        enum verify_gate_kind kind;
    } all[VERIFY_GATES] = {
        { b->gate_exit_s, VERIFY_EXIT },     { b->gate_exit_e, VERIFY_EXIT_E },
        { b->gate_fill, VERIFY_FILL },       { b->gate_spot, VERIFY_SPOT },
        { b->gate_spots, VERIFY_SPOTS },     { b->gate_unlink, VERIFY_UNLINK },
        { b->gate_simd, VERIFY_SIMD },       { b->gate_call, VERIFY_CALL },
        { b->gate_lookup, VERIFY_LOOKUP },   { b->gate_lookup16, VERIFY_LOOKUP },
        { b->gate_x87, VERIFY_X87 },         { b->gate_simd_level, VERIFY_SIMD_LEVEL },
        { b->gate_tsc, VERIFY_TSC },         { b->gate_smap, VERIFY_SMAP },
        { b->gate_syscall, VERIFY_SYSCALL }, { b->gate_sysret, VERIFY_SYSRET },
        { b->gate_account, VERIFY_ACCOUNT }, { b->gate_far, VERIFY_FAR },
        { b->gate_nowhere, VERIFY_NOWHERE },
    };
    unsigned n = 0;
    for (unsigned i = 0; i < VERIFY_GATES; i++)
        if (all[i].at)
            out[n++] = (struct verify_gate){ bt_exec_addr(b, all[i].at), all[i].kind };
    return n;
}

void bt_verify_describe_gates(const struct bt *b, struct verify_gate gates[VERIFY_GATES],
                              uint64_t functions[VERIFY_FUNCTIONS], struct verify_gates *g)
{
    bool (*const called[])(struct vcpu * v, uint64_t lin, uint32_t info) = {
        bt_fill,       bt_spot_fill, bt_spots_reset, bt_unlink,       bt_lookup,   bt_x87_ready,
        bt_simd_level, bt_tsc,       bt_smap,        bt_account_gate, bt_far_link,
    };
    _Static_assert(array_size(called) + 1 == VERIFY_FUNCTIONS, "and the one of instructions");
    for (unsigned i = 0; i < array_size(called); i++)
        functions[i] = (uint64_t)(uintptr_t)called[i];
    functions[array_size(called)] = (uint64_t)(uintptr_t)bt_call_out;
    *g = (struct verify_gates){
        .code = b->code.write,
        .exec = bt_exec_addr(b, 0),
        .size = b->gates_end,
        .enter = b->gate_enter,
        .gates = gates,
        .ngates = gates_of(b, gates),
        .functions = functions,
        .nfunctions = VERIFY_FUNCTIONS,
    };
}

static bool gates_are_good(struct bt *b)
{
    struct verify_gate gates[VERIFY_GATES];
    uint64_t functions[VERIFY_FUNCTIONS];
    struct verify_gates g;
    struct verify_result r;
    bt_verify_describe_gates(b, gates, functions, &g);
    if (verify_gates(b->verifier, &g, &r))
        return true;
    report(b, "the gates", &r, g.code, g.size);
    return false;
}

/* --- which units --------------------------------------------------------------------------------------------------- */

int bt_verify_init(struct bt *b, struct error *e)
{
    unsigned wanted = b->cfg.verify_every, every = wanted ? wanted : DEFAULT_EVERY;
    if (every == ENGINE_VERIFY_OFF)
        return 0;
    if (!verify_available())
        return wanted ? error_set(e, -ENOTSUP,
                                  "this build cannot verify translated code: it was made without Zydis")
                      : 0;
    b->verifier = verifier_create();
    if (!b->verifier)
        return error_set(e, -ENOMEM, "no memory for the verifier of translated code; try --verify-code off");
    b->verify_every = every;
    if (gates_are_good(b))
        return 0;
    return error_set(e, -EPROTO, "the verifier refused code that the translator made; this is a bug");
}

void bt_verify_free(struct bt *b)
{
    if (b->verifier)
        verifier_free(b->verifier);
    b->verifier = NULL;
}

struct verify_before bt_verify_before(const struct bt *b)
{
    return (struct verify_before){
        .used = b->used,
        .used_stubs = b->used_stubs,
        .nlinks = b->nlinks,
        .nsites = b->nsites,
        .nspots = b->nspots,
        .ncalls = b->ncalls,
        .nfars = b->nfars,
    };
}

/* The tables' parts are the unit's: nothing in them belonged to another one before. */
static bool owns_its_parts(const struct bt *b, const struct bt_unit *u, const struct verify_before *before)
{
    bool spots = !u->spots || (u->first_spot >= before->nspots && u->first_spot + u->spots <= b->nspots);
    uint32_t fars = before->nfars;
    for (const struct bt_link *l = b->links + before->nlinks; l < b->links + b->nlinks; l++) {
        if (l->far && (l->slot < fars || l->slot >= b->nfars))
            return false;
        fars = l->far ? l->slot + 1 : fars; /* each its own */
    }
    return spots && u->first_link == before->nlinks && u->first_link + u->links == b->nlinks;
}

/* String instructions change so little that a unit goes on behind their calls with what it has made sure of. */
static uint16_t changed_by(unsigned id)
{
    switch (id) {
    case INSN_MOVS:
    case INSN_CMPS: return BIT(RCX) | BIT(RSI) | BIT(RDI);
    case INSN_STOS:
    case INSN_SCAS: return BIT(RCX) | BIT(RDI);
    default: return 0;
    }
}

static void note_calls(struct verify_unit *x, const struct bt *b)
{
    for (uint32_t n = 0; n < x->ncalls && n < VERIFY_CALLS; n++) {
        const uint8_t *record = b->calls + (x->first_call + n) * CALL_STRIDE;
        const struct block *block = (const struct block *)(const void *)(record + sizeof(struct bt_call));
        x->call_changes[n] = changed_by(block->ops[0].id);
    }
}

void bt_verify_describe(const struct bt *b, const struct bt_unit *u, const struct verify_before *before,
                        const struct verify_before *behind, struct verify_gate gates[VERIFY_GATES],
                        struct verify_unit *x)
{
    *x = (struct verify_unit){
        .body = { b->code.write + before->used, before->used, u->code_bytes },
        .stubs = { b->code.write + before->used_stubs, before->used_stubs, u->stub_bytes },
        .exec = bt_exec_addr(b, 0),
        .entry_s = u->entry_s,
        .entry_e = u->entry_e,
        .entry_jump = u->entry_jump,
        .gates = gates,
        .ngates = gates_of(b, gates),
        .sites = b->sites + before->nsites,
        .nsites = behind->nsites - before->nsites,
        .links = b->links + before->nlinks,
        .first_link = before->nlinks,
        .nlinks = behind->nlinks - before->nlinks,
        .first_spot = u->first_spot,
        .nspots = u->spots,
        .first_call = before->ncalls,
        .ncalls = behind->ncalls - before->ncalls,
        .unit = (uint32_t)(u - b->units),
        .tlb_index = u->key >> KEY_INDEX_SHIFT & 3,
        .jump_bits = jump_bits(u->key),
        .view = u->key & KEY_VIEW,
        .simd = (u->key & (KEY_VIEW | KEY_SSE)) == (KEY_VIEW | KEY_SSE) ? SIMD_SSE : SIMD_NONE,
        .facts = bt_unit_facts(u),
        .kernel = mode_cpl(u->key) == 0 && u->key & MODE_PE,
        .code64 = (u->key & MODE_CODE_MASK) == MODE_CODE64,
        .privileged = mode_cpl(u->key) == 0,
        .by_paragraph = !(u->key & MODE_PE) || u->key & MODE_VM86,
        .all_64k = u->key & MODE_64K,
    };
    note_calls(x, b);
}

bool bt_verify_unit(struct bt *b, const struct bt_unit *u, const struct verify_before *before)
{
    struct verify_before behind = bt_verify_before(b);
    struct verify_gate gates[VERIFY_GATES];
    struct verify_unit x;
    struct verify_result r;
    char what[80];
    if (!b->verifier || ++b->verify_count % b->verify_every)
        return true;
    bt_verify_describe(b, u, before, &behind, gates, &x);
    b->n.units_verified++;
    if (!owns_its_parts(b, u, before))
        r = failure("a unit that takes parts of tables which are another's");
    else if (verify_unit(b->verifier, &x, &r))
        return true;
    const struct verify_part *part = r.at < x.body.size ? &x.body : &x.stubs;
    snprintf(what, sizeof(what), "unit %u, key %#x, %s at %#llx", x.unit, u->key,
             part == &x.body ? "runs" : "stubs", (unsigned long long)(x.exec + part->at));
    r.at -= part == &x.body ? 0 : x.body.size;
    report(b, what, &r, part->code, part->size);
    refused(b);
    return false;
}

/* --- links ----------------------------------------------------------------------------------------------------------- */

static uint32_t page_of(const uint8_t *host) { return (uint32_t)((uintptr_t)host >> PAGE_SHIFT); }

static bool is_within(uint32_t at, uint32_t from, uint32_t to) { return at >= from && at < to; }

/* Does the code at `at` belong to a segment that also has this unit? Returns how far that is filled, and where it begins. */
static bool segment_has(const struct bt *b, uint32_t at, uint32_t unit, struct bt_level *from,
                        struct bt_level *used)
{
    for (unsigned i = 0; i < b->nsegments; i++) {
        *from = b->segments[i].from;
        *used = bt_cache_used(b, i);
        if (is_within(at, from->code, used->code) || is_within(at, from->stubs, used->stubs))
            return unit >= from->units && unit < used->units;
    }
    return false;
}

/* Are the link, the place `at` of its unit and the target's entry in segments that they share with their units? *begin, *used: of the
 * link's. */
static bool in_their_segments(const struct bt *b, const struct bt_link *l, uint32_t at,
                              const struct bt_unit *to, uint32_t entry, struct bt_level *begin,
                              struct bt_level *used)
{
    const struct bt_unit *from = l->from;
    uint32_t n = (uint32_t)(l - b->links);
    return l >= b->links && from >= b->units && to >= b->units &&
           segment_has(b, entry, (uint32_t)(to - b->units), begin, used) &&
           segment_has(b, at, (uint32_t)(from - b->units), begin, used) && n >= begin->links &&
           n < used->links && n - from->first_link < from->links;
}

bool bt_verify_far_link(const struct bt *b, const struct bt_link *l, const struct bt_unit *to)
{
    const struct bt_unit *from = l->from;
    struct bt_level begin, used;
    if (!l->far || from < b->units || to < b->units ||
        !in_their_segments(b, l, from->entry_jump, to, to->entry_jump, &begin, &used))
        return false;
    /* As a jump table of the context may: without a view where that one has views, too. */
    uint32_t other = (from->key ^ to->key) & ~(uint32_t)(KEY_OF_UNIT | KEY_VIEW);
    return l->slot >= begin.fars && l->slot < used.fars && !other &&
           (to->key & MODE_CODE_MASK) == MODE_CODE64 && !to->relies && !to->crossing &&
           !(to->key & KEY_OF_UNIT);
}

bool bt_verify_link(const struct bt *b, const struct bt_link *l, const struct bt_unit *to)
{
    const struct bt_unit *from = l->from;
    uint32_t entry = l->state_s ? to->entry_s : to->entry_e;
    struct bt_level begin, used;
    if (l->far || !in_their_segments(b, l, l->field, to, entry, &begin, &used))
        return false;
    if (!is_within(l->field, begin.code + 2, used.code - 3) &&
        !is_within(l->field, begin.stubs + 2, used.stubs - 3))
        return false;
    const uint8_t *field = b->code.exec + l->field; /* it has just run: its page is mapped there */
    bool jump = field[-1] == 0xe9 || (field[-2] == 0x0f && (field[-1] & 0xf0) == 0x80);
    /* A unit of another mode, or of another page, would run with rights that are not its own. */
    uint32_t other = (from->key ^ to->key) & ~(uint32_t)KEY_OF_UNIT;
    bool smap = other == KEY_SIBLING && mode_cpl(from->key) == 0 && !(to->key & KEY_VIEW) &&
                l->key == to->key;
    return jump && facts_within(&to->facts, &l->facts) && (!other || smap) &&
           page_of(from->host) == page_of(to->host);
}
