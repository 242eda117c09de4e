/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter: complete simulation in C, the reference the other engines are tested against. */
#ifndef SUNDOG_ENGINE_INTERP_INTERP_H
#define SUNDOG_ENGINE_INTERP_INTERP_H

#include "engine/engine.h"

extern const struct engine_ops interp_engine;

/* For tests: calls `trace` before each instruction, with the state exact. One instruction at a time from
 * then on; NULL ends it. */
void interp_set_trace(struct vcpu *v, void (*trace)(void *ctx, const struct vcpu *v), void *ctx);

#endif
