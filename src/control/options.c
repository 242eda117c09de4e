/* SPDX-License-Identifier: Apache-2.0 */
/* One table drives parsing, errors and help. */
#include "control/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/checked.h"
#include "cpu/model.h"

const char *const kernel_entry_names[] = {
    [KERNEL_ENTRY_AUTO] = "auto",
    [KERNEL_ENTRY_BZIMAGE] = "bzimage",
    [KERNEL_ENTRY_PVH] = "pvh",
};

/* --- values --------------------------------------------------------------------------------------------- */

/* A plain number: decimal, or hexadecimal after 0x when `hex` is allowed; *end is what follows it. */
static int parse_number(const char *s, bool hex, uint64_t *out, const char **end)
{
    bool is_hex = hex && s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
    const char *p = is_hex ? s + 2 : s;
    const char *first = p;
    uint64_t v = 0;
    for (;; p++) {
        unsigned digit = *p >= '0' && *p <= '9'             ? (unsigned)(*p - '0')
                         : is_hex && *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a' + 10)
                         : is_hex && *p >= 'A' && *p <= 'F' ? (unsigned)(*p - 'A' + 10)
                                                            : 99;
        if (digit == 99)
            break;
        if (ck_mul(v, is_hex ? 16 : 10, &v) || ck_add(v, digit, &v))
            return -EINVAL;
    }
    *out = v;
    *end = p;
    return p == first ? -EINVAL : 0;
}

int parse_size(const char *s, uint64_t *out)
{
    static const struct {
        char small, big;
        unsigned shift;
    } units[] = { { 'k', 'K', 10 }, { 'm', 'M', 20 }, { 'g', 'G', 30 } };
    const char *end;
    if (parse_number(s, false, out, &end))
        return -EINVAL;
    if (!*end)
        return 0;
    for (unsigned i = 0; i < array_size(units); i++)
        if ((*end == units[i].small || *end == units[i].big) && !end[1])
            return ck_mul(*out, BIT(units[i].shift), out) ? -EINVAL : 0;
    return -EINVAL;
}

void format_size(uint64_t bytes, char *out, size_t len)
{
    static const char units[] = { 'G', 'M', 'K' };
    for (unsigned i = 0; i < array_size(units); i++) {
        unsigned shift = 30 - 10 * i;
        if (bytes && bytes % BIT(shift) == 0) {
            snprintf(out, len, "%llu%c", (unsigned long long)(bytes >> shift), units[i]);
            return;
        }
    }
    snprintf(out, len, "%llu", (unsigned long long)bytes);
}

/* --- one setter an option; `value` is never NULL where the table names one ------------------------------ */

static int set_engine(struct run_options *o, const char *value, struct error *e)
{
    o->vm.engine = value;
    return !strcmp(value, "auto") || engine_find(value, e) ? 0 : error_wrap(e, "--engine");
}

static int set_cpu_model(struct run_options *o, const char *value, struct error *e)
{
    o->vm.cpu_model = value;
    return model_parse(value, e) < 0 ? error_wrap(e, "--cpu-model") : 0;
}

/* A size within bounds that `range` tells people. */
static int set_size(uint64_t *to, const char *option, const char *value, uint64_t min, uint64_t max,
                    const char *range, struct error *e)
{
    uint64_t n;
    if (parse_size(value, &n))
        return error_set(e, -EINVAL, "%s %.40s: not a size; write a number with K, M or G, %s", option, value,
                         range);
    if (n < min || n > max)
        return error_set(e, -EINVAL, "%s %.40s: %llu bytes; choose %s", option, value, (unsigned long long)n,
                         range);
    *to = n;
    return 0;
}

static int set_cpus(struct run_options *o, const char *value, struct error *e)
{
    uint64_t n;
    const char *end;
    if (parse_number(value, false, &n, &end) || *end || n < 1 || n > MAX_VCPUS)
        return error_set(e, -EINVAL, "--cpus %.40s: choose a number from 1 to %d", value, MAX_VCPUS);
    o->vm.cpus = (unsigned)n;
    return 0;
}

static int set_memory(struct run_options *o, const char *value, struct error *e)
{
    int err = set_size(&o->vm.memory, "--memory", value, VM_MEMORY_MIN, VM_MEMORY_MAX,
                       "from 2M to 512G, such as 512M", e);
    if (!err && o->vm.memory % PAGE_SIZE)
        return error_set(e, -EINVAL, "--memory %.40s: choose a multiple of 4K", value);
    return err;
}

/* --- the translator's --- */

static int set_code_cache(struct run_options *o, const char *value, struct error *e)
{
    return set_size(&o->vm.engine_config.code_cache, "--code-cache", value, VM_CODE_CACHE_MIN,
                    VM_CODE_CACHE_MAX, "from 1M to 2G, such as 32M", e);
}

static int set_engine_off(struct run_options *o, const char *value, struct error *e)
{
    return engine_parse_passes(value, &o->vm.engine_config.passes_off, e) ? error_wrap(e, "--engine-off") : 0;
}

#define WARM_MAX 255u

static int set_warm(struct run_options *o, const char *value, struct error *e)
{
    uint64_t n;
    const char *end;
    if (parse_number(value, false, &n, &end) || *end || n > WARM_MAX)
        return error_set(e, -EINVAL, "--warm %.40s: choose a number from 0 to %u", value, WARM_MAX);
    o->vm.engine_config.warm = (unsigned)n + 1;
    return 0;
}

const struct verify_choice verify_choices[] = {
    { "all", 1 },
    { "sample", ENGINE_VERIFY_SAMPLE },
    { "off", ENGINE_VERIFY_OFF },
    { NULL, 0 },
};

static int set_verify_code(struct run_options *o, const char *value, struct error *e)
{
    for (const struct verify_choice *c = verify_choices; c->name; c++) {
        if (!strcmp(value, c->name)) {
            o->vm.engine_config.verify_every = c->every;
            return 0;
        }
    }
    return error_set(e, -EINVAL, "--verify-code %.40s: choose all, sample or off", value);
}

static int set_perf_map(struct run_options *o, const char *value, struct error *e)
{
    (void)value;
    (void)e;
    o->vm.engine_config.perf_map = true;
    return 0;
}

static int set_count(struct run_options *o, const char *value, struct error *e)
{
    (void)value;
    (void)e;
    o->vm.engine_config.count = true;
    return 0;
}

static int set_path(const char **to, const char *option, const char *value, struct error *e)
{
    if (!*value)
        return error_set(e, -EINVAL, "%s: the file name is empty", option);
    *to = value;
    return 0;
}

static int set_kernel(struct run_options *o, const char *value, struct error *e)
{
    return set_path(&o->vm.board.kernel, "--kernel", value, e);
}

static int set_initrd(struct run_options *o, const char *value, struct error *e)
{
    return set_path(&o->vm.board.initrd, "--initrd", value, e);
}

static int set_trace_blocks(struct run_options *o, const char *value, struct error *e)
{
    return set_path(&o->trace_blocks_path, "--trace-blocks", value, e);
}

static int set_append(struct run_options *o, const char *value, struct error *e)
{
    (void)e;
    o->vm.board.append = value;
    return 0;
}

static int set_entry(struct run_options *o, const char *value, struct error *e)
{
    for (unsigned i = 0; i <= KERNEL_ENTRY_PVH; i++) {
        if (!strcmp(value, kernel_entry_names[i])) {
            o->vm.board.entry = (enum kernel_entry)i;
            return 0;
        }
    }
    return error_set(e, -EINVAL, "--kernel-entry %.40s: choose auto, bzimage or pvh", value);
}

static int set_serial(struct run_options *o, const char *value, struct error *e)
{
    if (!strcmp(value, "stdio")) {
        o->serial = SERIAL_STDIO;
    } else if (!strcmp(value, "none")) {
        o->serial = SERIAL_NONE;
    } else if (!strncmp(value, "file:", 5)) {
        o->serial = SERIAL_FILE;
        return set_path(&o->serial_path, "--serial file:", value + 5, e);
    } else {
        return error_set(e, -EINVAL, "--serial %.80s: choose stdio, file:PATH or none", value);
    }
    return 0;
}

static int set_device(struct run_options *o, const char *value, struct error *e)
{
    static const char name[] = "debug-exit";
    const size_t len = sizeof(name) - 1;
    if (strncmp(value, name, len) || (value[len] && value[len] != ','))
        return error_set(e, -EINVAL, "--device %.80s: no such device; there is debug-exit[,port=0xf4]",
                         value);
    o->vm.board.debug_exit = true;
    o->vm.board.debug_exit_port = 0xf4;
    if (!value[len])
        return 0;
    uint64_t port;
    const char *end, *property = value + len + 1;
    if (strncmp(property, "port=", 5))
        return error_set(e, -EINVAL, "--device %.80s: debug-exit has one property, port=NUMBER", value);
    if (parse_number(property + 5, true, &port, &end) || *end || port > 0xffff)
        return error_set(e, -EINVAL, "--device %.80s: choose a port from 0 to 0xffff", value);
    o->vm.board.debug_exit_port = (uint16_t)port;
    return 0;
}

static int set_no_reboot(struct run_options *o, const char *value, struct error *e)
{
    (void)value;
    (void)e;
    o->vm.no_reboot = true;
    return 0;
}

#define TIMEOUT_MAX_SECONDS 1000000000u

static int set_timeout(struct run_options *o, const char *value, struct error *e)
{
    uint64_t seconds, fraction = 0, scale = 1000000000;
    const char *end;
    int bad = parse_number(value, false, &seconds, &end);
    if (!bad && *end == '.')
        for (end++; *end >= '0' && *end <= '9' && scale > 1; end++)
            fraction += (uint64_t)(*end - '0') * (scale /= 10);
    if (bad || *end || seconds > TIMEOUT_MAX_SECONDS || (!seconds && !fraction))
        return error_set(e, -EINVAL, "--timeout %.40s: choose a number of seconds greater than 0", value);
    o->timeout_ns = seconds * 1000000000u + fraction;
    return 0;
}

static int set_stats(struct run_options *o, const char *value, struct error *e)
{
    o->stats = true;
    return value ? set_path(&o->stats_path, "--stats", value, e) : 0;
}

static int set_verbose(struct run_options *o, const char *value, struct error *e)
{
    (void)value;
    (void)e;
    o->verbose = true;
    return 0;
}

static int set_dry_run(struct run_options *o, const char *value, struct error *e)
{
    (void)value;
    (void)e;
    o->dry_run = true;
    return 0;
}

static int set_help(struct run_options *o, const char *value, struct error *e)
{
    (void)value;
    (void)e;
    o->help = true;
    return 0;
}

/* --- the table ------------------------------------------------------------------------------------------ */

/* clang-format off */
enum kind {
    TAKES_NOTHING, TAKES_VALUE, MAY_TAKE_VALUE,
    ARITY = 3,
    TRANSLATOR = 4, /* means nothing to an engine that ignores its configuration */
};
/* clang-format on */

static const struct option {
    const char *name;
    unsigned kind;
    const char *value; /* how help names it */
    int (*set)(struct run_options *o, const char *value, struct error *e);
    const char *help;
} options[] = {
    { "--kernel", TAKES_VALUE, "FILE", set_kernel,
      "Linux bzImage (vmlinuz), ELF vmlinux, or Multiboot kernel" },
    { "--initrd", TAKES_VALUE, "FILE", set_initrd,
      "initial RAM disk; Multiboot: \"MODULE ARGS,MODULE ARGS\"" },
    { "--append", TAKES_VALUE, "STRING", set_append, "kernel command line" },
    { "--kernel-entry", TAKES_VALUE, "HOW", set_entry,
      "auto (default), bzimage, or pvh: the fast way past the kernel's unpacker" },
    { "--cpus", TAKES_VALUE, "N", set_cpus, "processors, 1 (default) to 8" },
    { "--memory", TAKES_VALUE, "SIZE", set_memory, "with K, M or G; default 512M" },
    { "--cpu-model", TAKES_VALUE, "NAME", set_cpu_model,
      "host (default): all that this one has; v1 to v4: levels of x86-64" },
    { "--engine", TAKES_VALUE, "NAME", set_engine,
      "auto (default: the best usable of `sundog doctor`) or one of:" },
    { "--code-cache", TAKES_VALUE | TRANSLATOR, "SIZE", set_code_cache,
      "translated code kept a processor, 1M to 2G, such as 32M" },
    { "--engine-off", TAKES_VALUE | TRANSLATOR, "PASS[,PASS]", set_engine_off,
      "leave passes of the translator out, to find which is to blame:" },
    { "--warm", TAKES_VALUE | TRANSLATOR, "N", set_warm,
      "runs of a block before it is translated; 0: translate everything" },
    { "--verify-code", TAKES_VALUE | TRANSLATOR, "HOW", set_verify_code,
      "all, sample or off: which translated code is proved harmless" },
    { "--trace-blocks", TAKES_VALUE | TRANSLATOR, "FILE", set_trace_blocks,
      "write guest code beside the host code made of it" },
    { "--perf-map", TAKES_NOTHING | TRANSLATOR, NULL, set_perf_map,
      "write /tmp/perf-PID.map: `perf top` names guest code" },
    { "--count", TAKES_NOTHING | TRANSLATOR, NULL, set_count,
      "count each instruction for --stats, which costs time" },
    { "--serial", TAKES_VALUE, "WHERE", set_serial, "stdio (default), file:PATH, or none" },
    { "--device", TAKES_VALUE, "NAME", set_device,
      "debug-exit[,port=0xf4]: a write of v ends with status (v<<1)|1" },
    { "--no-reboot", TAKES_NOTHING, NULL, set_no_reboot, "a guest's reset ends the run" },
    { "--timeout", TAKES_VALUE, "SECONDS", set_timeout, "end with status 124 after this time" },
    { "--stats", MAY_TAKE_VALUE, "FILE", set_stats, "write counters as JSON at the end, to stderr or FILE" },
    { "--verbose", TAKES_NOTHING, NULL, set_verbose, "say more on stderr, such as what is not implemented" },
    { "--dry-run", TAKES_NOTHING, NULL, set_dry_run, "check everything, print what would run, run nothing" },
    { "--help", TAKES_NOTHING, NULL, set_help, "this text" },
};

/* Names that other tables hold, put behind an option's help text. */
static void explain_choices(const struct option *opt)
{
    char passes[200];
    if (opt->set == set_engine) {
        printf("  %-26s", "");
        for (const struct engine_ops *const *engine = engine_table; *engine; engine++)
            printf("%s%s", engine == engine_table ? " " : ", ", (*engine)->name);
        printf("\n");
    } else if (opt->set == set_engine_off) {
        engine_format_passes(~0u, ",", passes, sizeof(passes));
        printf("  %-26s %s\n", "", passes);
    }
}

void options_explain(void)
{
    for (unsigned i = 0; i < array_size(options); i++) {
        const struct option *opt = &options[i];
        char left[40];
        snprintf(left, sizeof(left), (opt->kind & ARITY) == MAY_TAKE_VALUE ? "%s[=%s]" : "%s %s", opt->name,
                 opt->value ? opt->value : "");
        printf("  %-26s %s\n", left, opt->help);
        explain_choices(opt);
    }
}

/* The option that `arg` names, and in *value what follows its '='. */
static const struct option *find(const char *arg, const char **value)
{
    size_t len = strcspn(arg, "=");
    *value = arg[len] ? arg + len + 1 : NULL;
    for (unsigned i = 0; i < array_size(options); i++)
        if (strlen(options[i].name) == len && !strncmp(options[i].name, arg, len))
            return &options[i];
    return NULL;
}

/* What would be ignored is refused, but not under auto: a script that tunes the translator is to run on a host
 * that has none. */
static int check_engine(const struct run_options *o, const bool *seen, struct error *e)
{
    if (!strcmp(o->vm.engine, "auto"))
        return 0;
    const struct engine_ops *engine = engine_find(o->vm.engine, e);
    for (unsigned i = 0; i < array_size(options); i++)
        if (seen[i] && (options[i].kind & TRANSLATOR) && engine->ignores_config)
            return error_set(e, -EINVAL,
                             "%s means nothing to the engine %s: leave it out, or choose another --engine",
                             options[i].name, engine->name);
    return 0;
}

static int check_whole(const struct run_options *o, const bool *seen, struct error *e)
{
    int err = check_engine(o, seen, e);
    if (err)
        return err;
    if (!o->vm.board.kernel)
        return error_set(e, -EINVAL,
                         "--kernel is missing: try --kernel /boot/vmlinuz, or `sundog run --help`");
    return 0;
}

int options_parse(struct run_options *o, int argc, char **argv, struct error *e)
{
    bool seen[array_size(options)] = { false };
    *o = (struct run_options){
        .vm = { .engine = "auto", .cpus = 1, .memory = 512ull << 20, .board.append = "" }
    };
    for (int i = 1; i < argc; i++) {
        const char *value;
        const struct option *opt = find(argv[i], &value);
        if (!opt)
            return error_set(e, -EINVAL,
                             argv[i][0] == '-' ? "no option '%.80s'; try `sundog run --help`"
                                               : "'%.80s' belongs to no option; try `sundog run --help`",
                             argv[i]);
        const unsigned arity = opt->kind & ARITY;
        if (arity == TAKES_NOTHING && value)
            return error_set(e, -EINVAL, "%s takes no value", opt->name);
        if (arity == TAKES_VALUE && !value) {
            if (++i == argc)
                return error_set(e, -EINVAL, "%s wants a value: %s", opt->name, opt->value);
            value = argv[i];
        }
        /* Said twice, one of the two would be ignored. A plain switch means the same however often. */
        if (seen[opt - options] && arity != TAKES_NOTHING)
            return error_set(e, -EINVAL, "%s is given twice: the first would be ignored", opt->name);
        seen[opt - options] = true;
        int err = opt->set(o, value, e);
        if (err)
            return err;
        if (o->help)
            return 0;
    }
    o->vm.board.serial = o->serial != SERIAL_NONE;
    return check_whole(o, seen, e);
}
