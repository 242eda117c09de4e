/* SPDX-License-Identifier: Apache-2.0 */
/* Where the workloads run: a guest's first process, or a folder on the host that looks like its root. */
#define _GNU_SOURCE
#include "bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE = 4096 };

void place_init(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/tmp", 01777);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    need(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

/* Without root's rights a user namespace gives them over our own mounts. */
static void own_mounts(void)
{
    char map[64];
    unsigned uid = geteuid(), gid = getegid();
    need(unshare(uid ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) == 0, "a mount namespace of our own");
    if (uid) {
        write_text("/proc/self/setgroups", "deny");
        snprintf(map, sizeof(map), "0 %u 1", uid);
        write_text("/proc/self/uid_map", map);
        snprintf(map, sizeof(map), "0 %u 1", gid);
        write_text("/proc/self/gid_map", map);
    }
    need(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private mounts");
}

void place_enter(const char *root)
{
    own_mounts();
    need(chdir(root) == 0, root);
    need(mount("tmpfs", "tmp", "tmpfs", 0, NULL) == 0, "tmp in the programs' root");
    need(mount("/dev", "dev", NULL, MS_BIND | MS_REC, NULL) == 0, "dev in the programs' root");
    need(mount("/proc", "proc", NULL, MS_BIND | MS_REC, NULL) == 0, "proc in the programs' root");
    need(chroot(".") == 0 && chdir("/") == 0, "the programs' root");
}

/* The first line of a file, without its end; "" when there is none. */
static const char *first_line(const char *path, char *line)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, line, LINE - 1);
    if (fd >= 0)
        close(fd);
    line[n > 0 ? n : 0] = 0;
    line[strcspn(line, "\n")] = 0;
    return line;
}

static void describe_processor(void)
{
    /* Name in /proc/cpuinfo, ours. */
    static const char *const kept[][2] = { { "vendor_id", "vendor" },
                                           { "model name", "model" },
                                           { "flags", "flags" } };
    char line[LINE];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');
        for (size_t i = 0; colon && i < sizeof(kept) / sizeof(kept[0]); i++)
            if (!strncmp(line, kept[i][0], strlen(kept[i][0])))
                printf("bench-info %s%s", kept[i][1], colon + 1);
        if (line[0] == '\n')
            break;
    }
    if (f)
        fclose(f);
}

void place_describe(void)
{
    static const char folder[] = "/sys/devices/system/cpu/vulnerabilities";
    char line[LINE], path[512];
    struct dirent *e;
    describe_processor();
    printf("bench-info clocksource %s\n",
           first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", line));
    DIR *d = opendir(folder);
    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        printf("bench-info mitigation/%s %s\n", e->d_name, first_line(path, line));
    }
    if (d)
        closedir(d);
    fflush(stdout);
}
