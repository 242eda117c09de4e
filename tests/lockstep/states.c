/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing states by their field tables. */
#include "states.h"

#include <string.h>

#include "cpu/state.h"

const char *const register_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

static uint64_t value(const struct state_field *f, const void *state, uint32_t i)
{
    uint64_t v = 0;
    memcpy(&v, (const uint8_t *)state + f->offset + (size_t)i * f->width, f->width);
    return v;
}

unsigned state_differences(const struct state_object *a, const struct state_object *b, struct difference *out,
                           unsigned max)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < a->cls->nfields; i++) {
        const struct state_field *f = &a->cls->fields[i];
        if (!memcmp((const uint8_t *)a->data + f->offset, (const uint8_t *)b->data + f->offset,
                    (size_t)f->count * f->width))
            continue;
        for (uint32_t k = 0; k < f->count; k++) {
            uint64_t va = value(f, a->data, k), vb = value(f, b->data, k);
            if (va == vb)
                continue;
            if (n < max)
                out[n] = (struct difference){ a->cls, a->instance, f, k, va, vb };
            n++;
        }
    }
    return n;
}

void flags_text(uint64_t rflags, char *out, size_t len)
{
    static const struct {
        uint64_t bit;
        const char *name;
    } names[] = {
        { FL_CF, "CF" },   { FL_PF, "PF" },     { FL_AF, "AF" },     { FL_ZF, "ZF" }, { FL_SF, "SF" },
        { FL_TF, "TF" },   { FL_IF, "IF" },     { FL_DF, "DF" },     { FL_OF, "OF" }, { FL_NT, "NT" },
        { FL_RF, "RF" },   { FL_VM, "VM" },     { FL_AC, "AC" },     { FL_ID, "ID" }, { FL_VIF, "VIF" },
        { FL_VIP, "VIP" }, { 0x1000, "IOPL1" }, { 0x2000, "IOPL2" },
    };
    size_t at = 0;
    out[0] = 0;
    for (unsigned i = 0; i < array_size(names) && at < len; i++)
        if (rflags & names[i].bit)
            at += (size_t)snprintf(out + at, len - at, "%s%s", at ? " " : "", names[i].name);
}

/* Array members that have names of their own. */
static void print_name(FILE *f, const struct difference *d)
{
    fprintf(f, "%s%u.%s", d->cls->name, d->instance, d->field->name);
    if (d->field->count > 1)
        fprintf(f, "[%u]", d->index);
    if (d->cls != &vcpu_state_class)
        return;
    if (!strcmp(d->field->name, "gpr"))
        fprintf(f, " (%s)", register_names[d->index]);
    else if (!strcmp(d->field->name, "fpu.st"))
        fprintf(f, " (st%u)", d->index / 16);
    else if (!strcmp(d->field->name, "fpu.xmm"))
        fprintf(f, " (xmm%u)", d->index / 16);
}

void difference_print(FILE *f, const struct difference *d, const char *name_a, const char *name_b)
{
    fprintf(f, "  ");
    print_name(f, d);
    fprintf(f, ": %s 0x%llx, %s 0x%llx", name_a, (unsigned long long)d->a, name_b, (unsigned long long)d->b);
    bool cc = d->cls == &vcpu_state_class && !strcmp(d->field->name, "cc");
    bool flags = d->cls == &vcpu_state_class && !strcmp(d->field->name, "rflags");
    if (cc || flags) {
        char a[80], b[80];
        flags_text(cc ? cc_to_flags((uint16_t)d->a) : d->a, a, sizeof(a));
        flags_text(cc ? cc_to_flags((uint16_t)d->b) : d->b, b, sizeof(b));
        fprintf(f, "  (%s | %s)", a, b);
    }
    fputc('\n', f);
}
