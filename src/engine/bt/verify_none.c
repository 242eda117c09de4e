/* SPDX-License-Identifier: Apache-2.0 */
/* In the place of the verifier, in a build without Zydis. */
#include "engine/bt/verify.h"

bool verify_available(void) { return false; }
struct verifier *verifier_create(void) { return NULL; }
void verifier_free(struct verifier *w) { (void)w; }

bool verify_unit(struct verifier *w, const struct verify_unit *u, struct verify_result *r)
{
    (void)w, (void)u;
    *r = (struct verify_result){ .rule = "nothing can be verified in this build" };
    return false;
}

bool verify_gates(struct verifier *w, const struct verify_gates *g, struct verify_result *r)
{
    (void)w, (void)g;
    *r = (struct verify_result){ .rule = "nothing can be verified in this build" };
    return false;
}
