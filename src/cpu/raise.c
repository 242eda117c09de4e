/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving the current instruction: every exception, and the restart before a store to code, unwinds to
 * v->unwind from here. */
#include "cpu/vcpu.h"

static void note(struct vcpu *v, struct exception x)
{
    v->exception = x;
    v->counters.exits_exception++;
}

static noreturn_fn void unwind_with(struct vcpu *v, struct exception x)
{
    note(v, x);
    longjmp(*v->unwind, UNWIND_EXCEPTION);
}

noreturn_fn void cpu_raise(struct vcpu *v, enum vector vec)
{
    unwind_with(v, (struct exception){ .vector = (uint8_t)vec });
}

noreturn_fn void cpu_raise_error(struct vcpu *v, enum vector vec, uint32_t error)
{
    unwind_with(v, (struct exception){ .vector = (uint8_t)vec, .has_error = true, .error = error });
}

void cpu_note_page_fault(struct vcpu *v, uint64_t addr, uint32_t error)
{
    v->s.cr2 = addr;
    note(v, (struct exception){ .vector = VEC_PF, .has_error = true, .error = error });
}

noreturn_fn void cpu_raise_page_fault(struct vcpu *v, uint64_t addr, uint32_t error)
{
    cpu_note_page_fault(v, addr, error);
    longjmp(*v->unwind, UNWIND_EXCEPTION);
}

noreturn_fn void cpu_raise_unimplemented(struct vcpu *v, uint64_t opcode_bytes)
{
    tally_add(v->tally, TALLY_INSN, opcode_bytes);
    cpu_raise(v, VEC_UD);
}

noreturn_fn void cpu_restart_alone(struct vcpu *v) { longjmp(*v->unwind, UNWIND_ALONE); }
