/* SPDX-License-Identifier: Apache-2.0 */
/* Two machines: built, run and compared. */
#include "pair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "engine/interp/interp.h"
#include "memory/pmap_internal.h"
#include "vm/vm_internal.h"

#define OBJECTS_MAX 64

/* Present in one 4-byte and one 8-byte entry; accessed and dirty (SDM 3A tables 4-6, 4-19). */
#define ENTRY_PRESENT 1ull
#define ENTRY_AD 0x60ull

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void checkpoint_free(struct checkpoint *c)
{
    free(c->data);
    *c = (struct checkpoint){ 0 };
}

/* --- building ------------------------------------------------------------------------------------------- */

static void take_output(void *ctx, const uint8_t *data, size_t len)
{
    struct console *c = ctx;
    if (c->echo)
        fwrite(data, 1, len, stdout);
    if (c->len + len + 1 > c->room) {
        c->room = 2 * (c->len + len) + 4096;
        c->text = realloc(c->text, c->room);
        if (!c->text)
            abort();
    }
    memcpy(c->text + c->len, data, len);
    c->len += len;
    c->text[c->len] = 0;
}

static void say(void *ctx, enum log_level level, const char *line)
{
    (void)level;
    fprintf(stderr, "%s: %s\n", (const char *)ctx, line);
}

static int create_side(struct pair *p, unsigned i, struct error *e)
{
    struct side *s = &p->side[i];
    s->log = (struct log){ .level = LOG_WARN, .sink = say, .ctx = (void *)(uintptr_t)p->cfg.engine[i] };
    s->console.echo = p->cfg.echo && i == SIDE_A;
    const struct vm_config cfg = {
        .engine = p->cfg.engine[i],
        .engine_config = p->cfg.engine_config[i],
        .cpus = p->cfg.cpus,
        .cpu_model = p->cfg.cpu_model,
        .memory = p->cfg.memory,
        .board = p->cfg.board,
        .no_reboot = true,
        .clock_mode = CLOCK_DETERMINISTIC,
        .ns_per_1k_insns = p->cfg.ns_per_1k_insns,
        .callbacks = { .ctx = &s->console, .serial_output = take_output },
    };
    s->vm = vm_create(&cfg, &s->log, e);
    return s->vm ? 0 : -EINVAL;
}

static void ignore(void *ctx, const struct vcpu *v) { (void)ctx, (void)v; }

static int run_singly(struct vm *vm, struct error *e)
{
    if (vm->engine != &interp_engine)
        return error_set(e, -EINVAL, "only the interpreter runs single instructions");
    for (unsigned i = 0; i < vm->ncpus; i++)
        interp_set_trace(vm->cpus[i].v, ignore, NULL);
    return 0;
}

static void find_last_page(void *ctx, const struct region_info *r)
{
    size_t end = (size_t)((r->base.v + r->len) >> PAGE_SHIFT), *pages = ctx;
    if (end > *pages)
        *pages = end;
}

static int watch_writes(struct pair *p, struct error *e)
{
    pmap_each_region(p->side[SIDE_A].vm->pmap, find_last_page, &p->pages);
    for (unsigned i = 0; i < SIDES; i++) {
        p->side[i].dirty = calloc((p->pages + 63) / 64, sizeof(uint64_t));
        if (!p->side[i].dirty)
            return error_set(e, -ENOMEM, "out of memory");
        pmap_dirty_log_start(p->side[i].vm->pmap);
    }
    return 0;
}

struct pair *pair_create(const struct pair_config *cfg, const struct checkpoint *from, struct error *e)
{
    struct pair *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->cfg = *cfg;
    int err = 0;
    for (unsigned i = 0; i < SIDES && !err; i++) {
        err = create_side(p, i, e);
        if (!err && from && from->data)
            err = vm_load(p->side[i].vm, from->data, from->len, e);
    }
    if (!err && cfg->single)
        err = run_singly(p->side[SIDE_A].vm, e);
    if (!err && !cfg->whole)
        err = watch_writes(p, e);
    if (err) {
        pair_destroy(p);
        return NULL;
    }
    return p;
}

void pair_destroy(struct pair *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < SIDES; i++) {
        if (p->side[i].vm)
            vm_destroy(p->side[i].vm);
        free(p->side[i].console.text);
        free(p->side[i].dirty);
    }
    free(p);
}

/* --- running -------------------------------------------------------------------------------------------- */

uint64_t pair_count(const struct pair *p) { return p->side[SIDE_A].vm->state.executed; }

enum vm_end pair_end(const struct pair *p) { return p->side[SIDE_A].vm->world.end; }

/* A bug on purpose. */
static void plant(struct vm *vm)
{
    struct vcpu *v = vm->cpus[vm->state.turn].v;
    v->s.dr[0] ^= 1;
    if (vm->engine->state_changed)
        vm->engine->state_changed(v);
}

static void run_side(struct pair *p, unsigned i, uint64_t count)
{
    struct vm *vm = p->side[i].vm;
    if (i == SIDE_B && p->cfg.plant > vm->state.executed && p->cfg.plant <= count) {
        vm_run_until(vm, p->cfg.plant);
        plant(vm);
    }
    vm_run_until(vm, count);
}

bool pair_run(struct pair *p, uint64_t count)
{
    for (unsigned i = 0; i < SIDES; i++) {
        double start = now();
        run_side(p, i, count);
        p->side[i].seconds += now() - start;
    }
    return pair_count(p) >= count;
}

int pair_checkpoint(struct pair *p, struct checkpoint *out, struct error *e)
{
    struct checkpoint c = { .at = pair_count(p) };
    int err = vm_save(p->side[SIDE_A].vm, &c.data, &c.len, e);
    if (err)
        return err;
    checkpoint_free(out);
    *out = c;
    return 0;
}

/* --- comparing ------------------------------------------------------------------------------------------ */

static void compare_objects(struct pair *p, struct report *r)
{
    struct state_object o[SIDES][OBJECTS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < SIDES; i++)
        n = vm_state_objects(p->side[i].vm, o[i], OBJECTS_MAX);
    for (unsigned i = 0; i < n; i++) {
        unsigned at = r->fields < REPORT_FIELDS ? r->fields : REPORT_FIELDS;
        r->fields += state_differences(&o[SIDE_A][i], &o[SIDE_B][i], &r->field[at], REPORT_FIELDS - at);
    }
}

/* One half of a quadword as a 32-bit entry, or the whole as a 64-bit one: only A and D differ. */
static bool only_accessed_dirty(uint64_t a, uint64_t b)
{
    uint64_t x = a ^ b;
    if (!(x & ~ENTRY_AD))
        return a & ENTRY_PRESENT;
    return !(x & ~(ENTRY_AD << 32)) && (a >> 32 & ENTRY_PRESENT);
}

static void note_word(struct report *r, uint64_t addr, uint64_t a, uint64_t b, bool ad)
{
    unsigned *n = ad ? &r->ad_words : &r->words;
    if (*n < REPORT_WORDS)
        (ad ? r->ad_word : r->word)[*n] = (struct word_difference){ addr, a, b };
    ++*n;
}

static void compare_page(struct pair *p, struct report *r, uint64_t number)
{
    const struct page *pg[SIDES];
    for (unsigned i = 0; i < SIDES; i++)
        pg[i] = pmap_page_number(p->side[i].vm->pmap, number);
    p->compared_pages++;
    if (!pg[SIDE_A] || !pg[SIDE_B] || !memcmp(pg[SIDE_A]->host, pg[SIDE_B]->host, PAGE_SIZE))
        return;
    for (unsigned off = 0; off < PAGE_SIZE; off += 8) {
        uint64_t addr = (number << PAGE_SHIFT) + off;
        uint64_t a = get_le64(pg[SIDE_A]->host + off), b = get_le64(pg[SIDE_B]->host + off);
        if (a == b)
            continue;
        bool ad = !p->cfg.strict && only_accessed_dirty(a, b);
        note_word(r, addr, a, b, ad);
        if (ad && pmap_load(p->side[SIDE_B].vm->pmap, GPA(addr), pg[SIDE_A]->host + off, 8))
            abort(); /* the page is there: it was just read */
    }
}

static void compare_dirty(struct pair *p, struct report *r)
{
    for (unsigned i = 0; i < SIDES; i++)
        if (pmap_dirty_log_fetch(p->side[i].vm->pmap, p->side[i].dirty, p->pages))
            abort(); /* the bitmap was made for all pages */
    for (size_t w = 0; w < (p->pages + 63) / 64; w++)
        for (uint64_t bits = p->side[SIDE_A].dirty[w] | p->side[SIDE_B].dirty[w]; bits; bits &= bits - 1)
            compare_page(p, r, w * 64 + (unsigned)__builtin_ctzll(bits));
}

struct region_walk {
    struct pair *p;
    struct report *r;
};

/* Pages that neither has touched are left untouched. */
static void compare_region(void *ctx, const struct region_info *ri)
{
    struct region_walk *w = ctx;
    if (ri->kind == REGION_ALIAS)
        return;
    for (uint64_t n = ri->base.v >> PAGE_SHIFT; n < (ri->base.v + ri->len) >> PAGE_SHIFT; n++)
        if (pmap_page_if_used(w->p->side[SIDE_A].vm->pmap, n) ||
            pmap_page_if_used(w->p->side[SIDE_B].vm->pmap, n))
            compare_page(w->p, w->r, n);
}

static void compare_outside(struct pair *p, struct report *r)
{
    const struct console *a = &p->side[SIDE_A].console, *b = &p->side[SIDE_B].console;
    r->console_differs = a->len != b->len || (a->len && memcmp(a->text, b->text, a->len));
    for (unsigned i = 0; i < SIDES; i++) {
        r->console[i] = p->side[i].console.len;
        r->end[i] = p->side[i].vm->world.end;
    }
    r->end_differs = r->end[SIDE_A] != r->end[SIDE_B];
}

bool pair_equal(struct pair *p, enum depth depth, struct report *r)
{
    memset(r, 0, sizeof(*r));
    if (depth == DEPTH_DIRTY && p->cfg.whole)
        depth = DEPTH_WHOLE;
    compare_objects(p, r);
    compare_outside(p, r);
    if (depth == DEPTH_DIRTY)
        compare_dirty(p, r);
    else if (depth == DEPTH_WHOLE)
        pmap_each_region(p->side[SIDE_A].vm->pmap, compare_region, &(struct region_walk){ p, r });
    p->ad_words += r->ad_words;
    return !r->fields && !r->words && !r->console_differs && !r->end_differs;
}

/* --- telling -------------------------------------------------------------------------------------------- */

static const char *side_name(const struct pair *p, unsigned i)
{
    static const char *const names[] = { "A", "B" };
    return strcmp(p->cfg.engine[SIDE_A], p->cfg.engine[SIDE_B]) ? p->cfg.engine[i] : names[i];
}

static void print_words(FILE *f, const struct pair *p, const struct word_difference *w, unsigned n,
                        const char *what)
{
    for (unsigned i = 0; i < n && i < REPORT_WORDS; i++)
        fprintf(f, "  %s at 0x%llx: %s 0x%016llx, %s 0x%016llx\n", what, (unsigned long long)w[i].addr,
                side_name(p, SIDE_A), (unsigned long long)w[i].a, side_name(p, SIDE_B),
                (unsigned long long)w[i].b);
    if (n > REPORT_WORDS)
        fprintf(f, "  and %u more of these\n", n - REPORT_WORDS);
}

void report_print(FILE *f, const struct pair *p, const struct report *r)
{
    const char *a = side_name(p, SIDE_A), *b = side_name(p, SIDE_B);
    for (unsigned i = 0; i < r->fields && i < REPORT_FIELDS; i++)
        difference_print(f, &r->field[i], a, b);
    if (r->fields > REPORT_FIELDS)
        fprintf(f, "  and %u fields more\n", r->fields - REPORT_FIELDS);
    print_words(f, p, r->word, r->words, "memory");
    print_words(f, p, r->ad_word, r->ad_words,
                "accessed/dirty bits alone, in what looks like a page-table entry,");
    if (r->console_differs)
        fprintf(f, "  console: %s wrote %zu bytes, %s %zu\n", a, r->console[SIDE_A], b, r->console[SIDE_B]);
    if (r->end_differs)
        fprintf(f, "  end: %s %s, %s %s\n", a, vm_end_name(r->end[SIDE_A]), b, vm_end_name(r->end[SIDE_B]));
}
