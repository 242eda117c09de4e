/* SPDX-License-Identifier: Apache-2.0 */
/* `sundog version` and the help texts. */
#include <stdio.h>
#include <string.h>

#include "control/control.h"
#include "control/options.h"

int command_version(int argc, char **argv)
{
    if (argc > 1) {
        diag("version takes no argument, and there is '%.80s'", argv[1]);
        return STATUS_FAILED;
    }
    return say("sundog %s\n", SUNDOG_VERSION);
}

static const char intro[] =
    "Sundog runs a whole PC in one process: no root, no kernel module.\n"
    "\n"
    "  Boot a Debian kernel with an initramfs, on this terminal; Ctrl-A x ends it:\n"
    "    sundog run --kernel vmlinuz --initrd initrd.img --append \"console=ttyS0\"\n"
    "\n"
    "  In a script: quiet, ends by itself, with a limit and counters:\n"
    "    sundog run --memory 512M --kernel vmlinuz --initrd test.cpio \\\n"
    "        --append \"console=ttyS0 quiet panic=-1\" --no-reboot --timeout 60 --stats=stats.json\n"
    "\n"
    "  A kernel of your own (Multiboot) that reports by exit status and serial port:\n"
    "    sundog run --kernel os.elf --device debug-exit --serial file:log --no-reboot\n"
    "\n"
    "  A guest misbehaves: is a pass of the translator to blame, and which?\n"
    "    sundog run --kernel vmlinuz --engine interp\n"
    "    sundog run --kernel vmlinuz --engine-off superblock,adapt --verify-code all\n"
    "\n"
    "  Where does the guest spend its time? What was made of its code?\n"
    "    sundog run --kernel vmlinuz --perf-map      elsewhere: perf top -p $(pidof sundog)\n"
    "    sundog run --kernel vmlinuz --trace-blocks blocks.txt\n"
    "\n"
    "  What can this host do?           sundog doctor\n"
    "  Is everything there for a run?   sundog run --kernel ... --dry-run\n"
    "\n"
    "Commands: run, doctor, version, help\n"
    "\n"
    "Options of run (--name VALUE or --name=VALUE):\n";

static const char outro[] =
    "\n"
    "The guest's first serial port is stdout and stdin; diagnostics go to stderr.\n"
    "Keys: Ctrl-A x ends the machine, Ctrl-A h helps, Ctrl-A Ctrl-A sends one Ctrl-A.\n"
    "\n"
    "Exit status:\n"
    "  0    the guest powered off, or reset itself under --no-reboot, or Ctrl-A x\n"
    "  odd  the guest wrote v to debug-exit: (v<<1)|1, its low 8 bits\n"
    "  102  the guest crashed: triple fault under --no-reboot\n"
    "  124  --timeout was reached\n"
    "  126  Sundog could not do what was asked; one line on stderr says why\n";

int command_help(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[0], "help")) {
        diag("help takes no argument, and there is '%.80s'; try `sundog --help`", argv[1]);
        return STATUS_FAILED;
    }
    fputs(intro, stdout);
    options_explain();
    return say("%s", outro);
}
