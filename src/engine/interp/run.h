/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter's run loop in pieces, for an engine that uses it for what it does not do itself. v->engine_data is a struct
 * interp; v->unwind is set. All on the vcpu's thread. */
#ifndef SUNDOG_ENGINE_INTERP_RUN_H
#define SUNDOG_ENGINE_INTERP_RUN_H

#include "engine/interp/block.h"

/* At entry of engine.run; fpu_leave() at its exit. */
void interp_begin(struct vcpu *v, uint64_t until_count);
/* Takes events; true: an instruction can be executed now, false: *cause says why the run ends. */
bool interp_ready(struct vcpu *v, enum exit_cause *cause);
/* One instruction (of a repeated string instruction: a chunk), with single step, shadows and breakpoints. */
void interp_run_one(struct vcpu *v);
/* The block at CS:rip, which was run here less than `times` times (0 to 255), and those behind it that were run here before, but not
 * so often, as long as the mode stays. The first has no need of interp_run_one() (MODE_STEP clear) and fits the count. Returns how
 * many: 0, there is none. */
unsigned interp_run_cold(struct vcpu *v, unsigned times);
/* After setjmp() on v->unwind returned `why`: the state is made exact, an exception is delivered. */
void interp_unwound(struct vcpu *v, int why);
/* The instruction at CS:rip raises this page fault, which is delivered: as if it had run and unwound. */
void interp_page_fault(struct vcpu *v, uint64_t addr, uint32_t error);
/* Host address of the byte at CS:rip's linear address for fetching, with its page; NULL: no memory there. Raises what the
 * fetch raises. */
const uint8_t *interp_fetch(struct vcpu *v, uint64_t lin, struct page **page, gpa *addr);

/* The same through the TLB, without the page. */
const uint8_t *interp_fetch_host(struct vcpu *v, uint64_t lin);

#endif
