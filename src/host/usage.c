/* SPDX-License-Identifier: Apache-2.0 */
/* Memory in use, as /proc/self/smaps and /proc/self/status tell it. */
#include "host/usage.h"

#include <stdio.h>

/* The number behind `name` in a line such as "Rss:   12 kB", as bytes. */
static bool kib_line(const char *line, const char *name, uint64_t *bytes)
{
    unsigned n = 0;
    while (name[n] && line[n] == name[n])
        n++;
    unsigned long long kib;
    if (name[n] || sscanf(line + n, ": %llu kB", &kib) != 1)
        return false;
    *bytes = kib << 10;
    return true;
}

static void add_to_range(struct host_range *ranges, unsigned count, uintptr_t first, uintptr_t end,
                         uint64_t bytes)
{
    for (unsigned i = 0; i < count; i++) {
        uintptr_t start = (uintptr_t)ranges[i].start;
        if (first >= start && end <= start + ranges[i].len)
            ranges[i].resident += bytes;
    }
}

static bool read_maps(struct host_usage *u, struct host_range *ranges, unsigned count)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    if (!f)
        return false;
    char line[512];
    unsigned long first = 0, end = 0;
    bool whole = true; /* a path that is longer than a line goes on in the next one */
    while (fgets(line, sizeof(line), f)) {
        unsigned long a, b;
        char space;
        uint64_t bytes;
        bool begins = whole;
        whole = false;
        for (const char *p = line; *p; p++)
            whole = *p == '\n';
        if (!begins)
            continue;
        if (sscanf(line, "%lx-%lx%c", &a, &b, &space) == 3) {
            first = a;
            end = b;
        } else if (kib_line(line, "Rss", &bytes)) {
            u->rss += bytes;
            add_to_range(ranges, count, first, end, bytes);
        }
    }
    fclose(f);
    return u->rss != 0;
}

static bool read_page_tables(struct host_usage *u)
{
    FILE *f = fopen("/proc/self/status", "re");
    if (!f)
        return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof(line), f))
        found = kib_line(line, "VmPTE", &u->page_tables);
    fclose(f);
    return found;
}

static void clear(struct host_usage *u, struct host_range *ranges, unsigned count)
{
    *u = (struct host_usage){ 0 };
    for (unsigned i = 0; i < count; i++)
        ranges[i].resident = 0;
}

bool host_usage_read(struct host_usage *u, struct host_range *ranges, unsigned count)
{
    clear(u, ranges, count);
    bool ok = read_maps(u, ranges, count) && read_page_tables(u);
    if (!ok)
        clear(u, ranges, count);
    return ok;
}
