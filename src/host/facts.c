/* SPDX-License-Identifier: Apache-2.0 */
/* What this host offers beside its processor, told for people. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host/file.h"

void host_kvm_state(char *out, size_t len)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        const char *why = errno == ENOENT   ? "not there"
                          : errno == EACCES ? "there, but this user may not open it"
                                            : strerror(errno);
        snprintf(out, len, "%s", why);
        return;
    }
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    int vm = version == KVM_API_VERSION ? ioctl(fd, KVM_CREATE_VM, 0) : -1;
    if (vm >= 0)
        snprintf(out, len, "usable (API version %d)", version);
    else
        snprintf(out, len, "there, but cannot create a machine: %s", strerror(errno));
    if (vm >= 0)
        close(vm);
    close(fd);
}

void host_facts_read(struct host_facts *f)
{
    *f = (struct host_facts){ .cpus = 1 };
    struct utsname name;
    if (uname(&name) == 0)
        snprintf(f->kernel, sizeof(f->kernel), "%.32s %.64s %.32s", name.sysname, name.release, name.machine);
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        f->cpus = (unsigned)CPU_COUNT(&set);
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGE_SIZE);
    if (pages > 0 && size > 0)
        f->memory = (uint64_t)pages * (uint64_t)size;
}
