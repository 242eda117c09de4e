/* SPDX-License-Identifier: Apache-2.0 */
/* The program's entry: picks the command. */
#include <string.h>

#include "control/control.h"
#include "host/file.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "run", command_run },   { "doctor", command_doctor },     { "version", command_version },
    { "help", command_help }, { "--version", command_version }, { "--help", command_help },
    { "-h", command_help },
};

int main(int argc, char **argv)
{
    host_file_guard_std();
    if (argc < 2) {
        diag("no command; try `sundog --help`");
        return STATUS_FAILED;
    }
    for (unsigned i = 0; i < array_size(commands); i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    diag("no command '%.80s': there are run, doctor, version and help; try `sundog --help`", argv[1]);
    return STATUS_FAILED;
}
