/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lockstep of whole machines: one guest, two engines, deterministic time.
 *
 *   run a slice on both ──► compare ──► equal: go on, now and then a checkpoint
 *                                └────► different: search.c finds the first instruction, exit status 1
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "search.h"

/* Cuts between two full comparisons, at which states alone are compared. */
#define SMALL_CUTS 3u

struct run {
    const struct arguments *opt;
    struct pair *pair;
    struct checkpoint first, older, latest;
    struct cuts cuts;
    struct report report;
    uint64_t seed, slices;
    uint64_t equal; /* the last count at which RAM was found equal, too */
};

enum verdict { EQUAL, DIFFERENT, FAILED };

static uint64_t random_below(struct run *r, uint64_t n)
{
    r->seed ^= r->seed << 13;
    r->seed ^= r->seed >> 7;
    r->seed ^= r->seed << 17;
    return (r->seed >> 16) % n;
}

static enum verdict fail(const struct error *e)
{
    fprintf(stderr, "lockstep: %s\n", e->text[0] ? e->text : "out of memory");
    return FAILED;
}

/* --- where it starts ------------------------------------------------------------------------------------ */

static int read_checkpoint(const char *path, struct checkpoint *c, struct error *e)
{
    FILE *f = fopen(path, "rb");
    long size = f && !fseek(f, 0, SEEK_END) ? ftell(f) : -1;
    int err = size < 0 ? -errno : 0;
    if (!err) {
        rewind(f);
        c->len = (size_t)size;
        c->data = malloc(c->len + 1);
        err = c->data && fread(c->data, 1, c->len, f) == c->len ? 0 : -EIO;
    }
    if (f)
        fclose(f);
    return err ? error_set(e, err, "%s: %s", path, strerror(-err)) : 0;
}

/* A machine that has run alone to opt->from, or was read from a file. */
static int make_first(struct run *r, struct error *e)
{
    const struct arguments *o = r->opt;
    if (o->load)
        return read_checkpoint(o->load, &r->first, e);
    if (!o->from)
        return 0;
    struct pair_config alone = o->pair;
    alone.engine[SIDE_B] = alone.engine[SIDE_A];
    alone.whole = true;
    struct pair *p = pair_create(&alone, NULL, e);
    if (!p)
        return e->code;
    vm_run_until(p->side[SIDE_A].vm, o->from);
    int err = pair_checkpoint(p, &r->first, e);
    pair_destroy(p);
    return err;
}

/* --- running -------------------------------------------------------------------------------------------- */

static void tell_accessed_dirty(const struct run *r)
{
    if (!r->report.ad_words)
        return;
    fprintf(stderr,
            "after %llu instructions, %u words differ in accessed and dirty bits alone; B gets A's:\n",
            (unsigned long long)pair_count(r->pair), r->report.ad_words);
    report_print(stderr, r->pair, &r->report);
}

/* One step to `count`; `count` is far enough away when the machine ends before. */
static bool step(struct run *r, uint64_t count, enum depth depth, bool *ended)
{
    *ended = !pair_run(r->pair, count);
    if (*ended)
        depth = DEPTH_WHOLE;
    cuts_add(&r->cuts, count, depth);
    if (!pair_equal(r->pair, depth, &r->report))
        return false;
    tell_accessed_dirty(r);
    if (depth != DEPTH_STATES)
        r->equal = pair_count(r->pair);
    return true;
}

/* A slice: some small cuts at random places, then one full comparison. */
static bool slice(struct run *r, bool *ended)
{
    uint64_t end = pair_count(r->pair) + r->opt->slice;
    if (end > r->opt->limit)
        end = r->opt->limit;
    *ended = false;
    for (unsigned i = 0; i < SMALL_CUTS && r->seed && !*ended; i++) {
        uint64_t at = pair_count(r->pair) + 1 + random_below(r, random_below(r, 2) ? 40 : 3000);
        if (at < end && !step(r, at, DEPTH_STATES, ended))
            return false;
    }
    r->slices++;
    return *ended || step(r, end, DEPTH_DIRTY, ended);
}

static bool shown(const struct run *r)
{
    const struct console *c = &r->pair->side[SIDE_A].console;
    return r->opt->until && c->text && strstr(c->text, r->opt->until);
}

static enum verdict checkpoint_if_due(struct run *r)
{
    struct error e = { 0 };
    if (r->equal - r->latest.at < r->opt->checkpoint)
        return EQUAL;
    checkpoint_free(&r->older);
    r->older = r->latest;
    r->latest = (struct checkpoint){ 0 };
    return pair_checkpoint(r->pair, &r->latest, &e) ? fail(&e) : EQUAL;
}

static enum verdict run(struct run *r)
{
    bool ended = false;
    while (!ended && pair_count(r->pair) < r->opt->limit && !shown(r)) {
        if (!slice(r, &ended))
            return DIFFERENT;
        if (checkpoint_if_due(r) == FAILED)
            return FAILED;
    }
    /* Also pages that no dirty log told of. */
    if (!pair_equal(r->pair, DEPTH_WHOLE, &r->report))
        return DIFFERENT;
    tell_accessed_dirty(r);
    return EQUAL;
}

/* --- telling -------------------------------------------------------------------------------------------- */

static void tell_difference(struct run *r)
{
    const struct arguments *o = r->opt;
    uint64_t count = pair_count(r->pair);
    printf("DIFFERENT after %llu instructions (last found equal after %llu):\n", (unsigned long long)count,
           (unsigned long long)r->equal);
    report_print(stdout, r->pair, &r->report);
    fflush(stdout);
    struct search s = { .cfg = &o->pair,
                        .cuts = &r->cuts,
                        .equal = r->equal,
                        .different = count,
                        .show = o->show,
                        .blame = o->blame,
                        .keep = o->keep };
    if (r->latest.data)
        s.start[s.starts++] = &r->latest;
    if (r->older.data)
        s.start[s.starts++] = &r->older;
    s.start[s.starts++] = &r->first;
    if (search_report(stdout, &s))
        printf("again, from close by: the same command line with --from %llu --limit %llu\n",
               (unsigned long long)(s.equal > 1000 ? s.equal - 1000 : 0),
               (unsigned long long)s.different + 1000);
    else
        printf("the difference does not come again when the same run is repeated: something outside of the "
               "guest "
               "decides\n");
}

static void tell_end(const struct run *r)
{
    const struct pair *p = r->pair;
    double a = p->side[SIDE_A].seconds, b = p->side[SIDE_B].seconds;
    uint64_t n = pair_count(p) - r->first.at;
    const char *why = shown(r)                         ? "text shown"
                      : pair_end(p) != VM_END_NONE     ? vm_end_name(pair_end(p))
                      : pair_count(p) >= r->opt->limit ? "limit"
                                                       : "asleep for ever";
    printf(
        "equal: %llu instructions on %u processors, %llu slices, end: %s; %s %.1f s (%.0f MIPS), %s %.1f s "
        "(%.0f MIPS), %llu pages compared, %llu words differed in accessed and dirty bits alone\n",
        (unsigned long long)n, p->cfg.cpus, (unsigned long long)r->slices, why, p->cfg.engine[SIDE_A], a,
        a > 0 ? (double)n / a / 1e6 : 0, p->cfg.engine[SIDE_B], b, b > 0 ? (double)n / b / 1e6 : 0,
        (unsigned long long)p->compared_pages, (unsigned long long)p->ad_words);
}

static void tell_stats(const struct run *r)
{
    for (unsigned i = 0; i < SIDES; i++) {
        char *json = vm_stats_json(r->pair->side[i].vm);
        printf("%s: %s\n", r->pair->cfg.engine[i], json ? json : "?");
        free(json);
    }
}

static enum verdict whole_run(struct run *r)
{
    struct error e = { 0 };
    if (make_first(r, &e))
        return fail(&e);
    r->pair = pair_create(&r->opt->pair, &r->first, &e);
    if (!r->pair)
        return fail(&e);
    /* A file does not say its count before it is loaded. */
    r->first.at = r->equal = r->latest.at = pair_count(r->pair);
    enum verdict v = run(r);
    if (r->opt->stats)
        tell_stats(r);
    if (v == DIFFERENT)
        tell_difference(r);
    else if (v == EQUAL)
        tell_end(r);
    return v;
}

int main(int argc, char **argv)
{
    struct arguments opt;
    if (!arguments_parse(&opt, argc, argv))
        return 2;
    if (opt.help) {
        arguments_help(stdout);
        return 0;
    }
    if (opt.trace) {
        int fd = open(opt.trace, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0) {
            fprintf(stderr, "lockstep: %s: %s\n", opt.trace, strerror(errno));
            return 2;
        }
        opt.pair.engine_config[SIDE_B].trace_fd = fd;
    }
    struct run *r = calloc(1, sizeof(*r));
    if (!r)
        return 2;
    r->opt = &opt;
    r->seed = opt.seed;
    enum verdict v = whole_run(r);
    if (opt.until && v == EQUAL && !shown(r)) {
        fprintf(stderr, "lockstep: the console never showed \"%s\"\n", opt.until);
        v = FAILED;
    }
    checkpoint_free(&r->first);
    checkpoint_free(&r->older);
    checkpoint_free(&r->latest);
    pair_destroy(r->pair);
    free(r->cuts.cut);
    free(r);
    return (int)v;
}
