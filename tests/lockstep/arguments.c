/* SPDX-License-Identifier: Apache-2.0 */
/* One table: names, values, help. */
#include "arguments.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/options.h"

enum kind { TEXT, SIZE, COUNT, SWITCH, ENTRY, PASSES, LAST };

struct option {
    const char *name, *value, *help;
    enum kind kind;
    size_t at; /* of the member of struct arguments */
};

#define AT(member) offsetof(struct arguments, member)

static const struct option table[] = {
    { "kernel", "FILE", "bzImage, ELF or Multiboot kernel", TEXT, AT(pair.board.kernel) },
    { "initrd", "FILE", "initial RAM disk, or Multiboot modules", TEXT, AT(pair.board.initrd) },
    { "append", "TEXT", "kernel command line", TEXT, AT(pair.board.append) },
    { "kernel-entry", "NAME", "auto, bzimage or pvh", ENTRY, AT(pair.board.entry) },
    { "debug-exit", NULL, "with a debug-exit device at port 0xf4", SWITCH, AT(pair.board.debug_exit) },
    { "memory", "SIZE", "guest RAM (128M)", SIZE, AT(pair.memory) },
    { "cpus", "N", "virtual processors, run in turn (1)", COUNT, AT(pair.cpus) },
    { "cpu-model", "NAME", "v1 to v4 or host, as of `sundog run`", TEXT, AT(pair.cpu_model) },
    { "pace", "N", "nanoseconds of guest time a thousand instructions (1000)", SIZE,
      AT(pair.ns_per_1k_insns) },
    { "engine-a", "NAME", "the reference (interp)", TEXT, AT(pair.engine[SIDE_A]) },
    { "engine-b", "NAME", "the engine under test (bt, where it is there)", TEXT, AT(pair.engine[SIDE_B]) },
    { "warm", "N", "B translates a block after N-1 executions; 0: its default (1)", COUNT,
      AT(pair.engine_config[SIDE_B].warm) },
    { "off", "PASSES", "passes of B left out, as in merge,chain", PASSES,
      AT(pair.engine_config[SIDE_B].passes_off) },
    { "verify", "N", "B verifies each N-th block; 0: its default", COUNT,
      AT(pair.engine_config[SIDE_B].verify_every) },
    { "code-cache", "SIZE", "B's code cache a processor", SIZE, AT(pair.engine_config[SIDE_B].code_cache) },
    { "trace-blocks", "FILE", "B writes its translations here", TEXT, AT(trace) },
    { "slice", "N", "instructions between comparisons, K and M allowed (1M)", SIZE, AT(slice) },
    { "limit", "N", "instructions in all (no limit)", SIZE, AT(limit) },
    { "from", "N", "A runs alone to N and is loaded into B (0)", SIZE, AT(from) },
    { "until", "TEXT", "end when the console has shown TEXT", TEXT, AT(until) },
    { "seed", "N", "of the random cuts between comparisons; 0: none (1)", SIZE, AT(seed) },
    { "whole", NULL, "compare all of RAM each time, without a dirty log that empties the TLBs", SWITCH,
      AT(pair.whole) },
    { "single", NULL, "A runs one instruction at a time: the most exact reference, and a slow one", SWITCH,
      AT(pair.single) },
    { "strict", NULL, "accessed and dirty bits that differ end the run, too", SWITCH, AT(pair.strict) },
    { "checkpoint", "N", "instructions between checkpoints for the search (64M)", SIZE, AT(checkpoint) },
    { "load", "FILE", "start from a saved machine of the same configuration", TEXT, AT(load) },
    { "keep", "FILE", "save the machine before a difference here", TEXT, AT(keep) },
    { "show", "N", "instructions listed before a difference (80)", COUNT, AT(show) },
    { "blame", NULL, "after a difference, try each of B's passes left out", SWITCH, AT(blame) },
    { "plant", "N", "turn a bit of B's DR0 over at this count: the search must find it", SIZE,
      AT(pair.plant) },
    { "console", NULL, "show the guest's console", SWITCH, AT(pair.echo) },
    { "stats", NULL, "print both machines' counters at the end", SWITCH, AT(stats) },
    { "help", NULL, "this text", SWITCH, AT(help) },
};

void arguments_help(FILE *f)
{
    fprintf(
        f,
        "lockstep --kernel FILE [OPTION...]\n"
        "Runs one guest on two engines in deterministic time and compares the machines. At a difference it\n"
        "searches for the first instruction behind which they differ, and shows both states and the way "
        "there.\n"
        "Exit status: 0 equal to the end, 1 a difference, 2 it could not be run.\n\n");
    for (unsigned i = 0; i < array_size(table); i++)
        fprintf(f, "  --%-12s %-6s  %s\n", table[i].name, table[i].value ? table[i].value : "",
                table[i].help);
    char passes[400];
    engine_format_passes(~0u, " ", passes, sizeof(passes));
    fprintf(f, "\npasses: %s\nengines:", passes);
    for (const struct engine_ops *const *e = engine_table; *e; e++)
        fprintf(f, " %s", (*e)->name);
    fputc('\n', f);
}

static bool parse_passes(const char *text, uint32_t *off)
{
    struct error e = { 0 };
    return !engine_parse_passes(text, off, &e);
}

static bool parse_entry(const char *text, enum kernel_entry *entry)
{
    for (unsigned i = KERNEL_ENTRY_AUTO; i <= KERNEL_ENTRY_PVH; i++)
        if (!strcmp(text, kernel_entry_names[i])) {
            *entry = (enum kernel_entry)i;
            return true;
        }
    return false;
}

static bool parse_count(const char *text, unsigned *out)
{
    uint64_t v;
    if (parse_size(text, &v) || v > UINT32_MAX)
        return false;
    *out = (unsigned)v;
    return true;
}

static bool set(struct arguments *o, const struct option *opt, const char *value)
{
    void *at = (char *)o + opt->at;
    switch (opt->kind) {
    case TEXT: *(const char **)at = value; return true;
    case SIZE: return !parse_size(value, at);
    case COUNT: return parse_count(value, at);
    case ENTRY: return parse_entry(value, at);
    case PASSES: return parse_passes(value, at);
    case SWITCH:
    case LAST:
    default: *(bool *)at = true; return true;
    }
}

static const struct option *find(const char *arg, const char **value)
{
    if (strncmp(arg, "--", 2))
        return NULL;
    const char *equals = strchr(arg, '=');
    size_t len = equals ? (size_t)(equals - arg - 2) : strlen(arg + 2);
    for (unsigned i = 0; i < array_size(table); i++)
        if (strlen(table[i].name) == len && !memcmp(table[i].name, arg + 2, len)) {
            *value = equals ? equals + 1 : NULL;
            return &table[i];
        }
    return NULL;
}

static bool parse_all(struct arguments *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = NULL;
        const struct option *opt = find(argv[i], &value);
        if (!opt || (opt->kind == SWITCH && value)) {
            fprintf(stderr, "lockstep: no option %s; --help lists them\n", argv[i]);
            return false;
        }
        if (opt->kind != SWITCH && !value)
            value = i + 1 < argc ? argv[++i] : NULL;
        if ((opt->kind != SWITCH && !value) || !set(o, opt, value)) {
            fprintf(stderr, "lockstep: --%s %s: not a value that it takes\n", opt->name, value ? value : "");
            return false;
        }
    }
    return true;
}

bool arguments_parse(struct arguments *o, int argc, char **argv)
{
    struct error e = { 0 };
    *o = (struct arguments){
        .slice = 1 << 20, .limit = UINT64_MAX, .checkpoint = 64 << 20, .seed = 1, .show = 80
    };
    o->pair = (struct pair_config){ .engine = { "interp", engine_find("bt", &e) ? "bt" : "interp" },
                                    .engine_config[SIDE_B].warm = 1,
                                    .board = { .append = "", .debug_exit_port = 0xf4, .serial = true },
                                    .cpus = 1,
                                    .memory = 128 << 20,
                                    .ns_per_1k_insns = 1000 };
    if (!parse_all(o, argc, argv))
        return false;
    if (!o->help && (!o->pair.board.kernel || !o->slice)) {
        fprintf(stderr, "lockstep: give --kernel FILE, and a --slice above 0; --help tells more\n");
        return false;
    }
    return true;
}
