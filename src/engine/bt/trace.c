/* SPDX-License-Identifier: Apache-2.0 */
/* To see inside: each unit's guest code beside its host code, and a map that names units for perf. */
#include "engine/bt/unit.h"
#include "host/file.h"

#include <stdio.h>

static void put_hex(FILE *out, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%02x", p[i]);
}

/* One line an instruction: its offset in the page, its bytes, the host bytes made for it; then the stubs. */
static void write_unit(FILE *out, const struct translation *t)
{
    const struct bt_unit *u = t->unit;
    uint64_t lin = t->b->v->s.rip;
    fprintf(out,
            "unit %u guest %#llx key %#x insns %u guest_bytes %u host %#llx host_bytes %u stubs %#llx "
            "stub_bytes %u\n",
            (unsigned)(u - t->b->units), (unsigned long long)lin, u->key, u->insns, u->guest_bytes,
            (unsigned long long)bt_exec_addr(t->b, t->host_start), u->code_bytes,
            (unsigned long long)bt_exec_addr(t->b, t->host_stubs), u->stub_bytes);
    uint32_t from = t->host_start;
    for (unsigned i = 0; i <= t->plan.count; i++) {
        uint32_t to = i < t->plan.count ? t->plan.insns[i].host_at : t->host_start + u->code_bytes;
        fputs("  host ", out);
        put_hex(out, t->b->code.write + from, to - from);
        fputc('\n', out);
        if (i < t->plan.count) {
            const struct planned *p = &t->plan.insns[i];
            fprintf(out, "guest %03x ", p->off);
            unsigned end = p->end < PAGE_SIZE ? p->end : PAGE_SIZE,
                     len = end - p->off; /* the rest is on another page */
            put_hex(out, u->host + (p->off - t->plan.start), len);
            fputc('\n', out);
        }
        from = to;
    }
    fputs("  stubs ", out);
    put_hex(out, t->b->code.write + t->host_stubs, u->stub_bytes);
    fputc('\n', out);
}

static void name_for_perf(const struct translation *t, uint32_t at, unsigned bytes, const char *part)
{
    fprintf(t->b->perf_map, "%llx %x guest_%s_%llx%s\n", (unsigned long long)bt_exec_addr(t->b, at), bytes,
            mode_cpl(t->key) == 3 ? "user" : "kernel", (unsigned long long)t->b->v->s.rip, part);
}

void bt_trace_unit(const struct translation *t)
{
    const struct bt *b = t->b;
    if (b->cfg.trace_fd > 0) {
        FILE *out = host_file_stream(b->cfg.trace_fd);
        if (out) {
            write_unit(out, t);
            fclose(out);
        }
    }
    if (b->perf_map) {
        name_for_perf(t, t->host_start, t->unit->code_bytes, "");
        name_for_perf(t, t->host_stubs, t->unit->stub_bytes, "_stubs");
    }
}

void bt_trace_open(struct bt *b)
{
    if (!b->cfg.perf_map)
        return;
    b->perf_map = host_perf_map_open();
    if (b->perf_map)
        fprintf(b->perf_map, "%llx %x sundog_gates\n", (unsigned long long)bt_exec_addr(b, 0), b->gates_end);
}

void bt_trace_close(struct bt *b)
{
    if (b->perf_map)
        fclose(b->perf_map);
    b->perf_map = NULL;
}
