/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `sundog run`: parsed, validated, explained, all from one table. */
#ifndef SUNDOG_CONTROL_OPTIONS_H
#define SUNDOG_CONTROL_OPTIONS_H

#include "base/error.h"
#include "vm/vm.h"

enum serial_kind { SERIAL_STDIO, SERIAL_FILE, SERIAL_NONE };

struct run_options {
    struct vm_config vm;
    enum serial_kind serial;
    const char *serial_path;
    uint64_t timeout_ns; /* 0: none */
    bool stats;
    const char *stats_path;        /* NULL: stderr */
    const char *trace_blocks_path; /* NULL: none; opened by who runs the machine */
    bool verbose, dry_run, help;
};

/* argv[0] is the command's name; strings stay argv's. 0, or -EINVAL with a message. */
int options_parse(struct run_options *o, int argc, char **argv, struct error *e);
/* Prints the options' lines of the help text. */
void options_explain(void);

/* A number with an optional K, M or G (powers of 1024). 0 or -EINVAL. */
int parse_size(const char *s, uint64_t *out);
/* Writes `bytes` as people do, "512M". */
void format_size(uint64_t bytes, char *out, size_t len);

/* Values of --verify-code and what they are in engine_config.verify_every; ends with a NULL name. */
struct verify_choice {
    const char *name;
    unsigned every;
};
extern const struct verify_choice verify_choices[];

extern const char *const kernel_entry_names[]; /* by enum kernel_entry */

#endif
