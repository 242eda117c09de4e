/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter: complete simulation in C, the reference the other engines are tested against. */
#ifndef SUNDOG_ENGINE_INTERP_INTERP_H
#define SUNDOG_ENGINE_INTERP_INTERP_H

#include "engine/engine.h"

extern const struct engine_ops interp_engine;

#endif
