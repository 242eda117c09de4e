/* SPDX-License-Identifier: Apache-2.0 */
/* `sundog doctor`: what this host and this build can do. */
#include <stdio.h>

#include "control/control.h"
#include "engine/engine.h"
#include "host/file.h"
#include "host/host_cpu.h"
#include "host/time.h"

static void host_lines(void)
{
    struct host_cpu_facts cpu;
    struct host_facts facts;
    host_cpu_read(&cpu);
    host_facts_read(&facts);
    printf("host\n");
    printf("  kernel      %s\n", facts.kernel);
    printf("  processor   %s (%s), %u usable, TSC %.3f GHz\n", cpu.brand, cpu.vendor, facts.cpus,
           (double)host_tsc_khz() / 1e6);
    printf("  memory      %.1f GiB\n", (double)facts.memory / (1u << 30));
}

static void kvm_line(void)
{
    char state[160];
    host_kvm_state(state, sizeof(state));
    printf("\n/dev/kvm\n  %s; no engine of this build needs it\n", state);
}

/* True when the engine can be used. */
static bool engine_lines(const struct engine_ops *engine)
{
    struct engine_report r = { 0 };
    engine->probe(&r);
    printf("  %-8s    %s\n", engine->name, engine->summary);
    if (r.usable && r.mips > 0)
        printf("              usable, measured %.0f million guest instructions a second\n", r.mips);
    else
        printf("              %s\n", r.usable ? "usable" : "not usable");
    if (r.why[0])
        printf("              %s\n", r.why);
    if (r.advice[0])
        printf("              try: %s\n", r.advice);
    return r.usable;
}

int command_doctor(int argc, char **argv)
{
    if (argc > 1) {
        diag("doctor takes no argument, and there is '%.80s'", argv[1]);
        return STATUS_FAILED;
    }
    printf("sundog %s\n\n", SUNDOG_VERSION);
    host_lines();
    printf("\nengines, best first; `--engine auto` takes the first usable one\n");
    bool any = false;
    for (const struct engine_ops *const *engine = engine_table; *engine; engine++)
        any |= engine_lines(*engine);
    kvm_line();
    int status = say("\n%s\n", any ? "This host can run guests." : "No engine can be used on this host.");
    return any ? status : STATUS_FAILED;
}
