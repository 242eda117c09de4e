/* SPDX-License-Identifier: Apache-2.0 */
/* The CPUID instruction: the model's table with what differs from processor to processor and from moment to
 * moment. */
#include "base/bits.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "isa/insn.h"

#define LEAF1_ECX_OSXSAVE (1u << 27)
#define FEATURE_APIC (1u << 9) /* leaf 1 EDX, AMD 0x80000001 EDX */
#define APIC_BASE_ENABLED BIT(11)

uint64_t cpu_features(const struct vcpu *v)
{
    if (!v->model)
        return 0;
    return v->model->features | (vcpu_protected(v) ? 0 : FEATURES_NO_VEX);
}

static void set_bits(uint32_t *word, uint32_t mask, bool on) { *word = (*word & ~mask) | (on ? mask : 0); }

void cpu_cpuid(struct vcpu *v)
{
    uint32_t leaf = (uint32_t)v->s.gpr[RAX], subleaf = (uint32_t)v->s.gpr[RCX], out[4];
    bool apic = v->s.msr.apic_base & APIC_BASE_ENABLED;
    v->counters.exits_cpuid++;
    model_cpuid(v->model, leaf, subleaf, out);
    switch (leaf) {
    case 1:
        out[1] |= v->index << 24;
        set_bits(&out[2], LEAF1_ECX_OSXSAVE, v->s.cr4 & CR4_OSXSAVE);
        set_bits(&out[3], FEATURE_APIC, apic);
        break;
    case 0xb: out[3] = v->index; break;
    case 0xd: /* the size of an image with what is enabled now; there are no supervisor components */
        if (subleaf == 0 || (subleaf == 1 && v->model->features & FEATURE_BIT(FEAT_XSAVEC)))
            out[1] = model_xsave_size(v->model, v->s.fpu.xcr0, subleaf == 1);
        break;
    case 0x80000001:
        if (out[3] & FEATURE_APIC)
            set_bits(&out[3], FEATURE_APIC, apic);
        break;
    case 0x8000001e: out[0] = out[1] = v->index; break;
    default: break;
    }
    v->s.gpr[RAX] = out[0];
    v->s.gpr[RBX] = out[1];
    v->s.gpr[RCX] = out[2];
    v->s.gpr[RDX] = out[3];
}
