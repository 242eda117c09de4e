/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bisection. A probe makes two fresh machines from a checkpoint, runs both to a count and compares them whole.
 *
 * A difference may hang on history (stale translations, full caches), which a fresh machine has not. So the
 * starts are tried from the latest to the first, each run in one go and then with all cuts of the first run,
 * and the latest that shows the difference again serves.
 *
 * The engine under test may run several instructions as one: at the end of a probe it then runs the last ones
 * differently than in a long run. The point found is where a difference first shows; its cause is among the
 * instructions listed before it.
 */
#include "search.h"

#include "listing.h"

#include <stdlib.h>
#include <string.h>

/* A new checkpoint is tried when the old one lies further back than this. */
#define FAR 200000u

struct probe {
    const struct search *s;
    const struct pair_config *cfg;
    const struct checkpoint *from;
    bool faithful; /* with the cuts of the first run */
};

void cuts_add(struct cuts *c, uint64_t at, enum depth depth)
{
    if (c->n == c->room) {
        c->room = c->room ? 2 * c->room : 1024;
        c->cut = realloc(c->cut, c->room * sizeof(*c->cut));
        if (!c->cut)
            abort();
    }
    c->cut[c->n++] = (struct cut){ at, depth };
}

/* --- probes --------------------------------------------------------------------------------------------- */

static void run_cuts(struct pair *p, const struct probe *pr, uint64_t count)
{
    static struct report ignored;
    const struct cuts *c = pr->s->cuts;
    for (size_t i = 0; pr->faithful && i < c->n && c->cut[i].at < count; i++) {
        if (c->cut[i].at <= pair_count(p))
            continue;
        pair_run(p, c->cut[i].at);
        pair_equal(p, c->cut[i].depth, &ignored);
    }
}

/* The machines at `count`, compared; NULL when they could not be made. */
static struct pair *probe_at(const struct probe *pr, uint64_t count, struct report *r, bool *differs)
{
    struct error e = { 0 };
    struct pair *p = pair_create(pr->cfg, pr->from, &e);
    if (!p) {
        fprintf(stderr, "lockstep: %s\n", e.text);
        return NULL;
    }
    run_cuts(p, pr, count);
    pair_run(p, count);
    *differs = !pair_equal(p, DEPTH_WHOLE, r);
    return p;
}

static bool differs_at(const struct probe *pr, uint64_t count, struct report *r)
{
    bool differs = false;
    pair_destroy(probe_at(pr, count, r, &differs));
    return differs;
}

/* The first start and manner that show the difference again. */
static bool find_start(struct probe *pr, FILE *f)
{
    struct report r;
    const struct search *s = pr->s;
    for (unsigned i = 0; i < s->starts; i++)
        for (unsigned faithful = 0; faithful < 2; faithful++) {
            pr->from = s->start[i];
            pr->faithful = faithful;
            if (differs_at(pr, s->different, &r))
                return true;
            fprintf(f, "not seen again from instruction %llu %s\n", (unsigned long long)pr->from->at,
                    faithful ? "with the same cuts" : "in one go");
        }
    return false;
}

/* A start close to the difference makes all that follows quick, if it still shows it. */
static void come_closer(struct probe *pr, struct search *s, struct checkpoint *near)
{
    struct report r;
    struct error e = { 0 };
    bool differs;
    if (s->equal - pr->from->at < FAR || s->equal < pr->from->at)
        return;
    struct pair *p = probe_at(pr, s->equal, &r, &differs);
    struct probe closer = *pr;
    if (p && !differs && !pair_checkpoint(p, near, &e)) {
        closer.from = near;
        closer.faithful = false;
        if (differs_at(&closer, s->different, &r))
            *pr = closer;
    }
    pair_destroy(p);
}

static void bisect(const struct probe *pr, struct search *s)
{
    struct report r;
    if (s->equal < pr->from->at)
        s->equal = pr->from->at;
    while (s->different - s->equal > 1) {
        uint64_t mid = s->equal + (s->different - s->equal) / 2;
        if (differs_at(pr, mid, &r))
            s->different = mid;
        else
            s->equal = mid;
    }
}

/* --- telling -------------------------------------------------------------------------------------------- */

/* Which pass, left out, makes the difference go away. */
static void blame(FILE *f, const struct probe *pr, const struct search *s)
{
    struct report r;
    uint32_t gone = 0;
    for (unsigned i = 0; i < ENGINE_PASS_COUNT; i++) {
        struct pair_config cfg = *pr->cfg;
        struct probe without = *pr;
        cfg.engine_config[SIDE_B].passes_off |= 1u << i;
        without.cfg = &cfg;
        if (cfg.engine_config[SIDE_B].passes_off == pr->cfg->engine_config[SIDE_B].passes_off ||
            differs_at(&without, s->different, &r))
            continue;
        gone |= 1u << i;
    }
    char names[400];
    engine_format_passes(gone, ", ", names, sizeof(names));
    fprintf(f,
            gone ? "gone with one of these passes left out: %s\n"
                 : "no single pass left out makes it go away%s\n",
            names);
}

static void keep_machine(FILE *f, const struct checkpoint *c, const char *path)
{
    FILE *out = fopen(path, "wb");
    bool written = out && fwrite(c->data, 1, c->len, out) == c->len;
    if (out)
        written &= fclose(out) == 0;
    fprintf(f, written ? "the machine at the last equal point is in %s (--load)\n" : "cannot write %s\n",
            path);
}

static void keep_before(FILE *f, const struct probe *pr, const struct search *s)
{
    struct report r;
    struct error e = { 0 };
    struct checkpoint c = { 0 };
    bool differs;
    struct pair *p = probe_at(pr, s->equal, &r, &differs);
    if (p && s->keep && !pair_checkpoint(p, &c, &e))
        keep_machine(f, &c, s->keep);
    checkpoint_free(&c);
    pair_destroy(p);
}

static void tell(FILE *f, const struct probe *pr, const struct search *s)
{
    struct report r;
    struct error e = { 0 };
    bool differs;
    struct pair *p = probe_at(pr, s->different, &r, &differs);
    fprintf(f, "equal after %llu instructions, different after %llu:\n", (unsigned long long)s->equal,
            (unsigned long long)s->different);
    if (p)
        report_print(f, p, &r);
    pair_destroy(p);
    fprintf(f, "the last instructions (processor:count, what each changed), as the interpreter runs them:\n");
    if (listing_print(f, pr->cfg, pr->from, s->different, s->show, &e))
        fprintf(f, "  %s\n", e.text);
}

bool search_report(FILE *f, struct search *s)
{
    struct pair_config quiet = *s->cfg;
    quiet.echo = false;
    struct checkpoint near = { 0 };
    struct probe pr = { .s = s, .cfg = &quiet };
    bool found = find_start(&pr, f);
    if (found) {
        fprintf(f, "seen again from instruction %llu %s; searching\n", (unsigned long long)pr.from->at,
                pr.faithful ? "with the same cuts" : "in one go");
        come_closer(&pr, s, &near);
        bisect(&pr, s);
        tell(f, &pr, s);
        if (s->blame)
            blame(f, &pr, s);
        if (s->keep)
            keep_before(f, &pr, s);
    }
    checkpoint_free(&near);
    return found;
}
