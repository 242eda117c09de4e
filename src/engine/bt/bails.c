/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What translated code left to the interpreter or called it for, by instruction: written behind the traced units when the vcpu ends.
 *
 * Counted only while blocks are traced, since each bail is decoded again.
 */
#include "engine/bt/bt.h"

#include <stdio.h>
#include <stdlib.h>

#include "cpu/mode.h"
#include "host/file.h"

#define SAMPLE 15u

/* Why: nobody translates it; its memory or target took the slow way; it crosses into another page; it is done by a call. */
enum bail_reason { BAIL_NOT_TRANSLATED, BAIL_SLOW, BAIL_CROSSING, BAIL_CALLED, BAIL_REASONS };

struct bail {
    uint64_t count;
    uint8_t sample[SAMPLE]; /* the last one's bytes */
};

struct bt_bails {
    struct bail by[INSN_ID_COUNT][BAIL_REASONS];
};

static const char *const reasons[BAIL_REASONS] = { "not translated", "slow", "crossing", "called" };

void bt_bails_open(struct bt *b)
{
    if (b->cfg.trace_fd > 0)
        b->bails = calloc(1, sizeof(*b->bails));
}

void bt_bails_note(struct bt *b, uint32_t exit)
{
    struct vcpu *v = b->v;
    if (!b->bails)
        return;
    uint64_t lin = (v->sf[SEG_CS].base + v->s.rip) & v->lin_mask;
    struct mmu_result r = mmu_peek(&v->mmu, GVA(lin), ACCESS_FETCH, v->mmu.index);
    if (!r.page || !r.page->host)
        return;
    struct insn in = { 0 };
    unsigned off = lin & PAGE_OFFSET_MASK, avail = PAGE_SIZE - off < SAMPLE ? PAGE_SIZE - off : SAMPLE;
    enum decode_status st = insn_decode(&in, r.page->host + off, avail, mode_code_bytes(v->mode));
    enum bail_reason why = st == DECODE_MORE ? BAIL_CROSSING
                           : EXIT_REST(exit) ? BAIL_SLOW
                                             : BAIL_NOT_TRANSLATED;
    struct bail *x = &b->bails->by[st == DECODE_OK ? in.id : INSN_INVALID][why];
    x->count++;
    memset(x->sample, 0, SAMPLE);
    memcpy(x->sample, r.page->host + off, st == DECODE_OK ? in.len : avail);
}

void bt_bails_called(struct bt *b, unsigned id, const uint8_t *bytes, unsigned len)
{
    if (!b->bails)
        return;
    struct bail *x = &b->bails->by[id][BAIL_CALLED];
    x->count++;
    memset(x->sample, 0, SAMPLE);
    memcpy(x->sample, bytes, len);
}

static void write_one(FILE *out, unsigned id, enum bail_reason why, const struct bail *x)
{
    unsigned len = SAMPLE;
    while (len > 1 && !x->sample[len - 1])
        len--;
    fprintf(out, "bails %llu %s, %s, as in ", (unsigned long long)x->count,
            insn_names[id] ? insn_names[id] : "?", reasons[why]);
    for (unsigned i = 0; i < len; i++)
        fprintf(out, "%02x", x->sample[i]);
    fputc('\n', out);
}

void bt_bails_close(struct bt *b)
{
    FILE *out = b->bails ? host_file_stream(b->cfg.trace_fd) : NULL;
    if (out) {
        for (unsigned id = 0; id < INSN_ID_COUNT; id++)
            for (unsigned why = 0; why < BAIL_REASONS; why++)
                if (b->bails->by[id][why].count)
                    write_one(out, id, why, &b->bails->by[id][why]);
        fclose(out);
    }
    free(b->bails);
    b->bails = NULL;
}
